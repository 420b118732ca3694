"""Which camera poses a recording's depth belongs to, and the factors that make the two agree."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medssl.data.clips import posed_frames
from medssl.data.recording_store import Geometry
from medssl.data.sequence import Unit
from medssl.data.sparse_points import told_count
from medssl.errors import InputError

Asked = Literal["auto", "recording", "network", "none"]
Source = Literal["recording", "network", "none"]

_OF_NORMAL = 1.4826  # standard deviation of normal noise, over its median absolute deviation
_OF_MEDIAN = 1.2533  # standard error of the median of normal noise, over that of the mean


@dataclass(frozen=True, eq=False)
class Cameras:
    """Poses and the depth's scale, which agree.

    Attributes:
        source: Where the poses are from.
        poses: Camera to world (N, 4, 4), NaN where a frame has none; ``None`` without a source.
        factors: What the method's depth of each frame is multiplied by, (N,).
        unit: Of the poses and of the multiplied depth.
        told: How poses and scale came about, in sentences.
    """

    source: Source
    poses: NDArray[np.float64] | None
    factors: NDArray[np.float64]
    unit: Unit
    told: str

    @property
    def banner(self) -> str:
        """What must stand beside every length."""
        return "UP TO SCALE: lengths have no unit" if self.unit == "unknown" else f"Lengths in {self.unit}"


def require_poses(asked: Asked, geometry: Geometry, path: NDArray[np.float64] | None, name: str) -> None:
    """Refuse a recording without the poses that are asked for, before its depth is told.

    Args:
        asked: Which poses.
        geometry: Of the recording.
        path: The network's poses (N, 4, 4), or ``None``.
        name: Of the recording.

    Raises:
        InputError: They are not there.
    """
    recorded, chained = _has_poses(geometry, path)
    if asked == "recording" and not recorded:
        raise InputError(
            f"{name}: has no recorded camera poses; find them with medssl sfm, or ask for --poses network."
        )
    if asked == "network" and not chained:
        raise InputError(
            f"{name}: the method tells no motion from one of its frames to the next; ask for --poses auto or none."
        )


def choose_cameras(
    asked: Asked,
    geometry: Geometry,
    path: NDArray[np.float64] | None,
    ratios: Sequence[NDArray[np.float64]],
    metric: bool,
    unit: Unit,
    name: str,
) -> Cameras:
    """Choose the poses, and bring the depth to their scale.

    A metric depth is left as it is. Any other is multiplied, for recorded poses, by what the recording's points ask
    for (`image_factors`), or else by what makes the network's own motion as long as the recorded one: that is only as
    right as motion and depth agree, so no unit is claimed for it. The network's own poses share the scale of its depth
    by training.

    Args:
        asked: ``auto`` takes the recorded poses where there are some and the depth can be brought to their scale, else
            the network's, else none.
        geometry: Of the recording.
        path: The network's poses (N, 4, 4), or ``None``.
        ratios: For each frame, the depth of the points that it saw over the method's depth there, (n,).
        metric: The depth is in the recording's unit, which is known.
        unit: Of the recording.
        name: Of the recording.

    Raises:
        InputError: Nothing tells the scale of the recorded poses, which are asked for, to the depth.
    """
    recorded, chained = _has_poses(geometry, path)
    scale = _scale(geometry, path, ratios, metric, unit) if recorded and asked != "network" else None
    if scale is not None:
        if asked == "none":
            return Cameras("none", None, scale.factors, scale.unit, f"No camera poses were asked for. {scale.told}")
        told = f"The camera's poses are the recording's. {scale.told}"
        return Cameras("recording", geometry.poses, scale.factors, scale.unit, told)
    if asked == "recording":
        raise InputError(
            f"{name}: has camera poses, but neither points nor motion by the method tell their scale to the depth. "
            "Reconstruct it with medssl sfm, which finds points too."
        )
    ones = np.ones(len(geometry.usable))
    own: Unit = unit if metric else "unknown"
    how = "The depth is metric." if metric else "The depth is up to scale."
    if asked in ("auto", "network") and chained:
        told = f"The camera's poses are chained from the motion that the network sees, so they drift. {how}"
        return Cameras("network", path, ones, own, told)
    why = "No camera poses were asked for." if asked == "none" else _without_poses(recorded)
    return Cameras("none", None, ones, own, f"{why} {how}")


def image_factors(ratios: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Tell the factor of each image, (N,), from ratios of known depth to predicted depth at its points.

    The median of an image's own ratios is what a method without a steady scale needs, but is noisy with few points; the
    recording's is steady. Each image gets, in logarithms, the mean of both, weighted by the variance between images and
    by that of its own median (Morris, "Parametric Empirical Bayes Inference", JASA 1983): a method whose scale never
    drifts gets one factor, an image without points gets the recording's.

    Raises:
        InputError: No image has a ratio.
    """
    logs = [np.log(one) for one in ratios]
    counts = np.array([len(one) for one in logs])
    if not counts.any():
        raise InputError("A scale needs points with a predicted depth; there are none.")
    seen = counts > 0
    medians = np.array([float(np.median(one)) if len(one) else np.nan for one in logs])
    off = np.concatenate([one - median for one, median in zip(logs, medians, strict=True)])
    own = np.square(_OF_MEDIAN * _OF_NORMAL * np.median(np.abs(off))) / np.maximum(counts, 1)  # variance of each median
    overall = float(np.median(medians[seen]))
    spread = np.square(_OF_NORMAL * np.median(np.abs(medians[seen] - overall)))
    between = max(0.0, float(spread - np.median(own[seen])))
    trust = np.where(seen, between / np.maximum(between + own, np.finfo(np.float64).tiny), 0.0)
    factors: NDArray[np.float64] = np.exp(overall + trust * np.where(seen, medians - overall, 0.0))
    return factors


