"""Optical flow of two pictures, coarse to fine, on any encoder: features, their correlation, and warping.

Sun, Yang, Liu, Kautz, "PWC-Net: CNNs for Optical Flow Using Pyramid, Warping, and Cost Volume", CVPR 2018,
https://arxiv.org/abs/1709.02371, section 3, without the dense connections; features are normalised before they are
compared, as in Jonschkowski et al., "What Matters in Unsupervised Optical Flow", ECCV 2020,
https://arxiv.org/abs/2006.04902; one estimator serves all levels, as in Liu et al., "Learning by Analogy", CVPR 2020,
https://arxiv.org/abs/2003.13045.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.errors import InputError
from medssl.geometry import in_float32, warp
from medssl.networks.depth import standardised
from medssl.networks.encoder import Encoder
from medssl.networks.segmentation import check_image, initialise

_FINEST = 4  # stride of the finest level whose flow is estimated; what is finer is up-sampled
_DILATIONS = (1, 2, 4, 8, 16)  # of the context network
_FIRST_MOTION = 1e-3  # deviation of the first weights of what predicts flow: training starts from hardly any motion


class FlowNetwork(nn.Module):
    """An encoder that sees both pictures alike, and a decoder that finds the features of one in the other.

    Flow is estimated at the encoder's levels from stride 4 on (of an encoder that has none, at its coarsest) and
    up-sampled from the finest of them. Motion of up to ``radius`` times the largest stride is found at once.

    Args:
        encoder: Of pictures; any 2D one of 3 channels.
        radius: How far each level looks for a feature, in its own pixels.
        width: Channels that the features of a picture are narrowed to before the estimator sees them.
        widths: Channels of the estimator's convolutions.
        context: Channels of the five convolutions, more and more dilated, that refine the finest flow.
        shared: One estimator for all levels; otherwise one for each.
    """

    def __init__(
        self,
        encoder: Encoder,
        radius: int = 4,
        width: int = 32,
        widths: Sequence[int] = (96, 64, 32),
        context: Sequence[int] = (64, 64, 64, 48, 32),
        shared: bool = True,
    ) -> None:
        super().__init__()
        if encoder.spatial_dims != 2 or encoder.in_channels != 3:
            raise InputError(
                "Flow is learnt from pictures: the encoder must be 2D with 3 channels, this one is "
                f"{encoder.spatial_dims}D with {encoder.in_channels}."
            )
        if radius < 1 or len(context) != len(_DILATIONS) or not widths:
            raise InputError(
                f"A flow network looks at least 1 pixel far and has at least one width and {len(_DILATIONS)} of "
                f"context; got radius {radius}, {len(widths)} widths and {len(context)} of context."
            )
        self.encoder = encoder
        self.levels = [level for level, stride in enumerate(encoder.strides) if stride >= _FINEST] or [-1]
        self.stride = encoder.strides[self.levels[0]]
        self.decoder = FlowDecoder(
            [encoder.channels[level] for level in self.levels], radius, width, widths, context, shared
        )

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Turn pictures a and b (B, 3, H, W), 0 to 1, into the flow from a to b (B, 2, H, W), float32, pixels.

        Raises:
            InputError: The pictures have other channels, or sides that the encoder's strides do not divide.
        """
        features, count = self.features(a, b), len(a)
        flow: Tensor = self.decoder([f[:count] for f in features], [f[count:] for f in features])
        return resized_flow(flow, (a.shape[2], a.shape[3]))

    def both_ways(self, a: Tensor, b: Tensor) -> Tensor:
        """Give the flows from a to b and then those from b to a, (2B, 2, H, W), each picture encoded once.

        Raises:
            InputError: As ``forward``.
        """
        features = self.features(a, b)
        return resized_flow(self.decoder(features, [f.roll(len(a), 0) for f in features]), (a.shape[2], a.shape[3]))

    def features(self, a: Tensor, b: Tensor) -> list[Tensor]:
        """Encode pictures (B, 3, H, W) to normalised features (2B, C, h, w) of each level, finest first, a's first."""
        pictures = torch.cat([a, b])
        check_image(pictures, self.encoder)
        features = self.encoder(standardised(pictures))
        return [normalised(features[level]) for level in self.levels]


