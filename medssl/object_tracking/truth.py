"""Where things truly are in some frames, from files, and how ways to follow them compare there."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medssl.data.sequence import Frames
from medssl.errors import InputError
from medssl.evaluation.tracking import point_scores, points_scale, score_masks, score_points, scored_frames
from medssl.object_tracking.followers import Followed, Follower
from medssl.object_tracking.given import Given, Objects, Points, numbered_masks, read_mask, read_points
from medssl.object_tracking.seen import frames_from


@dataclass(frozen=True)
class Truth:
    """What is known of some frames.

    Attributes:
        source: What messages call it.
        masks: The file of each frame that has a mask.
        points: Points of some frames: frame, name, x, y, and maybe hidden; ``None`` where masks are known.
    """

    source: str
    masks: Mapping[int, Path]
    points: pd.DataFrame | None = None

    @property
    def frames(self) -> list[int]:
        """Those of which something is known, ascending."""
        return sorted(self.masks if self.points is None else set(self.points["frame"]))


def read_truth(path: Path, frames: Frames) -> Truth:
    """Read which frames have a truth.

    Args:
        path: A folder of masks that are named as the frame, or by its number; or a CSV of points with frame and hidden.
        frames: Of the video.

    Raises:
        InputError: There is none, or it is of frames that the video lacks.
    """
    if path.is_file():
        points = read_points(path)
        if "frame" not in points:
            raise InputError(f"{path}: lacks the column frame; a truth says where each point is in which frame.")
        return Truth(str(path), {}, points)
    return Truth(str(path), numbered_masks(path, frames))


def judge(followed: Iterator[Followed], given: Given, truth: Truth, first: int, **named: Any) -> pd.DataFrame:
    """Score what was followed in the frames whose truth is known, but for the first one.

    Objects that no mask of the truth shows but in the first frame are not scored: nobody marked them. Neither are those
    that are given in the frame, or are not followed there yet.

    Args:
        followed: Of all frames that are scored, and maybe more.
        given: What was followed.
        truth: Of some frames.
        first: The frame whose labels were given.
        **named: Further columns.

    Raises:
        InputError: The truth cannot be read, is of another size, or shows nothing of what was followed.
    """
    wanted, rows = set(scored_frames(truth.frames, first)), []
    marked = _marked(given, truth, first)
    for one in followed if marked else ():
        if one.frame not in wanted:
            continue
        if isinstance(given, Objects):
            known = read_mask(truth.masks[one.frame], one.found.shape)
            carried = [thing for thing in given.carried(one.frame) if thing in marked]
            rows += score_masks(one.found, known, carried, frame=one.frame, **named)
        else:
            scale = points_scale(given.places, given.picture)
            rows += score_points(
                one.found, _places(given, truth, one.frame), given.names, scale, frame=one.frame, **named
            )
    if not rows:
        raise InputError(
            f"{truth.source}: shows nothing of what is followed in any frame but the first that is followed; nothing "
            "can be scored. Objects keep their number, and points their name, through the video."
        )
    return pd.DataFrame(rows)


def follow_both_ways(
    follower: Follower, frames: Frames, given: Given, first: int, both: bool, known: list[int] | None = None
) -> Iterator[Followed]:
    """Follow from the first frame to the end, and then maybe back to the start; no farther than something is known.

    Yields:
        What becomes of it in each frame, the first one once.
    """
    last = len(frames) - 1 if known is None else max(known, default=first)
    start = 0 if known is None else min(known, default=first)
    yield from follower.follow(frames_from(frames, first, max(last, first)), given)
    if both and start < first:
        back = iter(follower.follow(frames_from(frames, first, start), given))
        next(back)
        yield from back


def scores_of(given: Given) -> tuple[str, ...]:
    """Names of the scores."""
    return ("j", "f", "j_and_f") if isinstance(given, Objects) else tuple(point_scores())


def _marked(given: Given, truth: Truth, first: int) -> list[int]:
    """Objects, or places of points in the list, that some frame but the first one marks."""
    others = scored_frames(truth.frames, first)
    if isinstance(given, Points):
        known = set() if truth.points is None else set(truth.points.loc[truth.points["frame"].isin(others), "name"])
        return [n for n, name in enumerate(given.names) if name in known]
    height, width = given.mask.shape
    seen: set[int] = set()
    for index in others if truth.points is None else ():
        seen |= set(np.unique(read_mask(truth.masks[index], (height, width))).tolist()) & set(given.carried(index))
        if seen.issuperset(given.ids):
            break
    return [thing for thing in given.ids if thing in seen]


def _places(given: Points, truth: Truth, index: int) -> NDArray[np.float64]:
    """Where the points are in a frame, (N, 2); NaN for those that are hidden or not marked."""
    if truth.points is None:
        return np.full((len(given.names), 2), np.nan)
    rows = truth.points[truth.points["frame"] == index].set_index("name")
    if "hidden" in rows:
        rows = rows[~rows["hidden"].astype(bool)]
    places: NDArray[np.float64] = rows.reindex(list(given.names))[["x", "y"]].to_numpy(dtype=np.float64)
    return places
