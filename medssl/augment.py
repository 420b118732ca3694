"""Augmentations of a whole batch at once, on the device where it lies, for 2D and 3D.

Each sample has its own generator, made from its ``seed`` key, that draws its parameters; applying them is batched.
So a sample's augmentation does not depend on the batch it is in, on the number of workers or on the device.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

Generators = Sequence[Generator]


@dataclass(frozen=True)
class Augmentation:
    """How training images vary. Probabilities are per sample; each range is drawn from uniformly.

    Args:
        affine: Probability of a rotation and scaling.
        rotation_degrees: Largest rotation about each axis.
        scaling: Largest scaling along each axis, 0.15 is from 1/1.15 to 1.15.
        mirroring: Probability of a left-right mirror image, with the paired structures swapped; 0 leaves it off.
        intensity: Probability of each change of intensity.
        gamma: Largest log of the exponent of the tone curve.
        contrast: Largest change of contrast, as a share.
        brightness: Largest shift of brightness.
        bias: Standard deviation of the log of the bias field at its control points.
        noise: Largest standard deviation of the noise.
        coarseness: Largest factor by which the resolution is lowered.
    """

    affine: float = 0.5
    rotation_degrees: float = 12
    scaling: float = 0.12
    mirroring: float = 0.5
    intensity: float = 0.4
    gamma: float = 0.35
    contrast: float = 0.25
    brightness: float = 0.05
    bias: float = 0.25
    noise: float = 0.03
    coarseness: float = 1.6

    def __call__(self, image: Tensor, label: Tensor, seeds: Tensor, mirrored: Tensor | None) -> tuple[Tensor, Tensor]:
        """Augment a batch.

        Args:
            image: (B, C, *spatial), about 0..1.
            label: (B, *spatial), class indices.
            seeds: (B,), the batch's ``seed``.
            mirrored: (classes,), the class that each class becomes in a mirror image; None leaves mirroring off.
        """
        with exact(image):
            return self._apply(image, label, generators(seeds), mirrored)

    def _apply(self, image: Tensor, label: Tensor, draw: Generators, mirrored: Tensor | None) -> tuple[Tensor, Tensor]:
        if mirrored is not None:
            image, label = mirror(image, label, mirrored, chance(self.mirroring, draw, image))
        size = image.shape[2:]
        image, label = resample(
            image, label, affine_grid(size, self.rotation_degrees, self.scaling, draw, self.affine, image)
        )
        image = gamma(image, torch.exp(self._when(draw, image, -self.gamma, self.gamma)))
        scale = 1 + self._when(draw, image, -self.contrast, self.contrast)
        image = scale_and_shift(image, scale, self._when(draw, image, -self.brightness, self.brightness))
        image = bias_field(image, self._when(draw, image, self.bias, self.bias), draw)
        image = blur(image, 1 + self._when(draw, image, 0, self.coarseness - 1))
        return noise(image, self._when(draw, image, 0, self.noise), draw), label

    def _when(self, draw: Generators, like: Tensor, low: float, high: float) -> Tensor:
        """Draw (B,) between ``low`` and ``high``; 0, which changes nothing, for samples that are left alone."""
        return uniform(low, high, (), draw, like) * chance(self.intensity, draw, like)


def exact(like: Tensor) -> torch.autocast:
    """Leave autocast on the device of ``like``: coordinates in bf16 would be wrong by a fifth of a voxel."""
    return torch.autocast(like.device.type, enabled=False)


def generators(seeds: Tensor) -> list[Generator]:
    """Make one generator per sample from the batch's ``seed`` (B,)."""
    return [Generator().manual_seed(int(seed)) for seed in seeds]


def uniform(low: float, high: float, shape: Sequence[int], draw: Generators, like: Tensor) -> Tensor:
    """Draw (B, *shape) between ``low`` and ``high``, each sample from its own generator."""
    values = torch.stack([torch.rand(tuple(shape), generator=g) for g in draw])
    return (low + (high - low) * values).to(like.device)


def chance(probability: float, draw: Generators, like: Tensor) -> Tensor:
    """Decide per sample, (B,) of bool."""
    return uniform(0, 1, (), draw, like) < probability


def mirror(image: Tensor, label: Tensor, mirrored: Tensor, flip: Tensor) -> tuple[Tensor, Tensor]:
    """Mirror left and right (the first spatial axis) where ``flip``, and swap the paired structures.

    Args:
        image: (B, C, *spatial).
        label: (B, *spatial), class indices.
        mirrored: (classes,), the class that each class becomes in a mirror image.
        flip: (B,) of bool.
    """
    if not flip.any():
        return image, label
    image, label = image.clone(), label.clone()
    image[flip] = image[flip].flip(2)
    label[flip] = mirrored.to(label.dtype)[label[flip].flip(1).long()]
    return image, label


def affine_grid(
    size: Sequence[int], rotation_degrees: float, scaling: float, draw: Generators, probability: float, like: Tensor
) -> Tensor:
    """Draw rotations up to ``rotation_degrees`` about each axis and log-uniform scalings up to 1 + ``scaling``.

    Returns:
        Sampling grid (B, *size, dims) for ``resample``: normalised coordinates, last axis first as torch wants it.
    """
    dims = len(size)
    used = chance(probability, draw, like).view(-1, 1)
    angles = uniform(-1, 1, (3 if dims == 3 else 1,), draw, like) * used * torch.pi * rotation_degrees / 180
    scale = torch.exp(uniform(-1, 1, (dims,), draw, like) * used * torch.log1p(torch.tensor(scaling)))
    matrix = torch.diag_embed(scale) @ rotation(angles)  # (B, dims, dims) in voxels
    half = torch.tensor(list(reversed(size)), device=like.device, dtype=torch.float32) / 2
    matrix = matrix * half.view(1, 1, -1) / half.view(1, -1, 1)  # to normalised coordinates
    theta = torch.cat([matrix, torch.zeros_like(matrix[..., :1])], dim=-1)
    return sampling_grid(theta, size)


