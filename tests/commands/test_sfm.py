"""A video is reconstructed as a user would, from a folder of pictures."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from textured_corner import CAMERA, arc, filmed

from medssl.cli import main
from medssl.data.calibration import read_intrinsics
from medssl.data.colmap import colmap_sequence
from medssl.evaluation.trajectory import absolute_trajectory_error, read_tum
from medssl.reconstruction.point_cloud import read_points
from medssl.structure_from_motion import from_video
from medssl.structure_from_motion.pictures import save_png
from medssl.tracking import find_runs, tracking_uri

pytest.importorskip("pycolmap")

POSES = arc(6, 0.3)
INTRINSICS = ["--intrinsics", f"{CAMERA.fx},{CAMERA.fy},{CAMERA.cx},{CAMERA.cy}", "--threads", "1"]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("film")
    for number, picture in enumerate(filmed(POSES)):
        save_png(picture, folder / f"frame{number:03d}.png")
    return folder


@pytest.fixture(scope="module")
def made(film: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command leaves, after it was interrupted before the mapping and started again."""
    out = tmp_path_factory.mktemp("out")
    words = ["sfm", str(film), "--out", str(out), *INTRINSICS]

    def interrupted(*arguments, **keywords):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(from_video, "map_frames", interrupted)
        with pytest.raises(KeyboardInterrupt):
            main(words)
        assert not (out / "sparse").exists() and len(list(out.glob(".work-*"))) == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(from_video, "choose", interrupted)  # it was done
        assert main(words) == 0
    return out


def test_a_film_becomes_a_recording_that_is_read_again(made: Path) -> None:
    sequence = colmap_sequence(made)
    assert sequence.camera == CAMERA and len(sequence.frames) == 6
    assert absolute_trajectory_error(sequence.poses, POSES).rmse < 0.01
    assert (
        read_intrinsics(made / "camera.json", (160, 200)) == CAMERA == read_intrinsics(made / "lens.json", (160, 200))
    )


def test_path_points_tables_pictures_and_page_lie_beside_it(made: Path) -> None:
    names = {path.name for path in made.iterdir()}
    assert names >= {"sparse", "images", "mask.png", "points.png", "frames.png", "report.html"}
    assert not [name for name in names if name.startswith(".")]
    times, poses = read_tum(made / "trajectory.txt")
    assert times.tolist() == [0, 1, 2, 3, 4, 5]  # numbers of the frames: a folder does not tell their rate
    np.testing.assert_allclose(poses, colmap_sequence(made).poses, atol=1e-6)
    summary = json.loads((made / "summary.json").read_text())
    assert len(read_points(made / "points.ply").positions) == summary["points"] > 100
    assert summary["frames_registered"] == 6 and summary["calibration"] == "given"
    assert pd.read_csv(made / "frames.csv")["fate"].eq("registered").all()


def test_a_run_is_logged(made: Path) -> None:
    run = find_runs(tracking_uri(made), "sfm")[-1]
    assert run.params["features.peak_threshold"] == "0.003" and run.metrics["frames_registered"] == 6


def test_what_is_done_is_not_done_again(
    film: Path, made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("medssl.sfm_results.reconstruct", None)
    assert main(["sfm", str(film), "--out", str(made), *INTRINSICS]) == 0
    assert "Done before" in capsys.readouterr().out


def test_intrinsics_of_another_size_are_refused(film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sfm", str(film), "--out", str(tmp_path), "--intrinsics", "300,300,200,160,400,320"]
    assert main(words) == 2
    assert "is for pictures of 400x320, the frames are 200x160" in capsys.readouterr().err


def test_a_broken_container_is_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("av")
    (tmp_path / "film.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(200))
    assert main(["sfm", str(tmp_path / "film.mp4"), "--out", str(tmp_path / "out")]) == 2
    assert "film.mp4: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
