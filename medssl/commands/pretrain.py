"""``medssl pretrain``: images or recordings without labels in, an encoder out, and a page about it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from medssl.commands.pretrain_clips import prepared_recordings, pretrain_on_clips
from medssl.data.catalog import catalog
from medssl.data.classes import classified
from medssl.data.preparation import Preparation
from medssl.data.prepare import prepare
from medssl.data.prepared import PreparedDataset
from medssl.data.prepared_recordings import RecordingPreparation, is_prepared_recordings
from medssl.data.recording_frames import RecordingFrames
from medssl.data.recordings import are_recordings
from medssl.data.splits import load_split, save_split, split_subjects
from medssl.errors import InputError
from medssl.evaluation.retrieval import nearest_neighbours
from medssl.method import Method
from medssl.method_file import TrainedMethod, save_method
from medssl.methods import VIDEO, build_pretext, pretext
from medssl.networks import build_encoder, encoder_parameters
from medssl.pretrain import PretrainRecipe, estimate, large_enough
from medssl.pretrain import pretrain as train
from medssl.report.neighbours import neighbours_picture
from medssl.report.page import Section, html_report
from medssl.report.task import representation_picture, task_picture
from medssl.sample import Batch
from medssl.tracking import Run, hashed, open_tracker, ui_command
from medssl.train_video import VideoRecipe

_QUERIES, _NEIGHBOURS = 5, 5


def pretrain(
    method: str,
    *,
    data: Path,
    out: Path,
    encoder: str = "unet",
    encoder_arguments: dict[str, Any] | None = None,
    method_arguments: dict[str, Any] | None = None,
    steps: int = 2000,
    recipe: PretrainRecipe = PretrainRecipe(),
    split: Path | None = None,
    held_out_count: int | None = None,
    images: str | None = None,
    classes: Path | None = None,
    preparation: Preparation = Preparation(),
    clips: VideoRecipe = VideoRecipe(),
    recording: RecordingPreparation = RecordingPreparation(),
    intrinsics: str | None = None,
    stream: bool = False,
    seed: int = 0,
    jobs: int = -1,
) -> None:
    """Pretrain an encoder on images, or on clips of recordings.

    Started again with the same arguments it goes on where it was stopped.

    Args:
        method: Name of the method, see ``medssl methods``.
        data: Images or recordings, in any layout that ``medssl prepare`` takes, or what it wrote. A method that learns
            from images takes the frames of recordings one by one, and those of one recording are held out together; a
            folder of frames is taken for images unless it was prepared with ``--kind recordings``. Labels are not
            looked at.
        out: Folder of the pretraining: encoder, method, history.csv, pictures, report.html and the MLflow store.
        encoder: Name of the encoder, see ``medssl networks``.
        encoder_arguments: Its own arguments; by default group normalisation where it has the choice, because instance
            normalisation gives each channel the same mean in every image, and methods that compare images by their
            pooled features would see little else.
        method_arguments: The method's own arguments.
        steps: Optimiser steps.
        recipe: How it is pretrained on images.
        split: A JSON file {"train": [...], "held_out": [...]} of subjects; by default held-out subjects are drawn.
        held_out_count: How many are drawn, to watch the loss and the representation on; a tenth, at least one, by
            default, and none where there are fewer than 3 subjects.
        images: Pattern of the images in ``data``, where its layout is not one that is found out.
        classes: A CSV table of the images' classes, with the columns scan (or subject) and class, in place of those
            that they were prepared with. Nothing is learnt from it: every ``recipe.probe_every`` looks, probes of the
            frozen features say what these tell of the classes, where at least four training and four held-out images
            have one (see held_out_count).
        preparation: How images are prepared, where ``data`` is not prepared yet.
        clips: How it learns from clips, in place of ``recipe``.
        recording: How recordings are prepared, where ``data`` is not prepared yet.
        intrinsics: fx,fy,cx,cy of the recordings' camera in pixels, or a file with them, where their layout does not
            tell.
        stream: Read clips straight from the videos in place of preparing them, which takes as much disk as the frames:
            13 GB for an hour. For methods that learn from frames alone; those that learn from sound always stream. A
            sample decodes a stretch of ``clips.segment_s`` for ``clips.clips_per_segment`` clips.
        seed: Of the weights, the crops and all that is drawn from them.
        jobs: Processes that prepare; -1 is one per core.
    """
    if method in VIDEO:
        if classes is not None:
            raise InputError(f"--classes are of images, and {method} learns from recordings: leave it out.")
        pretrain_on_clips(
            method,
            data,
            out,
            encoder,
            encoder_arguments,
            method_arguments,
            steps,
            clips,
            split,
            held_out_count,
            recording,
            intrinsics,
            seed,
            jobs,
            stream,
        )
        return
    pretext(method)
    if stream:
        raise InputError(
            f"--stream is of methods that learn from clips of videos, and {method} does not: leave it out."
        )
    prepared = prepared_images(data, out / "prepared", images, preparation, recording, jobs)
    if classes is not None:
        prepared = classified(prepared, classes)
    parts = _split(prepared, split, held_out_count, seed)
    save_split(out / "split.json", parts)
    training = large_enough(prepared.select(parts["train"]), recipe.patch_size)
    held_out = prepared.select(parts["held_out"]) if parts.get("held_out") else None
    torch.manual_seed(seed)
    if encoder_arguments is None:
        encoder_arguments = {"norm": "group"} if "norm" in encoder_parameters(encoder) else {}
    network = build_encoder(encoder, prepared.channels, prepared.spatial_dims, **encoder_arguments)
    learner = build_pretext(method, network, **(method_arguments or {}))
    learner.check(len(training), training.channels, recipe.patch_size)
    with torch.random.fork_rng():
        expected = estimate(learner, training, recipe)
    minutes = expected.minutes(steps)
    print(f"{method} on {len(training)} images, {steps} steps, about {minutes:.1f} minutes: {expected}.")
    tracker = open_tracker(out, "pretrain")
    with tracker.run(out.name) as run:
        run.log_params(
            {
                "method": method,
                "method_arguments": method_arguments or {},
                "encoder": encoder,
                "encoder_arguments": encoder_arguments,
                "data": prepared.fingerprint,
                "steps": steps,
                "recipe": vars(recipe),
                "seed": seed,
                "split": {name: " ".join(map(hashed, members)) for name, members in parts.items()},
            }
        )
        pictures = Pictures(out / "pictures", prepared, run)
        history = train(
            learner,
            training,
            held_out,
            out,
            steps=steps,
            encoder=encoder,
            encoder_arguments=encoder_arguments,
            recipe=recipe,
            seed=seed,
            log=run.log_metrics,
            look=pictures,
            origin={"run_id": run.run_id, "seed": seed},
        )
        arguments = (method_arguments or {}, encoder, encoder_arguments, prepared.preparation, vars(recipe))
        save_method(TrainedMethod(learner, method, *arguments), out / "method")
        representation_picture(history, out / "pictures" / "representation.png")
        last = history.iloc[-1]
        named = [name for name in history.columns if "/" in name]
        table = pd.DataFrame({"score": named, "at the end": last[named].tolist()})
        html_report(
            f"{method} on {len(training)} images",
            [
                Section(
                    "The representation",
                    f"Estimated before it started: {expected}.",
                    table,
                    [out / "pictures" / "representation.png"],
                ),
                Section("The task", "Input, target, prediction of held-out crops.", None, pictures.of("task")),
                Section("Nearest neighbours", "Held-out crops.", None, pictures.of("neighbours")),
            ],
            out / "report.html",
        )
        run.log_folder(out / "pictures", "pictures")
        run.log_folder(out / "encoder", "encoder")
        run.log_file(out / "report.html")
    print(f"Encoder: {out / 'encoder'}\nReport: {out / 'report.html'}\nMLflow: {ui_command(out)}")


def prepared_images(
    data: Path, out: Path, images: str | None, preparation: Preparation, recording: RecordingPreparation, jobs: int
) -> PreparedDataset:
    """Open prepared images or frames, or prepare a source's without its labels, and say what became of them."""
    if (data / "prepared.json").is_file():
        return PreparedDataset(data)
    if is_prepared_recordings(data) or (images is None and are_recordings(data)):
        return RecordingFrames(prepared_recordings(data, out, recording, None, jobs))
    report = prepare(catalog(data, images), out, None, preparation, jobs=jobs)
    print(report.table())
    return report.dataset()


