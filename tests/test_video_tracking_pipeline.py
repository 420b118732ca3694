"""Unlabelled videos and a few masks in, what following is worth out: once, with one bad recording beside good ones."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from coloured_squares import ENCODER, HEIGHT, WIDTH, ByColour, mask, save_model, write_recording
from PIL import Image
from untold import require_untold

import medssl.pipelines.video_tracking as package
from medssl.cli import main
from medssl.errors import InputError
from medssl.methods import VIDEO
from medssl.object_tracking.comparison import STAYING
from medssl.object_tracking.given import Objects
from medssl.object_tracking.masked_recordings import find_masked
from medssl.object_tracking.study import TRACKERS, TrackingPlan
from medssl.object_tracking.study_page import study_verdict
from medssl.tracking import find_runs, tracking_uri
from medssl.train_video import VideoRecipe

METHOD = "video_colorization"


def run(root: Path, *more: str) -> int:
    words = ["run", "video_tracking", "--data", str(root / "data"), "--test", str(root / "tests")]
    small = [
        *("--recording.size", f"[{HEIGHT},{WIDTH}]", "--recording.mask", "false", "--jobs", "1", "--steps", "1"),
        *("--recipe.batch_size", "1", "--recipe.epoch_steps", "1", "--recipe.watched", "1", "--recipe.workers", "0"),
        *("--encoder", "unet", "--encoder_arguments", "{channels: [4, 8], norm: group}", "--methods", f"[{METHOD}]"),
        *("--method_arguments", f"{{{METHOD}: {{gap: 1, references: 1, clusters: 2, cluster_batches: 1}}}}"),
        *("--propagation.radius", "3", "--recipe.precision", "fp32"),
    ]
    return main([*words, "--out", str(root / "out"), *small, *more])


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of one method on two recordings, of which one has a mask of another size."""
    root = tmp_path_factory.mktemp("study")
    write_recording(root / "data", masks=())
    write_recording(root / "tests" / "smith_good")
    write_recording(root / "tests" / "smith_bad", masks=(0,))
    Image.fromarray(mask(2)[:, 1:]).save(root / "tests" / "smith_bad" / "masks" / "00000002.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        assert run(root) == 0
    return root


def test_every_way_is_scored_on_the_frames_but_the_first(study: Path) -> None:
    rows = pd.read_csv(study / "out" / "results" / "metrics.csv")
    assert set(rows["method"]) == {METHOD, f"random weights ({METHOD})", STAYING}
    assert set(rows["frame"]) == {2, 4} and set(rows["recording"]) == {"smith_good"} and set(rows["object"]) == {1, 7}
    overlap = rows[(rows["method"] == STAYING) & (rows["frame"] == 2)]["j"]
    assert not overlap.any()  # two squares have moved by their whole side


def test_the_page_has_a_verdict_the_strip_and_what_was_left_out(study: Path) -> None:
    page = (study / "out" / "results" / "report.html").read_text(encoding="utf-8")
    assert page.index(f"{METHOD} follows best") < page.index("<table")
    assert page.count("<img") == 1 + 2
    assert "Recordings: 1; the command says which, and why." in page
    require_untold(study / "out", "smith")


def test_which_recording_is_which_is_told_beside_the_page(study: Path) -> None:
    key = pd.read_csv(study / "out" / "results" / "recordings.csv", index_col="recording")["shown_as"]
    assert set(key.index) == {"smith_good", "smith_bad"}
    assert (study / "out" / "results" / "pictures" / f"{key['smith_good']}.png").is_file()


def test_parent_method_and_baselines_are_runs(study: Path) -> None:
    runs = {run.name: run for run in find_runs(tracking_uri(study / "out"), "video_tracking")}
    parent = runs["video_tracking"].run_id
    assert {name for name, run in runs.items() if run.parent == parent} == {METHOD, "baselines"}
    assert f"{METHOD}/j_mean" in runs[METHOD].metrics


def test_started_again_it_does_nothing_twice(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    kept = [path for path in (study / "out").rglob("*") if path.suffix in (".safetensors", ".parquet", ".ckpt")]
    before = {path: path.stat().st_mtime_ns for path in kept if not {"mlartifacts", "prepared"} & set(path.parts)}
    assert run(study) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_layouts_of_recordings_with_masks_are_found(tmp_path: Path) -> None:
    write_recording(tmp_path / "a" / "one")
    for kind, name in (("JPEGImages", "frames"), ("Annotations", "masks")):
        (tmp_path / "davis" / kind / "480p").mkdir(parents=True)
        (write_recording(tmp_path / "from") / name).rename(tmp_path / "davis" / kind / "480p" / "two")
    (tmp_path / "shapes").mkdir()
    (write_recording(tmp_path / "more") / "masks").rename(tmp_path / "shapes" / "masks")
    (tmp_path / "shapes" / "video.mp4").touch()
    found = {one.name: one for one in find_masked(tmp_path)}
    assert {"one", "two", "shapes"} <= set(found)
    assert found["two"].video == tmp_path / "davis" / "JPEGImages" / "480p" / "two"
    assert found["shapes"].video.name == "video.mp4"
    frames, truth, first, given = found["one"].opened()
    assert isinstance(given, Objects)
    assert (len(frames), truth.frames, first, given.ids) == (6, [0, 2, 4], 0, (1, 7))
    with pytest.raises(InputError, match="holds no recordings with masks"):
        find_masked(tmp_path / "a" / "one" / "frames")


def test_a_plan_that_cannot_be_carried_out_is_refused() -> None:
    def plan(*methods: str, **arguments: dict[str, int]) -> TrackingPlan:
        return TrackingPlan(methods, arguments, "unet", ENCODER, 1, VideoRecipe(), 0)

    with pytest.raises(InputError, match=f"'monodepth2' does not find things again. Methods: {', '.join(TRACKERS)}"):
        plan("monodepth2")
    with pytest.raises(InputError, match="each once"):
        plan("cycle_walk", "cycle_walk")
    with pytest.raises(InputError, match="'cycle_walk', which is not among"):
        plan(METHOD, cycle_walk={})


def test_the_verdict_says_when_learning_was_of_no_use() -> None:
    table = pd.DataFrame({"method": ["a", "b", STAYING], "j_and_f_mean": [0.4, 0.6, 0.5]})
    assert "better than nothing moves" in study_verdict(table, ["a", "b"])[0]
    table["j_and_f_mean"] = [0.4, 0.3, np.float64(0.5)]
    assert "is of no use here" in study_verdict(table, ["a", "b"])[0]


def test_a_method_that_is_no_flow_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(VIDEO, "by_colour", ByColour)
    write_recording(tmp_path / "tests" / "smith_good")
    assert run(tmp_path, "--flow", str(save_model(tmp_path / "model", "by_colour"))) == 2
    assert "'by_colour' tells no optical flow" in capsys.readouterr().err


@pytest.mark.parametrize(
    "path", sorted((Path(package.__file__).parent / "configs").glob("*.yaml")), ids=lambda p: p.stem
)
def test_a_configuration_is_accepted(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        words = ["--data", "a", "--test", "b", "--out", "c", "--print_config"]
        main(["run", "video_tracking", "--config", str(path), *words])
    assert stopped.value.code == 0, capsys.readouterr().err
