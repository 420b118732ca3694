"""What is to be followed: objects of a mask, or points, of one frame, read from files and checked against the video."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from medssl.data.formats import NIBABEL_SUFFIXES, read_label_picture, read_nibabel, suffix_of
from medssl.errors import InputError
from medssl.files import read_json
from medssl.label_propagation import keypoint_maps

Ids = NDArray[np.uint8]

POINT_SUFFIXES = (".csv", ".json")
MASK_SUFFIXES = (".png", ".npy", *NIBABEL_SUFFIXES)
MOST_OBJECTS = 64
_LARGEST_ID = 255  # of a PNG's palette


@dataclass(frozen=True, eq=False)
class Objects:
    """Objects of one frame.

    Attributes:
        mask: The number of the object that each pixel shows, (H, W), 0 for none.
        ids: Which there are, ascending, without 0.
    """

    mask: Ids
    ids: tuple[int, ...]

    def cells(self, size: tuple[int, int], stride: int) -> Tensor:
        """Shares of each cell that show no object, the first one, and so on: (1, 1 + objects, h, w)."""
        mask = torch.from_numpy(self.mask)
        cells = size[0] // stride, size[1] // stride
        return torch.cat([F.adaptive_avg_pool2d((mask == k).float()[None, None], cells) for k in (0, *self.ids)], 1)


@dataclass(frozen=True, eq=False)
class Points:
    """Points of one frame.

    Attributes:
        names: Each has its own.
        places: (N, 2), x and y, pixels of the video's frames.
        picture: Height and width of these, pixels.
    """

    names: tuple[str, ...]
    places: NDArray[np.float64]
    picture: tuple[int, int]

    def cells(self, size: tuple[int, int], stride: int) -> Tensor:
        """Draw each as a Gaussian over the cells, (1, N, h, w)."""
        return keypoint_maps(torch.from_numpy(self.seen(size)).float()[None], size, stride)

    def seen(self, size: tuple[int, int]) -> NDArray[np.float64]:
        """Places in the pictures of that size that a network sees, (N, 2)."""
        scale = np.array([size[1] / self.picture[1], size[0] / self.picture[0]])
        placed: NDArray[np.float64] = (self.places + 0.5) * scale - 0.5
        return placed

    def recorded(self, seen: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float64]:
        """The reverse of ``seen``, of any points (N, 2)."""
        scale = np.array([self.picture[1] / size[1], self.picture[0] / size[0]])
        placed: NDArray[np.float64] = (seen + 0.5) * scale - 0.5
        return placed


Given = Objects | Points


def read_given(path: Path, size: tuple[int, int], frame: int, frames: int) -> Given:
    """Read the objects or points of one frame.

    Args:
        path: Objects as indexed or grey PNG, .npy (H, W) or NIfTI (X, Y), or (X, Y, frames) of which the frame's slice
            is taken; points as CSV or JSON, see ``read_points``.
        size: Height and width of the video's frames, pixels.
        frame: Whose they are.
        frames: Of the video.

    Raises:
        InputError: The file cannot be read, or does not fit the video.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; the first frame's mask or points are expected.")
    if suffix_of(path) in POINT_SUFFIXES:
        table = read_points(path)
        return _points_of(path, table[table["frame"] == frame] if "frame" in table else table, size, frame)
    mask = read_mask(path, size, frame, frames)
    ids = tuple(int(k) for k in np.unique(mask) if k)
    if not ids:
        raise InputError(f"{path}: shows no object, all its pixels are 0; mark what is to be followed with 1, 2, ...")
    if len(ids) > MOST_OBJECTS:
        raise InputError(
            f"{path}: shows {len(ids)} objects, at most {MOST_OBJECTS} are followed at once. It may be a picture; a "
            "mask with one number for each object is expected."
        )
    return Objects(mask, ids)


def read_mask(path: Path, size: tuple[int, int], frame: int = 0, frames: int = 1) -> Ids:
    """Read the number of the object that each pixel shows, (H, W); see ``read_given``.

    Raises:
        InputError: It cannot be read, is of another size than the video, or holds something else than 0 to 255.
    """
    values = _mask_values(path, frame, frames)
    if values.dtype == np.bool_:
        values = values.astype(np.uint8)
    whole = np.issubdtype(values.dtype, np.integer) or bool((values == np.rint(values)).all())
    if not whole or values.min() < 0 or values.max() > _LARGEST_ID:
        raise InputError(
            f"{path}: holds {values.dtype} from {values.min():g} to {values.max():g}; whole numbers from 0 (no object) "
            f"to {_LARGEST_ID} are expected. It may be a picture, of 16 bits perhaps, and no mask."
        )
    if values.shape != size:
        raise InputError(
            f"{path}: is {_told(values.shape)} pixels, the video's frames {_told(size)} (width x height); a mask of "
            "the frames' own size is expected. Draw it on the frame itself, or resize it without interpolation."
        )
    return values.astype(np.uint8)


