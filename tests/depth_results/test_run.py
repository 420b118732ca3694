"""All results of a recording of a plane are where the plane is, and what cannot be made is told."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from depth_stub import DISTANCE, FRAMES, Stub, depths, plane_points, true_poses, write_frames, write_plane
from PIL import Image
from recordings import HEIGHT, WIDTH

from medssl.data.prepared_recordings import PreparedRecordings
from medssl.data.video import open_frames
from medssl.depth_results import pictures
from medssl.depth_results.run import DepthOptions, depth_of_recording
from medssl.depth_results.surface import SceneOptions
from medssl.errors import InputError
from medssl.evaluation.trajectory import read_kitti, read_tum
from medssl.networks import build_encoder
from medssl.reconstruction.mesh import read_mesh
from medssl.reconstruction.point_cloud import read_points
from medssl.stages import Summary, is_done
from medssl.tracking import NullRun
from medssl.video_inference import DepthInference

FEW = SceneOptions(mesh=False, fly_frames=0)


def run(
    data: PreparedRecordings, out: Path, options: DepthOptions = DepthOptions(scene=FEW, overlay=False), **stub: object
) -> Summary:
    method = Stub(build_encoder("unet", 3, 2, channels=(4, 4), norm="group"), **stub)  # type: ignore[arg-type]
    return depth_of_recording(DepthInference(method), data, 0, out, options, NullRun(), "key")


@pytest.fixture(autouse=True)
def one_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw one frame where a test runs for itself, which is quicker."""
    monkeypatch.setattr(pictures, "_SHOWN", 1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Summary]:
    """Everything, of a method whose depth is half the truth, in a recording with poses and points in mm."""
    for name in ("av", "pyvista", "skimage"):
        pytest.importorskip(name)
    root = tmp_path_factory.mktemp("whole")
    data = write_plane(root / "data", "mm", poses=true_poses(), observations=plane_points())
    options = DepthOptions(scene=SceneOptions(voxel=0.25, fly_frames=3))
    return root / "out", run(data, root / "out", options, factor=2.0)


def test_depth_has_the_scale_of_the_recordings_points(whole: tuple[Path, Summary]) -> None:
    out, _ = whole
    scale = json.loads((out / "depth" / "scale.json").read_text())
    assert scale["unit"] == "mm" and scale["banner"] == "Lengths in mm"
    assert scale["frames"] == list(range(FRAMES)) and np.allclose(scale["factors"], 2.0)
    for t, z in enumerate(depths()):
        depth = np.load(out / "depth" / f"{t:08d}.npy")
        assert depth.dtype == np.float32 and depth.shape == (HEIGHT, WIDTH)
        np.testing.assert_allclose(depth, z, rtol=1e-5)
        picture = Image.open(out / "depth" / f"{t:08d}.png")
        np.testing.assert_allclose(np.asarray(picture) * scale["png_scale"], z, rtol=1e-4)
        assert picture.mode.startswith("I;16") and "mm" in picture.text["depth"]  # type: ignore[attr-defined]
        assert (np.asarray(Image.open(out / "valid" / f"{t:08d}.png")) == 255).all()


def test_points_and_surface_lie_on_the_plane(whole: tuple[Path, Summary]) -> None:
    out, _ = whole
    cloud, mesh = read_points(out / "points.ply"), read_mesh(out / "mesh.ply")
    assert cloud.unit == mesh.unit == "mm"
    np.testing.assert_allclose(cloud.positions[:, 2], DISTANCE, atol=1e-4)
    np.testing.assert_allclose(cloud.normals, np.tile([0, 0, -1], (len(cloud.normals), 1)), atol=1e-3)
    assert np.abs(mesh.vertices[:, 2] - DISTANCE).max() < 0.25 / 2
    assert len(np.unique(np.floor(cloud.positions / 0.25), axis=0)) >= 0.9 * len(cloud.positions)  # thinned


