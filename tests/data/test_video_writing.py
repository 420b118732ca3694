"""What is written as a video is read back with its colours and times, and nothing half-written stays."""

import numpy as np
import pytest

from medssl.data.video import VideoFrames
from medssl.data.video_writing import Sound, write_video
from medssl.errors import InputError

pytest.importorskip("av", reason="videos need the extra 'video'")


@pytest.mark.parametrize("name", ["w.mp4", "w.mkv"])
def test_what_is_written_is_read_back_with_its_colours_and_times(tmp_path, name):
    flat = [np.full((40, 60, 3), colour, dtype=np.uint8) for colour in ((200, 80, 60), (10, 240, 30), (128, 128, 128))]
    write_video(tmp_path / name, flat, 29.97)
    video = VideoFrames(tmp_path / name)
    assert np.allclose(video.times, np.arange(3) / 29.97, atol=1e-3)
    for written, read in zip(flat, video.read(range(3)), strict=True):
        assert np.abs(written.astype(int) - read).max() <= 4


def test_an_odd_size_is_filled_up_with_its_edge(tmp_path):
    write_video(tmp_path / "odd.mp4", [np.full((33, 21, 3), 120, dtype=np.uint8)], 25)
    video = VideoFrames(tmp_path / "odd.mp4")
    assert video.size == (34, 22)
    assert np.abs(next(video.read([0])).astype(int) - 120).max() <= 3


def test_nothing_is_left_where_writing_fails(tmp_path):
    good, other = np.zeros((16, 16, 3), dtype=np.uint8), np.zeros((16, 18, 3), dtype=np.uint8)
    with pytest.raises(InputError, match=r"w\.mp4: frame 1 is uint8 \(16, 18, 3\), the first is uint8 \(16, 16, 3\)"):
        write_video(tmp_path / "w.mp4", [good, other], 25)
    with pytest.raises(InputError, match=r"w\.mp4: there are no frames"):
        write_video(tmp_path / "w.mp4", [], 25)
    with pytest.raises(InputError, match=r"w\.mp4: nan frames per second"):
        write_video(tmp_path / "w.mp4", [good], float("nan"))
    with pytest.raises(InputError, match=r"w\.gif: a video is written as \.mp4"):
        write_video(tmp_path / "w.gif", [good], 25)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["w.mp4", "w.mkv"])
def test_sound_is_heard_at_its_time(tmp_path, name):
    import av

    rate, start = 48_000, 30_011
    samples = np.zeros(60_000)
    samples[start : start + 12_000] = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(12_000) / rate)
    frames = [np.full((32, 32, 3), 90, dtype=np.uint8)] * 30
    write_video(tmp_path / name, frames, 25, sound=Sound(samples, rate))
    with av.open(str(tmp_path / name)) as container:
        decoded = list(container.decode(audio=0))
    heard = np.concatenate([frame.to_ndarray()[0] for frame in decoded])
    loud = np.flatnonzero(np.abs(heard) > 0.1) + round(decoded[0].time * rate)  # Matroska's times are of whole ms
    np.testing.assert_allclose(loud[[0, -1]], [start, start + 12_000], atol=100)
    assert np.abs(heard).max() == pytest.approx(0.5, abs=0.05)
    assert VideoFrames(tmp_path / name).size == (32, 32)


def test_sound_that_cannot_be_written_is_refused(tmp_path):
    frames = [np.zeros((16, 16, 3), dtype=np.uint8)]
    with pytest.raises(InputError, match=r"w\.mp4: the sound is \(2, 100\); one channel"):
        write_video(tmp_path / "w.mp4", frames, 25, sound=Sound(np.zeros((2, 100))))
    with pytest.raises(InputError, match="of finite samples"):
        write_video(tmp_path / "w.mp4", frames, 25, sound=Sound(np.full(100, np.nan)))
    assert list(tmp_path.iterdir()) == []
