"""Score segmentations, per structure and per scan, once, on the grid of the reference labels.

The rules for structures that one side lacks are those of ``medssl.metrics``; what a table of scores says is worked out
in ``medssl.evaluation.tables``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from numpy.typing import NDArray
from tqdm.auto import tqdm

from medssl import metrics
from medssl.data.volumes import Volume, read_labels
from medssl.errors import InputError
from medssl.evaluation.tables import COLUMNS, summary, write_table
from medssl.labels.lut import LabelSet
from medssl.labels.protocols import Protocol, protocol

PREDICTION_GLOB = "*_dseg.nii.gz"
_SAME_GRID_MM = 1e-3  # headers round; a real shift is a large part of a voxel


@dataclass(frozen=True)
class Pair:
    """One scan's labels from a model and from whoever is trusted more; the subject groups scans of one person."""

    scan: str
    subject: str
    prediction: Path
    reference: Path


@dataclass(frozen=True)
class Evaluation:
    """The long table of scores, and the scans that have none: scan and reason."""

    scores: pd.DataFrame
    refused: pd.DataFrame

    def write(self, folder: Path) -> None:
        """Write ``scores.csv``, ``summary.csv`` and, always, ``refused.csv`` (empty where every scan was scored)."""
        write_table(folder / "scores.csv", self.scores)
        write_table(folder / "summary.csv", summary(self.scores))
        write_table(folder / "refused.csv", self.refused)


def score_labels(
    prediction: NDArray[np.integer[Any]],
    reference: NDArray[np.integer[Any]],
    spacing_mm: Sequence[float],
    label_set: LabelSet,
    *,
    scan: str,
    subject: str | None = None,
    tolerance_mm: float = 1.0,
) -> pd.DataFrame:
    """Score one scan's label map, every structure in one row.

    Args:
        prediction: Class indices of the label set, (*spatial).
        reference: The same, on the same grid.
        spacing_mm: Size of a voxel along each axis.
        label_set: Names the structures.
        scan: Name of the scan.
        subject: Whose scan it is; without it the scan is its own subject.
        tolerance_mm: For the surface Dice.

    Returns:
        A table with ``medssl.evaluation.tables.COLUMNS``, one row per structure, the background left out. Volumes are
        counts of voxels times their size. ``truncated`` says that the predicted structure reaches the volume's edge.

    Raises:
        InputError: The grids differ, or an array does not hold class indices of the label set.
    """
    classes = label_set.classes
    counts = metrics.confusion(prediction, reference, classes)
    surfaces = metrics.surface_scores(prediction, reference, classes, spacing_mm, tolerance_mm)
    predicted, actual = counts.sum(axis=0), counts.sum(axis=1)
    voxel_mm3 = float(np.prod(spacing_mm))
    columns = {
        "dice": metrics.dice_from_confusion(counts),
        **surfaces._asdict(),
        "volume_similarity": metrics.volume_similarity_from_confusion(counts),
        "volume_mm3": predicted * voxel_mm3,
        "reference_volume_mm3": actual * voxel_mm3,
        "missed": (actual > 0) & (predicted == 0),
        "hallucinated": (actual == 0) & (predicted > 0),
        "absent": (actual == 0) & (predicted == 0),
        "truncated": metrics.touches_border(prediction, classes),
    }
    table = pd.DataFrame({name: values[1:] for name, values in columns.items()})
    named = {"subject": subject or scan, "scan": scan, "structure": label_set.names, "id": label_set.ids}
    return table.assign(**named)[list(COLUMNS)]


def evaluate_folders(
    predictions: Path,
    references: Path,
    reference_protocol: Protocol,
    out: Path,
    reference_glob: str,
    prediction_glob: str = PREDICTION_GLOB,
    tolerance_mm: float = 1.0,
    jobs: int = -1,
) -> Evaluation:
    """Score a folder of predictions against a folder of references, paired by name, and write the tables to ``out``.

    Args:
        predictions: Holds one label file per scan, as ``medssl predict`` writes them.
        references: Holds the reference labels; a SUBJECTS_DIR works too, with ``*/mri/aseg.mgz``.
        reference_protocol: How the reference's ids become the classes of its target label set, whose ids the
            predictions hold.
        out: Gets ``scores.csv``, ``summary.csv`` and ``refused.csv``.
        reference_glob: Which files of ``references`` are labels; what its ``*`` stands for is the scan's name.
        prediction_glob: The same for ``predictions``.
        tolerance_mm: For the surface Dice.
        jobs: Scans scored at a time; -1 for one per core.

    Raises:
        InputError: No file fits, or not one scan could be scored.
    """
    pairs, alone = pair_by_name(predictions, references, reference_glob, prediction_glob)
    evaluation = evaluate_pairs(pairs, reference_protocol, tolerance_mm, jobs)
    evaluation = Evaluation(evaluation.scores, pd.concat([evaluation.refused, alone], ignore_index=True))
    evaluation.write(out)
    return evaluation


