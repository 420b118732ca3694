"""Pictures, and their sound, become a video that plays everywhere: H.264 in 8 bits, 4:2:0, colours of BT.709; AAC."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medssl.errors import InputError
from medssl.extras import require_module
from medssl.files import write_aside

_SUFFIXES = (".mp4", ".mov", ".mkv")
_BT709 = 1  # of matrix, primaries and transfer alike (ITU-T H.273)
_LIMITED = 1  # AVCOL_RANGE_MPEG
_AAC_SAMPLES = 1024  # of one packet
_AAC_BITS = 128_000  # a second


class Sound(NamedTuple):
    """What is heard with a video, from its first frame on: ``samples`` (n,), -1 to 1, ``rate`` of them a second."""

    samples: NDArray[np.floating[Any]]
    rate: int = 48_000


def write_video(
    path: Path, frames: Iterable[NDArray[np.uint8]], fps: float, crf: int = 18, sound: Sound | None = None
) -> None:
    """Write frames (H, W, 3), RGB, one after the other, whole or not at all; only one is held.

    An odd height or width is filled up with a copy of the last row or column: 4:2:0 has one colour for four pixels.

    Args:
        path: The file: .mp4, .mov or .mkv.
        frames: Of one size.
        fps: Frames per second.
        crf: x264's constant rate factor, 0 (lossless) to 51; 18 is hard to tell from the original.
        sound: Written as AAC, of one channel; what goes on after the last frame is written too.

    Raises:
        InputError: There is no frame, their sizes differ, ``fps`` is not a positive number, the ending is another, the
            sound is not one channel of finite numbers, or the file cannot be written.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise InputError(f"{path}: a video is written as {', '.join(_SUFFIXES)}; name it so.")
    if not 0 < fps < np.inf:
        raise InputError(f"{path}: {fps:g} frames per second are asked for; give the rate, above 0.")
    if sound is not None and (sound.samples.ndim != 1 or not np.isfinite(sound.samples).all()):
        raise InputError(f"{path}: the sound is {sound.samples.shape}; one channel of finite samples (n,) is written.")
    pictures = iter(frames)
    first = next(pictures, None)
    if first is None:
        raise InputError(f"{path}: there are no frames to write.")
    with write_aside(path) as aside:
        rate = Fraction(fps).limit_denominator(100_000)
        _encode(aside, _checked(path, first, pictures), first.shape, rate, crf, sound)


def _checked(path: Path, first: NDArray[np.uint8], others: Iterator[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    for index, frame in enumerate(chain([first], others)):
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or frame.shape != first.shape:
            raise InputError(
                f"{path}: frame {index} is {frame.dtype} {frame.shape}, the first is {first.dtype} {first.shape}; all "
                "must be uint8 (H, W, 3) of one size."
            )
        yield frame


def _encode(
    path: Path,
    frames: Iterator[NDArray[np.uint8]],
    shape: tuple[int, ...],
    rate: Fraction,
    crf: int,
    sound: Sound | None,
) -> None:
    av = require_module("av", "video")
    odd = shape[0] % 2, shape[1] % 2
    # the index at the beginning, so that a browser can play while it loads
    options = {"movflags": "+faststart"} if path.suffix.lower() != ".mkv" else {}
    with av.open(f"file:{path}", "w", options=options) as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": str(crf)})
        stream.height, stream.width, stream.pix_fmt = shape[0] + odd[0], shape[1] + odd[1], "yuv420p"
        _tag(stream.codec_context)
        heard = iter(()) if sound is None else _packets(av, container, sound)
        until_s = 0.0
        for index, frame in enumerate(frames):
            padded = np.pad(frame, ((0, odd[0]), (0, odd[1]), (0, 0)), mode="edge") if any(odd) else frame
            container.mux(stream.encode(_yuv(av, padded, index)))
            while until_s <= float(index / rate) and (packet := next(heard, None)) is not None:  # side by side
                container.mux(packet.encoded)
                until_s = packet.until_s
        container.mux(stream.encode())
        for packet in heard:
            container.mux(packet.encoded)


class _Packet(NamedTuple):
    """Encoded sound, and up to when it is heard."""

    encoded: Any
    until_s: float


def _packets(av: Any, container: Any, sound: Sound) -> Iterator[_Packet]:
    """Encode sound bit by bit; the stream is added to the container at once, as all are before the first is written."""
    stream = container.add_stream("aac", rate=sound.rate, layout="mono")
    stream.bit_rate = _AAC_BITS
    samples = np.ascontiguousarray(sound.samples, dtype=np.float32)

    def packets() -> Iterator[_Packet]:
        for start in range(0, len(samples), _AAC_SAMPLES):
            heard = samples[None, start : start + _AAC_SAMPLES]
            frame = av.AudioFrame.from_ndarray(heard, format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = sound.rate, start, Fraction(1, sound.rate)
            yield _Packet(stream.encode(frame), (start + heard.shape[1]) / sound.rate)
        yield _Packet(stream.encode(None), len(samples) / sound.rate)

    return packets()


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
