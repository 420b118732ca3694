"""What one view shows and the other does not, found from the flows between them; never differentiated.

Flows are (B, 2, H, W), x first, in pixels. True means hidden: behind something, or outside the other picture.
"""

import torch
from torch import Tensor

from medssl.geometry.cameras import pixel_grid
from medssl.geometry.precision import in_float32
from medssl.geometry.warping import inside, warp


@torch.no_grad()
@in_float32
def occlusion_by_consistency(forward: Tensor, backward: Tensor, a: float = 0.01, b: float = 0.5) -> Tensor:
    """Tell which pixels of the first view the flow there and back does not bring home.

    Sundaram, Brox, Keutzer, "Dense Point Trajectories by GPU-accelerated Large Displacement Optical Flow", ECCV 2010:
    hidden where |f + b(w)|^2 > a (|f|^2 + |b(w)|^2) + b, with w the place where the flow f leads.

    Args:
        forward: From the first view to the second, f.
        backward: From the second to the first, b.
        a: Tolerance for long flows.
        b: Tolerance for all, squared pixels.

    Returns:
        (B, 1, H, W), bool; True also where the flow leads out of the picture.
    """
    height, width = forward.shape[-2:]
    back = warp(backward, forward)
    there = pixel_grid(height, width, forward.device, forward.dtype) + forward
    error = (forward + back).square().sum(dim=1, keepdim=True)
    allowed = a * (forward.square() + back.square()).sum(dim=1, keepdim=True) + b
    return (error > allowed) | ~inside(there, (height, width))


@torch.no_grad()
def occlusion_by_range_map(backward: Tensor, threshold: float = 0.5) -> Tensor:
    """Tell which pixels of the first view no pixel of the second comes from.

    Wang et al., "Occlusion Aware Unsupervised Learning of Optical Flow", CVPR 2018, https://arxiv.org/abs/1711.05890.

    Args:
        backward: From the second view to the first.
        threshold: Of the range map, below which a pixel is hidden. Where all is visible and the second view is m times
            larger, the range map is m^2: moving back by more than 1.4 times looks like hiding.

    Returns:
        (B, 1, H, W), bool.
    """
    return range_map(backward) < threshold


@torch.no_grad()
@in_float32
def range_map(flow: Tensor) -> Tensor:
    """Count how many pixels land on each pixel, (B, 1, H, W); each is shared among the four that it lands between."""
    batch, _, height, width = flow.shape
    x, y = (pixel_grid(height, width, flow.device, flow.dtype) + flow).unbind(dim=1)
    first = torch.arange(batch, device=flow.device)[:, None, None] * (height * width)
    counts = torch.zeros(batch * height * width, dtype=flow.dtype, device=flow.device)
    for right, below in ((0, 0), (0, 1), (1, 0), (1, 1)):
        column, row = x.floor() + right, y.floor() + below
        lands = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        share = torch.where(lands, (1 - (x - column).abs()) * (1 - (y - row).abs()), 0.0)
        index = first + torch.where(lands, row.long() * width + column.long(), 0)
        counts.index_add_(0, index.flatten(), share.flatten())
    return counts.view(batch, 1, height, width)
