"""Average precision by hand, and windows that give what the whole image gives."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from medssl.evaluation.detection import area_under_curve, average_precision, detect_windows, window_starts
from medssl.methods.detection import Boxes, Detection, Detections
from medssl.networks.unet import UNetEncoder


def boxes(*corners: tuple[float, ...], classes: list[int] | None = None) -> Boxes:
    held = torch.tensor(corners, dtype=torch.float32).view(len(corners), -1) if corners else torch.zeros(0, 4)
    return Boxes(held, torch.tensor(classes or [1] * len(corners), dtype=torch.int64))


def found(*rows: tuple[float, ...], classes: list[int] | None = None) -> Detections:
    """Each row is a score and the corners."""
    held = boxes(*(row[1:] for row in rows), classes=classes)
    return Detections(held.corners, torch.tensor([row[0] for row in rows]), held.classes)


A, B, AWAY = (0, 0, 4, 4), (10, 10, 14, 14), (20, 20, 24, 24)


def test_all_found_and_nothing_else_is_1_and_nothing_found_is_0() -> None:
    truth = [boxes(A, B)]
    assert average_precision([found((0.3, *A), (0.9, *B))], truth, 2)[1] == 1
    assert average_precision([found()], truth, 2)[1] == 0
    assert average_precision([found((0.9, *AWAY))], truth, 2)[1] == 0


def test_a_wrong_box_costs_what_comes_after_it() -> None:
    # Right at rank 1 and rank 3 of two: precisions 1 and 2/3, each over half of the recall.
    one = [found((0.9, *A), (0.8, *AWAY), (0.7, *B))]
    assert average_precision(one, [boxes(A, B)], 2)[1] == pytest.approx((1 + 2 / 3) / 2)
    # A wrong box at the end costs nothing, one at the start all.
    assert average_precision([found((0.9, *A), (0.1, *AWAY))], [boxes(A)], 2)[1] == 1
    assert average_precision([found((0.9, *AWAY), (0.1, *A))], [boxes(A)], 2)[1] == 0.5


def test_the_precision_at_a_recall_is_the_largest_there_or_beyond() -> None:
    # wrong, right, right of 2: precisions 1/2, then 2/3, which stands for the first as well.
    assert area_under_curve(np.array([False, True, True]), 2) == pytest.approx(2 / 3)
    assert area_under_curve(np.array([True, False, False, True, False]), 4) == pytest.approx((1 + 2 / 4) / 4)


def test_a_box_that_is_found_twice_is_right_once() -> None:
    twice = [found((0.9, *A), (0.8, *A), (0.7, *B))]
    assert average_precision(twice, [boxes(A, B)], 2)[1] == pytest.approx((1 + 2 / 3) / 2)


def test_the_overlap_decides() -> None:
    half = [found((0.9, 0, 0, 4, 8))]  # 16 of 32 voxels: exactly half
    third = [found((0.9, 0, 2, 4, 6))]  # 8 of 24
    truth = [boxes(A)]
    assert average_precision(half, truth, 2, 0.4999)[1] == 1 and average_precision(half, truth, 2, 0.51)[1] == 0
    assert average_precision(third, truth, 2)[1] == 0 and average_precision(third, truth, 2, 0.1)[1] == 1


def test_in_3d_one_voxel_off_along_each_axis_halves_a_small_box() -> None:
    moved = [found((0.9, 1, 1, 1, 5, 5, 5))]  # 27 of 64 + 64 - 27 voxels
    truth = [boxes((0, 0, 0, 4, 4, 4))]
    assert average_precision(moved, truth, 2, 0.5)[1] == 0 and average_precision(moved, truth, 2, 27 / 102)[1] == 1


def test_boxes_of_all_images_are_ranked_together_but_match_in_their_own() -> None:
    truth = [boxes(A), boxes(B)]
    right = [found((0.2, *A)), found((0.9, *AWAY), (0.8, *B))]
    assert average_precision(right, truth, 2)[1] == pytest.approx(2 / 3)
    assert average_precision([found((0.9, *B)), found((0.9, *A))], truth, 2)[1] == 0


def test_classes_are_scored_each_for_itself_and_an_absent_one_is_unknown() -> None:
    one = [found((0.9, *A), (0.8, *B), (0.7, *AWAY), classes=[1, 1, 3])]
    precision = average_precision(one, [boxes(A, B, classes=[1, 2])], 4)
    assert np.isnan(precision[[0, 3]]).all() and precision[1] == 1 and precision[2] == 0


def test_images_of_both_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="longer"):
        average_precision([found()], [boxes(A), boxes(B)], 2)


@pytest.mark.parametrize(("n", "edge"), [(16, 16), (17, 16), (24, 16), (40, 16), (100, 7), (5, 1)])
def test_windows_cover_an_axis_and_overlap_by_half(n: int, edge: int) -> None:
    starts = window_starts(n, edge)
    assert starts[0] == 0 and starts[-1] == n - edge
    assert all(0 < after - before <= max(edge // 2, 1) for before, after in pairwise(starts))


class Bright(Detection):
    """Finds the box of the bright voxels that a window shows, surer the more it shows."""

    def detect(self, image: Tensor) -> Detections:
        bright = (image[0] > 0).nonzero()
        if not len(bright):
            return found()
        corners = torch.cat([bright.amin(0), bright.amax(0) + 1]).float().unsqueeze(0)
        return Detections(corners, torch.tensor([len(bright) / 100]), torch.tensor([1]))


@pytest.mark.parametrize("at", [(0, 0), (5, 9), (13, 30), (24, 37)])
def test_a_structure_that_many_windows_see_is_found_once_and_whole(at: tuple[int, int]) -> None:
    image = torch.zeros(1, 30, 43)
    image[0, at[0] : at[0] + 6, at[1] : at[1] + 6] = 1
    seen = detect_windows(Bright(UNetEncoder(1, 2, (4, 8)), ["a"], width=8), image, (16, 16))
    assert seen.corners.tolist() == [[*at, at[0] + 6, at[1] + 6]] and seen.classes.tolist() == [1]


def test_an_image_smaller_than_the_window_is_padded_and_no_box_leaves_it() -> None:
    torch.manual_seed(0)
    method = Detection(UNetEncoder(1, 3, (4, 8)), ["a", "b"], width=8, least_score=0.0)
    seen = detect_windows(method, torch.rand(1, 9, 20, 10), (16, 16, 16))
    assert len(seen.corners) and (seen.corners >= 0).all()
    assert (seen.corners[:, 3:] <= torch.tensor([9, 20, 10])).all()
