"""How disparity of stereo recordings does, beside a constant and semi-global matching, with a truth or without one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from medssl.data.poses import inverted
from medssl.data.prepared_recordings import PreparedRecordings
from medssl.data.recording_store import Geometry
from medssl.errors import InputError
from medssl.evaluation.classical import semi_global_disparity
from medssl.evaluation.clips import predicted_depth, spread
from medssl.evaluation.disparity import (
    Rig,
    agreement,
    constant_disparity,
    filled_from_behind,
    hidden_from_right,
    motion_of,
    rig_of,
    score_disparity,
)
from medssl.evaluation.matching import MatchingScores, common_mean, redrawn_error
from medssl.extras import require_module
from medssl.geometry import reproject
from medssl.methods.stereo_depth import StereoDepth
from medssl.photometric import photometric_error
from medssl.report.disparity import disparity_pictures
from medssl.tracking import hashed
from medssl.video_method import DepthMethod

Floats = NDArray[np.float64]

MATCHER = "semi-global matching"
FILLED = "semi-global matching, filled"
CONSTANT = "constant disparity"
NOT_AVERAGED = ", not flip-averaged"
"""Ends the name of a method whose disparities are not averaged with those of the mirrored picture."""

_DRAWN = 2  # frames of each recording
_RANGE = (2, 98)  # percentiles that the colours span
_VISIBLE = 0.99


def why_no_matcher() -> str:
    """Say what is missing for semi-global matching; nothing where it can be run."""
    try:
        require_module("cv2", "stereo")
    except InputError as error:
        return str(error)
    return ""


def judge_stereo(
    methods: Mapping[str, DepthMethod],
    data: PreparedRecordings,
    out: Path,
    *,
    frames: int,
    largest_share: float,
    matching: bool,
) -> MatchingScores:
    """Judge methods on frames spread over each recording, and draw some.

    Args:
        methods: By name, in evaluation.
        data: Stereo recordings.
        out: Folder of the pictures.
        frames: Of each recording, at most.
        largest_share: Largest disparity that the matcher looks for, as a share of the width.
        matching: Whether the matcher is run.

    Raises:
        InputError: A recording has one camera.
    """
    known, unknown, pictures = [], [], []
    for i, name in enumerate(data.names):
        rig = rig_of(data.geometry(i), name)
        times = spread(data.frames(i), frames)
        drawn = {times[place] for place in spread(len(times), _DRAWN)}
        for t in times:
            truth = true_disparity(data, i, t, rig)
            largest = largest_share * data.preparation.size[1] if matching else None
            found = _disparities(methods, data, i, t, rig, largest, truth)
            if truth is not None:
                known.append(_against_truth(found, truth, data, i, t, rig))
            else:
                unknown.append(_indirect(found, data, i, t, rig))
            if t in drawn:
                pictures += _draw(found, truth, data, i, t, out)
    return MatchingScores.joined(known, unknown, pictures)


def true_disparity(data: PreparedRecordings, i: int, t: int, rig: Rig) -> Floats | None:
    """The exact disparity of a frame (H, W), or that of its exact depth; ``None`` where neither is known."""
    if data.has(i, "disparity"):
        return data.truth(i, t, "disparity").astype(np.float64)
    return rig.disparity(data.truth(i, t, "depth")) if data.has(i, "depth") else None


def _disparities(
    methods: Mapping[str, DepthMethod],
    data: PreparedRecordings,
    i: int,
    t: int,
    rig: Rig,
    largest: float | None,
    truth: Floats | None,
) -> dict[str, Floats]:
    """Disparity of a frame by each method and baseline; the constant is of the truth, or else of the first matched."""
    found = {}
    for name, method in methods.items():
        found[name] = rig.disparity(predicted_depth(method, data, i, [t])[0])
        if isinstance(method, StereoDepth) and method.post_processing:
            method.post_processing = False
            found[name + NOT_AVERAGED] = rig.disparity(predicted_depth(method, data, i, [t])[0])
            method.post_processing = True
    if largest is not None:
        found[MATCHER] = semi_global_disparity(data.frame(i, t), data.right(i, t), largest)
        found[FILLED] = filled_from_behind(found[MATCHER])
    like = truth if truth is not None else found.get(MATCHER, next(iter(found.values())))
    return found | {CONSTANT: constant_disparity(np.where(data.valid(i, t), like, np.nan))}


def _against_truth(
    found: Mapping[str, Floats], truth: Floats, data: PreparedRecordings, i: int, t: int, rig: Rig
) -> pd.DataFrame:
    named: dict[str, Any] = {"scan": f"{data.names[i]}, frame {t}", "subject": data.subjects[i]}
    valid = data.valid(i, t)
    tables = [
        score_disparity(one, truth, rig, valid=valid, **named).assign(method=name, unit=data.unit(i))
        for name, one in found.items()
    ]
    return pd.concat(tables, ignore_index=True)


def _indirect(found: Mapping[str, Floats], data: PreparedRecordings, i: int, t: int, rig: Rig) -> pd.DataFrame:
    """What can be told of disparities without a truth, a row per method.

    ``redrawn_error``, photometric, of the left picture drawn from the right one, and ``next_frame_error``, of the next
    frame seen through the depth and the recorded poses: both over the pixels that every method has; the difference from
    the matcher's disparity where it has one (``agreement``); ``coverage_percent`` of the valid pixels.
    """
    valid, other_valid = data.valid(i, t), data.valid(i, t, right=True)
    left, right = data.frame(i, t), data.right(i, t)
    redrawn = {name: redrawn_error(left, right, motion_of(one), other_valid) for name, one in found.items()}
    ahead = {name: next_frame_error(data, i, t, rig.depth(one)) for name, one in found.items()}
    reference = found.get(MATCHER)
    rows = []
    for name, one in found.items():
        row: dict[str, Any] = {"subject": data.subjects[i], "scan": f"{data.names[i]}, frame {t}", "method": name}
        row |= {"redrawn_error": common_mean(redrawn, name, valid)}
        row |= {"next_frame_error": common_mean(ahead, name, valid)}
        if reference is not None:
            row |= agreement(one, reference, valid)
        covered = np.isfinite(one[valid])
        rows.append(row | {"coverage_percent": 100 * float(covered.mean()) if len(covered) else np.nan})
    return pd.DataFrame(rows)


def next_frame_error(data: PreparedRecordings, i: int, t: int, depth: Floats) -> Floats:
    """Photometric error of the next frame, seen from this one's camera through its depth by the recorded poses, (H, W).

    NaN where it does not show the pixel, and everywhere where a pose or the frame is missing.
    """
    geometry = data.geometry(i)
    if not _has_next(geometry, t):
        return np.full(depth.shape, np.nan)
    assert geometry.poses is not None and geometry.intrinsics is not None
    a_to_b = inverted(geometry.poses[None, t + 1])[0] @ geometry.poses[t]
    a, b = (torch.from_numpy(data.frame(i, s)).float()[None] / 255 for s in (t, t + 1))
    shown = torch.from_numpy(data.valid(i, t + 1)).float()[None, None]
    seen, inside = reproject(
        torch.cat([b, shown], dim=1),
        torch.from_numpy(depth).float()[None, None],
        torch.from_numpy(geometry.intrinsics).float()[None],
        torch.from_numpy(a_to_b).float()[None],
    )
    error = photometric_error(seen[:, :3], a)[0, 0].double().numpy()
    return np.where((inside & (seen[:, 3:] >= _VISIBLE))[0, 0].numpy(), error, np.nan)


def _has_next(geometry: Geometry, t: int) -> bool:
    if geometry.poses is None or geometry.intrinsics is None or t + 1 >= len(geometry.usable):
        return False
    return bool(np.isfinite(geometry.poses[t : t + 2]).all() and geometry.scene[t] == geometry.scene[t + 1])


def _draw(
    found: Mapping[str, Floats], truth: Floats | None, data: PreparedRecordings, i: int, t: int, out: Path
) -> list[Path]:
    like = truth if truth is not None else found.get(MATCHER, next(iter(found.values())))
    known = like[np.isfinite(like) & data.valid(i, t)]
    low, high = np.percentile(known, _RANGE) if len(known) else (0.0, 1.0)
    left, right = data.frame(i, t).transpose(1, 2, 0), data.right(i, t).transpose(1, 2, 0)
    shown_as = hashed(data.names[i])  # pictures are tracked
    shown = {name: one for name, one in found.items() if name not in (CONSTANT, FILLED)}
    return disparity_pictures(
        left,
        right,
        shown,
        out / f"{shown_as}_{t:08d}",
        limits=(float(low), float(max(high, low + 1))),
        truth=truth,
        hidden=None if truth is None else hidden_from_right(truth),
        title=f"{shown_as}, frame {t}",
    )
