"""What came out of structure from motion, as numbers: the recording, each frame's fate, and every sub-model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medssl.data.camera import Camera, project
from medssl.data.poses import inverted
from medssl.data.sequence import SparsePoints, VideoSequence
from medssl.structure_from_motion.frame_choice import USED, Look
from medssl.structure_from_motion.incremental import Matches
from medssl.structure_from_motion.pictures import picture_name

REGISTERED, ELSEWHERE, LOST = "registered", "in another sub-model", "not registered"


@dataclass(frozen=True)
class Outcome:
    """A reconstruction, and how far it can be trusted.

    Attributes:
        sequence: The registered frames, without distortion; up to scale.
        colours: Of its points, RGB (P, 3), uint8.
        lens: Intrinsics of the video's own pictures.
        calibration: Where they are from: ``"given"``, or ``"estimated (<model>)"``.
        frames: One row per frame looked at: ``frame``, ``time_s``, ``motion`` since the last used frame (share of the
            width), ``fate``, ``features``, ``observations``, and ``error_px``, their mean reprojection error in the
            full-size picture without distortion.
        models: One row per sub-model, the kept one first: ``sub_model``, ``frames``, ``first_s``, ``last_s``,
            ``points``.
        attempts: One row per attempt to map the frames: ``seed``, ``sub_models``, and of the largest ``frames``,
            ``points`` and ``error_px``, their mean reprojection error in the reduced picture; and ``kept``.
    """

    sequence: VideoSequence
    colours: NDArray[np.uint8]
    lens: Camera
    calibration: str
    frames: pd.DataFrame
    models: pd.DataFrame
    attempts: pd.DataFrame

    @property
    def poses(self) -> NDArray[np.float64]:
        """Camera to world, of the registered frames, (N, 4, 4)."""
        assert self.sequence.poses is not None  # it was read from a reconstruction
        return self.sequence.poses

    @property
    def points(self) -> SparsePoints:
        """What the registered frames saw."""
        assert self.sequence.points is not None
        return self.sequence.points

    @property
    def times(self) -> NDArray[np.float64]:
        """When each registered frame is shown, (N,), seconds."""
        return np.asarray(self.frames.loc[self.frames["fate"] == REGISTERED, "time_s"], dtype=np.float64)

    def summary(self) -> dict[str, Any]:
        """The numbers that say how good it is."""
        used, registered = int(self.frames["features"].notna().sum()), len(self.poses)
        observations, points = len(self.points.seen), len(self.points.positions)
        weighted = self.frames["error_px"] * self.frames["observations"]
        return {
            "frames_looked_at": len(self.frames),
            "frames_used": used,
            "frames_registered": registered,
            "share_registered": registered / used,
            "sub_models": len(self.models),
            "points": points,
            "observations": observations,
            "track_length": observations / points,
            "observations_per_frame": observations / registered,
            "reprojection_error_px": float(weighted.sum() / observations),
            "nearer_is_brighter": nearer_is_brighter(self.sequence, self.colours),
        }


def frames_table(
    looks: Sequence[Look],
    times: NDArray[np.float64],
    matches: Matches,
    numbers: Sequence[Sequence[int]],
    sequence: VideoSequence,
) -> pd.DataFrame:
    """Tell each frame's fate, see ``Outcome.frames``.

    Args:
        looks: At the frames.
        times: Of the whole video.
        matches: Of the used frames.
        numbers: Frames of each sub-model; those of the first are the sequence's.
        sequence: The registered frames.
    """
    kept, others = set(numbers[0]), set().union(*numbers[1:])
    table = pd.DataFrame(
        {
            "frame": [look.frame for look in looks],
            "time_s": [times[look.frame] for look in looks],
            "motion": [look.motion for look in looks],
            "fate": [_fate(look, kept, others) for look in looks],
            "features": [matches.features.get(picture_name(look.frame), np.nan) for look in looks],
        }
    )
    assert sequence.points is not None
    frame = sequence.points.seen[:, 1]
    counts = np.bincount(frame, minlength=len(kept))
    sums = np.bincount(frame, weights=reprojection_errors(sequence), minlength=len(kept))
    registered = table["fate"] == REGISTERED
    table.loc[registered, "observations"] = counts
    table.loc[registered, "error_px"] = sums / np.maximum(counts, 1)
    return table


def models_table(models: Sequence[Any], numbers: Sequence[Sequence[int]], times: NDArray[np.float64]) -> pd.DataFrame:
    """Tell what each sub-model (``pycolmap.Reconstruction``) with its frames covers, see ``Outcome.models``."""
    return pd.DataFrame(
        {
            "sub_model": range(1, len(models) + 1),
            "frames": [len(frames) for frames in numbers],
            "first_s": [times[frames[0]] for frames in numbers],
            "last_s": [times[frames[-1]] for frames in numbers],
            "points": [model.num_points3D() for model in models],
        }
    )


def attempts_table(attempts: Sequence[Sequence[Any]], kept: Sequence[Any], seed: int) -> pd.DataFrame:
    """Compare attempts, each with its sub-models, the largest first; see ``Outcome.attempts``."""
    rows = [
        {
            "seed": seed + number,
            "sub_models": len(models),
            "frames": models[0].num_reg_images() if models else 0,
            "points": models[0].num_points3D() if models else 0,
            "error_px": models[0].compute_mean_reprojection_error() if models else np.nan,
            "kept": "yes" if models is kept else "",
        }
        for number, models in enumerate(attempts)
    ]
    return pd.DataFrame(rows)


def reprojection_errors(sequence: VideoSequence) -> NDArray[np.float64]:
    """How far each point of a sequence with known pixels was seen from where it projects to, (n,), pixels."""
    points, camera = sequence.points, sequence.camera
    if points is None or points.pixels is None or camera is None or sequence.poses is None:
        raise ValueError("Reprojection errors need points with pixels, a camera and poses.")
    to_camera = inverted(sequence.poses)[points.seen[:, 1]]
    positions = np.concatenate([points.positions[points.seen[:, 0]], np.ones((len(points.seen), 1))], axis=1)
    placed = np.einsum("nij,nj->ni", to_camera[:, :3], positions)
    return np.asarray(np.linalg.norm(project(camera, placed) - points.pixels, axis=1))


def nearer_is_brighter(sequence: VideoSequence, colours: NDArray[np.uint8]) -> float:
    """Rank correlation of the points' brightness and nearness to the camera, -1 to 1: the median over the frames.

    The light of an endoscope sits beside its camera, so what is near is bright. A scene that came out inside out, which
    from afar projects to the same pixels, has it the other way round.

    Args:
        sequence: With poses and points.
        colours: Of the points, (P, 3).
    """
    if sequence.points is None or sequence.poses is None:
        raise ValueError("Nearness needs points and poses.")
    point, frame = sequence.points.seen.T
    to_camera = inverted(sequence.poses)[:, 2]  # (N, 4), to z
    depth = (to_camera[frame, :3] * sequence.points.positions[point]).sum(axis=1) + to_camera[frame, 3]
    seen = pd.DataFrame({"frame": frame, "brightness": colours[point].mean(axis=1), "nearness": -depth})
    ranks = seen.groupby("frame")[["brightness", "nearness"]].rank()
    agreement = [part["brightness"].corr(part["nearness"]) for _, part in ranks.groupby(seen["frame"])]
    return float(pd.Series(agreement).fillna(0.0).median())


def _fate(look: Look, kept: set[int], others: set[int]) -> str:
    if look.frame in kept:
        return REGISTERED
    if look.frame in others:
        return ELSEWHERE
    return LOST if look.verdict == USED else look.verdict
