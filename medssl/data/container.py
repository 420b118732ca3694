"""Opens files of video and sound; FFmpeg reads them, through PyAV."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medssl.errors import InputError
from medssl.extras import require_module

_NO_VIDEO = ("tty", "bin", "xbin", "adf", "idf", "image2")  # text and pictures, which FFmpeg gives as video
_MOST_FAILURES = 100  # in a row, when reading on in a damaged file


@contextmanager
def open_container(path: Path) -> Iterator[Any]:
    """Open a file of video or sound as PyAV's ``InputContainer``; it cannot make other files or addresses be opened.

    Raises:
        InputError: PyAV is not installed, there is no such file, or it holds neither video nor sound.
    """
    av = require_module("av", "video")
    if not path.is_file():
        raise InputError(f"{path}: no such file.")
    try:
        container = av.open(f"file:{path}", metadata_errors="ignore", options={"protocol_whitelist": "file"})
    except (av.FFmpegError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be opened as video or sound ({getattr(error, 'strerror', None) or error}). It may be cut "
            "short, as a recording that was not closed, or be something else: copy it again, or export it as MP4."
        ) from error
    with container:
        yield container


def video_stream(path: Path, container: Any) -> Any:
    """The largest video track of an open file; a sound file's cover picture is none.

    It is decoded by one thread: a frame's error is then known at once, and loading in parallel is done by processes.

    Raises:
        InputError: There is none, or nothing here decodes it.
    """
    from av.stream import Disposition

    if container.format.name in _NO_VIDEO or container.format.name.endswith("_pipe"):
        raise InputError(f"{path}: is a {container.format.long_name}, and a video is expected.")
    streams = [one for one in container.streams.video if not one.disposition & Disposition.attached_pic]
    if not streams:
        kinds = ", ".join(sorted({one.type for one in container.streams})) or "none"
        raise InputError(f"{path}: holds no moving pictures (its tracks: {kinds}); a file with a video is expected.")
    if all(one.codec_context is None for one in streams):
        raise InputError(f"{path}: its video is in a codec that cannot be decoded here; export it as H.264 in MP4.")
    stream = max((one for one in streams if one.codec_context is not None), key=lambda one: one.width * one.height)
    stream.thread_count = 1
    return stream


def packets(container: Any, stream: Any) -> Iterator[Any]:
    """Give a track's packets, reading on behind what is unreadable, up to the end of the file."""
    av = require_module("av", "video")
    failures = 0
    while failures < _MOST_FAILURES:
        try:
            for packet in container.demux(stream):
                failures = 0
                if packet.size:
                    yield packet
            return
        except av.FFmpegError:
            failures += 1
