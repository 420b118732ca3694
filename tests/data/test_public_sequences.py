"""Public layouts are read with their axes and units; the sign of disparity and flow is checked by warping."""

import json
import pickle

import numpy as np
import pytest
from frame_pictures import write_pictures
from PIL import Image
from scipy.ndimage import map_coordinates

from medssl.data.calibration import StereoCalibration
from medssl.data.camera import Camera, project
from medssl.data.flow_files import read_pfm, write_flo, write_pfm
from medssl.data.frames import HalfFrames, PictureFrames
from medssl.data.poses import checked_poses, from_quaternions
from medssl.data.public_sequences import flow_pairs, hamlyn_pair, kitti_sequence, middlebury_pair
from medssl.data.sequence import VideoSequence
from medssl.data.stereo import packed_sequence, paired, require_stereo, stereo_sequence, unpacked
from medssl.errors import InputError

HEIGHT, WIDTH = 6, 10


def kitti(folder, calibration="calib.txt", frames=3):
    names = [f"{i:06d}.png" for i in range(frames)]
    write_pictures(folder / "image_0", names)
    write_pictures(folder / "image_1", names)
    lines = [f"P{i}: 7 0 5 {tx} 0 7 3 0 0 0 1 0" for i, tx in enumerate((0, -3.5, 0.7, -2.8))]
    (folder / calibration).write_text("\n".join([*lines, "Tr: 1 0 0 0 0 1 0 0 0 0 1 0", "corner_dist: 9"]))
    (folder / "poses.txt").write_text("\n".join(f"1 0 0 0 0 1 0 0 0 0 1 {i}" for i in range(frames)))
    return folder


def test_kittis_baseline_and_poses_are_metres(tmp_path):
    sequence = kitti_sequence(kitti(tmp_path / "00"))
    assert sequence.unit == "m" and sequence.frames.times.tolist() == [0, 0.1, 0.2]
    assert np.allclose(sequence.stereo.to_left[:3, 3], [0.5, 0, 0])
    assert np.allclose(sequence.poses[:, 2, 3], [0, 1, 2])


def test_kittis_colour_camera_stands_beside_the_one_whose_poses_are_given(tmp_path):
    folder = kitti(tmp_path / "00")
    for grey, colour in (("image_0", "image_2"), ("image_1", "image_3")):
        (folder / grey).rename(folder / colour)
    sequence = kitti_sequence(folder)
    assert np.allclose(sequence.poses[0, :3, 3], [-0.1, 0, 0])
    assert np.allclose(sequence.stereo.to_left[:3, 3], [0.5, 0, 0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 0 0 0 0 1 0 0 0 0 1 0", "has 1 poses for 3 frames"),
        ("1 0 0 nan 0 1 0 0 0 0 1 0\n" * 3, "3 of 3 poses cannot be used: pose 0, 1, 2 has a value that is no finite"),
        ("2 0 0 0 0 2 0 0 0 0 2 0\n" * 3, "is not rigid: its 3x3 part is no rotation"),
        ("-1 0 0 0 0 1 0 0 0 0 1 0\n" * 3, "determinant -1"),
        ("1 0 0\n", "Nx12 numbers"),
    ],
)
def test_bad_poses_are_refused_by_line(tmp_path, text, message):
    folder = kitti(tmp_path / "00")
    (folder / "poses.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        kitti_sequence(folder)


def test_left_and_right_of_different_lengths_are_refused(tmp_path):
    folder = kitti(tmp_path / "00")
    (folder / "image_1" / "000002.png").unlink()
    with pytest.raises(InputError, match="the left camera has 3 frames, the right one 2"):
        kitti_sequence(folder)


def test_rotations_of_few_digits_become_exact(tmp_path):
    rough = np.array([[[1, 1e-4, 0, 1], [0, 1, 0, 2], [0, 0, 1, 3.0]]])
    pose = checked_poses(tmp_path, rough)[0]
    assert np.allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-12) and pose[:3, 3].tolist() == [1, 2, 3]


