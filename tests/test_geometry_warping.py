"""A view drawn from another is the view itself where the truth is given, and worse away from it."""

import math

import pytest
import torch
from torch import Tensor

from medssl.errors import InputError
from medssl.geometry import (
    backproject,
    depth_from_disparity,
    depth_from_stereo,
    flow_from_depth,
    inside,
    invert,
    occlusion_by_consistency,
    occlusion_by_range_map,
    pixel_grid,
    project,
    range_map,
    relative,
    reproject,
    rigid_from_vector,
    sample,
    transform,
    warp,
    warp_depth,
    warp_stereo,
)

F64 = torch.float64
HEIGHT, WIDTH = 40, 48
SIZE = (HEIGHT, WIDTH)
K = torch.tensor([[[50.0, 0.0, 23.1], [0.0, 52.0, 19.4], [0.0, 0.0, 1.0]]], dtype=F64)
POSE_A = rigid_from_vector(torch.tensor([[0.02, -0.03, 0.01, 0.1, -0.2, 0.05]], dtype=F64))
POSE_B = rigid_from_vector(torch.tensor([[-0.03, 0.05, 0.06, 0.4, 0.1, 0.3]], dtype=F64))
A_TO_B = relative(POSE_A, POSE_B)


def plane_seen_from(pose: Tensor) -> tuple[Tensor, Tensor]:
    """Image (1, 1, H, W) and depth of a tilted plane in the world with a smooth texture."""
    normal, distance = torch.tensor([0.2, -0.3, 1.0], dtype=F64), 5.0
    rays = backproject(torch.ones(1, 1, HEIGHT, WIDTH, dtype=F64), K)
    centre = pose[0, :3, 3]
    ahead = torch.einsum("c,bchw->bhw", normal @ pose[0, :3, :3], rays)[:, None]
    depth = (distance - normal @ centre) / ahead
    x, y, _ = transform(rays * depth, pose).split(1, dim=1)
    return 0.5 + 0.2 * (2.1 * x + 0.4 * y).sin() + 0.2 * (1.7 * y - 0.3 * x).cos(), depth


def random_image(batch: int = 2, channels: int = 3, seed: int = 0) -> Tensor:
    return torch.rand(batch, channels, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=F64)


def test_reading_at_the_grid_gives_the_image_back() -> None:
    image = random_image()
    grid = pixel_grid(*SIZE, dtype=F64).expand(2, -1, -1, -1)
    for mode in ("bilinear", "nearest", "bicubic"):
        torch.testing.assert_close(sample(image, grid, "zeros", mode), image)
    assert inside(grid, SIZE).all()


def test_an_image_of_its_own_coordinates_is_read_as_where_it_is_read() -> None:
    image = pixel_grid(*SIZE, dtype=F64)[None]
    pixels = torch.rand(1, 2, 5, 6, generator=torch.Generator().manual_seed(0), dtype=F64) * 39
    torch.testing.assert_close(sample(image, pixels), pixels)


def test_outside_is_the_border_or_zero() -> None:
    image = torch.tensor([[[[1.0, 2.0, 3.0]] * 2]])
    pixels = torch.tensor([[-5.0, 2.5, 9.0], [0.0, 0.0, 1.0]]).view(1, 2, 1, 3)
    assert sample(image, pixels).flatten().tolist() == [1, 3, 3]
    assert sample(image, pixels, "zeros").flatten().tolist() == pytest.approx([0, 1.5, 0])
    assert not inside(pixels, (2, 3)).any()


def test_inside_ends_at_the_centres_of_the_last_pixels() -> None:
    x = torch.tensor([-0.01, 0.0, 2.0, 2.01, 1.0, 1.0, math.nan])
    y = torch.tensor([0.0, 0.0, 1.0, 1.0, -1.0, 1.2, 0.0])
    pixels = torch.stack([x, y]).view(1, 2, 1, -1)
    assert inside(pixels, (2, 3)).flatten().tolist() == [False, True, True, False, False, False, False]


