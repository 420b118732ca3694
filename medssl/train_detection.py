"""Fine-tune an encoder to find structures as boxes, learnt from label maps, and keep it as a detector's folder."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from medssl.data.crops import CropDataset
from medssl.data.prepared import PreparedDataset
from medssl.data.splits import check_no_leak
from medssl.evaluation.detection import average_precision, detect_windows
from medssl.fine_tuning import FineTuned, fine_tune, own_arguments, refuse_changed
from medssl.method import Method
from medssl.methods import build_method
from medssl.methods.detection import Detection, boxes_of
from medssl.networks import build_encoder
from medssl.pretrained import DETECTOR
from medssl.start import Start
from medssl.train_segmentation import Recipe, labels_of
from medssl.training import use_bf16

_UNUSED = ("frequency_cap", "frequency_power", "edge_factor")
_SETTLED = ("structures", "mirrored", "voxels", "augment")
# Of the recipe's learning rate with Muon, for the pyramid and the heads: after 120 steps on 32 hippocampi, the average
# precision at IoU 0.5 on 8 others was 0.82 with all of it and 1.00 with a fifth.
_MUON_HEAD_RATE = 0.2


def train_detection(
    train: PreparedDataset,
    validation: PreparedDataset | None,
    out: Path,
    *,
    steps: int,
    encoder: str = "unet",
    encoder_arguments: Mapping[str, Any] | None = None,
    method_arguments: Mapping[str, Any] | None = None,
    recipe: Recipe = Recipe(),
    start: Start = Start(),
    seed: int = 0,
    log: Callable[[Mapping[str, float], int], None] | None = None,
    origin: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Train on crops of ``train``; ``out`` then holds ``detector/`` and ``history.csv``.

    Started again with the same arguments it goes on where it was stopped, or returns at once when it had ended.

    Args:
        train: Prepared scans with labels, whose structures are boxed.
        validation: Scans of other subjects, scored after each epoch.
        out: Folder of the training.
        steps: Optimiser steps.
        encoder: Name of the encoder, see ``medssl networks``.
        encoder_arguments: Its own arguments.
        method_arguments: Of ``Detection``, but for what follows from the data and the recipe.
        recipe: How it is trained; what weighs voxels must be left as it is.
        start: Where the encoder's weights come from, and how fast they change.
        seed: Of the weights, the crops and the augmentation.
        log: Called with the scores of each epoch and the step.
        origin: What the detector's metadata say of where it comes from.

    Returns:
        The history: one row of scores per epoch.

    Raises:
        InputError: The scans have no labels, the two share a subject or a scan, or the weights to start from do not
            fit.
    """
    refuse_changed(recipe, "detection", _UNUSED)
    label_set = labels_of(train)
    if validation is not None:
        check_no_leak({"train": train, "validation": validation})
    torch.manual_seed(seed)
    built = build_encoder(encoder, train.channels, train.spatial_dims, **dict(encoder_arguments or {}))
    arguments = {"structures": list(label_set.names), **own_arguments(method_arguments, _SETTLED)}
    method = build_method(
        Detection,
        built,
        mirrored=label_set.mirrored if train.spatial_dims == 3 else None,  # a 2D image does not say where left is
        voxels=torch.from_numpy(np.stack([train.class_voxels(i) for i in range(len(train))])),
        augment=recipe.augment,
        **arguments,
    )
    return fine_tune(
        FineTuned(
            method,
            arguments,
            encoder,
            dict(encoder_arguments or {}),
            train.preparation,
            recipe.patch_size,
            dict(origin or {}),
        ),
        DETECTOR,
        CropDataset(train, recipe.patch_size, method.pretext, recipe.structure_share, seed),
        out,
        steps=steps,
        recipe=recipe,
        start=start,
        validate=None if validation is None else DetectionScores(validation, recipe),
        monitor="ap50/mean",
        log=log,
        head_rates={
            name: _MUON_HEAD_RATE if recipe.optimizer == "muon" else 1.0
            for name, _ in method.named_parameters()
            if name.startswith("detector.")
        },
    )


@dataclass(frozen=True)
class DetectionScores:
    """Score a detector on whole scans: average precision per structure, over all scans together.

    Args:
        data: The scans, with labels.
        recipe: Whose patch size, of the windows, and precision are used.
    """

    data: PreparedDataset
    recipe: Recipe

    def __call__(self, method: Method) -> dict[str, float]:
        """Return ``ap50/<structure>`` and ``ap10/<structure>``, at an intersection over union of 0.5 and 0.1.

        They are NaN where no scan holds the structure; ``ap50/mean`` and ``ap10/mean`` are of the others.
        """
        if not isinstance(method, Detection):
            raise TypeError("Detection scores need a detection method.")
        classes = len(method.structures) + 1
        device, low = next(method.parameters()).device, use_bf16(self.recipe.precision)
        found, truth = [], []
        for i in range(len(self.data)):
            with torch.autocast(device.type, torch.bfloat16, enabled=low):
                image = torch.from_numpy(self.data.image(i)).to(device)
                found.append(detect_windows(method, image, self.recipe.patch_size))
            truth += boxes_of(torch.from_numpy(self.data.label(i)).unsqueeze(0), classes)
        scores: dict[str, float] = {}
        for name, iou in (("ap50", 0.5), ("ap10", 0.1)):
            precision = average_precision(found, truth, classes, iou)[1:]
            scores |= {f"{name}/{s}": float(v) for s, v in zip(method.structures, precision, strict=True)}
            scores[f"{name}/mean"] = float(np.nanmean(precision))
        return scores
