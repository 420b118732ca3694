"""``medssl track``: a trained method, a video and one frame's labels in; the labels of every frame out."""

from dataclasses import asdict
from pathlib import Path

import torch

from medssl.commands.depth import method_folder
from medssl.data.prepared_recordings import RecordingPreparation
from medssl.data.sequence import Frames
from medssl.data.video import open_frames
from medssl.errors import InputError
from medssl.files import content_hash, value_hash
from medssl.label_propagation import Propagation
from medssl.method_file import TrainedMethod, load_method
from medssl.object_tracking.comparison import FLOW, RANDOM, STAYING
from medssl.object_tracking.followers import (
    ByLikeness,
    Follower,
    Staying,
    correspondence_method,
    flow_follower,
    untrained,
)
from medssl.object_tracking.given import Given, numbered_masks, read_given, read_marks
from medssl.object_tracking.run import TrackOptions, check_frames, track_recording
from medssl.object_tracking.truth import read_truth
from medssl.stages import is_done
from medssl.tracking import open_tracker, ui_command
from medssl.training import Precision, use_bf16


def track(
    model: str,
    video: Path,
    out: Path,
    *,
    first: Path,
    first_frame: int = 0,
    both: bool = False,
    size: tuple[int, int] | None = None,
    propagation: Propagation = Propagation(),
    nifti: bool = False,
    overlay: bool = True,
    truth: Path | None = None,
    flow: str | None = None,
    random_weights: bool = False,
    seed: int = 0,
    batch_size: int = 8,
    precision: Precision = "auto",
    device: str = "auto",
) -> None:
    """Carry objects or points of one frame through a whole video, and say where they are hidden.

    An hour takes no more memory than a minute. A finished video is not done again; anything else is made anew.

    Args:
        model: The folder method of a pretraining by video_colorization or cycle_walk, the pretraining's own folder, or
            an MLflow URI.
        video: A video, a folder of numbered pictures, or a DICOM cine.
        out: Folder of masks/ (an indexed PNG per frame) and confidence.csv, or of points.csv; of overlay.mp4,
            masks.nii.gz, metrics.csv, metrics_summary.csv, report.html, summary.json and the MLflow store.
        first: What is followed, of one frame: a mask (PNG, .npy or NIfTI, 0 for none, 1, 2, ... for objects), or points
            (CSV or JSON: name, x, y in pixels of the full picture). Or a folder of masks that are named as their frames
            or by these' numbers: objects of later ones are followed from there on, and put right if they were before.
        first_frame: Which frame that is, counted from 0; the names of a folder's masks tell it.
        both: Follow backwards from it too, or from the first of several.
        size: Height and width at which the network sees the video; by default those that it learnt from.
        propagation: How labels are carried from frame to frame.
        nifti: Write all masks as one NIfTI too.
        overlay: Write the video with what was followed drawn in.
        truth: A folder of masks of some frames, or a CSV of points with the column frame, to score by, beside what says
            that nothing moves.
        flow: With a truth: the folder of a method of optical flow, to compare with.
        random_weights: With a truth: compare with the same network before it learnt.
        seed: Of the random weights.
        batch_size: Frames that the network sees at once.
        precision: auto is bf16 where the processor computes in it.
        device: cpu, cuda, or auto.
    """
    folder = method_folder(model)
    trained = load_method(folder)
    method, preparation = correspondence_method(trained, model)
    flow_folder = None if flow is None else method_folder(flow)
    if truth is None and (flow is not None or random_weights):
        raise InputError("--flow and --random_weights are compared by a truth: give --truth, a folder of masks.")
    if batch_size < 1:
        raise InputError(f"--batch_size must be at least 1, got {batch_size}.")
    seen = RecordingPreparation(size or preparation.size).size  # which refuses sizes that no network takes
    frames = open_frames(video)
    options = TrackOptions(_first_frame(first, first_frame, frames), both, nifti, overlay)
    check_frames(str(video), frames, options)
    if first.is_dir():
        given: Given = read_marks(first, frames)
    else:
        given = read_given(first, frames.size, first_frame, len(frames))
    known = None if truth is None else read_truth(truth, frames)
    low = torch.bfloat16 if use_bf16(precision) else torch.float32
    files = [path for path in (folder, flow_folder, first, truth, *frames.files) if path is not None]
    asked = [asdict(options), asdict(propagation), seen, str(low), random_weights, seed]
    identity = value_hash([content_hash(*files), *asked, [path is None for path in (flow_folder, truth)]])
    if is_done(out, identity):
        print(f"Done before, nothing has changed. Report: {out / 'report.html'}")
        return
    where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    follower = ByLikeness(method.to(where), seen, propagation, low, batch_size)
    others = _others(trained, follower, flow_folder, random_weights, seed)
    with open_tracker(out, "track").run(out.resolve().name) as run:
        run.log_params(
            {
                "method": trained.name,
                "method_arguments": trained.arguments,
                "encoder": trained.encoder,
                "recording": identity,
                "size": list(seen),
                "options": asdict(options),
                "propagation": asdict(propagation),
                "precision": str(low),
                "device": where,
            }
        )
        summary = track_recording(
            follower, frames, given, out, options, run, identity, name=trained.name, truth=known, others=others
        )
    print("\n".join(summary.sentences))
    for what, why in summary.left_out.items():
        print(f"Left out: {what}: {why}")
    print(f"Report: {out / 'report.html'}\nMLflow: {ui_command(out)}")


def _first_frame(first: Path, asked: int, frames: Frames) -> int:
    """The frame whose labels are given, or the first of them."""
    if not first.is_dir():
        return asked
    earliest = min(numbered_masks(first, frames))
    if asked not in (0, earliest):
        raise InputError(
            f"{first}: the names of its masks tell their frames, the first of which is {earliest}; --first_frame "
            f"{asked} is another one. Leave it out, or give that frame's mask alone."
        )
    return earliest


def _others(
    trained: TrainedMethod, follower: ByLikeness, flow: Path | None, random_weights: bool, seed: int
) -> dict[str, Follower]:
    """What the method is compared with."""
    others: dict[str, Follower] = {STAYING: Staying()}
    if flow is not None:
        by_flow = flow_follower(load_method(flow), str(flow))
        by_flow.method.to(follower.device)
        others[FLOW] = by_flow
    if random_weights:
        before = untrained(trained, seed).to(follower.device)
        others[RANDOM] = ByLikeness(
            before, follower.size, follower.propagation, follower.precision, follower.batch_size
        )
    return others
