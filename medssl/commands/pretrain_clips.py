"""The part of ``medssl pretrain`` for methods that learn from clips: recordings in, the method and its encoder out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from medssl.commands.prepare import recordings_of
from medssl.data.preparation import Preparation
from medssl.data.prepare_recordings import prepare_recordings
from medssl.data.prepared_recordings import PreparedRecordings, RecordingPreparation, is_prepared_recordings
from medssl.data.splits import Split, load_split, save_split, split_subjects
from medssl.errors import InputError
from medssl.evaluation.clips import clip_scores
from medssl.method_file import TrainedMethod, save_method
from medssl.methods import build_video_method
from medssl.networks import build_encoder, encoder_parameters
from medssl.pretrained import PretrainedEncoder, save_encoder
from medssl.report.clips import clips_picture
from medssl.report.curves import losses_picture
from medssl.report.page import Section, html_report
from medssl.sample import Batch
from medssl.tracking import Run, hashed, open_tracker, ui_command
from medssl.train_video import VideoRecipe, train_video
from medssl.video_method import VideoMethod


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
    torch.manual_seed(seed)
    if encoder_arguments is None:
        encoder_arguments = {"norm": "group"} if "norm" in encoder_parameters(encoder) else {}
    network = build_encoder(encoder, prepared.channels, 2, **encoder_arguments)
    learner = build_video_method(method, network, **(method_arguments or {}))
    print(f"{method} on {len(training)} recordings, {sum(training.index['frames'])} frames, {steps} steps.")
    tracker = open_tracker(out, "pretrain")
    with tracker.run(out.name) as run:
        run.log_params(
            {
                "method": method,
                "method_arguments": dict(method_arguments or {}),
                "encoder": encoder,
                "encoder_arguments": dict(encoder_arguments),
                "data": prepared.fingerprint,
                "steps": steps,
                "recipe": vars(recipe),
                "seed": seed,
                "split": {name: " ".join(map(hashed, members)) for name, members in parts.items()},
            }
        )
        watched = held_out if held_out is not None else training
        history = train_video(
            learner,
            training,
            held_out,
            out,
            steps=steps,
            recipe=recipe,
            seed=seed,
            log=run.log_metrics,
            look=_Pictures(out / "pictures", run),
            scores=clip_scores(learner, watched, recipe.held_out_points),
        )
        _keep(learner, method, method_arguments, encoder, encoder_arguments, prepared, recipe, run, out)
        _page(history, method, len(training), held_out is not None, out)
        run.log_folder(out / "pictures", "pictures")
        run.log_folder(out / "encoder", "encoder")
        run.log_folder(out / "method", "method")
        run.log_file(out / "report.html")
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


def _keep(
    learner: VideoMethod,
    method: str,
    method_arguments: Mapping[str, Any] | None,
    encoder: str,
    encoder_arguments: Mapping[str, Any],
    prepared: PreparedRecordings,
    recipe: VideoRecipe,
    run: Run,
    out: Path,
) -> None:
    """Write the encoder, for other networks, and the whole method, for its own task."""
    arguments = (dict(method_arguments or {}), encoder, dict(encoder_arguments))
    save_method(TrainedMethod(learner, method, *arguments, prepared.preparation, vars(recipe)), out / "method")
    origin = {"method": type(learner).__name__, "data": prepared.fingerprint, "run_id": run.run_id}
    as_pictures = Preparation(intensity="rgb", spacing_mm=None)
    kept = PretrainedEncoder(
        learner.encoder, encoder, dict(encoder_arguments), as_pictures, prepared.preparation.size, origin
    )
    save_encoder(kept, out / "encoder")


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

    def __init__(self, folder: Path, run: Run) -> None:
        self.folder, self.run, self.looks = folder, run, 0

    def __call__(self, method: VideoMethod, batches: list[Batch]) -> None:
        """Draw the first clip of the first batch."""
        clips_picture(method.show(batches[0]), self.folder / "clip.png", type(method).__name__)
        self.run.log_file(self.folder / "clip.png", f"pictures/look{self.looks:04d}")
        self.looks += 1
