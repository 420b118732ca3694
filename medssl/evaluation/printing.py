"""Tables of scores as a person reads them: on the terminal, in Markdown, in a report."""

import sys
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from medssl.evaluation.statistics import Comparison
from medssl.evaluation.tables import OVERALL, summary

_NOTHING = "–"
_WIDTH = 160  # characters


def comparison_cells(comparison: Comparison) -> pd.DataFrame:
    """A comparison as text, one row per structure, the mean over structures last."""
    table, digits = comparison.table, _digits(comparison.metric)

    def run(letter: str) -> list[str]:
        columns = table[[f"mean_{letter}", f"sd_{letter}", f"missed_{letter}"]].itertuples(index=False)
        return [_mean(mean, sd, missed, digits) for mean, sd, missed in columns]

    interval = [
        _NOTHING if np.isnan(low) else f"{low:+.{digits}f} to {high:+.{digits}f}"
        for low, high in zip(table["low"], table["high"], strict=True)
    ]
    return pd.DataFrame(
        {
            "structure": table["structure"],
            "n": table["n"].astype(str),
            comparison.baseline: run("a"),
            comparison.other: run("b"),
            "difference": [_number(value, f"+.{digits}f") for value in table["difference"]],
            "95 % interval": interval,
            "effect": [_number(value, "+.2f") for value in table["effect"]],
            "p": [_p(value) for value in table["p"]],
            "p (Holm)": [_p(value) for value in table["p_holm"]],
        }
    )


def arms_cells(tables: Mapping[str, pd.DataFrame], metric: str = "dice") -> pd.DataFrame:
    """Each run's mean ± standard deviation over subjects as text, with the number of scans, and of those missed."""
    columns = {}
    for name, table in tables.items():
        rows = summary(table).set_index("structure")
        scans = [f"n {n}" for n in rows["n"]]
        means = zip(rows[f"{metric}_mean"], rows[f"{metric}_sd"], rows["n_missed"], scans, strict=True)
        columns[name] = pd.Series(
            [_mean(mean, sd, missed, _digits(metric), scan) for mean, sd, missed, scan in means], index=rows.index
        )
    cells = pd.DataFrame(columns).fillna(_NOTHING)
    order = [*(name for name in cells.index if name != OVERALL), OVERALL]
    return cells.loc[order].rename_axis("structure").reset_index()


def rich_table(cells: pd.DataFrame, title: str = "", notes: Sequence[str] = ()) -> Table:
    """Lay a table of text out for the terminal; the notes stand below it."""
    caption = Text("\n".join(notes)) if notes else None
    table = Table(title=Text(title) if title else None, caption=caption, caption_justify="left", box=SIMPLE_HEAD)
    for number, column in enumerate(cells.columns):
        table.add_column(Text(str(column)), justify="right" if number else "left", no_wrap=number == 0)
    for row in cells.itertuples(index=False):
        table.add_row(*(Text(cell) for cell in row), style="bold" if row[0] == OVERALL else None)
    return table


def show(table: Table) -> None:
    """Print a table; where there is no terminal to fit, nothing is cut."""
    Console(width=None if sys.stdout.isatty() else _WIDTH).print(table)


def markdown_table(cells: pd.DataFrame, notes: Sequence[str] = ()) -> str:
    """Write a table of text as Markdown; the notes stand below it."""

    def line(values: Sequence[str]) -> str:
        return "| " + " | ".join(str(value).replace("|", "\\|") for value in values) + " |"

    rule = ["---", *["---:"] * (len(cells.columns) - 1)]
    lines = [line(list(cells.columns)), line(rule), *(line(row) for row in cells.itertuples(index=False))]
    return "\n".join([*lines, "", *(f"{note}\n" for note in notes)])


def _mean(mean: float, sd: float, missed: int, digits: int, more: str = "") -> str:
    if np.isnan(mean):
        return _NOTHING
    spread = "" if np.isnan(sd) else f" ± {sd:.{digits}f}"
    asides = ", ".join(part for part in (more, f"{missed} missed" if missed else "") if part)
    return f"{mean:.{digits}f}{spread}" + (f" ({asides})" if asides else "")


def _number(value: float, form: str) -> str:
    return _NOTHING if np.isnan(value) else f"{value:{form}}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else _number(value, ".3f")


def _digits(metric: str) -> int:
    return 2 if metric.endswith("_mm") else 3
