"""Methods that learn to find things again, and simpler ways, followed and scored on the same recordings, each once."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from medssl.clip_stage import ClipPlan
from medssl.errors import InputError
from medssl.evaluation.tables import write_table
from medssl.files import read_json, write_aside, write_json
from medssl.methods import VIDEO
from medssl.object_tracking.comparison import Comparison, Found, compare, comparison_picture, frames_to_show
from medssl.object_tracking.followers import Follower
from medssl.object_tracking.mask_files import load_mask, mask_path, write_mask
from medssl.object_tracking.masked_recordings import MaskedRecording
from medssl.stages import stage
from medssl.tracking import hashed
from medssl.video_method import CorrespondenceMethod

TRACKERS = tuple(sorted(name for name, method in VIDEO.items() if issubclass(method, CorrespondenceMethod)))

_ROWS, _REFUSED, _SHOWN = "scores.parquet", "refused.json", "shown"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrackingPlan(ClipPlan):
    """Methods of correspondence that are compared."""

    def __post_init__(self) -> None:
        """Refuse methods that do not find things again, see ``require``."""
        self.require(TRACKERS, "does not find things again")


@dataclass(frozen=True)
class Scored:
    """How some ways to follow did.

    Attributes:
        folder: Where it is kept.
        rows: Of all recordings; see ``medssl.object_tracking.truth.judge``.
        refused: Recordings that could not be scored, and why.
    """

    folder: Path
    rows: pd.DataFrame
    refused: dict[str, str]

    def shown(self, recording: MaskedRecording) -> dict[str, Found]:
        """What each way found in some frames of a recording."""
        if recording.name in self.refused:
            return {}
        frames, truth, first, _ = recording.opened()
        at = frames_to_show(truth, first, both=False)
        place = self.folder / _SHOWN / recording.name
        return {name: {t: load_mask(place / name, t, frames.size) for t in at} for name in self.rows["method"].unique()}


def score_once(
    folder: Path, ways: Mapping[str, Follower], recordings: Sequence[MaskedRecording], inputs: Any
) -> Scored:
    """Follow and score on each recording, unless that was done with the same inputs.

    One recording that cannot be scored stops no other.

    Args:
        folder: Of these ways alone.
        ways: By name.
        recordings: With masks.
        inputs: All that the result depends on beside the recordings, as JSON takes it.

    Raises:
        InputError: No recording could be scored.
    """

    def work(into: Path) -> None:
        tables, refused = [], {}
        for one in tqdm(recordings, desc="Scoring", unit="recording", disable=None):
            try:
                tables.append(_scored(ways, one, into))
            except InputError as error:
                logger.warning("%s: left out: %s", one.name, error)
                refused[one.name] = str(error)
        if not tables:
            raise InputError("None of the recordings could be scored:\n  " + "\n  ".join(refused.values()))
        rows = pd.concat(tables, ignore_index=True)
        write_table(into / "scores.csv", rows)
        with write_aside(into / _ROWS) as aside:
            rows.to_parquet(aside, index=False)
        write_json(into / _REFUSED, refused)

    stage(folder, [inputs, [(one.name, one.identity()) for one in recordings]], work)
    return Scored(folder, pd.read_parquet(folder / _ROWS), read_json(folder / _REFUSED))


def strips(scored: Sequence[Scored], recordings: Sequence[MaskedRecording], folder: Path) -> Iterator[Path]:
    """Draw the truth and what each way found, a picture for each recording."""
    for one in recordings:
        shown = {name: found for some in scored for name, found in some.shown(one).items()}
        if shown:
            frames, truth, _, given = one.opened()
            path = folder / f"{hashed(one.name)}.png"  # is tracked
            comparison_picture(Comparison(pd.DataFrame(), shown), frames, given, truth, path)
            yield path


def _scored(ways: Mapping[str, Follower], recording: MaskedRecording, folder: Path) -> pd.DataFrame:
    """Score one recording, and keep the masks that will be shown."""
    frames, truth, first, given = recording.opened()
    found = compare({**ways}, frames, given, truth, first, False, recording.name)
    for name, masks in found.shown.items():
        for t, mask in masks.items():
            write_mask(mask_path(folder / _SHOWN / recording.name / name, t), mask)
    return found.rows
