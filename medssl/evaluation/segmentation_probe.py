"""How much anatomy can be read linearly from a frozen encoder, voxel by voxel.

The linear probe of Alain & Bengio, "Understanding intermediate layers using linear classifier probes",
https://arxiv.org/abs/1610.01644, for segmentation: a 1x1 convolution on all of the encoder's feature maps. Each crop
goes through the encoder once; its features then serve every step of the decoder.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count, islice
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from medssl.data.prepared import PreparedDataset
from medssl.data.splits import check_no_leak
from medssl.errors import InputError
from medssl.losses import logistic_and_dice
from medssl.metrics import confusion, dice_from_confusion
from medssl.networks.encoder import Encoder
from medssl.networks.segmentation import SegmentationNetwork, check_image
from medssl.patches import Slices, check_patch, pad_to, random_crop, structure_crop
from medssl.sliding_window import predict_windows

Scan = tuple[Tensor | NDArray[np.floating], Tensor | NDArray[np.integer]]
Scans = PreparedDataset | Sequence[Scan]
"""Prepared scans with labels, or pairs of an image (C, *spatial) and its class indices (*spatial)."""

_LEAST_STD = 1e-6  # a channel that varies less is dead: dividing by it would blow up what little it does elsewhere


class LinearDecoder(nn.Module):
    """One linear classifier of all the encoder's features at a place; it fits ``SegmentationNetwork``.

    Up-sampling, concatenating and then convolving is the same as classifying each feature map where it lies and adding
    the up-sampled logits, because interpolation is linear too; there are fewer logits than features, so this is done.

    Args:
        encoder: Its ``channels`` and ``strides`` are all that is used.
        classes: Number of classes, the background included.
        stride: Of the grid on which the feature maps meet; the logits are then up-sampled to the image. None is the
            encoder's finest stride.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: Encoder, classes: int, stride: int | None = None) -> None:
        super().__init__()
        self.channels = tuple(encoder.channels)
        self.stride = encoder.strides[0] if stride is None else stride
        width = sum(self.channels)
        # The loss is convex up to its Dice term: zeros are as good a start as any, and draw from no generator.
        self.weight = nn.Parameter(torch.zeros(classes, width))
        self.bias = nn.Parameter(torch.zeros(classes))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    def standardise(self, samples: Sequence[Sequence[Tensor]]) -> None:
        """Bring each channel to mean 0 and standard deviation 1 over samples of features, each (C, *spatial)."""
        moments = torch.stack([_moments(features) for features in samples]).mean(0)  # (2, width)
        std = (moments[1] - moments[0].square()).clamp_min(0).sqrt()
        self.mean.copy_(moments[0])
        self.std.copy_(torch.where(std > _LEAST_STD, std, 1))

    def forward(self, image: Tensor, features: Sequence[Tensor]) -> Tensor:
        """Turn features, finest first, into logits (B, classes, *spatial) of the image's size."""
        size = image.shape[2:]
        grid = [-(-n // self.stride) for n in size]
        weight = self.weight / self.std
        bias = self.bias - weight @ self.mean
        logits = bias.view(1, -1, *[1] * len(size)).expand(len(image), -1, *grid)
        for feature, part in zip(features, weight.split(self.channels, dim=1), strict=True):
            logits = logits + _resized(torch.einsum("bc...,kc->bk...", feature.to(part), part), grid)
        return _resized(logits, size)


def probe_segmentation(
    encoder: Encoder,
    train: Scans,
    test: Scans,
    patch_size: Sequence[int],
    structures: Sequence[str] | None = None,
    *,
    crops: int = 32,
    structure_share: float = 0.67,
    steps: int = 300,
    batch_size: int = 2,
    learning_rate: float = 0.02,
    stride: int | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """Train a ``LinearDecoder`` on the frozen features of some crops, and score it on whole test scans.

    The encoder's weights, statistics, mode and gradients are left as they are. All features of the crops are held in
    memory: for the U-Net's default encoder and crops of 96^3, 20 MB a crop.

    Args:
        encoder: Any network that keeps the encoder contract; the decoder is trained where it lies.
        train: Labelled scans.
        test: Labelled scans of other subjects.
        patch_size: Of the crops and of the sliding window, voxels; multiples of the encoder's strides.
        structures: Names of the classes 1, 2, ...; prepared scans have their own.
        crops: How many, spread evenly over the training scans.
        structure_share: Share of the crops that are taken around a structure drawn at random; the rest is anywhere.
        steps: Of the decoder.
        batch_size: Crops per step.
        learning_rate: Of AdamW, at the start; it falls to 0 along a cosine.
        stride: See ``LinearDecoder``.
        seed: Of the crops and their order.

    Returns:
        ``dice/<structure>``, over all voxels of all test scans together, NaN where no scan holds it; and ``dice/mean``.

    Raises:
        InputError: There are no scans, or they lack labels or do not fit the encoder; structures are not named; or
            the two parts share a subject.
    """
    names = _names(train, test, structures)
    check_patch(patch_size, encoder.spatial_dims)
    if isinstance(train, PreparedDataset) and isinstance(test, PreparedDataset):
        check_no_leak({"train": train, "test": test})
    generator = Generator().manual_seed(seed)
    classes = len(names) + 1
    counts = np.zeros((classes, classes), dtype=np.int64)
    with _frozen(encoder), torch.inference_mode(False), torch.enable_grad():  # a validation may have switched it off
        device = next(encoder.parameters()).device
        drawn = _draw_crops(train, patch_size, classes, crops, structure_share, generator)
        seen = [_seen(encoder, image, label) for image, label in drawn]
        decoder = LinearDecoder(encoder, classes, stride).to(device)
        decoder.standardise([crop.features for crop in seen])
        _train_decoder(decoder, seen, steps, batch_size, learning_rate, generator)
        network = SegmentationNetwork(encoder, decoder).eval()
        for i in range(len(test)):
            image, label = _scan(test, i, classes)
            labels = predict_windows(network, image.to(device), patch_size, classes, overlap=0.25)
            counts += confusion(labels, label, classes)
    dice = dice_from_confusion(counts)[1:]
    scores = {f"dice/{name}": float(value) for name, value in zip(names, dice, strict=True)}
    return scores | {"dice/mean": float(np.nanmean(dice)) if np.isfinite(dice).any() else float("nan")}


class _Seen(NamedTuple):
    """A crop that went through the encoder: image (C, *patch), label (*patch), features (C_i, *patch / stride_i)."""

    image: Tensor
    label: Tensor
    features: list[Tensor]


def _train_decoder(
    decoder: LinearDecoder,
    crops: Sequence[_Seen],
    steps: int,
    batch_size: int,
    learning_rate: float,
    generator: Generator,
) -> None:
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    endless = (int(i) for _ in count() for i in torch.randperm(len(crops), generator=generator))
    for _ in range(steps):
        batch = [crops[i] for i in islice(endless, batch_size)]
        features = [torch.stack(maps) for maps in zip(*(crop.features for crop in batch), strict=True)]
        label = torch.stack([crop.label for crop in batch])
        logits = decoder(torch.stack([crop.image for crop in batch]), features)
        loss = logistic_and_dice(logits, label, torch.ones_like(label, dtype=logits.dtype))
        optimizer.zero_grad()
        (loss.logistic + loss.dice).backward()
        optimizer.step()
        schedule.step()


def _seen(encoder: Encoder, image: Tensor, label: Tensor) -> _Seen:
    device = next(encoder.parameters()).device
    image = image.to(device)
    check_image(image.unsqueeze(0), encoder)
    with torch.no_grad():
        features = encoder(image.unsqueeze(0))
    return _Seen(image, label.to(device), [feature.squeeze(0) for feature in features])


def _draw_crops(
    scans: Scans,
    patch_size: Sequence[int],
    classes: int,
    crops: int,
    structure_share: float,
    generator: Generator,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Draw crops, image and label, each scan read once; where there are fewer crops than scans, of some scans only."""
    for place, i in enumerate(torch.randperm(len(scans), generator=generator).tolist()):
        of_this_scan = range(place, crops, len(scans))
        if not of_this_scan:
            return
        image, label = _scan(scans, i, classes)
        for _ in of_this_scan:
            where = _crop(label.numpy(), patch_size, structure_share, generator)
            yield (
                torch.from_numpy(pad_to(image[(slice(None), *where)].numpy(), patch_size)),
                torch.from_numpy(pad_to(label[where].numpy(), patch_size)),
            )


def _crop(
    label: NDArray[np.integer], patch_size: Sequence[int], structure_share: float, generator: Generator
) -> Slices:
    around = float(torch.rand((), generator=generator)) < structure_share
    present = np.setdiff1d(label, 0).tolist() if around else []
    if not present:
        return random_crop(patch_size, label.shape, generator)
    return structure_crop(
        patch_size, label.shape, present, lambda c: np.argwhere(label == c).astype(np.int32), generator
    )


def _scan(scans: Scans, i: int, classes: int) -> tuple[Tensor, Tensor]:
    """Read scan ``i``: image (C, *spatial) in float32 and class indices (*spatial), on the CPU."""
    image, label = (scans.image(i), scans.label(i)) if isinstance(scans, PreparedDataset) else scans[i]
    image, label = torch.as_tensor(image).float().cpu(), torch.as_tensor(label).cpu()
    if image.shape[1:] != label.shape:
        raise InputError(
            f"Scan {i}: the image (C, *spatial) is {tuple(image.shape)}, the label (*spatial) {tuple(label.shape)}; "
            "they must share one grid."
        )
    if label.is_floating_point() or not 0 <= int(label.min()) <= int(label.max()) < classes:
        raise InputError(
            f"Scan {i}: the label must hold class indices 0 to {classes - 1}, got {label.dtype} from {label.min()} to "
            f"{label.max()}. Name as many structures as there are, and map label ids to classes first."
        )
    return image, label


def _names(train: Scans, test: Scans, structures: Sequence[str] | None) -> Sequence[str]:
    """Names of the classes 1, 2, ..., once it is known that there is something to train and test on."""
    if not len(train) or not len(test):
        raise InputError(f"A probe needs scans to train and to test on, got {len(train)} and {len(test)}.")
    label_sets = {scans.label_set for scans in (train, test) if isinstance(scans, PreparedDataset)}
    if len(label_sets) > 1:
        raise InputError(
            "The scans to train and to test on were prepared with different structures. Prepare them alike."
        )
    names = structures or [name for label_set in label_sets if label_set is not None for name in label_set.names]
    if not names:
        raise InputError("The structures have no names: prepare the scans with labels, or give structures=[...].")
    return names


@contextmanager
def _frozen(encoder: Encoder) -> Iterator[None]:
    """Put an encoder into evaluation mode for a while, and each of its modules back into its own."""
    modes = {module: module.training for module in encoder.modules()}
    encoder.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _moments(features: Sequence[Tensor]) -> Tensor:
    """Mean and mean square of all channels of one sample's features, (2, width)."""
    flat = [feature.flatten(1).double() for feature in features]
    return torch.stack([torch.cat([x.mean(1) for x in flat]), torch.cat([x.square().mean(1) for x in flat])])


def _resized(x: Tensor, size: Sequence[int]) -> Tensor:
    """Interpolate (B, C, *spatial) linearly up to ``size``, or average down to it."""
    if list(x.shape[2:]) == list(size):
        return x
    if any(n > to for n, to in zip(x.shape[2:], size, strict=True)):
        return F.interpolate(x, list(size), mode="area")
    return F.interpolate(x, list(size), mode="trilinear" if len(size) == 3 else "bilinear", align_corners=False)
