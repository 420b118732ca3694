"""Swin: attention within windows, shifted in every second block so that neighbours meet, at ever coarser scales.

Liu, Lin, Cao, Hu, Wei, Zhang, Lin, Guo, "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", ICCV
2021, https://arxiv.org/abs/2103.14030, section 3; patches of 2 and no normalisation between stages as in Hatamizadeh et
al., "Swin UNETR", 2022, https://arxiv.org/abs/2201.01266.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Literal

import torch
from monai.networks.layers import Conv
from monai.networks.nets.swin_unetr import PatchMerging, PatchMergingV2
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.errors import InputError
from medssl.networks.encoder import Encoder
from medssl.networks.segmentation import SegmentationNetwork, check_image
from medssl.networks.unet import Norm, UNetDecoder
from medssl.networks.vit import check_heads, perceptron, split_heads

Merging = Literal["all", "monai"]


def swin(
    in_channels: int = 1,
    classes: int = 2,
    spatial_dims: int = 3,
    width: int = 48,
    depths: Sequence[int] = (2, 2, 2, 2),
    heads: Sequence[int] = (3, 6, 12, 24),
    window: int = 7,
    merging: Merging = "all",
    refine_channels: int = 15,
    norm: Norm = "instance",
) -> SegmentationNetwork:
    """Build a U-shaped network on a Swin transformer.

    Args:
        in_channels: Channels of the image.
        classes: Number of classes, the background included.
        spatial_dims: 2 or 3.
        width: Channels of the finest features; each stage doubles them. 24 is a light network.
        depths: Number of transformer blocks of each stage.
        heads: Number of attention heads of each stage; they divide its channels.
        window: Side of the windows; a smaller map is one window.
        merging: What a voxel of half the resolution is made from: "all" of its 8 neighbours; "monai" is for MONAI's
            published weights, which see two of them twice and two never.
        refine_channels: Width of the decoder's refinement at full resolution.
        norm: Normalisation in the decoder.
    """
    encoder = SwinEncoder(in_channels, spatial_dims, width, depths, heads, window, merging)
    return SegmentationNetwork(encoder, UNetDecoder(encoder, classes, refine_channels, norm))


class SwinEncoder(Encoder):
    """Patches of 2, then stages: transformer blocks, and neighbours merged into half the resolution.

    The features are the embedded patches (stride 2) and what each stage ends with (strides 4, 8, ...), normalised over
    the channels.
    """

    def __init__(
        self,
        in_channels: int,
        spatial_dims: int,
        width: int = 48,
        depths: Sequence[int] = (2, 2, 2, 2),
        heads: Sequence[int] = (3, 6, 12, 24),
        window: int = 7,
        merging: Merging = "all",
    ) -> None:
        super().__init__()
        if len(depths) != len(heads):
            raise InputError(f"depths={tuple(depths)} and heads={tuple(heads)} must name the same number of stages.")
        self.in_channels, self.spatial_dims = in_channels, spatial_dims
        self.channels = tuple(width * 2**level for level in range(len(depths) + 1))
        self.strides = tuple(2 ** (level + 1) for level in range(len(depths) + 1))
        self.patches = Conv["conv", spatial_dims](in_channels, width, kernel_size=2, stride=2)
        self.stages = nn.ModuleList()
        for channels, depth, count in zip(self.channels, depths, heads, strict=False):
            blocks = (SwinBlock(spatial_dims, channels, count, window, shifted=i % 2 == 1) for i in range(depth))
            merge = PatchMergingV2 if merging == "all" else PatchMerging
            self.stages.append(nn.Sequential(*blocks, merge(channels, spatial_dims=spatial_dims)))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Turn (B, in_channels, *spatial) into maps of strides 2, 4, 8, ..., finest first.

        Raises:
            InputError: The image has other channels or dimensions, or a size that the strides do not divide.
        """
        check_image(x, self)
        x = self.patches(x).movedim(1, -1)  # (B, *spatial / 2, width)
        features = [x]
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return [F.layer_norm(x, x.shape[-1:]).movedim(-1, 1) for x in features]


