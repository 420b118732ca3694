"""Depth and the camera's way of whole recordings through a trained method, a few frames at a time."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import default_collate

from medssl.data.clips import ClipNeeds, Single, read_clip
from medssl.data.poses import at_frames, inverted
from medssl.data.prepared_recordings import PreparedRecordings, RecordingPreparation
from medssl.data.recording_store import Geometry
from medssl.errors import InputError
from medssl.method_file import TrainedMethod
from medssl.sample import Batch
from medssl.video_method import DepthMethod


@dataclass
class Clock:
    """Where the time goes.

    Attributes:
        seconds: By what was done.
    """

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def measure(self, what: str) -> Iterator[None]:
        """Add the time that a block takes."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[what] = self.seconds.get(what, 0.0) + time.perf_counter() - start


@dataclass(frozen=True)
class DepthInference:
    """A method of depth, and how it is run; it holds one batch at a time, however long the recording.

    Args:
        method: In evaluation, on its device.
        precision: float32, or the 16-bit type that the networks compute in.
        batch_size: Frames at once.
        clock: Is told how long reading and the network take.
    """

    method: DepthMethod
    precision: torch.dtype = torch.float32
    batch_size: int = 8
    clock: Clock = field(default_factory=Clock)

    def depth(self, data: PreparedRecordings, i: int) -> Iterator[NDArray[np.float32]]:
        """Tell the depth (H, W) of each frame of recording ``i``, in order; NaN where it is no positive number.

        Raises:
            InputError: The recording lacks what the method tells depth from.
        """
        needs = ClipNeeds(Single(), right=self.method.needs.right)
        for times in self._batches(range(data.frames(i))):
            with self.clock.measure("reading"):
                batch = default_collate([read_clip(data, i, [t], needs) for t in times])
            with self.clock.measure("network"):
                maps = self._depth(data, i, batch)
            yield from np.where(np.isfinite(maps) & (maps > 0), maps, np.float32(np.nan))

    def path(self, data: PreparedRecordings, i: int) -> NDArray[np.float64] | None:
        """Chain the camera's motion from frame to frame into a path (N, 4, 4), camera to world, from the first.

        A cut breaks the chain, and black or damaged frames tell no motion: poses are those of the usable frames of the
        scene that has most of them, and NaN elsewhere.

        Returns:
            The path, in the unit of the depth; ``None`` from a method that tells no motion.
        """
        frames = longest_scene(data.geometry(i))
        steps = []
        for times in self._batches(range(len(frames) - 1)):
            with self.clock.measure("reading"):
                a, b = (self._pictures(data, i, frames[np.array(times) + later]) for later in (0, 1))
            with self.clock.measure("network"), torch.no_grad(), self._autocast():
                motion = self.method.motion(a, b)
                if motion is None:
                    return None
                steps.append(motion.double().cpu().numpy())
        chain = _chained(np.concatenate([np.zeros((0, 4, 4)), *steps]))[: len(frames)]
        return at_frames(chain, frames.tolist(), data.frames(i))

    @property
    def device(self) -> torch.device:
        """Where the method is."""
        return next((parameter.device for parameter in self.method.parameters()), torch.device("cpu"))

    def _depth(self, data: PreparedRecordings, i: int, batch: Batch) -> NDArray[np.float32]:
        """Depth (B, H, W) of a batch of clips of one frame each."""
        on_device = {name: value.to(self.device) for name, value in batch.items()}
        try:
            with torch.no_grad(), self._autocast():
                depth: NDArray[np.float32] = self.method.depth(on_device)[:, 0].float().cpu().numpy()
        except InputError as error:
            missing = [
                *([] if "intrinsics" in batch else ["the camera's intrinsics (--intrinsics)"]),
                *([] if "right" in batch or not self.method.needs.right else ["a second, calibrated camera"]),
            ]
            lacks = f" The recording lacks {' and '.join(missing)}: give one that has it." if missing else ""
            raise InputError(f"{data.names[i]}: the method cannot tell its depth: {error}{lacks}") from error
        return depth

    def _pictures(self, data: PreparedRecordings, i: int, times: NDArray[np.int64]) -> Tensor:
        """Frames (B, 3, H, W), 0 to 1."""
        frames = np.stack([data.frame(i, int(t)) for t in times])
        return torch.from_numpy(frames).to(self.device).float() / 255

    def _batches(self, times: Sequence[int]) -> Iterator[Sequence[int]]:
        for first in range(0, len(times), self.batch_size):
            yield times[first : first + self.batch_size]

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32)


def depth_method(trained: TrainedMethod, named: str) -> tuple[DepthMethod, RecordingPreparation]:
    """The method, where it is one that tells depth, and how its recordings were prepared.

    Args:
        trained: What was loaded.
        named: Stands in front of the message.

    Raises:
        InputError: It tells no depth.
    """
    if not isinstance(trained.method, DepthMethod) or not isinstance(trained.preparation, RecordingPreparation):
        raise InputError(
            f"{named}: '{trained.name}' tells no depth; give the folder 'method' of a pretraining by a method of depth "
            "(see medssl methods)."
        )
    return trained.method, trained.preparation


def longest_scene(geometry: Geometry) -> NDArray[np.int64]:
    """The usable frames of the scene that has most of them, ascending; a cut begins another scene."""
    usable = np.flatnonzero(geometry.usable)
    if not len(usable):
        return usable
    scenes = geometry.scene[usable]
    longest: NDArray[np.int64] = usable[scenes == np.bincount(scenes).argmax()]
    return longest


def _chained(steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Poses (n + 1, 4, 4), camera to world, from what takes points from each camera to the next one, (n, 4, 4).

    Rotations are made exact first, so that the rounding of float32 does not add up along the way.
    """
    exact = np.array(steps)
    U, _, Vt = np.linalg.svd(exact[:, :3, :3])
    exact[:, :3, :3] = U @ Vt
    poses = [np.eye(4)]
    for back in inverted(exact):
        poses.append(poses[-1] @ back)
    return np.stack(poses)
