"""Fine-tune an encoder to tell the classes of whole images apart, and keep it as a classifier's folder."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from medssl.data.crops import CropDataset
from medssl.data.prepared import PreparedDataset
from medssl.data.splits import check_no_leak
from medssl.errors import InputError
from medssl.evaluation.embedding import embed_scans
from medssl.fine_tuning import FineTuned, fine_tune, own_arguments, refuse_changed
from medssl.method import Method
from medssl.methods import build_method
from medssl.methods.classification import Classification
from medssl.metrics import confusion, recall_from_confusion
from medssl.networks import build_encoder
from medssl.pretrained import CLASSIFIER
from medssl.start import Start
from medssl.train_segmentation import Recipe

logger = logging.getLogger(__name__)

_UNUSED = ("structure_share", "frequency_cap", "frequency_power", "edge_factor", "augment")


def train_classification(
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
    """Train on crops of ``train``; ``out`` then holds ``classifier/`` and ``history.csv``.

    Started again with the same arguments it goes on where it was stopped, or returns at once when it had ended.

    Args:
        train: Prepared images with classes; subjects without one are left out.
        validation: Images of other subjects, scored after each epoch.
        out: Folder of the training.
        steps: Optimiser steps.
        encoder: Name of the encoder, see ``medssl networks``.
        encoder_arguments: Its own arguments.
        method_arguments: Of ``Classification``, but for the classes and their counts.
        recipe: How it is trained; what is of labels alone must be left as it is. A batch should hold several images.
        start: Where the encoder's weights come from, and how fast they change.
        seed: Of the weights, the crops and the views.
        log: Called with the scores of each epoch and the step.
        origin: What the classifier's metadata say of where it comes from.

    Returns:
        The history: one row of scores per epoch.

    Raises:
        InputError: The images have no classes, or fewer than two; the two share a subject or an image; or the weights
            to start from do not fit.
    """
    refuse_changed(recipe, "classification", _UNUSED)
    train, classes = with_classes(train)
    if validation is not None:
        check_no_leak({"train": train, "validation": validation})
    counts = np.bincount(_categories(train)[1], minlength=len(classes))
    if (counts > 0).sum() < 2:
        raise InputError(
            f"{train.root}: all training images are of one class, '{classes[counts.argmax()]}'. Choose another split."
        )
    if absent := [name for name, count in zip(classes, counts, strict=True) if not count]:
        logger.warning("No training image is of the class %s: it will not be found.", ", ".join(absent))
    torch.manual_seed(seed)
    built = build_encoder(encoder, train.channels, train.spatial_dims, **dict(encoder_arguments or {}))
    arguments = {"classes": list(classes), **own_arguments(method_arguments, ("classes", "images_per_class"))}
    method = build_method(Classification, built, images_per_class=counts.tolist(), **arguments)
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
        CLASSIFIER,
        CropDataset(train, recipe.patch_size, method.pretext, seed=seed, with_labels=False),
        out,
        steps=steps,
        recipe=recipe,
        start=start,
        validate=None if validation is None else ClassificationScores(with_classes(validation)[0], recipe.patch_size),
        monitor="balanced_accuracy",
        log=log,
    )


def with_classes(data: PreparedDataset) -> tuple[PreparedDataset, tuple[str, ...]]:
    """Give the images of the subjects that have one with a class, and the classes' names; say how many have none.

    Raises:
        InputError: No image has a class.
    """
    owners = {data.subjects[i] for i in range(len(data)) if data.category(i) is not None}
    if data.classes is None or not owners:
        raise InputError(
            f"{data.root}: none of these {len(data)} images has a class, and classification needs them. Prepare them "
            "again with a table of classes (medssl prepare SOURCE --classes TABLE.csv)."
        )
    without = sum(data.category(i) is None for i in range(len(data)))
    if without:
        logger.info("%s: %d of %d images have no class and are not used.", data.root, without, len(data))
    return data.select(owners), data.classes


@dataclass(frozen=True)
class ClassificationScores:
    """Score a classifier on whole images, each seen through windows that tile it.

    Args:
        data: The images; those without a class are left out.
        patch_size: Of the windows, voxels.
    """

    data: PreparedDataset
    patch_size: tuple[int, ...]

    def __call__(self, method: Method) -> dict[str, float]:
        """Return ``recall/<class>`` (NaN where no image is of it), their mean ``balanced_accuracy``, and ``auc``."""
        if not isinstance(method, Classification):
            raise TypeError("Classification scores need a classification method.")
        rows, truth = _categories(self.data)
        z = embed_scans(method.encoder, self.data, self.patch_size)[rows]  # (N, channels)
        with torch.no_grad():
            probability = method.probabilities(z.to(method.class_weight.device)).cpu().numpy()
        recall = recall_from_confusion(confusion(probability.argmax(1), truth, len(method.classes)))
        scores = {f"recall/{name}": float(value) for name, value in zip(method.classes, recall, strict=True)}
        return scores | {"balanced_accuracy": float(np.nanmean(recall)), "auc": mean_auc(probability, truth)}


def mean_auc(probability: NDArray[np.floating[Any]], truth: NDArray[np.int64]) -> float:
    """Area under the ROC curve of each class against all others, averaged over the classes; NaN without two classes.

    Args:
        probability: (N, classes).
        truth: (N,), class indices; a class that none has takes no part.
    """
    held = np.unique(truth)
    if len(held) < 2:
        return float("nan")
    return float(np.mean([roc_auc_score(truth == index, probability[:, index]) for index in held]))


def _categories(data: PreparedDataset) -> tuple[list[int], NDArray[np.int64]]:
    """Which images have a class, and its index."""
    known = {i: category for i in range(len(data)) if (category := data.category(i)) is not None}
    return list(known), np.array(list(known.values()), dtype=np.int64)
