"""Closed forms and naive loops; every collapse that is planted is named."""

from itertools import permutations
from math import exp, log, sqrt

import numpy as np
import pytest
import torch
from torch import Generator

from medssl.errors import InputError
from medssl.evaluation.health import (
    alignment,
    as_embeddings,
    cluster_entropy,
    collapse,
    effective_rank,
    representation_health,
    std_per_dimension,
    uniformity,
)


def normal(rows, columns, seed=0):
    return torch.randn(rows, columns, generator=Generator().manual_seed(seed), dtype=torch.float64)


def rotation(size, seed=1):
    return torch.linalg.qr(normal(size, size, seed))[0]


def corners(size):
    """Both ends of every axis: spread as evenly as can be."""
    return torch.cat([torch.eye(size), -torch.eye(size)])


def test_evenly_spread_directions_have_the_standard_deviation_of_the_sphere():
    assert std_per_dimension(corners(16)) == pytest.approx(1 / sqrt(16))
    assert std_per_dimension(normal(5000, 16)) == pytest.approx(1 / sqrt(16), rel=0.02)


def test_one_direction_has_no_spread_however_long_the_rows_are():
    assert std_per_dimension(torch.arange(1.0, 6)[:, None] * torch.ones(5, 3)) == pytest.approx(0)


def test_the_effective_rank_counts_equal_singular_values():
    z = torch.zeros(10, 6)
    z[0, 0] = z[1, 1] = z[2, 2] = 5
    assert effective_rank(z) == pytest.approx(3)
    assert effective_rank(torch.eye(7)) == pytest.approx(7)
    assert effective_rank(torch.ones(10, 6)) == pytest.approx(1)
    assert effective_rank(torch.zeros(10, 6)) == 0


def test_the_effective_rank_of_two_singular_values_is_computed_by_hand():
    assert effective_rank(torch.diag(torch.tensor([3.0, 1.0]))) == pytest.approx(
        exp(-0.75 * log(0.75) - 0.25 * log(0.25))
    )


def test_the_effective_rank_is_that_of_the_gram_matrix_s_eigenvalues():
    z = normal(40, 8)
    singular = np.sqrt(np.linalg.eigvalsh(z.numpy().T @ z.numpy()))
    share = singular / singular.sum()
    assert effective_rank(z) == pytest.approx(np.exp(-(share * np.log(share)).sum()))


@pytest.mark.parametrize("measure", [effective_rank, uniformity])
def test_rotation_and_scale_change_neither_rank_nor_uniformity(measure):
    z = normal(30, 6)
    assert measure(z @ rotation(6)) == pytest.approx(measure(z))
    assert measure(100 * z) == pytest.approx(measure(z))


def test_uniformity_matches_a_naive_double_loop():
    z = normal(9, 4).numpy()
    x = z / np.linalg.norm(z, axis=1, keepdims=True)
    potentials = [exp(-2 * ((a - b) ** 2).sum()) for a, b in permutations(x, 2)]
    assert uniformity(z) == pytest.approx(log(np.mean(potentials)))


def test_uniformity_is_zero_in_one_point_and_lowest_at_opposite_ends():
    assert uniformity(torch.ones(5, 3)) == pytest.approx(0)
    assert uniformity(torch.tensor([[1.0], [-1.0]])) == pytest.approx(-8)


def test_uniformity_does_not_depend_on_how_rows_are_grouped(monkeypatch):
    z = normal(50, 4)
    whole = uniformity(z)
    monkeypatch.setattr("medssl.evaluation.health._BLOCK", 7)
    assert uniformity(z) == pytest.approx(whole)


def test_alignment_is_zero_for_equal_views_and_four_for_opposite_ones():
    z = normal(6, 3)
    assert alignment(z, 3 * z) == pytest.approx(0)
    assert alignment(z, -z) == pytest.approx(4)
    assert alignment(torch.tensor([[1.0, 0]]), torch.tensor([[0, 1.0]]), alpha=1) == pytest.approx(sqrt(2))


