"""The trainings, scores and results of a study of depth methods on one recording; each is made once."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from medssl.anonymity import without_names
from medssl.clip_stage import ClipPlan, train_once
from medssl.clip_training import ClipTraining
from medssl.cost import COST, minutes_of
from medssl.data.clips import ClipDataset
from medssl.data.sequence import Unit
from medssl.depth_results.run import DepthOptions, depth_of_recording
from medssl.depth_results.surface import SceneOptions
from medssl.depth_study.judge import Judge, mean_scores
from medssl.errors import InputError
from medssl.evaluation.clips import spread
from medssl.evaluation.surface import SURFACE_SCORES, score_surface
from medssl.evaluation.tables import write_table
from medssl.evaluation.trajectory import align, score_trajectory
from medssl.files import content_hash, read_json, value_hash, write_aside
from medssl.method_file import METHOD, TrainedMethod
from medssl.methods import VIDEO
from medssl.reconstruction.mesh import read_mesh
from medssl.stages import is_done, stage
from medssl.tracking import RunLike
from medssl.train_video import VideoRecipe
from medssl.training import use_bf16
from medssl.video_inference import DepthInference, depth_method
from medssl.video_method import DepthMethod

SFM = "structure from motion"
"""What its poses are called beside the methods' own."""

DEPTH_METHODS = tuple(sorted(name for name, method in VIDEO.items() if issubclass(method, DepthMethod)))

_SHOWN = 3  # frames that are drawn

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DepthPlan(ClipPlan):
    """Methods of depth that are compared.

    Args:
        recipe_arguments: What is different in the recipe for some, by method.
    """

    recipe_arguments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse methods that tell no depth, see ``require``, and recipes that are none.

        Raises:
            InputError: There are such.
        """
        self.require(DEPTH_METHODS, "is no method of depth")
        if strange := sorted(set(self.recipe_arguments) - set(self.methods)):
            raise InputError(f"--recipe_arguments are for '{strange[0]}', which is not among --methods.")
        known = {one.name for one in fields(VideoRecipe)}
        for name, given in self.recipe_arguments.items():
            if strange := sorted(set(given) - known):
                raise InputError(
                    f"--recipe_arguments of '{name}': there is no '{strange[0]}'; there are {', '.join(sorted(known))}."
                )

    def training(self, method: str) -> ClipTraining:
        """What a method's training is made of; all are judged at the same points."""
        recipe = replace(self.recipe, **self.recipe_arguments.get(method, {}))
        recipe = replace(recipe, held_out_points=self.recipe.held_out_points)
        return replace(super().training(method), recipe=recipe)


