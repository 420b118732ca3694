"""Kinds of things that sound as they move: each has a look and a timbre, and is as loud as it is active.

Coordinates are in radii: a thing lies within the unit circle around its middle, which always belongs to it.
"""

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from sample_data.painting import Floats, rotated

RATE = 48_000  # samples a second
_STROKES_HZ, _STROKE = 4.0, 0.3  # of the saw, and how far its blade goes
_TURNS_HZ = 3.0  # of the drill at its fastest; a frame shows at most 0.12 turns of it, which three flutes tell apart
_SWELLING = 0.35  # of the vessel, share of its radius
_OPENING = 0.55  # of the clip applier's jaws, radians each
_SHUTTING_S, _OPENING_S = 0.06, 0.15
_STEEL = np.array([0.72, 0.75, 0.79])
_DARK = np.array([0.22, 0.24, 0.30])
_GOLD = np.array([0.80, 0.62, 0.25])
_BLUE = np.array([0.30, 0.42, 0.62])
_VESSEL_WALL = np.array([0.45, 0.08, 0.10])
_LUMEN = np.array([0.86, 0.22, 0.20])


class Kind(ABC):
    """What is common to things of a kind."""

    name: str

    @abstractmethod
    def activity(self, times_s: Floats, random: np.random.Generator) -> Floats:
        """How active a thing is, (n,), 0 to 1: this moves it, and this is how loud it is."""

    @abstractmethod
    def carrier(self, activity: Floats, random: np.random.Generator) -> Floats:
        """Its sound (n,) before it is made louder and softer, of power 1; its pitch may follow the activity."""

    @abstractmethod
    def paint(self, points: Floats, activity: float, worked: float) -> tuple[NDArray[np.bool_], Floats]:
        """Which points (N, 2) belong to the thing, and their colours (N, 3).

        Args:
            points: In radii of the thing.
            activity: At this time.
            worked: The activity so far, summed up over time, seconds.
        """


