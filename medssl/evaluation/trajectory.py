"""How right a camera's path is: globally after alignment, from frame to frame, and over short snippets.

Alignment in closed form: Umeyama, "Least-Squares Estimation of Transformation Parameters Between Two Point Patterns",
TPAMI 1991. Absolute and relative error: Sturm et al., "A Benchmark for the Evaluation of RGB-D SLAM Systems", IROS
2012; errors over lengths of way: Geiger et al., "Are we ready for autonomous driving?", CVPR 2012. Snippets: Zhou et
al., CVPR 2017, https://arxiv.org/abs/1704.07813.

Poses are camera to world, (N, 4, 4), one per frame and in the same order in both paths; NaN for a frame without one. A
frame whose true pose is not known is not scored; one whose estimate is not known is counted as missed.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from medssl.data.poses import at_frames, checked_poses, from_quaternions
from medssl.errors import InputError
from medssl.files import write_aside

Floats = NDArray[np.float64]
Freedom = Literal["sim3", "se3", "none"]

TRAJECTORY_SCORES = {
    "ate_rmse": "lower",
    "rpe_translation": "lower",
    "rpe_translation_percent": "lower",
    "rpe_rotation_deg": "lower",
    "snippet_rmse": "lower",
}
"""The scores of the table, and whether a better one is higher or lower."""

_THIN = 1e-3  # positions that spread less than this across, of what they spread along, are a line
_ROUNDED = 1e-12  # positions that spread less than this, of their distance from the origin, are one place


@dataclass(frozen=True, eq=False)
class Similarity:
    """``scale * rotation @ point + translation``; ``note`` says what the points left undetermined."""

    scale: float = 1.0
    rotation: Floats = field(default_factory=lambda: np.eye(3))
    translation: Floats = field(default_factory=lambda: np.zeros(3))
    note: str = ""

    def points(self, points: NDArray[Any]) -> Floats:
        """Move points (..., 3)."""
        moved: Floats = self.scale * points @ self.rotation.T + self.translation
        return moved

    def poses(self, poses: NDArray[Any]) -> Floats:
        """Move cameras (..., 4, 4): turned, and their positions moved; they stay rigid."""
        moved = np.array(poses, dtype=np.float64)
        moved[..., :3, :3] = self.rotation @ moved[..., :3, :3]
        moved[..., :3, 3] = self.points(moved[..., :3, 3])
        return moved


@dataclass(frozen=True)
class PathError:
    """Distances between an aligned path and the true one, in the truth's unit.

    Attributes:
        rmse: The absolute trajectory error; NaN, like the rest, where no frame has both poses.
        mean: Of the distances.
        median: Of the distances.
        maximum: Of the distances.
        n: Frames with both poses.
        n_missed: Frames with a true pose alone.
        alignment: What was applied to the estimate; its note says what it could not know.
    """

    rmse: float
    mean: float
    median: float
    maximum: float
    n: int
    n_missed: int
    alignment: Similarity


def umeyama(source: NDArray[Any], target: NDArray[Any], with_scale: bool = True) -> Similarity:
    """Find the similarity that takes points nearest to others, in the sense of least squares.

    Points on one line leave the rotation around it open, and a single place the rotation and scale: the result is then
    one of the best, and says so in its note.

    Args:
        source: (N, 3).
        target: (N, 3), in the same order.
        with_scale: Without, the scale is 1 and the motion rigid.

    Raises:
        InputError: The shapes differ, there is no point, or one is not finite.
    """
    source, target = np.asarray(source, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if source.shape != target.shape or source.ndim != 2 or source.shape[1:] != (3,) or not len(source):
        raise InputError(f"Alignment needs two lists (N, 3) of the same points; got {source.shape} and {target.shape}.")
    if not (np.isfinite(source).all() and np.isfinite(target).all()):
        raise InputError("Alignment needs finite points; leave out those that one of the two lists lacks.")
    x, y = source - source.mean(axis=0), target - target.mean(axis=0)
    U, D, Vt = np.linalg.svd(y.T @ x / len(x))
    S = np.array([1, 1, 1 if np.linalg.det(U) * np.linalg.det(Vt) > 0 else -1])  # a rotation, never a reflection
    R = (U * S) @ Vt
    variance = (x**2).sum() / len(x)
    scale = float(D @ S / variance) if with_scale and not _is_one_place(source) else 1.0
    return Similarity(scale, R, target.mean(axis=0) - scale * R @ source.mean(axis=0), _undetermined(source, target))


def align(estimate: NDArray[Any], truth: NDArray[Any], freedom: Freedom = "sim3") -> Similarity:
    """Align the camera centres of an estimated path with the true ones, over the frames that have both poses.

    Args:
        estimate: (N, 4, 4).
        truth: (N, 4, 4).
        freedom: ``"sim3"`` for a path of unknown scale, ``"se3"`` for a metric one, ``"none"`` to leave it as it is.

    Raises:
        InputError: The paths do not hold as many poses, or the freedom is unknown.
    """
    _require_one_length(estimate, truth)
    if freedom not in ("sim3", "se3", "none"):
        raise InputError(f"alignment '{freedom}' is unknown; choose sim3, se3 or none.")
    both = registered(estimate) & registered(truth)
    if freedom == "none":
        return Similarity()
    if not both.any():
        return Similarity(note="no frame has both poses")
    return umeyama(estimate[both, :3, 3], truth[both, :3, 3], with_scale=freedom == "sim3")


def registered(poses: NDArray[Any]) -> NDArray[np.bool_]:
    """Which frames have a pose, (N,)."""
    known: NDArray[np.bool_] = np.isfinite(poses).all(axis=(1, 2))
    return known


def absolute_trajectory_error(estimate: NDArray[Any], truth: NDArray[Any], freedom: Freedom = "sim3") -> PathError:
    """How far the camera's centres are from the true ones once the whole path is aligned.

    Arguments and errors are those of ``align``.
    """
    alignment = align(estimate, truth, freedom)
    known, found = registered(truth), registered(estimate)
    both = known & found
    away = np.linalg.norm(alignment.points(estimate[both, :3, 3]) - truth[both, :3, 3], axis=1)
    away_or_nan = away if len(away) else np.array([np.nan])
    return PathError(
        rmse=float(np.sqrt((away_or_nan**2).mean())),
        mean=float(away_or_nan.mean()),
        median=float(np.median(away_or_nan)),
        maximum=float(away_or_nan.max()),
        n=int(both.sum()),
        n_missed=int((known & ~found).sum()),
        alignment=alignment,
    )


def step_pairs(truth: NDArray[Any], step: int = 1) -> NDArray[np.intp]:
    """Pairs (first, last) of frames a number of frames apart, (n, 2), of those with a true pose."""
    first = np.arange(max(len(truth) - step, 0))
    pairs = np.stack([first, first + step], axis=1)
    kept: NDArray[np.intp] = pairs[registered(truth)[pairs].all(axis=1)]
    return kept


def length_pairs(truth: NDArray[Any], length: float, every: int = 1) -> NDArray[np.intp]:
    """Pairs (first, last) of frames between which the true camera travels a length, (n, 2).

    Args:
        truth: (N, 4, 4).
        length: Of the way, in the truth's unit; the last frame is the first at which it is travelled.
        every: Begin at every so many frames that have a true pose (KITTI: 10).
    """
    frames = np.flatnonzero(registered(truth))
    travelled = _travelled(truth[frames])
    first = np.arange(0, len(frames), every)
    last = np.searchsorted(travelled, travelled[first] + length)
    whole = last < len(frames)
    return np.stack([frames[first[whole]], frames[last[whole]]], axis=1)


def relative_pose_errors(estimate: NDArray[Any], truth: NDArray[Any], pairs: NDArray[np.intp]) -> pd.DataFrame:
    """How wrong the motion between two frames is, for pairs of frames (``step_pairs``, ``length_pairs``).

    A path of unknown scale is aligned first: ``align(...).poses(estimate)``; nothing else of the alignment matters.

    Returns:
        One row per pair: ``first`` and ``last`` frame; ``length`` of the true way; error of the ``translation``, in the
        truth's unit, and as ``translation_percent`` of the length; ``rotation_deg``, and ``rotation_deg_per_unit`` of
        length; ``missed``, the estimate lacks a pose. Where the camera did not move, what is per length is NaN.

    Raises:
        InputError: The paths do not hold as many poses.
    """
    _require_one_length(estimate, truth)
    first, last = pairs.T
    wrong = _inverse(_motion(truth, first, last)) @ _motion(estimate, first, last)
    way = np.full(len(truth), np.nan)
    way[registered(truth)] = _travelled(truth[registered(truth)])
    length = way[last] - way[first]
    translation, rotation = np.linalg.norm(wrong[:, :3, 3], axis=1), rotation_angle_deg(wrong[:, :3, :3])
    per = np.where(length > 0, length, np.nan)
    columns = {"first": first, "last": last, "length": length, "translation": translation}
    columns |= {"translation_percent": 100 * translation / per, "rotation_deg": rotation}
    return pd.DataFrame(columns | {"rotation_deg_per_unit": rotation / per, "missed": ~np.isfinite(translation)})


def snippet_errors(estimate: NDArray[Any], truth: NDArray[Any], frames: int = 5) -> pd.DataFrame:
    """Position errors within every run of frames, each seen from its first camera and with a scale of its own.

    Returns:
        One row per run whose true poses are known: ``first`` frame; ``scale``; ``rmse`` of the positions in the truth's
        unit; ``published``, the root of the *sum* of squares over the number of frames, which published tables hold
        and which is smaller by the root of that number; ``missed``, the estimate lacks a pose. An estimate that does
        not move has scale 0.

    Raises:
        InputError: The paths do not hold as many poses, or a run of fewer than two frames is asked for.
    """
    _require_one_length(estimate, truth)
    if frames < 2:
        raise InputError(f"A snippet has at least 2 frames, got {frames}.")
    runs = np.arange(max(len(truth) - frames + 1, 0))[:, None] + np.arange(frames)
    runs = runs[registered(truth)[runs].all(axis=1)]
    e, t = (_motion(poses, runs[:, :1], runs)[..., :3, 3] for poses in (estimate, truth))  # (runs, frames, 3)
    moved = (e**2).sum(axis=(1, 2))
    scale = np.divide((e * t).sum(axis=(1, 2)), moved, out=np.where(moved == 0, 0.0, np.nan), where=moved > 0)
    squares = ((t - scale[:, None, None] * e) ** 2).sum(axis=(1, 2))
    columns = {"first": runs[:, 0], "scale": scale, "rmse": np.sqrt(squares / frames)}
    return pd.DataFrame(columns | {"published": np.sqrt(squares) / frames, "missed": ~np.isfinite(squares)})


def score_trajectory(
    estimate: NDArray[Any], truth: NDArray[Any], freedom: Freedom = "sim3", *, scan: str, subject: str | None = None
) -> pd.DataFrame:
    """Score one recording's path, in one row.

    Args:
        estimate: (N, 4, 4).
        truth: (N, 4, 4).
        freedom: Of the alignment, as for ``align``.
        scan: Name of the recording.
        subject: Whose it is; without it the recording is its own subject.

    Returns:
        ``subject``, ``scan``, ``structure`` ("path"); ``TRAJECTORY_SCORES``: the absolute error, the means of the
        relative errors from one frame to the next after alignment, and of the errors over 5 frames; ``n`` frames with
        both poses; ``missing`` with the true one alone; ``alignment``, its ``scale`` and the ``note`` on what it could
        not know; ``missed``, there is no error at all.

    Raises:
        InputError: The paths do not hold as many poses, or the freedom is unknown.
    """
    path = absolute_trajectory_error(estimate, truth, freedom)
    steps = relative_pose_errors(path.alignment.poses(estimate), truth, step_pairs(truth))
    row: dict[str, Any] = {"subject": subject or scan, "scan": scan, "structure": "path", "ate_rmse": path.rmse}
    row |= {f"rpe_{name}": steps[name].mean() for name in ("translation", "translation_percent", "rotation_deg")}
    row |= {"snippet_rmse": snippet_errors(estimate, truth)["rmse"].mean(), "n": path.n, "missing": path.n_missed}
    row |= {"alignment": freedom, "scale": path.alignment.scale, "note": path.alignment.note, "missed": path.n == 0}
    return pd.DataFrame([row])


def write_tum(path: Path, times_s: NDArray[Any], poses: NDArray[Any]) -> None:
    """Write a path as TUM does: ``time x y z qx qy qz qw`` per line, camera to world.

    Frames without a pose have no line; the first line, a comment, says how many have one.
    """
    found = registered(poses)
    quaternions = Rotation.from_matrix(poses[found, :3, :3]).as_quat() if found.any() else np.zeros((0, 4))
    rows = np.column_stack([np.asarray(times_s)[found], poses[found, :3, 3], quaternions])
    _write_rows(path, [f"# {int(found.sum())} of {len(poses)} frames have a pose: time x y z qx qy qz qw"], rows)


def read_tum(path: Path) -> tuple[Floats, Floats]:
    """Read a path that TUM's format holds: times (N,), seconds, and poses (N, 4, 4); ``at_times`` finds the frames'.

    Raises:
        InputError: The file is missing or holds something else.
    """
    rows = _read_rows(path, 8)
    poses = from_quaternions(path, rows[:, 1:4], rows[:, 4:]) if len(rows) else np.zeros((0, 4, 4))
    return rows[:, 0], poses


def at_times(times_s: Floats, poses: Floats, wanted_s: NDArray[Any], tolerance_s: float = 1e-3) -> Floats:
    """Find each frame's pose by its time: the nearest one within the tolerance, else NaN; (frames, 4, 4)."""
    away = np.abs(np.asarray(wanted_s)[:, None] - times_s)  # (frames, N)
    frames = np.flatnonzero(away.min(axis=1, initial=np.inf) <= tolerance_s)
    nearest = away[frames].argmin(axis=1) if len(frames) else []
    return at_frames(poses[nearest], frames.tolist(), len(away))


