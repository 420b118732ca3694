"""Jigsaw puzzles: putting an image's tiles back in order takes knowing the parts of things and how they lie.

Noroozi, Favaro, "Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles", ECCV 2016,
https://arxiv.org/abs/1603.09246, section 3. In volumes it is Rubik's cube: Zhuang et al., MICCAI 2019,
https://arxiv.org/abs/1910.02241, whose cubes are turned as well, and Zhu et al., "Rubik's Cube+", Medical Image
Analysis 2020, https://doi.org/10.1016/j.media.2020.101746, where some are masked and the network tells which.
"""

import math
from collections.abc import Sequence
from functools import cache
from itertools import permutations as orders
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.augment import Generators, bias_field, generators, uniform
from medssl.distributed import all_reduce_mean
from medssl.errors import InputError
from medssl.method import Method
from medssl.networks.encoder import Encoder
from medssl.networks.heads import classifier
from medssl.sample import Batch, require
from medssl.tiles import cut, enlarged, mosaic, normalised, textured

_GREY = (0.299, 0.587, 0.114)  # of red, green and blue in luminance, ITU-R BT.601
_ENUMERATED = 9  # all orders of up to 9 tiles are candidates, 362,880; of more tiles, _CANDIDATES random ones
_CANDIDATES = 50_000


class Puzzle(NamedTuple):
    """The tiles of an image in their own order, and orders to shuffle them to."""

    tile: Tensor  # (B, T, C, *side)
    order: Tensor  # (B, P), indices of permutations
    turned: Tensor  # (B, T, turns), of bool
    masked: Tensor  # (B, T), of bool
    shows: Tensor  # (B, T), whether a tile has any texture


