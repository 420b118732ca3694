"""What is seen of the made-up things is what is heard of them: place, loudness, kind and delay are exactly as told."""

import json
import wave
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image

from medssl.data.splits import load_split
from medssl.errors import InputError
from sample_data import make_sounding as command
from sample_data.script import run_script
from sample_data.sounding import KINDS, RATE, Kind
from sample_data.sounding_scene import SoundingScene

BANDS_HZ = np.geomspace(50, 12_000, 13)
FRAME = RATE // 25


@pytest.fixture(scope="module")
def scene() -> SoundingScene:
    return SoundingScene(64, 64, seconds=3, seed=3, objects=4)


def power_of_frames(sound: NDArray[np.float64]) -> NDArray[np.float64]:
    """Root of the mean power within 20 ms of each frame's time."""
    power = np.convolve(sound**2, np.full(FRAME, 1 / FRAME), mode="same")
    return np.sqrt(np.maximum(power[::FRAME], 0))


def band_energies(sound: NDArray[np.float64]) -> NDArray[np.float64]:
    spectrum = np.abs(np.fft.rfft(sound)) ** 2
    frequency = np.fft.rfftfreq(len(sound), 1 / RATE)
    bands = pairwise(BANDS_HZ)
    energies = np.array([spectrum[(frequency >= low) & (frequency < high)].sum() for low, high in bands])
    return energies / energies.sum()


def decoded(path: Path) -> NDArray[np.float64]:
    import av

    with av.open(str(path)) as container:
        parts = list(container.decode(audio=0))
    late = max(round(parts[0].time * RATE), 0)
    return np.concatenate([np.zeros(late), *(part.to_ndarray()[0].astype(float) for part in parts)])


@pytest.mark.parametrize("seed", range(4))
def test_the_sound_is_as_loud_as_the_motion_that_is_seen(seed: int) -> None:
    scene = SoundingScene(32, 32, seconds=3, seed=seed)
    truth = scene.truth()
    loudness = truth[truth["sounding"] == 1]["loudness"].to_numpy()
    assert loudness.min() < 0.1 and loudness.max() > 0.8
    assert np.corrcoef(power_of_frames(scene.sound()), loudness)[0, 1] > 0.97


@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
def test_a_thing_moves_where_it_is_active_and_holds_still_where_it_is_not(kind: Kind) -> None:
    points = np.random.default_rng(0).uniform(-1, 1, (4000, 2))

    def shown(activity: float, worked: float) -> NDArray[np.float64]:
        inside, colours = kind.paint(points, activity, worked)
        return np.where(inside[:, None], colours, 0)

    rest, active = shown(0.0, 1.0), shown(0.9, 1.0 + 0.9 * 0.04)
    assert (shown(0.0, 1.0) == rest).all()
    assert (np.abs(active - rest) > 0).any(axis=1).mean() > 0.02


@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
def test_a_thing_holds_its_middle_and_keeps_within_its_circle(kind: Kind) -> None:
    y, x = np.mgrid[-1.5:1.5:61j, -1.5:1.5:61j]
    points = np.column_stack([x.ravel(), y.ravel()])
    for activity in (0.0, 0.4, 1.0):
        for worked in np.linspace(0, 0.3, 7):
            assert kind.paint(np.zeros((1, 2)), activity, worked)[0][0]
            inside, _ = kind.paint(points, activity, worked)
            assert np.hypot(*points[inside].T).max() <= 1


def test_kinds_are_told_by_the_energies_of_their_bands() -> None:
    times = np.arange(2 * RATE) / RATE
    sounds: dict[str, list[NDArray[np.float64]]] = {kind.name: [] for kind in KINDS}
    for seed in range(4):
        for kind in KINDS:
            activity = kind.activity(times, np.random.default_rng((seed, 0)))
            sounds[kind.name].append(band_energies(activity * kind.carrier(activity, np.random.default_rng((seed, 1)))))
    centroids = {name: np.mean(found[:2], axis=0) for name, found in sounds.items()}
    for name, found in sounds.items():
        for energies in found[2:]:
            assert min(centroids, key=lambda other: np.linalg.norm(centroids[other] - energies)) == name


def test_the_drills_pitch_follows_its_turning() -> None:
    drill = next(kind for kind in KINDS if kind.name == "drill")
    pitches = []
    for level in (0.2, 1.0):
        sound = drill.carrier(np.full(RATE, level), np.random.default_rng(0))
        pitches.append(np.abs(np.fft.rfft(sound)).argmax())  # of a second, so in Hz
    assert pitches[1] > pitches[0] + 300


def test_the_middle_of_what_sounds_lies_on_its_mask_and_the_mask_in_its_circle(scene: SoundingScene) -> None:
    truth = scene.truth()
    y, x = np.indices((64, 64))
    for frame in (0, 20, 40, 70):
        mask = scene.mask(frame)
        rows = truth[truth["frame"] == frame]
        for row in rows.itertuples():
            there = mask[round(row.y), round(row.x)]
            assert there == (row.object if row.sounding else 0)
            if row.sounding:
                away = np.hypot(x - row.x, y - row.y)[mask == row.object]
                assert len(away) > 20 and away.max() <= row.radius
    assert set(np.unique(scene.mask(0))) == {0, *truth[truth["sounding"] == 1]["object"]}


