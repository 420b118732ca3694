"""Public endoscopy is read with the axes and units that its publications tell; all files here are made by hand."""

import json
import tarfile

import numpy as np
import pytest
import SimpleITK as sitk
from frame_pictures import write_pictures
from PIL import Image

from medssl.data.camera import project
from medssl.data.endoscopy_sequences import (
    c3vd_camera,
    c3vd_sequence,
    endoslam_sequence,
    hamlyn_sequence,
    scared_sequence,
)
from medssl.data.frames import PictureFrames
from medssl.errors import InputError

HEIGHT, WIDTH = 6, 10


def write_tiff(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(values, isVector=values.ndim == 3), str(path))


OPENCV = """\
%YAML:1.0
M1: !!opencv-matrix {rows: 3, cols: 3, dt: d, data: [50., 0., 5., 0., 50., 3., 0., 0., 1.]}
D1: !!opencv-matrix {rows: 1, cols: 5, dt: d, data: [0., 0., 0., 0., 0.]}
M2: !!opencv-matrix {rows: 3, cols: 3, dt: d, data: [50., 0., 5., 0., 50., 3., 0., 0., 1.]}
D2: !!opencv-matrix {rows: 1, cols: 5, dt: d, data: [0., 0., 0., 0., 0.]}
R: !!opencv-matrix {rows: 3, cols: 3, dt: d, data: [1., 0., 0., 0., 1., 0., 0., 0., 1.]}
T: !!opencv-matrix {rows: 3, cols: 1, dt: d, data: [-4.3, 0., 0.]}
"""


def moved(x):
    pose = np.eye(4)
    pose[0, 3] = x
    return {"camera-pose": pose.tolist()}


@pytest.fixture
def scared(tmp_path, monkeypatch):
    """A keyframe with a video of three frames, for which a folder of stacked pictures stands."""
    folder = tmp_path / "dataset_1" / "keyframe_2"
    write_pictures(tmp_path / "stacked", [f"{i}.png" for i in range(3)], (WIDTH, 2 * HEIGHT))
    (folder / "data").mkdir(parents=True)
    (folder / "endoscope_calibration.yaml").write_text(OPENCV)
    (folder / "data" / "rgb.mp4").write_bytes(b"stands for the video")
    stacked = PictureFrames(tuple(sorted((tmp_path / "stacked").iterdir())))
    monkeypatch.setattr("medssl.data.video.open_frames", lambda path: stacked)
    points = np.random.default_rng(0).uniform(50, 90, (2 * HEIGHT, WIDTH, 3)).astype(np.float32)
    points[0, 0] = 0
    write_tiff(folder / "data" / "scene_points" / "scene_points000001.tiff", points)
    return folder


@pytest.mark.parametrize("archive", [False, True])
def test_scareds_poses_are_inverted_to_camera_to_world(scared, tmp_path, archive):
    loose = tmp_path / "loose" if archive else scared / "data" / "frame_data"
    loose.mkdir()
    for i in (0, 1):
        (loose / f"frame_data{i:06d}.json").write_text(json.dumps(moved(3.0 * i)))
    if archive:
        with tarfile.open(scared / "data" / "frame_data.tar.gz", "w:gz") as members:
            for path in sorted(loose.iterdir()):
                members.add(path, path.name)
    sequence = scared_sequence(scared)
    assert np.allclose(sequence.poses[1, :3, 3], [-3, 0, 0]) and np.isnan(sequence.poses[2]).all()
    assert (sequence.name, sequence.subject, sequence.unit) == ("dataset_1_keyframe_2", "dataset_1", "mm")
    assert np.allclose(sequence.stereo.to_left[:3, 3], [4.3, 0, 0])


def test_scareds_depth_is_z_of_the_upper_picture_of_points(scared):
    depth = scared_sequence(scared).truth.depth(1)
    stored = sitk.GetArrayFromImage(sitk.ReadImage(str(scared / "data/scene_points/scene_points000001.tiff")))
    assert depth.shape == (HEIGHT, WIDTH) and np.isnan(depth[0, 0]) and depth[2, 3] == stored[2, 3, 2]


def test_a_scared_keyframe_without_a_video_is_one_pair(scared):
    (scared / "data" / "rgb.mp4").unlink()
    write_pictures(scared, ["Left_Image.png", "Right_Image.png"])
    write_tiff(scared / "left_depth_map.tiff", np.full((HEIGHT, WIDTH, 3), 7, dtype=np.float32))
    sequence = scared_sequence(scared)
    assert len(sequence.frames) == 1 and sequence.poses is None and (sequence.truth.depth(0) == 7).all()


def test_the_colonoscopes_fisheye_follows_the_published_polynomial():
    camera = c3vd_camera()
    radius = np.linspace(0, 700, 50)
    a0, a2, a3, a4 = 769.243600037458, -0.000812770624150226, 6.25674244578925e-07, -1.19662182144280e-09
    z = a0 + a2 * radius**2 + a3 * radius**3 + a4 * radius**4
    seen = project(camera, np.stack([radius, np.zeros(50), z], axis=1))
    assert np.abs(seen[:, 0] - camera.cx - radius).max() < 0.2


