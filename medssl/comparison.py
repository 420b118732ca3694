"""Arms side by side: tables with statistics, pictures, a page, and the same in MLflow."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from shutil import copy
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import torch

from medssl.anonymity import without_names
from medssl.data.catalog import Scan
from medssl.errors import InputError
from medssl.evaluation.printing import arms_cells, comparison_cells
from medssl.evaluation.segmentation import Pair, evaluate_pairs
from medssl.evaluation.statistics import Comparison, compare
from medssl.evaluation.tables import OVERALL, summary, write_table
from medssl.inference import predict
from medssl.labels.lut import LabelSet, Structure
from medssl.labels.protocols import Protocol
from medssl.model import load_model
from medssl.report.charts import arms_picture, dice_boxplot
from medssl.report.page import Section, html_report
from medssl.report.scans import qc_picture
from medssl.tracking import RunLike, find_run, hashed, load_table
from medssl.training import use_bf16

SCORES_TABLE = "scores"
"""Under this name a run keeps its long table of scores."""


def log_scores(table: pd.DataFrame, run: RunLike, step: int = 0) -> None:
    """Record a long table of scores with names hashed, and its means as ``dice/mean``, ``dice/<structure>``, ..."""
    metrics: dict[str, float] = {}
    for row in summary(table).to_dict("records"):
        name = "mean" if row["structure"] == OVERALL else row["structure"]
        metrics[f"dice/{name}"], metrics[f"hd95/{name}"] = row["dice_mean"], row["hd95_mm_mean"]
        metrics[f"missed/{name}"] = row["n_missed"]
        if name == "mean":
            metrics |= {"assd/mean": row["assd_mm_mean"], "surface_dice/mean": row["surface_dice_mean"]}
    run.log_metrics({name: value for name, value in metrics.items() if value == value}, step)
    run.log_table(without_names(table), SCORES_TABLE)


def load_scores(runs: Sequence[str], uri: str) -> dict[str, pd.DataFrame]:
    """Read the tables of scores of MLflow runs, by the runs' names; runs of one name (seeds) become one table.

    Raises:
        InputError: A run is not there, or has no table of scores.
    """
    tables: dict[str, list[pd.DataFrame]] = {}
    for run in runs:
        tables.setdefault(find_run(uri, run).name, []).append(load_table(uri, run, SCORES_TABLE))
    return {name: pd.concat(of_name, ignore_index=True) for name, of_name in tables.items()}


def predict_and_score(model: Path, scans: Sequence[Scan], reading: Protocol, out: Path, run: RunLike) -> pd.DataFrame:
    """Segment labelled scans, score them on the reference's own grid, log both; returns the long table of scores.

    Args:
        model: The model's folder.
        scans: With their label maps.
        reading: How the numbers of the label maps are read.
        out: Folder of the predictions, their pictures and the scores; what was made by the same model is kept.
        run: Where the scores are logged.

    Raises:
        InputError: A scan cannot be segmented or scored: a comparison without it would be another comparison.
    """
    trained = load_model(model)
    predicted = predict(
        trained,
        scans,
        out,
        precision=torch.bfloat16 if use_bf16("auto") else torch.float32,
        resume=True,
        draw=_draw_anonymous,
    )
    pairs = [
        Pair(scan.name, scan.subject, out / f"{scan.name}_dseg.nii.gz", scan.label)
        for scan in scans
        if scan.label is not None
    ]
    evaluation = evaluate_pairs(pairs, reading)
    refused = pd.concat([predicted.refused, evaluation.refused])
    if len(refused):
        reasons = "\n".join(f"  {scan}: {reason}" for scan, reason in refused.itertuples(index=False))
        raise InputError(f"{model}: not all test scans could be scored:\n{reasons}")
    evaluation.write(out)
    log_scores(evaluation.scores, run)
    run.log_table(without_names(predicted.volumes), "volumes")
    with TemporaryDirectory() as folder:
        for scan in scans:
            copy(out / f"{scan.name}_qc.png", Path(folder) / f"{hashed(scan.name)}.png")
        run.log_folder(Path(folder), "pictures/test")
    return evaluation.scores


def compare_arms(
    tables: Mapping[str, pd.DataFrame],
    pairs: Sequence[tuple[str, str]],
    out: Path,
    run: RunLike,
    metric: str = "dice",
    sections: Sequence[Section] = (),
) -> list[Comparison]:
    """Compare arms and write it all down.

    Writes ``comparison.csv``, ``pictures/dice_boxplot.png``, ``pictures/arms.png`` and ``report.html`` to ``out``, and
    logs them.

    Args:
        tables: The long table of scores of each arm.
        pairs: Which to compare: (baseline, other).
        out: Folder of the results.
        run: Where they are logged.
        metric: The score that is compared.
        sections: Put at the end of the page.

    Raises:
        InputError: There are fewer than two arms, or a pair names one that is not there.
    """
    if len(tables) < 2:
        raise InputError(f"Comparing needs at least two runs with different names, got {', '.join(tables) or 'none'}.")
    unknown = sorted({name for pair in pairs for name in pair} - set(tables))
    if unknown:
        raise InputError(f"There is no run '{unknown[0]}' to compare; the runs are {', '.join(tables)}.")
    found = [compare(tables[a], tables[b], metric, (a, b)) for a, b in pairs]
    table = pd.concat([c.table.assign(baseline=c.baseline, other=c.other) for c in found], ignore_index=True)
    write_table(out / "comparison.csv", table)
    pictures = [out / "pictures" / "arms.png", out / "pictures" / "dice_boxplot.png"]
    arms_picture(tables, pictures[0])
    dice_boxplot(tables, pictures[1], structures_of(tables))
    page = [
        Section("All arms", f"Mean {metric} ± standard deviation over subjects.", arms_cells(tables, metric), pictures),
        *(Section(f"{c.other} against {c.baseline}", "\n\n".join(c.notes), comparison_cells(c)) for c in found),
        *sections,
    ]
    html_report("Comparison of segmentations", page, out / "report.html")
    run.log_table(table, "comparison")
    for picture in pictures:
        run.log_file(picture, "pictures")
    run.log_file(out / "report.html")
    return found


def _draw_anonymous(image: Any, labels: Any, label_set: LabelSet, path: Path, title: str = "", **more: Any) -> None:
    """Draw the picture to check under a hash of the scan's name, as it is in the tracked tables."""
    qc_picture(image, labels, label_set, path, hashed(title), **more)


def structures_of(tables: Mapping[str, pd.DataFrame]) -> LabelSet:
    """Return the structures that tables of scores speak of, in their order; the tables hold no colours, so grey."""
    rows = pd.concat(tables.values())[["id", "structure"]].drop_duplicates("structure")
    grey = (128, 128, 128)
    return LabelSet(
        "scored", tuple(Structure(int(i), str(n), grey) for i, n in zip(rows["id"], rows["structure"], strict=True))
    )
