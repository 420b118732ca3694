"""Pictures of surfaces and point clouds, as a camera of given intrinsics and pose would take them.

VTK draws off the screen, by EGL or OSMesa where there is no display. Its camera gets the projection matrix itself:
its own settings know neither a principal point off the centre nor two focal lengths.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssl.errors import InputError
from medssl.extras import require_module
from medssl.reconstruction.depth_view import check_intrinsics, check_poses
from medssl.reconstruction.mesh import Mesh
from medssl.reconstruction.point_cloud import PointCloud

_NEAREST = 1e-3  # of the distance to the furthest point: what is closer is cut off


class Renderer:
    """Draws one scene from many cameras; to be closed, or used in a ``with`` block.

    Args:
        scene: A mesh, drawn from both sides, or a point cloud.
        size: Height and width of the pictures, pixels.
        light: How much the angle to a lamp at the camera changes the colours, from 0 (they stay as they are, best for
            colours from pictures, which hold the endoscope's own light) to 1.
        background: RGB, 0 to 255.
        point_size: Of a cloud's points, pixels.
        samples: Of each pixel along edges. With 4 they are smooth; without a graphics card that takes three times as
            long as 1.

    Raises:
        InputError: pyvista is missing, there is no OpenGL to draw with, or an argument is out of range.
    """

    def __init__(
        self,
        scene: Mesh | PointCloud,
        size: tuple[int, int],
        light: float = 0.5,
        background: tuple[int, int, int] = (0, 0, 0),
        point_size: float = 3.0,
        samples: int = 4,
    ) -> None:
        if not 0 <= light <= 1 or min(size) < 1:
            raise InputError(f"Pictures need a size above 0 and a light from 0 to 1; got {size} and {light:g}.")
        self.size = size
        self.plotter = plotter(size, background, samples)
        self.plotter.add_mesh(
            surface(scene) if isinstance(scene, Mesh) else points(scene),
            scalars="colours",
            rgb=True,
            ambient=1 - light,
            diffuse=light,
            specular=0,
            interpolation="Phong",  # light by pixel, between the vertices' own normals
            point_size=point_size,
        )

    def picture(self, intrinsics: NDArray[np.float64], pose: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Take a picture (H, W, 3), RGB.

        Args:
            intrinsics: (3, 3), pixels, for pictures of this size.
            pose: Camera to world, (4, 4).

        Raises:
            InputError: The camera is none.
        """
        look(self.plotter, self.size, intrinsics, pose)
        return shot(self.plotter)

    def close(self) -> None:
        """Give back what drawing takes."""
        self.plotter.close()

    def __enter__(self) -> "Renderer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def render(
    scene: Mesh | PointCloud,
    intrinsics: NDArray[np.float64],
    pose: NDArray[np.float64],
    size: tuple[int, int],
    light: float = 0.5,
    background: tuple[int, int, int] = (0, 0, 0),
) -> NDArray[np.uint8]:
    """Take one picture (H, W, 3) of a scene; see `Renderer` for the arguments, and for many pictures."""
    with Renderer(scene, size, light, background) as renderer:
        return renderer.picture(intrinsics, pose)


def fly_through(
    scene: Mesh | PointCloud,
    path: NDArray[np.float64],
    intrinsics: NDArray[np.float64],
    size: tuple[int, int],
    light: float = 0.5,
    background: tuple[int, int, int] = (0, 0, 0),
    samples: int = 1,
) -> Iterator[NDArray[np.uint8]]:
    """Take a picture (H, W, 3) from each pose of a path, one at a time.

    Args:
        scene: A mesh or a point cloud.
        path: Camera to world, (N, 4, 4), as `smooth_path` gives it.
        intrinsics: (3, 3), pixels, for pictures of this size.
        size: Height and width, pixels.
        light: See `Renderer`.
        background: RGB, 0 to 255.
        samples: See `Renderer`. Where all moves and the surface fills the picture, its edges are hardly seen.

    Raises:
        InputError: A camera is none, pyvista is missing, or there is no OpenGL to draw with; when the first picture is
            asked for.
    """
    check_poses(path)
    with Renderer(scene, size, light, background, samples=samples) as renderer:
        for pose in path:
            yield renderer.picture(intrinsics, pose)