def _split(
    prepared: PreparedDataset, split: Path | None, held_out_count: int | None, seed: int
) -> Mapping[str, tuple[str, ...]]:
    subjects = sorted(set(prepared.subjects))
    if split is not None:
        return load_split(split)
    if held_out_count is None:
        held_out_count = max(1, len(subjects) // 10) if len(subjects) > 2 else 0
    if held_out_count == 0:
        return {"train": tuple(subjects)}
    return split_subjects(subjects, {"held_out": held_out_count, "train": max(1, len(subjects) - held_out_count)}, seed)


class Pictures:
    """Draws the task and nearest neighbours each time that the representation is looked at.

    Args:
        folder: Where the pictures go; the last of each kind stays.
        data: Whose voxel size is drawn.
        run: Where they are logged, by step.
    """

    def __init__(self, folder: Path, data: PreparedDataset, run: Run) -> None:
        self.folder, self.data, self.run = folder, data, run
        self.looks = 0

    def __call__(self, method: Method, batches: list[Batch], embeddings: Tensor) -> None:
        """Draw; ``embeddings`` (N, D) are of the batches' images, in order."""
        shown = method.show(batches[0])
        task_picture(shown, self.folder / "task.png", type(method).__name__)
        images = [image.float().cpu().numpy() for batch in batches for image in batch["image"]]
        if len(images) > 1:
            found = nearest_neighbours(embeddings, k=min(_NEIGHBOURS, len(images) - 1))
            queries = slice(0, _QUERIES)
            neighbours_picture(
                images[queries],
                images,
                type(found)(found.indices[queries], found.similarity[queries]),
                self.folder / "neighbours.png",
                "Held-out crops and their nearest neighbours",
            )
        for path in (*self.of("task"), *self.of("neighbours")):
            self.run.log_file(path, f"pictures/look{self.looks:04d}")
        self.looks += 1

    def of(self, kind: str) -> list[Path]:
        """Return the picture of a kind, if there is one."""
        return [path for path in (self.folder / f"{kind}.png",) if path.is_file()]
