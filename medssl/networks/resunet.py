"""Residual-encoder U-Net: a U-Net whose encoder is deep, because residual blocks let it be.

Isensee, Wald, Ulrich, Baumgartner, Roy, Maier-Hein, Jäger, "nnU-Net Revisited: A Call for Rigorous Validation in 3D
Medical Image Segmentation", MICCAI 2024, https://arxiv.org/abs/2404.09556; the blocks are those of He et al., "Bag of
Tricks for Image Classification with Convolutional Neural Networks", CVPR 2019, https://arxiv.org/abs/1812.01187,
figure 2c, with two 3x3(x3) convolutions.
"""

from collections.abc import Sequence
from itertools import pairwise

from monai.networks.layers import Pool
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.errors import InputError
from medssl.networks.encoder import Encoder
from medssl.networks.segmentation import SegmentationNetwork, initialise
from medssl.networks.unet import Norm, UNetDecoder, convolution, stem


def resunet(
    in_channels: int = 1,
    classes: int = 2,
    spatial_dims: int = 3,
    channels: Sequence[int] = (32, 64, 128, 256, 320, 320),
    blocks: Sequence[int] = (1, 3, 4, 6, 6, 6),
    stem_stride: int = 1,
    refine_channels: int = 15,
    norm: Norm = "instance",
) -> SegmentationNetwork:
    """Build a residual-encoder U-Net.

    Args:
        in_channels: Channels of the image.
        classes: Number of classes, the background included.
        spatial_dims: 2 or 3.
        channels: Width of each level, finest first; each level halves the resolution.
        blocks: Number of residual blocks of each level.
        stem_stride: Stride of the finest level, 1 or 2; 2 spares most of the time and memory, as in the U-Net.
        refine_channels: Width of the refinement at full resolution; used where ``stem_stride`` is not 1.
        norm: Normalisation after each convolution.
    """
    encoder = ResUNetEncoder(in_channels, spatial_dims, channels, blocks, stem_stride, norm)
    return SegmentationNetwork(encoder, UNetDecoder(encoder, classes, refine_channels, norm))


class ResUNetEncoder(Encoder):
    """A stem, then residual blocks; the first block of each level but the finest halves the resolution."""

    def __init__(
        self,
        in_channels: int,
        spatial_dims: int,
        channels: Sequence[int] = (32, 64, 128, 256, 320, 320),
        blocks: Sequence[int] = (1, 3, 4, 6, 6, 6),
        stem_stride: int = 1,
        norm: Norm = "instance",
    ) -> None:
        super().__init__()
        if len(blocks) != len(channels) or min(blocks) < 1:
            raise InputError(
                f"blocks={tuple(blocks)} must give one number from 1 for each of the {len(channels)} levels that "
                f"channels={tuple(channels)} names."
            )
        self.in_channels, self.spatial_dims, self.channels = in_channels, spatial_dims, tuple(channels)
        self.strides = tuple(stem_stride * 2**level for level in range(len(channels)))
        self.stem = stem(spatial_dims, in_channels, channels[0], norm, stem_stride)
        self.levels = nn.ModuleList()
        for level, (before, width) in enumerate(pairwise([channels[0], *channels])):
            first = ResidualBlock(spatial_dims, before, width, norm, stride=2 if level > 0 else 1)
            rest = (ResidualBlock(spatial_dims, width, width, norm) for _ in range(blocks[level] - 1))
            self.levels.append(nn.Sequential(first, *rest))
        initialise(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Turn (B, in_channels, *spatial) into one (B, channels[i], *spatial / strides[i]) per level."""
        x = self.stem(x)
        features = []
        for level in self.levels:
            x = level(x)
            features.append(x)
        return features


class ResidualBlock(nn.Module):
    """Two convolutions whose result is added to the input; a changed size is averaged, changed channels projected."""

    def __init__(
        self, spatial_dims: int, in_channels: int, out_channels: int, norm: Norm = "instance", stride: int = 1
    ) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            convolution(spatial_dims, in_channels, out_channels, norm, stride=stride),
            convolution(spatial_dims, out_channels, out_channels, norm, activation=False),
        )
        shortcut: list[nn.Module] = [Pool["avg", spatial_dims](stride)] if stride > 1 else []
        if in_channels != out_channels:
            shortcut.append(convolution(spatial_dims, in_channels, out_channels, norm, kernel_size=1, activation=False))
        self.shortcut = nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        """Turn (B, in_channels, *spatial) into (B, out_channels, *spatial / stride)."""
        return F.leaky_relu(self.shortcut(x) + self.residual(x), negative_slope=0.01)
