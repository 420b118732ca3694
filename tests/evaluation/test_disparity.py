"""Disparity errors by hand, what hides what, holes filled from behind, and a matcher on a known shift."""

from pathlib import Path

import numpy as np
import pytest
from shifted_pairs import HEIGHT, SHIFT, WIDTH, texture

from medssl.data.recordings import find_sequences
from medssl.errors import InputError
from medssl.evaluation.classical import semi_global_disparity, variational_flow
from medssl.evaluation.disparity import (
    Rig,
    agreement,
    constant_disparity,
    disparity_summary,
    filled_from_behind,
    hidden_from_right,
    motion_of,
    score_disparity,
)
from medssl.evaluation.matching import common_mean, redrawn_error
from medssl.evaluation.visibility import hidden

RIG = Rig(focal_px=100, baseline=2, apart=4)
NAN = np.nan


def row(*values):
    return np.array([values], dtype=np.float64)


def planar(shift):
    return texture(shift).transpose(2, 0, 1)


def test_depth_is_focal_times_baseline_over_disparity_and_the_principal_points_distance():
    np.testing.assert_allclose(RIG.depth(row(16, 6, -4, NAN)), [[10, 20, NAN, NAN]])
    np.testing.assert_allclose(RIG.disparity(row(10, 20, 0, NAN)), [[16, 6, NAN, NAN]])


def test_scores_by_hand():
    truth, found = row(0, 0, 0, 0, 0, 0, NAN), row(0.5, -1.5, 2.5, 8, NAN, 0, 3)
    rows = score_disparity(found, truth, RIG, scan="pair").set_index("structure").loc["all"]
    assert (rows["n"], rows["missing"], rows["missed"]) == (6, 1, False)
    assert rows["error_px"] == pytest.approx((0.5 + 1.5 + 2.5 + 8) / 5)
    bad = [rows[f"bad_{k}_percent"] for k in (1, 2, 3)]
    assert bad == pytest.approx([100 * 4 / 6, 100 * 3 / 6, 100 * 2 / 6])
    # Depth 50 everywhere; -1.5 px would be 80 away, and counts as the farthest truth.
    off = np.array([50 - 200 / 4.5, 0, 50 - 200 / 6.5, 50 - 200 / 12, 0])
    assert rows["depth_error"] == pytest.approx(off.mean()) and rows["abs_rel"] == pytest.approx(off.mean() / 50)


def test_the_truth_scores_zero_and_a_constant_its_median_distance():
    truth = np.random.default_rng(0).uniform(1, 9, (8, 20))
    table = {"truth": truth, "constant": constant_disparity(truth)}
    summary = disparity_summary({name: score_disparity(one, truth, RIG, scan="a") for name, one in table.items()})
    means = summary[summary["structure"] == "all"].set_index("method")["error_px_mean"]
    assert means["truth"] == 0 and means["constant"] == pytest.approx(np.abs(truth - np.median(truth)).mean())


def test_a_truth_of_another_shape_is_refused():
    with pytest.raises(InputError, match=r"\(1, 2\).*\(1, 3\)"):
        score_disparity(row(1, 2), row(1, 2, 3), RIG, scan="a")


def test_what_lies_behind_something_nearer_or_outside_is_hidden_from_the_right():
    disparity = np.zeros((1, 12))
    disparity[0, 7:10] = 3  # is seen at 4 to 6 on the right
    assert np.flatnonzero(hidden_from_right(disparity)).tolist() == [4, 5, 6]
    assert np.flatnonzero(hidden_from_right(np.full((1, 12), 2.0))).tolist() == [0, 1]
    assert not hidden_from_right(np.full((1, 12), NAN)).any()


def test_a_slanted_surface_does_not_hide_itself():
    disparity = np.tile(np.linspace(2, 8, 24), (3, 1))
    assert not hidden_from_right(disparity)[:, 3:].any()


def test_without_nearness_only_what_leaves_the_picture_is_hidden():
    motion = np.zeros((4, 5, 2))
    motion[0, 0], motion[3, 2], motion[1, 1] = (2, 0), (0, 0.6), (NAN, NAN)
    assert np.argwhere(hidden(motion)).tolist() == [[3, 2]]


def test_holes_are_filled_with_the_smaller_neighbour_and_empty_rows_from_the_next():
    disparity = np.vstack([row(NAN, NAN, NAN, NAN, NAN), row(NAN, 5, NAN, 3, NAN)])
    np.testing.assert_array_equal(filled_from_behind(disparity), [[5, 5, 3, 3, 3], [5, 5, 3, 3, 3]])


def test_agreement_counts_what_both_know():
    mask = row(1, 1, 1, 1, 0).astype(bool)
    found = agreement(row(1, 2, 9, NAN, 50), row(1, 3, 1, 4, 0), mask)
    assert found == {
        "median_difference_px": 1,
        "within_3_px_percent": pytest.approx(100 * 2 / 3),
        "compared_percent": 75,
    }
    assert np.isnan(agreement(row(NAN), row(1), row(1).astype(bool))["median_difference_px"])


def test_the_true_shift_redraws_the_picture_and_another_does_not():
    left, right, valid = planar(0), planar(-SHIFT), np.ones((HEIGHT, WIDTH), dtype=bool)
    shifts = {name: np.full((HEIGHT, WIDTH), float(shift)) for name, shift in (("true", SHIFT), ("wrong", SHIFT + 3))}
    errors = {name: redrawn_error(left, right, motion_of(one), valid) for name, one in shifts.items()}
    assert np.isnan(errors["true"][:, :SHIFT]).all() and np.isfinite(errors["true"][:, SHIFT:]).all()
    assert common_mean(errors, "true", valid) < 1e-3 < 0.1 < common_mean(errors, "wrong", valid)


def test_the_matcher_finds_a_constant_shift_up_to_the_left_edge():
    disparity = semi_global_disparity(planar(0), planar(-SHIFT), 0.3 * WIDTH)
    known = np.isfinite(disparity)
    assert known.mean() > 0.8 and np.abs(disparity[known] - SHIFT).max() < 0.5
    assert known[HEIGHT // 2, 2 * SHIFT : 28].all()  # where not all disparities fit in the picture


def test_tv_l1_goes_from_the_first_picture_to_the_second():
    flow = variational_flow(planar(0), planar(2))
    np.testing.assert_allclose(np.median(flow.reshape(-1, 2), axis=0), [2, 0], atol=0.1)


@pytest.mark.real_data
def test_what_is_hidden_is_what_middleburys_mask_says(real_data: Path) -> None:
    (pair,) = find_sequences(real_data / "stereo" / "motorcycle")
    assert pair.truth.disparity is not None and pair.truth.visible is not None
    disparity = pair.truth.disparity(0)
    agreeing = hidden_from_right(disparity) == (pair.truth.visible(0) == 0)
    assert agreeing[np.isfinite(disparity)].mean() > 0.97
