"""Small networks on top of an encoder's features, and what turns features into vectors."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from medssl.distributed import all_reduce_mean, world_size


def pooled(features: Sequence[Tensor]) -> Tensor:
    """Average the coarsest feature map (B, C, *spatial) over space; (B, C)."""
    return features[-1].flatten(2).mean(2)


def projector(widths: Sequence[int], last_norm: bool = False) -> nn.Sequential:
    """Build a perceptron: linear, batch normalisation over all processes, ReLU between layers; the last is linear.

    Args:
        widths: Of the input, the hidden layers and the output.
        last_norm: Batch normalisation without affine parameters after the last layer.
    """
    layers: list[nn.Module] = []
    for before, after in pairwise(widths[:-1]):
        layers += [nn.Linear(before, after, bias=False), BatchNorm(after), nn.ReLU(inplace=True)]
    layers.append(nn.Linear(widths[-2], widths[-1], bias=False))
    if last_norm:
        layers.append(BatchNorm(widths[-1], affine=False))
    return nn.Sequential(*layers)


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation of vectors (B, C) over the batches of all processes, as one with all of them would do it.

    In torch's own, each process has the statistics of its own part; its synchronised one works on GPUs alone.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C); every process gives as many rows."""
        if not self.training or world_size() == 1:
            return super().forward(x)
        rows = len(x) * world_size()
        mean = all_reduce_mean(x.float().mean(0))
        variance = all_reduce_mean((x.float() - mean).square().mean(0))
        if self.running_mean is not None and self.running_var is not None and self.momentum is not None:
            with torch.no_grad():
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(variance * rows / (rows - 1), self.momentum)
        normalised = (x.float() - mean) / (variance + self.eps).sqrt()
        return (normalised if self.weight is None else torch.addcmul(self.bias, normalised, self.weight)).to(x.dtype)


def standardise(z: Tensor, eps: float = 1e-6) -> Tensor:
    """Bring each column of (B, D) to mean 0 and standard deviation 1 over the rows of all processes."""
    centred = z - all_reduce_mean(z.mean(0))
    return centred / (all_reduce_mean(centred.square().mean(0)) + eps).sqrt()


def classifier(in_features: int, classes: int, hidden: int | None = None) -> nn.Sequential:
    """Build a classifier of vectors (B, in_features): linear, or with one hidden layer and ReLU."""
    if hidden is None:
        return nn.Sequential(nn.Linear(in_features, classes))
    return nn.Sequential(nn.Linear(in_features, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, classes))


def accuracy(logits: Tensor, target: Tensor) -> Tensor:
    """Share of the rows of (B, classes) whose largest logit is the target's (B,); a scalar without gradient."""
    with torch.no_grad():
        return (logits.argmax(1) == target).float().mean()
