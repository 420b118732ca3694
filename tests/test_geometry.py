"""Cameras and rigid motions do what their equations say, are each other's inverses, and keep all their digits."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from kornia.geometry import linalg
from kornia.geometry.camera import project_points
from kornia.geometry.depth import depth_to_3d
from scipy.spatial.transform import Rotation
from torch import Tensor

from medssl.data.camera import Camera
from medssl.data.camera import project as project_numpy
from medssl.geometry import (
    backproject,
    in_float32,
    invert,
    pixel_grid,
    project,
    relative,
    resize_intrinsics,
    rigid_from_vector,
    transform,
)

F64 = torch.float64
CAMERA = Camera(width=9, height=7, fx=8.0, fy=9.5, cx=4.2, cy=2.7)
K = torch.from_numpy(CAMERA.matrix)[None]


def random_depth(batch: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 1 + 3 * torch.rand(batch, 1, CAMERA.height, CAMERA.width, generator=generator, dtype=F64)


def random_rigid(batch: int = 2, seed: int = 0, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return rigid_from_vector(scale * torch.randn(batch, 6, generator=generator, dtype=F64))


def test_the_grid_holds_x_then_y_of_each_pixel() -> None:
    assert pixel_grid(2, 3).tolist() == [[[0, 1, 2], [0, 1, 2]], [[0, 0, 0], [1, 1, 1]]]
    assert pixel_grid(2, 3, "cpu", F64).dtype == F64


def test_a_pixel_is_placed_along_its_ray_at_its_depth() -> None:
    points = backproject(torch.full((1, 1, 7, 9), 2.0, dtype=F64), K)
    assert points[0, :, 3, 5].tolist() == pytest.approx([(5 - 4.2) / 8.0 * 2, (3 - 2.7) / 9.5 * 2, 2])


def test_points_are_projected_as_the_camera_of_the_readers_does() -> None:
    points = torch.rand(1, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=F64) + 0.5
    pixels, z = project(points, K)
    expected = project_numpy(CAMERA, points[0].movedim(0, -1).numpy())
    np.testing.assert_allclose(pixels[0].movedim(0, -1).numpy(), expected)
    assert torch.equal(z, points[:, 2:])


def test_cameras_and_motions_are_kornias() -> None:
    depth, intrinsics, a, b = random_depth(), K.expand(2, 3, 3), random_rigid(seed=1, scale=0.1), random_rigid(seed=2)
    points = backproject(depth, intrinsics)
    torch.testing.assert_close(points, depth_to_3d(depth, intrinsics))
    listed = points.flatten(2).mT  # (B, N, 3)
    torch.testing.assert_close(transform(points, a).flatten(2).mT, linalg.transform_points(a, listed))
    torch.testing.assert_close(
        project(points, intrinsics)[0].flatten(2).mT, project_points(listed, intrinsics[:, None])
    )
    torch.testing.assert_close(invert(a), linalg.inverse_transformation(a))
    torch.testing.assert_close(relative(a, b), linalg.relative_transformation(b, a))


def test_projecting_what_was_placed_gives_the_grid_back() -> None:
    depth = random_depth()
    pixels, z = project(backproject(depth, K), K)
    torch.testing.assert_close(pixels, pixel_grid(7, 9, dtype=F64).expand(2, -1, -1, -1))
    torch.testing.assert_close(z, depth)


@pytest.mark.parametrize("point", [(0.0, 0.0, -1.0), (1.0, 2.0, 0.0), (0.0, 0.0, 0.0), (math.nan, 0.0, 1.0)])
def test_a_point_no_picture_can_show_is_nowhere_and_passes_no_gradient(point: tuple[float, ...]) -> None:
    points = torch.tensor(point).view(1, 3, 1, 1).requires_grad_()
    pixels, _ = project(points, K.float())
    assert pixels.flatten().tolist() == [-1, -1]
    pixels.sum().backward()
    assert points.grad is not None and points.grad.flatten().tolist() == [0, 0, 0]


def test_a_transform_moves_points_as_the_matrix_says() -> None:
    points = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(1), dtype=F64)
    rigid = random_rigid()
    expected = torch.einsum("bij,bjhw->bihw", rigid[:, :3, :3], points) + rigid[:, :3, 3, None, None]
    torch.testing.assert_close(transform(points, rigid), expected)


def test_there_and_back_is_where_it_was() -> None:
    points, rigid = backproject(random_depth(), K), random_rigid()
    torch.testing.assert_close(transform(transform(points, rigid), invert(rigid)), points)
    torch.testing.assert_close(invert(rigid), torch.linalg.inv(rigid))


def test_relative_goes_through_the_world() -> None:
    pose_a, pose_b = random_rigid(seed=1), random_rigid(seed=2)
    points = backproject(random_depth(), K)
    a_to_b = relative(pose_a, pose_b)
    torch.testing.assert_close(transform(transform(points, a_to_b), pose_b), transform(points, pose_a))
    torch.testing.assert_close(a_to_b, torch.linalg.inv(pose_b) @ pose_a)
    torch.testing.assert_close(invert(a_to_b), relative(pose_b, pose_a))


@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-4, 0.0999, 0.1001, 1.0, math.pi, 5.0])
def test_a_vector_becomes_the_rotation_that_scipy_makes_of_it(angle: float) -> None:
    axis = torch.tensor([0.48, -0.6, 0.64], dtype=F64)
    vector = torch.cat([angle * axis, torch.tensor([1.0, 2.0, 3.0], dtype=F64)])
    rigid = rigid_from_vector(vector[None])[0]
    expected = Rotation.from_rotvec(vector[:3].numpy()).as_matrix()
    np.testing.assert_allclose(rigid[:3, :3].numpy(), expected, rtol=0, atol=1e-13)
    assert rigid[:3, 3].tolist() == [1, 2, 3] and rigid[3].tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("size", [0.0, 1e-25, 1e-20, 1e-12, 1e-3])
def test_no_rotation_has_the_gradient_of_the_small_rotation(size: float) -> None:
    vector = torch.full((1, 6), size, requires_grad=True)
    rigid = rigid_from_vector(vector)
    rigid[0, 2, 1].backward()  # about w_x
    assert vector.grad is not None
    torch.testing.assert_close(vector.grad, torch.tensor([[1.0, 0, 0, 0, 0, 0]]), atol=2e-3, rtol=0)


def test_the_intrinsics_of_another_size_are_those_of_the_readers_camera() -> None:
    resized = resize_intrinsics(K.expand(2, -1, -1), (7, 9), (21, 18))
    np.testing.assert_allclose(resized.numpy(), np.stack([CAMERA.resized(21, 18).matrix] * 2))
    torch.testing.assert_close(resize_intrinsics(resized, (21, 18), (7, 9)), K.expand(2, -1, -1))


@pytest.mark.parametrize("scale", [0.0, 0.01, 0.3])
def test_gradients_are_those_of_finite_differences(scale: float) -> None:
    depth = random_depth(1)[..., :3, :4].clone().requires_grad_()
    vector = (scale * torch.tensor([[0.5, -0.8, 0.3, 0.2, 0.1, -0.4]], dtype=F64)).requires_grad_()
    matrix = K.clone().requires_grad_()

    def pixels(depth: Tensor, vector: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
        smaller = resize_intrinsics(matrix, (7, 9), (3, 4))
        rigid = rigid_from_vector(vector)
        return project(transform(backproject(depth, smaller), relative(invert(rigid), rigid)), smaller)

    assert torch.autograd.gradcheck(pixels, (depth, vector, matrix))


def test_mixed_precision_leaves_the_coordinates_their_digits() -> None:
    camera = Camera(width=1920, height=4, fx=1100.0, fy=1100.0, cx=960.3, cy=2.1)
    matrix = torch.from_numpy(camera.matrix)[None]
    depth = 40 + 20 * torch.rand(1, 1, 4, 1920, generator=torch.Generator().manual_seed(0), dtype=F64)
    vector = torch.tensor([[0.01, 0.02, -0.03, 1.0, 2.0, 3.0]], dtype=F64)

    def pixels(of: Callable[[Tensor], Tensor]) -> Tensor:
        a_to_b = relative(rigid_from_vector(of(vector)), rigid_from_vector(of(vector / 2)))
        return project(transform(backproject(of(depth), of(matrix)), a_to_b), of(matrix))[0]

    exact = pixels(lambda x: x)
    with torch.autocast("cpu", torch.bfloat16):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16  # the surroundings are narrow
        mixed = pixels(lambda x: x.float())
    assert mixed.dtype == torch.float32
    assert float((mixed - exact).abs().max()) < 2e-3


def test_sixteen_bit_arguments_are_widened_and_float64_stays() -> None:
    @in_float32
    def product(a: Tensor, b: Tensor, factor: float = 1) -> Tensor:
        return a @ b * factor

    square = torch.eye(2)
    with torch.autocast("cpu", torch.bfloat16):
        assert product(square, square).dtype == torch.float32
        assert product(square.bfloat16(), b=square.half(), factor=2).dtype == torch.float32
        assert product(square.double(), square.double()).dtype == F64
    assert product.__name__ == "product"
