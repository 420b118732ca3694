"""``medssl track``: labels of one frame become those of all, in bounded memory; what cannot be used is said at once."""

import gc
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from coloured_squares import (
    CELL,
    FRAMES,
    HEIGHT,
    IDS,
    SIDE,
    WIDTH,
    ByColour,
    mask,
    picture,
    save_model,
    write_recording,
)
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from medssl.cli import main
from medssl.data.video import open_frames
from medssl.data.video_writing import write_video
from medssl.errors import InputError
from medssl.evaluation.tracking import region_similarity
from medssl.files import read_json, write_json
from medssl.label_propagation import Propagation
from medssl.methods import VIDEO
from medssl.networks import build_encoder
from medssl.object_tracking import run as running
from medssl.object_tracking.followers import ByFlow, ByLikeness, Followed
from medssl.object_tracking.given import Objects, Points, read_given
from medssl.object_tracking.mask_files import palette
from medssl.object_tracking.run import TrackOptions, track_recording
from medssl.object_tracking.seen import Seen, frames_from
from medssl.tracking import NullRun, find_runs, open_tracker
from medssl.video_method import FlowMethod

QUICK = ["--device", "cpu", "--precision", "fp32", "--propagation.radius", "3", "--propagation.top", "3"]
SMALL = Propagation(top=3, radius=3)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One MLflow store for all, as making one takes seconds."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        open_tracker(tmp_path_factory.mktemp("out"), "track")
    return uri


@pytest.fixture(autouse=True)
def stub_is_known(monkeypatch: pytest.MonkeyPatch, store: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.setitem(VIDEO, "by_colour", ByColour)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VIDEO, "by_colour", ByColour)
        return save_model(tmp_path_factory.mktemp("model"), "by_colour")


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return write_recording(tmp_path / "squares")


def track(model: Path, recording: Path, *more: str, first: Path | None = None, out: str = "out") -> int:
    first = first or recording / "masks" / "00000000.png"
    frames = recording / "frames" if (recording / "frames").is_dir() else recording
    words = ["track", str(model), str(frames), "--first", str(first), "--out", str(recording.parent / out)]
    return main([*words, *QUICK, *more])


def follower(size: tuple[int, int] = (HEIGHT, WIDTH), batch_size: int = 2) -> ByLikeness:
    encoder = build_encoder("unet", 3, 2, channels=[4, 8], norm="group")
    return ByLikeness(ByColour(encoder), size, SMALL, batch_size=batch_size)


def results(recording: Path, options: TrackOptions = TrackOptions(overlay=False), first: int = 0) -> Path:
    """Follow the squares of a frame, without a store, into a folder beside the recording."""
    frames, out = open_frames(recording / "frames"), recording.parent / "out"
    track_recording(follower(), frames, Objects(mask(first), IDS), out, options, NullRun(), "these")
    return out