def test_a_pixel_that_does_not_move_stays_inside_in_float32() -> None:
    matrix = torch.tensor([[[1123.7, 0.0, 961.3], [0.0, 1119.2, 541.8], [0.0, 0.0, 1.0]]])
    depth = 0.01 + 100 * torch.rand(1, 1, 1080, 1920, generator=torch.Generator().manual_seed(0))
    pixels, _ = project(backproject(depth, matrix), matrix)
    assert inside(pixels, (1080, 1920)).all()


def test_flow_from_depth_is_placing_moving_and_projecting() -> None:
    _, depth = plane_seen_from(POSE_A)
    pixels, _ = project(transform(backproject(depth, K), A_TO_B), K)
    torch.testing.assert_close(flow_from_depth(depth, K, A_TO_B), pixels - pixel_grid(*SIZE, dtype=F64))


def test_flow_from_depth_is_the_formula_with_m_and_w() -> None:
    _, depth = plane_seen_from(POSE_A)
    b_to_a = invert(A_TO_B)  # x1 = R x2 + t, with 1 for a and 2 for b
    R, t = b_to_a[0, :3, :3], b_to_a[0, :3, 3]
    M, W = K[0] @ R.T @ torch.linalg.inv(K[0]), -K[0] @ R.T @ t
    p = torch.cat([pixel_grid(*SIZE, dtype=F64), torch.ones(1, *SIZE, dtype=F64)])
    q = depth[0] * torch.einsum("ij,jhw->ihw", M, p) + W[:, None, None]
    torch.testing.assert_close(flow_from_depth(depth, K, A_TO_B)[0], q[:2] / q[2:] - p[:2])


def test_the_flows_there_and_back_through_depth_cancel() -> None:
    (_, depth_a), (_, depth_b) = plane_seen_from(POSE_A), plane_seen_from(POSE_B)
    there, back = flow_from_depth(depth_a, K, A_TO_B), flow_from_depth(depth_b, K, invert(A_TO_B))
    landed = inside(pixel_grid(*SIZE, dtype=F64) + there, SIZE)
    assert float((there + warp(back, there))[landed.expand_as(there)].abs().max()) < 0.01
    hidden = occlusion_by_consistency(there, back)
    assert torch.equal(hidden, ~landed)


def test_the_true_depth_and_motion_draw_the_view_and_others_do_not() -> None:
    (image_a, depth_a), (image_b, _) = plane_seen_from(POSE_A), plane_seen_from(POSE_B)
    errors = []
    for factor in (0.8, 0.9, 1.0, 1.1, 1.2):
        drawn, valid = reproject(image_b, factor * depth_a, K, A_TO_B)
        assert 0.5 < float(valid.double().mean()) < 1
        errors.append(float((drawn - image_a).abs()[valid].mean()))
    assert errors[2] < 1e-3
    assert errors[0] > errors[1] > 10 * errors[2] and errors[4] > errors[3] > 10 * errors[2]


@pytest.mark.parametrize("which", ["depth", "motion"])
def test_gradients_point_to_the_truth(which: str) -> None:
    (image_a, depth_a), (image_b, _) = plane_seen_from(POSE_A), plane_seen_from(POSE_B)
    offset = torch.zeros(6, dtype=F64)
    offset[3] = 0.05
    for sign in (-1, 1):
        error = (sign * (0.05 if which == "depth" else 1)) * torch.ones((), dtype=F64).requires_grad_()
        error.retain_grad()
        factor, vector = (1 + error, 0 * offset) if which == "depth" else (torch.ones(()), error * offset)
        a_to_b = relative(rigid_from_vector(vector[None]), invert(A_TO_B))
        drawn, valid = reproject(image_b, factor * depth_a, K, a_to_b)
        (drawn - image_a).square()[valid].mean().backward()
        assert error.grad is not None and sign * float(error.grad) > 0


