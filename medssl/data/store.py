"""One prepared scan on disk: chunked compressed arrays, of which a crop reads only the blocks that it touches.

A scan is a folder, named by its key: ``image.b2nd`` (C, *spatial), ``label.b2nd`` (*spatial) of class indices,
``positions.npz`` with voxels of every class, ``meta.json``. It is written aside and renamed, so what exists is whole.

Images are float16: at 1, the mean of the foreground, its steps are 0.001, finer than noise, at half the size of
float32. Blocks of 32^3 in chunks of 64^3: a crop of 96^3 touches little else, and small files stay few.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
from numpy.typing import NDArray

from medssl.files import read_json, write_aside, write_json

FORMAT = 2  # raised when prepared scans of before must be made anew
POSITIONS_PER_CLASS = 1000
_CHUNK, _BLOCK = 64, 32
_COMPRESSION = blosc2.CParams(
    codec=blosc2.Codec.ZSTD, clevel=3, filters=[blosc2.Filter.SHUFFLE], filters_meta=[0], nthreads=1
)
_ONE_THREAD = blosc2.DParams(nthreads=1)  # loader workers are the parallelism


@dataclass(frozen=True, eq=False)
class Entry:
    """A prepared scan before it is written: arrays and what the index says of it (JSON-able)."""

    image: NDArray[np.float32]
    label: NDArray[np.uint8] | None
    classes: int
    meta: dict[str, Any]


def write_entry(folder: Path, entry: Entry) -> None:
    """Write one scan's folder, whole or not at all.

    Raises:
        InputError: The disk is full or refuses to be written.
    """
    with write_aside(folder) as aside:
        aside.mkdir()
        write_array(aside / "image.b2nd", entry.image.astype(np.float16))
        if entry.label is not None:
            write_array(aside / "label.b2nd", entry.label)
            positions, starts = sample_positions(entry.label, entry.classes, seed=int(folder.name[:8], 16))
            np.savez(aside / "positions.npz", positions=positions, starts=starts)
        write_json(aside / "meta.json", entry.meta)


def read_meta(folder: Path) -> dict[str, Any] | None:
    """What was written of one scan, or nothing where it was not written yet."""
    path = folder / "meta.json"
    meta: dict[str, Any] | None = read_json(path) if path.exists() else None
    return meta


def write_array(path: Path, data: NDArray[Any]) -> None:
    """Compress an array whose last three axes are spatial (or all that it has)."""
    sizes = [(min(n, _CHUNK), min(n, _BLOCK)) for n in data.shape]
    array = blosc2.asarray(
        np.ascontiguousarray(data), chunks=[c for c, _ in sizes], blocks=[b for _, b in sizes], cparams=_COMPRESSION
    )
    path.write_bytes(array.to_cframe())  # compressed in memory, so that a full disk is an OSError


def read_array(path: Path, crop: tuple[slice, ...] = ()) -> NDArray[Any]:
    """Read a crop, decoding only the blocks that it touches; every axis that ``crop`` does not name is whole."""
    array: NDArray[Any] = blosc2.open(str(path), mode="r", dparams=_ONE_THREAD)[crop]
    return array


def read_positions(folder: Path, class_index: int) -> NDArray[np.int32]:
    """Random voxels of one class, (n, dims) with n at most ``POSITIONS_PER_CLASS``."""
    with np.load(folder / "positions.npz", allow_pickle=False) as stored:
        starts = stored["starts"]
        positions: NDArray[np.int32] = stored["positions"][starts[class_index] : starts[class_index + 1]]
    return positions


def sample_positions(
    label: NDArray[np.uint8], classes: int, seed: int, most: int = POSITIONS_PER_CLASS
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Draw up to ``most`` voxels of every class, without replacement.

    Returns:
        Positions (n, dims), class after class, and starts (classes + 1,): class c has positions[starts[c]:starts[c+1]].
    """
    generator = np.random.default_rng(seed)
    flat = label.ravel()
    order = np.argsort(flat, kind="stable")
    edges = np.searchsorted(flat[order], np.arange(classes + 1))
    drawn = [
        generator.choice(order[begin:end], size=min(most, end - begin), replace=False) for begin, end in pairwise(edges)
    ]
    starts = np.cumsum([0, *(len(one) for one in drawn)])
    positions = np.stack(np.unravel_index(np.concatenate(drawn), label.shape), axis=1)
    return positions.astype(np.int32), starts.astype(np.int64)
