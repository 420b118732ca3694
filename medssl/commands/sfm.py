"""``medssl sfm``: a video in, the camera's way through it and the points that it saw out."""

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import joblib

from medssl.data.calibration import read_intrinsics
from medssl.data.video import open_frames
from medssl.evaluation.tables import write_table
from medssl.evaluation.trajectory import write_tum
from medssl.files import content_hash, read_json, value_hash, write_json
from medssl.reconstruction.point_cloud import PointCloud, write_points
from medssl.report.sfm import frames_picture, scene_picture, sentences, sfm_report
from medssl.structure_from_motion.from_video import reconstruct
from medssl.structure_from_motion.outcome import Outcome
from medssl.structure_from_motion.pictures import read_mask
from medssl.structure_from_motion.settings import Features, FrameChoice, LensModel, Mapping, Matching, Settings
from medssl.tracking import open_tracker, ui_command

_WORK = ".work-"  # + the key of what it is made of


def sfm(
    video: Path,
    out: Path,
    *,
    intrinsics: str | None = None,
    scale_intrinsics: bool = False,
    lens: LensModel = "SIMPLE_RADIAL",
    mask: Path | None = None,
    choice: FrameChoice = FrameChoice(),
    features: Features = Features(),
    matching: Matching = Matching(),
    mapping: Mapping = Mapping(),
    threads: int = -1,
    seed: int = 0,
) -> None:
    """Find the camera's way through a video and the points that it saw: structure from motion, up to scale.

    An interrupted run goes on where it stopped; a finished one is not done again.

    Args:
        video: A video, a folder of numbered pictures, or a DICOM cine.
        out: Folder of sparse/ (COLMAP), images/ without distortion, mask.png, camera.json (of the images), lens.json
            (of the video), trajectory.txt (TUM), points.ply, frames.csv, sub_models.csv, summary.json, points.png,
            frames.png, report.html and of the MLflow store.
        intrinsics: 'fx,fy,cx,cy[,width,height]' or a .json or .yaml file, such as another run's lens.json; they are
            kept as they are. Without, they are estimated.
        scale_intrinsics: Scale intrinsics of another size of the same picture.
        lens: COLMAP's camera model that is estimated: SIMPLE_RADIAL, or OPENCV for long recordings that move much.
        mask: A picture that is white where the video shows the body; by default it is found.
        choice: Which frames are used.
        features: How points are found in them.
        matching: Which frames are compared.
        mapping: When a camera or a point is trusted.
        threads: For features and matches; -1 is one per core. The result does not depend on it.
        seed: Of all that is drawn.
    """
    frames = open_frames(video)
    settings = Settings(choice, features, matching, mapping, seed)
    camera = lens if intrinsics is None else read_intrinsics(intrinsics, frames.size, scale_intrinsics)
    given_mask = None if mask is None else read_mask(mask, frames.size)
    made_of: dict[str, Any] = {
        "video": _identity(video),
        "mask": None if mask is None else content_hash(mask),
        "camera": camera if isinstance(camera, str) else asdict(camera),
        "settings": asdict(settings),
    }
    summary = out / "summary.json"
    if summary.is_file() and read_json(summary).get("made_of") == value_hash(made_of):
        print(f"Done before, nothing has changed. Report: {out / 'report.html'}")
        return
    asked = {**made_of, "settings": {**asdict(settings), "mapping": None}}  # what is on the way does not depend on it
    work = out / f"{_WORK}{value_hash(asked)}"
    _remove_work(out, but=work)
    with open_tracker(out, "sfm").run(out.resolve().name) as run:
        run.log_params(asdict(settings) | {"camera": made_of["camera"], "mask": "found" if mask is None else "given"})
        workers = joblib.cpu_count() if threads < 1 else threads
        outcome = reconstruct(str(video), frames, out, work, camera, given_mask, settings, workers)
        write_outcome(outcome, out)
        run.log_metrics(outcome.summary(), 0)
        run.log_table(outcome.frames, "frames")
        run.log_table(outcome.models, "sub_models")
        for name in ("points.png", "frames.png", "report.html", "lens.json", "trajectory.txt"):
            run.log_file(out / name)
    write_json(summary, {**outcome.summary(), "calibration": outcome.calibration, "made_of": value_hash(made_of)})
    _remove_work(out)
    print("\n".join(sentences(outcome)))
    print(f"Report: {out / 'report.html'}\nMLflow: {ui_command(out)}")


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


def _identity(video: Path) -> list[Any]:
    """What tells that a video is the same, without reading it: names, sizes and times of its files."""
    files = sorted(path for path in video.iterdir() if path.is_file()) if video.is_dir() else [video]
    return [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]


def _remove_work(out: Path, but: Path | None = None) -> None:
    for folder in out.glob(f"{_WORK}*"):
        if folder != but:
            shutil.rmtree(folder, ignore_errors=True)
