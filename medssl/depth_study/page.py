"""The page of a study of depth methods: the verdict, the table, pictures, the camera's path, the surface, the cost."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medssl.data.video import open_frames
from medssl.depth_study.judge import (
    BASELINES,
    EXACT,
    NEAREST,
    POINTS,
    comparison_cells,
    paired_with_baselines,
    verdict,
)
from medssl.depth_study.recording import Recording
from medssl.depth_study.study import SFM, DepthStudy
from medssl.evaluation.clips import spread
from medssl.evaluation.tables import write_table
from medssl.files import read_json
from medssl.report.depth import trajectory_picture
from medssl.report.depth_methods import depth_methods_picture, stills_picture
from medssl.report.page import Section, html_report

_STILLS = 4
_PATH_COLUMNS = ["method", "ate_rmse", "rpe_translation", "rpe_rotation_deg", "scale", "n", "missing", "unit", "note"]
_SURFACE_COLUMNS = ["accuracy_mm", "completeness_mm", "precision", "recall", "f_score", "tolerance_mm", "scale", "note"]


@dataclass(frozen=True)
class StudyResults:
    """What a study's page is made of.

    Attributes:
        study: The study.
        recording: Its recording.
        tables: Scores of methods and baselines, see ``Judge.table``.
        chosen: The method whose full results were made.
        place: Their folder.
        surface: The score of the fused surface, or ``None``.
    """

    study: DepthStudy
    recording: Recording
    tables: Mapping[str, pd.DataFrame]
    chosen: str
    place: Path
    surface: pd.DataFrame | None

    @property
    def verdict(self) -> str:
        """The first sentence."""
        return f"{verdict(self.tables, self.chosen)} Judged at {self.study.judge.told}."

    @property
    def methods(self) -> list[str]:
        """All but the baselines."""
        return [name for name in self.tables if name not in BASELINES]

    def comparison(self) -> pd.DataFrame:
        """A row per method and baseline: scores, and minutes of training."""
        cells = comparison_cells(self.tables)
        minutes = [self.study.minutes(name) for name in cells["method"]]
        cells["minutes"] = ["–" if one is None else f"{one:.1f}" for one in minutes]
        return cells

    def paths(self) -> dict[str, NDArray[np.float64]]:
        """The camera's path by structure from motion and by each method that sees itself move."""
        own = {f"{name}'s own motion": self.study.path(name) for name in self.methods}
        return {SFM: self.study.recorded_poses} | {name: path for name, path in own.items() if path is not None}


def write_page(results: StudyResults, out: Path) -> None:
    """Write ``report.html``, ``comparison.csv``, ``paired.csv``, ``trajectories.csv`` and pictures to ``out``."""
    paired, comparison = paired_with_baselines(results.tables), results.comparison()
    scored = {name: results.study.score_path(name, path) for name, path in results.paths().items()}
    rows = [row.assign(method=name) for name, row in scored.items() if row is not None]
    trajectories = pd.concat(rows, ignore_index=True) if rows else None
    write_table(out / "comparison.csv", comparison)
    write_table(out / "paired.csv", paired)
    if trajectories is not None:
        write_table(out / "trajectories.csv", trajectories)
    frames = _frame_pictures(results, out / "pictures")
    sections = [
        Section(results.verdict, _how_judged(results), comparison),
        Section("Method against baseline, frame by frame", _ABOUT_PAIRS, paired.rename(columns=_PAIR_COLUMNS)),
        Section("Frames", _about_frames(results), None, frames),
        _path_section(results, trajectories, out / "pictures" / "paths.png"),
        _surface_section(results, out),
        Section("Where the recording's geometry is from", results.recording.told),
        Section("Cost", "Minutes on this machine.", _costs(results)),
    ]
    html_report("Depth methods on one endoscopy recording", sections, out / "report.html")


_PAIR_COLUMNS = {"judged_by": "judged by", "better_in": "share of frames where better"}
_ABOUT_PAIRS = (
    "The mean difference of Abs Rel in the same frames, and the share of frames in which the method is better. The "
    "frames of one video show the same tissue from nearly the same place, so they are no sample of anything: no "
    "p-value and no interval is given, and nothing is said of other patients. For that, compare recordings of several."
)


def _how_judged(results: StudyResults) -> str:
    judge = results.study.judge
    chosen = results.tables[results.chosen]
    frames = int(chosen.loc[chosen["judged_by"] == POINTS, "abs_rel"].notna().sum())
    said = [
        f"Depth is judged at the {judge.held_out:.0%} of structure from motion's points that no method learnt from, in "
        f"{frames} frames, after scaling by the ratio of medians in each frame: mean ± standard deviation over frames. "
        "The points are of structure from motion itself, and share its errors. All frames were learnt on: this says "
        "how right depth is between known points of this recording, not how it is on another one.",
        f"The baseline '{NEAREST}' gives each pixel the depth of the nearest other point that the same frame saw: the "
        "more points a frame has, the harder it is to beat; it tells no depth of a frame that structure from motion "
        "could not place.",
    ]
    if any(chosen["judged_by"] == EXACT):
        said.append(
            "The recording is made up and its exact depth is known, which no method saw: the columns 'exact' are "
            "over all valid pixels."
        )
    return "\n\n".join(said)


