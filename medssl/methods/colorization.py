"""Colorization: see an image in grey, and say what colours it has; who can, knows what the things in it are.

Zhang, Isola, Efros, "Colorful Image Colorization", ECCV 2016, https://arxiv.org/abs/1603.08511, section 2.
"""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Literal

import torch
from torch import Tensor

from medssl.color import colour_auc, lab_to_rgb, rgb_to_lab
from medssl.distributed import all_reduce_mean
from medssl.errors import InputError
from medssl.method import Method
from medssl.networks.encoder import Encoder
from medssl.networks.unet import UNetDecoder
from medssl.sample import Batch, require

Task = Literal["classes", "regression"]
Gamut = Literal["data", "srgb"]

_LARGEST_AB = 110.0  # of a and b in sRGB, about
_UNSEEN = -1e4  # logit of a colour that the data do not have; finite, so that 0 times it is 0


class Colorization(Method):
    """Predict each voxel's colour (a, b) from the lightness L alone, as one of some hundred classes.

    Classes, because a colour is often open (a dress is red or blue) and the mean of the answers is grey. Rare colours
    count more: without, the greyish ones of backgrounds decide all.

    Args:
        encoder: The network to pretrain, with 1 input channel, which gets L, or 3, which get L each; L is 0..1.
        task: ``"regression"`` of a and b (eq. 1) is the baseline.
        gamut: The classes are the colours that the ``"data"`` have, or all that ``"srgb"`` has.
        grid: Side of a class in a and b.
        neighbours: Classes that a true colour is spread over.
        sigma: Of the Gaussian that spreads it, and that smooths the prior.
        uniform_share: The paper's lambda, share of the uniform distribution in the rebalancing (eq. 4).
        temperature: The paper's T, of the annealed mean (eq. 5).
        prior_batches: Batches that the prior and the gamut of the data are counted in, before the first epoch.
    """

    centres: Tensor
    counts: Tensor

    def __init__(
        self,
        encoder: Encoder,
        task: Task = "classes",
        gamut: Gamut = "data",
        grid: float = 10,
        neighbours: int = 5,
        sigma: float = 5,
        uniform_share: float = 0.5,
        temperature: float = 0.38,
        prior_batches: int = 100,
    ) -> None:
        super().__init__()
        if encoder.in_channels not in (1, 3):
            raise InputError(
                f"Colorization shows the encoder the lightness, in 1 channel or repeated in 3; this one has "
                f"{encoder.in_channels}."
            )
        self.encoder = encoder
        self.task, self.gamut = task, gamut
        self.neighbours, self.sigma, self.uniform_share = neighbours, sigma, uniform_share
        self.temperature, self.prior_batches = temperature, prior_batches
        self.register_buffer("centres", srgb_gamut(grid))  # (Q, 2)
        self.register_buffer("counts", torch.zeros(len(self.centres), dtype=torch.float64))  # of the data's colours
        self.decoder = UNetDecoder(encoder, classes=len(self.centres) if task == "classes" else 2)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Rebalanced cross entropy (eq. 2), or squared error (eq. 1), of a batch of RGB images, 0..1.

        In evaluation also ``auc`` of the colours, see ``medssl.color.colour_auc``, and ``balanced_auc``, in which all
        classes of colours that the batch shows count alike.
        """
        require(batch, "image")
        L, ab = self._split(batch["image"])
        predicted = self.predict(L)
        aucs = {} if self.training else self._aucs(predicted, ab)
        if self.task == "regression":
            return {"loss": 0.5 * (predicted - ab / _LARGEST_AB).square().sum(1).mean(), **aucs}
        with torch.no_grad():
            index, Z = soft_encoding(ab, self._usable_centres(), self.neighbours, self.sigma)  # (B, 5, voxels) each
            v = self.weights()[index[:, 0]]  # (B, voxels), of the nearest class
        logits = predicted.flatten(2)  # (B, Q, voxels)
        cross_entropy = -(Z * logits.log_softmax(1).gather(1, index)).sum(1)
        accuracy = (logits.detach().argmax(1) == index[:, 0]).float().mean()
        return {"loss": (v * cross_entropy).mean(), "accuracy": accuracy, **aucs}

    def start_epoch(self, batches: Iterable[Batch]) -> None:
        """Count the colours of the data, once: they are the prior, and the gamut where that is of the data.

        Raises:
            InputError: All images are grey.
        """
        if self.task == "regression" or self.counts.sum() > 0:
            return
        counts = torch.zeros_like(self.counts)
        for batch in islice(batches, self.prior_batches):
            index, _ = soft_encoding(self._split(batch["image"])[1], self.centres, 1, self.sigma)
            counts += index.flatten().bincount(minlength=len(counts))
        counts = all_reduce_mean(counts)
        if counts.sum() > 0 and counts[self.centres.square().sum(1).argmin()] == counts.sum():
            raise InputError(
                "Colorization: the images have three channels, but no colours: all that was looked at is grey, as "
                "ultrasound is. Give images in colour, or choose a method that needs none, such as models_genesis."
            )
        self.counts.copy_(counts)

    def seen(self) -> Tensor:
        """Say which of the Q classes are in use, (Q,) of bool; all of them before the data's colours are counted."""
        if self.gamut == "data" and self.counts.sum() > 0:
            return self.counts > 0
        return torch.ones_like(self.counts, dtype=torch.bool)

    def weights(self) -> Tensor:
        """Weigh each of the Q classes (eq. 4), (Q,) in float32; all alike before the data's colours are counted."""
        if self.counts.sum() == 0:
            return torch.ones_like(self.centres[:, 0])
        used = self.seen()
        weight = torch.zeros_like(self.counts)
        weight[used] = rebalancing(self.counts[used], self.centres[used].double(), self.sigma, self.uniform_share)
        return weight.float()

    def predict(self, L: Tensor) -> Tensor:
        """Turn the lightness (B, 1, *spatial), 0..100, into logits (B, Q, *spatial), or a and b over 110; float32."""
        grey = (L / 100).expand(-1, self.encoder.in_channels, *[-1] * (L.ndim - 2))
        predicted: Tensor = self.decoder(grey, self.encoder(grey)).float()
        if self.task == "regression":
            return predicted
        return predicted.masked_fill(~self.seen().view(1, -1, *[1] * (L.ndim - 2)), _UNSEEN)

    def colours(self, predicted: Tensor) -> Tensor:
        """Decide for a and b, (B, 2, *spatial), from what ``predict`` returned."""
        if self.task == "regression":
            return predicted * _LARGEST_AB
        return annealed_mean(predicted, self.centres, self.temperature)

    def check(self, images: int, channels: int, patch_size: Sequence[int]) -> None:
        """Refuse images without colour."""
        if channels != 3:
            raise InputError(
                f"Colorization needs RGB images, 3 channels; these have {channels}. A grey scan, as of CT or MRI, has "
                "no colours to be predicted: choose a method that needs none, such as models_genesis. Pictures in "
                "colour are prepared with intensity rgb; videos keep their colours."
            )

    @torch.no_grad()
    def show(self, batch: Batch) -> dict[str, Tensor]:
        """Give the lightness, the image, and the image in the predicted colours."""
        L, _ = self._split(batch["image"])
        coloured = torch.cat([L, self.colours(self.predict(L))], dim=1)
        return {
            "input": (L / 100).expand_as(batch["image"]),
            "target": batch["image"],
            "prediction": lab_to_rgb(coloured),
        }

    @torch.no_grad()
    def _aucs(self, predicted: Tensor, ab: Tensor) -> dict[str, Tensor]:
        found = self.colours(predicted)
        index = soft_encoding(ab, self.centres, 1, self.sigma)[0][:, 0]  # (B, voxels)
        rarity = 1 / index.flatten().bincount(minlength=len(self.centres)).clamp_min(1)
        weight = rarity.float()[index].view_as(ab[:, 0])
        return {"auc": colour_auc(found, ab), "balanced_auc": colour_auc(found, ab, weight)}

    def _split(self, image: Tensor) -> tuple[Tensor, Tensor]:
        self.check(len(image), image.shape[1], image.shape[2:])
        lab = rgb_to_lab(image.float().clamp(0, 1))
        return lab[:, :1], lab[:, 1:]

    def _usable_centres(self) -> Tensor:
        """Give the (Q, 2) centres, with those not in use out of every colour's reach."""
        return self.centres.masked_fill(~self.seen().unsqueeze(1), torch.inf)


