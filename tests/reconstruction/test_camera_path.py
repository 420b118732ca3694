"""Paths are smooth, rigid, near the recording, and covered at an even speed."""

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from medssl.errors import InputError
from medssl.reconstruction.camera_path import eased, jitter, smooth_path

Array = NDArray[np.float64]


def helix(count: int) -> Array:
    """A camera that goes round and along a helix of radius 10, looking where it goes."""
    t = np.linspace(0, np.pi, count)
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, :3, 3] = np.stack([10 * np.cos(t), 10 * np.sin(t), 5 * t], axis=-1)
    poses[:, :3, :3] = (Rotation.from_euler("z", t[:, None]) * Rotation.from_euler("x", -63, degrees=True)).as_matrix()
    return poses


def shaken(poses: Array, position: float, degrees: float) -> Array:
    rng = np.random.default_rng(0)
    poses = poses.copy()
    poses[:, :3, 3] += rng.normal(0, position, (len(poses), 3))
    turn = Rotation.from_rotvec(rng.normal(0, np.radians(degrees), (len(poses), 3)))
    poses[:, :3, :3] = poses[:, :3, :3] @ turn.as_matrix()
    return poses


def distance(points: Array, way: Array) -> Array:
    """Of each point from a way, segment by segment."""
    found = np.full(len(points), np.inf)
    for i, point in enumerate(points):
        for start, end in pairwise(way):
            along = np.clip((point - start) @ (end - start) / ((end - start) @ (end - start)), 0, 1)
            found[i] = min(found[i], np.linalg.norm(start + along * (end - start) - point))
    return found


def angle(a: Array, b: Array) -> Array:
    """Between the directions of poses, degrees."""
    cosine = (np.einsum("nij,nij->n", a[:, :3, :3], b[:, :3, :3]) - 1) / 2
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def test_a_path_is_rigid_and_runs_from_end_to_end_near_the_poses() -> None:
    poses = helix(30)
    path = smooth_path(poses, 200)
    rotation = path[:, :3, :3]
    np.testing.assert_allclose(rotation @ rotation.swapaxes(1, 2), np.tile(np.eye(3), (200, 1, 1)), atol=1e-9)
    np.testing.assert_allclose(np.linalg.det(rotation), 1)
    assert (path[:, 3] == (0, 0, 0, 1)).all()
    assert distance(path[:, :3, 3], poses[:, :3, 3]).max() < 0.2
    assert distance(poses[:, :3, 3], path[:, :3, 3]).max() < 0.2
    assert angle(path[[0, -1]], poses[[0, -1]]).max() < 1
    np.testing.assert_allclose(path[[0, -1], :3, 3], poses[[0, -1], :3, 3], atol=0.2)


@pytest.mark.parametrize("tolerance", [0.0, 0.02, 0.5])
def test_a_path_keeps_to_its_tolerances(tolerance: float) -> None:
    poses = shaken(helix(40), 0.3, 2)
    path = smooth_path(poses, 100, tolerance, tolerance_degrees=180)
    assert distance(path[:, :3, 3], poses[:, :3, 3]).max() <= tolerance + 1e-4


def test_shaking_is_taken_out() -> None:
    truth = helix(200)
    poses = shaken(truth, 0.2, 1.5)
    path = smooth_path(poses, 200)
    assert jitter(path).position < 0.05 * jitter(poses).position
    assert jitter(path).degrees < 0.05 * jitter(poses).degrees
    off = distance(path[:, :3, 3], truth[:, :3, 3])
    assert np.sqrt(np.mean(off**2)) < 0.5 * 0.2 * 2**0.5
    assert np.sqrt(np.mean(angle(path, truth) ** 2)) < 0.5 * 1.5 * 3**0.5


def test_jitter_is_that_of_the_noise() -> None:
    found = jitter(shaken(helix(2000), 0.2, 1.5))
    assert found.position == pytest.approx(0.2 * 3**0.5, rel=0.1)
    # a turn is the difference of two poses' noise, so its difference is a second difference
    assert found.degrees == pytest.approx(1.5 * 3**0.5, rel=0.1)
    assert jitter(helix(2)) == (0, 0)


def test_speed_is_even_however_unevenly_it_was_recorded() -> None:
    t = np.linspace(0, 1, 60) ** 2
    poses = np.tile(np.eye(4), (60, 1, 1))
    poses[:, 2, 3] = 40 * t
    steps = np.linalg.norm(np.diff(smooth_path(poses, 101)[:, :3, 3], axis=0), axis=1)
    np.testing.assert_allclose(steps, 0.4, rtol=0.02)


def test_a_camera_that_turns_on_the_spot_turns_evenly() -> None:
    poses = np.tile(np.eye(4), (10, 1, 1))
    poses[:, :3, :3] = Rotation.from_euler("y", np.linspace(0, 300, 10)[:, None], degrees=True).as_matrix()
    path = smooth_path(poses, 61)
    np.testing.assert_allclose(angle(path[1:], path[:-1]), 5, rtol=0.02)
    np.testing.assert_allclose(path[:, :3, 3], 0, atol=1e-6)


def test_easing_starts_and_ends_at_rest_and_is_symmetric() -> None:
    t = np.linspace(0, 1, 1001)
    way = eased(t, 0.25)
    speed = np.diff(way) * 1000
    assert way[0] == 0 and way[-1] == 1
    np.testing.assert_allclose(way + way[::-1], 1, atol=1e-12)
    np.testing.assert_allclose(speed[250:750], 1 / 0.75)
    np.testing.assert_allclose(speed[:250], np.linspace(0, 1 / 0.75, 251)[:-1] + 0.5 / 250 / 0.75, atol=1e-9)
    np.testing.assert_array_equal(eased(t, 0), t)
    steps = np.linalg.norm(np.diff(smooth_path(helix(30), 101, ease=0.5)[:, :3, 3], axis=0), axis=1)
    assert steps[0] < 0.05 * steps[50] and steps[-1] < 0.05 * steps[50]


def test_frames_without_a_pose_are_passed_over() -> None:
    poses = helix(30)
    poses[[3, 4, 11]] = np.nan
    path = smooth_path(poses, 50, tolerance=0.5, tolerance_degrees=5)
    assert np.isfinite(path).all()
    assert distance(path[:, :3, 3], helix(30)[:, :3, 3]).max() < 0.7


@pytest.mark.parametrize("count", [2, 3, 4])
def test_few_poses_are_joined_too(count: int) -> None:
    path = smooth_path(helix(30)[:: 29 // (count - 1)], 20)
    assert np.isfinite(path).all()
    np.testing.assert_allclose(path[0], helix(30)[0], atol=0.5)


def test_what_is_no_path_is_refused() -> None:
    poses = helix(5)
    with pytest.raises(InputError, match="got 1 of 5"):
        smooth_path(np.where(np.arange(5)[:, None, None] < 1, poses, np.nan), 10)
    with pytest.raises(InputError, match=r"at least 2 frames.*got 1 and 0"):
        smooth_path(poses, 1)
    with pytest.raises(InputError, match=r"ease from 0 to 0\.5"):
        smooth_path(poses, 10, ease=0.6)
    with pytest.raises(InputError, match="later than the one before"):
        smooth_path(poses, 10, times=np.zeros(5))
