"""What a pretext task looks like, and what became of the representation while it was learnt."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from medssl.errors import InputError
from medssl.report.figures import arm_color, save

_TILE_INCHES = 1.9
_FLAT = 1e-6  # least range of greys

_MEASURES = {
    "health/std": "spread of directions (σ per dimension)",
    "health/effective_rank": "effective rank",
    "health/uniformity": "uniformity (lower is more even)",
    "health/alignment": "alignment of two views (lower is closer)",
    "health/found_again": "images found again by another view",
    "clusters/entropy": "evenness of cluster sizes (0: one holds all)",
}


def task_picture(pictures: Mapping[str, Tensor], path: Path, title: str = "", rows: int = 4) -> None:
    """Draw what a method shows of its task: a row per sample, a column per name, one range of greys along a row.

    Args:
        pictures: (B, C, *spatial) each, of equal B; of a RAS volume the middle axial slice is shown, the patient's left
            on the right; the second axis of a 2D image runs down, as in pictures, and its three channels are red, green
            and blue.
        path: The picture, for example a .png.
        title: Stands above.
        rows: Most samples that are drawn.

    Raises:
        InputError: There is nothing to draw.
    """
    if not pictures or min(len(images) for images in pictures.values()) == 0:
        raise InputError("A task's picture needs at least one named batch of images, got none.")
    count = min(rows, *(len(images) for images in pictures.values()))
    height, width = count * _TILE_INCHES + 0.8, len(pictures) * _TILE_INCHES + 0.3
    figure = Figure(figsize=(max(width, 4), height), facecolor="white", layout="constrained")
    grid = figure.subplots(count, len(pictures), squeeze=False)
    for row in range(count):
        tiles = {name: _slice(images[row]) for name, images in pictures.items()}
        low, high = np.percentile(np.concatenate([tile.ravel() for tile in tiles.values()]), (0.5, 99.5))
        for axes, (name, tile) in zip(grid[row], tiles.items(), strict=True):
            shown = np.clip((tile - low) / max(high - low, _FLAT), 0, 1)
            axes.imshow(shown, "gray", vmin=0, vmax=1, origin="lower" if pictures[name].ndim == 5 else "upper")
            if pictures[name].ndim == 5:
                axes.invert_xaxis()
            axes.set_axis_off()
            if row == 0:
                axes.set_title(name, fontsize=10)
    figure.suptitle(title, fontsize=11)
    if any(images.ndim == 5 for images in pictures.values()):
        figure.supxlabel("middle axial slices, patient's left on the right", fontsize=8)
    save(figure, path)


def representation_picture(history: pd.DataFrame, path: Path) -> None:
    """Draw the losses of training and of held-out crops, and each measure of health, by step.

    Args:
        history: One row per epoch with ``step``, ``train/<loss>``, ``held_out/<loss>``, ``health/<measure>`` and
            ``clusters/entropy``, as far as there are.
        path: The picture.

    Raises:
        InputError: The history has nothing to draw.
    """
    measures = [name for name in _MEASURES if name in history]
    if "train/loss" not in history and not measures:
        raise InputError(f"The history has neither train/loss nor health/...; it has {', '.join(history.columns)}.")
    panels = 1 + len(measures)
    columns = min(panels, 3)
    lines = -(-panels // columns)
    figure = Figure(figsize=(4.4 * columns, 3.3 * lines), facecolor="white", layout="constrained")
    figures = [figure.add_subplot(lines, columns, number + 1) for number in range(panels)]
    for number, name in enumerate(name for name in ("train/loss", "held_out/loss") if name in history):
        _line(figures[0], history, name, arm_color(number), name.split("/")[0].replace("_", " "))
    figures[0].legend(frameon=False, fontsize=9)
    figures[0].set_title("loss", fontsize=11)
    for axes, name in zip(figures[1:], measures, strict=True):
        _line(axes, history, name, arm_color(2))
        axes.set_title(_MEASURES[name], fontsize=11)
    for axes in figures:
        axes.set_xlabel("optimiser step")
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    save(figure, path)


def _line(axes: Axes, history: pd.DataFrame, name: str, color: str, label: str = "") -> None:
    known = history[name].notna()
    axes.plot(history["step"][known], history[name][known], color=color, label=label, marker=".", markersize=4)


def _slice(image: Tensor) -> NDArray[Any]:
    """Turn (C, *spatial) into an array as ``imshow`` wants it, first axis to the right."""
    array = image.detach().float().cpu().numpy()
    flat = array[..., array.shape[-1] // 2] if array.ndim == 4 else array
    return flat.transpose(2, 1, 0) if len(flat) == 3 and array.ndim == 3 else flat[0].T