class Saw(Kind):
    """A blade that goes to and fro, and buzzes."""

    name = "saw"

    def activity(self, times_s: Floats, random: np.random.Generator) -> Floats:
        """Work, with pauses."""
        return _bursts(times_s, random)

    def carrier(self, activity: Floats, random: np.random.Generator) -> Floats:
        """Harmonics of one pitch between 1.2 and 4 kHz."""
        pitch = random.uniform(130, 170)
        orders = np.arange(np.ceil(1200 / pitch), 4000 // pitch)
        phases = 2 * np.pi * pitch * np.arange(len(activity)) / RATE
        sound = np.zeros(len(activity))
        for order in orders:
            sound += np.cos(order * phases + random.uniform(0, 6))
        return _of_power_one(sound)

    def paint(self, points: Floats, activity: float, worked: float) -> tuple[NDArray[np.bool_], Floats]:
        """A toothed blade in a handle."""
        x, y = points.T
        along = x - _STROKE * activity * np.sin(2 * np.pi * _STROKES_HZ * worked)
        teeth = 0.16 + 0.12 * np.abs((5 * along) % 1 - 0.5) * 2
        blade = (along > -0.5) & (along < 0.62) & (y > -0.16) & (y < teeth)
        handle = (np.abs(x + 0.6) < 0.34) & (np.abs(y) < 0.27)
        return blade | handle, np.where(handle[:, None], _DARK, _STEEL)


class Drill(Kind):
    """A head that turns, and whines the higher the faster."""

    name = "drill"

    def activity(self, times_s: Floats, random: np.random.Generator) -> Floats:
        """Work, with pauses."""
        return _bursts(times_s, random)

    def carrier(self, activity: Floats, random: np.random.Generator) -> Floats:
        """A pitch between 450 and 950 Hz that follows the turning, and its octave."""
        phases = 2 * np.pi * np.cumsum(450 + random.uniform(400, 500) * activity) / RATE
        return _of_power_one(np.cos(phases) + 0.3 * np.cos(2 * phases))

    def paint(self, points: Floats, activity: float, worked: float) -> tuple[NDArray[np.bool_], Floats]:
        """A disc with three flutes."""
        x, y = rotated(points, -2 * np.pi * _TURNS_HZ * worked).T
        distance = np.hypot(x, y)
        flute = (np.cos(3 * np.arctan2(y, x) + 2.0 * distance) > 0.25) & (distance > 0.2)
        return distance < 0.9, np.where((flute | (distance > 0.8))[:, None], _DARK, _GOLD)


class Vessel(Kind):
    """An artery that swells with each beat, and whooshes."""

    name = "vessel"

    def activity(self, times_s: Floats, random: np.random.Generator) -> Floats:
        """Beats that rise fast and ebb."""
        period = random.uniform(0.6, 0.9)
        phase = ((times_s + random.uniform(0, period)) % period) / period
        beat: Floats = np.minimum(phase / 0.12, 1) * np.exp(-4 * np.maximum(phase - 0.12, 0))
        return beat * np.minimum((1 - phase) / 0.1, 1)

    def carrier(self, activity: Floats, random: np.random.Generator) -> Floats:
        """Noise between 80 and 350 Hz."""
        return _noise(len(activity), 80, random.uniform(300, 350), random)

    def paint(self, points: Floats, activity: float, worked: float) -> tuple[NDArray[np.bool_], Floats]:
        """A cross-section: a wall around a lumen."""
        distance = np.hypot(*points.T) / (0.65 * (1 + _SWELLING * activity))
        return distance < 1, np.where((distance < 0.7)[:, None], _LUMEN, _VESSEL_WALL)


class ClipApplier(Kind):
    """Jaws that snap shut with a click and open slowly."""

    name = "clip_applier"

    def activity(self, times_s: Floats, random: np.random.Generator) -> Floats:
        """A snap now and then: fast shut, then opening."""
        gaps = random.uniform(0.45, 1.0, 3 + int(times_s[-1] / 0.45))
        snaps = np.concatenate([[-10.0], random.uniform(0.05, 0.5) + np.cumsum(gaps) - gaps[0]])
        since = times_s - snaps[np.searchsorted(snaps, times_s, side="right") - 1]
        to_next = snaps[np.searchsorted(snaps, times_s, side="right")] - times_s
        return np.asarray(np.maximum(np.exp(-since / _OPENING_S), 1 - np.minimum(to_next / _SHUTTING_S, 1)))

    def carrier(self, activity: Floats, random: np.random.Generator) -> Floats:
        """Noise between 5 and 10 kHz."""
        return _noise(len(activity), random.uniform(5000, 6000), 10_000, random)

    def paint(self, points: Floats, activity: float, worked: float) -> tuple[NDArray[np.bool_], Floats]:
        """Two jaws that meet at a pivot, and a shaft."""
        upper, lower = (rotated(points, side * _OPENING * (1 - activity)) for side in (1, -1))
        jaw = np.zeros(len(points), dtype=bool)
        for (x, y), side in ((upper.T, -1), (lower.T, 1)):
            jaw |= (x > -0.05) & (x < 0.92) & (side * y > -0.02) & (side * y < 0.2 - 0.1 * x)
        shaft = (points[:, 0] > -0.95) & (points[:, 0] < 0) & (np.abs(points[:, 1]) < 0.13)
        pivot = np.hypot(*points.T) < 0.22
        return jaw | shaft | pivot, np.where((shaft | pivot)[:, None], _BLUE, _STEEL)


KINDS: tuple[Kind, ...] = (Saw(), Drill(), Vessel(), ClipApplier())


def _bursts(times_s: Floats, random: np.random.Generator) -> Floats:
    """A smooth function, 0 to 1, that is 0 for a while now and then."""
    periods, phases = random.uniform(0.7, 2.6, 3), random.uniform(0, 2 * np.pi, 3)
    swing = np.sin(2 * np.pi * np.divide.outer(times_s, periods) + phases).sum(axis=1)
    share = np.clip(0.45 + 0.45 * swing, 0, 1)
    return np.asarray(share * share * (3 - 2 * share))


def _noise(count: int, lowest_hz: float, highest_hz: float, random: np.random.Generator) -> Floats:
    """Noise (n,) around a band, of power 1 at all times: its phase alone is random, so that loudness is exact."""
    frequency = np.fft.fftfreq(count, 1 / RATE)
    spectrum = np.fft.fft(random.standard_normal(count))
    spectrum[(frequency < lowest_hz) | (frequency > highest_hz)] = 0  # no negative ones: an analytic signal
    return np.asarray(np.sqrt(2) * np.cos(np.angle(np.fft.ifft(spectrum))))


def _of_power_one(sound: Floats) -> Floats:
    return np.asarray(sound / np.sqrt(np.mean(sound**2)))
