"""Reconstructions of COLMAP's, made exactly by pycolmap, in medssl's conventions."""

import logging

import numpy as np
import pytest
from PIL import Image

from medssl.data.camera import project
from medssl.data.colmap import colmap_sequence, is_colmap_folder
from medssl.data.frames import PictureFrames
from medssl.data.sfm import reprojection_share, sparse_depth
from medssl.errors import InputError

pycolmap = pytest.importorskip("pycolmap")
WIDTH, HEIGHT = 128, 96


def synthetic(frames=5, model="SIMPLE_RADIAL", params=(120.0, 64.0, 48.0, 0.05)):
    pycolmap.set_random_seed(0)
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig, options.num_points3D = 1, 1, frames, 25
    options.camera_width, options.camera_height = WIDTH, HEIGHT
    options.camera_model_id, options.camera_params = getattr(pycolmap.CameraModelId, model), list(params)
    options.num_points2D_without_point3D = 3
    return pycolmap.synthesize_dataset(options)


def written(folder, reconstruction, text=False, extra_frame=True):
    (folder / "sparse" / "0").mkdir(parents=True)
    write = reconstruction.write_text if text else reconstruction.write_binary
    write(str(folder / "sparse" / "0"))
    (folder / "images").mkdir()
    names = [image.name for image in reconstruction.images.values()]
    for name in [*names, *(["a_frame_0.png"] if extra_frame else [])]:
        Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "images" / name)
    return folder


@pytest.fixture(scope="module")
def reconstruction():
    return synthetic()


@pytest.mark.parametrize("text", [False, True])
def test_points_project_to_the_pixels_in_which_they_were_seen(tmp_path, reconstruction, text):
    sequence = colmap_sequence(written(tmp_path, reconstruction, text))
    points, worst = sequence.points, 0.0
    for frame in range(1, len(sequence.frames)):
        own = points.seen[:, 1] == frame
        X = points.positions[points.seen[own, 0]]
        pose = sequence.poses[frame]
        placed = (X - pose[:3, 3]) @ pose[:3, :3]  # from world to camera
        worst = max(worst, np.abs(project(sequence.camera, placed) - points.pixels[own]).max())
    assert worst < 1e-4


def test_the_centre_of_the_first_pixel_moves_from_one_half_to_zero(tmp_path, reconstruction):
    sequence = colmap_sequence(written(tmp_path, reconstruction))
    assert (sequence.camera.cx, sequence.camera.cy) == (63.5, 47.5)
    assert sequence.camera.distortion == "radial-tangential" and sequence.camera.coefficients == (0.05, 0, 0, 0)


def test_a_pose_is_camera_to_world(tmp_path, reconstruction):
    sequence = colmap_sequence(written(tmp_path, reconstruction))
    image = min(reconstruction.images.values(), key=lambda one: one.name)
    assert np.allclose(sequence.poses[1, :3, 3], image.projection_center())


def test_frames_that_are_not_registered_have_no_pose(tmp_path, reconstruction):
    sequence = colmap_sequence(written(tmp_path, reconstruction))
    assert len(sequence.frames) == 6 and np.isnan(sequence.poses[0]).all() and np.isfinite(sequence.poses[1:]).all()
    assert len(sparse_depth(sequence, 0).depth) == 0 and (sparse_depth(sequence, 1).depth > 0).all()
    assert reprojection_share(sequence) > 0.9


@pytest.mark.parametrize(
    ("model", "params", "distortion"),
    [
        ("PINHOLE", (120.0, 110.0, 64.0, 48.0), "none"),
        ("OPENCV", (120.0, 110.0, 64.0, 48.0, -0.1, 0.02, 1e-3, -1e-3), "radial-tangential"),
        ("OPENCV_FISHEYE", (120.0, 110.0, 64.0, 48.0, -0.05, 0.01, 0.0, 0.0), "fisheye"),
        ("RADIAL_FISHEYE", (120.0, 64.0, 48.0, -0.05, 0.01), "fisheye"),
    ],
)
def test_camera_models_are_those_of_colmap(tmp_path, model, params, distortion):
    sequence = colmap_sequence(written(tmp_path, synthetic(3, model, params)))
    assert sequence.camera.distortion == distortion
    seen = sequence.points.seen[:, 1] == 1
    pose = sequence.poses[1]
    placed = (sequence.points.positions[sequence.points.seen[seen, 0]] - pose[:3, 3]) @ pose[:3, :3]
    assert np.abs(project(sequence.camera, placed) - sequence.points.pixels[seen]).max() < 1e-4


