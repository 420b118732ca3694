"""What Liu et al. say of depth from structure from motion: scaling, sparse flow, consistency, and what points weigh."""

import math
import pickle

import pytest
import torch
from scenes import HEIGHT, WIDTH, learnt, plane_clip
from torch import Tensor, nn

from medssl.clip_augment import ClipAugment, mirror
from medssl.errors import InputError
from medssl.geometry import invert, relative
from medssl.methods.sfm_depth import (
    SfmDepth,
    depth_consistency_loss,
    scaling,
    seen_by_both,
    sparse_flow_loss,
    too_bright,
)
from medssl.networks import build_encoder
from medssl.sample import Batch
from medssl.train_video import VideoRecipe
from medssl.video_method import DepthMethod

STILL = ClipAugment(mirroring=0, colours=0)
F64 = torch.float64
ONES = torch.ones(1, 1, 1, 4, dtype=F64)
MATRIX = torch.tensor([[[10.0, 0.0, 1.0], [0.0, 10.0, 0.0], [0.0, 0.0, 1.0]]], dtype=F64)


def small(augment: ClipAugment = STILL, **arguments: float) -> SfmDepth:
    torch.manual_seed(0)
    encoder = build_encoder("unet", 3, 2, channels=(8, 16, 16), norm="group")
    return SfmDepth(encoder, augment=augment, **arguments)  # type: ignore[arg-type]  # numbers alone


def scene(points: int = 150, clips: int = 2) -> tuple[Batch, Tensor]:
    """Pairs of a plane with points at random pixels, lit so that depth^2 x brightness is about the same everywhere."""
    batch, depth = plane_clip(clips, frames=2)
    draw = torch.Generator().manual_seed(1)
    order = torch.rand(clips, 2, HEIGHT * WIDTH, generator=draw).argsort(-1).argsort(-1)
    shown = (order < points).view(clips, 2, 1, HEIGHT, WIDTH)
    batch["sparse_depth"] = depth * shown
    batch["sparse_views"] = torch.randint(2, 9, depth.shape, generator=draw).float() * shown
    return batch, depth


class Knows(nn.Module):
    """A network that gives the sigmoid of known depths (N, 1, H, W), times a factor, within 0.1 to 10."""

    def __init__(self, depth: Tensor, factor: float = 1.0) -> None:
        super().__init__()
        self.depth, self.factor = depth, factor

    def forward(self, pictures: Tensor) -> list[Tensor]:
        return [0.5 + (self.factor * self.depth[: len(pictures)]).log() / math.log(100)]


def knowing(depth: Tensor, factor: float = 1.0) -> SfmDepth:
    """Build the method with a network that knows the depth (B, 2, 1, H, W)."""
    method = small()
    method.network = Knows(depth.transpose(0, 1).flatten(0, 1), factor)  # type: ignore[assignment]
    return method


def shifted(by: float) -> Tensor:
    """From camera j's axes to camera k's, so that what is 2 away moves by 5 ``by`` pixels to the right."""
    rigid = torch.eye(4, dtype=F64)[None].clone()
    rigid[0, 0, 3] = by
    return rigid


def test_it_is_a_depth_method_up_to_scale_and_asks_for_posed_pairs_with_points() -> None:
    method = small()
    assert isinstance(method, DepthMethod) and not method.metric and method.motion(ONES, ONES) is None
    assert (method.needs.picker.nearest, method.needs.picker.farthest) == (5, 30)  # type: ignore[attr-defined]
    assert method.needs.intrinsics and method.needs.poses and method.needs.points and not method.needs.right
    assert VideoRecipe().gradient_clip == 10  # the paper's


