"""Scores as charts: every subject is a point, so that a mean hides nobody."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from medssl.evaluation.tables import macro_means, subject_means, worst_means
from medssl.labels.lut import LabelSet
from medssl.report.figures import arm_color, save

WORST = 5
_ROW_INCHES, _ARM_INCHES = 0.14, 0.17
_GRID: dict[str, Any] = {"color": "#dddddd", "linewidth": 0.6, "zorder": 0}


def dice_boxplot(tables: Mapping[str, pd.DataFrame], path: Path, label_set: LabelSet) -> None:
    """Draw a box per structure and run, over subjects: left structures beside their right twins, the rest below.

    Args:
        tables: Long table of scores of each run (``medssl.evaluation.tables``).
        path: The picture.
        label_set: The order of the structures, and which are twins.
    """
    by_arm = {arm: subject_means(table, "dice") for arm, table in tables.items()}
    scored = set().union(*(means.columns for means in by_arm.values()))
    pairs, single = _twins(label_set, scored)
    row = _ROW_INCHES + _ARM_INCHES * len(tables)
    heights = [max(1, len(rows)) * row for rows in (pairs, single) if rows]
    figure = Figure(figsize=(12, sum(heights) + 1.5), facecolor="white", layout="constrained")
    grid = figure.add_gridspec(len(heights), 2, height_ratios=heights)
    groups: list[tuple[Axes, Sequence[str], Sequence[str], str]] = []
    if pairs:
        left = figure.add_subplot(grid[0, 0])
        right = figure.add_subplot(grid[0, 1], sharey=left, sharex=left)
        bases = [_shared_name(a, b) for a, b in pairs]
        groups += [(left, [a for a, _ in pairs], bases, "left"), (right, [b for _, b in pairs], bases, "right")]
    if single:
        axes = figure.add_subplot(grid[-1, 0] if pairs else grid[-1, :], sharex=groups[0][0] if groups else None)
        groups.append((axes, single, single, "neither left nor right" if pairs else ""))
    for axes, structures, names, title in groups:
        _draw_boxes(axes, by_arm, structures, names)
        axes.set_title(title, fontsize=11)
        axes.set_xlabel("Dice")
    lowest = min(float(np.nanmin(means.to_numpy())) for means in by_arm.values())
    groups[0][0].set_xlim(max(0.0, np.floor(lowest * 10) / 10) - 0.02, 1.01)
    if pairs:
        groups[1][0].tick_params(labelleft=False)
    handles = [Patch(facecolor=arm_color(number), label=arm) for number, arm in enumerate(tables)]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(4, len(handles)), frameon=False, fontsize=11)
    save(figure, path)


def arms_picture(tables: Mapping[str, pd.DataFrame], path: Path) -> None:
    """Draw each run's mean Dice, over all structures and over its own five worst, with a point and a line per subject.

    Args:
        tables: Long table of scores of each run (``medssl.evaluation.tables``).
        path: The picture.
    """
    panels = {"mean Dice over all structures": macro_means(tables)}
    if min(table["structure"].nunique() for table in tables.values()) > WORST:
        panels[f"mean Dice over each run's {WORST} worst structures"] = worst_means(tables, count=WORST)
    width = max(4.5, 1.3 * len(tables) + 1)
    figure = Figure(figsize=(width * len(panels), 5), facecolor="white", layout="constrained")
    for number, (title, subjects) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(1, len(panels), number)
        _draw_arms(axes, subjects)
        axes.set_title(title, fontsize=11)
    save(figure, path)


def label_quality_picture(table: pd.DataFrame, path: Path) -> None:
    """Draw how well weak labels agree with manual ones: Dice, and how far the volume is off, worst structure first.

    Args:
        table: Long table of scores (``medssl.evaluation.tables``) of the weak labels against the manual ones.
        path: The picture.
    """
    actual = table["reference_volume_mm3"].where(table["reference_volume_mm3"] > 0)
    off = table.assign(volume_error=100 * (table["volume_mm3"] - actual) / actual)
    dice, volume = subject_means(off, "dice"), subject_means(off, "volume_error")
    order = dice.mean().sort_values(ascending=False, na_position="first").index
    figure = Figure(figsize=(11, 0.28 * len(order) + 1.5), facecolor="white", layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, values, label in (
        (left, dice[order], "Dice of weak and manual labels"),
        (right, volume[order], "volume of the weak label: % more or less than manual"),
    ):
        axes.grid(axis="both", **_GRID)
        for row, structure in enumerate(order):
            axes.plot(values[structure], np.full(len(values), row), "o", color=arm_color(0), alpha=0.5, markersize=4)
        axes.plot(values.mean(), range(len(order)), "|", color="black", markersize=13, markeredgewidth=2)
        axes.set_xlabel(label)
        _frameless(axes)
    left.set_yticks(range(len(order)), order, fontsize=9)
    left.set_ylim(-0.7, len(order) - 0.3)
    left.set_xlim(right=1.01)
    right.axvline(0, color="black", linewidth=0.8)
    figure.suptitle(f"{dice.shape[0]} subjects: points; bars: their mean", fontsize=11)
    save(figure, path)


def _twins(label_set: LabelSet, scored: set[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """The pairs (left, right) of which one is scored, and the other structures, in the label set's order."""
    pairs, single = [], []
    for index, name in enumerate(label_set.names, start=1):
        twin = label_set.mirrored[index]
        if twin > index and scored & {name, label_set.names[twin - 1]}:
            both = name, label_set.names[twin - 1]
            pairs.append(both if label_set.side(index) == "left" else both[::-1])
        elif twin == index and name in scored:
            single.append(name)
    return pairs, single


