"""Poses read from files: rigid transforms (4, 4) from a camera's axes to another's or to the world's."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from medssl.errors import InputError

_ROUNDED = 1e-3  # how far a rotation that was written with few digits may be from orthogonal


def checked_poses(source: Path, matrices: ArrayLike) -> NDArray[np.float64]:
    """Complete (N, 3, 4) or (N, 4, 4) matrices to rigid transforms (N, 4, 4), their rotations made exact.

    Raises:
        InputError: They are none: of another shape, not finite, or with a part that is no rotation.
    """
    given = np.asarray(matrices, dtype=np.float64)
    if given.ndim != 3 or given.shape[1:] not in ((3, 4), (4, 4)):
        raise InputError(f"{source}: holds matrices of shape {given.shape}; expected N of 3x4 or 4x4.")
    _refuse(source, ~_finite(given), "has a value that is no finite number (NaN or infinity)")
    R = given[:, :3, :3]
    skewed = np.abs(R @ R.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2)) > _ROUNDED
    mirrored = np.linalg.det(R) < 0
    _refuse(source, skewed, "is not rigid: its 3x3 part is no rotation (scale or shear in it)")
    _refuse(source, mirrored, "is not rigid: its 3x3 part has determinant -1 (a mirror, as of left-handed axes)")
    return assembled(Rotation.from_matrix(R).as_matrix(), given[:, :3, 3]) if len(given) else given


def from_quaternions(source: Path, positions: ArrayLike, quaternions: ArrayLike) -> NDArray[np.float64]:
    """Make poses (N, 4, 4) from positions (N, 3) and rotations as quaternions x y z w, (N, 4).

    Raises:
        InputError: A value is not finite, or a quaternion is zero.
    """
    t, q = np.asarray(positions, dtype=np.float64), np.asarray(quaternions, dtype=np.float64)
    _refuse(source, ~_finite(np.hstack([t, q])), "has a value that is no finite number")
    _refuse(source, np.abs(np.linalg.norm(q, axis=1) - 1) > 0.01, "has a quaternion whose length is not 1")
    return assembled(Rotation.from_quat(q).as_matrix(), t)


def assembled(rotations: NDArray[np.float64], translations: NDArray[np.float64]) -> NDArray[np.float64]:
    """Put rotations (N, 3, 3) and translations (N, 3) together, (N, 4, 4)."""
    poses = np.tile(np.eye(4), (len(rotations), 1, 1))
    poses[:, :3, :3], poses[:, :3, 3] = rotations, translations
    return poses


def inverted(poses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn rigid transforms (N, 4, 4) round: from camera to world into from world to camera."""
    back = poses[:, :3, :3].transpose(0, 2, 1)
    return assembled(back, -(back @ poses[:, :3, 3:])[..., 0])


def at_frames(poses: NDArray[np.float64], frames: Sequence[int], count: int) -> NDArray[np.float64]:
    """Lay the poses of some frames out over all ``count`` of them, NaN for the others."""
    every = np.full((count, 4, 4), np.nan)
    every[list(frames)] = poses
    return every


def require_registered(source: Path, poses: NDArray[np.float64], least: int = 3) -> None:
    """Refuse a reconstruction of which too few frames have a pose to learn depth from motion.

    Raises:
        InputError: Fewer than ``least`` poses are finite.
    """
    registered = int(_finite(poses).sum())
    if registered < least:
        few = "no frame is" if registered == 0 else f"only {registered} of {len(poses)} frames are"
        raise InputError(
            f"{source}: {few} registered; depth from motion needs at least {least}. Reconstruct a longer stretch, with "
            "slower motion or more texture."
        )


def _refuse(source: Path, bad: NDArray[np.bool_], what: str) -> None:
    if bad.any():
        lines = ", ".join(str(i) for i in np.flatnonzero(bad)[:5])
        raise InputError(f"{source}: {int(bad.sum())} of {len(bad)} poses cannot be used: pose {lines} {what}.")


def _finite(rows: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(rows.reshape(len(rows), -1)).all(axis=1))