def test_the_truth_has_no_loss_and_what_is_not_true_has_some() -> None:
    batch, depth = scene()
    true = knowing(depth).loss(batch)
    assert float(true["flow"]) < 1e-6 and float(true["consistency"]) < 1e-4 and float(true["scale_spread"]) < 1e-5
    bumpy = depth * (1 + 0.1 * torch.linspace(0, 20, WIDTH).sin())
    wrong = knowing(bumpy).loss(batch)
    assert float(wrong["flow"]) > 1e-3 and float(wrong["consistency"]) > 0.02 and float(wrong["scale_spread"]) > 0.03
    one_frame = knowing(torch.stack([depth[:, 0], bumpy[:, 1]], 1)).loss(batch)
    assert float(one_frame["consistency"]) > 0.02 and float(one_frame["flow"]) > 1e-3


def test_the_loss_does_not_depend_on_the_scale_of_the_networks_output() -> None:
    batch, depth = scene()
    bumpy = depth * (1 + 0.1 * torch.linspace(0, 20, WIDTH).sin())
    losses = [knowing(bumpy, factor).loss(batch) for factor in (0.05, 1.0, 1.7)]
    for other in losses[1:]:
        for name, value in losses[0].items():
            torch.testing.assert_close(other[name], value, rtol=1e-4, atol=1e-6)


def test_the_loss_is_the_weighted_sum_of_both_terms_which_are_summed_over_both_orders() -> None:
    batch, depth = scene()
    method = knowing(depth * (1 + 0.1 * torch.linspace(0, 20, WIDTH).sin()))
    for epochs, weight in ((1, 0.1), (20, 0.1), (21, 5.0)):
        method.epochs.fill_(epochs)
        losses = method.loss(batch)
        torch.testing.assert_close(losses["loss"], 20 * losses["flow"] + weight * losses["consistency"])
    turned = {name: value.flip(1) if value.ndim > 1 and value.shape[1] == 2 else value for name, value in batch.items()}
    method.network.depth = method.network.depth.roll(2, 0)  # type: ignore[operator, assignment]  # the other frame's
    torch.testing.assert_close(method.loss(turned)["loss"], losses["loss"])


def test_the_weight_of_consistency_rises_after_the_early_epochs_and_survives_a_restart() -> None:
    method = small(early_epochs=2)
    seen = []
    for _ in range(2):
        method.start_epoch([])
        seen.append(method.consistency_weight)
    again = small(early_epochs=2)
    again.load_state_dict(method.state_dict())
    for _ in range(2):
        again.start_epoch([])
        seen.append(again.consistency_weight)
    assert seen == [0.1, 0.1, 5.0, 5.0] and again.state_scores() == {"consistency/weight": 5.0}


def test_the_scale_is_the_mean_ratio_of_the_points_over_half_of_their_mean() -> None:
    Z_star = torch.tensor([2.0, 4.0, 0.5, 6.0], dtype=F64).view(1, 1, 1, 4)  # mean of the known ones: 6.5 / 3
    known = torch.tensor([True, True, True, False]).view(1, 1, 1, 4)
    Z_prime = torch.tensor([1.0, 1.0, 8.0, 5.0], dtype=F64).view(1, 1, 1, 4)
    s, spread = scaling(Z_prime, Z_star, known)
    assert s.item() == pytest.approx((2 / 1 + 4 / 1) / 2)  # 0.5 is below half of the mean
    assert spread.item() == pytest.approx(1 / 3)  # the ratios 2 and 4 lie 1 beside 3


def test_the_scaling_layers_gradient_is_that_of_its_formula() -> None:
    draw = torch.Generator().manual_seed(0)
    Z_star = torch.rand(2, 1, 3, 4, generator=draw, dtype=F64) + 1
    known = torch.rand(2, 1, 3, 4, generator=draw) < 0.6
    Z_prime = (torch.rand(2, 1, 3, 4, generator=draw, dtype=F64) + 0.5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: scaling(x, Z_star, known)[0], (Z_prime,))
    (grad,) = torch.autograd.grad(scaling(Z_prime, Z_star, known)[0].sum(), Z_prime)
    expected = -Z_star / Z_prime**2 / known.sum((2, 3), keepdim=True)  # all are over half of the mean
    torch.testing.assert_close(grad, torch.where(known, expected, 0.0).detach())


