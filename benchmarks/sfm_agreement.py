"""Find a recording's camera path again by structure from motion, and compare it with the path that is known.

Run: python -m benchmarks.sfm_agreement RECORDING [--motion 0]. The recording has poses: another
reconstruction's folder, KITTI's, or what sample_data.make_endoscopy wrote. Poses are compared after the similarity that
fits them best; with structure from motion on both sides, neither is the truth.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from jsonargparse import auto_cli

from medssl.data.camera import Camera
from medssl.data.poses import at_frames
from medssl.data.recordings import find_sequences
from medssl.data.sequence import VideoSequence
from medssl.evaluation.trajectory import registered, score_trajectory
from medssl.structure_from_motion.from_video import reconstruct
from medssl.structure_from_motion.settings import FrameChoice, LensModel, Settings


def main(recording: Path, motion: float = 0.0, lens: LensModel = "SIMPLE_RADIAL", seeds: int = 3) -> None:
    """Reconstruct each recording of a folder, with its camera known and estimated, and print how the paths agree.

    Args:
        recording: Recordings with poses.
        motion: Least motion from one used frame to the next, share of the width; 0 uses all frames.
        lens: The model that is estimated.
        seeds: Reconstructions that differ in what is drawn.
    """
    for sequence in find_sequences(recording):
        for camera in (sequence.camera, lens):
            if camera is not None:
                kind = "given" if isinstance(camera, Camera) else "estimated"
                for seed in range(seeds):
                    print(f"{sequence.name}, camera {kind}, seed {seed}: {_agreement(sequence, camera, motion, seed)}")


def _agreement(sequence: VideoSequence, camera: Camera | LensModel, motion: float, seed: int) -> str:
    """Reconstruct in a folder that goes away, and say how far the path lies from the known one."""
    if sequence.poses is None:
        raise SystemExit(f"{sequence.name} has no poses to compare with.")
    settings = Settings(choice=FrameChoice(motion=motion), seed=seed)
    with TemporaryDirectory() as folder:
        out = Path(folder)
        found = reconstruct(sequence.name, sequence.frames, out, out / "work", camera, sequence.mask, settings)
        fates = found.frames
        placed = fates.loc[fates["fate"] == "registered", "frame"].to_numpy()
        error = float(fates["error_px"].mean())
    estimate = at_frames(found.poses, placed.tolist(), len(sequence.frames))
    row = score_trajectory(estimate, sequence.poses, "sim3", scan=sequence.name).iloc[0]
    places = sequence.poses[registered(sequence.poses), :3, 3]
    length = float(np.linalg.norm(np.diff(places, axis=0), axis=1).sum())
    return (
        f"{len(placed)} of {len(sequence.frames)} frames, {error:.2f} px; error of the place "
        f"{row['ate_rmse'] / length:.2%} of the path's length, of the turn from frame to frame "
        f"{row['rpe_rotation_deg']:.2f} degrees; focal length {found.lens.fx:.1f} px"
        + (f" (known: {sequence.camera.fx:.1f})" if sequence.camera else "")
    )


if __name__ == "__main__":
    auto_cli(main)