def evaluate_pairs(
    pairs: Sequence[Pair], reference_protocol: Protocol, tolerance_mm: float = 1.0, jobs: int = -1
) -> Evaluation:
    """Score pairs of label files in parallel; a pair that cannot be scored is listed and the others go on.

    Raises:
        InputError: Not one pair could be scored.
    """
    work = Parallel(n_jobs=jobs, return_as="generator")(
        delayed(_score_or_reason)(pair, reference_protocol, tolerance_mm) for pair in pairs
    )
    results = list(tqdm(work, total=len(pairs), desc="scoring", unit="scan", disable=None))
    tables = [result for result in results if isinstance(result, pd.DataFrame)]
    refused = [(pair.scan, result) for pair, result in zip(pairs, results, strict=True) if isinstance(result, str)]
    if not tables:
        reasons = "\n".join(f"  {reason}" for _, reason in refused)
        raise InputError(f"Not one of {len(pairs)} scans could be scored:\n{reasons}")
    return Evaluation(pd.concat(tables, ignore_index=True), pd.DataFrame(refused, columns=["scan", "reason"]))


def pair_by_name(
    predictions: Path, references: Path, reference_glob: str, prediction_glob: str = PREDICTION_GLOB
) -> tuple[list[Pair], pd.DataFrame]:
    """Pair label files of two folders whose names agree.

    The name of a file is what the glob's ``*`` stands for. A prediction is paired with the reference of its own name,
    else with the longest name that it begins with ("1000_T1w" with "1000"). The reference's name is the subject, or
    the "sub-..." that it begins with where it is a BIDS name.

    Returns:
        The pairs, and a table of the predictions and references that have no partner: scan and reason.

    Raises:
        InputError: A glob does not hold one ``*``, or no file fits it.
    """
    predicted, actual = _by_name(predictions, prediction_glob), _by_name(references, reference_glob)
    pairs: list[Pair] = []
    alone: list[tuple[str, str]] = []
    for name, path in predicted.items():
        partner = _partner(name, actual)
        if partner is None:
            alone.append((name, f"{path}: no reference '{reference_glob}' in {references} has its name."))
        else:
            pairs.append(Pair(name, _subject(partner), path, actual[partner]))
    used = {pair.reference for pair in pairs}
    alone += [
        (name, f"{path}: no prediction '{prediction_glob}' in {predictions} has its name.")
        for name, path in actual.items()
        if path not in used
    ]
    return pairs, pd.DataFrame(alone, columns=["scan", "reason"])


def _score_or_reason(pair: Pair, reference_protocol: Protocol, tolerance_mm: float) -> pd.DataFrame | str:
    try:
        prediction, reference = read_labels(pair.prediction), read_labels(pair.reference)
        _require_one_grid(prediction, reference, pair)
        label_set = reference_protocol.target
        return score_labels(
            protocol("same", label_set).apply(prediction.data, str(pair.prediction)),
            reference_protocol.apply(reference.data, str(pair.reference)),
            reference.spacing_mm,
            label_set,
            scan=pair.scan,
            subject=pair.subject,
            tolerance_mm=tolerance_mm,
        )
    except InputError as error:
        return str(error)


def _require_one_grid(prediction: Volume, reference: Volume, pair: Pair) -> None:
    if prediction.data.shape != reference.data.shape:
        arrived, expected = ("x".join(map(str, volume.data.shape)) for volume in (prediction, reference))
        difference = f"has {arrived} voxels, the reference {pair.reference.name} {expected}"
    elif not np.allclose(prediction.affine, reference.affine, atol=_SAME_GRID_MM):
        difference = f"lies elsewhere in space than the reference {pair.reference.name} (their affines differ)"
    else:
        return
    raise InputError(
        f"{pair.prediction}: {difference}; scores need both on one grid. Predict the scan that the reference was drawn "
        "on, or resample the labels to the reference first (nearest neighbour)."
    )


def _by_name(folder: Path, pattern: str) -> dict[str, Path]:
    before, star, after = pattern.partition("*")
    if not star or "*" in after:
        raise InputError(f"'{pattern}': the pattern must hold one '*', which stands for the name of the scan.")
    paths = sorted(folder.glob(pattern))
    if not paths:
        raise InputError(f"{folder}: no file fits '{pattern}'.")
    return {path.relative_to(folder).as_posix()[len(before) :].removesuffix(after): path for path in paths}


def _partner(name: str, candidates: dict[str, Path]) -> str | None:
    if name in candidates:
        return name
    beginnings = [other for other in candidates if name.startswith(other) and not name[len(other)].isalnum()]
    return max(beginnings, key=len, default=None)


def _subject(name: str) -> str:
    return name.split("_")[0] if name.startswith("sub-") else name
