"""DICOM series become volumes: pydicom finds and checks the slices, SimpleITK decodes their pixels.

Geometry is taken from the slices' own positions (DICOM PS3.3, C.7.6.2.1.1). Slices that leave gaps, lie twice in one
place or turn are refused with the numbers; a tilted gantry over even slices is kept as the shear that it is, and
preparation resamples it onto a rectangular grid.

A patient's name, number and date of birth stay in the files: a subject is a short hash of the patient's number (a
pseudonym: whoever holds the list of numbers can find it again), and a folder is named only where its name holds none
of it.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.dataset import FileDataset
from pydicom.errors import InvalidDicomError

from medssl.errors import InputError

EVEN_WITHIN = 0.02  # of the median distance between slices; positions are often written with two decimals
_ROUNDING_MM = 0.02
_SUFFIXES = (".dcm", ".dicom", ".ima")
# What pydicom raises where a file is no DICOM, or is damaged.
_UNREADABLE = (
    InvalidDicomError, OSError, EOFError, AttributeError, LookupError, NotImplementedError, TypeError, ValueError,
)  # fmt: skip
_MOST_VOXELS = 2**31
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_IDENTIFYING = (
    "PatientID", "PatientName", "PatientBirthDate", "OtherPatientIDs", "OtherPatientNames", "AccessionNumber",
    "ReferringPhysicianName", "StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate",
)  # fmt: skip
_TAGS = [
    *_IDENTIFYING, "SeriesInstanceUID", "StudyInstanceUID", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "ImagerPixelSpacing",
]  # fmt: skip


@dataclass(frozen=True)
class Series:
    """The files of one DICOM series in one folder.

    Attributes:
        folder: Where they lie.
        key: A short hash of the series' UID.
        subject: A short hash of the patient's number, or of the study's where the number was removed.
        files: In no order.
    """

    folder: Path
    key: str
    subject: str
    files: tuple[Path, ...]


def find_series(root: Path) -> list[Series]:
    """Find every DICOM image series under ``root``, in order of folder; other files are passed over."""
    folders = [root, *sorted(path for path in root.rglob("*") if path.is_dir())]
    return [series for folder in folders for series in series_in(folder)]


def series_in(folder: Path) -> list[Series]:
    """Find the DICOM image series whose files lie directly in ``folder``."""
    grouped: dict[str, list[tuple[Path, FileDataset]]] = defaultdict(list)
    for path, header in _headers(folder):
        grouped[str(header.get("SeriesInstanceUID", ""))].append((path, header))
    return [
        Series(folder, _hash(uid), _subject(members[0][1]), tuple(path for path, _ in members))
        for uid, members in sorted(grouped.items())
    ]


def one_series(folder: Path, key: str | None = None) -> Series:
    """The series of ``folder`` that ``key`` names, or its only one.

    Raises:
        InputError: There is none, or several and no key.
    """
    found = series_in(folder)
    chosen = [one for one in found if key in (None, one.key)]
    if len(chosen) != 1:
        known = ", ".join(f"{one.key} ({len(one.files)} files)" for one in found) or "none"
        raise InputError(
            f"{public_name(folder)}: one DICOM image series is expected in the folder, it holds {known}. "
            "Put each series into a folder of its own."
        )
    return chosen[0]


def read_series(folder: Path, series: str | None = None) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Read one series as voxels (X, Y, Z), or (X, Y) of a single slice, and an affine to RAS+ millimetres.

    Intensities are rescaled as each slice says (Hounsfield units in CT).

    Args:
        folder: Where its files lie, directly.
        series: ``Series.key``; needed where the folder holds several series.

    Raises:
        InputError: There is no such series; it holds colours or several frames in a file; its slices differ in size,
            turn, leave gaps, or lie twice in one place; it cannot be decoded; or a file of the folder is damaged.
    """
    name = public_name(folder)
    if damaged := sum(_is_damaged(path) for path in _files(folder)):
        raise InputError(
            f"{name}: {damaged} of its DICOM images are damaged or cut short before their pixels; without them the "
            "volume would lack slices. Copy or export the series again."
        )
    headers = [(path, _header(path)) for path in one_series(folder, series).files]
    slices = [(path, header) for path, header in headers if header is not None]
    try:
        _check_pixels(name, [header for _, header in slices])
        files, affine = _geometry(name, slices)
    except InputError:
        raise
    except (TypeError, ValueError):  # without the cause, which quotes the header
        raise InputError(
            f"{name}: what its headers say of sizes or places are no numbers, so a file is damaged. Copy or export the "
            "series again."
        ) from None
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(path) for path in files])
    reader.SetOutputPixelType(sitk.sitkFloat32)
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # its warnings about spacing name the files
    try:
        voxels = sitk.GetArrayFromImage(reader.Execute()).T
    except RuntimeError:
        syntax = slices[0][1].file_meta.get("TransferSyntaxUID", "unknown")
        # without the cause: its text names the files
        raise InputError(
            f"{name}: its pixels cannot be decoded (transfer syntax {getattr(syntax, 'name', syntax)}); a file may be "
            "truncated. Export the series again, uncompressed if possible."
        ) from None
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)
    return (voxels[..., 0] if len(files) == 1 else voxels), affine


