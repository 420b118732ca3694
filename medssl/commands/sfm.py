"""``medssl sfm``: a video in, the camera's way through it and the points that it saw out."""

from pathlib import Path

import joblib

from medssl.data.calibration import read_intrinsics
from medssl.data.video import open_frames
from medssl.sfm_results import is_reconstructed, reconstruct_into
from medssl.structure_from_motion.pictures import read_mask
from medssl.structure_from_motion.settings import Features, FrameChoice, LensModel, Mapping, Matching, Settings
from medssl.tracking import open_tracker, ui_command


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
    if is_reconstructed(frames, out, camera, given_mask, settings):
        print(f"Done before, nothing has changed. Report: {out / 'report.html'}")
        return
    with open_tracker(out, "sfm").run(out.resolve().name) as run:
        workers = joblib.cpu_count() if threads < 1 else threads
        said = reconstruct_into(str(video), frames, out, run, camera, given_mask, settings, workers)
    print("\n".join(said))
    print(f"Report: {out / 'report.html'}\nMLflow: {ui_command(out)}")
