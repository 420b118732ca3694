"""What happened while training: losses, and the accuracies and class weights of error-corrective boosting.

A history is the table that a training leaves: one row per validation with its ``step``, ``train/<loss>``,
``<accuracy>/<structure>``, ``<accuracy>/mean`` and ``weight/<structure>``; of a detection ``ap50/<structure>`` and
``ap10/<structure>``, of a classification ``recall/<class>``, ``balanced_accuracy`` and ``auc``.
"""

from collections.abc import Callable
from dataclasses import dataclass
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
    """Draw the losses, the validation scores with their worst and best structure or class, and the rate, by step.

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


@dataclass(frozen=True)
class _Scores:
    """A panel of validation scores from 0 to 1.

    Attributes:
        title: Its title.
        lines: Column and label of each; without the first there is no panel.
        band: Beginning of the columns whose least and largest value a band spans.
        members: What these are of.
    """

    title: str
    lines: tuple[tuple[str, str], ...]
    band: str
    members: str = "structure"

    def __call__(self, axes: Axes, history: pd.DataFrame) -> None:
        """Draw what the history has."""
        for number, (name, label) in enumerate(self.lines):
            if name in history:
                known = history[history[name].notna()]
                axes.plot(known["step"], known[name], color=arm_color(number), marker=".", markersize=5, label=label)
        scored = history[history[self.lines[0][0]].notna()]
        members = _columns(scored, self.band)
        if not members.empty:
            style: dict[str, Any] = {"color": arm_color(0), "alpha": 0.15, "linewidth": 0}
            label = f"worst to best {self.members}"
            axes.fill_between(scored["step"], members.min(axis=1), members.max(axis=1), label=label, **style)
        axes.set_title(self.title, fontsize=11)
        axes.set_ylim(0, 1)
        axes.legend(frameon=False, fontsize=9, loc="lower right")


def _draw_rate(axes: Axes, history: pd.DataFrame) -> None:
    known = history["learning_rate"].notna()
    axes.plot(history["step"][known], history["learning_rate"][known], color=arm_color(0), marker=".", markersize=3)
    axes.set_title("learning rate", fontsize=11)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))


_PRECISION = (("ap50/mean", "mean, IoU 0.5"), ("ap10/mean", "mean, IoU 0.1"))
_RECALL = (("balanced_accuracy", "mean (balanced accuracy)"), ("auc", "area under the ROC curve"))
_PANELS: dict[Callable[[Axes, pd.DataFrame], None], str] = {
    _draw_losses: "train/",
    _Scores("Dice on the validation scans", (("dice/mean", "mean"),), "dice/"): "dice/mean",
    _Scores("average precision on the validation scans", _PRECISION, "ap50/", "structure, IoU 0.5"): "ap50/mean",
    _Scores("recall on the validation images", _RECALL, "recall/", "class"): "balanced_accuracy",
    _draw_rate: "learning_rate",
}
