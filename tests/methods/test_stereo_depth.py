"""What Godard et al. 2017 say of depth from stereo: appearance, smoothness, left-right consistency, post-processing."""

import pickle

import pytest
import torch
from scenes import BASELINE, HEIGHT, WIDTH, learnt, plane_clip
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.clip_augment import ClipAugment, mirror
from medssl.errors import InputError
from medssl.geometry.view_synthesis import Views
from medssl.methods.stereo_depth import StereoDepth, draw, post_processed
from medssl.networks import build_encoder
from medssl.photometric import photometric_error
from medssl.sample import Batch
from medssl.video_method import DepthMethod

STILL = ClipAugment(mirroring=0, colours=0)
F64 = torch.float64


def small(augment: ClipAugment = STILL, **arguments: float) -> StereoDepth:
    torch.manual_seed(0)
    encoder = build_encoder("unet", 3, 2, channels=(8, 16, 16), norm="group")
    return StereoDepth(encoder, augment=augment, **arguments)  # type: ignore[arg-type]  # numbers alone


def scene(clips: int = 2) -> tuple[Batch, Tensor, Tensor]:
    """Pairs of a plane, the left depth (B, 1, H, W), and the disparities of both views as shares of the width.

    The left disparity is a x + b y + c, so at x - d on the right it is (a x_r + b y + c) / (1 - a).
    """
    batch, depth = plane_clip(clips, frames=1, right=True)
    z = depth[:, 0]
    left = batch["intrinsics"][:, 0, 0].view(-1, 1, 1, 1) * BASELINE / z
    a, b = left[..., :1, 1:2] - left[..., :1, :1], left[..., 1:2, :1] - left[..., :1, :1]
    y, x = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    right = (a * x + b * y + left[..., :1, :1]) / (1 - a)
    return batch, z, torch.cat([left, right], 1) / WIDTH


class Knows(nn.Module):
    """A network that gives the sigmoids of known disparities (B, 2, H, W), shares of the width, at each scale."""

    def __init__(self, disparities: Tensor, scales: int = 3) -> None:
        super().__init__()
        self.disparities, self.scales = disparities, scales

    def forward(self, pictures: Tensor) -> list[Tensor]:
        sigmoid = self.disparities[: len(pictures)] / 0.3
        return [F.avg_pool2d(sigmoid, 2**s) for s in range(self.scales)]


def knowing(disparities: Tensor, scales: int = 3, **arguments: float) -> StereoDepth:
    method = small(**arguments)
    method.network = Knows(disparities, scales)  # type: ignore[assignment]
    return method


def views(left: Tensor, right: Tensor) -> Views:
    """Both pictures, (1, 1, h, w) each, all valid."""
    pictures = torch.stack([left, right], 1)
    return Views(pictures, torch.ones_like(pictures), torch.eye(3, dtype=left.dtype).expand(1, 2, 3, 3))


def test_it_is_a_metric_depth_method_and_asks_for_single_frames_of_two_cameras() -> None:
    method = small()
    assert isinstance(method, DepthMethod) and method.metric
    assert method.needs.right and method.needs.intrinsics and not method.needs.poses


def test_the_truth_has_no_loss_but_interpolations_and_what_is_not_true_has_more() -> None:
    batch, _, true = scene()
    right = knowing(true, 1).loss(batch)
    assert float(right["appearance"]) < 0.02 and float(right["consistency"]) < 1e-5
    assert float(right["smoothness"]) < 1e-3
    for wrong in (1.2 * true, 0.8 * true, true.flip(0)):
        assert float(knowing(wrong, 1).loss(batch)["appearance"]) > 3 * float(right["appearance"])
    apart = torch.cat([true[:, :1], 1.2 * true[:, 1:]], 1)
    assert float(knowing(apart, 1).loss(batch)["consistency"]) > 0.01


def test_the_loss_is_the_weighted_sum_of_its_parts_over_scales_of_which_each_smooths_half_as_much() -> None:
    batch, _, true = scene()
    bumpy = true * (1 + 0.1 * torch.linspace(0, 20, WIDTH).sin())
    losses = knowing(bumpy).loss(batch)
    expected = losses["appearance"] + 0.1 * losses["smoothness"] + losses["consistency"]
    torch.testing.assert_close(losses["loss"], expected)
    weighed = knowing(bumpy, appearance_weight=2, smoothness_weight=0.5, consistency_weight=3).loss(batch)
    expected = 2 * losses["appearance"] + 0.5 * losses["smoothness"] + 3 * losses["consistency"]
    torch.testing.assert_close(weighed["loss"], expected)
    flat = {name: torch.full_like(value, 0.4) if name in ("clip", "right") else value for name, value in batch.items()}
    ramp = torch.linspace(0.1, 0.2, WIDTH).expand(2, 2, HEIGHT, WIDTH)
    step = 0.1 / (WIDTH - 1)  # at scale s it is 2^s times as large, and counts 2^-s; both views
    assert float(knowing(ramp).loss(flat)["smoothness"]) == pytest.approx(3 * 2 * step, rel=1e-4)


