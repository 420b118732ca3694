"""Videos with sound, written so that what is seen and heard at each time is known, for tests of what reads them."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

RATE, FPS = 16_000, 25
HEIGHT, WIDTH = 64, 96


def bursts(seconds: float, times: Sequence[float], rate: int = RATE, length_s: float = 0.1) -> NDArray[np.float32]:
    """Silence with a tone of 1 kHz at each of the times, (n,)."""
    t = np.arange(round(seconds * rate)) / rate
    loud = np.any([(t >= at) & (t < at + length_s) for at in times], axis=0) if len(times) else np.zeros_like(t, bool)
    return (0.5 * np.sin(2 * np.pi * 1000 * t) * loud).astype(np.float32)


def moving(index: int) -> NDArray[np.uint8]:
    """A pattern that slides by two pixels a frame, (64, 96, 3); never black, and without a cut."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    wave = np.sin((x + 2 * index) / 7) + np.sin((y + x / 3) / 5) + np.sin((x + 2 * index + y) / 11)
    return np.stack([120 + 30 * wave, 110 + 20 * wave, 100 + 15 * wave], -1).astype(np.uint8)


def write_sounding(
    path: Path,
    frames: int = 100,
    sound: NDArray[np.float32] | None = None,
    *,
    rate: int = RATE,
    codec: str = "aac",
    key_every: int = 25,
    picture: Callable[[int], NDArray[np.uint8]] = moving,
    times: Sequence[float] | None = None,
    clock: Callable[[float], float | None] = lambda heard: heard,
) -> Path:
    """Write a video, with a key frame every ``key_every`` frames, and the sound beside it.

    ``times`` are the frames', 1/25 s apart by default; ``clock`` says when a packet of sound is heard that begins so
    many seconds of samples after the first, or that it is left out.
    """
    import av

    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FPS)
        video.height, video.width, video.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        video.options = {"x264-params": f"keyint={key_every}:min-keyint={key_every}:scenecut=0:bframes=2:threads=1"}
        video.time_base = video.codec_context.time_base = Fraction(1, 1000)
        heard = None if sound is None else container.add_stream(codec, rate=rate, layout="mono")
        muxed: list[Any] = []
        for index in range(frames):
            shown = av.VideoFrame.from_ndarray(picture(index), format="rgb24")
            shown.pts = round(1000 * (index / FPS if times is None else times[index]))
            shown.time_base = Fraction(1, 1000)
            muxed += video.encode(shown)
        muxed += video.encode(None)
        if heard is not None and sound is not None:
            muxed += _encoded(heard, sound, rate, codec, clock)
        for packet in sorted(muxed, key=lambda one: float(one.dts * one.time_base)):
            container.mux(packet)
    return path


def _encoded(
    stream: Any, sound: NDArray[np.float32], rate: int, codec: str, clock: Callable[[float], float | None]
) -> list[Any]:
    """Packets of 1024 samples, each when ``clock`` says that it is heard."""
    import av

    packets: list[Any] = []
    for start in range(0, len(sound), 1024):
        at = clock(start / rate)
        if at is None:
            continue
        part = sound[None, start : start + 1024]
        if codec == "pcm_s16le":
            frame = av.AudioFrame.from_ndarray((part * 32767).astype(np.int16), format="s16", layout="mono")
        else:
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, round(at * rate), Fraction(1, rate)
        packets += stream.encode(frame)
    return packets + stream.encode(None)


def spoil_sound(path: Path, which: Callable[[int], bool]) -> Path:
    """Overwrite the packets of sound whose number ``which`` says, with what no decoder takes."""
    return spoil_packets(path, which, "audio")


def spoil_packets(path: Path, which: Callable[[int], bool], kind: Literal["audio", "video"] = "video") -> Path:
    """The same of a file's sound or pictures."""
    import av

    with av.open(str(path)) as container:
        found = [(packet.pos, packet.size) for packet in container.demux(**{kind: 0}) if packet.size]
    content = bytearray(path.read_bytes())
    for number, (position, size) in enumerate(found):
        if which(number):
            content[position : position + size] = b"\xff" * size
    path.write_bytes(content)
    return path
