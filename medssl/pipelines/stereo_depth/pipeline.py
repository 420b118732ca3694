"""How deep is what a stereo camera sees? One command learns it from the recording alone, judges it, and shows it.

Godard, Mac Aodha, Brostow, "Unsupervised Monocular Depth Estimation with Left-Right Consistency", CVPR 2017,
https://arxiv.org/abs/1609.03677, beside semi-global matching: Hirschmüller, TPAMI 2008.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from medssl.anonymity import write_key
from medssl.clip_stage import train_once
from medssl.clip_training import ClipTraining
from medssl.commands.prepare import recordings_of
from medssl.data.prepare_recordings import prepare_recordings
from medssl.data.prepared_recordings import PreparedRecordings, RecordingPreparation, is_prepared_recordings
from medssl.data.stereo import Packing
from medssl.depth_results.run import DepthOptions
from medssl.depth_results.surface import SceneOptions
from medssl.evaluation.matching import MatchingScores
from medssl.files import content_hash
from medssl.stages import continued_run, stage
from medssl.stereo_results.judge import judge_stereo, why_no_matcher
from medssl.stereo_results.page import main_table, stereo_page, verdict
from medssl.stereo_results.recordings import arguments_for, whole_recordings, with_two_cameras
from medssl.tracking import hashed, open_tracker, ui_command
from medssl.train_video import VideoRecipe
from medssl.video_inference import depth_method

_DEEP = {"channels": [16, 32, 64, 128, 192], "norm": "group"}  # of the U-Net's encoder: sees far at little cost


def run(
    video: Path,
    out: Path,
    *,
    right: Path | None = None,
    packing: Packing | None = None,
    calibration: Path | None = None,
    recording: RecordingPreparation = RecordingPreparation(),
    methods: Sequence[str] = ("stereo_depth",),
    method_arguments: dict[str, dict[str, Any]] | None = None,
    encoder: str = "unet",
    encoder_arguments: dict[str, Any] | None = None,
    steps: int = 1500,
    recipe: VideoRecipe = VideoRecipe(learning_rate=1e-3),
    largest_disparity: float = 0.3,
    frames: int = 50,
    whole: bool = True,
    fly_frames: int = 0,
    seed: int = 0,
    jobs: int = -1,
) -> pd.DataFrame:
    """Learn the disparity of calibrated stereo recordings without any truth, and judge it on the same recordings.

    Where disparity or depth is known exactly it is scored beside a constant and semi-global matching; elsewhere what
    can be told without a truth is told, and called that. Started again with the same arguments it goes on where it was
    stopped, and does nothing twice.

    Args:
        video: A KITTI folder, a Middlebury or Hamlyn pair, a made-up stereo endoscopy, a folder of these, the first
            camera's video or folder of frames, or what medssl prepare made of one.
        out: Folder of all results: results/report.html, the methods under trainings, depth maps and surfaces under
            recordings, and the MLflow store.
        right: The second camera's video or folder of frames, where ``video`` is the first one's.
        packing: Where one video holds both views: side-by-side or top-bottom.
        calibration: Of the two cameras, a YAML or JSON file; needed with ``right`` or ``packing``.
        recording: What is done to each recording.
        methods: stereo_depth and monodepth2, which then learns from the second camera alone.
        method_arguments: Own arguments of methods, by the method's name.
        encoder: Name of the encoder, see ``medssl networks``.
        encoder_arguments: Its own arguments; by default a light, deep U-Net's.
        steps: Optimiser steps of each method.
        recipe: How each method is trained.
        largest_disparity: That methods and matcher look for, as a share of the width.
        frames: Of each recording that are judged, at most; spread over it.
        whole: Make depth maps, videos, points and a surface of each recording of several frames.
        fly_frames: Of a flight through each surface; 0 for none.
        seed: Of the weights and the clips.
        jobs: Processes that prepare; -1 is one per core.

    Returns:
        The long table of scores: against the truth, or, where none is known, what is told without one.

    Raises:
        InputError: An argument cannot be used, or no recording can.
    """
    if is_prepared_recordings(video):
        data = PreparedRecordings(video)
    else:
        sequences = with_two_cameras(recordings_of(video, None, right, packing, calibration))
        report = prepare_recordings(sequences, out / "prepared", recording, jobs)
        print(report.table())
        data = report.dataset()
    if encoder_arguments is None and encoder == "unet":
        encoder_arguments = dict(_DEEP)
    asked = {
        name: ClipTraining(
            name,
            arguments_for(name, (method_arguments or {}).get(name, {}), data, largest_disparity),
            encoder,
            encoder_arguments,
            steps,
            recipe,
            seed,
        )
        for name in methods
    }
    tracker, book = open_tracker(out, "stereo_depth"), out / "runs.json"
    with continued_run(tracker, book, "stereo_depth") as parent:
        parent.log_params(
            {
                "data": data.fingerprint,
                "subjects": " ".join(map(hashed, sorted(set(data.subjects)))),
                "preparation": data.preparation.to_dict(),
                "methods": " ".join(methods),
            }
        )
        folders = {name: out / "trainings" / name for name in methods}
        trained = {}
        for name in methods:
            print(f"{name} on {len(data)} recordings, {sum(data.index['frames'])} pairs, {steps} steps.")
            with continued_run(tracker, book, f"{name}, training", parent) as child:
                trained[name], _ = depth_method(train_once(asked[name], data, None, folders[name], child), name)
        made_of = {name: content_hash(folder / "method") for name, folder in folders.items()}
        pages = []
        if whole:
            options = DepthOptions(scene=SceneOptions(fly_frames=fly_frames))
            pages = whole_recordings(trained, made_of, data, out / "recordings", options, tracker, book, parent)
        no_matcher = why_no_matcher()

        def judge(results: Path) -> None:
            scores = judge_stereo(
                trained,
                data,
                results / "pictures",
                frames=frames,
                largest_share=largest_disparity,
                matching=not no_matcher,
            )
            scores.save(results)
            write_key(results, data.names)
            units = sorted({data.unit(i) for i in range(len(data))})
            stereo_page(scores, folders, units, no_matcher, len(pages), results / "report.html")
            parent.log_table(main_table(scores), "scores")
            parent.log_folder(results / "pictures", "pictures")
            parent.log_file(results / "report.html")

        inputs = [made_of, data.fingerprint, frames, largest_disparity, no_matcher, [str(page) for page in pages]]
        results = stage(out / "results", inputs, judge)
    scores = MatchingScores.load(results)
    print(main_table(scores).to_string(index=False, float_format="{:.3g}".format))
    print("\n".join(verdict(scores, list(methods))))
    print(f"Report: {results / 'report.html'}\nMLflow: {ui_command(out)}")
    return scores.truth if len(scores.truth) else scores.indirect
