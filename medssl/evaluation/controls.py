"""Changes that take one cue without anatomy out of images, each beside a sham of the same strength that leaves it in.

A network that loses its task under a control may have used the cue, or may merely be unused to such images. The sham
tells the two apart. Where a control moves grey values, its sham moves them as far the other way, so that the cue is
twice as strong; where it takes voxels away, its sham takes about as many from elsewhere.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Literal

import torch
from torch import Tensor

from medssl.augment import Generators, blur, uniform

BORDER_SHARE = 0.3  # of the voxels: about a twelfth of the side at each end in 2D, an eighteenth in 3D
SHIFT = 1 / 6  # of the side
COARSENESS = 1.25
GREY_LEVELS = 16

_DARK = 0.1  # of an image's mean: darker is background, whose field nothing tells
_LARGEST_GAIN = 4.0
_EPSILON = 1e-6

Change = Callable[[Tensor, Generators], Tensor]


@dataclass(frozen=True)
class Control:
    """One cue, what takes it away, and what changes images as much and leaves it.

    Attributes:
        name: A word.
        cue: What the network used if it falls, as the end of "The network used ...".
        done: What the control does to an image.
        sham_done: What the sham does.
        of: ``"crop"`` changes the crop before the task is made of it, ``"seen"`` every image (tile, view) that the
            network gets to see.
        remove: Images (R, C, *spatial) and one generator for each to images of the same shape.
        sham: The same.
        least_channels: Images of fewer channels do not have the cue.
    """

    name: str
    cue: str
    done: str
    sham_done: str
    of: Literal["crop", "seen"]
    remove: Change
    sham: Change
    least_channels: int = 1


def unchanged(image: Tensor, draw: Generators = ()) -> Tensor:
    """Leave images as they are."""
    return image


def border_blanked(image: Tensor, draw: Generators = ()) -> Tensor:
    """Fill the outermost voxels of (R, C, *spatial) with the mean of the others of the channel."""
    return _filled(image, depth(image.shape[2:], image) < _depth_of(BORDER_SHARE, image.ndim - 2))


def ring_blanked(image: Tensor, draw: Generators = ()) -> Tensor:
    """Fill about as many voxels next to those that ``border_blanked`` fills."""
    at, dims = depth(image.shape[2:], image), image.ndim - 2
    return _filled(image, (at >= _depth_of(BORDER_SHARE, dims)) & (at < _depth_of(2 * BORDER_SHARE, dims)))


def evened(image: Tensor, draw: Generators = ()) -> Tensor:
    """Bring each channel of each image (R, C, *spatial) to the mean and standard deviation of the R images together.

    The deviation aimed at is the root of the mean variance within images; a constant image becomes the mean.
    """
    axes = tuple(range(2, image.ndim))
    mean, variance = image.mean(axes, keepdim=True), image.var(axes, unbiased=False, keepdim=True)
    gain = (variance.mean(0, keepdim=True) / variance.clamp_min(_EPSILON**2)).sqrt()
    return (image - mean) * gain + mean.mean(0, keepdim=True)


def field_removed(image: Tensor, draw: Generators = ()) -> Tensor:
    """Divide each channel by its smooth field, see ``smooth_field``."""
    return image / smooth_field(image)


def field_doubled(image: Tensor, draw: Generators = ()) -> Tensor:
    """Multiply each channel by its smooth field, so that it has it twice."""
    return image * smooth_field(image)


def coarser(image: Tensor, draw: Generators = ()) -> Tensor:
    """Down-sample (R, C, *spatial) a little and up-sample again."""
    return blur(image, torch.full((len(image),), COARSENESS))


def colourless(image: Tensor, draw: Generators = ()) -> Tensor:
    """Put the mean over the channels of (R, C, *spatial) into each of them."""
    return image.mean(1, keepdim=True).expand_as(image)


def fewer_levels(image: Tensor, draw: Generators = ()) -> Tensor:
    """Round (R, C, *spatial) to a few levels between each channel's darkest and brightest."""
    axes = tuple(range(2, image.ndim))
    low = image.amin(axes, keepdim=True)
    step = ((image.amax(axes, keepdim=True) - low) / (GREY_LEVELS - 1)).clamp_min(_EPSILON)
    return low + torch.round((image - low) / step) * step


def moved(image: Tensor, draw: Generators) -> Tensor:
    """Move the content of (R, C, *spatial) along each axis, forwards or backwards; the mean fills what becomes free."""
    return _taken(image, _shifts(image, draw), move=True)


def cut_off(image: Tensor, draw: Generators) -> Tensor:
    """Fill what ``moved`` pushes out of the image with the mean, and leave the rest in its place."""
    return _taken(image, _shifts(image, draw), move=False)


def exchanged(image: Tensor, draw: Generators) -> Tensor:
    """Deal the R images out anew: the network sees images, but others than the answers are of."""
    return image[torch.randperm(len(image), generator=draw[0]).to(image.device)]


def mirrored(remove: Change) -> Change:
    """Make the sham that moves each grey value as far as ``remove`` does, in the other direction."""

    def sham(image: Tensor, draw: Generators = ()) -> Tensor:
        return 2 * image - remove(image, draw)

    return sham


def depth(size: Sequence[int], like: Tensor) -> Tensor:
    """Say how deep each voxel's centre lies below the nearest side, 0 to 0.5 of the axis; (*size)."""
    deepest = torch.full(tuple(size), 0.5, device=like.device)
    for axis, n in enumerate(size):
        at = (torch.arange(n, device=like.device) + 0.5) / n
        along = torch.minimum(at, 1 - at)
        deepest = torch.minimum(deepest, along.view(-1, *[1] * (len(size) - 1 - axis)))
    return deepest


