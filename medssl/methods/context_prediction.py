"""Context prediction: telling on which side of a patch its neighbour lies takes knowing what both of them show.

Doersch, Gupta, Efros, "Unsupervised Visual Representation Learning by Context Prediction", ICCV 2015,
https://arxiv.org/abs/1505.05192, section 3, whose last part is on guards against trivial solutions. In volumes a patch
has 26 neighbours instead of 8. Where colours tell nothing, bias fields and vignetting still give a place away, as
chromatic aberration does in the paper: so each patch gets intensities of its own.
"""

import math
from collections.abc import Sequence
from itertools import product
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.augment import Generators, bias_field, gamma, generators, uniform
from medssl.distributed import all_reduce_mean
from medssl.errors import InputError
from medssl.method import Method
from medssl.networks.encoder import Encoder
from medssl.networks.heads import classifier
from medssl.sample import Batch, require
from medssl.tiles import cut, enlarged, mosaic, normalised, resized, textured


class Grid(NamedTuple):
    """How 3 patches and the gaps between them lie along each axis, voxels."""

    side: list[int]
    gap: list[int]
    jitter: list[int]


class Patches(NamedTuple):
    """G grids of one centre and N of its neighbours."""

    patch: Tensor  # (B, G, 1 + N, C, *side), the centre first
    place: Tensor  # (B, G, N), which of the 3**dims - 1 neighbours each one is
    kept: Tensor  # (B, G, N), whether both patches of the pair show something


