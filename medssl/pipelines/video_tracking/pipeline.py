"""Can what is marked in one frame be followed through the video? One command learns it without labels and proves it.

Vondrick et al., "Tracking Emerges by Colorizing Videos", ECCV 2018, https://arxiv.org/abs/1806.09594; Jabri, Owens,
Efros, "Space-Time Correspondence as a Contrastive Random Walk", NeurIPS 2020, https://arxiv.org/abs/2006.14613.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from medssl.anonymity import without_names, write_key
from medssl.clip_stage import train_once
from medssl.commands.depth import method_folder
from medssl.commands.pretrain_clips import prepared_recordings, split_recordings
from medssl.data.prepared_recordings import RecordingPreparation
from medssl.data.splits import save_split
from medssl.evaluation.tables import write_table
from medssl.evaluation.tracking import tracking_summary
from medssl.files import content_hash
from medssl.label_propagation import Propagation
from medssl.method_file import TrainedMethod, load_method
from medssl.object_tracking.comparison import FLOW, RANDOM, STAYING, readable
from medssl.object_tracking.followers import (
    ByLikeness,
    Follower,
    Staying,
    correspondence_method,
    flow_follower,
    untrained,
)
from medssl.object_tracking.masked_recordings import find_masked
from medssl.object_tracking.study import TrackingPlan, score_once, strips
from medssl.object_tracking.study_page import study_verdict, write_page
from medssl.stages import continued_run
from medssl.tracking import RunLike, hashed, open_tracker, ui_command
from medssl.train_video import VideoRecipe
from medssl.training import use_bf16


def run(
    data: Path,
    test: Path,
    out: Path,
    *,
    methods: Sequence[str] = ("video_colorization", "cycle_walk"),
    flow: str | None = None,
    steps: int = 2000,
    recipe: VideoRecipe = VideoRecipe(batch_size=4, learning_rate=3e-4),
    method_arguments: dict[str, dict[str, Any]] | None = None,
    encoder: str = "resnet18",
    encoder_arguments: dict[str, Any] | None = None,
    recording: RecordingPreparation = RecordingPreparation((256, 256)),
    propagation: Propagation = Propagation(),
    split: Path | None = None,
    held_out_count: int | None = None,
    seed: int = 0,
    jobs: int = -1,
) -> pd.DataFrame:
    """Learn from unlabelled videos to find things again, follow the masks of test videos by it, and score that.

    Beside what was learnt stand a copy of the first mask, the same networks before they learnt, and optical flow where
    a method of it is given. Started again with the same arguments it goes on where it was stopped, and does nothing
    twice.

    Args:
        data: Videos to learn from: a video, a folder of frames, a folder of these, or what medssl prepare made of one.
        test: Recordings with masks: a folder each with frames/ (or images/, video.mp4) and masks/, or DAVIS' layout.
            The first mask is followed, the others are the truth.
        out: Folder of all results: results/report.html, trainings/, scores/, and the MLflow store.
        methods: video_colorization, cycle_walk, or both.
        flow: The folder of a pretraining by optical_flow, or its folder method, to compare with.
        steps: Optimiser steps of each method.
        recipe: How each is trained.
        method_arguments: Own arguments of methods, by the method's name.
        encoder: Name of the encoder, of all methods; see ``medssl networks``.
        encoder_arguments: Its own arguments; by default group normalisation where it has the choice.
        recording: How videos are prepared; test videos are seen at the same size.
        propagation: How labels are carried from frame to frame.
        split: A JSON file of subjects: {"train": [...], "held_out": [...]}. By default they are drawn.
        held_out_count: Subjects to hold out from learning, to watch its loss; by default a tenth, of fewer than three
            none.
        seed: Of the split, the weights and the clips.
        jobs: Processes that prepare; -1 is one per core.

    Returns:
        A row per method and other way: means and standard deviations over objects.

    Raises:
        InputError: An argument cannot be used, or no recording can.
    """
    plan = TrackingPlan(tuple(methods), method_arguments or {}, encoder, encoder_arguments, steps, recipe, seed)
    tests = find_masked(test)
    flow_folder = None if flow is None else method_folder(flow)
    others = _others(flow_folder)
    prepared = prepared_recordings(data, out / "prepared", recording, None, jobs)
    parts = split_recordings(prepared, split, held_out_count, seed)
    save_split(out / "split.json", parts)
    training = prepared.select(parts["train"])
    held_out = prepared.select(parts["held_out"]) if parts.get("held_out") else None
    tracker, book = open_tracker(out, "video_tracking"), out / "runs.json"
    with continued_run(tracker, book, "video_tracking") as parent:
        parent.log_params(
            {
                "data": prepared.fingerprint,
                "preparation": prepared.preparation.to_dict(),
                "split": {name: " ".join(map(hashed, members)) for name, members in parts.items()},
                "tests": " ".join(hashed(one.name) for one in tests),
                "propagation": asdict(propagation),
                "methods": " ".join(methods),
            }
        )
        asked = [asdict(propagation), str(_low(recipe)), seed]
        scored = []
        for name in methods:
            with continued_run(tracker, book, name, parent) as child:
                folder = out / "trainings" / name
                trained = train_once(plan.training(name), training, held_out, folder, child)
                ways = _ways(trained, propagation, _low(recipe), seed)
                known = [content_hash(folder / "method"), *asked]
                scored.append(score_once(out / "scores" / name, ways, tests, known))
                _log(child, scored[-1].rows)
        with continued_run(tracker, book, "baselines", parent) as child:
            known = [None if flow_folder is None else content_hash(flow_folder)]
            scored.append(score_once(out / "scores" / "baselines", others, tests, known))
            _log(child, scored[-1].rows)
        rows = pd.concat([some.rows for some in scored], ignore_index=True)
        left_out = {name: why for some in scored for name, why in some.refused.items()}
        results = out / "results"
        pictures = list(strips(scored, tests, results / "pictures"))
        trainings = {name: out / "trainings" / name for name in methods}
        table = write_page(rows, methods, trainings, pictures, len(left_out), results / "report.html")
        write_key(results, [one.name for one in tests])
        write_table(results / "metrics.csv", rows)
        write_table(results / "metrics_summary.csv", table)
        parent.log_table(without_names(rows), "metrics")
        parent.log_table(table, "metrics_summary")
        parent.log_folder(results / "pictures", "pictures")
        parent.log_file(results / "report.html")
    print(readable(table).to_string(index=False))
    print("\n".join([*study_verdict(table, methods), *(f"Left out: {name}: {why}" for name, why in left_out.items())]))
    print(f"Report: {results / 'report.html'}\nMLflow: {ui_command(out)}")
    return table


def _others(flow: Path | None) -> dict[str, Follower]:
    others: dict[str, Follower] = {STAYING: Staying()}
    if flow is not None:
        others[FLOW] = flow_follower(load_method(flow), str(flow))
    return others


def _ways(trained: TrainedMethod, propagation: Propagation, low: torch.dtype, seed: int) -> Mapping[str, Follower]:
    """What was learnt, and the same network before."""
    method, preparation = correspondence_method(trained, trained.name)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return {
        name: ByLikeness(one.to(device), preparation.size, propagation, low)
        for name, one in ((trained.name, method), (f"{RANDOM} ({trained.name})", untrained(trained, seed)))
    }


def _low(recipe: VideoRecipe) -> torch.dtype:
    return torch.bfloat16 if use_bf16(recipe.precision) else torch.float32


def _log(run: RunLike, rows: pd.DataFrame) -> None:
    for row in tracking_summary(rows).to_dict("records"):
        run.log_metrics({f"{row['method']}/{key}": value for key, value in row.items() if key.endswith("_mean")}, 0)
    run.log_table(without_names(rows), "scores")
