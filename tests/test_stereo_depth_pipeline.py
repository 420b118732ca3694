"""A stereo recording in, its disparity judged: with a truth, without one, without a matcher, and from one camera."""

import sys
from pathlib import Path
from shutil import copytree

import numpy as np
import pandas as pd
import pytest
from shifted_pairs import HEIGHT, SHIFT, WIDTH, texture, write, write_kitti, write_middlebury
from untold import require_untold

import medssl.pipelines.stereo_depth as package
from medssl.cli import main
from medssl.data.prepared_recordings import PreparedRecordings
from medssl.evaluation.disparity import rig_of
from medssl.stereo_results.judge import CONSTANT, FILLED, MATCHER, NOT_AVERAGED
from medssl.stereo_results.recordings import arguments_for
from medssl.tracking import find_runs, tracking_uri

SMALL = [
    *("--recording.size", f"[{HEIGHT},{WIDTH}]", "--recording.mask", "false", "--jobs", "1", "--steps", "1"),
    *("--recipe.batch_size", "1", "--recipe.epoch_steps", "1", "--recipe.watched", "1", "--recipe.workers", "0"),
    *("--encoder_arguments", "{channels: [4, 8, 8], norm: group}"),
]


def run(video: Path, out: Path, *more: str) -> int:
    return main(["run", "stereo_depth", "--video", str(video), "--out", str(out), *SMALL, *more])


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a pair with a truth."""
    root = tmp_path_factory.mktemp("pair")
    write_middlebury(root / "smith_john")
    assert run(root / "smith_john", root / "out") == 0
    return root


def test_every_method_and_baseline_is_scored_against_the_truth(pair: Path) -> None:
    scores = pd.read_csv(pair / "out" / "results" / "scores.csv")
    assert set(scores["method"]) == {"stereo_depth", "stereo_depth" + NOT_AVERAGED, MATCHER, FILLED, CONSTANT}
    seen = scores[scores["structure"] == "non-occluded"].set_index("method")
    assert seen.at[MATCHER, "error_px"] < 0.2 and seen.at[CONSTANT, "error_px"] < 1e-6
    occluded = scores[scores["structure"] == "occluded"].set_index("method")
    assert (occluded["n"] == HEIGHT * SHIFT).all()  # what the left edge shows alone


def test_the_page_begins_with_the_verdict_and_shows_the_pictures(pair: Path) -> None:
    page = (pair / "out" / "results" / "report.html").read_text(encoding="utf-8")
    assert page.index("stereo_depth is off by") < page.index("<table")
    assert page.count("<img") == 5  # the pair, disparities, errors, two of the training


def test_parent_and_training_are_runs(pair: Path) -> None:
    runs = {run.name: run for run in find_runs(tracking_uri(pair / "out"), "stereo_depth")}
    assert runs["stereo_depth, training"].parent == runs["stereo_depth"].run_id
    require_untold(pair / "out", "smith")


def test_started_again_it_does_nothing(pair: Path) -> None:
    files = [path for path in (pair / "out").rglob("*") if path.suffix in (".html", ".safetensors", ".png", ".ckpt")]
    before = {path: path.stat().st_mtime_ns for path in files if "mlartifacts" not in path.parts}
    assert run(pair / "smith_john", pair / "out") == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_two_frames_without_a_truth_are_told_of_and_not_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_kitti(tmp_path / "smith_drive", 2)
    assert run(tmp_path / "smith_drive", tmp_path / "out") == 0
    require_untold(tmp_path / "out", "smith")
    results = tmp_path / "out" / "results"
    assert not (results / "scores.csv").exists()
    table = pd.read_csv(results / "indirect.csv").groupby("method").mean(numeric_only=True)
    assert table.at[MATCHER, "median_difference_px"] == 0 and table.at[MATCHER, "redrawn_error"] < 0.01
    assert table.at[CONSTANT, "next_frame_error"] < 0.01  # depth 100 * 0.5 / 6, moved by 1 / 6: two pixels
    assert "these numbers are not truth" in (results / "report.html").read_text(encoding="utf-8")
    assert "how right stereo_depth is cannot be said" in capsys.readouterr().out


def test_without_opencv_the_matcher_is_left_out_and_that_is_said(
    pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    copytree(pair / "out", tmp_path / "out")  # trained already, judged again
    assert run(pair / "smith_john", tmp_path / "out") == 0
    assert MATCHER not in set(pd.read_csv(tmp_path / "out" / "results" / "scores.csv")["method"])
    page = (tmp_path / "out" / "results" / "report.html").read_text(encoding="utf-8")
    assert "left out: cv2 is needed for this" in page and "medssl[stereo]" in page


def test_a_recording_of_one_camera_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for t in range(3):
        write(tmp_path / "mono" / f"{t}.png", texture(t))
    assert run(tmp_path / "mono", tmp_path / "out") == 2
    assert "mono: has one camera, where a calibrated stereo pair is needed" in capsys.readouterr().err


def test_monodepth2_is_told_depths_that_the_rig_can_see(pair: Path) -> None:
    data = PreparedRecordings(pair / "out" / "prepared")
    told = arguments_for("monodepth2", {"scales": 1}, data, 0.3)
    assert told["sources"] == ["stereo"] and told["scales"] == 1
    shifts = rig_of(data.geometry(0), "smith_john").disparity(np.array([told["min_depth"], told["max_depth"]]))
    np.testing.assert_allclose(shifts, [0.12 * WIDTH, 0.002 * WIDTH])


def test_a_method_without_stereo_is_refused(pair: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(pair / "smith_john", pair / "other", "--methods", "[ego_motion]") == 2
    assert "'ego_motion' learns no depth from stereo" in capsys.readouterr().err


@pytest.mark.parametrize(
    "path", sorted((Path(package.__file__).parent / "configs").glob("*.yaml")), ids=lambda p: p.stem
)
def test_a_configuration_is_accepted(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["run", "stereo_depth", "--config", str(path), "--video", "a", "--out", "b", "--print_config"])
    assert stopped.value.code == 0, capsys.readouterr().err
