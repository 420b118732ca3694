"""From a saved method and videos to where the sound is: results, their scores, and videos that cannot be used."""

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
import pytest
import torch
from sounding import FPS, HEIGHT, RATE, WIDTH, bursts, spoil_packets, spoil_sound, write_sounding
from untold import require_untold

from medssl.cli import main
from medssl.data.preparation import Preparation
from medssl.data.prepared_recordings import RecordingPreparation
from medssl.data.video_writing import write_video
from medssl.errors import InputError
from medssl.evaluation.audio_visual import Localisation
from medssl.listening.moments import Listener, Moments, Record
from medssl.listening.overlay import add_sound
from medssl.listening.pictures import Gallery
from medssl.listening.scores import Heard, kinds_in, ndcg_numbers, video_numbers
from medssl.listening.truth import SILENT, heard_things, joined, kinds_of, located, read_truth
from medssl.method_file import TrainedMethod, save_method
from medssl.methods import VIDEO, build_pretext
from medssl.methods.audio_visual import AudioVisual
from medssl.networks import build_encoder
from medssl.tracking import find_runs

ENCODER = {"channels": [4, 8], "norm": "group"}
SMALL: dict[str, Any] = {"width": 8, "stride": 16, "sound_channels": [4, 4], "rate": RATE, "seconds": 0.5}
QUICK = ["--every_s", "0.5", "--device", "cpu", "--precision", "fp32"]
BEATS = (0.5, 1.2, 2.4, 3.3)


def built() -> AudioVisual:
    torch.manual_seed(0)
    return AudioVisual(build_encoder("unet", 3, 2, **ENCODER), **SMALL).eval()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One MLflow store for all, as making one takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch, store: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.setitem(VIDEO, "audio_visual", AudioVisual)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    preparation = RecordingPreparation((32, 32), mask=False)
    save_method(TrainedMethod(built(), "audio_visual", SMALL, "unet", ENCODER, preparation), folder / "method")
    return folder


def truth_table(frames: int = 100) -> pd.DataFrame:
    """A saw at the left that is heard for the first 2 s, and a drill at the right that never is."""
    rows = []
    for frame in range(frames):
        loudness = 0.8 if frame < 50 else 0.0
        rows.append((frame, frame / FPS, 1, "saw", 1, 20.0, 30.0, 16.0, loudness))
        rows.append((frame, frame / FPS, 2, "drill", 0, 80.0, 30.0, 12.0, 0.0))
    return pd.DataFrame(rows, columns=["frame", "time", "object", "kind", "sounding", "x", "y", "radius", "loudness"])


def moments(times: list[float], heat: Any = None, odds: Any = 0.0, other: Any = -1.0) -> Moments:
    count = len(times)
    vectors = np.eye(count, 8, dtype=np.float32)
    flat = np.full((count, 2, 2), 0.1) if heat is None else np.asarray(heat)
    numbers = (np.full(count, odds, dtype=np.float32), np.full(count, other, dtype=np.float32))
    return Moments(np.array(times), *numbers, flat.astype(np.float16), vectors, vectors, np.zeros(count, np.float32))


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sounding(tmp_path_factory.mktemp("video") / "clip.mp4", 100, bursts(4, BEATS))


