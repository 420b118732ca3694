"""What a pass over a video's packets tells, undecoded: when each frame is shown, and where decoding can start."""

import logging
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssl.data.container import open_container, packets, video_stream
from medssl.errors import InputError
from medssl.extras import require_module

logger = logging.getLogger(__name__)

Turn = tuple[int, int, int, int]

_NOT_TOLD = -(2**63)  # FFmpeg's AV_NOPTS_VALUE
_UNTURNED: Turn = (1, 0, 0, 1)
_BACK = (0, 1, 4)  # how many key frames earlier to try, where a container jumps too far
_UNKNOWN_RATE = 25.0  # frames per second, of a raw stream that tells none


@dataclass(frozen=True, eq=False)
class Track:
    """Frames are in order of time, and known by it: one that cannot be decoded does not shift those after it.

    Attributes:
        size: Height and width of a frame, pixels, upright.
        turn: The display matrix's (a, b, c, d), each -1, 0 or 1: x' = a x + c y, y' = b x + d y.
        ticks: When each frame is shown, (N,), ascending.
        tick_s: Seconds per tick.
        order: Place of each frame's packet in the file, (N,).
        key_ticks: When each key frame is shown, (K,), ascending.
        key_stamps: When each key frame is to be decoded, (K,), ticks.
        key_order: Place of each key frame's packet in the file, (K,).
        timed: Whether the packets say when they are shown. Where they do not, frames are counted from the beginning.
    """

    size: tuple[int, int]
    turn: Turn
    ticks: NDArray[np.int64]
    tick_s: float
    order: NDArray[np.int64]
    key_ticks: NDArray[np.int64]
    key_stamps: NDArray[np.int64]
    key_order: NDArray[np.int64]
    timed: bool

    def key_of(self, index: int) -> int:
        """Number of the key frame from which a frame is decoded; -1 for the beginning of the file."""
        return int(np.searchsorted(self.key_ticks, self.ticks[index], side="right")) - 1

    def start_of(self, index: int) -> int:
        """Index of the first frame that comes out for certain when decoding starts for this one."""
        key = self.key_of(index)
        return 0 if key < 0 else int(np.searchsorted(self.ticks, self.key_ticks[key]))

    def index_at(self, timed: Any) -> int | None:
        """Index of the frame that PyAV's packet or frame is; ``None`` where it is none of the track's, or not told."""
        if not self.timed or timed is None or timed.pts is None:
            return None
        index = int(np.searchsorted(self.ticks, timed.pts))
        return index if index < len(self.ticks) and self.ticks[index] == timed.pts else None

    def spoiled_by(self, index: int) -> NDArray[np.int64]:
        """Indices of the frames that a bad one spoils: itself, and those decoded after it up to the next key frame."""
        first = self.order[index]
        later_keys = self.key_order[self.key_order > first]
        return np.flatnonzero((self.order >= first) & (self.order < min(later_keys, default=np.inf)))


def scan(path: Path) -> Track:
    """Read through a video without decoding it.

    Raises:
        InputError: The file cannot be read, or holds no video, or no frame of it can be decoded.
    """
    size, turn, reorders = _first_frame(path)
    pts, dts, keyed, shown = array("q"), array("q"), bytearray(), bytearray()  # small, for hours of frames
    with open_container(path) as container:
        stream = video_stream(path, container)
        vp8, avi = stream.codec_context.name == "vp8", container.format.name == "avi"
        for packet in packets(container, stream):
            if not vp8 or _is_shown(packet):
                pts.append(_NOT_TOLD if packet.pts is None else packet.pts)
                dts.append(pts[-1] if packet.dts is None else packet.dts)
                keyed.append(packet.is_keyframe)
                shown.append(not packet.is_discard)
        claimed, tick_s = int(stream.frames), float(stream.time_base)
    if claimed > len(pts):
        logger.warning(
            "%s: holds %d of the %d frames that its header claims; it is cut short.", path, len(pts), claimed
        )
    times, stamps = np.array(pts, dtype=np.int64), np.array(dts, dtype=np.int64)
    # where frames are reordered, AVI may number them in the order of decoding, which is not that of display
    if (times == _NOT_TOLD).any() or (avi and reorders and (np.diff(times) > 0).all()):
        return _counted(path, size, turn)
    keys = np.flatnonzero(np.frombuffer(keyed, dtype=np.uint8))
    keys = keys[np.argsort(times[keys], kind="stable")]
    places = np.flatnonzero(np.frombuffer(shown, dtype=np.uint8))
    ticks, first = np.unique(times[places], return_index=True)
    return Track(size, turn, ticks, tick_s, places[first], times[keys], stamps[keys], keys, timed=True)


