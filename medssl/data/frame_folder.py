"""A folder of numbered pictures is a video, in the natural order of their names: 2 before 10."""

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from medssl.data.formats import read_picture
from medssl.errors import InputError

FRAME_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".tif", ".tiff")
_MOST = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535, np.dtype(np.int32): 65535}  # Pillow's "I" is 16 bits too


class FrameFolder:
    """The numbered pictures of a folder, read when asked for.

    Grey pictures are given three equal colours. Pictures of 16 bits, grey or in colour (PNG; Pillow itself would keep 8
    bits of those silently), are rounded to 8 over their whole range: v / 257. A rotation in EXIF is not carried out, so
    that a calibration of the stored pixels stays true.

    Attributes:
        paths: The pictures' files, in order.

    Args:
        path: The folder.
        pattern: Which files, as of ``Path.glob``; those without a number in their name, such as a mask, are left out.
        rate: Frames per second; ``None`` where it is not known: then ``times`` are NaN.

    Raises:
        InputError: The folder holds no numbered pictures, or several kinds of them.
    """

    def __init__(self, path: Path, pattern: str = "*", rate: float | None = None) -> None:
        if rate is not None and not 0 < rate < np.inf:
            raise InputError(f"{path}: a rate of {rate:g} frames per second is asked for; it must be above 0.")
        self.path, self.rate = path, rate
        self.paths = _numbered(path, pattern)

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width, pixels; the headers of all pictures are looked at.

        Raises:
            InputError: A picture cannot be read, or differs in size from the first.
        """
        first = _size(self.paths[0])
        for path in self.paths[1:]:
            _check_size(path, _size(path), self.paths[0], first)
        return first

    @property
    def times(self) -> NDArray[np.float64]:
        """When each frame is shown, (N,), seconds from the first; NaN where the rate is not known."""
        return np.arange(len(self)) / (np.nan if self.rate is None else self.rate)

    @property
    def files(self) -> tuple[Path, ...]:
        """The pictures, one per frame."""
        return tuple(self.paths)

    @property
    def damaged(self) -> tuple[int, ...]:
        """None: a picture that is broken is refused when it is read."""
        return ()

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        """Give frames (H, W, 3), RGB, in the order asked for.

        Raises:
            IndexError: There is no such frame.
            InputError: A picture cannot be read, or is not of the others' size.
        """
        for index in indices:
            if not 0 <= index < len(self):
                raise IndexError(f"{self.path}: there is no frame {index}; it holds {len(self)}, counted from 0.")
            frame = _read_frame(self.paths[index])
            _check_size(self.paths[index], frame.shape[:2], self.paths[0], self.size)
            yield frame


def _numbered(folder: Path, pattern: str) -> tuple[Path, ...]:
    """The pictures of a folder whose name holds a number, in natural order."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; one with the numbered pictures of a video is expected.")
    kinds = ", ".join(FRAME_SUFFIXES)
    found = [path for path in folder.glob(pattern) if path.suffix.lower() in FRAME_SUFFIXES and path.is_file()]
    paths = [path for path in found if re.search(r"\d", path.stem) and not path.name.startswith(".")]
    if not paths:
        raise InputError(
            f"{folder}: holds no numbered picture that matches '{pattern}' ({len(found)} without a number); frames are "
            f"expected, such as 0001.jpg ({kinds})."
        )
    suffixes = sorted({path.suffix for path in paths})
    if len(suffixes) > 1:
        counts = ", ".join(f"{sum(path.suffix == suffix for path in paths)} {suffix}" for suffix in suffixes)
        raise InputError(f"{folder}: holds pictures of several kinds ({counts}); say which, with a pattern as '*.jpg'.")
    return tuple(sorted(paths, key=_natural))


def _natural(path: Path) -> tuple[list[tuple[str, int]], str]:
    """Sort key in which numbers count as such, in names of text and numbers in turn."""
    parts = re.findall(r"(\D*)(\d*)", path.name)
    return [(text, int(number or 0)) for text, number in parts], path.name


def _size(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path) as picture:
            return picture.height, picture.width
    except (OSError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: cannot be read as a picture ({error}). Copy it again, or take it away.") from error


def _check_size(path: Path, size: tuple[int, ...], first: Path, expected: tuple[int, int]) -> None:
    if size != expected:
        raise InputError(
            f"{path}: is {size[1]}x{size[0]} pixels and {first.name} {expected[1]}x{expected[0]}; the frames of a "
            "video share one size. Take it away, or say by a pattern which pictures are frames."
        )


def _read_frame(path: Path) -> NDArray[np.uint8]:
    grey, colours = read_picture(path)
    pixels = np.stack([grey.T] * 3, axis=-1) if colours is None else colours.transpose(2, 1, 0)
    most = _MOST.get(pixels.dtype, 255)
    if pixels.min(initial=0) < 0 or pixels.max(initial=0) > most:
        raise InputError(
            f"{path}: holds grey from {pixels.min()} to {pixels.max()}; 0 to {most} are expected. Export 8 or 16 bits."
        )
    return np.ascontiguousarray(pixels if most == 255 else (pixels.astype(np.uint32) + 128) // 257, dtype=np.uint8)
