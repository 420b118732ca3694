"""Clips of a tilted, textured plane in closed form, of which depth, motion and the second view are known exactly."""

from typing import Any

import torch
from torch import Tensor, nn

from medssl.method import Method
from medssl.sample import Batch

HEIGHT, WIDTH = 32, 64
BASELINE = 0.4


def plane_clip(
    clips: int = 2, frames: int = 3, step: float = 0.15, right: bool = False, size: tuple[int, int] = (HEIGHT, WIDTH)
) -> tuple[Batch, Tensor]:
    """Render clips of a camera that goes sideways and turns: the frame learnt on, the one before, those after.

    Args:
        clips: B; each has another plane, about 4 away, and another texture.
        frames: T, in the order of ``Neighbours``: 1, 0, 2, 3, ...
        step: How far the camera goes from frame to frame.
        right: With a second camera, ``BASELINE`` to the right.
        size: Height and width.

    Returns:
        The batch, and the depth of every frame (B, T, 1, H, W).
    """
    times = torch.tensor([1, 0, *range(2, frames)][:frames])
    K = torch.tensor([[0.8 * size[1], 0, size[1] / 2 - 0.5], [0, 0.8 * size[1], size[0] / 2 - 0.5], [0, 0, 1]])
    pose = torch.stack([_pose(step * float(t - 1), 0.02 * float(t - 1)) for t in times]).repeat(clips, 1, 1, 1)
    pictures, depth = _render(pose, K, size)
    numbers = torch.arange(clips)
    batch = {
        "clip": pictures,
        "valid": torch.ones_like(depth),
        "intrinsics": K.repeat(clips, 1, 1),
        "pose": pose,
        "frame": times.repeat(clips, 1),
        "seed": numbers + 7,
        "index": numbers,
        "number": numbers,
    }
    if right:
        right_to_left = torch.eye(4)
        right_to_left[0, 3] = BASELINE
        seen, other_depth = _render(pose @ right_to_left, K, size)
        batch |= {
            "right": seen,
            "right_valid": torch.ones_like(other_depth),
            "right_intrinsics": batch["intrinsics"].clone(),
            "right_to_left": right_to_left.repeat(clips, 1, 1),
        }
    return batch, depth


def _pose(x: float, angle: float) -> Tensor:
    """Camera to world of a camera moved along x, a little along y and z, and turned about y."""
    a = torch.tensor(angle)
    pose = torch.eye(4)
    pose[0, 0] = pose[2, 2] = a.cos()
    pose[0, 2], pose[2, 0] = a.sin(), -a.sin()
    pose[:3, 3] = torch.tensor([x, 0.3 * x, 0.4 * x])
    return pose


def _render(pose: Tensor, K: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Pictures (B, T, 3, H, W), 0 to 1, and z (B, T, 1, H, W) of cameras (B, T, 4, 4) before the planes n X = 4 n_z."""
    draw = torch.Generator().manual_seed(0)
    clips = len(pose)
    n = torch.cat([0.3 * torch.rand(clips, 2, generator=draw) - 0.15, torch.ones(clips, 1)], 1)
    waves = 3 * torch.randn(clips, 3, 4, 2, generator=draw)  # per channel four waves along the plane, 1 / length
    phases = 6.3 * torch.rand(clips, 3, 4, generator=draw)
    y, x = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    rays = torch.einsum("ij,jhw->ihw", K.inverse(), torch.stack([x, y, torch.ones_like(x)]).float())
    rays = torch.einsum("btij,jhw->btihw", pose[..., :3, :3], rays)
    away = 4 - torch.einsum("bi,bti->bt", n, pose[..., :3, 3])
    z = away[..., None, None] / torch.einsum("bi,btihw->bthw", n, rays)
    points = pose[..., :3, 3, None, None] + z[:, :, None] * rays
    turns = torch.einsum("bckd,btdhw->btckhw", waves, points[:, :, :2]) + phases[:, None, :, :, None, None]
    return 0.5 + 0.12 * turns.sin().sum(3), z[:, :, None]


def true_vectors(batch: Batch, unit: float = 1.0) -> Tensor:
    """The motions of the pairs in time, from the earlier camera to the later, (B (T - 1), 6), lengths in ``unit``."""
    pose, frame = batch["pose"], batch["frame"]
    target, other = (part.flatten(0, 1) for part in (pose[:, :1].expand_as(pose[:, 1:]), pose[:, 1:]))
    later = (frame[:, :1] > frame[:, 1:]).flatten()[:, None, None]
    earlier_pose, later_pose = torch.where(later, other, target), torch.where(later, target, other)
    moved = later_pose.inverse() @ earlier_pose
    turn = torch.atan2(moved[:, 0, 2], moved[:, 0, 0])  # all turns of the scene are about y
    still = torch.zeros_like(turn)
    return torch.cat([torch.stack([still, turn, still], 1), moved[:, :3, 3] / unit], 1)


class Told(nn.Module):
    """A network that says what it was told, and remembers what it was asked."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer, self.asked = answer, ()

    def forward(self, *pictures: Tensor) -> Any:
        self.asked = pictures
        return self.answer


def learnt(method: Method, batch: Batch, steps: int, rate: float = 1e-3) -> list[float]:
    """Train on one batch; the loss of each step."""
    optimizer = torch.optim.AdamW(method.parameters(), lr=rate)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = method.loss(batch)["loss"]
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses
