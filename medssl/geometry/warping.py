"""One view drawn from another: through a flow, through depth and motion, through a disparity.

Of a pair, "a" is the view that is drawn and "b" the one that is read. Pixels and flows are (B, 2, H, W), x first, in
pixels; the centre of the first pixel is at (0, 0) and that of the last at (W - 1, H - 1), which
``torch.nn.functional.grid_sample`` calls ``align_corners=True``. A pixel whose depth is unknown (not positive, or not
finite) and one that is behind the other camera land at (-1, -1): outside, invalid, and without gradient.
"""

from typing import Literal

import torch
from kornia.geometry.transform import remap
from torch import Tensor

from medssl.errors import InputError
from medssl.geometry.cameras import NOWHERE, backproject, invert, pixel_grid, project, transform
from medssl.geometry.precision import in_float32

Padding = Literal["border", "zeros"]
Mode = Literal["bilinear", "nearest", "bicubic"]

_MASKED_IN = 0.9  # share of a sampled mask from which on a pixel counts (Liu et al. 2019)
_ROUNDING = 1e-3  # pixels: one that lands on itself stays inside, whatever float32's last bits say


@in_float32
def sample(image: Tensor, pixels: Tensor, padding: Padding = "border", mode: Mode = "bilinear") -> Tensor:
    """Read an image between its pixels.

    Args:
        image: (B, C, h, w), floating.
        pixels: Where to read it (B, 2, H, W), x first.
        padding: What is outside: the ``"border"``'s values, or ``"zeros"``.
        mode: Of the interpolation.

    Returns:
        (B, C, H, W), float32 (float64 for a float64 image).
    """
    x, y = pixels.to(image.dtype).unbind(dim=1)
    return remap(image, x, y, mode, padding, align_corners=True)


