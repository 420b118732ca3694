"""What colorization promises of its colours, classes and weights."""

import math
from pathlib import Path

import pytest
import torch
from processes import in_processes
from torch import Tensor

from medssl.color import colour_auc
from medssl.errors import InputError
from medssl.methods.colorization import (
    Colorization,
    Gamut,
    Task,
    annealed_mean,
    lab_to_rgb,
    rebalancing,
    rgb_to_lab,
    soft_encoding,
    srgb_gamut,
)
from medssl.networks.unet import UNetEncoder
from medssl.sample import Batch

DIMS = pytest.mark.parametrize("dims", [2, 3])
# Published values of the primaries under D65, as of http://www.brucelindbloom.com.
LAB = {
    (1.0, 0.0, 0.0): (53.24, 80.09, 67.20),
    (0.0, 1.0, 0.0): (87.73, -86.18, 83.18),
    (0.0, 0.0, 1.0): (32.30, 79.19, -107.86),
    (1.0, 1.0, 1.0): (100.0, 0.0, 0.0),
    (0.0, 0.0, 0.0): (0.0, 0.0, 0.0),
}


def batch(dims: int, channels: int = 3) -> Batch:
    image = torch.rand(2, channels, *[8] * dims, generator=torch.Generator().manual_seed(0))
    return {"image": image, "seed": torch.tensor([1, 2])}


def small(dims: int, task: Task = "classes", gamut: Gamut = "data", in_channels: int = 3) -> Colorization:
    torch.manual_seed(0)
    return Colorization(UNetEncoder(in_channels, dims, (4, 8)), task, gamut)


@pytest.mark.parametrize(("rgb", "lab"), LAB.items())
def test_primaries_have_their_published_lab_values(rgb: tuple[float, ...], lab: tuple[float, ...]) -> None:
    found = rgb_to_lab(torch.tensor(rgb).view(1, 3, 1))[0, :, 0]
    torch.testing.assert_close(found, torch.tensor(lab), atol=0.01, rtol=0)


@DIMS
def test_lab_and_back_is_the_identity(dims: int) -> None:
    image = batch(dims)["image"]
    torch.testing.assert_close(lab_to_rgb(rgb_to_lab(image)), image, atol=1e-4, rtol=0)
    dark = image / 50  # where both curves are lines
    torch.testing.assert_close(lab_to_rgb(rgb_to_lab(dark)), dark, atol=1e-4, rtol=0)


def test_grey_has_no_colour_and_colours_outside_of_srgb_are_clipped() -> None:
    grey = torch.linspace(0, 1, 11).view(1, 1, 11).expand(1, 3, 11)
    torch.testing.assert_close(rgb_to_lab(grey)[:, 1:], torch.zeros(1, 2, 11), atol=0.01, rtol=0)
    impossible = lab_to_rgb(torch.tensor([50.0, 100.0, -100.0]).view(1, 3, 1))
    assert impossible.min() >= 0 and impossible.max() <= 1


def test_lab_is_exact_under_autocast() -> None:
    image = batch(2)["image"]
    with torch.autocast("cpu", torch.bfloat16):
        rounded = rgb_to_lab(image)
    assert torch.equal(rounded, rgb_to_lab(image))


def test_the_gamut_of_srgb_has_261_classes_of_side_10_and_holds_all_its_colours() -> None:
    centres = srgb_gamut(10)
    assert centres.shape == (261, 2)
    ab = rgb_to_lab(torch.rand(1, 3, 5000, generator=torch.Generator().manual_seed(1)))[:, 1:]
    index, _ = soft_encoding(ab, centres, 1, 5)
    distance = (ab[0].T - centres[index[0, 0]]).abs()
    assert (distance <= 5).float().mean() > 0.999


def test_soft_encoding_agrees_with_a_loop_over_the_classes() -> None:
    centres = srgb_gamut(10)
    ab = 40 * torch.randn(1, 2, 3, 3, generator=torch.Generator().manual_seed(2))
    index, share = soft_encoding(ab, centres, 5, 5)
    for voxel in range(9):
        a, b = ab[0].flatten(1)[:, voxel].tolist()
        squared = [(a - qa) ** 2 + (b - qb) ** 2 for qa, qb in centres.tolist()]
        nearest = sorted(range(len(squared)), key=squared.__getitem__)[:5]
        gauss = [math.exp(-squared[q] / 50) for q in nearest]
        assert sorted(index[0, :, voxel].tolist()) == sorted(nearest)
        expected = [g / sum(gauss) for g in gauss]
        torch.testing.assert_close(share[0, :, voxel], torch.tensor(expected), atol=1e-4, rtol=1e-3)