def test_an_unknown_camera_model_is_refused_by_name(tmp_path):
    folder = written(tmp_path, synthetic(3, "FOV", (120.0, 110.0, 64.0, 48.0, 0.1)))
    with pytest.raises(InputError, match="camera model FOV is not known"):
        colmap_sequence(folder)


def test_of_several_sub_models_the_largest_is_read_and_the_others_reported(tmp_path, reconstruction, caplog):
    folder = written(tmp_path, synthetic(3))
    (folder / "sparse" / "1").mkdir()
    reconstruction.write_binary(str(folder / "sparse" / "1"))
    for image in reconstruction.images.values():
        Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "images" / image.name)
    with caplog.at_level(logging.WARNING):
        sequence = colmap_sequence(folder)
    assert np.isfinite(sequence.poses).all(axis=(1, 2)).sum() == 5
    assert "of 2 sub-models the largest is read, 1 with 5 frames; not read: 0 with 3" in caplog.text


def test_two_registered_frames_are_too_few(tmp_path):
    with pytest.raises(InputError, match="only 2 of 2 frames are registered"):
        colmap_sequence(written(tmp_path, synthetic(2), extra_frame=False))


def test_a_missing_picture_is_named(tmp_path, reconstruction):
    folder = written(tmp_path, reconstruction)
    gone = sorted((folder / "images").iterdir())[-1]
    gone.unlink()
    with pytest.raises(InputError, match=f"1 of 5 registered pictures are missing: {gone.name}"):
        colmap_sequence(folder)


def test_the_frames_of_a_video_are_told_by_the_numbers_in_the_names(tmp_path, reconstruction, monkeypatch):
    folder = written(tmp_path, reconstruction, extra_frame=False)
    files = tuple(sorted((folder / "images").iterdir()))
    numbers = sorted(int(path.stem[-6:]) for path in files)
    video = PictureFrames((files[0],) * (numbers[-1] + 1))
    monkeypatch.setattr("medssl.data.video.open_frames", lambda path: video)
    sequence = colmap_sequence(folder, tmp_path / "clip.mp4")
    assert np.flatnonzero(np.isfinite(sequence.poses[:, 0, 0])).tolist() == numbers
    monkeypatch.setattr("medssl.data.video.open_frames", lambda path: PictureFrames(files[:2]))
    with pytest.raises(InputError, match=r"do not give the frames of .*, of which there are 2"):
        colmap_sequence(folder, tmp_path / "clip.mp4")


def test_pictures_of_another_size_are_refused(tmp_path, reconstruction):
    folder = written(tmp_path, reconstruction)
    for path in (folder / "images").iterdir():
        Image.new("RGB", (20, 10)).save(path)
    with pytest.raises(InputError, match="the frames are 20x10, the reconstruction's 128x96"):
        colmap_sequence(folder)


def test_a_folder_without_pictures_says_so(tmp_path, reconstruction):
    (tmp_path / "deep" / "deeper").mkdir(parents=True)
    reconstruction.write_binary(str(tmp_path / "deep" / "deeper"))
    with pytest.raises(InputError, match="no folder named images"):
        colmap_sequence(tmp_path / "deep" / "deeper")


def test_a_damaged_or_empty_reconstruction_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no reconstruction"):
        colmap_sequence(tmp_path)
    for part in ("cameras", "images", "points3D"):
        (tmp_path / f"{part}.bin").write_bytes(b"\x07" * 5)
    assert is_colmap_folder(tmp_path)
    with pytest.raises(InputError, match="cannot be read as a reconstruction"):
        colmap_sequence(tmp_path)
