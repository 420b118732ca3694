"""Which pixels of a picture the other one hides, told from the true motion and from what is nearer."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def hidden(motion: NDArray[Any], nearness: NDArray[Any] | None = None, margin: float = 1.0) -> Mask:
    """Tell which pixels leave the picture, or move to where something nearer moves too, (H, W).

    The nearest of all that lands on a pixel is kept for each (a z-buffer); each lands on the pixels around its place.

    Args:
        motion: To the other picture, (H, W, 2), x to the right and y down, pixels; NaN where unknown: not hidden.
        nearness: Larger for what is nearer, (H, W); without, only what leaves the picture is told.
        margin: By how much something must be nearer to hide, so that a slanted surface does not hide itself.
    """
    height, width = motion.shape[:2]
    rows, columns = np.indices((height, width))
    x, y = columns + motion[..., 0], rows + motion[..., 1]
    inside = (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
    outside: Mask = np.isfinite(x) & np.isfinite(y) & ~inside
    if nearness is None:
        return outside
    lands = inside & np.isfinite(nearness)
    x, y, near = x[lands], y[lands], nearness[lands].astype(np.float64)
    nearest = np.full((height, width), -np.inf)
    for beside, below in ((np.floor, np.floor), (np.ceil, np.floor), (np.floor, np.ceil), (np.ceil, np.ceil)):
        np.maximum.at(nearest, _cells(beside(x), below(y), height, width), near)
    behind = np.zeros((height, width), dtype=bool)
    behind[lands] = nearest[_cells(np.rint(x), np.rint(y), height, width)] > near + margin
    return outside | behind


def _cells(x: NDArray[Any], y: NDArray[Any], height: int, width: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and column of places, those on the border's outer half in it."""
    return y.astype(np.int64).clip(0, height - 1), x.astype(np.int64).clip(0, width - 1)
