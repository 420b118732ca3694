"""Whether one run is better than another: paired over subjects, per structure, corrected for looking at many.

Wilcoxon's signed-rank test per structure with Holm's correction over the structures (Holm, "A simple sequentially
rejective multiple test procedure", 1979), the matched-pairs rank-biserial correlation as effect size (Kerby, "The
simple difference formula", 2014), and a percentile bootstrap over subjects for the mean difference. A subject counts
once, however many scans it has.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import bootstrap, rankdata, wilcoxon
from statsmodels.stats.multitest import multipletests

from medssl.errors import InputError
from medssl.evaluation.tables import OVERALL, over_subjects, scan_means

FEWEST_PAIRS = 5
_ROUNDING = 12  # decimals: differences that are equal but for rounding must tie


@dataclass(frozen=True)
class Comparison:
    """Two runs on the same subjects.

    Attributes:
        metric: The score that was compared.
        baseline: Name of the run that the other is compared with.
        other: Name of the other run.
        table: One row per structure and a last one over the mean of each subject's structures: ``structure``; ``n``
            pairs of subjects; ``mean_a``, ``sd_a`` of the baseline and ``mean_b``, ``sd_b`` of the other over those
            pairs; ``missed_a``, ``missed_b`` scans where the structure was missed; ``difference``, the mean of other
            minus baseline, with ``low`` and ``high``, its 95 % interval; ``effect``, the rank-biserial correlation
            (1: higher in every subject, -1: lower in every subject); ``p``; ``p_holm``, corrected over the structures
            (the last row is one test and stays as it is).
        notes: What a reader must know beside the numbers: what was left out, what was refused and why.
    """

    metric: str
    baseline: str
    other: str
    table: pd.DataFrame
    notes: tuple[str, ...]


def compare(
    a: pd.DataFrame,
    b: pd.DataFrame,
    metric: str = "dice",
    names: tuple[str, str] = ("a", "b"),
    resamples: int = 9999,
    seed: int = 0,
) -> Comparison:
    """Compare run ``b`` with the baseline ``a`` on the scans that both have scored.

    Under five pairs of subjects neither p nor an interval is given, because neither could mean what it says.

    Args:
        a: Long table of scores of the baseline (``medssl.evaluation.tables``).
        b: The same of the other run.
        metric: Which score.
        names: What the two runs are called.
        resamples: Bootstrap samples of subjects.
        seed: Of the bootstrap.

    Raises:
        InputError: A table lacks the score, or the runs share no scan with a score.
    """
    pairs, notes = _paired(a, b, metric, names)
    means = over_subjects(pairs)
    of_a, of_b = means["a"].copy(), means["b"].copy()
    of_a[OVERALL], of_b[OVERALL] = of_a.mean(axis=1), of_b.mean(axis=1)
    differences = (of_b - of_a).round(_ROUNDING)
    rows = {name: _row(differences[name].dropna().to_numpy(), resamples, seed) for name in differences}
    table = pd.DataFrame.from_dict(rows, orient="index")
    for letter, scores, subjects in (("a", a, of_a), ("b", b, of_b)):
        table[f"mean_{letter}"], table[f"sd_{letter}"] = subjects.mean(), subjects.std()
        missed = scores[scores["scan"].isin(pairs.index.unique("scan"))].groupby("structure")["missed"].sum()
        table[f"missed_{letter}"] = missed
        table.loc[OVERALL, f"missed_{letter}"] = table[f"missed_{letter}"].sum()
    structures = table.index != OVERALL
    table["p_holm"] = table["p"]
    table.loc[structures, "p_holm"] = _holm(table.loc[structures, "p"].to_numpy())
    columns = ["n", "mean_a", "sd_a", "missed_a", "mean_b", "sd_b", "missed_b", "difference", "low", "high", "effect"]
    table = table[[*columns, "p", "p_holm"]].astype({"missed_a": int, "missed_b": int})
    notes += _cautions(table.loc[structures, "n"].to_numpy())
    return Comparison(metric, *names, table.rename_axis("structure").reset_index(), tuple(notes))


def compare_runs(
    tables: Mapping[str, pd.DataFrame], baseline: str, metric: str = "dice", resamples: int = 9999, seed: int = 0
) -> dict[str, Comparison]:
    """Compare every run with the baseline, each as ``compare`` does, corrected over its own structures.

    Raises:
        InputError: There is no run of the baseline's name, or no other run.
    """
    if baseline not in tables or len(tables) < 2:
        raise InputError(
            f"Comparing needs the baseline '{baseline}' and at least one other run, got {', '.join(tables) or 'none'}."
        )
    return {
        name: compare(tables[baseline], table, metric, (baseline, name), resamples, seed)
        for name, table in tables.items()
        if name != baseline
    }


def _paired(a: pd.DataFrame, b: pd.DataFrame, metric: str, names: tuple[str, str]) -> tuple[pd.DataFrame, list[str]]:
    """Scores ``a`` and ``b`` by (subject, scan, structure) where both have one, and notes on what was left out."""
    notes = []
    for what in ("scan", "structure"):
        for name, table, other in zip(names, (a, b), (b, a), strict=True):
            if alone := sorted(set(table[what]) - set(other[what])):
                notes.append(f"Left out, because only '{name}' has the {what}: {', '.join(alone)}.")
    owners = pd.concat([a, b]).groupby("scan")["subject"].nunique()
    if (owners > 1).any():
        raise InputError(
            f"'{names[0]}' and '{names[1]}' do not agree on whose the scan {', '.join(owners.index[owners > 1])} is."
        )
    both = pd.concat([scan_means(a, metric), scan_means(b, metric)], axis=1, keys=["a", "b"], join="inner")
    pairs = both.dropna()
    if pairs.empty:
        raise InputError(f"'{names[0]}' and '{names[1]}' share no scan with a score '{metric}': nothing to compare.")
    if one_sided := int((both.isna().sum(axis=1) == 1).sum()):
        notes.append(
            f"Left out: {one_sided} structures of scans that the reference lacks, where one run rightly has nothing "
            "(so no score) and the other has hallucinated it (score 0)."
        )
    return pairs, notes


def _row(differences: NDArray[np.float64], resamples: int, seed: int) -> dict[str, float]:
    """Describe one structure's paired differences, one per subject."""
    row = {"n": len(differences), "difference": np.nan, "low": np.nan, "high": np.nan, "effect": np.nan, "p": np.nan}
    if len(differences):
        row |= {"difference": differences.mean(), "effect": rank_biserial(differences)}
    if len(differences) >= FEWEST_PAIRS:
        interval = bootstrap(
            (differences,), np.mean, n_resamples=resamples, method="percentile", rng=np.random.default_rng(seed)
        ).confidence_interval
        p = wilcoxon(differences).pvalue if differences.any() else 1.0
        row |= {"low": interval.low, "high": interval.high, "p": p}
    return row