def test_a_quaternion_is_x_y_z_w(tmp_path):
    pose = from_quaternions(tmp_path, [[1, 2, 3]], [[0, 0, np.sqrt(0.5), np.sqrt(0.5)]])[0]
    assert np.allclose(pose[:3, :3] @ [1, 0, 0], [0, 1, 0])
    with pytest.raises(InputError, match="length is not 1"):
        from_quaternions(tmp_path, [[1, 2, 3]], [[0, 0, 0, 0]])


def middlebury(folder):
    write_pictures(folder, ["im0.png", "im1.png"])
    (folder / "calib.txt").write_text(
        "cam0=[50 0 4; 0 50 3; 0 0 1]\ncam1=[50 0 6; 0 50 3; 0 0 1]\ndoffs=2\nbaseline=100\nwidth=10\nheight=6\n"
    )
    disparity = np.full((HEIGHT, WIDTH), 3, dtype=np.float32)
    disparity[0, 0] = np.inf
    write_pfm(folder / "disp0GT.pfm", disparity)
    write_pfm(folder / "disp1GT.pfm", disparity + 1)
    mask = np.full((HEIGHT, WIDTH), 255, dtype=np.uint8)
    mask[1, 1] = 128
    Image.fromarray(mask).save(folder / "mask0nocc.png")
    return folder


def test_middleburys_depth_is_baseline_times_focal_over_disparity_and_offset(tmp_path):
    sequence = middlebury_pair(middlebury(tmp_path))
    depth = sequence.truth.depth(0)
    assert sequence.unit == "mm" and np.isnan(depth[0, 0]) and np.allclose(depth[1:], 100 * 50 / (3 + 2))
    assert np.allclose(sequence.stereo.truth.depth(0)[1:], 100 * 50 / (4 + 2))
    assert sequence.truth.visible(0)[1, 1] == 0 and sequence.truth.visible(0).sum() == HEIGHT * WIDTH - 1


def test_middleburys_depth_agrees_with_projection_into_the_right_camera(tmp_path):
    sequence = middlebury_pair(middlebury(tmp_path))
    z, x = float(sequence.truth.depth(0)[3, 7]), 7
    camera = sequence.camera
    point = np.array([(x - camera.cx) / camera.fx * z, (3 - camera.cy) / camera.fy * z, z])
    in_right = point - sequence.stereo.to_left[:3, 3]
    assert np.allclose(project(sequence.stereo.camera, in_right), [x - 3, 3])


def test_a_sequence_can_be_pickled_with_its_truth(tmp_path):
    again = pickle.loads(pickle.dumps(middlebury_pair(middlebury(tmp_path))))
    assert np.isfinite(again.truth.disparity(0)).any()


def hamlyn(folder):
    write_pictures(folder, ["f_L_01.png", "f_R_01.png"])
    for side in ("left", "right"):
        (folder / f"calib.{side}.intrinsic.txt").write_text("50 0 5\n0 50 3\n0 0 1\n")
    (folder / "calib.l2r.4x4").write_text("1 0 0 -5.5\n0 1 0 0\n0 0 1 0\n0 0 0 1\n")
    return folder


def test_hamlyns_transform_is_turned_towards_the_left_camera(tmp_path):
    sequence = hamlyn_pair(hamlyn(tmp_path))
    assert sequence.unit == "mm" and np.allclose(sequence.stereo.to_left[:3, 3], [5.5, 0, 0])


def test_flow_belongs_to_the_first_of_two_frames(tmp_path):
    flow = np.random.default_rng(0).normal(size=(HEIGHT, WIDTH, 2)).astype(np.float32)
    for number, (first, second, end) in {"1": ("img1", "img2", "flow"), "2": ("img0", "img1", "gt")}.items():
        write_pictures(tmp_path, [f"0000{number}_{first}.ppm", f"0000{number}_{second}.ppm"])
        write_flo(tmp_path / f"0000{number}_{end}.flo", flow)
    first, second = flow_pairs(tmp_path)
    assert (first.name, second.name) == ("00001", "00002") and len(first.frames) == 2
    assert np.array_equal(second.truth.flow(0), flow) and np.isnan(second.truth.flow(1)).all()


