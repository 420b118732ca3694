"""Whole images through a network that sees patches: overlapping windows, blended by weights that sum to one.

The blend follows Isensee et al., "nnU-Net", Nature Methods 2021: logits averaged with a Gaussian importance over
windows that overlap by half. ``monai.inferers.sliding_window_inference`` computes the same, but holds the logits of the
whole image (0.6 GB for 28 classes at 160x190x160, 9 GB for 130 classes at 256^3). Here only the slab that windows still
overlap is held, and finished planes leave it as class indices; the weights are a product of one vector per axis, so
they are made to sum to one beforehand and nothing is divided afterwards.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, product
from math import ceil, prod
from pathlib import Path
from typing import Literal

import numpy as np
import psutil
import torch
from torch import Tensor, nn
from torch.nn import functional

from medssl.errors import InputError

Importance = Literal["gaussian", "constant"]

_SIGMA_SHARE = 0.125  # of the patch's edge, as in nnU-Net
_LEAST_IMPORTANCE = 1e-3  # of the patch's centre, per axis: a corner that only one window sees still counts
_CGROUP_FILES = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def predict_windows(
    network: nn.Module,
    image: Tensor,
    patch_size: Sequence[int],
    classes: int,
    *,
    overlap: float = 0.5,
    batch_size: int = 1,
    importance: Importance = "gaussian",
    mirrored: Sequence[int] | None = None,
    slice_axis: int = 2,
    precision: torch.dtype = torch.float32,
    probabilities: Tensor | None = None,
) -> Tensor:
    """Segment a whole image and return its class indices, uint8 (*spatial), on the CPU.

    A 2D network (two numbers in ``patch_size``) segments a volume slice by slice, several slices per batch.

    Args:
        network: Turns (B, C, *patch) into logits (B, classes, *patch), or into a sequence of which these are the first.
        image: (C, *spatial), normalised as the network was trained. Smaller than the patch is padded with zeros.
        patch_size: Voxels of one window per spatial axis.
        classes: Number of classes including the background, at most 256.
        overlap: Least share of a window that its neighbour sees too, in [0, 1).
        batch_size: Windows per forward pass.
        importance: How a window's voxels count: "gaussian" trusts its centre, "constant" all of it.
        mirrored: The class that each class becomes in a left-right mirror image (``LabelSet.mirrored``). When given,
            every window is also seen mirrored along axis 0 and the two answers are averaged, at twice the cost.
        slice_axis: The axis that a 2D network steps along in a volume.
        precision: float32, or the 16-bit type that the forward pass is autocast to.
        probabilities: When given, (classes, *spatial) floating point on the CPU (it may be memory-mapped), filled with
            the probability of each class.

    Raises:
        InputError: The memory that is needed (``estimate_bytes``) is not there.
        ValueError: The arguments or the network's output do not fit together.
    """
    _check(image, patch_size, classes, overlap, mirrored, slice_axis)
    shape = tuple(image.shape[1:])
    device = next((p.device for p in network.parameters()), image.device)
    needed = estimate_bytes(
        shape, patch_size, classes, batch_size=batch_size, mirror=mirrored is not None, slice_axis=slice_axis
    )
    grid = _Grid.over(shape, _volume_patch(shape, patch_size, slice_axis), overlap, importance)
    slab = _Slab(grid, classes, _roomy(device, needed))
    padded = functional.pad(image, grid.padding)
    flat_axis = 2 + slice_axis if len(patch_size) < len(shape) else None
    labels = torch.zeros(shape, dtype=torch.uint8)

    def keep(planes: int) -> None:
        if planes == 0:
            return
        where, logits = slab.finished(planes)
        labels[where] = logits.max(dim=0).indices.to("cpu", torch.uint8)  # 4 times as fast as argmax on a CPU
        if probabilities is not None:
            probabilities[(slice(None), *where)] = logits.softmax(dim=0).to("cpu", probabilities.dtype)
        slab.advance(planes)

    windows = iter(grid.windows())
    with torch.no_grad(), _evaluating(network):
        while batch := list(islice(windows, batch_size)):
            patches = torch.stack([padded[(slice(None), *window.box)] for window in batch]).to(device)
            answers = _logits(network, patches, classes, mirrored, flat_axis, precision)
            for window, answer in zip(batch, answers.to(slab.logits.device), strict=True):
                keep(window.box[grid.rolling].start - slab.first)
                slab.add(window, answer)
        keep(grid.patch[grid.rolling])
    return labels


def estimate_bytes(
    shape: Sequence[int],
    patch_size: Sequence[int],
    classes: int,
    *,
    batch_size: int = 1,
    mirror: bool = False,
    slice_axis: int = 2,
) -> int:
    """Estimate the memory that ``predict_windows`` takes beside the image and the network's own features.

    Args:
        shape: (*spatial) of the image.
        patch_size: See ``predict_windows``, as the other arguments.
        classes: Number of classes including the background.
        batch_size: Windows per forward pass.
        mirror: Whether every window is also seen mirrored.
        slice_axis: The axis that a 2D network steps along in a volume.
    """
    grid = _Grid.over(shape, _volume_patch(shape, patch_size, slice_axis), 0.0, "constant")
    logits = batch_size * prod(grid.patch) * (3 if mirror else 2)  # as predicted, and in the slab's precision
    return 4 * classes * (prod(grid.slab_shape) + logits) + prod(shape)


def available_bytes(device: torch.device) -> int:
    """Return the memory that can still be taken on a device, within the limit of the container or job if it has one."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    available = int(psutil.virtual_memory().available)
    for limit, usage in ((Path(a), Path(b)) for a, b in _CGROUP_FILES):
        if limit.exists() and usage.exists() and (text := limit.read_text().strip()).isdigit():
            available = min(available, max(int(text) - int(usage.read_text()), 0))
    return available


