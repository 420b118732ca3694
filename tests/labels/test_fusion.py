import numpy as np
import pytest
from numpy.typing import NDArray

from medssl.errors import InputError
from medssl.labels.fusion import fuse, majority_vote, similarity, staple

Labels = NDArray[np.uint8]


def maps(count: int, classes: int = 4, shape: tuple[int, ...] = (7, 6, 5), seed: int = 0) -> list[Labels]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, classes, shape, dtype=np.uint8) for _ in range(count)]


def noisy(truth: Labels, errors: float, classes: int, seed: int) -> Labels:
    rng = np.random.default_rng(seed)
    wrong = rng.random(truth.shape) < errors
    return np.where(wrong, rng.integers(0, classes, truth.shape), truth).astype(np.uint8)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("weighted", [False, True])
def test_matches_counting_voxel_by_voxel(count: int, weighted: bool) -> None:
    votes = maps(count)
    rng = np.random.default_rng(1)
    weights = [rng.uniform(0.1, 1, votes[0].shape).astype(np.float32) for _ in votes] if weighted else None
    fused = majority_vote(votes, weights)
    for place in np.ndindex(*votes[0].shape):
        score: dict[int, float] = {}
        for i, vote in enumerate(votes):
            score[int(vote[place])] = score.get(int(vote[place]), 0.0) + (float(weights[i][place]) if weights else 1.0)
        assert fused[place] == max(score, key=lambda label: score[label])  # the first of equals


def test_a_tie_goes_to_the_class_that_was_named_first() -> None:
    votes = [np.array([3], np.uint8), np.array([0], np.uint8), np.array([0], np.uint8), np.array([3], np.uint8)]
    assert majority_vote(votes).tolist() == [3]
    assert majority_vote(votes[::-1][1:] + votes[3:]).tolist() == [0]


def test_an_odd_majority_does_not_depend_on_the_order_of_the_maps() -> None:
    votes = maps(5, classes=2)
    assert (majority_vote(votes) == majority_vote(votes[::-1])).all()


def test_one_map_alone_is_the_result() -> None:
    (vote,) = maps(1)
    assert (majority_vote([vote]) == vote).all()


def test_equal_weights_change_nothing() -> None:
    votes = maps(4)
    assert (majority_vote(votes, [np.full(votes[0].shape, 0.5, np.float32)] * 4) == majority_vote(votes)).all()


def test_voting_corrects_independent_errors() -> None:
    (truth,) = maps(1, shape=(20, 20, 20))
    votes = [noisy(truth, 0.3, 4, seed) for seed in range(5)]
    assert (majority_vote(votes) == truth).mean() > max((vote == truth).mean() for vote in votes) + 0.1


def test_staple_trusts_one_good_map_over_three_poor_ones() -> None:
    truth = np.zeros((24, 24, 24), np.uint8)
    truth[4:12, 4:20, 4:20], truth[12:20, 4:20, 4:20] = 1, 2
    votes = [noisy(truth, 0.02, 3, 0), *(noisy(truth, 0.9, 3, seed) for seed in (1, 2, 3))]
    assert (staple(votes) == truth).mean() > (majority_vote(votes) == truth).mean() + 0.1


def test_identical_images_are_alike_everywhere_but_where_they_are_flat() -> None:
    image = np.random.default_rng(0).random((16, 16, 16)).astype(np.float32)
    image[:8] = 0.5
    alike = similarity(image, image)
    assert alike[12:].min() > 0.99
    assert alike[2].max() < 0.01


def test_similarity_ignores_brightness_and_contrast() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.random((12, 12, 12)).astype(np.float32) for _ in range(2))
    assert np.allclose(similarity(a, b), similarity(a, 0.5 * b + 0.3), atol=1e-2)


def test_local_voting_believes_the_atlas_that_looks_like_the_scan() -> None:
    rng = np.random.default_rng(0)
    target, other = (rng.random((16, 16, 16)).astype(np.float32) for _ in range(2))
    right, wrong = np.ones(target.shape, np.uint8), np.full(target.shape, 2, np.uint8)
    assert (fuse("local", [wrong, wrong, right], target, [other, 1 - target, target]) == right).mean() > 0.99
    assert (fuse("majority", [wrong, wrong, right], target, []) == wrong).all()


def test_maps_of_different_shapes_are_refused() -> None:
    with pytest.raises(InputError, match=r"of one shape, at least one; got 2 of \[\(2,\), \(3,\)\]"):
        majority_vote([np.zeros(2, np.uint8), np.zeros(3, np.uint8)])


def test_no_maps_are_refused() -> None:
    with pytest.raises(InputError, match="at least one; got 0"):
        staple([])


def test_a_weight_too_few_is_refused() -> None:
    votes = maps(2)
    with pytest.raises(InputError, match="needs weights of that shape"):
        majority_vote(votes, [np.ones(votes[0].shape, np.float32)])


def test_a_wrong_fusion_lists_the_right_ones() -> None:
    with pytest.raises(InputError, match=r"'mean'.*majority, local, staple"):
        fuse("mean", maps(2), np.zeros((7, 6, 5), np.float32), [])
