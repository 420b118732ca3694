"""How well two views agree where they should show the same, and how smooth a field is: the losses of depth and of flow.

Images are (B, C, H, W), intensities 0 to 1. All is computed in float32 or better, also under mixed precision: variances
of nearly flat tissue drown in the rounding of bf16.
"""

from collections.abc import Iterator
from types import EllipsisType
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from medssl.errors import InputError
from medssl.geometry import in_float32

_LUMA = (0.299, 0.587, 0.114)  # of red, green and blue, ITU-R BT.601
_FLAT = 1e-8  # variance of intensities below which no gain can be told: a deviation of 1e-4 of the whole range


@in_float32
def ssim(a: Tensor, b: Tensor, window: int = 3) -> Tensor:
    """Structural similarity of each pixel, over a square window of equal weights, reflected at the border.

    Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", IEEE TIP 2004, eq. 13, with
    K1 = 0.01 and K2 = 0.03; the window as in Godard et al. 2017, https://arxiv.org/abs/1609.03677.

    Args:
        a: (B, C, H, W), intensities 0 to 1.
        b: The same.
        window: Side of the window, odd, pixels.

    Returns:
        (B, C, H, W), -1 to 1; 1 where the images agree.
    """
    _require_odd(window)
    C1, C2 = 0.01**2, 0.03**2
    a, b = (F.pad(image, [window // 2] * 4, mode="reflect") for image in (a, b))
    mean_a, mean_b, mean_aa, mean_bb, mean_ab = (F.avg_pool2d(x, window, 1) for x in (a, b, a * a, b * b, a * b))
    product, squares = mean_a * mean_b, mean_a.square() + mean_b.square()
    covariance, variances = mean_ab - product, mean_aa + mean_bb - squares
    return (2 * product + C1) * (2 * covariance + C2) / ((squares + C1) * (variances + C2))


@in_float32
def photometric_error(a: Tensor, b: Tensor, ssim_weight: float = 0.85) -> Tensor:
    """Mix structural dissimilarity and absolute difference, averaged over the channels.

    Godard et al., "Unsupervised Monocular Depth Estimation with Left-Right Consistency", CVPR 2017,
    https://arxiv.org/abs/1609.03677, eq. 2.

    Args:
        a: (B, C, H, W), intensities 0 to 1.
        b: The same.
        ssim_weight: The paper's alpha, the share of (1 - SSIM) / 2.

    Returns:
        (B, 1, H, W), 0 to 1.
    """
    difference = (a - b).abs()
    if ssim_weight > 0:
        dissimilarity = ((1 - ssim(a, b)) / 2).clamp(0, 1)
        difference = ssim_weight * dissimilarity + (1 - ssim_weight) * difference
    return difference.mean(dim=1, keepdim=True)


@in_float32
def charbonnier(difference: Tensor, epsilon: float = 1e-3, exponent: float = 0.5) -> Tensor:
    """Robust penalty (x^2 + epsilon^2)^exponent of each entry, any shape; near |x| with the default exponent.

    Sun, Roth, Black, "A Quantitative Analysis of Current Practices in Optical Flow Estimation", IJCV 2014.
    """
    return (difference.square() + epsilon**2) ** exponent


@in_float32
def census_transform(image: Tensor, window: int = 7) -> Tensor:
    """Compare each pixel with its neighbours, softly: t = D / sqrt(0.81 + D^2), D being neighbour minus pixel.

    Stein, "Efficient Computation of Optical Flow Using the Census Transform", DAGM 2004, made differentiable as in
    Meister, Hur, Roth, "UnFlow", AAAI 2018, https://arxiv.org/abs/1711.07837. The constant is for grey values of 0 to
    255, to which the image is brought here; differences of one grey value count half, larger ones by their sign alone.

    Args:
        image: Grey (B, 1, H, W) or RGB (B, 3, H, W), intensities 0 to 1.
        window: Side of the square of neighbours, odd, pixels. Beyond the border stand the border's own values.

    Returns:
        (B, window^2 - 1, H, W), -1 to 1; neighbours row by row.
    """
    padded = _padded_grey(image, window)
    height, width = image.shape[-2:]
    middle = window // 2
    centre = padded[..., middle : middle + height, middle : middle + width]
    places = [(y, x) for y in range(window) for x in range(window) if (y, x) != (middle, middle)]
    D = torch.cat([padded[..., y : y + height, x : x + width] - centre for y, x in places], dim=1)
    return D * (0.81 + D.square()).rsqrt()


@in_float32
def census_error(a: Tensor, b: Tensor, window: int = 7) -> Tensor:
    """Count the neighbours that compare otherwise in the two images, softly: the sum of h = d^2 / (0.1 + d^2).

    d is the difference of the two census transforms (see ``census_transform``). Each pair of neighbours is compared
    once for both, one direction after another, and again for the gradient: the transforms are never held whole.

    Args:
        a: Grey (B, 1, H, W) or RGB (B, 3, H, W), intensities 0 to 1.
        b: The same.
        window: Side of the square of neighbours, odd, pixels.

    Returns:
        (B, 1, H, W), 0 to below window^2 - 1.
    """
    total: Tensor = _CensusError.apply(  # type: ignore[no-untyped-call]  # torch's
        _padded_grey(a, window), _padded_grey(b, window), window
    )
    margin = window // 2
    return total[..., margin:-margin, margin:-margin]


@in_float32
def edge_aware_smoothness(field: Tensor, image: Tensor, order: Literal[1, 2] = 1, edge_weight: float = 1.0) -> Tensor:
    """Ask a field to be smooth where the image is: the mean of |d^n field| exp(-weight |d image|), along x plus y.

    With order 1 as in Godard et al. 2017, https://arxiv.org/abs/1609.03677, eq. 3; order 2 lets planes tilt, and
    measures the image's change over the same three pixels.

    Args:
        field: Disparity or flow (B, K, H, W).
        image: (B, C, H, W), intensities 0 to 1; its change is averaged over the channels.
        order: Of the field's derivative.
        edge_weight: How much an edge excuses; 0 for the same smoothness everywhere.

    Returns:
        A scalar.
    """
    total = field.new_zeros(())
    for axis in (-1, -2):
        reach = image.shape[axis] - order
        step = image.narrow(axis, order, reach) - image.narrow(axis, 0, reach)
        excuse = torch.exp(-edge_weight * step.abs().mean(dim=1, keepdim=True))
        total = total + (field.diff(n=order, dim=axis).abs() * excuse).mean()
    return total


@in_float32
def mean_normalised(disparity: Tensor) -> Tensor:
    """Divide each disparity map (B, 1, H, W) by its mean, so that shrinking it is not a way to make it smooth.

    Wang et al., "Learning Depth from Monocular Videos Using Direct Methods", CVPR 2018,
    https://arxiv.org/abs/1712.00175.
    """
    return disparity / (disparity.mean(dim=(2, 3), keepdim=True) + 1e-7)


@in_float32
def match_brightness(source: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Give an image the brightness of another, for a light that moves with the camera.

    One gain, not negative, and one offset per image and for all of its channels: those of the least squared difference
    over the valid pixels. An image without contrast gets an offset alone, one without valid pixels stays as it is.

    Args:
        source: (B, C, H, W).
        target: The same.
        valid: (B, 1, H, W), bool, or weights.

    Returns:
        (B, C, H, W), the source times gain plus offset.
    """
    weight = valid.expand_as(source).to(source.dtype)
    share = weight / _at_least_some(weight.sum(dim=(1, 2, 3), keepdim=True))
    source_mean, target_mean = _weighted(source, share), _weighted(target, share)
    variance = _weighted((source - source_mean).square(), share)
    covariance = _weighted((source - source_mean) * (target - target_mean), share)
    contrast = variance > _FLAT
    gain = torch.where(contrast, covariance / torch.where(contrast, variance, 1.0), 1.0).clamp_min(0)
    return gain * (source - source_mean) + target_mean


@in_float32
def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Average over a mask, as a scalar; 0 for an empty one.

    Args:
        values: Any shape; what the mask leaves out may be NaN, and passes no gradient.
        mask: Bool, or weights from 0 on, of a shape that can be broadcast to that of the values.
    """
    weight = mask.expand_as(values).to(values.dtype)
    return (torch.where(weight > 0, values, 0.0) * weight).sum() / _at_least_some(weight.sum())


def _weighted(values: Tensor, share: Tensor) -> Tensor:
    """Weighted mean of each image, (B, 1, 1, 1); what has no weight may be NaN."""
    return (torch.where(share > 0, values, 0.0) * share).sum(dim=(1, 2, 3), keepdim=True)


def _at_least_some(total: Tensor) -> Tensor:
    return torch.where(total > 0, total, 1.0)


def _padded_grey(image: Tensor, window: int) -> Tensor:
    """Grey values 0 to 255, continued beyond the border, (B, 1, H + window - 1, W + window - 1)."""
    _require_odd(window)
    if image.shape[1] not in (1, 3):
        raise InputError(f"A census needs a grey image or RGB, 1 or 3 channels; got {image.shape[1]}.")
    if image.shape[1] == 3:
        red, green, blue = (weight * image[:, i : i + 1] for i, weight in enumerate(_LUMA))
        image = red + green + blue
    return F.pad(255 * image, [window // 2] * 4, mode="replicate")


class _CensusError(torch.autograd.Function):
    """Sum of h over all neighbours, of padded images (B, 1, *); right for pixels whose window is in the image."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, window: int) -> Tensor:
        total = torch.zeros_like(a)
        for one, other in _pairs(window):
            D_a, D_b = a[other] - a[one], b[other] - b[one]
            d2 = (D_a * (0.81 + D_a.square()).rsqrt() - D_b * (0.81 + D_b.square()).rsqrt()).square_()
            h = d2 / (0.1 + d2)
            total[one] += h
            total[other] += h
        ctx.save_for_backward(a, b)
        ctx.window = window
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_total: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        a, b = ctx.saved_tensors
        d_a = torch.zeros_like(a) if ctx.needs_input_grad[0] else None
        d_b = torch.zeros_like(b) if ctx.needs_input_grad[1] else None
        for one, other in _pairs(ctx.window):
            D_a, D_b = a[other] - a[one], b[other] - b[one]
            s_a, s_b = (0.81 + D_a.square()).rsqrt(), (0.81 + D_b.square()).rsqrt()
            d = D_a * s_a - D_b * s_b
            # dh/dd = 0.2 d / (0.1 + d^2)^2 and dt/dD = 0.81 s^3, with t = D s
            d_d = (d_total[one] + d_total[other]) * (0.81 * 0.2 * d) / (0.1 + d.square()).square()
            for d_image, s, sign in ((d_a, s_a, 1), (d_b, s_b, -1)):
                if d_image is not None:
                    d_D = d_d * s**3
                    d_image[other].add_(d_D, alpha=sign)
                    d_image[one].sub_(d_D, alpha=sign)
        return d_a, d_b, None


Part = tuple[EllipsisType, slice, slice]


def _pairs(window: int) -> Iterator[tuple[Part, Part]]:
    """Give the two parts of an image that lie one on the other when it is shifted, for half of a window's shifts."""
    reach = window // 2
    for down in range(reach + 1):
        for right in range(-reach, reach + 1):
            if down > 0 or right > 0:
                (top, bottom), (left, beside) = _shifted(down), _shifted(right)
                yield (..., top, left), (..., bottom, beside)


def _shifted(by: int) -> tuple[slice, slice]:
    first, second = slice(None, -abs(by) or None), slice(abs(by), None)
    return (first, second) if by >= 0 else (second, first)


def _require_odd(window: int) -> None:
    if window < 3 or window % 2 == 0:
        raise InputError(f"A window needs an odd side of at least 3 pixels, to have a middle; got {window}.")
