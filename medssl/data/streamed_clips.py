"""Clips of streamed recordings: one stretch of video is decoded at once and gives several, with their sound if asked.

Which ones is a pure function of (seed, sample number), as it is of crops of scans. Every stretch is read once before
any is read again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from medssl.data.audio import Waveform, read_stretches
from medssl.data.clips import ClipNeeds, Consecutive, Single, as_masks, as_pictures
from medssl.data.crops import Samples, seed_of
from medssl.data.footage import Footage
from medssl.data.recording_store import Geometry
from medssl.data.sight_and_sound import SoundWindows, drawn
from medssl.data.streamed_recordings import PreparedFrame, Segment, StreamedRecordings
from medssl.errors import InputError
from medssl.method import Pretext
from medssl.sample import Batch, Sample

_TRIED = 3  # places for each clip, of which those that show a cut or nothing are rejected
_ATTEMPTS = 20  # other stretches in place of one that has no clip
_UNUSED = Geometry(*(np.zeros(0),) * 2, np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.bool_))


@dataclass(frozen=True)
class _Clip:
    """Where a clip is: the frames, and when its sound and the other sound begin, seconds."""

    times: tuple[int, ...]
    sound_s: float = 0.0
    other_s: float = 0.0


class StreamedClips(Samples):
    """Samples 0, 1, 2, ... without end: each is some clips of one stretch of a recording, which is decoded once.

    Every stretch is read once before any is read again, in an order drawn anew each time.

    Args:
        data: The recordings.
        needs: Which frames make a clip, and whether sound goes with it.
        pretext: Applied to each clip with the clip's own generator.
        seed: Of everything drawn.
        per_number: Clips of each stretch.
        segment_s: How long a stretch is at least, seconds.

    Attributes:
        places: Which recording each stretch is of, and where in it.

    Raises:
        InputError: No recording has such a clip, or the method learns from more than pictures and sound.
    """

    def __init__(
        self,
        data: StreamedRecordings,
        needs: ClipNeeds,
        pretext: Pretext,
        seed: int = 0,
        per_number: int = 2,
        segment_s: float = 4.0,
    ) -> None:
        if per_number < 1 or segment_s <= 0:
            raise InputError(
                f"Streams give at least 1 clip of stretches longer than 0 s, got {per_number} of {segment_s:g} s."
            )
        check_streamed(needs)
        self.data, self.needs, self.pretext, self.seed = data, needs, pretext, seed
        self.per_number, self.segment_s = per_number, segment_s
        self.span = (needs.picker.count - 1) * needs.picker.gap if isinstance(needs.picker, Consecutive) else 0
        found = [self._segments(i) for i in range(len(data))]
        self.places = [(i, segment) for i, segments in enumerate(found) for segment in segments]
        if not self.places:
            told = ", ".join(f"{name} ({data.frames(i)} frames)" for i, name in enumerate(data.names))
            heard = "" if needs.sound is None else f" with {needs.sound.seconds:g} s of sound around a frame"
            raise InputError(
                f"No clip of {self.span + 1} frames{heard} can be taken from {told}. Give longer recordings, or ask "
                "for fewer frames or less sound."
            )
        self.of_recording = [[at for at, (i, _) in enumerate(self.places) if i == j] for j in range(len(data))]

    def __getitem__(self, number: int) -> Sample:
        """Read the clips of stretch ``number``: each entry has them as a leading dimension, ``per_number``.

        They hold ``clip`` (T, 3, H, W), 0 to 1, the frame that is learnt on first; ``valid`` (T, 1, H, W), 0 or 1;
        ``frame`` (T,), the frames' numbers; and, if asked for, ``sound`` and ``other_sound`` (N,), -1 to 1.

        Raises:
            InputError: Neither this stretch nor any of some others has a clip.
        """
        sample_seed = seed_of(self.seed, number)
        generator = Generator().manual_seed(sample_seed)
        round_, turn = divmod(number, len(self.places))
        order = torch.randperm(len(self.places), generator=Generator().manual_seed(seed_of(self.seed, round_, "order")))
        place = int(order[turn])
        for _ in range(_ATTEMPTS):
            found = self._clips(place, generator)
            if found:
                break
            place = int(torch.randint(len(self.places), (), generator=generator))
        else:
            i, segment = self.places[place]
            raise InputError(
                f"{_ATTEMPTS} stretches of video, the last of {self.data.names[i]} at {segment.start_s:.0f} s, have no "
                "clip that shows something without a cut. Leave such recordings out, or ask for closer frames."
            )
        i = self.places[place][0]
        samples = []
        for j, sample in enumerate(found):
            sample |= {
                "index": torch.tensor(i),
                "seed": torch.tensor(seed_of(sample_seed, j, 1)),  # what the method draws is not what placed the clip
                "number": torch.tensor(number * self.per_number + j),
            }
            samples.append(self.pretext(sample, Generator().manual_seed(seed_of(sample_seed, j, 2))))
        return {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Put the clips of several stretches into one batch."""
        return {name: torch.cat([sample[name] for sample in samples]) for name in samples[0]}

    @property
    def identity(self) -> list[Any]:
        """What decides which clips are drawn."""
        asked = [repr(self.needs), repr(self.needs.sound), self.per_number, self.segment_s]
        return [self.seed, *asked, self.data.fingerprint]

    def name(self, index: int) -> str:
        """Name a recording."""
        return self.data.names[index]

    def _segments(self, i: int) -> list[Segment]:
        """The stretches of a recording that are long enough for a clip, and heard."""
        segments = self.data.segments(i, self.segment_s, self.span + self.per_number)
        return [one for one in segments if len(self._starts(i, one))]

    def _starts(self, i: int, segment: Segment) -> NDArray[np.int64]:
        """Frames that a clip may be of, as far as is known before they are seen."""
        frames = np.arange(segment.first + self.span, segment.stop)
        if self.needs.sound is None:
            return frames
        windows = self._windows(i)
        begins = windows.within(segment.start_s, segment.end_s)
        heard: NDArray[np.int64] = frames[windows.are_heard(self.data[i].times[frames], begins)]
        return heard

    def _windows(self, i: int) -> SoundWindows:
        one = self.data[i]
        if self.needs.sound is None or one.sound is None:
            raise ValueError("StreamedClips: the method learns from sound; open the recordings with sound=True.")
        return SoundWindows(self.needs.sound, one.sound, one.interval_s)

    def _clips(self, place: int, generator: Generator) -> list[Sample]:
        """The clips of a stretch; none where all that it shows is black, damaged, or across a cut."""
        i, segment = self.places[place]
        ascending = self._starts(i, segment)
        starts = [int(start) for start in ascending[torch.randperm(len(ascending), generator=generator).numpy()]]
        tried, whole = starts[: _TRIED * self.per_number], range(segment.first, segment.stop)
        places = whole if self.span else sorted(tried)  # between single frames there is no cut to look for
        frames, footage = self._read(i, places, tried)
        good = self._good(tried, places, footage)
        if not good:
            footage = footage if self.span else self._read(i, whole, ())[1]
            good = self._good(starts, whole, footage)[: self.per_number]
            frames = self._read(i, whole, good)[0] if good else {}
        times = [self._pick(good[j % len(good)]) for j in range(self.per_number)] if good else []
        clips = [_Clip(one) for one in times] if self.needs.sound is None else self._heard(place, times, generator)
        sounds = [{}] * len(clips) if self.needs.sound is None else self._sounds(i, clips)
        return [_pictured(clip.times, frames) | heard for clip, heard in zip(clips, sounds, strict=True)]

    def _pick(self, start: int) -> tuple[int, ...]:
        return self.needs.picker.pick(start, start + 1, _UNUSED, Generator())

    def _read(self, i: int, places: Sequence[int], starts: Sequence[int]) -> tuple[dict[int, PreparedFrame], Footage]:
        return self.data.read(i, places, {time for start in starts for time in self._pick(start)})

    def _good(self, starts: Sequence[int], places: Sequence[int], footage: Footage) -> list[int]:
        """Those clips of which all frames show something, and none begins another scene."""
        row = {place: n for n, place in enumerate(places)}
        unusable = footage.black | footage.overexposed | footage.damaged
        good = []
        for start in starts:
            rows = [row[time] for time in self._pick(start)]
            if not unusable[rows].any() and not footage.cut[min(rows) + 1 : max(rows) + 1].any():
                good.append(start)
        return good

    def _heard(self, place: int, times: Sequence[tuple[int, ...]], generator: Generator) -> list[_Clip]:
        """Draw the sound of each clip, and the other sound: of another stretch where the recording has one."""
        i, segment = self.places[place]
        windows = self._windows(i)
        begins = windows.within(segment.start_s, segment.end_s)
        others = [at for at in self.of_recording[i] if at != place] or [place]
        other = self.places[others[int(torch.randint(len(others), (), generator=generator))]][1]
        elsewhere = windows.within(other.start_s, other.end_s)
        clips = []
        for one in times:
            own = drawn(windows.around(float(self.data[i].times[one[0]]), begins), generator)
            clips.append(_Clip(one, own * windows.interval_s, windows.other(own, elsewhere, generator)))
        return clips

    def _sounds(self, i: int, clips: Sequence[_Clip]) -> list[Sample]:
        """Read the sounds of clips of one recording, in one pass for the stretch and one for the other stretch."""
        windows = self._windows(i)
        facts, sound = windows.facts, windows.sound
        read: dict[float, Waveform] = {}
        for starts in ({clip.sound_s for clip in clips}, {clip.other_s for clip in clips}):
            ascending = sorted(starts)
            heard = read_stretches(facts.path, ascending, sound.seconds, sound.rate, facts.origin_s)
            read |= dict(zip(ascending, heard, strict=True))
        return [{"sound": _tensor(read[one.sound_s]), "other_sound": _tensor(read[one.other_s])} for one in clips]


def check_streamed(needs: ClipNeeds) -> None:
    """Refuse methods that learn from more than pictures and sound.

    Raises:
        InputError: The method is one; the message says what it needs.
    """
    lacks = {
        "intrinsics of the camera": needs.intrinsics,
        "poses of the camera": needs.poses,
        "second camera": needs.right,
        "points of structure from motion": needs.points,
        "frames chosen by their motion": not isinstance(needs.picker, Consecutive | Single),
    }
    if missing := [what for what, needed in lacks.items() if needed]:
        raise InputError(
            f"Streams hold pictures and sound, and this method learns from {' and '.join(missing)} too: prepare the "
            "recordings (leave out --stream)."
        )


def _pictured(times: Sequence[int], frames: dict[int, PreparedFrame]) -> Sample:
    return {
        "clip": as_pictures([frames[time][0] for time in times]),
        "valid": as_masks([frames[time][1] for time in times]),
        "frame": torch.tensor(list(times)),
    }


def _tensor(heard: Waveform) -> Tensor:
    return torch.from_numpy(heard)
