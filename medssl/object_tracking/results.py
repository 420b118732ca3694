"""What was followed, frame by frame, into files and tables as it is found; nothing but numbers is kept of a frame."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from medssl.data.sequence import Frames
from medssl.data.video_writing import write_video
from medssl.evaluation.tables import write_table
from medssl.object_tracking.followers import Followed
from medssl.object_tracking.given import Given, Objects
from medssl.object_tracking.mask_files import load_mask, mask_path, write_mask, write_nifti
from medssl.object_tracking.pictures import enlarged, painted, pointed, with_note
from medssl.object_tracking.seen import frames_from

MASKS, POINTS, CONFIDENCE = "masks", "points.csv", "confidence.csv"

_MOSTLY = 0.5  # share of an object that is hidden, from which on it counts as hidden
_RATES = (5.0, 60.0)  # of the overlay, frames per second
_UNKNOWN_RATE = 10.0


@dataclass
class Results:
    """Takes what becomes of objects or points in each frame.

    Args:
        out: Folder of the results.
        given: What is followed.
        times: When each frame is shown, seconds; NaN where that is not known.

    Attributes:
        damaged: Frames that cannot be decoded, in the order in which they came.
    """

    out: Path
    given: Given
    times: NDArray[np.float64]
    damaged: list[int] = field(default_factory=list)
    _rows: dict[int, NDArray[np.float64]] = field(default_factory=dict)

    def add(self, followed: Followed) -> None:
        """Write a frame's mask, and remember its numbers."""
        told = [followed.confidence, followed.similarity, followed.hidden]
        if not followed.whole:
            self.damaged.append(followed.frame)
        if isinstance(self.given, Objects):
            write_mask(mask_path(self.out / MASKS, followed.frame), followed.found)
            areas = np.bincount(followed.found.ravel(), minlength=256)[list(self.given.ids)]
            rows = np.stack([*told, areas], axis=1).astype(np.float64)
            self._rows[followed.frame] = rows[np.isin(self.given.ids, self.given.followed(followed.frame))]
        else:
            self._rows[followed.frame] = np.column_stack([*told, followed.found]).astype(np.float64)

    def table(self) -> pd.DataFrame:
        """A row per frame and object or point that is followed in it, in order of frame.

        Returns:
            Columns frame, time, object (a point's: name), confidence, similarity, hidden; of objects also hidden_share
            and area_px, and hidden where most is, or nothing is found; of points also x and y, pixels.
        """
        frames = sorted(self._rows)
        values = np.concatenate([self._rows[frame] for frame in frames])
        repeated = np.repeat(frames, [len(self._rows[frame]) for frame in frames])
        table = pd.DataFrame({"frame": repeated, "time": self.times[repeated]})
        if isinstance(self.given, Objects):
            table["object"] = [thing for frame in frames for thing in self.given.followed(frame)]
            table[["confidence", "similarity", "hidden_share", "area_px"]] = values
            table["hidden"] = ~(table["hidden_share"] < _MOSTLY) | (table["area_px"] == 0)
            return table.astype({"area_px": int})
        table["name"] = list(self.given.names) * len(frames)
        table[["x", "y", "confidence", "similarity"]] = values[:, [3, 4, 0, 1]]
        table["hidden"] = ~(values[:, 2] < _MOSTLY)
        return table

    def save(self) -> pd.DataFrame:
        """Write the table, and return it."""
        table = self.table()
        write_table(self.out / (CONFIDENCE if isinstance(self.given, Objects) else POINTS), table)
        return table


def write_overlay(frames: Frames, out: Path, given: Given, table: pd.DataFrame) -> None:
    """Write ``overlay.mp4``, from what was written before: every frame with what was followed drawn in.

    Raises:
        InputError: PyAV is missing, or the disk is full.
    """
    by_frame = {int(str(frame)): rows for frame, rows in table.groupby("frame")}

    def pictures() -> Iterator[NDArray[np.uint8]]:
        seen = frames_from(frames, 0, len(frames) - 1)
        for one in tqdm(seen, desc="Overlay", unit="frame", total=len(frames), disable=None):
            rows = by_frame.get(one.frame)
            yield drawn(one.picture, one.frame, given, rows, out)

    write_video(out / "overlay.mp4", pictures(), _rate(frames.times))


def drawn(
    picture: NDArray[np.uint8], index: int, given: Given, rows: pd.DataFrame | None, out: Path
) -> NDArray[np.uint8]:
    """Draw a frame of the overlay.

    Args:
        picture: The frame, (H, W, 3).
        index: Its number.
        given: What is followed.
        rows: Of ``Results.table``, of this frame; ``None`` where nothing was followed.
        out: Folder of the results.
    """
    hidden = [] if rows is None else rows.loc[rows["hidden"], "object" if "object" in rows else "name"].tolist()
    note = f"frame {index}" + (f", hidden: {', '.join(map(str, hidden))}" if hidden else "")
    if isinstance(given, Objects):
        mask = load_mask(out / MASKS, index, given.mask.shape)
        large, times = enlarged(picture)
        return with_note(painted(large, np.repeat(np.repeat(mask, times, 0), times, 1)), note)
    large, times = enlarged(picture)
    if rows is not None:
        places = (rows[["x", "y"]].to_numpy(dtype=np.float64) + 0.5) * times - 0.5
        large = pointed(large, places, given.names, rows["hidden"].to_numpy(dtype=bool))
    return with_note(large, note)


def write_mask_volume(out: Path, given: Objects, times: NDArray[np.float64]) -> None:
    """Write ``masks.nii.gz`` from the masks that were written; frames without one are 0."""
    height, width = given.mask.shape
    masks = (load_mask(out / MASKS, index, (height, width)) for index in range(len(times)))
    write_nifti(out / "masks.nii.gz", masks, len(times), (height, width), step_s(times))


def step_s(times: NDArray[np.float64]) -> float | None:
    """Seconds from frame to frame, the median; ``None`` where it is not known."""
    steps = np.diff(times)
    known = steps[np.isfinite(steps) & (steps > 0)]
    return float(np.median(known)) if len(known) else None


def _rate(times: NDArray[np.float64]) -> float:
    """Frames per second, so that the overlay takes as long as the recording did."""
    step = step_s(times)
    return _UNKNOWN_RATE if step is None else float(np.clip(1 / step, *_RATES))
