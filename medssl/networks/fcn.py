"""FCN-8s: classify coarse features, then add finer ones on the way back to full resolution.

Long, Shelhamer, Darrell, "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015,
https://arxiv.org/abs/1411.4038, section 4.2.
"""

from collections.abc import Sequence

from monai.networks.blocks import Convolution
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.networks.encoder import Encoder
from medssl.networks.segmentation import SegmentationNetwork, initialise
from medssl.networks.unet import convolution


def fcn(
    in_channels: int = 1,
    classes: int = 2,
    spatial_dims: int = 3,
    channels: Sequence[int] = (16, 32, 64, 128, 256, 256),
    finest: int = 3,
) -> SegmentationNetwork:
    """Build an FCN.

    Args:
        in_channels: Channels of the image.
        classes: Number of classes, the background included.
        spatial_dims: 2 or 3.
        channels: Width of each level, finest first; each level but the first is at half the resolution of the one
            before.
        finest: The finest level whose classification is added: 3 is the paper's stride 8 (FCN-8s).
    """
    encoder = FCNEncoder(in_channels, spatial_dims, channels)
    return SegmentationNetwork(encoder, FCNDecoder(encoder, classes, finest))


class FCNEncoder(Encoder):
    """Two convolutions, then max pooling, per level."""

    def __init__(
        self, in_channels: int, spatial_dims: int, channels: Sequence[int] = (16, 32, 64, 128, 256, 256)
    ) -> None:
        super().__init__()
        self.in_channels, self.spatial_dims, self.channels = in_channels, spatial_dims, tuple(channels)
        self.strides = tuple(2**level for level in range(len(channels)))
        widths = [in_channels, *channels]
        self.levels = nn.ModuleList(
            nn.Sequential(
                convolution(spatial_dims, before, after, "batch"), convolution(spatial_dims, after, after, "batch")
            )
            for before, after in zip(widths, channels, strict=False)
        )
        initialise(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Turn (B, in_channels, *spatial) into one (B, channels[i], *spatial / 2**i) per level."""
        pool = F.max_pool3d if self.spatial_dims == 3 else F.max_pool2d
        features = []
        for index, level in enumerate(self.levels):
            x = level(x if index == 0 else pool(x, 2))
            features.append(x)
        return features


class FCNDecoder(nn.Module):
    """Sum the classifications of the coarse levels, each up-sampled to the next; interpolate the last to full size."""

    def __init__(self, encoder: Encoder, classes: int, finest: int) -> None:
        super().__init__()
        used = encoder.channels[finest:]
        if not used:
            raise ValueError(
                f"finest={finest} needs at least {finest + 1} levels, the encoder has {len(encoder.channels)}."
            )
        self.classify = nn.ModuleList(
            Convolution(encoder.spatial_dims, width, classes, kernel_size=1, conv_only=True) for width in used
        )
        self.finest = finest
        initialise(self)

    def forward(self, image: Tensor, features: list[Tensor]) -> Tensor:
        """Turn the features, finest first, into logits (B, classes, *spatial)."""
        mode = "trilinear" if image.ndim == 5 else "bilinear"
        scores = [classify(f) for classify, f in zip(self.classify, features[self.finest :], strict=True)]
        x: Tensor = scores[-1]
        for score in reversed(scores[:-1]):
            x = score + F.interpolate(x, size=score.shape[2:], mode=mode)
        return F.interpolate(x, size=image.shape[2:], mode=mode)
