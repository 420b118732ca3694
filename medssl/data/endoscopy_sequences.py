"""Public endoscopy with known cameras: SCARED, C3VD, EndoSLAM and the rectified Hamlyn videos, in millimetres.

The layouts are those that the publications and their readers describe. **None was checked on real files**: axes, units
and the directions of poses are as described there, and the tests use small files made by hand.
"""

import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from medssl.data.calibration import for_size, read_stereo
from medssl.data.camera import Camera
from medssl.data.formats import read_picture
from medssl.data.frame_folder import FrameFolder
from medssl.data.frames import PerFile, PictureFrames
from medssl.data.poses import at_frames, checked_poses, from_quaternions, inverted
from medssl.data.sequence import Frames, Truth, VideoSequence
from medssl.data.stereo import paired, unpacked
from medssl.errors import InputError

_C3VD_SIZE = (1080, 1350)
_C3VD_CENTRE = (678.544839263292, 542.975887548343)  # from 0, as the published reader has it
_C3VD_LENS = (769.243600037458, 0.0, -0.000812770624150226, 6.25674244578925e-07, -1.19662182144280e-09)  # a0 to a4
_C3VD_TURN = 0.0029  # radians between the sensor and the model's axes: d and -e of the published affine part
_C3VD_EDGE = 750.0  # pixels from the centre: the round picture's edge
_C3VD_FARTHEST_MM = 100.0  # stored as 65535, as everything beyond
_ENDOSLAM_FRAME_RATE = 30.0
_HAMLYN_FARTHEST_MM = 300.0  # where the published depth saturates
_Y_DOWN = np.diag([1.0, -1.0, 1.0, 1.0])


def is_scared_folder(folder: Path) -> bool:
    """Whether a folder is one keyframe of SCARED."""
    return (folder / "endoscope_calibration.yaml").is_file()


def scared_sequence(folder: Path) -> VideoSequence:
    """Read one keyframe of SCARED (Allan et al., arXiv:2101.01133): a calibrated stereo laparoscope over still tissue.

    ``dataset_N/keyframe_M`` with ``endoscope_calibration.yaml`` (OpenCV's M1, D1, M2, D2, R, T, mm) and
    ``data/rgb.mp4``, the left view above the right one; ``data/frame_data/*.json`` or ``data/frame_data.tar.gz``, whose
    ``camera-pose`` takes the keyframe's axes to the frame's (world to camera), mm; ``data/scene_points/*.tiff``,
    unpacked, the points x y z of the left view above those of the right one, zero where unknown. Without a video,
    ``Left_Image.png`` and ``Right_Image.png`` with ``left_depth_map.tiff``. Axes x right, y down, z forward. Not
    checked on real files.

    Raises:
        InputError: A file is missing or does not fit the others.
    """
    video = folder / "data" / "rgb.mp4"
    views: tuple[Frames, Frames]
    if video.is_file():
        from medssl.data.video import open_frames

        views = unpacked(open_frames(video), "top-bottom")
        depth = {_number(path): path for path in sorted((folder / "data" / "scene_points").glob("*.tiff"))}
    else:
        views = PictureFrames((folder / "Left_Image.png",)), PictureFrames((folder / "Right_Image.png",))
        still = folder / "left_depth_map.tiff"
        depth = {0: still} if still.is_file() else {}
    calibration = replace(read_stereo(folder / "endoscope_calibration.yaml", views[0].size), unit="mm")
    name = f"{folder.parent.name}_{folder.name}"
    sequence = paired(name, folder, *views, calibration, subject=folder.parent.name)
    truth = Truth(depth=PerFile(depth, _scared_depth, views[0].size)) if depth else Truth()
    return replace(sequence, poses=_scared_poses(folder / "data", len(views[0])), truth=truth)


def is_c3vd_folder(folder: Path) -> bool:
    """Whether a folder is one registered video of C3VD."""
    return (folder / "pose.txt").is_file() and any(folder.glob("*_color.png"))


def c3vd_sequence(folder: Path) -> VideoSequence:
    """Read one registered video of C3VD (Bobrow et al., Medical Image Analysis 2023): a colonoscope in a phantom.

    ``<i>_color.png``; ``<i>_depth.tiff``, 16 bits for 0 to 100 mm (the largest value is 100 mm or more: unknown);
    ``pose.txt``, per line 16 numbers with commas of a camera-to-world matrix for row vectors, mm. Axes x right, y down,
    z forward. The lens, published as a polynomial of the radius (Scaramuzza), is fitted by the fisheye model, to 0.2
    pixels; its turn about the axis is put into the poses. Not checked on real files.

    Raises:
        InputError: A file is missing or does not fit the others.
    """
    frames = FrameFolder(folder, "*_color.png")
    path = folder / "pose.txt"
    try:
        rows = np.array([line.split(",") for line in path.read_text().split()], dtype=np.float64).reshape(-1, 4, 4)
    except ValueError as error:
        raise InputError(f"{path}: cannot be read ({error}); 16 numbers per line are expected.") from error
    if len(rows) != len(frames):
        raise InputError(f"{path}: has {len(rows)} poses for {len(frames)} frames; one per frame is expected.")
    poses = checked_poses(path, rows.transpose(0, 2, 1)) @ _c3vd_turn()
    depth = PerFile(_of_frames(frames, folder.glob("*_depth.tiff")), _c3vd_depth, frames.size)
    camera = for_size(c3vd_camera(), frames.size, str(folder), scale=True)
    anatomy = folder.name.rsplit("_", 1)[0]
    return VideoSequence(folder.name, anatomy, frames, camera, poses, "mm", truth=Truth(depth=depth))