def test_weights_have_expectation_1_and_agree_with_equation_4() -> None:
    centres = torch.tensor([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0]], dtype=torch.float64)  # too far to be smoothed
    p = torch.tensor([0.7, 0.3, 0.0], dtype=torch.float64)
    w = rebalancing(1000 * p, centres, 5, 0.5)
    raw = 1 / (0.5 * p + 0.5 / 3)
    torch.testing.assert_close(w, raw / (p * raw).sum())
    torch.testing.assert_close((p * w).sum(), torch.tensor(1.0, dtype=torch.float64))
    torch.testing.assert_close(rebalancing(1000 * p, centres, 5, 1.0), torch.ones(3, dtype=torch.float64))


def test_smoothing_of_the_prior_keeps_its_sum_and_lets_neighbours_share() -> None:
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0]], dtype=torch.float64)
    w = rebalancing(torch.tensor([5.0, 0.0], dtype=torch.float64), centres, 5, 0.0)
    g = math.exp(-2)
    p = torch.tensor([1 / (1 + g), g / (1 + g)], dtype=torch.float64)
    torch.testing.assert_close(w, 1 / p / 2)  # with lambda 0 the weight is 1 / (Q p)


def test_the_annealed_mean_goes_from_the_mean_to_the_most_probable_class() -> None:
    centres, logits = torch.tensor([[0.0, 10.0], [30.0, 0.0]]), torch.tensor([0.25, 0.75]).log().view(1, 2, 1, 1)
    mean, annealed, mode = (annealed_mean(logits, centres, t).flatten() for t in (1.0, 0.38, 0.01))
    torch.testing.assert_close(mean, torch.tensor([22.5, 2.5]))
    share = 0.75 ** (1 / 0.38) / (0.75 ** (1 / 0.38) + 0.25 ** (1 / 0.38))
    torch.testing.assert_close(annealed, torch.tensor([30 * share, 10 * (1 - share)]))
    torch.testing.assert_close(mode, torch.tensor([30.0, 0.0]))


@DIMS
@pytest.mark.parametrize("in_channels", [1, 3])
def test_the_network_sees_the_lightness_alone(dims: int, in_channels: int) -> None:
    method, one = small(dims, in_channels=in_channels), batch(dims)
    seen: list[Tensor] = []
    method.decoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    method.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    method.loss(one)
    expected = (rgb_to_lab(one["image"])[:, :1] / 100).expand(-1, in_channels, *[-1] * dims)
    assert all(torch.equal(x, expected) for x in seen)


@DIMS
def test_the_loss_agrees_with_a_dense_cross_entropy(dims: int) -> None:
    method, one = small(dims), batch(dims)
    method.start_epoch([one])
    lab = rgb_to_lab(one["image"])
    logits = method.predict(lab[:, :1]).detach().flatten(2)
    index, share = soft_encoding(lab[:, 1:], method._usable_centres(), 5, 5)
    Z = torch.zeros_like(logits).scatter(1, index, share)
    weight = method.weights()[Z.argmax(1)]
    expected = (-(Z * logits.log_softmax(1)).sum(1) * weight).mean()
    torch.testing.assert_close(method.loss(one)["loss"].detach(), expected)


def test_prior_and_gamut_are_counted_once_and_remembered() -> None:
    method, one = small(2), batch(2)
    assert method.seen().all()
    assert (method.weights() == 1).all()
    method.start_epoch([one, one])
    assert method.counts.sum() == 2 * 2 * 64
    used = int(method.seen().sum())
    assert 0 < used < 128
    predicted = method.predict(rgb_to_lab(one["image"])[:, :1])
    assert set(predicted.argmax(1).unique().tolist()) <= set(torch.nonzero(method.seen()).flatten().tolist())
    method.start_epoch([one])
    assert method.counts.sum() == 2 * 2 * 64
    other = small(2)
    other.load_state_dict(method.state_dict())
    assert torch.equal(other.weights(), method.weights())
    assert small(2, gamut="srgb").seen().all()


