"""Muon turns hidden kernels by orthogonal matrices, and is AdamW for everything else."""

import torch
from torch import Tensor, nn

from medssl.networks import build_network
from medssl.optimizers import NEWTON_SCHULZ, Muon, build_optimizer, is_hidden_kernel, orthogonalised


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_orthogonalised_matrices_have_singular_values_near_one_whatever_their_scale() -> None:
    for rows, columns in ((12, 300), (300, 12), (20, 20)):
        for scale in (1e-6, 1.0, 1e6):
            singular = torch.linalg.svdvals(orthogonalised(scale * random(rows, columns)))
            assert singular.max() < 1.3
            assert singular[: rows // 2].min() > 0.6


def test_it_maps_singular_values_by_the_quintic_and_leaves_singular_vectors() -> None:
    matrix = random(16, 40)
    a, b, c = NEWTON_SCHULZ
    U, s, Vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    s = s / matrix.double().norm()
    for _ in range(5):
        s = a * s + b * s**3 + c * s**5
    torch.testing.assert_close(orthogonalised(matrix).double(), U @ s.diag() @ Vh, atol=1e-3, rtol=0)


def test_the_step_of_a_kernel_has_the_size_of_the_learning_rate_whatever_its_gradient() -> None:
    for gradient_scale in (1e-5, 1e5):
        kernel = nn.Parameter(random(16, 16, 3, 3, 3))
        before = kernel.detach().clone()
        optimizer = Muon([kernel], learning_rate=0.1, weight_decay=0.0)
        kernel.grad = gradient_scale * random(16, 16, 3, 3, 3, seed=1)
        optimizer.step()
        largest = torch.linalg.matrix_norm((kernel.detach() - before).flatten(1), ord=2)
        assert 0.06 < largest < 0.13


def test_a_step_goes_against_the_gradient() -> None:
    kernel = nn.Parameter(random(16, 12, 3, 3))
    optimizer = Muon([kernel], learning_rate=0.2)
    losses = []
    for _ in range(60):
        loss = (kernel - 0.1).square().sum()
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.2 * losses[0]


def test_all_but_hidden_kernels_are_trained_as_adamw_trains_them() -> None:
    def build() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv3d(1, 16, 3), nn.Conv3d(16, 4, 1), nn.Flatten(), nn.Linear(4, 2))

    ours, theirs = build(), build()
    assert not any(is_hidden_kernel(p) for p in ours.parameters())
    optimizers = (
        Muon(ours.parameters(), 0.05, adamw_ratio=0.2),
        build_optimizer("adamw", theirs.parameters(), 0.01, 0.01),
    )
    for step in range(5):
        for network, optimizer in zip((ours, theirs), optimizers, strict=True):
            network(random(2, 1, 3, 3, 3, seed=step)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_of_a_unet_the_stem_the_classifier_and_vectors_are_left_to_adamw() -> None:
    network = build_network("unet", 1, 28, 3)
    hidden = {name for name, p in network.named_parameters() if is_hidden_kernel(p)}
    assert len(hidden) > 10
    assert not any(
        "classify" in name or name.endswith("bias") or name.startswith("encoder.levels.0.0") for name in hidden
    )


def test_its_state_survives_saving() -> None:
    def train(kernel: nn.Parameter, optimizer: Muon, seeds: range) -> None:
        for seed in seeds:
            kernel.grad = random(12, 12, 3, 3, seed=seed)
            optimizer.step()

    kernels = [nn.Parameter(torch.zeros(12, 12, 3, 3)) for _ in range(2)]
    whole, first = (Muon([kernel]) for kernel in kernels)
    train(kernels[0], whole, range(6))
    train(kernels[1], first, range(3))
    resumed = Muon([kernels[1]])
    resumed.load_state_dict(first.state_dict())
    train(kernels[1], resumed, range(3, 6))
    assert torch.equal(kernels[0], kernels[1])