def srgb_gamut(grid: float = 10, steps: int = 65) -> Tensor:
    """List the centres (Q, 2) of the squares of a and b, ``grid`` wide, that hold a colour of sRGB.

    With a grid of 10 there are 261, and no more with all 16.7 million colours in place of 65 steps of each channel.
    The paper's 313 are a list that comes with its code; on the same grid, it must reach beyond sRGB.
    """
    step = torch.linspace(0, 1, steps, dtype=torch.float64)
    ab = rgb_to_lab(torch.cartesian_prod(step, step, step).unsqueeze(2))[:, 1:, 0]
    cells = torch.round(ab / grid).long()  # (colours, 2)
    most = int(cells.abs().max())
    occupied = torch.zeros(2 * most + 1, 2 * most + 1, dtype=torch.bool)
    occupied[cells[:, 0] + most, cells[:, 1] + most] = True
    return (torch.nonzero(occupied) - most).float() * grid


def soft_encoding(ab: Tensor, centres: Tensor, neighbours: int, sigma: float) -> tuple[Tensor, Tensor]:
    """Spread each colour over its nearest classes, by a Gaussian of the distance.

    Args:
        ab: (B, 2, *spatial).
        centres: (Q, 2).
        neighbours: How many classes.
        sigma: Of the Gaussian.

    Returns:
        Classes (B, neighbours, voxels), nearest first, and their shares, which sum to 1.
    """
    neighbours = min(neighbours, len(centres))
    found = []
    for a, b in ab.flatten(2):  # one image after the other: all distances of a batch are many
        squared = (a.unsqueeze(1) - centres[:, 0]).square() + (b.unsqueeze(1) - centres[:, 1]).square()  # (voxels, Q)
        found.append(squared.topk(neighbours, largest=False))
    squared, index = (torch.stack(x).transpose(1, 2) for x in zip(*found, strict=True))
    return index, torch.softmax(-squared / (2 * sigma**2), dim=1)


