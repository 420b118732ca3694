"""``medssl train``: a prepared dataset in, the folder of a model, a classifier or a detector out."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from medssl.data.prepared import PreparedDataset
from medssl.data.splits import Split, load_split, save_split, split_subjects
from medssl.errors import InputError
from medssl.methods.segmentation import Boosting
from medssl.networks import encoder_parameters
from medssl.pretrained import describe_encoder
from medssl.report.curves import ecb_picture, losses_picture
from medssl.start import Start
from medssl.tracking import hashed, open_tracker, ui_command
from medssl.train_classification import train_classification
from medssl.train_detection import train_detection
from medssl.train_segmentation import Recipe, train_segmentation


@dataclass(frozen=True)
class _Task:
    """What a task trains with, the folder that it leaves, and the score that a user looks at first."""

    train: Callable[..., pd.DataFrame]
    folder: str
    score: str
    shown: str


_TASKS = {
    "segmentation": _Task(train_segmentation, "model", "dice/mean", "Dice"),
    "classification": _Task(train_classification, "classifier", "balanced_accuracy", "balanced accuracy"),
    "detection": _Task(train_detection, "detector", "ap50/mean", "average precision at IoU 0.5"),
}


def train(
    data: Path,
    out: Path,
    *,
    task: Literal["segmentation", "classification", "detection"] = "segmentation",
    steps: int = 1500,
    split: Path | None = None,
    validation_count: int = 2,
    network: str | None = None,
    network_arguments: dict[str, Any] | None = None,
    method_arguments: dict[str, Any] | None = None,
    weights: str | None = None,
    encoder: str | None = None,
    minimum_coverage: float = 0.9,
    layer_decay: float = 1.0,
    frozen_encoder: bool = False,
    recipe: Recipe = Recipe(),
    boosting: Boosting | None = None,
    seed: int = 0,
) -> None:
    """Train a network for a task; started again with the same arguments it goes on where it was stopped.

    Args:
        data: What ``medssl prepare`` wrote.
        out: Folder of the training: the model, classifier or detector, history.csv, pictures and the MLflow store.
        task: segmentation and detection (a box around each structure) learn from label maps, classification from the
            images' classes.
        steps: Optimiser steps.
        split: A JSON file {"train": [...], "validation": [...]} of subjects; by default validation subjects are drawn.
        validation_count: How many are drawn; 0 trains on all, without validation.
        network: Name of the network, see ``medssl networks``, whose encoder alone classifies and detects; by default
            that of ``encoder``, with the arguments it was built with, or else unet.
        network_arguments: Its own arguments; of its encoder, in classification and detection.
        method_arguments: Classification, detection: the method's own, such as '{label_smoothing: 0.1}'.
        weights: Segmentation: a model folder or MLflow URI to start from.
        encoder: A pretrained encoder's folder or MLflow URI to start from, or that of a model, a classifier or a
            detector, whose encoder alone is taken; not both.
        minimum_coverage: Least share of the network (of the encoder) that must be filled.
        layer_decay: The learning rate of each layer of the encoder is this times that of the layer above it.
        frozen_encoder: Train the decoder, or the head, alone.
        recipe: How it is trained.
        boosting: Segmentation: error-corrective boosting by the validation scans; '{}' boosts with the paper's
            constants.
        seed: Of the weights, the crops and the augmentation.
    """
    prepared = PreparedDataset(data)
    start = Start(weights, encoder, minimum_coverage, layer_decay, frozen_encoder)
    _refuse_others(task, method_arguments, weights, boosting)
    if task == "segmentation":
        if network is None:
            network, network_arguments = _network_of(start, network_arguments)
        own = {"network": network, "network_arguments": network_arguments, "boosting": boosting}
    else:
        network, network_arguments = _encoder_of(start, network, network_arguments)
        own = {"encoder": network, "encoder_arguments": network_arguments, "method_arguments": method_arguments}
    parts = _split(prepared, split, validation_count, seed)
    save_split(out / "split.json", parts)
    chosen, pictures = _TASKS[task], out / "pictures"
    tracker = open_tracker(out, "train")
    with tracker.run(out.name) as run:
        run.log_params(
            {
                "data": prepared.fingerprint,
                "task": task,
                "steps": steps,
                "network": network,
                "network_arguments": network_arguments or {},
                "method_arguments": method_arguments or {},
                "recipe": vars(recipe),
                "start": vars(start),
                "boosting": vars(boosting) if boosting else None,
                "seed": seed,
                "split": {name: " ".join(map(hashed, members)) for name, members in parts.items()},
            }
        )
        history = chosen.train(
            prepared.select(parts["train"]),
            prepared.select(parts["validation"]) if parts.get("validation") else None,
            out,
            steps=steps,
            recipe=recipe,
            start=start,
            seed=seed,
            log=run.log_metrics,
            origin={"run_id": run.run_id, "seed": seed},
            **own,
        )
        losses_picture(history, pictures / "training.png")
        if boosting is not None:
            ecb_picture(history, pictures / "boosting.png", boosting.accuracy)
        run.log_folder(pictures, "pictures")
        run.log_folder(out / chosen.folder, chosen.folder)
    if chosen.score in history:
        print(f"Validation {chosen.shown} after the last epoch: {history[chosen.score].iloc[-1]:.3f}")
    print(f"{chosen.folder.capitalize()}: {out / chosen.folder}\nPictures: {pictures}\nMLflow: {ui_command(out)}")


def _refuse_others(
    task: str, method_arguments: dict[str, Any] | None, weights: str | None, boosting: Boosting | None
) -> None:
    """Refuse options of another task."""
    others: dict[str, Any] = {"weights": weights, "boosting": boosting}
    if task == "segmentation":
        others = {"method_arguments": method_arguments}
    for name, value in others.items():
        if value is not None:
            instead = "; give --encoder, which takes a model's folder too" if name == "weights" else ""
            raise InputError(f"--{name} does not go with --task {task}: leave it out{instead}.")


def _split(prepared: PreparedDataset, split: Path | None, validation_count: int, seed: int) -> Split:
    subjects = sorted(set(prepared.subjects))
    if split is not None:
        return load_split(split)
    if validation_count:
        counts = {"validation": validation_count, "train": max(1, len(subjects) - validation_count)}
        return split_subjects(subjects, counts, seed)
    return {"train": tuple(subjects)}


def _network_of(start: Start, arguments: dict[str, Any] | None) -> tuple[str, dict[str, Any] | None]:
    """Name the network that a pretrained encoder fits, with the encoder's own arguments where none are given."""
    if start.encoder is None:
        return "unet", arguments
    told = describe_encoder(start.encoder)
    if "encoder" in told:
        return told["encoder"], told["encoder_arguments"] | (arguments or {})
    return told["network"], told["network_arguments"] | (arguments or {})


def _encoder_of(
    start: Start, network: str | None, arguments: dict[str, Any] | None
) -> tuple[str, dict[str, Any] | None]:
    """Name the encoder of a classifier or detector; without one to start from it has group normalisation.

    Instance normalisation gives each channel the same mean in every image, and leaves pooled features little to say.
    """
    if network is None and start.encoder is not None:
        network, arguments = _network_of(start, arguments)
        arguments = {name: value for name, value in (arguments or {}).items() if name in encoder_parameters(network)}
    network = network or "unet"
    if arguments is None and "norm" in encoder_parameters(network):
        arguments = {"norm": "group"}
    return network, arguments
