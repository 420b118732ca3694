"""What every network, and every encoder, promises; new ones are found by themselves."""

import inspect
from typing import Any

import pytest
import torch

from medssl.errors import InputError
from medssl.networks import ENCODERS, NETWORKS, build_encoder, build_network
from medssl.networks.depth import DepthNetwork
from medssl.networks.encoder import Encoder
from medssl.networks.segmentation import SegmentationNetwork

SMALL_ENCODER: dict[str, dict[str, Any]] = {
    "fcn": {"channels": (2, 3, 4, 5)},
    "resnet18": {"width": 2},
    "resnet50": {"width": 2},
    "resunet": {"channels": (4, 6, 8), "blocks": (1, 2, 1)},
    "sdnet": {"channels": (4, 4, 4)},
    "swin": {"width": 4, "depths": (2, 2), "heads": (1, 2), "window": 3},
    "unet": {"channels": (4, 6, 8)},
    "vit": {"patch": 8, "width": 12, "depth": 2, "heads": 2},
}
SMALL_DECODER: dict[str, dict[str, Any]] = {
    "fcn": {"finest": 2},
    "resnet18": {"refine_channels": 4},
    "resnet50": {"refine_channels": 4},
}


def small(name: str, dims: int, in_channels: int = 2, classes: int = 3) -> SegmentationNetwork:
    torch.manual_seed(0)
    arguments = SMALL_ENCODER.get(name, {}) | SMALL_DECODER.get(name, {})
    return build_network(name, in_channels, classes, dims, **arguments)


def small_encoder(name: str, dims: int, in_channels: int = 2) -> Encoder:
    torch.manual_seed(0)
    return build_encoder(name, in_channels, dims, **SMALL_ENCODER.get(name, {}))


every_network = pytest.mark.parametrize("name", sorted(NETWORKS))
every_encoder = pytest.mark.parametrize("name", sorted(ENCODERS))
both_dims = pytest.mark.parametrize("dims", [2, 3])


@every_encoder
@both_dims
def test_the_encoder_returns_what_its_contract_says(name: str, dims: int) -> None:
    encoder = small_encoder(name, dims)
    assert encoder.spatial_dims == dims and encoder.in_channels == 2
    side = 2 * max(encoder.strides)
    features = encoder(torch.rand(2, 2, *[side] * dims))
    assert len(features) == len(encoder.channels) == len(encoder.strides)
    for feature, channels, stride in zip(features, encoder.channels, encoder.strides, strict=True):
        assert feature.shape == (2, channels, *[side // stride] * dims)
    assert list(encoder.strides) == sorted(encoder.strides)


@every_encoder
def test_depth_is_told_at_halving_sizes_from_any_encoder(name: str) -> None:
    encoder = small_encoder(name, 2, in_channels=3)
    coarsest = max(encoder.strides)
    maps = DepthNetwork(encoder, maps=2, widths=(4,))(torch.rand(2, 3, 2 * coarsest, 2 * coarsest))
    assert len(maps) == min(4, coarsest.bit_length() - 1)
    for s, one in enumerate(maps):
        assert one.shape == (2, 2, 2 * coarsest // 2**s, 2 * coarsest // 2**s)
        assert 0 < one.min().item() < one.max().item() < 1
    torch.stack([one.square().sum() for one in maps]).sum().backward()
    first = next(encoder.parameters()).grad
    assert first is not None and float(first.abs().sum()) > 0


def test_every_encoder_has_a_segmentation_network_of_its_name() -> None:
    assert ENCODERS.keys() == NETWORKS.keys()


@every_encoder
def test_an_encoder_has_the_arguments_and_defaults_of_its_network(name: str) -> None:
    alone, within = (inspect.signature(builders[name]).parameters for builders in (ENCODERS, NETWORKS))
    own = [argument for argument in alone if argument not in ("in_channels", "spatial_dims")]
    assert {argument: alone[argument].default for argument in own} == {
        argument: within[argument].default for argument in own
    }


@every_encoder
@both_dims
def test_a_pretrained_encoder_fits_into_its_network(name: str, dims: int) -> None:
    encoder, network = small_encoder(name, dims), small(name, dims)
    assert encoder.channels == network.encoder.channels and encoder.strides == network.encoder.strides
    network.encoder.load_state_dict(encoder.state_dict(), strict=True)


@every_network
@both_dims
def test_logits_have_one_channel_per_class_and_the_gradient_reaches_every_parameter(name: str, dims: int) -> None:
    network = small(name, dims)
    side = 2 * max(network.encoder.strides)
    image = torch.rand(2, 2, *[side] * (dims - 1), 2 * side)
    logits = network(image)
    assert logits.shape == (2, 3, *image.shape[2:])
    (logits * torch.rand_like(logits)).sum().backward()
    unused = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not unused


@every_network
def test_the_same_seed_builds_the_same_network(name: str) -> None:
    a, b = small(name, 3).state_dict(), small(name, 3).state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a)


@every_network
def test_a_size_that_the_strides_do_not_divide_is_told_what_to_pad_to(name: str) -> None:
    network = small(name, 3)
    stride = max(network.encoder.strides)
    with pytest.raises(InputError, match=rf"patch of \({2 * stride}, {stride}, {stride}\)"):
        network(torch.rand(1, 2, stride + 1, stride, stride))


@every_network
def test_an_image_of_other_channels_or_dimensions_is_refused(name: str) -> None:
    network = small(name, 3)
    with pytest.raises(InputError, match=r"takes \(B, 2, X, Y, Z\)"):
        network(torch.rand(1, 1, 16, 16, 16))
    with pytest.raises(InputError, match="got"):
        network(torch.rand(1, 2, 16, 16))


def test_an_unknown_network_lists_the_right_names() -> None:
    with pytest.raises(InputError, match=r"no network 'resnet'\. Networks: fcn, .*, unet, vit\."):
        build_network("resnet", 1, 2, 3)


def test_an_unknown_encoder_lists_the_right_names() -> None:
    with pytest.raises(InputError, match=r"no encoder 'resnet'\. Encoders: fcn, .*, unet, vit\."):
        build_encoder("resnet", 1, 3)


def test_an_unknown_argument_is_named() -> None:
    with pytest.raises(InputError, match=r"network 'unet'.*depth"):
        build_network("unet", 1, 2, 3, depth=3)
    with pytest.raises(InputError, match=r"encoder 'unet'.*depth"):
        build_encoder("unet", 1, 3, depth=3)
