"""One reader per family of file formats; each returns voxels in order (X, Y, Z) or (X, Y) and an affine to RAS+ mm."""

import gzip
import math
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from nibabel.filebasedimages import ImageFileError
from nibabel.freesurfer.mghformat import MGHError
from nibabel.spatialimages import HeaderDataError, SpatialImage
from numpy.typing import NDArray
from PIL import Image

from medssl.errors import InputError

Voxels = tuple[NDArray[Any], NDArray[np.float64]]

NIBABEL_SUFFIXES = (".nii", ".nii.gz", ".mgz", ".mgh")
ITK_SUFFIXES = (".mha", ".mhd", ".nrrd")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")

MOST_VOXELS = 2**31
# What nibabel raises where a header says what cannot be.
_UNREADABLE = (OSError, ImageFileError, HeaderDataError, MGHError, ArithmeticError, LookupError, TypeError, ValueError)
_SNIFFED = 1024  # bytes that nibabel looks at to tell the format
_DEFLATE_LIMIT = 1032  # deflate cannot shrink more than this (zlib, "Maximum Compression Factor")
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_GREY_MODES = ("1", "L", "LA", "I", "I;16")  # Pillow's, of PNG and JPEG
_LUMA = np.array([0.299, 0.587, 0.114])  # of red, green and blue (ITU-R BT.601), as Pillow's grey


class Picture(NamedTuple):
    """A picture's grey (X, Y) and, where it has them, its red, green and blue (3, X, Y); 8 or 16 bits each."""

    grey: NDArray[Any]
    colours: NDArray[Any] | None


def suffix_of(path: Path) -> str:
    """The ending that tells the format, in lower case, with ``.nii.gz`` as one."""
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else Path(name).suffix


def stem_of(path: Path) -> str:
    """The file's name without the ending that tells the format."""
    return path.name[: -len(suffix_of(path))] if suffix_of(path) else path.name


def read_nibabel(path: Path) -> Voxels:
    """Read NIfTI or MGH.

    Raises:
        InputError: The file is cut short, is of another kind, or its header claims what cannot be.
    """
    compressed = suffix_of(path) in (".nii.gz", ".mgz")
    try:
        if compressed:
            _check_stream(path)
        image = nib.load(path)
        if not isinstance(image, SpatialImage):
            raise ImageFileError("it holds no voxels")
        shape = tuple(int(n) for n in image.shape)
        kind = np.dtype(image.get_data_dtype())
        _check_size(path, shape, kind, 0 if compressed else getattr(image.dataobj, "offset", 0))
        data = np.asanyarray(image.dataobj)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(_truncated(path, str(error))) from error
    except InputError:
        raise
    except _UNREADABLE as error:
        if "Expected" in str(error) and "bytes" in str(error):
            raise InputError(_truncated(path, str(error).splitlines()[0])) from error
        raise InputError(
            f"{path}: cannot be read as {suffix_of(path)} ({error}). Check where it came from, and export it again."
        ) from error
    return data.reshape(_squeezed(path, shape)), np.asarray(image.affine, dtype=np.float64)


def read_itk(path: Path) -> Voxels:
    """Read MetaImage or NRRD with SimpleITK.

    Raises:
        InputError: The file cannot be read, holds colours, or its header claims what cannot be.
    """
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        shape = tuple(int(n) for n in reader.GetSize())
        if reader.GetNumberOfComponents() != 1:
            raise InputError(f"{path}: holds {reader.GetNumberOfComponents()} values per voxel; one is expected.")
        _check_count(path, shape)
        squeezed = _squeezed(path, shape)
        image = reader.Execute()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise InputError(
            f"{path}: cannot be read as {suffix_of(path)} ({reason}). It may be truncated, or its data file missing: "
            "copy it again."
        ) from error
    dims = len(shape)
    affine = np.eye(4)
    inside = min(dims, 3)
    direction = np.array(image.GetDirection()).reshape(dims, dims)[:inside, :inside]
    affine[:inside, :inside] = direction * np.array(image.GetSpacing())[:inside]
    affine[:inside, 3] = image.GetOrigin()[:inside]
    data = sitk.GetArrayFromImage(image).T.reshape(squeezed)
    return data, _LPS_TO_RAS @ affine


def read_picture(path: Path) -> Picture:
    """Read PNG or JPEG, columns first; transparency is left out.

    Raises:
        InputError: It cannot be read.
    """
    with _opened(path) as picture:
        if _has_deep_colours(path):
            colours = _deep_colours(path)
            return Picture(np.round(_LUMA @ colours.swapaxes(0, 1)).astype(colours.dtype), colours)
        grey = np.array(picture if picture.mode in ("L", "I", "I;16") else picture.convert("L")).T
        return Picture(grey, None if picture.mode in _GREY_MODES else np.array(picture.convert("RGB")).T)


