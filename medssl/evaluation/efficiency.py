"""What pretraining is worth at each number of labels: curves, paired gains over training from scratch, and a verdict.

A study's scores are one long table (``medssl.evaluation.tables``) of all its trainings with three columns more: ``arm``
(the pretraining), ``labels`` (how many labelled subjects were trained on) and ``seed`` (which of them). Seeds are
averaged within each test subject first: intervals and tests are over subjects, of whom the next hospital has others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from textwrap import shorten
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import bootstrap
from statsmodels.stats.multitest import multipletests

from medssl.errors import InputError
from medssl.evaluation.statistics import FEWEST_PAIRS, compare
from medssl.evaluation.tables import OVERALL, subject_means

SCRATCH = "scratch"
_LEVEL = 0.05
_LEAST_P = 0.001  # that is written out
_NOTHING = "–"
_SHORT = 140  # characters of a reason in a sentence


@dataclass(frozen=True)
class Failure:
    """What a study tried in vain.

    Attributes:
        arm: Of which arm.
        what: "pretraining", "2 labels, seed 1", "linear probe".
        reason: Without the name of any scan or subject.
    """

    arm: str
    what: str
    reason: str

    def __str__(self) -> str:
        """Tell all of it."""
        return f"{named(self.arm)}, {self.what}: {self.reason}"


def complete(scores: pd.DataFrame) -> pd.DataFrame:
    """Leave an arm out at each number of labels where it lacks a seed that scratch has: others would be averaged."""
    seeds = scores.groupby(["arm", "labels"])["seed"].transform("nunique")
    of_scratch = scores[scores["arm"] == SCRATCH].groupby("labels")["seed"].nunique()
    return scores[seeds == scores["labels"].map(of_scratch)].reset_index(drop=True)


def learning_curve(scores: pd.DataFrame, metric: str = "dice", resamples: int = 9999) -> pd.DataFrame:
    """Average over test subjects what each arm reaches with each number of labels.

    Args:
        scores: Of all trainings, see the module.
        metric: Which score; averaged over structures within each subject.
        resamples: Bootstrap samples of subjects.

    Returns:
        One row per arm and number of labels: ``arm``, ``labels``, ``subjects``, their ``mean`` with ``low`` and
        ``high``, its 95 % bootstrap interval over subjects (NaN under five); how many ``seeds``, and ``seed_low`` and
        ``seed_high``, the least and the largest mean of one seed.
    """
    rows = []
    for (arm, labels), table in scores.groupby(["arm", "labels"], sort=False):
        subjects = subject_means(table, metric).mean(axis=1).dropna().to_numpy()
        low, high = _interval(subjects, resamples)
        seeds = _seed_means(table, metric)
        rows.append(
            {
                "arm": arm,
                "labels": int(labels),
                "subjects": len(subjects),
                "mean": subjects.mean(),
                "low": low,
                "high": high,
                "seeds": len(seeds),
                "seed_low": seeds.min(),
                "seed_high": seeds.max(),
            }
        )
    return pd.DataFrame(rows)


def gains_over_scratch(scores: pd.DataFrame, metric: str = "dice", resamples: int = 9999) -> pd.DataFrame:
    """Compare each arm with training from scratch on the same labels, paired over test subjects.

    Args:
        scores: Of all trainings, see the module.
        metric: Which score.
        resamples: Bootstrap samples of subjects.

    Returns:
        One row per number of labels and arm: ``arm``, ``labels``, ``n`` test subjects, ``difference`` of the means with
        ``low`` and ``high``, its 95 % bootstrap interval over subjects; ``effect`` and ``p`` as in
        ``medssl.evaluation.statistics.compare``; ``p_holm``, corrected over the arms at this number of labels;
        ``seeds`` that both were trained with, in ``ahead`` of which the arm was better; ``notes``, what was left out.
        Under five subjects there is neither p nor an interval.

    Raises:
        InputError: Scratch was not trained with one of the numbers of labels.
    """
    rows = []
    for labels, of_labels in scores.groupby("labels"):
        tables = dict(iter(of_labels.groupby("arm", sort=False)))
        if SCRATCH not in tables:
            raise InputError(
                f"With {labels} labels, {', '.join(tables)} cannot be compared: nothing was trained from scratch."
            )
        rows += [
            {"arm": arm, "labels": int(labels), **_gain(tables[SCRATCH], table, arm, metric, resamples)}
            for arm, table in tables.items()
            if arm != SCRATCH
        ]
    gains = pd.DataFrame(rows)
    gains["p_holm"] = gains["p"]
    for _, p in gains["p"].dropna().groupby(gains["labels"]):
        gains.loc[p.index, "p_holm"] = multipletests(p, method="holm")[1]
    return gains


def headline(gains: pd.DataFrame) -> str:
    """Say in one line what the study found: its largest gain, or that there is none."""
    if not (gains["n"] >= FEWEST_PAIRS).any():
        return "Too few test subjects to say whether pretraining pays"
    for claim, verb in (("Pretraining pays", "gains"), ("Pretraining may pay", "seems to gain")):
        found = gains[[_verb(row) == verb for row in gains.to_dict("records")]]
        if len(found):
            best = found.loc[found["difference"].idxmax()]
            what = f"{named(best['arm'])} {verb} {best['difference']:.3f} Dice over scratch"
            return f"{claim}: {_with([int(best['labels'])])}, {what}"
    return "No gain from pretraining that can be told from chance"


def verdict(gains: pd.DataFrame, failures: Sequence[Failure] = ()) -> list[str]:
    """Say in one sentence for each arm what it is worth with each number of labels, or that it failed.

    Then, what p cannot show here.
    """
    sentences = []
    for arm, rows in gains.groupby("arm", sort=False):
        first, *others = map(_finding, _runs_of_alike(rows.sort_values("labels").to_dict("records")))
        sentences.append("; ".join([f"On these data, {named(str(arm))} {first}", *others]) + ".")
    return sentences + _told(failures) + _cautions(gains)


def arms_left_out(curve: pd.DataFrame, failures: Sequence[Failure]) -> pd.DataFrame:
    """List with which ``labels`` which ``arm`` failed, of those that the curve has not."""
    there = set(zip(curve["arm"], curve["labels"], strict=True))
    failed = dict.fromkeys(failure.arm for failure in failures)
    rows = [(arm, labels) for labels in sorted(curve["labels"].unique()) for arm in failed]
    return pd.DataFrame([row for row in rows if row not in there], columns=["arm", "labels"])


def efficiency_cells(curve: pd.DataFrame, gains: pd.DataFrame, failures: Sequence[Failure] = ()) -> pd.DataFrame:
    """The study as a table of text: a row per number of labels and arm; scratch first, where the number stands."""
    paired = gains.rename(columns={"low": "low_gain", "high": "high_gain"}).drop(columns="seeds")
    joined = curve.merge(paired, how="left", on=["arm", "labels"])
    if len(left_out := arms_left_out(curve, failures)):
        joined = pd.concat([joined, left_out])
    order = joined.assign(gained=joined["arm"] != SCRATCH).sort_values(["labels", "gained"], kind="stable")
    rows = order.to_dict("records")
    return pd.DataFrame(
        {
            "labels": ["" if row["gained"] else str(row["labels"]) for row in rows],
            "pretraining": [named(row["arm"]) for row in rows],
            "Dice": [_dice(row["mean"]) for row in rows],
            "95 % interval": [_range(row["low"], row["high"]) for row in rows],
            "over subsets": [_range(row["seed_low"], row["seed_high"]) for row in rows],
            "gain": [_signed(row["difference"]) for row in rows],
            "95 % interval of the gain": [_range(row["low_gain"], row["high_gain"], "+") for row in rows],
            "subsets ahead": [_of(row["ahead"], row["seeds"]) for row in rows],
            "p": [_p(row["p"]) for row in rows],
            "p (Holm)": [_p(row["p_holm"]) for row in rows],
        }
    )


def overview_cells(
    curve: pd.DataFrame, gains: pd.DataFrame, costs: pd.DataFrame, failures: Sequence[Failure] = ()
) -> pd.DataFrame:
    """The study as a table of text with a row per arm: Dice and gain with each number of labels, then the costs.

    Scratch is first, then the arm whose Dice, averaged over the numbers of labels, is the largest; what failed with
    one of them is last.

    Args:
        curve: As ``learning_curve`` returns it.
        gains: As ``gains_over_scratch`` returns it.
        costs: One row per arm: ``arm``, and columns that are shown as they are.
        failures: What is to be called failed.
    """
    dice = curve.pivot(index="arm", columns="labels", values="mean")
    gained = gains.pivot(index="arm", columns="labels", values="difference")
    rank = dice.mean(axis=1, skipna=False).fillna(-np.inf)
    failed = [failure.arm for failure in failures]
    arms = sorted(dict.fromkeys([*dice.index, *failed]), key=lambda arm: (arm != SCRATCH, -rank.get(arm, -np.inf)))
    cells = pd.DataFrame({"arm": arms})
    for labels in dice.columns:
        gain = gained[labels] if labels in gained else pd.Series(dtype=float)
        cells[_counted([labels])] = [_reached(dice[labels].get(arm, np.nan), gain.get(arm, np.nan)) for arm in arms]
    cells = cells.merge(costs, how="left", on="arm").fillna(_NOTHING)
    return cells.assign(arm=cells["arm"].map(named)).rename(columns={"arm": "pretraining"})


def named(arm: str) -> str:
    """Write an arm's name as words."""
    return {SCRATCH: "from scratch", "weak": "weak-label pretraining"}.get(arm, arm.replace("_", " "))


