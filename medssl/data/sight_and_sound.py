"""Which sounds go with a frame and which do not, and a video's frames with their sound, one after the other."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator

from medssl.data.audio import Waveform, read_stretches
from medssl.data.clips import Sound
from medssl.data.prepared_recordings import RecordingPreparation
from medssl.data.sound_check import AudioFacts
from medssl.data.streamed_recordings import StreamedRecording, StreamedRecordings
from medssl.errors import InputError

Numbers = NDArray[np.int64]

_ROUNDING = 1e-6  # of a frame's interval


@dataclass(frozen=True)
class SoundWindows:
    """Stretches of a recording's sound that begin with a frame: number k begins ``k * interval_s`` after the first one.

    Args:
        sound: What is heard with a clip.
        facts: Of the recording's sound.
        interval_s: From a frame to the next.
    """

    sound: Sound
    facts: AudioFacts
    interval_s: float

    def within(self, start_s: float, end_s: float) -> Numbers:
        """Numbers of the stretches between two times in whose middle something may be heard, ascending."""
        first = np.ceil(max(start_s, self.facts.start_s) / self.interval_s - _ROUNDING)
        last = np.floor((min(end_s, self.facts.end_s) - self.sound.seconds) / self.interval_s + _ROUNDING)
        numbers = np.arange(int(first), int(last) + 1)
        middles = numbers * self.interval_s + self.sound.seconds / 2
        quiet = np.array(self.facts.quiet).reshape(-1, 2)
        last_quiet = np.searchsorted(quiet[:, 0], middles, side="right") - 1  # that began before
        ends = np.append(quiet[:, 1], -np.inf)  # of none, the last of these
        heard: Numbers = numbers[middles > ends[last_quiet]]
        return heard

    def around(self, time_s: float, numbers: Numbers) -> Numbers:
        """Those of the stretches whose middle is as near to a frame's time as the jitter allows."""
        first, stop = self._near(np.array([time_s]), numbers)
        return numbers[int(first[0]) : int(stop[0])]

    def are_heard(self, times_s: NDArray[np.float64], numbers: Numbers) -> NDArray[np.bool_]:
        """Say for which frames' times (n,) there is such a stretch, (n,)."""
        first, stop = self._near(times_s, numbers)
        return np.asarray(stop > first)

    def _near(self, times_s: NDArray[np.float64], numbers: Numbers) -> tuple[Numbers, Numbers]:
        """Places of the first stretch that is near each time, and of the first after it that no longer is."""
        middles = numbers * self.interval_s + self.sound.seconds / 2
        near_s = max(self.sound.jitter_s, self.interval_s / 2) + _ROUNDING * self.interval_s
        return np.searchsorted(middles, times_s - near_s), np.searchsorted(middles, times_s + near_s, side="right")

    def other(self, own: int, numbers: Numbers, generator: Generator) -> float:
        """Draw when another sound begins, seconds: of the stretches, one that shares nothing with number ``own``.

        Where there is none, it is the one that is farthest away.
        """
        away = np.abs(numbers - own) * self.interval_s
        apart = numbers[away >= min(self.sound.seconds, away.max())]
        start_s = drawn(apart, generator) * self.interval_s
        if self.sound.grid:
            return start_s
        off_s = (float(torch.rand((), generator=generator)) - 0.5) * self.interval_s
        return float(np.clip(start_s + off_s, numbers[0] * self.interval_s, numbers[-1] * self.interval_s))


def drawn(numbers: Numbers, generator: Generator) -> int:
    """Draw one of some numbers."""
    return int(numbers[int(torch.randint(len(numbers), (), generator=generator))])


def open_with_sound(path: Path, size: tuple[int, int]) -> StreamedRecording:
    """Open a video with sound as methods that are trained on streams see and hear it.

    Args:
        path: The video.
        size: Height and width of the frames that are given, pixels; multiples of 32.

    Raises:
        InputError: The file is not one video with sound that can be used.
    """
    recordings = StreamedRecordings([path], RecordingPreparation(size), sound=True)
    if len(recordings) != 1:
        raise InputError(f"{path}: holds {len(recordings)} recordings, and one video is expected; give its file.")
    return recordings[0]


def stream_with_sound(
    one: StreamedRecording, every_s: float, sound: Sound
) -> Iterator[tuple[float, NDArray[np.uint8], Waveform]]:
    """Give frames of a video from its begin to its end with what is heard around them; one pair is held at a time.

    A frame is what methods that were trained on streams see: the endoscope's field of view, resized. Its sound begins
    with a frame, as in training, so its middle may be half a frame's time away; beyond the recording it is silent.

    Args:
        one: The video, see ``open_with_sound``.
        every_s: From each frame to the next, seconds; the first frame of the video is the first.
        sound: Its rate and length.

    Yields:
        When the frame is shown, seconds from the first; the frame (H, W, 3), uint8; its sound (N,), -1 to 1.

    Raises:
        InputError: No time passes from frame to frame.
    """
    path = one.sequence.frames.files[0]
    if every_s <= 0:
        raise InputError(f"{path}: frames are asked for every {every_s:g} s; give a time above 0.")
    count = int(one.times[-1] / every_s + _ROUNDING) + 1
    shown = np.unique(np.searchsorted(one.times, np.arange(count) * every_s - one.interval_s / 2))
    starts = np.rint((one.times[shown] - sound.seconds / 2) / one.interval_s) * one.interval_s
    pictures = one.sequence.frames.read([one.chosen[int(place)] for place in shown])
    origin_s = None if one.sound is None else one.sound.origin_s
    sounds = read_stretches(path, starts.tolist(), sound.seconds, sound.rate, origin_s)
    for place, picture, heard in zip(shown, pictures, sounds, strict=True):
        prepared, _ = one.sight.prepared(picture)
        yield float(one.times[place]), np.ascontiguousarray(prepared.transpose(1, 2, 0)), heard