def test_a_video_is_heard_once_and_all_its_results_are_written(
    video: Path, model: Path, tmp_path: Path, store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    truth_table().to_csv(tmp_path / "truth.csv", index=False)
    out = tmp_path / "out"
    words = ["listen", str(model), str(video), "--out", str(out), "--truth", str(tmp_path / "truth.csv"), *QUICK]
    assert main(words) == 0
    assert "8 moments were seen and heard; videos: 1." in capsys.readouterr().out
    table = pd.read_csv(out / "clip" / "moments.csv")
    np.testing.assert_allclose(table["time_s"], np.arange(8) / 2, atol=0.021)
    assert table["probability"].between(0, 1).all() and table["x"].between(0, 1).all()
    assert table["hit"].notna().tolist() == [True] * 5 + [False] * 3
    assert table["other_probability"].notna().tolist() == [False] * 4 + [True] * 4
    summary = json.loads((out / "summary.json").read_text())
    assert summary["numbers"]["localisation/frames"] == 5 and summary["left_out"] == {}
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.index("the hottest place is on it") < page.index("<img") and page.count("<img") == 4
    with av.open(str(out / "clip" / "overlay.mp4")) as made:
        assert [stream.codec_context.name for stream in made.streams] == ["h264", "aac"]
        assert abs(float(made.streams.audio[0].duration * made.streams.audio[0].time_base) - 4) < 0.1
        assert made.streams.video[0].frames == 8
    assert find_runs(store, "listen")[-1].metrics["localisation/frames"] == 5
    before = (out / "summary.json").stat().st_mtime_ns
    assert main(words) == 0 and "Done before" in capsys.readouterr().out
    assert (out / "summary.json").stat().st_mtime_ns == before


def test_one_video_that_cannot_be_used_stops_no_other_and_is_named(
    video: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    data = tmp_path / "data"
    data.mkdir()
    (data / "smith_good.mp4").write_bytes(video.read_bytes())
    write_sounding(data / "smith_mute.mp4", 30)
    assert main(["listen", str(model), str(data), "--out", str(tmp_path / "out"), "--overlay", "false", *QUICK]) == 2
    message = capsys.readouterr().err
    assert "1 of the videos could not be used" in message and "smith_mute.mp4: has no sound" in message
    assert (tmp_path / "out" / "smith_good" / "moments.csv").is_file()
    assert "smith_mute.mp4: has no sound" in (tmp_path / "out" / "summary.json").read_text(encoding="utf-8")
    assert "Videos: 1, results of others: 0" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    require_untold(tmp_path / "out", "smith")


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(words) == 2
    return capsys.readouterr().err


def test_what_no_sound_can_be_heard_in_is_refused_in_one_message(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mute = write_sounding(tmp_path / "mute.mp4", 30)
    short = write_sounding(tmp_path / "short.mp4", 30, bursts(0.4, [0.1]))
    broken = spoil_sound(write_sounding(tmp_path / "broken.mp4", 100, bursts(4, BEATS)), lambda n: n > 0)
    single = write_sounding(tmp_path / "single.mp4", 1, bursts(2, [0.1]))
    expected = {
        mute: "mute.mp4: has no sound",
        short: "short.mp4: its sound lasts 0.",
        broken: "broken.mp4",
        single: "single: has 1 frame; at least 2 are needed",
    }
    for path, message in expected.items():
        told = refused(["listen", str(model), str(path), "--out", str(tmp_path / "out"), *QUICK], capsys)
        assert message in told and "Traceback" not in told and "None of" not in told


def test_broken_sound_is_told_and_what_can_be_heard_is_used(model: Path, tmp_path: Path) -> None:
    path = spoil_sound(write_sounding(tmp_path / "half.mp4", 100, bursts(4, BEATS)), lambda n: 20 <= n < 30)
    out = tmp_path / "out"
    assert main(["listen", str(model), str(path), "--out", str(out), "--overlay", "false", *QUICK]) == 0
    told = json.loads((out / "summary.json").read_text())["told"]["half"]
    assert any("cannot be decoded" in one for one in told)
    assert any("cannot be decoded" in one for one in [(out / "report.html").read_text(encoding="utf-8")])


def test_frames_that_cannot_be_decoded_are_told_on_the_page(model: Path, tmp_path: Path) -> None:
    path = spoil_packets(write_sounding(tmp_path / "torn.mp4", 100, bursts(4, BEATS)), lambda n: n in (40, 41))
    out = tmp_path / "out"
    assert main(["listen", str(model), str(path), "--out", str(out), "--overlay", "false", *QUICK]) == 0
    told = " ".join(json.loads((out / "summary.json").read_text())["told"]["torn"])
    assert "of its 100 frames cannot be decoded, or build on such, the first at 1.5" in told
    assert "cannot be decoded, or build on such" in (out / "report.html").read_text(encoding="utf-8")


def test_a_method_of_another_kind_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoder = build_encoder("unet", 3, 2, **ENCODER)
    save_method(
        TrainedMethod(build_pretext("rotation", encoder), "rotation", {}, "unet", ENCODER, Preparation()),
        tmp_path / "method",
    )
    told = refused(["listen", str(tmp_path), str(tmp_path / "any.mp4"), "--out", str(tmp_path / "out")], capsys)
    assert "was trained by rotation, which hears nothing" in told


def test_arguments_and_truths_that_cannot_be_used_are_refused(
    video: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["listen", str(model), str(video), "--out", str(tmp_path / "out"), "--overlay", "false"]
    assert "--every_s must be above 0" in refused([*words, "--every_s", "0"], capsys)
    (tmp_path / "truth.csv").write_text("frame,time\n0,0\n")
    assert "has no column object, kind" in refused([*words, "--truth", str(tmp_path / "truth.csv"), *QUICK], capsys)
    assert "no such file" in refused([*words, "--truth", str(tmp_path / "none.csv"), *QUICK], capsys)


def test_sound_that_a_container_cannot_hold_is_left_out_and_said(tmp_path: Path) -> None:
    source = write_sounding(tmp_path / "lossless.mkv", 50, bursts(2, [0.5]), codec="wavpack")
    pictures = [np.full((64, 64, 3), 90, np.uint8)] * 4
    write_video(tmp_path / "overlay.mp4", pictures, 2)
    before = (tmp_path / "overlay.mp4").read_bytes()
    with pytest.raises(InputError, match=r"its sound \(wavpack\) cannot be copied into overlay.mp4"):
        add_sound(tmp_path / "overlay.mp4", source)
    assert (tmp_path / "overlay.mp4").read_bytes() == before


def test_the_numbers_do_not_depend_on_the_batch() -> None:
    draw = np.random.default_rng(0)
    stream = [
        (n / 2, draw.integers(0, 255, (32, 32, 3), dtype=np.uint8), draw.normal(0, 0.1, 8000).astype(np.float32))
        for n in range(7)
    ]
    found = []
    for size in (1, 3, 7):
        record = Record()
        shown = list(Listener(built(), batch_size=size).through(stream, record))
        assert [one.time_s for one in shown] == [n / 2 for n in range(7)]
        found.append(record.moments())
    for other in found[1:]:
        np.testing.assert_allclose(other.odds, found[0].odds, rtol=1e-4)
        np.testing.assert_allclose(other.heat, found[0].heat, rtol=2e-3)
    assert np.isnan(found[0].other_odds[:4]).all() and np.isfinite(found[0].other_odds[4:]).all()


def test_thumbnails_stay_few_and_evenly_apart_however_long_the_video() -> None:
    record, frame = Record(most=10), np.zeros((300, 400, 3), np.uint8)
    for _ in range(157):
        record.add({}, [frame], [np.zeros((3, 4), np.uint8)])
    assert record.places == list(range(0, 157, 16)) and record.frames[0].shape == (75, 100, 3)


def test_of_a_truth_only_what_is_heard_around_the_moment_counts() -> None:
    things = heard_things(truth_table(), [0.0, 2.1, 3.0], 0.5)
    assert things.groupby("moment")["heard"].any().tolist() == [True, True, False]
    assert kinds_of(things, 3).tolist() == ["saw", "saw", SILENT]
    loud = things[things["kind"] == "saw"]["loudness"].tolist()
    assert loud[0] == pytest.approx(0.8) and 0 < loud[1] < 0.4 and loud[2] == 0


def test_heat_on_what_is_heard_is_a_hit_and_elsewhere_is_none() -> None:
    left, right = [[0.9, 0.1], [0.1, 0.1]], [[0.1, 0.9], [0.1, 0.1]]
    times = [0.0, 1.0, 3.5]
    things = heard_things(truth_table(), times, 0.5)
    found = located(moments(times, [left, right, left]), things, (HEIGHT, WIDTH))
    assert found is not None and found.n == 2 and found.hit_rate == 0.5
    np.testing.assert_array_equal(found.hits, [1, 0, np.nan])


def test_parts_are_joined_as_if_scored_together() -> None:
    parts = [Localisation(np.ones(1), 1.0, 0.5, 0.1, 1), Localisation(np.zeros(3), 0.0, 0.1, 0.3, 3)]
    whole = joined(parts)
    assert whole.n == 4 and whole.hit_rate == 0.25 and whole.centre == pytest.approx(0.2)
    assert whole.chance == pytest.approx(0.25)


def test_a_truth_of_another_make_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(InputError, match=r"empty.csv: cannot be read as a table"):
        read_truth(tmp_path / "empty.csv")


def gallery(*videos: str) -> Gallery:
    vectors = np.eye(len(videos), dtype=np.float32)
    picture, heard = np.zeros((4, 4, 3), np.uint8), np.zeros((5, 6), np.uint8)
    return Gallery(vectors, vectors, [picture] * len(videos), [heard] * len(videos), videos, np.zeros(len(videos)))


def test_a_pictures_own_sound_is_first_where_embeddings_agree_and_last_where_they_oppose() -> None:
    one = gallery("a", "a", "b")
    assert one.own_rank().tolist() == [1, 1, 1]
    assert Gallery(
        one.image, -one.sound, one.frames, one.spectrograms, one.videos, one.times_s
    ).own_rank().tolist() == [
        3,
        3,
        3,
    ]


def test_kinds_are_known_of_videos_with_a_truth_and_silence_is_not_looked_for() -> None:
    heard = Heard(moments([0.0]), heard_things(truth_table(), [0.0], 0.5))
    kinds = kinds_in(gallery("a", "b"), {"a": heard, "b": Heard(moments([0.0]))})
    assert kinds.tolist() == ["saw", SILENT]
    assert ndcg_numbers(gallery("a", "b"), kinds) == {}
    assert ndcg_numbers(gallery("a", "b"), np.array(["saw", "saw"]))["ndcg/image-audio"] == 1


def test_pictures_that_fit_their_own_sound_better_are_told_from_others() -> None:
    numbers = video_numbers(Heard(moments([0.0, 1.0], odds=2.0, other=-2.0)))
    assert numbers["own_moment/accuracy"] == numbers["own_moment/ranked"] == 1
    assert numbers["probability/mean"] == pytest.approx(1 / (1 + np.exp(-2)))
