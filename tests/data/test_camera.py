"""Cameras with and without distortion, and the intrinsics that users give."""

import json
import math

import numpy as np
import pytest

from medssl.data.calibration import read_intrinsics, read_stereo
from medssl.data.camera import Camera, directions_of, distort, in_picture, project, undistort, undistort_map
from medssl.errors import InputError

PLAIN = Camera(64, 48, 50.0, 60.0, 31.0, 22.0)
LENSES = [
    Camera(64, 48, 50.0, 60.0, 31.0, 22.0, "radial-tangential", (-0.3, 0.1, 1e-3, -2e-3)),
    Camera(64, 48, 50.0, 60.0, 31.0, 22.0, "radial-tangential", (0.1, 0.02, 1e-3, 2e-3, 0.01, 0.05, 0.01, 0.002)),
    Camera(64, 48, 40.0, 40.0, 31.0, 22.0, "fisheye", (-0.05, 0.01, -0.002, 0.0003)),
]


def directions(count=200, widest=0.7):
    return np.random.default_rng(0).uniform(-widest, widest, (count, 2))


def test_a_point_on_the_axis_is_seen_at_the_principal_point():
    for camera in [PLAIN, *LENSES]:
        assert np.allclose(project(camera, np.array([0.0, 0.0, 3.0])), [31, 22])


def test_a_pinhole_projects_by_its_matrix():
    points = np.random.default_rng(1).uniform(1, 3, (20, 3))
    seen = points @ PLAIN.matrix.T
    assert np.allclose(project(PLAIN, points), seen[:, :2] / seen[:, 2:])


def test_a_point_behind_the_camera_is_not_seen():
    assert np.isnan(project(PLAIN, np.array([[1.0, 1.0, -2.0], [1.0, 1.0, 0.0]]))).all()


def naive_radial_tangential(k, x, y):
    k1, k2, p1, p2, k3, k4, k5, k6 = [*k, *[0.0] * (8 - len(k))]
    r2 = x**2 + y**2
    radial = (1 + k1 * r2 + k2 * r2**2 + k3 * r2**3) / (1 + k4 * r2 + k5 * r2**2 + k6 * r2**3)
    return x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x**2), y * radial + p1 * (r2 + 2 * y**2) + 2 * p2 * x * y


def naive_fisheye(k, x, y):
    r = math.hypot(x, y)
    t = math.atan(r)
    bent = t * (1 + k[0] * t**2 + k[1] * t**4 + k[2] * t**6 + k[3] * t**8)
    return bent / r * x, bent / r * y


@pytest.mark.parametrize("camera", LENSES)
def test_distortion_is_that_of_the_documented_equations(camera):
    naive = naive_fisheye if camera.distortion == "fisheye" else naive_radial_tangential
    expected = [naive(camera.coefficients, x, y) for x, y in directions()]
    assert np.allclose(distort(camera, directions()), expected, atol=1e-14)


@pytest.mark.parametrize("camera", LENSES)
def test_undistorting_inverts_distorting(camera):
    assert np.allclose(undistort(camera, distort(camera, directions())), directions(), atol=1e-9)


def test_what_is_bent_further_than_the_lens_bends_anything_has_no_direction():
    folding = Camera(64, 48, 50.0, 50.0, 31.0, 22.0, "radial-tangential", (-0.5, 0.0, 0.0, 0.0))
    edge = math.sqrt(1 / 1.5)  # where d/dr of r - 0.5 r^3 is 0
    assert np.isnan(undistort(folding, np.array([2.0, 0.0]))).all()
    assert np.isfinite(distort(folding, np.array([edge - 0.01, 0.0]))).all()
    assert np.isnan(distort(folding, np.array([edge + 0.01, 0.0]))).all()


def test_undistorting_a_picture_without_distortion_samples_each_pixel_at_itself():
    pixels, camera, valid = undistort_map(PLAIN)
    y, x = np.mgrid[:48, :64]
    assert pixels.shape == (2, 48, 64) and pixels.dtype == np.float32
    assert np.allclose(pixels, [x, y], atol=1e-5) and valid.all() and camera == PLAIN


@pytest.mark.parametrize("camera", LENSES)
def test_an_undistorted_pixel_is_sampled_where_the_lens_shows_its_direction(camera):
    pixels, straight, valid = undistort_map(camera)
    assert straight.distortion == "none" and (straight.width, straight.height) == (64, 48)
    for y, x in [(0, 0), (22, 31), (47, 10)]:
        point = np.array([(x - straight.cx) / straight.fx, (y - straight.cy) / straight.fy, 1.0])
        expected = project(camera, point)
        assert np.allclose(pixels[:, y, x], expected, atol=1e-4)
        assert valid[y, x] == in_picture(camera, expected)


def test_a_cropped_camera_sees_the_same_direction_at_the_moved_pixel():
    cropped = PLAIN.cropped(top=5, left=7, height=20, width=30)
    assert (cropped.height, cropped.width) == (20, 30)
    assert np.allclose(directions_of(cropped, np.array([3.0, 4.0])), directions_of(PLAIN, np.array([10.0, 9.0])))


def test_four_numbers_are_intrinsics_of_the_frames():
    assert read_intrinsics("50,60,31,22", (48, 64)) == PLAIN