def smooth_field(image: Tensor) -> Tensor:
    """Fit the smooth factor of each channel of (R, C, *spatial), as bias fields and vignetting are: about 1.

    The logarithm of what is not background is fitted by a polynomial of degree 2 of the coordinates; its mean over the
    foreground is taken off. Beyond a factor of 4 the field is cut.
    """
    dims = image.ndim - 2
    axes = [torch.linspace(-1, 1, n, device=image.device) for n in image.shape[2:]]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)  # (dims, V)
    powers = [
        torch.stack([places[axis] for axis in which]).prod(0)
        for degree in (1, 2)
        for which in combinations_with_replacement(range(dims), degree)
    ]
    P = torch.stack([torch.ones_like(places[0]), *powers]).double()  # (K, V)
    x = image.flatten(2).double()  # (R, C, V)
    w = (x > _DARK * x.mean(2, keepdim=True).clamp_min(_EPSILON)).double()
    y = x.clamp_min(_EPSILON).log() * w
    normal = torch.einsum("kv,rcv,lv->rckl", P, w, P) + _EPSILON * torch.eye(len(P), device=image.device)
    coefficient = torch.linalg.solve(normal, torch.einsum("kv,rcv->rck", P, y))
    fitted = torch.einsum("rck,kv->rcv", coefficient, P)
    fitted = fitted - (fitted * w).sum(2, keepdim=True) / w.sum(2, keepdim=True).clamp_min(1)
    return fitted.exp().clamp(1 / _LARGEST_GAIN, _LARGEST_GAIN).to(image.dtype).view_as(image)


CONTROLS = (
    Control(
        "border",
        "what stands at the border of the image or tile: a marker, a frame, lines that go on in the next tile",
        "the outermost voxels of all that the network sees are blanked",
        "about as many voxels further in are blanked",
        "seen",
        border_blanked,
        ring_blanked,
    ),
    Control(
        "intensity",
        "how bright, or how rich in contrast, one image or tile is beside another",
        "all that the network sees has the same mean and the same contrast",
        "the differences in mean and contrast are doubled",
        "seen",
        evened,
        mirrored(evened),
    ),
    Control(
        "field",
        "a smooth change of brightness across the crop: a bias field, vignetting, a lamp, or anatomy as large",
        "each crop is divided by a smooth field that is fitted to it",
        "each crop is multiplied by that field",
        "crop",
        field_removed,
        field_doubled,
    ),
    Control(
        "fine texture",
        "the finest texture: noise, interpolation, compression, or anatomy as thin as that",
        f"all that the network sees is {COARSENESS:g} times coarser",
        "the finest texture is doubled",
        "seen",
        coarser,
        mirrored(coarser),
    ),
    Control(
        "colour",
        "colour, or how channels differ: chromatic aberration, for one",
        "all channels are made equal",
        "the differences between channels are doubled",
        "seen",
        colourless,
        mirrored(colourless),
        least_channels=2,
    ),
    Control(
        "place",
        "the place in the frame of what is always there: an overlay, padding, a mask around the field of view",
        "the content of each crop is moved by a sixth of its sides",
        "what the move pushes out is blanked, the rest stays where it is",
        "crop",
        moved,
        cut_off,
    ),
    Control(
        "grey levels",
        "faint differences of grey that no eye sees",
        f"all that the network sees is rounded to {GREY_LEVELS} levels of grey",
        "what the rounding takes away is doubled",
        "seen",
        fewer_levels,
        mirrored(fewer_levels),
    ),
)
"""What the audit tries."""


def _depth_of(share: float, dims: int) -> float:
    """Depth of the shell, as wide everywhere, that holds this share of a cube."""
    return float((1 - (1 - share) ** (1 / dims)) / 2)


def _filled(image: Tensor, where: Tensor) -> Tensor:
    """Fill voxels ``where`` (*spatial) with the mean of each channel's others."""
    outside = (~where).to(image.dtype)
    axes = tuple(range(2, image.ndim))
    mean = (image * outside).sum(axes, keepdim=True) / outside.sum().clamp_min(1)
    return torch.where(where, mean, image)


def _shifts(image: Tensor, draw: Generators) -> list[list[int]]:
    """Draw how far each image moves along each axis, voxels."""
    size = image.shape[2:]
    forwards = uniform(0, 1, (len(size),), draw, torch.empty(0)) < 0.5  # (R, dims)
    return [
        [(1 if ahead else -1) * max(1, round(SHIFT * n)) for ahead, n in zip(row, size, strict=True)]
        for row in forwards.tolist()
    ]


def _taken(image: Tensor, shifts: Sequence[Sequence[int]], move: bool) -> Tensor:
    """Keep what stays inside when (R, C, *spatial) moves by ``shifts``, moved or not, on the mean of each channel."""
    axes = tuple(range(2, image.ndim))
    out = image.mean(axes, keepdim=True).expand_as(image).clone()
    for row, shift in enumerate(shifts):
        kept = [slice(max(0, -s), n - max(0, s)) for s, n in zip(shift, image.shape[2:], strict=True)]
        to = [slice(part.start + s, part.stop + s) for part, s in zip(kept, shift, strict=True)] if move else kept
        out[row][(slice(None), *to)] = image[row][(slice(None), *kept)]
    return out
