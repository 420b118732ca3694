"""Masked autoencoder: hide most of an image, and learn to say what was there from the little that is left.

He, Chen, Xie, Li, Dollár, Girshick, "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022,
https://arxiv.org/abs/2111.06377, section 3; for convolutions, Tian, Jiang, Diao, Lin, Wang, Yuan, "Designing BERT for
Convolutional Networks: Sparse and Hierarchical Masked Modeling", ICLR 2023, https://arxiv.org/abs/2301.03580,
section 3.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _NormBase

from medssl.augment import generators, uniform
from medssl.errors import InputError
from medssl.method import Method
from medssl.networks.encoder import Encoder
from medssl.networks.sobel import SobelEncoder
from medssl.networks.unet import UNetDecoder
from medssl.networks.vit import TransformerBlock, ViTEncoder, initialise_transformer, sine_cosine
from medssl.sample import Batch, require


class MaskedAutoencoder(Method):
    """Minimise the mean squared error at the voxels of hidden blocks.

    A ViT sees the visible tokens only, and a small transformer sees those it makes of them beside mask tokens. Other
    encoders see an image with holes: before each convolution the holes are emptied again, and a normalisation counts
    visible places alone; a U-Net decoder gets the features with mask tokens in the holes.

    Args:
        encoder: The network to pretrain, for 2D or 3D images.
        block: Side of a block, voxels; for a ViT a multiple of its patch.
        ratio: Share of the blocks that are hidden.
        normalised_targets: Predict each block with its own mean taken off and its own standard deviation brought to 1.
        decoder_width: Size of the decoder's tokens, for a ViT.
        decoder_depth: Number of the decoder's blocks, for a ViT.
        decoder_heads: Number of the decoder's attention heads, for a ViT.
    """

    def __init__(
        self,
        encoder: Encoder,
        block: int = 16,
        ratio: float = 0.75,
        normalised_targets: bool = False,
        decoder_width: int = 512,
        decoder_depth: int = 8,
        decoder_heads: int = 16,
    ) -> None:
        super().__init__()
        if not 0 < ratio < 1:
            raise InputError(f"ratio={ratio:g} is the share of the blocks that are hidden: between 0 and 1.")
        if isinstance(encoder, SobelEncoder):
            raise InputError(
                "A masked autoencoder hides blocks from the network itself, which must see voxels, not their edges: "
                "leave sobel off."
            )
        self.encoder = encoder
        self.block, self.ratio, self.normalised_targets = block, ratio, normalised_targets
        self.decoder: TokenDecoder | FilledDecoder
        if isinstance(encoder, ViTEncoder):
            if block % encoder.strides[0]:
                raise InputError(
                    f"Blocks of {block} cannot be hidden from a ViT with patches of {encoder.strides[0]}: choose a "
                    "block that is a multiple of the patch."
                )
            self.decoder = TokenDecoder(encoder, decoder_width, decoder_depth, decoder_heads)
        else:
            self.decoder = FilledDecoder(encoder)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Error of a batch at its hidden voxels; it needs image and seed."""
        require(batch, "image", "seed")
        image = batch["image"].float()
        visible = self.visible(image, batch["seed"])
        error = (self.reconstruct(image, visible) - self.target(image)).square().mean(1, keepdim=True)
        hidden = 1 - at(visible, image.shape[2:])
        return {"loss": (error * hidden).sum() / hidden.sum()}

    def visible(self, image: Tensor, seeds: Tensor) -> Tensor:
        """Draw which blocks of (B, C, *spatial) stay visible: (B, 1, *spatial / block), 1 or 0; as many in each image.

        Raises:
            InputError: The image is no multiple of the block, or has too few of them.
        """
        size = tuple(image.shape[2:])
        self.check(0, image.shape[1], size)
        grid = tuple(n // self.block for n in size)
        rank = uniform(0, 1, (prod(grid),), generators(seeds), image).argsort(1).argsort(1)
        return (rank < self._kept(grid)).to(image.dtype).view(-1, 1, *grid)

    def reconstruct(self, image: Tensor, visible: Tensor) -> Tensor:
        """Predict all of an image (B, C, *spatial), float32, from its ``visible`` blocks (B, 1, *spatial / block)."""
        image = image * at(visible, image.shape[2:])
        encoder = self.encoder
        if isinstance(encoder, ViTEncoder):
            grid = encoder.grid(image)
            shown = places(at(visible, grid))  # (B, n)
            tokens = encoder.embed(image)
            latent = encoder.encode(tokens.gather(1, shown.unsqueeze(2).expand(-1, -1, tokens.shape[2])))
            predicted: Tensor = self.decoder(latent, shown, grid)
        else:
            with sparse(encoder, visible):
                features = encoder(image)
            predicted = self.decoder(image, features, visible)
        return predicted.float()

    def target(self, image: Tensor) -> Tensor:
        """Give what is to be predicted of (B, C, *spatial)."""
        if not self.normalised_targets:
            return image
        mean, deviation = block_statistics(image, self.block)
        return (image - mean) / deviation

    def check(self, images: int, channels: int, patch_size: Sequence[int]) -> None:
        """Refuse patches that are not made of blocks, or of too few to hide some and show some."""
        size, grid = tuple(patch_size), tuple(n // self.block for n in patch_size)
        if any(n % self.block for n in size):
            raise InputError(
                f"A patch of {size} cannot be cut into blocks of {self.block}: choose a patch of "
                f"{tuple(-(-n // self.block) * self.block for n in size)}, or another block."
            )
        if not 0 < self._kept(grid) < prod(grid):
            raise InputError(
                f"Hiding {self.ratio:g} of the {prod(grid)} blocks of {self.block} that make a patch of {size} leaves "
                f"{self._kept(grid)} of them visible: choose a larger patch or a smaller block."
            )

    def _kept(self, grid: Sequence[int]) -> int:
        return prod(grid) - round(self.ratio * prod(grid))

    @torch.no_grad()
    def show(self, batch: Batch) -> dict[str, Tensor]:
        """Give the visible blocks, the image, and the image with what the network puts in place of the others."""
        image = batch["image"].float()
        visible = self.visible(image, batch["seed"])
        shown = at(visible, image.shape[2:])
        predicted = self.reconstruct(image, visible)
        if self.normalised_targets:
            mean, deviation = block_statistics(image, self.block)
            predicted = predicted * deviation + mean
        return {"input": image * shown, "target": image, "prediction": torch.where(shown > 0, image, predicted)}


class TokenDecoder(nn.Module):
    """Put a mask token wherever a token is missing, run a few transformer blocks, and turn each token into voxels."""

    def __init__(self, encoder: ViTEncoder, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.in_channels, self.patch = encoder.in_channels, encoder.strides[0]
        self.embed = nn.Linear(encoder.channels[0], width)
        self.mask_token = nn.Parameter(torch.empty(1, 1, width))
        self.blocks = nn.ModuleList(TransformerBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.predict = nn.Linear(width, self.in_channels * self.patch**encoder.spatial_dims)
        initialise_transformer(self)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, latent: Tensor, shown: Tensor, grid: Sequence[int]) -> Tensor:
        """Turn visible tokens (B, n, C), of the places ``shown`` (B, n), into images (B, channels, *grid * patch)."""
        x = self.embed(latent)  # (B, n, width)
        missing = self.mask_token.to(x.dtype).expand(len(x), prod(grid), -1)
        x = missing.scatter(1, shown.unsqueeze(2).expand_as(x), x)
        x = x + sine_cosine(grid, x.shape[2], x.device).to(x.dtype)
        for block in self.blocks:
            x = block(x)
        return unpatch(self.predict(self.norm(x)), grid, self.in_channels, self.patch)


class FilledDecoder(nn.Module):
    """Fill the holes of each feature map with a mask token of its own, then decode as a U-Net does."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        shapes = [(1, width, *[1] * encoder.spatial_dims) for width in encoder.channels]
        self.mask_tokens = nn.ParameterList(nn.Parameter(0.02 * torch.randn(shape)) for shape in shapes)
        self.decoder = UNetDecoder(encoder, classes=encoder.in_channels)

    def forward(self, image: Tensor, features: list[Tensor], visible: Tensor) -> Tensor:
        """Turn an image with holes and its features into an image (B, C, *spatial)."""
        filled = [
            torch.where(at(visible, feature.shape[2:]) > 0, feature, token.to(feature.dtype))
            for feature, token in zip(features, self.mask_tokens, strict=True)
        ]
        decoded: Tensor = self.decoder(image, filled)
        return decoded


@contextmanager
def sparse(encoder: nn.Module, visible: Tensor) -> Iterator[None]:
    """Let an encoder see visible places alone, for as long as the context lasts.

    Convolutions read 0 at hidden places, so that what is visible does not spread into the holes from layer to layer.
    Normalisations take their statistics over visible places, and give 0 at the others; else the holes would count as
    tissue, and the statistics would not be those of whole images. Where one place holds several blocks, it is visible
    if one of them is, and normalised as usual.

    Args:
        encoder: Made of torch's convolutions and normalisations; what else there is works as always.
        visible: (B, 1, *blocks), 1 or 0; as many in each image.
    """
    waiting: dict[nn.Module, tuple[Tensor, torch.Size]] = {}  # what a normalisation's output is to be put back to

    def empty_holes(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0] * at(visible, inputs[0].shape[2:]).to(inputs[0].dtype),)

    def gather(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        x = inputs[0]
        if any(n < blocks for n, blocks in zip(x.shape[2:], visible.shape[2:], strict=True)):
            return None
        shown = places(at(visible, x.shape[2:])).unsqueeze(1).expand(-1, x.shape[1], -1)  # (B, C, n)
        waiting[module] = shown, x.shape
        return (x.flatten(2).gather(2, shown).view(*shown.shape, *[1] * (x.ndim - 3)),)

    def scatter(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        if module not in waiting:
            return None
        shown, shape = waiting.pop(module)
        flat = output.new_zeros(*shape[:2], prod(shape[2:])).scatter(2, shown, output.flatten(2))
        return flat.view(shape)

    hooks: list[Any] = []
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            hooks.append(module.register_forward_pre_hook(empty_holes))
        elif isinstance(module, _NormBase | nn.GroupNorm):
            hooks += [module.register_forward_pre_hook(gather), module.register_forward_hook(scatter)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def at(visible: Tensor, size: Sequence[int]) -> Tensor:
    """Say what is visible in another resolution; (B, 1, *blocks) becomes (B, 1, *size).

    A place that holds several blocks is visible if one of them is.
    """
    finest = [max(n, blocks) for n, blocks in zip(size, visible.shape[2:], strict=True)]
    fine = F.interpolate(visible, finest, mode="nearest")
    if finest == list(size):
        return fine
    pool = F.adaptive_max_pool3d if visible.ndim == 5 else F.adaptive_max_pool2d
    coarse: Tensor = pool(fine, list(size))
    return coarse


def places(shown: Tensor) -> Tensor:
    """Number the visible places of (B, 1, *size), as many in each image: (B, n), rising, the last axis fastest."""
    flat = shown.flatten(1)
    return torch.nonzero(flat)[:, 1].view(len(flat), -1)


def block_statistics(image: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Give mean and standard deviation, over all channels, of the block that each voxel is in; (B, 1, *spatial)."""
    pool = F.avg_pool3d if image.ndim == 5 else F.avg_pool2d
    mean = F.interpolate(pool(image.mean(1, keepdim=True), block), image.shape[2:], mode="nearest")
    variance = pool((image - mean).square().mean(1, keepdim=True), block)
    return mean, F.interpolate((variance + 1e-6).sqrt(), image.shape[2:], mode="nearest")


def unpatch(tokens: Tensor, grid: Sequence[int], channels: int, patch: int) -> Tensor:
    """Lay tokens (B, prod(grid), channels * patch**dims) out as an image (B, channels, *grid * patch)."""
    dims = len(grid)
    x = tokens.view(len(tokens), *grid, channels, *[patch] * dims)
    axes = [0, dims + 1]
    for axis in range(dims):
        axes += [1 + axis, dims + 2 + axis]
    return x.permute(axes).reshape(len(tokens), channels, *[n * patch for n in grid])
