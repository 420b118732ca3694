"""What structure from motion found: the points and the camera's path, and which frames have a pose."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from medssl.report.figures import arm_color, save
from medssl.report.page import Section, html_report
from medssl.structure_from_motion.outcome import ELSEWHERE, LOST, REGISTERED, Outcome

_SHOWN = 0.96  # of the points: a few far ones would make the rest a dot
_INSIDE_OUT = -0.3  # correlation of nearness and brightness, below which a lamp on the camera is not what lit the scene
_LOOKS = 12  # cameras whose direction is drawn
_GRID: dict[str, Any] = {"color": "#dddddd", "linewidth": 0.6}
_PATH, _START = arm_color(0), arm_color(5)
_COLOURS = {REGISTERED: arm_color(0), ELSEWHERE: arm_color(1), LOST: arm_color(5)}
_LEFT_OUT = "#aaaaaa"
_NOTES = {
    "frames_looked_at": "frames looked at",
    "frames_used": "frames used: well exposed, and moved",
    "frames_registered": "frames with a pose",
    "share_registered": "share of the used frames with a pose",
    "sub_models": "sub-models (the largest is kept)",
    "points": "points",
    "observations": "observations of them",
    "track_length": "frames that see a point, mean",
    "observations_per_frame": "points that a frame sees, mean",
    "reprojection_error_px": "reprojection error, mean (pixels of the video)",
    "nearer_is_brighter": "rank correlation of nearness and brightness, per frame, median",
}


def scene_picture(outcome: Outcome, path: Path) -> None:
    """Draw points in their colours and the camera's path, from the front, from above and from the side.

    Axes are those of the first camera: x right, y down, z forward; lengths have no unit.

    Args:
        outcome: What was found.
        path: The picture.
    """
    to_first = np.linalg.inv(outcome.poses[0])
    points, centres, ahead = (
        _moved(to_first, outcome.points.positions),
        _moved(to_first, outcome.poses[:, :3, 3]),
        outcome.poses[:, :3, 2] @ to_first[:3, :3].T,
    )
    low, high = _cube(np.concatenate([_without_far(points), centres]))
    figure = Figure(figsize=(15, 5.4), facecolor="white", layout="constrained")
    views = ((0, 1, "from behind the first camera"), (0, 2, "from above"), (2, 1, "from the side"))
    for axes, (across, along, title) in zip(figure.subplots(1, 3), views, strict=True):
        axes.scatter(points[:, across], points[:, along], s=3, c=outcome.colours / 255, linewidths=0)
        axes.plot(centres[:, across], centres[:, along], color=_PATH, linewidth=1.5)
        axes.plot(*centres[0, [across, along]], "o", color=_START, markersize=6)
        _draw_looks(axes, centres[:, [across, along]], ahead[:, [across, along]], 0.06 * float(high[0] - low[0]))
        axes.set_xlim(low[across], high[across])
        axes.set_ylim(*((low[along], high[along]) if along == 2 else (high[along], low[along])))
        axes.set_aspect("equal")
        axes.set_xlabel("xyz"[across])
        axes.set_ylabel("xyz"[along])
        axes.set_title(title, fontsize=11)
        axes.grid(**_GRID)
        axes.set_axisbelow(True)
    figure.suptitle(
        "Points, the camera's path (blue) with its start (red) and where it looked; up to scale", fontsize=11
    )
    save(figure, path)


def frames_picture(outcome: Outcome, path: Path) -> None:
    """Draw over time which frames have a pose, how many points each sees, how well they fit, and how it moved.

    Args:
        outcome: What was found.
        path: The picture.
    """
    table = outcome.frames
    figure = Figure(figsize=(11, 7.5), facecolor="white", layout="constrained")
    fate, seen, error, motion = figure.subplots(4, 1, sharex=True, height_ratios=(1, 2, 2, 2))
    _draw_fates(fate, table, outcome.models)
    for axes, values, label in (
        (seen, table["observations"], "points seen"),
        (error, table["error_px"], "reprojection\nerror, pixels"),
        (motion, 100 * table["motion"], "motion, %\nof the width"),
    ):
        axes.plot(table["time_s"], values, "o", color=arm_color(0), markersize=3)
        axes.set_ylabel(label)
        axes.set_ylim(0, 1.1 * max(float(values.max()), 1e-9))  # NaN, where nothing is known, is no maximum
    for axes in (fate, seen, error, motion):
        axes.grid(**_GRID)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    motion.set_xlabel("seconds (numbers of the frames, where the rate is not known)")
    figure.legend(loc="outside upper center", ncols=6, frameon=False, fontsize=9)
    save(figure, path)


def sfm_report(outcome: Outcome, pictures: tuple[Path, Path], path: Path) -> None:
    """Write the page.

    Args:
        outcome: What was found.
        pictures: Of the scene and of the frames.
        path: The page.
    """
    summary, camera = outcome.summary(), outcome.lens
    rows = [{"what": note, "value": f"{summary[name]:.4g}"} for name, note in _NOTES.items()]
    focal = f"fx {camera.fx:.1f}, fy {camera.fy:.1f}, cx {camera.cx:.1f}, cy {camera.cy:.1f} pixels"
    bent = f"; {camera.distortion} {', '.join(f'{k:.4g}' for k in camera.coefficients)}" if camera.coefficients else ""
    html_report(
        "Structure from motion",
        [
            Section("How good it is", "\n\n".join(sentences(outcome)), pd.DataFrame(rows), pictures[:1]),
            Section("Over time", "", None, pictures[1:]),
            Section("Sub-models", "Parts that could not be joined; the first is kept.", outcome.models),
            Section("Attempts", "With other random numbers each; errors in the reduced picture.", outcome.attempts),
            Section(
                "Intrinsics", f"{outcome.calibration.capitalize()}: {camera.width}x{camera.height}, {focal}{bent}."
            ),
        ],
        path,
    )


def sentences(outcome: Outcome) -> list[str]:
    """What was found, and what to be careful about, a sentence each."""
    summary = outcome.summary()
    used, registered = summary["frames_used"], summary["frames_registered"]
    said = [
        f"{registered} of {used} used frames have a pose; {summary['points']} points, each seen by "
        f"{summary['track_length']:.1f} frames, reproject to {summary['reprojection_error_px']:.2f} pixels.",
        "Up to scale: lengths have no unit, as those of one camera cannot.",
    ]
    left_out = outcome.frames["fate"].value_counts().drop([REGISTERED, ELSEWHERE, LOST], errors="ignore")
    if len(left_out):
        kinds = ", ".join(f"{count} {kind}" for kind, count in left_out.items())
        said.append(f"Of {len(outcome.frames)} frames looked at, {left_out.sum()} were not used: {kinds}.")
    if len(outcome.models) > 1:
        rest = outcome.models.iloc[1:]
        parts = ", ".join(
            f"{row.frames} frames from {row.first_s:.1f} to {row.last_s:.1f} s" for row in rest.itertuples()
        )
        said.append(f"The largest of {len(outcome.models)} sub-models is kept; the others: {parts}.")
    if summary["nearer_is_brighter"] < _INSIDE_OUT:
        said.append(
            f"Farther points are brighter (rank correlation {summary['nearer_is_brighter']:.2f}), which an endoscope's "
            "light does not do: the scene may have come out inside out. Try another seed, a larger "
            "mapping.first_angle_deg, or a part with more sideways motion."
        )
    if outcome.calibration != "given":
        said.append(
            f"The intrinsics were {outcome.calibration}, focal length {outcome.lens.fx:.0f} pixels: a calibration of "
            "the endoscope is better than this estimate."
        )
    return said


def _draw_fates(axes: Axes, table: pd.DataFrame, models: pd.DataFrame) -> None:
    """A mark for each frame, and a bar for each sub-model's time."""
    for fate in (*_COLOURS, *sorted(set(table["fate"]) - set(_COLOURS))):
        times = table.loc[table["fate"] == fate, "time_s"]
        if len(times):
            label = f"{fate} ({len(times)})"
            axes.plot(times, np.zeros(len(times)), "|", color=_COLOURS.get(fate, _LEFT_OUT), markersize=12, label=label)
    for place, row in enumerate(models.itertuples(), start=1):
        axes.plot([row.first_s, row.last_s], [place, place], color=arm_color(0 if place == 1 else 1), linewidth=4)
    axes.set_ylim(-0.7, len(models) + 0.5)
    axes.set_yticks([0, *range(1, len(models) + 1)], ["frames", *(f"sub-model {n}" for n in models["sub_model"])])


def _draw_looks(axes: Axes, centres: NDArray[np.float64], ahead: NDArray[np.float64], length: float) -> None:
    for at in np.unique(np.linspace(0, len(centres) - 1, _LOOKS).round().astype(int)):
        axes.plot(*np.stack([centres[at], centres[at] + length * ahead[at]], axis=1), color=_PATH, linewidth=0.8)


def _moved(rigid: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    return points @ rigid[:3, :3].T + rigid[:3, 3]


def _without_far(points: NDArray[np.float64]) -> NDArray[np.float64]:
    away = np.linalg.norm(points - np.median(points, axis=0), axis=1)
    return np.asarray(points[away <= np.quantile(away, _SHOWN)])


def _cube(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Opposite corners of a cube around all points, so that every view of it has one scale."""
    low, high = points.min(axis=0), points.max(axis=0)
    half = 0.55 * np.max(high - low)
    return (low + high) / 2 - half, (low + high) / 2 + half
