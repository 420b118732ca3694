"""Stereo recordings: two videos or folders side by side, or one video with both views in each frame."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medssl.data.calibration import STEREO_EXPECTED, StereoCalibration, read_stereo
from medssl.data.frames import Half, HalfFrames, PerFile
from medssl.data.sequence import Frames, PerFrame, Stereo, Truth, VideoSequence
from medssl.errors import InputError

Packing = Literal["side-by-side", "top-bottom"]

_HALVES: dict[Packing, tuple[Half, Half]] = {"side-by-side": ("left", "right"), "top-bottom": ("top", "bottom")}


def stereo_sequence(
    left: Path, right: Path, calibration: Path, name: str | None = None, scale: bool = False
) -> VideoSequence:
    """Read a calibrated pair of videos or of folders of frames, first camera first.

    Args:
        left: The first camera's video or folder.
        right: The second camera's.
        calibration: See ``medssl.data.calibration.STEREO_EXPECTED``.
        name: Of the sequence; the name of ``left`` where it is not given.
        scale: Whether a calibration of another size is scaled to the frames.

    Raises:
        InputError: The two have different lengths or sizes, or the calibration does not fit them.
    """
    from medssl.data.video import open_frames

    frames = open_frames(left), open_frames(right)
    return paired(name or left.stem, left, *frames, read_stereo(calibration, frames[0].size, scale))


def packed_sequence(video: Path, packing: Packing, calibration: Path, scale: bool = False) -> VideoSequence:
    """Read a video with the two views of a calibrated pair in each frame, left or top one first.

    Raises:
        InputError: The calibration does not fit one view.
    """
    from medssl.data.video import open_frames

    views = unpacked(open_frames(video), packing)
    return paired(video.stem, video, *views, read_stereo(calibration, views[0].size, scale))


def unpacked(frames: Frames, packing: Packing) -> tuple[Frames, Frames]:
    """The two views of a packed video: left and right, or top (the left camera's) and bottom."""
    first, second = _HALVES[packing]
    return HalfFrames(frames, first), HalfFrames(frames, second)


def paired(
    name: str, source: Path, left: Frames, right: Frames, calibration: StereoCalibration, subject: str | None = None
) -> VideoSequence:
    """Put two cameras' frames and their calibration together.

    Raises:
        InputError: The two have different lengths or sizes.
    """
    if len(left) != len(right):
        raise InputError(
            f"{source}: the left camera has {len(left)} frames, the right one {len(right)}; a pair needs one of each "
            "at each time. Cut both to the same stretch."
        )
    if left.size != right.size:
        sizes = [f"{width}x{height}" for height, width in (left.size, right.size)]
        raise InputError(f"{source}: the left frames are {sizes[0]}, the right ones {sizes[1]}; one size is expected.")
    return VideoSequence(
        name=name,
        subject=subject or name,
        frames=left,
        camera=calibration.left,
        unit=calibration.unit,
        stereo=Stereo(right, calibration.right, calibration.to_left),
    )


def with_truth(sequence: VideoSequence, left: Truth, right: Truth) -> VideoSequence:
    """The stereo sequence with what is known of each camera's pictures."""
    return replace(sequence, truth=left, stereo=replace(require_stereo(sequence), truth=right))


def require_stereo(sequence: VideoSequence) -> Stereo:
    """The second camera of a sequence.

    Raises:
        InputError: There is none.
    """
    if sequence.stereo is None:
        raise InputError(
            f"{sequence.name}: has one camera, where a calibrated stereo pair is needed. Give the second video with "
            f"its calibration, or say how a packed video is split (side-by-side or top-bottom); {STEREO_EXPECTED}."
        )
    return sequence.stereo


class DepthOfDisparity:
    """Depth from the disparity of a rectified pair: z = baseline f / (d + doffs), NaN where the disparity is.

    Args:
        disparity: x in the left picture minus x in the right one.
        calibration: Of the pair; the principal points may differ along x, by ``doffs``.
    """

    def __init__(self, disparity: PerFrame, calibration: StereoCalibration) -> None:
        self.disparity = disparity
        self.scale = calibration.baseline * calibration.left.fx
        self.doffs = calibration.right.cx - calibration.left.cx

    def __call__(self, index: int) -> NDArray[np.float32]:
        """Depth (H, W), in the baseline's unit, for the frame of that index."""
        apart = self.disparity(index) + np.float32(self.doffs)
        return np.where(apart > 0, np.float32(self.scale) / apart, np.float32(np.nan))


def disparity_truth(disparity: PerFile, visible: PerFile | None, calibration: StereoCalibration) -> Truth:
    """What a file of disparities tells of one camera's pictures."""
    return Truth(depth=DepthOfDisparity(disparity, calibration), disparity=disparity, visible=visible)
