"""Folders of structure from motion are read, and their poses are checked by reprojecting the points."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from medssl.data.camera import project
from medssl.data.poses import inverted
from medssl.data.sfm import check_reprojection, reprojection_share, sfm_sequence, sparse_depth
from medssl.errors import InputError

HEIGHT, WIDTH = 48, 64
FOCAL = 50.0
VIEWS = (11, 12, 14, 15)  # of five frames 11 to 15; 13 is not registered
POINTS = np.random.default_rng(0).uniform([0.5, -0.5, 3.1], [1.3, 0.5, 3.9], (30, 3))
TURNS = Rotation.from_rotvec(np.deg2rad([[0, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 2]]))
PLACES = np.array([[0.0, 0.0, 0.0], [0.6, 0.0, 0.0], [1.2, 0.1, 0.0], [1.8, 0.1, 0.0]])  # past the points


def pose(i):
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = TURNS[i].as_matrix(), PLACES[i]
    return matrix


def write_poses(path, poses):
    lines = ["header: ", "  seq: 0", "poses[]:"]
    for i, matrix in enumerate(poses):
        q = Rotation.from_matrix(matrix[:3, :3]).as_quat()
        lines += [f"  poses[{i}]: ", "    position: "]
        lines += [f"      {axis}: {value}" for axis, value in zip("xyz", matrix[:3, 3], strict=True)]
        lines += ["    orientation: ", *(f"      {axis}: {v}" for axis, v in zip("xyzw", q, strict=True))]
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def folder(tmp_path):
    """Four views of thirty points, camera to world, and a fifth frame without a pose."""
    folder = tmp_path / "bag_1" / "segment"
    folder.mkdir(parents=True)
    for number in range(11, 16):
        Image.new("RGB", (WIDTH, HEIGHT), (number, 0, 0)).save(folder / f"{number:08d}.jpg")
    (folder / "selected_indexes").write_text("\n".join(map(str, range(11, 16))))
    (folder / "visible_view_indexes").write_text("\n".join(map(str, VIEWS)) + "\n")
    (folder / "camera_intrinsics_per_view").write_text(f"{FOCAL}\n{FOCAL}\n31.5\n23.5\n")
    write_poses(folder / "motion.yaml", [pose(i) for i in range(4)])
    vertices = "\n".join(" ".join(map(str, point)) for point in POINTS)
    (folder / "structure.ply").write_text(
        f"ply\nformat ascii 1.0\ncomment made\nelement vertex {len(POINTS)}\nproperty float x\nproperty float y\n"
        f"property float z\nelement camera 1\nproperty float view_px\nend_header\n{vertices}\n0 0 0 1\n"
    )
    (folder / "view_indexes_per_point").write_text("\n".join("-1\n11\n12\n14\n15" for _ in POINTS))
    mask = np.full((HEIGHT, WIDTH), 255, dtype=np.uint8)
    mask[:2], mask[2] = 0, 128
    Image.fromarray(mask).save(folder / "undistorted_mask.bmp")
    (folder / "pretrained.pkl").write_bytes(pickle.dumps("never read"))
    return folder


def test_frames_without_a_pose_are_kept_and_have_none(folder):
    sequence = sfm_sequence(folder)
    assert len(sequence.frames) == 5 and sequence.frames.size == (HEIGHT, WIDTH)
    assert np.isnan(sequence.poses[2]).all()
    assert np.allclose(sequence.poses[[0, 1, 3, 4]], [pose(i) for i in range(4)])
    assert sequence.subject == "bag_1" and sequence.unit == "unknown"


def test_a_points_views_count_in_the_sequences_frames(folder):
    points = sfm_sequence(folder).points
    assert np.allclose(points.positions, POINTS)
    assert points.seen[:5].tolist() == [[0, 0], [0, 1], [0, 3], [0, 4], [1, 0]]


def test_the_masks_blurred_edge_is_outside(folder):
    mask = sfm_sequence(folder).mask
    assert mask.dtype == bool and not mask[:3].any() and mask[3:].all()


def test_sparse_depth_is_z_in_the_cameras_axes(folder):
    sequence = sfm_sequence(folder)
    found = sparse_depth(sequence, 3)
    placed = (POINTS - PLACES[2]) @ TURNS[2].as_matrix()  # R^T (X - t)
    assert np.allclose(found.depth, placed[found.points, 2])
    assert np.allclose(found.pixels, project(sequence.camera, placed[found.points]))
    assert len(sparse_depth(sequence, 2).depth) == 0  # not registered: saw nothing


def test_points_behind_the_camera_give_no_sparse_depth(folder):
    sequence = sfm_sequence(folder)
    behind = replace(sequence, points=replace(sequence.points, positions=sequence.points.positions * [1, 1, -1]))
    assert len(sparse_depth(behind, 0).depth) == 0
    assert reprojection_share(behind) == 0


def test_right_poses_reproject_into_the_mask(folder):
    assert reprojection_share(sfm_sequence(folder)) > 0.95


def test_poses_the_wrong_way_round_are_refused_with_both_shares(folder):
    write_poses(folder / "motion.yaml", [np.linalg.inv(pose(i)) for i in range(4)])
    with pytest.raises(InputError, match=r"segment: .* % of the points.*the other way round: they are world to camera"):
        sfm_sequence(folder)


def test_points_behind_every_camera_are_refused(folder):
    text = (folder / "structure.ply").read_text().replace(" 3.", " -3.")
    (folder / "structure.ply").write_text(text)
    with pytest.raises(InputError, match="do not belong together, or the axes are not x right"):
        sfm_sequence(folder)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("motion.yaml", "poses[]: {}\n", "no frame is registered"),
        ("motion.yaml", "poses: 3\n", "cannot be read"),
        ("visible_view_indexes", "11\n12\n", "4 poses, visible_view_indexes 2 frames"),
        ("visible_view_indexes", "11\n12\n14\n99\n", "frame 99 has a pose but is not among"),
        ("visible_view_indexes", "eleven\n", "one whole number per line"),
        ("selected_indexes", "10\n11\n12\n14\n15\n", r"00000010\.jpg is missing"),
        ("camera_intrinsics_per_view", "50\n50\n31\n", "groups of fx fy cx cy"),
        ("camera_intrinsics_per_view", "50\n50\n31\n23\n" * 2, "2 groups"),
        ("camera_intrinsics_per_view", "50\n50\n31\n23\n" * 3 + "70\n50\n31\n23\n", "without zoom"),
        ("camera_intrinsics_per_view", "nan\n50\n31\n23\n", "positive focal lengths"),
        ("view_indexes_per_point", "-1\n11\n", "1 groups that begin with -1, structure.ply 30 points"),
        ("structure.ply", "ply\nformat binary_little_endian 1.0\nelement vertex 1\nend_header\n", "as points"),
        ("structure.ply", "ply\nformat ascii 1.0\nelement vertex 9\nend_header\n0 0 1\n", "as points"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_one_message(folder, name, text, message):
    (folder / name).write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        sfm_sequence(folder)
    assert str(folder) in str(caught.value)


def test_two_registered_frames_are_too_few(folder):
    write_poses(folder / "motion.yaml", [pose(i) for i in range(2)])
    (folder / "visible_view_indexes").write_text("11\n12\n")
    with pytest.raises(InputError, match="only 2 of 2 frames are registered"):
        sfm_sequence(folder)


def test_a_pose_that_is_no_number_is_refused_by_its_index(folder):
    text = (folder / "motion.yaml").read_text().replace("x: 0.6", "x: .nan")
    (folder / "motion.yaml").write_text(text)
    with pytest.raises(InputError, match=r"motion\.yaml: 1 of 4 poses cannot be used: pose 1 has a value"):
        sfm_sequence(folder)


def test_a_mask_of_another_size_is_refused(folder):
    Image.new("L", (10, 10)).save(folder / "undistorted_mask.bmp")
    with pytest.raises(InputError, match="is 10x10, the frames are 64x48"):
        sfm_sequence(folder)


@pytest.mark.real_data
def test_every_view_of_a_real_reconstruction_reprojects_into_the_mask(real_data):
    folder = next((real_data / "endoscopy" / "sinus_sfm").glob("*/*/*/motion.yaml")).parent
    sequence = sfm_sequence(folder)
    assert len(sequence.frames) == 35 and len(sequence.points.positions) == 570
    assert reprojection_share(sequence) == 1
    assert reprojection_share(sequence, world_to_camera=True) == pytest.approx(0.958, abs=0.001)
    # Most views land in the mask even so: a threshold alone would let the wrong direction pass.
    with pytest.raises(InputError, match=r"95\.8 % of the points .*they are world to camera"):
        check_reprojection(folder, replace(sequence, poses=inverted(sequence.poses)))
