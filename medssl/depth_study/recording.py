"""The one recording of a study, with the camera poses and points that its methods learn from and are judged by."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssl.cost import COST, clocked, minutes_of
from medssl.data.calibration import read_intrinsics
from medssl.data.camera import Camera
from medssl.data.clips import posed_frames
from medssl.data.colmap import colmap_sequence
from medssl.data.prepared_recordings import PreparedRecordings
from medssl.data.sequence import Truth, VideoSequence
from medssl.errors import InputError
from medssl.evaluation.clips import judged_points
from medssl.files import read_json
from medssl.sfm_results import SUMMARY, is_reconstructed, reconstruct_into
from medssl.structure_from_motion.pictures import read_mask
from medssl.structure_from_motion.settings import LensModel, Settings
from medssl.tracking import RunLike

_NAME = "recording"  # of all results: a file may be named after a patient
_FEWEST_FRAMES = 5  # frames that a mean says something of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Recording:
    """A recording whose camera poses and points are known.

    Attributes:
        sequence: The frames, poses and points; nothing of what the maker of a test recording knows beside them.
        numbers: Which frame of the video each of its frames is, (N,), from 0.
        video_frames: Of the video.
        lens: The camera of the video's own pictures.
        told: How poses and points came about, in sentences.
        numbers_told: The same in numbers, by name.
        minutes: That structure from motion took; ``None`` where the recording had poses and points.
    """

    sequence: VideoSequence
    numbers: NDArray[np.int64]
    video_frames: int
    lens: Camera
    told: str
    numbers_told: dict[str, float]
    minutes: float | None = None

    def prepared_numbers(self, data: PreparedRecordings) -> NDArray[np.int64]:
        """Which frame of the video each prepared frame is."""
        return self.numbers[:: data.preparation.every][: data.frames(0)]


def one_recording(found: Sequence[VideoSequence], source: Path) -> VideoSequence:
    """Refuse a source that holds several recordings.

    Raises:
        InputError: It does.
    """
    if len(found) != 1:
        names = ", ".join(one.name for one in found[:5]) + (", ..." if len(found) > 5 else "")
        raise InputError(
            f"{source}: holds {len(found)} recordings ({names}); methods are compared on one. Give the path of one."
        )
    return found[0]


def has_geometry(one: VideoSequence) -> bool:
    """Whether a recording has what structure from motion would find."""
    return one.poses is not None and one.points is not None and one.camera is not None


def own_geometry(one: VideoSequence) -> Recording:
    """Take the poses and points that the recording has.

    Raises:
        InputError: It has none.
    """
    if one.poses is None or one.points is None or one.camera is None:
        raise InputError(f"{one.name}: lacks camera poses, points or intrinsics; run structure from motion on it.")
    posed = int(np.isfinite(one.poses).all((1, 2)).sum())
    told = f"The recording has its own camera poses, of {posed} of {len(one.frames)} frames, and points."
    kept = replace(one, name=_NAME, subject=_NAME, stereo=None, truth=Truth())
    numbers = {"frames_registered": float(posed), "points": float(len(one.points.positions))}
    return Recording(kept, np.arange(len(one.frames)), len(one.frames), one.camera, told, numbers)


def found_geometry(
    one: VideoSequence, source: Path, out: Path, lens: LensModel, settings: Settings, threads: int, run: RunLike
) -> Recording:
    """Find poses and points by structure from motion in ``out``, or find that done.

    Of the video only its pictures are used, and its intrinsics where they are known.

    Args:
        one: The video.
        source: What messages call it.
        out: Folder of the reconstruction, see ``medssl.sfm_results``.
        lens: The model of the lens where the intrinsics are not known.
        settings: Of structure from motion.
        threads: For features and matches.
        run: Where its results are logged.

    Raises:
        InputError: The frames do not tell their motion.
    """
    camera = lens if one.camera is None else one.camera
    if not is_reconstructed(one.frames, out, camera, one.mask, settings):
        if (out / SUMMARY).exists():  # of another reconstruction
            (out / COST).unlink(missing_ok=True)
        logger.info("Structure from motion on %d frames.", len(one.frames))
        with clocked(out / COST):
            reconstruct_into(str(source), one.frames, out, run, camera, one.mask, settings, threads)
    sequence = colmap_sequence(out)
    mask = read_mask(out / "mask.png", sequence.frames.size)
    summary: dict[str, Any] = read_json(out / SUMMARY)
    told = (
        f"Structure from motion gave {summary['frames_registered']} of {summary['frames_used']} used frames a camera "
        f"pose and found {summary['points']} points, which reproject to {summary['reprojection_error_px']:.2f} pixels; "
        f"intrinsics: {summary['calibration']}. Up to scale: lengths have no unit."
    )
    return Recording(
        replace(sequence, name=_NAME, subject=_NAME, mask=mask),
        np.array([int(path.stem) for path in sequence.frames.files]),
        len(one.frames),
        read_intrinsics(out / "lens.json", one.frames.size),
        told,
        {name: float(value) for name, value in summary.items() if isinstance(value, int | float)},
        minutes_of(out / COST),
    )


def require_judgeable(data: PreparedRecordings, held_out: float, source: Path) -> None:
    """Refuse a recording without poses or without points to learn from and to judge by.

    Raises:
        InputError: It has too few.
    """
    if not 0 < held_out < 1:
        raise InputError(f"--held_out_points is a share of the points, above 0 and below 1; got {held_out:g}.")
    geometry = data.geometry(0)
    posed = len(posed_frames(geometry))
    if posed < 2:
        raise InputError(
            f"{source}: {posed} of {data.frames(0)} prepared frames have a camera pose and are well exposed; depth is "
            "learnt from at least 2. Look at the structure from motion (report.html in sfm), or give another part."
        )
    if geometry.observations is None:
        raise InputError(f"{source}: has no points of structure from motion in its prepared frames to judge depth by.")
    judged = [len(judged_points(geometry.observations, t, held_out)[1]) > 1 for t in range(data.frames(0))]
    if sum(judged) < min(_FEWEST_FRAMES, len(judged)):
        raise InputError(
            f"{source}: only {sum(judged)} of {len(judged)} frames see two or more of the held-out points, too few to "
            "judge depth by. Hold out more (--held_out_points), or find more points (structure.features)."
        )