def rank_biserial(differences: NDArray[np.float64]) -> float:
    """Matched-pairs rank-biserial correlation: (W+ - W-) / (W+ + W-), from -1 to 1; 0 where nothing differs."""
    differences = differences[differences != 0]
    if not len(differences):
        return 0.0
    ranks = rankdata(np.abs(differences))
    return float((np.sign(differences) * ranks).sum() / ranks.sum())


def _holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correct the p-values that exist, over as many tests as there are."""
    corrected = np.full(len(p), np.nan)
    tested = ~np.isnan(p)
    if tested.any():
        corrected[tested] = multipletests(p[tested], method="holm")[1]
    return corrected


def _cautions(pairs: NDArray[np.int64]) -> list[str]:
    """Say what so many pairs of subjects per structure cannot show."""
    cautions = []
    refused = int((pairs < FEWEST_PAIRS).sum())
    if refused:
        whom = "every structure has" if refused == len(pairs) else f"{refused} of {len(pairs)} structures have"
        cautions.append(
            f"No p-value and no interval under {FEWEST_PAIRS} pairs of subjects ({whom} fewer): even at n = 5 the "
            "smallest possible p is 0.0625, and with fewer all differences agree in sign by chance in over 10 % of "
            "all cases, so that an interval cannot hold its 95 %. Score more subjects."
        )
    tests, most = len(pairs) - refused, int(pairs.max())
    smallest = 2.0 ** (1 - most)
    if tests and smallest * tests > 0.05:
        cautions.append(
            f"With {most} pairs the smallest possible p is {smallest:.2g}, after Holm's correction over {tests} "
            f"structures {min(1.0, smallest * tests):.2g}: no single structure can reach 0.05, however large its "
            "difference."
        )
    return cautions
