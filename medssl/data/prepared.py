"""A prepared dataset: an index and one folder per scan, from which any crop is read without decoding the rest."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medssl.data import store
from medssl.data.preparation import Preparation
from medssl.errors import InputError
from medssl.files import read_json, value_hash
from medssl.labels.lut import LabelSet

Crop = tuple[slice, ...]


@dataclass(frozen=True)
class Description:
    """What ``prepared.json`` says of a dataset: everything that its scans share."""

    preparation: Preparation
    label_set: LabelSet | None
    protocol: str | None
    spatial_dims: int
    channels: int
    classes: tuple[str, ...] | None


def read_description(root: Path) -> Description:
    """Read ``prepared.json``.

    Raises:
        InputError: The folder is no prepared dataset, or one of another format.
    """
    if not (root / "prepared.json").is_file() or not (root / "index.parquet").is_file():
        raise InputError(
            f"{root}: is not a prepared dataset (no prepared.json and index.parquet). Make one: medssl prepare SOURCE "
            f"--out {root}"
        )
    stored = read_json(root / "prepared.json")
    if stored.get("format") != store.FORMAT:
        raise InputError(
            f"{root}: was prepared in format {stored.get('format')}, this medssl reads {store.FORMAT}. Prepare again."
        )
    label_set, classes = stored["label_set"], stored.get("classes")  # which older datasets do not have
    return Description(
        Preparation.from_dict(stored["preparation"]),
        None if label_set is None else LabelSet.from_dict(label_set),
        stored["protocol"],
        stored["spatial_dims"],
        stored["channels"],
        None if classes is None else tuple(classes),
    )


class PreparedDataset:
    """Read side of a prepared folder; cheap to make, to pickle and to send to loader workers (it holds no open file).

    Args:
        root: What ``medssl prepare`` wrote.

    Attributes:
        index: One row per scan: scan, subject, key, shape, class_voxels, ...; in order of scan name.

    Raises:
        InputError: ``root`` is no prepared dataset.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.description = read_description(root)
        self.index = pd.read_parquet(root / "index.parquet")

    @property
    def label_set(self) -> LabelSet | None:
        """The structures of the labels; ``None`` where images were prepared alone."""
        return self.description.label_set

    @property
    def preparation(self) -> Preparation:
        """How the scans were prepared."""
        return self.description.preparation

    @property
    def spatial_dims(self) -> int:
        """2 or 3."""
        return self.description.spatial_dims

    @property
    def channels(self) -> int:
        """The number of channels of every image."""
        return self.description.channels

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of the images' classes, in order of index; ``None`` where no table gave any."""
        return self.description.classes

    @property
    def scans(self) -> tuple[str, ...]:
        """The scans' names, in order of index."""
        return tuple(self.index["scan"])

    @property
    def subjects(self) -> tuple[str, ...]:
        """The subject of every scan, in order of index; a subject may occur more than once."""
        return tuple(self.index["subject"])

    @cached_property
    def fingerprint(self) -> str:
        """A hash of which scans these are, what they hold and how they were prepared; 16 hex digits.

        It is another one where the images' classes are others.
        """
        scans = self.index[["scan", "subject", "key"]].to_numpy().tolist()
        return value_hash(scans if self.classes is None else [scans, self.classes, self.index["category"].tolist()])

    def __len__(self) -> int:
        """The number of scans."""
        return len(self.index)

    def select(self, subjects: Iterable[str]) -> "PreparedDataset":
        """A view of the scans of some subjects, in the order of the index.

        Raises:
            InputError: A subject has no scan here.
        """
        wanted = set(subjects)
        unknown = sorted(wanted - set(self.subjects))
        if unknown:
            raise InputError(
                f"{self.root}: has no scan of {', '.join(unknown)}; its {len(set(self.subjects))} subjects are "
                f"{', '.join(sorted(set(self.subjects)))}."
            )
        return self.take(i for i, subject in enumerate(self.subjects) if subject in wanted)

    def take(self, scans: Iterable[int]) -> "PreparedDataset":
        """A view of some scans, by their places in the index, in the order given."""
        view = object.__new__(PreparedDataset)
        view.root, view.description = self.root, self.description
        view.index = self.index.iloc[list(scans)].reset_index(drop=True)
        return view

    def shape(self, i: int) -> tuple[int, ...]:
        """The size of scan ``i`` without its channels."""
        return tuple(int(n) for n in self.index["shape"].iat[i])

    def affine(self, i: int) -> NDArray[np.float64]:
        """The affine (4, 4) of the prepared grid of scan ``i`` to RAS+ mm."""
        return np.array(self.index["affine"].iat[i], dtype=np.float64).reshape(4, 4)

    def labelled(self, i: int) -> bool:
        """Whether scan ``i`` has a label map."""
        return len(self.index["class_voxels"].iat[i]) > 0

    def category(self, i: int) -> int | None:
        """The index of the class of scan ``i``; ``None`` where it has none."""
        category = -1 if self.classes is None else int(self.index["category"].iat[i])
        return None if category < 0 else category

    def image(self, i: int, crop: Crop | None = None) -> NDArray[np.float32]:
        """The image (C, *spatial), or the part of it inside ``crop`` (one slice per spatial axis)."""
        where = () if crop is None else (slice(None), *self._within(i, crop))
        return store.read_array(self._folder(i) / "image.b2nd", where).astype(np.float32)

    def label(self, i: int, crop: Crop | None = None) -> NDArray[np.uint8]:
        """The class indices (*spatial), or the part inside ``crop``.

        Raises:
            InputError: The scan has no labels.
        """
        self._require_label(i)
        return store.read_array(self._folder(i) / "label.b2nd", () if crop is None else self._within(i, crop))

    def class_voxels(self, i: int) -> NDArray[np.int64]:
        """How many voxels scan ``i`` has of every class, (classes,).

        Raises:
            InputError: The scan has no labels.
        """
        self._require_label(i)
        return np.array(self.index["class_voxels"].iat[i], dtype=np.int64)

    def class_positions(self, i: int, class_index: int) -> NDArray[np.int32]:
        """Random voxels (n, spatial_dims) of one class, at most 1000, drawn when the scan was prepared.

        Raises:
            InputError: The scan has no labels.
        """
        self._require_label(i)
        return store.read_positions(self._folder(i), class_index)

    def _folder(self, i: int) -> Path:
        return self.root / "scans" / str(self.index["key"].iat[i])

    def _within(self, i: int, crop: Crop) -> Crop:
        shape = self.shape(i)
        inside = len(crop) == len(shape) and all(
            0 <= (part.start or 0) <= (n if part.stop is None else part.stop) <= n and part.step in (None, 1)
            for part, n in zip(crop, shape, strict=True)
        )
        if not inside:
            raise IndexError(f"The crop {crop} does not lie within scan '{self.scans[i]}' of {shape} voxels.")
        return crop

    def _require_label(self, i: int) -> None:
        if not self.labelled(i):
            raise InputError(f"{self.root}: scan '{self.scans[i]}' was prepared without labels.")
