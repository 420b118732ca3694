"""Depth by hand, with each scaling; what has no truth or no prediction is counted."""

import numpy as np
import pandas as pd
import pytest

from medssl.errors import InputError
from medssl.evaluation.depth import (
    DEPTH_COLUMNS,
    DEPTH_SCORES,
    DepthFit,
    DepthRules,
    constant_depth,
    depth_summary,
    fit_depth,
    nearest_point_depth,
    sample_at,
    score_depth,
)
from medssl.evaluation.statistics import compare

AS_IT_IS = DepthRules("none")


def score(prediction, truth, rules=AS_IT_IS, **keywords):
    return score_depth(np.asarray(prediction), np.asarray(truth), rules, scan="x", **keywords).iloc[0]


def random_depths(seed=0, shape=(12, 15)):
    rng = np.random.default_rng(seed)
    truth = rng.uniform(20, 90, shape)
    return truth * rng.uniform(0.6, 1.6, shape), truth


def test_the_scores_are_those_computed_by_hand():
    table = score_depth(np.array([2.0, 3.0]), np.array([1.0, 4.0]), AS_IT_IS, scan="x", subject="anna")
    row = table.iloc[0]
    assert list(table.columns) == list(DEPTH_COLUMNS) and row["subject"] == "anna"
    assert row["abs_rel"] == pytest.approx((1 + 1 / 4) / 2)
    assert row["sq_rel"] == pytest.approx((1 + 1 / 4) / 2)
    assert row["rmse"] == pytest.approx(1)
    assert row["rmse_log"] == pytest.approx(np.sqrt((np.log(2) ** 2 + np.log(4 / 3) ** 2) / 2))
    assert (row["delta_1"], row["delta_2"], row["delta_3"]) == (0, 0.5, 0.5)
    assert (row["n"], row["missing"], row["scale"], row["shift"], row["missed"]) == (2, 0, 1, 0, False)
    assert row["scale_ratio"] == 1


def test_a_ratio_that_is_exactly_the_threshold_fails_it():
    for k, threshold in ((1, 1.25), (2, 1.5625), (3, 1.953125)):
        below = np.nextafter(threshold, 0)
        for prediction, truth in (([threshold, below], [1.0, 1.0]), ([1.0, 1.0], [threshold, below])):
            assert score(prediction, truth)[f"delta_{k}"] == 0.5


@pytest.mark.parametrize("rules", [AS_IT_IS, DepthRules("median"), DepthRules("none", nearest=30, cap=70)])
def test_agrees_with_a_loop_over_pixels(rules):
    prediction, truth = random_depths()
    truth[0, :5], truth[1, :3] = np.nan, 0
    mask = np.random.default_rng(1).random(truth.shape) < 0.7
    pairs = []
    for p, t, wanted in zip(prediction.ravel(), truth.ravel(), mask.ravel(), strict=True):
        if wanted and not np.isnan(t) and t > rules.nearest and (rules.cap is None or t <= rules.cap):
            pairs.append((p, t))
    scale = sorted_middle([t for _, t in pairs]) / sorted_middle([p for p, _ in pairs])
    pairs = [(p * (scale if rules.scaling == "median" else 1), t) for p, t in pairs]
    pairs = [(min(max(p, rules.nearest), rules.cap or np.inf), t) for p, t in pairs]
    n = len(pairs)
    row = score(prediction, truth, rules, mask=mask)
    assert row["n"] == n and row["scale_ratio"] == pytest.approx(scale)
    assert row["abs_rel"] == pytest.approx(sum(abs(p - t) / t for p, t in pairs) / n)
    assert row["sq_rel"] == pytest.approx(sum((p - t) ** 2 / t for p, t in pairs) / n)
    assert row["rmse"] == pytest.approx((sum((p - t) ** 2 for p, t in pairs) / n) ** 0.5)
    assert row["rmse_log"] == pytest.approx((sum((np.log(p) - np.log(t)) ** 2 for p, t in pairs) / n) ** 0.5)
    for k in (1, 2, 3):
        assert row[f"delta_{k}"] == pytest.approx(sum(max(p / t, t / p) < 1.25**k for p, t in pairs) / n)