class ContextPrediction(Method):
    """Minimise the cross-entropy of a neighbour's direction, from features that are computed for each patch alone.

    All patches of a grid fit into the crop whichever neighbours are drawn, so where the centre lies says nothing about
    them. A patch without texture (air around the body, where every direction looks alike) takes part in no pair.

    Args:
        encoder: The network to pretrain, for 2D or 3D images.
        patch: Side of a patch, as a share of the crop's side; the paper's 96 of about 480 pixels.
        gap: Between neighbours, as a share of the patch's side: no line or texture goes on from one to the other.
        jitter: Largest shift of each patch, as a share of its side; the paper's 7 of 96 pixels.
        grids: Per image.
        neighbours: Per grid, drawn among the 8 or 26; all patches of a grid are encoded once.
        width: Of the layers after the encoder, the paper's fc6 to fc8.
        colour: RGB images: ``"drop"`` keeps one channel of each patch and fills the others with noise, ``"project"``
            removes the axis from green to magenta, ``"keep"`` leaves colours, and with them chromatic aberration.
        coarse: Share of the patches that are down- and up-sampled.
        coarseness: Factors by which they are, one drawn for each.
        bias: Standard deviation of the log of each patch's own bias field at its control points.
        gamma: Largest log of the exponent of each patch's own tone curve.
        normalise: Bring each patch to mean 0 and standard deviation 1.
        empty: A patch shows nothing if its standard deviation is at most this share of its crop's.
    """

    def __init__(
        self,
        encoder: Encoder,
        patch: float = 0.2,
        gap: float = 0.5,
        jitter: float = 7 / 96,
        grids: int = 4,
        neighbours: int = 8,
        width: int = 4096,
        colour: Literal["drop", "project", "keep"] = "drop",
        coarse: float = 0.3,
        coarseness: Sequence[float] = (1.5, 2.0, 3.0),
        bias: float = 0.3,
        gamma: float = 0.3,
        normalise: bool = True,
        empty: float = 0.1,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.patch, self.gap, self.jitter = patch, gap, jitter
        self.grids, self.neighbours = grids, min(neighbours, 3**encoder.spatial_dims - 1)
        self.colour, self.coarse, self.coarseness = colour, coarse, tuple(coarseness)
        self.bias, self.gamma, self.normalise, self.empty = bias, gamma, normalise, empty
        self.register_buffer("direction", directions(encoder.spatial_dims))  # (3**dims - 1, dims)
        self.fc6 = nn.Sequential(nn.Linear(encoder.channels[-1] * 2**encoder.spatial_dims, width), nn.ReLU())
        fc7 = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU())
        self.fc7_to_fc9 = nn.Sequential(fc7, classifier(width, len(self.direction), hidden=width))

    direction: Tensor

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of the neighbours' directions in a batch, which needs image and seed."""
        patch, place, kept = self.patches(batch)
        logits = self.logits(patch).flatten(0, 2)  # (B G N, 3**dims - 1)
        weight = kept.flatten().float()
        weight = weight / all_reduce_mean(weight.sum()).clamp_min(1)
        cross_entropy = F.cross_entropy(logits, place.flatten(), reduction="none")
        correct = (logits.argmax(1) == place.flatten()).float()
        return {
            "loss": (weight * cross_entropy).sum(),
            "accuracy": (weight * correct).sum().detach(),
            "kept": kept.float().mean(),
        }

    def patches(self, batch: Batch) -> Patches:
        """Cut the pairs of a batch out of its crops, and change what would give places away."""
        require(batch, "image", "seed")
        image, draw = batch["image"], generators(batch["seed"])
        grid = self.grid(image.shape[2:])
        place = torch.stack([self._places(g) for g in draw]).to(image.device)  # (B, G, N)
        centre = torch.zeros_like(self.direction[:1]).expand(*place.shape[:2], 1, -1)
        direction = torch.cat([centre, self.direction[place]], dim=2)  # (B, G, 1 + N, dims)
        start = (self._origins(image, grid, draw) + direction * self._voxels(grid.side, grid.gap)).flatten(1, 2)
        jitter = self._voxels(grid.jitter)
        start = start + integers(2 * jitter, start.shape[1:], draw) - jitter
        patch = cut(image, start, grid.side)  # (B, P, C, *side), P = G (1 + N)
        shows = textured(patch, image, self.empty).view(*direction.shape[:3])
        rows = [g for g in draw for _ in range(patch.shape[1])]
        patch = self._guarded(patch.flatten(0, 1), rows).view(*direction.shape[:3], *patch.shape[2:])
        return Patches(patch, place, shows[:, :, :1] & shows[:, :, 1:])

    def logits(self, patch: Tensor) -> Tensor:
        """Turn grids (B, G, 1 + N, C, *side) into logits (B, G, N, 3**dims - 1) of the neighbours' directions."""
        x = enlarged(patch.flatten(0, 2), self.encoder.strides[-1])
        # Where in the patch a thing lies matters here, so features are averaged over its 2 x 2 (x 2) parts, not all.
        pool = F.adaptive_avg_pool3d if self.encoder.spatial_dims == 3 else F.adaptive_avg_pool2d
        parts = pool(self.encoder(x)[-1], 2).flatten(1)
        f = self.fc6(parts).view(*patch.shape[:3], -1)  # (B, G, 1 + N, width)
        pair = torch.cat([f[:, :, :1].expand_as(f[:, :, 1:]), f[:, :, 1:]], dim=-1)  # (B, G, N, 2 width)
        logits: Tensor = self.fc7_to_fc9(pair)
        return logits

    def check(self, images: int, channels: int, patch_size: Sequence[int]) -> None:
        """Refuse crops that hold no grid of patches which the encoder can look at."""
        self.grid(patch_size)

    def show(self, batch: Batch) -> dict[str, Tensor]:
        """Give the crop, its first grid's patches where they belong, and where the network puts them."""
        with torch.no_grad():
            patch, place, _ = self.patches(batch)
            found = self.logits(patch).argmax(-1)
        return {
            "image": batch["image"],
            "target": in_place(patch[:, 0], place[:, 0]),
            "prediction": in_place(patch[:, 0], found[:, 0]),
        }

    def grid(self, crop: Sequence[int]) -> Grid:
        """Fit the patches' sides, gaps and jitter to a crop, along each of its axes.

        Raises:
            InputError: The crop has no room for 3 patches, or they are smaller than the encoder's coarsest stride.
        """
        side = [int(self.patch * n) for n in crop]
        grid = Grid(side, [round(self.gap * s) for s in side], [round(self.jitter * s) for s in side])
        spans = [3 * s + 2 * g + 2 * j for s, g, j in zip(*grid, strict=True)]
        if any(span > n for span, n in zip(spans, crop, strict=True)):
            raise InputError(
                f"Context prediction: crops of {tuple(crop)} voxels have no room for 3 patches of {tuple(side)} and "
                f"their gaps, which span {tuple(spans)}; lower patch={self.patch:g} or gap={self.gap:g}."
            )
        stride = self.encoder.strides[-1]
        if min(side) < stride:
            raise InputError(
                f"Context prediction: patches of {tuple(side)} voxels, cut from crops of {tuple(crop)}, are smaller "
                f"than the encoder's coarsest stride, {stride}; use crops of at least {math.ceil(stride / self.patch)} "
                f"voxels a side, a larger patch than {self.patch:g} of them, or an encoder with fewer levels."
            )
        return grid

    def _places(self, generator: torch.Generator) -> Tensor:
        """Draw (G, N) neighbours, different ones in each grid."""
        classes = len(self.direction)
        return torch.stack([torch.randperm(classes, generator=generator)[: self.neighbours] for _ in range(self.grids)])

    def _origins(self, image: Tensor, grid: Grid, draw: Generators) -> Tensor:
        """Draw where the centre patches start (B, G, 1, dims), so that any neighbour lies within the crop."""
        side, gap, jitter = (self._voxels(axis) for axis in grid)
        free = torch.tensor(image.shape[2:], device=image.device) - (3 * side + 2 * gap + 2 * jitter)
        return integers(free, (self.grids, 1, len(free)), draw) + jitter + side + gap

    def _voxels(self, *terms: Sequence[int]) -> Tensor:
        """Sum up voxels per axis, as (dims,) on the method's device."""
        return torch.tensor(terms, device=self.direction.device).sum(0)

    def _guarded(self, patch: Tensor, draw: Generators) -> Tensor:
        """Change intensities, sharpness and colours of patches (R, C, *side), each by its own draws."""
        patch = gamma(patch, torch.exp(uniform(-self.gamma, self.gamma, (), draw, patch)))
        patch = bias_field(patch, torch.full((len(patch),), self.bias), draw)
        used = uniform(0, 1, (), draw, patch) < self.coarse
        which = integers(torch.tensor(len(self.coarseness) - 1, device=patch.device), (), draw)
        for number, factor in enumerate(self.coarseness):
            chosen = (used & (which == number)).view(-1, *[1] * (patch.ndim - 1))
            patch = torch.where(chosen, coarser(patch, factor), patch)
        if self.normalise:
            patch = normalised(patch)
        if patch.ndim == 4 and patch.shape[1] == 3 and self.colour != "keep":
            return one_channel(patch, draw) if self.colour == "drop" else without_green_to_magenta(patch)
        return patch


