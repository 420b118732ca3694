"""How right disparity is, in pixels and as depth, what it must beat, and what is told of it where no truth is known.

Bad pixels, and the non-occluded ones, as in Scharstein, Szeliski, "A Taxonomy and Evaluation of Dense Two-Frame Stereo
Correspondence Algorithms", IJCV 2002.

Disparity is x in the left picture minus x in the right one, (H, W), pixels; NaN where it is not known.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medssl.data.recording_store import Geometry
from medssl.errors import InputError
from medssl.evaluation.depth import summarise
from medssl.evaluation.visibility import hidden

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

_BAD_PIXELS = (1, 2, 3)

DISPARITY_SCORES = {
    "error_px": "lower",
    **{f"bad_{k}_percent": "lower" for k in _BAD_PIXELS},
    "abs_rel": "lower",
    "depth_error": "lower",
}
"""The scores of the table, and whether a better one is higher or lower."""

DISPARITY_COLUMNS = ("subject", "scan", "structure", *DISPARITY_SCORES, "n", "missing", "missed")

_NEARER_PIXELS = 1.0  # something must be nearer by so much disparity to hide what is behind
_AGREEING = 3.0  # pixels


@dataclass(frozen=True)
class Rig:
    """Two rectified cameras.

    Attributes:
        focal_px: Focal length, pixels of the pictures that disparity is of.
        baseline: Between the cameras, in the recording's unit.
        apart: How far the right principal point is to the right of the left one, pixels.
    """

    focal_px: float
    baseline: float
    apart: float = 0.0

    def depth(self, disparity: NDArray[Any]) -> Floats:
        """Depth of disparity, same shape, in the baseline's unit; NaN where it is unknown or beyond infinity."""
        shift = np.asarray(disparity, dtype=np.float64) + self.apart
        return np.where(shift > 0, self.focal_px * self.baseline / np.where(shift > 0, shift, 1.0), np.nan)

    def disparity(self, depth: NDArray[Any]) -> Floats:
        """The reverse of ``depth``."""
        known = np.asarray(depth) > 0
        return np.where(known, self.focal_px * self.baseline / np.where(known, depth, 1.0) - self.apart, np.nan)


def rig_of(geometry: Geometry, name: str) -> Rig:
    """The rig of a prepared stereo recording.

    Raises:
        InputError: The recording has one camera.
    """
    left, right, to_left = geometry.intrinsics, geometry.right_intrinsics, geometry.right_to_left
    if left is None or right is None or to_left is None:
        raise InputError(f"{name}: has no second camera; disparity is of a calibrated stereo recording.")
    return Rig(float(left[0, 0]), float(to_left[0, 3]), float(right[0, 2] - left[0, 2]))


def motion_of(disparity: NDArray[Any]) -> Floats:
    """The motion of the left picture's pixels to the right one, (H, W, 2), x and y."""
    return np.stack([-disparity.astype(np.float64), np.where(np.isfinite(disparity), 0.0, np.nan)], axis=-1)


def hidden_from_right(disparity: NDArray[Any]) -> Mask:
    """Tell which pixels of the left picture the right one does not show, by their true disparity, (H, W)."""
    return hidden(motion_of(disparity), disparity, _NEARER_PIXELS)


