"""Controls take out what they say, shams change as much and leave it in."""

import numpy as np
import pytest
import torch
from torch import Tensor

from medssl.augment import generators
from medssl.evaluation.controls import (
    BORDER_SHARE,
    CONTROLS,
    GREY_LEVELS,
    Control,
    border_blanked,
    coarser,
    colourless,
    cut_off,
    depth,
    evened,
    exchanged,
    fewer_levels,
    field_doubled,
    field_removed,
    mirrored,
    moved,
    ring_blanked,
    smooth_field,
)


def images(dims: int = 2, count: int = 3, channels: int = 1, side: int = 24) -> Tensor:
    return 0.5 + torch.rand(count, channels, *[side] * dims, generator=torch.Generator().manual_seed(dims))


def draw() -> list[torch.Generator]:
    return generators(torch.tensor([3, 4, 5]))


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.name)
@pytest.mark.parametrize("dims", [2, 3])
def test_every_control_and_sham_is_a_pure_function_of_images_and_generators(control: Control, dims: int) -> None:
    one = images(dims, channels=3)
    before = one.clone()
    for change in (control.remove, control.sham):
        first, second = change(one, draw()), change(one, draw())
        assert first.shape == one.shape and first.isfinite().all() and torch.equal(first, second)
        assert not torch.equal(first, one)
        assert change(torch.zeros_like(one), draw()).isfinite().all()
    assert torch.equal(one, before)


# All but the one that brings the images of a batch to one mean.
@pytest.mark.parametrize("control", [c for c in CONTROLS if c.name != "intensity"], ids=lambda control: control.name)
def test_an_image_is_changed_alike_whatever_batch_it_is_in(control: Control) -> None:
    one = images(channels=3)
    alone = control.remove(one[1:2], draw()[1:2])
    torch.testing.assert_close(alone, control.remove(one, draw())[1:2])


@pytest.mark.parametrize("dims", [2, 3])
def test_border_and_ring_are_about_as_large_and_do_not_touch_each_other(dims: int) -> None:
    one = images(dims, side=48)
    border, ring = (change(one) != one for change in (border_blanked, ring_blanked))
    assert not (border & ring).any()
    for blanked in (border, ring):
        assert abs(float(blanked.float().mean()) - BORDER_SHARE) < 0.08
    outermost = depth(one.shape[2:], one) < 1 / 48
    assert border[:, :, outermost].all() and not ring[:, :, outermost].any()


def test_a_blanked_border_holds_the_mean_of_the_rest() -> None:
    one = images()
    one[:, :, 0, 0] = 100.0  # a marker
    blanked = border_blanked(one)
    torch.testing.assert_close(blanked[:, :, 0, 0], one[:, :, 2:-2, 2:-2].mean((2, 3)))


def test_depth_counts_from_the_nearest_side() -> None:
    expected = np.minimum.outer([1 / 8, 3 / 8, 3 / 8, 1 / 8], [1 / 6, 1 / 2, 1 / 6])
    np.testing.assert_allclose(depth((4, 3), torch.empty(0)).numpy(), expected, rtol=1e-6)


def test_evened_images_share_mean_and_contrast() -> None:
    one = images() * torch.tensor([1.0, 2.0, 5.0]).view(3, 1, 1, 1) + torch.tensor([0.0, 3.0, 1.0]).view(3, 1, 1, 1)
    even = evened(one)
    mean, std = even.mean((2, 3)), even.std((2, 3), correction=0)
    torch.testing.assert_close(mean, mean.mean().expand_as(mean))
    torch.testing.assert_close(std, std.mean().expand_as(std))
    torch.testing.assert_close(mean[0, 0], one.mean())


@pytest.mark.parametrize("dims", [2, 3])
def test_a_field_that_was_laid_over_images_is_found_removed_and_doubled(dims: int) -> None:
    flat = 1 + 0.05 * torch.randn(2, 1, *[16] * dims, generator=torch.Generator().manual_seed(0))
    x = torch.linspace(-1, 1, 16).view(-1, *[1] * (dims - 1))
    laid = (0.5 * x - 0.2 * x**2).exp()
    field = smooth_field(flat * laid)
    torch.testing.assert_close(field / field.mean(), (laid / laid.mean()).expand_as(field), rtol=0.05, atol=0)

    def slope(image: Tensor) -> float:
        return float((image.log() * x).mean() / (x * x).mean())

    whole, removed, doubled = (slope(f(flat * laid)) for f in (lambda i: i, field_removed, field_doubled))
    assert abs(removed) < 0.02 and doubled == pytest.approx(2 * whole, rel=0.05)


def test_the_background_does_not_decide_the_field() -> None:
    head = torch.zeros(1, 1, 32, 32)
    head[:, :, 8:24, 4:20] = 1.0
    torch.testing.assert_close(smooth_field(head)[head > 0], torch.ones(256), rtol=1e-3, atol=1e-3)
    assert (field_removed(head)[head == 0] == 0).all()


def test_a_mirrored_sham_is_as_strong_and_opposite() -> None:
    one = images()
    torch.testing.assert_close(mirrored(coarser)(one) - one, one - coarser(one))


def test_coarser_images_lose_their_finest_stripes_and_keep_wide_ones() -> None:
    at = torch.arange(24)
    fine, wide = (at % 2).float(), (at // 6 % 2).float()
    left = [float(coarser(s.view(1, 1, -1, 1).expand(1, 1, 24, 24)).std() / s.std()) for s in (fine, wide)]
    assert left[0] < 0.6 and left[1] > 0.85


def test_colourless_images_have_equal_channels() -> None:
    grey = colourless(images(channels=3))
    assert torch.equal(grey[:, 0], grey[:, 1]) and torch.equal(grey[:, 1], grey[:, 2])


def test_few_levels_stay_between_darkest_and_brightest() -> None:
    one = images()
    rounded = fewer_levels(one)
    assert all(len(image.unique()) <= GREY_LEVELS for image in rounded)
    step = (one.amax((2, 3)) - one.amin((2, 3))) / (GREY_LEVELS - 1)
    assert ((rounded - one).abs().amax((2, 3)) <= step / 2 + 1e-6).all()


def test_moved_and_cut_off_images_hold_the_same_voxels_at_other_and_at_their_own_places() -> None:
    one = images(side=12)
    elsewhere, here = moved(one, draw()), cut_off(one, draw())
    for image, there, stayed in zip(one, elsewhere, here, strict=True):
        kept = stayed == image
        assert int(kept.sum()) == 10 * 10
        torch.testing.assert_close(there[there != image.mean()].sort().values, image[kept].sort().values)
        assert not (there == image)[kept].any()


def test_exchanged_images_are_the_same_ones() -> None:
    one = torch.arange(20.0).view(20, 1, 1, 1)
    other = exchanged(one, generators(torch.arange(20)))
    assert sorted(other.flatten().tolist()) == list(range(20)) and int((one == other).sum()) < 5