def test_scaled_depth_does_not_follow_the_prediction_along_its_own_scale() -> None:
    Z_prime = torch.tensor([1.0, 2.0, 3.0, 5.0], dtype=F64).view(1, 1, 1, 4).requires_grad_()
    Z = scaling(Z_prime, 2 * ONES, ONES > 0)[0] * Z_prime
    (grad,) = torch.autograd.grad((Z * torch.tensor([1.0, -3.0, 2.0, 0.5], dtype=F64)).sum(), Z_prime)
    assert float((grad * Z_prime.detach()).sum()) == pytest.approx(0, abs=1e-6)


def test_depth_starts_at_one_and_ends_at_reach_times_the_nearest() -> None:
    method = small(reach=25.0)
    method.network = nn.Identity()  # type: ignore[assignment]
    sigmoid = torch.tensor([[0.0, 0.5, 1.0]])
    assert method._depth_of(sigmoid).tolist() == pytest.approx([0.2, 1, 5])


def test_a_frame_without_points_keeps_its_scale_and_is_compared_with_nothing() -> None:
    s, spread = scaling(3 * ONES, ONES, ONES < 0)
    assert s.item() == 1 and spread.item() == 0
    batch, depth = scene()
    method = knowing(1.1 * depth + 0.2 * torch.rand(depth.shape, generator=torch.Generator().manual_seed(0)))
    whole = method.loss(batch)
    batch["sparse_depth"][0, 1], batch["sparse_views"][0, 1] = 0, 0
    without = method.loss(batch)
    assert 0 < float(without["consistency"]) < 0.7 * float(whole["consistency"]) and without["loss"].isfinite()
    for name in ("sparse_depth", "sparse_views"):
        batch[name] = torch.zeros_like(batch[name])
    assert all(float(value) == 0 for value in method.loss(batch).values())


def test_the_sparse_flow_loss_is_that_computed_by_hand() -> None:
    # Moving by 0.2 shifts what is 2 away by 10 x 0.2 / 2 = 1 pixel and what is 4 away by half a pixel, of 4.
    Z_star, Z = 2 * ONES, torch.tensor([2.0, 4.0, 4.0, 4.0], dtype=F64).view(1, 1, 1, 4)
    W = torch.tensor([0.5, 0.25, 1.0, 0.0], dtype=F64).view(1, 1, 1, 4)
    loss = sparse_flow_loss(Z, Z_star, W, MATRIX, shifted(0.2))
    assert loss.item() == pytest.approx((0.25 + 1.0) * (0.5 / 4) / (1 + 1.75))
    upward = torch.eye(4, dtype=F64)[None].clone()
    upward[0, 1, 3] = 0.2  # the height is 1 pixel
    assert sparse_flow_loss(Z, Z_star, W, MATRIX, upward).item() == pytest.approx(1.25 * 0.5 / 2.75)


def test_the_depth_consistency_loss_is_that_computed_by_hand() -> None:
    # Without motion, pixel x at depth d is the point ((x - 1) d / 10, 0, d); depths 2 and 3 differ by 1.
    Z, Z_k = 2 * ONES, 3 * ONES
    valid = torch.tensor([1.0, 1.0, 0.0, 1.0], dtype=F64).view(1, 1, 1, 4)
    loss = depth_consistency_loss(Z, Z_k, valid, ONES, MATRIX, shifted(0.0))
    assert loss.item() == pytest.approx(2 * (1.1 + 1.0 + 1.2) / (1e-5 * 2 + 3 * (2 + 3)))
    assert depth_consistency_loss(Z, Z_k, 0 * ONES, ONES, MATRIX, shifted(0.0)).item() == 0


