"""The losses are those of their formulas, ignore what they promise to, and take no more memory than they must."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from medssl.errors import InputError
from medssl.photometric import (
    census_error,
    census_transform,
    charbonnier,
    edge_aware_smoothness,
    masked_mean,
    match_brightness,
    mean_normalised,
    photometric_error,
    ssim,
)

F64 = torch.float64


def random_image(channels: int = 3, size: tuple[int, int] = (8, 9), seed: int = 0, batch: int = 2) -> Tensor:
    return torch.rand(batch, channels, *size, generator=torch.Generator().manual_seed(seed), dtype=F64)


def mirrored(i: int, size: int) -> int:
    return -i if i < 0 else 2 * (size - 1) - i if i >= size else i


def naive_ssim(a: Tensor, b: Tensor, window: int) -> Tensor:
    """Wang et al.'s equation 13, pixel by pixel; a and b are (H, W)."""
    height, width = a.shape
    found = torch.zeros_like(a)
    reach = range(-(window // 2), window // 2 + 1)
    for i in range(height):
        for j in range(width):
            at = [(mirrored(i + di, height), mirrored(j + dj, width)) for di in reach for dj in reach]
            x, y = torch.stack([a[p] for p in at]), torch.stack([b[p] for p in at])
            covariance = ((x - x.mean()) * (y - y.mean())).mean()
            top = (2 * x.mean() * y.mean() + 0.01**2) * (2 * covariance + 0.03**2)
            variances = x.var(correction=0) + y.var(correction=0)
            found[i, j] = top / ((x.mean() ** 2 + y.mean() ** 2 + 0.01**2) * (variances + 0.03**2))
    return found


@pytest.mark.parametrize("window", [3, 5])
def test_ssim_is_that_of_a_naive_loop(window: int) -> None:
    a, b = random_image(1, batch=1), random_image(1, seed=1, batch=1)
    torch.testing.assert_close(ssim(a, b, window)[0, 0], naive_ssim(a[0, 0], b[0, 0], window))


def test_an_image_is_wholly_similar_to_itself() -> None:
    image = random_image().float()
    torch.testing.assert_close(ssim(image, image), torch.ones_like(image))
    assert float(photometric_error(image, image).abs().max()) < 1e-6


def test_the_photometric_error_is_the_papers_mixture() -> None:
    a, b = random_image(), random_image(seed=1)
    expected = (0.85 * (1 - ssim(a, b)) / 2 + 0.15 * (a - b).abs()).mean(1, keepdim=True)
    torch.testing.assert_close(photometric_error(a, b), expected)
    torch.testing.assert_close(photometric_error(a, b, ssim_weight=0), (a - b).abs().mean(1, keepdim=True))


def test_the_photometric_error_grows_with_the_shift() -> None:
    x = torch.linspace(0, 6, 64, dtype=F64).expand(1, 1, 8, 64)
    errors = [float(photometric_error(x.sin() / 2 + 0.5, (x + 0.1 * i).sin() / 2 + 0.5).mean()) for i in range(4)]
    assert errors[0] < 1e-12 and errors == sorted(errors) and errors[1] > 0.01


def test_charbonnier_is_nearly_the_absolute_value_and_has_a_gradient_at_zero() -> None:
    x = torch.tensor([-2.0, 0.0, 3.0], dtype=F64, requires_grad=True)
    torch.testing.assert_close(charbonnier(x), torch.tensor([2.0, 1e-3, 3.0], dtype=F64), atol=1e-6, rtol=0)
    torch.testing.assert_close(charbonnier(x, 0.1, 0.45), (x**2 + 0.01) ** 0.45)
    charbonnier(x).sum().backward()
    assert x.grad is not None and x.grad.tolist() == pytest.approx([-1, 0, 1], abs=1e-6)


def naive_census(grey: Tensor, window: int) -> Tensor:
    """(H, W) of 0 to 255, to (window^2 - 1, H, W)."""
    height, width = grey.shape
    reach = range(-(window // 2), window // 2 + 1)
    planes = []
    for di in reach:
        for dj in reach:
            if di or dj:
                plane = torch.zeros_like(grey)
                for i in range(height):
                    for j in range(width):
                        D = grey[min(max(i + di, 0), height - 1), min(max(j + dj, 0), width - 1)] - grey[i, j]
                        plane[i, j] = D / math.sqrt(0.81 + float(D) ** 2)
                planes.append(plane)
    return torch.stack(planes)


@pytest.mark.parametrize("window", [3, 7])
def test_the_census_is_that_of_a_naive_loop(window: int) -> None:
    a, b = (0.02 * random_image(1, (4, 5), seed, batch=1) for seed in (0, 1))
    census_a, census_b = (naive_census(255 * image[0, 0], window) for image in (a, b))
    torch.testing.assert_close(census_transform(a, window)[0], census_a)
    d2 = (census_a - census_b).square()
    torch.testing.assert_close(census_error(a, b, window)[0, 0], (d2 / (0.1 + d2)).sum(0))


def test_the_census_of_colours_is_that_of_their_luma() -> None:
    image = random_image()
    grey = 0.299 * image[:, :1] + 0.587 * image[:, 1:2] + 0.114 * image[:, 2:]
    torch.testing.assert_close(census_transform(image), census_transform(grey))
    torch.testing.assert_close(census_error(image, 1 - image), census_error(grey, 1 - grey))


def test_the_census_ignores_offset_exactly_and_gain_and_gamma_nearly() -> None:
    image, other = random_image(1), random_image(1, seed=1)
    far = float(census_error(image, other).mean())
    assert far > 15  # of 48 neighbours
    assert float(census_error(image, 0.3 + image).max()) < 1e-9
    for changed in (0.5 * image, 0.5 * image + 0.2, image**2, image.sqrt()):
        assert float(census_error(image, changed).mean()) < 0.05 * far
        assert float((image - changed).abs().mean()) > 0.1


def test_the_census_keeps_neither_transform_for_its_gradient() -> None:
    a, b = (random_image(1, (16, 16), seed).requires_grad_() for seed in (0, 1))
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        error = census_error(a, b)
    assert sum(kept.values()) < 6 * a.nbytes  # both padded images are 3.8
    (grad,) = torch.autograd.grad(error.sum(), a)
    d2 = (census_transform(a) - census_transform(b)).square()
    (expected,) = torch.autograd.grad((d2 / (0.1 + d2)).sum(), a)
    torch.testing.assert_close(grad, expected)


def naive_smoothness(field: Tensor, image: Tensor, order: int, weight: float) -> float:
    """Both are (K or C, H, W)."""
    total = 0.0
    for f, i in ((field, image), (field.mT, image.mT)):
        terms = []
        for x in range(f.shape[-1] - order):
            derivative = f[..., x + 1] - f[..., x] if order == 1 else f[..., x + 2] - 2 * f[..., x + 1] + f[..., x]
            edge = (i[..., x + order] - i[..., x]).abs().mean(0)
            terms.append(derivative.abs() * torch.exp(-weight * edge))
        total += float(torch.stack(terms).mean())
    return total


@pytest.mark.parametrize("order", [1, 2])
def test_smoothness_is_that_of_a_naive_loop(order: int) -> None:
    field, image = random_image(2, batch=1), random_image(3, seed=1, batch=1)
    found = edge_aware_smoothness(field, image, order=order, edge_weight=7)  # type: ignore[arg-type]
    assert float(found) == pytest.approx(naive_smoothness(field[0], image[0], order, 7))


def test_a_constant_is_smooth_and_so_is_a_tilted_plane_to_second_order() -> None:
    image = random_image()
    plane = torch.arange(9, dtype=F64) + 2 * torch.arange(8, dtype=F64)[:, None] + torch.zeros(2, 1, 8, 9, dtype=F64)
    assert float(edge_aware_smoothness(torch.ones_like(plane), image)) == 0
    assert float(edge_aware_smoothness(plane, image, order=2)) == pytest.approx(0, abs=1e-12)
    assert float(edge_aware_smoothness(plane, image, edge_weight=0)) == pytest.approx(3)


def test_a_step_costs_less_where_the_image_has_one() -> None:
    step = (torch.arange(9) > 4).to(F64).expand(1, 1, 8, 9)
    assert float(edge_aware_smoothness(step, step)) == pytest.approx(math.exp(-1) / 8)
    assert float(edge_aware_smoothness(step, torch.zeros_like(step))) == pytest.approx(1 / 8)


def test_a_normalised_disparity_forgets_its_scale() -> None:
    disparity = 0.1 + random_image(1)
    torch.testing.assert_close(mean_normalised(3 * disparity), mean_normalised(disparity), atol=1e-5, rtol=0)
    torch.testing.assert_close(mean_normalised(disparity).mean((2, 3)), torch.ones(2, 1, dtype=F64), atol=1e-5, rtol=0)


def test_gain_and_offset_of_the_light_are_undone_per_image() -> None:
    target = random_image()
    gain, offset = torch.tensor([0.5, 2.0], dtype=F64), torch.tensor([0.1, -0.3], dtype=F64)
    source = target * gain.view(2, 1, 1, 1) + offset.view(2, 1, 1, 1)
    valid = torch.ones(2, 1, 8, 9, dtype=torch.bool)
    valid[..., :2, :] = False
    spoiled = source.clone()
    spoiled[..., :2, :] = math.nan
    torch.testing.assert_close(match_brightness(source, target, valid), target)
    torch.testing.assert_close(match_brightness(spoiled, target, valid)[..., 2:, :], target[..., 2:, :])


def test_gain_and_offset_are_those_of_least_squares() -> None:
    source, target = random_image(batch=1), random_image(batch=1)
    target = target + 0.3 * random_image(seed=1, batch=1)
    valid = random_image(1, seed=2, batch=1) > 0.4
    x, y = (image[valid.expand_as(image)] for image in (source, target))
    solution = torch.linalg.lstsq(torch.stack([x, torch.ones_like(x)], dim=1), y[:, None]).solution.flatten()
    torch.testing.assert_close(match_brightness(source, target, valid), source * solution[0] + solution[1])


def test_brightness_that_cannot_be_matched_leaves_a_finite_image() -> None:
    image, every = random_image(), torch.ones(2, 1, 8, 9, dtype=torch.bool)
    flat = torch.full_like(image, 0.2).requires_grad_()
    torch.testing.assert_close(match_brightness(image, image, ~every), image)  # no valid pixel
    moved = match_brightness(flat, image, every)
    torch.testing.assert_close(moved[0], torch.full_like(image[0], float(image[0].mean())))
    moved.sum().backward()
    assert flat.grad is not None and flat.grad.isfinite().all()
    negative = match_brightness(1 - image, image, every)  # no light turns an image into its negative
    torch.testing.assert_close(negative[1], torch.full_like(image[1], float(image[1].mean())))


def test_a_masked_mean_counts_what_the_mask_holds() -> None:
    values = torch.tensor([[1.0, 2.0], [3.0, math.nan]]).view(1, 1, 2, 2).expand(1, 2, 2, 2).clone().requires_grad_()
    mask = torch.tensor([[True, False], [True, False]]).view(1, 1, 2, 2)
    mean = masked_mean(values, mask)
    assert float(mean.detach()) == 2
    mean.backward()
    assert values.grad is not None and values.grad[0, 0].tolist() == [[0.25, 0], [0.25, 0]]
    values = values.detach()
    assert float(masked_mean(values, torch.tensor([0.3, 0.0]))) == pytest.approx(2)
    assert float(masked_mean(values, ~mask & mask)) == 0


def test_gradients_are_those_of_finite_differences() -> None:
    a, b = (random_image(3, (4, 5), seed, batch=1).requires_grad_() for seed in (0, 1))
    valid = random_image(1, (4, 5), seed=2, batch=1) > 0.3
    checked: list[Callable[[Tensor, Tensor], Tensor]] = [
        ssim,
        photometric_error,
        lambda a, b: census_error(0.02 * a, 0.02 * b, 3),
        lambda a, b: edge_aware_smoothness(a, b, order=2),
        lambda a, b: match_brightness(a, a * b + a, valid),
        lambda a, b: masked_mean(mean_normalised(a) * charbonnier(b), valid),
    ]
    for function in checked:
        assert torch.autograd.gradcheck(function, (a, b))


@pytest.mark.parametrize(
    "function",
    [ssim, photometric_error, census_error, edge_aware_smoothness, lambda a, b: match_brightness(a, b, a[:, :1] > 0)],
)
def test_mixed_precision_changes_nothing_but_the_inputs_own_digits(
    function: Callable[[Tensor, Tensor], Tensor],
) -> None:
    a, b = random_image().float(), random_image(seed=1).float()
    exact = function(a, b)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(function(a, b), exact)
        assert function(a.bfloat16(), b.bfloat16()).dtype == torch.float32


def test_windows_without_a_middle_and_images_without_a_grey_are_refused() -> None:
    image = random_image()
    for window in (1, 4):
        with pytest.raises(InputError, match=f"odd side of at least 3 pixels.*got {window}"):
            ssim(image, image, window)
        with pytest.raises(InputError, match=f"got {window}"):
            census_transform(image, window)
    with pytest.raises(InputError, match="1 or 3 channels; got 2"):
        census_error(image[:, :2], image[:, :2])
