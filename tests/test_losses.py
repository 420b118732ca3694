"""The loss is that of the paper's formula, and so is its hand-written gradient."""

import pytest
import torch
from torch import Tensor

from medssl.losses import logistic_and_dice


def naive(logits: Tensor, label: Tensor, weight: Tensor, smooth: float = 1e-5) -> tuple[Tensor, Tensor]:
    """The two formulas, literally, class by class."""
    p = logits.softmax(1)
    one_hot = torch.nn.functional.one_hot(label.long(), logits.shape[1]).movedim(-1, 1)
    logistic = -(weight * (p.log() * one_hot).sum(1)).sum() / weight.sum()
    ratios = []
    for c in range(1, logits.shape[1]):
        volume = one_hot[:, c].sum()
        if volume > 0:
            ratios.append((2 * (p[:, c] * one_hot[:, c]).sum() + smooth) / (p[:, c].sum() + volume + smooth))
    return logistic, 1 - torch.stack(ratios).mean()


@pytest.mark.parametrize("spatial", [(5, 6), (3, 4, 5)])
@pytest.mark.parametrize("classes_present", [4, 3])
def test_matches_the_formulas_and_their_automatic_gradient(spatial: tuple[int, ...], classes_present: int) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 4, *spatial, dtype=torch.float64, requires_grad=True)
    label = torch.randint(0, classes_present, (2, *spatial))
    weight = torch.rand(2, *spatial, dtype=torch.float64)
    ours, theirs = logistic_and_dice(logits, label, weight), naive(logits, label, weight)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other)
    for factors in [(1.0, 0.0), (0.0, 1.0), (0.7, 2.0)]:
        (got,) = torch.autograd.grad(factors[0] * ours[0] + factors[1] * ours[1], logits, retain_graph=True)
        (expected,) = torch.autograd.grad(factors[0] * theirs[0] + factors[1] * theirs[1], logits, retain_graph=True)
        torch.testing.assert_close(got, expected)


def test_a_sure_and_right_answer_costs_nothing() -> None:
    label = torch.randint(0, 3, (1, 4, 4), generator=torch.Generator().manual_seed(0))
    logits = 100.0 * torch.nn.functional.one_hot(label, 3).movedim(-1, 1)
    logistic, dice = logistic_and_dice(logits, label, torch.ones(1, 4, 4))
    assert float(logistic) < 1e-6
    assert float(dice) == pytest.approx(0, abs=1e-5)


def test_the_soft_max_is_applied_once() -> None:
    label = torch.tensor([[[0, 1]]])
    logits = torch.tensor([[[[0.0, 0.0]], [[0.0, 2.0]]]])  # p of class 1: 0.5 and sigmoid(2)
    _, dice = logistic_and_dice(logits, label, torch.ones(1, 1, 2), smooth=0)
    p = torch.sigmoid(torch.tensor(2.0))
    assert float(dice) == pytest.approx(float(1 - 2 * p / (0.5 + p + 1)))


def test_a_crop_without_structures_has_no_dice_loss() -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    logistic, dice = logistic_and_dice(logits, torch.zeros(1, 4, 4, dtype=torch.uint8), torch.ones(1, 4, 4))
    assert float(dice) == 0
    (logistic + dice).backward()
    assert logits.grad is not None and torch.isfinite(logits.grad).all()


def test_a_hopelessly_wrong_voxel_stays_finite_and_keeps_its_gradient() -> None:
    logits = torch.tensor([[[[500.0]], [[-500.0]]]], requires_grad=True)
    loss = sum(logistic_and_dice(logits, torch.ones(1, 1, 1, dtype=torch.uint8), torch.ones(1, 1, 1)))
    assert isinstance(loss, Tensor) and torch.isfinite(loss)
    loss.backward()
    assert logits.grad is not None and float(logits.grad[0, 1]) == pytest.approx(-1)


def test_bf16_logits_get_a_bf16_gradient_near_that_of_float32() -> None:
    torch.manual_seed(0)
    label, weight = torch.randint(0, 3, (1, 6, 6)), torch.rand(1, 6, 6)
    half = torch.randn(1, 3, 6, 6).bfloat16()
    gradients = []
    for logits in (half.clone().requires_grad_(), half.float().requires_grad_()):
        sum(logistic_and_dice(logits, label, weight)).backward()  # type: ignore[union-attr]  # two tensors never sum to int
        assert logits.grad is not None and logits.grad.dtype == logits.dtype
        gradients.append(logits.grad.float())
    torch.testing.assert_close(*gradients, rtol=1e-2, atol=1e-4)