def test_a_view_is_drawn_by_a_shift_and_each_disparity_is_found_in_the_others_place() -> None:
    left = torch.tensor([0.1, 0.5, 0.9, 0.3, 0.7, 0.2, 0.4, 0.8], dtype=F64).view(1, 1, 1, 8)
    right = left.roll(-2, 3)  # what is at x on the left is at x - 2 on the right
    d = torch.full((1, 2, 1, 8), 2 / 8, dtype=F64)
    d[0, 1, 0, 3] = 3 / 8
    drawn, other, valid = draw(views(left, right), d, 0)
    assert valid.flatten().tolist() == [False, False, True, True, True, True, True, True]
    torch.testing.assert_close(drawn[valid], left[valid])
    assert (other[valid] * 8).tolist() == pytest.approx([2, 2, 2, 3, 2, 2])  # at x = 5 stands the right one's x = 3
    d[0, 1, 0, 3] = 2 / 8
    drawn, _, valid = draw(views(left, right), d, 1)
    assert valid.flatten().tolist() == [True, True, True, True, True, True, False, False]
    torch.testing.assert_close(drawn[valid], right[valid])


def test_consistency_is_the_mean_difference_of_disparities_at_the_same_point_as_a_share_of_the_width() -> None:
    batch, _, _ = scene()
    d = torch.full((2, 2, HEIGHT, WIDTH), 4 / WIDTH)
    d[:, 1] = 7 / WIDTH
    losses = knowing(d, 1).loss(batch)
    assert float(losses["consistency"]) == pytest.approx(2 * 3 / WIDTH, rel=1e-4)


def test_appearance_is_the_mean_over_what_both_views_show() -> None:
    batch, _, _ = scene(1)
    batch["clip"], batch["right"] = torch.full_like(batch["clip"], 0.5), torch.full_like(batch["right"], 0.3)
    d = torch.full((1, 2, HEIGHT, WIDTH), 4 / WIDTH)
    error = photometric_error(torch.full((1, 3, 5, 5), 0.5), torch.full((1, 3, 5, 5), 0.3))[0, 0, 2, 2]
    assert float(knowing(d, 1).loss(batch)["appearance"]) == pytest.approx(2 * float(error), rel=1e-4)
    assert float(knowing(d, 1, ssim_weight=0).loss(batch)["appearance"]) == pytest.approx(2 * 0.2, rel=1e-4)


def test_what_one_of_the_views_does_not_show_is_not_compared() -> None:
    batch, _, true = scene()
    spoilt = dict(batch) | {"clip": batch["clip"].clone(), "right": batch["right"].clone()}
    spoilt["clip"][..., 8:16, 30:40], spoilt["right"][..., 20:28, 30:40] = 0, 1
    masks = {"valid": batch["valid"].clone(), "right_valid": batch["right_valid"].clone()}
    masks["valid"][..., 8:16, 30:40], masks["right_valid"][..., 20:28, 30:40] = 0, 0
    unknown, known = (knowing(true, 1).loss(spoilt | more)["appearance"] for more in ({}, masks))
    assert float(unknown) > 0.05 and float(known) < 0.02
    nothing = {name: torch.zeros_like(mask) for name, mask in masks.items()}
    losses = knowing(true).loss(spoilt | nothing)
    assert float(losses["appearance"]) == 0 and float(losses["consistency"]) == 0


def test_a_mirror_image_of_a_pair_has_its_views_swapped_and_the_same_loss() -> None:
    batch, _, true = scene()
    bumpy = true * (1 + 0.1 * torch.linspace(0, 20, WIDTH).sin())
    mirrored = mirror(batch, torch.tensor([True, True]))
    torch.testing.assert_close(mirrored["clip"], batch["right"].flip(-1))
    for name, value in knowing(bumpy).loss(batch).items():
        swapped = bumpy.flip(-1)[:, [1, 0]]
        torch.testing.assert_close(knowing(swapped).loss(mirrored)[name], value, rtol=1e-4, atol=1e-6)


def test_post_processing_takes_the_edges_from_one_picture_each_and_the_mean_between() -> None:
    d, mirrored = torch.zeros(1, 1, 1, 101), torch.ones(1, 1, 1, 101)
    joined = post_processed(d, mirrored).flatten()  # how much of the mirror image's disparity is taken at x %
    for x, share in ((0, 1.0), (5, 1.0), (6, 0.9), (9, 0.6), (10, 0.5), (50, 0.5), (90, 0.5), (91, 0.4), (95, 0.0)):
        assert float(joined[x]) == pytest.approx(share, abs=1e-5)
    torch.testing.assert_close(joined + joined.flip(0), torch.ones(101))
    torch.testing.assert_close(post_processed(d + 3, d + 3), d + 3)


