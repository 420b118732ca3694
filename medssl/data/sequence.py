"""What every reader of video, stereo and structure from motion hands over: pictures, and what is known of the cameras.

Conventions, everywhere in medssl: the centre of the first pixel is at (0, 0), x points right, y down, z forward; a pose
is camera to world; a length is in the sequence's own unit, which is named.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from medssl.data.camera import Camera

Unit = Literal["mm", "m", "unknown"]


class Frames(Protocol):
    """The pictures of one camera over time, read when asked for; cheap to make and to pickle (no open file)."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, pixels, after any rotation that the file asks for."""

    @property
    def times(self) -> NDArray[np.float64]:
        """When each frame is shown, (N,), seconds from the first; not evenly spaced where the rate varies."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that the frames are read from."""

    @property
    def damaged(self) -> tuple[int, ...]:
        """Frames, of those read so far, that were given though they cannot be trusted; others refuse to be read."""

    def __len__(self) -> int:
        """The number of frames."""

    def read(self, indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        """Give frames (H, W, 3), RGB, in the order asked for; ascending indices are decoded in one pass."""


@dataclass(frozen=True)
class SparsePoints:
    """Points in space, and which frames saw them.

    Attributes:
        positions: (P, 3), in the world.
        seen: (n, 2), pairs (point, frame); frame counts in the sequence's frames.
        pixels: Where each was seen, (n, 2) x and y in the full-size picture; ``None`` where only the fact is known.
    """

    positions: NDArray[np.float64]
    seen: NDArray[np.int64]
    pixels: NDArray[np.float64] | None = None


class PerFrame(Protocol):
    """Reads what belongs to one frame."""

    def __call__(self, index: int) -> NDArray[np.float32]:
        """Read it, for the frame of that index."""


@dataclass(frozen=True)
class Truth:
    """What the maker of a test sequence knows exactly, one file per frame; ``None`` where it is not known.

    Attributes:
        depth: z of each pixel (H, W) float32 in the sequence's unit, NaN where unknown; called with a frame's index.
        disparity: x in the left picture minus x in the right one, (H, W), pixels, NaN where unknown.
        flow: To the next frame, (H, W, 2), pixels, NaN where unknown.
        visible: 1 where the other picture (the second camera's, or the next one) shows the pixel too, else 0, (H, W).
    """

    depth: PerFrame | None = None
    disparity: PerFrame | None = None
    flow: PerFrame | None = None
    visible: PerFrame | None = None


@dataclass(frozen=True)
class Stereo:
    """The second camera of a calibrated pair.

    Attributes:
        frames: As many as the first camera's.
        camera: Its intrinsics.
        to_left: Rigid transform (4, 4) from the right camera's axes to the left one's, in the sequence's unit.
        truth: Of the second camera's pictures; its disparity too is x in the left picture minus x in the right one.
    """

    frames: Frames
    camera: Camera
    to_left: NDArray[np.float64]
    truth: Truth = field(default_factory=Truth)


@dataclass(frozen=True)
class VideoSequence:
    """One recording.

    Attributes:
        name: Of the recording, without a patient's identity.
        subject: Whose it is; recordings of one subject stay together in a split.
        frames: The pictures.
        camera: Intrinsics of the full-size picture; ``None`` where there is no calibration.
        poses: Camera to world, (N, 4, 4), NaN where a frame has none; ``None`` where none is known.
        unit: Of poses, points and depth.
        points: Structure from motion's.
        stereo: The second camera.
        mask: (H, W), where the picture shows the body; ``None`` to have it found.
        truth: For test sequences.
    """

    name: str
    subject: str
    frames: Frames
    camera: Camera | None = None
    poses: NDArray[np.float64] | None = None
    unit: Unit = "unknown"
    points: SparsePoints | None = None
    stereo: Stereo | None = None
    mask: NDArray[np.bool_] | None = None
    truth: Truth = field(default_factory=Truth)
