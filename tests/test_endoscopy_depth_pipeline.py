"""One video in, methods of depth side by side out: judged by a truth that they never see, and nothing is done twice."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from shutil import copytree

import numpy as np
import pandas as pd
import pytest
from recordings import HEIGHT, WIDTH, observations, write_recordings
from textured_corner import CAMERA, arc, filmed
from untold import require_untold

from medssl.cli import main
from medssl.data.camera import Camera, directions_of
from medssl.data.prepared_recordings import PreparedRecordings
from medssl.data.recordings import find_sequences
from medssl.data.sequence import SparsePoints, VideoSequence
from medssl.depth_study.judge import (
    BASELINES,
    CONSTANT,
    EXACT,
    NEAREST,
    POINTS,
    Judge,
    paired_with_baselines,
    ranked,
    verdict,
)
from medssl.depth_study.recording import Recording, require_judgeable
from medssl.depth_study.truth import exact_truth
from medssl.errors import InputError
from medssl.evaluation.surface import score_surface
from medssl.evaluation.trajectory import write_tum
from medssl.files import read_json, write_json
from medssl.reconstruction.mesh import Mesh, write_mesh
from medssl.structure_from_motion.pictures import save_png
from medssl.tracking import find_run, find_runs, tracking_uri

POSES = arc(9, 0.25)
NAMED = "smith_john"
WALLS = np.array([2.0, 1.5, 6.0])  # where the textured corner's walls are, along x, y and z
SMALL = [
    *("--recording.size", "[64,96]", "--jobs", "1", "--steps", "2", "--structure.mapping.attempts", "1"),
    *("--recipe.batch_size", "2", "--recipe.epoch_steps", "2", "--recipe.watched", "2", "--recipe.workers", "0"),
    *("--encoder_arguments", "{channels: [4, 8], norm: group}", "--scene.fly_frames", "0", "--scene.voxel", "1.0"),
    *("--method_arguments", "{monodepth2: {pose_channels: [4, 8], scales: 1}}"),
]


def run(video: Path, out: Path, *more: str) -> int:
    return main(["run", "endoscopy_depth", "--video", str(video), "--out", str(out), *SMALL, *more])


def corner_depth(camera: Camera, pose: np.ndarray) -> np.ndarray:
    """z of the corner in each pixel, (H, W)."""
    y, x = np.mgrid[: camera.height, : camera.width].astype(float)
    rays = np.concatenate([directions_of(camera, np.stack([x, y], -1)), np.ones((*x.shape, 1))], -1) @ pose[:3, :3].T
    with np.errstate(divide="ignore"):
        away = (WALLS - pose[:3, 3]) / rays
    return np.where(away > 0, away, np.inf).min(-1)


def write_exact(folder: Path, camera: Camera = CAMERA, poses: np.ndarray = POSES) -> Path:
    """The corner as a recording of which all is known; its unit shall be mm."""
    for t, picture in enumerate(filmed(poses, camera)):
        save_png(picture, folder / "frames" / f"{t:08d}.png")
        (folder / "depth").mkdir(exist_ok=True)
        np.save(folder / "depth" / f"{t:08d}.npy", corner_depth(camera, poses[t]).astype(np.float32))
    write_json(folder / "camera.json", asdict(camera))
    write_tum(folder / "poses.txt", np.arange(len(poses)) / 25, poses)
    corners = np.array([[x, y, z] for x in (-2.5, 2) for y in (-2, 1.5) for z in (2, 6)], dtype=np.float32)
    faces = np.array([[4, 5, 6], [5, 6, 7], [2, 3, 6], [3, 6, 7], [1, 3, 5], [3, 5, 7]], dtype=np.int32)
    write_mesh(folder / "surface.ply", Mesh(corners, faces, 0 * corners, np.zeros((8, 3), np.uint8), "mm"))
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of the frames alone, judged by the truth, that was stopped before the last results and started again.

    The frames' folder is called by a patient's name.
    """
    pytest.importorskip("pycolmap")
    root = tmp_path_factory.mktemp("endoscopy")
    write_exact(root / "exact")
    copytree(root / "exact" / "frames", root / NAMED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("medssl.depth_results.surface.overview", refused)  # rendering is tested elsewhere
        patch.setattr("medssl.depth_results.run.write_overlay", refused)
        patch.setattr("medssl.depth_results.pictures._SHOWN", 1)
        patch.setattr("medssl.depth_study.study._SHOWN", 1)
        patch.setattr("medssl.depth_study.study.score_surface", partial(score_surface, samples=1000))
        with patch.context() as killed:
            killed.setattr("medssl.depth_study.study.depth_of_recording", stopped)
            with pytest.raises(KeyboardInterrupt):
                run(root / NAMED, root / "out", "--truth", str(root / "exact"))
        with patch.context() as done:
            for work in ("clip_training.train_video", "sfm_results.reconstruct"):
                done.setattr(f"medssl.{work}", None)
            assert run(root / NAMED, root / "out", "--truth", str(root / "exact")) == 0
    return root


@pytest.fixture
def same_store(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs go into the study's MLflow store, as making another one takes seconds."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri(finished / "out"))


def stopped(*arguments: object, **keywords: object) -> None:
    raise KeyboardInterrupt


def refused(*arguments: object, **keywords: object) -> None:
    raise InputError("Not drawn in this test.")


def test_methods_without_points_are_told_how_deep_a_body_is_beside_what_is_asked_for(finished: Path) -> None:
    told = read_json(finished / "out" / "trainings" / "monodepth2" / "method" / "method.json")
    assert told["method_arguments"] == {"max_depth": 10.0, "pose_channels": [4, 8], "scales": 1}


def test_the_page_begins_with_the_verdict_and_shows_the_pictures(finished: Path) -> None:
    page = (finished / "out" / "results" / "report.html").read_text(encoding="utf-8")
    assert page.index("tells depth best, up to scale: at points that it did not learn from") < page.index("<table")
    assert "no p-value" in page and "up to scale" in page
    assert page.count("<img") == 2  # a frame, the paths
    assert "Against the true surface" in page and 'href="../results_' in page


def test_methods_and_baselines_are_scored_alike(finished: Path) -> None:
    scores = finished / "out" / "scores"
    tables = {name: pd.read_csv(scores / name.replace(" ", "_") / "depth.csv") for name in (*BASELINES, "sfm_depth")}
    assert {len(table) for table in tables.values()} == {2 * len(POSES)}
    for table in tables.values():
        assert set(table["judged_by"]) == {POINTS, EXACT} and (table["scaling"] == "median").all()
    exact = tables[NEAREST].query("judged_by == @EXACT")
    assert exact["abs_rel"].mean() < 0.05 and exact["rmse"].mean() < 0.5  # mm: poses, lens and scale agree
    comparison = pd.read_csv(finished / "out" / "results" / "comparison.csv")
    assert comparison["method"].tolist() == ["sfm_depth", "monodepth2", CONSTANT, NEAREST]


def test_the_truth_never_reaches_the_training(finished: Path) -> None:
    data = PreparedRecordings(finished / "out" / "prepared")
    assert not data.has(0, "depth") and not data.has(0, "flow") and data.unit(0) == "unknown"
    poses = data.geometry(0).poses
    assert poses is not None and np.abs(poses[:, :3, 3] - POSES[:, :3, 3]).max() > 0.1  # in a world of its own


def test_the_path_and_the_surface_are_scored_in_mm(finished: Path) -> None:
    paths = pd.read_csv(finished / "out" / "results" / "trajectories.csv").set_index("method")
    assert paths.at["structure from motion", "ate_rmse"] < 0.02 and "monodepth2's own motion" in paths.index
    surface = pd.read_csv(finished / "out" / "scores" / "surface" / "surface.csv")
    assert surface["accuracy_mm"].item() > 0 and surface["tolerance_mm"].item() == 1


def test_children_have_metrics_of_one_name(finished: Path) -> None:
    store, book = tracking_uri(finished / "out"), read_json(finished / "out" / "runs.json")
    parent = find_run(store, book["endoscopy_depth"])
    runs = {one.name: one for one in find_runs(store, "endoscopy_depth", parent.run_id)}
    for name in ("sfm_depth", "monodepth2", *BASELINES):
        assert runs[name].status == "FINISHED"
        assert {"points/abs_rel", "points/delta_1", "exact/abs_rel", "exact/rmse"} <= set(runs[name].metrics)
    assert parent.metrics["frames_registered"] == len(POSES)


def test_the_name_of_the_recording_is_tracked_nowhere(finished: Path) -> None:
    require_untold(finished / "out", "smith")


def test_pictures_of_each_epoch_are_tracked(finished: Path) -> None:
    runs = {one.name: one.run_id for one in find_runs(tracking_uri(finished / "out"), "endoscopy_depth")}
    drawn = list((finished / "out" / "mlartifacts").rglob("clip.png"))
    for name in ("sfm_depth", "monodepth2"):
        of_run = sorted(path.parent.name for path in drawn if runs[name] in path.parts)
        assert of_run == ["look0000", "pictures"]  # input, depth, warped, error and mask; and the last once more


def test_started_again_it_does_nothing_twice(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [*finished.glob("out/trainings/*/stage.json"), *finished.glob("out/scores/*/*.csv")]
    made += [finished / "out" / "sfm" / "summary.json", *finished.glob("out/results_*/summary.json")]
    before = {path: path.stat().st_mtime_ns for path in made}
    assert len(before) == 2 + 5 + 1 + 1
    for work in ("clip_training.train_video", "sfm_results.reconstruct", "depth_study.study.depth_of_recording"):
        monkeypatch.setattr(f"medssl.{work}", None)
    monkeypatch.setattr("medssl.depth_study.study._SHOWN", 1)
    assert run(finished / NAMED, finished / "out", "--truth", str(finished / "exact")) == 0
    assert {path: path.stat().st_mtime_ns for path in made} == before


def test_a_recording_with_poses_and_points_needs_no_structure_from_motion(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same_store: None
) -> None:
    for work in ("pipelines.endoscopy_depth.pipeline.found_geometry", "clip_training.train_video"):
        monkeypatch.setattr(f"medssl.{work}", refused)
    assert run(finished / "out" / "sfm", tmp_path / "out") == 2  # it comes as far as the training
    assert (tmp_path / "out" / "prepared" / "recordings.json").is_file() and not (tmp_path / "out" / "sfm").exists()


def test_exact_depth_is_carried_through_the_lens(tmp_path: Path) -> None:
    bent = Camera(200, 160, 150.0, 150.0, 101.0, 78.0, "radial-tangential", (-0.2, 0.05, 0.001, -0.002))
    write_exact(tmp_path / "exact", bent, POSES[:3])
    straight = np.array([[75.0 * 96 / 100, 0, 46], [0, 60, 30], [0, 0, 1]])
    data = write_recordings(tmp_path / "data", (2,), intrinsics=straight, observations=observations(2))
    frames = find_sequences(tmp_path / "exact")[0].frames
    recording = Recording(VideoSequence("a", "a", frames), np.array([0, 2]), 3, bent, "", {})
    truth = exact_truth(tmp_path / "exact", recording, data)
    np.testing.assert_allclose(truth.poses, POSES[[0, 2]], atol=1e-12)
    expected = corner_depth(Camera(WIDTH, HEIGHT, straight[0, 0], 60, 46, 30), POSES[2])
    found = truth.depth(1)
    known = np.isfinite(found)
    assert known.mean() > 0.5
    assert np.median(np.abs(found / expected - 1)[known]) < 2e-3 and np.abs(found / expected - 1)[known].max() < 0.05


def test_baselines_are_what_a_double_loop_makes(tmp_path: Path) -> None:
    data = write_recordings(tmp_path, (2,), observations=observations(2))
    judge = Judge(data, 0.3)
    judged = set(judge.held_out_points(0)[0][:, 0])
    shown = [x for x in range(20) if x not in judged]  # point x is at pixel (x, 3), x + 1 away
    constant, nearest = (next(iter(judge.maps(name))) for name in BASELINES)
    assert 0 < len(judged) < 20 and (constant == np.median([x + 1 for x in shown])).all()
    for y in range(0, HEIGHT, 9):
        for x in range(WIDTH):
            distance = min((x - at) ** 2 + (y - 3) ** 2 for at in shown)
            assert nearest[y, x] in {at + 1 for at in shown if (x - at) ** 2 + (y - 3) ** 2 == distance}


def test_a_map_that_is_right_up_to_a_factor_has_no_error_and_the_constant_its_closed_form(tmp_path: Path) -> None:
    judge = Judge(write_recordings(tmp_path, (2,), observations=observations(2)), 0.3)
    right = np.broadcast_to(7.0 * (np.arange(WIDTH) + 1), (HEIGHT, WIDTH))
    assert judge.table([right, right])["abs_rel"].max() < 1e-12
    depths = judge.held_out_points(0)[1]
    expected = np.mean(np.abs(np.median(depths) - depths) / depths)
    assert judge.table(judge.maps(CONSTANT))["abs_rel"].tolist() == pytest.approx([expected] * 2)


def test_pairs_are_of_the_same_frames_and_the_verdict_says_who_is_nearer() -> None:
    def table(*abs_rel: float) -> pd.DataFrame:
        frames = [f"frame {t}" for t in range(len(abs_rel))]
        return pd.DataFrame({"scan": frames, "abs_rel": abs_rel, "judged_by": POINTS})

    tables = {"a": table(0.1, 0.3, np.nan), "b": table(0.4, 0.4, 0.4), CONSTANT: table(0.2, 0.2, 0.2)}
    tables[NEAREST] = table(0.15, 0.15, 0.15)
    pairs = paired_with_baselines(tables).set_index(["method", "against"])
    assert pairs.at[("a", CONSTANT), "frames"] == 2 and pairs.at[("a", CONSTANT), "better_in"] == 0.5
    assert pairs.at[("a", CONSTANT), "difference"] == pytest.approx(0)
    assert [name for name in ranked(tables) if name not in BASELINES] == ["a", "b"]
    assert verdict(tables, "b").startswith("b was chosen") and "it learnt nothing that this" in verdict(tables, "b")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--methods", "[sfm_dept]"), "'sfm_dept' is no method of depth. Methods: ego_motion, monodepth2, sfm_depth"),
        (("--methods", "[optical_flow]"), "'optical_flow' is no method of depth"),
        (("--methods", "[ego_motion, ego_motion]"), "each once"),
        (("--recipe_arguments", "{ego_motion: {learning_rate: 1}}"), "not among --methods"),
        (("--recipe_arguments", "{sfm_depth: {rate: 1}}"), "there is no 'rate'"),
        (("--results_of", "ego_motion"), "is not one of --methods"),
        (("--truth", "/nowhere"), "/nowhere: is not a folder with the truth"),
    ],
)
def test_what_cannot_be_compared_is_refused_first(
    words: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    method_arguments = ("--method_arguments", "{}")
    assert run(tmp_path / "film.mp4", tmp_path / "out", *method_arguments, *words) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_video_without_movement_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], same_store: None
) -> None:
    picture = filmed(POSES[:1])[0]
    for t in range(6):
        save_png(picture, tmp_path / "still" / f"{t}.png")
    assert run(tmp_path / "still", tmp_path / "out") == 2
    assert f"{tmp_path / 'still'}: 1 of 6 frames can be used (5 no motion)" in capsys.readouterr().err


