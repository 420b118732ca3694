"""What the Barlow Twins paper says of its loss."""

from pathlib import Path

import pytest
import torch
from processes import in_processes
from torch import Tensor

from medssl.errors import InputError
from medssl.methods.barlow_twins import BarlowTwins, cross_correlation
from medssl.networks import build_network
from medssl.networks.unet import UNetEncoder
from medssl.sample import Batch
from medssl.views import Views


def embeddings(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def barlow(z_a: Tensor, z_b: Tensor) -> Tensor:
    c = cross_correlation(z_a, z_b)
    return (c.diagonal() - 1).square().sum() + 0.0051 * (c.square().sum() - c.diagonal().square().sum())


def test_identical_decorrelated_embeddings_have_zero_loss() -> None:
    z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert barlow(z, z) < 1e-8


def test_identical_columns_cost_the_weight_of_the_redundancy() -> None:
    z = embeddings(50, 1).expand(50, 3)
    torch.testing.assert_close(barlow(z, z), torch.tensor(6 * 0.0051), atol=1e-5, rtol=0)


def test_matches_a_naive_double_loop() -> None:
    a, b = embeddings(7, 4, 1), embeddings(7, 4, 2)
    expected = torch.zeros(4, 4)
    for i in range(4):
        for j in range(4):
            x, y = a[:, i] - a[:, i].mean(), b[:, j] - b[:, j].mean()
            expected[i, j] = (x * y).sum() / (x.square().sum().sqrt() * y.square().sum().sqrt())
    torch.testing.assert_close(cross_correlation(a, b), expected, atol=1e-5, rtol=1e-5)


def test_is_invariant_to_scale_and_shift_of_each_feature() -> None:
    a, b = embeddings(9, 5, 1), embeddings(9, 5, 2)
    moved = a * torch.tensor([2.0, 0.5, 30.0, 1.0, 7.0]) + torch.arange(5)
    torch.testing.assert_close(barlow(moved, b), barlow(a, b), atol=1e-5, rtol=1e-5)


def test_two_processes_give_the_gradient_of_one_with_both_batches(tmp_path: Path) -> None:
    weight, x = embeddings(6, 4, 3), embeddings(8, 6, 4)

    def gradient(rows: Tensor) -> Tensor:
        w = weight.clone().requires_grad_()
        barlow(rows @ w, (rows + 0.1 * rows.sin()) @ w).backward()
        assert w.grad is not None
        return w.grad

    alone = gradient(x)
    found = in_processes(lambda process: gradient(x[4 * process : 4 * process + 4]), tmp_path)
    torch.testing.assert_close(sum(found) / 2, alone, atol=1e-5, rtol=1e-4)  # the average is what DDP applies


def small() -> BarlowTwins:
    torch.manual_seed(0)
    return BarlowTwins(UNetEncoder(1, 2, (4, 8)), width=8)


def batch(count: int = 4) -> Batch:
    images = torch.rand(count, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    return {"image": images, "seed": torch.arange(count) + 1}


def test_encoder_and_projector_learn_in_two_processes_as_in_one_with_both_batches(tmp_path: Path) -> None:
    def gradient(rows: slice) -> Tensor:
        method = small()
        method.loss({key: value[rows] for key, value in batch(6).items()})["loss"].backward()
        return torch.cat([p.grad.flatten() for p in method.parameters() if p.grad is not None])

    alone = gradient(slice(0, 6))
    found = in_processes(lambda process: gradient(slice(3 * process, 3 * process + 3)), tmp_path)
    torch.testing.assert_close(sum(found) / 2, alone, atol=1e-4, rtol=1e-3)


def test_an_image_is_shown_with_its_two_different_views() -> None:
    shown = small().show(batch())
    assert list(shown) == ["image", "view a", "view b"] and not torch.equal(shown["view a"], shown["view b"])


def test_refuses_a_single_image() -> None:
    with pytest.raises(InputError, match="compares images: it needs at least 2, got 1"):
        small().check(1, 1, (16, 16))
    small().check(2, 1, (16, 16))


def test_refuses_a_batch_of_one() -> None:
    network = build_network("unet", 1, 2, 2, channels=(4, 8), refine_channels=4)
    method = BarlowTwins(network.encoder, width=8, views=Views())
    with pytest.raises(InputError, match="at least 2 per device, got 1"):
        method.loss({"image": torch.rand(1, 1, 16, 16), "seed": torch.tensor([1])})
