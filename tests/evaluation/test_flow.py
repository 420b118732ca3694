"""Flow errors by hand: over 3 pixels and over 5 %, in and out of occlusions."""

import numpy as np
import pandas as pd
import pytest

from medssl.errors import InputError
from medssl.evaluation.flow import (
    FLOW_COLUMNS,
    FLOW_SCORES,
    angular_error_deg,
    end_point_error,
    flow_summary,
    outliers,
    score_flow,
    zero_flow,
)


def flow(*vectors):
    """One row of pixels, (1, N, 2)."""
    return np.array([vectors], dtype=np.float64)


def random_flows(seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.normal(0, 40, (9, 11, 2))
    return truth + rng.normal(0, 3, truth.shape), truth


def test_the_end_point_error_is_a_distance():
    assert end_point_error(flow((3, 4), (1, 1)), flow((0, 0), (1, 1))).tolist() == [[5, 0]]


def test_the_angular_error_is_the_angle_of_x_y_1():
    found = angular_error_deg(flow((1, 0), (0, 0), (1, 0), (5, -2)), flow((0, 0), (0, 1), (-1, 0), (5, -2)))
    np.testing.assert_allclose(found, [[45, 45, 90, 0]], atol=1e-12)
    assert angular_error_deg(flow((1e-7, 0)), flow((0, 0)))[0, 0] == pytest.approx(np.degrees(1e-7))


def test_an_outlier_is_wrong_by_over_3_pixels_and_over_5_percent():
    cases = [((3, 0), (0, 0)), ((3.01, 0), (0, 0)), ((95, 0), (100, 0)), ((94.9, 0), (100, 0)), ((2, 0), (1, 0))]
    prediction, truth = (flow(*some) for some in zip(*cases, strict=True))
    assert outliers(prediction, truth).tolist() == [[False, True, False, True, False]]


def test_agrees_with_a_loop_over_pixels():
    prediction, truth = random_flows()
    row = score_flow(prediction, truth, scan="x").iloc[0]
    errors, wrong, angles = [], [], []
    for p, t in zip(prediction.reshape(-1, 2), truth.reshape(-1, 2), strict=True):
        errors.append(np.linalg.norm(p - t))
        wrong.append(errors[-1] > 3 and errors[-1] / np.linalg.norm(t) > 0.05)
        lengths = np.sqrt((1 + p @ p) * (1 + t @ t))
        angles.append(np.degrees(np.arccos((1 + p @ t) / lengths)))
    assert 0 < np.mean(wrong) < 1
    assert row["epe"] == pytest.approx(np.mean(errors))
    assert row["fl_percent"] == pytest.approx(100 * np.mean(wrong))
    assert row["angular_deg"] == pytest.approx(np.mean(angles))


def test_occluded_pixels_are_scored_apart():
    prediction, truth = flow((1, 0), (0, 0), (9, 0)), flow((0, 0), (0, 0), (0, 0))
    occluded, valid = np.array([[False, False, True]]), np.array([[True, False, True]])
    table = score_flow(prediction, truth, scan="x", subject="s", occluded=occluded, valid=valid)
    assert list(table.columns) == list(FLOW_COLUMNS)
    assert table["structure"].tolist() == ["all", "non-occluded", "occluded"]
    assert table["epe"].tolist() == [5, 1, 9] and table["fl_percent"].tolist() == [50, 0, 100]
    assert table["n"].tolist() == [2, 1, 1]


def test_a_pixel_without_a_prediction_is_an_outlier_and_counted():
    prediction, truth = flow((1, 0), (np.nan, 0)), flow((1, 0), (1, 0))
    row = score_flow(prediction, truth, scan="x").iloc[0]
    assert (row["epe"], row["fl_percent"], row["n"], row["missing"]) == (0, 50, 2, 1)
    lost = score_flow(prediction * np.nan, truth, scan="x").iloc[0]
    assert np.isnan(lost["epe"]) and lost["fl_percent"] == 100 and lost["missed"]


def test_a_region_without_truth_is_nan_and_counted_as_missed():
    truth = flow((1, 0), (np.nan, np.nan))
    table = score_flow(zero_flow(truth), truth, scan="x", occluded=np.array([[False, True]])).set_index("structure")
    assert np.isnan(table.loc["occluded", list(FLOW_SCORES)].astype(float)).all()
    assert table["missed"].tolist() == [False, False, True] and table["n"].tolist() == [1, 1, 0]


def test_the_error_of_no_flow_is_the_mean_motion():
    _, truth = random_flows()
    row = score_flow(zero_flow(truth), truth, scan="x").iloc[0]
    assert row["epe"] == pytest.approx(np.linalg.norm(truth, axis=-1).mean())


def test_the_summary_has_a_row_per_method_and_region():
    truth, occluded = flow((4, 0), (np.nan, 0)), np.array([[False, True]])
    tables = {
        "zero": pd.concat([score_flow(0 * truth, truth, scan=f"{i}", occluded=occluded) for i in range(2)]),
        "right": score_flow(truth, truth, scan="0"),
    }
    rows = flow_summary(tables).set_index(["method", "structure"])
    assert rows.loc[("zero", "non-occluded"), ["epe_mean", "epe_sd", "n", "n_missed"]].tolist() == [4, 0, 2, 0]
    assert rows.loc[("zero", "occluded"), ["n", "n_missed"]].tolist() == [0, 2]
    assert np.isnan(rows.loc[("zero", "occluded"), "missing"])
    assert rows.loc[("right", "all"), "fl_percent_mean"] == 0


def test_wrong_shapes_are_refused():
    with pytest.raises(InputError, match=r"a prediction \(1, 1, 2\), the truth \(1, 2, 2\)"):
        score_flow(flow((1, 1)), flow((1, 1), (1, 1)), scan="x")
    with pytest.raises(InputError, match=r"masks \[\(2, 1\)\]"):
        score_flow(flow((1, 1)), flow((1, 1)), scan="x", valid=np.ones((2, 1), bool))