def test_the_depth_of_frame_k_is_compared_in_the_axes_of_frame_j() -> None:
    closer = torch.eye(4, dtype=F64)[None].clone()
    closer[0, 2, 3] = -1  # camera k stands 1 before camera j, so what is 3 away from j is 2 away from it
    K = torch.tensor([[[10.0, 0.0, 4.0], [0.0, 10.0, 4.0], [0.0, 0.0, 1.0]]], dtype=F64)
    ones = torch.ones(1, 1, 9, 9, dtype=F64)
    assert depth_consistency_loss(2 * ones, 3 * ones, ones, ones, K, invert(closer)).item() < 1e-12
    assert depth_consistency_loss(3 * ones, 2 * ones, ones, ones, K, closer).item() < 1e-12
    # Moved back into camera j, 3 from camera k are 4, beside 3: 2 / 7 for the middle pixel, more at a slant.
    assert 2 / 7 < depth_consistency_loss(3 * ones, 3 * ones, ones, ones, K, closer).item() < 3 / 7


def test_a_point_weighs_what_the_number_of_its_views_says() -> None:
    batch, _ = scene()
    b = batch["sparse_views"]
    method, given = small(outliers=1e9), small(outliers=1e9, sigma=3.0)
    pair = b[0][b[0] > 0]
    expected = 1 - torch.exp(-b[0, 0] / pair.mean())  # of the pair's points alone, whatever else is in the batch
    torch.testing.assert_close(method._point_weights(batch)[0], expected)
    torch.testing.assert_close(given._point_weights(batch)[0], 1 - torch.exp(-b[0, 0] / 3))
    batch["valid"][0, 0, :, :8] = 0
    assert not method._point_weights(batch)[0, :, :8].any() and method._point_weights(batch)[0, :, 8:].any()


def test_a_point_too_far_for_its_brightness_is_left_out_and_one_in_the_shadow_is_not() -> None:
    draw = torch.Generator().manual_seed(0)
    Z_star = 1 + torch.rand(1, 1, 10, 20, generator=draw)
    brightness = (0.3 + 0.05 * torch.randn(1, 1, 10, 20, generator=draw)) / Z_star.square()
    known = torch.rand(1, 1, 10, 20, generator=draw) < 0.7
    known[..., 0, :4] = torch.tensor([True, True, False, True])
    Z_star[..., 0, 0] *= 4
    brightness[..., 0, 1] *= 0.05
    Z_star[..., 0, 2] *= 9
    Z_star[..., 0, 3] = math.nan  # decides nothing about the others
    known[..., 0, 3] = False
    found = too_bright(Z_star, brightness, known, 5.0)
    assert found.nonzero().tolist() == [[0, 0, 0, 0]]
    alone = torch.zeros_like(known)
    assert not too_bright(Z_star, brightness, alone, 5.0).any()
    alone[..., 0, 0] = True
    assert not too_bright(Z_star, brightness, alone, 5.0).any()


def test_an_outlier_among_the_points_does_not_reach_the_loss() -> None:
    batch, depth = scene()
    places = batch["sparse_depth"].nonzero()
    at = tuple(places[0].tolist())
    batch["sparse_depth"][at] *= 5
    kept, given = knowing(depth), small(outliers=1e9)
    given.network = kept.network
    assert float(kept.loss(batch)["flow"]) < 1e-6 < 1e-5 < float(given.loss(batch)["flow"])
    assert float(kept.loss(batch)["points"]) == pytest.approx(150 - 1 / 4)


def test_points_that_leave_the_other_picture_or_lie_behind_its_camera_do_not_count() -> None:
    Z_star = torch.tensor([2.0, 2.0, 2.0, 0.0], dtype=F64).view(1, 1, 1, 4)
    assert seen_by_both(Z_star, MATRIX, shifted(0.4)).flatten().tolist() == [True, True, False, False]
    beyond = torch.eye(4, dtype=F64)[None].clone()
    beyond[0, 2, 3] = -3
    assert not seen_by_both(Z_star, MATRIX, beyond).any()


def test_a_mirror_image_of_a_pair_has_the_same_loss() -> None:
    batch, depth = scene()
    bumpy = depth * (1 + 0.1 * torch.linspace(0, 20, WIDTH).sin())
    mirrored = mirror(batch, torch.tensor([True, True]))
    assert not torch.equal(mirrored["pose"], batch["pose"])
    for name, value in knowing(bumpy).loss(batch).items():
        torch.testing.assert_close(knowing(bumpy.flip(-1)).loss(mirrored)[name], value, rtol=1e-4, atol=1e-6)


