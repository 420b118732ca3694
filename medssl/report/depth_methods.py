"""Methods of depth side by side: one frame, what each makes of it in the same colours, and where each is wrong."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssl.data.sequence import Unit
from medssl.evaluation.depth import DepthRules, fit_depth, sample_at
from medssl.report.depth import DEPTH_COLORS, ERROR_COLORS, Panel, draw_grid
from medssl.report.figures import save

_LARGEST_PERCENT = 30.0
_RANGE = (2, 98)  # percentiles of the truth that the colours span
_DISC = 2  # radius of a point, pixels
_RULES = DepthRules("median")


def depth_methods_picture(
    image: NDArray[np.uint8],
    depths: Mapping[str, NDArray[Any]],
    path: Path,
    *,
    truth: NDArray[Any] | None,
    points: tuple[NDArray[np.float64], NDArray[np.float64]],
    valid: NDArray[np.bool_],
    unit: Unit,
    title: str = "",
) -> None:
    """Draw a frame and its depth by each method, brought to the truth's scale by the ratio of medians; errors below.

    Args:
        image: (H, W, 3).
        depths: Of each method, (H, W).
        path: The picture.
        truth: Exact depth (H, W); without it, ``points`` are what depth is scaled to and judged at.
        points: Pixels (n, 2), x and y, and depths (n,) of points that are known.
        valid: Where the frame can be trusted, (H, W).
        unit: Of the truth, or of the points.
        title: Stands above.
    """
    if truth is None:
        known = _drawn_points(*points, image.shape[:2])
        fitted = {name: _fitted_at(depth, *points) for name, depth in depths.items()}
    else:
        known = np.where(valid & (truth > 0), truth, np.nan)
        fitted = {name: fit_depth(depth, known, _RULES).apply(depth) for name, depth in depths.items()}
    found = known[np.isfinite(known)]
    low, high = np.percentile(found, _RANGE) if len(found) else (0.0, 1.0)
    limits = float(low), float(max(high, np.nextafter(low, np.inf)))
    label = f"depth ({'up to scale' if unit == 'unknown' else unit})"
    upper: list[Panel | None] = [Panel("input", image)]
    lower: list[Panel | None] = [
        Panel("true depth" if truth is not None else "held-out points", known, DEPTH_COLORS, limits, label)
    ]
    for name, depth in fitted.items():
        off = 100 * np.abs(depth - known) / known
        mean = float(np.nanmean(off)) if np.isfinite(off).any() else np.nan
        upper.append(Panel(name, np.where(valid, depth, np.nan), DEPTH_COLORS, limits, label))
        lower.append(Panel(f"error, mean {mean:.1f} %", off, ERROR_COLORS, (0, _LARGEST_PERCENT), "% of the depth"))
    figure, _ = draw_grid([upper, lower], title)
    save(figure, path, dpi=100)


def stills_picture(frames: Mapping[str, NDArray[np.uint8]], path: Path, title: str = "") -> None:
    """Draw frames of a video (H, W, 3) side by side, each under its name."""
    figure, _ = draw_grid([[Panel(name, frame) for name, frame in frames.items()]], title)
    save(figure, path, dpi=100)


def _fitted_at(depth: NDArray[Any], pixels: NDArray[np.float64], known: NDArray[np.float64]) -> NDArray[np.float64]:
    return fit_depth(sample_at(depth, pixels), known, _RULES).apply(depth)


def _drawn_points(
    pixels: NDArray[np.float64], depths: NDArray[np.float64], size: tuple[int, ...]
) -> NDArray[np.float64]:
    """Discs of the points' depths, (H, W), NaN between them; the nearest on top."""
    drawn = np.full(size, np.nan)
    steps = np.arange(-_DISC, _DISC + 1)
    disc = [(dy, dx) for dy in steps for dx in steps if dx * dx + dy * dy <= _DISC * _DISC]
    order = np.argsort(-depths, kind="stable")
    x, y = np.rint(pixels[order]).astype(np.int64).T
    for dy, dx in disc:
        inside = (x + dx >= 0) & (x + dx < size[1]) & (y + dy >= 0) & (y + dy < size[0])
        drawn[y[inside] + dy, x[inside] + dx] = depths[order][inside]
    return drawn
