"""Colours as lightness and two axes of colour: Lab of CIE 15:2004, for the sRGB of IEC 61966-2-1 and its white D65."""

import torch
from torch import Tensor

_TO_XYZ = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))  # of linear red, green, blue
_EPSILON = 6 / 29  # where Lab's cube root goes over into a line


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """Turn sRGB (B, 3, *spatial), 0..1, into L (0..100), a and b (about -110 to 110)."""
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb.clamp_min(0.04045) + 0.055) / 1.055).pow(2.4))
    xyz = _mixed(linear, torch.tensor(_TO_XYZ, dtype=torch.float64)) / _white(rgb)
    roots = torch.where(xyz > _EPSILON**3, xyz.clamp_min(_EPSILON**3).pow(1 / 3), xyz / (3 * _EPSILON**2) + 4 / 29)
    x, y, z = roots.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """Turn L, a and b (B, 3, *spatial) into sRGB, 0..1; colours that it does not have are clipped."""
    L, a, b = lab.unbind(1)
    y = (L + 16) / 116
    roots = torch.stack([y + a / 500, y, y - b / 200], dim=1)
    xyz = torch.where(roots > _EPSILON, roots**3, 3 * _EPSILON**2 * (roots - 4 / 29)) * _white(lab)
    linear = _mixed(xyz, torch.tensor(_TO_XYZ, dtype=torch.float64).inverse()).clamp(0, 1)
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clamp_min(0.0031308).pow(1 / 2.4) - 0.055)


def colour_auc(found: Tensor, truth: Tensor, weight: Tensor | None = None, farthest: float = 150) -> Tensor:
    """Area under the share of pixels whose colour is found within a distance, over distances from 0 to ``farthest``.

    Zhang, Isola, Efros, "Colorful Image Colorization", ECCV 2016, https://arxiv.org/abs/1603.08511, section 3.1, where
    the distances go in whole steps; here they are all of them, which gives each pixel 1 - distance / farthest, or 0.

    Args:
        found: a and b, (B, 2, *spatial).
        truth: The same.
        weight: Of each pixel, (B, *spatial): one over how often its class of colours is makes the classes count alike.
        farthest: Distance of a and b up to which is looked.

    Returns:
        A scalar, 0 to 1.
    """
    near = 1 - (found - truth).norm(dim=1).clamp_max(farthest) / farthest
    area: Tensor = near.mean() if weight is None else (near * weight).sum() / weight.sum()
    return area


def _mixed(x: Tensor, matrix: Tensor) -> Tensor:
    """Mix the channels of (B, 3, *spatial); sums, as autocast would round the entries of a matrix product."""
    rows = matrix.to(x).view(3, 3, *[1] * (x.ndim - 2))
    return torch.stack([(x * row).sum(1) for row in rows], dim=1)


def _white(like: Tensor) -> Tensor:
    """Give X, Y and Z of white, (3, 1, ...): the sums of the matrix' rows, so that white has neither a nor b."""
    return torch.tensor(_TO_XYZ, dtype=torch.float64).sum(1).to(like).view(3, *[1] * (like.ndim - 2))
