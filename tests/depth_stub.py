"""Recordings of a plane, and a method that knows its depth and the camera's motion up to a factor."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from recordings import HEIGHT, WIDTH, write_recordings
from scipy.spatial.transform import Rotation
from torch import Tensor

from medssl.data.clips import ClipNeeds, Single
from medssl.data.prepared_recordings import PreparedRecordings
from medssl.data.recording_store import FrameWriter, Observations
from medssl.networks.encoder import Encoder
from medssl.sample import Batch
from medssl.video_method import DepthMethod

FRAMES, DISTANCE = 6, 10.0
INTRINSICS = np.array([[40.0, 0, 31], [0, 40, 15], [0, 0, 1]])


class Stub(DepthMethod):
    """Frame t is of one grey, 10 t + 10 of 255; depth and motion are looked up by it, and divided by ``factor``."""

    def __init__(self, encoder: Encoder, factor: float = 1.0, metric: bool = False, moves: bool = True) -> None:
        super().__init__()
        self.encoder, self.factor, self.metric, self.moves = encoder, factor, metric, moves
        self.needs = ClipNeeds(Single())
        self.batches: list[int] = []

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """There is nothing to learn."""
        return {"loss": torch.zeros(())}

    def depth(self, batch: Batch) -> Tensor:
        """Depth of the plane."""
        clip = batch["clip"][:, 0]
        self.batches.append(len(clip))
        z = torch.from_numpy(depths())[frame_of(clip)] / self.factor
        return z.float()[:, None, None, None].expand(-1, 1, *clip.shape[-2:])

    def motion(self, a: Tensor, b: Tensor) -> Tensor | None:
        """What takes points from one camera to the other."""
        if not self.moves:
            return None
        poses = torch.from_numpy(true_poses())
        moved = torch.linalg.inv(poses[frame_of(b)]) @ poses[frame_of(a)]
        moved[:, :3, 3] /= self.factor
        return moved.float()


def frame_of(pictures: Tensor) -> Tensor:
    """Which frame each picture is."""
    return (pictures.mean((1, 2, 3)) * 25.5 - 1).round().long()


def true_poses() -> NDArray[np.float64]:
    """A camera that looks along z, rolls and comes closer."""
    poses = np.tile(np.eye(4), (FRAMES, 1, 1))
    t = np.arange(FRAMES)
    poses[:, :3, :3] = Rotation.from_euler("z", 3.0 * t[:, None], degrees=True).as_matrix()
    poses[:, :3, 3] = np.stack([0.2 * t, 0.1 * np.sin(t), 0.5 * t], axis=1)
    return poses


def depths() -> NDArray[np.float64]:
    """z of the plane in each frame."""
    return DISTANCE - true_poses()[:, 2, 3]


def plane_points() -> Observations:
    """Every frame sees 20 points of the plane."""
    frame, point = (grid.ravel() for grid in np.meshgrid(np.arange(FRAMES), np.arange(20), indexing="ij"))
    pixel = np.stack([3 * point, np.full_like(point, 9)], axis=1).astype(float)
    return Observations(frame, point, pixel, depths()[frame], np.full(len(frame), FRAMES))


def write_plane(root: Path, unit: str = "unknown", frames: int = FRAMES, **known: Any) -> PreparedRecordings:
    """Write the recording; ``known`` adds to or changes what is known of the camera."""
    data = write_recordings(root, (frames,), **known)
    folder = data.folder(0)
    writer = FrameWriter(folder, "frames")
    for t in range(frames):
        writer.add(np.full((3, HEIGHT, WIDTH), 10 * (t + 1), dtype=np.uint8))
    writer.flush()
    data.index["unit"] = unit
    data.index.to_parquet(root / "recordings.parquet", index=False)
    return PreparedRecordings(root)


def write_frames(data: PreparedRecordings, kind: str, frames: NDArray[Any], i: int = 0) -> None:
    """Write ``valid`` or ``depth`` of recording ``i``, (N, H, W)."""
    writer = FrameWriter(data.folder(i), kind)
    for frame in frames:
        writer.add(frame)
    writer.flush()
