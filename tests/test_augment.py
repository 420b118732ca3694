"""Augmentations depend on the sample alone, keep labels with their voxels, and know left from right."""

import pytest
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from medssl import augment
from medssl.augment import Augmentation, bias_field, sampling_grid

MIRRORED = torch.tensor([0, 2, 1, 3])


def batch(spatial: tuple[int, ...], size: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(size, 1, *spatial, generator=generator)
    return image, torch.randint(0, 4, (size, *spatial), generator=generator).to(torch.uint8), torch.arange(size) + 11


@pytest.mark.parametrize("spatial", [(12, 14), (10, 12, 14)])
def test_a_sample_is_augmented_the_same_whatever_batch_it_is_in(spatial: tuple[int, ...]) -> None:
    image, label, seeds = batch(spatial)
    together = Augmentation(affine=1, intensity=1)(image, label, seeds, MIRRORED)
    for i in range(len(image)):
        alone = Augmentation(affine=1, intensity=1)(image[i : i + 1], label[i : i + 1], seeds[i : i + 1], MIRRORED)
        torch.testing.assert_close(alone[0][0], together[0][i])
        assert torch.equal(alone[1][0], together[1][i])


@pytest.mark.parametrize("spatial", [(12, 14), (10, 12, 14)])
def test_every_change_changes_something_and_stays_finite(spatial: tuple[int, ...]) -> None:
    image, label, seeds = batch(spatial)
    new_image, new_label = Augmentation(affine=1, intensity=1)(image, label, seeds, MIRRORED)
    assert new_image.shape == image.shape and new_label.dtype == label.dtype
    assert torch.isfinite(new_image).all()
    assert all(not torch.equal(new, old) for new, old in zip(new_image, image, strict=True))


def test_switched_off_it_changes_nothing() -> None:
    image, label, seeds = batch((8, 8, 8))
    new_image, new_label = Augmentation(affine=0, mirroring=0, intensity=0)(image, label, seeds, MIRRORED)
    torch.testing.assert_close(new_image, image)
    assert torch.equal(new_label, label)


def test_a_mirror_image_has_left_and_right_swapped() -> None:
    image = torch.tensor([[[[1.0], [2.0], [3.0]]]])
    label = torch.tensor([[[1], [0], [3]]])  # left structure at one end, an unpaired one at the other
    new_image, new_label = augment.mirror(image, label, MIRRORED, torch.tensor([True]))
    assert new_image.flatten().tolist() == [3, 2, 1]
    assert new_label.flatten().tolist() == [3, 0, 2]
    back = augment.mirror(new_image, new_label, MIRRORED, torch.tensor([True]))
    assert torch.equal(back[0], image) and torch.equal(back[1], label)


def test_the_label_moves_with_the_image() -> None:
    x = torch.zeros(1, 1, 24, 24, 24)
    x[..., 6:14, 8:18, 10:20] = 1
    grid = augment.affine_grid((24, 24, 24), 25, 0.2, augment.generators(torch.tensor([3])), 1.0, x)
    image, label = augment.resample(x, x[:, 0].to(torch.uint8), grid)
    assert not torch.equal(image, x)
    assert ((image[:, 0] > 0.5) == label.bool()).float().mean() > 0.99


def test_affine_without_rotation_scales_about_the_centre() -> None:
    draw = augment.generators(torch.tensor([5]))
    grid = augment.affine_grid((9, 9), 0, 0.5, draw, 1.0, torch.zeros(1))
    assert torch.allclose(grid[0, 4, 4], torch.zeros(2), atol=1e-6)
    assert torch.allclose(grid + grid.flip(1, 2), torch.zeros_like(grid), atol=1e-6)


def test_rotations_are_rigid_in_voxels_of_a_box() -> None:
    size = (8, 16, 32)
    grid = augment.affine_grid(size, 30, 0.0, augment.generators(torch.tensor([1])), 1.0, torch.zeros(1))[0]
    voxels = (grid.flip(-1) + 1) * torch.tensor(size) / 2
    for axis in range(3):
        steps = voxels.diff(dim=axis).norm(dim=-1)
        assert torch.allclose(steps, torch.ones_like(steps), atol=1e-4)


def test_gamma_of_one_and_bias_of_zero_change_nothing_and_gamma_keeps_the_range() -> None:
    image, _, seeds = batch((6, 7, 8))
    torch.testing.assert_close(augment.gamma(image, torch.ones(3)), image)
    torch.testing.assert_close(augment.bias_field(image, torch.zeros(3), augment.generators(seeds)), image)
    darker = augment.gamma(image, torch.full((3,), 2.0))
    torch.testing.assert_close(darker.amin((1, 2, 3, 4)), image.amin((1, 2, 3, 4)))
    torch.testing.assert_close(darker.amax((1, 2, 3, 4)), image.amax((1, 2, 3, 4)))


def test_blur_lowers_the_variance_of_the_samples_it_is_for_only() -> None:
    image, _, _ = batch((16, 16))
    blurred = augment.blur(image, torch.tensor([1.0, 2.0, 1.0]))
    assert torch.equal(blurred[0], image[0]) and torch.equal(blurred[2], image[2])
    assert blurred[1].var() < 0.5 * image[1].var()


def test_noise_has_the_asked_standard_deviation() -> None:
    image = torch.zeros(2, 1, 32, 32, 32)
    noisy = augment.noise(image, torch.tensor([0.0, 0.2]), augment.generators(torch.tensor([1, 2])))
    assert noisy[0].abs().max() == 0
    assert float(noisy[1].std()) == pytest.approx(0.2, rel=0.02)


def test_autocast_does_not_move_voxels() -> None:
    image = torch.rand(2, 1, 24, 20, 28, generator=torch.Generator().manual_seed(0))
    label = (image[:, 0] * 4).long()
    seeds, augment = torch.tensor([1, 2]), Augmentation(affine=1)
    expected = augment(image, label, seeds, None)
    with torch.autocast("cpu", torch.bfloat16):
        found = augment(image, label, seeds, None)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


@pytest.mark.parametrize("size", [(5, 4), (3, 4, 6)])
def test_the_sampling_grid_is_torchs(size: tuple[int, ...]) -> None:
    dims = len(size)
    theta = torch.randn(2, dims, dims + 1, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(sampling_grid(theta, size), F.affine_grid(theta, [2, 1, *size], align_corners=False))


@pytest.mark.parametrize("size", [(9, 5), (7, 6, 5)])
def test_the_bias_field_is_interpolated_linearly_between_its_control_points(size: tuple[int, ...]) -> None:
    dims = len(size)
    field = bias_field(torch.ones(1, 1, *size), torch.ones(1), [Generator().manual_seed(3)]).log()
    coarse = torch.randn([1] + [4] * dims, generator=Generator().manual_seed(3))[None]
    mode = "trilinear" if dims == 3 else "bilinear"
    torch.testing.assert_close(field, F.interpolate(coarse, size, mode=mode, align_corners=True))