def test_gradients_of_warping_are_those_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 2, 5, 6, generator=generator, dtype=F64, requires_grad=True)
    depth_a, depth_b = (1 + torch.rand(1, 1, 5, 6, generator=generator, dtype=F64) for _ in range(2))
    vector = torch.tensor([[0.02, -0.01, 0.03, 0.06, 0.05, 0.04]], dtype=F64, requires_grad=True)
    matrix = torch.tensor([[[6.0, 0.0, 2.4], [0.0, 6.0, 2.1], [0.0, 0.0, 1.0]]], dtype=F64)

    def drawn(image: Tensor, depth_a: Tensor, depth_b: Tensor, vector: Tensor) -> tuple[Tensor, ...]:
        a_to_b = rigid_from_vector(vector)
        deep, valid = warp_depth(depth_b, depth_a, matrix, a_to_b)
        return (
            reproject(image, depth_a, matrix, a_to_b)[0],
            deep * valid,
            flow_from_depth(depth_a, matrix, a_to_b),
            warp_stereo(image, depth_a, -1),
        )

    assert torch.autograd.gradcheck(drawn, (image, depth_a.requires_grad_(), depth_b.requires_grad_(), vector))


@pytest.mark.parametrize("bad", [-1.0, 0.0, math.nan, math.inf])
def test_unknown_depth_is_invalid_and_poisons_no_gradient(bad: float) -> None:
    image_b, depth_b = (x.float() for x in plane_seen_from(POSE_B))
    depth = plane_seen_from(POSE_A)[1].float()
    depth[..., 10:20, 10:20] = bad
    depth.requires_grad_()
    vector = torch.zeros(1, 6, requires_grad=True)
    a_to_b = relative(rigid_from_vector(vector), invert(A_TO_B).float())
    drawn, valid = reproject(image_b, depth, K.float(), a_to_b)
    there, also_valid = warp_depth(depth_b, depth, K.float(), a_to_b)
    back, _ = warp_depth(depth, depth_b, K.float(), invert(a_to_b))
    assert not valid[..., 10:20, 10:20].any() and not also_valid[..., 10:20, 10:20].any() and valid.any()
    total = drawn.sum() + there.sum() + back.sum() + flow_from_depth(depth, K.float(), a_to_b).sum()
    total.backward()
    for grad in (depth.grad, vector.grad):
        assert grad is not None and grad.isfinite().all()
    assert depth.grad is not None and (depth.grad[..., 10:20, 10:20] == 0).all()


def test_what_lies_behind_the_other_camera_is_invalid_and_passes_no_gradient() -> None:
    depth = torch.full((1, 1, *SIZE), 2.0, requires_grad=True)
    forward = rigid_from_vector(torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.0, -2.0]]))  # its points lie at z = 0
    for a_to_b in (forward, forward @ forward):
        drawn, valid = reproject(random_image(1).float(), depth, K.float(), a_to_b)
        flow = flow_from_depth(depth, K.float(), a_to_b)
        assert not valid.any() and drawn.isfinite().all() and flow.isfinite().all()
        (grad,) = torch.autograd.grad(drawn.sum() + flow.sum(), depth)
        assert (grad == 0).all()


def test_warped_depth_is_the_true_depth_of_a_tilted_plane() -> None:
    (_, depth_a), (_, depth_b) = plane_seen_from(POSE_A), plane_seen_from(POSE_B)
    warped, valid = warp_depth(depth_b, depth_a, K, A_TO_B)
    assert 0.5 < float(valid.double().mean()) < 1
    _, between_pixels = reproject(depth_b, depth_a, K, A_TO_B)
    assert valid[between_pixels].all()
    wrong = (warped / depth_a - 1).abs()
    assert float(wrong[between_pixels].max()) < 1e-4  # what bilinear interpolation of depth leaves
    assert float(wrong[valid].max()) < 1e-3  # up to a tenth of a pixel outside, the border's depth
    farther, _ = warp_depth(1.1 * depth_b, depth_a, K, A_TO_B)
    assert float((farther / depth_a - 1)[valid].mean()) > 0.05


def test_without_motion_depth_is_warped_to_itself() -> None:
    _, depth = plane_seen_from(POSE_A)
    warped, valid = warp_depth(depth, depth, K, torch.eye(4, dtype=F64)[None])
    assert valid.all()
    torch.testing.assert_close(warped, depth)


