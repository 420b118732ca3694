"""Surfaces of triangles, with colours and normals, and the files that hold them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from medssl.data.sequence import Unit
from medssl.errors import InputError
from medssl.reconstruction.ply import Ply, read_ply, vertex_table, vertices_of, write_ply

_UNIT_COMMENTS: dict[Unit, str] = {"mm": "unit mm", "m": "unit m", "unknown": "unit unknown: up to scale"}


@dataclass(frozen=True, eq=False)
class Mesh:
    """A surface of triangles.

    Attributes:
        vertices: (V, 3), float32, in the world.
        faces: Indices of vertices, (F, 3), int32; counter-clockwise where seen from free space.
        normals: Unit length, into free space, (V, 3), float32; 0 where a vertex has no face.
        colours: RGB (V, 3), uint8.
        unit: Of the vertices; "unknown" is up to scale.
    """

    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]
    normals: NDArray[np.float32]
    colours: NDArray[np.uint8]
    unit: Unit = "unknown"


def face_vectors(vertices: NDArray[np.floating[Any]], faces: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """Each face's normal, as long as the face's area, (F, 3)."""
    a, b, c = (vertices[faces[:, corner]].astype(np.float64) for corner in range(3))
    vectors: NDArray[np.float64] = np.cross(b - a, c - a) / 2
    return vectors


def vertex_normals(vertices: NDArray[np.floating[Any]], faces: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
    """The mean normal of the faces around each vertex, by area, unit length (V, 3); 0 where it has none."""
    total = _sum_at_vertices(np.repeat(face_vectors(vertices, faces)[:, None], 3, axis=1), faces, len(vertices))
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return (total / np.where(length > 0, length, 1)).astype(np.float32)


def vertex_areas(mesh: Mesh) -> NDArray[np.float64]:
    """A third of the area of the faces around each vertex, (V,), in the mesh's unit squared; their sum is the area."""
    areas = np.linalg.norm(face_vectors(mesh.vertices, mesh.faces), axis=1)
    return _sum_at_vertices(np.repeat(areas[:, None, None] / 3, 3, axis=1), mesh.faces, len(mesh.vertices))[:, 0]


def without_small_parts(mesh: Mesh, min_share: float = 0.01) -> Mesh:
    """Leave out the parts that hang together with nothing else and hold little of the surface.

    Args:
        mesh: The surface.
        min_share: Of all faces, that a part must hold to stay; the greatest part always stays.

    Raises:
        InputError: The share is not between 0 and 1.
    """
    if not 0 <= min_share <= 1:
        raise InputError(f"min_share is a share of all faces, from 0 to 1; got {min_share:g}.")
    edges = np.concatenate([mesh.faces[:, :2], mesh.faces[:, 1:]])
    links = coo_matrix((np.ones(len(edges)), edges.T), shape=(len(mesh.vertices),) * 2)
    _, part = connected_components(links, directed=False)
    sizes = np.bincount(part[mesh.faces[:, 0]], minlength=part.max() + 1)
    stays = sizes >= min(min_share * len(mesh.faces), sizes.max())
    return keep_vertices(mesh, stays[part])


def keep_vertices(mesh: Mesh, kept: NDArray[np.bool_]) -> Mesh:
    """The part of a mesh between the vertices (V,) that are kept."""
    new = np.cumsum(kept, dtype=np.int32) - 1
    faces = new[mesh.faces[kept[mesh.faces].all(axis=1)]]
    return Mesh(mesh.vertices[kept], faces, mesh.normals[kept], mesh.colours[kept], mesh.unit)


def write_mesh(path: Path, mesh: Mesh) -> None:
    """Write a mesh as binary PLY, whole or not at all; a comment states its unit.

    Raises:
        InputError: The disk is full or refuses to be written.
    """
    write_ply(
        path, Ply(vertex_table(mesh.vertices, mesh.normals, mesh.colours), mesh.faces, (unit_comment(mesh.unit),))
    )


def read_mesh(path: Path) -> Mesh:
    """Read a mesh of triangles from PLY; missing normals are computed, missing colours are white.

    Raises:
        InputError: It cannot be read, or is no mesh of triangles.
    """
    ply = read_ply(path)
    if ply.faces is None:
        raise InputError(f"{path}: holds points without faces; a mesh is expected. Read it as a point cloud.")
    vertices, normals, colours = vertices_of(path, ply)
    if normals is None:
        normals = vertex_normals(vertices, ply.faces)
    return Mesh(vertices, ply.faces, normals, colours, unit_of(ply.comments))


def unit_comment(unit: Unit) -> str:
    """How a file says what its lengths are in."""
    return _UNIT_COMMENTS[unit]


def unit_of(comments: tuple[str, ...]) -> Unit:
    """The unit that a file's comments state; "unknown" where they state none."""
    stated: list[Unit] = [unit for unit in get_args(Unit) if _UNIT_COMMENTS[unit] in comments]
    return stated[0] if stated else "unknown"


def _sum_at_vertices(values: NDArray[np.float64], faces: NDArray[np.integer[Any]], count: int) -> NDArray[np.float64]:
    """Sum what the corners of faces hold (F, 3, n) at the vertices, (count, n)."""
    corners = faces.reshape(-1)
    columns = values.reshape(len(corners), -1).T
    return np.stack([np.bincount(corners, weights=column, minlength=count) for column in columns], axis=-1)
