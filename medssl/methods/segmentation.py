"""Segmentation with few labels: weighted logistic loss and Dice, and error-corrective boosting of what is still poor.

Roy, Conjeti, Sheet, Katouzian, Navab, Wachinger, "Error Corrective Boosting for Learning Fully Convolutional Networks
with Limited Data", MICCAI 2017, https://arxiv.org/abs/1705.00938, sections 2.2 and 2.3.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from medssl.augment import Augmentation
from medssl.errors import InputError
from medssl.losses import logistic_and_dice
from medssl.method import Method
from medssl.networks.segmentation import SegmentationNetwork
from medssl.sample import Batch, require


@dataclass(frozen=True)
class Boosting:
    """Error-corrective boosting: after each validation, classes on which the network is still poor get more weight.

    Args:
        accuracy: What is called the accuracy of a class, ``"recall"`` (sensitivity) or ``"dice"``.
        q: Distance of the worst class from the pole of the weights; the paper's 0.05.
        smoothing: Share of the last weights that is kept, 0 to below 1; the paper has none.
        largest: Clip of the weights; the paper has none.
        background: Weight of the background, which takes no part itself.
    """

    accuracy: Literal["recall", "dice"] = "recall"
    q: float = 0.05
    smoothing: float = 0.0
    largest: float = math.inf
    background: float = 1.0


class Segmentation(Method):
    """Minimise the weighted logistic loss and the soft Dice loss, added 1:1.

    A voxel x of class c = S(x) has the weight ``w(x) = w_c + w0 [edge at x]``. The class weights w_c balance the
    frequencies; with ``boosting`` they are set anew after each validation, from what the network still gets wrong.

    Args:
        network: The network to train; its encoder is what is kept.
        structures: Names of the classes 1, 2, ..., as in the validation's scores.
        voxels: (classes,), how many voxels of the training labels each class has, the background first.
        mirrored: The class that each class becomes in a left-right mirror image; None leaves mirroring off.
        boosting: Sets the class weights from the validation accuracies; None leaves them.
        frequency_cap: Cap of the ratio median frequency / frequency (secondary sources name 5 and 10).
        frequency_power: Power of the ratio; the paper's 1. Below it, large structures and the background keep more
            say: at 1 they cost so little that short trainings sprinkle small structures over them.
        edge_factor: The edges' weight w0 is this times the largest ratio; the paper's 2.
        augment: Applied to each training batch.
    """

    class_weight: Tensor
    edge_weight: Tensor
    mirrored: Tensor | None

    def __init__(
        self,
        network: SegmentationNetwork,
        structures: Sequence[str],
        voxels: Sequence[int],
        mirrored: Sequence[int] | None = None,
        boosting: Boosting | None = None,
        frequency_cap: float = 10.0,
        frequency_power: float = 1.0,
        edge_factor: float = 2.0,
        augment: Augmentation = Augmentation(),
    ) -> None:
        super().__init__()
        self.network = network
        self.encoder = network.encoder
        self.structures = tuple(structures)
        self.boosting, self.augment = boosting, augment
        weight = median_frequency_weights(torch.as_tensor(voxels), frequency_cap, frequency_power)
        if len(weight) != len(structures) + 1:
            raise InputError(
                f"{len(structures)} structures and the background need {len(structures) + 1} voxel counts, "
                f"got {len(weight)}."
            )
        self.register_buffer("class_weight", weight)
        self.register_buffer("edge_weight", edge_factor * weight.max())
        self.register_buffer("mirrored", None if mirrored is None else torch.as_tensor(mirrored))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Weighted logistic loss plus soft Dice loss of an augmented batch, which needs image, label and seed."""
        require(batch, "image", "label", "seed")
        image, label = self.augment(batch["image"], batch["label"], batch["seed"], self.mirrored)
        logits = self.network(image)  # (B, classes, *spatial)
        weight = voxel_weights(label, self.class_weight, self.edge_weight)
        logistic, dice = logistic_and_dice(logits, label, weight)
        return {"loss": logistic + dice, "logistic": logistic.detach(), "dice_loss": dice.detach()}

    def after_validation(self, scores: Mapping[str, float]) -> None:
        """Boost: set the class weights from ``<accuracy>/<structure>``; without boosting nothing happens."""
        boosting = self.boosting
        if boosting is None:
            return
        accuracy = torch.tensor([scores[f"{boosting.accuracy}/{name}"] for name in self.structures])
        absent = [name for name, value in zip(self.structures, accuracy.tolist(), strict=True) if value != value]
        if absent:
            warnings.warn(f"Not boosted, weight 1: the validation scans do not hold {', '.join(absent)}.", stacklevel=2)
        structures = boosting_weights(accuracy, boosting.q).clamp(max=boosting.largest)
        boosted = torch.cat([torch.tensor([boosting.background]), structures]).to(self.class_weight)
        self.class_weight.mul_(boosting.smoothing).add_(boosted, alpha=1 - boosting.smoothing)

    def state_scores(self) -> dict[str, float]:
        """Give the class weights in force as ``weight/<structure>``."""
        weights = self.class_weight[1:].tolist()
        return {f"weight/{name}": value for name, value in zip(self.structures, weights, strict=True)}


def boosting_weights(accuracy: Tensor, q: float = 0.05) -> Tensor:
    """Weigh each class by its accuracy a_c (eq. 3): ``w_c = (median(a) - m) / (a_c - m)`` with ``m = min(a) - q``.

    The median class has weight 1, the worst ``(median(a) - min(a) + q) / q``. A class whose accuracy is NaN takes no
    part in median and minimum and has weight 1.

    Args:
        accuracy: (classes,), 0..1, or NaN.
        q: Keeps the worst class from an infinite weight.
    """
    known = ~accuracy.isnan()
    weight = torch.ones_like(accuracy)
    if known.any():
        a = accuracy[known]
        m = a.min() - q
        weight[known] = (a.quantile(0.5) - m) / (a - m)
    return weight


def median_frequency_weights(voxels: Tensor, cap: float = 10.0, power: float = 1.0) -> Tensor:
    """Weigh each class by ``(median(f) / f_c) ** power``, the ratio at most ``cap`` (section 2.2); an empty class by 1.

    Args:
        voxels: (classes,), counts over the training labels.
        cap: Bound of the ratio; a structure of a few voxels would otherwise outweigh all others.
        power: Of the ratio, after its cap.
    """
    f = voxels.double() / voxels.sum()
    present = f > 0
    weight = torch.ones_like(f)
    weight[present] = (f[present].quantile(0.5) / f[present]).clamp(max=cap).pow(power)
    return weight.float()


def voxel_weights(label: Tensor, class_weight: Tensor, edge_weight: Tensor) -> Tensor:
    """Give ``w(x) = w_{S(x)} + w0 [edge at x]`` for a label (B, *spatial); the same shape."""
    return torch.add(class_weight[label.long()], edges(label) * edge_weight)


def edges(label: Tensor) -> Tensor:
    """Mark the voxels of (B, *spatial) whose label differs from a face neighbour's, along every spatial axis."""
    edge = torch.zeros_like(label, dtype=torch.bool)
    for axis in range(1, label.ndim):
        n = label.shape[axis]
        changes = label.narrow(axis, 1, n - 1) != label.narrow(axis, 0, n - 1)
        edge.narrow(axis, 1, n - 1).logical_or_(changes)
        edge.narrow(axis, 0, n - 1).logical_or_(changes)
    return edge