def test_colours_are_changed_for_the_network_alone_and_in_training_alone() -> None:
    batch, _ = scene()
    method = small(ClipAugment(mirroring=0, colours=1))
    seen: list[Tensor] = []
    method.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    method.loss(batch)
    method.eval().loss(batch)
    frames = batch["clip"].transpose(0, 1).flatten(0, 1)
    assert not torch.allclose(seen[0], frames, atol=0.01) and torch.equal(seen[1], frames)
    knows = [knowing(plane_clip(2, 2)[1]) for _ in range(2)]
    knows[0].augment = method.augment
    assert torch.equal(knows[0].loss(batch)["loss"], knows[1].loss(batch)["loss"])


def test_the_gradient_reaches_all_of_the_network_and_the_losses_are_float32_under_bf16() -> None:
    batch, _ = scene()
    method = small(ClipAugment())
    with torch.autocast("cpu", torch.bfloat16):
        losses = method.loss(batch)
    assert all(value.dtype == torch.float32 and value.isfinite() for value in losses.values())
    losses["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.parameters())


def test_it_learns_a_scene() -> None:
    batch, depth = scene()
    method = small()
    losses = learnt(method, batch, 50, 2e-3)
    assert sum(losses[-3:]) < 0.3 * sum(losses[:3])
    predicted = method.eval().depth(batch).detach()
    relative_error = (predicted / predicted.median() * depth[:, 0].median() / depth[:, 0] - 1).abs().mean()
    assert predicted.shape == (2, 1, HEIGHT, WIDTH) and float(predicted.min()) > 0
    constant = (depth[:, 0].median() / depth[:, 0] - 1).abs().mean()
    assert float(relative_error) < 0.6 * float(constant)


def test_what_it_shows_of_the_truth_is_the_depth_in_the_points_scale_and_the_frame_drawn_again() -> None:
    batch, depth = scene()
    shown = knowing(depth, 0.3).show(batch)
    assert set(shown) == {"input", "depth", "warped", "error", "mask"}
    assert all(value.shape[0] == 2 and value.shape[-2:] == (HEIGHT, WIDTH) for value in shown.values())
    torch.testing.assert_close(shown["depth"], depth[:, 0], rtol=1e-4, atol=1e-4)
    assert float(shown["mask"].mean()) > 0.5 and float((shown["error"] * shown["mask"]).mean()) < 0.02


def test_the_poses_are_camera_to_world() -> None:
    batch, depth = scene()
    turned = dict(batch) | {"pose": invert(batch["pose"])}
    assert not torch.allclose(relative(*batch["pose"].unbind(1)), relative(*turned["pose"].unbind(1)), atol=1e-3)
    true, false = (knowing(depth).loss(one)["consistency"] for one in (batch, turned))
    assert float(false) > 100 * float(true)


def test_it_survives_pickling_and_a_restart() -> None:
    batch, _ = scene()
    method, other = small(), small()
    for p in method.parameters():
        p.data.add_(0.01)
    method.epochs.fill_(25)
    other.load_state_dict(method.state_dict())
    copy = pickle.loads(pickle.dumps(method))
    assert torch.equal(method.loss(batch)["loss"], other.loss(batch)["loss"])
    assert torch.equal(method.loss(batch)["loss"], copy.loss(batch)["loss"])


def test_clips_and_settings_that_it_cannot_learn_from_are_refused() -> None:
    batch, _ = scene()
    three = dict(batch) | {"clip": batch["clip"][:, [0, 1, 1]]}
    with pytest.raises(InputError, match=r"two frames.*T = 3\. Take them .*PosedPair"):
        small().loss(three)
    del batch["sparse_depth"]
    with pytest.raises(InputError, match="has no 'sparse_depth'"):
        small().loss(batch)
    with pytest.raises(InputError, match="reach must be above 1"):
        small(reach=1.0)
