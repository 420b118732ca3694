"""From a video to camera poses and points: choose frames, find and match features, map, undistort, write."""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medssl.data.camera import Camera
from medssl.data.colmap import colmap_sequence
from medssl.data.endoscope_mask import find_mask
from medssl.data.sequence import Frames
from medssl.errors import InputError
from medssl.extras import require_module
from medssl.files import read_json, value_hash, write_json
from medssl.structure_from_motion.frame_choice import STATIC, USED, Look, candidate_frames, choose, mask_sample
from medssl.structure_from_motion.incremental import (
    LEAST_FRAMES,
    Matches,
    extract_features,
    fit,
    map_frames,
    match_features,
    read_matches,
)
from medssl.structure_from_motion.lens import field_of_view
from medssl.structure_from_motion.outcome import Outcome, attempts_table, frames_table, models_table
from medssl.structure_from_motion.pictures import (
    picture_name,
    read_mask,
    reduced_size,
    save_png,
    write_feature_picture,
)
from medssl.structure_from_motion.settings import FrameChoice, LensModel, Mapping, Settings
from medssl.structure_from_motion.undistorted import write_recording

logger = logging.getLogger(__name__)

_LEAST_FEATURES = 100  # per frame, below which texture is what is missing


def reconstruct(
    source: str,
    frames: Frames,
    out: Path,
    work: Path,
    camera: Camera | LensModel = "SIMPLE_RADIAL",
    mask: NDArray[np.bool_] | None = None,
    settings: Settings = Settings(),
    threads: int = 1,
) -> Outcome:
    """Reconstruct camera poses and points, and write them as a recording (see ``undistorted.write_recording``).

    What was done before an interruption is found in ``work``, and not done again.

    Args:
        source: What messages call the video.
        frames: Of the video.
        out: Folder of the recording.
        work: Folder of what is made on the way; for these frames, this mask and these settings alone.
        camera: Intrinsics, which are kept as they are, or the model whose intrinsics are to be estimated.
        mask: Where the video shows the body, (H, W); found where it is not given.
        settings: All else that the result depends on.
        threads: For features and matches; the result does not depend on it.

    Raises:
        InputError: The frames do not tell their motion: too few, badly exposed, static, without texture or parallax.
    """
    require_module("pycolmap", "endoscopy")  # before minutes are spent on choosing frames
    times = frame_times(frames)
    candidates = candidate_frames(times, settings.choice)
    if len(candidates) < LEAST_FRAMES:
        raise InputError(
            f"{source}: {len(candidates)} frames are to be looked at, of {len(frames)}; structure from motion needs at "
            f"least {LEAST_FRAMES}, and some 20 to be sure. Give a longer part, or look at more frames (choice.every)."
        )
    mask = _field_of_view(frames, candidates, mask, work / "mask.png")
    looks = _look(source, frames, times, mask, settings, work)
    used = [look.frame for look in looks if look.verdict == USED]
    _require_motion(source, looks, settings.choice)
    matches = _match([picture_name(number) for number in used], frames.size, mask, camera, settings, threads, work)
    attempts = _map(settings, isinstance(camera, Camera), work)
    models = max(attempts, key=lambda models: _worth(models, settings.mapping))
    if not models:
        raise InputError(f"{source}: {_why_none(matches)}")
    numbers = [registered_frames(model) for model in models]
    compared = attempts_table(attempts, models, settings.seed)
    lens = camera if isinstance(camera, Camera) else _estimated(models[0], work).resized(*frames.size)
    write_recording(models[0], lens, frames, numbers[0], mask, out)
    sequence = colmap_sequence(out)
    return Outcome(
        sequence=sequence,
        colours=np.array([models[0].points3D[number].color for number in sorted(models[0].points3D)], dtype=np.uint8),
        lens=lens,
        calibration="given" if isinstance(camera, Camera) else f"estimated ({camera})",
        frames=frames_table(looks, times, matches, numbers, sequence),
        models=models_table(models, numbers, times),
        attempts=compared,
    )


def frame_times(frames: Frames) -> NDArray[np.float64]:
    """When each frame is shown, (N,), seconds; their numbers where the rate is not known."""
    times = np.asarray(frames.times, dtype=np.float64)
    return times if np.isfinite(times).all() else np.arange(len(frames), dtype=np.float64)


def registered_frames(model: Any) -> list[int]:
    """The video's frames that a model gives a pose, ascending."""
    return sorted(int(Path(image.name).stem) for image in model.images.values() if image.has_pose)


def _field_of_view(
    frames: Frames, candidates: list[int], given: NDArray[np.bool_] | None, kept: Path
) -> NDArray[np.bool_]:
    if given is not None:
        return given
    if not kept.is_file():
        save_png(np.asarray(find_mask(mask_sample(frames, candidates)) * np.uint8(255)), kept)
    return read_mask(kept, frames.size)