def rebalancing(counts: Tensor, centres: Tensor, sigma: float, uniform_share: float) -> Tensor:
    """Weigh each class by ``1 / ((1 - l) p + l / Q)`` (eq. 4), p being the prior, smoothed; the expectation is 1.

    Args:
        counts: (Q,), how often each class was seen.
        centres: (Q, 2), of the classes.
        sigma: Of the Gaussian that smooths the prior over neighbouring classes.
        uniform_share: The paper's lambda.
    """
    squared = (centres.unsqueeze(0) - centres.unsqueeze(1)).square().sum(2)
    spread = torch.exp(-squared / (2 * sigma**2))
    p = (spread / spread.sum(0) * (counts / counts.sum())).sum(1)
    w = 1 / ((1 - uniform_share) * p + uniform_share / len(p))
    return w / (p * w).sum()


def annealed_mean(logits: Tensor, centres: Tensor, temperature: float) -> Tensor:
    """Decide for a colour (eq. 5): the mean of the distribution, made sharper by the temperature below 1.

    Args:
        logits: (B, Q, *spatial).
        centres: (Q, 2).
        temperature: 1 is the mean, near 0 the most probable class.

    Returns:
        (B, 2, *spatial).
    """
    f = torch.softmax(logits / temperature, dim=1)
    shape = [1, -1, *[1] * (logits.ndim - 2)]
    return torch.stack([(f * along.reshape(shape)).sum(1) for along in centres.unbind(1)], dim=1)
