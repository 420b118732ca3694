"""What a person reads: every mean with its spread and counts, nothing swallowed by markup."""

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from medssl.evaluation.printing import arms_cells, comparison_cells, markdown_table, rich_table
from medssl.evaluation.segmentation import score_labels
from medssl.evaluation.statistics import compare
from medssl.evaluation.tables import OVERALL
from medssl.labels.lut import LabelSet, Structure

LABELS = LabelSet("two", (Structure(1, "[bold]A|B", (1, 1, 1)), Structure(2, "C", (2, 2, 2))))


@pytest.fixture
def tables():
    """Two runs on six scans: the second is perfect, the first shifted, and once misses C."""
    plain, better = [], []
    for number in range(6):
        reference = np.zeros((8, 8 + number), np.uint8)
        reference[2:5, 2:6], reference[6, 2:6] = 1, 2
        shifted = np.roll(reference, 1, axis=1)
        shifted[shifted == 2] = 2 if number else 0
        plain.append(score_labels(shifted, reference, (1, 1), LABELS, scan=f"s{number}"))
        better.append(score_labels(reference, reference, (1, 1), LABELS, scan=f"s{number}"))
    return {"plain": pd.concat(plain), "better": pd.concat(better)}


def printed(table):
    console = Console(width=160, file=None, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_a_comparison_shows_means_counts_interval_and_p(tables):
    cells = comparison_cells(compare(tables["plain"], tables["better"], names=("plain", "better"))).set_index(
        "structure"
    )
    assert cells.loc["C"].to_dict() == {
        "n": "6",
        "plain": "0.625 ± 0.306 (1 missed)",
        "better": "1.000 ± 0.000",
        "difference": "+0.375",
        "95 % interval": "+0.250 to +0.625",
        "effect": "+1.00",
        "p": "0.031",
        "p (Holm)": "0.062",
    }
    assert cells.index[-1] == OVERALL


def test_refused_values_are_shown_as_a_dash(tables):
    few = {name: table[table["scan"] < "s3"] for name, table in tables.items()}
    row = comparison_cells(compare(few["plain"], few["better"])).iloc[0]
    assert row[["95 % interval", "p", "p (Holm)"]].tolist() == ["–"] * 3


def test_a_very_small_p_is_not_shown_as_zero(tables):
    many = pd.concat(
        [
            table.assign(scan=f"{i}" + table["scan"], subject=f"{i}" + table["subject"])
            for i in range(4)
            for table in [tables["plain"]]
        ]
    )
    best = many.assign(dice=1.0)
    assert comparison_cells(compare(many, best))["p"].tolist() == ["< 0.001"] * 3


def test_arms_stand_side_by_side_with_their_counts(tables):
    cells = arms_cells(tables).set_index("structure")
    assert cells.loc["C"].tolist() == ["0.625 ± 0.306 (n 6, 1 missed)", "1.000 ± 0.000 (n 6)"]
    assert cells.index[-1] == OVERALL


def test_distances_have_two_decimals(tables):
    assert arms_cells(tables, "assd_mm").set_index("structure").loc["C", "better"] == "0.00 ± 0.00 (n 6)"


def test_a_structure_that_one_arm_never_scored_is_a_dash(tables):
    without = tables["plain"][tables["plain"]["structure"] != "C"]
    assert arms_cells({"a": without, "b": tables["better"]}).set_index("structure").loc["C", "a"] == "–"


def test_the_terminal_table_shows_names_with_brackets_and_the_notes(tables):
    text = printed(rich_table(arms_cells(tables), title="Dice", notes=["Mind [this]."]))
    assert "[bold]A|B" in text
    assert "Mind [this]." in text
    assert "n 6, 1 missed" in text


def test_markdown_escapes_bars_and_ends_with_the_notes(tables):
    lines = markdown_table(arms_cells(tables), notes=["A note."]).splitlines()
    assert lines[0] == "| structure | plain | better |"
    assert lines[2].startswith("| [bold]A\\|B | ")
    assert lines[-1] == "A note."
    assert {line.replace("\\|", "").count("|") for line in lines[:5]} == {4}