def test_warped_depth_counts_where_the_sampled_mask_times_the_mask_is_nine_tenths() -> None:
    depth = torch.full((1, 1, 4, 8), 2.0, dtype=F64)
    matrix = torch.tensor([[[10.0, 0.0, 3.5], [0.0, 10.0, 1.5], [0.0, 0.0, 1.0]]], dtype=F64)
    shift = torch.eye(4, dtype=F64)[None].clone()
    shift[0, 0, 3] = 0.05 * 2 / 10  # 0.05 pixels to the right
    mask_b = torch.ones_like(depth)
    mask_b[..., 3] = 0
    mask_a = torch.ones_like(depth)
    mask_a[..., 0], mask_a[..., 5] = 0, 0.94  # 1 x 0.94 is enough
    warped, valid = warp_depth(depth, depth, matrix, shift, mask_b, mask_a)
    # Pixel 2 reads 0.95 of itself and 0.05 of the masked pixel 3; pixel 3 the reverse; pixel 7 leaves the picture by
    # less than a tenth of a pixel.
    assert valid[0, 0, 0].tolist() == [False, True, True, False, True, True, True, True]
    torch.testing.assert_close(warped[valid], depth[valid])  # the masked pixel's depth is left out, not mixed in
    soft = torch.full_like(depth, 0.94)
    assert not warp_depth(depth, depth, matrix, shift, soft, soft)[1].any()


def test_warping_by_the_flow_of_a_shift_shifts() -> None:
    image_a = random_image()
    image_b = torch.roll(image_a, (2, 3), dims=(2, 3))  # what was at (x, y) is at (x + 3, y + 2)
    flow = torch.tensor([3.0, 2.0], dtype=F64).view(1, 2, 1, 1).expand(2, 2, *SIZE)
    torch.testing.assert_close(warp(image_b, flow)[..., :-2, :-3], image_a[..., :-2, :-3])
    assert (warp(image_b, flow, "zeros")[..., -2:, :] == 0).all()


def test_the_left_view_is_drawn_from_the_right_with_minus_and_the_right_from_the_left_with_plus() -> None:
    left = random_image()
    right = torch.roll(left, -4, dims=3)  # a disparity of 4: x on the left minus x on the right
    disparity = torch.full((2, 1, *SIZE), 4.0, dtype=F64)
    torch.testing.assert_close(warp_stereo(right, disparity, -1)[..., 4:], left[..., 4:])
    torch.testing.assert_close(warp_stereo(left, disparity, 1)[..., :-4], right[..., :-4])


def test_disparity_and_motion_of_a_rectified_pair_are_one_flow() -> None:
    baseline = 0.3
    _, depth = plane_seen_from(POSE_A)
    left_to_right = rigid_from_vector(torch.tensor([[0.0, 0.0, 0.0, -baseline, 0.0, 0.0]], dtype=F64))
    disparity = -flow_from_depth(depth, K, left_to_right)[:, :1]
    torch.testing.assert_close(depth_from_stereo(disparity, 50.0, baseline), depth)
    torch.testing.assert_close(depth_from_stereo(disparity, K[:, :1, :1, None], torch.tensor(baseline)), depth)


def test_no_disparity_is_unknown_depth_without_gradient() -> None:
    disparity = torch.tensor([2.0, 0.0, -1.0, math.nan]).view(1, 1, 1, 4).requires_grad_()
    depth = depth_from_stereo(disparity, 10.0, 3.0)
    assert depth.flatten().tolist() == [15, 0, 0, 0]
    depth.sum().backward()
    assert disparity.grad is not None and disparity.grad.flatten().tolist() == [-7.5, 0, 0, 0]


def test_the_ends_of_the_sigmoid_are_the_limits_of_depth() -> None:
    depth = depth_from_disparity(torch.tensor([0.0, 0.5, 1.0], dtype=F64), 2.0, 100.0)
    assert depth.tolist() == pytest.approx([100, 2 / (0.01 + 0.5), 2])


@pytest.mark.parametrize("limits", [(0.0, 10.0), (10.0, 5.0), (-1.0, 5.0)])
def test_limits_that_are_none_are_refused(limits: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="0 < min_depth < max_depth"):
        depth_from_disparity(torch.zeros(1), *limits)


