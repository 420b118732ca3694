"""Labels return to the grid that a scan came on: voxel for voxel where the grids coincide, else by a linear vote.

Where a scan was resampled before the network saw it, each class's probability is read at the scan's own voxels by
linear interpolation, and the highest one wins: interpolating numbers of classes would invent structures between two
others, and copying the nearest label would draw the coarse grid's steps into the fine one.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medssl.data.resample import Affine, resample
from medssl.data.volumes import Volume

_SAME_VOXEL = 0.05  # voxels that two grids' voxels may lie apart and still be the same ones
_ROUNDING = 0.01  # of half-precision probabilities, as a share of 1 / classes


def coincide(affine: Affine, like: Volume) -> bool:
    """Say whether every voxel of ``like`` lies on a voxel of the grid of ``affine``, flips and swapped axes allowed."""
    inside, offset = _between(affine, like)
    drift = np.abs(inside - inside.round()) @ np.array(like.data.shape) + np.abs(offset - offset.round())
    turns = np.abs(inside.round())
    return bool((drift < _SAME_VOXEL).all() and (turns.sum(axis=0) == 1).all() and (turns.sum(axis=1) == 1).all())


def copied(labels: NDArray[np.uint8], affine: Affine, like: Volume) -> NDArray[np.uint8]:
    """Copy labels (*spatial) onto the coinciding grid of ``like``; outside of them is background."""
    inside, offset = _between(affine, like)
    out: NDArray[np.uint8] = ndimage.affine_transform(
        labels, inside.round(), offset.round(), output_shape=like.data.shape, order=0, mode="constant", cval=0
    )
    return out


def voted(probabilities: NDArray[np.floating[Any]], affine: Affine, like: Volume) -> NDArray[np.uint8]:
    """Return the most probable class at each voxel of ``like``, from probabilities (classes, *spatial) on another grid.

    One class at a time is resampled, and only where it can win, so the memory is that of two images. Outside of the
    probabilities, beyond the half voxel that their border reaches, is background.
    """
    classes, dims = len(probabilities), like.data.ndim
    bordered = affine.copy()  # a border of one voxel repeats the outermost ones
    bordered[:3, 3] -= affine[:3, :dims].sum(axis=1)
    winner = np.zeros(like.data.shape, dtype=np.uint8)
    highest = resample(_bordered(probabilities[0]), bordered, like.affine, like.data.shape, order=1, fill=1)
    for index in range(1, classes):
        # somewhere around a voxel that a class wins, it has at least an even share
        box = _reach(probabilities[index] >= (1 - _ROUNDING) / classes, affine, like)
        if box is None:
            continue
        there = like.affine.copy()
        there[:3, 3] += like.affine[:3, :dims] @ [part.start for part in box]
        shape = tuple(part.stop - part.start for part in box)
        value = resample(_bordered(probabilities[index]), bordered, there, shape, order=1)
        better = value > highest[box]
        highest[box][better] = value[better]
        winner[box][better] = index
    return winner


def _between(affine: Affine, like: Volume) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the matrix and offset from voxels of ``like`` to voxels of the grid of ``affine``."""
    dims = like.data.ndim
    matrix = np.linalg.inv(affine) @ like.affine
    return matrix[:dims, :dims], matrix[:dims, 3]


def _bordered(probability: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    return np.pad(probability.astype(np.float32), 1, mode="edge")


def _reach(mask: NDArray[np.bool_], affine: Affine, like: Volume) -> tuple[slice, ...] | None:
    """Return the box of ``like`` whose voxels are interpolated (or, where it is coarser, blurred) from the mask's."""
    found = ndimage.find_objects(mask.astype(np.int8))
    if not found:
        return None
    inside, offset = _between(affine, like)
    margin = 1 + np.ceil(2 * np.maximum(np.abs(inside).sum(axis=1) - 1, 0))  # 4 standard deviations of the blur
    low = np.array([part.start for part in found[0]]) - margin
    high = np.array([part.stop - 1 for part in found[0]]) + margin
    corners = np.stack(np.meshgrid(*zip(low, high, strict=True), indexing="ij")).reshape(len(low), -1)
    there = np.linalg.inv(inside) @ (corners - offset[:, None])
    first = np.clip(np.floor(there.min(axis=1)), 0, like.data.shape).astype(int)
    last = np.clip(np.ceil(there.max(axis=1)) + 1, 0, like.data.shape).astype(int)
    return tuple(slice(int(a), int(b)) for a, b in zip(first, last, strict=True)) if (first < last).all() else None
