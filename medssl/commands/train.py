"""``medssl train``: a prepared dataset in, a model folder out."""

from pathlib import Path
from typing import Any

from medssl.data.prepared import PreparedDataset
from medssl.data.splits import load_split, save_split, split_subjects
from medssl.methods.segmentation import Boosting
from medssl.report.curves import ecb_picture, losses_picture
from medssl.tracking import hashed, open_tracker, ui_command
from medssl.train_segmentation import Recipe, train_segmentation


def train(
    data: Path,
    out: Path,
    *,
    steps: int = 1500,
    split: Path | None = None,
    validation_count: int = 2,
    network: str = "unet",
    network_arguments: dict[str, Any] | None = None,
    weights: str | None = None,
    minimum_coverage: float = 0.9,
    recipe: Recipe = Recipe(),
    boosting: Boosting | None = None,
    seed: int = 0,
) -> None:
    """Train a segmentation network; started again with the same arguments it goes on where it was stopped.

    Args:
        data: What ``medssl prepare`` wrote.
        out: Folder of the training: model, history.csv, pictures and the MLflow store.
        steps: Optimiser steps.
        split: A JSON file {"train": [...], "validation": [...]} of subjects; by default validation subjects are drawn.
        validation_count: How many are drawn; 0 trains on all, without validation.
        network: Name of the network, see ``medssl networks``.
        network_arguments: Its own arguments.
        weights: A model folder or MLflow URI to start from.
        minimum_coverage: Least share of the network that ``weights`` must fill.
        recipe: How it is trained.
        boosting: Error-corrective boosting by the validation scans; '{}' boosts with the paper's constants.
        seed: Of the weights, the crops and the augmentation.
    """
    prepared = PreparedDataset(data)
    subjects = sorted(set(prepared.subjects))
    if split is not None:
        parts = load_split(split)
    elif validation_count:
        counts = {"validation": validation_count, "train": max(1, len(subjects) - validation_count)}
        parts = split_subjects(subjects, counts, seed)
    else:
        parts = {"train": tuple(subjects)}
    save_split(out / "split.json", parts)
    validation = prepared.select(parts["validation"]) if parts.get("validation") else None
    tracker = open_tracker(out, "train")
    with tracker.run(out.name) as run:
        run.log_params(
            {
                "data": prepared.fingerprint,
                "steps": steps,
                "network": network,
                "network_arguments": network_arguments or {},
                "recipe": vars(recipe),
                "boosting": vars(boosting) if boosting else None,
                "seed": seed,
                "split": {name: " ".join(map(hashed, members)) for name, members in parts.items()},
            }
        )
        history = train_segmentation(
            prepared.select(parts["train"]),
            validation,
            out,
            steps=steps,
            network=network,
            network_arguments=network_arguments,
            recipe=recipe,
            boosting=boosting,
            weights=weights,
            minimum_coverage=minimum_coverage,
            seed=seed,
            log=run.log_metrics,
            origin={"run_id": run.run_id, "seed": seed},
        )
        losses_picture(history, out / "pictures" / "training.png")
        if boosting is not None:
            ecb_picture(history, out / "pictures" / "boosting.png", boosting.accuracy)
        run.log_folder(out / "pictures", "pictures")
        run.log_folder(out / "model", "model")
    if "dice/mean" in history:
        print(f"Validation Dice after the last epoch: {history['dice/mean'].iloc[-1]:.3f}")
    print(f"Model: {out / 'model'}\nPictures: {out / 'pictures'}\nMLflow: {ui_command(out)}")
