"""Points lie on the scene, know its normals, and are thinned to their means."""

import numpy as np
import pytest
from reconstruction.scenes import SIZE, paint, pose_at, sphere_depth, view_of

from medssl.errors import InputError
from medssl.reconstruction.point_cloud import PointCloud, joined, points_of, thinned


def test_points_of_a_view_lie_on_the_scene_in_its_colours_and_look_at_the_camera() -> None:
    cloud = points_of(view_of(sphere_depth(20.0), pose_at((2, -3, 1), (20, 130, 40))), "mm")
    assert len(cloud.positions) == SIZE[0] * SIZE[1] and cloud.unit == "mm"
    distance = np.linalg.norm(cloud.positions, axis=1)
    np.testing.assert_allclose(distance, 20, atol=1e-4)
    assert np.abs(cloud.colours - paint(cloud.positions.astype(np.float64))).max() < 0.51
    assert np.einsum("pc,pc->p", cloud.normals, -cloud.positions / distance[:, None]).min() > 0.999


def test_pixels_across_a_jump_in_depth_give_no_points() -> None:
    def step(pose: np.ndarray) -> np.ndarray:
        return np.where(np.arange(SIZE[1]) < 40, 10.0, 30.0) * np.ones((SIZE[0], 1))

    cloud = points_of(view_of(step, np.eye(4)))
    assert len(cloud.positions) == SIZE[0] * (SIZE[1] - 2)


def test_thinning_keeps_the_mean_of_each_voxel() -> None:
    positions = np.array([[0.1, 0.1, 0.1], [0.3, 0.1, 0.1], [-0.1, 0.1, 0.1]], np.float32)
    normals = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    cloud = PointCloud(positions, normals, np.array([[10, 20, 30], [20, 40, 60], [1, 2, 3]], np.uint8), "m")
    thin = thinned(cloud, 0.5)
    np.testing.assert_allclose(thin.positions, [[-0.1, 0.1, 0.1], [0.2, 0.1, 0.1]], atol=1e-6)
    np.testing.assert_allclose(thin.normals, [[0, 0, 1], [0.5**0.5, 0.5**0.5, 0]], atol=1e-6)
    np.testing.assert_array_equal(thin.colours, [[1, 2, 3], [15, 30, 45]])
    assert thin.unit == "m"
    with pytest.raises(InputError, match="above 0; got 0"):
        thinned(cloud, 0)


def test_clouds_of_different_units_are_not_joined() -> None:
    cloud = points_of(view_of(sphere_depth(20.0), np.eye(4)), "mm")
    assert len(joined([cloud, cloud]).positions) == 2 * len(cloud.positions)
    with pytest.raises(InputError, match="mm, unknown"):
        joined([cloud, points_of(view_of(sphere_depth(20.0), np.eye(4)))])
    with pytest.raises(InputError, match="no cloud"):
        joined([])