def test_things_do_not_hide_one_another_and_stay_in_the_picture() -> None:
    for seed in range(5):
        truth = SoundingScene(64, 64, seconds=1, seed=seed, objects=3).truth()
        for _, rows in truth.groupby("frame"):
            places, radii = rows[["x", "y"]].to_numpy(), rows["radius"].to_numpy()
            apart = np.linalg.norm(places[:, None] - places[None], axis=-1) + 1e3 * np.eye(len(places))
            assert (apart > radii[:, None] + radii).all()
            assert (places > radii[:, None]).all() and (places < 63 - radii[:, None]).all()


def test_those_that_do_not_sound_rest_unless_they_are_busy() -> None:
    resting, busy = (SoundingScene(64, 64, seconds=2, seed=7, busy=told) for told in (False, True))
    for scene, moves in ((resting, False), (busy, True)):
        silent = [thing for thing in scene.things if not thing.sounding]
        assert len(silent) == 2 and all((thing.activity.max() > 0) == moves for thing in silent)
    np.testing.assert_array_equal(resting.truth(), busy.truth())


def test_which_number_sounds_says_nothing() -> None:
    numbers = {scene.truth().query("sounding == 1")["object"].iat[0] for scene in scenes(8)}
    kinds = {scene.truth().query("sounding == 1")["kind"].iat[0] for scene in scenes(8)}
    assert len(numbers) == 3 and len(kinds) >= 3


def scenes(count: int) -> list[SoundingScene]:
    return [SoundingScene(32, 32, seconds=0.2, seed=seed) for seed in range(count)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("av")
    out = tmp_path_factory.mktemp("sounding") / "made"
    command.make_sounding(
        out, videos=3, seconds=3, height=32, width=32, objects=2, seed=2, offset_s=0.24, silent_share=0.34
    )
    return out


def test_the_decoded_sound_fits_the_truth_best_at_the_offset(made: Path) -> None:
    videos = pd.read_csv(made / "videos.csv", keep_default_na=False)
    heard = videos[videos["sounding"] != ""]["video"]
    assert len(heard) == 2
    for name in heard:
        truth = pd.read_csv(made / name / "truth.csv")
        loudness = truth[truth["sounding"] == 1]["loudness"].to_numpy()
        power = power_of_frames(decoded(made / name / "video.mp4"))[: len(loudness)]
        lags = range(15)
        fits = [np.corrcoef(power[lag:], loudness[: len(loudness) - lag])[0, 1] for lag in lags]
        assert np.argmax(fits) == 6  # frames of 40 ms
        assert max(fits) > 0.95


def test_a_silent_video_is_silent_and_shows_no_sounding_thing(made: Path) -> None:
    videos = pd.read_csv(made / "videos.csv", keep_default_na=False)
    (name,) = videos[videos["sounding"] == ""]["video"]
    assert np.abs(decoded(made / name / "video.mp4")).max() < 1e-4
    truth = pd.read_csv(made / name / "truth.csv")
    assert not truth["sounding"].any() and not truth["loudness"].any()
    assert not np.asarray(Image.open(made / name / "masks/00000003.png")).any()


def test_the_wav_holds_what_the_video_sounds_like(made: Path) -> None:
    name = pd.read_csv(made / "videos.csv", keep_default_na=False).query("sounding != ''")["video"].iat[0]
    with wave.open(str(made / name / "audio.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (48_000, 1, 2)
        exact = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32767
    assert len(exact) == 3 * 48_000 and 0.2 < np.abs(exact).max() < 1
    assert not exact[: round(0.24 * 48_000)].any()
    assert np.corrcoef(decoded(made / name / "video.mp4")[: len(exact)], exact)[0, 1] > 0.9


def test_the_split_holds_out_whole_videos(made: Path) -> None:
    split = load_split(made / "split.json")
    assert sorted(name for names in split.values() for name in names) == [f"sounding{i:03d}" for i in range(3)]
    assert {part: len(names) for part, names in split.items()} == {"held_out": 1, "train": 2}
    assert json.loads((made / "split.json").read_text()).keys() == {"held_out", "train"}


def test_the_command_makes_the_same_files_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("av")
    words = "--videos 2 --seconds 0.2 --height 32 --width 32 --sounding 2 --seed 5"
    for name in ("one", "two"):
        monkeypatch.setattr("sys.argv", ["make_sounding", *f"--out {tmp_path / name} {words}".split()])
        assert run_script(command.make_sounding) == 0
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert len(files) == 2 + 2 * (3 + 5)
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    first, second = (tmp_path / "one" / f"sounding{number:03d}" / "audio.wav" for number in (0, 1))
    assert first.read_bytes() != second.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"videos": 1}, "1 videos were asked for; at least 2"),
        ({"sounding": 3}, "sounding is 1 or 2, got 3"),
        ({"sounding": 0}, "silent videos are made by --silent_share"),
        ({"offset_s": 6.0}, "less than the 6 s of a video, got 6"),
        ({"silent_share": 1.5}, "silent_share is from 0 to 1"),
        ({"held_out_share": 1.0}, "held_out_share between 0 and 1"),
        ({"objects": 5}, "from 2 to 4, one of each kind at most; got 5"),
        ({"objects": 1}, "from 2 to 4, one of each kind at most; got 1"),
        ({"height": 16}, "256x16 were asked for; at least 32x32"),
        ({"seconds": 0.01}, r"at least 0\.08; got 0\.01"),
    ],
)
def test_what_cannot_be_is_refused(arguments: dict[str, float], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        command.make_sounding(tmp_path / "new", **arguments)
    assert not (tmp_path / "new").exists()


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(InputError, match="is not empty"):
        command.make_sounding(tmp_path)