def test_two_recordings_are_one_too_many(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        for t in range(2):
            save_png(np.zeros((8, 8, 3), np.uint8), tmp_path / "films" / name / f"{t}.png")
    assert run(tmp_path / "films", tmp_path / "out") == 2
    assert "holds 2 recordings (a, b)" in capsys.readouterr().err


def test_a_recording_without_a_registered_frame_or_without_points_is_refused(tmp_path: Path) -> None:
    nowhere = np.full((3, 4, 4), np.nan)
    data = write_recordings(tmp_path / "a", (3,), poses=nowhere, observations=observations(3))
    with pytest.raises(InputError, match=r"film: 0 of 3 prepared frames have a camera pose"):
        require_judgeable(data, 0.2, Path("film"))
    posed = write_recordings(tmp_path / "b", (3,), poses=np.tile(np.eye(4), (3, 1, 1)))
    with pytest.raises(InputError, match="film: has no points"):
        require_judgeable(posed, 0.2, Path("film"))
    with pytest.raises(InputError, match=r"above 0 and below 1; got 0\."):
        require_judgeable(posed, 0.0, Path("film"))


def test_the_truth_of_another_recording_is_refused(tmp_path: Path) -> None:
    write_exact(tmp_path / "exact", poses=POSES[:2])
    data = write_recordings(tmp_path / "data", (2,))
    frames = find_sequences(tmp_path / "exact")[0].frames
    points = SparsePoints(np.zeros((1, 3)), np.zeros((1, 2), np.int64))
    recording = Recording(VideoSequence("a", "a", frames, points=points), np.arange(2), 40, CAMERA, "", {})
    with pytest.raises(InputError, match="its truth is of 2 frames of 200x160 pixels, the video has 40 frames"):
        exact_truth(tmp_path / "exact", recording, data)


def test_the_demo_is_accepted_by_the_parser(capsys: pytest.CaptureFixture[str]) -> None:
    config = Path(__file__).parents[1] / "sample_data" / "demo_endoscopy.yaml"
    with pytest.raises(SystemExit) as stopped:
        main(["run", "endoscopy_depth", "--config", str(config), "--video", "a", "--out", "b", "--print_config"])
    assert stopped.value.code == 0
    assert "sfm_depth" in capsys.readouterr().out


def test_costs_are_noted(finished: Path) -> None:
    costs = [*finished.glob("out/trainings/*/cost.json"), finished / "out" / "sfm" / "cost.json"]
    assert len(costs) == 3 and all(read_json(path)["minutes"] > 0 for path in costs)
