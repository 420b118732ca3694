"""Recordings read straight from their videos, one stretch at a time; nothing of them is written.

A video is cut at its key frames, so that no packet is needed for two stretches; one is decoded at a time, and few of
its frames are kept. So hours of video take no more memory than minutes.
"""

from collections.abc import Container, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medssl.data.cohort import Refused, each, or_refused
from medssl.data.footage import Footage, inspect
from medssl.data.prepare_recordings import Sight, chosen_frames, in_order, sights
from medssl.data.prepared_recordings import RecordingPreparation
from medssl.data.recordings import find_sequences
from medssl.data.sequence import Frames, VideoSequence
from medssl.data.sound_check import AudioFacts, scan_audio
from medssl.data.video import VideoFrames
from medssl.errors import InputError
from medssl.files import value_hash

_UNKNOWN_RATE = 25.0  # frames per second, of frames that tell no time
_LONG_S = 30.0  # between key frames, from which on a sample takes long to decode
_UNEVEN = 0.25  # of the time between most frames, by which another time differs
_UNEVEN_SHARE = 0.01  # of the frames, from which on the rate counts as varying

PreparedFrame = tuple[NDArray[np.uint8], NDArray[np.bool_]]


@dataclass(frozen=True, eq=False)
class StreamedRecording:
    """One recording, as it is read.

    Attributes:
        sequence: Where its frames are.
        chosen: Which of them are taken.
        sight: What they become.
        times: When each is shown, (N,), seconds from the first.
        interval_s: Seconds from a frame to the next, of most frames of the video; not only of those chosen.
        sound: What is known of its sound, where it was asked for.
    """

    sequence: VideoSequence
    chosen: range
    sight: Sight
    times: NDArray[np.float64]
    interval_s: float
    sound: AudioFacts | None = None


@dataclass(frozen=True)
class Segment:
    """A stretch of a recording that is decoded in one go.

    Attributes:
        first: Its first frame.
        stop: The frame after its last one.
        start_s: When it begins, seconds from the first frame of the recording.
        end_s: When it ends.
    """

    first: int
    stop: int
    start_s: float
    end_s: float


