"""Train a segmentation network on prepared scans, from random or pretrained weights, and keep it as a model folder."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
from medssl.files import write_aside
from medssl.method import Method
from medssl.methods.segmentation import Segmentation
from medssl.metrics import confusion, dice_from_confusion, recall_from_confusion
from medssl.model import Model, load_model, load_weights, save_model
from medssl.networks import build_network
from medssl.patches import check_patch
from medssl.sliding_window import predict_windows
from medssl.training import Precision, fit, use_bf16


@dataclass(frozen=True)
class Trained:
    """What a training leaves: the model's folder and one row of scores per epoch."""

    model: Path
    history: pd.DataFrame


def train_segmentation(
    train: PreparedDataset,
    validation: PreparedDataset | None,
    out: Path,
    *,
    network: str = "unet",
    network_arguments: Mapping[str, Any] | None = None,
    weights: str | None = None,
    minimum_coverage: float = 0.9,
    boosting: bool = False,
    method_arguments: Mapping[str, Any] | None = None,
    augment: Augmentation = Augmentation(),
    steps: int = 1500,
    epoch_steps: int = 100,
    batch_size: int = 1,
    patch_size: Sequence[int] = (96, 96, 96),
    structure_share: float = 0.67,
    learning_rate: float = 1e-3,
    patience: int | None = None,
    seed: int = 0,
    precision: Precision = "auto",
    workers: int = 1,
    log: Callable[[Mapping[str, float], int], None] | None = None,
    run: Mapping[str, Any] | None = None,
) -> Trained:
    """Train on ``train``; ``out`` then holds ``model/`` and ``history.csv``.

    Started again with the same arguments it goes on where it was stopped, or returns at once when it had ended.

    Args:
        train: Prepared scans with labels.
        validation: Scans of other subjects, scored after each epoch; boosting needs them.
        out: Folder of the training.
        network: Name of the network, see ``medssl networks``.
        network_arguments: Its own arguments.
        weights: A model folder or MLflow URI to start from.
        minimum_coverage: Least share of the network's parameters that ``weights`` must fill.
        boosting: Error-corrective boosting.
        method_arguments: Further arguments of ``Segmentation``.
        augment: How the crops vary.
        steps: Optimiser steps.
        epoch_steps: Steps between validations.
        batch_size: Crops per step.
        patch_size: Of the crops, voxels.
        structure_share: Share of the crops that are taken around a structure drawn at random.
        learning_rate: Its largest value.
        patience: Epochs without a better validation Dice before it stops; None never stops early.
        seed: Of the weights, the crops and the augmentation.
        precision: ``"auto"``, ``"bf16"`` or ``"fp32"``.
        workers: Processes that read crops.
        log: Called with the scores of each epoch and the step.
        run: Kept in the model's metadata.

    Raises:
        InputError: The scans have no labels, boosting has no validation scans, the two share a subject or a scan, or
            ``weights`` does not fit.
    """
    label_set = train.label_set
    if label_set is None:
        raise InputError(f"{train.root}: was prepared without labels; segmentation needs them. Prepare it with labels.")
    if boosting and validation is None:
        raise InputError("Error-corrective boosting steers by validation scans: give some, of subjects not trained on.")
    if validation is not None:
        check_no_leak({"train": train, "validation": validation})
    check_patch(patch_size, train.spatial_dims)
    torch.manual_seed(seed)
    arguments = dict(network_arguments or {})
    net = build_network(network, train.channels, label_set.classes, train.spatial_dims, **arguments)
    if weights is not None:
        load_weights(net, weights, minimum_coverage)
    method = Segmentation(
        net,
        label_set.names,
        np.sum([train.class_voxels(i) for i in range(len(train))], axis=0).tolist(),
        label_set.mirrored if train.spatial_dims == 3 else None,  # a 2D image does not say where left is
        boosting=boosting,
        augment=augment,
        **(method_arguments or {}),
    )
    half = torch.bfloat16 if use_bf16(precision) else torch.float32
    history = fit(
        method,
        CropDataset(train, patch_size, method.pretext, structure_share, seed),
        out,
        steps,
        batch_size=batch_size,
        epoch_steps=epoch_steps,
        learning_rate=learning_rate,
        patience=patience,
        validate=None if validation is None else SegmentationScores(validation, tuple(patch_size), half),
        validate_first=boosting,
        log=log,
        precision=precision,
        workers=workers,
    )
    table = pd.DataFrame(history)
    with write_aside(out / "history.csv") as aside:
        table.to_csv(aside, index=False)
    model = Model(net, network, arguments, label_set, train.preparation, tuple(patch_size), dict(run or {}))
    save_model(model, out / "model")
    return Trained(out / "model", table)


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
        """Return ``dice/<structure>``, ``recall/<structure>`` (NaN where the scans do not hold it) and ``dice/mean``."""
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