def sorted_middle(values):
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def test_median_scaling_does_not_see_the_scale_of_the_prediction():
    prediction, truth = random_depths()
    one, other = (score(factor * prediction, truth, DepthRules("median")) for factor in (1, 37.0))
    assert other[list(DEPTH_SCORES)].tolist() == pytest.approx(one[list(DEPTH_SCORES)].tolist())
    assert other["scale"] == pytest.approx(one["scale"] / 37)
    assert score(37 * prediction, truth)["abs_rel"] > 20


@pytest.mark.parametrize("space", ["depth", "disparity"])
def test_scale_and_shift_are_found_where_they_are_fitted(space):
    _, truth = random_depths()
    prediction = (truth - 5) / 0.3 if space == "depth" else 1 / ((1 / truth - 0.002) / 0.3)
    rules = DepthRules("scale_and_shift", fitted_in=space)
    row = score(prediction, truth, rules)
    assert row["abs_rel"] == pytest.approx(0, abs=1e-9)
    assert (row["scale"], row["shift"]) == pytest.approx((0.3, 5 if space == "depth" else 0.002))
    assert row["scaling"] == f"scale_and_shift in {space}"
    np.testing.assert_allclose(fit_depth(prediction, truth, rules).apply(prediction), truth)


def test_scale_and_shift_are_those_of_least_squares():
    prediction, truth = random_depths()
    fit = fit_depth(prediction, truth, DepthRules("scale_and_shift", "disparity"))
    a = np.stack([1 / prediction.ravel(), np.ones(truth.size)], axis=1)
    expected = np.linalg.lstsq(a, 1 / truth.ravel(), rcond=None)[0]
    assert (fit.scale, fit.shift) == pytest.approx(tuple(expected))
    flat = fit_depth(np.full_like(truth, 3), truth, DepthRules("scale_and_shift", "depth"))
    assert (flat.scale, flat.shift) == pytest.approx((0, truth.mean()))


def test_what_is_behind_infinity_has_the_cap_s_depth_or_none():
    prediction = np.array([20.0, 50.0, 200.0, np.nan])  # disparities 0.05, 0.02, 0.005, less 0.01
    capped = DepthFit(1.0, -0.01, DepthRules("scale_and_shift", cap=80)).apply(prediction)
    np.testing.assert_allclose(capped, [25, 80, 80, np.nan])
    free = DepthFit(1.0, -0.01, DepthRules("scale_and_shift")).apply(prediction)
    np.testing.assert_allclose(free, [25, 100, np.nan, np.nan])


def test_what_is_behind_the_camera_has_the_nearest_depth_that_counts_or_none():
    prediction = np.array([3.0, 1.0])
    near = DepthFit(1.0, -2.0, DepthRules("scale_and_shift", "depth", nearest=0.5)).apply(prediction)
    np.testing.assert_allclose(near, [1, 0.5])
    free = DepthFit(1.0, -2.0, DepthRules("scale_and_shift", "depth")).apply(prediction)
    np.testing.assert_allclose(free, [1, np.nan])


def test_a_pixel_without_a_prediction_fails_every_delta_and_is_counted():
    row = score([2.0, np.nan, 0.0, -1.0], [2.0, 2.0, 2.0, 2.0])
    assert (row["n"], row["missing"], row["missed"]) == (4, 3, False)
    assert (row["abs_rel"], row["delta_3"]) == (0, 0.25)


@pytest.mark.parametrize("rules", [AS_IT_IS, DepthRules("median"), DepthRules("scale_and_shift")])
def test_an_image_without_truth_is_nan_and_an_image_without_prediction_is_missed(rules):
    truth = np.full((4, 4), 5.0)
    empty = score(truth, truth, rules, mask=np.zeros((4, 4), bool))
    assert np.isnan(empty[list(DEPTH_SCORES)].astype(float)).all() and empty["missed"] and empty["n"] == 0
    lost = score(np.zeros((4, 4)), truth, rules)
    assert np.isnan(lost["abs_rel"]) and lost["delta_1"] == 0 and lost["missed"] and lost["missing"] == 16


