"""What masked autoencoders promise: the encoder sees visible blocks, the loss hidden ones."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from medssl.errors import InputError
from medssl.methods.masked_autoencoder import (
    MaskedAutoencoder,
    at,
    block_statistics,
    places,
    sparse,
    unpatch,
)
from medssl.networks.encoder import Encoder
from medssl.networks.resunet import ResUNetEncoder
from medssl.networks.sdnet import SDNetEncoder
from medssl.networks.unet import UNetEncoder
from medssl.networks.vit import ViTEncoder
from medssl.sample import Batch

DIMS = pytest.mark.parametrize("dims", [2, 3])
ENCODERS: dict[str, Callable[[int], Encoder]] = {
    "unet": lambda dims: UNetEncoder(1, dims, (4, 8)),
    "resunet": lambda dims: ResUNetEncoder(1, dims, (4, 8, 8), (1, 1, 1)),
    "sdnet": lambda dims: SDNetEncoder(1, dims, (4, 4), kernel_size=3),
    "coarse": lambda dims: UNetEncoder(1, dims, (4, 8, 8), norm="group"),  # its last stride holds several blocks
    "vit": lambda dims: ViTEncoder(1, dims, patch=4, width=16, depth=2, heads=2),
}


def batch(dims: int, count: int = 2, channels: int = 1) -> Batch:
    image = torch.rand(count, channels, *[16] * dims, generator=torch.Generator().manual_seed(0))
    return {"image": image, "seed": torch.arange(1, count + 1)}


def small(dims: int, name: str = "unet", normalised_targets: bool = False) -> MaskedAutoencoder:
    torch.manual_seed(0)
    return MaskedAutoencoder(ENCODERS[name](dims), 4, 0.75, normalised_targets, 16, 2, 2)


@DIMS
def test_the_asked_share_of_the_blocks_is_hidden_in_each_image_at_other_places(dims: int) -> None:
    method, one = small(dims), batch(dims, 8)
    visible = method.visible(one["image"], one["seed"])
    assert visible.shape == (8, 1, *[4] * dims)
    assert (visible.flatten(1).sum(1) == 4**dims / 4).all()
    assert len(visible.flatten(1).unique(dim=0)) > 5
    assert torch.equal(method.visible(one["image"][5:6], one["seed"][5:6]), visible[5:6])


@pytest.mark.parametrize("name", ENCODERS)
@DIMS
def test_hidden_voxels_change_neither_the_features_nor_the_prediction(dims: int, name: str) -> None:
    method, one = small(dims, name), batch(dims)
    visible = method.visible(one["image"], one["seed"])
    other = torch.where(at(visible, one["image"].shape[2:]) > 0, one["image"], torch.rand_like(one["image"]) * 9)
    seen: list[Tensor] = []
    method.decoder.register_forward_pre_hook(lambda _, inputs: seen.extend(_tensors(inputs)))
    first = method.reconstruct(one["image"], visible)
    count = len(seen)
    assert torch.equal(method.reconstruct(other, visible), first)
    assert all(torch.equal(a, b) for a, b in zip(seen[:count], seen[count:], strict=True))


def _tensors(inputs: tuple[object, ...]) -> list[Tensor]:
    flat = [x for value in inputs for x in (value if isinstance(value, list) else [value])]
    return [x for x in flat if isinstance(x, Tensor)]


@pytest.mark.parametrize("name", ENCODERS)
def test_the_loss_is_the_error_at_hidden_voxels_alone(name: str) -> None:
    method, one = small(2, name), batch(2)
    visible = method.visible(one["image"], one["seed"])
    predicted = method.reconstruct(one["image"], visible).detach()
    errors = [
        float(predicted[i, 0, x, y] - one["image"][i, 0, x, y]) ** 2
        for i in range(2)
        for x in range(16)
        for y in range(16)
        if visible[i, 0, x // 4, y // 4] == 0
    ]
    assert len(errors) == 2 * 192
    assert float(method.loss(one)["loss"].detach()) == pytest.approx(sum(errors) / len(errors), rel=1e-4)


@pytest.mark.parametrize("name", ["unet", "resunet", "sdnet"])
@DIMS
def test_a_sparse_encoder_gives_the_features_of_the_visible_part_alone(dims: int, name: str) -> None:
    """With one half visible, the border of the holes is the border of an image of half the size."""
    encoder, image = small(dims, name).encoder, batch(dims)["image"]
    visible = torch.zeros(2, 1, *[4] * dims)
    visible[:, :, :2] = 1
    with sparse(encoder, visible):
        features = encoder(image)
    for found, expected in zip(features, encoder(image[:, :, :8]), strict=True):
        half = found.shape[2] // 2
        torch.testing.assert_close(found[:, :, :half], expected, atol=1e-5, rtol=1e-4)


@DIMS
def test_an_encoder_is_as_before_when_the_context_has_ended(dims: int) -> None:
    encoder, image = small(dims).encoder, batch(dims)["image"]
    before = encoder(image)
    with pytest.raises(ZeroDivisionError), sparse(encoder, torch.zeros(2, 1, *[4] * dims)):
        raise ZeroDivisionError
    assert all(torch.equal(a, b) for a, b in zip(before, encoder(image), strict=True))


def test_a_vit_sees_as_many_tokens_as_are_visible() -> None:
    method, one = small(3, "vit"), batch(3)
    lengths: list[int] = []
    assert isinstance(method.encoder, ViTEncoder)
    method.encoder.blocks[0].register_forward_pre_hook(lambda _, inputs: lengths.append(inputs[0].shape[1]))
    method.loss(one)
    assert lengths == [16]


def test_what_is_visible_is_the_same_in_every_resolution() -> None:
    visible = torch.tensor([[1.0, 0.0], [0.0, 0.0]]).view(1, 1, 2, 2)
    assert torch.equal(at(visible, (4, 4))[0, 0], torch.kron(visible[0, 0], torch.ones(2, 2)))
    assert at(visible, (1, 1)).flatten().tolist() == [1]
    assert places(at(visible, (4, 4))).tolist() == [[0, 1, 4, 5]]


@DIMS
def test_normalised_targets_have_mean_0_and_deviation_1_in_each_block(dims: int) -> None:
    method, image = small(dims, normalised_targets=True), batch(dims, channels=2)["image"]
    target = method.target(image)
    block = target[(0, slice(None), *[slice(4, 8)] * dims)]
    torch.testing.assert_close(block.mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(block.std(correction=0), torch.tensor(1.0), atol=1e-3, rtol=0)
    mean, deviation = block_statistics(image, 4)
    torch.testing.assert_close(target * deviation + mean, image)


@DIMS
def test_tokens_are_laid_out_as_a_patch_embedding_reads_them(dims: int) -> None:
    """A convolution whose kernels each pick one voxel of a patch makes the tokens; laying them out undoes it."""
    image = batch(dims, channels=2)["image"]
    kernels = torch.eye(2 * 4**dims).view(-1, 2, *[4] * dims)
    convolve = F.conv3d if dims == 3 else F.conv2d
    tokens = convolve(image, kernels, stride=4).flatten(2).transpose(1, 2)
    torch.testing.assert_close(unpatch(tokens, [4] * dims, 2, 4), image)


def test_pictures_show_the_image_where_it_is_visible() -> None:
    method, one = small(2, normalised_targets=True), batch(2)
    pictures = method.show(one)
    shown = at(method.visible(one["image"], one["seed"]), (16, 16))
    assert torch.equal(pictures["prediction"] * shown, pictures["input"])
    assert torch.equal(pictures["target"], one["image"])


def test_what_cannot_be_masked_is_refused() -> None:
    method = small(2)
    with pytest.raises(InputError, match=r"patch of \(18, 16\).*blocks of 4: choose a patch of \(20, 16\)"):
        method.check(1, 1, (18, 16))
    with pytest.raises(InputError, match=r"0\.75 of the 1 blocks"):
        method.check(1, 1, (4, 4))
    with pytest.raises(InputError, match=r"Blocks of 6 .* patches of 4"):
        MaskedAutoencoder(ENCODERS["vit"](2), block=6)
    with pytest.raises(InputError, match="ratio=1"):
        MaskedAutoencoder(ENCODERS["unet"](2), ratio=1)