def write_kitti(path: Path, poses: NDArray[Any]) -> None:
    """Write a path as KITTI does: the first three rows of each pose in a line, camera to world; NaN without a pose."""
    _write_rows(path, [], np.where(registered(poses)[:, None, None], poses, np.nan)[:, :3].reshape(len(poses), 12))


def read_kitti(path: Path) -> Floats:
    """Read a path that KITTI's format holds, (N, 4, 4), a pose per frame; NaN where a line holds NaN.

    Raises:
        InputError: The file is missing or holds something else.
    """
    rows = _read_rows(path, 12).reshape(-1, 3, 4)
    found = np.flatnonzero(np.isfinite(rows).all(axis=(1, 2)))
    poses = checked_poses(path, rows[found]) if len(found) else np.zeros((0, 4, 4))
    return at_frames(poses, found.tolist(), len(rows))


def rotation_angle_deg(rotations: NDArray[Any]) -> Floats:
    """Angles of rotation matrices (..., 3, 3), degrees in [0, 180]; exact for small ones too."""
    chord = np.linalg.norm(rotations - np.eye(3), axis=(-2, -1)) / np.sqrt(8)  # sin(angle / 2)
    angle: Floats = np.degrees(2 * np.arcsin(np.minimum(chord, 1)))
    return angle


