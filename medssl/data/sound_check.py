"""What the sound of a video, or of a file of sound, is worth, before anything is learned from it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medssl.data.audio import JITTER_S, NO_SOUND, Piece, audio_stream, decode, video_or_none
from medssl.data.container import open_container, packets

_LEAST_S = 1.0  # of sound that can be learned from
_QUIET_S = 1.0
_SILENCE = 1e-3  # amplitude below which a packet is silent: 60 dB below the loudest
_MOST_SILENT, _MOST_LOST = 0.99, 0.5  # shares from which on sound teaches nothing
_TOLD_SILENT = 0.1  # share
_FRAME_S = 0.04  # what is later or earlier by less goes unnoticed


@dataclass(frozen=True)
class AudioFacts:
    """What is known of a file's sound; times are seconds from the first frame of its video, if it has one.

    Attributes:
        path: The file.
        codec: Of the sound; none where there is no sound.
        rate: Samples per second.
        channels: How many.
        origin_s: When the first frame is shown, in the file's own time.
        start_s: When the sound begins.
        end_s: When it ends.
        video_s: When the last frame is shown; ``None`` without video.
        drift_s: By how much longer the sound lasts by its timestamps, which the video goes by too, than its samples do
            at their rate, gaps left out: above 0 where the clock of the sound was slow.
        gaps: Begin and end of what is missing within it.
        packets: How many.
        lost: Share of the packets that cannot be decoded.
        silent: Share of the decoded sound that is silent.
        quiet: Begin and end of each second or more in which nothing is heard, for silence or for gaps.
    """

    path: Path
    codec: str = ""
    rate: int = 0
    channels: int = 0
    origin_s: float = 0.0
    start_s: float = 0.0
    end_s: float = 0.0
    video_s: float | None = None
    drift_s: float = 0.0
    gaps: tuple[tuple[float, float], ...] = ()
    packets: int = 0
    lost: float = 0.0
    silent: float = 0.0
    quiet: tuple[tuple[float, float], ...] = ()

    @property
    def has_audio(self) -> bool:
        """Whether there is a sound track that could be decoded."""
        return bool(self.codec)

    @property
    def duration_s(self) -> float:
        """From its first sample to its last."""
        return self.end_s - self.start_s

    @property
    def heard_s(self) -> float:
        """Seconds of it that can be decoded."""
        return self.duration_s - sum(end - start for start, end in self.gaps)

    def refusal(self) -> str | None:
        """Why nothing can be learned from it, and what to do; ``None`` where something can."""
        if not self.has_audio:
            return f"{self.path}: {NO_SOUND}"
        if self.lost > _MOST_LOST or self.heard_s <= 0:
            return f"{self.path}: {self._broken()} That is too little to learn from: copy or export the file again."
        if self.heard_s < _LEAST_S:
            return (
                f"{self.path}: its sound lasts {self.heard_s:.2f} s, and at least {_LEAST_S:g} s are expected. Give a "
                "longer recording."
            )
        if self.silent >= _MOST_SILENT:
            return (
                f"{self.path}: its sound is silent ({self.silent:.0%} of {self.heard_s:.1f} s); something is expected "
                "to be heard. Was the microphone on? Leave the recording out, or learn from its pictures alone."
            )
        return None

    def messages(self) -> list[str]:
        """A sentence for each thing amiss, for the user; the file first."""
        if (refusal := self.refusal()) is not None:
            return [refusal]
        late_s = self.start_s
        early_s = 0.0 if self.video_s is None else self.video_s - self.end_s
        slow, quiet = "slow" if self.drift_s > 0 else "fast", _listed(self.quiet) or "a little at a time"
        told = (
            (self.lost > 0, self._broken()),
            (bool(self.gaps), f"its sound has gaps, {_listed(self.gaps)}; silence stands for them."),
            (late_s > _FRAME_S, f"its sound begins {late_s:.2f} s after the first frame; none before is heard."),
            (early_s > _FRAME_S, f"its sound ends {early_s:.2f} s before the last frame; none after is heard."),
            (
                abs(self.drift_s) > _FRAME_S,
                f"the clock of its sound is {slow} by {abs(self.drift_s):.2f} s in {self.heard_s:.0f} s; sound is read "
                "by its timestamps, which puts that right.",
            ),
            (self.silent > _TOLD_SILENT, f"{self.silent:.0%} of its sound is silent, {quiet}."),
        )
        return [f"{self.path}: {message}" for holds, message in told if holds]

    def _broken(self) -> str:
        return (
            f"{round(self.lost * self.packets)} of the {self.packets} packets of its sound ({self.codec}) "
            f"cannot be decoded; what can is {max(self.heard_s, 0):.2f} s, between {self.start_s:.2f} and "
            f"{self.end_s:.2f} s."
        )


def _listed(times: Sequence[tuple[float, float]], most: int = 5) -> str:
    """Name stretches of time, the longest first."""
    longest = sorted(times, key=lambda one: one[0] - one[1])
    more = f" and {len(times) - most} more" if len(times) > most else ""
    return ", ".join(f"{start:.2f} to {end:.2f} s" for start, end in longest[:most]) + more


def scan_audio(path: Path) -> AudioFacts:
    """Listen to the whole of a file's sound once; a packet of it is held.

    Raises:
        InputError: The file cannot be read, or its sound is in a codec that nothing here decodes.
    """
    with open_container(path) as container:
        if not container.streams.audio:
            return AudioFacts(path)
        sound, video, shown, heard = audio_stream(path, container), video_or_none(path, container), _Shown(), _Heard()
        passing = packets(container, [sound] if video is None else [sound, video])
        for piece in decode(shown.watch(passing, sound.index), sound):
            heard.add(piece)
        context = sound.codec_context
        origin_s = heard.start_s if shown.first_s is None else shown.first_s
        return AudioFacts(
            path,
            context.name,
            heard.rate or context.sample_rate,
            context.channels,
            origin_s,
            heard.start_s - origin_s,
            heard.end_s - origin_s,
            None if shown.last_s is None else shown.last_s - origin_s,
            heard.drift_s,
            tuple((start - origin_s, end - origin_s) for start, end in heard.gaps),
            heard.pieces + heard.lost,
            heard.lost / max(1, heard.pieces + heard.lost),
            heard.silent / max(1, heard.samples),
            tuple((start - origin_s, end - origin_s) for start, end in heard.quiet if end - start >= _QUIET_S),
        )


@dataclass
class _Shown:
    """When the first and the last frame are shown, of the packets that pass by, in the file's own time."""

    first_s: float | None = None
    last_s: float | None = None

    def watch(self, passing: Iterator[Any], sound: int) -> Iterator[Any]:
        """Give the packets of the stream of that index alone."""
        for packet in passing:
            if packet.stream.index == sound:
                yield packet
            elif packet.pts is not None and not packet.is_discard:
                shown_s = float(packet.pts * packet.time_base)
                self.first_s = shown_s if self.first_s is None else min(self.first_s, shown_s)
                self.last_s = shown_s if self.last_s is None else max(self.last_s, shown_s)