class SwinBlock(nn.Module):
    """Attention within windows, then a perceptron; each normalises its input and adds its result to it.

    Args:
        spatial_dims: 2 or 3.
        width: Channels of the map.
        heads: Number of attention heads; divides ``width``.
        window: Side of the windows; where the map is smaller, its own side.
        shifted: Move the windows by half their side, so that they cross the borders of the block before.
    """

    def __init__(self, spatial_dims: int, width: int, heads: int, window: int, shifted: bool) -> None:
        super().__init__()
        check_heads(width, heads)
        self.heads, self.window, self.shifted = heads, window, shifted
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.bias = nn.Parameter(torch.empty((2 * window - 1) ** spatial_dims, heads))  # one per offset in a window
        self.project = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = perceptron(width, 4)
        nn.init.trunc_normal_(self.bias, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Turn a map (B, *spatial, width), channels last, into one of the same shape."""
        x = x + self.attend(self.norm1(x))
        mixed: Tensor = x + self.mlp(self.norm2(x))
        return mixed

    def attend(self, x: Tensor) -> Tensor:
        """Average the values of (B, *spatial, width) within each window, weighted by similarity and offset."""
        size, axes = x.shape[1:-1], tuple(range(1, x.ndim - 1))
        window = [min(self.window, n) for n in size]
        shift = [w // 2 if self.shifted and n > w else 0 for n, w in zip(size, window, strict=True)]
        padding = [-n % w for n, w in zip(size, window, strict=True)]
        padded = [n + p for n, p in zip(size, padding, strict=True)]

        x = F.pad(x, [0, 0, *chain.from_iterable((0, p) for p in reversed(padding))])
        x = x.roll([-s for s in shift], axes)
        q, k, v = split_heads(self.qkv(partition(x, window)), self.heads)  # each (B, windows, heads, n, width / heads)
        bias = self.bias[offsets(window, self.window, x.device)].permute(2, 0, 1).to(q)  # (heads, n, n)
        if any(shift) or any(padding):
            region = regions(size, padded, shift, x.device)
            region = partition(region[None, ..., None], window)[0]  # (windows, n, 1)
            together = region == region.transpose(1, 2)
            bias = bias.masked_fill(~together[:, None], float("-inf"))  # (windows, heads, n, n)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        x = departition(self.project(attended.transpose(-3, -2).flatten(-2)), padded, window).roll(shift, axes)
        for axis, n in zip(axes, size, strict=True):
            x = x.narrow(axis, 0, n)
        return x


def partition(x: Tensor, window: Sequence[int]) -> Tensor:
    """Cut (B, *spatial, C) into windows (B, windows, prod(window), C)."""
    dims = len(window)
    for axis in reversed(range(dims)):
        x = x.unflatten(axis + 1, (-1, window[axis]))
    x = x.permute(0, *range(1, 2 * dims, 2), *range(2, 2 * dims + 1, 2), 2 * dims + 1)
    return x.flatten(dims + 1, 2 * dims).flatten(1, dims)


def departition(windows: Tensor, size: Sequence[int], window: Sequence[int]) -> Tensor:
    """Put windows (B, windows, prod(window), C) back together into (B, *size, C)."""
    dims = len(window)
    grid = [n // w for n, w in zip(size, window, strict=True)]
    x: Tensor = windows.unflatten(2, tuple(window)).unflatten(1, grid)  # (B, *grid, *window, C)
    x = x.permute(0, *chain.from_iterable((1 + axis, 1 + dims + axis) for axis in range(dims)), 2 * dims + 1)
    return x.reshape(len(x), *size, -1)


def offsets(window: Sequence[int], largest: int, device: torch.device) -> Tensor:
    """Number the offset between every two places of a window; (n, n), from 0 to (2 * largest - 1)**dims - 1."""
    places = torch.cartesian_prod(*(torch.arange(w, device=device) for w in window))  # (n, dims)
    offset = places[:, None] - places[None] + largest - 1
    number = offset[..., 0]
    for axis in range(1, len(window)):
        number = (2 * largest - 1) * number + offset[..., axis]
    return number


def regions(size: Sequence[int], padded: Sequence[int], shift: Sequence[int], device: torch.device) -> Tensor:
    """Number, on a rolled map of size ``padded``, what may attend to each other.

    Rolling brings opposite ends of the map into one window, padding brings what is not image: along each axis a place
    is 0 inside, 1 where it was rolled in from the other end, 2 where it is padding.
    """
    number = torch.zeros(*padded, dtype=torch.long, device=device)
    for axis, (n, p, s) in enumerate(zip(size, padded, shift, strict=True)):
        place = torch.arange(p, device=device)
        kind = (place >= p - s).long().masked_fill((place + s) % p >= n, 2)
        number = 3 * number + kind.view([-1 if other == axis else 1 for other in range(len(size))])
    return number
