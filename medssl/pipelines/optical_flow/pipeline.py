"""How does everything move from frame to frame? One command learns it without a truth, judges it, and shows it.

Jonschkowski et al., "What Matters in Unsupervised Optical Flow", ECCV 2020, https://arxiv.org/abs/2006.04902, beside no
flow at all and TV-L1: Zach, Pock, Bischof, DAGM 2007.
"""

from pathlib import Path
from typing import Any, cast

import pandas as pd

from medssl.anonymity import write_key
from medssl.clip_stage import train_once
from medssl.clip_training import ClipTraining
from medssl.commands.pretrain_clips import prepared_recordings, split_recordings
from medssl.data.prepared_recordings import RecordingPreparation
from medssl.data.splits import save_split
from medssl.evaluation.matching import MatchingScores
from medssl.files import content_hash
from medssl.flow_results.judge import METHOD, judge_flow, why_no_variational_flow
from medssl.flow_results.page import flow_page, main_table, verdict
from medssl.stages import continued_run, stage
from medssl.tracking import hashed, open_tracker, ui_command
from medssl.train_video import VideoRecipe
from medssl.video_method import FlowMethod

_LIGHT = {"channels": [16, 32, 64, 96], "norm": "instance"}  # of the U-Net's encoder


def run(
    data: Path,
    out: Path,
    *,
    recording: RecordingPreparation = RecordingPreparation(),
    method_arguments: dict[str, Any] | None = None,
    encoder: str = "unet",
    encoder_arguments: dict[str, Any] | None = None,
    steps: int = 1500,
    recipe: VideoRecipe = VideoRecipe(batch_size=2, learning_rate=1e-3),
    split: Path | None = None,
    held_out_count: int | None = None,
    pairs: int = 20,
    variational: bool = True,
    seed: int = 0,
    jobs: int = -1,
) -> pd.DataFrame:
    """Learn optical flow from pairs of frames without any truth, and judge it on them and on held-out recordings.

    Where the flow is known it is scored beside none and TV-L1; elsewhere what can be told without a truth is told, and
    called that. Started again with the same arguments it goes on where it was stopped, and does nothing twice.

    Args:
        data: Pairs with true flow (Middlebury's, FlyingChairs'), a made-up endoscopy, any video or folder of frames, a
            folder of these, or what medssl prepare made of one.
        out: Folder of all results: results/report.html, the method under training, and the MLflow store.
        recording: What is done to each recording.
        method_arguments: Own arguments of optical_flow. By default occlusion counts after a sixth of the steps, and
            the method learns from itself after a third.
        encoder: Name of the encoder, see ``medssl networks``.
        encoder_arguments: Its own arguments; by default a light U-Net's.
        steps: Optimiser steps.
        recipe: How it is trained.
        split: A JSON file of subjects: {"train": [...], "held_out": [...]}. By default they are drawn.
        held_out_count: Subjects to hold out; by default a tenth, of fewer than three none.
        pairs: Of each recording that are judged, at most; spread over it.
        variational: Judge TV-L1 too, which takes seconds for each pair.
        seed: Of the split, the weights and the clips.
        jobs: Processes that prepare; -1 is one per core.

    Returns:
        The long table of scores: against the truth, or, where none is known, what is told without one.

    Raises:
        InputError: An argument cannot be used, or no recording can.
    """
    prepared = prepared_recordings(data, out / "prepared", recording, None, jobs)
    parts = split_recordings(prepared, split, held_out_count, seed)
    save_split(out / "split.json", parts)
    training = prepared.select(parts["train"])
    held_out = prepared.select(parts["held_out"]) if parts.get("held_out") else None
    begins = {"occlusion_after": steps // 6, "teaching_after": steps // 3, "teaching_ramp": max(steps // 15, 1)}
    if encoder_arguments is None and encoder == "unet":
        encoder_arguments = dict(_LIGHT)
    arguments = {**begins, **(method_arguments or {})}
    asked = ClipTraining(METHOD, arguments, encoder, encoder_arguments, steps, recipe, seed)
    tracker, book = open_tracker(out, METHOD), out / "runs.json"
    with continued_run(tracker, book, METHOD) as parent:
        parent.log_params(
            {
                "data": prepared.fingerprint,
                "preparation": prepared.preparation.to_dict(),
                "split": {name: " ".join(map(hashed, members)) for name, members in parts.items()},
            }
        )
        print(f"{METHOD} on {len(training)} recordings, {sum(training.index['frames'])} frames, {steps} steps.")
        with continued_run(tracker, book, "training", parent) as child:
            trained = train_once(asked, training, held_out, out / "training", child)
        missing = why_no_variational_flow() if variational else "it was not asked for."

        def judge(results: Path) -> None:
            scores = judge_flow(
                cast(FlowMethod, trained.method),
                prepared.select({*parts["train"], *parts.get("held_out", ())}),
                set(parts["train"]),
                results / "pictures",
                pairs=pairs,
                variational=not missing,
            )
            scores.save(results)
            write_key(results, prepared.names)
            flow_page(scores, out / "training", missing, results / "report.html")
            parent.log_table(main_table(scores), "scores")
            parent.log_folder(results / "pictures", "pictures")
            parent.log_file(results / "report.html")

        inputs = [content_hash(out / "training" / "method"), prepared.fingerprint, parts, pairs, missing]
        results = stage(out / "results", inputs, judge)
    scores = MatchingScores.load(results)
    print(main_table(scores).to_string(index=False, float_format="{:.3g}".format))
    print("\n".join(verdict(scores)))
    print(f"Report: {results / 'report.html'}\nMLflow: {ui_command(out)}")
    return scores.truth if len(scores.truth) else scores.indirect