def test_as_many_pixels_as_fitted_numbers_are_no_score():
    assert np.isnan(score([3.0], [1.0], DepthRules("median"))["delta_1"])
    assert np.isnan(score([3.0, 4.0], [1.0, 7.0], DepthRules("scale_and_shift"))["abs_rel"])
    assert score([3.0], [1.0])["abs_rel"] == 2


def test_the_summary_counts_what_has_no_score_and_says_how_steady_the_scale_is():
    truth = np.full((2, 2), 6.0)
    tables = [score_depth(truth / ratio, truth, scan=f"i{ratio}", subject="s") for ratio in (1, 2, 3)]
    tables += [score_depth(truth, truth * np.nan, scan="empty", subject="t")]
    (row,) = depth_summary({"net": pd.concat(tables)}).to_dict("records")
    assert (row["method"], row["n"], row["n_missed"], row["subjects"]) == ("net", 3, 1, 2)
    assert (row["abs_rel_mean"], row["delta_1_mean"], row["scaling"]) == (0, 1, "median")
    assert row["scale_ratio_median"] == 2
    assert row["scale_ratio_spread"] == pytest.approx(np.std([1, 2, 3]) / 2)


def test_the_images_of_one_subject_count_once_in_the_summary():
    truth = np.full((2, 2), 10.0)
    errors = (("a", 1.1), ("a", 1.3), ("b", 1.4))
    tables = [score_depth(truth * f, truth, AS_IT_IS, scan=f"{s}{i}", subject=s) for i, (s, f) in enumerate(errors)]
    (row,) = depth_summary({"net": pd.concat(tables)}).to_dict("records")
    assert row["abs_rel_mean"] == pytest.approx((0.2 + 0.4) / 2)


def test_two_methods_are_compared_as_segmentations_are():
    runs = []
    for gain in (0.0, 0.1):
        truths = [random_depths(seed)[1] for seed in range(6)]
        rows = [score_depth(t * (1.3 - gain), t, AS_IT_IS, scan=f"i{i}") for i, t in enumerate(truths)]
        runs.append(pd.concat(rows))
    table = compare(*runs, metric="abs_rel", resamples=99).table
    assert table.loc[0, "difference"] == pytest.approx(-0.1)


def test_sparse_truth_is_read_at_its_points_linearly():
    depth = np.add.outer(10 * np.arange(4.0), np.arange(5.0))  # 10 y + x
    pixels = np.array([[0, 0], [1.5, 2.25], [4, 3], [-0.4, 0], [-0.6, 0], [4.6, 1]])
    np.testing.assert_allclose(sample_at(depth, pixels), [0, 24, 34, 0, np.nan, np.nan])
    row = score(sample_at(depth, pixels), [1.0, 24, 34, 1, 1, 1])
    assert (row["n"], row["missing"]) == (6, 4)  # outside, and at depth 0


def test_the_constant_baseline_is_the_median_of_all_known_training_depths():
    truths = [np.array([1.0, np.nan, 0.0]), np.array([[2.0, 9.0]])]
    assert constant_depth(truths, (2, 3)).tolist() == [[2, 2, 2], [2, 2, 2]]
    with pytest.raises(InputError, match="1 images hold none"):
        constant_depth([np.zeros(4)], (2, 2))


def test_the_nearest_baseline_agrees_with_a_loop():
    rng = np.random.default_rng(0)
    pixels, depths = rng.uniform(0, 9, (8, 2)), rng.uniform(1, 5, 8)
    depths[3] = np.nan
    found = nearest_point_depth(pixels, depths, (7, 10))
    known = [(p, d) for p, d in zip(pixels, depths, strict=True) if not np.isnan(d)]
    for y in range(7):
        for x in range(10):
            assert found[y, x] == min(known, key=lambda some: np.hypot(*(some[0] - (x, y))))[1]
    with pytest.raises(InputError, match="none of 1 points"):
        nearest_point_depth(pixels[3:4], depths[3:4], (7, 10))


def test_wrong_shapes_and_rules_are_refused():
    with pytest.raises(InputError, match=r"\(2, 2\), \(2, 3\)"):
        score(np.ones((2, 2)), np.ones((2, 3)))
    with pytest.raises(InputError, match="'mean'"):
        DepthRules("mean")
    with pytest.raises(InputError, match="0 <= nearest < cap"):
        DepthRules(nearest=5, cap=5)
