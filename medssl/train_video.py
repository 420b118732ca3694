"""Train a method that learns from clips, watch it on clips of other recordings, and keep its encoder and all of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from medssl.data.clips import ClipDataset
from medssl.data.crops import Samples
from medssl.data.prepared_recordings import PreparedRecordings
from medssl.data.streamed_clips import StreamedClips
from medssl.data.streamed_recordings import StreamedRecordings
from medssl.errors import InputError
from medssl.evaluation.tables import write_table
from medssl.method import Method
from medssl.optimizers import OptimizerName
from medssl.sample import Batch
from medssl.training import Precision, ScheduleName, fit, use_bf16
from medssl.video_method import VideoMethod

Recordings = PreparedRecordings | StreamedRecordings
VideoLook = Callable[[VideoMethod, list[Batch]], None]
VideoScores = Callable[[VideoMethod], Mapping[str, float]]


@dataclass(frozen=True)
class VideoRecipe:
    """How a method learns from clips.

    Args:
        batch_size: Clips per step and device.
        optimizer: "adamw", "sgd" with momentum 0.9, or "muon" for convolutional networks.
        schedule: "cosine", or "cyclic" between a tenth of the learning rate and the whole.
        learning_rate: Its largest value.
        weight_decay: On weights, not on biases and normalisation.
        gradient_clip: Largest norm of the gradient.
        epoch_steps: Steps from one look at held-out clips to the next.
        watched: Held-out clips that are looked at.
        held_out_points: Share of structure from motion's points that are never learnt from, to judge by.
        precision: ``"auto"``, ``"bf16"`` or ``"fp32"``.
        workers: Processes that read clips.
        clips_per_segment: Clips of streamed recordings that are taken from each stretch of video, which is decoded once
            for all of them; batch_size must be a multiple.
        segment_s: How long such a stretch is at least, seconds.
    """

    batch_size: int = 4
    optimizer: OptimizerName = "adamw"
    schedule: ScheduleName = "cosine"
    learning_rate: float = 1e-4
    weight_decay: float = 1e-2
    gradient_clip: float = 10.0
    epoch_steps: int = 100
    watched: int = 16
    held_out_points: float = 0.0
    precision: Precision = "auto"
    workers: int = 1
    clips_per_segment: int = 2
    segment_s: float = 4.0


def train_video(
    method: VideoMethod,
    train: Recordings,
    held_out: Recordings | None,
    out: Path,
    *,
    steps: int,
    recipe: VideoRecipe = VideoRecipe(),
    seed: int = 0,
    log: Callable[[Mapping[str, float], int], None] | None = None,
    look: VideoLook | None = None,
    scores: VideoScores | None = None,
) -> pd.DataFrame:
    """Train ``method`` in place; ``out`` then holds ``history.csv`` and the checkpoint.

    Started again with the same arguments it goes on where it was stopped, or returns at once when it had ended.

    Args:
        method: What to train.
        train: The recordings that clips are taken from.
        held_out: Recordings of other subjects, whose clips are looked at after each epoch; None looks at some of
            ``train``, which says whether it learns, not how it does on others.
        out: Folder of the training.
        steps: Optimiser steps.
        recipe: How it is trained.
        seed: Of the clips and of all that is drawn from them.
        log: Called with the scores of each epoch and the step.
        look: Called after each epoch with the method and the watched batches, to draw them.
        scores: More scores of the method, after each epoch.

    Returns:
        The history: one row of scores per epoch.

    Raises:
        InputError: The recordings lack what the method learns from, or the two share a subject.
    """
    if held_out is not None and (shared := sorted(set(held_out.subjects) & set(train.subjects))):
        raise InputError(f"Recordings of {', '.join(shared)} are both to train on and held out; split by subject.")
    samples = clips_of(train, method, recipe, seed)
    watch = ClipWatch(held_out if held_out is not None else train, method, recipe, look, scores)
    history = fit(
        method,
        samples,
        out,
        steps,
        batch_size=recipe.batch_size,
        epoch_steps=recipe.epoch_steps,
        optimizer=recipe.optimizer,
        schedule=recipe.schedule,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        gradient_clip=recipe.gradient_clip,
        validate=watch,
        log=log,
        precision=recipe.precision,
        workers=recipe.workers,
    )
    table = pd.DataFrame(history)
    write_table(out / "history.csv", table)
    return table


def clips_of(data: Recordings, method: VideoMethod, recipe: VideoRecipe, seed: int) -> Samples:
    """The clips that a method learns from, of prepared or of streamed recordings.

    Raises:
        InputError: The recordings lack what the method learns from.
    """
    if isinstance(data, StreamedRecordings):
        return StreamedClips(data, method.needs, method.pretext, seed, recipe.clips_per_segment, recipe.segment_s)
    return ClipDataset(data, method.needs, method.pretext, seed, recipe.held_out_points)


class ClipWatch:
    """Look at a method on clips, always the same ones.

    Args:
        data: Held-out recordings.
        method: Whose clips are drawn.
        recipe: Whose batch size, precision and number of clips are used.
        look: Called with the method and the batches.
        scores: More scores.
    """

    def __init__(
        self,
        data: Recordings,
        method: VideoMethod,
        recipe: VideoRecipe,
        look: VideoLook | None = None,
        scores: VideoScores | None = None,
    ) -> None:
        self.recipe, self.look, self.scores = recipe, look, scores
        self.samples = clips_of(data, method, recipe, 0)

    def __call__(self, method: Method) -> dict[str, float]:
        """Return ``held_out/<part of the loss>``, the mean over the watched clips, and what ``scores`` says."""
        if not isinstance(method, VideoMethod):
            raise TypeError(f"Clips are watched for methods that learn from clips, not for {type(method).__name__}.")
        device = next(method.parameters()).device
        per_number = self.samples.per_number
        watched = max(1, self.recipe.watched // per_number)
        size = min(max(1, self.recipe.batch_size // per_number), watched)
        numbers = [range(first, first + size) for first in range(0, watched - size + 1, size)]
        losses: dict[str, float] = {}
        batches: list[Batch] = []
        precision = torch.bfloat16 if use_bf16(self.recipe.precision) else torch.float32
        for some in numbers:
            batch = self.samples.collate([self.samples[number] for number in some])
            batches.append({name: value.to(device) for name, value in batch.items()})
        with torch.no_grad(), torch.autocast(device.type, precision, enabled=precision != torch.float32):
            for batch in batches:
                for name, value in method.loss(batch).items():
                    losses[name] = losses.get(name, 0.0) + float(value) / len(batches)
            if self.look is not None:
                self.look(method, batches)
            more = {} if self.scores is None else dict(self.scores(method))
        return {f"held_out/{name}": value for name, value in losses.items()} | more
