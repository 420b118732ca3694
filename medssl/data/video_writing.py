"""Pictures become a video that plays everywhere: H.264 in 8 bits, 4:2:0, colours of BT.709."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssl.errors import InputError
from medssl.extras import require_module
from medssl.files import write_aside

_SUFFIXES = (".mp4", ".mov", ".mkv")
_BT709 = 1  # of matrix, primaries and transfer alike (ITU-T H.273)
_LIMITED = 1  # AVCOL_RANGE_MPEG


def write_video(path: Path, frames: Iterable[NDArray[np.uint8]], fps: float, crf: int = 18) -> None:
    """Write frames (H, W, 3), RGB, one after the other, whole or not at all; only one is held.

    An odd height or width is filled up with a copy of the last row or column: 4:2:0 has one colour for four pixels.

    Args:
        path: The file: .mp4, .mov or .mkv.
        frames: Of one size.
        fps: Frames per second.
        crf: x264's constant rate factor, 0 (lossless) to 51; 18 is hard to tell from the original.

    Raises:
        InputError: There is no frame, their sizes differ, ``fps`` is not a positive number, the ending is another, or
            the file cannot be written.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise InputError(f"{path}: a video is written as {', '.join(_SUFFIXES)}; name it so.")
    if not 0 < fps < np.inf:
        raise InputError(f"{path}: {fps:g} frames per second are asked for; give the rate, above 0.")
    pictures = iter(frames)
    first = next(pictures, None)
    if first is None:
        raise InputError(f"{path}: there are no frames to write.")
    with write_aside(path) as aside:
        _encode(aside, _checked(path, first, pictures), first.shape, Fraction(fps).limit_denominator(100_000), crf)


def _checked(path: Path, first: NDArray[np.uint8], others: Iterator[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    for index, frame in enumerate(chain([first], others)):
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or frame.shape != first.shape:
            raise InputError(
                f"{path}: frame {index} is {frame.dtype} {frame.shape}, the first is {first.dtype} {first.shape}; all "
                "must be uint8 (H, W, 3) of one size."
            )
        yield frame


def _encode(path: Path, frames: Iterator[NDArray[np.uint8]], shape: tuple[int, ...], rate: Fraction, crf: int) -> None:
    av = require_module("av", "video")
    odd = shape[0] % 2, shape[1] % 2
    # the index at the beginning, so that a browser can play while it loads
    options = {"movflags": "+faststart"} if path.suffix.lower() != ".mkv" else {}
    with av.open(f"file:{path}", "w", options=options) as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": str(crf)})
        stream.height, stream.width, stream.pix_fmt = shape[0] + odd[0], shape[1] + odd[1], "yuv420p"
        _tag(stream.codec_context)
        for index, frame in enumerate(frames):
            padded = np.pad(frame, ((0, odd[0]), (0, odd[1]), (0, 0)), mode="edge") if any(odd) else frame
            container.mux(stream.encode(_yuv(av, padded, index)))
        container.mux(stream.encode())


def _yuv(av: Any, frame: NDArray[np.uint8], index: int) -> Any:
    from av.video.reformatter import ColorRange, Colorspace, Interpolation

    rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
    yuv = rgb.reformat(
        format="yuv420p",
        dst_colorspace=Colorspace.ITU709,
        dst_color_range=ColorRange.MPEG,
        interpolation=Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP,
        threads=1,
    )
    yuv.pts = index
    _tag(yuv)
    return yuv


def _tag(target: Any) -> None:
    """Say on a frame or an encoder what its colours are; a player would guess otherwise."""
    target.colorspace, target.color_primaries, target.color_trc = _BT709, _BT709, _BT709
    target.color_range = _LIMITED
