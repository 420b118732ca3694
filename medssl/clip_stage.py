"""Trainings on clips as stages of a pipeline: asked for together, each done once, gone on with where it was stopped."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medssl.clip_training import ClipTraining
from medssl.errors import InputError
from medssl.method_file import TrainedMethod, load_method
from medssl.stages import stage
from medssl.tracking import RunLike
from medssl.train_video import Recordings, VideoRecipe


@dataclass(frozen=True)
class ClipPlan:
    """Methods that are compared: what is trained, and how.

    Args:
        methods: Their names.
        method_arguments: Own arguments, by method.
        encoder: Name of the encoder.
        encoder_arguments: Its own arguments.
        steps: Optimiser steps, of each method.
        recipe: How each is trained.
        seed: Of all that is drawn.
    """

    methods: tuple[str, ...]
    method_arguments: Mapping[str, Mapping[str, Any]]
    encoder: str
    encoder_arguments: Mapping[str, Any] | None
    steps: int
    recipe: VideoRecipe
    seed: int

    def require(self, known: Sequence[str], otherwise: str) -> None:
        """Refuse what cannot be compared, before anything is done.

        Args:
            known: Methods that can be.
            otherwise: What a method that cannot is or does not do.

        Raises:
            InputError: A method cannot be compared or is named twice, or arguments are for none of them.
        """
        if not self.methods or len(set(self.methods)) < len(self.methods):
            raise InputError(f"--methods names the methods to compare, each once; got {list(self.methods)}.")
        for name in self.methods:
            if name not in known:
                raise InputError(f"'{name}' {otherwise}. Methods: {', '.join(known)}.")
        if strange := sorted(set(self.method_arguments) - set(self.methods)):
            raise InputError(f"--method_arguments are for '{strange[0]}', which is not among --methods.")

    def training(self, method: str) -> ClipTraining:
        """What a method's training is made of."""
        arguments = self.method_arguments.get(method, {})
        return ClipTraining(method, arguments, self.encoder, self.encoder_arguments, self.steps, self.recipe, self.seed)


def train_once(
    asked: ClipTraining, training: Recordings, held_out: Recordings | None, folder: Path, run: RunLike
) -> TrainedMethod:
    """Train into ``folder``, unless that was done with the same settings and data; returns the method, in evaluation.

    Args:
        asked: What is trained, and how.
        training: The recordings that clips are taken from.
        held_out: Recordings of other subjects, to watch.
        folder: Of this training alone.
        run: Where it is logged.

    Raises:
        InputError: See ``ClipTraining.train``.
    """
    settings = asked.told() | {
        "data": training.fingerprint,
        "held_out": None if held_out is None else held_out.fingerprint,
    }
    run.log_params(settings)

    def train(into: Path) -> None:
        asked.train(asked.learner(training.channels), training, held_out, into, run)

    return load_method(stage(folder, settings, train) / "method")
