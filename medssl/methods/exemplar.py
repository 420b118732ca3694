"""Exemplar: what makes a place in an image itself is what stays when it is moved, scaled, turned and repainted.

Dosovitskiy, Springenberg, Riedmiller, Brox, "Discriminative Unsupervised Feature Learning with Convolutional Neural
Networks", NeurIPS 2014, https://arxiv.org/abs/1406.6909, section 2: each seed patch is a class. The triplet form needs
no class per patch, so nothing limits its scale: Doersch, Zisserman, "Multi-task Self-Supervised Visual Learning", ICCV
2017, https://arxiv.org/abs/1708.07860, with the semi-hard negatives of Schroff, Kalenichenko, Philbin, "FaceNet", CVPR
2015, https://arxiv.org/abs/1503.03832, section 3.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from medssl.augment import Generators, bias_field, gamma, generators, rotation, scale_and_shift, uniform
from medssl.distributed import gather
from medssl.errors import InputError
from medssl.method import Method
from medssl.networks.encoder import Encoder
from medssl.networks.heads import accuracy, classifier, pooled
from medssl.sample import Batch, require
from medssl.tiles import cut


class Exemplar(Method):
    """Bring transformed copies of a seed patch together, and keep those of other patches away.

    Seeds are drawn from the cells of a grid over each crop, in proportion to their gradients; cells with next to none
    (air) are left out. ``"triplet"`` takes new seeds from every crop. ``"classification"`` keeps a set of seeds, filled
    from the crops of the first epochs, and each of its steps looks at copies of seeds drawn from the set.

    Args:
        encoder: The network to pretrain, for 2D or 3D images.
        form: ``"triplet"``, or ``"classification"`` with one class per seed as in the first paper.
        patch: Side of a seed patch, voxels.
        seeds: Classification: how many; they are stored; patches of 32 take 4 kB each in 2D, 190 kB in 3D.
        seeds_per_image: Seeds that are taken from a crop.
        views: Transformed copies of a seed in a batch (classification: copies per image of the batch).
        margin: Triplet: how much farther than a copy another seed must be, in squared distance of unit vectors.
        width: Triplet: of the embedding.
        hidden: Width of the layer before it, or before the classes.
        translation: Largest, as a share of the patch.
        scale: Smallest and largest, drawn evenly in the logarithm.
        rotation_degrees: Largest, about each axis.
        contrast: Smallest and largest factor along each principal component of the intensities of the seed's image.
        power: Smallest and largest exponent of the tone curve (RGB: of saturation and value).
        gain: Smallest and largest factor of the brightness (RGB: of saturation and value).
        shift: Largest shift of the brightness (RGB: of saturation and value).
        hue: RGB: largest shift of the hue, as a share of the circle.
        bias: Not RGB: standard deviation of the log of a bias field at its control points.
        empty: A cell shows nothing if its mean gradient is at most this share of its crop's mean.
    """

    bank: Tensor
    filled: Tensor

    def __init__(
        self,
        encoder: Encoder,
        form: Literal["triplet", "classification"] = "triplet",
        patch: int = 32,
        seeds: int = 8000,
        seeds_per_image: int = 4,
        views: int = 8,
        margin: float = 0.5,
        width: int = 128,
        hidden: int = 512,
        translation: float = 0.2,
        scale: tuple[float, float] = (0.7, 1.4),
        rotation_degrees: float = 20,
        contrast: tuple[float, float] = (0.5, 2.0),
        power: tuple[float, float] = (0.25, 4.0),
        gain: tuple[float, float] = (0.7, 1.4),
        shift: float = 0.1,
        hue: float = 0.1,
        bias: float = 0.3,
        empty: float = 0.1,
    ) -> None:
        super().__init__()
        if form not in ("triplet", "classification"):
            raise InputError(f"Exemplar: form is 'triplet' or 'classification', got '{form}'.")
        if views < 2 or seeds_per_image < 1 or seeds < 2:
            raise InputError(
                f"Exemplar compares copies: views={views} and seeds={seeds} must be at least 2, "
                f"seeds_per_image={seeds_per_image} at least 1."
            )
        self.encoder = encoder
        self.form, self.patch, self.seeds_per_image, self.views = form, patch, seeds_per_image, views
        self.margin = margin
        self.translation, self.scale, self.rotation_degrees = translation, scale, rotation_degrees
        self.contrast, self.power, self.gain, self.shift, self.hue, self.bias = contrast, power, gain, shift, hue, bias
        self.empty = empty
        stored = 0 if form == "triplet" else seeds
        self.window = patch + 2 * math.ceil(translation * patch)  # side of a stored seed: room to be moved in
        window = [self.window] * encoder.spatial_dims
        self.register_buffer("bank", torch.zeros(stored, encoder.in_channels, *window, dtype=torch.float16))
        self.register_buffer("filled", torch.zeros((), dtype=torch.long))
        self.head = classifier(encoder.channels[-1], width if form == "triplet" else seeds, hidden)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Triplet loss or cross-entropy of a batch, which needs image and seed."""
        require(batch, "image", "seed")
        copies, seed, kept = self.copies(batch)  # (R, C, *side), (R,), (R,)
        out = self.head(pooled(self.encoder(copies)))
        if self.form == "classification":
            return {"loss": F.cross_entropy(out, seed), "accuracy": accuracy(out, seed)}
        z = gather(F.normalize(out.float(), dim=1))  # (R of all processes, width)
        label = torch.arange(len(z), device=z.device) // self.views
        if len(z) <= self.views:
            raise InputError(
                "Exemplar compares seeds: a batch needs at least 2, got 1; raise seeds_per_image or the batch."
            )
        with _all_digits(z):
            loss, unmet = triplet_loss(z, label, gather(kept.float()) > 0, self.margin)
        return {"loss": loss, "unmet": unmet, "kept": kept.float().mean()}

    def start_epoch(self, batches: Iterable[Batch]) -> None:
        """Take seeds from the epoch's crops, until there are enough (classification)."""
        if self.form == "triplet" or self.full:
            return
        for batch in batches:
            self.collect(batch)
            if self.full:
                return

    def state_scores(self) -> dict[str, float]:
        """Say how many seeds there are (classification)."""
        return {} if self.form == "triplet" else {"seeds": float(self.filled)}

    def check(self, images: int, channels: int, patch_size: Sequence[int]) -> None:
        """Refuse crops with too little room for seeds, and patches that are too small for the encoder."""
        stride = self.encoder.strides[-1]
        if self.patch < stride:
            raise InputError(
                f"Exemplar: patch={self.patch} is smaller than the encoder's coarsest stride, {stride}; use patches of "
                f"at least {stride} voxels or an encoder with fewer levels."
            )
        self._cells(patch_size)

    def show(self, batch: Batch) -> dict[str, Tensor]:
        """Give each crop, a copy of one seed, the nearest copy of another, and in the triplet form one of the same."""
        with torch.no_grad():
            copies, seed, _ = self.copies(batch)
            z = F.normalize(pooled(self.encoder(copies)).float(), dim=1)
            each = len(copies) // len(batch["image"])
            first = torch.arange(0, len(copies), each, device=copies.device)
            likeness = (z[first] @ z.T).masked_fill(seed[first].unsqueeze(1) == seed, -2)
        pictures = {"image": batch["image"], "copy": copies[first], "nearest other": copies[likeness.argmax(1)]}
        return pictures if self.form == "classification" else {**pictures, "same seed": copies[first + 1]}

    @property
    def full(self) -> bool:
        """Whether all seeds of the classification are there."""
        return int(self.filled) == len(self.bank)

    def copies(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Draw copies (R, C, *side), the seed each one is of (R,), and whether that shows something (R,)."""
        with _all_digits(batch["image"]):
            return self._copies(batch)

    def _copies(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        image, draw = batch["image"], generators(batch["seed"])
        if self.form == "triplet":
            centre, shows = self.places(image, draw)  # (B, K, dims), (B, K)
            copies = self.transformed(image, centre.repeat_interleave(self.views, 1), draw)  # (B K V, C, *side)
            seed = torch.arange(len(copies), device=image.device) // self.views
            return copies, seed, shows.flatten().repeat_interleave(self.views)
        if not self.filled:
            self.collect(batch)
        seed = torch.stack([torch.randint(int(self.filled), (self.views,), generator=g) for g in draw]).flatten()
        seed = seed.to(image.device)
        windows = self.bank[seed].to(image)  # (R, C, *window)
        middle = torch.full((len(seed), 1, image.ndim - 2), (self.window - 1) / 2, device=image.device)
        rows = [g for g in draw for _ in range(self.views)]
        return self.transformed(windows, middle, rows), seed, torch.ones_like(seed, dtype=torch.bool)

    def collect(self, batch: Batch) -> None:
        """Add a batch's seeds to the stored ones, in each process those of all.

        Raises:
            InputError: None of its crops shows anything, and there are no seeds yet.
        """
        image = batch["image"]
        centre, shows = self.places(image, generators(batch["seed"]))
        start = (centre - (self.window - 1) / 2).round().long().clamp(min=0)
        last = torch.tensor(image.shape[2:], device=image.device) - self.window
        seeds = gather(
            cut(image, torch.minimum(start, last), [self.window] * start.shape[2]).flatten(0, 1)
        )  # (B K, C, *window)
        seeds = seeds[gather(shows.flatten().float()) > 0][: len(self.bank) - int(self.filled)]
        self.bank[int(self.filled) : int(self.filled) + len(seeds)] = seeds.to(self.bank)
        self.filled += len(seeds)
        if not self.filled:
            raise InputError("Exemplar: no crop of the first batch shows anything; leave out scans that are constant.")

    def places(self, image: Tensor, draw: Generators) -> tuple[Tensor, Tensor]:
        """Draw seeds' centres (B, K, dims) in voxels, and say (B, K) whether there is anything to see.

        They are different cells of a grid, at a random place of each crop, drawn in proportion to their mean gradient.
        """
        cells = self._cells(image.shape[2:])
        corner = torch.cartesian_prod(*[torch.arange(n) * self.patch for n in cells]).view(-1, len(cells))
        free = torch.tensor(image.shape[2:]) - self.patch * torch.tensor(cells)
        origin = (uniform(0, 1, (1, len(cells)), draw, free) * (free + 1)).long().clamp(max=free)
        start = (origin + corner).to(image.device)  # (B, T, dims)
        strength = gradient(cut(image, start, [self.patch] * start.shape[2]))  # (B, T)
        shows = strength > self.empty * strength.mean(1, keepdim=True)
        gumbel = -torch.log(-torch.log(uniform(1e-7, 1 - 1e-7, (len(corner),), draw, image)))
        best = (strength.clamp_min(1e-30).log() + gumbel).topk(self.seeds_per_image, dim=1).indices
        centre = start.gather(1, best.unsqueeze(2).expand(-1, -1, len(cells))) + (self.patch - 1) / 2
        return centre, shows.gather(1, best)

    def transformed(self, image: Tensor, centre: Tensor, draw: Generators) -> Tensor:
        """Look at images (B, C, *spatial) through V transformed windows each, (B V, C, *side).

        Args:
            image: About 0..1.
            centre: (B, V, dims), of the windows, voxels.
            draw: One per image.
        """
        dims, views = image.ndim - 2, centre.shape[1]
        rows = [g for g in draw for _ in range(views)]
        turn = rotation(uniform(-1, 1, (3 if dims == 3 else 1,), rows, image) * math.radians(self.rotation_degrees))
        matrix = turn * self._between(self.scale, (1, 1), rows, image)  # (B V, dims, dims)
        moved = centre.flatten(0, 1) + uniform(-1, 1, (dims,), rows, image) * self.translation * self.patch
        grid = window_grid(image.shape[2:], matrix, moved, self.patch, self._side())  # (B V, *side, dims)
        # The windows of an image are sampled one below the other, so that the image need not be repeated for each.
        column = grid.unflatten(0, (len(image), views)).flatten(1, 2)  # (B, V side, ..., dims)
        seen = F.grid_sample(image, column.to(image), "bilinear", padding_mode="reflection", align_corners=False)
        seen = seen.unflatten(2, (views, -1)).movedim(2, 1).flatten(0, 1)  # (B V, C, *side)
        mean, components = principal_components(image)
        factor = self._between(self.contrast, (image.shape[1],), rows, image)
        seen = contrast(seen, mean.repeat_interleave(views, 0), components.repeat_interleave(views, 0), factor)
        if dims == 2 and image.shape[1] == 3:
            return self._recoloured(seen, rows)
        seen = gamma(seen, self._between(self.power, (), rows, image))
        gain, shift = self._between(self.gain, (), rows, image), uniform(-self.shift, self.shift, (), rows, image)
        return bias_field(scale_and_shift(seen, gain, shift), torch.full((len(seen),), self.bias), rows)

    def _recoloured(self, rgb: Tensor, draw: Generators) -> Tensor:
        """Change hue, saturation and value of (R, 3, H, W), each row by its own draws."""
        h, s, v = rgb_to_hsv(rgb.clamp(0, 1)).unbind(1)
        power, gain = (self._between(between, (2, 1, 1), draw, rgb) for between in (self.power, self.gain))
        sv = torch.stack([s, v], 1).clamp_min(1e-6).pow(power) * gain
        sv = (sv + uniform(-self.shift, self.shift, (2, 1, 1), draw, rgb)).clamp(0, 1)
        h = (h + uniform(-self.hue, self.hue, (1, 1), draw, rgb)) % 1
        return hsv_to_rgb(torch.cat([h.unsqueeze(1), sv], 1))

    def _between(self, between: tuple[float, float], shape: Sequence[int], draw: Generators, like: Tensor) -> Tensor:
        """Draw (R, *shape) between two positive numbers, evenly in the logarithm."""
        return torch.exp(uniform(math.log(between[0]), math.log(between[1]), shape, draw, like))

    def _side(self) -> int:
        """Give the side of the copies: the patch's, enlarged to a multiple, at least two, of the coarsest stride."""
        stride = self.encoder.strides[-1]
        return stride * max(2, -(-self.patch // stride))

    def _cells(self, crop: Sequence[int]) -> list[int]:
        """Count the cells along each axis of a crop that seeds are drawn from; refuse crops with too few."""
        cells = [n // self.patch for n in crop]
        if math.prod(cells) < max(2, self.seeds_per_image):
            raise InputError(
                f"Exemplar: crops of {tuple(crop)} voxels hold {math.prod(cells)} patches of {self.patch} a side, not "
                f"the {max(2, self.seeds_per_image)} to draw seeds from; use larger crops, a smaller patch, or fewer "
                "seeds_per_image."
            )
        if self.form == "classification" and min(crop) < self.window:
            raise InputError(
                f"Exemplar: crops of {tuple(crop)} voxels are smaller than a stored seed of {self.window} a side; "
                f"use larger crops, or lower patch={self.patch}."
            )
        return cells


def _all_digits(x: Tensor) -> torch.autocast:
    """Leave mixed precision: bf16 has 8 bits, too few for places, principal components and distances."""
    return torch.autocast(x.device.type, enabled=False)


def triplet_loss(z: Tensor, label: Tensor, kept: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """Average ``max(0, d(a, p) - d(a, n) + margin)`` over all pairs of a label, n being semi-hard for each.

    Semi-hard is the nearest of the negatives that are farther than the positive (FaceNet, eq. 4); where none is
    farther, it is the farthest of all.

    Args:
        z: (R, D), unit vectors.
        label: (R,), which seed each one is of.
        kept: (R,), whether a row takes part.
        margin: In squared distance.

    Returns:
        The loss, and the share of pairs that do not keep the margin yet, without gradient.
    """
    d = (2 - 2 * z @ z.T).clamp_min(0)
    taking_part = kept.unsqueeze(0) & kept.unsqueeze(1)
    same = label.unsqueeze(0) == label.unsqueeze(1)
    negative = taking_part & ~same
    count = negative.sum(1, keepdim=True)  # (R, 1)
    pair = taking_part & same & ~torch.eye(len(z), dtype=torch.bool, device=z.device) & (count > 0)
    ordered, order = d.detach().masked_fill(~negative, 5).sort(dim=1)  # the squared distance is at most 4
    farther = torch.searchsorted(ordered, d.detach().contiguous(), right=True)  # (R, R), for each positive
    n = order.gather(1, torch.minimum(farther, count - 1).clamp_min(0))
    hinge = (d - d.gather(1, n) + margin).clamp_min(0) * pair
    pairs = pair.sum().clamp_min(1)
    return hinge.sum() / pairs, ((hinge > 0).sum() / pairs).detach()


def gradient(cells: Tensor) -> Tensor:
    """Average the gradient's absolute components over each of (B, T, C, *side); (B, T)."""
    cells = cells.float()
    axes = range(3, cells.ndim)
    return torch.stack([cells.diff(dim=axis).abs().flatten(2).mean(2) for axis in axes]).mean(0)


def window_grid(spatial: Sequence[int], matrix: Tensor, centre: Tensor, patch: int, side: int) -> Tensor:
    """Make the grid (R, side, ..., dims), for ``grid_sample``, of windows ``patch`` voxels wide with ``side`` samples.

    Args:
        spatial: Size of the images, voxels.
        matrix: (R, dims, dims), from the window's axes to the image's.
        centre: (R, dims), voxels.
        patch: Width of a window before ``matrix``.
        side: Samples along each axis.
    """
    dims = len(spatial)
    line = ((torch.arange(side, device=matrix.device) + 0.5) / side - 0.5) * patch
    u = torch.stack(torch.meshgrid(*[line] * dims, indexing="ij"), -1)  # (side, ..., dims)
    voxel = torch.einsum("rij,...j->r...i", matrix, u) + centre.view(-1, *[1] * dims, dims)
    size = torch.tensor(spatial, device=matrix.device)
    return ((2 * voxel + 1) / size - 1).flip(-1)  # torch wants the last axis first


def principal_components(image: Tensor) -> tuple[Tensor, Tensor]:
    """Give the mean (B, C) and the principal components (B, C, C), in columns, of each image's voxels."""
    x = image.float().flatten(2)
    mean = x.mean(2)
    centred = x - mean.unsqueeze(2)
    return mean, torch.linalg.eigh(centred @ centred.transpose(1, 2) / x.shape[2]).eigenvectors


def contrast(x: Tensor, mean: Tensor, components: Tensor, factor: Tensor) -> Tensor:
    """Scale (R, C, *side) about ``mean`` (R, C) along ``components`` (R, C, C), each by its ``factor`` (R, C)."""
    scaling = components @ torch.diag_embed(factor) @ components.transpose(1, 2)
    mean = mean.view(*mean.shape, *[1] * (x.ndim - 2))
    return (torch.einsum("rij,rj...->ri...", scaling, x - mean) + mean).to(x.dtype)


def rgb_to_hsv(rgb: Tensor) -> Tensor:
    """Turn (R, 3, H, W) of 0..1 into hue, saturation and value, 0..1 each."""
    value, largest = rgb.max(1)
    chroma = value - rgb.amin(1)
    following, after = (rgb.gather(1, ((largest + step) % 3).unsqueeze(1)).squeeze(1) for step in (1, 2))
    hue = (2 * largest + (following - after) / chroma.clamp_min(1e-6)) / 6
    return torch.stack([hue % 1, chroma / value.clamp_min(1e-6), value], 1)


def hsv_to_rgb(hsv: Tensor) -> Tensor:
    """Turn (R, 3, H, W) of hue, saturation and value into red, green and blue, 0..1."""
    h, s, v = hsv.unbind(1)
    shades = []
    for first in (5, 3, 1):
        k = (first + 6 * h) % 6
        shades.append(v - v * s * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.stack(shades, 1)
