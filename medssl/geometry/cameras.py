"""From pixels and depth to points in space, from one camera to another, and back to pixels.

Conventions are those of `medssl.data.sequence`: the centre of the first pixel is at (0, 0), x points right, y down, z
forward, and a pose is camera to world. Intrinsics are (B, 3, 3), without skew, of a picture without distortion. These
are kornia's conventions too, whose rotations, grid and reading between pixels are used. Its back-projection and
projection cost 2 to 8 times as much, and the latter passes NaN gradients on from behind the camera; its transforms are
matrix products, which may be rounded to TF32 behind the caller's back. The tests hold the ones here to kornia's.
"""

import torch
from kornia.geometry.conversions import axis_angle_to_rotation_matrix
from kornia.geometry.grid import create_meshgrid
from torch import Tensor

from medssl.geometry.precision import in_float32

# Depth from which a point counts as before the camera, in the scene's unit, whichever that is.
NEAREST = 1e-6
# Where a point that no picture can show is put: outside of every picture, finite, and without gradient.
NOWHERE = -1.0


def pixel_grid(
    height: int, width: int, device: torch.device | str | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Give every pixel its own coordinates, x first, (2, H, W)."""
    grid = create_meshgrid(height, width, False, torch.device(device or "cpu"), dtype)  # (1, H, W, 2)
    return grid[0].permute(2, 0, 1)


@in_float32
def backproject(depth: Tensor, intrinsics: Tensor) -> Tensor:
    """Place each pixel in space.

    Args:
        depth: z of each pixel (B, 1, H, W), in the scene's unit.
        intrinsics: (B, 3, 3), pixels.

    Returns:
        Points in the camera's axes (B, 3, H, W), in the scene's unit.
    """
    focal, centre = _focal_and_centre(intrinsics)
    grid = pixel_grid(depth.shape[-2], depth.shape[-1], depth.device, depth.dtype)
    return torch.cat([(grid - centre) / focal * depth, depth], dim=1)


@in_float32
def project(points: Tensor, intrinsics: Tensor) -> tuple[Tensor, Tensor]:
    """Tell where points appear in the picture.

    Args:
        points: In the camera's axes (B, 3, H, W).
        intrinsics: (B, 3, 3), pixels.

    Returns:
        Pixels (B, 2, H, W), also outside the picture, and the points' z (B, 1, H, W). A point that is not before the
        camera, or not finite, is at pixel (-1, -1), which lies outside of every picture, and passes no gradient.
    """
    z = points[:, 2:]
    ahead = (z > NEAREST) & points.isfinite().all(dim=1, keepdim=True)
    focal, centre = _focal_and_centre(intrinsics)
    directions = torch.where(ahead, points[:, :2], 0.0) / torch.where(ahead, z, 1.0)
    return torch.where(ahead, focal * directions + centre, NOWHERE), z


@in_float32
def transform(points: Tensor, rigid: Tensor) -> Tensor:
    """Move points (B, 3, H, W) by rigid transforms (B, 4, 4)."""
    x, y, z = points.split(1, dim=1)
    M = rigid[:, :3, :, None, None]  # (B, 3, 4, 1, 1)
    moved: Tensor = M[:, :, 0] * x + M[:, :, 1] * y + M[:, :, 2] * z + M[:, :, 3]
    return moved


@in_float32
def invert(rigid: Tensor) -> Tensor:
    """Turn rigid transforms (..., 4, 4) round: the inverse of (R, t) is (R^T, -R^T t)."""
    R, t = rigid[..., :3, :3], rigid[..., :3, 3:]
    return _rigid(R.mT, -(R * t).sum(dim=-2))


@in_float32
def relative(pose_a: Tensor, pose_b: Tensor) -> Tensor:
    """Give the transform from camera a's axes to camera b's.

    Args:
        pose_a: Camera a to world, (..., 4, 4).
        pose_b: Camera b to world, (..., 4, 4).
    """
    world_to_b = invert(pose_b)
    return (world_to_b[..., :, :, None] * pose_a[..., None, :, :]).sum(dim=-2)


@in_float32
def rigid_from_vector(vector: Tensor) -> Tensor:
    """Make rigid transforms (..., 4, 4) of six numbers each (..., 6), with a finite gradient everywhere, also at zero.

    The first three are the axis times the angle in radians, by Rodrigues' formula; the others the translation.
    """
    return _rigid(axis_angle_to_rotation_matrix(vector[..., :3]), vector[..., 3:])


@in_float32
def resize_intrinsics(intrinsics: Tensor, from_size: tuple[int, int], to_size: tuple[int, int]) -> Tensor:
    """Give the intrinsics of the same picture at another size, as `medssl.data.camera.Camera.resized` does.

    Args:
        intrinsics: (..., 3, 3), pixels.
        from_size: Height and width that they are for.
        to_size: Height and width that they should be for.
    """
    y, x = (new / old for new, old in zip(to_size, from_size, strict=True))
    first, second, last = intrinsics.unbind(dim=-2)
    # Pixel (0, 0) covers [-0.5, 0.5], so the principal point moves by more than the ratio of the sizes.
    return torch.stack([x * first + (x - 1) / 2 * last, y * second + (y - 1) / 2 * last, last], dim=-2)


def _focal_and_centre(intrinsics: Tensor) -> tuple[Tensor, Tensor]:
    """Focal lengths and principal points, x and y, each (B, 2, 1, 1)."""
    focal = intrinsics.diagonal(dim1=1, dim2=2)[:, :2]
    return focal[..., None, None], intrinsics[:, :2, 2, None, None]


def _rigid(R: Tensor, t: Tensor) -> Tensor:
    """Assemble (..., 3, 3) and (..., 3) to (..., 4, 4)."""
    bottom = torch.zeros_like(R[..., :1, :])
    corner = torch.ones_like(t[..., None, :1])
    return torch.cat([torch.cat([R, t[..., None]], dim=-1), torch.cat([bottom, corner], dim=-1)], dim=-2)
