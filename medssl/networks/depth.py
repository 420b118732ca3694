"""Depth and pose from pictures: decoders on any encoder, as in Monodepth2.

Godard, Mac Aodha, Firman, Brostow, "Digging Into Self-Supervised Monocular Depth Estimation", ICCV 2019,
https://arxiv.org/abs/1806.01260, appendix, tables of the networks: ELU, nearest-neighbour up-sampling, reflection
padding, and a sigmoid at each of the four finest scales.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.errors import InputError
from medssl.networks.encoder import Encoder


class DepthNetwork(nn.Module):
    """An encoder and a decoder that gives a map between 0 and 1 at each of several scales.

    Args:
        encoder: Of pictures; any 2D one.
        maps: Maps per scale: 1 for disparity or depth, 2 for the disparities of both cameras.
        scales: Number of scales; the first is the picture's own size, each next one half of it.
        widths: Channels of the decoder, finest first; the last serves all coarser levels.
        refine: Each scale tells what differs from the next coarser one's map, so that it begins where that has come to.
            Where each scale has a loss of its own that only sees what is near, the finest would else find nothing.
    """

    def __init__(
        self,
        encoder: Encoder,
        maps: int = 1,
        scales: int = 4,
        widths: Sequence[int] = (16, 32, 64, 128, 256),
        refine: bool = False,
    ) -> None:
        super().__init__()
        if encoder.spatial_dims != 2:
            raise InputError(
                f"Depth is learnt from pictures: the encoder must be 2D, this one is {encoder.spatial_dims}D."
            )
        self.encoder, self.scales = encoder, scales
        self.decoder = DepthDecoder(encoder, maps, scales, widths, refine)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Turn (B, 3, H, W), 0 to 1, into maps (B, maps, H / 2^s, W / 2^s) between 0 and 1, finest first.

        Raises:
            InputError: The encoder's strides do not divide the picture.
        """
        stride = max(self.encoder.strides)
        if any(n % stride for n in image.shape[2:]):
            raise InputError(
                f"This depth network takes pictures whose sides are multiples of {stride}, got "
                f"{tuple(image.shape[2:])} (height, width)."
            )
        return cast(list[Tensor], self.decoder(self.encoder(standardised(image))))


class DepthDecoder(nn.Module):
    """Up-sample by 2, meet the encoder's features of that scale where there are some, convolve; a sigmoid per scale."""

    def __init__(self, encoder: Encoder, maps: int, scales: int, widths: Sequence[int], refine: bool = False) -> None:
        super().__init__()
        self.refine = refine
        self.skips = {stride: level for level, stride in enumerate(encoder.strides[:-1])}
        self.stride, self.scales = encoder.strides[-1], scales
        self.blocks, self.heads = nn.ModuleDict(), nn.ModuleDict()
        before, stride = encoder.channels[-1], self.stride
        while stride > 1:
            stride //= 2
            scale = stride.bit_length() - 1
            width = widths[min(scale, len(widths) - 1)]
            skip = encoder.channels[self.skips[stride]] if stride in self.skips else 0
            self.blocks[str(stride)] = nn.ModuleList([_convolution(before, width), _convolution(width + skip, width)])
            if scale < scales:
                self.heads[str(stride)] = nn.Conv2d(width, maps, 3, padding=1, padding_mode="reflect")
            before = width

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Turn features, finest first, into maps between 0 and 1, finest first."""
        x, stride, maps = features[-1], self.stride, list[Tensor]()
        while stride > 1:
            stride //= 2
            narrow, merge = cast(nn.ModuleList, self.blocks[str(stride)])
            x = F.interpolate(narrow(x), scale_factor=2, mode="nearest")
            if stride in self.skips:
                x = torch.cat([x, features[self.skips[stride]]], dim=1)
            x = merge(x)
            if str(stride) in self.heads:
                told = self.heads[str(stride)](x).float()
                if self.refine and maps:
                    told = told + F.interpolate(maps[-1], scale_factor=2, mode="bilinear", align_corners=False)
                maps.append(told)
        return [told.sigmoid() for told in maps[::-1]]


class PoseNetwork(nn.Module):
    """Where the camera of one picture stands in that of another, from the two side by side.

    Args:
        encoder: Of both pictures: 6 channels.
        scale: The outputs are multiplied by it, so that training starts from a camera that hardly moves.
        width: Channels of the head.
    """

    def __init__(self, encoder: Encoder, scale: float = 0.01, width: int = 256) -> None:
        super().__init__()
        self.encoder, self.scale = encoder, scale
        self.head = nn.Sequential(
            nn.Conv2d(encoder.channels[-1], width, 1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 6, 1),
        )

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Turn pictures a and b (B, 3, H, W) into (B, 6), what takes points from a's camera to b's.

        The first three are a rotation, its axis times its angle; the last three a translation.
        """
        return self.motion(self.features(a, b))

    def features(self, a: Tensor, b: Tensor) -> list[Tensor]:
        """Encode pictures a and b (B, 3, H, W), side by side."""
        return cast(list[Tensor], self.encoder(standardised(torch.cat([a, b], dim=1))))

    def motion(self, features: Sequence[Tensor]) -> Tensor:
        """Tell the motion (B, 6) from the features of two pictures."""
        vector: Tensor = self.scale * self.head(features[-1]).float().mean((2, 3))
        return vector


def standardised(image: Tensor) -> Tensor:
    """Bring pictures, 0 to 1, to a mean near 0 and a standard deviation near 1, by those of photographs."""
    return (image - 0.45) / 0.225


def _convolution(in_channels: int, out_channels: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, padding=1, padding_mode="reflect"), nn.ELU())
