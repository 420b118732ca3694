"""How right is depth that is learnt from one endoscopy video alone? One command reconstructs, trains, scores, fuses.

The question of Liu et al., "Dense Depth Estimation in Monocular Endoscopy with Self-supervised Learning Methods", IEEE
TMI 2019, https://arxiv.org/abs/1902.07766, table I, asked of one recording.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import joblib
import pandas as pd

from medssl.commands.prepare import recordings_of
from medssl.data.prepare_recordings import prepare_recordings
from medssl.data.prepared_recordings import RecordingPreparation
from medssl.depth_results.surface import SceneOptions
from medssl.depth_study.judge import BASELINES, Judge, ranked
from medssl.depth_study.page import StudyResults, write_page
from medssl.depth_study.recording import (
    found_geometry,
    has_geometry,
    one_recording,
    own_geometry,
    require_judgeable,
)
from medssl.depth_study.study import SFM, DepthPlan, DepthStudy, log_path
from medssl.depth_study.truth import exact_truth, require_truth
from medssl.errors import InputError
from medssl.evaluation.printing import rich_table, show
from medssl.files import content_hash
from medssl.stages import continued_run
from medssl.structure_from_motion.settings import LensModel, Settings
from medssl.tracking import open_tracker, ui_command
from medssl.train_video import VideoRecipe

# The papers' limits, 0.1 to 100, are a street's; inside a body what is a hundred times as far is dark.
_INSIDE = {"monodepth2": {"max_depth": 10.0}, "ego_motion": {"max_depth": 10.0}}


def run(
    video: Path,
    out: Path,
    *,
    methods: Sequence[str] = ("sfm_depth", "monodepth2"),
    truth: Path | None = None,
    steps: int = 2000,
    held_out_points: float = 0.2,
    recipe: VideoRecipe = VideoRecipe(learning_rate=1e-3),
    recipe_arguments: dict[str, dict[str, Any]] | None = None,
    method_arguments: dict[str, dict[str, Any]] | None = None,
    encoder: str = "unet",
    encoder_arguments: dict[str, Any] | None = None,
    results_of: str | None = None,
    intrinsics: str | None = None,
    lens: LensModel = "SIMPLE_RADIAL",
    structure: Settings = Settings(),
    recording: RecordingPreparation = RecordingPreparation(),
    scene: SceneOptions = SceneOptions(),
    tolerance_mm: float = 1.0,
    seed: int = 0,
    jobs: int = -1,
) -> pd.DataFrame:
    """Find a video's camera path, learn depth from it by several methods, score them alike, fuse the best one's depth.

    Started again with the same arguments it goes on where it was stopped, and does nothing twice.

    Args:
        video: One recording: a video, a folder of frames, of structure from motion, a COLMAP model, or what
            sample_data.make_endoscopy wrote. Where it lacks camera poses or points, structure from motion finds them.
        out: Folder of all results: the page results/report.html, the reconstruction in sfm, the methods under
            trainings, results_<method> with depth maps, surface and flight, and the MLflow store.
        methods: Of depth, from one camera: sfm_depth, monodepth2, ego_motion.
        truth: The folder that sample_data.make_endoscopy wrote, where the video is from one: methods are scored by it,
            and learn nothing from it.
        steps: Of each method's training.
        held_out_points: Share of the points that no method learns from, to judge by.
        recipe: How each method is trained; held_out_points takes the place of its own.
        recipe_arguments: What is different in it, by the method's name.
        method_arguments: Own arguments of methods, by the method's name. By default monodepth2 and ego_motion tell
            depths up to 100 times the nearest: in a body, farther is dark.
        encoder: Name of the encoder, of all methods; see ``medssl networks``.
        encoder_arguments: Its own arguments; by default group normalisation where it has the choice.
        results_of: The method whose depth is fused; by default the best at the held-out points.
        intrinsics: fx,fy,cx,cy of the camera in pixels, or a file with them, where the layout does not tell; by default
            structure from motion estimates them.
        lens: COLMAP's camera model that is estimated then.
        structure: How structure from motion is done.
        recording: How the recording is prepared.
        scene: What is fused, and the flight.
        tolerance_mm: Up to which a point of the fused surface counts as right, with ``truth``.
        seed: Of the weights, the clips and all that is drawn from them.
        jobs: Threads of structure from motion; -1 is one per core.

    Returns:
        A row per method and baseline, as on the page.

    Raises:
        InputError: An argument cannot be used, or the recording does not tell its geometry.
    """
    asked = replace(recipe, held_out_points=held_out_points)
    own = {name: _INSIDE.get(name, {}) for name in methods}
    own |= {name: {**own.get(name, {}), **arguments} for name, arguments in (method_arguments or {}).items()}
    given = (own, encoder, encoder_arguments, steps, asked, seed, recipe_arguments or {})
    plan = DepthPlan(tuple(methods), *given)
    if results_of is not None and results_of not in methods:
        raise InputError(f"--results_of {results_of}: is not one of --methods {', '.join(methods)}.")
    if truth is not None:
        require_truth(truth)
    film = one_recording(recordings_of(video, intrinsics), video)
    tracker, book = open_tracker(out, "endoscopy_depth"), out / "runs.json"
    with continued_run(tracker, book, "endoscopy_depth") as parent:
        if has_geometry(film):
            found = own_geometry(film)
        else:
            threads = joblib.cpu_count() if jobs < 1 else jobs
            with continued_run(tracker, book, SFM, parent) as child:
                found = found_geometry(film, video, out / "sfm", lens, structure, threads, child)
        print(found.told)
        report = prepare_recordings([found.sequence], out / "prepared", recording)
        print(report.table())
        data = report.dataset()
        require_judgeable(data, held_out_points, video)
        exact = None if truth is None else exact_truth(truth, found, data)
        scoring = [data.fingerprint, held_out_points, None if truth is None else content_hash(truth / "poses.txt")]
        study = DepthStudy(out, plan, Judge(data, held_out_points, exact), scoring)
        study.check()
        parent.log_params(
            {
                "recording": data.fingerprint,
                "preparation": data.preparation.to_dict(),
                "scene": asdict(scene),
                "exact_truth": truth is not None,
                "methods": " ".join(methods),
            }
        )
        tables, trained = {}, {}
        for method in methods:
            with continued_run(tracker, book, method, parent) as child:
                trained[method] = study.train(method, child)
                tables[method] = study.score(method, trained[method], child)
        best = results_of or ranked(tables)[0]
        for baseline in BASELINES:
            with continued_run(tracker, book, baseline, parent) as child:
                tables[baseline] = study.score_baseline(baseline, child)
        with continued_run(tracker, book, f"results of {best}", parent) as child:
            place = study.results(best, trained[best], scene, child)
            surface = study.score_surface(place, tolerance_mm, child)
        results = StudyResults(study, found, tables, best, place, surface)
        page = out / "results"
        write_page(results, page)
        comparison = results.comparison()
        parent.log_metrics(found.numbers_told, 0)
        log_path(study.score_path(SFM, study.recorded_poses), parent)
        parent.log_table(comparison, "comparison")
        parent.log_folder(page / "pictures", "pictures")
        parent.log_file(page / "report.html")
    show(rich_table(comparison, "Depth, mean ± sd over frames"))
    print(results.verdict)
    print(f"Report: {page / 'report.html'}\nResults of {best}: {place}\nMLflow: {ui_command(out)}")
    return comparison
