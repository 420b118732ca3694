"""How right the depth and the camera's path are, where the recording knows: exact depth, points, poses."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medssl.data.clips import posed_frames
from medssl.data.sparse_points import told_count
from medssl.depth_results.maps import DepthMaps
from medssl.evaluation.clips import judged_points
from medssl.evaluation.depth import DepthRules, depth_summary, sample_at, score_depth
from medssl.evaluation.trajectory import Freedom, score_trajectory

BASELINE = "constant depth"
_METHOD = "method"


@dataclass(frozen=True)
class Scores:
    """What was judged.

    Attributes:
        depth: A row per frame and method (``score_depth``), with the baseline that knows no image, and a column
            ``method``; ``None`` where no depth is known.
        depth_summary: A row per method.
        path: One row (``score_trajectory``), of the network's path; ``None`` where it or the recorded one is missing.
        told: By what it was judged.
    """

    depth: pd.DataFrame | None
    depth_summary: pd.DataFrame | None
    path: pd.DataFrame | None
    told: str

    def numbers(self) -> dict[str, float]:
        """The method's mean scores, by name."""
        found: dict[str, float] = {}
        if self.depth is not None:
            rows = self.depth[self.depth["method"] == _METHOD]
            found |= {f"depth/{score}": float(rows[score].mean()) for score in ("abs_rel", "rmse", "delta_1")}
        if self.path is not None:
            found |= {f"path/{score}": float(self.path[score].iloc[0]) for score in ("ate_rmse", "rpe_rotation_deg")}
        return found


def score(maps: DepthMaps, metric: bool, held_out_points: float = 0.0) -> Scores:
    """Judge the method's own depth, as it was before it was scaled, and the path that its network saw.

    A metric method is judged as it is where the recording's unit is known, any other after scaling by the ratio of
    medians in each frame; its path after the best rigid motion, or the best similarity.

    Args:
        maps: The depth.
        metric: The method's depth is in the recording's unit.
        held_out_points: Share of structure from motion's points that the method did not learn from: depth is judged at
            these, or at all points where none is held out.
    """
    data, i = maps.data, maps.i
    metric = metric and data.unit(i) != "unknown"
    rules = DepthRules("none" if metric else "median")
    exact, points = data.has(i, "depth"), data.geometry(i).observations
    told = "No depth of the recording is known, so its depth is not scored."
    table = None
    if exact or points is not None:
        table = pd.concat([_frame(maps, t, rules, exact, held_out_points) for t in range(len(maps))], ignore_index=True)
        where = "the exact depth of each valid pixel"
        if not exact and points is not None:
            share = f", the {held_out_points:.0%} that were held out" if held_out_points else ""
            where = f"structure from motion's points{share} ({told_count(points, held_out_points)})"
        told = f"Depth is judged by {where}; scaling: {rules.named}" + ("" if metric else ", of each frame") + "."
    summary = None
    if table is not None:
        summary = depth_summary({name: table[table["method"] == name] for name in (_METHOD, BASELINE)})
    return Scores(table, summary, _path(maps, metric), told)


def _frame(maps: DepthMaps, t: int, rules: DepthRules, exact: bool, held_out_points: float) -> pd.DataFrame:
    """Score a frame and the baseline."""
    data, i = maps.data, maps.i
    predicted = maps.predicted(t)
    mask: NDArray[np.bool_] | None = None
    truth: NDArray[Any]
    if exact:
        truth, mask = data.truth(i, t, "depth"), maps.valid(t)
    else:
        observations = data.geometry(i).observations
        assert observations is not None
        pixels, truth = judged_points(observations, t, held_out_points)
        predicted = sample_at(predicted, pixels)
    named: dict[str, Any] = {"scan": f"{data.names[i]}, frame {maps.number(t)}", "subject": data.subjects[i]}
    blind = DepthRules("median")  # of its own scale it knows nothing
    return pd.concat(
        [
            score_depth(predicted, truth, rules, mask=mask, **named).assign(method=_METHOD),
            score_depth(np.ones_like(predicted), truth, blind, mask=mask, **named).assign(method=BASELINE),
        ]
    )


def _path(maps: DepthMaps, metric: bool) -> pd.DataFrame | None:
    data, i = maps.data, maps.i
    geometry = data.geometry(i)
    if maps.path is None or geometry.poses is None or len(posed_frames(geometry)) < 3:
        return None
    freedom: Freedom = "se3" if metric else "sim3"
    return score_trajectory(maps.path, geometry.poses, freedom, scan=data.names[i], subject=data.subjects[i])
