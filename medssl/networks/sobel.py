"""An encoder that sees edges in place of intensities, as DeepCluster's does.

Caron et al., "Deep Clustering for Unsupervised Learning of Visual Features", ECCV 2018,
https://arxiv.org/abs/1807.05520, section 3.3, where fixed Sobel filters take colour away and raise local contrast.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from medssl.errors import InputError
from medssl.networks.encoder import Encoder

EDGES = 2  # channels: along x and along y


class SobelEncoder(Encoder):
    """Hand the edges of images to an encoder; whoever uses it gives it images, and need not know.

    Args:
        encoder: The network, for 2D, with 2 input channels.
        in_channels: Number of channels of the images.

    Raises:
        InputError: The encoder is for volumes, or for another number of channels.
    """

    def __init__(self, encoder: Encoder, in_channels: int) -> None:
        super().__init__()
        if (encoder.spatial_dims, encoder.in_channels) != (2, EDGES):
            raise InputError(
                f"Sobel's filters make {EDGES} channels of 2D images; the encoder is for {encoder.spatial_dims}D "
                f"images of {encoder.in_channels} channels. Leave sobel off."
            )
        self.encoder, self.in_channels, self.spatial_dims = encoder, in_channels, 2
        self.channels, self.strides = encoder.channels, encoder.strides

    def forward(self, x: Tensor) -> list[Tensor]:
        """Turn (B, in_channels, X, Y) into the encoder's feature maps of its edges, finest first."""
        features: list[Tensor] = self.encoder(edges(x))
        return features


def edges(image: Tensor) -> Tensor:
    """Differentiate the mean channel of (B, C, X, Y) along both axes by Sobel's filters; (B, 2, X, Y), per pixel."""
    along_x = torch.tensor([[-1.0, -2.0, -1.0], [0.0, 0.0, 0.0], [1.0, 2.0, 1.0]], device=image.device) / 8
    kernels = torch.stack([along_x, along_x.T]).unsqueeze(1).to(image.dtype)  # (2, 1, 3, 3)
    grey = F.pad(image.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    return F.conv2d(grey, kernels)