@dataclass
class _Heard:
    """Adds up what is heard, in the file's own time."""

    rate: int = 0
    start_s: float = 0.0
    end_s: float = 0.0
    drift_s: float = 0.0
    gaps: list[tuple[float, float]] = field(default_factory=list)
    pieces: int = 0
    lost: int = 0
    samples: int = 0
    silent: int = 0
    quiet: list[tuple[float, float]] = field(default_factory=list)

    def add(self, piece: Piece | None) -> None:
        """Count a piece, or ``None`` for one that cannot be decoded."""
        if piece is None:
            self.lost += 1
            return
        step_s = piece.stamp_s - self.end_s
        if not self.pieces:
            self.start_s = piece.stamp_s
        elif abs(step_s) <= JITTER_S:
            self.drift_s += step_s
        elif step_s > 0:
            self.gaps.append((self.end_s, piece.stamp_s))
            self._add_quiet(self.end_s, piece.stamp_s)
        count = len(piece.samples)
        self.rate, self.end_s = piece.rate, piece.stamp_s + count / piece.rate
        self.pieces, self.samples = self.pieces + 1, self.samples + count
        if not count or float(np.abs(piece.samples).max()) < _SILENCE:
            self.silent += count
            self._add_quiet(piece.stamp_s, self.end_s)

    def _add_quiet(self, start_s: float, end_s: float) -> None:
        """Prolong the last quiet stretch, or begin another; a short one that ended is forgotten."""
        if self.quiet and start_s - self.quiet[-1][1] <= JITTER_S:
            start_s = self.quiet.pop()[0]
        elif self.quiet and self.quiet[-1][1] - self.quiet[-1][0] < _QUIET_S:
            self.quiet.pop()
        self.quiet.append((start_s, end_s))
