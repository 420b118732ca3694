"""Train one arm with a recipe and score it on the validation scans, on their own grids; never on test scans.

Run: python -m benchmarks.recipe MANUAL --steps 350 --recipe.learning_rate 0.05 --preparation.spacing_mm 1.5
With ``--weak SUBJECTS_DIR`` it trains on weak labels; with ``--start MODEL`` it goes on from a model. The split is that
of ``medssl run brain_segmentation`` with the same counts and seed.
"""

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jsonargparse import auto_cli

from medssl.comparison import predict_and_score
from medssl.data.catalog import catalog
from medssl.data.preparation import Preparation
from medssl.data.prepare import prepare
from medssl.data.splits import split_subjects
from medssl.evaluation.tables import OVERALL, summary
from medssl.labels.lut import label_set
from medssl.labels.protocols import protocol
from medssl.start import Start
from medssl.tracking import NullRun
from medssl.train_segmentation import Recipe, train_segmentation


def main(
    manual: Path,
    steps: int = 350,
    weak: Path | None = None,
    start: str | None = None,
    out: Path | None = None,
    recipe: Recipe = Recipe(),
    preparation: Preparation = Preparation(),
    network: str = "unet",
    network_arguments: dict[str, Any] | None = None,
    train_count: int = 8,
    seed: int = 0,
) -> None:
    """Train, score on the validation scans, print one line.

    Args:
        manual: Scans that a person labelled, with Neuromorphometrics' numbers.
        steps: Optimiser steps.
        weak: A SUBJECTS_DIR to train on instead.
        start: A model to start from.
        out: Where the model is kept; by default nowhere.
        recipe: What is tried.
        preparation: How the scans are prepared.
        network: Its name.
        network_arguments: Its own arguments.
        train_count: Manual scans to train on.
        seed: Of the training.
    """
    structures = label_set("freesurfer-27")
    reading = protocol("neuromorphometrics", structures)
    scans = {scan.name: scan for scan in catalog(manual)}
    subjects = sorted({scan.subject for scan in scans.values()})
    parts = split_subjects(subjects, {"test": 5, "validation": 2, "train": train_count}, 0)
    with TemporaryDirectory() as scratch:
        folder = out or Path(scratch)
        known = [scan for scan in scans.values() if scan.subject not in parts["test"]]
        data = prepare(known, folder / "manual", reading, preparation, labels_required=True).dataset()
        train = data.select(parts["train"])
        if weak is not None:
            weak_reading = protocol("aparc+aseg", structures)
            train = prepare(catalog(weak), folder / "weak", weak_reading, preparation, labels_required=True).dataset()
        begin = time.perf_counter()
        train_segmentation(
            train,
            None,
            folder / "training",
            steps=steps,
            network=network,
            network_arguments=network_arguments,
            recipe=recipe,
            start=Start(model=start),
            seed=seed,
        )
        minutes = (time.perf_counter() - begin) / 60
        tested = [scans[name] for name in data.select(parts["validation"]).scans]
        scores = predict_and_score(folder / "training" / "model", tested, reading, folder / "scored", NullRun())
    means = summary(scores).set_index("structure")["dice_mean"]
    worst = means.drop(OVERALL).nsmallest(5).mean()
    print(f"Dice {means[OVERALL]:.3f}, five worst {worst:.3f}, {minutes:.1f} minutes of training")


if __name__ == "__main__":
    auto_cli(main)
