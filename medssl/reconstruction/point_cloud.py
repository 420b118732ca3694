"""Clouds of coloured points with normals, from depth maps, and the files that hold them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medssl.data.sequence import Unit
from medssl.errors import InputError
from medssl.reconstruction.depth_view import DepthView, tangent_planes, to_world
from medssl.reconstruction.mesh import unit_comment, unit_of
from medssl.reconstruction.ply import Ply, read_ply, vertex_table, vertices_of, write_ply


@dataclass(frozen=True, eq=False)
class PointCloud:
    """Points in the world.

    Attributes:
        positions: (P, 3), float32.
        normals: Unit length, towards whoever saw the point, (P, 3), float32; 0 where unknown.
        colours: RGB (P, 3), uint8.
        unit: Of the positions; "unknown" is up to scale.
    """

    positions: NDArray[np.float32]
    normals: NDArray[np.float32]
    colours: NDArray[np.uint8]
    unit: Unit = "unknown"


def points_of(view: DepthView, unit: Unit = "unknown", min_cosine: float = 0.1) -> PointCloud:
    """The points that one view saw, in the world.

    Args:
        view: Depth, colours and camera.
        unit: Of its depth and pose.
        min_cosine: Pixels seen at a smaller cosine to the normal are left out, among them those across a jump in depth.
    """
    planes = tangent_planes(view)
    seen = planes.cosine >= min_cosine
    positions = to_world(planes.points[seen], view.pose).astype(np.float32)
    normals = (planes.normals[seen] @ view.pose[:3, :3].T).astype(np.float32)
    return PointCloud(positions, normals, view.colour[seen], unit)


def joined(clouds: Sequence[PointCloud]) -> PointCloud:
    """All points of some clouds.

    Raises:
        InputError: There are none, or their units differ.
    """
    units = sorted({cloud.unit for cloud in clouds})
    if len(units) != 1:
        raise InputError(f"Clouds to join must share one unit; got {', '.join(units) or 'no cloud'}.")
    return PointCloud(
        np.concatenate([cloud.positions for cloud in clouds]),
        np.concatenate([cloud.normals for cloud in clouds]),
        np.concatenate([cloud.colours for cloud in clouds]),
        units[0],
    )


def thinned(cloud: PointCloud, voxel_size: float) -> PointCloud:
    """One point for each voxel that holds any: the mean of its positions, normals and colours.

    Args:
        cloud: The points.
        voxel_size: Edge of a voxel, in the cloud's unit; voxels begin at the world's origin.

    Raises:
        InputError: The size is not above 0.
    """
    if not voxel_size > 0:
        raise InputError(f"A voxel's size must be above 0; got {voxel_size:g}.")
    voxels = np.floor(cloud.positions.astype(np.float64) / voxel_size).astype(np.int64)
    _, group, counts = np.unique(voxels, axis=0, return_inverse=True, return_counts=True)

    def mean(values: NDArray[np.generic]) -> NDArray[np.float64]:
        sums = [np.bincount(group.reshape(-1), weights=column, minlength=len(counts)) for column in values.T]
        return np.stack(sums, axis=-1) / counts[:, None]

    normals = mean(cloud.normals)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    normals /= np.where(length > 0, length, 1)
    colours = np.rint(mean(cloud.colours)).astype(np.uint8)
    return PointCloud(mean(cloud.positions).astype(np.float32), normals.astype(np.float32), colours, cloud.unit)


def write_points(path: Path, cloud: PointCloud) -> None:
    """Write a cloud as binary PLY, whole or not at all; a comment states its unit.

    Raises:
        InputError: The disk is full or refuses to be written.
    """
    write_ply(path, Ply(vertex_table(cloud.positions, cloud.normals, cloud.colours), None, (unit_comment(cloud.unit),)))


def read_points(path: Path) -> PointCloud:
    """Read the vertices of a PLY file; missing normals are 0, missing colours white.

    Raises:
        InputError: It cannot be read.
    """
    ply = read_ply(path)
    positions, normals, colours = vertices_of(path, ply)
    return PointCloud(
        positions, np.zeros_like(positions) if normals is None else normals, colours, unit_of(ply.comments)
    )