def _look(
    source: str,
    frames: Frames,
    times: NDArray[np.float64],
    mask: NDArray[np.bool_],
    settings: Settings,
    work: Path,
) -> list[Look]:
    """Choose frames, and write their pictures for features; or read what was chosen before."""
    kept = work / "looks.json"
    if kept.is_file():
        return [Look(*row) for row in read_json(kept)]
    looks, used = [], 0
    for look, frame in choose(frames, times, mask, settings.choice):
        looks.append(look)
        if look.verdict != USED:
            continue
        used += 1
        if used > settings.choice.most:
            raise InputError(
                f"{source}: more than {settings.choice.most} frames are to be used, up to {times[look.frame]:.1f} s. "
                "Reconstruct a part (choice.start_s, choice.end_s), ask for more motion between frames "
                "(choice.motion), or allow more (choice.most)."
            )
        name = picture_name(look.frame)
        write_feature_picture(frame, mask, settings.features, work / "pictures", work / "masks", name)
    write_json(kept, looks)
    return looks


def _require_motion(source: str, looks: list[Look], choice: FrameChoice) -> None:
    counts = pd.Series([look.verdict for look in looks]).value_counts()
    used = int(counts.get(USED, 0))
    if used >= LEAST_FRAMES:
        return
    others = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if verdict != USED)
    moved = np.nanmax([look.motion for look in looks] + [0.0])
    why = (
        f"The picture moved by at most {100 * moved:.2f} % of its width from one used frame to the next ones, and "
        f"{100 * choice.motion:g} % are asked for (choice.motion): a camera that stands still shows no depth."
        if STATIC in counts
        else "Give a part that is well exposed (choice.start_s, choice.end_s); where the field of view was found "
        "wrongly, give it (mask)."
    )
    raise InputError(
        f"{source}: {used} of {len(looks)} frames can be used ({others}); at least {LEAST_FRAMES} are needed. {why}"
    )


def _match(
    names: list[str],
    size: tuple[int, int],
    mask: NDArray[np.bool_],
    camera: Camera | LensModel,
    settings: Settings,
    threads: int,
    work: Path,
) -> Matches:
    database, reduced = work / "database.db", reduced_size(size, settings.features.longest_side)
    logger.info("Finding features in %d frames of %dx%d pixels.", len(names), reduced[1], reduced[0])
    extract_features(
        database,
        work / "pictures",
        work / "masks",
        names,
        camera.resized(*reduced) if isinstance(camera, Camera) else camera,
        field_of_view(mask, reduced),
        settings.features,
        threads,
        settings.seed,
    )
    logger.info("Matching them.")
    match_features(database, settings.matching, threads, settings.seed)
    return read_matches(database)


def _map(settings: Settings, calibrated: bool, work: Path) -> list[list[Any]]:
    """The sub-models of each attempt; those of an attempt with these settings that was made before are read."""
    mapping = settings.mapping
    attempts: list[list[Any]] = []
    asked = value_hash({**asdict(mapping), "attempts": None})
    for seed in range(settings.seed, settings.seed + mapping.attempts):
        logger.info("Mapping, attempt %d of %d.", len(attempts) + 1, mapping.attempts)
        folder = work / "models" / f"{asked}-{seed}"
        attempts.append(map_frames(work / "database.db", work / "pictures", folder, mapping, calibrated, seed))
    return attempts


def _worth(models: list[Any], mapping: Mapping) -> tuple[int, float]:
    """What an attempt is chosen by: the frames of its largest sub-model, and how well it fits."""
    return (models[0].num_reg_images(), fit(models[0], mapping.max_error_px)) if models else (0, 0.0)


def _estimated(model: Any, work: Path) -> Camera:
    """The camera of the reduced pictures, in medssl's terms."""
    folder = work / "largest"
    folder.mkdir(exist_ok=True)
    model.write_binary(folder)
    camera = colmap_sequence(folder, work / "pictures").camera
    assert camera is not None  # a reconstruction always has one
    return camera


def _why_none(matches: Matches) -> str:
    """Say what is missing where no frame can be placed, from the features and matches that there are."""
    features = int(np.median(list(matches.features.values())))
    frames, pairs = len(matches.features), len(matches.pairs)
    found = (
        f"no motion of the camera could be found from {frames} frames, with {features} features each and {pairs} pairs"
    )
    if features < _LEAST_FEATURES:
        return (
            f"{found} that match: too little texture. Lower features.peak_threshold, or set features.equalise to 0.01."
        )
    if pairs < frames - 1:
        return (
            f"{found} that match: too little in common. Use frames nearer to each other (choice.motion, choice.every)."
        )
    return (
        f"{found} that match, but without parallax: the camera stands still or only turns, or what is seen moves with "
        "it. Give a part where it travels."
    )
