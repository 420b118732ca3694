"""A prepared picture is that of its camera: undistorted, rectified, resized, without a shift."""

import numpy as np
import pytest
from numpy.typing import NDArray

from medssl.data.camera import Camera, project
from medssl.data.view import View, rectification
from medssl.errors import InputError


def ramp(height: int, width: int) -> NDArray[np.uint8]:
    """A picture whose red is its x and whose green is its y."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y, np.zeros_like(x)], -1).astype(np.uint8)


def test_a_resized_picture_is_that_of_the_resized_camera() -> None:
    camera = Camera(64, 48, 50, 52, 30, 22)
    view = View((48, 64), (96, 32), camera)
    assert view.camera == camera.resized(96, 32)
    shown = view.picture(ramp(48, 64)).astype(float)
    x, y = np.arange(32), np.arange(96)
    np.testing.assert_allclose(shown[0, 40, 2:-2], ((x + 0.5) * 2 - 0.5)[2:-2], atol=0.6)
    np.testing.assert_allclose(shown[1, 2:-2, 10], ((y + 0.5) / 2 - 0.5)[2:-2], atol=0.6)


def test_a_box_cuts_the_picture_and_moves_the_camera() -> None:
    camera = Camera(64, 48, 50, 50, 30, 22)
    view = View((48, 64), (32, 32), camera, box=(8, 16, 32, 32))
    np.testing.assert_array_equal(view.picture(ramp(48, 64))[:2, 0, 0], [16, 8])
    assert view.camera is not None and (view.camera.cx, view.camera.cy) == (14, 14)


@pytest.mark.parametrize("target", [(96, 128), (48, 64)])
def test_undistorting_puts_each_point_where_the_pinhole_camera_sees_it(target: tuple[int, int]) -> None:
    camera = Camera(128, 96, 90, 92, 60, 50, "radial-tangential", (-0.2, 0.05, 0.001, -0.001, 0.0))
    view = View((96, 128), target, camera)
    assert view.camera is not None and view.camera.distortion == "none"
    shown = view.picture(ramp(96, 128)).astype(float)
    points = np.array([[0.1, -0.15, 1.0], [-0.2, 0.1, 1.0], [0.3, 0.2, 1.0]])
    for pixel, recorded in zip(project(view.camera, points), project(camera, points), strict=True):
        x, y = np.rint(pixel).astype(int)
        np.testing.assert_allclose(shown[:2, y, x], recorded, atol=1.6)


def test_a_rectified_pair_sees_every_point_in_one_row() -> None:
    left = Camera(128, 96, 100, 101, 60, 50, "radial-tangential", (-0.1, 0.02, 0.0, 0.0, 0.0))
    right = Camera(128, 96, 103, 102, 66, 45)
    a = 0.05
    to_left = np.eye(4)
    to_left[:3, :3] = [[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]]
    to_left[:3, 3] = [5.0, 0.3, -0.2]
    found = rectification(left, right, to_left)
    assert found is not None
    turn_left, turn_right, shared = found
    points = np.random.default_rng(0).uniform([-20, -15, 60], [20, 15, 120], (20, 3))  # in the left camera
    in_right = (points - to_left[:3, 3]) @ to_left[:3, :3]
    seen = project(shared, points @ turn_left.T), project(shared, in_right @ turn_right.T)
    np.testing.assert_allclose(seen[0][:, 1], seen[1][:, 1], atol=1e-9)
    depth = (points @ turn_left.T)[:, 2]
    baseline = np.linalg.norm(to_left[:3, 3])
    np.testing.assert_allclose(seen[0][:, 0] - seen[1][:, 0], shared.fx * baseline / depth)


def test_a_rectified_pair_is_left_as_it_is() -> None:
    camera, to_left = Camera(64, 48, 50, 50, 30, 22), np.eye(4)
    to_left[0, 3] = 4.0
    assert rectification(camera, camera, to_left) is None


def test_a_second_camera_on_the_left_is_refused() -> None:
    camera, to_left = Camera(64, 48, 50, 50, 30, 22), np.eye(4)
    to_left[0, 3] = -4.0
    with pytest.raises(InputError, match="must be to its right"):
        rectification(camera, camera, to_left)


def test_exact_values_are_never_mixed() -> None:
    values = np.arange(12 * 8, dtype=np.float32).reshape(12, 8)
    assert set(View((12, 8), (6, 4)).nearest(values).ravel()) <= set(values.ravel())


def test_a_mask_keeps_only_what_is_wholly_inside() -> None:
    mask = np.zeros((64, 64), dtype=bool)
    mask[16:48, 16:48] = True
    small = View((64, 64), (32, 32)).mask(mask)
    assert small[9:23, 9:23].all() and not small[:8].any() and not small[:, 24:].any()
