"""``medssl compare``: MLflow runs in, statistics and pictures out."""

from pathlib import Path

from medssl.comparison import compare_arms, load_scores
from medssl.errors import InputError
from medssl.evaluation.printing import comparison_cells, rich_table, show
from medssl.tracking import open_tracker, tracking_uri


def compare(
    runs: list[str],
    store: Path,
    *,
    out: Path | None = None,
    baseline: str | None = None,
    metric: str = "dice",
) -> None:
    """Compare MLflow runs on the same subjects: mean ± sd, paired difference, 95 % interval, p corrected by Holm.

    Args:
        runs: Ids of runs that hold a table of scores. Runs of one name, such as seeds, count as one.
        store: The --out folder that the runs were tracked in; MLFLOW_TRACKING_URI takes its place where it is set.
        out: Folder of comparison.csv, report.html and pictures; by default comparison in the store's folder.
        baseline: Name of the run that the others are compared with; by default the first.
        metric: dice, hd95_mm, assd_mm, surface_dice or volume_similarity.
    """
    tables = load_scores(runs, tracking_uri(store))
    against = baseline or next(iter(tables))
    if against not in tables:
        raise InputError(f"There is no run '{against}' to compare with; the runs are {', '.join(tables)}.")
    out = out or store / "comparison"
    with open_tracker(store, "compare").run(f"{metric} against {against}") as run:
        found = compare_arms(tables, [(against, name) for name in tables if name != against], out, run, metric)
    for comparison in found:
        title = f"{comparison.other} against {comparison.baseline}"
        show(rich_table(comparison_cells(comparison), title, comparison.notes))
    print(f"Report: {out / 'report.html'}\nPictures: {out / 'pictures'}")
