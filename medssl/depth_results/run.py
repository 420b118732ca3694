"""One recording through a method of depth: every result, what was left out, and a page about it."""

import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from medssl.anonymity import without_names
from medssl.data.prepared_recordings import PreparedRecordings
from medssl.depth_results.cameras import Asked
from medssl.depth_results.maps import DepthMaps, write_maps
from medssl.depth_results.pictures import frame_pictures, path_picture, write_overlay
from medssl.depth_results.scores import Scores, score
from medssl.depth_results.surface import Scene, SceneOptions, make_scene
from medssl.errors import InputError
from medssl.evaluation.tables import write_table
from medssl.evaluation.trajectory import write_kitti, write_tum
from medssl.files import write_json
from medssl.memory import peak_memory_mib
from medssl.report.page import Section, html_report
from medssl.stages import Summary
from medssl.tracking import RunLike
from medssl.video_inference import DepthInference

_FOLDERS = ("depth", "valid", "pictures")
_FILES = (
    "summary.json",
    "overlay.mp4",
    "points.ply",
    "mesh.ply",
    "coverage.json",
    "overview.png",
    "fly_through.mp4",
    "trajectory_tum.txt",
    "trajectory_kitti.txt",
    "metrics.csv",
    "metrics_summary.csv",
    "trajectory_metrics.csv",
    "report.html",
)


@dataclass(frozen=True)
class DepthOptions:
    """What is asked for.

    Args:
        poses: Camera poses, see ``medssl.depth_results.cameras.choose_cameras``.
        scene: What is made of depth and poses.
        overlay: Write the video of the frames beside their depth.
        held_out_points: Share of structure from motion's points that the method did not learn from.
    """

    poses: Asked = "auto"
    scene: SceneOptions = field(default_factory=SceneOptions)
    overlay: bool = True
    held_out_points: float = 0.0


def depth_of_recording(
    inference: DepthInference,
    data: PreparedRecordings,
    i: int,
    out: Path,
    options: DepthOptions,
    run: RunLike,
    made_of: str,
) -> Summary:
    """Make all results of recording ``i`` in ``out``; earlier ones are removed first, ``summary.json`` comes last.

    Args:
        inference: The method; its clock starts at 0.
        data: Prepared recordings.
        i: Which of them.
        out: Folder of the results.
        options: What is asked for.
        run: Where scores, tables and pictures are logged.
        made_of: What the summary says that it was made of.

    Raises:
        InputError: The recording lacks what the method or the poses asked for need, or the disk is full.
    """
    start = time.perf_counter()
    _remove(out)
    clock = inference.clock
    maps = write_maps(inference, data, i, out, options.poses, options.held_out_points)
    if maps.cameras.poses is not None:
        write_tum(out / "trajectory_tum.txt", _times(maps), maps.cameras.poses)
        write_kitti(out / "trajectory_kitti.txt", maps.cameras.poses)
    with clock.measure("scoring"):
        scores = score(maps, inference.method.metric, options.held_out_points)
        _write_scores(scores, out, run)
    scene = make_scene(maps, options.scene, clock)
    with clock.measure("drawing"):
        if options.overlay:
            try:
                write_overlay(maps)
            except InputError as error:
                scene.left_out["overlay.mp4"] = str(error)
        pictures = frame_pictures(maps, out / "pictures")
        if path_picture(maps, out / "pictures" / "path.png"):
            scene.pictures.append(out / "pictures" / "path.png")
    numbers = _numbers(maps, scores, scene)
    numbers |= _speed(inference, len(maps), time.perf_counter() - start)
    sentences = _sentences(maps, numbers)
    _page(maps, scores, scene, pictures, numbers, sentences)
    run.log_metrics(numbers, 0)
    run.log_folder(out / "pictures", "pictures")
    for name in ("overview.png", "report.html", "coverage.json", "trajectory_tum.txt"):
        if (out / name).is_file():
            run.log_file(out / name)
    run.log_file(out / "depth" / "scale.json", "depth")
    told: dict[str, Any] = {"banner": maps.cameras.banner, "unit": maps.cameras.unit, "poses": maps.cameras.source}
    told |= {"sentences": sentences, "left_out": scene.left_out, "numbers": numbers, "made_of": made_of}
    write_json(out / "summary.json", told)
    return Summary(numbers, sentences, scene.left_out)


def _remove(out: Path) -> None:
    """Remove earlier results, so that nothing of another run stands beside the new ones; the summary first."""
    for name in _FILES:
        (out / name).unlink(missing_ok=True)
    for name in _FOLDERS:
        shutil.rmtree(out / name, ignore_errors=True)


