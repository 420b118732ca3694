"""All methods of depth judged alike: at points that none learnt from, against exact depth where that is known.

Depth of one camera is up to scale, and a method may have another scale in each frame, so every map, a baseline's too,
is brought to the truth's scale by the ratio of medians in each frame first.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medssl.data.prepared_recordings import PreparedRecordings
from medssl.data.recording_store import Observations
from medssl.data.sparse_points import shown_points, told_count
from medssl.depth_study.truth import ExactTruth
from medssl.evaluation.clips import judged_points
from medssl.evaluation.depth import (
    DEPTH_SCORES,
    DepthRules,
    constant_depth,
    depth_summary,
    nearest_point_depth,
    sample_at,
    score_depth,
)

Floats = NDArray[np.float64]

CONSTANT, NEAREST = "constant depth", "nearest point"
BASELINES = (CONSTANT, NEAREST)
POINTS, EXACT = "held-out points", "exact depth"
SHORT = {POINTS: "points", EXACT: "exact"}
"""What scores are called in MLflow, by what they were judged by."""

_RULES = DepthRules("median")
_SHOWN_SCORES = {"abs_rel": "Abs Rel", "delta_1": "δ < 1.25", "rmse": "RMSE"}


@dataclass(frozen=True, eq=False)
class Judge:
    """What the depth of a recording is judged by.

    Args:
        data: The prepared recording.
        held_out: Share of its points that no method learns from.
        truth: What is known exactly, or ``None``.
    """

    data: PreparedRecordings
    held_out: float
    truth: ExactTruth | None = None

    def table(self, maps: Iterable[NDArray[np.floating]]) -> pd.DataFrame:
        """Score depth maps (H, W) of all frames in order: ``score_depth``'s rows, each frame its own subject.

        ``judged_by`` is ``POINTS``, or ``EXACT`` for a second row where exact depth is known. Frames that see fewer
        than two of the held-out points have no score there.
        """
        rows = []
        for t, depth in enumerate(maps):
            name = f"frame {t}"
            pixels, known = judged_points(self._observations, t, self.held_out)
            rows.append(score_depth(sample_at(depth, pixels), known, _RULES, scan=name).assign(judged_by=POINTS))
            exact = self.exact(t)
            if exact is not None:
                mask = self.data.valid(0, t)
                rows.append(score_depth(depth, exact, _RULES, scan=name, mask=mask).assign(judged_by=EXACT))
        return pd.concat(rows, ignore_index=True)

    def maps(self, baseline: str) -> Iterator[Floats]:
        """The depth maps of a baseline, of all frames in order.

        ``CONSTANT`` is the median depth of all points that are shown to the methods; ``NEAREST`` gives each pixel the
        depth of the nearest one that the same frame saw, and is unknown in a frame that saw none.
        """
        points, size = self._observations, self.data.preparation.size
        shown = shown_points(points, self.held_out)[points.point] & (points.depth > 0)
        everywhere = constant_depth([points.depth[shown]], size)
        for t in range(self.data.frames(0)):
            rows = shown & (points.frame == t)
            if baseline == CONSTANT:
                yield everywhere
            elif rows.any():
                yield nearest_point_depth(points.pixel[rows], points.depth[rows], size)
            else:
                yield np.full(size, np.nan)

    def exact(self, t: int) -> Floats | None:
        """The exact depth of frame ``t``, (H, W), mm, or ``None``."""
        return None if self.truth is None else self.truth.depth(t)

    def held_out_points(self, t: int) -> tuple[Floats, Floats]:
        """Pixels (n, 2) and depths (n,) that frame ``t`` is judged at."""
        return judged_points(self._observations, t, self.held_out)

    @property
    def told(self) -> str:
        """How many points that is judged at, and whether they are few."""
        return told_count(self._observations, self.held_out)

    @property
    def _observations(self) -> Observations:
        points = self.data.geometry(0).observations
        assert points is not None  # refused before, see require_judgeable
        return points


def mean_scores(table: pd.DataFrame) -> dict[str, float]:
    """Mean and standard deviation over frames for MLflow: ``points/abs_rel``, ``points/abs_rel_sd``, ``exact/...``."""
    found: dict[str, float] = {}
    for judged_by, rows in table.groupby("judged_by", sort=False):
        for score in DEPTH_SCORES:
            name = f"{SHORT[str(judged_by)]}/{score}"
            found |= {name: float(rows[score].mean()), f"{name}_sd": float(rows[score].std())}
    return {name: value for name, value in found.items() if np.isfinite(value)}


def ranked(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """Names by their mean Abs Rel at the held-out points, the best first; without any score, last."""
    means = {name: table.loc[table["judged_by"] == POINTS, "abs_rel"].mean() for name, table in tables.items()}
    return sorted(means, key=lambda name: np.nan_to_num(means[name], nan=np.inf))


def comparison_cells(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Methods and baselines as a person reads them, a row each: mean ± standard deviation over frames.

    Columns that begin with ``points`` are judged at the held-out points, with ``exact`` against exact depth, in mm;
    ``frames`` have a score at the points.
    """
    cells = pd.DataFrame({"method": list(tables)})
    for judged_by, short in SHORT.items():
        parts = {name: table[table["judged_by"] == judged_by] for name, table in tables.items()}
        if not all(map(len, parts.values())):
            continue
        summary = depth_summary(parts)
        for score, said in _SHOWN_SCORES.items():
            pairs = zip(summary[f"{score}_mean"], summary[f"{score}_sd"], strict=True)
            unit = ", mm" if judged_by == EXACT and score == "rmse" else ""
            cells[f"{short}: {said}{unit}"] = [f"{mean:.3f} ± {sd:.3f}" for mean, sd in pairs]
        if judged_by == POINTS:
            cells["frames"] = summary["n"].astype(str)
    return cells


