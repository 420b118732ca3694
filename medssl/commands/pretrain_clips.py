"""The part of ``medssl pretrain`` for methods that learn from clips: recordings in, the method and its encoder out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from medssl.clip_training import ClipTraining
from medssl.commands.prepare import recordings_of
from medssl.data.prepare_recordings import prepare_recordings
from medssl.data.prepared_recordings import PreparedRecordings, RecordingPreparation, is_prepared_recordings
from medssl.data.splits import Split, load_split, save_split, split_subjects
from medssl.errors import InputError
from medssl.tracking import hashed, open_tracker, ui_command
from medssl.train_video import VideoRecipe


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
) -> pd.DataFrame:
    """Train a method on clips; see ``medssl.commands.pretrain.pretrain`` for the arguments.

    Returns:
        The history: one row of scores per epoch.
    """
    prepared = prepared_recordings(data, out / "prepared", recording, intrinsics, jobs)
    parts = split_recordings(prepared, split, held_out_count, seed)
    save_split(out / "split.json", parts)
    training = prepared.select(parts["train"])
    held_out = prepared.select(parts["held_out"]) if parts.get("held_out") else None
    asked = ClipTraining(method, method_arguments or {}, encoder, encoder_arguments, steps, recipe, seed)
    learner = asked.learner(prepared.channels)
    print(f"{method} on {len(training)} recordings, {sum(training.index['frames'])} frames, {steps} steps.")
    tracker = open_tracker(out, "pretrain")
    with tracker.run(out.name) as run:
        split_told = {name: " ".join(map(hashed, members)) for name, members in parts.items()}
        run.log_params(asked.told() | {"data": prepared.fingerprint, "split": split_told})
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


def split_recordings(prepared: PreparedRecordings, split: Path | None, held_out_count: int | None, seed: int) -> Split:
    """Draw subjects to hold out, or read the split; of fewer than three subjects none is held out by default."""
    subjects = sorted(set(prepared.subjects))
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