@dataclass(frozen=True, eq=False)
class DepthStudy:
    """Trains, scores and looks at the methods of a plan.

    Args:
        out: Folder of the study.
        plan: What is trained.
        judge: Holds the recording, and what depth is judged by.
        scoring: What the scores depend on beside the method, JSON-able.
    """

    out: Path
    plan: DepthPlan
    judge: Judge
    scoring: Any

    @property
    def shown(self) -> list[int]:
        """The frames that are drawn."""
        return spread(self.judge.data.frames(0), _SHOWN + 2)[1:-1]  # the first and the last one are seen from one side

    @property
    def true_poses(self) -> tuple[NDArray[np.float64], Unit]:
        """What paths are compared with, (N, 4, 4), and their unit: the exact poses, or the recording's."""
        if self.judge.truth is not None:
            return self.judge.truth.poses, "mm"
        return self.recorded_poses, self.judge.data.unit(0)

    @property
    def recorded_poses(self) -> NDArray[np.float64]:
        """Camera to world that methods learnt from, (N, 4, 4)."""
        poses = self.judge.data.geometry(0).poses
        assert poses is not None  # refused before, see require_judgeable
        return poses

    def check(self) -> None:
        """Refuse methods that the recording does not suit, before hours are spent on the others.

        Raises:
            InputError: One cannot be built, or the recording lacks what it learns from.
        """
        for name in self.plan.methods:
            learner = self.plan.training(name).learner(self.judge.data.channels)
            ClipDataset(self.judge.data, learner.needs, learner.pretext)

    def train(self, method: str, run: RunLike) -> TrainedMethod:
        """Train a method, or go on with it, or find it done."""
        logger.info("%s: %d steps on %d frames.", method, self.plan.steps, self.judge.data.frames(0))
        return train_once(self.plan.training(method), self.judge.data, None, self._training(method), run)

    def minutes(self, method: str) -> float | None:
        """That the method's training took."""
        return minutes_of(self._training(method) / COST)

    def score(self, method: str, trained: TrainedMethod, run: RunLike) -> pd.DataFrame:
        """Score a method's depth in all frames, and its own motion; returns the former, see ``Judge.table``."""

        def work(into: Path) -> None:
            inference = self._inference(trained)
            self._write(inference.depth(self.judge.data, 0), into)
            path = inference.path(self.judge.data, 0)
            if path is not None:
                with write_aside(into / "path.npy") as aside:
                    np.save(aside, path)
            self._log(into, run)
            log_path(self.score_path(method, path), run)
            run.log_metrics({"minutes/training": self.minutes(method) or float("nan")}, 0)

        made_of = [self.scoring, content_hash(self._training(method) / METHOD.name)]
        return _read(stage(self._scores(method), made_of, work) / "depth.csv")

    def score_baseline(self, baseline: str, run: RunLike) -> pd.DataFrame:
        """Score a baseline as the methods are."""

        def work(into: Path) -> None:
            self._write(self.judge.maps(baseline), into)
            self._log(into, run)

        return _read(stage(self._scores(baseline), [self.scoring, baseline], work) / "depth.csv")

    def score_path(self, name: str, path: NDArray[np.float64] | None) -> pd.DataFrame | None:
        """Score a camera path after the best similarity, where there is a path and another one to compare it with."""
        poses, unit = self.true_poses
        if path is None or np.isfinite(path[:, 0, 0]).sum() < 3 or (name == SFM and self.judge.truth is None):
            return None
        return score_trajectory(path, poses, "sim3", scan=name).assign(unit="" if unit == "unknown" else unit)

    def path(self, method: str) -> NDArray[np.float64] | None:
        """The camera's path as a scored method itself sees it move, (N, 4, 4), or ``None``."""
        file = self._scores(method) / "path.npy"
        return np.load(file, allow_pickle=False) if file.is_file() else None

    def shown_depth(self, name: str) -> NDArray[np.float32]:
        """Depth of the drawn frames by a scored method or baseline, (n, H, W)."""
        depth: NDArray[np.float32] = np.load(self._scores(name) / "shown.npy", allow_pickle=False)
        return depth

    def results(self, method: str, trained: TrainedMethod, scene: SceneOptions, run: RunLike) -> Path:
        """Make all results of ``medssl depth`` by a method in ``results_<method>``, or find them done."""
        place = self.out / f"results_{method}"
        options = DepthOptions("auto", scene, True, self.plan.recipe.held_out_points)
        key = str(self.judge.data.index["key"].iat[0])
        made_of = value_hash([content_hash(self._training(method) / METHOD.name), asdict(options), key])
        if not is_done(place, made_of):
            depth_of_recording(self._inference(trained), self.judge.data, 0, place, options, run, made_of)
        return place

    def score_surface(self, place: Path, tolerance_mm: float, run: RunLike) -> pd.DataFrame | None:
        """Score the fused surface of ``place`` against the true one, aligned as the cameras are.

        ``None`` where one of the two is not there, or the surface was not fused with the recording's poses.
        """
        truth, summary = self.judge.truth, read_json(place / "summary.json")
        if truth is None or truth.surface is None or not (place / "mesh.ply").is_file():
            return None
        if summary["poses"] != "recording":
            return None
        known, recorded = truth.surface, self.recorded_poses

        def work(into: Path) -> None:
            alignment = align(recorded, truth.poses)
            row = score_surface(read_mesh(place / "mesh.ply"), known, tolerance_mm, alignment, scan=place.name)
            write_table(into / "surface.csv", row.assign(note=alignment.note))
            run.log_metrics({f"surface/{score}": float(row[score].iloc[0]) for score in SURFACE_SCORES}, 0)

        made_of = [self.scoring, summary["made_of"], tolerance_mm]
        return pd.read_csv(stage(self.out / "scores" / "surface", made_of, work) / "surface.csv")

    def _training(self, method: str) -> Path:
        return self.out / "trainings" / method

    def _scores(self, name: str) -> Path:
        return self.out / "scores" / name.replace(" ", "_")

    def _inference(self, trained: TrainedMethod) -> DepthInference:
        method, _ = depth_method(trained, trained.name)
        method.to("cuda" if torch.cuda.is_available() else "cpu")
        precision = torch.bfloat16 if use_bf16(self.plan.recipe.precision) else torch.float32
        return DepthInference(method, precision)

    def _write(self, maps: Iterable[NDArray[Any]], into: Path) -> None:
        """Write the scores of all frames' depth, and the depth of those that are drawn; no other map is held."""
        drawn: list[NDArray[Any]] = []

        def passed_on() -> Iterator[NDArray[Any]]:
            for t, depth in enumerate(maps):
                drawn.extend([depth] if t in self.shown else [])
                yield depth

        write_table(into / "depth.csv", self.judge.table(passed_on()))
        with write_aside(into / "shown.npy") as aside:
            np.save(aside, np.stack(drawn).astype(np.float32))

    def _log(self, into: Path, run: RunLike) -> None:
        table = _read(into / "depth.csv")
        run.log_metrics(mean_scores(table), 0)
        run.log_table(without_names(table), "depth_scores")


def log_path(row: pd.DataFrame | None, run: RunLike) -> None:
    """Log what ``DepthStudy.score_path`` gave."""
    if row is not None:
        run.log_metrics({f"path/{score}": float(row[score].iloc[0]) for score in ("ate_rmse", "rpe_rotation_deg")}, 0)


def _read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype={"subject": str, "scan": str})