def test_only_as_many_batches_as_asked_are_read_for_the_prior() -> None:
    method = small(2)
    method.prior_batches = 3
    method.start_epoch(batch(2) for _ in range(10**9))
    assert method.counts.sum() == 3 * 2 * 64


def test_data_of_a_single_colour_give_a_finite_loss() -> None:
    method = small(2)
    red: Batch = {"image": torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1).expand(2, 3, 8, 8)}
    method.start_epoch([red])
    assert int(method.seen().sum()) == 1
    assert method.loss(red)["loss"] == 0


def test_grey_images_of_three_channels_are_refused() -> None:
    grey: Batch = {"image": torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)).expand(-1, 3, -1, -1)}
    with pytest.raises(InputError, match="no colours: all that was looked at is grey"):
        small(2).start_epoch([grey])


def test_the_area_under_the_share_of_near_colours_agrees_with_a_sum_over_many_distances() -> None:
    draw = torch.Generator().manual_seed(0)
    found, truth = (200 * torch.rand(2, 2, 5, 4, generator=draw, dtype=torch.float64) for _ in range(2))
    distances = torch.linspace(0, 150, 3001, dtype=torch.float64)
    far = (found - truth).norm(dim=1)
    within = torch.stack([(far <= t).double().mean() for t in distances]).mean()
    torch.testing.assert_close(colour_auc(found, truth), within, atol=1e-3, rtol=0)
    assert colour_auc(truth, truth) == 1 and colour_auc(truth + 200, truth) == 0


def test_the_balanced_area_counts_rare_colours_as_common_ones() -> None:
    image = torch.zeros(1, 3, 1, 10)
    image[:, :2, :, 9] = 1  # nine black pixels, and a yellow one

    def scores(colour: tuple[float, float]) -> dict[str, float]:
        method = small(2).eval()
        method.colours = lambda predicted: torch.tensor(colour).view(1, 2, 1, 1).expand_as(ab)
        with torch.no_grad():
            return {name: float(value) for name, value in method._aucs(ab, ab).items()}

    ab = rgb_to_lab(image)[:, 1:]
    yellow = float(ab[0, :, 0, 9].norm())
    assert scores((0, 0))["auc"] == pytest.approx(1 - 0.1 * yellow / 150)
    assert scores((0, 0))["balanced_auc"] == pytest.approx(1 - 0.5 * yellow / 150)
    held = small(2).eval().loss({"image": torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))})
    assert {"auc", "balanced_auc"} < set(held) and 0 < held["auc"] <= 1


def test_all_processes_have_the_prior_of_all_data(tmp_path: Path) -> None:
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(3))

    def weights(rows: Tensor) -> Tensor:
        method = small(2)
        method.start_epoch([{"image": rows}])
        return method.weights()

    alone = weights(images)
    for found in in_processes(lambda process: weights(images[2 * process : 2 * process + 2]), tmp_path):
        torch.testing.assert_close(found, alone)


def test_the_baseline_minimises_half_the_squared_distance() -> None:
    method, one = small(2, task="regression"), batch(2)
    lab = rgb_to_lab(one["image"])
    predicted = method.colours(method.predict(lab[:, :1])).detach()
    expected = (predicted - lab[:, 1:]).square().sum(1).mean() / 2 / 110**2
    torch.testing.assert_close(method.loss(one)["loss"].detach(), expected)
    method.start_epoch([one])
    assert method.counts.sum() == 0


@pytest.mark.parametrize("task", ["classes", "regression"])
def test_pictures_have_the_lightness_of_the_image(task: Task) -> None:
    method, one = small(2, task), batch(2)
    pictures = method.show(one)
    assert all(picture.shape == one["image"].shape for picture in pictures.values())
    assert torch.equal(pictures["target"], one["image"])


def test_images_without_colour_and_encoders_with_odd_channels_are_refused() -> None:
    with pytest.raises(InputError, match=r"RGB images, 3 channels; these have 1\. A grey scan"):
        small(2).check(10, 1, (8, 8))
    with pytest.raises(InputError, match="these have 1"):
        small(2).loss(batch(2, channels=1))
    with pytest.raises(InputError, match="this one has 2"):
        small(2, in_channels=2)
    small(2).check(10, 3, (8, 8))
