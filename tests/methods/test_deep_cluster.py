"""What the DeepCluster papers say of clustering and its loss."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from processes import in_processes
from torch import Generator, Tensor
from torch.nn import functional as F

from medssl.errors import InputError
from medssl.methods.deep_cluster import (
    DeepCluster,
    k_means,
    nearest,
    normalised_mutual_information,
    spread_rows,
    whitening,
)
from medssl.networks.unet import UNetEncoder
from medssl.sample import Batch

versions = pytest.mark.parametrize("version", [1, 2])


def small(version: int = 1, k: int | None = 3, dims: int = 2) -> DeepCluster:
    torch.manual_seed(0)
    encoder = UNetEncoder(1, dims, (4, 8))
    return DeepCluster(encoder, k, version, components=2, hidden=16, width=8)


def batch(numbers: Sequence[int]) -> Batch:
    """Samples of three kinds, by ``number % 3``: stripes, halves, a spot; a trace of noise on top."""
    draws = [Generator().manual_seed(number) for number in numbers]
    x = torch.arange(16.0).view(1, 16, 1).expand(1, 16, 16)
    kinds = torch.stack([(x // 2 % 2), (x // 8), torch.exp(-((x - 8).square() + (x.mT - 8).square()) / 8)])
    noise = torch.stack([torch.randn(1, 16, 16, generator=draw) for draw in draws])
    number = torch.tensor(list(numbers))
    return {"image": kinds[number % 3] + 0.002 * noise, "seed": number + 5, "number": number}


def train(method: DeepCluster, epoch: int) -> None:
    """Train on twelve samples in four steps."""
    batches = [batch(range(n, n + 3)) for n in range(12 * epoch, 12 * epoch + 12, 3)]
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    method.start_epoch(batches)
    for one in batches:
        loss = method.loss(one)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_step()


def blobs(count: int = 30) -> Tensor:
    centres = 4 * torch.eye(3, 5).repeat(count // 3, 1)
    return centres + 0.02 * torch.randn(count, 5, generator=Generator().manual_seed(0))


def same_grouping(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.unsqueeze(0) == a.unsqueeze(1), b.unsqueeze(0) == b.unsqueeze(1))


@versions
def test_samples_of_a_kind_are_in_one_cluster(version: int) -> None:
    method = small(version)
    method.start_epoch([batch(range(6)), batch(range(6, 12))])
    assert same_grouping(method.clusters_of(torch.arange(12)), torch.arange(12) % 3)
    scores = method.state_scores()
    assert scores["clusters/entropy"] == pytest.approx(1) and scores["clusters/empty"] == 0
    assert scores["clusters/smallest"] == scores["clusters/largest"] == 4


@versions
def test_the_mean_loss_of_an_epoch_is_the_mean_over_the_clusters(version: int) -> None:
    method = small(version, k=2)
    if method.projector is not None:
        method.projector.eval()  # its batch statistics would depend on what is computed together
    one = batch([0, 3, 6, 9, 12, 2])
    method.start_epoch([one])
    method.assignments, method.sizes = torch.tensor([0, 1, 0, 0, 0, 0]), torch.tensor([5, 1])  # by rising number
    cluster = method.clusters_of(one["number"]).repeat_interleave(version)
    assert cluster.bincount().tolist() == [5 * version, version]
    views = method.views(one["image"], one["seed"], version).flatten(0, 1)
    cost = F.cross_entropy(method.logits(method.features(views)), cluster, reduction="none")
    expected = (cost[cluster == 0].mean() + cost[cluster == 1].mean()) / 2
    torch.testing.assert_close(method.loss(one)["loss"], expected)


def test_k_means_agrees_with_scikit_learn_from_the_same_start() -> None:
    cluster = pytest.importorskip("sklearn.cluster")
    x = torch.rand(200, 4, generator=Generator().manual_seed(0))
    start = x[:6]
    other = cluster.KMeans(6, init=start.numpy(), n_init=1, max_iter=100, tol=0).fit(x.numpy())
    centroids = k_means(x, start, Generator(), iterations=100)
    torch.testing.assert_close(centroids, torch.from_numpy(other.cluster_centers_), atol=1e-4, rtol=1e-4)
    assert nearest(x, centroids).tolist() == other.labels_.tolist()


def test_nearest_matches_a_naive_double_loop() -> None:
    x, centroids = torch.rand(7, 3), torch.rand(4, 3)
    expected = [min(range(4), key=lambda j: float((row - centroids[j]).norm())) for row in x]
    assert nearest(x, centroids).tolist() == expected


def test_an_empty_cluster_shares_the_rows_of_another() -> None:
    x = blobs()
    start = x[:1].expand(6, 5)  # all rows are nearest to the first of six equal centroids
    centroids = k_means(x, start, Generator().manual_seed(0), iterations=20)
    assert (nearest(x, centroids).bincount(minlength=6) > 0).all()


def test_k_means_starts_in_different_groups() -> None:
    for seed in range(20):
        start = spread_rows(blobs(), 3, Generator().manual_seed(seed))
        assert sorted(nearest(start, 4 * torch.eye(3, 5)).tolist()) == [0, 1, 2]


def test_equal_rows_can_start_clusters() -> None:
    assert torch.equal(spread_rows(torch.ones(4, 2), 3, Generator().manual_seed(0)), torch.ones(3, 2))


def test_whitened_components_are_uncorrelated_with_variance_one() -> None:
    x = torch.randn(200, 6, generator=Generator().manual_seed(0)) @ torch.rand(6, 6) + 3
    mean, matrix = whitening(x, components=4)
    white = (x - mean) @ matrix
    torch.testing.assert_close(white.T @ white / 200, torch.eye(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(white.mean(0), torch.zeros(4), atol=1e-4, rtol=0)


def test_few_samples_have_one_component_less() -> None:
    assert whitening(torch.rand(4, 6), components=256)[1].shape == (6, 3)


@versions
def test_collapsed_features_give_one_cluster_and_no_nan(version: int) -> None:
    method = small(version)
    one = batch(range(6))
    one["image"] = torch.zeros_like(one["image"])
    method.start_epoch([one])
    assert method.state_scores()["clusters/empty"] == 2 and method.state_scores()["clusters/entropy"] == 0
    assert torch.isfinite(method.loss(one)["loss"])


def test_mutual_information_is_one_for_renamed_groups_and_zero_for_independent_ones() -> None:
    a = torch.tensor([0, 0, 1, 1, 2, 2])
    assert normalised_mutual_information(a, (a + 1) % 3) == pytest.approx(1)
    assert normalised_mutual_information(a, torch.tensor([0, 1] * 3)) == pytest.approx(0)
    assert normalised_mutual_information(a, torch.zeros_like(a)) == 0


def test_mutual_information_agrees_with_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    draw = Generator().manual_seed(0)
    a, b = torch.randint(0, 4, (50,), generator=draw), torch.randint(0, 7, (50,), generator=draw)
    expected = metrics.normalized_mutual_info_score(a.numpy(), b.numpy(), average_method="geometric")
    assert float(normalised_mutual_information(a, b)) == pytest.approx(expected)


@versions
def test_two_processes_have_the_assignments_of_one_with_all_samples(version: int, tmp_path: Path) -> None:
    def clustered(batches: list[Batch]) -> tuple[Tensor, Tensor, Tensor]:
        method = small(version)
        for _ in range(2):
            method.start_epoch(batches)
        return method.numbers, method.assignments, method.nmi

    alone = clustered([batch(range(6)), batch(range(6, 12))])
    # The processes take turns, as medssl.data.crops.EpochSampler deals samples out.
    found = in_processes(lambda rank: clustered([batch(range(rank, 6, 2)), batch(range(6 + rank, 12, 2))]), tmp_path)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(*found, strict=True))
    assert torch.equal(found[0][0], alone[0]) and torch.equal(found[0][1], alone[1])


@versions
def test_a_training_that_is_resumed_ends_as_one_that_was_not(version: int) -> None:
    whole, first, second = small(version), small(version), small(version)
    for epoch in range(3):
        train(whole, epoch)
    for epoch in range(2):
        train(first, epoch)
    second.load_state_dict(first.state_dict())  # the fresh method has no clustering yet
    train(second, 2)
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in whole.state_dict().items())
    assert whole.state_scores() == second.state_scores()


def test_a_clustering_of_any_size_loads_over_another() -> None:
    one, other = small(k=3), small(k=3)
    one.start_epoch([batch(range(12))])
    other.start_epoch([batch(range(5))])
    other.load_state_dict(one.state_dict())
    assert torch.equal(other.clusters_of(torch.arange(12)), one.clusters_of(torch.arange(12)))


def test_the_classifier_is_drawn_anew_each_epoch_in_place() -> None:
    method = small()
    assert method.classifier is not None
    weight = method.classifier.weight
    drawn = []
    for _ in range(2):
        method.start_epoch([batch(range(6))])
        drawn.append(weight.detach().clone())
    assert method.classifier.weight is weight and not torch.equal(drawn[0], drawn[1])


def test_the_old_and_the_new_clustering_are_compared_from_the_second_on() -> None:
    method = small()
    method.start_epoch([batch(range(12))])
    assert "clusters/nmi" not in method.state_scores()
    method.start_epoch([batch(range(12, 24))])
    assert method.state_scores()["clusters/nmi"] == pytest.approx(1)  # three clear kinds are found both times


@versions
def test_clustering_leaves_the_network_as_it_was(version: int) -> None:
    method = small(version)
    before = {name: value.clone() for name, value in method.named_parameters() if not name.startswith("classifier")}
    before |= {name: value.clone() for name, value in method.named_buffers() if "running" in name}
    method.start_epoch([batch(range(6))])
    assert method.training and all(torch.equal(method.state_dict()[name], value) for name, value in before.items())


def test_the_centroids_of_version_two_are_directions_that_views_are_compared_with() -> None:
    method = small(2)
    method.start_epoch([batch(range(12))])
    torch.testing.assert_close(method.centroids.norm(dim=1), torch.ones(3))
    logits = method.logits(7 * method.centroids)
    torch.testing.assert_close(logits.diagonal(), torch.full((3,), 1 / 0.1))


def test_the_number_of_clusters_follows_the_samples_unless_given() -> None:
    method = small(k=None)
    method.start_epoch([batch(range(60))])
    assert len(method.sizes) == 3
    method.start_epoch([batch(range(60, 70))])
    assert len(method.sizes) == 2 and method.logits(torch.zeros(1, 8)).shape == (1, 2)


def test_an_epoch_with_fewer_samples_than_clusters_says_so() -> None:
    method = small(k=8)
    with pytest.warns(UserWarning, match="5 samples has 5 clusters, not 8"):
        method.start_epoch([batch(range(5))])
    assert torch.isfinite(method.loss(batch(range(5)))["loss"])


def test_refuses_more_clusters_than_images() -> None:
    with pytest.raises(InputError, match="k=10 clusters need at least 10 images, got 7"):
        small(k=10).check(7, 1, (16, 16))
    small(k=10).check(10, 1, (16, 16))


def test_refuses_one_cluster_and_one_sample() -> None:
    with pytest.raises(InputError, match="at least 2, got 1"):
        small(k=1)
    with pytest.raises(InputError, match="at least 2, got 1"):
        small().start_epoch([batch([0])])


def test_refuses_samples_that_were_not_clustered() -> None:
    method = small()
    with pytest.raises(InputError, match=r"\[4, 5\] are in no cluster"):
        method.loss(batch([4, 5]))
    method.start_epoch([batch(range(5))])
    with pytest.raises(InputError, match=r"\[5\] are in no cluster"):
        method.loss(batch([4, 5]))


@versions
def test_in_evaluation_samples_belong_to_the_nearest_cluster_whatever_their_number(version: int) -> None:
    method = small(version)
    with pytest.raises(InputError, match="no clusters yet"):
        method.eval().loss(batch(range(3)))
    method.train().start_epoch([batch(range(12))])
    held_out = batch(range(100, 106))
    assert torch.equal(
        method.eval().nearest_clusters(held_out["image"]), method.clusters_of(torch.arange(100, 106) % 3)
    )
    loss = method.loss(held_out)["loss"]
    torch.testing.assert_close(method.loss(held_out | {"number": torch.arange(6).flip(0)})["loss"], loss)


@pytest.mark.parametrize("dims", [2, 3])
def test_it_learns_what_it_clustered(dims: int) -> None:
    method = small(k=2, dims=dims)
    image = torch.rand(4, 1, *[16] * dims, generator=Generator().manual_seed(0))
    one = {"image": image, "seed": torch.arange(4), "number": torch.arange(4)}
    method.start_epoch([one])
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        loss = method.loss(one)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])


def test_an_image_is_shown_with_its_view() -> None:
    shown = small().show(batch(range(2)))
    assert list(shown) == ["image", "view"] and not torch.equal(shown["image"], shown["view"])
