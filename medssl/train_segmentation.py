"""Train a segmentation network on prepared scans, from random or pretrained weights, and keep it as a model folder."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from medssl.augment import Augmentation
from medssl.data.crops import CropDataset
from medssl.data.prepared import PreparedDataset
from medssl.data.splits import check_no_leak
from medssl.errors import InputError
from medssl.evaluation.tables import write_table
from medssl.labels.lut import LabelSet
from medssl.memory import keep_freed_memory
from medssl.method import Method
from medssl.methods.segmentation import Boosting, Segmentation
from medssl.metrics import confusion, dice_from_confusion, recall_from_confusion
from medssl.model import Model, save_model
from medssl.networks import build_network
from medssl.optimizers import OptimizerName, build_optimizer
from medssl.sliding_window import predict_windows
from medssl.start import Start
from medssl.training import Precision, fit, use_bf16


@dataclass(frozen=True)
class Recipe:
    """How a network is trained on labels; chosen for segmentation on validation scans, see docs/results.md.

    Args:
        patch_size: Of the crops, voxels.
        batch_size: Crops per step.
        structure_share: Share of the crops that are taken around a structure drawn at random; the rest is anywhere.
        optimizer: "muon" or "adamw", see ``medssl.optimizers``.
        learning_rate: Its largest value.
        epoch_steps: Steps between validations, after each of which boosting sets its weights.
        frequency_cap: Cap of the class weights' ratio median frequency / frequency.
        frequency_power: Power of that ratio; the paper's is 1.
        edge_factor: Weight of the edges, in largest class weights; the paper's is 2.
        augment: How the crops vary.
        patience: Epochs without a better validation Dice before training stops; None never stops early.
        precision: ``"auto"``, ``"bf16"`` or ``"fp32"``.
        workers: Processes that read crops.
    """

    patch_size: tuple[int, ...] = (96, 96, 96)
    batch_size: int = 1
    structure_share: float = 0.67
    optimizer: OptimizerName = "muon"
    learning_rate: float = 0.05
    epoch_steps: int = 100
    frequency_cap: float = 10.0
    frequency_power: float = 0.5
    edge_factor: float = 0.0
    augment: Augmentation = field(default_factory=Augmentation)
    patience: int | None = None
    precision: Precision = "auto"
    workers: int = 1


def train_segmentation(
    train: PreparedDataset,
    validation: PreparedDataset | None,
    out: Path,
    *,
    steps: int,
    network: str = "unet",
    network_arguments: Mapping[str, Any] | None = None,
    recipe: Recipe = Recipe(),
    boosting: Boosting | None = None,
    start: Start = Start(),
    seed: int = 0,
    log: Callable[[Mapping[str, float], int], None] | None = None,
    origin: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Train on ``train``; ``out`` then holds ``model/`` and ``history.csv``.

    Started again with the same arguments it goes on where it was stopped, or returns at once when it had ended.

    Args:
        train: Prepared scans with labels.
        validation: Scans of other subjects, scored after each epoch; boosting needs them.
        out: Folder of the training.
        steps: Optimiser steps.
        network: Name of the network, see ``medssl networks``.
        network_arguments: Its own arguments.
        recipe: How it is trained.
        boosting: Error-corrective boosting, and how; None trains without.
        start: Where the weights come from, and how fast the encoder's change.
        seed: Of the weights, the crops and the augmentation.
        log: Called with the scores of each epoch and the step.
        origin: What the model's metadata say of where it comes from.

    Returns:
        The history: one row of scores per epoch.

    Raises:
        InputError: The scans have no labels, boosting has no validation scans, the two share a subject or a scan, or
            the weights to start from do not fit.
    """
    if boosting is not None and validation is None:
        raise InputError("Error-corrective boosting steers by validation scans: give some, of subjects not trained on.")
    if validation is not None:
        check_no_leak({"train": train, "validation": validation})
    torch.manual_seed(seed)
    method = segmentation_method(train, network, network_arguments, recipe, boosting)
    start.fill(method.network, train.preparation)
    scores = None if validation is None else SegmentationScores(validation, recipe.patch_size, _dtype(recipe.precision))
    history = fit(
        method,
        CropDataset(train, recipe.patch_size, method.pretext, recipe.structure_share, seed),
        out,
        steps,
        batch_size=recipe.batch_size,
        epoch_steps=recipe.epoch_steps,
        optimizer=recipe.optimizer,
        learning_rate=recipe.learning_rate,
        rate_factors=start.rate_factors(method.encoder, "encoder."),
        patience=recipe.patience,
        validate=scores,
        validate_first=boosting is not None,
        log=log,
        precision=recipe.precision,
        workers=recipe.workers,
    )
    table = pd.DataFrame(history)
    write_table(out / "history.csv", table)
    arguments = dict(network_arguments or {})
    model = Model(
        method.network, network, arguments, labels_of(train), train.preparation, recipe.patch_size, dict(origin or {})
    )
    save_model(model, out / "model")
    return table


