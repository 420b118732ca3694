"""Labels over the scan they belong to, so that a person sees in seconds whether to trust them."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from medssl.errors import InputError
from medssl.labels.lut import LabelSet
from medssl.report.figures import save
from medssl.report.slices import View, views

Convention = Literal["radiological", "neurological"]

_SIDES = {"radiological": "patient's left is on the right", "neurological": "patient's left is on the left"}
_INSIDE = 0.75  # contour level: a quarter of a voxel inside the structure, so that two that touch are both seen
_DASHED = (0, (2.5, 1))
_ALIKE = 32  # two colours that differ by less, summed over red, green and blue, look the same
_WIDTH_INCHES = 12
_LEGEND_COLUMNS = 4
_LEGEND_ROW_INCHES, _NOTE_ROW_INCHES = 0.22, 0.15
_NOTE_CHARACTERS = 180  # fit into the width at the size that notes are written in
_RIM = [withStroke(linewidth=2.5, foreground="black")]  # readable on any grey


def qc_picture(
    image: NDArray[Any],
    labels: NDArray[np.integer[Any]],
    label_set: LabelSet,
    path: Path,
    title: str = "",
    *,
    spacing_mm: Sequence[float],
    convention: Convention = "radiological",
) -> None:
    """Draw a scan, and again with each structure's outline in its colour.

    A volume is shown in the axial, coronal and sagittal slice that show most of its structures well, cropped to what
    is not background, in its true proportions, with letters at the sides and the convention in words. A right
    structure that has the colour of its left twin is dashed, so that swapped sides are seen.

    Args:
        image: (X, Y, Z), its axes running left to right, posterior to anterior, inferior to superior; or (X, Y), drawn
            as pictures are: axis 0 to the right, axis 1 down, without letters.
        labels: Class indices of the label set, same shape.
        label_set: Names and colours.
        path: The picture, for example a .png.
        title: Stands above.
        spacing_mm: Size of a voxel along each axis.
        convention: On which side a volume's left is drawn.

    Raises:
        InputError: Shapes or spacing do not fit together, or the image is neither 2D nor 3D.
    """
    if image.shape != labels.shape or image.ndim not in (2, 3) or len(spacing_mm) != image.ndim:
        raise InputError(
            "A picture needs an image and labels of one 2D or 3D shape, and a spacing for each axis; got "
            f"{image.shape}, {labels.shape} and {tuple(spacing_mm)}."
        )
    shown = views(image, labels, spacing_mm)
    styles = {
        int(index): _style(label_set, int(index))
        for index in np.unique(np.concatenate([view.labels.ravel() for view in shown]))
        if index > 0
    }
    notes = _notes(label_set, labels, set(styles))
    figure, alone, outlined = _layout(shown, -(-len(styles) // _LEGEND_COLUMNS), len(notes))
    window = _window(image)
    for view, *pair in zip(shown, alone, outlined, strict=True):
        for axes in pair:
            _draw_scan(axes, view, window, image.ndim == 3 and convention == "radiological")
        pair[0].set_title(view.title, color="white", fontsize=10)
        for index, style in styles.items():
            _draw_outline(pair[1], view, view.labels == index, style)
    figure.text(0.005, 0.995, title, color="white", fontsize=12, weight="bold", va="top")
    if image.ndim == 3:
        said = f"{convention} convention: {_SIDES[convention]}"
        figure.text(0.995, 0.995, said, color="white", fontsize=9, ha="right", va="top")
    figure.text(0.5, 0.005, "\n".join(notes), color="#bbbbbb", fontsize=8, ha="center", va="bottom")
    _draw_legend(figure, label_set, styles, len(notes))
    save(figure, path)


def _layout(shown: Sequence[View], legend_rows: int, note_rows: int) -> tuple[Figure, list[Axes], list[Axes]]:
    """A figure with the scan above its outlines (a single view: beside), at one scale, with room for what is written.

    Returns:
        The figure, and the axes for the scan alone and for the scan with outlines.
    """
    rows, columns = (2, len(shown)) if len(shown) > 1 else (1, 2)
    widths = [view.size_mm[0] for view in shown] * (columns // len(shown))
    row = 0.98 * _WIDTH_INCHES / sum(widths) * max(view.size_mm[1] for view in shown)
    header, footer = 0.6, 0.3 + _LEGEND_ROW_INCHES * legend_rows + _NOTE_ROW_INCHES * note_rows
    height = header + rows * row + footer
    figure = Figure(figsize=(_WIDTH_INCHES, height), facecolor="black")
    sides = {"left": 0.01, "right": 0.99, "bottom": footer / height, "top": 1 - header / height}
    grid = figure.add_gridspec(rows, columns, width_ratios=widths, wspace=0.02, hspace=0.02, **sides)
    axes = [figure.add_subplot(grid[cell]) for cell in range(rows * columns)]
    return figure, axes[: len(shown)], axes[len(shown) :]


def _window(image: NDArray[Any]) -> tuple[float, float]:
    """Darkest and brightest grey, from what is not background."""
    darkest = float(image.min())
    content = image[image > darkest]
    return darkest, float(np.percentile(content, 99.5)) if content.size else darkest + 1


def _draw_scan(axes: Axes, view: View, window: tuple[float, float], flipped: bool) -> None:
    width, height = view.size_mm
    shades = Normalize(*window)
    axes.imshow(view.image.T, "gray", norm=shades, origin="lower", extent=(0, width, 0, height), aspect="equal")
    axes.set_axis_off()
    axes.autoscale(False)
    if flipped:
        axes.invert_xaxis()
    if view.letters is None:
        axes.invert_yaxis()
        return
    low, high, below, above = view.letters
    left, right = (high, low) if flipped else (low, high)
    for letter, x, y in ((left, 0.03, 0.5), (right, 0.97, 0.5), (below, 0.5, 0.04), (above, 0.5, 0.96)):
        axes.text(x, y, letter, transform=axes.transAxes, color="yellow", ha="center", va="center", path_effects=_RIM)


def _draw_outline(axes: Axes, view: View, mask: NDArray[np.bool_], style: dict[str, Any]) -> None:
    if mask.any():
        inside = np.pad(mask, 1).T.astype(np.float32)  # padded, so that a structure at the rim is closed
        centres = (
            (np.arange(-1, size + 1) + 0.5) * step for size, step in zip(mask.shape, view.spacing_mm, strict=True)
        )
        lines: dict[str, Any] = {"colors": [style["color"]], "linestyles": [style["linestyle"]], "linewidths": 1.2}
        axes.contour(*centres, inside, [_INSIDE], **lines)


def _style(label_set: LabelSet, index: int) -> dict[str, Any]:
    """Colour and line of a class: dashed for the second of two twins whose colours look the same."""
    color = label_set.structures[index - 1].color
    twin = label_set.mirrored[index]
    difference = sum(abs(a - b) for a, b in zip(color, label_set.structures[twin - 1].color, strict=True))
    dashed = twin < index and difference < _ALIKE
    return {"color": tuple(part / 255 for part in color), "linestyle": _DASHED if dashed else "solid"}


def _draw_legend(figure: Figure, label_set: LabelSet, styles: dict[int, dict[str, Any]], note_rows: int) -> None:
    handles = [Line2D([], [], linewidth=2, label=label_set.names[index - 1], **styles[index]) for index in styles]
    if handles:
        bottom = (0.1 + _NOTE_ROW_INCHES * note_rows) / figure.get_figheight()
        look: dict[str, Any] = {"fontsize": 9, "labelcolor": "white", "frameon": False}
        figure.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, bottom), ncols=_LEGEND_COLUMNS, **look)


def _notes(label_set: LabelSet, labels: NDArray[Any], drawn: set[int]) -> list[str]:
    """Lines that name what cannot be seen: structures in other slices, and those of the label set that are nowhere."""
    held = set(np.flatnonzero(np.bincount(labels.ravel())).tolist())
    unseen = {"Not in these slices": held - {0} - drawn, "Not labelled": set(range(1, label_set.classes)) - held}
    said = [
        f"{what}: {', '.join(label_set.names[i - 1] for i in sorted(some))}" for what, some in unseen.items() if some
    ]
    return [line for sentence in said for line in wrap(sentence, _NOTE_CHARACTERS, break_on_hyphens=False)]