def score_disparity(
    prediction: NDArray[Any],
    truth: NDArray[Any],
    rig: Rig,
    *,
    scan: str,
    subject: str | None = None,
    valid: Mask | None = None,
) -> pd.DataFrame:
    """Score the disparity of one pair where the truth is known.

    Args:
        prediction: (H, W).
        truth: The same.
        rig: Makes depth of both.
        scan: Name of the pair.
        subject: Whose it is; without it the pair is its own subject.
        valid: (H, W), where to look.

    Returns:
        A table with ``DISPARITY_COLUMNS``, one row for "all", "non-occluded" and "occluded" as ``structure``:
        ``error_px``, mean absolute error; ``bad_<k>_percent``, wrong by over k pixels or without a prediction;
        ``abs_rel`` and ``depth_error`` of depth, the latter in the rig's unit, a prediction beyond the farthest truth
        counting as that; ``n`` pixels whose truth is known, ``missing``, those of them without a prediction, which are
        in no mean; ``missed``, not one pixel has an error.

    Raises:
        InputError: The shapes differ.
    """
    if prediction.shape != truth.shape or (valid is not None and valid.shape != truth.shape):
        raise InputError(
            f"Disparity is scored where it was measured, (H, W); got a prediction {prediction.shape}, the truth "
            f"{truth.shape} and a mask {None if valid is None else valid.shape}."
        )
    known = np.isfinite(truth) & (True if valid is None else valid)
    behind = hidden_from_right(truth)
    regions = {"all": known, "non-occluded": known & ~behind, "occluded": known & behind}
    rows = [
        {"subject": subject or scan, "scan": scan, "structure": name, **_scores(prediction[region], truth[region], rig)}
        for name, region in regions.items()
    ]
    return pd.DataFrame(rows, columns=list(DISPARITY_COLUMNS))


def disparity_summary(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Summarise methods, a row per method and region: see ``medssl.evaluation.depth.summarise``."""
    return summarise(tables, DISPARITY_SCORES)


def constant_disparity(known: NDArray[Any]) -> Floats:
    """The baseline that looks at no picture: the median of what is known of a pair, everywhere, (H, W)."""
    some = known[np.isfinite(known)]
    return np.full(known.shape, np.median(some) if len(some) else np.nan, dtype=np.float64)


def filled_from_behind(disparity: NDArray[Any]) -> Floats:
    """Fill what is unknown with the smaller of the next known disparities to the left and to the right, (H, W).

    What one camera alone sees is behind what hides it, so the smaller is the better guess. A row without any takes the
    nearest known row's.
    """
    rows = pd.DataFrame(disparity, dtype=np.float64)
    filled = pd.DataFrame(np.fmin(rows.ffill(axis=1), rows.bfill(axis=1)))
    whole: Floats = filled.ffill().bfill().to_numpy()
    return whole


def agreement(prediction: NDArray[Any], other: NDArray[Any], mask: Mask) -> dict[str, float]:
    """How far two disparities differ where both are known, within a mask; nothing of it says which is right.

    Returns:
        ``median_difference_px``; ``within_3_px_percent``; ``compared_percent``, of the mask's pixels. NaN where nothing
        can be compared.
    """
    both = mask & np.isfinite(prediction) & np.isfinite(other)
    apart = np.abs(prediction[both] - other[both])
    share = 100 * len(apart) / mask.sum() if mask.any() else np.nan
    if not len(apart):
        return {"median_difference_px": np.nan, "within_3_px_percent": np.nan, "compared_percent": share}
    return {
        "median_difference_px": float(np.median(apart)),
        "within_3_px_percent": 100 * float((apart <= _AGREEING).mean()),
        "compared_percent": float(share),
    }


def _scores(prediction: NDArray[Any], truth: NDArray[Any], rig: Rig) -> dict[str, float]:
    """Of disparities (N,) whose truth is known."""
    error = np.abs(prediction.astype(np.float64) - truth)
    given = np.isfinite(error)
    counts: dict[str, float] = {"n": len(error), "missing": int((~given).sum()), "missed": not given.any()}
    if not len(error):
        return counts  # the scores are NaN in the table
    scores = {f"bad_{k}_percent": 100 * float((~(error <= k)).mean()) for k in _BAD_PIXELS}
    if not given.any():
        return counts | scores
    z = rig.depth(truth[given])
    deep = np.isfinite(z)
    scores["error_px"] = float(error[given].mean())
    if deep.any():
        z, farthest = z[deep], z[deep].max()
        off = np.abs(np.fmin(rig.depth(prediction[given][deep]), farthest) - z)
        scores |= {"abs_rel": float((off / z).mean()), "depth_error": float(off.mean())}
    return counts | scores
