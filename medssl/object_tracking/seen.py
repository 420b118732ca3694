"""A recording's frames one after the other, forwards or backwards; what cannot be decoded is passed on as such."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medssl.data.sequence import Frames
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
    """Read ascending frames; one that raises is black, and reading goes on after it."""
    knows_damage = hasattr(frames, "damaged")  # a video, which patches damage up and tells
    pictures = frames.read(indices)
    for place, index in enumerate(indices):
        try:
            picture = next(pictures)
            whole = not knows_damage or index not in getattr(frames, "damaged")  # noqa: B009 - Frames need not have it
        except InputError:
            if knows_damage:
                raise
            picture, whole = np.zeros((*frames.size, 3), dtype=np.uint8), False
            pictures = frames.read(indices[place + 1 :])
        yield Seen(index, picture, whole)
