"""J, F and PCK are what their papers say: closed forms, and naive implementations of their own."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from medssl.errors import InputError
from medssl.evaluation.tracking import (
    contour,
    contour_accuracy,
    correct_points,
    dilated,
    points_scale,
    region_similarity,
    score_masks,
    score_points,
    scored_frames,
    tracking_summary,
)

Mask = NDArray[np.bool_]


def blobs(seed: int, size: tuple[int, int] = (24, 31)) -> Mask:
    """Some rectangles, of which one may touch the edge."""
    draw = np.random.default_rng(seed)
    mask = np.zeros(size, dtype=bool)
    for _ in range(3):
        y, x = draw.integers(0, size[0] - 4), draw.integers(0, size[1] - 4)
        mask[y : y + draw.integers(2, 9), x : x + draw.integers(2, 9)] = True
    return mask


def naive_j(a: Mask, b: Mask) -> float:
    both = either = 0
    for y, x in np.ndindex(a.shape):
        both += a[y, x] and b[y, x]
        either += a[y, x] or b[y, x]
    return both / either if either else 1.0


def naive_contour(mask: Mask) -> set[tuple[int, int]]:
    height, width = mask.shape
    found = set()
    for y, x in np.ndindex(mask.shape):
        for dy, dx in ((0, 1), (1, 0), (1, 1)):
            if mask[min(y + dy, height - 1), min(x + dx, width - 1)] != mask[y, x]:
                found.add((y, x))
    return found


def naive_f(a: Mask, b: Mask, tolerance: float) -> float:
    """Every pixel of each contour looks for one of the other contour in reach."""
    reach = np.ceil(tolerance * np.sqrt(a.shape[0] ** 2 + a.shape[1] ** 2))
    of_a, of_b = naive_contour(a), naive_contour(b)
    if not of_a and not of_b:
        return 1.0
    if not of_a or not of_b:
        return 0.0

    def near(some: set[tuple[int, int]], others: set[tuple[int, int]]) -> float:
        hits = sum(any((y - v) ** 2 + (x - u) ** 2 <= reach**2 for v, u in others) for y, x in some)
        return hits / len(some)

    precision, recall = near(of_a, of_b), near(of_b, of_a)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@pytest.mark.parametrize("seed", range(4))
def test_j_and_f_match_naive_loops(seed: int) -> None:
    a, b = blobs(seed), blobs(seed + 10)
    assert region_similarity(a, b) == pytest.approx(naive_j(a, b), abs=1e-12)
    assert set(map(tuple, np.argwhere(contour(a)))) == naive_contour(a)
    for tolerance in (0.008, 0.05, 0.1):
        assert contour_accuracy(a, b, tolerance) == pytest.approx(naive_f(a, b, tolerance), abs=1e-12)


def test_dilation_is_by_a_disk() -> None:
    mask = np.zeros((15, 15), dtype=bool)
    mask[4, 5] = mask[13, 13] = True
    expected = np.zeros_like(mask)
    for (cy, cx), dy, dx in product(((4, 5), (13, 13)), range(-3, 4), range(-3, 4)):
        if dy**2 + dx**2 <= 9 and max(cy + dy, cx + dx) < 15:
            expected[cy + dy, cx + dx] = True
    assert np.array_equal(dilated(mask, 3), expected)
    assert not dilated(np.zeros((4, 4), dtype=bool), 2).any()


def test_a_mask_is_its_own_best_match_and_two_empty_ones_agree() -> None:
    mask, nothing = blobs(0), np.zeros((24, 31), dtype=bool)
    assert region_similarity(mask, mask) == contour_accuracy(mask, mask) == 1
    assert region_similarity(nothing, nothing) == contour_accuracy(nothing, nothing) == 1
    assert region_similarity(mask, nothing) == contour_accuracy(nothing, mask) == 0


def test_a_square_moved_by_half_its_side_has_a_third_of_j() -> None:
    a, b = (np.zeros((40, 60), dtype=bool) for _ in range(2))
    a[10:20, 10:20] = b[10:20, 15:25] = True
    assert region_similarity(a, b) == pytest.approx(50 / 150)
    assert contour_accuracy(a, b, tolerance=5 / np.hypot(40, 60)) == 1  # each contour within 5 pixels of the other


def test_the_tolerance_is_rounded_up_to_whole_pixels() -> None:
    a, b = (np.zeros((60, 80), dtype=bool) for _ in range(2))  # a diagonal of 100 pixels: 0.8 becomes 1
    a[10:30, 10:30] = b[11:31, 10:30] = True
    assert contour_accuracy(a, b) == 1
    assert contour_accuracy(a, np.roll(b, 1, axis=0)) < 1


def test_each_object_has_its_row() -> None:
    truth = np.zeros((20, 20), dtype=np.uint8)
    truth[2:6, 2:6], truth[10:14, 10:14] = 3, 9
    rows = pd.DataFrame(score_masks(np.where(truth == 9, 0, truth), truth, [3, 9], method="a", frame=4))
    assert rows[["object", "j", "f", "j_and_f"]].to_numpy().tolist() == [[3, 1, 1, 1], [9, 0, 0, 0]]
    assert set(rows["frame"]) == {4}


def test_masks_of_two_sizes_are_refused() -> None:
    with pytest.raises(InputError, match=r"\(3, 4\) and \(4, 3\)"):
        region_similarity(np.zeros((3, 4), dtype=bool), np.zeros((4, 3), dtype=bool))


def test_the_given_frame_is_not_scored_nor_the_last_one_where_davis_leaves_it_out() -> None:
    assert scored_frames([0, 5, 8, 13], 0) == [5, 8, 13]
    assert scored_frames([0, 5, 8, 13], 5, last=13) == [0, 8]


def test_frames_are_averaged_within_each_object_before_objects_are() -> None:
    rows = pd.DataFrame(
        {
            "method": ["a"] * 4,
            "recording": ["r"] * 4,
            "object": [1, 1, 1, 2],
            "j": [0.0, 0.3, 0.6, 0.9],
            "f": [1.0] * 4,
            "j_and_f": [0.5] * 4,
        }
    )
    (row,) = tracking_summary(rows).to_dict("records")
    assert row["objects"] == 2
    assert row["j_mean"] == pytest.approx((0.3 + 0.9) / 2)
    assert row["j_sd"] == pytest.approx(np.std([0.3, 0.9], ddof=1))


def test_points_within_a_share_of_the_scale_are_right() -> None:
    truth = np.array([[0.0, 0.0], [30.0, 40.0], [np.nan, 0.0]])
    found = np.array([[3.0, 4.0], [30.0, 51.0], [0.0, 0.0]])
    assert points_scale(truth[:2], (100, 200)) == 40
    assert points_scale(truth[:1], (100, 200)) == 100
    right = correct_points(found, truth, 50, (0.1, 0.2, 0.3))
    assert right.tolist() == [[True, False, False], [True, False, False], [True, True, False]]


def test_pck_is_the_mean_of_its_rows_and_unknown_places_have_none() -> None:
    truth = np.array([[0.0, 0.0], [10.0, 0.0], [np.nan, np.nan]])
    found = truth + np.array([[0.5, 0], [1.5, 0], [0, 0]])
    rows = pd.DataFrame(score_points(found, truth, ["a", "b", "c"], 10.0))
    assert rows["object"].tolist() == ["a", "b"]
    assert rows["pck_0.1"].mean() == 0.5 and rows["pck_0.2"].mean() == 1
    assert rows["distance_px"].tolist() == [0.5, 1.5]


def test_points_of_other_shapes_are_refused() -> None:
    with pytest.raises(InputError, match="scale above 0"):
        correct_points(np.zeros((2, 2)), np.zeros((2, 2)), 0.0)