def segmentation_method(
    train: PreparedDataset,
    network: str,
    network_arguments: Mapping[str, Any] | None,
    recipe: Recipe,
    boosting: Boosting | None = None,
) -> Segmentation:
    """Build the network and the method for the structures of ``train``, with class weights from its labels."""
    label_set = labels_of(train)
    net = build_network(network, train.channels, label_set.classes, train.spatial_dims, **dict(network_arguments or {}))
    return Segmentation(
        net,
        label_set.names,
        np.sum([train.class_voxels(i) for i in range(len(train))], axis=0).tolist(),
        label_set.mirrored if train.spatial_dims == 3 else None,  # a 2D image does not say where left is
        boosting=boosting,
        frequency_cap=recipe.frequency_cap,
        frequency_power=recipe.frequency_power,
        edge_factor=recipe.edge_factor,
        augment=recipe.augment,
    )


def labels_of(data: PreparedDataset) -> LabelSet:
    """Return the label set of prepared scans.

    Raises:
        InputError: They were prepared without labels.
    """
    if data.label_set is None:
        raise InputError(f"{data.root}: was prepared without labels; this task needs them. Prepare it with labels.")
    return data.label_set


def seconds_per_step(
    train: PreparedDataset,
    validation: PreparedDataset,
    network: str,
    network_arguments: Mapping[str, Any] | None,
    recipe: Recipe,
    steps: int = 6,
) -> float:
    """Measure on this machine what one training step costs, with its share of the validation after each epoch."""
    keep_freed_memory()
    method = segmentation_method(train, network, network_arguments, recipe)
    samples = CropDataset(train, recipe.patch_size, method.pretext, recipe.structure_share)
    optimizer = build_optimizer(recipe.optimizer, method.parameters(), 1e-4, 0.0)
    dtype = _dtype(recipe.precision)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    method.to(device)
    times = []
    for step in range(steps):
        start = time.perf_counter()
        drawn = [samples[step * recipe.batch_size + i] for i in range(recipe.batch_size)]
        batch = {key: torch.stack([sample[key] for sample in drawn]).to(device) for key in drawn[0]}
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            loss = method.loss(batch)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - start)
    start = time.perf_counter()
    SegmentationScores(validation.select(validation.subjects[:1]), recipe.patch_size, dtype)(method)
    per_validation = (time.perf_counter() - start) * len(validation)
    return float(np.median(times[1:])) + per_validation / recipe.epoch_steps


@dataclass(frozen=True)
class SegmentationScores:
    """Score a segmentation method on whole scans: Dice and recall per structure, over all scans together.

    Args:
        data: The scans, with labels.
        patch_size: Of the sliding window, voxels.
        precision: That the network computes in.
        overlap: Share of a window that its neighbour sees too.
    """

    data: PreparedDataset
    patch_size: tuple[int, ...]
    precision: torch.dtype
    overlap: float = 0.25

    def __call__(self, method: Method) -> dict[str, float]:
        """Return ``dice/<structure>``, ``recall/<structure>`` (NaN where no scan holds it) and ``dice/mean``."""
        if not isinstance(method, Segmentation) or self.data.label_set is None:
            raise TypeError("Segmentation scores need a segmentation method and labelled scans.")
        classes = self.data.label_set.classes
        counts = np.zeros((classes, classes), dtype=np.int64)
        device = next(method.parameters()).device
        for i in range(len(self.data)):
            image = torch.from_numpy(self.data.image(i)).to(device)
            labels = predict_windows(
                method.network, image, self.patch_size, classes, overlap=self.overlap, precision=self.precision
            )
            counts += confusion(labels.numpy(), self.data.label(i), classes)
        dice, recall = dice_from_confusion(counts)[1:], recall_from_confusion(counts)[1:]
        scores = {f"dice/{name}": float(v) for name, v in zip(self.data.label_set.names, dice, strict=True)}
        scores |= {f"recall/{name}": float(v) for name, v in zip(self.data.label_set.names, recall, strict=True)}
        return scores | {"dice/mean": float(np.nanmean(dice))}


def _dtype(precision: Precision) -> torch.dtype:
    return torch.bfloat16 if use_bf16(precision) else torch.float32
