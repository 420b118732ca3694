"""Scenes whose depth is known in closed form, seen from inside."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from medssl.reconstruction.depth_view import DepthView

Array = NDArray[np.float64]
SIZE = (60, 80)  # height, width
INTRINSICS = np.array([[36.0, 0, 37], [0, 38, 31], [0, 0, 1]])  # about 96 x 76 degrees, principal point off the centre


def pose_at(position: tuple[float, ...], degrees: tuple[float, float, float] = (0, 0, 0)) -> Array:
    """A camera that looks along z, turned about x, then y, then z."""
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    pose[:3, 3] = position
    return pose


def paint(points: Array) -> Array:
    """The colour (..., 3) of the surface at a point (..., 3): smooth, and different everywhere."""
    return 127 + 100 * np.sin(points / np.array([9.0, 7.0, 11.0]))


def rays(pose: Array) -> tuple[Array, Array]:
    """Where lines of sight start (3,), and where they lead (H, W, 3), one unit of depth long."""
    v, u = np.mgrid[: SIZE[0], : SIZE[1]]
    camera = np.stack(
        [
            (u - INTRINSICS[0, 2]) / INTRINSICS[0, 0],
            (v - INTRINSICS[1, 2]) / INTRINSICS[1, 1],
            np.ones(SIZE),
        ],
        axis=-1,
    )
    return pose[:3, 3], camera @ pose[:3, :3].T


def _far_root(a: Array, half_b: Array, c: Array) -> Array:
    """The greater solution of a t^2 + 2 half_b t + c = 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return (-half_b + np.sqrt(half_b**2 - a * c)) / a


def sphere_depth(radius: float) -> Callable[[Array], Array]:
    """Depth inside a sphere about the origin."""

    def depth(pose: Array) -> Array:
        start, step = rays(pose)
        return _far_root((step**2).sum(-1), step @ start, start @ start - radius**2)

    return depth


def tube_depth(radius: float, ends: tuple[float, float]) -> Callable[[Array], Array]:
    """Depth inside an open tube along z; nothing is seen through its ends (NaN)."""

    def depth(pose: Array) -> Array:
        start, step = rays(pose)
        z = _far_root((step[..., :2] ** 2).sum(-1), step[..., :2] @ start[:2], start[:2] @ start[:2] - radius**2)
        at = start[2] + z * step[..., 2]
        return np.where((at >= ends[0]) & (at <= ends[1]), z, np.nan)

    return depth


def plane_depth(z: float) -> Callable[[Array], Array]:
    """Depth of the plane at a given z of the world."""

    def depth(pose: Array) -> Array:
        start, step = rays(pose)
        found = (z - start[2]) / step[..., 2]
        return np.where(found > 0, found, np.nan)

    return depth


def view_of(depth: Callable[[Array], Array], pose: Array, valid: NDArray[np.bool_] | None = None) -> DepthView:
    """What a camera sees of a painted scene."""
    z = depth(pose)
    start, step = rays(pose)
    colour = np.rint(np.nan_to_num(paint(start + z[..., None] * step))).astype(np.uint8)
    return DepthView(z.astype(np.float32), colour, INTRINSICS, pose, valid)


def all_around(position: tuple[float, ...] = (0, 0, 0)) -> list[Array]:
    """Poses from which every direction is seen: a ring of six, and rings of three up and down."""
    ring = [pose_at(position, (0, angle, 0)) for angle in range(0, 360, 60)]
    poles = [pose_at(position, (tilt, angle, 0)) for tilt in (60, -60) for angle in range(0, 360, 60)]
    return ring + poles
