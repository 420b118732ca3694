"""A video of things of several kinds over a moving ground, of which some sound: its pictures, sound and truth."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medssl.errors import InputError
from sample_data.painting import (
    FRAME_RATE,
    SUBPIXELS,
    Floats,
    Light,
    Swing,
    Texture,
    developed,
    pixel_centres,
    rotated,
)
from sample_data.shapes import ground
from sample_data.sounding import KINDS, RATE, Kind

_PER_FRAME = RATE // FRAME_RATE
_LEVEL = 0.15  # power of the loudest sound, as a share of what a file can hold
_RADIUS, _DRIFT = 0.15, 0.03  # of a thing and of its way, shares of the picture's shorter side
_GROUND_BENDS = 0.1
_TRIES = 300  # to place things far from one another


@dataclass(frozen=True)
class Thing:
    """One thing of a video.

    Attributes:
        kind: What it is.
        sounding: Whether it is heard.
        x: Of its middle, pixels, over time.
        y: Of its middle.
        angle: Radians.
        radius: Of the circle that holds it, pixels.
        grain: Its texture.
        activity: For each sample of the sound, (n,), 0 to 1.
        worked: The activity summed up to each sample, seconds.
        carrier: Its sound before it is made louder and softer, (n,).
    """

    kind: Kind
    sounding: bool
    x: Swing
    y: Swing
    angle: Swing
    radius: float
    grain: Texture
    activity: Floats
    worked: Floats
    carrier: Floats


class SoundingScene:
    """Things of different kinds, of which the first few sound, and the others rest.

    Args:
        height: Of the picture, pixels.
        width: Of the picture, pixels.
        seconds: How long the video is.
        seed: Of everything.
        objects: How many things, each of another kind.
        sounding: How many of them sound.
        busy: Whether those that do not sound move as if they did.

    Raises:
        InputError: A number is out of its range.
    """

    def __init__(
        self,
        height: int = 256,
        width: int = 256,
        seconds: float = 6.0,
        seed: int = 0,
        objects: int = 3,
        sounding: int = 1,
        busy: bool = False,
    ) -> None:
        _check(height, width, seconds, objects, sounding)
        self.height, self.width, self.seed = height, width, seed
        self.frames = round(seconds * FRAME_RATE)
        random = np.random.default_rng((seed, 0))
        self.light = Light(random, height, width)
        self.ground = ground(random, height, width, _GROUND_BENDS)
        kinds = random.permutation(len(KINDS))[:objects]
        places = _apart(random, height, width, objects)
        order = random.permutation(objects)  # so that object 1 is not always the one that sounds
        loud = set(order[:sounding].tolist())
        self.things = [
            self._thing(random, KINDS[kind], place, number in loud, busy)
            for number, (kind, place) in enumerate(zip(kinds, places, strict=True))
        ]

    def render(self, frame: int, random: np.random.Generator, noise: float = 2.0) -> NDArray[np.uint8]:
        """Take a picture (H, W, 3); ``random`` draws the sensor's noise, of ``noise`` grey levels."""
        centres = pixel_centres(self.height, self.width)
        colours = np.mean([self._painted(centres + shift, frame)[1] for shift in SUBPIXELS], axis=0)
        return developed(colours, self.height, self.width, noise, random)

    def mask(self, frame: int) -> NDArray[np.uint8]:
        """The number, from 1, of the thing that each pixel's centre shows if it sounds in this video, or 0, (H, W)."""
        front, _ = self._painted(pixel_centres(self.height, self.width), frame)
        sounding = np.array([False, *(thing.sounding for thing in self.things)])
        return np.where(sounding[front], front, 0).reshape(self.height, self.width).astype(np.uint8)

    def sound(self, offset_s: float = 0.0) -> Floats:
        """What is heard, (n,), -1 to 1; ``offset_s`` later than it is seen, and nothing before."""
        count = self.frames * _PER_FRAME
        heard = np.zeros(count)
        for thing in self.things:
            if thing.sounding:
                heard += _LEVEL * thing.activity * thing.carrier
        late = min(round(offset_s * RATE), count)
        return np.concatenate([np.zeros(late), heard[: count - late]])

    def truth(self) -> pd.DataFrame:
        """A row for each frame and thing: where it is and how loud the motion that is seen sounds."""
        rows = []
        for frame in range(self.frames):
            time_s = frame / FRAME_RATE
            for number, thing in enumerate(self.things, start=1):
                x, y, radius = round(thing.x(time_s), 4), round(thing.y(time_s), 4), round(thing.radius, 4)
                loudness = thing.activity[frame * _PER_FRAME] if thing.sounding else 0.0
                shown = (number, thing.kind.name, int(thing.sounding), x, y, radius, round(float(loudness), 6))
                rows.append((frame, time_s, *shown))
        columns = ["frame", "time", "object", "kind", "sounding", "x", "y", "radius", "loudness"]
        return pd.DataFrame(rows, columns=columns)

    def _painted(self, pixels: Floats, frame: int) -> tuple[NDArray[np.int64], Floats]:
        """The number of the thing (N,) at pixels (N, 2), 0 for none, and the colours (N, 3) there, lit."""
        time_s, sample = frame / FRAME_RATE, frame * _PER_FRAME
        material = self.ground.to_material(pixels, time_s)
        colours = self.ground.look(material, np.zeros(len(pixels)))
        front = np.zeros(len(pixels), dtype=np.int64)
        for number, thing in enumerate(self.things, start=1):
            centred = (pixels - [thing.x(time_s), thing.y(time_s)]) / thing.radius
            near = np.flatnonzero((centred**2).sum(axis=1) < 1)
            points = rotated(centred[near], -thing.angle(time_s))
            inside, painted = thing.kind.paint(points, float(thing.activity[sample]), float(thing.worked[sample]))
            grain = 1 + 0.08 * thing.grain(points[inside])
            colours[near[inside]] = painted[inside] * grain[:, None]
            front[near[inside]] = number
        return front, colours * self.light(pixels, time_s)

    def _thing(self, random: np.random.Generator, kind: Kind, place: Floats, sounding: bool, busy: bool) -> Thing:
        size = min(self.height, self.width)
        times = np.arange(self.frames * _PER_FRAME) / RATE
        activity = kind.activity(times, random)
        if not (sounding or busy):
            activity = np.zeros_like(activity)
        return Thing(
            kind,
            sounding,
            x=Swing.drawn(random, place[0], _DRIFT * size),
            y=Swing.drawn(random, place[1], _DRIFT * size),
            angle=Swing.drawn(random, random.uniform(0, 2 * np.pi), 0.25),
            radius=_RADIUS * size * random.uniform(0.9, 1.0),
            grain=Texture(random, 0.25, 0.8),
            activity=activity,
            worked=np.cumsum(activity) / RATE,
            carrier=kind.carrier(activity, random),
        )


