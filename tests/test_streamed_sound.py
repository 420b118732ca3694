"""The sound of streamed clips is of their frames' times, the other sound of another time; both begin with a frame."""

from pathlib import Path

import numpy as np
import pytest
from sounding import FPS, RATE, bursts, write_sounding

pytest.importorskip("av", reason="videos need the extra 'video'")

from medssl.data.clips import ClipDataset, ClipNeeds, Single, Sound
from medssl.data.prepared_recordings import RecordingPreparation
from medssl.data.sight_and_sound import SoundWindows, open_with_sound, stream_with_sound
from medssl.data.sound_check import AudioFacts
from medssl.data.streamed_clips import StreamedClips
from medssl.data.streamed_recordings import StreamedRecordings
from medssl.errors import InputError
from medssl.method import as_read

PREPARATION = RecordingPreparation((64, 96), mask=False)
SCALE = 20.0  # seconds that full amplitude stands for


def telling(seconds: float) -> np.ndarray:
    """Sound whose amplitude tells the time."""
    return (np.arange(round(seconds * RATE)) / RATE / SCALE).astype(np.float32)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds with sound that tells the time, exactly."""
    path = tmp_path_factory.mktemp("video") / "a.mkv"
    return write_sounding(path, frames=250, sound=telling(10), codec="pcm_s16le")


def drawn(data: StreamedRecordings, sound: Sound, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times of the frames, and of the begins of their sounds and of the other sounds, (count * 4,) each."""
    needs = ClipNeeds(Single(), intrinsics=False, sound=sound)
    samples = StreamedClips(data, needs, as_read, per_number=4, segment_s=2.0)
    found = [samples[number] for number in range(count)]
    assert all(one["sound"].shape == (4, round(sound.rate * sound.seconds)) for one in found)
    frames = np.concatenate([one["frame"][:, 0].numpy() for one in found]) / FPS
    middle = round(sound.rate * sound.seconds / 2)
    own, other = (np.concatenate([one[key][:, middle].numpy() for one in found]) for key in ("sound", "other_sound"))
    return frames, own * SCALE - sound.seconds / 2, other * SCALE - sound.seconds / 2


def off_grid(times: np.ndarray) -> np.ndarray:
    """How far times are from that of a frame, as a share of a frame's time."""
    return np.abs(times * FPS - np.rint(times * FPS))