def _times(maps: DepthMaps) -> np.ndarray[Any, np.dtype[np.float64]]:
    """When each frame was taken, seconds; its number where the rate is not known."""
    times = maps.data.geometry(maps.i).times
    return times if np.isfinite(times).all() else np.array([float(maps.number(t)) for t in range(len(maps))])


def _write_scores(scores: Scores, out: Path, run: RunLike) -> None:
    for name, table in (
        ("metrics", scores.depth),
        ("metrics_summary", scores.depth_summary),
        ("trajectory_metrics", scores.path),
    ):
        if table is not None:
            write_table(out / f"{name}.csv", table)
            run.log_table(without_names(table), name)


def _numbers(maps: DepthMaps, scores: Scores, scene: Scene) -> dict[str, float]:
    poses = maps.cameras.poses
    registered = 0 if poses is None else int(np.isfinite(poses).all((1, 2)).sum())
    numbers = {"frames": float(len(maps)), "frames_with_pose": float(registered)}
    numbers |= {"share_with_pose": registered / len(maps), "valid_share": float(maps.valid_share.mean())}
    numbers |= {"depth_nearest": maps.limits[0], "depth_farthest": maps.limits[1]}
    return numbers | scores.numbers() | scene.numbers


def _speed(inference: DepthInference, frames: int, seconds: float) -> dict[str, float]:
    """Frames per second of the network and of all, the network's share of the time, and peak memory."""
    network = inference.clock.seconds.get("network", 0.0)
    numbers = {f"seconds/{what}": spent for what, spent in inference.clock.seconds.items()}
    numbers |= {"seconds/all": seconds, "frames_per_second/network": frames / max(network, 1e-9)}
    numbers |= {"frames_per_second/all": frames / seconds, "network_share_of_time": network / seconds}
    if (peak := peak_memory_mib()) is not None:
        numbers["peak_memory_mib"] = peak
    if inference.device.type == "cuda":
        numbers["peak_gpu_memory_mib"] = torch.cuda.max_memory_allocated(inference.device) / 2**20
    return numbers


def _sentences(maps: DepthMaps, numbers: dict[str, float]) -> list[str]:
    cameras = maps.cameras
    said = [f"{cameras.banner}.", cameras.told]
    said.append(f"{numbers['frames_with_pose']:.0f} of {len(maps)} frames have a camera pose.")
    if "estimated_share_seen" in numbers:
        unit = "units" if cameras.unit == "unknown" else cameras.unit
        said.append(
            f"{numbers['seen_area']:.4g} square {unit} of surface were seen, about "
            f"{numbers['estimated_share_seen']:.0%} of what lies along the camera's way; the gaps measure about "
            f"{numbers['unseen_area_estimate']:.3g}. {numbers['seen_share_of_mesh']:.0%} of the fused surface lies "
            "where its views say: the more, the better depth and poses agree."
        )
    speed = (
        f"{numbers['frames_per_second/network']:.3g} frames per second through the network, "
        f"{numbers['frames_per_second/all']:.3g} with all results; the network took "
        f"{numbers['network_share_of_time']:.0%} of {numbers['seconds/all']:.0f} s"
    )
    peak = f"; at most {numbers['peak_memory_mib']:.0f} MiB of memory." if "peak_memory_mib" in numbers else "."
    return [*said, speed + peak]


def _page(
    maps: DepthMaps,
    scores: Scores,
    scene: Scene,
    pictures: list[Path],
    numbers: dict[str, float],
    sentences: list[str],
) -> None:
    """Write ``report.html``."""
    out, table = maps.out, scores.depth_summary
    left_out = "\n\n".join(f"{what}: {why}" for what, why in scene.left_out.items()) or "Nothing."
    shown = {picture.name: picture for picture in scene.pictures}
    surface = [shown["overview.png"]] if "overview.png" in shown else []
    path = [shown["path.png"]] if "path.png" in shown else []
    rows = pd.DataFrame({"what": list(numbers), "value": list(numbers.values())})
    way = None if scores.path is None else scores.path.drop(columns=["scan", "subject"])  # the page is tracked
    sections = [
        Section(maps.cameras.banner, "\n\n".join(sentences[1:])),
        Section("Frames", "Grey is unknown or not valid. Near is red, far is blue.", None, pictures),
        Section("Scores of the depth", scores.told, None if table is None else table.dropna(axis=1, how="all")),
        Section("The camera's path", "" if path else "There are no poses.", way, path),
        Section("The surface", "Magenta: not seen. Blue: the camera's way." if surface else "", None, surface),
        Section("Left out", left_out),
        Section("Numbers", "", rows),
    ]
    html_report("Depth of a recording", sections, out / "report.html")
