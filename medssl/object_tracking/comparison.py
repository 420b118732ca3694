"""Several ways to follow the same things, scored on the same frames and shown side by side."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medssl.data.sequence import Frames
from medssl.evaluation.clips import spread
from medssl.evaluation.tracking import scored_frames, tracking_summary
from medssl.object_tracking.followers import Followed, Follower
from medssl.object_tracking.given import Given, Objects, read_mask
from medssl.object_tracking.pictures import painted, pointed, strip_picture
from medssl.object_tracking.truth import Truth, follow_both_ways, judge, scores_of

STAYING, FLOW, RANDOM = "nothing moves", "optical flow", "random weights"

_SHOWN = 4  # frames of a strip
_TRUTH = "truth"

Found = dict[int, NDArray[Any]]  # by frame: a mask or places of points


@dataclass(frozen=True)
class Comparison:
    """How ways to follow did on one recording.

    Attributes:
        rows: See ``medssl.object_tracking.truth.judge``, with the columns method and recording.
        shown: What each way found in some frames.
    """

    rows: pd.DataFrame
    shown: Mapping[str, Found]


def compare(
    ways: Mapping[str, Follower | Iterator[Followed]],
    frames: Frames,
    given: Given,
    truth: Truth,
    first: int,
    both: bool,
    recording: str,
) -> Comparison:
    """Follow each way as far as something is known, and score it.

    Args:
        ways: By name; or what was followed already.
        frames: Of the recording.
        given: Of frame ``first``.
        truth: Of some frames.
        first: The frame whose labels are given.
        both: Whether to follow backwards too.
        recording: Its name.

    Raises:
        InputError: The truth does not fit, see ``judge``.
    """
    at, tables = frames_to_show(truth, first, both), []
    shown: dict[str, Found] = {}
    for name, way in ways.items():
        followed = way if isinstance(way, Iterator) else follow_both_ways(way, frames, given, first, both, truth.frames)
        shown[name] = {}
        watched = _watched(followed, set(at), shown[name])
        tables.append(judge(watched, given, truth, first, method=name, recording=recording))
    return Comparison(pd.concat(tables, ignore_index=True), shown)


def frames_to_show(truth: Truth, first: int, both: bool) -> list[int]:
    """Some frames whose truth is known, spread over those that are followed."""
    known = [index for index in scored_frames(truth.frames, first) if both or index > first]
    return [known[place] for place in spread(len(known), _SHOWN)]


def table_of(rows: pd.DataFrame, given: Given) -> pd.DataFrame:
    """A row per way: the mean and standard deviation over objects of each score."""
    return tracking_summary(rows, scores_of(given))


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """The table with "mean ± sd" in one column per score, for a page."""
    shown = table[["method", "objects"]].copy()
    for mean in (column for column in table if str(column).endswith("_mean")):
        score = str(mean).removesuffix("_mean")
        shown[score] = [
            f"{value:.3f}" + (f" ± {sd:.3f}" if np.isfinite(sd) else "")
            for value, sd in zip(table[mean], table[f"{score}_sd"], strict=True)
        ]
    return shown


def comparison_picture(comparison: Comparison, frames: Frames, given: Given, truth: Truth, path: Path) -> None:
    """Draw the truth and what each way found, below each other."""
    at = sorted(next(iter(comparison.shown.values())))
    pictures = dict(zip(at, frames.read(at), strict=True))
    rows = {name: [_drawn(pictures[t], found[t], given) for t in at] for name, found in comparison.shown.items()}
    if isinstance(given, Objects):
        known = {t: read_mask(truth.masks[t], frames.size) for t in at}
        followed = {t: np.where(np.isin(mask, given.ids), mask, 0).astype(np.uint8) for t, mask in known.items()}
        rows = {_TRUTH: [_drawn(pictures[t], followed[t], given) for t in at], **rows}
    strip_picture(rows, [f"frame {t}" for t in at], path)


def verdict(table: pd.DataFrame, method: str) -> list[str]:
    """Say how one way compares with each of the others."""
    score = next(str(column) for column in reversed(_means(table)) if "distance" not in str(column))
    values = table.set_index("method")[score]
    named = score.removesuffix("_mean").replace("j_and_f", "J&F").replace("pck_", "PCK at ")
    said = [f"{named} of {method}: {values[method]:.3f}."]
    for other in values.index.drop(method):
        more = values[method] - values[other]
        how = f"{more:.3f} more than" if more > 0 else f"{-more:.3f} less than" if more < 0 else "the same as"
        said.append(f"That is {how} '{other}' ({values[other]:.3f}).")
    return said


def _means(table: pd.DataFrame) -> Sequence[Any]:
    return [column for column in table if str(column).endswith("_mean")]


def _watched(followed: Iterator[Followed], at: set[int], found: Found) -> Iterator[Followed]:
    """Keep what was found in some frames on the way."""
    for one in followed:
        if one.frame in at:
            found[one.frame] = one.found
        yield one


def _drawn(picture: NDArray[np.uint8], found: NDArray[Any], given: Given) -> NDArray[np.uint8]:
    if isinstance(given, Objects):
        return painted(picture, found)
    return pointed(picture, found, given.names, np.zeros(len(found), dtype=bool))