def _shared_name(left: str, right: str) -> str:
    """What the names of two twins share: "Left-Putamen" and "Right-Putamen" are "Putamen", "lung_left" is "lung"."""
    words = zip(*(re.split("([-_ ])", name) for name in (left, right)), strict=False)
    return "".join(word for word, other in words if word == other).strip("-_ ") or left


def _draw_boxes(
    axes: Axes, by_arm: Mapping[str, pd.DataFrame], structures: Sequence[str], names: Sequence[str]
) -> None:
    """One row per structure from the top down, in it one box per run in the runs' order."""
    height = 0.8 / len(by_arm)
    for row in range(0, len(structures), 2):
        axes.axhspan(row - 0.5, row + 0.5, color="#f4f4f4", zorder=0)
    axes.grid(axis="x", **_GRID)
    for number, means in enumerate(by_arm.values()):
        color = arm_color(number)
        at = [row + (number - (len(by_arm) - 1) / 2) * height for row in range(len(structures))]
        values = [means[name].dropna().to_numpy() if name in means else np.array([]) for name in structures]
        style: dict[str, Any] = {"color": color, "linewidth": 1}
        axes.boxplot(
            values,
            positions=at,
            orientation="horizontal",
            widths=height * 0.8,
            patch_artist=True,
            manage_ticks=False,
            showfliers=False,  # each subject is drawn below
            boxprops={"facecolor": color, "edgecolor": color, "alpha": 0.35},
            medianprops={"color": color, "linewidth": 2},
            whiskerprops=style,
            capprops=style,
            zorder=2,
        )
        for place, points in zip(at, values, strict=True):
            axes.plot(points, np.full(len(points), place), "o", color=color, markersize=2.5, zorder=3)
    axes.set_yticks(range(len(structures)), names, fontsize=9)
    axes.set_ylim(len(structures) - 0.5, -0.5)
    _frameless(axes)


def _draw_arms(axes: Axes, subjects: pd.DataFrame) -> None:
    """A column of points per run; a grey line joins the points of one subject."""
    axes.grid(axis="y", **_GRID)
    places = np.arange(subjects.shape[1])
    axes.plot(places, subjects.to_numpy().T, color="#bbbbbb", linewidth=0.8, zorder=1)
    for place, arm in enumerate(subjects):
        values = subjects[arm].dropna()
        axes.plot(np.full(len(values), place), values, "o", color=arm_color(place), markersize=5, zorder=2)
        axes.hlines(values.mean(), place - 0.25, place + 0.25, color="black", linewidth=2, zorder=3)
        spread = f" ± {values.std():.3f}" if len(values) > 1 else ""
        axes.annotate(
            f"{values.mean():.3f}{spread}",
            (place, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, -4),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=9,
        )
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.1 * (high - low))  # room for the numbers
    axes.set_xticks(places, [f"{arm}\n(n = {subjects[arm].count()})" for arm in subjects], fontsize=9)
    axes.set_xlim(-0.6, len(places) - 0.4)
    _frameless(axes)


def _frameless(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