def _gain(scratch: pd.DataFrame, table: pd.DataFrame, arm: str, metric: str, resamples: int) -> dict[str, object]:
    found = compare(scratch, table, metric, (SCRATCH, arm), resamples=resamples)
    row = found.table.set_index("structure").loc[OVERALL]
    ours, theirs = _seed_means(table, metric), _seed_means(scratch, metric)
    both = ours.index.intersection(theirs.index)
    return {
        **row[["n", "difference", "low", "high", "effect", "p"]].to_dict(),
        "seeds": len(both),
        "ahead": int((ours[both] > theirs[both]).sum()),
        "notes": " ".join(note for note in found.notes if note.startswith("Left out")),
    }


def _seed_means(table: pd.DataFrame, metric: str) -> pd.Series:
    """The mean over subjects and structures of each seed."""
    return pd.Series({seed: subject_means(part, metric).mean(axis=1).mean() for seed, part in table.groupby("seed")})


def _interval(subjects: NDArray[np.float64], resamples: int) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean over subjects."""
    if len(subjects) < FEWEST_PAIRS:
        return np.nan, np.nan
    rng = np.random.default_rng(0)
    found = bootstrap((subjects,), np.mean, n_resamples=resamples, method="percentile", rng=rng).confidence_interval
    return float(found.low), float(found.high)


def _verb(row: dict[str, float]) -> str:
    """What a difference may be called.

    "seems to" where its interval leaves 0 out, but p stays above 0.05, or not every subset of labelled subjects agrees:
    p asks whether other subjects would be scored alike, not whether other labels would have taught the same.
    """
    what = "gain" if row["low"] > 0 else "lose" if row["high"] < 0 else ""
    if not what:
        return ""
    return f"{what}s" if row["p_holm"] < _LEVEL and _agreeing(row) == row["seeds"] else f"seems to {what}"


def _agreeing(row: dict[str, float]) -> float:
    """In how many subsets the difference has the sign of the mean difference."""
    return row["ahead"] if row["difference"] > 0 else row["seeds"] - row["ahead"]


def _runs_of_alike(rows: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Group neighbouring numbers of labels of which the same is to be said: nothing, or that subjects are too few."""

    def kind(numbered: tuple[int, dict[str, Any]]) -> object:
        number, row = numbered
        return "few" if row["n"] < FEWEST_PAIRS else number if _verb(row) else "nothing"

    return [[row for _, row in run] for _, run in groupby(enumerate(rows), kind)]


