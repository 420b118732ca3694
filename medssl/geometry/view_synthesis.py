"""One picture drawn from others of the same place: what depth and motion are learnt from where nobody measured them.

Zhou, Brown, Snavely, Lowe, "Unsupervised Learning of Depth and Ego-Motion from Video", CVPR 2017,
https://arxiv.org/abs/1704.07813, section 3.1.

Of V pictures the first is the target; the S = V - 1 others are its sources. What is of each source is (N, ...) with
N = B S, the sources of one clip after each other.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from medssl.errors import InputError
from medssl.geometry.cameras import backproject, invert, project, resize_intrinsics, rigid_from_vector, transform
from medssl.geometry.precision import in_float32
from medssl.geometry.warping import inside, sample
from medssl.sample import Batch, require

_ALL = 0.999  # share of valid pixels that is all of them, but for rounding


@dataclass(frozen=True)
class Views:
    """Pictures of one place from several cameras.

    Attributes:
        pictures: (B, V, C, H, W), 0 to 1.
        valid: (B, V, 1, H, W), 1 where a picture shows the place, else 0.
        intrinsics: (B, V, 3, 3), pixels.
    """

    pictures: Tensor
    valid: Tensor
    intrinsics: Tensor

    @property
    def target(self) -> Tensor:
        """The first picture, (B, C, H, W)."""
        return self.pictures[:, 0]

    @property
    def target_valid(self) -> Tensor:
        """Where it shows the place, (B, 1, H, W), bool."""
        return self.valid[:, 0] > 0

    @property
    def sources(self) -> Tensor:
        """The others, (N, C, H, W)."""
        return self.pictures[:, 1:].flatten(0, 1)

    @property
    def sources_valid(self) -> Tensor:
        """Where they show the place, (N, 1, H, W), bool."""
        return self.valid[:, 1:].flatten(0, 1) > 0

    def of_each_source(self, values: Tensor) -> Tensor:
        """Repeat what is of the target, (B, ...), for each source, (N, ...)."""
        return values.repeat_interleave(self.pictures.shape[1] - 1, dim=0)

    def smaller(self, times: int) -> "Views":
        """The views at 1 / ``times`` of their size; a pixel is valid where all that it is the mean of is."""
        if times == 1:
            return self
        height, width = self.pictures.shape[-2:]
        size = (height // times, width // times)
        whole = torch.cat([self.pictures, self.valid.to(self.pictures.dtype)], dim=2)
        less = F.interpolate(whole.flatten(0, 1), size=size, mode="area").unflatten(0, whole.shape[:2])
        valid = (less[:, :, -1:] >= _ALL).to(self.valid.dtype)
        return Views(less[:, :, :-1], valid, resize_intrinsics(self.intrinsics, (height, width), size))


@dataclass(frozen=True)
class Synthesis:
    """The target as each source shows it.

    Attributes:
        pictures: (N, C, H, W).
        valid: Where both show the place, (N, 1, H, W), bool. What hides what is not looked at.
        pixels: Where the source shows each pixel of the target, (N, 2, H, W), x first.
        z: Of what the target's pixels show, in the source's camera, (N, 1, H, W), as the depth.
    """

    pictures: Tensor
    valid: Tensor
    pixels: Tensor
    z: Tensor


def views_of(batch: Batch, neighbours: bool = True, second_camera: bool = False) -> Views:
    """Collect a clip's pictures: the frame that is learnt on, its neighbours, and what the second camera saw meanwhile.

    Raises:
        InputError: The batch lacks one of them.
    """
    require(batch, "clip", "valid", "intrinsics")
    count = batch["clip"].shape[1] if neighbours else 1
    if neighbours and count < 2:
        raise InputError(
            "Motion is learnt from a frame and its neighbours, but the clips 'clip' (B, T, C, H, W) have T = 1 frame. "
            "Take them as the method needs them (Neighbours)."
        )
    pictures, valid = [batch["clip"][:, :count]], [batch["valid"][:, :count]]
    intrinsics = [batch["intrinsics"][:, None].expand(-1, count, 3, 3)]
    if second_camera:
        require(batch, "right", "right_valid", "right_intrinsics", "right_to_left")
        pictures.append(batch["right"][:, :1])
        valid.append(batch["right_valid"][:, :1])
        intrinsics.append(batch["right_intrinsics"][:, None])
    return Views(torch.cat(pictures, 1), torch.cat(valid, 1), torch.cat(intrinsics, 1))


@in_float32
def synthesise(views: Views, depth: Tensor, motion: Tensor) -> Synthesis:
    """Draw the target from each of its sources.

    Args:
        views: The pictures.
        depth: Of the target, above 0, (B, 1, H, W).
        motion: From the target's axes to those of each source, (B, S, 4, 4), in the depth's unit.
    """
    points = views.of_each_source(backproject(depth, views.intrinsics[:, 0]))
    pixels, z = project(transform(points, motion.flatten(0, 1)), views.intrinsics[:, 1:].flatten(0, 1))
    read = sample(torch.cat([views.sources, views.sources_valid.to(views.pictures.dtype)], dim=1), pixels)
    height, width = views.pictures.shape[-2:]
    valid = (read[:, -1:] >= _ALL) & inside(pixels, (height, width)) & views.of_each_source(views.target_valid)
    return Synthesis(read[:, :-1], valid, pixels, z)


def depth_difference(drawn: Synthesis, source_depth: Tensor) -> Tensor:
    """How much the depths of target and sources contradict each other, 0 to 1, (N, 1, H, W).

    Bian et al., "Unsupervised Scale-consistent Depth and Ego-motion Learning from Monocular Video" (SC-SfMLearner),
    NeurIPS 2019, https://arxiv.org/abs/1908.10553, eq. 4: |D_ab - D_b| / (D_ab + D_b), with D_ab the target's depth
    moved to the source and D_b the source's own, at the same pixel.

    Args:
        drawn: The synthesis, whose ``valid`` is where this has a meaning.
        source_depth: (N, 1, H, W).
    """
    D_ab, D_b = drawn.z, sample(source_depth, drawn.pixels)
    return (D_ab - D_b).abs() / (D_ab.abs() + D_b)


def for_each(network: Callable[[Tensor], list[Tensor]], pictures: Tensor) -> list[Tensor]:
    """Run a network of single pictures on all of (B, V, C, H, W); each of its maps is (B, V, ...)."""
    return [maps.unflatten(0, pictures.shape[:2]) for maps in network(pictures.flatten(0, 1))]


def pairs_in_time(clip: Tensor, frame: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pair the target with each of its neighbours, the earlier one first.

    So that the camera always goes the way it went, as in Godard et al. 2019, https://arxiv.org/abs/1806.01260.

    Args:
        clip: (B, T, C, H, W), the target first.
        frame: Its frames' numbers, (B, T).

    Returns:
        The earlier and the later pictures, (N, C, H, W) each with N = B (T - 1), and whether the target is the later
        one, (N,), bool.
    """
    target, neighbour = (part.flatten(0, 1) for part in (clip[:, :1].expand_as(clip[:, 1:]), clip[:, 1:]))
    later = (frame[:, :1] > frame[:, 1:]).flatten()
    swap = later[:, None, None, None]
    return torch.where(swap, neighbour, target), torch.where(swap, target, neighbour), later


def in_depths_unit(vector: Tensor, min_depth: float) -> Tensor:
    """Give a motion network's output (N, 6) the depth's unit: its translations are in ten times the nearest depth.

    That is 1 with the papers' 0.1. A network that tells rotations in radians and translations in millimetres would
    learn the latter hundreds of times slower, and explain everything by a turning camera far from all.
    """
    return torch.cat([vector[:, :3], 10 * min_depth * vector[:, 3:]], dim=1)


def motion_from_target(vector: Tensor, later: Tensor) -> Tensor:
    """Turn the motions of pairs in time, from the earlier camera to the later, into those from the target, (N, 4, 4).

    Args:
        vector: As of ``rigid_from_vector``, (N, 6).
        later: Whether the target is the later one, (N,), bool.
    """
    forward = rigid_from_vector(vector)
    return torch.where(later[:, None, None], invert(forward), forward)


def surrounded(valid: Tensor) -> Tensor:
    """Keep the valid pixels (N, 1, H, W), bool, whose eight neighbours are too: what a window of 3 x 3 may compare."""
    return F.max_pool2d((~valid).float(), 3, 1, 1) == 0
