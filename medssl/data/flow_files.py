"""Files of flow, disparity and depth: Middlebury's .flo, KITTI's 16-bit PNG, and portable float maps (.pfm).

Flow is (H, W, 2): x to the right and y down, pixels, NaN where it is not known.
"""

from pathlib import Path
from typing import Final

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from medssl.data.formats import MOST_VOXELS, read_picture
from medssl.errors import InputError
from medssl.files import write_aside

Map = NDArray[np.float32]

_FLO_MAGIC: Final = np.float32(202021.25)
_FLO_UNKNOWN: Final = 1e9  # larger is not known (Middlebury's flow code, README)
_KITTI_STEPS: Final = 64.0  # a pixel, around a zero of 2^15 (KITTI development kit, 2015)
_KITTI_ZERO: Final = 1 << 15


def read_flow(path: Path) -> Map:
    """Read flow (H, W, 2) from .flo or KITTI's .png.

    Raises:
        InputError: It is neither, or is cut short.
    """
    readers = {".flo": read_flo, ".png": read_kitti_flow}
    if path.suffix.lower() not in readers:
        raise InputError(f"{path}: flow is read from .flo or KITTI's 16-bit .png.")
    return readers[path.suffix.lower()](path)


def read_flo(path: Path) -> Map:
    """Read Middlebury's .flo, (H, W, 2).

    Raises:
        InputError: It is of another kind, or has another length than its header says.
    """
    content = _bytes_of(path)
    if len(content) < 12 or np.frombuffer(content, "<f4", 1)[0] != _FLO_MAGIC:
        raise InputError(f"{path}: is no .flo file: it does not begin with the number 202021.25.")
    width, height = (int(n) for n in np.frombuffer(content, "<i4", 2, offset=4))
    flow = _values(path, content[12:], "<f4", (height, width, 2))
    unknown = ~(np.abs(flow) < _FLO_UNKNOWN).all(axis=-1)
    flow[unknown] = np.nan
    return flow


def write_flo(path: Path, flow: Map) -> None:
    """Write flow (H, W, 2) as Middlebury's .flo; what is not known as 1e10, as they do."""
    height, width = flow.shape[:2]
    values = np.where(np.isfinite(flow).all(axis=-1, keepdims=True), flow, 1e10).astype("<f4")
    header = _FLO_MAGIC.astype("<f4").tobytes() + np.array([width, height], "<i4").tobytes()
    with write_aside(path) as aside:
        aside.write_bytes(header + values.tobytes())


def read_kitti_flow(path: Path) -> Map:
    """Read KITTI's flow PNG, (H, W, 2): red and green are 64 x + 2^15 and 64 y + 2^15, blue says where it is known.

    Raises:
        InputError: It has not three channels of 16 bits.
    """
    colours = read_picture(path).colours
    if colours is None or colours.dtype != np.uint16:
        raise InputError(f"{path}: is no flow of KITTI's: a PNG with three channels of 16 bits is expected.")
    red, green, known = colours.transpose(0, 2, 1).astype(np.float32)
    flow: Map = ((np.stack([red, green], axis=-1) - _KITTI_ZERO) / _KITTI_STEPS).astype(np.float32)
    flow[known == 0] = np.nan
    return flow


def write_kitti_flow(path: Path, flow: Map) -> None:
    """Write flow (H, W, 2) as KITTI's 16-bit PNG, rounded to 1/64 pixel.

    Raises:
        InputError: It has a value of 512 pixels or more, which the format cannot hold.
    """
    known = np.asarray(np.isfinite(flow).all(axis=-1))
    steps = np.round(np.where(known[..., None], flow, 0) * _KITTI_STEPS) + _KITTI_ZERO
    if steps.min(initial=0) < 0 or steps.max(initial=0) > np.iinfo(np.uint16).max:
        largest = np.nanmax(np.abs(flow))
        raise InputError(f"{path}: KITTI's PNG holds flow under 512 pixels; got {largest:.1f}. Write .flo.")
    image = sitk.GetImageFromArray(np.dstack([steps, known]).astype(np.uint16), isVector=True)
    with write_aside(path) as aside:
        sitk.WriteImage(image, str(aside))


def read_pfm(path: Path) -> Map:
    """Read a portable float map, (H, W) or in colour (H, W, 3), first row on top, infinities kept.

    The third line's sign gives the order of bytes; its size is a unit that no reader applies. Rows are stored bottom-up
    (Debevec's PFM description).

    Raises:
        InputError: It is of another kind, or has another length than its header says.
    """
    content = _bytes_of(path)
    lines = content.split(b"\n", 3)
    try:
        channels = {b"Pf": 1, b"PF": 3}[lines[0].strip()]
        width, height = (int(n) for n in lines[1].split())
        scale = float(lines[2])
    except (KeyError, ValueError, IndexError) as error:
        raise InputError(f"{path}: is no portable float map: its first lines are {content[:24]!r}.") from error
    values = _values(path, lines[3], "<f4" if scale < 0 else ">f4", (height, width, channels))[::-1]
    return np.ascontiguousarray(values[..., 0] if channels == 1 else values)


def write_pfm(path: Path, values: Map) -> None:
    """Write (H, W) or (H, W, 3) as a little-endian portable float map."""
    kind, (height, width) = "Pf" if values.ndim == 2 else "PF", values.shape[:2]
    header = f"{kind}\n{width} {height}\n-1.0\n".encode()
    with write_aside(path) as aside:
        aside.write_bytes(header + np.ascontiguousarray(values[::-1], dtype="<f4").tobytes())


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file.") from None


def _values(path: Path, content: bytes, kind: str, shape: tuple[int, ...]) -> Map:
    count = int(np.prod(shape, dtype=object))
    if min(shape) < 1 or count > MOST_VOXELS or len(content) != 4 * count:
        raise InputError(
            f"{path}: is truncated or damaged: its header claims {'x'.join(map(str, shape))} values of 4 bytes, "
            f"{len(content)} bytes follow. Copy or download it again."
        )
    return np.frombuffer(content, kind).astype(np.float32).reshape(shape)
