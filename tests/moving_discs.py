"""Clips of striped discs that move over a mottled ground, of which each pixel's disc is known."""

import torch
from torch import Tensor

from medssl.label_propagation import Propagation, carry, decided, soft_labels
from medssl.sample import Batch
from medssl.video_method import CorrespondenceMethod

COLOURS = torch.tensor([[0.8, 0.3, 0.3], [0.3, 0.7, 0.3], [0.4, 0.4, 0.9]])
RADIUS = 8


def moving_discs(
    clips: int = 2, frames: int = 4, size: tuple[int, int] = (48, 64), grey: bool = False, speed: float = 4.0
) -> tuple[Batch, Tensor]:
    """Render clips.

    Args:
        clips: B; each has its discs at other places and another ground.
        frames: T.
        size: Height and width, pixels.
        grey: Without colours.
        speed: Of the discs along x, pixels from frame to frame; every other one goes to the left.

    Returns:
        The batch, and which disc is seen (B, T, H, W), 0 for none.
    """
    height, width = size
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pictures, masks = [], []
    for number in range(clips):
        draw = torch.Generator().manual_seed(number)
        coarse = torch.rand(1, 3, height // 8, width // 8, generator=draw)
        ground = 0.35 + 0.3 * torch.nn.functional.interpolate(coarse, size, mode="bicubic").clamp(0, 1)[0]
        first = 12 + (width - 24) * torch.rand(3, generator=draw)
        for t in range(frames):
            picture, mask = ground.clone(), torch.zeros(size, dtype=torch.long)
            for disc in range(3):
                along = x - (first[disc] + (-1) ** disc * speed * t) % width
                down = y - height * (disc + 0.5) / 3
                inside = along.square() + down.square() <= RADIUS**2
                angle = torch.tensor(torch.pi * disc / 3)
                stripes = 1 + 0.3 * torch.sin(1.2 * (along * angle.cos() + down * angle.sin()))
                picture = torch.where(inside, COLOURS[disc].view(3, 1, 1) * stripes, picture)
                mask[inside] = disc + 1
            pictures.append(picture.mean(0, keepdim=True).expand(3, -1, -1) if grey else picture)
            masks.append(mask)
    clip = torch.stack(pictures).clamp(0, 1).unflatten(0, (clips, frames))
    numbers = torch.arange(clips)
    batch = {
        "clip": clip,
        "valid": torch.ones_like(clip[:, :, :1]),
        "seed": numbers + 7,
        "index": numbers,
        "number": numbers,
    }
    return batch, torch.stack(masks).unflatten(0, (clips, frames))


def overlap(found: Tensor, mask: Tensor) -> float:
    """Mean share of the discs' pixels that both masks (B, H, W) have, of those that either has."""
    shares = [
        ((found == disc) & (mask == disc)).sum() / ((found == disc) | (mask == disc)).sum().clamp_min(1)
        for disc in range(1, 4)
    ]
    return float(torch.stack(shares).mean())


@torch.no_grad()
def tracked(method: CorrespondenceMethod, batch: Batch, masks: Tensor) -> float:
    """Overlap, in the last frame, of the masks (B, T, H, W) and of what is carried there from the first one."""
    frames = [method.embed(picture) for picture in batch["clip"].unbind(1)]
    *_, last = carry(frames, soft_labels(masks[:, 0], 4, method.stride), Propagation(radius=4))
    return overlap(decided(last.labels, (masks.shape[2], masks.shape[3])), masks[:, -1])
