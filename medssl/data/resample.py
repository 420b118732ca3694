"""One grid becomes another through the two affines; labels are only ever copied from the nearest voxel."""

from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medssl.data.volumes import Volume, spacing_of

Affine = NDArray[np.float64]


def reorient(volume: Volume, orientation: str = "RAS") -> Volume:
    """Swap and flip axes, without interpolation, so that each runs towards ``orientation``.

    A 2D image stays in its plane: its two axes are put into the order and direction in which they occur in
    ``orientation``.
    """
    to = nib.orientations.axcodes2ornt(orientation)
    transform = nib.orientations.ornt_transform(nib.orientations.io_orientation(volume.affine), to)
    data = volume.data
    if data.ndim == 2:
        data = data[..., None]
        transform[:2, 0] = np.argsort(np.argsort(transform[:2, 0]))
        transform[2] = (2, 1)
    moved = nib.orientations.apply_orientation(data, transform)
    affine = volume.affine @ nib.orientations.inv_ornt_aff(transform, data.shape)
    return Volume(moved.reshape(moved.shape[: volume.data.ndim]), affine, volume.path)


def grid(
    shape: tuple[int, ...], affine: Affine, spacing_mm: tuple[float, ...] | None
) -> tuple[tuple[int, ...], Affine]:
    """The rectangular grid of voxels of ``spacing_mm`` that covers the field of view of ``shape`` and ``affine``.

    Its axes are those of ``affine``, made perpendicular where a tilted gantry sheared them; it shares the centre of the
    field of view. ``None`` keeps the spacing.
    """
    dims = len(shape)
    here_mm = spacing_of(affine, 3)
    there_mm = np.array([*(spacing_mm or here_mm)[:dims], *here_mm[dims:]])
    columns = affine[:3, :3] / np.array(here_mm)
    left, _, right = np.linalg.svd(columns)
    straight = left @ right  # the nearest rotation or reflection (polar decomposition)
    if np.abs(straight - columns).max() < 1e-3:
        straight = columns  # perpendicular but for the header's rounding: keep it to the bit
    extent_mm = np.abs(straight.T @ affine[:3, :3]) @ np.array([*shape, *[1] * (3 - dims)])
    counts = np.maximum(np.round(extent_mm / there_mm - 1e-6), 1).astype(int)
    if tuple(counts[:dims]) == shape and np.allclose(there_mm, here_mm, rtol=1e-4) and straight is columns:
        return shape, affine
    counts[dims:] = 1
    centre = affine[:3, :3] @ ((np.array([*shape, *[1] * (3 - dims)]) - 1) / 2) + affine[:3, 3]
    to = np.eye(4)
    to[:3, :3] = straight * there_mm
    to[:3, 3] = centre - to[:3, :3] @ ((counts - 1) / 2)
    return tuple(int(n) for n in counts[:dims]), to


def resample(
    data: NDArray[Any], affine: Affine, to_affine: Affine, to_shape: tuple[int, ...], order: int, fill: float = 0
) -> NDArray[Any]:
    """Read ``data`` (X, Y, Z) or (X, Y) at the voxels of another grid.

    Args:
        data: What to read.
        affine: Its voxels to mm.
        to_affine: The other grid's voxels to mm; in 2D, in the same plane.
        to_shape: The other grid's size.
        order: 0 reads the nearest voxel (labels). 1 is linear: it stays within the values around it; before the grid
            becomes coarser, the image is blurred so that what the coarse grid cannot hold does not alias.
        fill: The value outside the field of view.
    """
    dims = data.ndim
    matrix = np.linalg.inv(affine) @ to_affine
    inside, offset = matrix[:dims, :dims], matrix[:dims, 3]
    if to_shape == data.shape and np.allclose(inside, np.eye(dims), atol=1e-5) and np.allclose(offset, 0, atol=1e-3):
        return data
    if order > 0:
        sigmas = np.maximum(0, (np.abs(inside).sum(axis=1) - 1) / 2)
        if sigmas.max() > 0.05:
            data = ndimage.gaussian_filter(data, sigmas)
    # A voxel is as wide as the grid's step, so the edge's values hold for half a step beyond its centre.
    data = np.pad(data, 1, mode="edge")
    out: NDArray[Any] = ndimage.affine_transform(
        data, inside, offset + 1, output_shape=to_shape, order=order, cval=fill, output=data.dtype, mode="constant"
    )
    return out


def corner_distance_mm(shape: tuple[int, ...], a: Affine, b: Affine) -> float:
    """How far apart two affines place the corners of one grid, at most."""
    sizes = [*shape, *[1] * (3 - len(shape))]
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in sizes], [1.0], indexing="ij")).reshape(4, -1)
    return float(np.linalg.norm(((a - b) @ corners)[:3], axis=0).max(initial=0.0))
