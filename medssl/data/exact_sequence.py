"""Recordings of which all is known, as ``sample_data.make_endoscopy`` writes them: to learn on and be judged by."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medssl.data.calibration import camera_of, read_fields, read_stereo
from medssl.data.flow_files import read_flow
from medssl.data.formats import read_picture
from medssl.data.frame_folder import FrameFolder
from medssl.data.frames import PerFile
from medssl.data.poses import from_quaternions
from medssl.data.sequence import Stereo, Truth, VideoSequence
from medssl.data.video import open_frames
from medssl.errors import InputError


def is_exact_folder(folder: Path) -> bool:
    """Whether a folder holds frames, their camera and its path."""
    return (folder / "frames").is_dir() and all((folder / name).is_file() for name in ("camera.json", "poses.txt"))


def exact_sequence(folder: Path) -> VideoSequence:
    """Read frames with their camera, its path in mm, and where they are there depth, flow and a second camera.

    ``frames/*.png``; ``camera.json``; ``poses.txt``, a row ``time x y z qx qy qz qw`` per frame, camera to world;
    ``mask.png``; ``depth/*.npy``, z in mm; ``flow/*.flo``, to the next frame; ``right/*.png``, ``stereo.json`` and
    ``disparity/*.npy``. A file of a frame has the frame's name.

    Raises:
        InputError: A file cannot be read, or does not fit the frames.
    """
    poses = _poses(folder / "poses.txt")
    frames = FrameFolder(folder / "frames", rate=_rate(folder / "poses.txt"))
    if len(poses) != len(frames):
        raise InputError(f"{folder}: has {len(frames)} frames and {len(poses)} poses; there must be as many.")
    camera = camera_of(read_fields(folder / "camera.json"), str(folder / "camera.json"), frames.size)
    names = [path.stem for path in frames.paths]
    stereo = None
    if (folder / "stereo.json").is_file():
        pair = read_stereo(folder / "stereo.json", frames.size)
        right = FrameFolder(folder / "right", rate=frames.rate)
        if len(right) != len(frames):
            raise InputError(f"{folder}: the left camera has {len(frames)} frames, the right one {len(right)}.")
        stereo = Stereo(right, pair.right, pair.to_left)
    known = {name: _files(folder / name, names) for name in ("depth", "disparity", "flow")}
    truth = Truth(
        depth=PerFile(known["depth"], read_array, frames.size) if known["depth"] else None,
        disparity=PerFile(known["disparity"], read_array, frames.size) if known["disparity"] else None,
        flow=PerFile(known["flow"], read_flow, (*frames.size, 2)) if known["flow"] else None,
    )
    mask = folder / "mask.png"
    return VideoSequence(
        name=folder.name,
        subject=folder.name,
        frames=frames,
        camera=camera,
        poses=poses,
        unit="mm",
        stereo=stereo,
        mask=read_picture(mask).grey.T > 127 if mask.is_file() else None,
        truth=truth,
    )


def is_masked_folder(folder: Path) -> bool:
    """Whether a folder holds a video and the masks of what it shows, as ``sample_data.make_shapes`` writes them."""
    return (folder / "video.mp4").is_file() and (folder / "masks").is_dir()


def masked_sequence(folder: Path) -> VideoSequence:
    """Read ``video.mp4``, and where it is there ``flow/*.flo``, to the next frame; the camera is not known.

    The same pictures without loss (``frames``), and the masks, are no recordings of their own.

    Raises:
        InputError: The video cannot be read.
    """
    frames = open_frames(folder / "video.mp4")
    flow = _files(folder / "flow", [f"{i:08d}" for i in range(len(frames))])
    truth = Truth(flow=PerFile(flow, read_flow, (*frames.size, 2)) if flow else None)
    return VideoSequence(name=folder.name, subject=folder.name, frames=frames, truth=truth)


def read_array(path: Path) -> NDArray[np.float32]:
    """Read a map (H, W) of numbers from .npy.

    Raises:
        InputError: It cannot be read.
    """
    try:
        values: NDArray[np.float32] = np.load(path, allow_pickle=False).astype(np.float32)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as an array of numbers ({error}).") from error
    return values


def _files(folder: Path, names: list[str]) -> dict[int, Path]:
    """The file of each frame that has one, by the frame's place."""
    there = {path.stem: path for path in sorted(folder.iterdir())} if folder.is_dir() else {}
    return {place: there[name] for place, name in enumerate(names) if name in there}


def _rows(path: Path) -> NDArray[np.float64]:
    try:
        rows = np.loadtxt(path, dtype=np.float64, ndmin=2)
    except ValueError as error:
        raise InputError(f"{path}: is no table of numbers ({error}).") from error
    if rows.shape[1] != 8:
        raise InputError(f"{path}: has {rows.shape[1]} numbers in a row; expected time x y z qx qy qz qw.")
    return rows


def _poses(path: Path) -> NDArray[np.float64]:
    rows = _rows(path)
    return from_quaternions(path, rows[:, 1:4], rows[:, 4:])


def _rate(path: Path) -> float | None:
    """Frames per second, of the mean step between two."""
    times = _rows(path)[:, 0]
    return float((len(times) - 1) / (times[-1] - times[0])) if len(times) > 1 and times[-1] > times[0] else None