def _about_frames(results: StudyResults) -> str:
    by = "exact depth" if results.study.judge.truth is not None else "held-out points"
    return (
        f"All depth of a frame is in the same colours (near is red, far is blue), scaled to the {by} by the ratio of "
        "medians. Below each, its error; black is right. Grey is unknown or not valid."
    )


def _frame_pictures(results: StudyResults, folder: Path) -> list[Path]:
    study, judge = results.study, results.study.judge
    depths = {name: study.shown_depth(name) for name in (*results.methods, NEAREST)}
    numbers = results.recording.prepared_numbers(judge.data)
    drawn = []
    for place, t in enumerate(study.shown):
        truth = judge.exact(t)
        path = folder / f"frame_{numbers[t]:08d}.png"
        depth_methods_picture(
            judge.data.frame(0, t).transpose(1, 2, 0),
            {name: maps[place] for name, maps in depths.items()},
            path,
            truth=truth,
            points=judge.held_out_points(t),
            valid=judge.data.valid(0, t),
            unit=judge.data.unit(0) if truth is None else "mm",
            title=f"frame {numbers[t]}",
        )
        drawn.append(path)
    return drawn


def _path_section(results: StudyResults, trajectories: pd.DataFrame | None, picture: Path) -> Section:
    poses, unit = results.study.true_poses
    exact = results.study.judge.truth is not None
    paths = results.paths()
    if exact:
        trajectory_picture(paths, picture, unit=unit, truth=poses)
        text = "Each path is moved, turned and scaled once to fit the true one. Lengths are in mm."
    else:
        own = {name: path for name, path in paths.items() if name != SFM}
        trajectory_picture(own or paths, picture, unit=unit, truth=poses if own else None)
        text = (
            "What the methods see as their own motion beside the path by structure from motion (black), which is no "
            "truth; moved, turned and scaled once to fit it."
            if own
            else "The path by structure from motion; the methods tell no motion of their own."
        )
    table = None if trajectories is None else trajectories[_PATH_COLUMNS].replace("", np.nan).dropna(axis=1, how="all")
    return Section("The camera's path", text, table, [picture])


def _surface_section(results: StudyResults, out: Path) -> Section:
    place = results.place
    summary: dict[str, Any] = read_json(place / "summary.json")
    said = [f"By {results.chosen}. " + " ".join(summary["sentences"][:3])]
    said += [f"Left out: {what}: {why}" for what, why in summary["left_out"].items()]
    table = None
    if results.surface is not None:
        table = results.surface[[name for name in _SURFACE_COLUMNS if name in results.surface]].dropna(axis=1)
        said.append(
            "Against the true surface, aligned as the camera's path is: accuracy is the mean distance from the fused "
            "surface to the true one, completeness from the true one to the fused one. The true surface is the whole "
            "tube, and the camera saw a part of it: completeness and recall count what it never saw."
        )
    pictures = [place / "overview.png"] if (place / "overview.png").is_file() else []
    flight = place / "fly_through.mp4"
    if flight.is_file():
        pictures.append(_stills(flight, out / "pictures" / "fly_through.png"))
    files = {
        "The flight through the surface (video)": flight,
        "Every frame beside its depth (video)": place / "overlay.mp4",
        "The surface (PLY)": place / "mesh.ply",
        f"All results of {results.chosen} (page)": place / "report.html",
    }
    links = {name: os.path.relpath(path, out) for name, path in files.items() if path.is_file()}
    return Section(
        "The surface", "\n\n".join(said), table, pictures, {n: Path(at).as_posix() for n, at in links.items()}
    )


def _stills(video: Path, path: Path) -> Path:
    frames = open_frames(video)
    places = spread(len(frames), _STILLS)
    rate = "The flight through the surface"
    stills_picture({f"frame {n}": one for n, one in zip(places, frames.read(places), strict=True)}, path, rate)
    return path


def _costs(results: StudyResults) -> pd.DataFrame:
    numbers = read_json(results.place / "summary.json")["numbers"]
    costs = {SFM: results.recording.minutes}
    costs |= {f"training {name}": results.study.minutes(name) for name in results.methods}
    costs |= {f"all results of {results.chosen}": numbers["seconds/all"] / 60}
    known = {name: one for name, one in costs.items() if one is not None}
    return pd.DataFrame({"part": list(known), "minutes": [f"{one:.1f}" for one in known.values()]})