class Counted:
    """Frames that are made when read, and tell how many of them anybody still holds."""

    size, files, damaged = (HEIGHT, WIDTH), (), ()

    def __init__(self, count: int) -> None:
        self.count, self.alive, self.most = count, weakref.WeakSet[Any](), 0
        self.times = np.arange(count) / 25

    def __len__(self) -> int:
        return self.count

    def read(self, indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        for index in indices:
            frame = picture(index % FRAMES).view(_Weak)
            self.alive.add(frame)
            self.most = max(self.most, len(self.alive))
            yield frame
            del frame


class _Weak(np.ndarray[Any, Any]):
    """An array that is told apart by what it is, not by its values."""

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> Any:
        return self is other


def test_squares_are_followed_to_where_they_are_and_a_finished_run_is_kept(
    model: Path, recording: Path, capsys: pytest.CaptureFixture[str], store: str
) -> None:
    words = ["--nifti", "true", "--truth", str(recording / "masks"), "--random_weights", "true"]
    assert track(model, recording, *words) == 0
    out = recording.parent / "out"
    with Image.open(out / "masks" / "00000005.png") as image:
        assert image.mode == "P" and image.getpalette()[:6] == [0, 0, 0, 128, 0, 0]
        found = np.array(image)
    assert all(region_similarity(found == thing, mask(5) == thing) > 0.9 for thing in IDS)
    volume = nib.load(out / "masks.nii.gz")
    assert volume.shape == (WIDTH, HEIGHT, FRAMES)
    assert np.array_equal(np.asarray(volume.dataobj)[:, :, 5].T, found)
    summary = pd.read_csv(out / "metrics_summary.csv").set_index("method")
    assert summary.loc["by_colour", "j_mean"] > 0.9 > 0.5 > summary.loc["nothing moves", "j_mean"]
    assert set(summary.index) == {"by_colour", "nothing moves", "random weights"} and set(summary["objects"]) == {2}
    assert set(pd.read_csv(out / "metrics.csv")["frame"]) == {2, 4}
    table = pd.read_csv(out / "confidence.csv")
    assert len(table) == FRAMES * 2 and not table["hidden"].any() and table["confidence"].between(0.9, 1).all()
    assert table["area_px"].between(0.8 * SIDE**2, 1.2 * SIDE**2).all()
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.index("J&amp;F of by_colour") < page.index("<table") and "overlay.mp4" in page
    logged = find_runs(store, "track")[-1]
    assert logged.status == "FINISHED" and logged.metrics["by_colour/j_mean"] > 0.9
    before = (out / "summary.json").stat().st_mtime_ns
    capsys.readouterr()
    assert track(model / "method", recording, *words) == 0
    assert "Done before" in capsys.readouterr().out and (out / "summary.json").stat().st_mtime_ns == before


def test_points_are_followed_and_scored(model: Path, recording: Path) -> None:
    rows = [
        {"frame": t, "name": name, "x": x + 7.5, "y": y + 7.5, "hidden": False}
        for t in range(FRAMES)
        for name, x, y in (("red", 8 * t, 8), ("green", WIDTH - SIDE - 8 * t, 40))
    ]
    pd.DataFrame(rows).to_csv(recording / "points.csv", index=False)
    first = recording / "points.csv"
    assert track(model, recording, "--truth", str(first), first=first) == 0
    table = pd.read_csv(recording.parent / "out" / "points.csv")
    assert list(table.columns) == ["frame", "time", "name", "x", "y", "confidence", "similarity", "hidden"]
    assert not (recording.parent / "out" / "masks").exists()
    red = table[table["name"] == "red"].set_index("frame")
    assert red.loc[0, ["x", "y"]].tolist() == [7.5, 15.5]
    assert abs(red.loc[5, "x"] - 47.5) < CELL and abs(red.loc[5, "y"] - 15.5) < CELL
    summary = pd.read_csv(recording.parent / "out" / "metrics_summary.csv").set_index("method")
    assert summary.loc["by_colour", "distance_px_mean"] < CELL < summary.loc["nothing moves", "distance_px_mean"]


def test_labels_of_a_middle_frame_go_both_ways(recording: Path) -> None:
    forth = results(recording, TrackOptions(2, nifti=True, overlay=False), 2)
    assert sorted(path.name for path in (forth / "masks").iterdir()) == [f"{t:08d}.png" for t in range(2, FRAMES)]
    assert not np.asarray(nib.load(forth / "masks.nii.gz").dataobj)[:, :, :2].any()
    back = np.array(Image.open(results(recording, TrackOptions(2, True, overlay=False), 2) / "masks" / "00000000.png"))
    assert all(region_similarity(back == thing, mask(0) == thing) > 0.9 for thing in IDS)


def test_frames_are_given_backwards_as_they_are_forwards() -> None:
    frames = Counted(40)
    forth = [one.picture.copy() for one in frames_from(frames, 3, 38)]
    back = list(frames_from(frames, 38, 3))
    assert [one.frame for one in back] == list(range(38, 2, -1))
    assert all(np.array_equal(a, b.picture) for a, b in zip(forth[::-1], back, strict=True))


def test_no_more_frames_and_tensors_are_held_of_a_longer_video() -> None:
    given = Objects(mask(0), IDS)

    def held(count: int) -> tuple[int, int]:
        frames, tensors = Counted(count), 0
        for one in follower(batch_size=4).follow(frames_from(frames, 0, count - 1), given):
            if one.frame == count - 2:
                tensors = sum(type(thing) is Tensor for thing in gc.get_objects())
        return frames.most, tensors

    short, long = held(16), held(64)
    assert short == long
    assert long[0] <= 4 + 2


def test_masks_are_of_the_videos_own_size() -> None:
    *_, last = follower((128, 128)).follow(frames_from(Counted(5), 0, 4), Objects(mask(0), IDS))
    assert all(region_similarity(last.found == thing, mask(4) == thing) > 0.8 for thing in IDS)


def test_a_frame_that_cannot_be_decoded_is_hidden_and_keeps_its_labels(recording: Path) -> None:
    broken = recording / "frames" / "00000003.png"
    broken.write_bytes(broken.read_bytes()[:100])
    out = results(recording)
    told = read_json(out / "summary.json")
    assert told["damaged_frames"] == [3] and "1 cannot be decoded (frame 3)" in " ".join(told["sentences"])
    before, then, after = (np.array(Image.open(out / "masks" / f"{t:08d}.png")) for t in (2, 3, 4))
    assert np.array_equal(before, then) and region_similarity(after == 1, mask(4) == 1) > 0.9
    table = pd.read_csv(out / "confidence.csv").set_index("frame")
    assert table.loc[3, "hidden"].all() and not table.loc[4, "hidden"].any()


def test_a_packet_that_cannot_be_decoded_is_hidden(tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="videos need the extra 'video'")
    video = tmp_path / "a.mov"
    with av.open(str(video), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuvj420p"
        for t in range(FRAMES):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(t), format="rgb24")))
        container.mux(stream.encode())
    with av.open(str(video)) as container:
        place, size = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size][2]
    content = bytearray(video.read_bytes())
    content[place : place + size] = bytes(size)
    video.write_bytes(content)
    followed = list(follower().follow(frames_from(open_frames(video), 0, FRAMES - 1), Objects(mask(0), IDS)))
    assert [one.frame for one in followed if np.isnan(one.similarity).all()] == [2]
    assert np.array_equal(followed[1].found, followed[2].found)