def packets_from(container: Any, stream: Any, track: Track, index: int) -> Iterator[Any]:
    """Give a track's packets from the key frame on that a frame needs, or from an earlier one.

    Some containers jump by the time of decoding, others by that of display; some only roughly, and then guess the times
    of what follows. So what arrives is compared with the index, and an earlier place tried where it is not that.
    """
    key = track.key_of(index)
    for earlier in [max(key - back, 0) for back in _BACK if key > 0]:
        for stamp in (track.key_ticks[earlier], track.key_stamps[earlier]):
            container.seek(int(stamp), stream=stream)
            following = packets(container, stream)
            first = next((packet for packet in following if packet.is_keyframe), None)
            if first is not None and _is_key(track, first, key):
                return chain([first], following)
    if key > 0:
        container.seek(int(min(track.key_stamps[0], track.ticks[0])), stream=stream)
    return packets(container, stream)


def up_to(following: Iterator[Any], track: Track, first: int, last: int) -> Iterator[Any]:
    """Give packets up to the one that the frames of indices ``first`` to ``last`` need last; none after it is read."""
    if not track.timed:
        yield from following
        return
    end = int(track.order[first : last + 1].max())
    for packet in following:
        yield packet
        index = track.index_at(packet)
        if index is not None and track.order[index] >= end:
            return


def _is_key(track: Track, packet: Any, latest: int) -> bool:
    """Whether a packet is one of the key frames that the index knows, up to that of number ``latest``."""
    key = int(np.searchsorted(track.key_ticks, packet.pts))
    known = key <= latest and track.key_ticks[key] == packet.pts
    return bool(known and (packet.dts is None or track.key_stamps[key] in (packet.dts, packet.pts)))


def upright(picture: NDArray[np.uint8], turn: Turn) -> NDArray[np.uint8]:
    """Carry out a display matrix's turn and flips on a picture (H, W, 3)."""
    a, b, c, d = turn
    if a == 0:  # columns become rows
        picture, a, d = picture.swapaxes(0, 1), c, b
    return np.ascontiguousarray(picture[:: d or 1, :: a or 1])


def _first_frame(path: Path) -> tuple[tuple[int, int], Turn, bool]:
    """Decode one frame; returns its size once upright, its turn, and whether frames are stored in another order."""
    av = require_module("av", "video")
    with open_container(path) as container:
        stream = video_stream(path, container)
        for packet in chain(packets(container, stream), [None]):
            try:
                frames = stream.decode(packet)
            except av.FFmpegError:
                continue
            if frames:
                turn = _turn_of(frames[0])
                size = (frames[0].height, frames[0].width)
                return size if turn[0] else size[::-1], turn, bool(stream.codec_context.has_b_frames)
        codec = stream.codec_context.name
    raise InputError(
        f"{path}: no frame of its video ({codec}) can be decoded. It may be empty, cut short or encrypted: copy it "
        "again."
    )


def _turn_of(frame: Any) -> Turn:
    """The turn by quarters and the flips that a frame's display matrix asks for (ISO/IEC 14496-12, 6.2.2)."""
    if frame.side_data.get("DISPLAYMATRIX") is None:
        return _UNTURNED
    a, b, _, c, d = np.frombuffer(frame.side_data["DISPLAYMATRIX"], dtype=np.int32)[:5] / 2**16
    a, b, c, d = (round(float(np.clip(value, -1, 1))) for value in (a, b, c, d))
    return (a, b, c, d) if abs(a * d - b * c) == 1 and a * b == 0 else _UNTURNED


def _is_shown(packet: Any) -> bool:
    """Whether a packet of VP8 is a picture to be shown, not one for reference only (RFC 6386, 9.1)."""
    return bool(memoryview(packet)[0] & 0x10)


def _counted(path: Path, size: tuple[int, int], turn: Turn) -> Track:
    """Index a video whose packets do not say when they are shown, by decoding it."""
    logger.info("%s: does not say when its frames are shown; they are counted, and jumping to one is slow.", path)
    av = require_module("av", "video")
    count = lost = 0
    with open_container(path) as container:
        stream = video_stream(path, container)
        for packet in chain(packets(container, stream), [None]):
            try:
                count += len(stream.decode(packet))
            except av.FFmpegError:
                lost += 1
        rate = float(stream.average_rate or _UNKNOWN_RATE)
    if lost:
        logger.warning(
            "%s: %d of its packets cannot be decoded, and it does not say which frames these are; those after them "
            "move up. Convert it to MP4.", path, lost,
        )  # fmt: skip
    none = np.zeros(0, dtype=np.int64)
    return Track(size, turn, np.arange(count), 1 / rate, np.arange(count), none, none, none, timed=False)
