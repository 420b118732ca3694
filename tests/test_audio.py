"""Sound is read exact in time from anywhere, what is missing is silence, and what is amiss is said in a sentence."""

from pathlib import Path

import numpy as np
import pytest
from sounding import RATE, bursts, spoil_sound, write_sounding

pytest.importorskip("av", reason="videos need the extra 'video'")

from medssl.data.audio import read_audio, read_stretches, resampled
from medssl.data.sound_check import AudioFacts, scan_audio
from medssl.errors import InputError

TIMES = (0.5, 1.7, 3.1)


def onset(sound: np.ndarray, rate: int) -> float:
    """When a sound begins, seconds."""
    return float(np.argmax(np.abs(sound) > 0.1)) / rate


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sounding(tmp_path_factory.mktemp("sound") / "a.mp4", sound=bursts(4, TIMES))


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [
        ("a.mp4", "aac", RATE),
        ("a.mp4", "aac", 11_025),
        ("a.mkv", "aac", 48_000),
        ("a.mkv", "pcm_s16le", RATE),
        ("a.ts", "aac", 48_000),
    ],
)
def test_a_tone_is_heard_when_it_was_whatever_the_container_and_the_rate(
    tmp_path: Path, name: str, codec: str, rate: int
) -> None:
    path = write_sounding(tmp_path / name, sound=bursts(4, TIMES), codec=codec)
    for at in TIMES:
        heard = read_audio(path, at - 0.25, 0.5, rate)
        assert heard.shape == (round(0.5 * rate),) and heard.dtype == np.float32
        assert onset(heard, rate) == pytest.approx(0.25, abs=0.002)


def test_stretches_agree_with_the_whole_wherever_they_are(video: Path) -> None:
    whole = read_audio(video, 0, 4, 22_050)
    for start in (0.0, 0.45, 1.7, 2.98):
        begin = round(start * 22_050)
        np.testing.assert_allclose(read_audio(video, start, 0.4, 22_050), whole[begin : begin + 8820], atol=1e-4)


