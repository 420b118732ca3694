"""A smooth way through recorded poses, for a camera that flies where the endoscope went.

One cubic smoothing spline over time runs through positions and quaternions together (Reinsch, "Smoothing by Spline
Functions", Numerische Mathematik 1967: the smoothest curve whose mean squared residual is what the noise accounts for).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import splev, splprep
from scipy.spatial.transform import Rotation

from medssl.errors import InputError
from medssl.reconstruction.depth_view import check_poses

_SAMPLES_PER_POSE = 20  # of the spline, to measure its length and its distance from the recording
_TIGHTER = 0.3  # how much less smoothing is tried where the way strays too far
_MOST_TRIES = 40
_NEIGHBOURS = 10  # poses before and after a moment that its distance to the recorded way is measured to
_LEAST_TOLERANCE = 1e-6  # of the way's extent
_LEAST_DEGREES = 1e-4
_TOLERATED_JITTERS = 4.0
_MEDIAN_OF_SQUARED_LENGTH = 2.366  # of normal noise of variance 1 along three axes; its mean is 3


class Jitter(NamedTuple):
    """How much a recording trembles from frame to frame, root mean square.

    Attributes:
        position: In the poses' unit.
        degrees: Of rotation.
    """

    position: float
    degrees: float


def jitter(poses: NDArray[np.float64]) -> Jitter:
    """Estimate the tremble of poses (N, 4, 4) from their second differences, which a steady motion has none of.

    White noise of variance v has second differences of variance 6 v; the median keeps sudden moves out. A recording
    with few frames in a curve seems to tremble by what the curve deviates from its chords.
    """
    if len(poses) < 3:
        return Jitter(0.0, 0.0)
    position = np.diff(poses[:, :3, 3], n=2, axis=0)
    rotations = Rotation.from_matrix(poses[:, :3, :3])
    turns = (rotations[:-1].inv() * rotations[1:]).as_rotvec()
    rotation = np.diff(turns, axis=0)
    squared = [float(np.median(np.square(difference).sum(axis=1))) for difference in (position, rotation)]
    rms = np.sqrt(np.array(squared) / 6 * 3 / _MEDIAN_OF_SQUARED_LENGTH)
    return Jitter(float(rms[0]), float(np.degrees(rms[1])))


def smooth_path(
    poses: NDArray[np.float64],
    frames: int,
    tolerance: float | None = None,
    tolerance_degrees: float | None = None,
    times: NDArray[np.float64] | None = None,
    ease: float = 0.0,
) -> NDArray[np.float64]:
    """Lead a camera smoothly along recorded poses, at constant speed.

    No position of the way is further than ``tolerance`` from the recorded way (straight from pose to pose), so a way
    that was free stays free. Speed counts the way covered and the angle turned; see `_lengths`.

    Args:
        poses: Camera to world, (N, 4, 4), in order of time; those with NaN are passed over.
        frames: How many poses to give, at least 2; the first and the last are the way's ends.
        tolerance: In the poses' unit; ``None`` for 4 times the recording's `jitter`. The way deviates by a quarter of
            it, root mean square, or less.
        tolerance_degrees: The same, of the direction, at the recorded moments.
        times: Of each pose, (N,), ascending; ``None`` for evenly spaced ones.
        ease: Share of the frames in which the camera speeds up, and again slows down, 0 to 0.5.

    Returns:
        Camera to world, (frames, 4, 4).

    Raises:
        InputError: Fewer than two poses are known, times do not ascend, or an argument is out of range.
    """
    poses, times = _known(poses, times)
    if frames < 2 or not 0 <= ease <= 0.5:
        raise InputError(f"A path has at least 2 frames, and an ease from 0 to 0.5; got {frames} and {ease:g}.")
    tremble = jitter(poses)
    tolerance = _TOLERATED_JITTERS * tremble.position if tolerance is None else tolerance
    tolerance_degrees = _TOLERATED_JITTERS * tremble.degrees if tolerance_degrees is None else tolerance_degrees
    extent = float(np.ptp(poses[:, :3, 3], axis=0).max())
    samples = _fit(
        poses, times, max(tolerance, _LEAST_TOLERANCE * (extent or 1)), max(tolerance_degrees, _LEAST_DEGREES)
    )
    lengths = _lengths(samples)
    at = np.interp(lengths[-1] * eased(np.linspace(0, 1, frames), ease), lengths, np.arange(len(lengths)))
    return _between(samples, at)


def eased(progress: NDArray[np.float64], ease: float) -> NDArray[np.float64]:
    """Turn shares of time into shares of way: speed rises in proportion to time, stays, and falls.

    Args:
        progress: Shares of the time, 0 to 1.
        ease: Share of the time in which speed rises, and in which it falls, 0 to 0.5.
    """
    if ease == 0:
        return progress
    ends = np.minimum(progress, 1 - progress)
    slow = np.minimum(ends, ease) ** 2 / (2 * ease) + np.maximum(ends - ease, 0)  # way from the nearer end
    share: NDArray[np.float64] = np.where(progress <= 0.5, slow / (1 - ease), 1 - slow / (1 - ease))
    return share


def _known(
    poses: NDArray[np.float64], times: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if times is None:
        times = np.arange(len(poses), dtype=np.float64)
    if len(times) != len(poses) or not (np.diff(times) > 0).all():
        raise InputError(f"Each of {len(poses)} poses needs a time, later than the one before; got {len(times)} times.")
    known = np.isfinite(poses).all(axis=(1, 2))
    if known.sum() < 2:
        raise InputError(f"A path leads from pose to pose: at least 2 are needed; got {known.sum()} of {len(poses)}.")
    check_poses(poses[known])
    return poses[known], times[known]


def _fit(
    poses: NDArray[np.float64], times: NDArray[np.float64], tolerance: float, tolerance_degrees: float
) -> NDArray[np.float64]:
    """The smoothest way within the tolerances, densely: (M, 4, 4)."""
    positions, quaternions = poses[:, :3, 3], _continuous(Rotation.from_matrix(poses[:, :3, :3]).as_quat())
    aim = tolerance / _TOLERATED_JITTERS
    aim_quaternion = np.radians(tolerance_degrees) / _TOLERATED_JITTERS / 2  # a quaternion moves by half the angle
    curve = np.concatenate([positions / aim, quaternions / aim_quaternion], axis=1)
    dense = np.unique(np.concatenate([times, np.linspace(times[0], times[-1], len(times) * _SAMPLES_PER_POSE)]))
    residual = 2.0 * len(times)  # of positions and of quaternions, each 1 on average
    for _ in range(_MOST_TRIES):
        # full_output, lest it warns of a residual that it cannot meet: what counts is looked at below.
        (spline, _), *_ = splprep(curve.T, u=times, k=min(3, len(times) - 1), s=residual, full_output=True)
        values = np.stack(splev(dense, spline), axis=-1)
        samples = _poses(values[:, :3] * aim, values[:, 3:])
        turned = _turned(samples[np.searchsorted(dense, times)], poses)
        strayed = _strayed(samples[:, :3, 3], np.searchsorted(times, dense), positions)
        if strayed.max() <= tolerance and np.degrees(turned.max()) <= tolerance_degrees:
            return samples
        residual *= _TIGHTER
    straight = np.stack([np.interp(dense, times, column) for column in curve.T], axis=-1)
    return _poses(straight[:, :3] * aim, straight[:, 3:])


def _strayed(
    points: NDArray[np.float64], moments: NDArray[np.int64], recorded: NDArray[np.float64]
) -> NDArray[np.float64]:
    """How far points (M, 3) are from the recorded way (N, 3), of which they belong to some moment, (M,).

    Only the way within some poses of the moment is looked at, so the distance may come out too long, never too short.
    """
    nearest = np.full(len(points), np.inf)
    for offset in range(-_NEIGHBOURS, _NEIGHBOURS + 1):
        at = np.clip(moments + offset, 1, len(recorded) - 1)
        start, step = recorded[at - 1], recorded[at] - recorded[at - 1]
        squared = np.maximum(np.square(step).sum(axis=1), np.finfo(np.float64).tiny)
        along = np.clip(np.einsum("mc,mc->m", points - start, step) / squared, 0, 1)
        nearest = np.minimum(nearest, np.linalg.norm(points - start - along[:, None] * step, axis=1))
    return nearest


def _turned(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """The angle between the directions of poses, radians."""
    angles: NDArray[np.float64] = (
        Rotation.from_matrix(a[:, :3, :3]).inv() * Rotation.from_matrix(b[:, :3, :3])
    ).magnitude()
    return angles


def _lengths(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """The way covered up to each of densely sampled poses (M, 4, 4), (M,), rising.

    A full turn counts like the whole way's length, so the camera does not whirl where it turns on the spot; where it
    turns more than once in all, all its turns together count that much.
    """
    steps = np.linalg.norm(np.diff(samples[:, :3, 3], axis=0), axis=1)
    turns = _turned(samples[:-1], samples[1:])
    covered = np.hypot(steps / max(steps.sum(), np.finfo(np.float64).tiny), turns / max(turns.sum(), 2 * np.pi))
    return np.concatenate([[0], np.cumsum(covered)])


def _between(samples: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Poses at fractional indices of densely sampled ones."""
    indices = np.arange(len(samples))
    positions = np.stack([np.interp(at, indices, column) for column in samples[:, :3, 3].T], axis=-1)
    quaternions = _continuous(Rotation.from_matrix(samples[:, :3, :3]).as_quat())
    return _poses(positions, np.stack([np.interp(at, indices, column) for column in quaternions.T], axis=-1))


def _continuous(quaternions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Choose between q and -q, which turn alike, so that (N, 4) have no jump."""
    flips = np.where(np.einsum("nc,nc->n", quaternions[:-1], quaternions[1:]) < 0, -1.0, 1.0)
    continuous: NDArray[np.float64] = quaternions * np.concatenate([[1.0], np.cumprod(flips)])[:, None]
    return continuous


def _poses(positions: NDArray[np.float64], quaternions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rigid poses (N, 4, 4) from positions (N, 3) and quaternions (N, 4) of any length."""
    poses = np.tile(np.eye(4), (len(positions), 1, 1))
    poses[:, :3, :3] = Rotation.from_quat(quaternions).as_matrix()
    poses[:, :3, 3] = positions
    return poses