def inside(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Tell which pixels (B, 2, H, W) lie in a picture of that height and width, (B, 1, H, W), bool.

    In it is between the centres of its first and last pixels.
    """
    height, width = size
    x, y = pixels[:, :1], pixels[:, 1:]
    across = (x >= -_ROUNDING) & (x <= width - 1 + _ROUNDING)
    return across & (y >= -_ROUNDING) & (y <= height - 1 + _ROUNDING)


@in_float32
def flow_from_depth(depth: Tensor, intrinsics: Tensor, rigid: Tensor) -> Tensor:
    """Tell how far each pixel of view a moves to where view b shows the same point.

    This is Liu et al. 2019's flow from depth, in pixels: with M = K R K^-1 and W = K t of ``rigid`` = (R, t), pixel p
    goes to q_xy / q_z with q = d M p + W.

    Args:
        depth: Of view a, (B, 1, H, W).
        intrinsics: Of both views, (B, 3, 3).
        rigid: From camera a's axes to camera b's, (B, 4, 4), in the depth's unit.

    Returns:
        (B, 2, H, W), x first, pixels.
    """
    return _landing(depth, intrinsics, rigid) - pixel_grid(depth.shape[-2], depth.shape[-1], depth.device, depth.dtype)


@in_float32
def warp(image_b: Tensor, flow_a_to_b: Tensor, padding: Padding = "border") -> Tensor:
    """Draw view a from an image of view b (B, C, H, W) and the flow from a to b (B, 2, H, W)."""
    height, width = flow_a_to_b.shape[-2:]
    grid = pixel_grid(height, width, flow_a_to_b.device, flow_a_to_b.dtype)
    return sample(image_b, grid + flow_a_to_b, padding)


@in_float32
def reproject(image_b: Tensor, depth_a: Tensor, intrinsics: Tensor, a_to_b: Tensor) -> tuple[Tensor, Tensor]:
    """Draw view a from view b, a's depth and the motion between them.

    Args:
        image_b: (B, C, H, W).
        depth_a: (B, 1, H, W).
        intrinsics: Of both views, (B, 3, 3).
        a_to_b: From camera a's axes to camera b's, (B, 4, 4), in the depth's unit.

    Returns:
        The image as seen from a (B, C, H, W), and where it is one: valid (B, 1, H, W), bool. What hides what is not
        looked at.
    """
    pixels = _landing(depth_a, intrinsics, a_to_b)
    return sample(image_b, pixels), inside(pixels, (image_b.shape[-2], image_b.shape[-1]))


@in_float32
def warp_depth(
    depth_b: Tensor,
    depth_a: Tensor,
    intrinsics: Tensor,
    a_to_b: Tensor,
    mask_b: Tensor | None = None,
    mask_a: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Tell how deep view a is, by the depth of view b: the depth-warping layer.

    Liu et al., "Dense Depth Estimation in Monocular Endoscopy with Self-supervised Learning Methods", IEEE TMI 2019,
    https://arxiv.org/abs/1902.07766. Depth b is moved into camera a, as z there, and read where a's pixels land in b,
    among b's known pixels alone.

    Args:
        depth_b: (B, 1, H, W).
        depth_a: (B, 1, H, W).
        intrinsics: Of both views, (B, 3, 3).
        a_to_b: From camera a's axes to camera b's, (B, 4, 4), in the depths' unit.
        mask_b: Which pixels of b can be trusted, 0 to 1, (B, 1, H, W); ``None`` for all of known depth.
        mask_a: The same of a.

    Returns:
        The depth in camera a, at a's pixels (B, 1, H, W), and where it has a meaning: valid (B, 1, H, W), bool, where
        the sampled mask of b times that of a is at least 0.9.
    """
    known = _known(depth_b)
    moved = transform(backproject(torch.where(known, depth_b, 1.0), intrinsics), invert(a_to_b))[:, 2:]
    weight = known.to(moved.dtype) if mask_b is None else known * mask_b
    pixels = _landing(depth_a, intrinsics, a_to_b)
    weighted, share = sample(torch.cat([moved * weight, weight], dim=1), pixels, "zeros").split(1, dim=1)
    masked = share if mask_a is None else share * mask_a
    return weighted / share.clamp_min(_MASKED_IN), masked >= _MASKED_IN


@in_float32
def depth_from_disparity(sigmoid: Tensor, min_depth: float, max_depth: float) -> Tensor:
    """Turn a network's output between 0 and 1 into depth: 1 / (1/max + (1/min - 1/max) sigmoid).

    Godard et al., "Digging Into Self-Supervised Monocular Depth Estimation", ICCV 2019,
    https://arxiv.org/abs/1806.01260.

    Args:
        sigmoid: Any shape; 0 is far, 1 is near.
        min_depth: Nearest depth, in the scene's unit.
        max_depth: Farthest depth.

    Raises:
        InputError: The limits are not 0 < min_depth < max_depth.
    """
    if not 0 < min_depth < max_depth:
        raise InputError(
            f"Depth limits must be 0 < min_depth < max_depth, in the scene's unit; got {min_depth:g} and {max_depth:g}."
        )
    return 1 / (1 / max_depth + (1 / min_depth - 1 / max_depth) * sigmoid)


@in_float32
def depth_from_stereo(disparity_px: Tensor, focal_px: float | Tensor, baseline: float | Tensor) -> Tensor:
    """Turn the disparity of a rectified pair into depth: focal length times baseline over disparity.

    Args:
        disparity_px: x in the left picture minus x in the right one, (B, 1, H, W), pixels of this picture's size. Where
            the principal points differ, add (cx right - cx left) first.
        focal_px: Focal length in pixels of this picture's size, one or (B, 1, 1, 1).
        baseline: Distance between the cameras, in the unit that the depth shall have, one or (B, 1, 1, 1).

    Returns:
        Depth; 0, for unknown and without gradient, where the disparity is not positive.
    """
    ahead = disparity_px > 0
    return torch.where(ahead, focal_px * baseline / torch.where(ahead, disparity_px, 1.0), 0.0)


@in_float32
def warp_stereo(image_other: Tensor, disparity_px: Tensor, sign: Literal[-1, 1]) -> Tensor:
    """Draw one view of a rectified pair from the other.

    Args:
        image_other: (B, C, H, W).
        disparity_px: Of the view that is drawn: x in the left picture minus x in the right one, (B, 1, H, W), pixels.
        sign: -1 to draw the left view from the right image, whose x is smaller; 1 to draw the right view from the left.
    """
    return warp(image_other, torch.cat([sign * disparity_px, torch.zeros_like(disparity_px)], dim=1))


def _landing(depth_a: Tensor, intrinsics: Tensor, a_to_b: Tensor) -> Tensor:
    """Where b shows each pixel of a, (B, 2, H, W)."""
    known = _known(depth_a)
    points = backproject(torch.where(known, depth_a, 1.0), intrinsics)  # no NaN may reach the gradient of the motion
    pixels, _ = project(transform(points, a_to_b), intrinsics)
    return torch.where(known, pixels, NOWHERE)


def _known(depth: Tensor) -> Tensor:
    return (depth > 0) & depth.isfinite()
