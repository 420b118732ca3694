"""The arms of a comparison: which trainings there are, what each starts from, and how long each may take."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from medssl.data.prepared import PreparedDataset
from medssl.errors import InputError
from medssl.files import read_json
from medssl.methods.segmentation import Boosting
from medssl.report.curves import ecb_picture, losses_picture
from medssl.stages import stage
from medssl.start import Start
from medssl.tracking import RunLike
from medssl.train_segmentation import Recipe, train_segmentation

Labels = Literal["weak", "manual"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Arm:
    """One training of the comparison.

    Attributes:
        name: As in tables and pictures.
        labels: What it is trained on.
        steps: Optimiser steps.
        start: The arm whose weights it starts from, if any.
        boosted: Error-corrective boosting.
    """

    name: str
    labels: Labels
    steps: int
    start: "Arm | None" = None
    boosted: bool = False


@dataclass(frozen=True)
class Steps:
    """Optimiser steps of pretraining and of fine-tuning."""

    pretrain: int
    finetune: int


def arms(steps: Steps, short_manual: bool = False) -> tuple[Arm, ...]:
    """List the four arms of Roy et al. 2017, table 1; each comes after the one that it starts from.

    Args:
        steps: The last two arms fine-tune equally long; manual labels alone get the sum of both.
        short_manual: A fifth arm, manual labels alone for the steps of fine-tuning only. It tells what pretraining is
            worth at equal fine-tuning steps, the other manual arm at equal steps in all.
    """
    weak = Arm("weak only", "weak", steps.pretrain)
    short = (Arm("manual only, short", "manual", steps.finetune),) if short_manual else ()
    return (
        weak,
        *short,
        Arm("manual only", "manual", steps.pretrain + steps.finetune),
        Arm("weak + fine-tuning", "manual", steps.finetune, weak),
        Arm("weak + ECB", "manual", steps.finetune, weak, boosted=True),
    )


def pairs_to_compare(short_manual: bool = False) -> list[tuple[str, str]]:
    """List the comparisons that answer what weak labels and boosting are worth: (baseline, other)."""
    against_manual = [("manual only", other) for other in ("weak only", "weak + fine-tuning", "weak + ECB")]
    short = [("manual only, short", "weak + fine-tuning")] if short_manual else []
    return [*against_manual, *short, ("weak + fine-tuning", "weak + ECB")]


def steps_in_budget(
    seconds: float, seconds_per_step: float, finetune_per_pretrain: float, short_manual: bool = False
) -> Steps:
    """Choose the steps so that all arms together take ``seconds``.

    Args:
        seconds: For the training of one seed.
        seconds_per_step: Measured on this machine, with its share of the validation.
        finetune_per_pretrain: Ratio of the two numbers of steps.
        short_manual: Whether there is a fifth arm.

    Raises:
        InputError: The budget has no room for ten steps.
    """
    thousand = Steps(1000, round(1000 * finetune_per_pretrain))
    unit = sum(arm.steps for arm in arms(thousand, short_manual)) / 1000 * seconds_per_step  # of a pretraining step
    steps = Steps(int(seconds / unit), int(seconds / unit * finetune_per_pretrain))
    if min(steps.pretrain, steps.finetune) < 10:
        least = 10 * unit / min(1, finetune_per_pretrain) / 60
        raise InputError(
            f"A budget of {seconds / 60:.1f} minutes has room for {steps.pretrain} steps of pretraining and "
            f"{steps.finetune} of fine-tuning on this machine; give at least {least:.1f}."
        )
    return steps


@dataclass(frozen=True)
class ArmTrainer:
    """Trains arms, each once, into a folder of its own.

    Args:
        out: The arms' folders are made here.
        labels: What to train on.
        validation: Scored after each epoch; boosting steers by it.
        network: Name of the network.
        network_arguments: Its own arguments.
        recipe: How each arm is trained.
        boosting: How boosted arms are.
    """

    out: Path
    labels: Mapping[Labels, PreparedDataset]
    validation: PreparedDataset
    network: str
    network_arguments: Mapping[str, Any] | None
    recipe: Recipe
    boosting: Boosting

    def folder(self, arm: Arm, seed: int) -> Path:
        """Say where an arm is; one for each number of manual scans, so that weak labels are pretrained on once."""
        name = arm.name.replace(" ", "").replace(",", "-")
        return self.out / f"seed{seed}" / (name if arm.labels == "weak" else f"{name}-{len(self.labels['manual'])}")

    def train(self, arm: Arm, seed: int, run: RunLike) -> Path:
        """Train an arm, or go on with it, or find it done; returns its folder, with ``model`` and ``pictures``."""
        start = None if arm.start is None else self.folder(arm.start, seed)
        data = self.labels[arm.labels]
        settings = {
            "arm": arm.name,
            "steps": arm.steps,
            "seed": seed,
            "network": self.network,
            "network_arguments": dict(self.network_arguments or {}),
            "recipe": asdict(self.recipe),
            "boosting": asdict(self.boosting) if arm.boosted else None,
            "data": data.fingerprint,
            "validation": self.validation.fingerprint,
            "start": None if start is None else read_json(start / "training" / "stage.json")["inputs"],
        }
        run.log_params(settings)
        folder = self.folder(arm, seed)

        def train(into: Path) -> None:
            train_segmentation(
                data,
                self.validation,
                into,
                steps=arm.steps,
                network=self.network,
                network_arguments=self.network_arguments,
                recipe=self.recipe,
                boosting=self.boosting if arm.boosted else None,
                start=Start() if start is None else Start(model=str(start / "training" / "model")),
                seed=seed,
                log=lambda scores, step: run.log_metrics(_named_for_tracking(scores), step),
                origin={"arm": arm.name, "run_id": run.run_id, "seed": seed},
            )

        logger.info("%s, seed %d: %d steps on %d scans.", arm.name, seed, arm.steps, len(data))
        trained = stage(folder / "training", settings, train)
        history = pd.read_csv(trained / "history.csv")
        losses_picture(history, folder / "pictures" / "training.png")
        if arm.boosted:
            ecb_picture(history, folder / "pictures" / "boosting.png", self.boosting.accuracy)
        run.log_table(history, "history")
        run.log_folder(folder / "pictures", "pictures")
        run.log_folder(trained / "model", "model")
        return folder


def _named_for_tracking(scores: Mapping[str, float]) -> dict[str, float]:
    """Name validation scores as such, ``dice/mean`` alone is the test's; leave out NaN, a structure that is absent."""
    kept = ("train/", "learning_rate")
    return {
        name if name.startswith(kept) else f"validation/{name}": value
        for name, value in scores.items()
        if value == value
    }