def test_the_path_is_the_recordings_in_both_forms(whole: tuple[Path, Summary]) -> None:
    out, _ = whole
    times, poses = read_tum(out / "trajectory_tum.txt")
    np.testing.assert_allclose(times, np.arange(FRAMES) / 25)
    np.testing.assert_allclose(poses, true_poses(), atol=1e-12)
    np.testing.assert_allclose(read_kitti(out / "trajectory_kitti.txt"), true_poses(), atol=1e-12)


def test_scores_are_perfect_where_depth_and_motion_are(whole: tuple[Path, Summary]) -> None:
    out, summary = whole
    table = pd.read_csv(out / "metrics.csv")
    ours = table[table["method"] == "method"]
    assert len(ours) == FRAMES and ours["abs_rel"].max() < 1e-6 and (ours["scaling"] == "median").all()
    np.testing.assert_allclose(ours["scale_ratio"], 2.0, rtol=1e-6)  # of the method's own depth
    assert pd.read_csv(out / "trajectory_metrics.csv")["ate_rmse"].item() < 1e-5
    assert summary.numbers["depth/delta_1"] == 1 and summary.numbers["path/ate_rmse"] < 1e-5


def test_videos_hold_every_frame_with_a_banner(whole: tuple[Path, Summary]) -> None:
    out, _ = whole
    overlay, flight = open_frames(out / "overlay.mp4"), open_frames(out / "fly_through.mp4")
    assert len(overlay) == FRAMES and len(flight) == 3
    for frames in (overlay, flight):
        assert next(frames.read([1]))[:30].max() > 150  # yellow letters
    middle = next(flight.read([1]))
    assert (middle[30:] > 20).any(-1).mean() > 0.5  # the plane is in view


def test_the_summary_tells_speed_coverage_and_registration(whole: tuple[Path, Summary]) -> None:
    out, summary = whole
    told = json.loads((out / "summary.json").read_text())
    assert told["left_out"] == summary.left_out == {}
    assert told["poses"] == "recording" and told["numbers"]["share_with_pose"] == 1
    for name in ("frames_per_second/network", "frames_per_second/all", "network_share_of_time", "seconds/fusing"):
        assert told["numbers"][name] > 0
    coverage = json.loads((out / "coverage.json").read_text())
    assert coverage["seen_share_of_mesh"] > 0.9 and coverage["unit"] == "mm"
    assert is_done(out, "key") and not is_done(out, "another")
    page = (out / "report.html").read_text()
    assert "Lengths in mm" in page and page.count("<img") == 6  # 4 frames, the path, the surface
    assert (out / "overview.png").is_file()


def test_without_poses_depth_is_told_and_nothing_is_fused(tmp_path: Path) -> None:
    summary = run(write_plane(tmp_path / "data", "mm"), tmp_path / "out", moves=False)
    assert "There are no camera poses" in summary.left_out["points, surface and flight"]
    assert summary.sentences[0] == "UP TO SCALE: lengths have no unit."  # of one camera, whatever the recording's unit
    assert len(list((tmp_path / "out" / "depth").glob("*.npy"))) == FRAMES
    for name in ("points.ply", "trajectory_tum.txt", "metrics.csv"):
        assert not (tmp_path / "out" / name).exists()


def test_the_networks_own_poses_fuse_up_to_scale(tmp_path: Path) -> None:
    summary = run(write_plane(tmp_path / "data", "mm"), tmp_path / "out", factor=4.0)
    cloud = read_points(tmp_path / "out" / "points.ply")
    assert cloud.unit == "unknown" and "chained" in summary.sentences[1]
    np.testing.assert_allclose(cloud.positions[:, 2], DISTANCE / 4, rtol=1e-4)


