"""``medssl train``: a prepared dataset in, a model folder out."""

from pathlib import Path
from typing import Any

from medssl.data.prepared import PreparedDataset
from medssl.data.splits import load_split, save_split, split_subjects
from medssl.methods.segmentation import Boosting
from medssl.pretrained import describe_encoder
from medssl.report.curves import ecb_picture, losses_picture
from medssl.start import Start
from medssl.tracking import hashed, open_tracker, ui_command
from medssl.train_segmentation import Recipe, train_segmentation


def train(
    data: Path,
    out: Path,
    *,
    steps: int = 1500,
    split: Path | None = None,
    validation_count: int = 2,
    network: str | None = None,
    network_arguments: dict[str, Any] | None = None,
    weights: str | None = None,
    encoder: str | None = None,
    minimum_coverage: float = 0.9,
    layer_decay: float = 1.0,
    frozen_encoder: bool = False,
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
        network: Name of the network, see ``medssl networks``; by default that of ``encoder``, with the arguments it was
            built with, or else unet.
        network_arguments: Its own arguments.
        weights: A model folder or MLflow URI to start from.
        encoder: A pretrained encoder's folder or MLflow URI to start from; not both.
        minimum_coverage: Least share of the network (of the encoder) that must be filled.
        layer_decay: The learning rate of each layer of the encoder is this times that of the layer above it.
        frozen_encoder: Train the decoder alone.
        recipe: How it is trained.
        boosting: Error-corrective boosting by the validation scans; '{}' boosts with the paper's constants.
        seed: Of the weights, the crops and the augmentation.
    """
    prepared = PreparedDataset(data)
    start = Start(weights, encoder, minimum_coverage, layer_decay, frozen_encoder)
    if network is None:
        network, network_arguments = _network_of(start, network_arguments)
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
                "start": vars(start),
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
            start=start,
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


def _network_of(start: Start, arguments: dict[str, Any] | None) -> tuple[str, dict[str, Any] | None]:
    """Name the network that a pretrained encoder fits, with the encoder's own arguments where none are given."""
    if start.encoder is None:
        return "unet", arguments
    told = describe_encoder(start.encoder)
    if "encoder" in told:
        return told["encoder"], told["encoder_arguments"] | (arguments or {})
    return told["network"], told["network_arguments"] | (arguments or {})
