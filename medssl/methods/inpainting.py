"""Inpainting: cut a part out of an image, and learn what belongs there from what is around it.

Pathak, Krähenbühl, Donahue, Darrell, Efros, "Context Encoders: Feature Learning by Inpainting", CVPR 2016,
https://arxiv.org/abs/1604.07379, sections 3.2 and 3.3.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from monai.networks.layers import Conv
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from medssl.augment import generators, uniform
from medssl.errors import InputError
from medssl.method import Method
from medssl.networks.encoder import Encoder
from medssl.networks.heads import pooled
from medssl.networks.unet import UNetDecoder
from medssl.sample import Batch, require

Region = Literal["central", "random"]


class Inpainting(Method):
    """Minimise the squared error inside the missing region, and on request let a discriminator judge the picture.

    The missing region is filled with the mean of the rest, of which the network thus sees nothing.

    Args:
        encoder: The network to pretrain, for 2D or 3D images.
        region: ``"central"`` cuts out the middle, always at one place; ``"random"`` cuts out boxes anywhere.
        side: Of the central region, as a share of the image's sides.
        covered: Largest share of the image that the random boxes cover.
        boxes: Number of random boxes.
        adversarial_weight: Of the adversarial loss, the paper's 0.001, the squared error having the rest of 1. 0 leaves
            the discriminator out, as the paper does where features, not pictures, are wanted.
    """

    def __init__(
        self,
        encoder: Encoder,
        region: Region = "random",
        side: float = 0.5,
        covered: float = 0.25,
        boxes: int = 4,
        adversarial_weight: float = 0.0,
    ) -> None:
        super().__init__()
        if not (0 < side < 1 and 0 < covered < 1 and boxes > 0):
            raise InputError(
                f"Inpainting needs side and covered between 0 and 1 and at least one box, got side={side:g}, "
                f"covered={covered:g}, boxes={boxes}."
            )
        if not 0 <= adversarial_weight < 1:
            raise InputError(f"adversarial_weight={adversarial_weight:g} must be at least 0 and below 1.")
        self.encoder = encoder
        self.decoder = UNetDecoder(encoder, classes=encoder.in_channels)
        self.discriminator: nn.Module | None = None
        if adversarial_weight > 0:
            self.discriminator = Discriminator(encoder.in_channels, encoder.spatial_dims)
        self.region, self.side, self.covered, self.boxes = region, side, covered, boxes
        self.adversarial_weight = adversarial_weight

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Reconstruction (eq. 1) and adversarial loss (eq. 2) of a batch, joined as eq. 3; it needs image and seed."""
        require(batch, "image", "seed")
        x = batch["image"]
        M = self.missing(x, batch["seed"])  # (B, 1, *spatial), 1 where the image is missing
        predicted = self.predict(hide(x, M))
        reconstruction = masked_mean((predicted - x).square(), M)
        if self.discriminator is None:
            return {"loss": reconstruction}
        # One optimiser serves both players: the discriminator minimises its error, and the gradient that goes on from
        # there to the picture changes its sign and takes the weight of the adversarial loss.
        painted = reverse_gradient(torch.where(M > 0, predicted, x.float()), self.adversarial_weight)
        real, fake = self.discriminator(x), self.discriminator(painted)
        error = F.softplus(-real.float()).mean() + F.softplus(fake.float()).mean()  # -log D(x) - log(1 - D(F(x)))
        return {
            "loss": (1 - self.adversarial_weight) * reconstruction + error,
            "reconstruction": reconstruction.detach(),
            "discriminator": error.detach(),
        }

    def missing(self, image: Tensor, seeds: Tensor) -> Tensor:
        """Draw the region (B, 1, *spatial) that is cut out of each image (B, C, *spatial), 1 inside."""
        size, draw = image.shape[2:], generators(seeds)
        if self.region == "central":
            return central_region(size, self.side, image).expand(len(image), -1, *[-1] * len(size))
        return random_region(size, self.covered, self.boxes, draw, image)

    def predict(self, visible: Tensor) -> Tensor:
        """Predict images (B, C, *spatial), float32, from those with missing parts, which is all the decoder sees."""
        predicted: Tensor = self.decoder(visible, self.encoder(visible))
        return predicted.float()

    def check(self, images: int, channels: int, patch_size: Sequence[int]) -> None:
        """Refuse patches too small to have a part missing."""
        if self.region == "central" and any(round(n * self.side) in (0, n) for n in patch_size):
            raise InputError(
                f"The central region of {self.side:g} of each side of a patch of {tuple(patch_size)} is nothing or all "
                "of it. Choose a larger patch, or another side."
            )

    @torch.no_grad()
    def show(self, batch: Batch) -> dict[str, Tensor]:
        """Give the image with its missing part, the image, and the image with what the network puts there."""
        x = batch["image"]
        M = self.missing(x, batch["seed"])
        visible = hide(x, M)
        return {"input": visible, "target": x, "prediction": torch.where(M > 0, self.predict(visible).to(x), x)}


