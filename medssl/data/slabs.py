"""One scan cut into slabs, where there is no other scan to test on: the parts of one patient, and nobody else."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np

from medssl.data.catalog import Scan
from medssl.data.cohort import or_refused
from medssl.data.recipe import check_one_grid
from medssl.data.volumes import Volume, read_labels, read_volume, source_files, write_labels
from medssl.errors import InputError
from medssl.files import content_hash, write_aside
from medssl.labels.protocols import Protocol

SLABS = {"pool": (0.0, 0.45), "validation": (0.45, 0.7), "test": (0.7, 1.0)}
"""Which share of the scan's height each part is, from the feet up."""

_LEAST_MM3 = 1000.0  # of a structure in a slab: less is a rim that says nothing


def cut_into_slabs(scan: Scan, out: Path, gap_mm: float = 15.0) -> dict[str, Scan]:
    """Cut a labelled scan across the body's long axis, and write each part's image and labels to ``out``.

    Args:
        scan: With its label map, in any orientation.
        out: Gets ``<scan>-<part>.nii.gz`` and ``<scan>-<part>_labels.nii.gz`` of the parts of ``SLABS``.
        gap_mm: Left out between two parts, so that no voxel's neighbour is in another part.

    Returns:
        Part -> its scan, which is called, as its subject is, after the part.

    Raises:
        InputError: The scan has no labels, is 2D, or is so low that a part would be empty.
    """
    if scan.label is None:
        raise InputError(f"{scan.name}: has no label map; to train and test within a scan, it needs one.")
    image, labels = read_volume(scan.image, scan.series), read_labels(scan.label)
    check_one_grid(labels, image)
    if image.data.ndim != 3:
        raise InputError(f"{image.name}: is {image.data.ndim}D; within a scan, slabs of a volume are tested on.")
    parts = {}
    for part, (low, high) in SLABS.items():
        where = _slab(image, low, high, gap_mm)
        affine = image.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ [one.start or 0 for one in where]
        name = f"{scan.name}-{part}"
        path = out / f"{name}.nii.gz"
        cut = Volume(np.ascontiguousarray(image.data[where]), affine)
        with write_aside(path) as aside:
            nib.save(nib.Nifti1Image(cut.data, affine, dtype=cut.data.dtype), aside)
        label = out / f"{name}_labels.nii.gz"
        write_labels(label, labels.data[where], cut)
        parts[part] = replace(scan, name=name, subject=name, image=path, label=label, series=None)
    return parts


def structures_of_each(scans: Sequence[Scan], reading: Protocol) -> tuple[str, ...]:
    """Name the structures of which every scan shows a millilitre or more.

    Raises:
        InputError: There is none.
    """
    shown = np.ones(reading.target.classes, dtype=bool)
    for scan in scans:
        labels = read_labels(scan.label or scan.image)
        classes = reading.apply(labels.data, str(labels.path))
        voxels = np.bincount(classes.ravel(), minlength=reading.target.classes)
        shown &= voxels * np.prod(labels.spacing_mm) >= _LEAST_MM3
    names = tuple(name for name, all_show in zip(reading.target.names, shown[1:], strict=True) if all_show)
    if not names:
        raise InputError(f"No structure is in both {' and '.join(scan.name for scan in scans)}: choose others.")
    return names


def others_than(scan: Scan, scans: Sequence[Scan]) -> list[Scan]:
    """Leave out what shows the scan's subject, or has its content under another name."""
    mine = content_hash(*source_files(scan.image, scan.series))

    def shows_it(other: Scan) -> bool:
        content = or_refused(
            other.name, other.subject, lambda: content_hash(*source_files(other.image, other.series))
        )  # one that cannot be read is refused where it is prepared
        return other.subject == scan.subject or content == mine

    return [other for other in scans if not shows_it(other)]


def _slab(image: Volume, low: float, high: float, gap_mm: float) -> tuple[slice, ...]:
    """The part of a volume between two shares of its height, half a gap away from each cut."""
    axes = nib.orientations.io_orientation(image.affine)
    (axis,) = np.flatnonzero(axes[:, 0] == 2)
    size, half = image.data.shape[axis], gap_mm / 2 / image.spacing_mm[axis]
    first = 0 if low == 0 else int(np.ceil(low * size + half))
    last = size if high == 1 else int(np.floor(high * size - half))
    if last <= first:
        raise InputError(
            f"{image.name}: is {size * image.spacing_mm[axis]:.0f} mm high, too low to be cut with gaps of {gap_mm:g} "
            "mm. Give a scan that shows more of the body, or scans of several subjects."
        )
    where = slice(first, last) if axes[axis, 1] > 0 else slice(size - last, size - first)
    return tuple(where if number == axis else slice(0, n) for number, n in enumerate(image.data.shape))
