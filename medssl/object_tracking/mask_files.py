"""Masks of a video as files: a PNG with a palette for each frame, and all together as NIfTI, written bit by bit."""

import gzip
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medssl.files import write_aside

Ids = NDArray[np.uint8]

_SHORT = 32767  # the largest extent that NIfTI-1's 16 bits can tell
_PALETTE_BITS = 8


@lru_cache(maxsize=1)
def palette() -> NDArray[np.uint8]:
    """The colour of each object's number as DAVIS and PASCAL VOC have them, (256, 3).

    The number's bits go round the three colours, its lowest bits to their highest.
    """
    numbers = np.arange(256)
    colours = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(_PALETTE_BITS):
        colours[:, bit % 3] |= (((numbers >> bit) & 1) << (_PALETTE_BITS - 1 - bit // 3)).astype(np.uint8)
    return colours


def write_mask(path: Path, mask: Ids) -> None:
    """Write object numbers (H, W) as the indices of a PNG, whole or not at all."""
    image = Image.fromarray(mask)
    image.putpalette(palette().ravel().tolist())
    with write_aside(path) as aside:
        image.save(aside)


def mask_path(folder: Path, index: int) -> Path:
    """The file of a frame's mask."""
    return folder / f"{index:08d}.png"


def load_mask(folder: Path, index: int, size: tuple[int, int]) -> Ids:
    """Read a mask that was written, (H, W); nothing but 0 for a frame that has none."""
    path = mask_path(folder, index)
    if not path.is_file():
        return np.zeros(size, dtype=np.uint8)
    with Image.open(path) as image:
        return np.array(image, dtype=np.uint8)


def write_nifti(path: Path, masks: Iterator[Ids], count: int, size: tuple[int, int], step_s: float | None) -> None:
    """Write masks (H, W) as one compressed NIfTI (X, Y, frames), of which one frame is held at a time.

    A pixel measures 1 mm, as a picture does not say more; from slice to slice it is ``step_s`` seconds, told in the
    header's description, as a third axis of space has no time.

    Args:
        path: The file, .nii.gz.
        masks: In order.
        count: How many.
        size: Height and width.
        step_s: Seconds from frame to frame; ``None`` where that is not known.
    """
    header = nib.Nifti1Header() if max(*size, count) <= _SHORT else nib.Nifti2Header()
    header.set_data_shape((size[1], size[0], count))
    header.set_data_dtype(np.uint8)
    header.set_xyzt_units("mm")
    header.set_sform(np.eye(4), code="aligned")
    header["descrip"] = f"frames {step_s:g} s apart" if step_s else "frames of a video"
    header["vox_offset"] = start = header.sizeof_hdr + 4  # four bytes say that there are no extensions
    header["magic"] = header.single_magic
    with write_aside(path) as aside, gzip.open(aside, "wb", compresslevel=1) as stream:
        stream.write(header.binaryblock.ljust(int(start), b"\0"))
        for mask in masks:
            stream.write(np.ascontiguousarray(mask).tobytes())  # rows of a picture are columns of NIfTI: x runs first