def test_flow_of_another_size_is_refused_by_name(tmp_path):
    write_pictures(tmp_path, ["a1.png", "a2.png"])
    write_flo(tmp_path / "gt.flo", np.zeros((3, 4, 2), dtype=np.float32))
    with pytest.raises(InputError, match=r"gt\.flo: is 3x4x2 .* where 6x10x2 is expected"):
        flow_pairs(tmp_path)[0].truth.flow(0)


def test_a_missing_picture_of_a_flow_pair_is_named(tmp_path):
    write_pictures(tmp_path, ["1_img1.ppm"])
    write_flo(tmp_path / "1_flow.flo", np.zeros((HEIGHT, WIDTH, 2), dtype=np.float32))
    with pytest.raises(InputError, match=r"1_img2\.ppm is missing"):
        flow_pairs(tmp_path)


def test_a_packed_video_gives_both_views(tmp_path):
    write_pictures(tmp_path, ["1.png", "2.png"])
    whole = PictureFrames((tmp_path / "1.png", tmp_path / "2.png"), 10.0)
    frame = next(iter(whole.read([1])))
    for packing, parts in (
        ("side-by-side", (frame[:, :5], frame[:, 5:])),
        ("top-bottom", (frame[:3], frame[3:])),
    ):
        for view, part in zip(unpacked(whole, packing), parts, strict=True):
            assert view.size == part.shape[:2] and len(view) == 2 and view.times.tolist() == [0, 0.1]
            assert np.array_equal(next(iter(view.read([1]))), part)


def test_a_video_of_one_camera_is_refused_where_stereo_is_needed(tmp_path):
    write_pictures(tmp_path, ["1.png"])
    with pytest.raises(InputError, match="mono: has one camera, where a calibrated stereo pair is needed"):
        require_stereo(VideoSequence("mono", "mono", PictureFrames((tmp_path / "1.png",))))


def test_two_folders_with_a_calibration_are_a_stereo_sequence(tmp_path):
    for side in ("left", "right"):
        write_pictures(tmp_path / side, ["1.png", "2.png"])
    camera = {"fx": 50, "fy": 50, "cx": 5, "cy": 3}
    path = tmp_path / "rig.json"
    rig = {"left": camera, "right": camera, "unit": "mm", "R": np.eye(3).tolist(), "T": [-4, 0, 0]}
    path.write_text(json.dumps(rig))
    sequence = stereo_sequence(tmp_path / "left", tmp_path / "right", path, name="rig")
    assert sequence.name == "rig" and sequence.unit == "mm" and np.allclose(require_stereo(sequence).to_left[0, 3], 4)


def test_a_packed_video_with_a_calibration_is_a_stereo_sequence(tmp_path, monkeypatch):
    write_pictures(tmp_path, ["1.png", "2.png"])
    whole = PictureFrames((tmp_path / "1.png", tmp_path / "2.png"))
    monkeypatch.setattr("medssl.data.video.open_frames", lambda path: whole)
    camera = {"fx": 50, "fy": 50, "cx": 5, "cy": 1}
    (tmp_path / "rig.json").write_text(json.dumps({"left": camera, "right": camera, "to_left": np.eye(4).tolist()}))
    sequence = packed_sequence(tmp_path / "packed.mp4", "top-bottom", tmp_path / "rig.json")
    assert sequence.name == "packed" and sequence.frames.size == (3, WIDTH) and sequence.camera.height == 3
    assert len(require_stereo(sequence).frames) == 2


