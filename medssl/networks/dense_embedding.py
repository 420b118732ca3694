"""A vector for each small square of a picture: an encoder's levels, narrowed, brought to one stride, and added.

As feature pyramids do it: Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017,
https://arxiv.org/abs/1612.03144, with each coarser level enlarged at once.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.errors import InputError
from medssl.networks.encoder import Encoder
from medssl.networks.segmentation import check_image


class DenseEmbedding(nn.Module):
    """Embed each cell of a picture by the encoder's levels from ``stride`` on; by its coarsest if all are finer.

    Args:
        encoder: Of pictures; any 2D one of 3 channels.
        width: Of the embeddings.
        stride: Side of a cell, pixels; a level that is coarser is enlarged, one that is finer averaged.
    """

    def __init__(self, encoder: Encoder, width: int, stride: int = 8) -> None:
        super().__init__()
        if encoder.spatial_dims != 2 or encoder.in_channels != 3:
            raise InputError(
                "Correspondence is learnt from pictures: the encoder must be 2D with 3 channels, this one is "
                f"{encoder.spatial_dims}D with {encoder.in_channels}."
            )
        self.encoder, self.stride = encoder, stride
        coarse = [level for level, known in enumerate(encoder.strides) if known >= stride]
        self.levels = coarse or [len(encoder.strides) - 1]
        # Without a bias: what all cells have in common tells none of them apart.
        self.narrow = nn.ModuleList([nn.Conv2d(encoder.channels[level], width, 1, bias=False) for level in self.levels])

    def forward(self, image: Tensor) -> Tensor:
        """Turn (B, 3, H, W), 0 to 1, into embeddings (B, width, H / stride, W / stride), of any length, in float32.

        Raises:
            InputError: The sides are no multiples of the encoder's largest stride and of ``stride``.
        """
        check_image(image, self.encoder)
        height, width = image.shape[-2:]
        if height % self.stride or width % self.stride:
            raise InputError(
                f"Embeddings have cells of {self.stride} pixels: each side must be a multiple of it, got "
                f"{height} x {width} (height x width)."
            )
        features, size = self.encoder(image), (height // self.stride, width // self.stride)
        parts = [
            _brought(narrow(features[level]).float(), size)
            for level, narrow in zip(self.levels, self.narrow, strict=True)
        ]
        return torch.stack(parts).sum(0)


def _brought(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Enlarge or average a map (B, C, h, w) to ``size``."""
    if x.shape[-2] > size[0]:
        return F.adaptive_avg_pool2d(x, size)
    return F.interpolate(x, size, mode="bilinear", align_corners=False)
