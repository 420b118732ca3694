"""Disparity in colour: a pair, what methods say of it in the same colours, and how far each is off."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssl.report.depth import ERROR_COLORS, Limits, Panel, draw_panels
from medssl.report.figures import save

_COLORS = "turbo"  # near is red, far is blue, as of depth
_LARGEST_ERROR = 5.0  # pixels


def disparity_pictures(
    left: NDArray[Any],
    right: NDArray[Any],
    disparities: Mapping[str, NDArray[Any]],
    stem: Path,
    *,
    limits: Limits,
    truth: NDArray[Any] | None = None,
    hidden: NDArray[np.bool_] | None = None,
    title: str = "",
) -> list[Path]:
    """Draw a pair, the disparities of methods, and their errors where the truth is known; returns the pictures.

    Args:
        left: (H, W, 3).
        right: The same.
        disparities: (H, W) of each method, pixels, NaN where unknown.
        stem: Folder and beginning of the pictures' names.
        limits: Disparities that the colours span.
        truth: (H, W), NaN where unknown.
        hidden: (H, W), what the right picture does not show.
        title: Stands above.
    """
    rows = {"pair": [Panel("left", left), Panel("right", right)]}
    if truth is not None:
        rows["pair"].append(_disparity("true disparity", truth, limits))
    if hidden is not None:
        share = f"hidden from the right: {100 * float(hidden.mean()):.0f} %"
        rows["pair"].append(Panel(share, hidden.astype(np.float64), limits=(0, 1)))
    rows["disparity"] = [_disparity(name, one, limits) for name, one in disparities.items()]
    if truth is not None:
        rows["error"] = [_error(name, one, truth) for name, one in disparities.items()]
    paths = []
    for name, panels in rows.items():
        paths.append(stem.with_name(f"{stem.name}_{name}.png"))
        figure, _ = draw_panels(panels, f"{title}: {name}" if title else name)
        save(figure, paths[-1])
    return paths


def _disparity(name: str, disparity: NDArray[Any], limits: Limits) -> Panel:
    return Panel(name, disparity, _COLORS, limits, "disparity, px")


def _error(name: str, disparity: NDArray[Any], truth: NDArray[Any]) -> Panel:
    off = np.abs(disparity - truth)
    known = off[np.isfinite(off)]
    mean = f"{known.mean():.2f} px" if len(known) else "not known"
    return Panel(f"{name}: {mean}", off, ERROR_COLORS, (0, _LARGEST_ERROR), "error, px")
