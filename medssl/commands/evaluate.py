"""``medssl evaluate``: label maps and references in, one long table of scores out."""

from pathlib import Path

from medssl.comparison import log_scores
from medssl.evaluation.printing import arms_cells, rich_table, show
from medssl.evaluation.segmentation import PREDICTION_GLOB, evaluate_folders
from medssl.labels.lut import label_set as find_label_set
from medssl.labels.protocols import protocol
from medssl.tracking import open_tracker


def evaluate(
    predictions: Path,
    references: Path,
    out: Path,
    *,
    reference_glob: str = "*_labels.nii.gz",
    prediction_glob: str = PREDICTION_GLOB,
    reading: str = "same",
    label_set: str = "freesurfer-27",
    tolerance_mm: float = 1.0,
    name: str | None = None,
    jobs: int = -1,
) -> None:
    """Score label maps against references: Dice, HD95, ASSD, surface Dice, volumes, per structure and scan.

    A structure that one of the two lacks scores 0 (HD95: the diagonal); one that both lack is counted, not averaged.

    Args:
        predictions: Folder of what ``medssl predict`` wrote; ids are the label set's own.
        references: Folder of the references.
        out: Folder of scores.csv, summary.csv and refused.csv, and of the MLflow store.
        reference_glob: Which files are references; '*' is the scan's name.
        prediction_glob: Which files are predictions.
        reading: How the numbers in the references are read: same, aseg, aparc+aseg, or neuromorphometrics.
        label_set: The structures to score.
        tolerance_mm: Of the surface Dice.
        name: Of the MLflow run; by default that of the predictions' folder.
        jobs: Processes; -1 is one per core.
    """
    evaluation = evaluate_folders(
        predictions,
        references,
        protocol(reading, find_label_set(label_set)),
        out,
        reference_glob,
        prediction_glob,
        tolerance_mm,
        jobs,
    )
    name = name or predictions.resolve().name
    with open_tracker(out, "evaluate").run(name) as run:
        log_scores(evaluation.scores, run)
    notes = [f"{row.scan}: {row.reason}" for row in evaluation.refused.itertuples()]
    show(rich_table(arms_cells({name: evaluation.scores}), "Dice, mean ± sd over subjects", notes))
    print(f"Scores: {out / 'scores.csv'}\nMLflow run: {run.run_id}")
