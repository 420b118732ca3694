"""One picture with its depth and its camera: what surfaces are made of.

Conventions are those of `medssl.data.sequence`: the centre of the first pixel is at (0, 0), x points right, y down, z
forward, poses are camera to world, and lengths have the scene's unit.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medssl.errors import InputError

_ORTHONORMAL_WITHIN = 1e-3


@dataclass(frozen=True, eq=False)
class DepthView:
    """What one camera saw.

    Attributes:
        depth: z of each pixel (H, W), in the scene's unit; NaN, infinite or not positive where unknown.
        colour: RGB (H, W, 3), uint8.
        intrinsics: (3, 3), pixels, of a picture without distortion and of this size.
        pose: Camera to world, (4, 4), rigid.
        valid: (H, W), where depth and colour can be trusted; ``None`` for wherever there is a depth.

    Raises:
        InputError: The arrays do not belong together, or the camera is none.
    """

    depth: NDArray[np.floating[Any]]
    colour: NDArray[np.uint8]
    intrinsics: NDArray[np.float64]
    pose: NDArray[np.float64]
    valid: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        size = self.depth.shape
        if len(size) != 2 or min(size) < 2:
            raise InputError(f"A depth map has shape (H, W), at least 2 each; got {size}.")
        if self.colour.shape != (*size, 3) or self.colour.dtype != np.uint8:
            raise InputError(
                f"The picture must be uint8 of shape {(*size, 3)}, like its depth map; got {self.colour.dtype} of "
                f"shape {self.colour.shape}. Resize one of them, and the intrinsics with it."
            )
        if self.valid is not None and self.valid.shape != size:
            raise InputError(f"The validity mask must have the depth map's shape {size}; got {self.valid.shape}.")
        check_intrinsics(self.intrinsics)
        check_poses(self.pose[None])

    @property
    def known(self) -> NDArray[np.bool_]:
        """Where there is a depth that can be trusted, (H, W)."""
        known: NDArray[np.bool_] = np.isfinite(self.depth) & (self.depth > 0)
        return known if self.valid is None else known & self.valid


class TangentPlanes(NamedTuple):
    """The plane that touches the surface at each pixel, in the camera's axes.

    Attributes:
        points: (H, W, 3).
        normals: Unit length, towards the camera, (H, W, 3).
        cosine: Of the angle between normal and line of sight, (H, W): 1 head-on, to 0 edge-on; 0 where unknown.
    """

    points: NDArray[np.float32]
    normals: NDArray[np.float32]
    cosine: NDArray[np.float32]


def check_intrinsics(intrinsics: NDArray[np.float64]) -> None:
    """Refuse what is not the intrinsic matrix of a camera without skew.

    Raises:
        InputError: It is not.
    """
    zeros = [(0, 1), (1, 0), (2, 0), (2, 1)]
    if (
        intrinsics.shape != (3, 3)
        or not np.isfinite(intrinsics).all()
        or min(intrinsics[0, 0], intrinsics[1, 1]) <= 0
        or any(intrinsics[at] != 0 for at in zeros)
        or intrinsics[2, 2] != 1
    ):
        raise InputError(
            f"Intrinsics are [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] in pixels, with fx and fy above 0; got "
            f"{intrinsics.tolist()}."
        )


def check_poses(poses: NDArray[np.float64]) -> None:
    """Refuse what is not rigid.

    Args:
        poses: (N, 4, 4).

    Raises:
        InputError: One is not rigid, or not known.
    """
    if poses.ndim != 3 or poses.shape[1:] != (4, 4):
        raise InputError(f"Poses have shape (N, 4, 4), camera to world; got {poses.shape}.")
    for index, pose in enumerate(poses):
        if not np.isfinite(pose).all():
            raise InputError(f"Pose {index} is not known (NaN). Leave frames without a pose out.")
        rotation = pose[:3, :3]
        error = np.abs(rotation.T @ rotation - np.eye(3)).max()
        if error > _ORTHONORMAL_WITHIN or np.linalg.det(rotation) < 0 or np.any(pose[3] != (0, 0, 0, 1)):
            raise InputError(
                f"Pose {index} is not a rotation and a translation: {pose.tolist()}. Take scale and mirroring out."
            )


def back_project(depth: NDArray[np.floating[Any]], intrinsics: NDArray[np.float64]) -> NDArray[np.float32]:
    """The point (x, y, z) in the camera's axes of each pixel of a depth map (H, W); returns (H, W, 3)."""
    height, width = depth.shape
    x = (np.arange(width) - intrinsics[0, 2]) / intrinsics[0, 0]
    y = (np.arange(height) - intrinsics[1, 2]) / intrinsics[1, 1]
    return np.stack([depth * x, depth * y[:, None], depth], axis=-1).astype(np.float32)


