"""``medssl depth``: a trained method and a video in; depth, a surface, a flight through it and their scores out."""

from dataclasses import asdict, replace
from pathlib import Path

import torch

from medssl.commands.prepare import recordings_of
from medssl.data.prepare_recordings import prepare_recordings
from medssl.data.prepared_recordings import PreparedRecordings, RecordingPreparation, is_prepared_recordings
from medssl.depth_results.cameras import Asked
from medssl.depth_results.run import DepthOptions, depth_of_recording
from medssl.depth_results.surface import SceneOptions
from medssl.errors import InputError
from medssl.files import content_hash, value_hash
from medssl.method_file import METHOD, TrainedMethod, load_method
from medssl.stages import Summary, is_done
from medssl.tracking import Tracker, hashed, open_tracker, ui_command
from medssl.training import Precision, use_bf16
from medssl.video_inference import DepthInference, depth_method
from medssl.weights import find_folder


def depth(
    model: str,
    video: Path,
    out: Path,
    *,
    poses: Asked = "auto",
    every: int = 1,
    longest: int | None = None,
    mask: bool = True,
    intrinsics: str | None = None,
    right: Path | None = None,
    calibration: Path | None = None,
    mesh: bool = True,
    voxel: float | None = None,
    views: int = 300,
    fly_frames: int = 250,
    overlay: bool = True,
    batch_size: int = 8,
    precision: Precision = "auto",
    device: str = "auto",
    jobs: int = -1,
) -> None:
    """Tell the depth of whole recordings, and make of it a surface, a flight through it, and scores.

    Lengths are in the recording's unit where depth or camera poses have one, and "up to scale" otherwise; every result
    says which. What cannot be made is left out, and the reason is told.

    A finished recording is not done again; anything else is made anew.

    Args:
        model: The folder method of a pretraining, the pretraining's own folder, or an MLflow URI.
        video: A video, a folder of frames, of structure from motion, a COLMAP model, a stereo layout, a folder of
            several of these, or what medssl prepare made of them.
        out: Folder of depth/ and valid/ (a file per frame, numbered as in the recording), overlay.mp4, points.ply,
            mesh.ply, coverage.json, overview.png, fly_through.mp4, trajectory_tum.txt, trajectory_kitti.txt,
            metrics.csv, metrics_summary.csv, trajectory_metrics.csv, report.html, summary.json and the MLflow store; of
            several recordings, each has a folder of its name in it.
        poses: Camera poses: the recording's own, or those of the network's motion from frame to frame; auto takes the
            recording's where there are some, else the network's; none fuses nothing.
        every: Take every n-th frame.
        longest: Frames at most, from the start.
        mask: Find the endoscope's field of view where the recording does not say it.
        intrinsics: fx,fy,cx,cy of the camera in pixels, or a file with them, where the layout does not tell.
        right: The second camera's video or folder of frames, of a stereo recording.
        calibration: Of the two cameras, a YAML or JSON file.
        mesh: Fuse a surface; without, points alone.
        voxel: Edge of the voxels of points and surface, in the depth's unit; by default 1/256 of the scene's longest
            edge.
        views: Frames that are fused, at most; spread over the recording.
        fly_frames: Of the flight through the scene, at 25 a second; 0 for none.
        overlay: Write the video of the frames beside their depth.
        batch_size: Frames that the network sees at once.
        precision: auto is bf16 where the processor computes in it.
        device: cpu, cuda, or auto.
        jobs: Processes that prepare recordings; -1 is one per core.
    """
    folder = method_folder(model)
    trained = load_method(folder)
    method, preparation = depth_method(trained, model)
    scene = SceneOptions(voxel, views, mesh, fly_frames)
    options = DepthOptions(poses, scene, overlay, float(trained.recipe.get("held_out_points", 0.0)))
    method.to(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    low = torch.bfloat16 if use_bf16(precision) else torch.float32
    if batch_size < 1:
        raise InputError(f"--batch_size must be at least 1, got {batch_size}.")
    data, refused = _prepared(
        video, out, replace(preparation, every=every, longest=longest, mask=mask), intrinsics, right, calibration, jobs
    )
    made_of = [content_hash(folder), asdict(options), str(low)]
    tracker = open_tracker(out, "depth")
    for i, name in enumerate(data.names):
        place = out if len(data) == 1 and not refused else out / name
        identity = value_hash([*made_of, str(data.index["key"].iat[i])])
        if is_done(place, identity):
            print(f"{name}: done before, nothing has changed. Report: {place / 'report.html'}")
            continue
        inference = DepthInference(method, low, batch_size)
        try:
            summary = _look(tracker, inference, data, i, place, options, identity, trained)
        except InputError as error:
            if len(data) == 1 and not refused:
                raise
            refused.append(str(error))
            continue
        _tell(name, place, summary)
    print(f"MLflow: {ui_command(out)}")
    if refused:
        raise InputError(
            f"{len(refused)} of the recordings could not be used:\n" + "\n".join(f"  {r}" for r in refused)
        )


def method_folder(model: str) -> Path:
    """The method's folder, also where the folder of its pretraining is given."""
    inside = Path(model) / METHOD.name
    return inside if METHOD.inside(inside) else find_folder(model, METHOD)[0]


def _prepared(
    video: Path,
    out: Path,
    preparation: RecordingPreparation,
    intrinsics: str | None,
    right: Path | None,
    calibration: Path | None,
    jobs: int,
) -> tuple[PreparedRecordings, list[str]]:
    """Open prepared recordings, or prepare them as the method's own were; and why others could not be."""
    if not is_prepared_recordings(video):
        sequences = recordings_of(video, intrinsics, right, calibration=calibration)
        report = prepare_recordings(sequences, out / "prepared", preparation, jobs)
        print(report.table())
        return report.dataset(), [one.reason for one in report.refused]
    data = PreparedRecordings(video)
    if data.preparation.size != preparation.size:
        told = " and ".join("x".join(map(str, size)) for size in (data.preparation.size, preparation.size))
        raise InputError(
            f"{video}: its pictures and those that the method learnt from differ in size: {told} pixels. Give the "
            "video itself, or prepare it at the method's size (--recording.size)."
        )
    return data, []


def _look(
    tracker: Tracker,
    inference: DepthInference,
    data: PreparedRecordings,
    i: int,
    place: Path,
    options: DepthOptions,
    identity: str,
    trained: TrainedMethod,
) -> Summary:
    """Make one recording's results in a run of their own."""
    with tracker.run(hashed(data.names[i])) as run:
        run.log_params(
            {
                "method": trained.name,
                "method_arguments": trained.arguments,
                "encoder": trained.encoder,
                "recording": str(data.index["key"].iat[i]),
                "preparation": data.preparation.to_dict(),
                "options": asdict(options),
                "precision": str(inference.precision),
                "device": inference.device.type,
            }
        )
        return depth_of_recording(inference, data, i, place, options, run, identity)


def _tell(name: str, place: Path, summary: Summary) -> None:
    print(f"{name}: " + "\n  ".join(summary.sentences))
    for what, why in summary.left_out.items():
        print(f"  Left out: {what}: {why}")
    print(f"  Report: {place / 'report.html'}")
