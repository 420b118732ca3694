"""Public stereo and flow data, as published: KITTI odometry, Middlebury, a Hamlyn pair, FlyingChairs.

Each reader says what its layout is and whether it was checked on real files. Truth is read when asked for.
"""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medssl.data.calibration import StereoCalibration
from medssl.data.camera import Camera
from medssl.data.flow_files import read_flo, read_pfm
from medssl.data.formats import read_picture
from medssl.data.frame_folder import FrameFolder
from medssl.data.frames import PerFile, PictureFrames
from medssl.data.poses import assembled, checked_poses, inverted
from medssl.data.sequence import Truth, VideoSequence
from medssl.data.stereo import disparity_truth, paired, with_truth
from medssl.errors import InputError

_KITTI_FRAME_RATE = 10.0  # Geiger et al., "Vision meets Robotics: The KITTI Dataset", IJRR 2013
# Folders of the left and right pictures, and which lines of the calibration are theirs; colour first.
_KITTI_VIEWS = (
    ("image_2", "image_3", "P2", "P3"),
    ("image_0", "image_1", "P0", "P1"),
    ("image_l_kitti", "image_r_kitti", "P0", "P1"),
)
_KITTI_CALIBRATIONS = ("calib_kitti.txt", "calib.txt")
_SEEN = 255  # in Middlebury's mask: visible in both views; 128 is occluded, 0 unknown
_CHAIRS_FIRST = "img0.ppm", "img1.ppm"
_CHAIRS_PUBLISHED = "img1.ppm", "img2.ppm"


def is_kitti_folder(folder: Path) -> bool:
    """Whether a folder holds one sequence of KITTI's odometry benchmark."""
    return _kitti_views(folder) is not None and any((folder / name).is_file() for name in _KITTI_CALIBRATIONS)


def kitti_sequence(folder: Path) -> VideoSequence:
    """Read a sequence of KITTI's odometry benchmark: rectified stereo, poses in metres of the left camera.

    ``image_2`` and ``image_3`` (colour), else ``image_0`` and ``image_1`` (grey) or ``image_l_kitti`` and
    ``image_r_kitti``; ``calib.txt`` or ``calib_kitti.txt``, a 3x4 projection per line, named P0 to P3 or in that order;
    poses of camera 0, camera to world, 3x4 per line, in ``poses.txt`` or ``../../poses/<sequence>.txt``. Axes x right,
    y down, z forward. Checked on a real grey sequence with both cameras; the named lines and the colour cameras on made
    ones.

    Raises:
        InputError: A file is missing or does not fit the others.
    """
    views = _kitti_views(folder)
    if views is None:
        raise InputError(f"{folder}: is no KITTI sequence: image_0 and image_1, or image_2 and image_3, are expected.")
    left, right = (FrameFolder(folder / name, rate=_KITTI_FRAME_RATE) for name in views[:2])
    path = next((folder / name for name in _KITTI_CALIBRATIONS if (folder / name).is_file()), None)
    if path is None:
        raise InputError(f"{folder}: has no calib.txt.")
    projections = _kitti_projections(path)
    if missing := [name for name in views[2:] if name not in projections]:
        raise InputError(f"{path}: has no projection {missing[0]}; 3x4 numbers per line are expected.")
    P_left, P_right = (projections[name] for name in views[2:])
    cameras = [_pinhole(P, left.size) for P in (P_left, P_right)]
    # P = K [I | -c]: c is where the camera stands in camera 0's axes.
    left_at, right_at = (_centre(P) for P in (P_left, P_right))
    to_left = assembled(np.eye(3)[None], (right_at - left_at)[None])[0]
    sequence = paired(folder.name, folder, left, right, StereoCalibration(cameras[0], cameras[1], to_left, "m"))
    return replace(sequence, poses=_kitti_poses(folder, left_at, len(left)))


def is_middlebury_folder(folder: Path) -> bool:
    """Whether a folder holds a pair of Middlebury's 2014 stereo set."""
    return all((folder / name).is_file() for name in ("im0.png", "im1.png", "calib.txt"))


