"""The points of structure from motion in the frames that saw them: some to learn from, the others to judge by."""

import numpy as np
from numpy.typing import NDArray

from medssl.data.recording_store import Observations

_FEW = 50  # points of a recording


def shown_points(observations: Observations, held_out: float) -> NDArray[np.bool_]:
    """Say which points are shown, (P,); the others, a share ``held_out`` and always the same, are to judge by."""
    count = int(observations.point.max()) + 1 if len(observations.point) else 0
    return np.random.default_rng(0).random(count) >= held_out


def told_count(observations: Observations, held_out: float = 0.0) -> str:
    """Say how many points there are, or are held out, and where that is too few to rest much on.

    Args:
        observations: Of the recording.
        held_out: The share that is held out; 0 counts all.
    """
    counted = ~shown_points(observations, held_out) if held_out else shown_points(observations, 0.0)
    known = observations.depth > 0
    count = int(counted[np.unique(observations.point[known])].sum())
    few = f", which are few: below {_FEW}, some wrong ones change the result" if count < _FEW else ""
    return f"{count} points{few}"


def sparse_maps(
    observations: Observations, frame: int, size: tuple[int, int], points: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Draw the points that a frame saw into its pixels.

    Args:
        observations: Of the recording.
        frame: Which frame.
        size: Height and width.
        points: (P,), which of the points are drawn.

    Returns:
        z of the point in each pixel and how many frames saw it, (1, H, W) each; 0 where there is none. Of several
        points in one pixel the nearest is drawn.
    """
    depth, views = (np.zeros((1, *size), dtype=np.float32) for _ in range(2))
    rows = np.flatnonzero((observations.frame == frame) & points[observations.point] & (observations.depth > 0))
    rows = rows[np.argsort(-observations.depth[rows], kind="stable")]  # the nearest is written last
    x, y = np.rint(observations.pixel[rows]).astype(np.int64).T
    inside = (x >= 0) & (x < size[1]) & (y >= 0) & (y < size[0])
    depth[0, y[inside], x[inside]] = observations.depth[rows[inside]]
    views[0, y[inside], x[inside]] = observations.views[rows[inside]]
    return depth, views
