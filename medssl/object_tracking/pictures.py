"""What a person looks at: the video with what was followed drawn in, its scores over time, and ways side by side."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from medssl.evaluation.tracking import contour
from medssl.files import write_aside
from medssl.object_tracking.mask_files import palette
from medssl.report.depth_video import with_banner
from medssl.report.figures import arm_color, save

_LEAST_HEIGHT = 360  # of an overlay; smaller pictures are enlarged by a whole number
_STRIP_HEIGHT = 180  # of each picture in a strip
_GAP = 4
_DOT = 5  # radius of a point, pixels
_NAMED = 8  # lines that a legend still tells apart


def painted(picture: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Tint the objects of a mask (H, W) in a picture (H, W, 3), and draw their contours."""
    colours = _bright()[mask]
    inside = (mask > 0)[..., None]
    tinted = np.where(inside, (3 * picture.astype(np.uint16) + 2 * colours.astype(np.uint16)) // 5, picture)
    edge = inside[..., 0] & (contour(mask) | contour(mask[::-1, ::-1])[::-1, ::-1])  # on all sides
    return np.where(edge[..., None], colours, tinted).astype(np.uint8)


def pointed(
    picture: NDArray[np.uint8], places: NDArray[np.float64], names: Sequence[str], hidden: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Draw points (N, 2), x and y, into a picture; hidden ones are hollow."""
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    for n, (x, y) in enumerate(places):
        colour = tuple(int(c) for c in _bright()[n % 255 + 1])
        box = (x - _DOT, y - _DOT, x + _DOT, y + _DOT)
        draw.ellipse(box, fill=None if hidden[n] else colour, outline=colour, width=2)
        draw.text((x + _DOT + 2, y), names[n], fill=colour, anchor="lm")
    return np.asarray(image)


def enlarged(picture: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], int]:
    """Enlarge a small picture (H, W, 3) by a whole number, and tell by which."""
    times = -(-_LEAST_HEIGHT // picture.shape[0])
    return np.repeat(np.repeat(picture, times, 0), times, 1), times


def with_note(picture: NDArray[np.uint8], text: str) -> NDArray[np.uint8]:
    """Put a line above a picture."""
    return with_banner(picture, text)


def over_time_picture(table: pd.DataFrame, panels: Mapping[str, str], path: Path) -> None:
    """Draw columns of a table over the frames, a line for each object or point.

    Args:
        table: Columns ``frame``, ``object`` or ``name``, and those of ``panels``; in order of frame.
        panels: What each column is called.
        path: The picture.
    """
    who = "object" if "object" in table else "name"
    groups = list(table.groupby(who, sort=False))
    figure = Figure(figsize=(11, 1.9 * len(panels) + 0.8), facecolor="white", layout="constrained")
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (column, label) in zip(axes, panels.items(), strict=True):
        for number, (name, rows) in enumerate(groups):
            axis.plot(rows["frame"], rows[column], color=arm_color(number), linewidth=1.4, label=f"{who} {name}")
        axis.set_ylabel(label, fontsize=9)
        if column == "hidden_share":
            axis.set_ylim(-0.05, 1.05)
        axis.grid(color="#dddddd", linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xlabel("frame")
    if len(groups) <= _NAMED:
        axes[0].legend(loc="lower left", bbox_to_anchor=(0, 1.02), ncols=_NAMED, frameon=False, fontsize=9)
    save(figure, path)


def strip_picture(rows: Mapping[str, Sequence[NDArray[np.uint8]]], titles: Sequence[str], path: Path) -> None:
    """Put pictures side by side: a row for each way of following, a column for each frame.

    Args:
        rows: Pictures (H, W, 3) of one size, as many in each row as there are titles.
        titles: Of the columns.
        path: The picture.
    """
    width = round(max(_font().getlength(name) for name in rows)) + 12  # of the names
    bands = [_band("", width, [_header(title, next(iter(rows.values()))[0]) for title in titles])]
    bands += [_band(name, width, [_fitted(picture) for picture in pictures]) for name, pictures in rows.items()]
    with write_aside(path) as aside:
        Image.fromarray(np.concatenate(bands)).save(aside)


def _band(name: str, width: int, pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    height = pictures[0].shape[0]
    label = Image.new("RGB", (width, height), "white")
    ImageDraw.Draw(label).text((6, height // 2), name, fill="black", font=_font(), anchor="lm")
    gap = np.full((height, _GAP, 3), 255, dtype=np.uint8)
    row = np.concatenate([np.asarray(label), *(part for picture in pictures for part in (picture, gap))], axis=1)
    return np.concatenate([row, np.full((_GAP, row.shape[1], 3), 255, dtype=np.uint8)])


def _header(title: str, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    image = Image.new("RGB", (_fitted(picture).shape[1], 24), "white")
    ImageDraw.Draw(image).text((image.width // 2, 12), title, fill="black", font=_font(), anchor="mm")
    return np.asarray(image)


def _fitted(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    width = max(round(picture.shape[1] * _STRIP_HEIGHT / picture.shape[0]), 1)
    return np.asarray(Image.fromarray(picture).resize((width, _STRIP_HEIGHT), Image.Resampling.BILINEAR))


@lru_cache(maxsize=1)
def _bright() -> NDArray[np.uint8]:
    """The palette with its largest part of each colour at 255: drawn over a picture, DAVIS' own are dark."""
    largest = palette().max(axis=1, keepdims=True).clip(1).astype(np.float64)
    bright: NDArray[np.uint8] = np.rint(palette() * (255 / largest)).astype(np.uint8)
    return bright


def _font() -> Any:
    return ImageFont.load_default(14)