def sampling_grid(theta: Tensor, size: Sequence[int]) -> Tensor:
    """Do what ``torch.nn.functional.affine_grid`` does, by a sum over the axes: several times faster.

    As there, with ``align_corners`` off: -1 and 1 are the outer faces of the first and the last voxel.

    Args:
        theta: (B, dims, dims + 1), affine maps of normalised coordinates, last axis first.
        size: Of the grid, voxels.

    Returns:
        (B, *size, dims).
    """
    dims = len(size)
    grid = theta[:, :, dims].view(-1, *[1] * dims, dims)
    for axis, n in enumerate(size):
        places = (torch.arange(n, device=theta.device, dtype=theta.dtype) * 2 + 1) / n - 1  # of the voxels' centres
        along = theta[:, None, :, dims - 1 - axis] * places.view(-1, 1)  # (B, n, dims)
        grid = grid + along.view(-1, *[n if a == axis else 1 for a in range(dims)], dims)
    return grid


def resample(image: Tensor, label: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    """Sample image (B, C, *spatial) linearly, label (B, *spatial) at the nearest voxel; outside the edge goes on."""
    image = F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)
    nearest = F.grid_sample(
        label.unsqueeze(1).to(image.dtype), grid, mode="nearest", padding_mode="border", align_corners=False
    )
    return image, nearest.squeeze(1).to(label.dtype)


def gamma(image: Tensor, exponent: Tensor) -> Tensor:
    """Raise each channel, scaled to 0..1 over its own range, to ``exponent`` (B,), and scale back."""
    axes = tuple(range(2, image.ndim))
    low, high = image.amin(axes, keepdim=True), image.amax(axes, keepdim=True)
    unit = (image - low) / (high - low).clamp_min(1e-6)
    return low + (high - low) * unit.pow(_per_sample(exponent, image))


def scale_and_shift(image: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Multiply by ``scale`` (B,) and add ``shift`` (B,)."""
    return torch.addcmul(_per_sample(shift, image), image, _per_sample(scale, image))


def bias_field(image: Tensor, strength: Tensor, draw: Generators, control_points: int = 4) -> Tensor:
    """Multiply by a smooth field exp(f), f interpolated from a coarse grid of normal draws times ``strength`` (B,)."""
    dims = image.ndim - 2
    coarse = torch.stack([torch.randn([1] + [control_points] * dims, generator=g) for g in draw]).to(image.device)
    field = coarse * _per_sample(strength, coarse)
    for axis, n in enumerate(image.shape[2:], start=2):  # linear along one axis after the other
        field = (field.movedim(axis, -1) @ _hats(control_points, n, field)).movedim(-1, axis)
    return image * field.exp()


def _hats(points: int, n: int, like: Tensor) -> Tensor:
    """Weights (points, n) by which n places, ends included, are interpolated between control points."""
    places = torch.linspace(0, points - 1, n, device=like.device, dtype=like.dtype)
    return (1 - (torch.arange(points, device=like.device).view(-1, 1) - places).abs()).clamp_min(0)


def noise(image: Tensor, sigma: Tensor, draw: Generators) -> Tensor:
    """Add normal noise of standard deviation ``sigma`` (B,)."""
    if not sigma.any():
        return image
    drawn = [torch.randn(image.shape[1:], generator=g) for g in draw]
    return torch.addcmul(image, _per_sample(sigma, image), torch.stack(drawn).to(image.device))


def blur(image: Tensor, factor: Tensor) -> Tensor:
    """Imitate a coarser scan: samples with ``factor`` (B,) above 1 are down-sampled by it and up-sampled again."""
    mode = "trilinear" if image.ndim == 5 else "bilinear"
    out = image.clone()
    for i in torch.nonzero(factor > 1).flatten().tolist():
        size = [max(1, round(n / float(factor[i]))) for n in image.shape[2:]]
        small = F.interpolate(image[i : i + 1], size=size, mode=mode)
        out[i] = F.interpolate(small, size=image.shape[2:], mode=mode)[0]
    return out


def _per_sample(values: Tensor, like: Tensor) -> Tensor:
    """View (B,) as (B, 1, ..., 1) to broadcast against ``like``."""
    return values.to(like.device, like.dtype).view(-1, *[1] * (like.ndim - 1))


def rotation(angles: Tensor) -> Tensor:
    """Turn (B, 1) or (B, 3) angles into rotations (B, 2, 2) or (B, 3, 3), about x, then y, then z."""
    cos, sin = angles.cos(), angles.sin()
    if angles.shape[1] == 1:
        c, s = cos[:, 0], sin[:, 0]
        return torch.stack([torch.stack([c, -s], -1), torch.stack([s, c], -1)], -2)
    total = torch.eye(3, device=angles.device).expand(len(angles), 3, 3)
    for axis in range(3):
        i, j = [a for a in range(3) if a != axis]
        turn = torch.eye(3, device=angles.device).repeat(len(angles), 1, 1)
        turn[:, i, i], turn[:, j, j] = cos[:, axis], cos[:, axis]
        turn[:, i, j], turn[:, j, i] = -sin[:, axis], sin[:, axis]
        total = turn @ total
    return total