@pytest.mark.parametrize("jitter_s", [0.0, 0.3])
def test_sounds_are_around_their_frames_and_begin_with_a_frame(video: Path, jitter_s: float) -> None:
    data = StreamedRecordings([video], PREPARATION, sound=True, progress=False)
    sound = Sound(RATE, 0.5, jitter_s)
    frames, own, other = drawn(data, sound, 5)
    away = np.abs(own + 0.25 - frames)
    assert away.max() <= max(jitter_s, 0.02) + 1e-3 and (jitter_s == 0 or away.max() > jitter_s / 2)
    assert off_grid(own).max() < 0.03 and off_grid(other).max() < 0.03
    assert np.abs(other - own).min() >= 0.5 and (other // 2 != own // 2).mean() > 0.8  # of other stretches


def test_other_sounds_off_the_grid_begin_anywhere(video: Path) -> None:
    data = StreamedRecordings([video], PREPARATION, sound=True, progress=False)
    _, own, other = drawn(data, Sound(RATE, 0.5, grid=False), 5)
    assert off_grid(own).max() < 0.03 and np.mean(off_grid(other) > 0.05) > 0.6


def test_a_single_stretch_gives_sounds_that_are_apart(tmp_path: Path) -> None:
    path = write_sounding(tmp_path / "a.mkv", 75, telling(3), codec="pcm_s16le", key_every=250)
    data = StreamedRecordings([path], PREPARATION, sound=True, progress=False)
    _, own, other = drawn(data, Sound(RATE, 0.5, 0.1), 4)
    assert np.abs(other - own).min() >= 0.499


def test_no_clip_is_of_a_time_at_which_nothing_is_heard(tmp_path: Path) -> None:
    sound = np.where((np.arange(8 * RATE) > 3 * RATE) & (np.arange(8 * RATE) < 6 * RATE), 0, telling(8) + 0.01)
    path = write_sounding(
        tmp_path / "a.mkv", 250, sound.astype(np.float32), codec="pcm_s16le", clock=lambda heard: heard + 1
    )
    data = StreamedRecordings([path], PREPARATION, sound=True, progress=False)
    assert any("begins 1.00 s after" in note for note in data.notes)
    frames, own, _ = drawn(data, Sound(RATE, 0.5, 0.0), 4)
    assert frames.min() >= 1.2 and not ((frames > 4.1) & (frames < 6.9)).any() and frames.max() < 9
    np.testing.assert_allclose(own - 0.2 + 1 + 0.25, frames, atol=0.025)


def test_windows_are_within_what_is_heard() -> None:
    facts = AudioFacts(Path("a"), "aac", RATE, 1, start_s=0.5, end_s=10.0, quiet=((2.0, 4.0), (6.0, 7.0)))
    windows = SoundWindows(Sound(RATE, 1.0, 0.2), facts, 0.1)
    numbers = windows.within(0.0, 8.0)
    middles = numbers * 0.1 + 0.5
    assert numbers[0] == 5 and numbers[-1] == 70
    assert not ((middles > 2.01) & (middles < 3.99)).any() and not ((middles > 6.01) & (middles < 6.99)).any()
    assert (windows.around(5.0, numbers) * 0.1 + 0.5).tolist() == pytest.approx([4.8, 4.9, 5.0, 5.1, 5.2])
    assert windows.are_heard(np.array([0.3, 1.1, 3.0, 5.0]), numbers).tolist() == [False, True, False, True]


def test_recordings_without_usable_sound_are_named_and_the_others_go_on(video: Path, tmp_path: Path) -> None:
    mute = write_sounding(tmp_path / "mute.mp4", 30)
    silent = write_sounding(tmp_path / "silent.mp4", 30, bursts(2, []))
    data = StreamedRecordings([video, mute, silent], PREPARATION, sound=True, progress=False)
    assert data.names == ("a",)
    assert [one.scan for one in data.refused] == ["mute", "silent"]
    assert "has no sound" in data.refused[0].reason and "is silent" in data.refused[1].reason
    with pytest.raises(InputError, match=rf"^{mute}: has no sound"):
        StreamedRecordings([mute], PREPARATION, sound=True, progress=False)


def test_frames_and_their_sounds_are_given_one_after_the_other(video: Path) -> None:
    one = open_with_sound(video, (64, 96))
    found = list(stream_with_sound(one, 0.5, Sound(RATE, 0.4)))
    assert [time for time, *_ in found] == pytest.approx(np.arange(20) * 0.5, abs=0.021)
    for time, frame, heard in found[1:-1]:
        assert frame.shape == (64, 96, 3) and frame.dtype == np.uint8 and heard.shape == (round(0.4 * RATE),)
        assert heard[0] * SCALE + 0.2 == pytest.approx(time, abs=0.021) and off_grid(heard[:1] * SCALE) < 0.03
    assert not found[0][2][: round(0.19 * RATE)].any()  # before the recording began
    with pytest.raises(InputError, match="every 0 s"):
        next(stream_with_sound(one, 0, Sound()))


def test_prepared_recordings_have_no_sound(tmp_path: Path) -> None:
    from recordings import write_recordings

    with pytest.raises(InputError, match=r"keep no sound.*they are streamed"):
        ClipDataset(write_recordings(tmp_path), ClipNeeds(Single(), sound=Sound()), as_read)


@pytest.mark.parametrize(("rate", "seconds", "jitter_s"), [(0, 1.0, 1.0), (RATE, 0.0, 1.0), (RATE, 1.0, -1.0)])
def test_sound_without_samples_is_refused(rate: int, seconds: float, jitter_s: float) -> None:
    with pytest.raises(InputError, match="a rate and a length above 0"):
        Sound(rate, seconds, jitter_s)