def _apart(random: np.random.Generator, height: int, width: int, count: int) -> Floats:
    """Draw places (count, 2) in the picture that are far from one another, and from its edge."""
    edge = (_RADIUS + _DRIFT) * min(height, width)
    drawn = random.uniform([edge, edge], [width - 1 - edge, height - 1 - edge], (_TRIES, count, 2))
    distance = np.linalg.norm(drawn[:, :, None] - drawn[:, None], axis=-1)
    closest = (distance + 2 * np.hypot(height, width) * np.eye(count)).min(axis=(1, 2))
    far = np.flatnonzero(closest > 2 * edge)
    return np.asarray(drawn[far[0] if len(far) else closest.argmax()])


def _check(height: int, width: int, seconds: float, objects: int, sounding: int) -> None:
    if min(height, width) < 32:
        raise InputError(f"Pictures of {width}x{height} were asked for; at least 32x32 can show the things.")
    if not seconds * FRAME_RATE >= 2:
        raise InputError(f"seconds is the length of a video, at least {2 / FRAME_RATE}; got {seconds:g}.")
    if not 2 <= objects <= len(KINDS):
        raise InputError(f"objects is from 2 to {len(KINDS)}, one of each kind at most; got {objects}.")
    if not 0 <= sounding <= 2 or sounding > objects:
        raise InputError(f"sounding is how many objects sound, 0 to 2; got {sounding}.")
