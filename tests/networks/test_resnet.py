"""The trunk of the paper's table 1, in 2D and 3D."""

import pytest
import torch
from torch import nn

from medssl.networks import build_encoder
from medssl.networks.resnet import ResNetEncoder
from medssl.networks.unet import Norm


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("name", "whole", "features"),
    [("resnet18", 11_689_512, 512), ("resnet50", 25_557_032, 2048)],  # as published, with 1000 classes of colour images
)
def test_a_2d_trunk_has_the_published_number_of_parameters(name: str, whole: int, features: int) -> None:
    with torch.device("meta"):
        assert parameters(build_encoder(name, 3, 2)) == whole - 1000 * (features + 1)


@pytest.mark.parametrize("dims", [2, 3])
def test_the_parameters_of_resnet18_in_closed_form(dims: int) -> None:
    width, inputs = 4, 2
    expected, before = inputs * width * 7**dims + 2 * width, width
    for stage in range(4):
        w = width * 2**stage
        expected += (before * w + 3 * w * w) * 3**dims + 4 * 2 * w
        expected += before * w + 2 * w if before != w else 0
        before = w
    assert parameters(build_encoder("resnet18", inputs, dims, width=width)) == expected


def test_the_convolutions_with_weights_are_18_or_50_with_the_classifier() -> None:
    for name, depth in (("resnet18", 18), ("resnet50", 50)):
        encoder = build_encoder(name, 1, 2, width=2)
        convolutions = [n for n, m in encoder.named_modules() if isinstance(m, nn.Conv2d) and "downsample" not in n]
        assert len(convolutions) == depth - 1


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_a_block_whose_residual_is_silenced_is_the_identity(block: str) -> None:
    encoder = ResNetEncoder(1, 2, block, (2,), width=2)
    second = encoder.layer1[1]
    nn.init.zeros_((second.bn2 if block == "basic" else second.bn3).weight)
    x = torch.rand(2, encoder.channels[1], 4, 4)
    assert torch.equal(second(x), x)


def test_the_finest_features_are_those_before_max_pooling() -> None:
    encoder = build_encoder("resnet18", 1, 2, width=2)
    x = torch.rand(2, 1, 64, 64)
    fine, pooled = encoder(x)[:2]
    assert fine.shape[2:] == (32, 32) and pooled.shape[2:] == (16, 16)
    assert torch.equal(encoder.layer1(encoder.maxpool(fine)), pooled)


@pytest.mark.parametrize(
    ("norm", "kind"), [("instance", nn.InstanceNorm3d), ("batch", nn.BatchNorm3d), ("group", nn.GroupNorm)]
)
def test_every_normalisation_is_of_the_chosen_kind(norm: Norm, kind: type[nn.Module]) -> None:
    encoder = build_encoder("resnet50", 1, 3, width=16, norm=norm)
    norms = [m for n, m in encoder.named_modules() if "bn" in n.split(".")[-1] or n.endswith("downsample.1")]
    assert len(norms) == 53 and all(isinstance(m, kind) for m in norms)


def test_an_image_does_not_change_the_features_of_another_under_instance_normalisation() -> None:
    encoder = build_encoder("resnet18", 1, 2, width=2, norm="instance")
    x = torch.rand(2, 1, 64, 64)
    assert torch.allclose(encoder(x)[-1][:1], encoder(x[:1])[-1], atol=1e-5)
