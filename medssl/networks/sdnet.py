"""SD-Net (SkipDeconv-Net): index unpooling keeps the boundaries, skip connections keep the context.

Roy, Conjeti, Sheet, Katouzian, Navab, Wachinger, "Error Corrective Boosting for Learning Fully Convolutional Networks
with Limited Data", MICCAI 2017, https://arxiv.org/abs/1705.00938, section 2.1.
"""

from collections.abc import Sequence

import torch
from monai.networks.blocks import Convolution
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.networks.encoder import Encoder
from medssl.networks.segmentation import SegmentationNetwork, initialise


def sdnet(
    in_channels: int = 1,
    classes: int = 2,
    spatial_dims: int = 3,
    channels: Sequence[int] = (64, 64, 64, 64),
    kernel_size: int | None = None,
) -> SegmentationNetwork:
    """Build an SD-Net.

    Args:
        in_channels: Channels of the image.
        classes: Number of classes, the background included.
        spatial_dims: 2 or 3.
        channels: Width of each encoder block and, last, of the bottleneck; one width throughout, because unpooling
            puts values of one level back at the places of the level above.
        kernel_size: Of all convolutions. By default the paper's 7 in 2D and 3 in 3D, where 7 costs 13 times as much.
    """
    encoder = SDNetEncoder(in_channels, spatial_dims, channels, kernel_size)
    return SegmentationNetwork(encoder, SDNetDecoder(encoder, classes, kernel_size))


class SDNetEncoder(Encoder):
    """Convolution, batch normalisation, ReLU, 2x2 max pooling; the features are those before each pooling."""

    def __init__(
        self,
        in_channels: int,
        spatial_dims: int,
        channels: Sequence[int] = (64, 64, 64, 64),
        kernel_size: int | None = None,
    ) -> None:
        super().__init__()
        self.in_channels, self.spatial_dims, self.channels = in_channels, spatial_dims, tuple(channels)
        self.strides = tuple(2**level for level in range(len(channels)))
        widths = [in_channels, *channels]
        self.blocks = nn.ModuleList(
            block(spatial_dims, before, after, kernel_size) for before, after in zip(widths, channels, strict=False)
        )
        initialise(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Turn (B, in_channels, *spatial) into one (B, channels[i], *spatial / 2**i) per block."""
        features = []
        for level, convolve in enumerate(self.blocks):
            x = convolve(x if level == 0 else pool_with_indices(x)[0])
            features.append(x)
        return features


class SDNetDecoder(nn.Module):
    """Unpool to the places where the encoder's maxima were, concatenate the skip, convolve."""

    def __init__(self, encoder: Encoder, classes: int, kernel_size: int | None = None) -> None:
        super().__init__()
        dims, channels = encoder.spatial_dims, encoder.channels
        self.fit = nn.ModuleList()  # unpooling needs the skip's width
        self.merge = nn.ModuleList()
        for level in reversed(range(len(channels) - 1)):
            above, here = channels[level + 1], channels[level]
            self.fit.append(
                nn.Identity() if above == here else Convolution(dims, above, here, kernel_size=1, conv_only=True)
            )
            self.merge.append(block(dims, 2 * here, here, kernel_size))
        self.classify = Convolution(dims, channels[0], classes, kernel_size=1, conv_only=True)
        initialise(self)

    def forward(self, image: Tensor, features: list[Tensor]) -> Tensor:
        """Turn the features, finest first, into logits (B, classes, *spatial)."""
        x = features[-1]
        for fit, merge, skip in zip(self.fit, self.merge, reversed(features[:-1]), strict=True):
            # The contract passes features only; the indices of the encoder's pooling follow from them.
            _, indices = pool_with_indices(skip.detach())
            unpool = F.max_unpool3d if skip.ndim == 5 else F.max_unpool2d
            x = merge(torch.cat([unpool(fit(x), indices, kernel_size=[2] * (skip.ndim - 2)), skip], dim=1))
        logits: Tensor = self.classify(x)
        return logits


def pool_with_indices(x: Tensor) -> tuple[Tensor, Tensor]:
    """Halve (B, C, *spatial) by 2x2(x2) max pooling; returns the maxima and where they were."""
    pool = F.max_pool3d if x.ndim == 5 else F.max_pool2d
    maxima, indices = pool(x, kernel_size=2, return_indices=True)
    return maxima, indices


def block(spatial_dims: int, in_channels: int, out_channels: int, kernel_size: int | None) -> nn.Module:
    """Convolve, batch-normalise, ReLU; the size stays. By default the kernel is 7 wide in 2D and 3 in 3D."""
    convolve: nn.Module = Convolution(
        spatial_dims,
        in_channels,
        out_channels,
        kernel_size=kernel_size or (7 if spatial_dims == 2 else 3),
        bias=False,
        act="relu",
        norm="batch",
        adn_ordering="NA",
    )
    return convolve
