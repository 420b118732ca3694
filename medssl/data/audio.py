"""The sound of a video, or of a file of sound: any stretch of it by time; FFmpeg decodes it, through PyAV.

Times are seconds from the first frame of the file's video, as those of its frames are; from the first sample where
there is none. They are the timestamps': sound that was not recorded or cannot be decoded is silence, and shifts nothing
after it. They are as exact as the container's: to a sample in MP4, to a millisecond in Matroska.
"""

import logging
import math
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssl.data.container import open_container, packets, video_stream
from medssl.errors import InputError
from medssl.extras import require_module

logger = logging.getLogger(__name__)

Waveform = NDArray[np.float32]

NO_SOUND = (
    "has no sound; a file with a sound track is expected. Export the video with its sound, or choose a method that "
    "learns from pictures alone."
)
JITTER_S = 0.01  # by which timestamps may be off what the samples before them last, without a gap
_BACK_S = (
    0.25,
    4.0,
    math.inf,
)  # how far before a stretch to begin: codecs need what was before, containers jump too far
_GUESSING = ("mp3", "aac")  # containers without an index, after a jump in which times are guessed
_MARGIN_S = 0.02  # around a stretch, for the resampling filter
_WORTH_A_JUMP_S = 2.0
_REORDERED = 32  # packets of video among the first of which the first frame is


@dataclass(frozen=True, eq=False)
class Piece:
    """A packet's sound.

    Attributes:
        stamp_s: When it begins as the file says, in the file's own time.
        place: When it begins, samples from the first frame: after the piece before where that is within a hundredth of
            a second of the timestamp, so that rounded timestamps tear no holes.
        rate: Samples per second.
        samples: (n,), -1 to 1, the mean of all channels.
    """

    stamp_s: float
    place: int
    rate: int
    samples: Waveform

    @property
    def start_s(self) -> float:
        """When it begins, seconds from the first frame."""
        return self.place / self.rate

    @property
    def end_s(self) -> float:
        """When it ends, seconds from the first frame."""
        return (self.place + len(self.samples)) / self.rate


def read_audio(path: Path, start_s: float, duration_s: float, rate: int, origin_s: float | None = None) -> Waveform:
    """Read a stretch of sound, wherever it is; see ``read_stretches``.

    Returns:
        ``duration_s * rate`` samples, (n,), mono, -1 to 1; silence where there is no sound, of which a warning tells
        once for each file, unless it is before the first frame or after the end of the sound.

    Raises:
        InputError: The file cannot be read, or has no sound that can be decoded here.
    """
    return next(read_stretches(path, [start_s], duration_s, rate, origin_s))


def read_stretches(
    path: Path, starts_s: Iterable[float], duration_s: float, rate: int, origin_s: float | None = None
) -> Iterator[Waveform]:
    """Read stretches of sound in the order asked for; ascending ones in one pass, of which only one is held.

    Sample n of a stretch is that of time (round(start rate) + n) / rate, so that stretches agree where they overlap.

    Args:
        path: A video, or a file of sound.
        starts_s: When they begin, seconds from the first frame.
        duration_s: Of each, seconds.
        rate: Samples per second to resample to.
        origin_s: When the first frame is shown, in the file's own time, see ``AudioFacts``; found out by default.

    Raises:
        InputError: The file cannot be read, or has no sound that can be decoded here.
    """
    origin_s = origin_of(path) if origin_s is None else origin_s
    count = round(duration_s * rate)
    held: deque[Piece] = deque()
    held_from = reached = -math.inf  # seconds from the first frame: what lies between them is in ``held``
    walk, ended = _walk(path, 0.0, origin_s), False
    try:
        for start_s in starts_s:
            first_s, last_s = start_s - _MARGIN_S, start_s + duration_s + _MARGIN_S
            if first_s < held_from or first_s > reached + _WORTH_A_JUMP_S:
                walk.close()
                walk, ended, reached = _walk(path, first_s, origin_s), False, first_s
                held.clear()
            while reached < last_s and not ended:
                if (piece := next(walk, None)) is None:
                    ended = True
                else:
                    held.append(piece)
                    reached = piece.end_s
            while held and held[0].end_s <= first_s:
                held.popleft()
            held_from = first_s
            missing_s = _missing_s(held, max(start_s, 0.0), min(start_s + duration_s, reached if ended else math.inf))
            if missing_s > JITTER_S:
                _tell_of_silence(path)
            yield _stretch(held, round(start_s * rate), count, rate)
    finally:
        walk.close()


def origin_of(path: Path) -> float:
    """When the first frame of a file's video is shown, or else its first sample heard, in the file's own time."""
    with open_container(path) as container:
        if (video := video_or_none(path, container)) is not None:
            first = islice(packets(container, video), _REORDERED)
            shown = [packet.pts for packet in first if packet.pts is not None and not packet.is_discard]
            return float(min(shown) * video.time_base) if shown else 0.0
        sound = audio_stream(path, container)
        heard = (piece for piece in decode(packets(container, sound), sound) if piece is not None)
        piece = next(heard, None)
        return 0.0 if piece is None else piece.stamp_s