def test_cluster_entropy_is_one_when_even_and_zero_when_one_cluster_holds_all():
    assert cluster_entropy(torch.arange(12) % 4, 4) == pytest.approx(1)
    assert cluster_entropy(torch.zeros(12, dtype=torch.long), 4) == 0
    assert cluster_entropy(np.array([0, 1, 0, 1]), 4) == pytest.approx(log(2) / log(4))


def test_health_holds_every_number_and_alignment_where_there_are_two_views():
    z = normal(20, 5)
    health = representation_health(z)
    assert health == {"std": std_per_dimension(z), "effective_rank": effective_rank(z), "uniformity": uniformity(z)}
    assert representation_health(z, z)["alignment"] == pytest.approx(0)


def test_a_healthy_representation_raises_no_alarm():
    assert collapse(normal(200, 32), torch.arange(200) % 10, 10) is None
    assert collapse(normal(6, 2)) is None


def test_images_much_alike_are_no_collapse():
    assert collapse(1 + 0.2 * normal(100, 64).abs()) is None


def test_a_constant_output_is_named_with_its_number():
    message = collapse(torch.ones(100, 64) + 1e-4 * normal(100, 64))
    assert "constant output" in message and "a healthy one about 0.12" in message


def test_a_dead_output_of_zeros_is_measured_and_named():
    health = representation_health(torch.zeros(20, 8))
    assert list(health.values()) == pytest.approx([0, 0, 0])
    assert "constant output" in collapse(torch.zeros(20, 8))


def test_embeddings_on_a_line_are_named_with_their_rank():
    message = collapse(normal(100, 1) @ normal(1, 64, 2))
    assert "few dimensions: the effective rank is 1.0 of at most 64" in message


def test_few_of_many_dimensions_are_named():
    z = normal(1000, 3) @ normal(3, 512, 2)
    assert "few dimensions: the effective rank is 3.0 of at most 512" in collapse(z)


def test_empty_clusters_are_named_with_their_count():
    message = collapse(normal(100, 16), torch.tensor([0] * 98 + [1, 2]), 50)
    assert "Collapse of the clusters: 47 of 50 are empty" in message


def test_nothing_is_left_on_the_graph_and_half_precision_is_widened():
    z = torch.ones(4, 2, dtype=torch.bfloat16, requires_grad=True)
    assert as_embeddings(z).dtype == torch.float32
    assert not as_embeddings(z).requires_grad


def test_nan_is_refused_with_the_number_of_rows():
    z = normal(10, 3)
    z[2, 1], z[5, 0], z[5, 2] = float("nan"), float("inf"), float("nan")
    with pytest.raises(InputError, match="NaN or infinity in 2 of 10 rows"):
        representation_health(z)


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(InputError, match=r"matrix \(N, D\).*\(3, 4, 5\)"):
        effective_rank(torch.zeros(3, 4, 5))
    with pytest.raises(InputError, match="at least 2, got 1"):
        uniformity(torch.ones(1, 3))
    with pytest.raises(InputError, match="one shape, got 4x2 and 5x2"):
        alignment(normal(4, 2), normal(5, 2))
    with pytest.raises(InputError, match="0 to 3, 2 or more, got 0 to 4"):
        cluster_entropy(torch.tensor([0, 4]), 4)
    with pytest.raises(InputError, match="got none"):
        cluster_entropy(torch.zeros(0, dtype=torch.long), 4)


def test_what_all_embeddings_share_hides_their_rank_until_it_is_taken_away():
    z = 0.01 * torch.randn(40, 8, generator=torch.Generator().manual_seed(0)) + 1
    assert "few dimensions" in str(collapse(z, least_spread=1e-3))
    assert collapse(z, centre=True, least_spread=1e-3) is None


def test_two_embeddings_lie_on_a_line_and_are_no_collapse():
    assert collapse(normal(2, 8), centre=True) is None
    assert "at most 2" in collapse(normal(3, 1) @ normal(1, 8, 2), centre=True)