def plotter(size: tuple[int, int], background: tuple[int, int, int], samples: int = 4) -> Any:
    """An empty pyvista plotter, off the screen, with a lamp at its camera.

    Raises:
        InputError: pyvista is missing, or there is no OpenGL to draw with.
    """
    pyvista = require_module("pyvista", "endoscopy")
    with _quiet():
        made = pyvista.Plotter(off_screen=True, window_size=[size[1], size[0]], lighting="none")
        window = made.render_window
        window.Initialize()
        window.MakeCurrent()
    if not window.IsCurrent():  # going on would end the process
        raise InputError(
            "There is no OpenGL to draw pictures with. Without a display it needs an NVIDIA driver with EGL, or Mesa's "
            "libEGL (Debian, Ubuntu: apt-get install libegl1 libgl1-mesa-dri) or libOSMesa."
        )
    made.set_background([channel / 255 for channel in background])
    made.enable_anti_aliasing("msaa", multi_samples=samples)
    made.add_light(pyvista.Light(light_type="headlight", positional=True, cone_angle=180))
    return made


def look(plotter: Any, size: tuple[int, int], intrinsics: NDArray[np.float64], pose: NDArray[np.float64]) -> None:
    """Put a plotter's camera at a pose, and give it intrinsics.

    Raises:
        InputError: The camera is none.
    """
    check_intrinsics(intrinsics)
    check_poses(pose[None])
    camera = plotter.camera
    camera.position = pose[:3, 3]
    camera.focal_point = pose[:3, 3] + pose[:3, 2]
    camera.up = -pose[:3, 1]
    low, high = np.array(plotter.bounds).reshape(3, 2).T
    far = float(np.linalg.norm(np.maximum(high - pose[:3, 3], pose[:3, 3] - low))) * 1.01
    camera.clipping_range = (far * _NEAREST, far)
    matrix = require_module("pyvista", "endoscopy").vtkmatrix_from_array(
        projection(size, intrinsics, far * _NEAREST, far)
    )
    camera.SetExplicitProjectionTransformMatrix(matrix)
    camera.SetUseExplicitProjectionTransformMatrix(True)


def projection(size: tuple[int, int], intrinsics: NDArray[np.float64], near: float, far: float) -> NDArray[np.float64]:
    """The projection matrix (4, 4), for OpenGL's axes (x right, y up, z backward), of a camera.

    OpenGL counts a picture from -1 to 1 between its borders, and the first pixel's centre is half a pixel inside.
    """
    height, width = size
    (fx, _, cx), (_, fy, cy), _ = intrinsics
    return np.array(
        [
            [2 * fx / width, 0, 1 - (2 * cx + 1) / width, 0],
            [0, 2 * fy / height, (2 * cy + 1) / height - 1, 0],
            [0, 0, -(far + near) / (far - near), -2 * far * near / (far - near)],
            [0, 0, -1, 0],
        ]
    )


def shot(plotter: Any) -> NDArray[np.uint8]:
    """What a plotter shows, (H, W, 3)."""
    plotter.render()
    return np.ascontiguousarray(plotter.screenshot(None, return_img=True)[..., :3])


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep VTK from warning of each way to draw that it tries in vain before it finds one."""
    logger = require_module("vtkmodules.vtkCommonCore", "endoscopy").vtkLogger
    before = logger.GetCurrentVerbosityCutoff()
    logger.SetStderrVerbosity(logger.VERBOSITY_ERROR)
    try:
        yield
    finally:
        logger.SetStderrVerbosity(before)


def surface(mesh: Mesh) -> Any:
    """A mesh as pyvista has it, with ``colours``."""
    drawn = require_module("pyvista", "endoscopy").PolyData.from_regular_faces(mesh.vertices, mesh.faces)
    drawn.point_data["colours"] = mesh.colours
    drawn.point_data.active_normals = mesh.normals
    return drawn


def points(cloud: PointCloud) -> Any:
    """A cloud as pyvista has it, with ``colours``; points are lit from all sides."""
    drawn = require_module("pyvista", "endoscopy").PolyData(cloud.positions)
    drawn.point_data["colours"] = cloud.colours
    drawn.point_data.active_normals = cloud.normals
    return drawn
