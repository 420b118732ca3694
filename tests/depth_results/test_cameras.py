"""Depth and camera poses agree in scale, by what the recording knows."""

import numpy as np
import pytest
from depth_stub import FRAMES, plane_points, true_poses

from medssl.data.recording_store import Geometry
from medssl.depth_results.cameras import Asked, choose_cameras, image_factors, require_poses, step_factor
from medssl.errors import InputError

NONE = [np.zeros(0)] * FRAMES
RATIOS = [np.full(9, 3.0)] * FRAMES


def geometry(posed: bool = True) -> Geometry:
    poses = true_poses() if posed else None
    zeros = np.zeros(FRAMES)
    usable = np.ones(FRAMES, dtype=bool)
    return Geometry(zeros, zeros, zeros.astype(np.int64), usable, poses=poses, observations=plane_points())


def shrunk(factor: float) -> np.ndarray:
    path = true_poses()
    path[:, :3, 3] /= factor
    return path


def test_a_steady_scale_gives_every_image_the_same_factor() -> None:
    draw = np.random.default_rng(0)
    ratios = [2.0 * np.exp(0.3 * draw.standard_normal(12)) for _ in range(40)]
    own = np.array([np.median(one) for one in ratios])
    factors = image_factors(ratios)
    assert np.std(np.log(factors)) < 0.5 * np.std(np.log(own))
    assert np.median(factors) == pytest.approx(2.0, rel=0.1)


def test_a_drifting_scale_is_followed() -> None:
    draw = np.random.default_rng(0)
    drift = np.exp(np.linspace(-1, 1, 40))
    factors = image_factors([scale * np.exp(0.05 * draw.standard_normal(50)) for scale in drift])
    np.testing.assert_allclose(factors, drift, rtol=0.05)


def test_without_noise_factors_are_the_ratios() -> None:
    np.testing.assert_allclose(image_factors([np.full(5, 1.5), np.full(5, 2.0), np.full(5, 4.0)]), [1.5, 2.0, 4.0])


def test_an_image_without_points_has_the_recordings_factor() -> None:
    factors = image_factors([np.full(5, 2.0), np.zeros(0), np.full(5, 2.0)])
    np.testing.assert_allclose(factors, 2.0)


def test_outlying_points_move_no_factor() -> None:
    np.testing.assert_allclose(image_factors([np.r_[np.full(9, 2.0), 1000.0]] * 3), 2.0)


def test_steps_are_compared_where_both_cameras_move() -> None:
    path = shrunk(4.0)
    path[2] = path[1]
    path[5] = np.nan
    assert step_factor(path, true_poses()) == pytest.approx(4.0, rel=0.3)
    assert step_factor(shrunk(4.0), true_poses()) == pytest.approx(4.0)
    assert step_factor(np.tile(np.eye(4), (FRAMES, 1, 1)), true_poses()) is None


@pytest.mark.parametrize(
    ("asked", "posed", "path", "ratios", "metric", "source", "factor", "unit"),
    [
        ("auto", True, True, RATIOS, False, "recording", 3.0, "mm"),  # points
        ("auto", True, True, NONE, False, "recording", 2.0, "unknown"),  # the network's motion is half as long
        ("auto", True, False, RATIOS, True, "recording", 1.0, "mm"),  # metric
        ("auto", True, False, NONE, False, "none", 1.0, "unknown"),  # nothing tells the scale
        ("auto", False, True, NONE, False, "network", 1.0, "unknown"),
        ("auto", False, True, NONE, True, "network", 1.0, "mm"),
        ("network", True, True, RATIOS, False, "network", 1.0, "unknown"),
        ("none", True, True, RATIOS, False, "none", 3.0, "mm"),
        ("auto", False, False, NONE, False, "none", 1.0, "unknown"),
    ],
)
def test_poses_and_scale_agree(
    asked: Asked, posed: bool, path: bool, ratios: list[np.ndarray], metric: bool, source: str, factor: float, unit: str
) -> None:
    chosen = choose_cameras(asked, geometry(posed), shrunk(2.0) if path else None, ratios, metric, "mm", "v")
    assert (chosen.source, chosen.unit, chosen.poses is None) == (source, unit, source == "none")
    np.testing.assert_allclose(chosen.factors, factor)
    assert chosen.banner == ("Lengths in mm" if unit == "mm" else "UP TO SCALE: lengths have no unit")


def test_poses_that_are_not_there_are_refused_where_they_are_asked_for() -> None:
    with pytest.raises(InputError, match=r"v: has no recorded camera poses; find them with medssl sfm"):
        require_poses("recording", geometry(False), shrunk(1.0), "v")
    with pytest.raises(InputError, match=r"v: the method tells no motion"):
        require_poses("network", geometry(), None, "v")
    with pytest.raises(InputError, match=r"v: has camera poses, but neither points nor motion"):
        choose_cameras("recording", geometry(), None, NONE, False, "unknown", "v")


def test_a_scale_needs_a_point() -> None:
    with pytest.raises(InputError, match="there are none"):
        image_factors(NONE)