def test_a_metric_method_keeps_its_depth_and_the_unit(tmp_path: Path) -> None:
    data = write_plane(tmp_path / "data", "mm")
    write_frames(data, "depth", np.tile(depths()[:, None, None], (HEIGHT, WIDTH)).astype(np.float32))
    summary = run(data, tmp_path / "out", metric=True)
    assert summary.sentences[0] == "Lengths in mm."
    table = pd.read_csv(tmp_path / "out" / "metrics.csv")
    assert (table[table["method"] == "method"]["scaling"] == "none").all() and summary.numbers["depth/rmse"] < 1e-5


def test_a_metric_method_has_no_unit_where_the_recording_has_none(tmp_path: Path) -> None:
    summary = run(write_plane(tmp_path / "data"), tmp_path / "out", metric=True)
    assert summary.sentences[0] == "UP TO SCALE: lengths have no unit."


def test_held_out_points_judge_and_do_not_scale(tmp_path: Path) -> None:
    data = write_plane(tmp_path / "data", poses=true_poses(), observations=plane_points())
    options = DepthOptions(scene=FEW, overlay=False, held_out_points=0.4)
    run(data, tmp_path / "out", options)
    judged = int((np.random.default_rng(0).random(20) < 0.4).sum())
    assert (pd.read_csv(tmp_path / "out" / "metrics.csv")["n"] == judged).all()


def test_how_few_points_scale_and_scores_rest_on_is_told(whole: tuple[Path, Summary]) -> None:
    out, summary = whole
    few = "20 points, which are few"
    assert few in summary.sentences[1] and few in json.loads((out / "summary.json").read_text())["sentences"][1]
    assert f"points ({few}" in (out / "report.html").read_text(encoding="utf-8")


def test_two_frames_are_enough(tmp_path: Path) -> None:
    summary = run(write_plane(tmp_path / "data", frames=2), tmp_path / "out")
    assert summary.left_out == {"overview.png": "It shows a surface, and there is none."}
    assert len(read_points(tmp_path / "out" / "points.ply").positions)


def test_frames_that_are_all_invalid_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    data = write_plane(tmp_path / "data")
    write_frames(data, "valid", np.zeros((FRAMES, HEIGHT, WIDTH), np.uint8))
    with pytest.raises(InputError, match=r"video0: not one pixel of its 6 frames is valid.*--mask false"):
        run(data, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_a_recording_without_calibration_is_not_fused(tmp_path: Path) -> None:
    summary = run(write_plane(tmp_path / "data", intrinsics=None), tmp_path / "out")
    assert "--intrinsics" in summary.left_out["points, surface and flight"]
    assert (tmp_path / "out" / "trajectory_tum.txt").is_file()


def test_missing_libraries_leave_out_what_needs_them_and_name_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("av", "pyvista", "skimage.measure"):
        monkeypatch.setitem(sys.modules, name, None)
    options = DepthOptions(scene=SceneOptions(fly_frames=2))
    summary = run(write_plane(tmp_path / "data"), tmp_path / "out", options)
    assert set(summary.left_out) == {"surface and coverage", "overview.png", "fly_through.mp4", "overlay.mp4"}
    assert "medssl[endoscopy]" in summary.left_out["surface and coverage"]
    assert "medssl[video]" in summary.left_out["overlay.mp4"]
    assert (tmp_path / "out" / "points.ply").is_file()
    assert "medssl[endoscopy]" in (tmp_path / "out" / "report.html").read_text()


def test_earlier_results_do_not_stay_beside_new_ones(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "depth").mkdir(parents=True)
    for name in ("mesh.ply", "overlay.mp4", "depth/00000099.npy"):
        (out / name).touch()
    run(write_plane(tmp_path / "data"), out)
    assert not any((out / name).exists() for name in ("mesh.ply", "overlay.mp4", "depth/00000099.npy"))


@pytest.mark.parametrize("options", [{"voxel": -1.0}, {"views": 1}, {"fly_frames": 1}])
def test_a_scene_that_cannot_be_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match=f"--{next(iter(options))}"):
        SceneOptions(**options)  # type: ignore[arg-type]
