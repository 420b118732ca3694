"""The part of ``medssl pretrain`` for methods that learn from clips: recordings in, the method and its encoder out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from medssl.clip_training import ClipTraining, learnable
from medssl.commands.prepare import recordings_of
from medssl.data.prepare_recordings import prepare_recordings
from medssl.data.prepared_recordings import PreparedRecordings, RecordingPreparation, is_prepared_recordings
from medssl.data.splits import Split, load_split, save_split, split_subjects
from medssl.data.streamed_clips import check_streamed
from medssl.data.streamed_recordings import StreamedRecordings
from medssl.errors import InputError
from medssl.tracking import hashed, open_tracker, ui_command
from medssl.train_video import Recordings, VideoRecipe
from medssl.video_method import VideoMethod

_CHANNELS = 3  # red, green and blue, of all recordings


def pretrain_on_clips(
    method: str,
    data: Path,
    out: Path,
    encoder: str,
    encoder_arguments: Mapping[str, Any] | None,
    method_arguments: Mapping[str, Any] | None,
    steps: int,
    recipe: VideoRecipe,
    split: Path | None,
    held_out_count: int | None,
    recording: RecordingPreparation,
    intrinsics: str | None,
    seed: int,
    jobs: int,
    stream: bool = False,
) -> pd.DataFrame:
    """Train a method on clips; see ``medssl.commands.pretrain.pretrain`` for the arguments.

    Returns:
        The history: one row of scores per epoch.
    """
    asked = ClipTraining(method, method_arguments or {}, encoder, encoder_arguments, steps, recipe, seed)
    learner = asked.learner(_CHANNELS)
    recordings: Recordings
    if stream or learner.needs.sound is not None:
        recordings = streamed_recordings(data, learner, recording, intrinsics, jobs)
    else:
        recordings = prepared_recordings(data, out / "prepared", recording, intrinsics, jobs)
    parts = split_recordings(recordings, split, held_out_count, seed)
    save_split(out / "split.json", parts)
    training = learnable(recordings.select(parts["train"]), learner)
    held_out = learnable(recordings.select(parts["held_out"]), learner) if parts.get("held_out") else None
    frames = sum(training.frames(i) for i in range(len(training)))
    print(f"{method} on {len(training)} recordings, {frames} frames, {steps} steps.")
    tracker = open_tracker(out, "pretrain")
    with tracker.run(out.name) as run:
        split_told = {name: " ".join(map(hashed, members)) for name, members in parts.items()}
        run.log_params(asked.told() | {"data": recordings.fingerprint, "split": split_told})
        history = asked.train(learner, training, held_out, out, run)
    print(
        f"Method: {out / 'method'}\nEncoder: {out / 'encoder'}\nReport: {out / 'report.html'}\n"
        f"MLflow: {ui_command(out)}"
    )
    return history


def prepared_recordings(
    data: Path, out: Path, recording: RecordingPreparation, intrinsics: str | None, jobs: int
) -> PreparedRecordings:
    """Open prepared recordings, or prepare a source's, and say what became of them."""
    if is_prepared_recordings(data):
        return PreparedRecordings(data)
    report = prepare_recordings(recordings_of(data, intrinsics), out, recording, jobs)
    print(report.table())
    return report.dataset()


def streamed_recordings(
    data: Path, learner: VideoMethod, recording: RecordingPreparation, intrinsics: str | None, jobs: int
) -> StreamedRecordings:
    """Open videos to stream them, with their sound where the method learns from it, and say what became of them.

    Raises:
        InputError: The method learns from what no stream holds, or there are no videos that can be used.
    """
    check_streamed(learner.needs)
    if is_prepared_recordings(data):
        raise InputError(
            f"{data}: holds prepared recordings, which are not streamed and keep no sound. Give the videos that they "
            "were made of."
        )
    sound = learner.needs.sound is not None
    streamed = StreamedRecordings(recordings_of(data, intrinsics), recording, sound, jobs)
    print(streamed.table())
    return streamed


def split_recordings(recordings: Recordings, split: Path | None, held_out_count: int | None, seed: int) -> Split:
    """Draw subjects to hold out, or read the split; of fewer than three subjects none is held out by default."""
    subjects = sorted(set(recordings.subjects))
    if split is not None:
        return load_split(split)
    if held_out_count is None:
        held_out_count = max(1, len(subjects) // 10) if len(subjects) > 2 else 0
    if held_out_count == 0:
        return {"train": tuple(subjects)}
    if held_out_count >= len(subjects):
        raise InputError(
            f"{held_out_count} of {len(subjects)} subjects cannot be held out: none would be left to learn."
        )
    return split_subjects(subjects, {"held_out": held_out_count, "train": len(subjects) - held_out_count}, seed)
