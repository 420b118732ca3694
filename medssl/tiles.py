"""Small parts of images, all of a batch at once: cut out, told from background, normalised, enlarged, laid out."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def cut(image: Tensor, start: Tensor, side: Sequence[int]) -> Tensor:
    """Cut tiles (B, T, C, *side) out of images (B, C, *spatial).

    Args:
        image: (B, C, *spatial).
        start: First voxels of the tiles, (B, T, dims); or (B, T, C, dims), where each channel has its own.
        side: Of the tiles, voxels.
    """
    dims = len(side)
    of_channel = start.unsqueeze(2) if start.ndim == 3 else start  # (B, T, 1 or C, dims)
    lead = [torch.arange(n, device=image.device) for n in image.shape[:2]]
    index = [lead[0].view(-1, *[1] * (2 + dims)), lead[1].view(-1, *[1] * dims)]
    for axis, n in enumerate(side):
        along = of_channel[..., axis, None] + torch.arange(n, device=image.device)  # (B, T, 1 or C, n)
        index.append(along.view(*of_channel.shape[:3], *[n if a == axis else 1 for a in range(dims)]))
    return image[tuple(index)]


def textured(tile: Tensor, image: Tensor, empty: float) -> Tensor:
    """Say (B, T) whether tiles (B, T, C, *side) vary by more than the share ``empty`` of their image's deviation."""
    within = tile.float().flatten(3).var(3, unbiased=False).mean(2).sqrt()
    whole = image.float().flatten(2).var(2, unbiased=False).mean(1).sqrt()
    return within > empty * whole.unsqueeze(1)


def normalised(tile: Tensor) -> Tensor:
    """Bring each channel of each tile (R, C, *side) to mean 0 and standard deviation 1; a constant one to 0."""
    axes = tuple(range(2, tile.ndim))
    centred = tile - tile.mean(axes, keepdim=True)
    return centred / (centred.square().mean(axes, keepdim=True).sqrt() + 1e-5)


def enlarged(tile: Tensor, stride: int) -> Tensor:
    """Enlarge (R, C, *side) to the next multiples of ``stride``, at least two, so that any encoder takes it."""
    side = [stride * max(2, -(-n // stride)) for n in tile.shape[2:]]
    return tile if side == list(tile.shape[2:]) else resized(tile, side)


def resized(x: Tensor, size: Sequence[int]) -> Tensor:
    """Interpolate (R, C, *side) linearly to (R, C, *size)."""
    return F.interpolate(x, size=list(size), mode="trilinear" if x.ndim == 5 else "bilinear", align_corners=False)


def mosaic(tile: Tensor, cells: int) -> Tensor:
    """Lay tiles (B, cells**dims, C, *side) out in order, (B, C, *cells side)."""
    dims = tile.ndim - 3
    x = tile.reshape(len(tile), *[cells] * dims, *tile.shape[2:])
    order = [0, 1 + dims, *[axis for a in range(dims) for axis in (1 + a, 2 + dims + a)]]
    return x.permute(order).reshape(len(tile), tile.shape[2], *[cells * n for n in tile.shape[3:]])
