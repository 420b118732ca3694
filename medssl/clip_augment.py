"""Clips mirrored with their cameras, and their colours changed: the whole batch at once, on its device."""

from dataclasses import dataclass

import torch
from torch import Tensor

from medssl.augment import chance, generators, uniform
from medssl.sample import Batch

_GREY = (0.299, 0.587, 0.114)  # of red, green and blue in luminance, ITU-R BT.601


@dataclass(frozen=True)
class ClipAugment:
    """How clips vary. Everything is drawn once for a clip: its frames stay alike.

    The defaults are Monodepth2's, section 4 of its supplement: half of the clips are mirrored, half have other colours.

    Args:
        mirroring: Probability of a mirror image, of which the cameras are mirrored too; with a second camera the two
            change places.
        colours: Probability of other colours.
        brightness: Largest change, as a share.
        contrast: Largest change, as a share.
        saturation: Largest change, as a share.
        hue: Largest turn of the colour circle, of 1.
    """

    mirroring: float = 0.5
    colours: float = 0.5
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 0.1

    def mirror(self, batch: Batch) -> Batch:
        """Mirror some clips left to right, each by its own ``seed``, with all that is known of them."""
        flip = chance(self.mirroring, generators(batch["seed"]), batch["clip"])
        return mirror(batch, flip)

    def recolour(self, clip: Tensor, seeds: Tensor) -> Tensor:
        """Change the colours of some of the clips (B, T, 3, H, W), 0 to 1."""
        draw = generators(seeds + 1)  # what mirrors a clip is not what colours it
        used = chance(self.colours, draw, clip)

        def some(most: float) -> Tensor:
            return _per_clip(uniform(-most, most, (), draw, clip) * used, clip)

        clip = clip * (1 + some(self.brightness))
        mean = clip.mean((1, 2, 3, 4), keepdim=True)
        clip = mean + (clip - mean) * (1 + some(self.contrast))
        grey = (clip * torch.tensor(_GREY, device=clip.device).view(1, 1, 3, 1, 1)).sum(2, keepdim=True)
        colour = turned(clip - grey, uniform(-self.hue, self.hue, (), draw, clip) * used)
        return (grey + colour * (1 + some(self.saturation))).clamp(0, 1)


def mirror(batch: Batch, flip: Tensor) -> Batch:
    """Mirror the clips where ``flip`` (B,) of bool: pictures, cameras, poses and points, all as of a mirrored world."""
    if not flip.any():
        return batch
    width = batch["clip"].shape[-1]
    out = dict(batch)
    for name in ("clip", "valid", "right", "right_valid", "sparse_depth", "sparse_views"):
        if name in batch:
            out[name] = torch.where(_per_clip(flip, batch[name]), batch[name].flip(-1), batch[name])
    if "right" in batch:  # what was the right camera is now the left one
        swapped = _per_clip(flip, out["clip"])
        for first, second in (("clip", "right"), ("valid", "right_valid")):
            left, right = out[first], out[second]
            out[first], out[second] = torch.where(swapped, right, left), torch.where(swapped, left, right)
    cameras = [name for name in ("intrinsics", "right_intrinsics") if name in batch]
    for name, source in zip(cameras, reversed(cameras), strict=True):
        across = batch[source].clone()
        across[:, 0, 2] = width - 1 - across[:, 0, 2]
        out[name] = torch.where(flip.view(-1, 1, 1), across, batch[name])
    if "pose" in batch:
        x = torch.diag(torch.tensor([-1.0, 1, 1, 1], device=flip.device, dtype=batch["pose"].dtype))
        out["pose"] = torch.where(flip.view(-1, 1, 1, 1), x @ batch["pose"] @ x, batch["pose"])
    return out


def turned(colour: Tensor, turn: Tensor) -> Tensor:
    """Turn colours (B, T, 3, H, W), with the grey taken away, about the grey axis by ``turn`` (B,), in whole circles.

    Rodrigues' rotation about (1, 1, 1) / sqrt 3.
    """
    angle = 2 * torch.pi * turn
    third, root = 1 / 3, (1 / 3) ** 0.5
    c, s = angle.cos(), angle.sin()
    a, b, d = c + third * (1 - c), third * (1 - c) - root * s, third * (1 - c) + root * s
    matrix = torch.stack([torch.stack(row, -1) for row in ((a, b, d), (d, a, b), (b, d, a))], -2)  # (B, 3, 3)
    return torch.einsum("bij,btjhw->btihw", matrix.to(colour), colour)


def _per_clip(values: Tensor, like: Tensor) -> Tensor:
    """View (B,) as (B, 1, ..., 1) to broadcast against ``like``."""
    return values.to(like.device).view(-1, *[1] * (like.ndim - 1))