def middlebury_pair(folder: Path) -> VideoSequence:
    """Read a pair of Middlebury's 2014 stereo set, one frame, with the disparity of both views where it is there.

    ``im0.png`` (left), ``im1.png``; ``calib.txt`` with cam0, cam1, doffs and the baseline in mm; ``disp0GT.pfm`` and
    ``disp1GT.pfm`` (``disp0.pfm`` and ``disp1.pfm`` outside the evaluation's kit), pixels, infinite where unknown;
    ``mask0nocc.png``, ``mask1nocc.png``, 255 where both views see the pixel. Checked on a real pair.

    Raises:
        InputError: A file is missing or does not fit the others.
    """
    left, right = (PictureFrames((folder / f"im{view}.png",)) for view in (0, 1))
    calibration = _middlebury_calibration(folder / "calib.txt", left.size)
    sequence = paired(folder.name, folder, left, right, calibration)
    truths = [_middlebury_truth(folder, view, left.size, calibration) for view in (0, 1)]
    return with_truth(sequence, *truths)


def is_hamlyn_pair(folder: Path) -> bool:
    """Whether a folder holds pictures of a Hamlyn stereo endoscope with its text calibration."""
    return all(
        (folder / f"calib.{name}").is_file() for name in ("left.intrinsic.txt", "right.intrinsic.txt", "l2r.4x4")
    )


def hamlyn_pair(folder: Path) -> VideoSequence:
    """Read stereo pictures ``*_L_*`` and ``*_R_*`` with their calibration, millimetres.

    ``calib.left.intrinsic.txt`` and ``calib.right.intrinsic.txt`` (3x3, no distortion), ``calib.l2r.4x4`` (from the
    left camera's axes to the right one's). The pair is not rectified. Checked on a real pair.

    Raises:
        InputError: A file is missing or does not fit the others.
    """
    left, right = (FrameFolder(folder, f"*_{side}_*") for side in "LR")
    matrices = [_table(folder / f"calib.{side}.intrinsic.txt", (3, 3)) for side in ("left", "right")]
    cameras = [_pinhole(K, left.size) for K in matrices]
    path = folder / "calib.l2r.4x4"
    to_left = inverted(checked_poses(path, _table(path, (4, 4))[None]))[0]
    return paired(folder.name, folder, left, right, StereoCalibration(cameras[0], cameras[1], to_left, "mm"))


def flow_pairs(folder: Path) -> list[VideoSequence]:
    """List the pairs of frames with true flow in a folder, as sequences of two frames; none where there is no flow.

    FlyingChairs (``<id>_img1.ppm``, ``<id>_img2.ppm``, ``<id>_flow.flo``, and with ``-img0``, ``-img1``, ``-gt``),
    checked on real files with the latter names; or one ``.flo`` in a folder with two pictures, in order of name, as
    Middlebury's are often kept, checked on a real pair.

    Raises:
        InputError: A picture of a pair is missing.
    """
    flows = sorted(folder.glob("*.flo"))
    pictures = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".png", ".ppm", ".jpg"))
    if len(flows) == 1 and len(pictures) == 2:
        return [_flow_pair(folder.name, (pictures[0], pictures[1]), flows[0])]
    return [_chairs(path) for path in flows]


def _chairs(path: Path) -> VideoSequence:
    found = re.fullmatch(r"(.+?)([-_])(flow|gt)", path.stem)
    if found is None:
        raise InputError(f"{path}: which pictures it belongs to is not told by its name; <id>_flow.flo is expected.")
    endings = _CHAIRS_FIRST if found[3] == "gt" else _CHAIRS_PUBLISHED
    first, second = (path.with_name(f"{found[1]}{found[2]}{ending}") for ending in endings)
    return _flow_pair(found[1], (first, second), path)


def _flow_pair(name: str, pictures: tuple[Path, Path], flow: Path) -> VideoSequence:
    if missing := [path for path in pictures if not path.is_file()]:
        raise InputError(f"{flow}: its picture {missing[0].name} is missing.")
    frames = PictureFrames(pictures)
    truth = Truth(flow=PerFile({0: flow}, read_flo, (*frames.size, 2)))
    return VideoSequence(name=name, subject=name, frames=frames, truth=truth)


