"""Paired comparisons against closed forms, scipy and statsmodels; what may not be claimed is refused."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import wilcoxon
from statsmodels.stats.multitest import multipletests

from medssl.errors import InputError
from medssl.evaluation.statistics import compare, compare_runs, rank_biserial
from medssl.evaluation.tables import OVERALL

STRUCTURES = ("Left-A", "Right-A", "B")


def run(dice):
    """A table of scores from Dice (subjects, structures) of one scan for each subject."""
    subjects, structures = np.shape(dice)
    names = [f"s{number}" for number in range(subjects)]
    labels = [*STRUCTURES, *(f"S{number}" for number in range(3, structures))][:structures]
    table = pd.DataFrame(
        {
            "subject": np.repeat(names, structures),
            "scan": np.repeat([f"{name}-1" for name in names], structures),
            "structure": np.tile(labels, subjects),
            "dice": np.ravel(dice),
        }
    )
    return table.assign(missed=table["dice"] == 0)


def two_runs(seed=0, subjects=9, gain=0.05):
    rng = np.random.default_rng(seed)
    a = rng.uniform(0.6, 0.8, (subjects, 3))
    return run(a), run(a + gain + rng.normal(0, 0.03, a.shape))


def by_structure(comparison):
    return comparison.table.set_index("structure")


def dice_of(table, structure):
    return table.loc[table["structure"] == structure, "dice"].to_numpy()


def test_means_p_values_and_holm_match_scipy_and_statsmodels():
    a, b = two_runs()
    table = by_structure(compare(a, b))
    p = []
    for structure in STRUCTURES:
        of_a, of_b = dice_of(a, structure), dice_of(b, structure)
        row = table.loc[structure]
        assert row["mean_a"] == pytest.approx(of_a.mean())
        assert row["sd_b"] == pytest.approx(of_b.std(ddof=1))
        assert row["difference"] == pytest.approx((of_b - of_a).mean())
        assert row["p"] == pytest.approx(wilcoxon(of_b, of_a).pvalue)
        p.append(row["p"])
    assert table.loc[list(STRUCTURES), "p_holm"].tolist() == pytest.approx(multipletests(p, method="holm")[1])
    assert list(table.index) == [*STRUCTURES, OVERALL]


def test_holm_has_the_values_computed_by_hand():
    # Six subjects. All six better: p = 2/64. The smallest of six worse: 4/64. The second smallest worse: 6/64.
    sizes = np.array([0.01, 0.02, 0.03, 0.04, 0.05, 0.06])
    signs = np.array([[1, 1, 1, 1, 1, 1], [-1, 1, 1, 1, 1, 1], [1, -1, 1, 1, 1, 1]])
    base = np.full((6, 3), 0.5)
    table = by_structure(compare(run(base), run(base + (signs * sizes).T)))
    assert table["p"].tolist()[:3] == pytest.approx([2 / 64, 4 / 64, 6 / 64])
    assert table["p_holm"].tolist()[:3] == pytest.approx([3 * 2 / 64, 2 * 4 / 64, 2 * 4 / 64])


def test_identical_runs_differ_by_nothing_with_p_one():
    a, _ = two_runs()
    table = by_structure(compare(a, a))
    assert (table[["difference", "low", "high", "effect"]] == 0).all(axis=None)
    assert (table[["p", "p_holm"]] == 1).all(axis=None)


def test_the_overall_row_compares_each_subject_s_mean_of_structures():
    a, b = two_runs()
    macro_a, macro_b = (table.groupby("subject")["dice"].mean() for table in (a, b))
    row = by_structure(compare(a, b)).loc[OVERALL]
    assert row["difference"] == pytest.approx((macro_b - macro_a).mean())
    assert row["p"] == row["p_holm"] == pytest.approx(wilcoxon(macro_b, macro_a).pvalue)


def test_rank_biserial_has_the_value_computed_by_hand():
    assert rank_biserial(np.array([0.1, 0.2, 0.3])) == 1
    assert rank_biserial(np.array([-0.1, 0.2, 0.3, 0])) == pytest.approx((2 + 3 - 1) / 6)
    assert rank_biserial(np.zeros(3)) == 0


def test_the_interval_covers_the_true_difference_about_as_often_as_it_says():
    base = np.full((20, 200), 0.5)  # 200 structures are 200 repetitions
    table = compare(run(base), run(base + np.random.default_rng(1).normal(0.05, 0.03, base.shape))).table[:-1]
    assert 0.88 <= ((table["low"] <= 0.05) & (table["high"] >= 0.05)).mean() <= 0.98


def test_the_interval_is_the_same_for_the_same_seed():
    a, b = two_runs()
    assert compare(a, b, seed=3).table.equals(compare(a, b, seed=3).table)
    assert not compare(a, b, seed=3).table.equals(compare(a, b, seed=4).table)


def test_scans_of_one_subject_stay_together():
    a, b = two_runs()
    again = [table.assign(scan=table["scan"] + "-again") for table in (a, b)]
    once, twice = compare(a, b).table, compare(pd.concat([a, again[0]]), pd.concat([b, again[1]])).table
    assert twice["n"].tolist() == [9, 9, 9, 9]  # nine people, not eighteen scans
    pd.testing.assert_frame_equal(once, twice.assign(missed_a=once["missed_a"], missed_b=once["missed_b"]))


@pytest.mark.parametrize("subjects", [1, 4])
def test_under_five_pairs_p_and_interval_are_refused_and_the_reason_is_said(subjects):
    comparison = compare(*two_runs(subjects=subjects))
    assert comparison.table[["p", "p_holm", "low", "high"]].isna().all(axis=None)
    assert comparison.table[["mean_a", "mean_b", "difference"]].notna().all(axis=None)
    assert any("under 5 pairs" in note and "0.0625" in note for note in comparison.notes)


def test_five_pairs_give_p_values_and_the_warning_that_none_can_reach_significance():
    comparison = compare(*two_runs(subjects=5, gain=0.3))
    assert by_structure(comparison).loc["B", "p"] == pytest.approx(0.0625)
    assert any("With 5 pairs the smallest possible p is 0.062" in note for note in comparison.notes)


def test_enough_pairs_need_no_caution():
    assert compare(*two_runs(subjects=9)).notes == ()


def test_what_only_one_run_has_is_left_out_and_named():
    a, b = two_runs()
    b = b[b["scan"] != "s3-1"]
    a = a[a["structure"] != "B"]
    comparison = compare(a, b, names=("plain", "ECB"))
    assert comparison.table["n"].tolist() == [8, 8, 8]
    assert "Left out, because only 'plain' has the scan: s3-1." in comparison.notes
    assert "Left out, because only 'ECB' has the structure: B." in comparison.notes


def test_a_score_that_one_run_lacks_leaves_the_pair_out_scan_by_scan():
    a, b = run([[0.5], [0.5]]), run([[0.7], [0.6]])
    second_a, second_b = (table.assign(scan=table["scan"] + "-again") for table in (a, b))
    second_b.loc[0, "dice"], second_a.loc[0, "dice"] = np.nan, 0.0
    comparison = compare(pd.concat([a, second_a]), pd.concat([b, second_b]))
    assert comparison.table["mean_a"].tolist() == [0.5, 0.5]  # the hallucinated 0 has no partner
    assert any(note.startswith("Left out: 1 structures") for note in comparison.notes)


def test_missed_structures_are_counted_beside_the_means():
    a, b = two_runs()
    b.loc[[0, 3], "dice"], b.loc[[0, 3], "missed"] = 0.0, True
    table = by_structure(compare(a, b))
    assert table["missed_a"].tolist() == [0, 0, 0, 0]
    assert table["missed_b"].tolist() == [2, 0, 0, 2]


def test_differences_equal_but_for_rounding_tie():
    a = np.array([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]]).T
    table = compare(run(a), run(a + np.array([[0.1, 0.1, 0.1, -0.1, -0.1, -0.1]]).T)).table
    assert table["effect"].iloc[0] == 0


def test_the_two_runs_must_agree_on_whose_scan_it_is():
    a, b = two_runs()
    with pytest.raises(InputError, match="do not agree on whose the scan s0-1 is"):
        compare(a, b.replace({"subject": {"s0": "someone"}}))


def test_runs_without_a_shared_scan_are_refused():
    a, b = two_runs()
    with pytest.raises(InputError, match="share no scan with a score 'dice'"):
        compare(a, b.assign(scan="x" + b["scan"]))


def test_every_run_is_compared_with_the_baseline():
    a, b = two_runs()
    comparisons = compare_runs({"weak": a, "ECB": b, "plain": a}, baseline="weak")
    assert list(comparisons) == ["ECB", "plain"]
    assert (comparisons["ECB"].baseline, comparisons["ECB"].other) == ("weak", "ECB")
    assert by_structure(comparisons["ECB"]).loc[OVERALL, "difference"] > 0


@pytest.mark.parametrize("tables", [{}, {"weak": two_runs()[0]}, {"ECB": two_runs()[0], "plain": two_runs()[0]}])
def test_comparing_needs_the_baseline_and_another_run(tables):
    with pytest.raises(InputError, match="needs the baseline 'weak' and at least one other run"):
        compare_runs(tables, baseline="weak")