def audio_stream(path: Path, container: Any) -> Any:
    """The main sound track of an open file.

    Raises:
        InputError: There is none, or nothing here decodes it.
    """
    if not container.streams.audio:
        raise InputError(f"{path}: {NO_SOUND}")
    stream = container.streams.best("audio") or container.streams.audio[0]
    if stream.codec_context is None:
        raise InputError(f"{path}: its sound is in a codec that cannot be decoded here; export it as AAC in MP4.")
    stream.thread_count = 1
    return stream


def video_or_none(path: Path, container: Any) -> Any | None:
    """The video track of an open file, where it has one; a cover picture is none."""
    try:
        return video_stream(path, container)
    except InputError:
        return None


def decode(following: Iterable[Any], stream: Any, origin_s: float = 0.0) -> Iterator[Piece | None]:
    """Decode packets of sound, in the order of time; ``None`` stands for one that cannot be decoded."""
    av = require_module("av", "video")
    place, rate, stamp_s = 0, 0, 0.0
    for packet in chain(following, [None]):
        try:
            frames = stream.decode(packet)
        except av.FFmpegError:
            yield None
            continue
        for frame in frames:
            if frame.pts is not None:
                stamp_s = float(frame.pts * frame.time_base)
            stamped = (stamp_s - origin_s) * frame.sample_rate
            if frame.sample_rate != rate or abs(stamped - place) > JITTER_S * rate:
                rate, place = frame.sample_rate, round(stamped)
            yield None if frame.is_corrupt else Piece(stamp_s, place, rate, _mono(frame))
            place, stamp_s = place + frame.samples, stamp_s + frame.samples / rate


def resampled(samples: Waveform, old: int, new: int) -> Waveform:
    """Bring (n,) samples from one rate to another, (about n new / old,); the first stays the first in time."""
    if old == new:
        return samples
    av = require_module("av", "video")
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples)[None], format="flt", layout="mono")
    frame.sample_rate = old
    resampler = av.AudioResampler("flt", "mono", new)
    parts = [part.to_ndarray()[0] for part in (*resampler.resample(frame), *resampler.resample(None))]
    return np.concatenate([np.zeros(0, dtype=np.float32), *parts])


def _walk(path: Path, start_s: float, origin_s: float) -> Generator[Piece, None, None]:
    """Decode from a time on, or from a little before."""
    for back_s in _BACK_S:
        with open_container(path) as container:
            stream = audio_stream(path, container)
            whole = not _jumped(container, stream, origin_s + start_s - back_s)
            pieces = (piece for piece in decode(packets(container, stream), stream, origin_s) if piece is not None)
            first = next(pieces, None)
            if whole or (first is not None and first.start_s <= start_s):
                yield from pieces if first is None else chain([first], pieces)
                return


def _jumped(container: Any, stream: Any, target_s: float) -> bool:
    """Jump to a time of the file, and say whether that was done; not where it is the beginning, or would be a guess."""
    av = require_module("av", "video")
    begin_s = 0.0 if stream.start_time is None else float(stream.start_time * stream.time_base)
    if target_s <= begin_s or container.format.name in _GUESSING:
        return False
    try:
        container.seek(int(target_s / stream.time_base), stream=stream)
    except av.FFmpegError:
        container.seek(int(begin_s / stream.time_base), stream=stream)
        return False
    return True


def _missing_s(held: Iterable[Piece], start_s: float, end_s: float) -> float:
    """Seconds between two times of which there is no sound."""
    known_s = sum(max(0.0, min(piece.end_s, end_s) - max(piece.start_s, start_s)) for piece in held)
    return max(0.0, end_s - start_s) - known_s


def _stretch(held: Iterable[Piece], first: int, count: int, rate: int) -> Waveform:
    """Samples ``first`` to ``first + count`` of a rate, of pieces of another."""
    native = next((piece.rate for piece in held), rate)
    step = math.gcd(native, rate)  # both rates have a sample at each multiple of 1 / step seconds
    begin = math.floor((first / rate - _MARGIN_S) * step)
    end = math.ceil(((first + count) / rate + _MARGIN_S) * step)
    sound = np.zeros((end - begin) * (native // step), dtype=np.float32)
    for piece in held:
        samples = resampled(piece.samples, piece.rate, native)
        at = round(piece.place * native / piece.rate) - begin * (native // step)
        inside = slice(max(at, 0), max(at + len(samples), 0))
        sound[inside] = samples[max(-at, 0) :][: len(sound[inside])]
    wanted = resampled(sound, native, rate)[first - begin * (rate // step) :][:count]
    return np.pad(wanted, (0, count - len(wanted))).clip(-1, 1)


@lru_cache(maxsize=1024)  # once for each file
def _tell_of_silence(path: Path) -> None:
    logger.warning("%s: has no sound at some of the times that are read; silence stands for it.", path)


def _mono(frame: Any) -> Waveform:
    """Average PyAV's frame over its channels, (n,), -1 to 1."""
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if samples.dtype == np.uint8:
        samples = samples.astype(np.float32) - 128
        scale = 128.0
    else:
        scale = 1.0 if samples.dtype.kind == "f" else -float(np.iinfo(samples.dtype).min)
    mean: Waveform = (samples.mean(axis=0, dtype=np.float64) / scale).astype(np.float32)
    return np.nan_to_num(mean, posinf=0.0, neginf=0.0).clip(-1, 1)
