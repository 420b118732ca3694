"""Video in any container becomes pictures, by index and by time; FFmpeg decodes it, through PyAV."""

import logging
from collections.abc import Container, Generator, Iterator, Sequence
from functools import cached_property
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssl.data.cine import CineFrames, is_dicom
from medssl.data.container import open_container, video_stream
from medssl.data.frame_folder import FRAME_SUFFIXES, FrameFolder
from medssl.data.sequence import Frames
from medssl.data.video_track import Track, packets_from, scan, up_to, upright
from medssl.errors import InputError
from medssl.extras import require_module

logger = logging.getLogger(__name__)

_WORTH_A_JUMP = 16  # frames: opening the file again takes as long as decoding some
_UNSPECIFIED = 2  # ITU-T H.273, MatrixCoefficients
_HD_WIDTH, _HD_HEIGHT = 1280, 720
_LOOKED_AT = 128  # pixels of the longer side
_UNDERSTOOD = (
    "Understood are: a video that FFmpeg reads (.mp4, .mov, .mkv, .webm, .avi, .mpg, .ts, ...), a folder of numbered "
    f"pictures ({', '.join(FRAME_SUFFIXES)}), and a DICOM file of several frames (a cine)."
)


def open_frames(path: Path) -> Frames:
    """Open whatever holds pictures over time: a video, a folder of numbered pictures, a DICOM cine.

    Raises:
        InputError: It is none of these, or cannot be read.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder. {_UNDERSTOOD}")
    if path.is_file() and not is_dicom(path) and path.suffix.lower() in FRAME_SUFFIXES:
        raise InputError(f"{path}: is a single picture; give the folder that holds them all. {_UNDERSTOOD}")
    kind = FrameFolder if path.is_dir() else CineFrames if is_dicom(path) else VideoFrames
    try:
        frames: Frames = kind(path)
        frames.size  # noqa: B018 - what cannot be read is refused here, not in the middle of a run
    except InputError as error:
        raise InputError(f"{error} {_UNDERSTOOD}") from None
    return frames


class VideoFrames:
    """The pictures of a video file, decoded when asked for; no more than one is held.

    The rotation and the flips that a file asks for are carried out; pixels that are not square stay as they are.
    Colours are converted with the matrix and the range that the file names; where it names none, with BT.709's from
    1280 x 720 pixels on, else BT.601's.

    Args:
        path: The file, in any container and codec that FFmpeg reads. Its largest video track is taken.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._damaged: set[int] = set()

    @cached_property
    def track(self) -> Track:
        """Its index: made at the first use, in a pass over the file, and pickled along.

        Raises:
            InputError: The file cannot be read, or holds no video, or no frame of it can be decoded.
        """
        return scan(self.path)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, pixels, upright."""
        return self.track.size

    @cached_property
    def times(self) -> NDArray[np.float64]:
        """When each frame is shown, (N,), seconds from the first."""
        times: NDArray[np.float64] = (self.track.ticks - self.track.ticks[0]) * self.track.tick_s
        return times

    @property
    def damaged(self) -> tuple[int, ...]:
        """Frames, of those read so far, that cannot be decoded, or build on one that cannot.

        They are given black where nothing could be decoded, else as the decoder patched them up.
        """
        return tuple(sorted(self._damaged))

    @property
    def files(self) -> tuple[Path, ...]:
        """The one file."""
        return (self.path,)

    def __len__(self) -> int:
        return len(self.track.ticks)

    def at(self, seconds: float) -> int:
        """Index of the frame shown ``seconds`` after the first.

        Raises:
            InputError: Nothing is shown then.
        """
        longest = float(np.diff(self.times).max(initial=0))  # the last frame's time is not always told
        if not 0 <= seconds <= self.times[-1] + longest:
            raise InputError(f"{self.path}: shows frames from 0 to {self.times[-1]:.3f} s, none at {seconds:g} s.")
        half_a_tick = self.track.tick_s / 2  # a time that was computed may lie just before its frame's
        return int(np.searchsorted(self.times, seconds + half_a_tick, side="right")) - 1

    def stream(
        self, start: int = 0, stop: int | None = None, every: int = 1
    ) -> Iterator[tuple[int, float, NDArray[np.uint8]]]:
        """Give index, seconds and frame (H, W, 3) of every ``every``-th frame from ``start`` to before ``stop``."""
        indices = range(len(self))[start:stop:every]
        for index, frame in zip(indices, self.read(indices), strict=True):
            yield index, float(self.times[index]), frame

    def read(self, indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        """Give frames (H, W, 3), RGB, in the order asked for; ascending indices are decoded in one pass.

        Raises:
            IndexError: There is no such frame.
            InputError: The pictures' size changes.
        """
        before, here, frame = -1, -1, None  # neighbours in what was decoded: what lies between them is lost
        walk = self._walk(0)
        try:
            for index in indices:
                if not 0 <= index < len(self):
                    raise IndexError(f"{self.path}: there is no frame {index}; it holds {len(self)}, counted from 0.")
                start = self.track.start_of(index)
                if (index <= before and index != here) or start > here + _WORTH_A_JUMP:
                    walk.close()
                    walk, before, here = self._walk(index), start - 1, start - 1
                while here < index:
                    before, (here, frame) = here, next(walk, (len(self), None))
                yield self._picture(index, frame) if here == index else self._lost(index)
        finally:
            walk.close()

    def look(
        self, indices: Sequence[int], wanted: Container[int]
    ) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8] | None]]:
        """Look at ascending frames in one pass that reads no packet behind those they need.

        Gives each frame small, (h, w, 3) of at most 128 pixels, turned as it is stored, and those of the ``wanted``
        indices as ``read`` does, else ``None``.

        Raises:
            InputError: The pictures' size changes.
        """
        here, frame = -1, None
        walk = self._walk(indices[0], indices[-1])
        try:
            for index in indices:
                while here < index:
                    here, frame = next(walk, (len(self), None))
                if here == index:
                    yield _small(frame), self._picture(index, frame) if index in wanted else None
                else:
                    lost = self._lost(index)
                    yield lost, lost if index in wanted else None
        finally:
            walk.close()

    def _walk(self, index: int, last: int | None = None) -> Generator[tuple[int, Any], None, None]:
        """Decode from the key frame on that a frame needs; gives indices, ascending, and PyAV's frames."""
        av = require_module("av", "video")
        track, start, counted = self.track, self.track.start_of(index), count()
        with open_container(self.path) as container:
            stream = video_stream(self.path, container)
            following = packets_from(container, stream, track, index)
            following = following if last is None else up_to(following, track, index, last)
            for packet in chain(following, [None]):
                try:
                    frames = stream.decode(packet)
                except av.FFmpegError:
                    self._spoil(track.index_at(packet), start)
                    continue
                for frame in frames:
                    found = track.index_at(frame) if track.timed else next(counted)
                    if frame.is_corrupt:
                        self._spoil(found, start)
                    if found is not None:
                        yield found, frame

    def _spoil(self, index: int | None, start: int) -> None:
        """Note a bad frame; one before ``start`` may only lack what was not decoded."""
        if index is not None and index >= start:
            self._note(index, *self.track.spoiled_by(index).tolist())

    def _lost(self, index: int) -> NDArray[np.uint8]:
        self._note(index)
        return np.zeros((*self.size, 3), dtype=np.uint8)

    def _note(self, *indices: int) -> None:
        if not self._damaged:
            logger.warning(
                "%s: is damaged at %.2f s (frame %d); frames from there to the next key frame are not to be trusted.",
                self.path, self.times[indices[0]], indices[0],
            )  # fmt: skip
        self._damaged.update(indices)

    def _picture(self, index: int, frame: Any) -> NDArray[np.uint8]:
        picture = upright(_rgb(frame), self.track.turn)
        if picture.shape[:2] != self.size:
            old, new = (f"{width}x{height}" for height, width in (self.size, picture.shape[:2]))
            raise InputError(
                f"{self.path}: its pictures change size from {old} to {new} at {self.times[index]:.2f} s (frame "
                f"{index}); one size is expected. Cut the file there, and give the parts."
            )
        return picture


def _small(frame: Any) -> NDArray[np.uint8]:
    """Shrink PyAV's frame to at most 128 pixels, each the mean of what it covers, as RGB (h, w, 3)."""
    from av.video.reformatter import Interpolation

    shrink = min(1.0, _LOOKED_AT / max(frame.height, frame.width))
    height, width = (max(1, round(side * shrink)) for side in (frame.height, frame.width))
    rgb: NDArray[np.uint8] = frame.to_ndarray(
        format="rgb24", height=height, width=width, interpolation=Interpolation.AREA, threads=1
    )
    return rgb


def _rgb(frame: Any) -> NDArray[np.uint8]:
    """Convert PyAV's frame to RGB (H, W, 3), from 0 to 255; between the coarser samples of colour it interpolates."""
    from av.video.reformatter import Colorspace, Interpolation

    hd = frame.width >= _HD_WIDTH or frame.height >= _HD_HEIGHT
    guessed = Colorspace.ITU709 if hd else Colorspace.ITU601
    exact = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
    rgb: NDArray[np.uint8] = frame.to_ndarray(
        format="rgb24",
        src_colorspace=guessed if frame.colorspace == _UNSPECIFIED else None,
        interpolation=exact,
        threads=1,
    )
    return rgb
