"""How well objects and points are followed through a video: region similarity J, contour accuracy F, and PCK.

J and F as in Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation", CVPR 2016,
section 4; over several objects as in Pont-Tuset et al., "The 2017 DAVIS Challenge", https://arxiv.org/abs/1704.00675.
PCK, the share of correct keypoints, as in Yang and Ramanan, "Articulated Human Detection with Flexible Mixtures of
Parts", IEEE TPAMI 2013.

The frame whose labels were given is never scored. DAVIS leaves out the last frame of each video too.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage as ndi

from medssl.errors import InputError

Mask = NDArray[np.bool_]
Ids = NDArray[np.integer[Any]]

TRACKING_SCORES = {"j": "higher", "f": "higher", "j_and_f": "higher"}
"""The scores of objects, and whether a better one is higher or lower."""

CONTOUR_TOLERANCE = 0.008
"""How far two contours may be apart and still agree, share of the picture's diagonal."""

PCK_SHARES = (0.1, 0.2)
"""How far a point may be from its place and still be right, share of the scale."""


def region_similarity(found: Mask, truth: Mask) -> float:
    """Share of the pixels that both masks (H, W) have, of those that either has: J; 1 where both are empty.

    Raises:
        InputError: The shapes differ.
    """
    _require_one_shape(found, truth)
    either = int((found | truth).sum())
    return int((found & truth).sum()) / either if either else 1.0


def contour_accuracy(found: Mask, truth: Mask, tolerance: float = CONTOUR_TOLERANCE) -> float:
    """Harmonic mean of the shares of each contour that lie near the other one: F; 1 where both masks are empty.

    Args:
        found: (H, W).
        truth: The same.
        tolerance: What is near, share of the diagonal; rounded up to whole pixels.

    Raises:
        InputError: The shapes differ.
    """
    _require_one_shape(found, truth)
    pixels = int(np.ceil(tolerance * np.hypot(*truth.shape)))
    a, b = contour(found), contour(truth)
    if not a.any() and not b.any():
        return 1.0
    if not a.any() or not b.any():
        return 0.0
    precision, recall = float(dilated(b, pixels)[a].mean()), float(dilated(a, pixels)[b].mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def contour(mask: Mask | Ids) -> Mask:
    """Where a mask (H, W) differs from its neighbour to the right, below, or both; the picture's edge is no contour."""
    ahead = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    differs: Mask = (mask != ahead[:-1, 1:]) | (mask != ahead[1:, :-1]) | (mask != ahead[1:, 1:])
    return differs


def dilated(mask: Mask, pixels: int) -> Mask:
    """What lies at most ``pixels`` from a mask (H, W): its dilation by a disk, told by distances, which is quicker."""
    if not mask.any():
        return np.zeros_like(mask)
    near: Mask = ndi.distance_transform_edt(~mask) <= pixels
    return near


def score_masks(found: Ids, truth: Ids, objects: Sequence[int], **named: Any) -> list[dict[str, Any]]:
    """Score the objects of one frame.

    Args:
        found: Number of the object that each pixel shows, (H, W).
        truth: The same.
        objects: Those that are scored.
        **named: Further columns, for example ``recording`` and ``frame``.

    Returns:
        One row per object: ``named``, ``object``, and ``TRACKING_SCORES``, 0 to 1.
    """
    rows = []
    for thing in objects:
        a, b = found == thing, truth == thing
        j, f = region_similarity(a, b), contour_accuracy(a, b)
        rows.append({**named, "object": thing, "j": j, "f": f, "j_and_f": (j + f) / 2})
    return rows


def scored_frames(known: Iterable[int], first: int, last: int | None = None) -> list[int]:
    """Frames that are scored: those whose truth is known but for the first one, and for the last one where it is given.

    Args:
        known: Frames whose truth is known.
        first: The frame whose labels were given.
        last: The video's last frame, to leave it out as DAVIS does.
    """
    return sorted(set(known) - {first} - ({last} if last is not None else set()))


def tracking_summary(rows: pd.DataFrame, scores: Sequence[str] = tuple(TRACKING_SCORES)) -> pd.DataFrame:
    """Summarise rows of scores, one per method, recording, object and frame.

    Frames of one object in one recording are averaged first, then these: every object counts alike, as DAVIS has it.

    Returns:
        A row per ``method``: ``objects`` that were scored, ``<score>_mean`` and ``<score>_sd`` over them; the standard
        deviation of one is NaN.
    """
    each = rows.groupby(["method", "recording", "object"], sort=False)[list(scores)].mean()
    by_method = each.groupby("method", sort=False)
    table = pd.DataFrame({"objects": by_method[scores[0]].count()})
    for score in scores:
        table[f"{score}_mean"], table[f"{score}_sd"] = by_method[score].mean(), by_method[score].std()
    return table.reset_index()


def correct_points(
    found: NDArray[Any], truth: NDArray[Any], scale: float, shares: Sequence[float] = PCK_SHARES
) -> Mask:
    """Tell which points are near enough to their place.

    Args:
        found: (N, 2), x and y, pixels.
        truth: The same; NaN where a place is not known.
        scale: A length, pixels, see ``points_scale``.
        shares: Of it.

    Returns:
        (len(shares), N); what is not known is not correct.

    Raises:
        InputError: The shapes differ, or the scale is not above 0.
    """
    if found.shape != truth.shape or truth.ndim != 2 or truth.shape[1] != 2 or not scale > 0:
        raise InputError(
            f"Points are scored as (N, 2) each and with a scale above 0; got {found.shape}, {truth.shape} and {scale}."
        )
    distance = np.hypot(*(found.astype(np.float64) - truth.astype(np.float64)).T)
    correct: Mask = distance[None] <= np.asarray(shares, dtype=np.float64)[:, None] * scale
    return correct


def points_scale(points: NDArray[Any], size: tuple[int, int]) -> float:
    """Longer side of the box around points (N, 2), pixels; of fewer than two, the picture's shorter side."""
    if len(points) > 1 and (side := float(np.ptp(points, axis=0).max())) > 0:
        return side
    return float(min(size))


def score_points(
    found: NDArray[Any], truth: NDArray[Any], names: Sequence[str], scale: float, **named: Any
) -> list[dict[str, Any]]:
    """Score the points of one frame whose place is known.

    Args:
        found: (N, 2), x and y, pixels.
        truth: The same, NaN where a place is not known.
        names: Of the points.
        scale: See ``points_scale``.
        **named: Further columns.

    Returns:
        One row per point: ``named``, ``object`` (the point's name), ``distance_px``, and for each of ``PCK_SHARES``
        ``pck_<share>``, 1 where it is right, else 0.
    """
    distance, right = np.hypot(*(found - truth).T), correct_points(found, truth, scale)
    return [
        {**named, "object": name, "distance_px": float(distance[n]), **_as_columns(right[:, n])}
        for n, name in enumerate(names)
        if np.isfinite(distance[n])
    ]


def point_scores() -> Mapping[str, str]:
    """The scores of points, and whether a better one is higher or lower."""
    return {**dict.fromkeys(map(_column, PCK_SHARES), "higher"), "distance_px": "lower"}


def _as_columns(right: Mask) -> dict[str, float]:
    return {_column(share): float(one) for share, one in zip(PCK_SHARES, right, strict=True)}


def _column(share: float) -> str:
    return f"pck_{share:g}"


def _require_one_shape(found: Mask, truth: Mask) -> None:
    if found.shape != truth.shape or truth.ndim != 2:
        raise InputError(f"Masks of one frame are compared, (H, W) each; got {found.shape} and {truth.shape}.")