class StreamedRecordings:
    """Recordings that are streamed; cheap to pickle and to send to loader workers (no file is open).

    Making it reads through each file once, and decodes some frames of each to find an endoscope's field of view.

    Args:
        sources: Recordings, or what ``medssl.data.recordings.find_sequences`` finds them in. Of two cameras, the first
            one's pictures are read.
        preparation: How pictures become what a network sees.
        sound: Listen to them, and leave out those whose sound teaches nothing.
        jobs: Processes that look at the files; -1 is one per core.
        progress: A bar; by default on a terminal only.

    Attributes:
        preparation: As given.
        refused: Recordings that cannot be used, and why.
        notes: What to know of the others.

    Raises:
        InputError: No recording can be used.
    """

    def __init__(
        self,
        sources: Sequence[VideoSequence | Path],
        preparation: RecordingPreparation = RecordingPreparation(),
        sound: bool = False,
        jobs: int = 1,
        progress: bool | None = None,
    ) -> None:
        found = [
            one for source in sources for one in (find_sequences(source) if isinstance(source, Path) else [source])
        ]
        sequences = in_order(found)
        opened = each(_opened, [(one, preparation, sound) for one in sequences], "looking at", jobs, progress)
        self.preparation = preparation
        self.refused = tuple(one for one in opened if isinstance(one, Refused))
        self._recordings = [one for one in opened if isinstance(one, StreamedRecording)]
        if not self._recordings:
            told = [one.reason for one in self.refused[:5]]
            several = f"None of the {len(sequences)} recordings can be used:"
            raise InputError(told[0] if len(sequences) == 1 else "\n  ".join([several, *told]))
        self.notes = tuple(note for one in self._recordings for note in _notes(one))

    @property
    def names(self) -> tuple[str, ...]:
        """The recordings' names, in order of index."""
        return tuple(one.sequence.name for one in self._recordings)

    @property
    def subjects(self) -> tuple[str, ...]:
        """The subject of every recording, in order of index."""
        return tuple(one.sequence.subject for one in self._recordings)

    @property
    def channels(self) -> int:
        """Of every frame: red, green and blue."""
        return 3

    @cached_property
    def fingerprint(self) -> str:
        """A hash of which recordings these are, when their frames are shown, and how they are prepared; 16 hex digits.

        What the files hold is known by their sizes and their frames' times: reading hours of video for it takes long.
        """
        known = [
            [
                one.sequence.name,
                one.sequence.subject,
                [path.stat().st_size for path in one.sequence.frames.files],
                value_hash(np.nan_to_num(one.sequence.frames.times).tolist()),
            ]
            for one in self._recordings
        ]
        return value_hash([self.preparation.to_dict(), known])

    def __len__(self) -> int:
        """The number of recordings."""
        return len(self._recordings)

    def __getitem__(self, i: int) -> StreamedRecording:
        """Recording ``i``."""
        return self._recordings[i]

    def select(self, subjects: Iterable[str]) -> "StreamedRecordings":
        """A view of the recordings of some subjects.

        Raises:
            InputError: A subject has no recording here.
        """
        wanted = set(subjects)
        if unknown := sorted(wanted - set(self.subjects)):
            raise InputError(
                f"There is no recording of {', '.join(unknown)} that can be used; the subjects are "
                f"{', '.join(sorted(set(self.subjects)))}."
            )
        view = copy(self)
        view._recordings = [one for one in self._recordings if one.sequence.subject in wanted]
        vars(view).pop("fingerprint", None)  # it is of the recordings that there were
        return view

    def frames(self, i: int) -> int:
        """The number of frames of recording ``i``."""
        return len(self._recordings[i].chosen)

    def table(self) -> str:
        """What became of every recording, as text."""
        lines = [
            f"{len(self)} recordings can be streamed, {len(self.refused)} cannot",
            *(f"  refused: {one.reason}" for one in self.refused),
            *(f"  note: {note}" for note in self.notes),
        ]
        return "\n".join(lines)

    def segments(self, i: int, least_s: float, least_frames: int = 1) -> list[Segment]:
        """Cut recording ``i`` at its key frames into stretches of at least so many seconds and frames.

        A recording that is shorter is one stretch.
        """
        one = self._recordings[i]
        times, count, begins = one.times, len(one.chosen), [0]
        for place in _boundaries(one):
            long_enough = times[place] - times[begins[-1]] >= least_s - one.interval_s / 2
            if long_enough and place - begins[-1] >= least_frames:
                begins.append(place)
        short = times[-1] + one.interval_s - times[begins[-1]] < least_s or count - begins[-1] < least_frames
        if short and len(begins) > 1:
            begins.pop()
        ends = [*begins[1:], count]
        ends_s = [*(float(times[end]) for end in ends[:-1]), float(times[-1]) + one.interval_s]
        return [
            Segment(first, stop, float(times[first]), end_s)
            for first, stop, end_s in zip(begins, ends, ends_s, strict=True)
        ]

    def read(self, i: int, places: Sequence[int], wanted: Container[int]) -> tuple[dict[int, PreparedFrame], Footage]:
        """Look at frames of a stretch, ascending, in one pass.

        Returns:
            Those that are wanted, prepared; and what all of them are like.
        """
        looked = _Pass(self._recordings[i], places, wanted)
        footage = inspect(looked)
        return looked.kept, footage