def test_intrinsics_for_another_size_are_refused_with_those_of_this_size_unless_scaling_is_asked_for():
    told = r"is for pictures of 64x48, the frames are 128x96.*fx 100, fy 120, cx 62.5, cy 44.5, and the same lens"
    with pytest.raises(InputError, match=told):
        read_intrinsics("50,60,31,22,64,48", (96, 128))
    assert read_intrinsics("50,60,31,22,64,48", (96, 128), scale=True) == PLAIN.resized(96, 128)


def test_intrinsics_for_another_aspect_are_refused_even_so():
    with pytest.raises(InputError, match="another aspect"):
        read_intrinsics("50,60,31,22,64,48", (64, 64), scale=True)


def test_intrinsics_of_a_video_that_is_turned_upright_are_refused_as_such():
    with pytest.raises(InputError, match="are 48x64: turned upright, as their file asks"):
        read_intrinsics("50,60,31,22,64,48", (64, 48), scale=True)


def test_a_principal_point_outside_the_picture_is_of_another_size():
    with pytest.raises(InputError, match=r"\(31, 22\) lies outside the 24x32 picture.*fx,fy,cx,cy,width,height"):
        read_intrinsics("50,60,31,22", (32, 24))


def test_a_principal_point_far_from_the_middle_is_told_of(caplog):
    read_intrinsics("50,60,31,22", (48, 128))
    assert not caplog.records  # along one side an endoscope's picture may be cut
    read_intrinsics("50,60,31,22", (96, 128))
    assert "(31, 22) is far from the middle of the 128x96 picture" in caplog.text


@pytest.mark.parametrize("ending", ["json", "yaml"])
def test_a_file_gives_a_distorting_camera(tmp_path, ending):
    fields = {"fx": 50, "fy": 60, "cx": 31, "cy": 22, "distortion": "fisheye", "coefficients": [0.1, 0, 0, 0]}
    path = tmp_path / f"camera.{ending}"
    path.write_text(json.dumps(fields))  # JSON is YAML too
    camera = read_intrinsics(path, (48, 64))
    assert camera.distortion == "fisheye" and camera.coefficients == (0.1, 0, 0, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fx: 50\nfy: 60\ncx: 31\n", "KeyError"),
        ("fx: .nan\nfy: 60\ncx: 31\ncy: 2\n", "cannot be a camera"),
        ("fx: -5\nfy: 60\ncx: 31\ncy: 2\n", "cannot be a camera"),
        ("fx: 5\nfy: 60\ncx: 31\ncy: 2\ncoefficients: [1, 2, 3]\n", "with 3 coefficients"),
        ("just words\n", "holds no names with values"),
        ("a: [1\n", "cannot be read"),
    ],
)
def test_a_bad_file_of_intrinsics_is_refused_by_name(tmp_path, text, message):
    path = tmp_path / "camera.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_intrinsics(path, (48, 64))
    assert str(caught.value).startswith(str(path))


def test_missing_intrinsics_say_what_is_expected(tmp_path):
    with pytest.raises(InputError, match=r"no such file.*fx,fy,cx,cy"):
        read_intrinsics(tmp_path / "none.yaml", (48, 64))
    with pytest.raises(InputError, match="not 4 or 6 numbers"):
        read_intrinsics("50,60,31", (48, 64))


OPENCV = """\
%YAML:1.0
---
M1: !!opencv-matrix
   rows: 3
   cols: 3
   dt: d
   data: [ 50., 0., 31., 0., 60., 22., 0., 0., 1. ]
D1: !!opencv-matrix {rows: 1, cols: 5, dt: d, data: [ 0.1, 0., 0., 0., 0. ]}
M2: !!opencv-matrix {rows: 3, cols: 3, dt: d, data: [ 50., 0., 31., 0., 60., 22., 0., 0., 1. ]}
D2: !!opencv-matrix {rows: 1, cols: 5, dt: d, data: [ 0., 0., 0., 0., 0. ]}
R: !!opencv-matrix {rows: 3, cols: 3, dt: d, data: [ 1., 0., 0., 0., 1., 0., 0., 0., 1. ]}
T: !!opencv-matrix {rows: 3, cols: 1, dt: d, data: [ -4., 0., 0. ]}
"""


def test_opencvs_stereo_calibration_is_read_and_turned_towards_the_left_camera(tmp_path):
    path = tmp_path / "stereo.yaml"
    path.write_text(OPENCV)
    found = read_stereo(path, (48, 64))
    assert found.left.coefficients == (0.1, 0, 0, 0, 0) and found.right.distortion == "none"
    assert np.allclose(found.to_left[:3, 3], [4, 0, 0]) and found.baseline == 4


def test_a_stereo_calibration_that_is_not_rigid_is_refused(tmp_path):
    path = tmp_path / "stereo.yaml"
    before, rotation = OPENCV.split("R: ")
    path.write_text(before + "R: " + rotation.replace("[ 1.,", "[ -1.,", 1))
    with pytest.raises(InputError, match="determinant -1"):
        read_stereo(path, (48, 64))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("left: {fx: 1}\n", "is no stereo calibration"),
        (OPENCV.replace("T:", "S:"), "does not tell how the cameras stand"),
        (OPENCV + "unit: inch\n", "the unit is one of mm, m, unknown; got 'inch'"),
    ],
)
def test_an_incomplete_stereo_calibration_is_refused(tmp_path, text, message):
    path = tmp_path / "stereo.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_stereo(path, (48, 64))