def _finding(rows: Sequence[dict[str, Any]]) -> str:
    """Say with which numbers of labels, and what was found there."""
    first, labels = rows[0], _with([row["labels"] for row in rows])
    differences = _listed([_signed(row["difference"]) for row in rows])
    if first["n"] < FEWEST_PAIRS:
        return f"{labels} differs from scratch by {differences} Dice, on {first['n']:.0f} test subjects: no p-value"
    if verb := _verb(first):
        interval, p = f"95 % interval {_range(first['low'], first['high'], '+')}", _p(first["p_holm"])
        what = f"{verb} {abs(first['difference']):.3f} Dice {'over' if first['difference'] > 0 else 'to'} scratch"
        subsets = f", in {_of(_agreeing(first), first['seeds'])} subsets" if first["seeds"] > 1 else ""
        return f"{labels} {what} ({interval}, p {p if p.startswith('<') else f'= {p}'}{subsets})"
    return f"{labels} shows nothing that can be told from chance ({differences} Dice)"


def _told(failures: Sequence[Failure]) -> list[str]:
    """Say in one sentence for each arm in what it failed, and why at first."""
    of_arms: dict[str, list[Failure]] = {}
    for failure in failures:
        of_arms.setdefault(failure.arm, []).append(failure)
    return [
        f"{named(arm)} failed and is left out ({'; '.join(failure.what for failure in found)}): "
        f"{shorten(found[0].reason, _SHORT, placeholder=' ...')}"
        for arm, found in of_arms.items()
    ]


