"""Folders of structure from motion as Liu et al. lay them out, with the check that their poses are what they say.

Liu et al., "Dense Depth Estimation in Monocular Endoscopy with Self-supervised Learning Methods", IEEE TMI 2019. One
sequence is a folder: undistorted frames ``{:08d}.jpg``; ``selected_indexes``, all extracted frames;
``visible_view_indexes``, the registered ones, line i for pose i; ``camera_intrinsics_per_view``, groups of fx fy cx cy,
one for all or one per view; ``motion.yaml``, camera to world; ``structure.ply``; ``view_indexes_per_point``, in which
-1 begins each point's frames; ``undistorted_mask.bmp``. Axes x right, y down, z forward; no unit. Other files, such as
pickles, are not read. The layout was checked on one published sequence.
"""

import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray

from medssl.data.camera import Camera, in_picture, project
from medssl.data.formats import read_picture
from medssl.data.frames import PictureFrames
from medssl.data.poses import at_frames, from_quaternions, inverted, require_registered
from medssl.data.sequence import SparsePoints, VideoSequence
from medssl.errors import InputError

logger = logging.getLogger(__name__)

FILES = ("motion.yaml", "structure.ply", "visible_view_indexes", "camera_intrinsics_per_view", "view_indexes_per_point")
_MASK_NAMES = ("undistorted_mask.bmp", "undistorted_mask.png", "undistorted_mask.jpg")
_INSIDE = 0.9  # of a mask's full value: undistorting blurs its edge
_LEAST_SHARE = 0.8  # of the points, seen where the picture shows the body; a right pose direction gives about 1
_MARGIN = 0.01  # by which the wrong direction must be better to be called the right one
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class SparseDepth(NamedTuple):
    """What structure from motion knows of one frame.

    Attributes:
        points: Which points, (n,).
        pixels: Where they are seen, (n, 2).
        depth: Their z in the camera's axes, (n,).
    """

    points: NDArray[np.int64]
    pixels: NDArray[np.float64]
    depth: NDArray[np.float64]


def is_sfm_folder(folder: Path) -> bool:
    """Whether a folder holds one sequence of this layout."""
    return all((folder / name).is_file() for name in FILES)


def sfm_sequence(folder: Path) -> VideoSequence:
    """Read one sequence; the share of its points that reproject into the mask is logged.

    Raises:
        InputError: A file is missing or does not fit the others, or the points do not reproject.
    """
    views = _numbers(folder / "visible_view_indexes")
    selected = _numbers(folder / "selected_indexes") if (folder / "selected_indexes").is_file() else views
    frames = PictureFrames(tuple(_picture(folder, number) for number in selected))
    place = {number: i for i, number in enumerate(selected)}
    if missing := [number for number in views if number not in place]:
        raise InputError(f"{folder}: frame {missing[0]} has a pose but is not among the selected_indexes.")
    poses = _poses(folder / "motion.yaml")
    if len(poses) != len(views):
        raise InputError(
            f"{folder}: motion.yaml has {len(poses)} poses, visible_view_indexes {len(views)} frames; line i of one "
            "belongs to pose i of the other."
        )
    height, width = frames.size
    sequence = VideoSequence(
        name=folder.name,
        subject=folder.parent.name or folder.name,
        frames=frames,
        camera=_camera(folder / "camera_intrinsics_per_view", height, width, len(views)),
        poses=at_frames(poses, [place[number] for number in views], len(selected)),
        points=_points(folder, place),
        mask=_mask(folder, (height, width)),
    )
    require_registered(folder, poses)
    check_reprojection(folder, sequence)
    return sequence


