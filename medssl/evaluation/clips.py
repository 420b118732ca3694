"""How a method that learns from clips does on whole recordings, where something is known to judge it by."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch.utils.data import default_collate

from medssl.data.clips import ClipNeeds, Single, posed_frames, read_clip
from medssl.data.prepared_recordings import PreparedRecordings
from medssl.data.recording_store import Geometry, Observations
from medssl.data.sparse_points import shown_points
from medssl.evaluation.depth import DepthRules, sample_at, score_depth
from medssl.evaluation.flow import score_flow
from medssl.evaluation.trajectory import absolute_trajectory_error
from medssl.video_method import DepthMethod, FlowMethod, VideoMethod

_BATCH = 4

Scores = Callable[[VideoMethod], dict[str, float]]


def clip_scores(method: VideoMethod, data: PreparedRecordings, held_out_points: float, frames: int = 12) -> Scores:
    """Make the function that scores a method after each epoch.

    Args:
        method: Of the kind that will be scored.
        data: The recordings.
        held_out_points: Share of structure from motion's points that are not learnt from: depth is judged at these, or
            at all points where none is held out.
        frames: Of each recording, spread over it.
    """

    def score(learnt: VideoMethod) -> dict[str, float]:
        training = learnt.training
        learnt.eval()
        found: dict[str, float] = {}
        if isinstance(learnt, DepthMethod):
            found |= _depth(learnt, data, held_out_points, frames)
            found |= _motion(learnt, data)
        if isinstance(learnt, FlowMethod):
            found |= _flow(learnt, data, frames)
        learnt.train(training)
        return found

    return score


def spread(count: int, most: int) -> list[int]:
    """Places of at most ``most`` of ``count`` things, spread evenly."""
    return sorted({int(place) for place in np.linspace(0, count - 1, min(count, most))}) if count else []


def predicted_depth(method: DepthMethod, data: PreparedRecordings, i: int, times: Sequence[int]) -> NDArray[np.float32]:
    """Depth of frames of recording ``i``, (n, H, W), by the method as it is."""
    device = next(method.parameters()).device
    needs = ClipNeeds(Single(), right=True)
    maps = []
    with torch.no_grad():
        for first in range(0, len(times), _BATCH):
            clips = [read_clip(data, i, [t], needs) for t in times[first : first + _BATCH]]
            batch = {name: value.to(device) for name, value in default_collate(clips).items()}
            maps.append(method.depth(batch)[:, 0].float().cpu().numpy())
    return np.concatenate(maps)


def depth_table(
    method: DepthMethod, data: PreparedRecordings, i: int, times: Sequence[int], held_out_points: float = 0.0
) -> pd.DataFrame | None:
    """Score the depth of frames of recording ``i``: where it is known exactly, else at structure from motion's points.

    A metric method is scored as it is where the recording's unit is known, any other after scaling by the ratio of
    medians in each frame.

    Returns:
        See ``score_depth``; ``None`` where nothing is known.
    """
    geometry = data.geometry(i)
    exact = data.has(i, "depth")
    if not exact and geometry.observations is None:
        return None
    rules = DepthRules("none" if method.metric and data.unit(i) != "unknown" else "median")
    rows = []
    for t, depth in zip(times, predicted_depth(method, data, i, times), strict=True):
        name, subject = f"{data.names[i]}, frame {t}", data.subjects[i]
        if exact:
            mask = data.valid(i, t)
            rows.append(score_depth(depth, data.truth(i, t, "depth"), rules, scan=name, subject=subject, mask=mask))
        elif geometry.observations is not None:
            pixels, truth = judged_points(geometry.observations, t, held_out_points)
            rows.append(score_depth(sample_at(depth, pixels), truth, rules, scan=name, subject=subject))
    return pd.concat(rows, ignore_index=True) if rows else None


def judged_points(
    observations: Observations, frame: int, held_out: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pixels (n, 2) and depths (n,) of the points that a frame saw and a method did not learn from (or all)."""
    judged = ~shown_points(observations, held_out) if held_out else np.ones(observations.point.max() + 1, dtype=bool)
    rows = (observations.frame == frame) & judged[observations.point]
    return observations.pixel[rows], observations.depth[rows]


def chained(method: DepthMethod, data: PreparedRecordings, i: int) -> NDArray[np.float64] | None:
    """The camera's path (N, 4, 4), camera to world, from one frame to the next as the method sees it move."""
    device = next(method.parameters()).device
    poses = [np.eye(4)]
    with torch.no_grad():
        for t in range(data.frames(i) - 1):
            a, b = (torch.from_numpy(data.frame(i, s)).to(device).float()[None] / 255 for s in (t, t + 1))
            moved = method.motion(a, b)
            if moved is None:
                return None
            poses.append(poses[-1] @ np.linalg.inv(moved[0].double().cpu().numpy()))
    return np.stack(poses)


def _depth(method: DepthMethod, data: PreparedRecordings, held_out: float, frames: int) -> dict[str, float]:
    tables = []
    for i in range(len(data)):
        table = depth_table(method, data, i, spread(data.frames(i), frames), held_out)
        tables += [] if table is None else [table]
    if not tables:
        return {}
    means = pd.concat(tables, ignore_index=True)[["abs_rel", "delta_1", "rmse"]].mean()
    return {f"depth/{name}": float(value) for name, value in means.items()}


def _motion(method: DepthMethod, data: PreparedRecordings) -> dict[str, float]:
    """Root mean square error of the camera's place after a similarity, as a share of the path's length."""
    shares = []
    for i in range(len(data)):
        geometry = data.geometry(i)
        if len(posed_frames(geometry)) < 3 or geometry.poses is None:
            continue
        path = chained(method, data, i)
        if path is not None:
            error = absolute_trajectory_error(path, geometry.poses, "sim3")
            shares.append(error.rmse / path_length(geometry))
    return {"path/error_share": float(np.mean(shares))} if shares else {}


def path_length(geometry: Geometry) -> float:
    """Length of the recorded camera's path over the frames that have a pose, in the recording's unit."""
    posed = posed_frames(geometry)
    if geometry.poses is None or len(posed) < 2:
        return float("nan")
    return float(np.linalg.norm(np.diff(geometry.poses[posed, :3, 3], axis=0), axis=1).sum())


def _flow(method: FlowMethod, data: PreparedRecordings, frames: int) -> dict[str, float]:
    device = next(method.parameters()).device
    tables = []
    for i in range(len(data)):
        if not data.has(i, "flow"):
            continue
        for t in spread(data.frames(i) - 1, frames):
            a, b = (torch.from_numpy(data.frame(i, s)).to(device).float()[None] / 255 for s in (t, t + 1))
            with torch.no_grad():
                flow = method.flow(a, b)[0].float().cpu().numpy().transpose(1, 2, 0)
            truth = data.truth(i, t, "flow").transpose(1, 2, 0)
            name = f"{data.names[i]}, frame {t}"
            tables.append(score_flow(flow, truth, scan=name, subject=data.subjects[i], valid=data.valid(i, t)))
    if not tables:
        return {}
    table = pd.concat(tables, ignore_index=True)
    return {"flow/epe": float(table.loc[table["structure"] == "all", "epe"].mean())}
