"""Structure from motion of a video in a folder of its own: done once, with tables, pictures and a page about it."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssl.data.camera import Camera
from medssl.data.sequence import Frames
from medssl.evaluation.tables import write_table
from medssl.evaluation.trajectory import write_tum
from medssl.files import read_json, value_hash, write_json
from medssl.reconstruction.point_cloud import PointCloud, write_points
from medssl.report.sfm import frames_picture, scene_picture, sentences, sfm_report
from medssl.structure_from_motion.from_video import reconstruct
from medssl.structure_from_motion.outcome import Outcome
from medssl.structure_from_motion.settings import LensModel, Settings
from medssl.tracking import RunLike

SUMMARY = "summary.json"
"""The numbers of ``Outcome.summary``; written last, so where it is, all is."""

Mask = NDArray[np.bool_]

_WORK = ".work-"  # + the key of what it is made of


def is_reconstructed(
    frames: Frames, out: Path, camera: Camera | LensModel, mask: Mask | None = None, settings: Settings = Settings()
) -> bool:
    """Say whether ``out`` holds what ``reconstruct_into`` would make of the same."""
    path = out / SUMMARY
    return path.is_file() and read_json(path).get("made_of") == value_hash(_made_of(frames, camera, mask, settings))


def reconstruct_into(
    source: str,
    frames: Frames,
    out: Path,
    run: RunLike,
    camera: Camera | LensModel = "SIMPLE_RADIAL",
    mask: Mask | None = None,
    settings: Settings = Settings(),
    threads: int = 1,
) -> list[str]:
    """Reconstruct a video's camera poses and points, and write all that is to be known of them; returns sentences.

    What was done before an interruption is not done again.

    Args:
        source: What messages call the video.
        frames: Of the video.
        out: Folder of the recording (see ``structure_from_motion.undistorted``), of trajectory.txt, points.ply,
            frames.csv, sub_models.csv, summary.json, points.png, frames.png and report.html.
        run: Where they are logged.
        camera: Intrinsics, which are kept as they are, or the model whose intrinsics are to be estimated.
        mask: Where the video shows the body, (H, W); found where it is not given.
        settings: All else that the result depends on.
        threads: For features and matches; the result does not depend on it.

    Raises:
        InputError: The frames do not tell their motion.
    """
    made_of = _made_of(frames, camera, mask, settings)
    asked = {**made_of, "settings": {**asdict(settings), "mapping": None}}  # what is on the way does not depend on it
    work = out / f"{_WORK}{value_hash(asked)}"
    _remove_work(out, but=work)
    run.log_params(asdict(settings) | {"camera": made_of["camera"], "mask": "found" if mask is None else "given"})
    outcome = reconstruct(source, frames, out, work, camera, mask, settings, threads)
    write_outcome(outcome, out)
    run.log_metrics(outcome.summary(), 0)
    run.log_table(outcome.frames, "frames")
    run.log_table(outcome.models, "sub_models")
    for name in ("points.png", "frames.png", "report.html", "lens.json", "trajectory.txt"):
        run.log_file(out / name)
    write_json(out / SUMMARY, {**outcome.summary(), "calibration": outcome.calibration, "made_of": value_hash(made_of)})
    _remove_work(out)
    return sentences(outcome)


def write_outcome(outcome: Outcome, out: Path) -> None:
    """Write the path, the points, the tables, the pictures and the page."""
    write_tum(out / "trajectory.txt", outcome.times, outcome.poses)
    positions = outcome.points.positions.astype("float32")
    write_points(out / "points.ply", PointCloud(positions, 0 * positions, outcome.colours))
    for name, table in (("frames", outcome.frames), ("sub_models", outcome.models)):
        write_table(out / f"{name}.csv", table)
    pictures = out / "points.png", out / "frames.png"
    scene_picture(outcome, pictures[0])
    frames_picture(outcome, pictures[1])
    sfm_report(outcome, pictures, out / "report.html")


def _made_of(frames: Frames, camera: Camera | LensModel, mask: Mask | None, settings: Settings) -> dict[str, Any]:
    return {
        "video": _identity(frames.files),
        "mask": None if mask is None else value_hash(mask.tobytes().hex()),
        "camera": camera if isinstance(camera, str) else asdict(camera),
        "settings": asdict(settings),
    }


def _identity(files: Sequence[Path]) -> list[Any]:
    """What tells that a video is the same, without reading it: names, sizes and times of its files."""
    return [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]


def _remove_work(out: Path, but: Path | None = None) -> None:
    for folder in out.glob(f"{_WORK}*"):
        if folder != but:
            shutil.rmtree(folder, ignore_errors=True)
