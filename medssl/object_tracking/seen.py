"""A recording's frames one after the other, forwards or backwards; what cannot be decoded is passed on as such."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medssl.data.sequence import Frames
from medssl.data.video import VideoFrames
from medssl.errors import InputError

_REVERSED_AT_ONCE = 16  # frames that are held to be read forwards and given backwards: decoders only go forwards


class Seen(NamedTuple):
    """One frame.

    Attributes:
        frame: Its number in the recording.
        picture: (H, W, 3); black where nothing could be decoded.
        whole: Whether it was decoded without damage.
    """

    frame: int
    picture: NDArray[np.uint8]
    whole: bool


def frames_from(frames: Frames, first: int, last: int) -> Iterator[Seen]:
    """Give the frames from ``first`` to ``last``, both included, backwards where ``last`` is before ``first``."""
    if first <= last:
        yield from _read(frames, range(first, last + 1))
        return
    for end in range(first, last - 1, -_REVERSED_AT_ONCE):
        some = list(_read(frames, range(max(end - _REVERSED_AT_ONCE + 1, last), end + 1)))
        while some:
            yield some.pop()


def _read(frames: Frames, indices: Sequence[int]) -> Iterator[Seen]:
    """Read ascending frames; one that cannot be read is black, and reading goes on after it.

    Raises:
        InputError: A video's pictures change size.
    """
    pictures = frames.read(indices)
    for place, index in enumerate(indices):
        try:
            picture = next(pictures)
            whole = index not in frames.damaged
        except InputError:
            if isinstance(frames, VideoFrames):  # it gives damaged frames too, and refuses another size alone
                raise
            picture, whole = np.zeros((*frames.size, 3), dtype=np.uint8), False
            pictures = frames.read(indices[place + 1 :])
        yield Seen(index, picture, whole)
