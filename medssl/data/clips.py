"""Clips of prepared recordings, each a pure function of (seed, sample number), as crops of scans are."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator

from medssl.data.crops import Samples, seed_of
from medssl.data.prepared_recordings import PreparedRecordings
from medssl.data.recording_store import Geometry, read_geometry
from medssl.data.sparse_points import shown_points, sparse_maps
from medssl.errors import InputError
from medssl.method import Pretext
from medssl.sample import Sample

logger = logging.getLogger(__name__)


class FramePicker(ABC):
    """Chooses which frames make a clip."""

    @abstractmethod
    def starts(self, frames: int, geometry: Geometry) -> NDArray[np.int64]:
        """Frames around which a clip can be taken, ascending; none where the recording has no such clip."""

    @abstractmethod
    def pick(self, start: int, frames: int, geometry: Geometry, generator: Generator) -> tuple[int, ...]:
        """The frames of one clip, the one that is learnt on first."""


@dataclass(frozen=True)
class Neighbours(FramePicker):
    """A frame, and one on each side (or one after it) that the camera has moved to.

    A static pair teaches nothing, so a neighbour is the nearest frame that the picture has moved to by ``motion``, at
    most ``farthest`` frames away and in the same scene.

    Args:
        motion: Share of the picture's longer side; 0 takes the next frame.
        farthest: Frames.
        before: Take the frame before too.
    """

    motion: float = 0.01
    farthest: int = 10
    before: bool = True

    def starts(self, frames: int, geometry: Geometry) -> NDArray[np.int64]:
        """Frames that have a neighbour on each side that is asked for."""
        sides = (-1, 1) if self.before else (1,)
        found = [t for t in range(frames) if all(self._neighbour(t, side, geometry) is not None for side in sides)]
        return np.array(found, dtype=np.int64)

    def pick(self, start: int, frames: int, geometry: Geometry, generator: Generator) -> tuple[int, ...]:
        """(start, before, after) or (start, after)."""
        picked = [self._neighbour(start, side, geometry) for side in ((-1, 1) if self.before else (1,))]
        return start, *(t for t in picked if t is not None)

    def _neighbour(self, t: int, side: int, geometry: Geometry) -> int | None:
        """The nearest usable frame before (-1) or after (1) that the picture has moved far enough to, in its scene."""
        moved = 0.0
        for other in range(t + side, t + side * (self.farthest + 1), side):
            if not 0 <= other < len(geometry.motion) or geometry.scene[other] != geometry.scene[t]:
                return None
            moved += geometry.motion[max(other, other - side)]  # of the later frame of the two
            if moved >= self.motion and geometry.usable[other] and geometry.usable[t]:
                return other
        return None


@dataclass(frozen=True)
class Consecutive(FramePicker):
    """A frame and those before it, evenly apart and in one scene.

    Args:
        count: Frames of a clip.
        gap: From each to the one before it, frames.
    """

    count: int = 4
    gap: int = 1

    def __post_init__(self) -> None:
        """Refuse clips of one frame and frames that are not apart.

        Raises:
            InputError: They are.
        """
        if self.count < 2 or self.gap < 1:
            raise InputError(
                f"A clip of consecutive frames has at least 2, each at least 1 after the one before; got count "
                f"{self.count} and gap {self.gap}."
            )

    def starts(self, frames: int, geometry: Geometry) -> NDArray[np.int64]:
        """Frames that, with all those before them, can be used and are of one scene."""
        first = (self.count - 1) * self.gap
        found = [
            t
            for t in range(first, frames)
            if geometry.scene[t - first] == geometry.scene[t] and geometry.usable[t - first : t + 1 : self.gap].all()
        ]
        return np.array(found, dtype=np.int64)

    def pick(self, start: int, frames: int, geometry: Geometry, generator: Generator) -> tuple[int, ...]:
        """(start, start - gap, start - 2 gap, ...)."""
        return tuple(start - k * self.gap for k in range(self.count))


@dataclass(frozen=True)
class PosedPair(FramePicker):
    """Two frames with poses, some frames apart, in either order.

    Args:
        nearest: Frames apart, at least.
        farthest: Frames apart, at most.
    """

    nearest: int = 5
    farthest: int = 30

    def starts(self, frames: int, geometry: Geometry) -> NDArray[np.int64]:
        """Frames with a pose, and another one with a pose at such a distance."""
        posed = posed_frames(geometry)
        apart = np.abs(posed[:, None] - posed[None])  # (n, n)
        paired: NDArray[np.bool_] = ((apart >= self.nearest) & (apart <= self.farthest)).any(1)
        return posed[paired]

    def pick(self, start: int, frames: int, geometry: Geometry, generator: Generator) -> tuple[int, ...]:
        """(start, other)."""
        posed = posed_frames(geometry)
        apart = np.abs(posed - start)
        others = posed[(apart >= self.nearest) & (apart <= self.farthest)]
        return start, int(others[int(torch.randint(len(others), (), generator=generator))])


@dataclass(frozen=True)
class Single(FramePicker):
    """One frame alone, as stereo needs."""

    def starts(self, frames: int, geometry: Geometry) -> NDArray[np.int64]:
        """Every frame."""
        return np.arange(frames)

    def pick(self, start: int, frames: int, geometry: Geometry, generator: Generator) -> tuple[int, ...]:
        """(start,)."""
        return (start,)


def posed_frames(geometry: Geometry) -> NDArray[np.int64]:
    """The frames that have a pose, ascending."""
    if geometry.poses is None:
        return np.zeros(0, dtype=np.int64)
    return np.flatnonzero(np.isfinite(geometry.poses).all((1, 2)) & geometry.usable)


@dataclass(frozen=True)
class Sound:
    """What is heard with a clip; only clips that are streamed from the videos have it, see ``StreamedClips``.

    Args:
        rate: Samples per second.
        seconds: Of sound.
        jitter_s: By how much the sound's middle may lie before or after the frame, at most.
        grid: Let sounds of other moments begin with a frame, as those of the frame do; else anywhere. An encoder of
            sound leaves traces that repeat with the frames, by which sounds off their grid can be told
            (Arandjelovic and Zisserman, "Objects that Sound", ECCV 2018).
    """

    rate: int = 48_000
    seconds: float = 1.0
    jitter_s: float = 1.0
    grid: bool = True

    def __post_init__(self) -> None:
        """Refuse sounds without samples.

        Raises:
            InputError: There are none, or the jitter is negative.
        """
        if self.rate < 1 or round(self.rate * self.seconds) < 1 or self.jitter_s < 0:
            raise InputError(
                f"Sound needs a rate and a length above 0, and a jitter of at least 0; got {self.rate} Hz, "
                f"{self.seconds:g} s and {self.jitter_s:g} s."
            )


@dataclass(frozen=True)
class ClipNeeds:
    """What a method's clips hold beside pictures; a recording without it is refused.

    Args:
        picker: Which frames.
        intrinsics: ``intrinsics`` (3, 3).
        poses: ``pose`` (T, 4, 4), camera to world.
        right: ``right`` (T, 3, H, W), the second camera's pictures, ``right_valid``,
            ``right_intrinsics`` (3, 3) and ``right_to_left`` (4, 4).
        points: ``sparse_depth`` and ``sparse_views`` (T, 1, H, W) of structure from motion's points.
        sound: ``sound`` and ``other_sound`` (N,).
    """

    picker: FramePicker
    intrinsics: bool = True
    poses: bool = False
    right: bool = False
    points: bool = False
    sound: Sound | None = field(default=None, repr=False)  # what is told of clips without sound stays what it was


class ClipDataset(Samples):
    """Samples 0, 1, 2, ... without end: each a clip of one recording.

    Every possible clip of every recording is seen once before any is seen again, in an order drawn anew each time.

    Args:
        data: The prepared recordings.
        needs: Which frames make a clip, and what else it holds.
        pretext: Applied to each sample with the sample's own generator.
        seed: Of everything drawn.
        held_out_points: Share of the points of structure from motion that clips never show, to judge by.

    Raises:
        InputError: No recording has such a clip, or one lacks what is needed.
    """

    def __init__(
        self,
        data: PreparedRecordings,
        needs: ClipNeeds,
        pretext: Pretext,
        seed: int = 0,
        held_out_points: float = 0.0,
    ) -> None:
        self.data, self.needs, self.pretext, self.seed = data, needs, pretext, seed
        self.held_out_points = held_out_points
        if needs.sound is not None:
            raise InputError(
                f"{data.root}: holds prepared recordings, which keep no sound, and this method learns from it. "
                "Give the videos themselves: they are streamed."
            )
        for i in range(len(data)):
            if lack := _lack(data, i, needs):
                raise InputError(lack)
        starts = [_starts(data, i, needs.picker) for i in range(len(data))]
        self.places = np.array([(i, t) for i, one in enumerate(starts) for t in one], dtype=np.int64).reshape(-1, 2)
        if not len(self.places):
            raise InputError("\n".join(_no_clip(data, i, needs.picker) for i in range(len(data))))

    def __getitem__(self, number: int) -> Sample:
        """Read clip ``number``.

        It holds ``clip`` (T, 3, H, W), 0 to 1, the frame that is learnt on first; ``valid`` (T, 1, H, W), 0 or 1;
        ``frame`` (T,), the frames' numbers; and what the method needs.
        """
        sample_seed = seed_of(self.seed, number)
        generator = Generator().manual_seed(sample_seed)
        round_, place = divmod(number, len(self.places))
        order = torch.randperm(len(self.places), generator=Generator().manual_seed(seed_of(self.seed, round_, "order")))
        i, start = (int(value) for value in self.places[int(order[place])])
        times = self.needs.picker.pick(start, self.data.frames(i), _geometry_in(self.data.folder(i)), generator)
        sample = read_clip(self.data, i, times, self.needs, self.held_out_points) | {
            "seed": torch.tensor(seed_of(sample_seed, 1)),
            "number": torch.tensor(number),
        }
        return self.pretext(sample, generator)

    @property
    def identity(self) -> list[Any]:
        """What decides which clips are drawn."""
        return [self.seed, repr(self.needs), self.held_out_points, self.data.fingerprint]

    def name(self, index: int) -> str:
        """Name a recording."""
        return self.data.names[index]


def with_clips(data: PreparedRecordings, needs: ClipNeeds) -> PreparedRecordings:
    """Leave out, and name, recordings that lack what is learnt from, or of which no clip can be taken.

    Raises:
        InputError: None is left.
    """
    reasons = [
        _lack(data, i, needs) or ("" if len(_starts(data, i, needs.picker)) else _no_clip(data, i, needs.picker))
        for i in range(len(data))
    ]
    told = [reason for reason in reasons if reason]
    if len(told) == len(data):
        raise InputError("\n".join(told))
    for reason in told:
        logger.warning("Left out: %s", reason)
    return data.take(i for i, reason in enumerate(reasons) if not reason) if told else data


def _starts(data: PreparedRecordings, i: int, picker: FramePicker) -> NDArray[np.int64]:
    return picker.starts(data.frames(i), _geometry_in(data.folder(i)))


def _lack(data: PreparedRecordings, i: int, needs: ClipNeeds) -> str:
    """Say what recording ``i`` lacks, and how to come by it; empty where it has all."""
    geometry = _geometry_in(data.folder(i))
    from_motion = "run medssl sfm on it, and prepare what that writes"
    lacks = {
        "second camera": needs.right and not data.has(i, "right"),
        "intrinsics of the camera": needs.intrinsics and geometry.intrinsics is None,
        "poses of the camera": needs.poses and not len(posed_frames(geometry)),
        "points of structure from motion": needs.points and geometry.observations is None,
    }
    advice = {
        "second camera": "prepare it with --right (or --packing) and --calibration; of one camera's video monodepth2 "
        "learns depth, from the frames before and after",
        "intrinsics of the camera": "give --intrinsics fx,fy,cx,cy when preparing, or run medssl sfm on it",
        "poses of the camera": from_motion,
        "points of structure from motion": from_motion,
    }
    for what, missing in lacks.items():
        if missing:
            return f"{data.names[i]}: has no {what}, which this method learns from: {advice[what]}."
    return ""


def _no_clip(data: PreparedRecordings, i: int, picker: FramePicker) -> str:
    """Say what recording ``i`` has in place of a clip."""
    geometry = _geometry_in(data.folder(i))
    usable = int(geometry.usable.sum())
    return (
        f"{data.names[i]}: no clip can be taken as {picker} asks, of {data.frames(i)} frames (scenes: "
        f"{len(np.unique(geometry.scene))}). {usable} of them are neither black, overexposed nor damaged, "
        f"{len(posed_frames(geometry))} have a camera pose, and from one to the next the picture moves by "
        f"{np.median(geometry.motion):.2%} of its longer side (median). A camera that stands still teaches nothing: "
        "give a longer, well exposed recording that moves, or ask the method for less motion or closer frames."
    )


def read_clip(
    data: PreparedRecordings, i: int, times: Sequence[int], needs: ClipNeeds, held_out_points: float = 0.0
) -> Sample:
    """Read the named frames of recording ``i``, and of what is needed beside that which the recording has.

    Returns:
        ``clip``, ``valid``, ``frame``, ``index``, and what ``needs`` names.
    """
    geometry = _geometry_in(data.folder(i))
    sample: Sample = {
        "clip": as_pictures([data.frame(i, t) for t in times]),
        "valid": as_masks([data.valid(i, t) for t in times]),
        "frame": torch.tensor(list(times)),
        "index": torch.tensor(i),
    }
    if needs.intrinsics and geometry.intrinsics is not None:
        sample["intrinsics"] = torch.from_numpy(geometry.intrinsics).float()
    if needs.poses and geometry.poses is not None:
        sample["pose"] = torch.from_numpy(geometry.poses[list(times)]).float()
    if needs.right and geometry.right_to_left is not None and geometry.right_intrinsics is not None:
        sample["right"] = as_pictures([data.right(i, t) for t in times])
        sample["right_valid"] = as_masks([data.valid(i, t, right=True) for t in times])
        sample["right_intrinsics"] = torch.from_numpy(geometry.right_intrinsics).float()
        sample["right_to_left"] = torch.from_numpy(geometry.right_to_left).float()
    if needs.points and geometry.observations is not None:
        kept = shown_points(geometry.observations, held_out_points)
        maps = [sparse_maps(geometry.observations, t, data.preparation.size, kept) for t in times]
        sample["sparse_depth"], sample["sparse_views"] = (
            torch.from_numpy(np.stack(one)) for one in zip(*maps, strict=True)
        )
    return sample


@lru_cache(maxsize=64)
def _geometry_in(folder: Path) -> Geometry:
    """Read a recording's geometry once in each process; a folder is named by what it holds."""
    return read_geometry(folder)


def as_pictures(frames: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
    """Stack frames (3, H, W) of bytes to (T, 3, H, W), 0 to 1."""
    return torch.from_numpy(np.stack(frames)).float() / 255


def as_masks(frames: Sequence[NDArray[np.bool_]]) -> torch.Tensor:
    """Stack masks (H, W) to (T, 1, H, W), 0 or 1."""
    return torch.from_numpy(np.stack(frames)).float().unsqueeze(1)