def read_points(path: Path) -> pd.DataFrame:
    """Read points: a CSV with the columns name, x and y, and maybe frame and hidden; or JSON.

    JSON is a list of {"name": ..., "x": ..., "y": ...}, or {name: [x, y], ...}.

    Returns:
        The table; names are text, and each is there once in a frame.

    Raises:
        InputError: It is something else, or two points share a name.
    """
    table = _points_json(path) if suffix_of(path) == ".json" else _points_csv(path)
    if missing := [column for column in ("name", "x", "y") if column not in table]:
        raise InputError(f"{path}: lacks {', '.join(missing)}; points have name, x and y, pixels of the full picture.")
    table["name"] = table["name"].astype(str)
    for column in ("x", "y"):
        table[column] = pd.to_numeric(table[column], errors="coerce")
    keys = ["frame", "name"] if "frame" in table else ["name"]
    if (twice := table.duplicated(keys)).any():
        raise InputError(f"{path}: two points are called '{table.loc[twice, 'name'].iat[0]}'; give each its own name.")
    return table


def _points_of(path: Path, table: pd.DataFrame, size: tuple[int, int], frame: int) -> Points:
    if "hidden" in table:
        table = table[~table["hidden"].astype(bool)]  # what the frame does not show cannot be followed from it
    if table.empty:
        raise InputError(f"{path}: has no point that frame {frame} shows; give that frame's, or another --first_frame.")
    places = table[["x", "y"]].to_numpy(dtype=np.float64)
    height, width = size
    outside = ~((places >= -0.5) & (places <= np.array([width, height]) - 0.5)).all(axis=1)
    if outside.any():
        name, (x, y) = table["name"].to_numpy()[outside][0], places[outside][0]
        raise InputError(
            f"{path}: point '{name}' is at x {x:g}, y {y:g}, outside the {width}x{height} pixels (width x height) of "
            "the video; points are in pixels of the video's full size."
        )
    return Points(tuple(table["name"]), places, size)


def _points_json(path: Path) -> pd.DataFrame:
    told = read_json(path)
    try:
        if isinstance(told, dict):
            return pd.DataFrame([{"name": name, "x": x, "y": y} for name, (x, y) in told.items()])
        return pd.DataFrame([dict(one) for one in told])
    except (TypeError, ValueError) as error:
        example = json.dumps({"tip": [10, 20]})
        raise InputError(
            f"{path}: holds no points ({error}); expected is a list of name, x, y, or {example}."
        ) from error


def _points_csv(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, dtype={"name": str}, keep_default_na=False)
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is no table of points ({error}); a CSV with name,x,y is expected.") from error


def _mask_values(path: Path, frame: int, frames: int) -> NDArray[Any]:
    """The values as they are in the file, rows first."""
    suffix = suffix_of(path)
    if suffix == ".npy":
        return _array(path)
    if suffix in NIBABEL_SUFFIXES:
        return _slice(path, np.asarray(read_nibabel(path)[0]), frame, frames).T
    if suffix not in MASK_SUFFIXES and suffix not in (".jpg", ".jpeg"):
        kinds = ", ".join((*MASK_SUFFIXES, *POINT_SUFFIXES))
        raise InputError(f"{path}: is neither a mask nor points; known are {kinds}.")
    values: NDArray[Any] = read_label_picture(path)[0].T
    return values


def _array(path: Path) -> NDArray[Any]:
    try:
        values: NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: cannot be read as an array of numbers ({error}).") from error
    if values.ndim != 2 or not values.size or not (np.issubdtype(values.dtype, np.number) or values.dtype == np.bool_):
        raise InputError(f"{path}: holds {values.dtype} {values.shape}; object numbers (H, W) are expected.")
    return values


def _slice(path: Path, voxels: NDArray[Any], frame: int, frames: int) -> NDArray[Any]:
    if voxels.ndim == 2:
        return voxels
    if voxels.shape[2] != frames:
        raise InputError(
            f"{path}: has {voxels.shape[2]} slices, the video {frames} frames; a mask has one slice, or one per frame."
        )
    values: NDArray[Any] = voxels[:, :, frame]
    return values


def _told(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"