def public_name(folder: Path, root: Path | None = None) -> str:
    """The folder's name (its path below ``root``, joined by "_"), without parts that hold something of the patient."""
    told = identifying_words(header for _, header in _headers(folder))
    parts = (folder.name,) if root is None or root == folder else folder.relative_to(root).parts
    kept = [part for part in parts if not any(word in letters_of(part) for word in told)]
    return "_".join(kept) or "dicom"


def identifying_words(headers: Iterable[FileDataset]) -> set[str]:
    """The words of a patient's names, numbers and dates, as ``letters_of`` has them; of three letters or more."""
    told = {
        letters_of(word)
        for header in headers
        for tag in _IDENTIFYING
        for word in re.split(r"[^\w.\-]+", str(header.get(tag, "")))
    }
    return {word for word in told if len(word) > 2}


def letters_of(text: str) -> str:
    """Letters and digits alone, in lower case: 1964-08-12 is 19640812."""
    return re.sub(r"[\W_]+", "", text.lower())


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def _headers(folder: Path) -> Iterator[tuple[Path, FileDataset]]:
    for path in _files(folder):
        header = _header(path)
        if header is not None:
            yield path, header


def _is_damaged(path: Path) -> bool:
    """Whether a file is named as DICOM, or begins so, and cannot be read, or is an image that does not say its size."""
    if _header(path) is not None:
        return False
    with path.open("rb") as stream:
        if stream.read(132)[128:] != b"DICM":
            return path.suffix.lower() in _SUFFIXES
    try:
        kind = pydicom.dcmread(path, stop_before_pixels=True).file_meta.get("MediaStorageSOPClassUID")
    except _UNREADABLE:
        return True
    return kind is None or "Image Storage" in getattr(kind, "name", "")


def _header(path: Path) -> FileDataset | None:
    """What geometry and grouping need of one file; nothing where it is no DICOM image."""
    stat = path.stat()
    return _read_header(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4096)
def _read_header(path: Path, changed_ns: int, size: int) -> FileDataset | None:
    """Read one header, once for each state of the file."""
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
        decoded = [element.keyword for element in header]  # here, where what is wrong with it is caught
    except _UNREADABLE:
        return None
    return header if {"Rows", "Columns"} <= set(decoded) else None


def _subject(header: FileDataset) -> str:
    return _hash(str(header.get("PatientID") or header.get("StudyInstanceUID", "")))


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=5).hexdigest()


def _check_pixels(name: str, headers: Sequence[FileDataset]) -> None:
    """Check that every file holds one grey slice of one size."""
    frames = max(int(header.get("NumberOfFrames") or 1) for header in headers)
    if frames > 1:
        raise InputError(
            f"{name}: a file holds {frames} frames (a cine or an enhanced DICOM); one slice per file is expected. "
            "Convert it first, for example with dcm2niix."
        )
    samples = max(int(header.get("SamplesPerPixel") or 1) for header in headers)
    if samples > 1:
        raise InputError(f"{name}: its pixels are colours ({samples} values each); grey images are expected.")
    sizes = sorted({(int(header.Columns), int(header.Rows)) for header in headers})
    if len(sizes) > 1:
        raise InputError(
            f"{name}: its slices differ in size ({_listed(sizes)}); they are not one volume. Separate them."
        )
    count = sizes[0][0] * sizes[0][1] * len(headers)
    if count > _MOST_VOXELS:
        raise InputError(f"{name}: its headers claim {count:.3g} voxels; at most {_MOST_VOXELS:.3g} are read.")