def directions(dims: int) -> Tensor:
    """List the neighbours of a cell of a grid, (3**dims - 1, dims) steps of -1, 0 or 1."""
    return torch.tensor([step for step in product((-1, 0, 1), repeat=dims) if any(step)])


def integers(largest: Tensor, shape: Sequence[int], draw: Generators) -> Tensor:
    """Draw (B, *shape) uniformly among 0 to ``largest``, which broadcasts against it."""
    drawn = (uniform(0, 1, shape, draw, largest) * (largest + 1)).long()
    return torch.minimum(drawn, largest)  # rounding may reach the end of the half-open range


def coarser(patch: Tensor, factor: float) -> Tensor:
    """Down-sample (R, C, *side) by ``factor`` and up-sample again."""
    small = [max(1, round(n / factor)) for n in patch.shape[2:]]
    return resized(resized(patch, small), patch.shape[2:])


def one_channel(patch: Tensor, draw: Generators) -> Tensor:
    """Keep one channel of each patch (R, C, *side); the others become noise of a hundredth of its deviation."""
    channels = patch.shape[1]
    kept = integers(torch.tensor(channels - 1, device=patch.device), (), draw)  # (R,)
    mask = F.one_hot(kept, channels).bool().view(len(patch), channels, *[1] * (patch.ndim - 2))
    noise = torch.stack([torch.randn(patch.shape[1:], generator=g) for g in draw]).to(patch)
    spread = patch.flatten(2).std(2).gather(1, kept.unsqueeze(1)).view(-1, *[1] * (patch.ndim - 1))
    return torch.where(mask, patch, 0.01 * spread * noise)


def without_green_to_magenta(patch: Tensor) -> Tensor:
    """Project RGB (R, 3, *side) with ``B = I - a a^T / (a^T a)``, a = (-1, 2, -1): green and magenta become grey."""
    a = torch.tensor([-1, 2, -1], device=patch.device, dtype=patch.dtype).view(1, 3, *[1] * (patch.ndim - 2))
    return patch - a * (a * patch).sum(1, keepdim=True) / 6


def in_place(patch: Tensor, place: Tensor) -> Tensor:
    """Lay (B, 1 + N, C, *side) out, the centre first and neighbours at ``place`` (B, N): (B, C, *3 side)."""
    cells = 3 ** (patch.ndim - 3)
    cell = place + (place >= cells // 2).long()  # the centre's cell is not among the neighbours
    cell = torch.cat([torch.full_like(cell[:, :1], cells // 2), cell], dim=1)
    canvas = patch.new_zeros(len(patch), cells, *patch.shape[2:])
    canvas[torch.arange(len(patch), device=patch.device).unsqueeze(1), cell] = patch
    return mosaic(canvas, 3)
