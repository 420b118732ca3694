"""Neighbours against a naive loop, scores against values computed by hand."""

from math import isnan, log2

import numpy as np
import pytest
import torch

from medssl.errors import InputError
from medssl.evaluation import retrieval
from medssl.evaluation.retrieval import ndcg_at_k, nearest_neighbours, recall_at_k, retrieve


def normal(rows, columns=5, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, columns))


def angles(*degrees):
    """Unit vectors in the plane: the closer the angles, the more alike."""
    radians = np.deg2rad(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1)


def naive(queries, gallery, k, forbidden):
    """Indices (Q, k) of the most similar allowed items."""
    found = []
    for i, q in enumerate(queries):
        similarity = [q @ g / np.linalg.norm(q) / np.linalg.norm(g) for g in gallery]
        found.append([j for j in np.argsort(similarity)[::-1] if not forbidden(i, j)][:k])
    return np.array(found)


def test_neighbours_and_similarities_match_a_naive_double_loop():
    queries, gallery = normal(6), normal(15, seed=1)
    found = nearest_neighbours(queries, gallery, k=4)
    assert np.array_equal(found.indices, naive(queries, gallery, 4, lambda i, j: False))
    q, g = queries[2], gallery[found.indices[2, 3]]
    assert found.similarity[2, 3] == pytest.approx(q @ g / np.linalg.norm(q) / np.linalg.norm(g))
    assert (np.diff(found.similarity) <= 0).all()


def test_without_a_gallery_nobody_finds_itself():
    z = normal(12)
    found = nearest_neighbours(z, k=11)
    assert np.array_equal(found.indices, naive(z, z, 11, lambda i, j: i == j))


def test_items_of_the_query_s_subject_are_left_out_when_asked():
    z, subjects = normal(12), np.repeat(["anna", "ben", "cleo"], 4)
    found = nearest_neighbours(z, k=8, subjects=subjects)
    assert np.array_equal(found.indices, naive(z, z, 8, lambda i, j: subjects[i] == subjects[j]))
    gallery = normal(9, seed=1)
    owners = np.repeat(["cleo", "dora", "anna"], 3)
    found = nearest_neighbours(z, gallery, 6, subjects=subjects, gallery_subjects=owners)
    assert np.array_equal(found.indices, naive(z, gallery, 6, lambda i, j: subjects[i] == owners[j]))


def test_rotation_scale_and_blocks_change_nothing(monkeypatch):
    z, labels = normal(20), np.arange(20) % 3
    turn = np.linalg.qr(normal(5, seed=2))[0]
    once = retrieve(z, labels, k=5)
    assert np.array_equal(nearest_neighbours(7 * z @ turn, k=5).indices, once.neighbours.indices)
    monkeypatch.setattr(retrieval, "_BLOCK", 6)
    again = retrieve(z, labels, k=5)
    assert np.array_equal(again.neighbours.indices, once.neighbours.indices)
    assert again[1:][1:] == pytest.approx(once[1:][1:])


def test_scores_have_the_values_computed_by_hand():
    relevant = np.array([[True, False, True], [False, True, False], [False, False, False], [False, False, False]])
    possible = np.array([5, 1, 2, 0])  # the last query has nothing to find
    assert recall_at_k(relevant, possible) == pytest.approx(2 / 3)
    first = (1 + 1 / 2) / (1 + 1 / log2(3) + 1 / 2)
    second = (1 / log2(3)) / 1
    assert ndcg_at_k(relevant, possible) == pytest.approx((first + second + 0) / 3)


def test_perfect_neighbours_score_one_and_wrong_ones_zero():
    z = angles(0, 1, 2, 90, 91, 92)
    right = retrieve(z, ["a", "a", "a", "b", "b", "b"], k=2)
    assert (right.recall, right.ndcg, right.scored) == (1, pytest.approx(1), 6)
    assert right.relevant.all()
    wrong = retrieve(z, [0, 1, 2, 0, 1, 2], k=2)
    assert (wrong.recall, wrong.ndcg, wrong.scored) == (0, 0, 6)


def test_fewer_relevant_items_than_k_can_still_be_perfect():
    found = retrieve(angles(0, 180), [0, 1], angles(1, 90, 91, 179), [0, 2, 2, 1], k=3)
    assert (found.recall, found.ndcg) == (1, pytest.approx(1))


def test_queries_with_nothing_to_find_are_left_out_of_the_means_and_counted():
    z, labels, subjects = angles(0, 1, 2, 3), [0, 0, 0, 1], ["anna", "anna", "ben", "cleo"]
    assert retrieve(z, labels, k=1).scored == 3
    found = retrieve(z, labels, k=2, subjects=subjects)
    assert found.scored == 3 and found.recall == 1
    nothing = retrieve(z, [0, 1, 2, 3], k=2)
    assert nothing.scored == 0 and isnan(nothing.recall) and isnan(nothing.ndcg)


def test_what_a_subject_s_own_items_would_add_is_not_counted_as_possible():
    z, labels, subjects = angles(0, 1, 2, 40), [0, 0, 0, 1], ["anna", "anna", "ben", "cleo"]
    # Anna's first scan may find Ben's alone: at rank 1, so the gain is the best possible.
    assert retrieve(z[:3], labels[:3], z, labels, 1, subjects=subjects[:3], gallery_subjects=subjects).ndcg == 1


def test_tensors_of_half_precision_are_taken():
    z = torch.from_numpy(normal(8)).bfloat16()
    assert nearest_neighbours(z, k=3).indices.shape == (8, 3)
    assert retrieve(z, torch.arange(8) % 2, k=3).relevant.shape == (8, 3)


def test_too_few_items_and_misfits_are_refused():
    z = normal(6)
    with pytest.raises(InputError, match=r"k=6 neighbours.*a query has 5 items"):
        nearest_neighbours(z, k=6)
    with pytest.raises(InputError, match=r"k=5 neighbours.*a query has 4 items"):
        nearest_neighbours(z, k=5, subjects=["a", "a", "b", "c", "d", "e"])
    with pytest.raises(InputError, match="k=0 neighbours"):
        nearest_neighbours(z, k=0)
    with pytest.raises(InputError, match="5 dimensions cannot be compared with a gallery of 4"):
        nearest_neighbours(z, normal(6, 4), k=1)
    with pytest.raises(InputError, match="6 queries and a gallery of 6 need as many subjects, got 6 and 0"):
        nearest_neighbours(z, z, k=1, subjects=range(6))
    with pytest.raises(InputError, match="6 queries and a gallery of 6 need as many labels, got 5 and 5"):
        retrieve(z, range(5), k=1)
    with pytest.raises(InputError, match="embeddings of the gallery hold NaN"):
        nearest_neighbours(z, z * np.nan, k=1)