class _Pass:
    """Frames as a reader of footage wants them, which looks at each once; those wanted are kept.

    Args:
        recording: Whose they are.
        places: Which frames, ascending.
        wanted: Which are kept.
    """

    def __init__(self, recording: StreamedRecording, places: Sequence[int], wanted: Container[int]) -> None:
        self.recording, self.wanted = recording, wanted
        self.places = [int(place) for place in places]
        self.numbers = [recording.chosen[place] for place in self.places]  # among all frames of the video
        self.kept: dict[int, PreparedFrame] = {}

    @property
    def size(self) -> tuple[int, int]:
        return self.recording.sequence.frames.size

    @property
    def times(self) -> NDArray[np.float64]:
        return self.recording.times[self.places]

    @property
    def files(self) -> tuple[Path, ...]:
        return self.recording.sequence.frames.files

    @property
    def damaged(self) -> tuple[int, ...]:
        spoiled = set(self.recording.sequence.frames.damaged)
        return tuple(n for n, number in enumerate(self.numbers) if number in spoiled)

    def __len__(self) -> int:
        return len(self.places)

    def read(self, indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        wanted = {number for place, number in zip(self.places, self.numbers, strict=True) if place in self.wanted}
        looked = _look(self.recording.sequence.frames, self.numbers, wanted)
        for place, (small, picture) in zip(self.places, looked, strict=True):
            if picture is not None:
                self.kept[place] = self.recording.sight.prepared(picture)
            yield small


def _look(
    frames: Frames, numbers: Sequence[int], wanted: Container[int]
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8] | None]]:
    """Give each frame, small where that is cheaper, and those that are wanted as they are."""
    if isinstance(frames, VideoFrames):
        yield from frames.look(numbers, wanted)
    else:
        for number, frame in zip(numbers, frames.read(numbers), strict=True):
            yield frame, frame if number in wanted else None


def _opened(one: VideoSequence, preparation: RecordingPreparation, sound: bool) -> StreamedRecording | Refused:
    """Look at a recording, and say where it cannot be used."""
    return or_refused(one.name, one.subject, lambda: _open(one, preparation, sound))


def _open(one: VideoSequence, preparation: RecordingPreparation, sound: bool) -> StreamedRecording:
    chosen = chosen_frames(one, preparation)
    facts = _heard(one) if sound else None
    known = one.frames.times
    times = known if np.isfinite(known).all() else np.arange(len(known)) / _UNKNOWN_RATE
    interval_s = float(np.median(np.diff(times))) if len(times) > 1 else 1 / _UNKNOWN_RATE
    sight, _ = sights(one, preparation, chosen)
    return StreamedRecording(one, chosen, sight, times[list(chosen)], interval_s, facts)


def _heard(one: VideoSequence) -> AudioFacts:
    """Listen to a recording.

    Raises:
        InputError: Its sound teaches nothing.
    """
    if not isinstance(one.frames, VideoFrames):
        raise InputError(f"{one.frames.files[0]}: is no video with a sound track, and this method learns from sound.")
    facts = scan_audio(one.frames.path)
    if (refusal := facts.refusal()) is not None:
        raise InputError(refusal)
    return facts


def _boundaries(one: StreamedRecording) -> list[int]:
    """Frames at which decoding can begin, ascending, without the first one."""
    if not isinstance(one.sequence.frames, VideoFrames):
        return list(range(1, len(one.chosen)))
    track = one.sequence.frames.track
    keys = np.searchsorted(track.ticks, track.key_ticks)
    places = -(-keys // one.chosen.step)
    return [int(place) for place in np.unique(places) if 0 < place < len(one.chosen)]


def _notes(one: StreamedRecording) -> list[str]:
    """What to know of a recording that is used."""
    begins = [0, *_boundaries(one), len(one.chosen) - 1]
    longest_s = float(np.diff(one.times[begins]).max())
    notes = [] if one.sound is None else one.sound.messages()
    apart_s = np.diff(one.sequence.frames.times)
    if (np.abs(apart_s - one.interval_s) > _UNEVEN * one.interval_s).mean() > _UNEVEN_SHARE:
        notes.append(
            f"{one.sequence.frames.files[0]}: its frames are {apart_s.min():.3f} to {apart_s.max():.3f} s apart, "
            f"{one.interval_s:.3f} s most of them. Clips count frames, and sound goes by their times."
        )
    if longest_s > _LONG_S:
        notes.append(
            f"{one.sequence.frames.files[0]}: its key frames are up to {longest_s:.0f} s apart, and as much is decoded "
            "for each sample. With a key frame every 2 s it streams faster (ffmpeg -force_key_frames "
            "'expr:gte(t,n_forced*2)')."
        )
    return notes
