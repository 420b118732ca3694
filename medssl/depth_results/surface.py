"""Depth and poses become a scene: points, a surface, what was seen of it, and a flight through it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from medssl.data.video_writing import write_video
from medssl.depth_results.maps import DepthMaps, Views
from medssl.errors import InputError
from medssl.evaluation.clips import spread
from medssl.files import write_aside, write_json
from medssl.reconstruction.camera_path import smooth_path
from medssl.reconstruction.coverage import Coverage, coverage
from medssl.reconstruction.depth_view import scene_bounds
from medssl.reconstruction.mesh import Mesh, without_small_parts, write_mesh
from medssl.reconstruction.overview import overview
from medssl.reconstruction.point_cloud import PointCloud, joined, points_of, thinned, write_points
from medssl.reconstruction.render import fly_through
from medssl.reconstruction.tsdf import TSDF
from medssl.report.depth_video import with_banner
from medssl.video_inference import Clock

_MOST_WAITING = 2_000_000  # points that wait to be thinned, some 60 MB
_VOXELS_ALONG = 256  # of the scene's longest edge
_ROOM_VOXELS = 6
_LISTED_HOLES = 20
_EASE = 0.1  # share of the flight that the camera speeds up, and slows down, in
_FLIGHT_HEIGHT, _FLIGHT_RATE = 480, 25.0


@dataclass(frozen=True)
class SceneOptions:
    """What is made of depth and poses.

    Args:
        voxel: Edge of the voxels of points and surface, in the depth's unit; ``None`` for 1/256 of the scene's longest
            edge.
        views: Frames that are fused, at most; spread over the recording.
        mesh: Fuse a surface, too; without, points alone.
        fly_frames: Of the flight through the scene, at 25 a second; 0 for none.
    """

    voxel: float | None = None
    views: int = 300
    mesh: bool = True
    fly_frames: int = 250

    def __post_init__(self) -> None:
        """Refuse what makes no scene."""
        if self.voxel is not None and not self.voxel > 0:
            raise InputError(f"--voxel is the edge of a voxel and must be above 0; got {self.voxel:g}.")
        if self.views < 2 or self.fly_frames < 0 or self.fly_frames == 1:
            raise InputError(
                "A scene needs at least 2 --views, and a flight at least 2 --fly_frames (0 for none); got "
                f"{self.views} and {self.fly_frames}."
            )


@dataclass
class Scene:
    """What was made.

    Attributes:
        numbers: For the summary, by name.
        left_out: What was not made, and why.
        pictures: That were drawn.
    """

    numbers: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    pictures: list[Path] = field(default_factory=list)


def make_scene(maps: DepthMaps, options: SceneOptions, clock: Clock) -> Scene:
    """Write ``points.ply``, ``mesh.ply``, ``coverage.json``, ``overview.png`` and ``fly_through.mp4``.

    What cannot be made for want of poses, of a calibration or of a library is left out, with the reason.
    """
    scene = Scene()
    try:
        views = scene_views(maps, options.views)
    except InputError as error:
        scene.left_out["points, surface and flight"] = str(error)
        return scene
    unit = maps.cameras.unit
    with clock.measure("fusing"):
        bounds = scene_bounds(views)
        voxel = options.voxel or float((bounds[1] - bounds[0]).max()) / _VOXELS_ALONG
        cloud = gather_points(views, maps, voxel)
        write_points(maps.out / "points.ply", cloud)
    scene.numbers |= {"views_fused": len(views), "voxel": voxel, "points": len(cloud.positions)}
    mesh = None
    if options.mesh:
        try:
            with clock.measure("fusing"):
                mesh = fuse(views, bounds, voxel, unit)
                write_mesh(maps.out / "mesh.ply", mesh)
                seen = coverage(mesh, tqdm(views, desc="Coverage", unit="view", disable=None), 2 * voxel)
            told = told_coverage(seen)
            write_json(maps.out / "coverage.json", told)
            scene.numbers |= {name: value for name, value in told.items() if isinstance(value, float)}
            scene.numbers |= {"faces": len(mesh.faces)}
        except InputError as error:
            scene.left_out["surface and coverage"] = str(error)
    with clock.measure("drawing"):
        _draw(maps, views, mesh, None if mesh is None else seen, cloud, options.fly_frames, scene)
    return scene


def scene_views(maps: DepthMaps, most: int) -> Views:
    """The frames with a pose, usable and of known depth, at most so many, spread over the recording.

    Raises:
        InputError: There are no poses, no intrinsics, or fewer than two such frames.
    """
    cameras, geometry = maps.cameras, maps.data.geometry(maps.i)
    if cameras.poses is None:
        raise InputError(cameras.told)
    if geometry.intrinsics is None:
        raise InputError(
            "The camera's intrinsics are not known, which turn depth into points: give them with --intrinsics."
        )
    posed = np.flatnonzero(np.isfinite(cameras.poses).all((1, 2)) & geometry.usable & (maps.valid_share > 0))
    if len(posed) < 2:
        raise InputError(
            f"Only {len(posed)} of {len(maps)} frames have a pose, are well exposed and hold a valid pixel; a scene "
            "needs 2."
        )
    return Views(maps, [int(posed[place]) for place in spread(len(posed), most)], geometry.intrinsics, cameras.poses)


def gather_points(views: Views, maps: DepthMaps, voxel: float) -> PointCloud:
    """The points of all views, one for each voxel; no more than those and some views' own are held."""
    kept: list[PointCloud] = []
    for view in tqdm(views, desc="Points", unit="view", disable=None):
        kept.append(thinned(points_of(view, maps.cameras.unit), voxel))
        if sum(len(cloud.positions) for cloud in kept) > _MOST_WAITING:
            kept = [thinned(joined(kept), voxel)]
    return thinned(joined(kept), voxel)


