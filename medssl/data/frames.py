"""Frames made of picture files, of parts of other frames, and of some of them: each cheap to make and to pickle."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from medssl.data.frame_folder import FrameFolder
from medssl.data.sequence import Frames
from medssl.errors import InputError

Pixels = TypeVar("Pixels", bound=NDArray[np.generic])
Half = Literal["left", "right", "top", "bottom"]


class PictureFrames(FrameFolder):
    """The picture files that are named, one per frame, in the order given; else as a folder of frames.

    Args:
        paths: Of the pictures, all of one size.
        rate: Frames per second; ``None`` where it is not known.

    Raises:
        InputError: There is none.
    """

    def __init__(self, paths: tuple[Path, ...], rate: float | None = None) -> None:
        if not paths:
            raise InputError("A sequence of no pictures cannot be read; at least one is expected.")
        self.path, self.rate, self.paths = paths[0].parent, rate, paths


@dataclass(frozen=True)
class HalfFrames:
    """One half of each frame of a packed stereo video.

    Attributes:
        whole: The frames with two views in each.
        half: Which view.
    """

    whole: Frames
    half: Half

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of one view, pixels."""
        height, width = self.whole.size
        return (height // 2, width) if self.half in ("top", "bottom") else (height, width // 2)

    @property
    def times(self) -> NDArray[np.float64]:
        """When each frame is shown, (N,), seconds."""
        return self.whole.times

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of the whole frames."""
        return self.whole.files

    @property
    def damaged(self) -> tuple[int, ...]:
        """Those of the whole frames."""
        return self.whole.damaged

    def __len__(self) -> int:
        """The number of frames."""
        return len(self.whole)

    def read(self, indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        """Give one view of each frame, (H, W, 3)."""
        height, width = self.size
        top = height if self.half == "bottom" else 0
        left = width if self.half == "right" else 0
        for frame in self.whole.read(indices):
            yield frame[top : top + height, left : left + width]


@dataclass(frozen=True)
class PerFile:
    """What belongs to each frame, one file each; NaN everywhere for a frame that has none.

    Attributes:
        paths: Of the frames that have one, by index.
        reader: Of a file; a function of a module, so that it can be pickled.
        shape: Of what it reads.
    """

    paths: Mapping[int, Path]
    reader: Callable[[Path], NDArray[np.float32]]
    shape: tuple[int, ...]

    def __call__(self, index: int) -> NDArray[np.float32]:
        """Read it, for the frame of that index.

        Raises:
            InputError: The file cannot be read, or is of another shape.
        """
        if index not in self.paths:
            return np.full(self.shape, np.nan, dtype=np.float32)
        return _sized(self.paths[index], self.reader(self.paths[index]), self.shape)


def _sized(path: Path, array: Pixels, shape: tuple[int, ...]) -> Pixels:
    if array.shape[: len(shape)] != shape:
        raise InputError(
            f"{path}: is {'x'.join(map(str, array.shape))} (height first), where {'x'.join(map(str, shape))} is "
            "expected: all pictures of one sequence share one size. Check that it belongs here."
        )
    return array
