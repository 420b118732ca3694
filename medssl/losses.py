"""Losses as pure functions: tensors in, scalars out."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class SegmentationLoss(NamedTuple):
    """The two terms of the loss of Roy et al. 2017 (section 2.2), both scalars; they are added 1:1."""

    logistic: Tensor
    dice: Tensor


def logistic_and_dice(logits: Tensor, label: Tensor, weight: Tensor, smooth: float = 1e-5) -> SegmentationLoss:
    r"""Weighted multi-class logistic loss and soft Dice loss, from one soft-max p.

    .. math::
        L_{logistic} &= -\sum_x w(x) \log p_{S(x)}(x) / \sum_x w(x) \\
        L_{dice} &= 1 - \frac{1}{|K|} \sum_{c \in K}
            \frac{2 \sum_x p_c(x) [S(x) = c] + s}{\sum_x p_c(x) + \sum_x [S(x) = c] + s}

    Sums go over the whole batch. K are the classes that the batch's labels hold, without the background: a structure
    that lies outside all crops has no overlap to improve, and its false positives already cost in the first term.
    The backward pass is written out, so that one array of the size of the soft-max is kept instead of six.

    Args:
        logits: (B, C, *spatial), any floating dtype; computed in float32 (float64 stays).
        label: (B, *spatial), class indices S.
        weight: (B, *spatial), non-negative, w.
        smooth: s, keeps the ratio finite.
    """
    logistic, dice = _LogisticAndDice.apply(logits, label, weight, smooth)  # type: ignore[no-untyped-call]  # torch's
    return SegmentationLoss(logistic, dice)


class _LogisticAndDice(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, label: Tensor, weight: Tensor, smooth: float) -> tuple[Tensor, Tensor]:
        classes = logits.shape[1]
        real = torch.float64 if logits.dtype == torch.float64 else torch.float32
        target = label.long().unsqueeze(1)  # (B, 1, *spatial)
        tiny = torch.finfo(real).tiny
        share = weight.to(real).unsqueeze(1) / weight.sum(dtype=real).clamp_min(tiny)
        p = torch.softmax(logits.to(real), dim=1)
        p_true = p.gather(1, target)
        logistic = -(share * p_true.clamp_min(tiny).log()).sum()  # the gradient below is that of the unclamped loss
        volume = torch.bincount(target.flatten(), minlength=classes).to(real)  # (C,)
        overlap = torch.bincount(target.flatten(), weights=p_true.flatten(), minlength=classes).to(real)
        total = p.sum(dim=[0, *range(2, p.ndim)]) + volume + smooth
        present = (volume > 0).to(real)
        present[0] = 0
        count = present.sum().clamp_min(1)
        ratio = (2 * overlap + smooth) / total
        dice = 1 - (ratio * present).sum() / count
        if not present.any():
            dice = dice - 1  # no structure in sight: nothing to overlap
        # d dice / d p_c(x) = everywhere_c + [S(x) = c] * hit_c
        ctx.save_for_backward(p, p_true, target, share, present * ratio / total / count, -2 * present / total / count)
        ctx.dtype = logits.dtype
        return logistic, dice

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_logistic: Tensor, d_dice: Tensor) -> tuple[Tensor, None, None, None]:
        p, p_true, target, share, everywhere, hit = ctx.saved_tensors
        along = (1, -1, *[1] * (p.ndim - 2))
        everywhere, hit_here = d_dice * everywhere.view(along), d_dice * hit[target]
        w = d_logistic * share
        # Soft-max Jacobian: dL/dz_c = p_c (g_c - sum_k p_k g_k), with g the gradient with respect to p.
        mean_gradient = torch.einsum("bc...,c->b...", p, everywhere.flatten()).unsqueeze(1) + hit_here * p_true
        gradient = p * (w - mean_gradient)
        gradient.addcmul_(p, everywhere)
        gradient.scatter_add_(1, target, hit_here * p_true - w)
        return gradient.to(ctx.dtype), None, None, None