def check_reprojection(source: Path, sequence: VideoSequence) -> float:
    """The share of the points' views that lie in front of their camera and inside the mask, which is logged.

    A camera that circles the points sees them either way: then the check cannot tell, and passes.

    Raises:
        InputError: It is too small, or larger with inverted poses; the message says if they are the wrong way round.
    """
    share, turned = (reprojection_share(sequence, world_to_camera) for world_to_camera in (False, True))
    found = f"{source}: {100 * share:.1f} % of the points reproject in front of their camera and into the mask"
    other = f"{100 * turned:.1f} % with the poses the other way round"
    # A camera that hardly moves sees most points either way: the two directions are compared, not only measured.
    if turned > share + _MARGIN and turned >= _LEAST_SHARE:
        raise InputError(f"{found}, {other}: they are world to camera; camera to world is expected. Invert them.")
    if not share >= _LEAST_SHARE:
        raise InputError(
            f"{found}, {other}: poses, points, intrinsics or mask do not belong together, or the axes are not x right, "
            "y down, z forward."
        )
    logger.info("%s: %.1f %% of the points' views reproject into the mask.", sequence.name, 100 * share)
    return share


def reprojection_share(sequence: VideoSequence, world_to_camera: bool = False) -> float:
    """The share of the points' views that lie in front of their camera and inside the mask, 0 to 1; NaN without views.

    Args:
        sequence: With camera, poses and points.
        world_to_camera: Read the poses in the wrong direction, to compare.
    """
    _, points = _geometry(sequence)
    inside = [_lands(sequence, frame, world_to_camera) for frame in np.unique(points.seen[:, 1])]
    return float(np.concatenate(inside).mean()) if inside else float("nan")


def sparse_depth(sequence: VideoSequence, frame: int) -> SparseDepth:
    """The points that one frame saw, where and how far; those behind its camera or outside its picture are left out.

    Where the sequence tells in which pixel a point was seen, that pixel is given, else its projection.
    """
    camera, points = _geometry(sequence)
    chosen = np.flatnonzero(points.seen[:, 1] == frame)
    seen, depth, pixels = _seen_from(sequence, frame)
    if points.pixels is not None:
        pixels = points.pixels[chosen]
    kept = (depth > 0) & in_picture(camera, pixels)
    return SparseDepth(seen[kept], pixels[kept], depth[kept])


def _geometry(sequence: VideoSequence) -> tuple[Camera, SparsePoints]:
    if sequence.camera is None or sequence.points is None or sequence.poses is None:
        raise InputError(f"{sequence.name}: has no camera, poses and points; a structure-from-motion result is needed.")
    return sequence.camera, sequence.points


