"""Left beside right: how dense each region of a scan is on both sides."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from medssl.report.figures import arm_color, save

_LEFT, _RIGHT = arm_color(0), arm_color(5)
_WET = 0.2  # share of fluid from which a region may be no tissue: an atlas misses by millimetres


def asymmetry_picture(table: pd.DataFrame, path: Path, title: str = "") -> None:
    """Draw the mean Hounsfield number of each pair of regions, and how much the left differs, the darkest left on top.

    Pairs of which a side holds much fluid are pale: that is what their difference may come from.

    Args:
        table: As ``medssl.evaluation.regions.region_table`` returns it.
        path: The picture.
        title: Stands above.
    """
    left = table[(table["side"] == "left") & table["difference_hu"].notna()].sort_values("difference_hu")
    right = table.set_index("structure")["mean_hu"]
    rows = np.arange(len(left))
    figure = Figure(figsize=(10, 0.3 * len(left) + 1.6), facecolor="white", layout="constrained")
    density, difference = figure.subplots(1, 2, sharey=True)
    other = right.reindex(left["twin"]).to_numpy()
    density.hlines(rows, left["mean_hu"], other, color="#bbbbbb", linewidth=1.5)
    density.plot(left["mean_hu"], rows, "o", color=_LEFT, label="left")
    density.plot(other, rows, "s", color=_RIGHT, label="right", markersize=5)
    density.set_xlabel("mean Hounsfield number")
    density.set_yticks(rows, left["structure"], fontsize=9)
    density.set_ylim(len(left) - 0.4, -0.6)
    wet = np.maximum(left["fluid_share"], table.set_index("structure")["fluid_share"].reindex(left["twin"]).to_numpy())
    for row, value, pale in zip(rows, left["difference_hu"], wet > _WET, strict=True):
        difference.barh(row, value, color=_LEFT if value < 0 else _RIGHT, alpha=0.3 if pale else 1, height=0.6)
    difference.axvline(0, color="black", linewidth=0.8)
    difference.set_xlabel("left minus right (pale: much fluid on a side)")
    for axes in (density, difference):
        axes.grid(axis="x", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*density.get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False)
    figure.suptitle(title, fontsize=11)
    save(figure, path)