def step_factor(path: NDArray[np.float64], poses: NDArray[np.float64]) -> float | None:
    """How much longer recorded steps are than a path's: the median ratio over frames where both cameras move.

    Args:
        path: (N, 4, 4), NaN where there is none.
        poses: The recorded ones, the same.
    """
    both = np.flatnonzero(np.isfinite(path).all((1, 2)) & np.isfinite(poses).all((1, 2)))
    ours, theirs = (np.linalg.norm(np.diff(one[both, :3, 3], axis=0), axis=1) for one in (path, poses))
    moved = (ours > 0) & (theirs > 0)
    return float(np.median(theirs[moved] / ours[moved])) if moved.any() else None


def _has_poses(geometry: Geometry, path: NDArray[np.float64] | None) -> tuple[bool, bool]:
    """Whether two frames have a recorded pose, and whether two have one of the network's."""
    chained = path is not None and np.isfinite(path).all((1, 2)).sum() > 1
    return len(posed_frames(geometry)) > 1, bool(chained)


class _Scale(NamedTuple):
    """Factors of the depth, the unit that it has then, and a sentence."""

    factors: NDArray[np.float64]
    unit: Unit
    told: str


def _scale(
    geometry: Geometry,
    path: NDArray[np.float64] | None,
    ratios: Sequence[NDArray[np.float64]],
    metric: bool,
    unit: Unit,
) -> _Scale | None:
    """The depth's way to the recorded poses' scale; ``None`` where nothing tells it."""
    frames = len(geometry.usable)
    if metric:
        return _Scale(np.ones(frames), unit, "The depth is metric and left as it is.")
    if any(len(one) for one in ratios):
        assert geometry.observations is not None  # where the ratios are from
        factors = image_factors(ratios)
        told = (
            f"Each frame's depth is multiplied by {factors.min():.4g} to {factors.max():.4g} (median "
            f"{np.median(factors):.4g}), as the recording's points ask for: {told_count(geometry.observations)}."
        )
        return _Scale(factors, unit, told)
    assert geometry.poses is not None
    factor = None if path is None else step_factor(path, geometry.poses)
    if factor is None:
        return None
    told = (
        f"The depth is multiplied by {factor:.4g}, which makes the network's motion as long as the recorded one: its "
        "lengths are as right as the network's motion and depth agree, so no unit is stated."
    )
    return _Scale(np.full(frames, factor), "unknown", told)


def _without_poses(recorded: bool) -> str:
    if recorded:
        return "The recording's camera poses are not used: neither points nor motion tell their scale to the depth."
    return "There are no camera poses: the recording has none, and the method tells no motion."