class Jigsaw(Method):
    """Minimise the cross-entropy of the permutation that shuffled an image's tiles.

    Each tile is encoded alone and the shuffled features are joined after that (the paper's context-free network), so
    several puzzles of an image cost little more than one. Tiles without texture (air) look alike: as long as they are
    fewer than the smallest Hamming distance of the permutations, the others still say which one it is; an image
    with more of them is left out.

    Args:
        encoder: The network to pretrain, for 2D or 3D images.
        cells: Of the image along each axis; None is 3 for images and 2 for volumes.
        permutations: How many to tell apart, chosen far from each other.
        gap: Share of a cell's side that its tile leaves free, at a random end: the paper's 11 of 75 pixels. About 10
            voxels in volumes.
        puzzles: Permutations per image and batch: a tile is seen at several places, so it is not learnt by its own.
        width: Of each tile's features, the paper's fc6.
        hidden: Width of the layer that joins them, fc7.
        rotation_weight: Of the loss of tiles' half turns, in volumes about two axes (Rubik's cube: 1); 0 turns none.
        masking_weight: Of the loss of which tiles are masked (Rubik's cube+: 1); 0 masks none.
        masked_voxels: Share of a masked tile's voxels that are set to 0.
        normalise: Bring each channel of each tile to mean 0 and standard deviation 1.
        bias: Standard deviation of the log of each tile's own bias field at its control points.
        channel_jitter: RGB: largest shift of each channel of each tile, pixels.
        grey: RGB: probability of an image without colour.
        empty: A tile has no texture if its standard deviation is at most this share of its image's.
    """

    permutations: Tensor

    def __init__(
        self,
        encoder: Encoder,
        cells: int | None = None,
        permutations: int = 1000,
        gap: float = 11 / 75,
        puzzles: int = 4,
        width: int = 512,
        hidden: int = 4096,
        rotation_weight: float = 0.0,
        masking_weight: float = 0.0,
        masked_voxels: float = 0.5,
        normalise: bool = True,
        bias: float = 0.3,
        channel_jitter: int = 2,
        grey: float = 0.3,
        empty: float = 0.1,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        dims = encoder.spatial_dims
        self.cells = cells or (3 if dims == 2 else 2)
        tiles = self.cells**dims
        self.register_buffer("permutations", distant_permutations(tiles, permutations).clone())  # (N, T)
        self.distance = smallest_distance(self.permutations)
        self.gap, self.puzzles = gap, min(puzzles, permutations)
        self.rotation_weight, self.masking_weight, self.masked_voxels = rotation_weight, masking_weight, masked_voxels
        self.normalise, self.bias, self.empty = normalise, bias, empty
        self.channel_jitter, self.grey = channel_jitter, grey
        self.turns = dims - 1  # half turns that the others follow from: one in the plane, two in space
        self.fc6 = nn.Sequential(nn.Linear(encoder.channels[-1] * 2**dims, width), nn.ReLU())
        self.fc7 = nn.Sequential(nn.Linear(tiles * width, hidden), nn.ReLU())
        self.fc8 = classifier(hidden, permutations)
        self.turned = classifier(hidden, tiles * self.turns) if rotation_weight else None
        self.masked = classifier(hidden, tiles) if masking_weight else None

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of the permutations, and of turns and masks, of a batch, which needs image and seed."""
        puzzle = self.puzzle(batch)
        joined = self.joined(puzzle)  # (B, P, hidden)
        logits = self.fc8(joined).flatten(0, 1)  # (B P, N)
        target = puzzle.order.flatten()
        solvable = ((~puzzle.shows).sum(1) < self.distance).unsqueeze(1).expand_as(puzzle.order)  # (B, P)
        permutation = weighted_mean(F.cross_entropy(logits, target, reduction="none"), solvable.flatten())
        total, parts = permutation, {"permutation": permutation.detach()}
        slots = self.permutations[puzzle.order]  # (B, P, T), the tile that each slot shows
        shows = shuffled(puzzle.shows, slots)
        if self.turned is not None:
            turned = shuffled(puzzle.turned, slots)  # (B, P, T, turns)
            rotation = binary(self.turned(joined).view(turned.shape), turned, shows.unsqueeze(-1))
            total, parts["rotation"] = total + self.rotation_weight * rotation, rotation.detach()
        if self.masked is not None:
            masking = binary(self.masked(joined), shuffled(puzzle.masked, slots), shows)
            total, parts["masking"] = total + self.masking_weight * masking, masking.detach()
        correct = weighted_mean((logits.argmax(1) == target).float(), solvable.flatten())
        return {"loss": total, **parts, "accuracy": correct.detach(), "kept": solvable.float().mean()}

    def puzzle(self, batch: Batch) -> Puzzle:
        """Cut a batch's crops into tiles, change what would give their order away, and draw how they are shuffled."""
        require(batch, "image", "seed")
        image, draw = batch["image"], generators(batch["seed"])
        cell, side = self.sides(image.shape[2:])
        choices = [torch.randperm(len(self.permutations), generator=g)[: self.puzzles] for g in draw]
        order = torch.stack(choices).to(image.device)
        colour = image.ndim == 4 and image.shape[1] == 3
        if colour:
            image = greyed(image, uniform(0, 1, (), draw, image) < self.grey)
        tile = cut(image, self._starts(image, cell, side, draw, self.channel_jitter if colour else 0), side)
        shows = textured(tile, image, self.empty)
        rows = [g for g in draw for _ in range(tile.shape[1])]
        x = bias_field(tile.flatten(0, 1), torch.full((tile.shape[:2].numel(),), self.bias), rows)
        x = normalised(x) if self.normalise else x
        turned = uniform(0, 1, (tile.shape[1], self.turns), draw, image) < (0.5 if self.rotation_weight else 0)
        masked = uniform(0, 1, (tile.shape[1],), draw, image) < (0.5 if self.masking_weight else 0)
        x = half_turned(x, turned.flatten(0, 1))
        if self.masking_weight:
            hidden = uniform(0, 1, (1, *side), rows, image) < self.masked_voxels
            x = x.masked_fill(hidden & masked.view(-1, *[1] * (x.ndim - 1)), 0)
        return Puzzle(x.view_as(tile), order, turned, masked, shows)

    def joined(self, puzzle: Puzzle) -> Tensor:
        """Encode each tile alone, shuffle the features, join them: (B, P, hidden)."""
        x = enlarged(puzzle.tile.flatten(0, 1), self.encoder.strides[-1])
        # Where in the tile a thing lies matters here, so features are averaged over its 2 x 2 (x 2) parts, not all.
        pool = F.adaptive_avg_pool3d if self.encoder.spatial_dims == 3 else F.adaptive_avg_pool2d
        f = self.fc6(pool(self.encoder(x)[-1], 2).flatten(1)).view(*puzzle.tile.shape[:2], -1)  # (B, T, width)
        joined: Tensor = self.fc7(shuffled(f, self.permutations[puzzle.order]).flatten(2))
        return joined

    def check(self, images: int, channels: int, patch_size: Sequence[int]) -> None:
        """Refuse crops whose tiles are too small for the encoder."""
        self.sides(patch_size)

    def show(self, batch: Batch) -> dict[str, Tensor]:
        """Give each crop's first puzzle, its solution, and the tiles in the network's order."""
        with torch.no_grad():
            puzzle = self.puzzle(batch)
            found = self.fc8(self.joined(puzzle)).argmax(-1)[:, 0]
        slots, answer = self.permutations[puzzle.order[:, :1]], self.permutations[found]
        mixed = shuffled(puzzle.tile, slots)[:, 0]
        solved = shuffled(mixed, answer.argsort(1).unsqueeze(1))[:, 0]
        pictures = {"input": mixed, "target": puzzle.tile, "prediction": solved}
        return {name: mosaic(tile, self.cells) for name, tile in pictures.items()}

    def sides(self, crop: Sequence[int]) -> tuple[list[int], list[int]]:
        """Give the sides of cells and tiles of a crop, along each of its axes.

        Raises:
            InputError: Tiles are smaller than the encoder's coarsest stride.
        """
        cell = [n // self.cells for n in crop]
        side = [n - round(self.gap * n) for n in cell]
        stride = self.encoder.strides[-1]
        if min(side) < stride:
            raise InputError(
                f"Jigsaw: crops of {tuple(crop)} voxels, cut into {self.cells} along each axis, give tiles of "
                f"{tuple(side)}, smaller than the encoder's coarsest stride, {stride}; use crops of at least "
                f"{self.cells * math.ceil(stride / (1 - self.gap))} voxels a side, fewer cells, or an encoder with "
                "fewer levels."
            )
        return cell, side

    def _starts(self, image: Tensor, cell: Sequence[int], side: Sequence[int], draw: Generators, jitter: int) -> Tensor:
        """Draw where tiles start, anywhere in their cells: (B, T, 1 or C, dims), with jitter for each channel."""
        first = torch.cartesian_prod(*[torch.arange(self.cells) * n for n in cell])  # (T, dims)
        free = torch.tensor([c - s for c, s in zip(cell, side, strict=True)], device=image.device)
        start = (uniform(0, 1, first.shape, draw, image) * (free + 1)).long().clamp(max=free) + first.to(image.device)
        start = start.unsqueeze(2)
        if jitter:
            shape = (len(first), image.shape[1], len(cell))
            start = start + (uniform(-jitter, jitter + 1, shape, draw, image)).floor().long().clamp(max=jitter)
        last = torch.tensor([n - s for n, s in zip(image.shape[2:], side, strict=True)], device=image.device)
        return torch.minimum(start.clamp(min=0), last)


@cache
def distant_permutations(tiles: int, count: int) -> Tensor:
    """Choose permutations greedily, each as far as can be, in Hamming distance, from the nearest one chosen before.

    Maximising the smallest distance, and not the mean one, leaves no two that differ by a single exchange. The choice
    is always the same.

    Returns:
        (count, tiles), tile numbers.

    Raises:
        InputError: There are not as many.
    """
    draw = np.random.default_rng(0)
    if tiles <= _ENUMERATED:
        candidates = draw.permutation(np.array(list(orders(range(tiles))), dtype=np.uint8))
    else:
        candidates = draw.permuted(np.tile(np.arange(tiles, dtype=np.uint8), (_CANDIDATES, 1)), axis=1)
    if count > len(candidates):
        raise InputError(f"Jigsaw: {tiles} tiles give {len(candidates)} permutations to choose from, not {count}.")
    columns = np.ascontiguousarray(candidates.T)
    nearest = np.full(len(candidates), 255, dtype=np.uint8)  # distance to the nearest chosen one
    chosen = [0]
    while len(chosen) < count:
        distance = np.zeros_like(nearest)
        for column in columns:
            distance += column != column[chosen[-1]]
        np.minimum(nearest, distance, out=nearest)
        chosen.append(int(nearest.argmax()))
    return torch.from_numpy(candidates[chosen].astype(np.int64))


def smallest_distance(permutations: Tensor) -> int:
    """Give the smallest Hamming distance of any two of (N, T) permutations; T for a single one."""
    tiles = permutations.shape[1]
    same = sum((column.unsqueeze(0) == column.unsqueeze(1)).to(torch.uint8) for column in permutations.unbind(1))
    return tiles - int(torch.as_tensor(same).fill_diagonal_(0).max())


def shuffled(x: Tensor, slots: Tensor) -> Tensor:
    """Put tile ``slots[b, p, s]`` of x (B, T, ...) into slot s of puzzle p: (B, P, T, ...)."""
    return x[torch.arange(len(x), device=x.device).view(-1, 1, 1), slots]


def half_turned(x: Tensor, turned: Tensor) -> Tensor:
    """Turn tiles (R, C, *side) by 180 degrees where ``turned`` (R, dims - 1), about one axis each.

    A half turn keeps the sides of a tile. In 3D the turns of two planes, one after the other, give that of the third.
    """
    planes = [(-2, -1)] if x.ndim == 4 else [(-2, -1), (-3, -1)]
    for turn, plane in zip(turned.unbind(1), planes, strict=True):
        x = torch.where(turn.view(-1, *[1] * (x.ndim - 1)), x.flip(plane), x)
    return x


def greyed(image: Tensor, chosen: Tensor) -> Tensor:
    """Take the colour from the RGB images (B, 3, H, W) that are ``chosen`` (B,)."""
    weight = torch.tensor(_GREY, device=image.device, dtype=image.dtype).view(1, 3, 1, 1)
    return torch.where(chosen.view(-1, 1, 1, 1), (image * weight).sum(1, keepdim=True), image)


def weighted_mean(values: Tensor, kept: Tensor) -> Tensor:
    """Average those of values (n,) that are ``kept``, over all processes; 0 if none is."""
    weight = kept.float()
    mean: Tensor = (weight * values).sum() / all_reduce_mean(weight.sum()).clamp_min(1)
    return mean


def binary(logits: Tensor, target: Tensor, kept: Tensor) -> Tensor:
    """Average the logistic loss of (B, P, T, ...) over what is ``kept``."""
    cost = F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="none")
    return weighted_mean(cost.flatten(), kept.expand_as(cost).flatten())
