"""Fine-tune an encoder with a head of its task, and keep both as a folder.

The folder holds ``weights.safetensors``, and ``classifier.json`` or ``detector.json`` that says how to build and feed
the network; nothing in it is ever unpickled. A segmentation network's is ``medssl.model``.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import pandas as pd

from medssl.data.crops import CropDataset
from medssl.data.preparation import Preparation
from medssl.errors import InputError
from medssl.evaluation.tables import write_table
from medssl.method import Method
from medssl.methods import build_method
from medssl.methods.classification import Classification
from medssl.methods.detection import Detection
from medssl.networks import build_encoder
from medssl.pretrained import CLASSIFIER, DETECTOR
from medssl.start import Start
from medssl.train_segmentation import Recipe
from medssl.training import Scores, fit
from medssl.weights import WEIGHTS, Kind, fill, find_folder, read_description, read_weights, write_folder

Tuned = TypeVar("Tuned", bound=Method)


@dataclass
class FineTuned(Generic[Tuned]):
    """A classifier or a detector, and all that is needed to use it on a new image.

    Attributes:
        method: The encoder and its head.
        arguments: What the method is built from beside the encoder: the names of its classes, its own arguments.
        encoder: The encoder's name in ``medssl.networks.ENCODERS``.
        encoder_arguments: Its own arguments, JSON-able.
        preparation: How an image becomes what it sees.
        patch_size: Voxels that it was trained to see at once.
        run: The run it came from; JSON-able.
    """

    method: Tuned
    arguments: dict[str, Any]
    encoder: str
    encoder_arguments: dict[str, Any]
    preparation: Preparation
    patch_size: tuple[int, ...]
    run: dict[str, Any] = field(default_factory=dict)

    def save(self, folder: Path, kind: Kind) -> None:
        """Write the folder, whole or not at all.

        Raises:
            InputError: The disk is full or refuses to be written.
        """
        told = {
            "arguments": {name: asdict(v) if _is_data(v) else v for name, v in self.arguments.items()},
            "encoder": self.encoder,
            "encoder_arguments": self.encoder_arguments,
            "in_channels": self.method.encoder.in_channels,
            "spatial_dims": self.method.encoder.spatial_dims,
            "preparation": self.preparation.to_dict(),
            "patch_size": list(self.patch_size),
            "run": self.run,
        }
        write_folder(folder, kind, told, self.method)


def load_classifier(path_or_uri: str | Path) -> FineTuned[Classification]:
    """Read a classifier from a folder or from MLflow (``runs:/<id>/classifier``).

    Raises:
        InputError: It is none, is of a later format, or its weights are another network's.
    """
    return _load(path_or_uri, CLASSIFIER, Classification)


def load_detector(path_or_uri: str | Path) -> FineTuned[Detection]:
    """Read a detector from a folder or from MLflow (``runs:/<id>/detector``).

    Raises:
        InputError: It is none, is of a later format, or its weights are another network's.
    """
    return _load(path_or_uri, DETECTOR, Detection)


def _load(path_or_uri: str | Path, kind: Kind, task: type[Tuned]) -> FineTuned[Tuned]:
    folder, _ = find_folder(path_or_uri, kind)
    told = read_description(folder, kind)
    encoder = build_encoder(told["encoder"], told["in_channels"], told["spatial_dims"], **told["encoder_arguments"])
    method = build_method(task, encoder, **told["arguments"])
    coverage = fill(method, read_weights(folder / WEIGHTS), 1.0, folder)
    if coverage.unused:
        raise InputError(
            f"{folder}: its weights are not those of the network that {kind.description} names: {coverage}."
        )
    return FineTuned(
        method.eval(),
        told["arguments"],
        told["encoder"],
        told["encoder_arguments"],
        Preparation.from_dict(told["preparation"]),
        tuple(told["patch_size"]),
        told["run"],
    )


def fine_tune(
    tuned: FineTuned[Tuned],
    kind: Kind,
    samples: CropDataset,
    out: Path,
    *,
    steps: int,
    recipe: Recipe,
    start: Start,
    validate: Callable[[Method], Scores] | None,
    monitor: str,
    log: Callable[[Scores, int], None] | None,
    head_rates: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Train an encoder and its head; ``out`` then holds ``history.csv`` and the folder that ``kind`` names.

    Args:
        tuned: What to train, in place.
        kind: ``CLASSIFIER`` or ``DETECTOR``.
        samples: What to train on.
        out: Folder of the training; started again with the same arguments it goes on where it was stopped.
        steps: Optimiser steps.
        recipe: How it is trained.
        start: Where the encoder's weights come from, and how fast they change.
        validate: Scores the method after each epoch.
        monitor: The score that the recipe's patience looks at.
        log: Called with the scores of each epoch and the step.
        head_rates: What the rate of the head's parameters, by name, is multiplied by; 1 where it is not named.

    Raises:
        InputError: The weights to start from are a whole model's, or do not fit.
    """
    if start.model is not None:
        raise InputError(
            f"{start.model}: {kind.a_name} starts from an encoder, which can be a model's: give that folder as the "
            "encoder to start from."
        )
    start.fill(tuned.method, tuned.preparation)
    history = fit(
        tuned.method,
        samples,
        out,
        steps,
        batch_size=recipe.batch_size,
        epoch_steps=recipe.epoch_steps,
        optimizer=recipe.optimizer,
        learning_rate=recipe.learning_rate,
        rate_factors={**start.rate_factors(tuned.method.encoder, "encoder."), **(head_rates or {})},
        patience=recipe.patience,
        monitor=monitor,
        validate=validate,
        log=log,
        precision=recipe.precision,
        workers=recipe.workers,
    )
    table = pd.DataFrame(history)
    write_table(out / "history.csv", table)
    tuned.save(out / kind.name, kind)
    return table


def refuse_changed(recipe: Recipe, task: str, fields: Iterable[str]) -> None:
    """Check that what a task has no use for was left as it is.

    Raises:
        InputError: It was not; the message names it.
    """
    plain = Recipe()
    if changed := [name for name in fields if getattr(recipe, name) != getattr(plain, name)]:
        raise InputError(f"recipe.{changed[0]} is of segmentation, and {task} has no use for it: leave it out.")


def own_arguments(given: Mapping[str, Any] | None, settled: Iterable[str]) -> dict[str, Any]:
    """The method's own arguments, without those that follow from the data.

    Raises:
        InputError: One of ``settled`` is among them.
    """
    arguments = dict(given or {})
    if taken := sorted(set(arguments) & set(settled)):
        raise InputError(f"The method's argument '{taken[0]}' follows from the data: leave it out.")
    return arguments


def _is_data(value: Any) -> bool:
    return is_dataclass(value) and not isinstance(value, type)
