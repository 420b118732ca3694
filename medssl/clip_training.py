"""One method's training on clips, with all that is kept of it: method, encoder, history, pictures, a page, a run."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from medssl.cost import COST, clocked
from medssl.data.clips import with_clips
from medssl.data.preparation import Preparation
from medssl.data.prepared_recordings import PreparedRecordings
from medssl.evaluation.clips import clip_scores
from medssl.method_file import TrainedMethod, save_method
from medssl.methods import build_video_method
from medssl.networks import build_encoder, encoder_parameters
from medssl.pretrained import PretrainedEncoder, save_encoder
from medssl.report.clips import clips_picture
from medssl.report.curves import losses_picture
from medssl.report.page import Section, html_report
from medssl.sample import Batch
from medssl.tracking import RunLike
from medssl.train_video import Recordings, VideoRecipe, train_video
from medssl.video_method import VideoMethod


@dataclass(frozen=True)
class ClipTraining:
    """What is trained, and how.

    Args:
        method: Its name, see ``medssl methods``.
        method_arguments: Its own arguments.
        encoder: Name of the encoder, see ``medssl networks``.
        encoder_arguments: Its own arguments; ``None`` is group normalisation where it has the choice.
        steps: Optimiser steps.
        recipe: How it is trained.
        seed: Of the weights, the clips and all that is drawn from them.
    """

    method: str
    method_arguments: Mapping[str, Any]
    encoder: str
    encoder_arguments: Mapping[str, Any] | None
    steps: int
    recipe: VideoRecipe
    seed: int = 0

    def learner(self, channels: int) -> VideoMethod:
        """The method before it has learnt, for pictures of so many channels.

        Raises:
            InputError: There is no such method or encoder, or it does not take one of its arguments.
        """
        torch.manual_seed(self.seed)
        network = build_encoder(self.encoder, channels, 2, **self._encoder_arguments)
        return build_video_method(self.method, network, **self.method_arguments)

    def told(self) -> dict[str, Any]:
        """As JSON-able values, for a run's parameters."""
        return asdict(self) | {"encoder_arguments": self._encoder_arguments}

    def train(
        self,
        learner: VideoMethod,
        training: Recordings,
        held_out: Recordings | None,
        out: Path,
        run: RunLike,
    ) -> pd.DataFrame:
        """Train in place, or go on with it; ``out`` then holds what is kept.

        That is method, encoder, history.csv, pictures, report.html, and cost.json, the minutes that it took.

        Args:
            learner: What ``learner`` gave.
            training: The recordings that clips are taken from.
            held_out: Recordings of other subjects, to watch; without, some of ``training`` are watched. Scores of whole
                recordings are of prepared ones alone.
            out: Folder of the training.
            run: Where losses, pictures and what is kept are logged.

        Returns:
            The history: one row of scores per epoch.

        Raises:
            InputError: The recordings lack what the method learns from, or the two share a subject.
        """
        training = learnable(training, learner)
        held_out = None if held_out is None else learnable(held_out, learner)
        watched = held_out or training
        points = self.recipe.held_out_points
        with clocked(out / COST):
            history = train_video(
                learner,
                training,
                held_out,
                out,
                steps=self.steps,
                recipe=self.recipe,
                seed=self.seed,
                log=run.log_metrics,
                look=_Pictures(out / "pictures", run),
                scores=clip_scores(learner, watched, points) if isinstance(watched, PreparedRecordings) else None,
            )
        self._keep(learner, training, run, out)
        _page(history, self.method, len(training), held_out is not None, out)
        run.log_folder(out / "pictures", "pictures")
        run.log_folder(out / "encoder", "encoder")
        run.log_folder(out / "method", "method")
        run.log_file(out / "report.html")
        return history

    @property
    def _encoder_arguments(self) -> dict[str, Any]:
        if self.encoder_arguments is not None:
            return dict(self.encoder_arguments)
        return {"norm": "group"} if "norm" in encoder_parameters(self.encoder) else {}

    def _keep(self, learner: VideoMethod, data: Recordings, run: RunLike, out: Path) -> None:
        """Write the encoder, for other networks, and the whole method, for its own task."""
        arguments = (dict(self.method_arguments), self.encoder, self._encoder_arguments)
        trained = TrainedMethod(learner, self.method, *arguments, data.preparation, vars(self.recipe))
        save_method(trained, out / "method")
        origin = {"method": type(learner).__name__, "data": data.fingerprint, "run_id": run.run_id}
        as_pictures = Preparation(intensity="rgb", spacing_mm=None)
        kept = PretrainedEncoder(
            learner.encoder, self.encoder, self._encoder_arguments, as_pictures, data.preparation.size, origin
        )
        save_encoder(kept, out / "encoder")


def learnable(data: Recordings, method: VideoMethod) -> Recordings:
    """The recordings that a method can learn from; streamed ones were looked at when they were opened.

    Raises:
        InputError: It can learn from none.
    """
    return with_clips(data, method.needs) if isinstance(data, PreparedRecordings) else data


def _page(history: pd.DataFrame, method: str, recordings: int, held_out: bool, out: Path) -> None:
    losses_picture(history, out / "pictures" / "training.png")
    last = history.iloc[-1]
    named = [name for name in history.columns if "/" in name]
    table = pd.DataFrame({"score": named, "at the end": last[named].tolist()})
    whose = "clips of held-out subjects" if held_out else "clips of the training recordings, as no subject is held out"
    html_report(
        f"{method} on {recordings} recordings",
        [
            Section("Scores", f"Of {whose}.", table, [out / "pictures" / "training.png"]),
            Section("A clip", "What the method makes of it.", None, [out / "pictures" / "clip.png"]),
        ],
        out / "report.html",
    )


class _Pictures:
    """Draws what the method makes of a clip, each time that it is looked at.

    Args:
        folder: Where the last picture stays.
        run: Where each is logged.
    """

    def __init__(self, folder: Path, run: RunLike) -> None:
        self.folder, self.run, self.looks = folder, run, 0

    def __call__(self, method: VideoMethod, batches: list[Batch]) -> None:
        """Draw the first clip of the first batch."""
        clips_picture(method.show(batches[0]), self.folder / "clip.png", type(method).__name__)
        self.run.log_file(self.folder / "clip.png", f"pictures/look{self.looks:04d}")
        self.looks += 1
