"""Paths by hand and against loops; alignment finds what was done; a frame without a pose is counted."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from medssl.errors import InputError
from medssl.evaluation.trajectory import (
    TRAJECTORY_SCORES,
    Similarity,
    absolute_trajectory_error,
    align,
    at_times,
    length_pairs,
    read_kitti,
    read_tum,
    relative_pose_errors,
    rotation_angle_deg,
    score_trajectory,
    snippet_errors,
    step_pairs,
    umeyama,
    write_kitti,
    write_tum,
)


def random_similarity(seed=0, scale=0.3):
    rng = np.random.default_rng(seed)
    return Similarity(scale, Rotation.random(random_state=seed).as_matrix(), rng.normal(size=3) * 10)


def path(n=20, seed=0):
    """A smooth, turning path (n, 4, 4)."""
    rng = np.random.default_rng(seed)
    poses = np.tile(np.eye(4), (n, 1, 1))
    poses[:, :3, :3] = Rotation.from_rotvec(rng.normal(size=(n, 3)).cumsum(0) * 0.1).as_matrix()
    poses[:, :3, 3] = rng.normal(size=(n, 3)).cumsum(0)
    return poses


def noisy(poses, sigma=0.1, seed=1):
    moved = poses.copy()
    moved[:, :3, 3] += np.random.default_rng(seed).normal(0, sigma, (len(poses), 3))
    return moved


def along_x(*x):
    poses = np.tile(np.eye(4), (len(x), 1, 1))
    poses[:, 0, 3] = x
    return poses


def test_umeyama_recovers_a_random_similarity():
    points = np.random.default_rng(0).normal(size=(30, 3))
    for seed in range(5):
        made = random_similarity(seed)
        found = umeyama(points, made.points(points))
        assert found.scale == pytest.approx(0.3) and not found.note
        np.testing.assert_allclose(found.rotation, made.rotation, atol=1e-12)
        np.testing.assert_allclose(found.translation, made.translation, atol=1e-10)


def test_umeyama_is_a_rotation_even_where_a_mirror_would_fit_better():
    points = np.random.default_rng(0).normal(size=(30, 3))
    found = umeyama(points, points * (1, 1, -1))
    assert np.linalg.det(found.rotation) == pytest.approx(1)


def test_no_similarity_nearby_is_better():
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(2, 15, 3))

    def cost(s):
        return ((s.points(source) - target) ** 2).sum()

    for with_scale in (True, False):
        best = umeyama(source, target, with_scale)
        for _ in range(50):
            turned = Rotation.from_rotvec(rng.normal(0, 0.01, 3)).as_matrix() @ best.rotation
            scale = best.scale * (rng.normal(1, 0.01) if with_scale else 1)
            assert cost(Similarity(scale, turned, best.translation + rng.normal(0, 0.01, 3))) > cost(best)
    assert best.scale == 1


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (np.outer(np.arange(5.0), [1, 2, 3]), "estimated positions are on a line"),
        (np.full((5, 3), 0.1), "estimated positions are all in one place"),
        (np.array([[0.0, 0, 0], [1, 0, 0]]), "on a line"),
        (np.ones((1, 3)), "all in one place"),
    ],
)
def test_what_points_leave_open_is_said_and_the_fit_is_still_the_best(source, said):
    target = random_similarity().points(source)
    found = umeyama(source, target)
    assert said in found.note
    np.testing.assert_allclose(found.points(source), target, atol=1e-9)


def test_points_in_a_plane_leave_nothing_open():
    flat = np.random.default_rng(0).normal(size=(9, 3)) * (1, 1, 0)
    made = random_similarity()
    found = umeyama(flat, made.points(flat))
    assert not found.note
    np.testing.assert_allclose(found.rotation, made.rotation, atol=1e-9)


def test_a_moved_camera_stays_rigid_and_sees_its_scaled_world_alike():
    made, poses = random_similarity(), path()
    points = np.random.default_rng(3).normal(size=(7, 3))
    moved = made.poses(poses)
    for pose, after in zip(poses, moved, strict=True):
        seen = (points - pose[:3, 3]) @ pose[:3, :3]
        seen_after = (made.points(points) - after[:3, 3]) @ after[:3, :3]
        np.testing.assert_allclose(seen_after, 0.3 * seen, atol=1e-10)


def test_the_absolute_error_does_not_see_a_similarity_of_the_estimate():
    truth = path()
    estimate = noisy(truth)
    one = absolute_trajectory_error(estimate, truth)
    other = absolute_trajectory_error(random_similarity(4, scale=7).poses(estimate), truth)
    assert 0.05 < one.rmse < 0.2
    assert (other.rmse, other.mean, other.maximum) == pytest.approx((one.rmse, one.mean, one.maximum))
    assert other.alignment.scale == pytest.approx(one.alignment.scale / 7)


def test_a_rigid_alignment_sees_the_scale_and_no_alignment_sees_all():
    truth = along_x(0, 1, 2)
    assert absolute_trajectory_error(along_x(0, 2, 4), truth, "se3").rmse == pytest.approx(np.sqrt(2 / 3))
    shifted = absolute_trajectory_error(along_x(5, 6, 7), truth, "none")
    assert (shifted.rmse, shifted.median, shifted.alignment.scale) == (5, 5, 1)


def test_frames_without_a_pose_are_counted_and_those_without_truth_are_not_scored():
    truth, estimate = path(), path()
    estimate[3:5], truth[10] = np.nan, np.nan
    error = absolute_trajectory_error(estimate, truth)
    assert (error.n, error.n_missed) == (17, 2)
    assert error.rmse == pytest.approx(0, abs=1e-12)
    lost = absolute_trajectory_error(np.full_like(truth, np.nan), truth)
    assert np.isnan([lost.rmse, lost.mean, lost.median, lost.maximum]).all() and lost.n_missed == 19
    assert lost.alignment.note == "no frame has both poses"


def test_relative_errors_agree_with_a_loop():
    truth, estimate = path(), path(seed=5)
    table = relative_pose_errors(estimate, truth, step_pairs(truth, 3))
    assert len(table) == 17
    for row in table.itertuples():
        q = np.linalg.inv(truth[row.first]) @ truth[row.last]
        p = np.linalg.inv(estimate[row.first]) @ estimate[row.last]
        wrong = np.linalg.inv(q) @ p
        way = sum(np.linalg.norm(truth[i + 1, :3, 3] - truth[i, :3, 3]) for i in range(row.first, row.last))
        angle = np.degrees(np.arccos((np.trace(wrong[:3, :3]) - 1) / 2))
        expected = [way, np.linalg.norm(wrong[:3, 3]), 100 * np.linalg.norm(wrong[:3, 3]) / way, angle, angle / way]
        found = [row.length, row.translation, row.translation_percent, row.rotation_deg, row.rotation_deg_per_unit]
        assert found == pytest.approx(expected)


def test_relative_errors_by_hand():
    truth, estimate = along_x(0, 2, 4), along_x(0, 2, 5)
    estimate[2, :3, :3] = Rotation.from_euler("z", 30, degrees=True).as_matrix()
    table = relative_pose_errors(estimate, truth, step_pairs(truth))
    assert table["translation_percent"].tolist() == pytest.approx([0, 50])
    assert table["rotation_deg_per_unit"].tolist() == pytest.approx([0, 15])


def test_relative_errors_do_not_see_where_the_path_begins_and_missing_poses_are_rows():
    truth = path()
    estimate = random_similarity(scale=1).poses(truth)
    estimate[4], truth[9] = np.nan, np.nan
    table = relative_pose_errors(estimate, truth, step_pairs(truth))
    assert len(table) == 17 and table["missed"].sum() == 2  # of 19 pairs two lack a true pose
    assert table["translation"].max() < 1e-10 and table["rotation_deg"].max() < 1e-10
    still = along_x(1, 1)
    assert np.isnan(relative_pose_errors(still, still, step_pairs(still))["translation_percent"]).all()


def test_a_way_ends_at_the_first_frame_that_completes_it():
    truth = along_x(0, 1, 2, 4, 5, 8)
    assert length_pairs(truth, 3.0).tolist() == [[0, 3], [1, 3], [2, 4], [3, 5], [4, 5]]
    assert length_pairs(truth, 3.0, every=2).tolist() == [[0, 3], [2, 4], [4, 5]]
    truth[1] = np.nan
    assert length_pairs(truth, 3.0).tolist() == [[0, 3], [2, 4], [3, 5], [4, 5]]


def test_snippets_have_a_scale_of_their_own():
    truth = path(9)
    estimate = truth.copy()
    estimate[:, :3, 3] *= 4
    table = snippet_errors(estimate, truth)
    assert len(table) == 5
    assert table["scale"].tolist() == pytest.approx([0.25] * 5)
    assert table["rmse"].max() < 1e-12


def test_snippet_errors_agree_with_a_loop():
    truth, estimate = path(12), path(12, seed=3)
    table = snippet_errors(estimate, truth, frames=4)
    for row in table.itertuples():
        run = range(row.first, row.first + 4)
        e, t = (
            np.stack([(np.linalg.inv(poses[row.first]) @ poses[i])[:3, 3] for i in run]) for poses in (estimate, truth)
        )
        scale = (e * t).sum() / (e * e).sum()
        squares = ((t - scale * e) ** 2).sum()
        assert (row.rmse, row.published) == pytest.approx((np.sqrt(squares / 4), np.sqrt(squares) / 4))


def test_a_snippet_that_does_not_move_or_lacks_a_pose_is_a_row():
    truth, estimate = along_x(0, 3, 6), along_x(1, 1, 1)
    (row,) = snippet_errors(estimate, truth, 3).to_dict("records")
    assert row["scale"] == 0 and row["rmse"] == pytest.approx(np.sqrt(45 / 3)) and not row["missed"]
    estimate[1] = np.nan
    assert snippet_errors(estimate, truth, 3)["missed"].tolist() == [True]
    assert snippet_errors(estimate, truth).empty  # the path is shorter than 5 frames
    with pytest.raises(InputError, match="at least 2 frames, got 1"):
        snippet_errors(estimate, truth, 1)


def test_one_row_says_all_of_a_recording():
    truth = path()
    estimate = random_similarity().poses(truth)
    estimate[7] = np.nan
    row = score_trajectory(estimate, truth, scan="r", subject="s").iloc[0]
    assert [row[name] for name in TRAJECTORY_SCORES] == pytest.approx([0] * 5, abs=1e-9)
    assert (row["n"], row["missing"], row["missed"], row["note"]) == (19, 1, False, "")
    assert row["scale"] == pytest.approx(1 / 0.3)
    assert score_trajectory(estimate * np.nan, truth, scan="r").iloc[0]["missed"]


def test_small_and_large_angles_are_exact():
    angles = np.array([0, 1e-7, 1e-3, 90, 179.9, 180])
    rotations = Rotation.from_rotvec(np.outer(angles, [0, 1, 0]), degrees=True).as_matrix()
    np.testing.assert_allclose(rotation_angle_deg(rotations), angles, rtol=1e-6)


def test_paths_come_back_from_files_as_they_were(tmp_path):
    poses, times = path(), np.arange(20) / 30 + 1305031102.175304
    poses[[0, 5]] = np.nan
    write_kitti(tmp_path / "kitti.txt", poses)
    np.testing.assert_allclose(read_kitti(tmp_path / "kitti.txt"), poses, atol=1e-12)
    write_tum(tmp_path / "tum.txt", times, poses)
    first, second, *_ = (tmp_path / "tum.txt").read_text().splitlines()
    assert first.startswith("# 18 of 20 frames have a pose") and second.startswith(repr(times[1].item()))
    found_times, found = read_tum(tmp_path / "tum.txt")
    assert found_times.tolist() == times[[1, 2, 3, 4, *range(6, 20)]].tolist()
    np.testing.assert_allclose(at_times(found_times, found, times), poses, atol=1e-12)


def test_a_path_without_any_pose_is_written_and_read(tmp_path):
    poses = np.full((3, 4, 4), np.nan)
    write_tum(tmp_path / "tum.txt", np.arange(3), poses)
    times, found = read_tum(tmp_path / "tum.txt")
    assert found.shape == (0, 4, 4)
    assert np.isnan(at_times(times, found, np.arange(3))).all()
    write_kitti(tmp_path / "kitti.txt", poses)
    assert np.isnan(read_kitti(tmp_path / "kitti.txt")).all()


def test_files_that_hold_no_path_are_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=r"missing\.txt: no such file"):
        read_kitti(tmp_path / "missing.txt")
    for text, said in (
        ("1 2 3\n", "12 numbers per line; it has 3"),
        ("a b\n", "no path of 12"),
        ("1 2\n1\n", "no path"),
    ):
        (tmp_path / "other.txt").write_text(text)
        with pytest.raises(InputError, match=rf"other\.txt: .*{said}"):
            read_kitti(tmp_path / "other.txt")


def test_paths_of_different_frames_and_unknown_alignments_are_refused():
    with pytest.raises(InputError, match=r"\(4, 4, 4\) and \(5, 4, 4\)"):
        align(path(4), path(5))
    with pytest.raises(InputError, match="'affine' is unknown"):
        align(path(4), path(4), "affine")
    with pytest.raises(InputError, match="same points"):
        umeyama(np.zeros((3, 3)), np.zeros((4, 3)))
    with pytest.raises(InputError, match="finite"):
        umeyama(np.full((3, 3), np.nan), np.zeros((3, 3)))


@pytest.mark.real_data
def test_a_real_path_is_recovered_from_a_similarity_of_it(real_data):
    truth = read_kitti(real_data / "stereo" / "kitti_seq" / "poses.txt")
    estimate = random_similarity(scale=0.05).poses(truth)
    error = absolute_trajectory_error(estimate, truth)
    assert (error.n, error.n_missed) == (51, 0)
    assert error.rmse < 1e-9 and error.alignment.scale == pytest.approx(20)
