"""A camera with a light in a branching tube, of which everything is known: depth, motion, a second view, the surface.

The light sits in the camera: its strength falls with the square of the distance; the wall is Lambertian under a wet
film that shines (Blinn, "Models of light reflection for computer synthesized pictures", SIGGRAPH 1977).

Lengths are millimetres; a pose is camera to world; x right, y down, z forward; the first pixel's centre is at (0, 0).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medssl.data.camera import Camera, directions_of, in_picture, project
from medssl.data.poses import inverted
from medssl.reconstruction.mesh import Mesh
from sample_data.mucosa import Mucosa
from sample_data.tube import BranchingTube, Floats
from sample_data.wall import Wall

FRAME_RATE = 25.0
STEP_MM = 1.0  # of the camera, from frame to frame
BASELINE_MM = 4.0

_SEEN_WITHIN_MM = 1e-2
_AHEAD_MM = 12.0  # how far in front of itself the camera looks
_STRAY = 0.2  # how far it goes from the centre line, of the radius
_GLANCE_MM = 1.6  # how far aside of the centre line it looks
_ROLL = 0.3  # radians
_AMBIENT = 0.4  # light that comes from other walls, and has their colour, of the direct light
_SHININESS = 220.0
_GLINT = 5.0  # strength of a reflection, against a white wall's
_SATURATED = 1.2  # a reflection this strong is white, whatever the wall
_METERED = 0.42  # what automatic exposure makes of the upper quartile, before the tone curve
_GAMMA = 2.2
_FOCAL = 0.56  # of the width: a view of 84 degrees
_CIRCLE = 0.495  # radius, of the shorter side


class View(NamedTuple):
    """Where a camera stands at a time.

    Attributes:
        pose: Camera to world, (4, 4).
        camera: With or without distortion.
        time_s: Of a scene that deforms.
    """

    pose: Floats
    camera: Camera
    time_s: float = 0.0


@dataclass(frozen=True)
class Optics:
    """How a picture is taken.

    Attributes:
        light: ``"endoscope"``, in the camera; or ``"even"``, from everywhere: each point then has one colour for ever.
        exposure_mm: At this distance a white wall that is faced has strength 1; ``None`` for automatic exposure, which
            changes from picture to picture.
        gloss: Strength of reflections: 1 for wet tissue, 0 for none.
        noise: Of the sensor, standard deviation in grey levels of 255.
        circular: Whether the picture is black outside a circle.
    """

    light: Literal["endoscope", "even"] = "endoscope"
    exposure_mm: float | None = None
    gloss: float = 1.0
    noise: float = 0.0
    circular: bool = False


@dataclass(frozen=True, eq=False)
class Rendered:
    """A picture and what is known of it; depth and points are known outside the circle too.

    Attributes:
        image: RGB (H, W, 3), uint8.
        depth: z in the camera's axes, (H, W), float32; NaN where the lens looks nowhere.
        highlight: Where the film's reflection is white, (H, W).
        mask: Where the picture shows the body, (H, W).
        points: On the wall, in the world, (H, W, 3); NaN as the depth.
        exposure_mm: As in ``Optics``, also where it was automatic; for a second picture with the same.
    """

    image: NDArray[np.uint8]
    depth: NDArray[np.float32]
    highlight: NDArray[np.bool_]
    mask: NDArray[np.bool_]
    points: Floats
    exposure_mm: float


class Motion(NamedTuple):
    """How each pixel moves from one view to another.

    Attributes:
        flow: (H, W, 2), float32, pixels, x and y; NaN where the point is behind the other camera.
        visible: (H, W), whether the other view shows the point: it is inside the picture, and nothing stands before it.
    """

    flow: NDArray[np.float32]
    visible: NDArray[np.bool_]


class EndoscopeScene:
    """A tube with a textured wall, which may deform, and a way through it.

    Attributes:
        wall: Tells distances and the true surface, at any time.

    Args:
        seed: Of the shape, the look and the way; the same seed gives the same scene.
        deformation: Height of the wave that runs along the wall, as a share of the distance from the axis, 0 to 0.2.

    Raises:
        InputError: The deformation is outside that range.
    """

    def __init__(self, seed: int = 0, deformation: float = 0.0) -> None:
        self.seed = seed
        self.wall = Wall(BranchingTube(seed), deformation)

    @cached_property
    def mucosa(self) -> Mucosa:
        """The look of the wall, made when the first picture is."""
        return Mucosa(self.wall.tube, self.seed)

    def path(self, frames: int, step_mm: float = STEP_MM) -> Floats:
        """Camera to world of each frame, (frames, 4, 4): forward and into a branch, swaying, glancing and rolling.

        The steps are shorter where the way is too short for so many frames.
        """
        centre, radius = self.wall.tube.route
        arc = np.concatenate([[0.0], np.linalg.norm(np.diff(centre, axis=0), axis=1).cumsum()])
        s = min(step_mm, (arc[-1] - _AHEAD_MM) / max(frames - 1, 1)) * np.arange(frames)
        phase = np.random.default_rng((self.seed, 2)).uniform(0, 2 * np.pi, 5)
        sway = _STRAY * np.interp(s, arc, radius)[:, None] * np.sin(s[:, None] / (3.1, 4.3) + phase[:2])
        glance = _GLANCE_MM * np.sin(s[:, None] / (6.0, 4.9) + phase[2:4])
        here, there = (np.column_stack([np.interp(at, arc, part) for part in centre.T]) for at in (s, s + _AHEAD_MM))
        across = _looking_along(there - here, np.zeros(frames))[:, :, :2]
        poses = np.tile(np.eye(4), (frames, 1, 1))
        poses[:, :3, 3] = here + np.einsum("nij,nj->ni", across, sway)
        aim = there + np.einsum("nij,nj->ni", across, glance) - poses[:, :3, 3]
        poses[:, :3, :3] = _looking_along(aim, _ROLL * np.sin(s / 7.0 + phase[4]))
        return poses

    def views(self, frames: int, camera: Camera, step_mm: float = STEP_MM) -> list[View]:
        """The path as views, one every 1/25 s."""
        return [View(pose, camera, i / FRAME_RATE) for i, pose in enumerate(self.path(frames, step_mm))]

    def render(self, view: View, optics: Optics = Optics(), random: np.random.Generator | None = None) -> Rendered:
        """Take a picture.

        Args:
            view: From where.
            optics: How.
            random: Draws the sensor's noise; without it there is none.

        Raises:
            InputError: The camera is in the wall.
        """
        points = self.points(view)
        hit = np.asarray(np.isfinite(points).all(axis=-1))
        mask = np.logical_and(hit, circle(view.camera)) if optics.circular else hit
        colour, glint = np.zeros((*hit.shape, 3)), np.zeros(hit.shape)
        colour[hit], glint[hit] = self._light(points[hit], view, optics)
        exposure_mm = optics.exposure_mm or _automatic_exposure(colour[mask])
        if optics.light == "endoscope":
            glint *= exposure_mm**2
            colour = 1 - np.exp(-(exposure_mm**2) * colour - glint[..., None])
        image = 255 * colour ** (1 / _GAMMA)
        if random is not None:
            image += random.normal(0, optics.noise, image.shape)
        levels = np.where(mask[..., None], np.clip(np.rint(image), 0, 255), 0).astype(np.uint8)
        return Rendered(levels, _depth(points, view), mask & (glint > _SATURATED), mask, points, exposure_mm)

    def depth(self, view: View) -> NDArray[np.float32]:
        """How far each pixel sees: z in the camera's axes, (H, W); NaN where the lens looks nowhere.

        Raises:
            InputError: The camera is in the wall.
        """
        return _depth(self.points(view), view)

    def points(self, view: View) -> Floats:
        """What each pixel's centre sees: points on the wall, in the world, (H, W, 3); NaN where the lens looks nowhere.

        Raises:
            InputError: The camera is in the wall.
        """
        directions = directions_of(view.camera, _pixels(view.camera))
        rays = np.insert(directions, 2, 1.0, axis=-1) @ view.pose[:3, :3].T
        looks = np.isfinite(rays).all(axis=-1)
        points = np.full(rays.shape, np.nan)
        points[looks] = self.wall.first_met(view.pose[:3, 3], rays[looks], view.time_s)
        return points

    def motion(self, first: View, second: View, points: Floats | None = None) -> Motion:
        """How what the first view shows moves to the second, exactly, also where the wall deforms in between.

        Args:
            first: Its pixels are followed.
            second: At another time or place, or of another camera.
            points: Of the first view, where they are known already, as ``Rendered.points``.

        Raises:
            InputError: A camera is in the wall.
        """
        points = self.points(first) if points is None else points
        moved = self.wall.carried(points.reshape(-1, 3), first.time_s, second.time_s)
        pixels = project(second.camera, _in_camera(moved, second))
        visible = in_picture(second.camera, pixels)
        origin, ahead = second.pose[:3, 3], moved[visible]
        met = self.wall.first_met(origin, ahead - origin, second.time_s)
        visible[visible] = np.linalg.norm(met - ahead, axis=1) < _SEEN_WITHIN_MM
        flow = (pixels - _pixels(first.camera).reshape(-1, 2)).reshape(*points.shape[:2], 2)
        return Motion(flow.astype(np.float32), visible.reshape(points.shape[:2]))

    def surface_mesh(self, time_s: float = 0.0) -> Mesh:
        """The true surface, in its colours; its vertices lie on the wall.

        Raises:
            InputError: scikit-image is not installed.
        """
        at_rest, faces = self.wall.tube.surface()
        vertices = self.wall.deformed(at_rest, time_s)
        colours = np.rint(255 * self.mucosa.albedo(at_rest, np.zeros(len(at_rest))) ** (1 / _GAMMA))
        return Mesh(
            vertices.astype(np.float32),
            faces,
            self.wall.normals(vertices, time_s).astype(np.float32),
            colours.astype(np.uint8),
            "mm",
        )

    def _light(self, points: Floats, view: View, optics: Optics) -> tuple[Floats, Floats]:
        """What the wall (N, 3) and the film (N,) send to the camera from points (N, 3)."""
        tissue = self.wall.at_rest(points, view.time_s)
        footprint_mm = _in_camera(points, view)[:, 2] / view.camera.fx
        albedo = self.mucosa.albedo(tissue, footprint_mm)
        if optics.light == "even":
            return albedo, np.zeros(len(points))
        to_camera = view.pose[:3, 3] - points
        distance = np.linalg.norm(to_camera, axis=1)
        normals = self.wall.normals(points, view.time_s) - self.mucosa.tilt(tissue)
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        facing = np.clip((normals * to_camera).sum(axis=1) / distance, 0, 1)
        wall = albedo * (facing[:, None] + _AMBIENT * albedo) / distance[:, None] ** 2
        # Half way between the light and the eye is the eye itself: they are at one place.
        return wall, optics.gloss * _GLINT * facing**_SHININESS / distance**2


def endoscope_camera(height: int, width: int) -> Camera:
    """A pinhole camera that sees 84 degrees across."""
    return Camera(width, height, _FOCAL * width, _FOCAL * width, (width - 1) / 2, (height - 1) / 2)


def right_of(view: View, baseline_mm: float = BASELINE_MM) -> View:
    """The second view of a rectified stereo pair: the same camera, moved along its x axis."""
    pose = view.pose.copy()
    pose[:3, 3] += baseline_mm * pose[:3, 0]
    return view._replace(pose=pose)


def circle(camera: Camera) -> NDArray[np.bool_]:
    """The round field of an endoscope, (H, W)."""
    middle = np.array([camera.width - 1, camera.height - 1]) / 2
    apart = np.linalg.norm(_pixels(camera) - middle, axis=-1)
    return np.asarray(apart <= _CIRCLE * min(camera.height, camera.width))


def _pixels(camera: Camera) -> Floats:
    """Each pixel's centre, (H, W, 2), x and y."""
    y, x = np.mgrid[: camera.height, : camera.width].astype(np.float64)
    return np.stack([x, y], axis=-1)


def _in_camera(points: Floats, view: View) -> Floats:
    world_to_camera = inverted(view.pose[None])[0]
    moved: Floats = points @ world_to_camera[:3, :3].T + world_to_camera[:3, 3]
    return moved


def _depth(points: Floats, view: View) -> NDArray[np.float32]:
    return _in_camera(points, view)[..., 2].astype(np.float32)


def _automatic_exposure(colour: Floats) -> float:
    """The exposure that brings the upper quartile of the brightness where it looks well."""
    return float(np.sqrt(_METERED / np.quantile(colour.mean(axis=1), 0.75)))


def _looking_along(directions: Floats, roll: Floats) -> Floats:
    """Rotations (N, 3, 3) whose z axis is along directions (N, 3) and whose y axis is the world's, then rolled."""
    z = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    x = np.cross([0.0, 1.0, 0.0], z)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    y = np.cross(z, x)
    cosine, sine = np.cos(roll)[:, None], np.sin(roll)[:, None]
    return np.stack([cosine * x + sine * y, cosine * y - sine * x, z], axis=2)
