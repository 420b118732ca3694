"""Where crops are taken from an image."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator

from medssl.errors import InputError

Slices = tuple[slice, ...]


def crop_at(centre: Sequence[int], size: Sequence[int], shape: Sequence[int]) -> Slices:
    """Return the crop of ``size`` nearest to ``centre`` that lies inside an image of ``shape``.

    Along an axis where the image is smaller than the crop, the whole axis is returned; see ``pad_to``.
    """
    starts = [min(max(c - n // 2, 0), max(total - n, 0)) for c, n, total in zip(centre, size, shape, strict=True)]
    return tuple(slice(s, min(s + n, total)) for s, n, total in zip(starts, size, shape, strict=True))


def random_crop(size: Sequence[int], shape: Sequence[int], generator: Generator) -> Slices:
    """Draw a crop of ``size`` uniformly from those inside an image of ``shape``."""
    starts = [_draw(max(total - n, 0) + 1, generator) for n, total in zip(size, shape, strict=True)]
    return tuple(slice(s, min(s + n, total)) for s, n, total in zip(starts, size, shape, strict=True))


def structure_crop(
    size: Sequence[int],
    shape: Sequence[int],
    present: Sequence[int],
    positions: Callable[[int], NDArray[np.int32]],
    generator: Generator,
) -> Slices:
    """Draw a structure, then one of its voxels, and take the crop that holds it at a random place.

    Every structure is drawn equally often, so the rare ones are seen as often as the large ones.

    Args:
        size: Of the crop, voxels.
        shape: Of the image, voxels.
        present: The class indices to draw from, those that the image holds.
        positions: Gives some voxels (n, dims) of a class.
        generator: The sample's own.
    """
    voxels = positions(present[_draw(len(present), generator)])
    voxel = voxels[_draw(len(voxels), generator)]
    # The voxel may lie anywhere in the middle half of the crop, so that structures are seen in varied context.
    centre = [int(v) + _draw(max(n // 2, 1), generator) - n // 4 for v, n in zip(voxel, size, strict=True)]
    return crop_at(centre, size, shape)


def pad_to(array: NDArray[np.generic], size: Sequence[int], value: float = 0) -> NDArray[np.generic]:
    """Pad the trailing axes at their end up to ``size``; larger axes stay."""
    leading = array.ndim - len(size)
    missing = [max(n - have, 0) for n, have in zip(size, array.shape[leading:], strict=True)]
    if not any(missing):
        return array
    return np.pad(array, [(0, 0)] * leading + [(0, m) for m in missing], constant_values=value)


def check_patch(size: Sequence[int], spatial_dims: int) -> None:
    """Check that a patch size has one positive side per dimension.

    Raises:
        InputError: It has not.
    """
    if len(size) != spatial_dims or min(size) < 1:
        raise InputError(
            f"patch_size={tuple(size)} does not fit {spatial_dims}D images: give {spatial_dims} positive sides."
        )


def _draw(count: int, generator: Generator) -> int:
    """Draw one of 0 .. count - 1."""
    return int(torch.randint(count, (), generator=generator))