def test_the_disparity_is_in_pixels_and_joins_that_of_the_mirror_image() -> None:
    method = small()
    picture = torch.rand(1, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        own, other = (0.3 * WIDTH * method.network(image)[0][:, :1] for image in (picture, picture.flip(-1)))
        joined = method.disparity(picture)
        method.post_processing = False
        torch.testing.assert_close(method.disparity(picture), own)
    torch.testing.assert_close(joined, post_processed(own, other.flip(-1)))
    assert not torch.allclose(joined, own)


def test_training_begins_at_the_first_disparity() -> None:
    for share in (0.02, 0.05, 0.2):
        method = small(first_disparity=share, post_processing=False)
        d = method.disparity(torch.rand(1, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0)))
        assert float(d.detach().mean()) / WIDTH == pytest.approx(share, rel=0.5)


def test_the_depth_of_the_true_disparity_is_the_true_depth() -> None:
    batch, z, true = scene()
    method = knowing(true, post_processing=False)
    torch.testing.assert_close(method.depth(batch), z, rtol=1e-4, atol=1e-4)


def test_principal_points_that_differ_are_taken_into_account() -> None:
    batch, z, true = scene()
    moved = 2.5  # pixels, to the right in the right picture, which makes all disparities smaller
    batch["right_intrinsics"][:, 0, 2] += moved
    method = knowing(true - moved / WIDTH, post_processing=False)
    torch.testing.assert_close(method.depth(batch), z, rtol=1e-4, atol=1e-4)


def test_depth_is_above_zero_where_the_disparity_is_not() -> None:
    batch, _, _ = scene()
    batch["right_intrinsics"][:, 0, 2] -= 2
    depth = knowing(torch.full((2, 2, HEIGHT, WIDTH), 1 / WIDTH), post_processing=False).depth(batch)
    assert depth.isfinite().all() and float(depth.min()) > 1000


def test_colours_are_changed_for_the_network_alone_and_in_training_alone() -> None:
    batch, _, true = scene()
    method = small(ClipAugment(mirroring=0, colours=1))
    seen: list[Tensor] = []
    method.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    method.loss(batch)
    method.eval().loss(batch)
    left = batch["clip"][:, 0]
    assert not torch.allclose(seen[0], left, atol=0.01) and torch.equal(seen[1], left)
    plain, coloured = knowing(true), knowing(true)
    coloured.augment = method.augment
    assert torch.equal(plain.loss(batch)["loss"], coloured.loss(batch)["loss"])


def test_the_gradient_reaches_all_of_the_network_and_the_losses_are_float32_under_bf16() -> None:
    batch, _, _ = scene()
    method = small(ClipAugment())
    with torch.autocast("cpu", torch.bfloat16):
        losses = method.loss(batch)
    assert all(value.dtype == torch.float32 and value.isfinite() for value in losses.values())
    losses["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.parameters())


def test_it_learns_a_scene() -> None:
    batch, _, true = scene()
    method = small(scales=1, post_processing=False)
    losses = learnt(method, batch, 60, 3e-3)
    assert sum(losses[-3:]) < 0.6 * sum(losses[:3])
    wrong = (method.eval().disparity(batch["clip"][:, 0]).detach() / WIDTH - true[:, :1]).abs().mean()
    assert float(wrong) < 0.5 * float((true[:, :1] - 0.05).abs().mean())  # that of the first disparity


def test_what_it_shows_of_the_truth_is_the_truth_and_the_left_picture_drawn_again() -> None:
    batch, z, true = scene()
    shown = knowing(true, post_processing=False).show(batch)
    assert set(shown) == {"input", "disparity", "depth", "warped", "error", "mask"}
    assert all(value.shape[0] == 2 and value.shape[-2:] == (HEIGHT, WIDTH) for value in shown.values())
    torch.testing.assert_close(shown["depth"], z, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(shown["disparity"], true[:, :1] * WIDTH)
    assert float(shown["mask"].mean()) > 0.8
    assert float(((shown["warped"] - shown["input"]).abs() * shown["mask"]).mean()) < 0.02


def test_it_survives_pickling_and_a_restart() -> None:
    batch, _, _ = scene()
    method, other = small(), small()
    for p in method.parameters():
        p.data.add_(0.01)
    other.load_state_dict(method.state_dict())
    copy = pickle.loads(pickle.dumps(method))
    assert torch.equal(method.loss(batch)["loss"], other.loss(batch)["loss"])
    assert torch.equal(method.depth(batch), copy.depth(batch))


def test_cameras_and_settings_that_it_cannot_learn_from_are_refused() -> None:
    batch, _, _ = scene()
    swapped = dict(batch) | {"right_to_left": batch["right_to_left"].inverse()}
    with pytest.raises(InputError, match=r"second camera is \[-0\.4.*Swap the two"):
        small().depth(swapped)
    alone = {name: value for name, value in batch.items() if not name.startswith("right")}
    with pytest.raises(InputError, match="has no 'right'"):
        small().loss(alone)
    with pytest.raises(InputError, match="has no 'right_intrinsics'"):
        small().depth(alone)
    for wrong in ({"scales": 0}, {"max_disparity": 1.5}, {"first_disparity": 0.3}):
        with pytest.raises(InputError, match="scales must be at least 1, and 0 < first_disparity < max_disparity <= 1"):
            small(**wrong)
    with pytest.raises(InputError, match="multiples of 8"):
        small().disparity(torch.rand(1, 3, HEIGHT + 1, WIDTH))