def paired_with_baselines(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Compare each method with each baseline in the same frames, by Abs Rel; the frames of one video are no sample.

    They show the same tissue from nearly the same place, so no p-value and no interval is given.

    Returns:
        A row per method, baseline and ``judged_by``: ``frames`` with both scores, the mean ``difference`` (negative:
        the method is better) and the ``better_in`` share of frames.
    """
    rows = []
    for method in (name for name in tables if name not in BASELINES):
        for baseline in (name for name in BASELINES if name in tables):
            pair = (tables[name].set_index(["judged_by", "scan"])["abs_rel"] for name in (method, baseline))
            differences = (next(pair) - next(pair)).dropna()
            for judged_by, of_it in differences.groupby(level="judged_by", sort=False):
                row = {"method": method, "against": baseline, "judged_by": judged_by, "frames": len(of_it)}
                rows.append(row | {"difference": of_it.mean(), "better_in": float((of_it < 0).mean())})
    return pd.DataFrame(rows, columns=["method", "against", "judged_by", "frames", "difference", "better_in"])


def verdict(tables: Mapping[str, pd.DataFrame], chosen: str) -> str:
    """Say in a sentence how right the chosen method is, beside the baselines and the other methods."""
    means = {name: float(table.loc[table["judged_by"] == POINTS, "abs_rel"].mean()) for name, table in tables.items()}
    methods = [name for name in ranked(tables) if name not in BASELINES]
    place = "tells depth" if len(methods) == 1 else "tells depth best" if methods[0] == chosen else "was chosen"
    learnt = "" if means[chosen] < means[CONSTANT] else ", so it learnt nothing that this does not know"
    others = [f"{name} by {means[name]:.1%}" for name in methods if name != chosen]
    others.append(f"the nearest known point's depth by {means[NEAREST]:.1%}")
    return (
        f"{chosen} {place}, up to scale: at points that it did not learn from it is off by {means[chosen]:.1%} of the "
        f"depth; a constant depth is off by {means[CONSTANT]:.1%}{learnt}; {', '.join(others)}."
    )