def tangent_planes(view: DepthView) -> TangentPlanes:
    """Touch the surface with a plane at every pixel.

    The plane runs through the pixel's point and along the differences to its neighbours, on both sides where both are
    known. Across a jump in depth it stands edge-on, so its cosine tells such pixels apart.
    """
    known = view.known
    points = back_project(np.where(known, view.depth, 0), view.intrinsics)
    down, has_down = _difference(points, known)
    right, has_right = (a.swapaxes(0, 1) for a in _difference(points.swapaxes(0, 1), known.T))
    normals = np.cross(down, right)
    length = np.linalg.norm(normals, axis=-1)
    known = known & has_down & has_right & (length > 0)
    normals /= np.where(known, length, 1)[..., None]
    sight = np.where(known, np.linalg.norm(points, axis=-1), 1)
    cosine = -np.einsum("hwc,hwc->hw", normals, points) / sight
    return TangentPlanes(points, normals, np.where(known, np.clip(cosine, 0, 1), 0).astype(np.float32))


def to_world(points: NDArray[np.floating[Any]], pose: NDArray[np.float64]) -> NDArray[np.float64]:
    """Carry points (..., 3) from a camera's axes to the world's."""
    moved: NDArray[np.float64] = points @ pose[:3, :3].T + pose[:3, 3]
    return moved


def to_camera(points: NDArray[np.floating[Any]], pose: NDArray[np.float64]) -> NDArray[np.float64]:
    """Carry points (..., 3) from the world's axes to a camera's."""
    moved: NDArray[np.float64] = (points - pose[:3, 3]) @ pose[:3, :3]
    return moved


def scene_bounds(views: Iterable[DepthView], share: float = 0.98) -> NDArray[np.float64]:
    """The box along the world's axes that holds what the views saw, read one at a time.

    Args:
        views: In any order.
        share: Of each view's points, along each axis, that the box holds; the rest are taken for outliers.

    Returns:
        Lowest and highest corner, (2, 3).

    Raises:
        InputError: No view has a depth.
    """
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for view in views:
        known = view.known
        if known.any():
            points = to_world(back_project(view.depth, view.intrinsics)[known], view.pose)
            edges = np.quantile(points, [(1 - share) / 2, (1 + share) / 2], axis=0)
            low, high = np.minimum(low, edges[0]), np.maximum(high, edges[1])
    if not np.isfinite(low).all():
        raise InputError("No view has a known depth: there is no scene to measure. Check depth maps and masks.")
    return np.stack([low, high])


def _difference(points: NDArray[np.float32], known: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Next row minus last row (H, W, 3), the row itself standing in for an unknown one; and where one is known (H, W).

    Where neither is known, it is 0.
    """
    after, before = points.copy(), points.copy()
    has_after, has_before = np.zeros_like(known), np.zeros_like(known)
    has_after[:-1], has_before[1:] = known[1:], known[:-1]
    after[:-1] = np.where(has_after[:-1, :, None], points[1:], points[:-1])
    before[1:] = np.where(has_before[1:, :, None], points[:-1], points[1:])
    return after - before, has_after | has_before
