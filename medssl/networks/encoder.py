"""The encoder contract: a network that returns its features, finest first, and says what they are."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn


class Encoder(nn.Module, ABC):
    """What is pretrained and kept. A decoder is built from these attributes alone.

    Attributes:
        channels: Number of channels of each feature map, finest first.
        strides: Stride of each feature map with respect to the input, finest first.
        spatial_dims: 2 or 3.
        in_channels: Number of channels of the input.
    """

    channels: Sequence[int]
    strides: Sequence[int]
    spatial_dims: int
    in_channels: int

    @abstractmethod
    def forward(self, x: Tensor) -> list[Tensor]:
        """Turn (B, in_channels, *spatial) into feature maps (B, channels[i], *spatial / strides[i]), finest first."""
