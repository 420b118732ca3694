"""ResNet: blocks that learn what to add to their input, so that depth helps instead of hurting.

He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, https://arxiv.org/abs/1512.03385,
table 1. The bottleneck halves the resolution in its middle convolution and not in its first, as published weights do.
"""

from collections.abc import Sequence
from typing import Literal

from monai.networks.layers import Conv, Pool
from monai.networks.layers.utils import get_norm_layer
from monai.networks.nets.resnet import ResNetBlock, ResNetBottleneck
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.networks.encoder import Encoder
from medssl.networks.segmentation import SegmentationNetwork, initialise
from medssl.networks.unet import Norm, UNetDecoder, normalisation


def resnet18(
    in_channels: int = 1,
    classes: int = 2,
    spatial_dims: int = 3,
    width: int = 64,
    norm: Norm = "batch",
    refine_channels: int = 15,
) -> SegmentationNetwork:
    """Build a U-shaped network on a ResNet-18.

    Args:
        in_channels: Channels of the image.
        classes: Number of classes, the background included.
        spatial_dims: 2 or 3.
        width: Channels of the first stage; each stage has twice those of the one before.
        norm: Normalisation after each convolution.
        refine_channels: Width of the refinement at full resolution.
    """
    encoder = resnet18_encoder(in_channels, spatial_dims, width, norm)
    return SegmentationNetwork(encoder, UNetDecoder(encoder, classes, refine_channels, norm))


def resnet50(
    in_channels: int = 1,
    classes: int = 2,
    spatial_dims: int = 3,
    width: int = 64,
    norm: Norm = "batch",
    refine_channels: int = 15,
) -> SegmentationNetwork:
    """Build a U-shaped network on a ResNet-50; the arguments are those of ``resnet18``."""
    encoder = resnet50_encoder(in_channels, spatial_dims, width, norm)
    return SegmentationNetwork(encoder, UNetDecoder(encoder, classes, refine_channels, norm))


def resnet18_encoder(in_channels: int, spatial_dims: int, width: int = 64, norm: Norm = "batch") -> "ResNetEncoder":
    """Build the encoder of ``resnet18``."""
    return ResNetEncoder(in_channels, spatial_dims, "basic", (2, 2, 2, 2), width, norm)


def resnet50_encoder(in_channels: int, spatial_dims: int, width: int = 64, norm: Norm = "batch") -> "ResNetEncoder":
    """Build the encoder of ``resnet50``."""
    return ResNetEncoder(in_channels, spatial_dims, "bottleneck", (3, 4, 6, 3), width, norm)


class ResNetEncoder(Encoder):
    """A 7x7(x7) convolution, max pooling, then stages of residual blocks.

    The features are those of the convolution (stride 2) and of each stage (strides 4, 8, ...). The parameters have the
    names of torchvision's.

    Args:
        in_channels: Channels of the image.
        spatial_dims: 2 or 3.
        block: Two 3x3(x3) convolutions, or the bottleneck: one between two 1x1(x1), the last four times as wide.
        blocks: Number of blocks of each stage.
        width: Channels of the first stage's 3x3(x3) convolutions; each stage has twice those of the one before.
        norm: Normalisation after each convolution.
    """

    def __init__(
        self,
        in_channels: int,
        spatial_dims: int,
        block: Literal["basic", "bottleneck"],
        blocks: Sequence[int],
        width: int = 64,
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        kind = ResNetBlock if block == "basic" else ResNetBottleneck
        widths = [width * 2**stage for stage in range(len(blocks))]
        self.in_channels, self.spatial_dims = in_channels, spatial_dims
        self.channels = (width, *(w * kind.expansion for w in widths))
        self.strides = tuple(2 ** (level + 1) for level in range(len(self.channels)))
        self.conv1 = Conv["conv", spatial_dims](in_channels, width, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = get_norm_layer(normalisation(norm, width), spatial_dims, width)
        self.maxpool = Pool["max", spatial_dims](kernel_size=3, stride=2, padding=1)
        for stage, count in enumerate(blocks):
            stride = 2 if stage > 0 else 1  # max pooling halved the first stage's input
            self.add_module(
                f"layer{stage + 1}",
                residual_stage(kind, spatial_dims, self.channels[stage], widths[stage], count, stride, norm),
            )
        self.stages = len(blocks)
        initialise(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Turn (B, in_channels, *spatial) into maps of strides 2, 4, 8, ..., finest first."""
        features = [F.relu(self.bn1(self.conv1(x)))]
        x = self.maxpool(features[0])
        for stage in range(self.stages):
            x = self.get_submodule(f"layer{stage + 1}")(x)
            features.append(x)
        return features


def residual_stage(
    kind: type[ResNetBlock | ResNetBottleneck],
    spatial_dims: int,
    in_channels: int,
    width: int,
    count: int,
    stride: int,
    norm: Norm,
) -> nn.Sequential:
    """Build ``count`` blocks; the first changes resolution and channels, its shortcut by a projection."""
    out_channels = width * kind.expansion
    # A bottleneck's norms are of ``width`` or four times as many channels: groups of the former divide both.
    named = normalisation(norm, width)
    projection = None
    if stride > 1 or in_channels != out_channels:
        projection = nn.Sequential(
            Conv["conv", spatial_dims](in_channels, out_channels, kernel_size=1, stride=stride, bias=False),
            get_norm_layer(named, spatial_dims, out_channels),
        )
    first = kind(in_channels, width, spatial_dims, stride, projection, norm=named)
    return nn.Sequential(first, *(kind(out_channels, width, spatial_dims, norm=named) for _ in range(count - 1)))
