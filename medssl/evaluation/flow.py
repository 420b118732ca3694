"""How right optical flow is, also where pixels vanish behind others, and against flow that is zero.

End-point and angular error as in Baker et al., "A Database and Evaluation Methodology for Optical Flow", ICCV 2007;
outliers as in Menze and Geiger, "Object Scene Flow for Autonomous Vehicles", CVPR 2015.

Flow is (H, W, 2), x to the right and y down, pixels; NaN where it is not known.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medssl.errors import InputError
from medssl.evaluation.depth import summarise

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

FLOW_SCORES = {"epe": "lower", "fl_percent": "lower", "angular_deg": "lower"}
"""The scores of the table, and whether a better one is higher or lower."""

FLOW_COLUMNS = ("subject", "scan", "structure", *FLOW_SCORES, "n", "missing", "missed")

_OUTLIER_PIXELS, _OUTLIER_SHARE = 3.0, 0.05


def end_point_error(prediction: NDArray[Any], truth: NDArray[Any]) -> Floats:
    """Distance between the ends of two flows, (H, W), pixels; NaN where one is not known."""
    away = prediction.astype(np.float64) - truth.astype(np.float64)
    distance: Floats = np.hypot(away[..., 0], away[..., 1])
    return distance


def angular_error_deg(prediction: NDArray[Any], truth: NDArray[Any]) -> Floats:
    """Angle between the directions (x, y, 1) of two flows, (H, W), degrees; NaN where one is not known."""
    a, b = (_with_time(flow) for flow in (prediction, truth))
    sine, cosine = np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(axis=-1)
    angle: Floats = np.degrees(np.arctan2(sine, cosine))  # exact for small angles, where an arc cosine is not
    return angle


def outliers(prediction: NDArray[Any], truth: NDArray[Any]) -> Mask:
    """Where flow is wrong by over 3 pixels and over 5 % of the truth, or is not known where the truth is, (H, W)."""
    error = end_point_error(prediction, truth)
    length = np.linalg.norm(truth.astype(np.float64), axis=-1)
    far = (error > _OUTLIER_PIXELS) & (error > _OUTLIER_SHARE * length)
    wrong: Mask = far | (np.isnan(error) & np.isfinite(length))
    return wrong


def score_flow(
    prediction: NDArray[Any],
    truth: NDArray[Any],
    *,
    scan: str,
    subject: str | None = None,
    valid: Mask | None = None,
    occluded: Mask | None = None,
) -> pd.DataFrame:
    """Score the flow of one pair of images.

    Args:
        prediction: (H, W, 2).
        truth: Same shape.
        scan: Name of the pair.
        subject: Whose it is; without it the pair is its own subject.
        valid: (H, W), where to look.
        occluded: (H, W), what the second image does not show; without it there is only the row "all".

    Returns:
        A table with ``FLOW_COLUMNS``, one row for "all", "non-occluded" and "occluded" as ``structure``: mean end-point
        error, pixels; ``fl_percent`` of outliers (see there); mean angular error; ``n`` pixels whose truth is known;
        ``missing``, those of them without a prediction, outliers all; ``missed``, not one pixel has an error.

    Raises:
        InputError: The shapes differ.
    """
    _require_one_shape(prediction, truth, valid, occluded)
    known = np.isfinite(truth).all(axis=-1) & (True if valid is None else valid)
    regions = {"all": known}
    if occluded is not None:
        regions |= {"non-occluded": known & ~occluded, "occluded": known & occluded}
    rows = [
        {"subject": subject or scan, "scan": scan, "structure": name, **_scores(prediction[region], truth[region])}
        for name, region in regions.items()
    ]
    return pd.DataFrame(rows, columns=list(FLOW_COLUMNS))


def flow_summary(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Summarise methods, a row per method and region: see ``medssl.evaluation.depth.summarise``."""
    return summarise(tables, FLOW_SCORES)


def zero_flow(truth: NDArray[Any]) -> Floats:
    """The baseline that nothing moves, of the truth's shape."""
    return np.zeros(truth.shape, dtype=np.float64)


def _scores(prediction: NDArray[Any], truth: NDArray[Any]) -> dict[str, float]:
    """Of flows (N, 2) whose truth is known."""
    error = end_point_error(prediction, truth)
    given = np.isfinite(error)
    counts: dict[str, float] = {"n": len(error), "missing": int((~given).sum()), "missed": not given.any()}
    if not len(error):
        return counts  # the scores are NaN in the table
    scores = {"fl_percent": 100 * float(outliers(prediction, truth).mean())}
    if given.any():
        angle = angular_error_deg(prediction[given], truth[given])
        scores |= {"epe": float(error[given].mean()), "angular_deg": float(angle.mean())}
    return counts | scores


def _with_time(flow: NDArray[Any]) -> Floats:
    return np.concatenate([flow, np.ones_like(flow[..., :1])], axis=-1).astype(np.float64)


def _require_one_shape(prediction: NDArray[Any], truth: NDArray[Any], *masks: Mask | None) -> None:
    shapes = [mask.shape for mask in masks if mask is not None]
    if prediction.shape != truth.shape or truth.shape[2:] != (2,) or any(shape != truth.shape[:2] for shape in shapes):
        raise InputError(
            f"Flow is scored where it was measured, (H, W, 2), with masks (H, W); got a prediction {prediction.shape}, "
            f"the truth {truth.shape} and masks {shapes}."
        )
