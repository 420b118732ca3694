"""What few labels are worth, against hand computation; the verdict claims no more than the intervals and p allow."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
from scipy.stats import wilcoxon
from statsmodels.stats.multitest import multipletests

from medssl.errors import InputError
from medssl.evaluation import efficiency
from medssl.evaluation.efficiency import Failure, complete, efficiency_cells, headline, overview_cells, verdict

STRUCTURES = ("A", "B")

learning_curve = partial(efficiency.learning_curve, resamples=999)
gains_over_scratch = partial(efficiency.gains_over_scratch, resamples=999)


def training(arm, labels, seed, dice):
    """The scores of one training from Dice (subjects, structures), one scan per subject."""
    subjects = [f"s{number}" for number in range(len(dice))]
    table = pd.DataFrame(
        {
            "subject": np.repeat(subjects, len(STRUCTURES)),
            "scan": np.repeat(subjects, len(STRUCTURES)),
            "structure": np.tile(STRUCTURES, len(dice)),
            "dice": np.ravel(dice),
        }
    )
    return table.assign(missed=False, arm=arm, labels=labels, seed=seed)


def study(gains, subjects=8, seeds=(0, 1), counts=(1, 4), spread=0.01):
    """Scores of scratch and of arms that gain so much with each number of labels: {arm: (gain, gain, ...)}."""
    rng = np.random.default_rng(0)
    tables = []
    for position, labels in enumerate(counts):
        for seed in seeds:
            scratch = rng.uniform(0.5, 0.7, (subjects, 2))
            tables.append(training("scratch", labels, seed, scratch))
            for arm, gain in gains.items():
                noise = rng.normal(0, spread, scratch.shape)
                tables.append(training(arm, labels, seed, scratch + gain[position] + noise))
    return pd.concat(tables, ignore_index=True)


def of(scores, arm, labels):
    """Mean Dice of each subject: over seeds, then over structures."""
    part = scores[(scores["arm"] == arm) & (scores["labels"] == labels)]
    return part.groupby(["subject", "structure"])["dice"].mean().groupby("subject").mean()


def test_the_curve_averages_seeds_within_subjects_first():
    dice = {seed: np.full((5, 2), 0.5 + 0.1 * seed) + np.arange(5)[:, None] / 100 for seed in (0, 1)}
    scores = pd.concat([training("scratch", 1, seed, values) for seed, values in dice.items()])
    (row,) = learning_curve(scores).to_dict("records")
    assert (row["subjects"], row["seeds"]) == (5, 2)
    assert row["mean"] == pytest.approx(0.57)
    assert (row["seed_low"], row["seed_high"]) == pytest.approx((0.52, 0.62))
    # Two seeds are not twice the subjects: the interval is that of the five subjects' means, 0.55 to 0.59.
    draws = np.random.default_rng(1).choice(np.arange(0.55, 0.595, 0.01), (20_000, 5)).mean(axis=1)
    assert (row["low"], row["high"]) == pytest.approx(np.percentile(draws, (2.5, 97.5)), abs=0.003)


def test_a_seed_with_fewer_subjects_does_not_weigh_more():
    scores = pd.concat([training("scratch", 1, 0, np.full((6, 2), 0.4)), training("scratch", 1, 1, np.full((2, 2), 1))])
    (row,) = learning_curve(scores).to_dict("records")
    assert row["mean"] == pytest.approx((2 * 0.7 + 4 * 0.4) / 6)


def test_gains_are_paired_over_subjects_and_p_is_wilcoxons():
    scores = study({"simclr": (0.03, 0.0)})
    for row in gains_over_scratch(scores).to_dict("records"):
        differences = of(scores, "simclr", row["labels"]) - of(scores, "scratch", row["labels"])
        assert row["n"] == 8
        assert row["difference"] == pytest.approx(differences.mean())
        assert row["p"] == pytest.approx(wilcoxon(differences).pvalue)
        assert row["low"] < row["difference"] < row["high"]


def test_holm_is_over_the_arms_at_one_number_of_labels():
    gains = gains_over_scratch(study({"a": (0.05, 0.0), "b": (0.004, 0.0), "c": (0.0, 0.0)}))
    for _, rows in gains.groupby("labels"):
        assert rows["p_holm"].tolist() == pytest.approx(multipletests(rows["p"], method="holm")[1])


def test_seeds_ahead_counts_the_draws_in_which_the_arm_was_better():
    scores = pd.concat(
        [training("scratch", 1, seed, np.full((5, 2), 0.5)) for seed in range(3)]
        + [training("a", 1, seed, np.full((5, 2), dice)) for seed, dice in enumerate((0.6, 0.7, 0.4))]
    )
    assert gains_over_scratch(scores)[["ahead", "seeds"]].to_numpy().tolist() == [[2, 3]]


def test_without_scratch_there_is_nothing_to_gain_over():
    with pytest.raises(InputError, match="With 1 labels, simclr cannot be compared"):
        gains_over_scratch(training("simclr", 1, 0, np.ones((5, 2))))


def row(**changes):
    given = {"arm": "masked_autoencoder", "labels": 2, "n": 8, "difference": 0.04, "low": 0.02, "high": 0.06}
    return {**given, "p": 0.008, "p_holm": 0.016, "ahead": 3, "seeds": 3, "notes": "", **changes}


def test_the_verdict_says_the_gain_and_where_there_is_none():
    nothing = {"difference": 0.002, "low": -0.01, "high": 0.013, "p_holm": 0.7}
    gains = pd.DataFrame([row(), row(labels=10, **nothing)])
    assert verdict(gains) == [
        "On these data, masked autoencoder with 2 labels gains 0.040 Dice over scratch (95 % interval +0.020 to "
        "+0.060, p = 0.016, in 3 of 3 subsets); with 10 labels shows nothing that can be told from chance (+0.002 "
        "Dice)."
    ]
    assert headline(gains) == "Pretraining pays: with 2 labels, masked autoencoder gains 0.040 Dice over scratch"
    (sentence,) = verdict(pd.DataFrame([row(labels=1), *(row(labels=n, **nothing) for n in (2, 5, 10))]))
    assert sentence.endswith(
        "; with 2, 5 and 10 labels shows nothing that can be told from chance (+0.002, +0.002 and +0.002 Dice)."
    )


def test_an_interval_above_zero_with_a_large_p_only_seems_to_gain():
    gains = pd.DataFrame([row(n=5, p=0.0625, p_holm=0.125, labels=1)])
    sentence, caution = verdict(gains)
    assert "with 1 label seems to gain 0.040 Dice over scratch (95 % interval +0.020 to +0.060, p = 0.125" in sentence
    assert "With 5 test subjects the smallest p there can be is 0.062, however large the gain" in caution
    assert headline(gains).startswith("Pretraining may pay: with 1 label")


@pytest.mark.parametrize(("ahead", "difference", "verb"), [(2, 0.04, "seems to gain"), (1, -0.04, "seems to lose")])
def test_what_not_all_subsets_of_labels_show_is_not_called_certain(ahead, difference, verb):
    low, high = difference - 0.02, difference + 0.02
    gains = pd.DataFrame([row(ahead=ahead, difference=difference, low=low, high=high, p_holm=0.001)])
    assert f"{verb} 0.040 Dice" in verdict(gains)[0] and "in 2 of 3 subsets)" in verdict(gains)[0]
    assert headline(gains).startswith("Pretraining may pay") == (difference > 0)


def test_a_loss_is_called_a_loss():
    gains = pd.DataFrame([row(difference=-0.04, low=-0.06, high=-0.02, ahead=0)])
    assert "loses 0.040 Dice to scratch (95 % interval -0.060 to -0.020, p = 0.016, in 3 of 3" in verdict(gains)[0]
    assert headline(gains) == "No gain from pretraining that can be told from chance"
    alone = pd.DataFrame([row(difference=-0.04, low=-0.06, high=-0.02, ahead=0, seeds=1)])
    assert "p = 0.016)" in verdict(alone)[0]


def test_under_five_subjects_there_is_no_p_and_the_verdict_says_so():
    scores = study({"simclr": (0.2, 0.2)}, subjects=4)
    gains, curve = gains_over_scratch(scores), learning_curve(scores)
    assert gains[["p", "p_holm", "low", "high"]].isna().all(axis=None)
    assert curve[["low", "high"]].isna().all(axis=None)
    sentence, caution = verdict(gains)
    assert "with 1 and 4 labels differs from scratch by +0.19" in sentence and "on 4 test subjects: no p" in sentence
    assert "no p-value and no interval under 5 test subjects, here 4" in caution
    assert headline(gains) == "Too few test subjects to say whether pretraining pays"


def test_pure_noise_is_not_called_a_gain():
    gains = gains_over_scratch(study({"simclr": (0.0, 0.0)}, spread=0.05, subjects=12))
    assert headline(gains) == "No gain from pretraining that can be told from chance"


def test_the_largest_gain_makes_the_headline():
    gains = gains_over_scratch(study({"a": (0.05, 0.0), "b": (0.1, 0.0)}, subjects=10))
    assert headline(gains).startswith("Pretraining pays: with 1 label, b gains 0.1")


def test_the_table_has_scratch_first_at_each_number_of_labels():
    scores = study({"simclr": (0.05, 0.0)})
    cells = efficiency_cells(learning_curve(scores), gains_over_scratch(scores))
    assert cells["labels"].tolist() == ["1", "", "4", ""]
    assert cells["pretraining"].tolist() == ["from scratch", "simclr"] * 2
    assert cells.loc[0, ["gain", "p", "subsets ahead"]].tolist() == ["–"] * 3
    assert cells.loc[1, "subsets ahead"] == "2 of 2"
    assert cells.loc[1, "Dice"] == f"{of(scores, 'simclr', 1).mean():.3f}"


FAILURES = [Failure("moco", "pretraining", "NaN."), Failure("simclr", "1 labels, seed 1", "NaN " * 99)]


def lacking():
    """Scores of a study in which simclr lacks the second draw of one label, and moco everything."""
    scores = study({"simclr": (0.05, 0.02), "jigsaw": (0.01, 0.01)})
    return scores[~((scores["arm"] == "simclr") & (scores["labels"] == 1) & (scores["seed"] == 1))]


def test_an_arm_that_lacks_a_draw_is_left_out_at_that_number_of_labels_alone():
    scores = complete(lacking())
    kept = set(zip(scores["arm"], scores["labels"], strict=True))
    assert kept == {("scratch", 1), ("scratch", 4), ("jigsaw", 1), ("jigsaw", 4), ("simclr", 4)}
    assert len(complete(study({"simclr": (0.05, 0.02)}))) == len(study({"simclr": (0.05, 0.02)}))


def test_what_failed_is_in_the_table_at_each_number_of_labels_where_it_is_missed():
    scores = complete(lacking())
    cells = efficiency_cells(learning_curve(scores), gains_over_scratch(scores), FAILURES)
    failed = cells[cells["Dice"] == "failed"]
    assert failed["pretraining"].tolist() == ["moco", "simclr", "moco"]
    assert (failed.drop(columns=["labels", "pretraining", "Dice"]) == "–").all(axis=None)
    assert cells["labels"].tolist() == ["1", "", "", "", "4", "", "", ""]


def test_the_overview_has_a_row_per_arm_with_probe_and_minutes_the_best_first_and_what_failed_last():
    scores = complete(lacking())
    costs = pd.DataFrame({"arm": ["scratch", "simclr", "jigsaw"], "probe, Dice": ["0.1", "0.2", "0.3"]})
    cells = overview_cells(learning_curve(scores), gains_over_scratch(scores), costs, FAILURES).set_index("pretraining")
    assert cells.index.tolist() == ["from scratch", "jigsaw", "simclr", "moco"]
    assert cells.columns.tolist() == ["1 label", "4 labels", "probe, Dice"]
    assert cells.loc["moco"].tolist() == ["failed", "failed", "–"] and cells.loc["simclr", "1 label"] == "failed"
    with_four = of(scores, "simclr", 4).mean(), of(scores, "scratch", 4).mean()
    assert cells.loc["simclr", "4 labels"] == f"{with_four[0]:.3f} ({with_four[0] - with_four[1]:+.3f})"
    assert (
        cells.loc["from scratch", "4 labels"] == f"{with_four[1]:.3f}" and cells.loc["jigsaw", "probe, Dice"] == "0.3"
    )


def test_the_verdict_names_what_failed_with_the_beginning_of_the_reason():
    *_, moco, simclr = verdict(gains_over_scratch(complete(lacking())), FAILURES)
    assert moco == "moco failed and is left out (pretraining): NaN."
    assert simclr.startswith("simclr failed and is left out (1 labels, seed 1): NaN NaN") and simclr.endswith(" ...")
    assert len(simclr) < 200
