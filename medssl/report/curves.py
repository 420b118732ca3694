"""What happened while training: losses, and the accuracies and class weights of error-corrective boosting.

A history is the table that a training leaves: one row per validation with its ``step``, ``train/<loss>``,
``<accuracy>/<structure>``, ``<accuracy>/mean`` and ``weight/<structure>``.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from medssl.errors import InputError
from medssl.report.figures import arm_color, save

_FEW = 12  # columns of a heat map that can be read as numbers


def ecb_picture(history: pd.DataFrame, path: Path, accuracy: str = "recall") -> None:
    """Draw accuracy and weight of each structure over the epochs, as two heat maps, the poorest at the start on top.

    Args:
        history: See the module; needs ``<accuracy>/<structure>`` and ``weight/<structure>``.
        path: The picture.
        accuracy: What boosting called the accuracy, "recall" or "dice".

    Raises:
        InputError: The history holds no weights or no such accuracies.
    """
    weights, accuracies = _columns(history, "weight/"), _columns(history, f"{accuracy}/")
    structures = [name for name in weights if name in accuracies]
    boosted = weights[structures].notna().any(axis=1) if structures else pd.Series(dtype=bool)
    if not boosted.any():
        raise InputError(
            f"The history has no weights and accuracies '{accuracy}/<structure>' of error-corrective boosting; it has "
            f"{', '.join(sorted({name.split('/')[0] for name in history.columns}))}."
        )
    order = accuracies.loc[boosted, structures].bfill().iloc[0].sort_values(na_position="last").index
    weights, accuracies = weights.loc[boosted, order].T, accuracies.loc[boosted, order].T
    steps = [str(int(step)) for step in history.loc[boosted, "step"]]
    width = 5 + max(5.0, 0.75 * min(len(steps), _FEW))
    figure = Figure(figsize=(width, 0.27 * len(order) + 1.8), facecolor="white", layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    extreme = max(1.5, float(np.nanmax(np.maximum(weights, 1 / weights))))
    _heat(figure, left, accuracies, steps, f"{accuracy} on the validation scans", "viridis", Normalize(0, 1))
    _heat(figure, right, weights, steps, "class weight from then on", "RdBu_r", LogNorm(1 / extreme, extreme))
    left.set_yticks(range(len(order)), order, fontsize=8)
    grey = "" if accuracies.notna().all(axis=None) else " (grey: not in the validation scans)"
    figure.suptitle(f"Error-corrective boosting: what is still poor weighs more{grey}", fontsize=11)
    save(figure, path)


def losses_picture(history: pd.DataFrame, path: Path) -> None:
    """Draw the losses, the validation Dice with its worst and best structure, and the learning rate, by step.

    Args:
        history: See the module; what it lacks is not drawn.
        path: The picture.

    Raises:
        InputError: The history has nothing to draw.
    """
    panels = [draw for draw, needed in _PANELS.items() if any(name.startswith(needed) for name in history.columns)]
    if not panels:
        raise InputError(f"The history has none of {', '.join(_PANELS.values())}; it has {', '.join(history.columns)}.")
    figure = Figure(figsize=(5 * len(panels), 4), facecolor="white", layout="constrained")
    for number, draw in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), number)
        draw(axes, history)
        axes.set_xlabel("optimiser step")
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    save(figure, path)


def _columns(history: pd.DataFrame, prefix: str) -> pd.DataFrame:
    """The columns of that beginning, named by their rest; the mean is no structure."""
    names = {name: name.removeprefix(prefix) for name in history.columns if name.startswith(prefix)}
    return history[list(names)].rename(columns=names).drop(columns="mean", errors="ignore")


def _heat(
    figure: Figure, axes: Axes, values: pd.DataFrame, steps: list[str], title: str, colors: str, norm: Normalize
) -> None:
    """A heat map (structures, steps), with the numbers in it where they are few."""
    palette = colormaps[colors].with_extremes(bad="#dddddd")
    shown = values.to_numpy(dtype=float)
    picture = axes.imshow(np.ma.masked_invalid(shown), aspect="auto", cmap=palette, norm=norm, interpolation="nearest")
    bar = figure.colorbar(picture, ax=axes, shrink=0.6, pad=0.02, format="%g", ticks=MaxNLocator(6))
    if isinstance(norm, LogNorm):
        bar.locator = LogLocator(subs=(1, 2, 5))
    bar.minorticks_off()
    if len(steps) <= _FEW:
        for (row, column), value in np.ndenumerate(shown):
            if np.isfinite(value):
                ink = "white" if _is_dark(palette(norm(value))) else "black"
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=ink)
    every = -(-len(steps) // _FEW)
    axes.set_xticks(range(0, len(steps), every), steps[::every], fontsize=8)
    axes.set_xlabel("optimiser step")
    axes.set_title(title, fontsize=10)


def _is_dark(color: Any) -> bool:
    red, green, blue = color[:3]
    return bool(0.299 * red + 0.587 * green + 0.114 * blue < 0.5)


def _draw_losses(axes: Axes, history: pd.DataFrame) -> None:
    for number, (name, values) in enumerate(_columns(history, "train/").items()):
        known = values.notna()
        axes.plot(history["step"][known], values[known], color=arm_color(number), label=name, marker=".", markersize=3)
    axes.set_title("training loss", fontsize=11)
    axes.legend(frameon=False, fontsize=9)


def _draw_dice(axes: Axes, history: pd.DataFrame) -> None:
    known = history["dice/mean"].notna()
    steps, structures = history["step"][known], _columns(history, "dice/")[known]
    axes.plot(steps, history["dice/mean"][known], color=arm_color(0), marker=".", markersize=5, label="mean")
    if not structures.empty:
        worst, best = structures.min(axis=1), structures.max(axis=1)
        axes.fill_between(
            steps, worst, best, color=arm_color(0), alpha=0.15, linewidth=0, label="worst to best structure"
        )
    axes.set_title("Dice on the validation scans", fontsize=11)
    axes.set_ylim(0, 1)
    axes.legend(frameon=False, fontsize=9, loc="lower right")


def _draw_rate(axes: Axes, history: pd.DataFrame) -> None:
    known = history["learning_rate"].notna()
    axes.plot(history["step"][known], history["learning_rate"][known], color=arm_color(0), marker=".", markersize=3)
    axes.set_title("learning rate", fontsize=11)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))


_PANELS = {_draw_losses: "train/", _draw_dice: "dice/mean", _draw_rate: "learning_rate"}