@dataclass(frozen=True)
class _Window:
    """One place of the patch in the padded image, and how much each of its voxels counts, as a vector per axis."""

    box: tuple[slice, ...]
    weights: tuple[Tensor, ...]


@dataclass(frozen=True)
class _Grid:
    """Evenly spread windows over an image; their weights sum to one at every voxel.

    ``rolling`` is the axis of which the patch covers the least share: windows are visited along it, so a slab as thick
    as one patch is all that must be held.
    """

    shape: tuple[int, ...]
    patch: tuple[int, ...]
    before: tuple[int, ...]  # voxels padded in front of each axis
    padded: tuple[int, ...]
    windows_of_axis: tuple[tuple[tuple[int, Tensor], ...], ...]  # (start, weights) of each window along each axis
    rolling: int

    @staticmethod
    def over(shape: Sequence[int], patch: Sequence[int], overlap: float, importance: Importance) -> "_Grid":
        padded = tuple(max(size, edge) for size, edge in zip(shape, patch, strict=True))
        axes = tuple(_windows_of_axis(s, p, overlap, importance) for s, p in zip(padded, patch, strict=True))
        before = tuple((p - s) // 2 for p, s in zip(padded, shape, strict=True))
        rolling = min(range(len(patch)), key=lambda axis: patch[axis] / padded[axis])
        return _Grid(tuple(shape), tuple(patch), before, padded, axes, rolling)

    @property
    def padding(self) -> list[int]:
        """What ``functional.pad`` expects: before and after, last axis first."""
        after = [p - s - b for p, s, b in zip(self.padded, self.shape, self.before, strict=True)]
        return [n for pair in zip(self.before[::-1], after[::-1], strict=True) for n in pair]

    @property
    def slab_shape(self) -> tuple[int, ...]:
        return tuple(self.patch[i] if i == self.rolling else size for i, size in enumerate(self.padded))

    def windows(self) -> Iterator[_Window]:
        """Visit all windows, those that begin first along the rolling axis first."""
        order = sorted(range(len(self.patch)), key=lambda axis: axis != self.rolling)
        for along in product(*(self.windows_of_axis[axis] for axis in order)):
            starts, weights = zip(*(along[order.index(axis)] for axis in range(len(order))), strict=True)
            box = tuple(slice(start, start + edge) for start, edge in zip(starts, self.patch, strict=True))
            yield _Window(box, weights)


def _windows_of_axis(size: int, patch: int, overlap: float, importance: Importance) -> tuple[tuple[int, Tensor], ...]:
    count = ceil((size - patch) / max(patch * (1 - overlap), 1)) + 1
    starts = np.linspace(0, size - patch, count).round().astype(int)
    profile = np.ones(patch)
    if importance == "gaussian":
        distance = (np.arange(patch) - (patch - 1) / 2) / (_SIGMA_SHARE * patch)
        profile = np.maximum(np.exp(-0.5 * distance**2), _LEAST_IMPORTANCE)
    voxels = starts[:, None] + np.arange(patch)  # (windows, patch)
    total = np.bincount(voxels.ravel(), weights=np.tile(profile, count), minlength=size)
    weights = torch.from_numpy((profile / total[voxels]).astype(np.float32))
    return tuple(zip(starts.tolist(), weights, strict=True))


class _Slab:
    """The blended logits of the planes that windows still overlap; its first plane is the padded image's ``first``."""

    def __init__(self, grid: _Grid, classes: int, device: torch.device) -> None:
        self.grid = grid
        self.logits = torch.zeros((classes, *grid.slab_shape), device=device)
        self.first = 0

    def add(self, window: _Window, logits: Tensor) -> None:
        """Add one window's logits (classes, *patch), weighted; the window begins with the slab's first plane."""
        rolling = self.grid.rolling
        box = [slice(None) if axis == rolling else part for axis, part in enumerate(window.box)]
        weight = window.weights[0]
        for vector in window.weights[1:]:
            weight = weight[..., None] * vector
        self.logits[(slice(None), *box)].addcmul_(logits.float(), weight.to(logits.device))

    def finished(self, count: int) -> tuple[tuple[slice, ...], Tensor]:
        """Return the place in the image of the first ``count`` planes, and their logits, without what was padded."""
        grid, rolling = self.grid, self.grid.rolling
        where = [slice(0, size) for size in grid.shape]
        box = [slice(before, before + size) for before, size in zip(grid.before, grid.shape, strict=True)]
        low = max(self.first, grid.before[rolling])
        high = min(self.first + count, grid.before[rolling] + grid.shape[rolling])
        where[rolling] = slice(low - grid.before[rolling], high - grid.before[rolling])
        box[rolling] = slice(low - self.first, high - self.first)
        return tuple(where), self.logits[(slice(None), *box)]

    def advance(self, count: int) -> None:
        """Forget the first ``count`` planes."""
        axis, kept = self.grid.rolling, self.logits.shape[1 + self.grid.rolling] - count
        for logits in self.logits:  # one class at a time: source and target overlap, and a copy of all is large
            logits.narrow(axis, 0, kept).copy_(logits.narrow(axis, count, kept).clone())
            logits.narrow(axis, kept, count).zero_()
        self.first += count


def _logits(
    network: nn.Module,
    patches: Tensor,
    classes: int,
    mirrored: Sequence[int] | None,
    flat_axis: int | None,
    precision: torch.dtype,
) -> Tensor:
    """Turn (B, C, *patch) into logits (B, classes, *patch); a 2D network does not see ``flat_axis``, of one voxel."""
    x = patches if flat_axis is None else patches.squeeze(flat_axis)
    with torch.autocast(x.device.type, dtype=precision, enabled=precision != torch.float32):
        logits = _finest(network(x))
        if mirrored is not None:
            there_and_back = _finest(network(x.flip(2))).flip(2)[:, list(mirrored)]
            logits = (logits + there_and_back) / 2
    if logits.shape != (len(x), classes, *x.shape[2:]):
        raise ValueError(
            f"The network turned {tuple(x.shape)} into {tuple(logits.shape)}; a segmentation into {classes} classes "
            f"gives {(len(x), classes, *x.shape[2:])}."
        )
    return logits if flat_axis is None else logits.unsqueeze(flat_axis)


def _finest(output: Tensor | Sequence[Tensor]) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


def _volume_patch(shape: Sequence[int], patch_size: Sequence[int], slice_axis: int) -> tuple[int, ...]:
    """Return the patch with one number per axis of the image: a 2D patch is one voxel thick in a volume."""
    if len(patch_size) == len(shape):
        return tuple(patch_size)
    return (*patch_size[:slice_axis], 1, *patch_size[slice_axis:])


def _check(
    image: Tensor,
    patch_size: Sequence[int],
    classes: int,
    overlap: float,
    mirrored: Sequence[int] | None,
    slice_axis: int,
) -> None:
    spatial = image.ndim - 1
    if len(patch_size) not in (spatial, spatial - 1) or spatial not in (2, 3) or len(patch_size) < 2:
        raise ValueError(f"A patch of {tuple(patch_size)} does not fit an image (C, *spatial) of {tuple(image.shape)}.")
    if not 0 <= overlap < 1:
        raise ValueError(f"The overlap is a share of the patch in [0, 1), got {overlap}.")
    if not 1 <= classes <= 256:
        raise ValueError(f"Class indices are kept as uint8: 1 to 256 classes, got {classes}.")
    if not 0 <= slice_axis < 3:
        raise ValueError(f"A volume has the axes 0, 1 and 2 to step along, got {slice_axis}.")
    if mirrored is not None:
        if sorted(mirrored) != list(range(classes)):
            raise ValueError(f"The mirrored classes must be the {classes} classes in another order, got {mirrored}.")
        if len(patch_size) < spatial and slice_axis == 0:
            raise ValueError("Slices along axis 0 have no left and right to mirror: step along axis 1 or 2.")


def _roomy(device: torch.device, needed: int) -> torch.device:
    """Return the device that windows are blended on: the network's own, or the CPU where only that has the room."""
    for candidate in dict.fromkeys((device, torch.device("cpu"))):
        available = available_bytes(candidate)
        if needed <= available:
            return candidate
    raise InputError(
        f"The prediction needs {needed / 2**30:.1f} GiB beside the network's own features, and {available / 2**30:.1f} "
        "GiB are free. Use a smaller batch or patch, close other programs, or run it where there is more memory."
    )


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Switch dropout and batch statistics off for a while."""
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)
