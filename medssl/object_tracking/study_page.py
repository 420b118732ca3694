"""The page of a study of tracking: the verdict, scores over all and of each recording, pictures, trainings."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from medssl.anonymity import SHOWN_AS, without_names
from medssl.evaluation.tracking import TRACKING_SCORES, tracking_summary
from medssl.object_tracking.comparison import STAYING, readable, verdict
from medssl.report.page import Section, html_report

_TOLD = (
    "Each object counts alike: its frames are averaged, then the objects; ± is the standard deviation over objects. J "
    "is the overlap of regions, F the agreement of contours within 0.8 % of the picture's diagonal, as DAVIS has them; "
    "the frame whose mask is given is not scored. No method learnt from any mask."
)


def best_of(table: pd.DataFrame, methods: Sequence[str]) -> str:
    """The method with the largest J&F."""
    return str(table.set_index("method").loc[list(methods), "j_and_f_mean"].idxmax())


def study_verdict(table: pd.DataFrame, methods: Sequence[str]) -> list[str]:
    """Say how the best method did, and whether learning was worth it at all."""
    best = best_of(table, methods)
    scores = table.set_index("method")["j_and_f_mean"]
    rivals = scores.drop(list(methods))
    ahead = [name for name in rivals.index if scores[best] > rivals[name]]
    behind = [name for name in rivals.index if name not in ahead]
    words = []
    if ahead:
        words.append(f"better than {', '.join(ahead)}")
    if behind:
        words.append(f"no better than {', '.join(behind)}")
    first = f"{best} follows best of what was learnt: {' and '.join(words)}."
    if scores[best] <= rivals[STAYING]:
        first += " A copy of the first mask does as well: what was learnt is of no use here."
    return [first, *verdict(table, best)]


def write_page(
    rows: pd.DataFrame,
    methods: Sequence[str],
    trainings: Mapping[str, Path],
    pictures: Sequence[Path],
    left_out: int,
    path: Path,
) -> pd.DataFrame:
    """Write the page.

    Args:
        rows: Of all ways and recordings.
        methods: That were trained.
        trainings: Folder of each one's training.
        pictures: Of recordings, below each other.
        left_out: How many recordings could not be used.
        path: The page.

    Returns:
        The table of scores over all recordings.
    """
    table = tracking_summary(rows)
    each = rows.groupby(["recording", "object", "method"], sort=False)[list(TRACKING_SCORES)].mean().reset_index()
    losses = [folder / "pictures" / name for folder in trainings.values() for name in ("training.png", "clip.png")]
    html_report(
        "Tracking in video",
        [
            Section("Verdict", "\n\n".join(study_verdict(table, methods))),
            Section("Scores", _TOLD, readable(table)),
            Section("What was followed", "The truth above, and what each way made of the first mask.", None, pictures),
            Section("Each object", "Means over its frames.", without_names(each)),
            Section("Trainings", f"Of {', '.join(trainings)}, without any mask.", None, losses),
            Section("Left out", f"Recordings: {left_out}; the command says which, and why. {SHOWN_AS}"),
        ],
        path,
    )
    return table
