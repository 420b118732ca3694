"""Files hold volumes: read one with its place in space, refuse what cannot be one, and say why.

Voxels are in nibabel's order (X, Y, Z) and affines map voxel indices to RAS+ millimetres, whatever the file's format.
Headers are checked before a voxel is read, so that a header that lies cannot exhaust the memory.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from medssl.data import dicom
from medssl.data.formats import (
    ITK_SUFFIXES,
    NIBABEL_SUFFIXES,
    PICTURE_SUFFIXES,
    files_of,
    read_itk,
    read_label_picture,
    read_nibabel,
    read_picture,
    suffix_of,
)
from medssl.errors import InputError
from medssl.files import write_aside

VOLUME_SUFFIXES = NIBABEL_SUFFIXES + ITK_SUFFIXES + PICTURE_SUFFIXES
SPACING_LIMITS_MM = (0.05, 20.0)
_INTEGERS = (np.uint8, np.int16, np.int32)
_PLACE_FIELDS = (  # of a NIfTI header; others, such as descrip and db_name, may tell of the patient
    "pixdim", "xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d",
    "qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels (X, Y, Z) or (X, Y), and where they are.

    Attributes:
        data: The voxels, in the file's own type where it has no intensity scaling.
        affine: Voxel index to RAS+ millimetres, (4, 4). A 2D image lies in the plane of the first two columns.
        path: The file or folder it came from.
        colours: Red, green and blue (3, X, Y) of a picture in colour, in the file's own type; ``data`` is its grey.
    """

    data: NDArray[Any]
    affine: NDArray[np.float64]
    path: Path | None = None
    colours: NDArray[Any] | None = None

    @property
    def name(self) -> str:
        """What a message may call it; the name of a DICOM folder can hold the patient's."""
        return "image" if self.path is None else _name(self.path)

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """The distance between neighbouring voxels along each axis of ``data``."""
        return spacing_of(self.affine, self.data.ndim)


def spacing_of(affine: NDArray[np.float64], dims: int) -> tuple[float, ...]:
    """The lengths in mm of the first ``dims`` columns of an affine."""
    return tuple(float(length) for length in np.linalg.norm(affine[:3, :dims], axis=0))


def read_volume(path: Path, series: str | None = None) -> Volume:
    """Read an image: NIfTI, MGH, MetaImage, NRRD, a picture, or a folder with one DICOM series.

    A trailing axis of one voxel is dropped, so a NIfTI of shape (X, Y, 1) is 2D and one of (X, Y, Z, 1) 3D. PNG and
    JPEG are read as 2D grey, with their colours beside it, axis 0 along the columns and axis 1 down the rows, with
    pixels of 1 mm: they say nothing about their size.

    Args:
        path: The file, or a DICOM folder.
        series: Which series of a DICOM folder, where it holds several (``Scan.series``).

    Raises:
        InputError: It cannot be read, is neither 2D nor 3D, holds NaNs or one value only, or its geometry cannot be.
    """
    volume = _read(path, series, labels=False)
    bad = 0 if volume.data.dtype.kind in "iub" else volume.data.size - int(np.isfinite(volume.data).sum())
    if bad:
        raise InputError(
            f"{_name(path)}: {bad} of {volume.data.size} voxels are NaN or infinite; every voxel must be a number. "
            "Mend the scan, or leave it out."
        )
    lowest, highest = volume.data.min(), volume.data.max()
    if lowest == highest:
        raise InputError(
            f"{_name(path)}: every voxel is {lowest:g}, so it shows nothing. Export it again, or leave it out."
        )
    return volume


def read_labels(path: Path) -> Volume:
    """Read a label map; ``data`` holds integers.

    Raises:
        InputError: As ``read_volume``, or the map holds fractions, or is a JPEG (which blurs ids).
    """
    volume = _read(path, None, labels=True)
    if volume.data.dtype.kind == "f":
        # NaN and infinity fail this comparison too
        whole = np.round(volume.data)
        wrong = volume.data.size - int((whole == volume.data).sum() if np.isfinite(whole).all() else 0)
        if wrong:
            raise InputError(
                f"{path}: the label map holds {_first_fraction(volume.data)}, labels are whole numbers. It was "
                "probably resampled with interpolation: use nearest neighbour, or give the map as it was drawn."
            )
        return Volume(whole.astype(np.int32), volume.affine, path)
    return Volume(volume.data.astype(volume.data.dtype.newbyteorder("="), copy=False), volume.affine, path)


