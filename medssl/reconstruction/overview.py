"""The whole surface from outside, with the way that the camera went and the gaps it left."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssl.errors import InputError
from medssl.extras import require_module
from medssl.reconstruction.coverage import Coverage
from medssl.reconstruction.depth_view import check_intrinsics, check_poses
from medssl.reconstruction.mesh import Mesh
from medssl.reconstruction.render import look, plotter, shot, surface

_WAY, _UNSEEN = (30, 110, 230), (230, 30, 160)
_FRUSTUM_SHARE = 0.06  # of the scene's diagonal, that a drawn camera is long
_FIELD_DEGREES = 35.0  # of the picture, from side to side
_MARGIN = 1.08  # around the scene
_SLANT = (0.35, 0.25)  # how much the picture is taken from along the way, and from its side


def overview(
    mesh: Mesh,
    path: NDArray[np.float64],
    intrinsics: NDArray[np.float64],
    size: tuple[int, int] = (720, 960),
    camera_size: tuple[int, int] | None = None,
    coverage: Coverage | None = None,
    frusta: int = 12,
) -> NDArray[np.uint8]:
    """Draw a mesh cut open, the camera's path in blue, and what was not seen in magenta.

    Faces are drawn from free space alone, so one looks through the near wall onto the far one.

    Args:
        mesh: The surface.
        path: Camera to world, (N, 4, 4).
        intrinsics: Of the cameras drawn, (3, 3).
        size: Height and width of the picture, pixels.
        camera_size: Height and width of the cameras' pictures; ``None`` for a principal point in their middle.
        coverage: Of the mesh: unseen vertices and the rims of holes are painted; ``None`` for none.
        frusta: How many cameras to draw, evenly spaced.

    Returns:
        (H, W, 3), RGB.

    Raises:
        InputError: The path is empty or holds what is no pose, pyvista is missing, or there is no OpenGL.
    """
    check_intrinsics(intrinsics)
    check_poses(path)
    if not len(path) or not len(mesh.faces):
        raise InputError(f"An overview needs faces and poses; got {len(mesh.faces)} faces and {len(path)} poses.")
    pyvista = require_module("pyvista", "endoscopy")
    drawn = surface(mesh)
    if coverage is not None:
        drawn.point_data["colours"] = np.where(
            (coverage.views > 0)[:, None], mesh.colours, np.array(_UNSEEN, dtype=np.uint8)
        )
    scene = plotter(size, (255, 255, 255))
    try:
        scene.add_mesh(drawn, scalars="colours", rgb=True, ambient=0.5, diffuse=0.5, specular=0, culling="back")
        for hole in coverage.holes if coverage is not None else ():
            _line(scene, pyvista, mesh.vertices[np.append(hole.loop, hole.loop[0])], _UNSEEN, 3)
        _line(scene, pyvista, path[:, :3, 3], _WAY, 4)
        length = _FRUSTUM_SHARE * float(np.linalg.norm(np.ptp(mesh.vertices, axis=0)))
        for at in np.unique(np.linspace(0, len(path) - 1, frusta).round().astype(int)):
            _line(scene, pyvista, frustum(path[at], intrinsics, camera_size, length), _WAY, 2)
        look(scene, size, *_outside(mesh, path, size))
        return shot(scene)
    finally:
        scene.close()


def frustum(
    pose: NDArray[np.float64], intrinsics: NDArray[np.float64], size: tuple[int, int] | None, length: float
) -> NDArray[np.float64]:
    """A camera's pyramid of sight, as one line through all its edges, (n, 3)."""
    height, width = size if size is not None else (2 * intrinsics[1, 2] + 1, 2 * intrinsics[0, 2] + 1)
    left, right = -0.5, width - 0.5
    top, bottom = -0.5, height - 0.5
    pixels = np.array([[left, top, 1], [right, top, 1], [right, bottom, 1], [left, bottom, 1]])
    corners = length * pixels @ np.linalg.inv(intrinsics).T @ pose[:3, :3].T + pose[:3, 3]
    apex = pose[:3, 3]
    a, b, c, d = corners
    return np.stack([apex, a, b, apex, c, d, apex, a, d, c, b])


def _line(scene: Any, pyvista: Any, along: NDArray[np.floating[Any]], colour: tuple[int, int, int], width: int) -> None:
    if len(along) > 1:
        line = pyvista.lines_from_points(along.astype(np.float64))
        scene.add_mesh(line, color=colour, line_width=width, lighting=False)


def _outside(
    mesh: Mesh, path: NDArray[np.float64], size: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Intrinsics and pose of a camera that has the whole scene before it, across the way."""
    everything = np.concatenate([mesh.vertices.astype(np.float64), path[:, :3, 3]])
    centre = (everything.min(axis=0) + everything.max(axis=0)) / 2
    _, _, axes = np.linalg.svd(everything - everything.mean(axis=0), full_matrices=False)
    forward = axes[2] + _SLANT[0] * axes[0] + _SLANT[1] * axes[1]
    forward /= np.linalg.norm(forward)
    right = axes[0] - forward * (axes[0] @ forward)
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward], axis=1)
    height, width = size
    focal = width / 2 / np.tan(np.radians(_FIELD_DEGREES / 2))
    x, y, z = ((everything - centre) @ rotation).T
    distance = _MARGIN * (np.maximum(np.abs(x) / (width / 2), np.abs(y) / (height / 2)) * focal - z).max()
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, centre - distance * forward
    intrinsics = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
    return intrinsics, pose
