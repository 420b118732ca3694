"""ViT: an image is a sequence of patches, and each attends to all others.

Dosovitskiy, Beyer, Kolesnikov, Weissenborn, Zhai, Unterthiner, Dehghani, Minderer, Heigold, Gelly, Uszkoreit, Houlsby,
"An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale", ICLR 2021,
https://arxiv.org/abs/2010.11929, section 3.1. As in masked autoencoders, the position embedding is made of fixed sines
and cosines, so that any size of image has one.
"""

from collections.abc import Sequence

import torch
from monai.networks.layers import Conv
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.errors import InputError
from medssl.networks.encoder import Encoder
from medssl.networks.segmentation import SegmentationNetwork, check_image
from medssl.networks.unet import Norm, UNetDecoder


def vit(
    in_channels: int = 1,
    classes: int = 2,
    spatial_dims: int = 3,
    patch: int = 16,
    width: int = 384,
    depth: int = 12,
    heads: int = 6,
    mlp_ratio: float = 4,
    refine_channels: int = 15,
    norm: Norm = "instance",
) -> SegmentationNetwork:
    """Build a U-shaped network on a ViT; the defaults are ViT-S.

    Args:
        in_channels: Channels of the image.
        classes: Number of classes, the background included.
        spatial_dims: 2 or 3.
        patch: Side of a patch.
        width: Size of a token.
        depth: Number of transformer blocks.
        heads: Number of attention heads; divides ``width``.
        mlp_ratio: Hidden size of a block's perceptron in terms of ``width``.
        refine_channels: Width of the decoder's refinement at full resolution.
        norm: Normalisation in the decoder.
    """
    encoder = ViTEncoder(in_channels, spatial_dims, patch, width, depth, heads, mlp_ratio)
    return SegmentationNetwork(encoder, UNetDecoder(encoder, classes, refine_channels, norm))


class ViTEncoder(Encoder):
    """One feature map, of stride ``patch``: the tokens back at their places.

    ``forward`` is ``embed``, then ``encode``. A method that hides patches calls them itself, and passes the visible
    tokens alone to ``encode``.
    """

    def __init__(
        self,
        in_channels: int,
        spatial_dims: int,
        patch: int = 16,
        width: int = 384,
        depth: int = 12,
        heads: int = 6,
        mlp_ratio: float = 4,
    ) -> None:
        super().__init__()
        self.in_channels, self.spatial_dims = in_channels, spatial_dims
        self.channels, self.strides = (width,), (patch,)
        self.patches = Conv["conv", spatial_dims](in_channels, width, kernel_size=patch, stride=patch)
        self.blocks = nn.ModuleList(TransformerBlock(width, heads, mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        initialise_transformer(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Turn (B, in_channels, *spatial) into one map (B, width, *spatial / patch).

        Raises:
            InputError: The image has other channels or dimensions, or a size that the patch does not divide.
        """
        tokens = self.encode(self.embed(x))
        return [tokens.transpose(1, 2).unflatten(2, self.grid(x))]

    def grid(self, x: Tensor) -> tuple[int, ...]:
        """Count the patches of an image (B, in_channels, *spatial) along each axis."""
        return tuple(n // self.strides[0] for n in x.shape[2:])

    def embed(self, x: Tensor) -> Tensor:
        """Turn (B, in_channels, *spatial) into tokens (B, N, width) with their positions, the last axis fastest."""
        check_image(x, self)
        tokens: Tensor = self.patches(x).flatten(2).transpose(1, 2)  # (B, N, width)
        return tokens + sine_cosine(self.grid(x), tokens.shape[2], x.device).to(tokens.dtype)

    def encode(self, tokens: Tensor) -> Tensor:
        """Run the blocks and the last normalisation on any number of tokens (B, N, width)."""
        for block in self.blocks:
            tokens = block(tokens)
        normalised: Tensor = self.norm(tokens)
        return normalised


class TransformerBlock(nn.Module):
    """Attention, then a perceptron; each normalises its input and adds its result to it.

    Args:
        width: Size of a token.
        heads: Number of attention heads; divides ``width``.
        mlp_ratio: Hidden size of the perceptron in terms of ``width``.
    """

    def __init__(self, width: int, heads: int, mlp_ratio: float = 4) -> None:
        super().__init__()
        check_heads(width, heads)
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = perceptron(width, mlp_ratio)

    def forward(self, x: Tensor) -> Tensor:
        """Turn tokens (B, N, width) into as many."""
        x = x + self.attend(self.norm1(x))
        mixed: Tensor = x + self.mlp(self.norm2(x))
        return mixed

    def attend(self, x: Tensor) -> Tensor:
        """Replace each of the tokens (B, N, width) by an average of all values, weighted by similarity."""
        q, k, v = split_heads(self.qkv(x), self.heads)  # each (B, heads, N, width / heads)
        attended: Tensor = self.project(F.scaled_dot_product_attention(q, k, v).transpose(-3, -2).flatten(-2))
        return attended


def split_heads(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Turn (..., N, 3 C) into queries, keys and values, each (..., heads, N, C / heads)."""
    q, k, v = qkv.unflatten(-1, (3, heads, -1)).transpose(-4, -2).unbind(-3)
    return q, k, v


def check_heads(width: int, heads: int) -> None:
    """Check that the heads can share the channels.

    Raises:
        InputError: They cannot.
    """
    if width % heads:
        raise InputError(f"{heads} attention heads cannot share {width} channels: choose a multiple of {heads}.")


def perceptron(width: int, ratio: float) -> nn.Sequential:
    """Build a block's perceptron: one hidden layer of ``ratio * width`` with GELU."""
    hidden = round(ratio * width)
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))


def initialise_transformer(network: nn.Module) -> None:
    """Draw weights as Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks".

    AISTATS 2010, eq. 16; a patch embedding is a linear layer on the voxels of a patch; biases are 0.
    """
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d):
            nn.init.xavier_uniform_(module.weight.flatten(1))
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def sine_cosine(grid: Sequence[int], width: int, device: torch.device | None = None) -> Tensor:
    """Embed the places of a grid; returns (prod(grid), width), the last axis of the grid fastest.

    Each axis has an equal share of the channels, half sines and half cosines of the index, with the frequencies of
    Vaswani et al., "Attention Is All You Need", NeurIPS 2017, section 3.5. Channels that cannot be shared stay 0.
    """
    count = width // (2 * len(grid))
    frequencies = 10_000.0 ** -(torch.arange(count, device=device) / count)
    places = torch.cartesian_prod(*(torch.arange(n, device=device) for n in grid))  # (N, dims)
    angles = places[:, :, None] * frequencies  # (N, dims, count)
    embedding = torch.cat([angles.sin(), angles.cos()], dim=2).flatten(1)
    return F.pad(embedding, (0, width - embedding.shape[1]))
