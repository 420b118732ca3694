"""What the charts of scores show is what the tables hold."""

import numpy as np
import pandas as pd
import pytest

from medssl.labels.lut import LABEL_SETS, LabelSet, Structure
from medssl.report import arms_picture, dice_boxplot, label_quality_picture

BRAIN = LABEL_SETS["freesurfer-27"]


def scores(label_set=BRAIN, subjects=4, gain=0.0, seed=0):
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        [(f"s{i}", f"s{i}", name) for i in range(subjects) for name in label_set.names],
        columns=["subject", "scan", "structure"],
    )
    return table.assign(dice=rng.uniform(0.5, 0.7, len(table)) + gain, volume_mm3=110.0, reference_volume_mm3=100.0)


def points(axes):
    """Every drawn point (x, y), lines left out."""
    return np.concatenate([line.get_xydata() for line in axes.lines if line.get_marker() == "o"])


def test_left_stands_beside_right_and_each_subject_of_each_run_is_a_point(tmp_path, drawn):
    tables = {"plain": scores(), "ECB": scores(gain=0.2)}
    figure = drawn(dice_boxplot, tables, tmp_path / "box.png", BRAIN)
    left, right, single = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["left", "right", "neither left nor right"]
    assert [text.get_text() for text in left.get_yticklabels()][:2] == ["Cerebral-White-Matter", "Cerebral-Cortex"]
    assert [text.get_text() for text in single.get_yticklabels()] == ["3rd-Ventricle", "4th-Ventricle", "Brain-Stem"]
    assert [len(points(axes)) for axes in figure.axes] == [12 * 2 * 4, 12 * 2 * 4, 3 * 2 * 4]
    for axes, structure in ((left, "Left-Cerebral-Cortex"), (right, "Right-Cerebral-Cortex")):
        row = points(axes)[np.round(points(axes)[:, 1]) == 1]
        expected = pd.concat([table.loc[table["structure"] == structure, "dice"] for table in tables.values()])
        assert sorted(row[:, 0]) == pytest.approx(sorted(expected))
    assert [text.get_text() for text in figure.legends[0].texts] == ["plain", "ECB"]
    assert left.get_ylim()[0] > left.get_ylim()[1]  # the first structure on top


def test_left_is_left_whichever_twin_is_listed_first_and_wherever_the_name_says_it(tmp_path, drawn):
    names = ("kidney_right", "kidney_left", "liver")
    organs = LabelSet("organs", tuple(Structure(i, name, (i, 9 * i, 90)) for i, name in enumerate(names, start=1)))
    table = scores(organs).assign(
        dice=lambda t: t["structure"].map({"kidney_right": 0.9, "kidney_left": 0.2, "liver": 0.5})
    )
    left, right, single = drawn(dice_boxplot, {"a": table}, tmp_path / "box.png", organs).axes
    assert [text.get_text() for text in left.get_yticklabels()] == ["kidney"]
    assert set(points(left)[:, 0]) == {0.2} and set(points(right)[:, 0]) == {0.9} and set(points(single)[:, 0]) == {0.5}


def test_label_sets_without_sides_fill_one_panel_and_missing_structures_leave_a_gap(tmp_path, drawn):
    parts = LabelSet("parts", (Structure(1, "Anterior", (1, 1, 1)), Structure(2, "Posterior", (2, 2, 2))))
    tables = {"a": scores(parts), "b": scores(parts).query("structure == 'Anterior'")}
    (axes,) = drawn(dice_boxplot, tables, tmp_path / "box.png", parts).axes
    assert len(points(axes)) == 4 + 4 + 4


def test_a_missed_structure_at_zero_is_inside_the_picture(tmp_path, drawn):
    table = scores()
    table.loc[0, "dice"] = 0.0
    axes = drawn(dice_boxplot, {"a": table}, tmp_path / "box.png", BRAIN).axes
    assert all(ax.get_xlim()[0] < 0 for ax in axes)


def test_each_run_s_mean_and_spread_are_written_above_its_points(tmp_path, drawn):
    tables = {"plain": scores(), "ECB": scores(gain=0.2)}
    figure = drawn(arms_picture, tables, tmp_path / "arms.png")
    whole, worst = figure.axes
    macro = tables["ECB"].groupby("subject")["dice"].mean()
    assert f"{macro.mean():.3f} ± {macro.std():.3f}" in [text.get_text() for text in whole.texts]
    means = tables["ECB"].groupby("structure")["dice"].mean().nsmallest(5)
    assert any(text.get_text().startswith(f"{means.mean():.3f}") for text in worst.texts)
    assert [text.get_text() for text in whole.get_xticklabels()] == ["plain\n(n = 4)", "ECB\n(n = 4)"]
    assert len(points(whole)) == 8


def test_few_structures_have_no_panel_of_the_worst(tmp_path, drawn):
    parts = LabelSet("parts", (Structure(1, "Anterior", (1, 1, 1)), Structure(2, "Posterior", (2, 2, 2))))
    assert len(drawn(arms_picture, {"a": scores(parts, subjects=1)}, tmp_path / "arms.png").axes) == 1


def test_label_quality_puts_the_worst_on_top_and_a_missed_one_at_minus_100_percent(tmp_path, drawn):
    table = scores()
    missed = table["structure"] == "Left-Amygdala"
    table.loc[missed, ["dice", "volume_mm3"]] = 0.0
    dice, volume = drawn(label_quality_picture, table, tmp_path / "quality.png").axes
    names = [text.get_text() for text in dice.get_yticklabels()]
    assert names[-1] == "Left-Amygdala"
    assert dice.get_ylim()[0] < dice.get_ylim()[1]
    by_row = {round(y): x for x, y in points(volume)}
    assert by_row[26] == pytest.approx(-100)
    assert by_row[0] == pytest.approx(10)


def test_pictures_are_written_whole(tmp_path):
    tables = {"plain": scores(), "ECB": scores(gain=0.2)}
    dice_boxplot(tables, tmp_path / "box.png", BRAIN)
    arms_picture(tables, tmp_path / "arms.png")
    label_quality_picture(tables["plain"], tmp_path / "quality.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["arms.png", "box.png", "quality.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.iterdir())
