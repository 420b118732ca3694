"""What every network promises; new ones are found by themselves."""

import pytest
import torch

from medssl.errors import InputError
from medssl.networks import NETWORKS, build_network
from medssl.networks.segmentation import SegmentationNetwork

SMALL = {
    "unet": {"channels": (4, 6, 8)},
    "sdnet": {"channels": (4, 4, 4)},
    "fcn": {"channels": (2, 3, 4, 5), "finest": 2},
}


def small(name: str, dims: int, in_channels: int = 2, classes: int = 3) -> SegmentationNetwork:
    torch.manual_seed(0)
    return build_network(name, in_channels, classes, dims, **SMALL.get(name, {}))


every_network = pytest.mark.parametrize("name", sorted(NETWORKS))
both_dims = pytest.mark.parametrize("dims", [2, 3])


@every_network
@both_dims
def test_the_encoder_returns_what_its_contract_says(name: str, dims: int) -> None:
    encoder = small(name, dims).encoder
    assert encoder.spatial_dims == dims and encoder.in_channels == 2
    side = 2 * max(encoder.strides)
    features = encoder(torch.rand(2, 2, *[side] * dims))
    assert len(features) == len(encoder.channels) == len(encoder.strides)
    for feature, channels, stride in zip(features, encoder.channels, encoder.strides, strict=True):
        assert feature.shape == (2, channels, *[side // stride] * dims)
    assert list(encoder.strides) == sorted(encoder.strides)


@every_network
@both_dims
def test_logits_have_one_channel_per_class_and_the_gradient_reaches_every_parameter(name: str, dims: int) -> None:
    network = small(name, dims)
    side = 2 * max(network.encoder.strides)
    image = torch.rand(2, 2, side, *[2 * side] * (dims - 1))
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
    with pytest.raises(InputError, match=r"no network 'resnet'.*fcn, sdnet, unet"):
        build_network("resnet", 1, 2, 3)


def test_an_unknown_argument_is_named() -> None:
    with pytest.raises(InputError, match="depth"):
        build_network("unet", 1, 2, 3, depth=3)