def test_what_looks_like_nothing_known_is_hidden() -> None:
    white = np.full((HEIGHT, WIDTH, 3), 255, dtype=np.uint8)
    seen = [Seen(0, picture(0), True), Seen(1, white, True)]
    one = ByLikeness(follower().method, (HEIGHT, WIDTH), Propagation(top=3, radius=3, lost_below=0.9))
    _, then = one.follow(iter(seen), Objects(mask(0), IDS))
    assert (then.hidden > 0.9).all() and (then.similarity < 0.9).all()


class Still(FlowMethod):
    """Everything moves by (8, 0) pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = torch.nn.Parameter(torch.tensor([8.0, 0.0]))

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"loss": self.shift.sum()}

    def flow(self, a: Tensor, b: Tensor) -> Tensor:
        sign = 1 if _red(a) < _red(b) else -1
        return sign * self.shift.view(1, 2, 1, 1).expand(len(a), -1, *a.shape[2:])


def _red(pictures: Tensor) -> float:
    """Where the red square is along x."""
    return float((pictures[0, 0] > 0.5).float().nonzero()[:, 1].float().mean())


def test_flow_takes_masks_and_points_along() -> None:
    by_flow = ByFlow(Still(), (HEIGHT, WIDTH))
    *_, last = by_flow.follow((Seen(t, picture(t), True) for t in range(4)), Objects(mask(0), IDS))
    assert region_similarity(last.found == 1, mask(3) == 1) == 1
    given = Points(("red",), np.array([[7.5, 15.5]]), (HEIGHT, WIDTH))
    *_, last = by_flow.follow((Seen(t, picture(t), True) for t in range(4)), given)
    np.testing.assert_allclose(last.found, [[31.5, 15.5]], atol=1e-4)


def test_an_interrupted_run_has_no_summary(recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results(recording)
    taken: list[Followed] = []

    def add(self: Any, followed: Followed) -> None:
        taken.append(followed)
        if len(taken) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(running.Results, "add", add)
    with pytest.raises(KeyboardInterrupt):
        results(recording)
    assert not list((recording.parent / "out").glob("*.json")) and not list((recording.parent / "out").glob("*.csv"))


def refusal(capsys: pytest.CaptureFixture[str], model: Path, recording: Path, first: Path, *more: str) -> str:
    capsys.readouterr()
    assert track(model, recording, *more, first=first) == 2
    assert not (recording.parent / "out" / "summary.json").exists()
    return capsys.readouterr().err


def test_masks_that_do_not_fit_are_refused(
    model: Path, recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(name: str, values: NDArray[Any]) -> str:
        path = tmp_path / name
        np.save(path, values) if path.suffix == ".npy" else Image.fromarray(values).save(path)
        return refusal(capsys, model, recording, path)

    assert "small.png: is 96x63 pixels, the video's frames 96x64" in told("small.png", mask(0)[1:])
    assert "empty.png: shows no object" in told("empty.png", 0 * mask(0))
    assert "(mode RGBA)" in told("rgba.png", np.dstack([picture(0), mask(0)]))
    assert "(mode RGB)" in told("rgb.png", picture(0))
    assert "from 0 to 1792; whole numbers from 0" in told("deep.png", mask(0).astype(np.uint16) * 256)
    assert "shows 95 objects, at most 64" in told("grey.png", np.tile(np.arange(WIDTH, dtype=np.uint8), (HEIGHT, 1)))
    assert "from 0 to 3.5; whole numbers" in told("soft.npy", mask(0) / 2)
    assert "object numbers (H, W) are expected" in told("clip.npy", np.stack([mask(0)] * 2))
    (tmp_path / "a.txt").write_text("1")
    assert "neither a mask nor points" in refusal(capsys, model, recording, tmp_path / "a.txt")
    assert "no such file" in refusal(capsys, model, recording, tmp_path / "none.png")


def test_points_that_do_not_fit_are_refused(
    model: Path, recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(name: str, text: str) -> str:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return refusal(capsys, model, recording, tmp_path / name)

    assert "point 'tip' is at x 96, y 3, outside the 96x64 pixels" in told("a.json", '{"tip": [96, 3]}')
    assert "point 'tip' is at x nan" in told("b.json", '[{"name": "tip", "x": null, "y": 2}]')
    assert "lacks name, x" in told("c.csv", "point,y\ntip,3\n")
    assert "two points are called 'tip'" in told("d.csv", "name,x,y\ntip,3,3\ntip,4,4\n")
    assert "holds no points" in told("e.json", "[1, 2]")
    assert "has no point that frame 0 shows" in told("f.csv", "frame,name,x,y\n3,tip,3,3\n")


def test_videos_that_leave_nothing_to_follow_are_refused(
    model: Path, recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = recording / "masks" / "00000000.png"
    one = write_recording(tmp_path / "one", frames=1, masks=())
    assert "has 1 frame; things are followed" in refusal(capsys, model, one, first)
    assert "--first_frame 6 is none of them" in refusal(capsys, model, recording, first, "--first_frame", "6")
    assert "give --both true" in refusal(capsys, model, recording, first, "--first_frame", "5")


def test_other_methods_are_refused(
    model: Path, recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = recording / "masks" / "00000000.png"
    depth = save_model(tmp_path / "depth", "monodepth2", scales=1, pose_channels=[4, 8])
    assert "'monodepth2' does not find things again" in refusal(capsys, depth, recording, first)
    truth = ["--truth", str(recording / "masks")]
    assert "tells no optical flow" in refusal(capsys, model, recording, first, *truth, "--flow", str(model))
    assert "compared by a truth" in refusal(capsys, model, recording, first, "--random_weights", "true")


def test_a_truth_of_nothing_that_is_followed_is_refused(
    model: Path, recording: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    first, other = recording / "masks" / "00000000.png", tmp_path / "other"
    other.mkdir()
    Image.fromarray((mask(2) > 0).astype(np.uint8) * 3).save(other / "00000002.png")
    assert "shows nothing of what is followed" in refusal(capsys, model, recording, first, "--truth", str(other))
    Image.fromarray(mask(2)).save(other / "00000009.png")
    assert "is of a frame that the video lacks" in refusal(capsys, model, recording, first, "--truth", str(other))


def test_nifti_and_json_are_read_as_what_is_given(tmp_path: Path) -> None:
    volume = np.stack([mask(t).T for t in range(3)], axis=2)
    nib.save(nib.Nifti1Image(volume, np.eye(4)), tmp_path / "masks.nii.gz")
    given = read_given(tmp_path / "masks.nii.gz", (HEIGHT, WIDTH), 2, 3)
    assert isinstance(given, Objects) and given.ids == IDS and np.array_equal(given.mask, mask(2))
    with pytest.raises(InputError, match="has 3 slices, the video 4 frames"):
        read_given(tmp_path / "masks.nii.gz", (HEIGHT, WIDTH), 2, 4)
    write_json(tmp_path / "points.json", [{"name": "a", "x": 3, "y": 4}])
    points = read_given(tmp_path / "points.json", (HEIGHT, WIDTH), 0, 3)
    assert isinstance(points, Points) and points.places.tolist() == [[3, 4]]
    np.testing.assert_allclose(points.recorded(points.seen((32, 32)), (32, 32)), points.places)


def test_the_palette_is_that_of_davis() -> None:
    """Its first colours, as the benchmark's files have them."""
    assert palette()[[0, 1, 2, 3, 8, 255]].tolist() == [
        [0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [64, 0, 0], [224, 224, 192],
    ]  # fmt: skip


def test_learnt_methods_run_on_a_video(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="videos need the extra 'video'")
    write_video(tmp_path / "video.mp4", (picture(t) for t in range(4)), 25)
    learnt = save_model(tmp_path / "run", "video_colorization")
    first = write_recording(tmp_path / "squares") / "masks" / "00000000.png"
    assert track(learnt, tmp_path / "video.mp4", "--precision", "bf16", first=first) == 0
    assert read_json(tmp_path / "out" / "summary.json")["numbers"]["frames"] == 4