def c3vd_camera() -> Camera:
    """The colonoscope of C3VD as a fisheye: r = f (t + k1 t^3 + ... + k4 t^9), by least squares over the radius r."""
    radius = np.linspace(0, _C3VD_EDGE, 400)
    angle = np.arctan2(radius, np.polynomial.polynomial.polyval(radius, _C3VD_LENS))
    powers = np.stack([angle**power for power in (1, 3, 5, 7, 9)], axis=1)
    f, *scaled = np.linalg.lstsq(powers, radius, rcond=None)[0].tolist()
    height, width = _C3VD_SIZE
    return Camera(width, height, f, f, *_C3VD_CENTRE, "fisheye", tuple(k / f for k in scaled))


def is_endoslam_folder(folder: Path) -> bool:
    """Whether a folder is one organ of EndoSLAM's synthetic camera."""
    return (folder / "Frames").is_dir() and (folder / "Pixelwise Depths").is_dir()


def endoslam_sequence(folder: Path) -> VideoSequence:
    """Read one organ of EndoSLAM's UnityCam (Ozyoruk et al., Medical Image Analysis 2021): a rendered capsule.

    ``Frames/image_<i>``; ``Pixelwise Depths/aov_image_<i>.png``, whose red channel is centimetres; ``Poses/*.csv``, one
    line per frame with tX tY tZ in metres and the quaternion rX rY rZ rW, camera to world in Unity's left-handed axes
    (y up), mirrored to y down here; ``../Calibration/cam.txt``, the 3x3 matrix. Published readers disagree on the
    depth's unit: compare scaled. Not checked on real files. The real cameras' folders have no pose per frame: read as
    frames.

    Raises:
        InputError: A file is missing or does not fit the others.
    """
    frames = FrameFolder(folder / "Frames", "image_*", _ENDOSLAM_FRAME_RATE)
    depth = PerFile(
        _of_frames(frames, (folder / "Pixelwise Depths").glob("aov_image_*.png")), _endoslam_depth, frames.size
    )
    return VideoSequence(
        name=f"{folder.parent.name}_{folder.name}",
        subject=folder.name,
        frames=frames,
        camera=_matrix_camera(folder.parent / "Calibration" / "cam.txt", frames.size),
        poses=_endoslam_poses(folder, len(frames)),
        unit="mm",
        truth=Truth(depth=depth),
    )


def is_hamlyn_folder(folder: Path) -> bool:
    """Whether a folder is one rectified Hamlyn video."""
    return (folder / "intrinsics.txt").is_file() and any((folder / name).is_dir() for name in ("image01", "color"))


def hamlyn_sequence(folder: Path) -> VideoSequence:
    """Read one rectified Hamlyn video (Recasens et al., IEEE RA-L 2021), left view.

    ``image01`` or ``color``; ``depth01`` or ``depth``, 16-bit PNG in mm, which stereo matching estimated and which
    saturates at 300 mm; ``intrinsics.txt``, 3x3 or 3x4. The baseline is not published with them, so the right view is
    left out. Axes x right, y down, z forward. Not checked on real files.

    Raises:
        InputError: A file is missing or does not fit the others.
    """
    view = "image01" if (folder / "image01").is_dir() else "color"
    frames = FrameFolder(folder / view)
    depths = (folder / {"image01": "depth01", "color": "depth"}[view]).glob("*.png")
    depth = PerFile(_of_frames(frames, depths), _hamlyn_depth, frames.size)
    camera = _matrix_camera(folder / "intrinsics.txt", frames.size)
    return VideoSequence(
        folder.name, folder.name, frames, camera, unit="mm", truth=Truth(depth=depth if depth.paths else None)
    )


def _scared_poses(data: Path, count: int) -> NDArray[np.float64] | None:
    stored = dict(_scared_frame_data(data))
    if not stored:
        return None
    if outside := [number for number in stored if number >= count]:
        raise InputError(f"{data}: has a pose for frame {outside[0]}, the video {count} frames.")
    order = sorted(stored)
    return at_frames(inverted(checked_poses(data, [stored[number] for number in order])), order, count)


