"""Frames of videos of depth: the picture beside its depth in colour, a bar that says the range, a banner above."""

from functools import lru_cache

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from medssl.data.sequence import Unit
from medssl.report.depth import DEPTH_COLORS, UNKNOWN, Limits

_LEAST_HEIGHT = 480  # of the pictures; smaller ones are enlarged by a whole number
_BANNER, _FONT = 30, 16
_BAR, _LABELS, _GAP = 16, 96, 8  # widths: the bar's colours, its numbers, the space between pictures
_TICKS = 5


class Overlay:
    """Draws a video's frames, all with the same colours.

    Args:
        size: Height and width of the frames.
        limits: Depths that the colours span; what lies beyond has the colour of the end.
        unit: Of the depth.
        banner: Stands above every frame.
    """

    def __init__(self, size: tuple[int, int], limits: Limits, unit: Unit, banner: str) -> None:
        self.limits = limits
        self.times = -(-_LEAST_HEIGHT // size[0])
        height = size[0] * self.times
        self._bar = _bar(height, limits, "no unit" if unit == "unknown" else unit)
        self._gap = np.zeros((height, _GAP, 3), dtype=np.uint8)
        self._banner = banner

    def frame(
        self, picture: NDArray[np.uint8], depth: NDArray[np.floating], valid: NDArray[np.bool_], note: str = ""
    ) -> NDArray[np.uint8]:
        """Draw one frame.

        Args:
            picture: (H, W, 3).
            depth: (H, W), NaN where unknown.
            valid: (H, W); elsewhere it is grey.
            note: Stands at the banner's right, for example the frame's number.

        Returns:
            (H', W', 3), of the same size for all frames.
        """
        colours = depth_colors(depth, self.limits, valid)
        row = [self._large(picture), self._gap, self._large(colours), self._gap, self._bar]
        return with_banner(np.concatenate(row, axis=1), self._banner, note)

    def _large(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = picture.shape[:2]
        size = width * self.times, height * self.times
        return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))


def depth_colors(
    depth: NDArray[np.floating], limits: Limits, valid: NDArray[np.bool_] | None = None
) -> NDArray[np.uint8]:
    """Colour a depth map (H, W): near is red, far is blue, unknown or not valid is grey; returns (H, W, 3)."""
    low, high = limits
    known = np.isfinite(depth) if valid is None else np.isfinite(depth) & valid
    shares = (np.where(known, depth, low) - low) / (high - low)
    colours = _table()[np.rint(255 * np.clip(shares, 0, 1)).astype(np.int64)]
    return np.where(known[..., None], colours, _grey())


def with_banner(picture: NDArray[np.uint8], text: str, note: str = "") -> NDArray[np.uint8]:
    """Put a line of text above a picture (H, W, 3), and a note at its right; returns (H + 30, W, 3)."""
    return np.concatenate([_line(picture.shape[1], text, note), picture])


def _line(width: int, text: str, note: str) -> NDArray[np.uint8]:
    line = Image.new("RGB", (width, _BANNER), (0, 0, 0))
    draw = ImageDraw.Draw(line)
    draw.text((8, _BANNER // 2), text, fill=(255, 210, 60), font=_font(), anchor="lm")
    draw.text((width - 8, _BANNER // 2), note, fill=(220, 220, 220), font=_font(), anchor="rm")
    return np.asarray(line)


def _bar(height: int, limits: Limits, unit: str) -> NDArray[np.uint8]:
    """The colours from near, above, to far, with their depths, (height, _BAR + _LABELS, 3)."""
    margin = _FONT
    bar = np.zeros((height, _BAR + _LABELS, 3), dtype=np.uint8)
    rows = np.linspace(0, 255, height - 3 * margin).round().astype(np.int64)
    bar[2 * margin : height - margin, :_BAR] = _table()[rows][:, None]
    image = Image.fromarray(bar)
    draw = ImageDraw.Draw(image)
    draw.text((0, margin), f"depth, {unit}", fill=(255, 255, 255), font=_font(), anchor="lm")
    for share in np.linspace(0, 1, _TICKS):
        value = limits[0] + share * (limits[1] - limits[0])
        place = (_BAR + 5, 2 * margin + share * (height - 3 * margin - 1))
        draw.text(place, f"{value:.3g}", fill=(255, 255, 255), font=_font(), anchor="lm")
    return np.asarray(image)


@lru_cache(maxsize=1)
def _table() -> NDArray[np.uint8]:
    """The colours of depth from near to far, (256, 3)."""
    table: NDArray[np.uint8] = np.rint(255 * colormaps[DEPTH_COLORS](np.linspace(0, 1, 256))[:, :3]).astype(np.uint8)
    return table


def _grey() -> NDArray[np.uint8]:
    return np.array([int(UNKNOWN[at : at + 2], 16) for at in (1, 3, 5)], dtype=np.uint8)


@lru_cache(maxsize=1)
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(_FONT)