def naive_range_map(flow: Tensor) -> Tensor:
    batch, _, height, width = flow.shape
    counts = torch.zeros(batch, 1, height, width, dtype=flow.dtype)
    for b in range(batch):
        for i in range(height):
            for j in range(width):
                x, y = j + float(flow[b, 0, i, j]), i + float(flow[b, 1, i, j])
                for row in range(height):
                    for column in range(width):
                        counts[b, 0, row, column] += max(0, 1 - abs(x - column)) * max(0, 1 - abs(y - row))
    return counts


def test_the_range_map_is_that_of_a_naive_loop() -> None:
    flow = 2 * torch.randn(2, 2, 5, 6, generator=torch.Generator().manual_seed(0), dtype=F64)
    flow[0, :, 0, 0] = 1e30
    torch.testing.assert_close(range_map(flow), naive_range_map(flow))
    flow[0, 0, 0, 0] = math.nan
    assert range_map(flow).isfinite().all()


def moving_square() -> tuple[Tensor, Tensor, Tensor]:
    """Flows of a square of 10 pixels that moves right by 6 over a still ground, and what it hides of the first view."""
    forward, backward = torch.zeros(1, 2, *SIZE), torch.zeros(1, 2, *SIZE)
    forward[:, 0, 10:20, 10:20] = 6
    backward[:, 0, 10:20, 16:26] = -6
    hidden = torch.zeros(1, 1, *SIZE, dtype=torch.bool)
    hidden[..., 10:20, 20:26] = True
    return forward, backward, hidden


def test_both_ways_to_find_what_is_hidden_find_it() -> None:
    forward, backward, hidden = moving_square()
    assert torch.equal(occlusion_by_consistency(forward, backward), hidden)
    assert torch.equal(occlusion_by_range_map(backward), hidden)


def test_what_leaves_the_picture_is_hidden() -> None:
    flow = torch.tensor([3.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, *SIZE)
    leaves = (torch.arange(WIDTH) >= WIDTH - 3).expand(1, 1, *SIZE)
    assert torch.equal(occlusion_by_consistency(flow, -flow), leaves)
    assert torch.equal(occlusion_by_range_map(-flow), leaves)


def test_the_check_of_consistency_follows_its_formula() -> None:
    forward = torch.full((1, 2, 1, 1), 0.0, dtype=F64)
    for error, hidden in ((0.70, False), (0.71, True)):  # the root of 0.5 is 0.7071
        backward = torch.tensor([error, 0.0], dtype=F64).view(1, 2, 1, 1)
        assert bool(occlusion_by_consistency(forward, backward, a=0)) is hidden
    forward = torch.tensor([100.0, 0.0], dtype=F64).view(1, 2, 1, 1).expand(1, 2, 1, 300)
    allowed = math.sqrt(0.01 * (100**2 + 86**2) + 0.5)
    assert allowed < 14
    assert occlusion_by_consistency(forward, -0.86 * forward).all()
    assert not occlusion_by_consistency(forward, -0.87 * forward)[..., :200].any()


def test_occlusions_are_not_differentiated() -> None:
    flow = torch.zeros(1, 2, *SIZE, requires_grad=True)
    assert not occlusion_by_consistency(flow, flow).requires_grad
    assert not range_map(flow).requires_grad


def test_mixed_precision_leaves_warping_its_digits() -> None:
    image, depth = (x.float() for x in plane_seen_from(POSE_A))
    with torch.autocast("cpu", torch.bfloat16):
        drawn, valid = reproject(image, depth, K.float(), A_TO_B.float())
        warped, _ = warp_depth(depth, depth, K.float(), A_TO_B.float())
        flow = flow_from_depth(depth, K.float(), A_TO_B.float())
        assert warp(image.bfloat16(), flow).dtype == torch.float32
    exact, _ = reproject(image.double(), depth.double(), K, A_TO_B)
    assert {drawn.dtype, warped.dtype, flow.dtype} == {torch.float32}
    torch.testing.assert_close(drawn[valid], exact.float()[valid], atol=1e-4, rtol=0)
    torch.testing.assert_close(flow, flow_from_depth(depth.double(), K, A_TO_B).float(), atol=1e-4, rtol=0)