def _geometry(name: str, slices: Sequence[tuple[Path, FileDataset]]) -> tuple[list[Path], NDArray[np.float64]]:
    """Order slices along their normal; returns the files and the affine (column, row, slice) -> RAS+ mm."""
    headers = [header for _, header in slices]
    row_mm, column_mm = _pixel_spacing(name, headers)
    if len(slices) == 1 and "ImagePositionPatient" not in headers[0]:
        return [slices[0][0]], np.diag([column_mm, row_mm, 1.0, 1.0])  # a projection image: no place in space
    if not all("ImagePositionPatient" in header and "ImageOrientationPatient" in header for header in headers):
        raise InputError(
            f"{name}: {len(headers)} slices without positions (ImagePositionPatient); their order cannot be known."
        )
    orientations = np.array([header.ImageOrientationPatient for header in headers], dtype=np.float64)
    turn = float(np.abs(orientations - orientations[0]).max())
    if turn > 1e-3:
        raise InputError(
            f"{name}: its slices do not share one orientation (direction cosines differ by up to {turn:.3f}); it may "
            "be a localiser or a radial series. Separate the volumes, or leave it out."
        )
    along_row, along_column = orientations[0, :3], orientations[0, 3:]
    normal = np.cross(along_row, along_column)
    positions = np.array([header.ImagePositionPatient for header in headers], dtype=np.float64)
    order = np.argsort(positions @ normal, kind="stable")
    step = _even_step(name, positions[order], normal)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = along_row * column_mm, along_column * row_mm, step
    affine[:3, 3] = positions[order[0]]
    return [slices[i][0] for i in order], _LPS_TO_RAS @ affine


def _even_step(name: str, positions: NDArray[np.float64], normal: NDArray[np.float64]) -> NDArray[np.float64]:
    """The vector from one slice to the next, checked to be the same throughout; positions (n, 3) in order."""
    if len(positions) == 1:
        return normal
    steps = np.diff(positions, axis=0)
    distances = steps @ normal
    median = float(np.median(distances))
    twice = int((distances < _ROUNDING_MM).sum())
    uneven = int((np.abs(distances - median) > max(EVEN_WITHIN * median, _ROUNDING_MM)).sum())
    step: NDArray[np.float64] = (positions[-1] - positions[0]) / len(steps)
    tilt = float(np.degrees(np.arccos(np.clip(step @ normal / max(float(np.linalg.norm(step)), 1e-9), -1, 1))))
    if twice or uneven:
        tilted = f", and the gantry is tilted by {tilt:.1f} degrees" if tilt > 0.5 else ""
        raise InputError(
            f"{name}: its {len(positions)} slices are {distances.min():.2f} to {distances.max():.2f} mm apart (median "
            f"{median:.2f}; {uneven} uneven, {twice} in a place taken already){tilted}; even distances are "
            "expected. Slices may be missing, or two series mixed: export it again, or make it even with a tool that "
            "knows how it was acquired."
        )
    return step


def _pixel_spacing(name: str, headers: Sequence[FileDataset]) -> tuple[float, float]:
    """The distances in mm between rows and between columns."""
    spacings = {tuple(float(mm) for mm in _spacing_tag(header)) for header in headers}
    if len(spacings) > 1:
        raise InputError(f"{name}: its slices differ in pixel spacing ({_listed(sorted(spacings))} mm).")
    row_mm, column_mm = spacings.pop()
    return row_mm, column_mm


def _spacing_tag(header: FileDataset) -> Any:
    return header.get("PixelSpacing") or header.get("ImagerPixelSpacing") or (1.0, 1.0)


def _listed(sizes: Sequence[tuple[float, ...]]) -> str:
    return ", ".join("x".join(f"{n:g}" for n in size) for size in sizes)
