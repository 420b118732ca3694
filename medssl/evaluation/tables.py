"""The long table of scores, one row per structure of a scan, and what it says about subjects and structures.

Averages are over subjects: the scans of one subject are averaged first, because they are not independent. A mean never
stands alone: the number of scans behind it and of structures missed stand beside it.
"""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from medssl.errors import InputError
from medssl.files import write_aside

SCORES = {
    "dice": "higher",
    "hd95_mm": "lower",
    "assd_mm": "lower",
    "surface_dice": "higher",
    "volume_similarity": "higher",
}
"""The scores of the table, and whether a better one is higher or lower."""

FLAGS = ("missed", "hallucinated", "absent", "truncated")
"""The reference has it and the prediction does not; the reverse; neither has it; the prediction is cut by the edge."""

COLUMNS = (
    "subject",
    "scan",
    "structure",
    "id",
    *SCORES,
    "volume_mm3",
    "reference_volume_mm3",
    *FLAGS,
)

OVERALL = "mean of structures"
"""What the row of the mean over structures is called."""


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Summarise a table of scores per structure, and over the mean of each subject's structures.

    Returns:
        One row per structure and a last one named ``OVERALL`` over all: ``n`` scans with a score, of ``subjects``
        subjects; structures ``n_missed``, ``n_hallucinated``, ``n_absent`` (in neither, so without a score) and
        ``n_truncated``; then ``<score>_mean`` and ``<score>_sd`` over subjects for each score. The standard deviation
        of one subject is NaN.
    """
    structures = table.groupby("structure", sort=False)
    counts = structures.agg(
        id=("id", "first"),
        n=("dice", "count"),
        subjects=("subject", "nunique"),
        **{f"n_{flag}": (flag, "sum") for flag in FLAGS},
    )
    overall = counts.sum()
    overall["id"], overall["subjects"] = 0, table["subject"].nunique()
    overall["n"] = table.loc[table["dice"].notna(), "scan"].nunique()
    counts.loc[OVERALL] = overall
    means = {}
    for score in SCORES:
        by_subject = subject_means(table, score)
        by_subject[OVERALL] = by_subject.mean(axis=1)
        means[f"{score}_mean"], means[f"{score}_sd"] = by_subject.mean(), by_subject.std()
    return counts.join(pd.DataFrame(means)).rename_axis("structure").reset_index()


def scan_means(table: pd.DataFrame, score: str) -> pd.Series:
    """One score of each structure of each scan, by (subject, scan, structure), in the table's order.

    Rows that repeat one scan (the same scan under several seeds) are averaged.

    Raises:
        InputError: The table has no such score.
    """
    if score not in table.columns:
        raise InputError(f"There is no score '{score}'; the table has {', '.join(s for s in SCORES if s in table)}.")
    return table.groupby(["subject", "scan", "structure"], sort=False)[score].mean()


def over_subjects(scans: pd.DataFrame | pd.Series) -> pd.DataFrame:
    """Average what is indexed by (subject, scan, structure) over scans: subjects in rows, structures in columns."""
    return scans.groupby(level=["subject", "structure"], sort=False).mean().unstack("structure", sort=False)


def subject_means(table: pd.DataFrame, score: str) -> pd.DataFrame:
    """Average one score over each subject's scans: subjects in rows, structures in columns, in the table's order.

    Raises:
        InputError: The table has no such score.
    """
    return over_subjects(scan_means(table, score))


def macro_means(tables: Mapping[str, pd.DataFrame], score: str = "dice") -> pd.DataFrame:
    """Average each subject over structures, without the background: subjects in rows, one column per table."""
    return pd.DataFrame({name: subject_means(table, score).mean(axis=1) for name, table in tables.items()})


def worst_means(tables: Mapping[str, pd.DataFrame], score: str = "dice", count: int = 5) -> pd.DataFrame:
    """Average each subject over the structures on which a table's own mean is worst: one column per table."""
    columns = {}
    for name, table in tables.items():
        means = subject_means(table, score)
        ranked = means.mean().sort_values(ascending=SCORES[score] == "higher").index
        columns[name] = means[ranked[:count]].mean(axis=1)
    return pd.DataFrame(columns)


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, whole or not at all."""
    with write_aside(path) as aside:
        table.to_csv(aside, index=False)


def read_table(path: Path) -> pd.DataFrame:
    """Read a table of scores that ``write_table`` wrote; a subject named 007 or NA keeps its name.

    Raises:
        InputError: The file is missing, is not CSV, or lacks a column.
    """
    names = ("subject", "scan", "structure")
    numbers = [column for column in COLUMNS if column not in (*names, *FLAGS)]
    try:
        table = pd.read_csv(
            path,
            dtype={**dict.fromkeys(names, str), **dict.fromkeys(FLAGS, bool)},
            keep_default_na=False,
            na_values={number: [""] for number in numbers},
        )
    except FileNotFoundError:
        raise InputError(f"{path}: no such file.") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is not a table of scores ({error}).") from error
    missing = [column for column in COLUMNS if column not in table.columns]
    if missing:
        raise InputError(
            f"{path}: is not a table of scores: it lacks the column {', '.join(missing)}. "
            "Give the scores.csv that medssl evaluate wrote."
        )
    return table
