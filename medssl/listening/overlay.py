"""The video of where the sound is: heat over each frame, whether it fits, and the video's own sound."""

from collections.abc import Iterable, Iterator
from heapq import merge
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from medssl.data.audio import audio_stream, origin_of
from medssl.data.container import open_container, packets, video_stream
from medssl.data.video_writing import write_video
from medssl.errors import InputError
from medssl.extras import require_module
from medssl.files import write_aside
from medssl.listening.moments import Shown
from medssl.methods.audio_visual import heated
from medssl.report.depth_video import with_banner

_LEAST_HEIGHT = 448  # of the pictures; smaller ones are enlarged by a whole number


def write_overlay(moments: Iterable[Shown], every_s: float, path: Path) -> None:
    """Write each moment's frame with its heat over it, ``every_s`` apart.

    Raises:
        InputError: PyAV is missing, or the disk is full.
    """
    write_video(path, (drawn(shown) for shown in moments), 1 / every_s)


def drawn(shown: Shown) -> NDArray[np.uint8]:
    """A frame with its heat over it and a line above, (H', W', 3)."""
    return with_banner(glowing(shown), f"sound fits: {shown.probability:.2f}", f"{shown.time_s:.2f} s")


def glowing(shown: Shown) -> NDArray[np.uint8]:
    """A frame, enlarged where it is small, with its heat over it, (H', W', 3)."""
    image = torch.from_numpy(shown.frame).permute(2, 0, 1)[None].float() / 255
    times = -(-_LEAST_HEIGHT // image.shape[2])
    image = F.interpolate(image, scale_factor=times, mode="bilinear", align_corners=False)
    picture = heated(image, torch.from_numpy(shown.heat)[None, None])[0]
    return (255 * picture).round().byte().permute(1, 2, 0).numpy()


def add_sound(path: Path, source: Path) -> None:
    """Put the sound of a video, as it is encoded there, beside the pictures of another; they begin together.

    Args:
        path: A video without sound; it is replaced by one with it.
        source: The video that the sound is copied from, up to where the pictures end.

    Raises:
        InputError: The container cannot hold a sound of that codec, or nothing of it can be read.
    """
    av = require_module("av", "video")
    origin_s = origin_of(source)
    with write_aside(path) as aside, open_container(path) as pictures, open_container(source) as heard:
        video, sound = video_stream(path, pictures), audio_stream(source, heard)
        end_s = float(video.duration * video.time_base)
        try:
            with av.open(f"file:{aside}", "w", options={"movflags": "+faststart"}) as made:
                copies = made.add_stream_from_template(video), made.add_stream_from_template(sound)
                shown = ((float(packet.dts * packet.time_base), 0, packet) for packet in _timed(pictures, video))
                for at_s, kind, packet in merge(shown, _from(heard, sound, origin_s), key=lambda one: one[:2]):
                    if at_s < end_s:
                        packet.stream = copies[kind]
                        made.mux(packet)
        except (av.FFmpegError, ValueError) as error:
            raise InputError(
                f"{source}: its sound ({sound.codec_context.name}) cannot be copied into {path.name} "
                f"({getattr(error, 'strerror', None) or error})."
            ) from error


def _from(container: Any, stream: Any, origin_s: float) -> Iterator[tuple[float, int, Any]]:
    """Packets of sound with their times from the first frame on."""
    origin = round(origin_s / stream.time_base)
    for packet in _timed(container, stream):
        packet.pts, packet.dts = packet.pts - origin, packet.dts - origin
        at_s = float(packet.dts * packet.time_base)
        if at_s >= 0:
            yield at_s, 1, packet


def _timed(container: Any, stream: Any) -> Iterator[Any]:
    return (packet for packet in packets(container, stream) if packet.dts is not None and packet.pts is not None)
