"""What context encoders promise of their regions and losses."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.augment import generators
from medssl.errors import InputError
from medssl.methods.inpainting import (
    Inpainting,
    Region,
    central_region,
    hide,
    masked_mean,
    random_region,
    reverse_gradient,
)
from medssl.networks.unet import UNetEncoder
from medssl.sample import Batch

DIMS = pytest.mark.parametrize("dims", [2, 3])


def batch(dims: int, count: int = 2) -> Batch:
    image = torch.rand(count, 1, *[16] * dims, generator=torch.Generator().manual_seed(0))
    return {"image": image, "seed": torch.arange(1, count + 1)}


def small(dims: int, region: Region = "random", adversarial_weight: float = 0.0) -> Inpainting:
    torch.manual_seed(0)
    return Inpainting(UNetEncoder(1, dims, (4, 8)), region, adversarial_weight=adversarial_weight)


def test_the_central_region_is_the_middle_half_of_each_side() -> None:
    found = central_region((8, 4), 0.5, torch.empty(0))[0, 0]
    expected = torch.zeros(8, 4)
    expected[2:6, 1:3] = 1
    assert torch.equal(found, expected)


@DIMS
def test_random_boxes_cover_at_most_the_given_share_at_places_of_their_own(dims: int) -> None:
    size, like = (24, 20, 16)[:dims], torch.empty(0)
    found = random_region(size, 0.25, 4, generators(torch.arange(50)), like)
    assert found.shape == (50, 1, *size)
    share = found.flatten(1).mean(1)
    assert share.min() > 0 and share.max() <= 0.25
    assert len(found.flatten(1).unique(dim=0)) > 45
    alone = random_region(size, 0.25, 4, generators(torch.tensor([7])), like)
    assert torch.equal(alone[0], found[7])


@pytest.mark.parametrize("region", ["central", "random"])
@DIMS
def test_what_is_missing_reaches_neither_encoder_nor_decoder(dims: int, region: Region) -> None:
    method, one = small(dims, region), batch(dims)
    M = method.missing(one["image"], one["seed"])
    other = one["image"] + 5 * M
    assert torch.equal(hide(one["image"], M), hide(other, M))
    seen: list[Tensor] = []
    method.decoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    method.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    method.loss(one)
    assert all(torch.equal(x, hide(one["image"], M)) for x in seen)


def test_the_missing_part_has_the_mean_of_the_rest() -> None:
    image, M = torch.tensor([[[[1.0, 2.0, 3.0, 100.0]]]]), torch.tensor([[[[0.0, 0.0, 0.0, 1.0]]]])
    assert hide(image, M).flatten().tolist() == [1, 2, 3, 2]


def test_the_error_agrees_with_a_loop_over_the_missing_voxels() -> None:
    method, one = small(2), batch(2)
    M = method.missing(one["image"], one["seed"])
    predicted = method.predict(hide(one["image"], M))
    squares = [
        float((predicted[i, 0, x, y] - one["image"][i, 0, x, y]).detach() ** 2)
        for i, x, y in torch.nonzero(M[:, 0]).tolist()
    ]
    assert float(method.loss(one)["loss"].detach()) == pytest.approx(sum(squares) / len(squares), rel=1e-4)


def test_a_mean_over_channels_counts_each_of_them() -> None:
    values, mask = torch.tensor([[[[2.0, 9.0]], [[4.0, 9.0]]]]), torch.tensor([[[[1.0, 0.0]]]])
    assert masked_mean(values, mask) == 3


def test_a_reversed_gradient_has_the_other_sign_and_the_weight() -> None:
    x = torch.ones(3, requires_grad=True)
    reverse_gradient(x, 0.25).square().sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [-0.5, -0.5, -0.5]


@DIMS
def test_one_loss_has_the_gradients_of_both_players(dims: int) -> None:
    weight = 0.3
    method, one = small(dims, "central", weight), batch(dims)
    losses = method.loss(one)
    losses["loss"].backward()
    decoder, discriminator = (
        [p.grad.clone() for p in part.parameters() if p.grad is not None] for part in _players(method)
    )
    x, M = one["image"], method.missing(one["image"], one["seed"])
    predicted = method.predict(hide(x, M))
    painted = torch.where(M > 0, predicted, x)
    judge = method.discriminator
    assert judge is not None
    log_d, log_not_d = F.logsigmoid(judge(x)).mean(), F.logsigmoid(-judge(painted)).mean()
    # Equations 2 and 3: the context encoder minimises, the discriminator maximises.
    joint = (1 - weight) * masked_mean((predicted - x).square(), M) + weight * log_not_d
    for found, expected in zip(
        decoder, torch.autograd.grad(joint, list(method.decoder.parameters()), retain_graph=True), strict=True
    ):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)
    for found, expected in zip(
        discriminator, torch.autograd.grad(-log_d - log_not_d, list(judge.parameters())), strict=True
    ):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)
    assert set(losses) == {"loss", "reconstruction", "discriminator"}


def _players(method: Inpainting) -> tuple[nn.Module, nn.Module]:
    assert method.discriminator is not None
    return method.decoder, method.discriminator


def test_the_pictures_agree_outside_of_the_missing_part() -> None:
    method, one = small(2, "central"), batch(2)
    pictures = method.show(one)
    M = method.missing(one["image"], one["seed"])
    assert torch.equal(pictures["prediction"] * (1 - M), one["image"] * (1 - M))
    assert torch.equal(pictures["target"], one["image"])


def test_impossible_regions_and_weights_are_refused() -> None:
    encoder = UNetEncoder(1, 2, (4, 8))
    with pytest.raises(InputError, match="covered=1, boxes=4"):
        Inpainting(encoder, covered=1)
    with pytest.raises(InputError, match="adversarial_weight=1"):
        Inpainting(encoder, adversarial_weight=1)
    with pytest.raises(InputError, match=r"patch of \(16, 1\)"):
        small(2, "central").check(10, 1, (16, 1))
    small(2, "central").check(10, 1, (16, 16))