def write_labels(path: Path, labels: NDArray[Any], like: Volume) -> None:
    """Write integer labels as NIfTI (.nii.gz) on the grid of ``like``, in the smallest type that holds them.

    Where ``like`` was a NIfTI file, its sform and qform and their codes are kept, so the affine is the same to the bit;
    other formats' affines are rounded to the 32-bit numbers of a NIfTI header. Nothing else of a file's header is kept.

    Raises:
        InputError: The shapes differ, or the disk is full.
    """
    if labels.shape != like.data.shape:
        raise InputError(
            f"{path}: the labels have {_times(labels.shape)} voxels, the scan {_times(like.data.shape)}; "
            "labels are written on the scan's own grid."
        )
    kind = next((k for k in _INTEGERS if _fits(labels, k)), np.int32)
    image = nib.Nifti1Image(np.atleast_3d(labels).astype(kind), like.affine, _nifti_header(like))
    image.set_data_dtype(kind)
    image.header.set_slope_inter(1, 0)
    with write_aside(path) as aside:
        nib.save(image, aside)


def source_files(path: Path, series: str | None = None) -> tuple[Path, ...]:
    """The files that an image consists of: what a hash of its content must read.

    Raises:
        InputError: A part is missing.
    """
    if path.is_dir():
        return tuple(sorted(dicom.one_series(path, series).files))
    if not path.exists():
        raise InputError(f"{path}: no such file.")
    return files_of(path)


def _read(path: Path, series: str | None, labels: bool) -> Volume:
    colours = None
    if path.is_dir():
        data, affine = dicom.read_series(path, series)
    elif not path.exists():
        raise InputError(f"{path}: no such file.")
    elif (suffix := suffix_of(path)) in NIBABEL_SUFFIXES:
        data, affine = read_nibabel(path)
    elif suffix in ITK_SUFFIXES:
        data, affine = read_itk(path)
    elif suffix in PICTURE_SUFFIXES and labels:
        data, affine = read_label_picture(path)
    elif suffix in PICTURE_SUFFIXES:
        (data, colours), affine = read_picture(path), np.eye(4)
    else:
        raise InputError(
            f"{path}: its name ends in none of {', '.join(VOLUME_SUFFIXES)}; a scan is one of these files, or a folder "
            "that holds a DICOM series."
        )
    return Volume(data, _checked_affine(affine, data.ndim, _name(path)), path, colours)


def _checked_affine(affine: NDArray[Any], dims: int, name: str) -> NDArray[np.float64]:
    """Check that an affine places voxels in space; the axis through a 2D image is completed where it is missing."""
    affine = np.array(affine, dtype=np.float64)
    columns = affine[:3, :3]
    if dims == 2 and np.isfinite(columns).all() and not columns[:, 2].any():
        normal = np.cross(columns[:, 0], columns[:, 1])
        columns[:, 2] = normal / (np.linalg.norm(normal) or 1.0)
    spacing_mm = np.linalg.norm(columns, axis=0)
    volume = abs(np.linalg.det(columns)) if np.isfinite(affine).all() else 0.0
    if volume <= 1e-6 * math.prod(spacing_mm):
        raise InputError(
            f"{name}: its affine is singular (rows {columns.tolist()}), so its voxels have no place in space. "
            "Repair the header (sform, qform and voxel size), or leave the scan out."
        )
    low, high = SPACING_LIMITS_MM
    if (spacing_mm[:dims] < low).any() or (spacing_mm[:dims] > high).any():
        raise InputError(
            f"{name}: its voxels measure {_times(np.round(spacing_mm[:dims], 4))} mm; {low:g} to {high:g} mm is "
            "expected. The header's unit is probably wrong (metres or micrometres for millimetres)."
        )
    return affine


def _nifti_header(like: Volume) -> nib.Nifti1Header | None:
    if like.path is None or suffix_of(like.path) not in (".nii", ".nii.gz") or not like.path.exists():
        return None
    header = nib.load(like.path).header
    if not isinstance(header, nib.Nifti1Header):
        return None
    kept = nib.Nifti1Header()
    for field in _PLACE_FIELDS:
        kept[field] = header[field]
    return kept


def _fits(labels: NDArray[Any], kind: type[np.integer[Any]]) -> bool:
    limits = np.iinfo(kind)
    return labels.size == 0 or bool(labels.min() >= limits.min and labels.max() <= limits.max)


def _first_fraction(data: NDArray[Any]) -> str:
    return f"{data[~(data == np.round(data)) | ~np.isfinite(data)][0]:g}"


def _name(path: Path) -> str:
    """What a message may call ``path``: a DICOM folder's name can hold the patient's."""
    return dicom.public_name(path) if path.is_dir() else str(path)


def _times(numbers: Any) -> str:
    return "x".join(f"{n:g}" for n in numbers)