def fuse(views: Views, bounds: NDArray[np.float64], voxel: float, unit: Any) -> Mesh:
    """The surface that the views saw; where there are three or more, what two of them agree on.

    Raises:
        InputError: There is none, it takes too much memory, or scikit-image is missing.
    """
    room = np.array([[-1.0], [1.0]]) * _ROOM_VOXELS * voxel  # for both sides of a surface that lies at the bounds
    fused = TSDF(bounds + room, voxel, unit)
    for view in tqdm(views, desc="Fusing", unit="view", disable=None):
        fused.integrate(view)
    return without_small_parts(fused.mesh(min_frames=2 if len(views) > 2 else 1))


def told_coverage(seen: Coverage) -> dict[str, Any]:
    """What ``coverage.json`` holds."""
    return {
        "unit": seen.unit,
        "seen_area": seen.seen_area(),
        "seen_share_of_mesh": seen.seen_share(),
        "seen_twice_share_of_mesh": seen.seen_share(2),
        "median_best_angle_degrees": float(np.median(seen.best_angle_degrees)),
        "unseen_area_estimate": float(seen.unseen_area),
        "estimated_share_seen": seen.estimated_share,
        "holes": len(seen.holes),
        "largest_holes": [{"area": hole.area, "centre": hole.centre.tolist()} for hole in seen.holes[:_LISTED_HOLES]],
        "note": "Areas are in the unit squared. The unseen area is that of the gaps beside the camera's way: it knows "
        "nothing of what has no rim in the surface, such as a pouch behind a fold, or what lies beyond the way's ends.",
    }


def _draw(
    maps: DepthMaps,
    views: Views,
    mesh: Mesh | None,
    seen: Coverage | None,
    cloud: PointCloud,
    fly_frames: int,
    scene: Scene,
) -> None:
    """Write the overview and the flight; what cannot be drawn is left out."""
    poses = views.poses[list(views.times)]
    try:
        if mesh is None:
            raise InputError("It shows a surface, and there is none.")
        drawn = overview(mesh, poses, views.intrinsics, camera_size=maps.data.preparation.size, coverage=seen)
        with write_aside(maps.out / "overview.png") as aside:
            Image.fromarray(with_banner(drawn, maps.cameras.banner)).save(aside)
        scene.pictures.append(maps.out / "overview.png")
    except InputError as error:
        scene.left_out["overview.png"] = str(error)
    if not fly_frames:
        return
    try:
        flight = _flight(maps, views, mesh or cloud, fly_frames)
        write_video(maps.out / "fly_through.mp4", tqdm(flight, "Flying", fly_frames, disable=None), _FLIGHT_RATE)
    except InputError as error:
        scene.left_out["fly_through.mp4"] = str(error)


def _flight(maps: DepthMaps, views: Views, scene: Mesh | PointCloud, frames: int) -> Iterator[NDArray[np.uint8]]:
    """Pictures (H, W, 3) along the smoothed way, with the banner."""
    height, width = maps.data.preparation.size
    times = -(-_FLIGHT_HEIGHT // height)
    intrinsics = views.intrinsics.copy()
    intrinsics[:2] *= times
    intrinsics[:2, 2] += (times - 1) / 2  # pixel (0, 0) covers [-0.5, 0.5]
    path = smooth_path(views.poses, frames, ease=_EASE)
    for picture in fly_through(scene, path, intrinsics, (height * times, width * times)):
        yield with_banner(picture, maps.cameras.banner)
