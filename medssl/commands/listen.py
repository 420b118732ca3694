"""``medssl listen``: a trained method of sound and sight, and videos; where the sound is, and what it goes with."""

from dataclasses import asdict
from pathlib import Path

import torch

from medssl.commands.depth import method_folder
from medssl.data.prepared_recordings import RecordingPreparation
from medssl.data.recordings import search
from medssl.data.video import VideoFrames
from medssl.errors import InputError
from medssl.files import content_hash, read_json, value_hash
from medssl.listening.moments import Listener
from medssl.listening.run import ListenOptions, Source, listen_to, verdict
from medssl.method_file import TrainedMethod, load_method
from medssl.methods.audio_visual import AudioVisual
from medssl.tracking import hashed, open_tracker, ui_command
from medssl.training import Precision, use_bf16


def listen(
    model: str,
    video: Path,
    out: Path,
    *,
    truth: Path | None = None,
    every_s: float = 0.2,
    overlay: bool = True,
    batch_size: int = 8,
    precision: Precision = "auto",
    device: str = "auto",
) -> None:
    """Tell where in videos the sound comes from, when it fits the picture, and which sounds and frames are alike.

    Videos are streamed: hours take hardly more memory than minutes. What was done with the same model, videos and
    arguments is not done again.

    Args:
        model: The folder method of a pretraining with audio_visual, the pretraining's own folder, or an MLflow URI.
        video: A video with sound, or a folder of them.
        out: Folder of, for each video, overlay.mp4 (the heat, with the video's own sound), moments.csv, and pictures;
            of videos.csv, pictures of what is alike in all of them, report.html, summary.json and the MLflow store.
        truth: A table of what sounds when and where, as sample_data.make_sounding writes truth.csv, in the pixels of
            the video; for a folder of videos, the folder in which each one's truth.csv lies as the video does in its.
        every_s: From a moment that is looked at to the next, seconds.
        overlay: Write overlay.mp4.
        batch_size: Moments that the networks see at once.
        precision: auto is bf16 where the processor computes in it.
        device: cpu, cuda, or auto.
    """
    if every_s <= 0 or batch_size < 1:
        raise InputError(f"--every_s must be above 0 and --batch_size at least 1, got {every_s:g} and {batch_size}.")
    folder = method_folder(model)
    trained = load_method(folder)
    method, preparation = audio_visual_method(trained, model)
    sources, refused = videos_in(video, truth)
    options = ListenOptions(preparation.size, every_s, overlay)
    files = [path for one in sources for path in (one.path, one.truth) if path is not None]
    made_of = value_hash([content_hash(folder), content_hash(*files), asdict(options)])
    summary = out / "summary.json"
    if summary.is_file() and read_json(summary).get("made_of") == made_of:
        print(f"Done before, nothing has changed. Report: {out / 'report.html'}")
        return
    method.to(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    low = torch.bfloat16 if use_bf16(precision) else torch.float32
    with open_tracker(out, "listen").run(out.resolve().name) as run:
        run.log_params(
            {
                "method": trained.name,
                "method_arguments": trained.arguments,
                "encoder": trained.encoder,
                "videos": " ".join(hashed(one.name) for one in sources),
                "options": asdict(options),
                "precision": str(low),
                "device": next(method.parameters()).device.type,
            }
        )
        listener = Listener(method, low, batch_size)
        outcome, numbers = listen_to(listener, sources, out, options, run, made_of, refused)
    print("\n".join(verdict(numbers)))
    for what, why in outcome.left_out.items():
        print(f"Left out: {what}: {why}")
    print(f"Report: {out / 'report.html'}\nMLflow: {ui_command(out)}")
    if outcome.refused:
        told = "\n".join(f"  {reason}" for reason in outcome.refused)
        raise InputError(f"{len(outcome.refused)} of the videos could not be used:\n{told}")


def audio_visual_method(trained: TrainedMethod, source: str) -> tuple[AudioVisual, RecordingPreparation]:
    """The method of a trained one, and how its recordings were prepared.

    Raises:
        InputError: It is of another kind.
    """
    if not isinstance(trained.method, AudioVisual) or not isinstance(trained.preparation, RecordingPreparation):
        raise InputError(
            f"{source}: was trained by {trained.name}, which hears nothing; expected is a method of audio_visual: "
            "medssl pretrain audio_visual --data VIDEOS --out DIR."
        )
    return trained.method, trained.preparation


def videos_in(source: Path, truth: Path | None) -> tuple[list[Source], list[str]]:
    """Find the videos of a file or folder with their truths, and why others cannot be used.

    Raises:
        InputError: There is none, or not the truth that was given.
    """
    found = search(source)
    refused = [one.reason for one in found.refused]
    sources = []
    for one in found.sequences:
        if isinstance(one.frames, VideoFrames):
            sources.append(Source(one.name, one.frames.path, _truth_of(truth, source, one.frames.path)))
        else:
            refused.append(f"{one.frames.files[0]}: is no video with a sound track; give the video itself.")
    if not sources:
        raise InputError("\n".join(refused))
    if truth is not None and truth.is_file() and len(sources) > 1:
        raise InputError(
            f"{truth}: is the truth of one video, and {source} holds {len(sources)}; give the folder that holds each "
            "one's truth.csv."
        )
    return sources, refused


def _truth_of(truth: Path | None, source: Path, video: Path) -> Path | None:
    if truth is None or truth.is_file():
        return truth
    if not truth.is_dir():
        raise InputError(f"{truth}: no such file or folder; --truth names a truth.csv, or a folder of them.")
    return truth / (video.parent.relative_to(source) if source.is_dir() else Path()) / "truth.csv"
