"""Muon: each step turns a kernel by the orthogonal matrix nearest to its momentum.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024, https://kellerjordan.github.io/posts/muon/;
convolution kernels (out, in, *kernel) are matrices (out, in * kernel) there as here. Norms, biases and layers that see
one voxel at a time (embeddings, classifiers) are trained by AdamW, as there.

On brain scans it reaches in 350 steps a Dice that AdamW does not reach in 700 (docs/results.md).
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.adamw import adamw

OptimizerName = Literal["adamw", "muon", "sgd"]

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic that brings singular values near 1 fastest (Jordan et al., "Tuning the coefficients")."""

_LEAST_SIDE = 12  # kernels with fewer channels on a side are no hidden layers: they read images or write maps


def build_optimizer(
    name: OptimizerName,
    parameters: Iterable[nn.Parameter],
    learning_rate: float,
    weight_decay: float,
    factors: Mapping[nn.Parameter, float] | None = None,
) -> Optimizer:
    """Build an optimizer by name for those parameters that are trained; biases and normalisation do not decay.

    Args:
        name: "adamw", "muon", or "sgd" with momentum 0.9.
        parameters: Of the network.
        learning_rate: Its largest value.
        weight_decay: On weights.
        factors: What the rate of a parameter is multiplied by; 1 where it is not named.
    """
    trained = [p for p in parameters if p.requires_grad]
    if name == "muon":
        return Muon(trained, learning_rate, weight_decay=weight_decay, factors=factors)
    vectors, matrices = ([p for p in trained if (p.ndim > 1) == wide] for wide in (False, True))
    groups = [*rated(matrices, learning_rate, factors), *rated(vectors, learning_rate, factors, weight_decay=0.0)]
    if name == "sgd":
        return SGD(groups, learning_rate, momentum=0.9, weight_decay=weight_decay)
    return AdamW(groups, learning_rate, weight_decay=weight_decay)


def rated(
    parameters: Iterable[nn.Parameter], learning_rate: float, factors: Mapping[nn.Parameter, float] | None, **more: Any
) -> list[dict[str, Any]]:
    """Make one group, with its own rate, of the parameters of each factor; ``more`` holds for all of them."""
    of_factor: dict[float, list[nn.Parameter]] = {}
    for p in parameters:
        of_factor.setdefault(1.0 if factors is None else factors.get(p, 1.0), []).append(p)
    return [{"params": group, "lr": factor * learning_rate, **more} for factor, group in of_factor.items()]


class Muon(Optimizer):
    """Muon for hidden convolutions, AdamW for all other parameters.

    Args:
        parameters: Of the network.
        learning_rate: Of Muon; the largest step of a kernel along any direction, so it needs no tuning to the width.
        adamw_ratio: AdamW's learning rate, in Muon's.
        weight_decay: On kernels and matrices, not on biases and normalisation.
        momentum: Of Muon, Nesterov's.
        betas: Of AdamW.
        factors: What the rate of a parameter is multiplied by; 1 where it is not named.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        learning_rate: float = 0.05,
        adamw_ratio: float = 0.2,
        weight_decay: float = 1e-2,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        factors: Mapping[nn.Parameter, float] | None = None,
    ) -> None:
        parameters = list(parameters)
        kernels = [p for p in parameters if is_hidden_kernel(p)]
        matrices = [p for p in parameters if p.ndim > 1 and not is_hidden_kernel(p)]
        vectors = [p for p in parameters if p.ndim <= 1]
        adamw_rate = adamw_ratio * learning_rate
        groups = [
            *rated(kernels, learning_rate, factors, muon=True),
            *rated(matrices, adamw_rate, factors, muon=False),
            *rated(vectors, adamw_rate, factors, muon=False, weight_decay=0.0),
        ]
        defaults = {"lr": learning_rate, "weight_decay": weight_decay, "momentum": momentum, "betas": betas}
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]  # torch's
        """Update all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            trained = [p for p in group["params"] if p.grad is not None]
            if group["muon"]:
                for kernel in trained:
                    self._turn(kernel, group)
            elif trained:
                self._adamw(trained, group)
        return loss

    def _turn(self, kernel: Tensor, group: dict[str, Any]) -> None:
        state, gradient = self.state[kernel], kernel.grad
        assert gradient is not None
        if not state:
            state["momentum"] = torch.zeros_like(kernel)
        m = state["momentum"].lerp_(gradient, 1 - group["momentum"])
        update = gradient.lerp(m, group["momentum"]).flatten(1)  # Nesterov's; (out, in * kernel)
        rows, columns = update.shape
        kernel.mul_(1 - group["lr"] * group["weight_decay"])
        scale = max(1.0, rows / columns) ** 0.5
        kernel.add_(orthogonalised(update).view_as(kernel), alpha=-group["lr"] * scale)

    def _adamw(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        states = [self.state[p] for p in parameters]
        for p, state in zip(parameters, states, strict=True):
            if not state:
                state |= {"step": torch.tensor(0.0), "mean": torch.zeros_like(p), "square": torch.zeros_like(p)}
        beta1, beta2 = group["betas"]
        adamw(
            parameters,
            [p.grad for p in parameters if p.grad is not None],
            [state["mean"] for state in states],
            [state["square"] for state in states],
            [],
            [state["step"] for state in states],
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=1e-8,
            maximize=False,
        )


def is_hidden_kernel(parameter: Tensor) -> bool:
    """Say whether a parameter is a kernel (out, in, *kernel) of a hidden layer that sees more than one voxel."""
    if parameter.ndim < 3:
        return False
    return min(parameter.shape[:2]) >= _LEAST_SIDE and parameter[0, 0].numel() > 1


def orthogonalised(matrix: Tensor, steps: int = 5) -> Tensor:
    """Bring all singular values of a matrix near 1 (0.7 to 1.2) by Newton-Schulz iterations; singular vectors stay.

    Every iterate is a polynomial in A = X X^T times X, so the iteration runs on the small square A, and X, which for a
    kernel is some 27 times as wide, is multiplied twice in place of fifteen times.

    Args:
        matrix: (rows, columns), computed in float32.
        steps: Of the iteration; five are enough for values down to 1/1000 of the largest.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrix.shape[0] > matrix.shape[1]
    X = (matrix.T if tall else matrix).float()
    scale = 1 / (X.norm() + 1e-20)
    X = X * scale
    A, identity = X @ X.T, torch.eye(len(X), device=X.device)
    P = identity
    for _ in range(steps):
        Q = a * identity + b * A + c * A @ A
        P = Q @ P
        A = Q @ A @ Q  # all are polynomials in the first A, so they commute
    nearest: Tensor = (P @ X).to(matrix.dtype)
    return nearest.T if tall else nearest
