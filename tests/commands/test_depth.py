"""``medssl depth``: from a saved method and a recording to results, once; what it cannot use is said in one message."""

from pathlib import Path

import numpy as np
import pytest
import torch
from depth_stub import Stub, plane_points, true_poses, write_frames, write_plane
from PIL import Image
from recordings import HEIGHT, WIDTH, write_recordings

from medssl.cli import main
from medssl.data.preparation import Preparation
from medssl.data.prepared_recordings import RecordingPreparation
from medssl.depth_results import pictures
from medssl.method_file import TrainedMethod, save_method
from medssl.methods import VIDEO, build_pretext, build_video_method
from medssl.networks import build_encoder
from medssl.tracking import find_runs, load_table

ENCODER = {"channels": [4, 8], "norm": "group"}
QUICK = ["--mesh", "false", "--fly_frames", "0", "--overlay", "false", "--device", "cpu", "--jobs", "1"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One MLflow store for all, as making one takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


@pytest.fixture(autouse=True)
def stub_is_known(monkeypatch: pytest.MonkeyPatch, store: str) -> None:
    """Let the stub be saved and loaded by name, and draw one frame alone, which is quicker."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.setitem(VIDEO, "stub", Stub)
    monkeypatch.setattr(pictures, "_SHOWN", 1)


def saved(folder: Path, name: str = "stub", **arguments: object) -> Path:
    """A pretraining's folder with a method in it."""
    torch.manual_seed(0)
    method = build_video_method(name, build_encoder("unet", 3, 2, **ENCODER), **arguments)
    trained = TrainedMethod(method, name, arguments, "unet", ENCODER, RecordingPreparation((HEIGHT, WIDTH)))
    save_method(trained, folder / "method")
    return folder


def test_a_recording_is_done_once_and_logged(tmp_path: Path, capsys: pytest.CaptureFixture[str], store: str) -> None:
    model = saved(tmp_path / "run", factor=2.0)
    write_plane(tmp_path / "data", "mm", poses=true_poses(), observations=plane_points())
    words = ["depth", str(model), str(tmp_path / "data"), "--out", str(tmp_path / "out"), *QUICK]
    assert main(words) == 0
    assert "Lengths in mm" in capsys.readouterr().out
    found = find_runs(store, "depth")[-1]
    assert found.status == "FINISHED" and found.params["method"] == "stub"
    table = load_table(store, found.run_id, "metrics")
    assert not set(table["subject"]) & {"data", "video0"} and "data" not in found.name and "video0" not in found.name
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "ate_rmse" in page and "video0" not in page  # it is tracked
    assert found.metrics["share_with_pose"] == 1 and found.metrics["depth/abs_rel"] < 1e-6
    before = (tmp_path / "out" / "summary.json").stat().st_mtime_ns
    assert main([*words[:1], str(model / "method"), *words[2:]]) == 0  # the method's own folder is the same
    assert "done before" in capsys.readouterr().out
    assert (tmp_path / "out" / "summary.json").stat().st_mtime_ns == before
    assert main([*words, "--voxel", "0.5"]) == 0
    assert (tmp_path / "out" / "summary.json").stat().st_mtime_ns != before


def test_one_bad_recording_stops_no_other_and_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_recordings(tmp_path / "data", (3, 3))
    for i in range(2):
        write_frames(data, "frames", np.full((3, 3, HEIGHT, WIDTH), 10, np.uint8), i)
    write_frames(data, "valid", np.zeros((3, HEIGHT, WIDTH), np.uint8), 0)
    model = saved(tmp_path / "run", moves=False)
    assert main(["depth", str(model), str(tmp_path / "data"), "--out", str(tmp_path / "out"), *QUICK]) == 2
    message = capsys.readouterr().err
    assert "1 of the recordings" in message and "video0: not one pixel of its 3 frames is valid" in message
    assert (tmp_path / "out" / "video1" / "summary.json").is_file()


def test_a_learnt_method_sees_a_folder_of_frames(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw = np.random.default_rng(0)
    texture = np.kron(draw.integers(40, 220, (HEIGHT // 4, WIDTH // 4 + 2, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    (tmp_path / "video").mkdir()
    for t in range(4):
        Image.fromarray(texture[: 2 * HEIGHT, 4 * t : 4 * t + 2 * WIDTH]).save(tmp_path / "video" / f"{t:04d}.png")
    model = saved(tmp_path / "run", "monodepth2", scales=1, pose_channels=[4, 8])
    words = ["depth", str(model), str(tmp_path / "video"), "--out", str(tmp_path / "out"), "--every", "2", *QUICK]
    assert main([*words, "--intrinsics", f"100,100,{WIDTH - 0.5},{HEIGHT - 0.5}"]) == 0
    told = capsys.readouterr().out
    assert "UP TO SCALE" in told and "chained from the motion that the network sees" in told
    assert sorted(path.name for path in (tmp_path / "out" / "depth").glob("*.npy")) == ["00000000.npy", "00000002.npy"]
    assert np.load(tmp_path / "out" / "depth" / "00000002.npy").shape == (HEIGHT, WIDTH)
    assert (tmp_path / "out" / "points.ply").is_file()


def refusal(capsys: pytest.CaptureFixture[str], model: Path, video: Path, *options: str) -> str:
    assert main(["depth", str(model), str(video), "--out", str(video.parent / "out"), *QUICK, *options]) == 2
    return capsys.readouterr().err


def test_a_method_that_tells_no_depth_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_plane(tmp_path / "data")
    method = build_pretext("simclr", build_encoder("unet", 3, 2, **ENCODER))
    save_method(TrainedMethod(method, "simclr", {}, "unet", ENCODER, Preparation()), tmp_path / "method")
    assert "'simclr' tells no depth" in refusal(capsys, tmp_path, tmp_path / "data")
    assert "no method" in refusal(capsys, tmp_path / "nothing", tmp_path / "data")


def test_recordings_prepared_at_another_size_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_plane(tmp_path / "data")
    method = build_video_method("stub", build_encoder("unet", 3, 2, **ENCODER))
    trained = TrainedMethod(method, "stub", {}, "unet", ENCODER, RecordingPreparation((64, 64)))
    save_method(trained, tmp_path / "method")
    assert f"differ in size: {HEIGHT}x{WIDTH} and 64x64" in refusal(capsys, tmp_path, tmp_path / "data")


def test_poses_that_are_not_there_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_plane(tmp_path / "data")
    model = saved(tmp_path / "run", moves=False)
    assert "has no recorded camera poses" in refusal(capsys, model, tmp_path / "data", "--poses", "recording")
    assert not (tmp_path / "out" / "depth").exists()


def test_one_camera_for_a_method_of_stereo_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_plane(tmp_path / "data")
    model = saved(tmp_path / "run", "stereo_depth")
    message = refusal(capsys, model, tmp_path / "data")
    assert "video0: the method cannot tell its depth" in message and "lacks a second, calibrated camera" in message


@pytest.mark.parametrize("option", ["batch_size", "views", "every"])
def test_numbers_that_mean_nothing_are_refused(tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "video").mkdir()
    assert option in refusal(capsys, saved(tmp_path / "run"), tmp_path / "video", f"--{option}", "0")
