"""What the maker of a test recording knows exactly, in the pictures that the methods see: to judge by, never to learn.

A prepared picture is of a camera whose intrinsics structure from motion estimated; the truth is of the video's own
pictures. Both look from one place along one axis, so the same depth belongs to both where the lens puts one pixel.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medssl.data.camera import Camera
from medssl.data.exact_sequence import exact_sequence, is_exact_folder
from medssl.data.prepared_recordings import PreparedRecordings
from medssl.data.sequence import PerFrame
from medssl.data.view import seen_by
from medssl.depth_study.recording import Recording
from medssl.errors import InputError
from medssl.reconstruction.mesh import Mesh, read_mesh


@dataclass(frozen=True, eq=False)
class ExactTruth:
    """The truth of a recording's prepared frames, in mm.

    Attributes:
        poses: Camera to world, (N, 4, 4).
        surface: The true one, where it is known.
        numbers: Which frame of the video each prepared frame is, (N,).
        pixels: Where each pixel of a prepared picture lies in the video's, (H, W, 2), x and y.
        read: Depth of a frame of the video, where it is known.
    """

    poses: NDArray[np.float64]
    surface: Mesh | None
    numbers: NDArray[np.int64]
    pixels: NDArray[np.float64]
    read: PerFrame | None

    def depth(self, t: int) -> NDArray[np.float64] | None:
        """Tell z in each pixel of prepared frame ``t``, (H, W): the video's nearest pixel's; NaN where unknown."""
        if self.read is None:
            return None
        whole = self.read(int(self.numbers[t]))
        x, y = np.rint(np.nan_to_num(self.pixels, nan=-1)).astype(np.int64).transpose(2, 0, 1)
        inside = (x >= 0) & (x < whole.shape[1]) & (y >= 0) & (y < whole.shape[0])
        return np.where(inside, whole[y.clip(0, whole.shape[0] - 1), x.clip(0, whole.shape[1] - 1)], np.nan)


def exact_truth(folder: Path, recording: Recording, data: PreparedRecordings) -> ExactTruth:
    """Read the truth of a recording that ``sample_data.make_endoscopy`` wrote.

    Args:
        folder: What it wrote.
        recording: The recording.
        data: The same, prepared.

    Raises:
        InputError: The folder is none of those, or of another recording.
    """
    require_truth(folder)
    known = exact_sequence(folder)
    size = recording.lens.height, recording.lens.width
    if len(known.frames) != recording.video_frames or known.frames.size != size:
        raise InputError(
            f"{folder}: its truth is of {_told(len(known.frames), known.frames.size)}, the video has "
            f"{_told(recording.video_frames, size)}. Give the folder that the video is from."
        )
    assert known.poses is not None  # an exact sequence always has them
    numbers, surface = recording.prepared_numbers(data), folder / "surface.ply"
    return ExactTruth(
        known.poses[numbers],
        read_mesh(surface) if surface.is_file() else None,
        numbers,
        seen_by(recording.lens, _prepared_camera(data), np.eye(3)),
        known.truth.depth,
    )


def require_truth(folder: Path) -> None:
    """Refuse what holds no truth, before an hour is spent.

    Raises:
        InputError: It does not.
    """
    if not is_exact_folder(folder):
        raise InputError(
            f"{folder}: is not a folder with the truth of a recording (frames, camera.json, poses.txt); make one with "
            "python -m sample_data.make_endoscopy."
        )


def _prepared_camera(data: PreparedRecordings) -> Camera:
    matrix = data.geometry(0).intrinsics
    assert matrix is not None  # a recording with points has a camera
    height, width = data.preparation.size
    return Camera(width, height, matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2])


def _told(frames: int, size: tuple[int, int]) -> str:
    return f"{frames} frames of {size[1]}x{size[0]} pixels"