class Discriminator(nn.Module):
    """Say whether a picture is real: strided convolutions, the mean over space, one logit.

    Args:
        in_channels: Channels of the picture.
        spatial_dims: 2 or 3.
        channels: Width of each convolution; each halves the resolution.
    """

    def __init__(self, in_channels: int, spatial_dims: int, channels: Sequence[int] = (16, 32, 64)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in pairwise([in_channels, *channels]):
            layers += [Conv["conv", spatial_dims](before, after, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
        self.features = nn.Sequential(*layers)
        self.classify = nn.Linear(channels[-1], 1)

    def forward(self, picture: Tensor) -> Tensor:
        """Turn (B, C, *spatial) into logits (B, 1), large for real pictures."""
        logits: Tensor = self.classify(pooled([self.features(picture)]))
        return logits


def hide(image: Tensor, missing: Tensor) -> Tensor:
    """Fill what is missing of (B, C, *spatial) with each channel's mean over the rest; ``missing`` is 1 there."""
    axes = tuple(range(2, image.ndim))
    visible = 1 - missing
    mean = (image * visible).sum(axes, keepdim=True) / visible.sum(axes, keepdim=True).clamp_min(1)
    return torch.where(missing > 0, mean, image)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Average (B, C, *spatial) over all channels of the places where ``mask`` (B, 1, *spatial) is 1."""
    return (values * mask).sum() / (mask.sum() * values.shape[1]).clamp_min(1)


def central_region(size: Sequence[int], side: float, like: Tensor) -> Tensor:
    """Mark the middle of an image, ``side`` of each side wide; (1, 1, *size)."""
    region = torch.zeros(1, 1, *size, device=like.device)
    inside = region
    for axis, n in enumerate(size):
        width = round(n * side)
        inside = inside.narrow(2 + axis, (n - width) // 2, width)
    inside.fill_(1)
    return region


def random_region(size: Sequence[int], covered: float, boxes: int, draw: Sequence[Generator], like: Tensor) -> Tensor:
    """Mark the inside of random boxes that cover at most ``covered`` of each image; (B, 1, *size).

    Each box is at most ``covered / boxes`` of the image, so that all of them fit even where none overlap; its sides
    are drawn from half their largest length up. They are at least 1 voxel.
    """
    largest = (covered / boxes) ** (1 / len(size))
    inside = torch.ones(len(draw), boxes, *[1] * len(size), device=like.device)
    for axis, n in enumerate(size):
        width = (uniform(0.5, 1, (boxes,), draw, like) * largest * n).floor().clamp_min(1)
        start = (uniform(0, 1, (boxes,), draw, like) * (n - width + 1)).floor()
        places = torch.arange(n, device=like.device)
        along = (places >= start.unsqueeze(2)) & (places < (start + width).unsqueeze(2))  # (B, boxes, n)
        inside = inside * along.view(len(draw), boxes, *[n if a == axis else 1 for a in range(len(size))])
    return inside.amax(1, keepdim=True)


def reverse_gradient(x: Tensor, weight: float) -> Tensor:
    """Leave a tensor as it is, and multiply the gradient that comes back by ``-weight``.

    Ganin, Lempitsky, "Unsupervised Domain Adaptation by Backpropagation", ICML 2015, https://arxiv.org/abs/1409.7495,
    section 3.2.
    """
    reversed_: Tensor = _ReverseGradient.apply(x, weight)  # type: ignore[no-untyped-call]  # torch's
    return reversed_


class _ReverseGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: float) -> Tensor:
        ctx.weight = weight
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.weight * gradients[0], None