def _kitti_views(folder: Path) -> tuple[str, str, str, str] | None:
    return next((views for views in _KITTI_VIEWS if all((folder / name).is_dir() for name in views[:2])), None)


def _kitti_projections(path: Path) -> dict[str, NDArray[np.float64]]:
    projections = {}
    for i, line in enumerate(path.read_text().splitlines()):
        name, _, numbers = line.rpartition(":")
        try:
            values = np.array(numbers.split(), dtype=np.float64)
        except ValueError:
            continue  # KITTI's raw data keeps dates there
        if len(values) == 12 and np.isfinite(values).all():
            projections[name or f"P{i}"] = values.reshape(3, 4)
    return projections


def _centre(P: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where the camera of a projection (3, 4) stands, (3,)."""
    return np.asarray(-np.linalg.solve(P[:, :3], P[:, 3]), dtype=np.float64)


def _kitti_poses(folder: Path, camera_at: NDArray[np.float64], count: int) -> NDArray[np.float64] | None:
    places = (folder / "poses.txt", folder.parent.parent / "poses" / f"{folder.name}.txt")
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        return None
    poses = checked_poses(path, _table(path, (-1, 12)).reshape(-1, 3, 4))
    if len(poses) != count:
        raise InputError(f"{path}: has {len(poses)} poses for {count} frames; one per frame is expected.")
    return poses @ assembled(np.eye(3)[None], camera_at[None])


def _middlebury_calibration(path: Path, size: tuple[int, int]) -> StereoCalibration:
    fields = dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line)
    try:
        matrices = [
            np.array(re.split(r"[\s;]+", fields[name].strip("[] ")), dtype=np.float64).reshape(3, 3)
            for name in ("cam0", "cam1")
        ]
        baseline, height, width = float(fields["baseline"]), int(fields["height"]), int(fields["width"])
    except (KeyError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read ({error!r}); Middlebury's cam0, cam1, baseline are expected."
        ) from error
    if (height, width) != size:
        raise InputError(f"{path}: is for {width}x{height}, the pictures are {size[1]}x{size[0]}.")
    cameras = [_pinhole(K, size) for K in matrices]
    to_left = assembled(np.eye(3)[None], np.array([[baseline, 0, 0]]))[0]
    return StereoCalibration(cameras[0], cameras[1], to_left, "mm")


def _middlebury_truth(folder: Path, view: int, size: tuple[int, int], calibration: StereoCalibration) -> Truth:
    names = (f"disp{view}GT.pfm", f"disp{view}.pfm")
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        return Truth()
    mask = folder / f"mask{view}nocc.png"
    visible = PerFile({0: mask}, _read_visible, size) if mask.is_file() else None
    return disparity_truth(PerFile({0: path}, _read_disparity, size), visible, calibration)


def _read_disparity(path: Path) -> NDArray[np.float32]:
    disparity = read_pfm(path)
    disparity[~np.isfinite(disparity)] = np.nan
    return disparity


def _read_visible(path: Path) -> NDArray[np.float32]:
    return np.asarray(read_picture(path).grey.T == _SEEN, dtype=np.float32)


def _pinhole(matrix: NDArray[np.float64], size: tuple[int, int]) -> Camera:
    """The camera of a matrix (3, 3) or (3, 4), for pictures of a size (height, width)."""
    fx, fy, cx, cy = (float(matrix[i, j]) for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    return Camera(size[1], size[0], fx, fy, cx, cy)


def _table(path: Path, shape: tuple[int, ...]) -> NDArray[np.float64]:
    try:
        return np.array(path.read_text().split(), dtype=np.float64).reshape(shape)
    except (OSError, ValueError) as error:
        expected = "x".join("N" if n < 0 else str(n) for n in shape)
        raise InputError(f"{path}: cannot be read ({error}); {expected} numbers are expected.") from error
