"""What Models Genesis promises of its distortions."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from medssl.augment import generators
from medssl.errors import InputError
from medssl.methods.models_genesis import (
    ModelsGenesis,
    bend,
    bezier,
    boxes,
    cut,
    interval_lengths,
    paint,
    shuffle,
    through,
)
from medssl.networks.unet import UNetEncoder

DIMS = pytest.mark.parametrize("dims", [2, 3])


def images(batch: int, *size: int, channels: int = 1) -> Tensor:
    return torch.rand(batch, channels, *size, generator=torch.Generator().manual_seed(0))


def seeds(batch: int, first: int = 1) -> Tensor:
    return torch.arange(first, first + batch)


def small(dims: int, **arguments: float) -> ModelsGenesis:
    torch.manual_seed(0)
    return ModelsGenesis(UNetEncoder(1, dims, (4, 8)), **arguments)


def test_a_curve_whose_control_points_are_on_the_diagonal_is_the_identity() -> None:
    third = torch.tensor([[[1 / 3, 1 / 3], [2 / 3, 2 / 3]]])
    torch.testing.assert_close(bezier(third)[0], torch.linspace(0, 1, 1024), atol=1e-5, rtol=0)


def test_curves_agree_with_interpolation_between_many_points_and_rise() -> None:
    control = torch.rand(20, 2, 2, generator=torch.Generator().manual_seed(1))
    table = bezier(control)
    t = torch.linspace(0, 1, 20_001, dtype=torch.float64)
    for (p1, p2), found in zip(control.double(), table, strict=True):
        x, y = (3 * (1 - t) ** 2 * t * a + 3 * (1 - t) * t**2 * b + t**3 for a, b in zip(p1, p2, strict=True))
        nearest = torch.searchsorted(x, torch.linspace(0, 1, 1024, dtype=torch.float64)).clamp(max=20_000)
        assert (found - y[nearest]).abs().max() < 2e-3
    assert (table.diff(dim=1) >= -1e-6).all()
    torch.testing.assert_close(table[:, [0, -1]], torch.tensor([0.0, 1.0]).expand(20, 2), atol=1e-5, rtol=0)


@DIMS
def test_grey_values_keep_their_range_and_their_order_or_reverse_it(dims: int) -> None:
    image = 3 * images(4, *[9] * dims, channels=2) - 1
    for share in (0.0, 1.0):
        bent = bend(image, generators(seeds(4)), probability=1, inverted=share)
        torch.testing.assert_close(bent.flatten(2).amin(2), image.flatten(2).amin(2))
        torch.testing.assert_close(bent.flatten(2).amax(2), image.flatten(2).amax(2))
        order = image.flatten(2).argsort(2)
        steps = bent.flatten(2).gather(2, order).diff(dim=2)
        assert (steps <= 1e-5).all() if share else (steps >= -1e-5).all()


def test_a_table_is_read_linearly_between_its_nodes() -> None:
    image = torch.tensor([0.0, 0.25, 0.5, 1.0]).view(1, 1, 2, 2)
    found = through(image, torch.tensor([[0.0, 1.0, 0.0]]))
    torch.testing.assert_close(found.flatten(), torch.tensor([0.0, 0.5, 1.0, 0.0]))


def window_numbers(size: Sequence[int], first: int, batch: int) -> Tensor:
    """Cut as ``shuffle`` does with the same seeds; (batch, *size)."""
    draw = generators(seeds(batch, first))
    [torch.rand((), generator=g) for g in draw]  # the one that decides whether
    return cut(size, [interval_lengths(n, 0.1) for n in size], draw, torch.device("cpu"))[0]


@DIMS
def test_windows_are_boxes_of_at_most_the_given_share_that_cover_each_voxel_once(dims: int) -> None:
    size = (40, 30, 20)[:dims]
    draw = generators(seeds(2))
    number, _, count = cut(size, [interval_lengths(n, 0.1) for n in size], draw, torch.device("cpu"))
    for i in range(2):
        assert torch.equal(number[i].unique(), torch.arange(count[i]))
        for window in range(0, count[i], 37):
            places = torch.nonzero(number[i] == window)
            sides = places.amax(0) - places.amin(0) + 1
            assert int(sides.prod()) == len(places)
            assert all(int(side) <= n // 10 for side, n in zip(sides, size, strict=True))


def test_a_long_axis_is_cut_into_few_lengths_so_that_few_permutations_are_drawn() -> None:
    assert interval_lengths(96, 0.1).tolist() == list(range(1, 10))
    assert interval_lengths(512, 0.1).tolist() == [1, 7, 14, 20, 26, 32, 38, 45, 51]
    assert interval_lengths(16, 0.1).tolist() == [1]


@DIMS
def test_shuffling_permutes_voxels_inside_their_windows_alike_in_all_channels(dims: int) -> None:
    size = (43, 32, 25)[:dims]
    voxels = torch.arange(math.prod(size)).view(1, 1, *size).float()
    image = torch.cat([voxels, 2 * voxels], dim=1).expand(3, -1, *[-1] * dims)
    shuffled = shuffle(image, generators(seeds(3)), probability=1)
    for number, after in zip(window_numbers(size, 1, 3), shuffled, strict=True):
        source = after[0].flatten().long()
        assert torch.equal(source.sort().values, torch.arange(len(source)))
        assert torch.equal(number.flatten()[source], number.flatten())
        assert torch.equal(after[1], 2 * after[0])
        assert 0.3 < (source != torch.arange(len(source))).float().mean() < 0.8


def test_every_order_of_a_window_is_as_likely() -> None:
    image, found = torch.arange(900.0).view(1, 1, 30, 30), torch.zeros(6)
    for seed in range(400):
        number = window_numbers((30, 30), seed, 1).flatten()
        shuffled = shuffle(image, generators(torch.tensor([seed])), probability=1, covered=1).flatten()
        three = torch.nonzero(number.bincount() == 3).flatten()[:1]
        places = torch.nonzero(number == three).flatten()
        order = (shuffled[places].argsort() * torch.tensor([9, 3, 1])).sum()
        found[[5, 7, 11, 15, 19, 21].index(int(order))] += 1
    assert ((found - 400 / 6).abs() < 4 * (400 / 6) ** 0.5).all()


def test_windows_of_different_shapes_or_samples_are_shuffled_differently() -> None:
    image = torch.arange(1600.0).view(1, 1, 40, 40).expand(2, -1, -1, -1)
    one, two = shuffle(image, generators(seeds(2)), probability=1, covered=1)
    assert (one != two).float().mean() > 0.5


def test_the_share_of_windows_that_are_left_alone_is_kept() -> None:
    image = images(1, 100, 100)
    moved = [
        float((shuffle(image, generators(torch.tensor([1])), 1, covered=c) != image).float().mean())
        for c in (0, 0.5, 1)
    ]
    assert moved[0] == 0
    assert moved[1] == pytest.approx(moved[2] / 2, rel=0.3)


@DIMS
def test_boxes_have_the_asked_sides_and_several_cover_more(dims: int) -> None:
    size = (24, 18, 12)[:dims]
    one = boxes(size, torch.tensor([[0.25, 0.5]] * 5), generators(seeds(5)), most=1)
    assert one.shape == (5, *size)
    for mask in one:
        places = torch.nonzero(mask)
        sides = places.amax(0) - places.amin(0) + 1
        assert int(sides.prod()) == len(places)
        assert all(n // 4 <= int(side) <= n // 2 for side, n in zip(sides, size, strict=True))
    several = boxes(size, torch.tensor([[0.25, 0.5]] * 5), generators(seeds(5)))
    assert (several.flatten(1).sum(1) > one.flatten(1).sum(1)).any()


@DIMS
def test_painting_replaces_boxes_or_all_outside_of_them_by_noise_of_the_image_s_range(dims: int) -> None:
    image = images(6, *[24] * dims) + 5
    inner, outer = (paint(image, generators(seeds(6)), 1, share) for share in (0.0, 1.0))
    assert ((inner != image).flatten(1).float().mean(1) <= 5 * 3.0**-dims).all()
    assert ((outer == image).flatten(1).float().mean(1) >= 0.9 * (10 / 24) ** dims).all()
    assert all(5 <= float(x) <= 6 for painted in (inner, outer) for x in painted.aminmax())


@DIMS
def test_a_sample_is_distorted_alike_in_any_batch(dims: int) -> None:
    method, image = small(dims), images(4, *[24] * dims)
    together = method.distort(image, seeds(4))
    for i in range(4):
        torch.testing.assert_close(method.distort(image[i : i + 1], seeds(1, i + 1)), together[i : i + 1])


def test_a_scan_is_shuffled_and_bent_before_noise_is_painted_over_it() -> None:
    image, always = images(2, 40, 40), {"nonlinear": 1.0, "shuffling": 1.0, "painting": 1.0}
    draw = generators(seeds(2))
    expected = paint(bend(shuffle(image, draw, 1.0), draw, 1.0), draw, 1.0)
    assert torch.equal(small(2, **always).distort(image, seeds(2)), expected)


def test_each_distortion_happens_as_often_as_in_the_paper() -> None:
    count = 500
    image = torch.arange(900.0).view(1, 1, 30, 30).expand(count, -1, -1, -1)

    def distorted(**off: float) -> Tensor:
        return small(2, **off).distort(image, seeds(count))

    def share(of: Tensor) -> float:
        return float(of.float().mean())

    bent = distorted(shuffling=0, painting=0)
    falling = bent[:, 0, 0, 0] > bent[:, 0, -1, -1]
    changed = (bent != image).flatten(1).any(1)
    assert share(changed) == pytest.approx(0.9, abs=0.05)
    assert share(falling[changed]) == pytest.approx(0.5, abs=0.08)
    shuffled = (distorted(nonlinear=0, painting=0) != image).flatten(1).any(1)
    assert share(shuffled) == pytest.approx(0.5, abs=0.08)
    painted = (distorted(nonlinear=0, shuffling=0) != image).flatten(1).float().mean(1)
    assert share(painted > 0) == pytest.approx(0.9, abs=0.05)
    outside = small(2, nonlinear=0, shuffling=0, painting=1, outer=1).distort(image, seeds(count))
    corner = (outside != image)[:, 0, 0, 0]  # painted unless a box that is left covers it
    at_corner = (distorted(nonlinear=0, shuffling=0, painting=1) != image)[:, 0, 0, 0]
    assert share(at_corner) / share(corner) == pytest.approx(0.8, abs=0.08)


def test_probabilities_of_zero_leave_the_image_alone() -> None:
    image = images(3, 24, 24)
    assert torch.equal(small(2, nonlinear=0, shuffling=0, painting=0).distort(image, seeds(3)), image)


def test_the_loss_is_the_mean_squared_error_against_the_scan() -> None:
    method, image = small(2), images(2, 24, 24)
    pictures = method.show({"image": image, "seed": seeds(2)})
    expected = (pictures["prediction"] - image).square().mean()
    torch.testing.assert_close(method.loss({"image": image, "seed": seeds(2)})["loss"], expected)


def test_what_the_decoder_sees_of_the_image_is_the_distorted_copy() -> None:
    method, image = small(2), images(1, 24, 24)
    seen = []
    method.decoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    method.loss({"image": image, "seed": seeds(1)})
    assert torch.equal(seen[0], method.distort(image, seeds(1)))


def test_patches_too_small_to_shuffle_are_refused() -> None:
    with pytest.raises(InputError, match=r"patch of \(16, 16\).*side of 20"):
        small(2).check(10, 1, (16, 16))
    small(2, shuffling=0).check(10, 1, (16, 16))
    small(2).check(10, 1, (32, 32))
