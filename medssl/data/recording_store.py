"""One prepared recording on disk: its frames one by one, and what is known of its cameras.

A recording is a folder, named by its key: ``frames-00000.b2nd`` (n, 3, H, W) uint8 and ``valid-00000.b2nd`` (n, H, W)
in parts of 128 frames, each frame a chunk of its own; so too the second camera's ``right`` and ``right_valid``, and
what a test recording knows exactly (``depth``, ``disparity``, ``flow``; float32); ``geometry.npz``; ``meta.json``. It
is written aside and renamed, so what exists is whole.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
from numpy.typing import NDArray

from medssl.errors import InputError
from medssl.files import read_json

FORMAT = 1  # raised when prepared recordings of before must be made anew
PART = 128  # frames of one file
_COMPRESSION = blosc2.CParams(codec=blosc2.Codec.ZSTD, clevel=1, nthreads=1)
_ONE_THREAD = blosc2.DParams(nthreads=1)  # loader workers are the parallelism


@dataclass(frozen=True, eq=False)
class Observations:
    """Where the points of structure from motion were seen, a row per observation.

    Attributes:
        frame: (n,), index of the frame.
        point: (n,), index of the point.
        pixel: (n, 2), x and y in the prepared picture.
        depth: (n,), z in that frame's camera, in the recording's unit.
        views: (n,), how many frames saw the point.
    """

    frame: NDArray[np.int64]
    point: NDArray[np.int64]
    pixel: NDArray[np.float64]
    depth: NDArray[np.float64]
    views: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Geometry:
    """What is known of a prepared recording's cameras.

    Attributes:
        times: (N,), seconds.
        motion: (N,), how far the picture moved since the frame before, as a share of its longer side; 0 of the first.
        scene: (N,), which scene each frame is of; another one begins at each cut.
        usable: (N,), False of frames that are black, overexposed or damaged.
        intrinsics: (3, 3) of the prepared picture, or ``None``.
        poses: Camera to world (N, 4, 4), NaN where a frame has none, or ``None``.
        right_intrinsics: (3, 3) of the second camera, or ``None``.
        right_to_left: (4, 4) from the second camera's axes to the first one's, or ``None``.
        observations: Of structure from motion, or ``None``.
    """

    times: NDArray[np.float64]
    motion: NDArray[np.float64]
    scene: NDArray[np.int64]
    usable: NDArray[np.bool_]
    intrinsics: NDArray[np.float64] | None = None
    poses: NDArray[np.float64] | None = None
    right_intrinsics: NDArray[np.float64] | None = None
    right_to_left: NDArray[np.float64] | None = None
    observations: Observations | None = None


class FrameWriter:
    """Writes frames of one kind in parts, so that a long recording takes no more memory than a short one.

    Args:
        folder: Of the recording.
        kind: ``frames``, ``valid``, ``right``, ``right_valid``, ``depth``, ``disparity`` or ``flow``.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder, self.kind, self.part = folder, kind, 0
        self.waiting: list[NDArray[Any]] = []

    def add(self, frame: NDArray[Any]) -> None:
        """Add the next frame."""
        self.waiting.append(frame)
        if len(self.waiting) == PART:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if not self.waiting:
            return
        data = np.stack(self.waiting)
        one = (1, *data.shape[1:])
        array = blosc2.asarray(data, chunks=one, blocks=one, cparams=_COMPRESSION)
        _part(self.folder, self.kind, self.part).write_bytes(array.to_cframe())  # so that a full disk is an OSError
        self.part += 1
        self.waiting.clear()


def read_frame(folder: Path, kind: str, index: int) -> NDArray[Any]:
    """Read one frame of a kind, decoding nothing else.

    Raises:
        InputError: The recording has none of that kind.
    """
    path = _part(folder, kind, index // PART)
    if not path.is_file():
        raise InputError(f"{folder}: this recording was prepared without '{kind}'.")
    frame: NDArray[Any] = blosc2.open(str(path), mode="r", dparams=_ONE_THREAD)[index % PART]
    return frame


def has(folder: Path, kind: str) -> bool:
    """Say whether a recording has frames of a kind."""
    return _part(folder, kind, 0).is_file()


def write_geometry(folder: Path, geometry: Geometry) -> None:
    """Write what is known of the cameras; what is not known is left out."""
    arrays = {name: value for name, value in vars(geometry).items() if isinstance(value, np.ndarray)}
    if geometry.observations is not None:
        arrays |= {f"observed_{name}": value for name, value in vars(geometry.observations).items()}
    np.savez(folder / "geometry.npz", **arrays)  # type: ignore[arg-type]  # its stub knows no names of arrays


def read_geometry(folder: Path) -> Geometry:
    """Read what is known of the cameras."""
    with np.load(folder / "geometry.npz", allow_pickle=False) as stored:
        arrays: Mapping[str, NDArray[Any]] = {name: stored[name] for name in stored.files}
    seen = {name.removeprefix("observed_"): a for name, a in arrays.items() if name.startswith("observed_")}
    known = {name: a for name, a in arrays.items() if not name.startswith("observed_")}
    return Geometry(**known, observations=Observations(**seen) if seen else None)


def read_meta(folder: Path) -> dict[str, Any] | None:
    """What was written of one recording, or nothing where it was not written yet."""
    path = folder / "meta.json"
    meta: dict[str, Any] | None = read_json(path) if path.is_file() else None
    return meta


def _part(folder: Path, kind: str, part: int) -> Path:
    return folder / f"{kind}-{part:05d}.b2nd"