def _seen_from(
    sequence: VideoSequence, frame: int, world_to_camera: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Which points a frame saw (n,), their z (n,) and their projections (n, 2); NaN where the frame has no pose."""
    camera, points = _geometry(sequence)
    assert sequence.poses is not None
    seen = points.seen[points.seen[:, 1] == frame, 0]
    pose = sequence.poses[frame]
    to_camera = pose if world_to_camera else inverted(pose[None])[0]
    placed = points.positions[seen] @ to_camera[:3, :3].T + to_camera[:3, 3]
    return seen, placed[:, 2], project(camera, placed)


def _lands(sequence: VideoSequence, frame: int, world_to_camera: bool) -> NDArray[np.bool_]:
    camera, _ = _geometry(sequence)
    _, _, pixels = _seen_from(sequence, frame, world_to_camera)
    inside = in_picture(camera, pixels)
    if sequence.mask is not None:
        x, y = np.round(pixels[inside]).astype(int).T
        inside[inside] = sequence.mask[y, x]
    return inside


def _picture(folder: Path, number: int) -> Path:
    for suffix in (".jpg", ".png"):
        if (folder / f"{number:08d}{suffix}").is_file():
            return folder / f"{number:08d}{suffix}"
    raise InputError(f"{folder}: the frame {number:08d}.jpg is missing. Copy the folder again.")


def _numbers(path: Path) -> list[int]:
    try:
        return [int(line) for line in path.read_text().split()]
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); one whole number per line is expected.") from error


def _camera(path: Path, height: int, width: int, views: int) -> Camera:
    try:
        groups = np.array(path.read_text().split(), dtype=np.float64).reshape(-1, 4)
    except ValueError as error:
        raise InputError(f"{path}: cannot be read ({error}); groups of fx fy cx cy are expected.") from error
    if len(groups) not in (1, views) or not np.isfinite(groups).all() or (groups[:, :2] <= 0).any():
        raise InputError(
            f"{path}: has {len(groups)} groups of fx fy cx cy for {views} views; one for all, or one per view, of "
            "positive focal lengths is expected."
        )
    if np.ptp(groups, axis=0).max() > 0.5:
        raise InputError(f"{path}: the views have different intrinsics; one camera without zoom is expected.")
    return Camera(width, height, *groups.mean(axis=0).tolist())


def _poses(path: Path) -> NDArray[np.float64]:
    try:
        stored = yaml.load(path.read_text(), _Loader)["poses[]"]
        poses = [stored[f"poses[{i}]"] for i in range(len(stored))]
        positions = [[pose["position"][axis] for axis in "xyz"] for pose in poses]
        quaternions = [[pose["orientation"][axis] for axis in "xyzw"] for pose in poses]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        expected = "poses[i] with position x y z and orientation x y z w are expected"
        raise InputError(f"{path}: cannot be read ({error!r}); {expected}.") from error
    if not poses:
        raise InputError(f"{path}: holds no pose: no frame is registered.")
    return from_quaternions(path, positions, quaternions)


def _points(folder: Path, place: dict[int, int]) -> SparsePoints:
    positions = read_ply_points(folder / "structure.ply")
    path = folder / "view_indexes_per_point"
    numbers = np.array(_numbers(path), dtype=np.int64)
    begins = numbers == -1
    if begins.sum() != len(positions) or (len(numbers) and not begins[0]):
        raise InputError(
            f"{path}: has {int(begins.sum())} groups that begin with -1, structure.ply {len(positions)} points; they "
            "follow one another in the same order."
        )
    point = np.cumsum(begins)[~begins] - 1
    known = np.array([number in place for number in numbers[~begins]], dtype=bool)
    if dropped := int((~known).sum()):
        logger.warning("%s: %d views are of frames that are not among the selected_indexes; left out.", path, dropped)
    frame = np.array([place[number] for number in numbers[~begins][known]], dtype=np.int64)
    return SparsePoints(positions, np.stack([point[known], frame], axis=1))


def read_ply_points(path: Path) -> NDArray[np.float64]:
    """Read the vertices (P, 3) of an ASCII PLY file; further elements, as PCL's camera, are skipped.

    Raises:
        InputError: It is of another kind, or cut short.
    """
    lines = path.read_text(encoding="latin-1").splitlines()
    try:
        end = lines.index("end_header")
        header = lines[:end]
        if header[:2] != ["ply", "format ascii 1.0"]:
            raise ValueError("it does not begin with 'ply' and 'format ascii 1.0'")
        elements = [line.split()[1:] for line in header if line.startswith("element ")]
        if elements[0][0] != "vertex":
            raise ValueError("its first element is no vertex")
        count = int(elements[0][1])
        return np.array([line.split()[:3] for line in lines[end + 1 :][:count]], dtype=np.float64).reshape(count, 3)
    except (ValueError, IndexError) as error:
        raise InputError(f"{path}: cannot be read as points ({error}).") from error


def _mask(folder: Path, size: tuple[int, int]) -> NDArray[np.bool_] | None:
    path = next((folder / name for name in _MASK_NAMES if (folder / name).is_file()), None)
    if path is None:
        return None
    grey = read_picture(path).grey.T
    if grey.shape != size:
        raise InputError(f"{path}: is {grey.shape[1]}x{grey.shape[0]}, the frames are {size[1]}x{size[0]}.")
    return np.asarray(grey >= _INSIDE * np.iinfo(grey.dtype).max)