def _undetermined(source: Floats, target: Floats) -> str:
    """What points (N, 3) leave open."""
    notes = []
    for name, points in (("estimated", source), ("true", target)):
        spread = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
        if _is_one_place(points):
            notes.append(f"the {name} positions are all in one place: rotation and scale are arbitrary")
        elif spread[1] < _THIN * spread[0]:
            notes.append(f"the {name} positions are on a line: the rotation around it is arbitrary")
    return "; ".join(notes)


def _is_one_place(points: Floats) -> bool:
    return bool(np.ptp(points, axis=0).max() <= _ROUNDED * np.abs(points).max())


def _travelled(poses: NDArray[Any]) -> Floats:
    steps = np.linalg.norm(np.diff(poses[:, :3, 3].astype(np.float64), axis=0), axis=1)
    way: Floats = np.concatenate([np.zeros(min(len(poses), 1)), steps]).cumsum()
    return way


def _inverse(poses: Floats) -> Floats:
    """Invert rigid motions (..., 4, 4)."""
    inverse = np.array(poses)
    turned = np.swapaxes(poses[..., :3, :3], -1, -2)
    inverse[..., :3, :3] = turned
    inverse[..., :3, 3] = -(turned @ poses[..., :3, 3:])[..., 0]
    return inverse


def _motion(poses: NDArray[Any], first: NDArray[np.intp], last: NDArray[np.intp]) -> Floats:
    """The last camera seen from the first one, (..., 4, 4)."""
    poses = np.asarray(poses, dtype=np.float64)
    motion: Floats = _inverse(poses[first]) @ poses[last]
    return motion


def _write_rows(path: Path, lines: list[str], rows: Floats) -> None:
    lines = lines + [" ".join(map(repr, row)) for row in rows.tolist()]  # repr loses no digit
    with write_aside(path) as aside:
        aside.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _read_rows(path: Path, columns: int) -> Floats:
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.split("#")[0].strip()]
        rows = np.loadtxt(lines, ndmin=2) if lines else np.zeros((0, columns))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file.") from None
    except ValueError as error:
        raise InputError(f"{path}: is no path of {columns} numbers per line ({error}).") from error
    if rows.shape[1] != columns:
        raise InputError(f"{path}: is no path of {columns} numbers per line; it has {rows.shape[1]} in each.")
    return rows


def _require_one_length(estimate: NDArray[Any], truth: NDArray[Any]) -> None:
    if estimate.shape != truth.shape or truth.shape[1:] != (4, 4):
        raise InputError(
            f"Two paths must hold a pose (4, 4) for each of the same frames, NaN where there is none; got "
            f"{estimate.shape} and {truth.shape}."
        )
