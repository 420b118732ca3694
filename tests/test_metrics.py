"""The metrics against values by hand, against slow independent code, and against MONAI where the definitions match."""

import monai.metrics as peer
import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion
from torch.nn.functional import one_hot

from medssl import metrics
from medssl.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:monai.metrics.utils get_mask_edges:FutureWarning")  # MONAI's own use


def small_pair(seed, shape=(9, 8, 7), classes=4):
    """Two random label maps of blocks, so that they have insides and surfaces."""
    rng = np.random.default_rng(seed)
    large = rng.integers(0, classes, [2, *(-(-size // 3) for size in shape)])
    for axis in range(1, large.ndim):
        large = large.repeat(3, axis=axis)
    prediction, reference = large[(slice(None), *(slice(size) for size in shape))].astype(np.uint8)
    flipped = rng.random(shape) < 0.1
    return np.where(flipped, reference, prediction), reference


def naive_surface(mask, spacing):
    return np.argwhere(mask & ~binary_erosion(mask)) * spacing


def naive_distances(prediction, reference, spacing):
    """Every distance between two surfaces, and the smallest each way."""
    a, b = naive_surface(prediction, spacing), naive_surface(reference, spacing)
    between = np.linalg.norm(a[:, None] - b[None], axis=-1)
    return between.min(1), between.min(0)


def hot(labels, classes=4):
    """(1, classes, *spatial), as MONAI takes them."""
    return one_hot(torch.as_tensor(labels).long(), classes).movedim(-1, 0)[None]


def test_overlap_scores_have_the_values_computed_by_hand():
    reference = np.array([[0, 0, 1, 1], [2, 2, 2, 2]], np.uint8)
    prediction = np.array([[0, 1, 1, 1], [2, 0, 0, 0]], np.uint8)
    assert metrics.confusion(prediction, reference, 3).tolist() == [[1, 1, 0], [0, 2, 0], [3, 0, 1]]
    assert metrics.dice_per_class(prediction, reference, 3) == pytest.approx([2 / 6, 4 / 5, 2 / 5])
    assert metrics.recall_per_class(prediction, reference, 3) == pytest.approx([1 / 2, 1, 1 / 4])
    assert metrics.volume_similarity(prediction, reference, 3) == pytest.approx([1 - 2 / 6, 1 - 1 / 5, 1 - 3 / 5])
    assert metrics.volumes_mm3(reference, 3, (2, 0.5)).tolist() == [2, 2, 4]


def test_surface_scores_have_the_values_computed_by_hand():
    reference, prediction = np.zeros((2, 1, 12), np.uint8)
    reference[0, 2:5] = prediction[0, 4:7] = 1  # a line's voxels are all surface: 2 3 4 and 4 5 6, each 2, 1, 0 apart
    scores = metrics.surface_scores(prediction, reference, 2, (1, 0.5), tolerance_mm=0.5)
    assert scores.assd_mm[1] == pytest.approx(0.5)
    assert scores.hd95_mm[1] == pytest.approx(np.percentile([0, 0.5, 1], 95))
    assert scores.surface_dice[1] == pytest.approx(4 / 6)
    assert np.isnan([values[0] for values in scores]).all()


def test_hd95_is_the_larger_of_the_two_directions():
    reference, prediction = np.zeros((2, 1, 40), np.uint8)
    reference[0, 0] = prediction[0, 0] = prediction[0, 30] = 1  # all of the reference is found, but there is more
    assert metrics.surface_scores(prediction, reference, 2, (1, 1)).hd95_mm[1] == pytest.approx(0.95 * 30)


def test_a_distance_equal_to_the_tolerance_is_within_it_whatever_the_rounding():
    for shift in range(20):
        reference, prediction = np.zeros((2, 1, 24), np.uint8)
        reference[0, shift], prediction[0, shift + 3] = 1, 1
        assert metrics.surface_scores(prediction, reference, 2, (1, 0.7), tolerance_mm=2.1).surface_dice[1] == 1


@pytest.mark.parametrize("shape", [(9, 8, 7), (14, 11)])
@pytest.mark.parametrize("seed", range(3))
def test_scores_match_a_naive_implementation(shape, seed):
    prediction, reference = small_pair(seed, shape)
    spacing = (0.8, 1.5, 1.1)[: len(shape)]
    scores = metrics.surface_scores(prediction, reference, 4, spacing, tolerance_mm=1.2)
    dice = metrics.dice_per_class(prediction, reference, 4)
    for index in range(1, 4):
        p, r = prediction == index, reference == index
        there, back = naive_distances(p, r, spacing)
        both = np.concatenate([there, back])
        assert dice[index] == pytest.approx(2 * (p & r).sum() / (p.sum() + r.sum()))
        assert scores.hd95_mm[index] == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)))
        assert scores.assd_mm[index] == pytest.approx(both.mean())
        assert scores.surface_dice[index] == pytest.approx((both <= 1.2).mean())


@pytest.mark.parametrize("shape", [(9, 8, 7), (14, 11)])
def test_scores_match_monai_where_no_structure_is_empty(shape):
    prediction, reference = small_pair(7, shape)
    spacing = (0.8, 1.5, 1.1)[: len(shape)]
    y_pred, y = hot(prediction), hot(reference)
    ours = metrics.surface_scores(prediction, reference, 4, spacing, tolerance_mm=1.2)
    arguments = {"spacing": spacing, "include_background": False}
    hd95 = peer.compute_hausdorff_distance(y_pred, y, percentile=95, **arguments)
    assd = peer.compute_average_surface_distance(y_pred, y, symmetric=True, **arguments)
    surface_dice = peer.compute_surface_dice(y_pred, y, class_thresholds=[1.2] * 3, **arguments)
    dice = peer.compute_dice(y_pred, y, include_background=False)
    assert metrics.dice_per_class(prediction, reference, 4)[1:] == pytest.approx(dice[0].numpy())
    assert ours.hd95_mm[1:] == pytest.approx(hd95[0].numpy(), rel=1e-5)
    assert ours.assd_mm[1:] == pytest.approx(assd[0].numpy(), rel=1e-5)
    assert ours.surface_dice[1:] == pytest.approx(surface_dice[0].numpy(), rel=1e-5)


def empty_cases():
    """Class 1 is in both, 2 in the reference alone (missed), 3 in the prediction alone (hallucinated), 4 in neither."""
    reference, prediction = np.zeros((2, 6, 6, 6), np.uint8)
    reference[1:3, 1:3, 1:3] = prediction[1:3, 1:3, 1:3] = 1
    reference[4, 4, 4] = 2
    prediction[4, 1, 1] = 3
    return prediction, reference


def test_a_structure_that_both_lack_is_nan_and_one_that_only_one_has_is_the_worst_there_is():
    prediction, reference = empty_cases()
    scores = metrics.surface_scores(prediction, reference, 5, (1, 2, 3))
    diagonal_mm = float(np.linalg.norm([6, 12, 18]))
    for values in (metrics.dice_per_class(prediction, reference, 5), scores.surface_dice):
        assert values[1:4].tolist() == [1, 0, 0]
        assert np.isnan(values[4])
    for values in (scores.hd95_mm, scores.assd_mm):
        assert values[1:4] == pytest.approx([0, diagonal_mm, diagonal_mm])
        assert np.isnan(values[4])
    similarity = metrics.volume_similarity(prediction, reference, 5)
    assert similarity[1:4].tolist() == [1, 0, 0]
    assert np.isnan(similarity[4])
    assert np.isnan(metrics.recall_per_class(prediction, reference, 5)[[3, 4]]).all()


def test_a_hallucinated_structure_is_punished_where_monai_ignores_it():
    prediction, reference = empty_cases()
    peers = peer.compute_dice(hot(prediction, 5), hot(reference, 5), ignore_empty=True)[0]
    assert torch.isnan(peers[3]), "MONAI has changed: the trap that this test guards is gone"
    assert metrics.dice_per_class(prediction, reference, 5)[3] == 0


def test_a_structure_that_no_scan_holds_stays_nan_where_monai_reduces_to_zero():
    prediction, reference = empty_cases()
    reduced = peer.DiceMetric(reduction="mean_batch")
    reduced(hot(prediction, 5), hot(reference, 5))
    assert reduced.aggregate()[4] == 0, "MONAI has changed: the trap that this test guards is gone"
    assert np.isnan(metrics.dice_per_class(prediction, reference, 5)[4])


@pytest.mark.filterwarnings("ignore:the (prediction|ground truth) of class")
def test_missing_more_structures_makes_the_mean_distance_worse_where_monai_s_improves():
    _, reference = small_pair(5)
    wrong = np.roll(reference, 2, axis=0)
    wrong[wrong == 1] = np.roll(reference, 3, axis=1)[wrong == 1]
    without = np.where(wrong == 2, 0, wrong).astype(np.uint8)  # one structure is now missed altogether

    def peers(prediction):
        metric = peer.HausdorffDistanceMetric(percentile=95, reduction="none")
        metric(hot(prediction), hot(reference))
        return metric.aggregate()[0]

    def ours(prediction):
        return metrics.surface_scores(prediction, reference, 4, (1, 1, 1)).hd95_mm[1:]

    assert torch.isnan(peers(without)[1]), "MONAI has changed: the trap that this test guards is gone"
    assert np.isfinite(ours(without)).all()
    assert ours(without).mean() > ours(wrong).mean()
    assert ours(without)[1] == pytest.approx(np.linalg.norm(reference.shape))


def test_confusion_adds_up_over_scans():
    first, second = small_pair(1), small_pair(2)
    together = metrics.confusion(*(np.stack([a, b]) for a, b in zip(first, second, strict=True)), 4)
    assert (metrics.confusion(*first, 4) + metrics.confusion(*second, 4) == together).all()


def test_tensors_and_arrays_of_any_integer_type_score_the_same():
    prediction, reference = small_pair(3)
    expected = metrics.confusion(prediction, reference, 4)
    assert (metrics.confusion(torch.as_tensor(prediction), torch.as_tensor(reference).long(), 4) == expected).all()
    for kind in (np.int16, np.uint64, ">i4"):
        assert (metrics.confusion(prediction[::-1].astype(kind), reference[::-1].astype(kind), 4) == expected).all()


def test_a_structure_at_the_edge_of_the_volume_is_told():
    labels = np.zeros((5, 5, 5), np.uint8)
    labels[2, 2, 2], labels[2, 2, 4] = 1, 2
    assert metrics.touches_border(labels, 4)[1:].tolist() == [False, True, False]


def test_an_axis_of_one_voxel_has_no_edge():
    labels = np.zeros((5, 5, 1), np.uint8)
    labels[2, 2, 0] = 1
    assert not metrics.touches_border(labels, 2)[1]


def test_two_grids_are_refused_with_both_sizes():
    with pytest.raises(InputError, match="3x4 voxels, the reference 4x3"):
        metrics.dice_per_class(np.zeros((3, 4), np.uint8), np.zeros((4, 3), np.uint8), 2)


def test_label_ids_where_class_indices_belong_are_refused():
    with pytest.raises(InputError, match=r"reference must hold class indices 0 to 1, got 0 to 17"):
        metrics.dice_per_class(np.zeros(3, np.uint8), np.array([0, 1, 17]), 2)


def test_probabilities_where_class_indices_belong_are_refused():
    with pytest.raises(InputError, match="prediction must hold integer class indices, got float32"):
        metrics.dice_per_class(np.zeros(3, np.float32), np.zeros(3, np.uint8), 2)


@pytest.mark.parametrize("spacing_mm", [(1, 1), (1, 1, 0), (1, -1, 1)])
def test_a_spacing_that_is_not_one_positive_number_per_axis_is_refused(spacing_mm):
    with pytest.raises(InputError, match="3 positive numbers, one per axis"):
        metrics.surface_scores(*small_pair(0), 4, spacing_mm)