class FlowDecoder(nn.Module):
    """Add to the flow, level by level, what comparing the first features with the warped second ones tells.

    Args:
        channels: Of the features of each level, finest first.
        radius: See ``FlowNetwork``, as the others.
        width: Of the narrowed features.
        widths: Of the estimator.
        context: Of the context network.
        shared: One estimator for all levels.
    """

    def __init__(
        self,
        channels: Sequence[int],
        radius: int,
        width: int,
        widths: Sequence[int],
        context: Sequence[int],
        shared: bool,
    ) -> None:
        super().__init__()
        self.radius = radius
        seen = (2 * radius + 1) ** 2 + width + 2  # correlation, features, flow so far
        self.narrow = nn.ModuleList([_convolution(before, width, kernel_size=1) for before in channels])
        self.estimators = nn.ModuleList([_estimator(seen, widths) for _ in range(1 if shared else len(channels))])
        self.heads = nn.ModuleList([FlowHead(widths[-1]) for _ in self.estimators])
        steps = pairwise([widths[-1] + 2, *context])
        convolutions = [_convolution(*ends, dilation=d) for ends, d in zip(steps, _DILATIONS, strict=True)]
        self.context = nn.Sequential(*convolutions, FlowHead(context[-1]))
        initialise(self)
        for module in self.modules():
            if isinstance(module, FlowHead):
                nn.init.normal_(module.convolve.weight, std=_FIRST_MOTION)

    def forward(self, first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
        """Turn the features of both pictures, each finest first, into the finest level's flow, in its own pixels."""
        coarsest = len(first) - 1
        flow = first[-1].new_zeros((len(first[-1]), 2, *first[-1].shape[2:]), dtype=torch.float32)
        for level in range(coarsest, -1, -1):
            f_a, f_b = first[level], second[level]
            if level < coarsest:
                flow = resized_flow(flow, (f_a.shape[2], f_a.shape[3]))
                f_b = warp(f_b, flow, "zeros").to(f_b.dtype)
            cost = F.leaky_relu(correlation(f_a, f_b, self.radius), 0.1)
            x = torch.cat([part.to(cost.dtype) for part in (cost, self.narrow[level](f_a), flow)], dim=1)
            own = min(level, len(self.estimators) - 1)
            x = self.estimators[own](x)
            flow = flow + self.heads[own](x)
        refined: Tensor = flow + self.context(torch.cat([x, flow.to(x.dtype)], dim=1))
        return refined


class FlowHead(nn.Module):
    """The last convolution, out of mixed precision: 16 bits would round a flow of 20 pixels to an eighth of one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolve = nn.Conv2d(channels, 2, 3, padding=1)

    @in_float32
    def forward(self, x: Tensor) -> Tensor:
        """Turn (B, channels, h, w) into flow (B, 2, h, w), float32."""
        flow: Tensor = self.convolve(x)
        return flow


def correlation(a: Tensor, b: Tensor, radius: int = 4) -> Tensor:
    """Compare each feature of a with those of b around its place: the cost volume, eq. 2 of PWC-Net.

    A row of a times a row of b is one matrix product, of which the diagonals near the middle are kept: less time than
    adding up shifted products, and no more memory than one such product at once.

    Args:
        a: (B, C, H, W).
        b: The same.
        radius: How far, pixels.

    Returns:
        Mean over the channels of a[y, x] b[y + dy, x + dx], (B, (2 radius + 1)^2, H, W), for dy and within it dx from
        -radius to radius; 0 outside of b.
    """
    height, side = a.shape[2], 2 * radius + 1
    rows_a = a.permute(0, 2, 3, 1) / a.shape[1]  # (B, H, W, C)
    rows_b = F.pad(b, [radius] * 4).permute(0, 2, 1, 3)  # (B, H + 2 radius, C, W + 2 radius)
    found = [_diagonals(rows_a @ rows_b[:, dy : dy + height], side) for dy in range(side)]
    return torch.stack(found, dim=3).flatten(3).permute(0, 3, 1, 2)  # of (B, H, W, side, side)


def _diagonals(products: Tensor, count: int) -> Tensor:
    """Read the first diagonals of (..., W, W + count - 1): entry d of row x is its entry x + d, (..., W, count)."""
    products = products.contiguous()
    *outer, down, right = products.stride()
    diagonals = products.as_strided((*products.shape[:-1], count), (*outer, down + right, right))
    return diagonals.clone()  # lets the products go


def normalised(features: Tensor) -> Tensor:
    """Bring the features of both pictures of each pair together to mean 0 and deviation 1.

    Args:
        features: (2B, C, h, w), those of the first pictures and then those of the second.
    """
    pairs = torch.cat(features.chunk(2), dim=1)  # (B, 2C, h, w)
    return torch.cat(F.group_norm(pairs, 1).to(features.dtype).chunk(2, dim=1))


def resized_flow(flow: Tensor, size: tuple[int, int]) -> Tensor:
    """Give flow (B, 2, h, w) at another size (height, width), in the pixels of that size."""
    if flow.shape[2:] == size:
        return flow
    scale = flow.new_tensor([size[1] / flow.shape[3], size[0] / flow.shape[2]]).view(1, 2, 1, 1)
    return scale * F.interpolate(flow, size, mode="bilinear", align_corners=False)


def _estimator(in_channels: int, widths: Sequence[int]) -> nn.Module:
    return nn.Sequential(*[_convolution(before, after) for before, after in pairwise([in_channels, *widths])])


def _convolution(in_channels: int, out_channels: int, kernel_size: int = 3, dilation: int = 1) -> nn.Module:
    padding = dilation * (kernel_size // 2)
    convolve = nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, dilation=dilation)
    return nn.Sequential(convolve, nn.LeakyReLU(0.1, inplace=True))
