"""Sums and batches over all processes of a training, as autograd sees them; on one process they change nothing.

Every loss here is the loss of the whole batch, computed alike in each process from what all of them gathered. DDP then
averages the processes' gradients, so what flows back through a gathered tensor is summed over the processes: the
average of the sum is the gradient that one process with the whole batch would have.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, 0 for the first."""
    return dist.get_rank() if world_size() > 1 else 0


def all_reduce_mean(x: Tensor) -> Tensor:
    """Average a tensor over the processes; the gradient of each is that of the average."""
    averaged: Tensor = _AllReduceMean.apply(x) if world_size() > 1 else x  # type: ignore[no-untyped-call]  # torch's
    return averaged


def gather(x: Tensor) -> Tensor:
    """Concatenate (B, ...) of every process, in order of rank, to (world_size * B, ...), with gradient.

    Every process gives as many rows.
    """
    gathered: Tensor = _Gather.apply(x) if world_size() > 1 else x  # type: ignore[no-untyped-call]  # torch's
    return gathered


class _AllReduceMean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _mean(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # d mean / d x is 1 / world_size, and every process' loss depends on the mean: sum(gradient) / world_size.
        return _mean(gradient)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = len(x)
        parts = [torch.empty_like(x) for _ in range(world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.narrow(0, rank() * ctx.rows, ctx.rows)


def _mean(x: Tensor) -> Tensor:
    total = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total / world_size()
