"""Views of an image: overlapping windows, turned, mirrored and with other intensities, for learning by comparison.

Chen et al., "A Simple Framework for Contrastive Learning", ICML 2020, https://arxiv.org/abs/2002.05709, appendix A, for
images. In volumes there is no colour, so its part is played by contrast, gamma, bias field, noise and resolution, and
the two windows overlap at least by half along each axis, as two far places of a body show different organs.
Everything is computed for the whole batch at once, on the device where it lies.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from medssl.augment import (
    bias_field,
    blur,
    chance,
    exact,
    gamma,
    generators,
    noise,
    rotation,
    sampling_grid,
    scale_and_shift,
    uniform,
)
from medssl.errors import InputError

_GREY = (0.299, 0.587, 0.114)  # of red, green and blue in luminance, ITU-R BT.601


@dataclass(frozen=True)
class Views:
    """How the views of an image vary. Probabilities are per view; each range is drawn from uniformly.

    Args:
        size: Of a view in voxels, one number per axis; None is the image's own size.
        window: Smallest and largest side of a window, as shares of the image's sides.
        overlap: Least share of the smaller of two views' windows that the other sees too, along each axis.
        rotation_degrees: Largest rotation about each axis.
        mirroring: Probability of a mirror image along the first axis.
        intensity: Probability of each change of intensity.
        gamma: Largest log of the exponent of the tone curve.
        contrast: Largest change of contrast, as a share.
        brightness: Largest shift of brightness.
        bias: Standard deviation of the log of the bias field at its control points.
        noise: Largest standard deviation of the noise.
        coarseness: Largest factor by which the resolution is lowered.
        saturation: RGB: largest change of saturation, as a share.
        grey: RGB: probability of a view without colour.
    """

    size: tuple[int, ...] | None = None
    window: tuple[float, float] = (0.6, 1.0)
    overlap: float = 0.5
    rotation_degrees: float = 15
    mirroring: float = 0.5
    intensity: float = 0.8
    gamma: float = 0.4
    contrast: float = 0.4
    brightness: float = 0.1
    bias: float = 0.3
    noise: float = 0.05
    coarseness: float = 1.8
    saturation: float = 0.4
    grey: float = 0.2

    def __post_init__(self) -> None:
        """Refuse windows that no image has."""
        low, high = self.window
        if not 0 < low <= high <= 1:
            raise InputError(f"Views: window must be two rising shares of the image within 0 to 1, got {self.window}.")
        if not 0 <= self.overlap <= 1:
            raise InputError(f"Views: overlap is a share within 0 to 1, got {self.overlap}.")

    def __call__(self, image: Tensor, seeds: Tensor, count: int = 2) -> Tensor:
        """Draw views (B, count, C, *size) of an image batch (B, C, *spatial).

        Args:
            image: About 0..1.
            seeds: (B,), the batch's ``seed``: a sample's views depend on nothing else.
            count: Views per image.
        """
        size = tuple(image.shape[2:]) if self.size is None else self.size
        if len(size) != image.ndim - 2:
            raise InputError(f"Views of size {size} do not fit {image.ndim - 2}D images.")
        draw = generators(seeds)
        with exact(image):
            return self._drawn(image, draw, size, count)

    def _drawn(self, image: Tensor, draw: Sequence[Generator], size: tuple[int, ...], count: int) -> Tensor:
        centres, widths = self.windows(draw, len(size), count)  # each (B, count, dims)
        rows = [generator for generator in draw for _ in range(count)]
        angles = uniform(-1, 1, (3 if len(size) == 3 else 1,), rows, image) * torch.pi * self.rotation_degrees / 180
        signs = torch.ones(len(rows), len(size), device=image.device)
        signs[:, 0] -= 2 * chance(self.mirroring, rows, image).float()
        grid = window_grid(size, centres.flatten(0, 1).to(image), widths.flatten(0, 1).to(image), angles, signs)
        repeated = image.repeat_interleave(count, dim=0)
        views = F.grid_sample(repeated, grid, mode="bilinear", padding_mode="border", align_corners=False)
        drawn: Tensor = self.repaint(views, rows).unflatten(0, (len(image), count))
        return drawn

    def windows(self, draw: Sequence[Generator], dims: int, count: int) -> tuple[Tensor, Tensor]:
        """Draw centres and widths (B, count, dims) of windows, the image being -1..1 along each axis.

        All windows overlap the first one, along each axis, by ``overlap`` of the smaller one's width.
        """
        like = torch.empty(0)
        widths = uniform(2 * self.window[0], 2 * self.window[1], (count, dims), draw, like)
        free = uniform(-1, 1, (count, dims), draw, like) * (1 - widths / 2)
        first, width = free[:, :1], widths[:, :1]
        # Intervals of widths a and b, their centres d apart, share (a + b) / 2 - d, and at most the smaller one.
        farthest = (width + widths) / 2 - self.overlap * torch.minimum(width, widths)
        near = torch.maximum(torch.minimum(free, first + farthest), first - farthest)
        centres = torch.cat([first, near[:, 1:]], dim=1)
        return centres.clamp(-(1 - widths / 2), 1 - widths / 2), widths

    def repaint(self, views: Tensor, draw: Sequence[Generator]) -> Tensor:
        """Change the intensities of (B, C, *spatial), each row by its own generator."""

        def some(low: float, high: float) -> Tensor:
            return uniform(low, high, (), draw, views) * chance(self.intensity, draw, views)

        if views.shape[1] == 3:
            grey = chance(self.grey, draw, views)
            views = saturate(views, torch.where(grey, -1.0, some(-self.saturation, self.saturation)))
        views = gamma(views, torch.exp(some(-self.gamma, self.gamma)))
        views = scale_and_shift(views, 1 + some(-self.contrast, self.contrast), some(-self.brightness, self.brightness))
        views = bias_field(views, some(self.bias, self.bias), draw)
        views = blur(views, 1 + some(0, self.coarseness - 1))
        return noise(views, some(0, self.noise), draw)


def window_grid(size: Sequence[int], centres: Tensor, widths: Tensor, angles: Tensor, signs: Tensor) -> Tensor:
    """Make the sampling grid (B, *size, dims) of turned windows, for ``grid_sample``.

    Args:
        size: Of the views, voxels.
        centres: (B, dims) of the windows, the image being -1..1 along each axis, first axis first.
        widths: (B, dims) of the windows, 2 is the whole image.
        angles: (B, 1) or (B, 3), radians.
        signs: (B, dims), -1 mirrors an axis.
    """
    half = torch.tensor(list(size), device=centres.device, dtype=centres.dtype)
    turn = (
        rotation(angles) * half.view(1, 1, -1) / half.view(1, -1, 1)
    )  # rigid in the view's voxels, whatever its sides
    matrix = torch.diag_embed(widths / 2) @ turn @ torch.diag_embed(signs)  # view coordinates to image coordinates
    reversed_axes = matrix.flip(1).flip(2)  # torch wants the last axis first
    theta = torch.cat([reversed_axes, centres.flip(1).unsqueeze(2)], dim=2)
    return sampling_grid(theta, size)


def saturate(image: Tensor, change: Tensor) -> Tensor:
    """Change the saturation of RGB (B, 3, *spatial) by the share ``change`` (B,): -1 is grey, 0 leaves it."""
    weight = torch.tensor(_GREY, device=image.device, dtype=image.dtype).view(1, 3, *[1] * (image.ndim - 2))
    grey = (image * weight).sum(1, keepdim=True)
    return grey + (image - grey) * (1 + change.to(image).view(-1, *[1] * (image.ndim - 1)))
