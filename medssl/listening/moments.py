"""A video as a method of sound and sight sees and hears it, moment by moment; numbers and a few thumbnails are kept."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from medssl.methods.audio_visual import AudioVisual
from medssl.spectrogram import log_spectrogram

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Streamed = tuple[float, Bytes, Floats]
"""Seconds, frame (H, W, 3) and sound (N,), as ``medssl.data.sight_and_sound.stream_with_sound`` gives them."""

_APART_S = 2.0  # from a moment to one whose sound is another
_SILENT = 1e-5  # amplitude that loudness ends at: -100 dB
_THUMBNAIL_PIXELS = 128  # longest side, at most


class Shown(NamedTuple):
    """One moment: the frame (H, W, 3), where its sound comes from (h, w), 0 to 1, and whether it is its own."""

    time_s: float
    frame: Bytes
    heat: Floats
    probability: float


@dataclass(frozen=True)
class Moments:
    """What was made of the n moments of a video; each takes about 2 kB.

    Attributes:
        times_s: (n,), seconds from the first frame.
        odds: (n,), log-odds that picture and sound belong together.
        other_odds: (n,), the same with the sound of an earlier moment of the video; NaN where there is none.
        heat: (n, h, w), where the sound comes from, 0 to 1.
        image: (n, D), embeddings of the pictures.
        sound: (n, D), of the sounds.
        loudness_db: (n,), of the sound; 0 is the loudest that a file can hold.
    """

    times_s: NDArray[np.float64]
    odds: Floats
    other_odds: Floats
    heat: NDArray[np.float16]
    image: Floats
    sound: Floats
    loudness_db: Floats

    def __len__(self) -> int:
        """Count the moments."""
        return len(self.times_s)

    @property
    def probability(self) -> Floats:
        """How probable it is that picture and sound belong together, (n,), 0 to 1."""
        return np.asarray(1 / (1 + np.exp(-self.odds)))

    @property
    def peaks(self) -> NDArray[np.float64]:
        """Where the heat is highest, (n, 2): x and y as shares of the picture's width and height."""
        height, width = self.heat.shape[1:]
        best = self.heat.reshape(len(self), -1).argmax(1)
        return np.stack([(best % width + 0.5) / width, (best // width + 0.5) / height], axis=1)


@dataclass
class Record:
    """What is kept of a video while it passes by.

    Thumbnails are of moments evenly apart, however many there will be: when they are too many, every other one goes.

    Args:
        most: Thumbnails that are kept, at most.

    Attributes:
        places: Of the thumbnails: which of the moments.
        frames: (h, w, 3) each, as seen.
        spectrograms: (F, T) each, low frequencies first; 255 is a sine that fills a file's range.
    """

    most: int = 200
    places: list[int] = field(default_factory=list)
    frames: list[Bytes] = field(default_factory=list)
    spectrograms: list[Bytes] = field(default_factory=list)
    _parts: list[dict[str, NDArray[Any]]] = field(default_factory=list)
    _count: int = 0
    _every: int = 1

    def moments(self) -> Moments:
        """The numbers of all moments that passed, at least one."""
        return Moments(**{name: np.concatenate([part[name] for part in self._parts]) for name in self._parts[0]})

    def add(self, numbers: dict[str, NDArray[Any]], frames: Iterable[Bytes], spectrograms: Iterable[Bytes]) -> None:
        """Keep the numbers of some moments, and some of their frames (H, W, 3) and spectrograms (F, T)."""
        self._parts.append(numbers)
        for frame, spectrogram in zip(frames, spectrograms, strict=True):
            if self._count % self._every == 0:
                step = -(-max(frame.shape[:2]) // _THUMBNAIL_PIXELS)
                self.places.append(self._count)
                self.frames.append(frame[::step, ::step].copy())
                self.spectrograms.append(spectrogram)
            self._count += 1
            if len(self.places) > self.most:
                self._every *= 2
                for kept in (self.places, self.frames, self.spectrograms):
                    del kept[1::2]


@dataclass(frozen=True)
class Listener:
    """A method, and how it is run; it holds one batch of moments, however long the video.

    Args:
        method: In evaluation, on its device.
        precision: float32, or the 16-bit type that the networks compute in.
        batch_size: Moments at once.
    """

    method: AudioVisual
    precision: torch.dtype = torch.float32
    batch_size: int = 8

    def through(self, stream: Iterable[Streamed], record: Record) -> Iterator[Shown]:
        """See and hear a video, ascending in time, and give each moment again with what was made of it."""
        past, rest = _Past(), iter(stream)
        while some := list(islice(rest, self.batch_size)):
            times_s, frames, sounds = (np.stack(values) for values in zip(*some, strict=True))
            numbers, spectrograms = self._numbers(times_s, frames, sounds, past)
            record.add(numbers, frames, spectrograms)
            for time_s, frame, heat, odds in zip(times_s, frames, numbers["heat"], numbers["odds"], strict=True):
                yield Shown(float(time_s), frame, heat.astype(np.float32), float(1 / (1 + np.exp(-odds))))

    @torch.no_grad()
    def _numbers(
        self, times_s: NDArray[np.float64], frames: Bytes, sounds: Floats, past: "_Past"
    ) -> tuple[dict[str, NDArray[Any]], Bytes]:
        """What ``Moments`` holds, and the spectrograms (B, F, T)."""
        method, device = self.method, next(self.method.parameters()).device
        image = torch.from_numpy(frames).to(device).permute(0, 3, 1, 2).float() / 255
        sound = torch.from_numpy(sounds).to(device)
        with torch.autocast(device.type, self.precision, enabled=self.precision != torch.float32):
            seen, heard = method.see(image), method.hear(sound)
        seen, heard = seen.float(), heard.float()
        others, known = past.earlier(times_s, heard)
        found = {
            "odds": method.odds(seen, heard),
            "other_odds": method.odds(seen, others).masked_fill(~known, torch.nan),
            "heat": method.heat(seen, heard)[:, 0].half(),
            "image": method.embed_seen(seen),
            "sound": F.normalize(heard, dim=1),
        }
        numbers: dict[str, NDArray[Any]] = {name: values.cpu().numpy() for name, values in found.items()}
        amplitude = np.sqrt(np.square(sounds, dtype=np.float64).mean(1))
        numbers |= {"times_s": times_s, "loudness_db": 20 * np.log10(np.maximum(amplitude, _SILENT)).astype(np.float32)}
        return numbers, (255 * log_spectrogram(sound, method.window)[:, 0].clamp(0, 1)).byte().cpu().numpy()


class _Past:
    """What was heard so far."""

    def __init__(self) -> None:
        self.times_s, self.heard = np.zeros(0), torch.zeros(0)
        self.random = np.random.default_rng(0)

    def earlier(self, times_s: NDArray[np.float64], heard: Tensor) -> tuple[Tensor, Tensor]:
        """Add what is heard (B, D), and draw for each time what was heard long before it, and whether there is such."""
        self.times_s = np.concatenate([self.times_s, times_s])
        self.heard = torch.cat([self.heard.to(heard), heard]) if len(self.heard) else heard
        counts = np.searchsorted(self.times_s, times_s - _APART_S, side="right")
        drawn = (self.random.random(len(times_s)) * counts).astype(np.int64)
        return self.heard[torch.from_numpy(drawn)], torch.from_numpy(counts > 0).to(heard.device)
