"""A DICOM file of several frames, as of ultrasound and endoscopy, is a video.

Times are those of DICOM PS3.3, C.7.6.5.1 (Cine Module); pydicom decodes, one frame at a time. As for series
(``medssl.data.dicom``), no message repeats what identifies the patient; what is burnt into the pictures stays there.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.pixels import iter_pixels

from medssl.data.dicom import _IDENTIFYING, identifying_words, letters_of  # one list of what must not be told
from medssl.errors import InputError

_TAGS = [
    *_IDENTIFYING, "Rows", "Columns", "NumberOfFrames", "PhotometricInterpretation", "BitsStored",
    "PixelRepresentation", "RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth",
    "FrameTime", "FrameTimeVector", "RecommendedDisplayFrameRate", "CineRate",
]  # fmt: skip
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")  # which pydicom gives as RGB
_GREYS = ("MONOCHROME1", "MONOCHROME2")


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do (PS3.10, 7.1), or is named as one."""
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM" or path.suffix.lower() in (".dcm", ".dicom")


class CineFrames:
    """The frames of one DICOM file, decoded when asked for.

    Colours are given as RGB. Grey of 8 bits is given as stored, of more bits over the file's window (over all that its
    bits can hold, where it names none), as three equal colours.

    Args:
        path: The file.

    Raises:
        InputError: It is no DICOM image, has colours that are not understood, or claims more frames than it can hold.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._header = _read_header(path)
        self.name = _public_name(path, self._header)  # what a message may call the file
        kind = self._header.get("PhotometricInterpretation", "unknown")
        if kind not in _COLOURS + _GREYS:
            raise InputError(
                f"{self.name}: its pixels are {kind}; {', '.join(_COLOURS + _GREYS)} are understood. Export it as RGB."
            )
        if not 0 < len(self) <= path.stat().st_size:
            raise InputError(
                f"{self.name}: claims {len(self)} frames in {path.stat().st_size} bytes. It is damaged or cut short: "
                "export it again."
            )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, pixels."""
        return int(self._header.Rows), int(self._header.Columns)

    @cached_property
    def times(self) -> NDArray[np.float64]:
        """When each frame is shown, (N,), seconds from the first; NaN where the file does not say.

        Raises:
            InputError: The file names other than one time per frame.
        """
        steps_ms = self._header.get("FrameTimeVector")
        if steps_ms is not None:
            steps = np.atleast_1d(np.asarray(steps_ms, dtype=np.float64))
            if len(steps) != len(self):
                raise InputError(f"{self.name}: names {len(steps)} times (FrameTimeVector) for its {len(self)} frames.")
            times: NDArray[np.float64] = np.cumsum(np.concatenate([[0.0], steps[1:]])) / 1000
            return times
        return np.arange(len(self), dtype=np.float64) * _frame_s(self._header)

    @property
    def files(self) -> tuple[Path, ...]:
        """The one file."""
        return (self.path,)

    @property
    def damaged(self) -> tuple[int, ...]:
        """None: a frame that is broken is refused when it is read."""
        return ()

    def __len__(self) -> int:
        return int(self._header.get("NumberOfFrames") or 1)

    def read(self, indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        """Give frames (H, W, 3), RGB, in the order asked for.

        Raises:
            IndexError: There is no such frame.
            InputError: A frame cannot be decoded.
        """
        for index in indices:
            if not 0 <= index < len(self):
                raise IndexError(f"{self.name}: there is no frame {index}; it holds {len(self)}, counted from 0.")
            yield self._decode(int(index))

    def _decode(self, index: int) -> NDArray[np.uint8]:
        try:
            pixels = next(iter(iter_pixels(self.path, indices=[index])))
        # pydicom and its decoders raise whatever they meet in damaged data; its text may name the file
        except Exception as error:
            raise InputError(
                f"{self.name}: frame {index} of {len(self)} cannot be decoded ({type(error).__name__}). The file may "
                "be cut short, or need a decoder (pip install 'medssl[dicom]')."
            ) from None
        if pixels.ndim == 3:
            return np.ascontiguousarray(pixels if pixels.dtype == np.uint8 else pixels >> 8, dtype=np.uint8)
        return np.stack([_grey(pixels, self._header)] * 3, axis=-1)


def _read_header(path: Path) -> FileDataset:
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
    except (InvalidDicomError, OSError, EOFError) as error:
        reason = type(error).__name__
        raise InputError(f"{path.name}: cannot be read as DICOM ({reason}). Export it again.") from None
    if "Rows" not in header or "Columns" not in header:
        raise InputError(f"{_public_name(path, header)}: is a DICOM file without pictures; a cine is expected.")
    return header


def _public_name(path: Path, header: FileDataset) -> str:
    """The file's name, or none of it where it holds something of the patient."""
    name = letters_of(path.name)
    return "DICOM cine" if any(word in name for word in identifying_words([header])) else path.name


def _frame_s(header: FileDataset) -> float:
    """The time from frame to frame in seconds; NaN where it is not told."""
    if header.get("FrameTime"):
        return float(header.FrameTime) / 1000
    rate = header.get("RecommendedDisplayFrameRate") or header.get("CineRate")
    return 1 / float(rate) if rate else float("nan")


def _grey(pixels: NDArray[Any], header: FileDataset) -> NDArray[np.uint8]:
    """Map stored grey (H, W) to 0 to 255."""
    bits = int(header.BitsStored)
    if bits <= 8 and pixels.dtype == np.uint8:
        grey = pixels if bits == 8 else np.round(pixels * (255 / (2**bits - 1)))
    else:
        values = pixels * float(header.get("RescaleSlope") or 1) + float(header.get("RescaleIntercept") or 0)
        low, high = _window(header, bits)
        grey = np.round(np.clip((values - low) / (high - low), 0, 1) * 255)
    grey = 255 - grey if header.PhotometricInterpretation == "MONOCHROME1" else grey
    return grey.astype(np.uint8)


def _window(header: FileDataset, bits: int) -> tuple[float, float]:
    """The darkest and the brightest value, after rescaling: of the first window, else of all that the bits can hold."""
    widths, centres = (np.atleast_1d(header.get(tag) or 0.0) for tag in ("WindowWidth", "WindowCenter"))
    if float(widths[0]) > 0:
        return float(centres[0]) - float(widths[0]) / 2, float(centres[0]) + float(widths[0]) / 2
    lowest = -(2 ** (bits - 1)) if header.get("PixelRepresentation") else 0
    slope, intercept = float(header.get("RescaleSlope") or 1), float(header.get("RescaleIntercept") or 0)
    return lowest * slope + intercept, (lowest + 2**bits - 1) * slope + intercept
