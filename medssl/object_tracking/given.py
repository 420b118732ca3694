"""What is to be followed: objects of masks, or points of one frame, read from files and checked against the video."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from medssl.data.formats import NIBABEL_SUFFIXES, read_label_picture, read_nibabel, stem_of, suffix_of
from medssl.data.sequence import Frames
from medssl.errors import InputError
from medssl.files import read_json
from medssl.label_propagation import keypoint_maps

Ids = NDArray[np.uint8]

POINT_SUFFIXES = (".csv", ".json")
MASK_SUFFIXES = (".png", ".npy", *NIBABEL_SUFFIXES)
MOST_OBJECTS = MOST_MASKS = 64
_LARGEST_ID = 255  # of a PNG's palette


@dataclass(frozen=True, eq=False)
class Objects:
    """Objects of one frame, and maybe what masks of later ones show of these and of others.

    Attributes:
        mask: The number of the object that each pixel shows, (H, W), 0 for none.
        ids: Which there are in any of the masks, ascending, without 0.
        later: Masks of later frames, by their numbers. They mark the objects that they show; 0 says nothing.
    """

    mask: Ids
    ids: tuple[int, ...]
    later: Mapping[int, Ids] = field(default_factory=dict)

    def cells(self, size: tuple[int, int], stride: int) -> Tensor:
        """Shares of each cell that show no object, the first one, and so on: (1, 1 + objects, h, w)."""
        shares = self._shares(self.mask, size, stride)
        return torch.cat([1 - shares.sum(1, keepdim=True), shares], 1)

    def marks(self, frame: int, size: tuple[int, int], stride: int) -> Tensor | None:
        """Shares of each cell that a later frame's mask says show each object, (1, objects, h, w)."""
        return self._shares(self.later[frame], size, stride) if frame in self.later else None

    def corrected(self, frame: int, found: Ids) -> Ids:
        """Put what a later frame's mask marks into what was found there, (H, W): it is there, and nowhere else."""
        if frame not in self.later:
            return found
        mask = self.later[frame]
        return np.where(mask > 0, mask, np.where(np.isin(found, mask), 0, found)).astype(np.uint8)

    def followed(self, frame: int) -> list[int]:
        """The objects that are followed in a frame: those of the first mask, others from where they are marked on."""
        begun = (ids for at, ids in self._marked.items() if at <= frame)
        return sorted(set().union(*begun))

    def carried(self, frame: int) -> list[int]:
        """Those of them that no mask marks in it."""
        return [thing for thing in self.followed(frame) if thing not in self._marked.get(frame, ())]

    @cached_property
    def _marked(self) -> dict[int, set[int]]:
        """What each mask shows; the first one, which holds for earlier frames too, is that of -1."""
        masks = {-1: self.mask, **self.later}
        return {frame: set(np.unique(mask).tolist()) - {0} for frame, mask in masks.items()}

    def _shares(self, mask: Ids, size: tuple[int, int], stride: int) -> Tensor:
        values, cells = torch.from_numpy(mask), (size[0] // stride, size[1] // stride)
        return torch.cat([F.adaptive_avg_pool2d((values == k).float()[None, None], cells) for k in self.ids], 1)


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

    def marks(self, frame: int, size: tuple[int, int], stride: int) -> Tensor | None:
        """None: points are given of one frame."""
        return None

    def corrected(self, frame: int, found: NDArray[Any]) -> NDArray[Any]:
        """What was found, as it is: points are given of one frame."""
        return found

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
    return _objects_of(path, {frame: _marking(path, size, frame, frames)})


def read_marks(folder: Path, frames: Frames) -> Objects:
    """Read what masks of some frames mark.

    Args:
        folder: Masks that are named as the frame, or by its number, see ``numbered_masks``.
        frames: Of the video.

    Raises:
        InputError: A mask cannot be read, marks nothing or does not fit the video, or they are too many.
    """
    files = numbered_masks(folder, frames)
    if len(files) > MOST_MASKS:
        raise InputError(
            f"{folder}: holds {len(files)} masks, and every frame is compared with each of theirs: give at most "
            f"{MOST_MASKS}, such as those in which an object is first seen."
        )
    masks = {frame: _marking(files[frame], frames.size) for frame in sorted(files)}
    return _objects_of(folder, masks)


def numbered_masks(folder: Path, frames: Frames) -> dict[int, Path]:
    """The mask of each frame that has one: named as the frame's own file, or by its number, the last in its name.

    Raises:
        InputError: There is none, one is of a frame that the video lacks, or two are of the same frame.
    """
    found = [one for one in sorted(folder.iterdir()) if suffix_of(one) in MASK_SUFFIXES] if folder.is_dir() else []
    if not found:
        raise InputError(f"{folder}: holds no masks; a folder of {', '.join(MASK_SUFFIXES)} is expected.")
    named = {file.stem: index for index, file in enumerate(frames.files)} if len(frames.files) == len(frames) else {}
    masks: dict[int, Path] = {}
    for one in found:
        index = named[stem_of(one)] if stem_of(one) in named else _number(one)
        if index >= len(frames):
            raise InputError(f"{one}: is of a frame that the video lacks; it has {len(frames)}, counted from 0.")
        if index in masks:
            raise InputError(f"{one}: is of frame {index}, as {masks[index].name} is; one mask of it is expected.")
        masks[index] = one
    return masks


def _number(path: Path) -> int:
    """The last number in a file's name."""
    numbers = re.findall(r"\d+", stem_of(path))
    if not numbers:
        raise InputError(f"{path}: has no number in its name; a mask is named as its frame, such as 00000012.png.")
    return int(numbers[-1])


def _marking(path: Path, size: tuple[int, int], frame: int = 0, frames: int = 1) -> Ids:
    """Read a mask that marks something."""
    mask = read_mask(path, size, frame, frames)
    if not mask.any():
        raise InputError(f"{path}: shows no object, all its pixels are 0; mark what is to be followed with 1, 2, ...")
    return mask


def _objects_of(path: Path, masks: Mapping[int, Ids]) -> Objects:
    """The objects of masks of some frames, ascending."""
    (_, first), *later = masks.items()
    ids = sorted(set().union(*(np.unique(mask).tolist() for mask in masks.values())) - {0})
    if len(ids) > MOST_OBJECTS:
        raise InputError(
            f"{path}: shows {len(ids)} objects, at most {MOST_OBJECTS} are followed at once. It may be a picture; a "
            "mask with one number for each object is expected."
        )
    return Objects(first, tuple(ids), dict(later))


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