@pytest.fixture
def c3vd(tmp_path):
    folder = tmp_path / "cecum_t1_a"
    write_pictures(folder, [f"{i}_color.png" for i in range(11)], (135, 108))
    depth = np.full((108, 135), 32768, dtype=np.uint16)
    depth[0, :2] = 0, 65535
    for i in range(11):
        write_tiff(folder / f"{i:04d}_depth.tiff", depth)
    rows = [np.eye(4) for _ in range(11)]
    for i, row in enumerate(rows):
        row[3, :3] = 10 * i, 0, 1  # for row vectors: the place is the last row
    (folder / "pose.txt").write_text("\n".join(",".join(map(str, row.ravel())) for row in rows))
    return folder


def test_c3vds_depth_is_a_hundredth_of_16_bits_in_millimetres(c3vd):
    depth = c3vd_sequence(c3vd).truth.depth(3)
    assert np.isnan(depth[0, :2]).all() and np.allclose(depth[1:], 100 * 32768 / 65535)


def test_c3vds_frames_and_poses_are_in_order_of_number(c3vd):
    sequence = c3vd_sequence(c3vd)
    assert [path.name for path in sequence.frames.paths][9:] == ["9_color.png", "10_color.png"]
    assert np.allclose(sequence.poses[:, 0, 3], 10 * np.arange(11)) and sequence.unit == "mm"
    assert sequence.subject == "cecum_t1" and (sequence.camera.width, sequence.camera.height) == (135, 108)


def test_endoslams_left_handed_poses_are_mirrored_and_in_millimetres(tmp_path):
    folder = tmp_path / "UnityCam" / "Colon"
    write_pictures(folder / "Frames", ["image_0000.png", "image_0001.png"])
    depth = np.zeros((HEIGHT, WIDTH, 4), dtype=np.uint8)
    depth[1:, :, 0] = 12
    (folder / "Pixelwise Depths").mkdir()
    Image.fromarray(depth).save(folder / "Pixelwise Depths" / "aov_image_0001.png")
    (folder / "Poses").mkdir()
    half = np.sqrt(0.5)
    (folder / "Poses" / "colon_position_rotation.csv").write_text(
        f"tX,tY,tZ,rX,rY,rZ,rW,time\n0,0,0,0,0,0,1,0\n0.1,0.2,0.3,{half},0,0,{half},0.03\n"
    )
    (folder.parent / "Calibration").mkdir()
    (folder.parent / "Calibration" / "cam.txt").write_text("50,0,5,0,50,3,0,0,1")
    sequence = endoslam_sequence(folder)
    assert np.allclose(sequence.poses[1, :3, 3], [100, -200, 300])
    assert np.allclose(sequence.poses[1, :3, :3] @ [0, 0, 1], [0, 1, 0])  # Unity turns z to -y (y up), so to y down
    assert np.isnan(sequence.truth.depth(0)).all() and (sequence.truth.depth(1)[1:] == 120).all()
    assert sequence.camera.fx == 50 and np.isnan(sequence.truth.depth(1)[0]).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,0,0,0,0,1,0,0,0,0,1,0,0,0,0,1", r"pose\.txt: has 1 poses for 11 frames"),
        ("1,0,0\n", r"pose\.txt: cannot be read .* 16 numbers per line"),
    ],
)
def test_bad_poses_of_c3vd_are_refused_by_name(c3vd, text, message):
    (c3vd / "pose.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        c3vd_sequence(c3vd)


@pytest.mark.parametrize(
    ("number", "text", "message"),
    [
        (0, "{}", "holds no camera-pose"),
        (0, "{", "holds no camera-pose"),
        (7, json.dumps(moved(1.0)), "has a pose for frame 7, the video 3 frames"),
        (0, json.dumps({"camera-pose": [[1, 0], [0, 1]]}), "expected N of 3x4 or 4x4"),
    ],
)
def test_bad_poses_of_scared_are_refused_by_name(scared, number, text, message):
    (scared / "data" / "frame_data").mkdir()
    (scared / "data" / "frame_data" / f"frame_data{number:06d}.json").write_text(text)
    with pytest.raises(InputError, match=message):
        scared_sequence(scared)


def test_a_damaged_picture_of_points_is_refused_by_name(scared):
    (scared / "data" / "scene_points" / "scene_points000001.tiff").write_bytes(b"no TIFF")
    with pytest.raises(InputError, match=r"scene_points000001\.tiff: cannot be read as TIFF"):
        scared_sequence(scared).truth.depth(1)


def test_rectified_hamlyn_depth_is_millimetres_below_its_limit(tmp_path):
    write_pictures(tmp_path / "image01", ["0000000001.jpg", "0000000002.jpg"])
    depth = np.full((HEIGHT, WIDTH), 80, dtype=np.uint16)
    depth[0, :2] = 0, 300
    (tmp_path / "depth01").mkdir()
    Image.fromarray(depth).save(tmp_path / "depth01" / "0000000002.png")
    (tmp_path / "intrinsics.txt").write_text("50 0 5 0\n0 50 3 0\n0 0 1 0\n")
    sequence = hamlyn_sequence(tmp_path)
    assert np.isnan(sequence.truth.depth(1)[0, :2]).all() and (sequence.truth.depth(1)[1:] == 80).all()
    assert sequence.camera.cx == 5 and np.isnan(sequence.truth.depth(0)).all()