def test_ascending_stretches_are_read_in_one_pass_and_any_order_gives_the_same(
    video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medssl.data import audio as module

    starts = [0.2, 0.9, 1.0, 1.8, 2.9]
    apart = [read_audio(video, start, 0.3, RATE, 0.0) for start in starts]
    opened: list[Path] = []
    honest = module.open_container
    monkeypatch.setattr(module, "open_container", lambda path: opened.append(path) or honest(path))
    together = list(read_stretches(video, starts, 0.3, RATE, 0.0))
    assert len(opened) == 1
    backwards = list(read_stretches(video, starts[::-1], 0.3, RATE, 0.0))[::-1]
    for one, other, third in zip(apart, together, backwards, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
        np.testing.assert_allclose(one, third, atol=1e-4)


def test_an_impulse_stays_where_it_is_when_resampled() -> None:
    impulse = np.zeros(1600, dtype=np.float32)
    impulse[800] = 1
    for new in (48_000, 8_000):
        assert int(np.argmax(resampled(impulse, RATE, new))) == 800 * new // RATE


def test_channels_are_averaged(tmp_path: Path) -> None:
    import av

    path = tmp_path / "stereo.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=RATE, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.tile([[16_384, 0]], (1, 2 * RATE)).astype(np.int16), "s16", "stereo")
        frame.sample_rate = RATE
        container.mux([*stream.encode(frame), *stream.encode(None)])
    assert scan_audio(path).channels == 2 and scan_audio(path).video_s is None
    np.testing.assert_allclose(read_audio(path, 0.2, 0.5, RATE), 0.25, atol=1e-4)


def test_before_the_first_frame_and_after_the_sound_there_is_silence_of_which_nothing_is_told(
    video: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = read_audio(video, -0.5, 1.2, RATE)
    assert not first[: RATE // 2].any() and onset(first, RATE) == pytest.approx(1.0, abs=0.002)
    assert not read_audio(video, 30, 0.5, RATE).any()
    assert not read_audio(video, 3.8, 1.5, RATE)[RATE:].any() and caplog.text == ""


def test_good_sound_has_facts_and_no_messages(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 4 * RATE).astype(np.float32)
    facts = scan_audio(write_sounding(tmp_path / "a.mp4", sound=noise))
    assert (facts.codec, facts.rate, facts.channels, facts.lost, facts.gaps) == ("aac", RATE, 1, 0.0, ())
    assert facts.duration_s == pytest.approx(4, abs=0.1) and facts.video_s == pytest.approx(3.96, abs=0.01)
    assert abs(facts.drift_s) < 0.01 and facts.refusal() is None and facts.messages() == []


def test_sound_that_starts_late_is_heard_late_and_told(tmp_path: Path) -> None:
    path = write_sounding(tmp_path / "late.mp4", sound=bursts(2.4, [0.5]), codec="aac", clock=lambda heard: heard + 1.5)
    facts = scan_audio(path)
    assert facts.start_s == pytest.approx(1.5, abs=0.07)  # an encoder may begin with a packet of its own
    assert any("begins 1.4" in message or "begins 1.5" in message for message in facts.messages())
    assert onset(read_audio(path, 1.5, 1.0, RATE), RATE) == pytest.approx(0.5, abs=0.002)


def test_a_slow_clock_is_told_and_put_right(tmp_path: Path) -> None:
    sound = bursts(8, [0.5, 7.0])
    path = write_sounding(
        tmp_path / "slow.mkv", frames=210, sound=sound, codec="pcm_s16le", clock=lambda heard: 1.02 * heard
    )
    facts = scan_audio(path)
    assert facts.drift_s == pytest.approx(0.16, abs=0.01) and facts.gaps == ()
    assert any("clock of its sound is slow by 0.1" in message for message in facts.messages())
    assert 6.5 + onset(read_audio(path, 6.5, 1.2, RATE), RATE) == pytest.approx(7.14, abs=0.015)


def test_what_was_not_recorded_is_silence_and_shifts_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_sounding(
        tmp_path / "gap.mkv",
        sound=bursts(4, TIMES),
        codec="pcm_s16le",
        clock=lambda heard: None if 1.0 < heard < 2.5 else heard,
    )
    facts = scan_audio(path)
    [(start, end)] = facts.gaps
    assert (start, end) == pytest.approx((1.024, 2.56), abs=0.07)
    assert any("has gaps, 1.0" in message for message in facts.messages()) and facts.quiet[0][0] <= start
    assert not read_audio(path, 1.2, 1.2, RATE).any() and "silence stands for it" in caplog.text
    assert onset(read_audio(path, 2.6, 1.0, RATE), RATE) == pytest.approx(0.5, abs=0.002)


def test_broken_packets_are_counted_and_what_is_around_them_is_heard(tmp_path: Path) -> None:
    path = write_sounding(tmp_path / "broken.mp4", sound=bursts(4, TIMES))
    facts = scan_audio(spoil_sound(path, lambda number: 20 <= number < 30))
    assert 0.1 < facts.lost < 0.25 and facts.refusal() is None
    assert any("of its sound (aac) cannot be decoded; what can is 3." in message for message in facts.messages())
    assert onset(read_audio(path, 2.85, 0.5, RATE), RATE) == pytest.approx(0.25, abs=0.002)


def test_sound_of_which_most_is_broken_is_refused(tmp_path: Path) -> None:
    path = write_sounding(tmp_path / "broken.mp4", sound=bursts(4, TIMES))
    refusal = scan_audio(spoil_sound(path, lambda number: number > 10)).refusal()
    assert refusal is not None and "broken.mp4: 5" in refusal and "too little to learn from" in refusal


@pytest.mark.parametrize(
    ("seconds", "loud", "said"),
    [(0.4, [0.1], r"lasts 0\.[345]. s, and at least 1 s"), (4.0, [], "is silent .* microphone")],
)
def test_sound_that_teaches_nothing_is_refused(tmp_path: Path, seconds: float, loud: list[float], said: str) -> None:
    path = write_sounding(tmp_path / "a.mp4", sound=bursts(seconds, loud))
    refusal = scan_audio(path).refusal()
    assert refusal is not None
    with pytest.raises(InputError, match=said):
        raise InputError(refusal)


def test_a_video_without_sound_says_so(tmp_path: Path) -> None:
    path = write_sounding(tmp_path / "mute.mp4", frames=10)
    assert scan_audio(path) == AudioFacts(path)
    assert scan_audio(path).messages() == [scan_audio(path).refusal()]
    with pytest.raises(InputError, match=r"mute.mp4: has no sound"):
        read_audio(path, 0, 1, RATE)


@pytest.mark.real_data
def test_real_sound_is_read_at_any_place_and_its_end_is_told(real_data: Path) -> None:
    folder = real_data / "audio_visual"
    for path in sorted(folder.rglob("*.mp4")):
        whole = read_audio(path, 0, 9, 48_000)
        np.testing.assert_allclose(read_audio(path, 3.21, 1, 48_000), whole[154_080:][:48_000], atol=1e-3)
    [told] = scan_audio(folder / "video_with_failing_audio.mp4").messages()
    assert "59% of its sound is silent, 4.65 to 11.23 s" in told