def read_label_picture(path: Path) -> Voxels:
    """Read a label map (X, Y) from a grey PNG, or the indices of one with a palette; pixels of 1 mm.

    Raises:
        InputError: It cannot be read, is a JPEG or in colour.
    """
    if suffix_of(path) != ".png":
        raise InputError(f"{path}: JPEG blurs label ids at edges; give the label map as PNG.")
    with _opened(path) as picture:
        if picture.mode not in ("1", "L", "P", "I", "I;16"):
            raise InputError(
                f"{path}: the label map is in colour (mode {picture.mode}); labels are one whole number per pixel. "
                "Save it in grey or with a palette, 0 where there is nothing."
            )
        pixels = np.array(picture).T
    return pixels.astype(np.uint8) if pixels.dtype == bool else pixels, np.eye(4)


def files_of(path: Path) -> tuple[Path, ...]:
    """The files that an image file consists of: itself and, for .mhd, the data file that its header names.

    Raises:
        InputError: A .mhd names no single data file.
    """
    if suffix_of(path) != ".mhd":
        return (path,)
    fields = dict(
        line.split("=", 1) for line in path.read_text(encoding="latin-1").splitlines() if line.count("=") == 1
    )
    name = {key.strip(): value.strip() for key, value in fields.items()}.get("ElementDataFile", "")
    data = path.parent / name
    if not name or not data.is_file():
        raise InputError(f"{path}: its data file '{name}' (ElementDataFile) is not there. Copy both, or use .mha.")
    return (path, data)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open a picture; what goes wrong with it inside the block is refused by name."""
    try:
        with Image.open(path) as picture:
            yield picture
    except InputError:
        raise
    except (OSError, SyntaxError, RuntimeError, ValueError, Image.DecompressionBombError) as error:
        reason = str(error).strip().split("\n")[-1]
        raise InputError(
            f"{path}: cannot be read as a picture ({reason}). It may be truncated: copy it again."
        ) from error


def _has_deep_colours(path: Path) -> bool:
    """Say whether a file is a PNG whose pixels are several numbers of 16 bits, of which Pillow would keep 8.

    Depth and colour type are bytes 24 and 25 (PNG specification, 11.2.2 IHDR); types 2, 4 and 6 are colours, grey with
    transparency, colours with transparency.
    """
    with path.open("rb") as stream:
        start = stream.read(26)
    return start[:8] == b"\x89PNG\r\n\x1a\n" and start[24] == 16 and start[25] in (2, 4, 6)


def _deep_colours(path: Path) -> NDArray[np.uint16]:
    """Read red, green and blue (3, X, Y) of 16 bits."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO("PNGImageIO")
    reader.SetFileName(str(path))
    colours: NDArray[np.uint16] = sitk.GetArrayFromImage(reader.Execute()).T[:3]
    return colours


def _check_stream(path: Path) -> None:
    """Check that a file is compressed, and that its beginning can be decompressed."""
    with path.open("rb") as stream:
        start = stream.read(16)
    if start[:2] != b"\x1f\x8b":
        raise InputError(
            f"{path}: is named as a compressed image but is none; it begins with {start!r}. It may be a text or a "
            "web page saved under this name, or an uncompressed image: check it, and name it for what it is."
        )
    with gzip.open(path) as decompressed:
        decompressed.read(_SNIFFED)


def _check_size(path: Path, shape: Sequence[int], kind: np.dtype[Any], offset: int) -> None:
    """Refuse, before a voxel is read, what no memory holds and what the file cannot hold.

    Args:
        path: The file.
        shape: Of the voxels, as the header claims.
        kind: Of a voxel.
        offset: Where the voxels begin in the file; 0 where it is compressed.
    """
    if kind.names or kind.kind not in "iufb":
        raise InputError(f"{path}: its voxels are {kind} (colours or complex numbers); one real number is expected.")
    _check_count(path, shape)
    claimed, size = math.prod(shape) * kind.itemsize, path.stat().st_size
    if claimed > (size - offset if offset else size * _DEFLATE_LIMIT):
        raise InputError(_truncated(path, f"its header claims {claimed} bytes of voxels, the file has {size}"))
    _squeezed(path, shape)


def _check_count(path: Path, shape: Sequence[int]) -> None:
    if math.prod(shape) > MOST_VOXELS:
        raise InputError(
            f"{path}: its header claims {'x'.join(map(str, shape))} = {math.prod(shape):.3g} voxels; at most "
            f"{MOST_VOXELS:.3g} are read. The header is probably damaged: export the scan again."
        )


def _squeezed(path: Path, shape: Sequence[int]) -> tuple[int, ...]:
    """``shape`` without trailing axes of one voxel; 2 or 3 axes must remain."""
    axes = list(shape)
    while len(axes) > 2 and axes[-1] == 1:
        axes.pop()
    if len(axes) not in (2, 3) or 0 in axes:
        raise InputError(
            f"{path}: has {len(shape)} dimensions ({'x'.join(map(str, shape))}), a 2D or 3D image is expected. "
            "If it is a series over time or of contrasts, split it (fslsplit, mri_convert --frame) and give one volume."
        )
    return tuple(axes)


def _truncated(path: Path, reason: str) -> str:
    return f"{path}: is truncated or damaged ({reason}). Copy or download it again."
