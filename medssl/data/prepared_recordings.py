"""Prepared recordings: an index and one folder each, from which any frame is read without decoding the rest."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medssl.data import recording_store as store
from medssl.data.recording_store import Geometry
from medssl.data.sequence import Unit
from medssl.errors import InputError
from medssl.files import read_json, value_hash


@dataclass(frozen=True)
class RecordingPreparation:
    """How recordings become what a network sees.

    Args:
        size: Height and width of the prepared pictures, pixels; multiples of 32 fit every network.
        every: Take every n-th frame.
        longest: Frames of a recording at most, from its start; None takes all.
        mask: Find the endoscope's field of view where the recording does not say it.
        highlights: Leave specular highlights out of what is valid; by default where there is an endoscope's field of
            view, as other pictures have white things too.
    """

    size: tuple[int, int] = (256, 320)
    every: int = 1
    longest: int | None = None
    mask: bool = True
    highlights: bool | None = None

    def __post_init__(self) -> None:
        """Refuse sizes that no network takes."""
        height, width = self.size
        if min(height, width) < 32 or height % 32 or width % 32:
            raise InputError(
                f"The prepared size (--recording.size) must be multiples of 32, at least 32, got {self.size}."
            )
        if self.every < 1 or (self.longest is not None and self.longest < 1):
            raise InputError(
                f"every and longest (--recording) must be at least 1, got {self.every} and {self.longest}."
            )

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able values."""
        return vars(self) | {"size": list(self.size)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "RecordingPreparation":
        """The reverse of ``to_dict``."""
        return cls(**{**values, "size": tuple(values["size"])})


class PreparedRecordings:
    """Read side of prepared recordings; cheap to make, to pickle and to send to loader workers (it holds no open file).

    Args:
        root: What ``medssl prepare`` wrote of videos.

    Attributes:
        index: One row per recording: name, subject, key, frames, unit, ...; in order of name.
        preparation: How the recordings were prepared.

    Raises:
        InputError: ``root`` holds no prepared recordings.
    """

    def __init__(self, root: Path) -> None:
        if not is_prepared_recordings(root):
            raise InputError(
                f"{root}: holds no prepared recordings (no recordings.json). Make them: medssl prepare VIDEO "
                f"--out {root}"
            )
        told = read_json(root / "recordings.json")
        if told.get("format") != store.FORMAT:
            raise InputError(
                f"{root}: was prepared in format {told.get('format')}, this medssl reads {store.FORMAT}. Prepare again."
            )
        self.root, self.preparation = root, RecordingPreparation.from_dict(told["preparation"])
        self.index = pd.read_parquet(root / "recordings.parquet")

    @property
    def names(self) -> tuple[str, ...]:
        """The recordings' names, in order of index."""
        return tuple(self.index["name"])

    @property
    def subjects(self) -> tuple[str, ...]:
        """The subject of every recording, in order of index."""
        return tuple(self.index["subject"])

    @property
    def channels(self) -> int:
        """Of every frame: red, green and blue."""
        return 3

    @cached_property
    def fingerprint(self) -> str:
        """A hash of which recordings these are, what they hold and how they were prepared; 16 hex digits."""
        return value_hash(self.index[["name", "subject", "key"]].to_numpy().tolist())

    def __len__(self) -> int:
        """The number of recordings."""
        return len(self.index)

    def select(self, subjects: Iterable[str]) -> "PreparedRecordings":
        """A view of the recordings of some subjects.

        Raises:
            InputError: A subject has no recording here.
        """
        wanted = set(subjects)
        if unknown := sorted(wanted - set(self.subjects)):
            raise InputError(
                f"{self.root}: has no recording of {', '.join(unknown)}; its subjects are "
                f"{', '.join(sorted(set(self.subjects)))}."
            )
        return self.take(i for i, subject in enumerate(self.subjects) if subject in wanted)

    def take(self, chosen: Iterable[int]) -> "PreparedRecordings":
        """A view of the recordings of these indices."""
        view = object.__new__(PreparedRecordings)
        view.root, view.preparation = self.root, self.preparation
        view.index = self.index.iloc[list(chosen)].reset_index(drop=True)
        return view

    def frames(self, i: int) -> int:
        """The number of frames of recording ``i``."""
        return int(self.index["frames"].iat[i])

    def unit(self, i: int) -> Unit:
        """Of the lengths of recording ``i``."""
        unit: Unit = self.index["unit"].iat[i]
        return unit

    def frame(self, i: int, t: int) -> NDArray[np.uint8]:
        """Frame ``t`` of recording ``i``, (3, H, W), red, green and blue."""
        return store.read_frame(self.folder(i), "frames", t)

    def valid(self, i: int, t: int, right: bool = False) -> NDArray[np.bool_]:
        """Where frame ``t``, or that of the second camera, shows the body, without highlights, (H, W)."""
        return store.read_frame(self.folder(i), "right_valid" if right else "valid", t).astype(bool)

    def right(self, i: int, t: int) -> NDArray[np.uint8]:
        """Frame ``t`` of the second camera, (3, H, W).

        Raises:
            InputError: The recording has one camera.
        """
        return store.read_frame(self.folder(i), "right", t)

    def truth(self, i: int, t: int, kind: str) -> NDArray[np.float32]:
        """What a test recording knows exactly: ``depth`` or ``disparity`` (H, W), ``flow`` (2, H, W); NaN is unknown.

        Raises:
            InputError: The recording does not know it.
        """
        return store.read_frame(self.folder(i), kind, t)

    def has(self, i: int, kind: str) -> bool:
        """Say whether recording ``i`` has ``right``, ``depth``, ``disparity`` or ``flow``."""
        return store.has(self.folder(i), kind)

    def geometry(self, i: int) -> Geometry:
        """What is known of the cameras of recording ``i``."""
        return store.read_geometry(self.folder(i))

    def folder(self, i: int) -> Path:
        """Where recording ``i`` lies."""
        return self.root / "recordings" / str(self.index["key"].iat[i])


def is_prepared_recordings(root: Path) -> bool:
    """Say whether a folder holds prepared recordings."""
    return (root / "recordings.json").is_file() and (root / "recordings.parquet").is_file()
