"""Colours as lightness and two axes of colour: Lab of CIE 15:2004, for the sRGB of IEC 61966-2-1 and its white D65."""

import kornia.color
from torch import Tensor

from medssl.geometry import in_float32


@in_float32
def rgb_to_lab(rgb: Tensor) -> Tensor:
    """Turn sRGB (B, 3, *spatial), 0..1, into L (0..100), a and b (about -110 to 110)."""
    return kornia.color.rgb_to_lab(rgb.flatten(2)[..., None]).reshape(rgb.shape)


@in_float32
def lab_to_rgb(lab: Tensor) -> Tensor:
    """Turn L, a and b (B, 3, *spatial) into sRGB, 0..1; colours that it does not have are clipped."""
    return kornia.color.lab_to_rgb(lab.flatten(2)[..., None]).reshape(lab.shape)


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
