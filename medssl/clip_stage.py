"""A training on clips as a stage of a pipeline: done once, gone on with where it was stopped."""

from pathlib import Path

from medssl.clip_training import ClipTraining
from medssl.method_file import TrainedMethod, load_method
from medssl.stages import stage
from medssl.tracking import RunLike
from medssl.train_video import Recordings


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
