"""Where weak labels lie, beside the image that they belong to, in layouts that ``medssl prepare`` finds by itself."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from medssl.data.volumes import Volume, write_labels
from medssl.files import write_aside
from medssl.labels.freesurfer import write_mgz

Layout = Literal["bids", "subjects_dir"]


@dataclass(frozen=True)
class Place:
    """Where a scan, its labels and the record of how they were made lie."""

    image: Path
    labels: Path
    record: Path

    @classmethod
    def of(cls, out: Path, scan: str, layout: Layout) -> "Place":
        """Find the place of a scan in the folder ``out``.

        "bids" is ``<scan>_T1w.nii.gz`` beside ``<scan>_dseg.nii.gz``, "subjects_dir" ``<scan>/mri/{brain,aseg}.mgz``.
        """
        if layout == "subjects_dir":
            mri = out / scan / "mri"
            return cls(mri / "brain.mgz", mri / "aseg.mgz", mri / "aseg.json")
        stem = scan.removesuffix("_T1w")
        return cls(out / f"{stem}_T1w.nii.gz", out / f"{stem}_dseg.nii.gz", out / f"{stem}_dseg.json")

    def write(self, image: Volume, ids: NDArray[np.int32]) -> None:
        """Write an image and its labels, each whole or not at all; an image that has the format already is linked.

        Raises:
            InputError: The disk is full.
        """
        suffix = ".mgz" if self.image.suffix == ".mgz" else ".nii.gz"
        if image.path is not None and image.path.is_file() and image.path.name.endswith(suffix):
            _link(image.path, self.image)
        elif suffix == ".mgz":
            write_mgz(self.image, image.data, image.affine)
        else:
            _write_nifti(self.image, image.data, image.affine)
        if suffix == ".mgz":
            write_mgz(self.labels, ids, image.affine)
        else:
            write_labels(self.labels, ids, image)

    def remove(self) -> None:
        """Remove what lies there."""
        for path in (self.record, self.labels, self.image):
            path.unlink(missing_ok=True)


def _link(source: Path, path: Path) -> None:
    """Put a file at ``path`` as well, without taking more room where the disk can."""
    with write_aside(path) as aside:
        try:
            os.link(source.resolve(), aside)
        except OSError:  # another disk, or one without links
            shutil.copyfile(source, aside)


def _write_nifti(path: Path, data: NDArray[Any], affine: NDArray[np.float64]) -> None:
    with write_aside(path) as aside:
        nib.save(nib.Nifti1Image(np.atleast_3d(data), affine, dtype=data.dtype), aside)
