"""The long table: averaged over subjects first, never without its counts, and the same after a trip to disk."""

import numpy as np
import pandas as pd
import pytest

from medssl.errors import InputError
from medssl.evaluation.tables import (
    COLUMNS,
    OVERALL,
    SCORES,
    macro_means,
    read_table,
    subject_means,
    summary,
    write_table,
)


def rows(*values):
    """A table of (subject, scan, structure, dice); a Dice of None is a structure that both lack, 0 a missed one."""
    table = pd.DataFrame(values, columns=["subject", "scan", "structure", "dice"]).astype({"dice": float})
    table = table.assign(**{score: table["dice"] for score in SCORES}, volume_mm3=1.0, reference_volume_mm3=2.0)
    table = table.assign(id=pd.factorize(table["structure"])[0] + 1, missed=table["dice"] == 0, hallucinated=False)
    return table.assign(absent=table["dice"].isna(), truncated=False)[list(COLUMNS)]


TABLE = rows(
    ("anna", "anna-1", "Left-A", 0.8),
    ("anna", "anna-1", "Right-A", 0.6),
    ("anna", "anna-2", "Left-A", 0.4),
    ("anna", "anna-2", "Right-A", None),
    ("ben", "ben-1", "Left-A", 0.0),
    ("ben", "ben-1", "Right-A", 0.5),
)


def test_the_scans_of_one_subject_count_once():
    table = summary(TABLE).set_index("structure")
    assert table.loc["Left-A", "dice_mean"] == pytest.approx((0.6 + 0) / 2)  # not (0.8 + 0.4 + 0) / 3
    assert table.loc["Left-A", "dice_sd"] == pytest.approx(np.std([0.6, 0], ddof=1))


def test_the_counts_stand_beside_the_mean():
    table = summary(TABLE).set_index("structure")
    assert table.loc["Left-A", ["n", "subjects", "n_missed", "n_absent"]].tolist() == [3, 2, 1, 0]
    assert table.loc["Right-A", ["n", "subjects", "n_missed", "n_absent"]].tolist() == [2, 2, 0, 1]
    assert table.loc[OVERALL, ["n", "subjects", "n_missed", "n_absent"]].tolist() == [3, 2, 1, 1]


def test_the_overall_mean_is_over_each_subject_s_structures():
    expected = np.array([(0.6 + 0.6) / 2, (0 + 0.5) / 2])
    row = summary(TABLE).set_index("structure").loc[OVERALL]
    assert row["dice_mean"] == pytest.approx(expected.mean())
    assert row["dice_sd"] == pytest.approx(expected.std(ddof=1))
    assert macro_means({"net": TABLE})["net"].tolist() == pytest.approx(expected)


def test_a_structure_that_no_scan_holds_has_no_mean_but_a_row():
    table = summary(rows(("a", "a", "X", 0.5), ("a", "a", "Y", None))).set_index("structure")
    assert np.isnan(table.loc["Y", "dice_mean"])
    assert table.loc["Y", ["n", "n_absent"]].tolist() == [0, 1]
    assert table.loc[OVERALL, "dice_mean"] == 0.5


def test_one_scan_under_several_seeds_is_averaged_before_scans_are():
    twice = pd.concat([TABLE, TABLE[TABLE["scan"] == "anna-1"].assign(dice=0.0)])
    assert subject_means(twice, "dice").loc["anna", "Left-A"] == pytest.approx((0.4 + 0.4) / 2)


def test_structures_keep_the_order_of_the_table():
    table = rows(("z", "z", "Zebra", 0.5), ("z", "z", "Ape", 0.5), ("a", "a", "Zebra", 0.5), ("a", "a", "Ape", 0.5))
    assert list(subject_means(table, "dice").columns) == ["Zebra", "Ape"]
    assert list(subject_means(table, "dice").index) == ["z", "a"]


def test_an_unknown_score_is_answered_with_the_known_ones():
    with pytest.raises(InputError, match=r"no score 'jaccard'; the table has dice, hd95_mm"):
        subject_means(TABLE, "jaccard")


def test_a_table_comes_back_from_disk_as_it_was(tmp_path):
    table = TABLE.assign(subject=["007", "007", "007", "NA", "NA", "NA"], scan=["1", "1", "2", "3", "3", "3"])
    table = table[table["dice"].isna() | (table["dice"] > 0.1)].reset_index(drop=True)
    write_table(tmp_path / "scores.csv", table)
    pd.testing.assert_frame_equal(read_table(tmp_path / "scores.csv"), table, check_dtype=False)
    assert [path.name for path in tmp_path.iterdir()] == ["scores.csv"]


def test_what_is_no_table_of_scores_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=r"missing\.csv: no such file"):
        read_table(tmp_path / "missing.csv")
    (tmp_path / "other.csv").write_text("subject,scan\na,b\n")
    with pytest.raises(InputError, match=r"other\.csv: .*lacks the column structure, id, dice"):
        read_table(tmp_path / "other.csv")
    (tmp_path / "image.csv").write_bytes(b"\x89PNG\xff\xfe\x00,1\n")
    with pytest.raises(InputError, match=r"image\.csv: is not a table of scores"):
        read_table(tmp_path / "image.csv")