def _cautions(gains: pd.DataFrame) -> list[str]:
    """Say what so few test subjects cannot show."""
    most, arms = int(gains["n"].max()), gains["arm"].nunique()
    if most < FEWEST_PAIRS:
        return [
            f"There is no p-value and no interval under {FEWEST_PAIRS} test subjects, here {most}: so few agree in "
            "sign by chance too often. Test on more."
        ]
    smallest = min(1.0, 2.0 ** (1 - most) * arms)
    if smallest <= _LEVEL:
        return []
    over = f" after Holm's correction over {arms} arms" if arms > 1 else ""
    return [
        f"With {most} test subjects the smallest p there can be is {smallest:.2g}{over}, however large the gain: this "
        "study can suggest a gain, not establish one. Test on more subjects."
    ]


def _with(labels: Sequence[int]) -> str:
    return f"with {_counted(labels)}"


def _counted(labels: Sequence[int]) -> str:
    return f"{_listed([str(count) for count in labels])} {'label' if labels[-1] == 1 else 'labels'}"


def _listed(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else words[0]


def _dice(value: float) -> str:
    return "failed" if np.isnan(value) else f"{value:.3f}"


def _reached(dice: float, gain: float) -> str:
    return _dice(dice) if np.isnan(gain) else f"{dice:.3f} ({gain:+.3f})"


def _of(part: float, whole: float) -> str:
    return _NOTHING if np.isnan(part) else f"{part:.0f} of {whole:.0f}"


def _signed(value: float) -> str:
    return _NOTHING if np.isnan(value) else f"{value:+.3f}"


def _range(low: float, high: float, sign: str = "") -> str:
    return _NOTHING if np.isnan(low) else f"{low:{sign}.3f} to {high:{sign}.3f}"


def _p(value: float) -> str:
    return _NOTHING if np.isnan(value) else f"< {_LEAST_P}" if value < _LEAST_P else f"{value:.3f}"