def test_views_of_different_sizes_are_refused(tmp_path):
    write_pictures(tmp_path, ["1.png"])
    write_pictures(tmp_path, ["2.png"], (WIDTH, 8))
    camera = Camera(WIDTH, HEIGHT, 50, 50, 5, 3)
    left, right = (PictureFrames((tmp_path / f"{i}.png",)) for i in (1, 2))
    with pytest.raises(InputError, match="the left frames are 10x6, the right ones 10x8"):
        paired("rig", tmp_path, left, right, StereoCalibration(camera, camera, np.eye(4), "mm"))
    assert HalfFrames(right, "bottom").size == (4, WIDTH)


def test_a_calibration_of_middleburys_for_another_size_is_refused(tmp_path):
    folder = middlebury(tmp_path)
    text = (folder / "calib.txt").read_text()
    (folder / "calib.txt").write_text(text.replace("width=10", "width=20"))
    with pytest.raises(InputError, match="is for 20x6, the pictures are 10x6"):
        middlebury_pair(folder)
    (folder / "calib.txt").write_text(text.replace("baseline", "base"))
    with pytest.raises(InputError, match="baseline are expected"):
        middlebury_pair(folder)


def grey(frames, index):
    return next(iter(frames.read([index]))).astype(np.float64).mean(axis=-1)


def error(first, second, moved_by):
    """Mean difference of the first picture and the second sampled where the first one's pixels moved to."""
    y, x = np.mgrid[: first.shape[0], : first.shape[1]]
    known = np.isfinite(moved_by).all(axis=-1)
    by = np.nan_to_num(moved_by)
    sampled = map_coordinates(second, [y + by[..., 1], x + by[..., 0]], order=1, mode="nearest")
    return np.abs(sampled - first)[known].mean()


@pytest.mark.real_data
def test_real_disparity_has_the_sign_that_aligns_the_views(real_data):
    folder = real_data / "stereo" / "motorcycle" / "trainingQ" / "Motorcycle"
    sequence = middlebury_pair(folder)
    disparity, depth = sequence.truth.disparity(0), sequence.truth.depth(0)
    assert np.nanmin(depth) == pytest.approx(2016.5, abs=0.1) and np.nanmax(depth) == pytest.approx(4597.5, abs=0.1)
    assert np.isposinf(read_pfm(folder / "disp0GT.pfm")).any() and not np.isinf(disparity).any()
    left, right = grey(sequence.frames, 0), grey(sequence.stereo.frames, 0)
    move = np.stack([-disparity, np.zeros_like(disparity)], axis=-1)
    move[sequence.truth.visible(0) == 0] = np.nan
    assert error(left, right, move) < 7 < 20 < error(left, right, -move)
    back = sequence.stereo.truth.disparity(0)
    move = np.stack([back, np.zeros_like(back)], axis=-1)
    move[sequence.stereo.truth.visible(0) == 0] = np.nan
    assert error(right, left, move) < 7 < 20 < error(right, left, -move)


@pytest.mark.real_data
def test_a_real_drive_has_its_baseline_and_length_in_metres(real_data):
    sequence = kitti_sequence(real_data / "stereo" / "kitti_seq")
    assert sequence.stereo.to_left[0, 3] == pytest.approx(0.5372, abs=1e-4)
    assert np.linalg.norm(np.diff(sequence.poses[:, :3, 3], axis=0), axis=1).sum() == pytest.approx(59.86, abs=0.01)


@pytest.mark.real_data
def test_a_real_endoscopes_right_camera_stands_to_the_right(real_data):
    sequence = hamlyn_pair(real_data / "stereo" / "hamlyn_pair")
    assert sequence.stereo.to_left[0, 3] == pytest.approx(5.52, abs=0.01) and sequence.frames.size == (288, 360)


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["rubberwhale", "flyingchairs"])
def test_real_flow_has_the_sign_that_aligns_the_frames(real_data, name):
    for sequence in flow_pairs(real_data / "flow" / name):
        flow, (first, second) = sequence.truth.flow(0), (grey(sequence.frames, i) for i in (0, 1))
        assert error(first, second, flow) < error(first, second, 0 * flow) < error(first, second, -flow)
