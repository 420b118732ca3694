"""The pictures of structure from motion show every point, frame and sub-model; the page says what to be careful of."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from textured_corner import CAMERA, ListedFrames, arc

from medssl.data.camera import project
from medssl.data.poses import inverted
from medssl.data.sequence import SparsePoints, VideoSequence
from medssl.report.sfm import frames_picture, scene_picture, sentences, sfm_report
from medssl.structure_from_motion.outcome import Outcome, nearer_is_brighter, reprojection_errors


@pytest.fixture
def outcome() -> Outcome:
    """Three frames that see twenty points exactly, two of another sub-model, and a black one."""
    poses = arc(3)
    positions = np.random.default_rng(0).uniform((-1, -1, 4), (1, 1, 8), (20, 3))
    seen = np.stack(np.meshgrid(np.arange(20), np.arange(3), indexing="ij"), axis=-1).reshape(-1, 2)
    placed = np.einsum("nij,nj->ni", inverted(poses)[seen[:, 1], :3, :3], positions[seen[:, 0]])
    pixels = project(CAMERA, placed + inverted(poses)[seen[:, 1], :3, 3])
    blank = ListedFrames([np.zeros((160, 200, 3), dtype=np.uint8)] * 3)
    points = SparsePoints(positions, seen, pixels)
    table = pd.DataFrame(
        {
            "frame": range(6),
            "time_s": np.arange(6) / 25,
            "motion": [np.nan, 0.01, 0.01, np.nan, 0.02, 0.01],
            "fate": ["registered"] * 3 + ["black"] + ["in another sub-model"] * 2,
            "features": [90, 80, 85, np.nan, 70, 60],
            "observations": [20, 20, 20, np.nan, np.nan, np.nan],
            "error_px": [0.5, 0.3, 0.4, np.nan, np.nan, np.nan],
        }
    )
    models = pd.DataFrame(
        {"sub_model": [1, 2], "frames": [3, 2], "first_s": [0.0, 0.16], "last_s": [0.08, 0.2], "points": [20, 9]}
    )
    attempts = pd.DataFrame({"seed": [0, 1], "frames": [3, 3], "error_px": [0.4, 0.6], "kept": ["yes", ""]})
    sequence = VideoSequence("film", "film", blank, CAMERA, poses, points=points)
    grey = np.clip(400 - 40 * positions[:, 2:], 0, 255).astype(np.uint8)
    return Outcome(sequence, np.repeat(grey, 3, axis=1), CAMERA, "given", table, models, attempts)


def test_the_scene_is_drawn_from_three_sides_in_the_first_cameras_axes(drawn, outcome: Outcome) -> None:
    figure = drawn(scene_picture, outcome, None)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["from behind the first camera", "from above", "from the side"]
    first = outcome.points.positions @ outcome.poses[0, :3, :3] - outcome.poses[0, :3, 3] @ outcome.poses[0, :3, :3]
    for axes, columns in zip(figure.axes, ([0, 1], [0, 2], [2, 1]), strict=True):
        np.testing.assert_allclose(axes.collections[0].get_offsets(), first[:, columns], atol=1e-9)
        assert len(axes.lines[0].get_xdata()) == 3 and axes.lines[1].get_xdata()[0] == pytest.approx(0)
    assert figure.axes[0].yaxis_inverted() and not figure.axes[1].yaxis_inverted()


def test_every_fate_and_sub_model_has_its_place_in_time(drawn, outcome: Outcome) -> None:
    figure = drawn(frames_picture, outcome, None)
    fates = figure.axes[0]
    labels = {line.get_label(): len(line.get_xdata()) for line in fates.lines if "(" in line.get_label()}
    assert labels == {"registered (3)": 3, "in another sub-model (2)": 2, "black (1)": 1}
    assert [label.get_text() for label in fates.get_yticklabels()] == ["frames", "sub-model 1", "sub-model 2"]


def test_the_summary_counts_what_is_there(outcome: Outcome) -> None:
    summary = outcome.summary()
    assert (summary["frames_looked_at"], summary["frames_used"], summary["frames_registered"]) == (6, 5, 3)
    assert (
        summary["share_registered"] == 0.6 and summary["track_length"] == 3 and summary["observations_per_frame"] == 20
    )
    assert summary["reprojection_error_px"] == pytest.approx(0.4)
    assert reprojection_errors(outcome.sequence).max() < 1e-9


def test_a_scene_whose_far_side_is_bright_is_called_inside_out(outcome: Outcome) -> None:
    assert nearer_is_brighter(outcome.sequence, outcome.colours) > 0.9
    assert not any("inside out" in said for said in sentences(outcome))
    turned = replace(outcome, colours=255 - outcome.colours)
    assert any("inside out" in said for said in sentences(turned))


def test_the_page_tells_numbers_sub_models_and_intrinsics(outcome: Outcome, tmp_path: Path) -> None:
    pictures = tmp_path / "points.png", tmp_path / "frames.png"
    scene_picture(outcome, pictures[0])
    frames_picture(outcome, pictures[1])
    sfm_report(replace(outcome, calibration="estimated (OPENCV)"), pictures, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("<img") == 2 and "3 of 5 used frames have a pose" in page
    assert "The largest of 2 sub-models is kept; the others: 2 frames from 0.2 to 0.2 s." in page
    assert "1 were not used: 1 black" in page and "Estimated (opencv): 200x160, fx 150.0" in page.replace(
        "OPENCV", "opencv"
    )
    assert "a calibration of the endoscope is better" in page