def _scared_frame_data(data: Path) -> Iterator[tuple[int, list[list[float]]]]:
    """The number and the pose of each frame, from loose files or, read without unpacking, from the archive."""
    for path in sorted((data / "frame_data").glob("*.json")):
        yield _number(path), _scared_pose(path, path.read_bytes())
    archive = data / "frame_data.tar.gz"
    if (data / "frame_data").is_dir() or not archive.is_file():
        return
    with tarfile.open(archive, "r:gz") as members:
        for member in members:
            stream = members.extractfile(member) if member.isfile() and member.name.endswith(".json") else None
            if stream is not None:
                yield _number(Path(member.name)), _scared_pose(archive, stream.read())


def _scared_pose(path: Path, content: bytes) -> list[list[float]]:
    try:
        pose: list[list[float]] = json.load(io.BytesIO(content))["camera-pose"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise InputError(f"{path}: holds no camera-pose ({error!r}).") from error
    return pose


def _scared_depth(path: Path) -> NDArray[np.float32]:
    points = _read_tiff(path)
    if points.ndim != 3 or points.shape[2] != 3:
        raise InputError(f"{path}: is {points.shape}; a picture of points x y z is expected.")
    depth = points[..., 2].astype(np.float32)
    depth = depth[: len(depth) // 2] if path.parent.name == "scene_points" else depth
    return np.where(depth > 0, depth, np.float32(np.nan))


def _c3vd_turn() -> NDArray[np.float64]:
    """From the fisheye camera's axes to those of the published model, which are turned about z against the sensor."""
    c, s = np.cos(_C3VD_TURN), np.sin(_C3VD_TURN)
    return np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


def _c3vd_depth(path: Path) -> NDArray[np.float32]:
    stored = _read_tiff(path)
    stored = stored if stored.ndim == 2 else stored[..., 0]
    depth = stored.astype(np.float32) * np.float32(_C3VD_FARTHEST_MM / 65535)
    return np.where((stored > 0) & (stored < 65535), depth, np.float32(np.nan))


def _endoslam_depth(path: Path) -> NDArray[np.float32]:
    picture = read_picture(path)
    stored = (picture.grey if picture.colours is None else picture.colours[0]).T.astype(np.float32)
    return np.where(stored > 0, 10 * stored, np.float32(np.nan))


def _endoslam_poses(folder: Path, count: int) -> NDArray[np.float64] | None:
    path = next(iter(sorted((folder / "Poses").glob("*.csv"))), None)
    if path is None:
        return None
    lines = [line for line in path.read_text().splitlines() if re.match(r"\s*[-+.\d]", line)]
    try:
        rows = np.array([re.split(r"[,;\s]+", line.strip())[:7] for line in lines], dtype=np.float64).reshape(-1, 7)
    except ValueError as error:
        raise InputError(f"{path}: cannot be read ({error}); tX tY tZ rX rY rZ rW per line are expected.") from error
    if len(rows) != count:
        raise InputError(f"{path}: has {len(rows)} poses for {count} frames; one per frame is expected.")
    poses: NDArray[np.float64] = _Y_DOWN @ from_quaternions(path, 1000 * rows[:, :3], rows[:, 3:]) @ _Y_DOWN
    return poses


def _hamlyn_depth(path: Path) -> NDArray[np.float32]:
    depth = read_picture(path).grey.T.astype(np.float32)
    return np.where((depth > 0) & (depth < _HAMLYN_FARTHEST_MM), depth, np.float32(np.nan))


def _matrix_camera(path: Path, size: tuple[int, int]) -> Camera | None:
    """The camera of a file with a 3x3 or 3x4 matrix, by spaces or commas; ``None`` where there is no file."""
    if not path.is_file():
        return None
    try:
        K = np.array(re.split(r"[,;\s]+", path.read_text().strip()), dtype=np.float64).reshape(3, -1)
        fx, fy, cx, cy = (float(K[i, j]) for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    except (ValueError, IndexError) as error:
        raise InputError(f"{path}: cannot be read ({error}); a 3x3 matrix is expected.") from error
    return Camera(size[1], size[0], fx, fy, cx, cy)


def _of_frames(frames: FrameFolder, files: Iterable[Path]) -> dict[int, Path]:
    """The files whose names end in the same number as a frame's, by the frame's index."""
    by_number = {_number(path): path for path in files}
    return {i: by_number[n] for i, n in enumerate(map(_number, frames.paths)) if n in by_number}


def _number(path: Path) -> int:
    found = re.search(r"(\d+)\D*$", path.stem)
    if found is None:
        raise InputError(f"{path}: its name does not end in a frame's number.")
    return int(found[1])


def _read_tiff(path: Path) -> NDArray[Any]:
    try:
        return np.array(sitk.GetArrayFromImage(sitk.ReadImage(str(path))))
    except RuntimeError as error:
        raise InputError(f"{path}: cannot be read as TIFF ({str(error).strip().splitlines()[-1]}).") from error
