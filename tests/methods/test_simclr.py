"""What the SimCLR paper says of its loss, and that chunks change the memory only."""

import math
from pathlib import Path

import pytest
import torch
from processes import in_processes
from torch import Tensor
from torch.nn import functional as F

from medssl.errors import InputError
from medssl.methods.simclr import SimCLR, similarities
from medssl.networks.unet import UNetEncoder
from medssl.sample import Batch


def embeddings(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def nt_xent(z_a: Tensor, z_b: Tensor, temperature: float = 0.5) -> Tensor:
    return F.cross_entropy(*similarities(z_a, z_b, temperature))


def small(dims: int = 2, chunk: int | None = None) -> SimCLR:
    torch.manual_seed(0)
    return SimCLR(UNetEncoder(1, dims, (4, 8)), hidden=16, width=8, chunk=chunk)


def batch(count: int = 4, dims: int = 2) -> Batch:
    images = torch.rand(count, 1, *[16] * dims, generator=torch.Generator().manual_seed(1))
    return {"image": images, "seed": torch.arange(count)}


def test_orthogonal_images_with_identical_views_cost_what_the_temperature_leaves() -> None:
    z = torch.eye(5)
    expected = math.log(1 + 8 * math.exp(-1 / 0.5))  # one positive of cosine 1 among 8 negatives of cosine 0
    torch.testing.assert_close(nt_xent(z, z), torch.tensor(expected))


def test_identical_embeddings_cost_a_blind_guess() -> None:
    z = torch.ones(6, 3)
    torch.testing.assert_close(nt_xent(z, z), torch.tensor(math.log(11)))


def test_matches_a_naive_double_loop() -> None:
    z_a, z_b = embeddings(4, 3, 1), embeddings(4, 3, 2)
    z = [row.double() for pair in zip(z_a, z_b, strict=True) for row in pair]  # the paper's order: 2k - 1, 2k
    total = 0.0
    for i in range(8):
        j = i + 1 if i % 2 == 0 else i - 1
        cosines = [float(z[i] @ z[n] / (z[i].norm() * z[n].norm())) / 0.5 for n in range(8)]
        total -= cosines[j] - math.log(sum(math.exp(cosines[n]) for n in range(8) if n != i))
    torch.testing.assert_close(nt_xent(z_a, z_b), torch.tensor(total / 8), atol=1e-6, rtol=1e-6)


def test_is_invariant_to_the_length_of_embeddings_and_to_swapping_the_views() -> None:
    z_a, z_b = embeddings(4, 3, 1), embeddings(4, 3, 2)
    torch.testing.assert_close(nt_xent(z_b * 7, z_a * torch.rand(4, 1)), nt_xent(z_a, z_b))


def test_two_processes_give_the_gradient_of_one_with_both_batches(tmp_path: Path) -> None:
    weight, x = embeddings(6, 4, 3), embeddings(8, 6, 4)

    def gradient(rows: Tensor) -> Tensor:
        w = weight.clone().requires_grad_()
        nt_xent(rows @ w, (rows + 0.1 * rows.sin()) @ w).backward()
        assert w.grad is not None
        return w.grad

    alone = gradient(x)
    found = in_processes(lambda process: gradient(x[4 * process : 4 * process + 4]), tmp_path)
    torch.testing.assert_close(sum(found) / 2, alone, atol=1e-5, rtol=1e-4)  # the average is what DDP applies


def test_encoder_and_projector_learn_in_two_processes_as_in_one_with_both_batches(tmp_path: Path) -> None:
    def gradient(rows: slice) -> Tensor:
        method = small()
        method.loss({key: value[rows] for key, value in batch(4).items()})["loss"].backward()
        return torch.cat([p.grad.flatten() for p in method.parameters() if p.grad is not None])

    alone = gradient(slice(0, 4))
    found = in_processes(lambda process: gradient(slice(2 * process, 2 * process + 2)), tmp_path)
    torch.testing.assert_close(sum(found) / 2, alone, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("dims", [2, 3])
def test_chunks_give_the_loss_and_the_gradient_of_the_large_batch(dims: int) -> None:
    whole, chunked = small(dims), small(dims, chunk=3)
    losses = [method.loss(batch(4, dims))["loss"] for method in (whole, chunked)]
    torch.testing.assert_close(losses[0], losses[1])
    for loss in losses:
        loss.backward()
    for p, q in zip(whole.parameters(), chunked.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, atol=1e-5, rtol=1e-4)


def test_the_encoder_never_sees_more_than_a_chunk_and_sees_each_twice() -> None:
    method = small(chunk=3)
    seen: list[int] = []
    method.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    method.loss(batch(4))["loss"].backward()
    assert seen[:3] == [3, 3, 2] and sorted(seen[3:]) == [2, 3, 3]


def test_an_image_is_shown_with_its_two_different_views() -> None:
    shown = small().show(batch())
    assert all(picture.shape == (4, 1, 16, 16) for picture in shown.values())
    assert not torch.equal(shown["view a"], shown["view b"])


def test_refuses_a_single_image() -> None:
    with pytest.raises(InputError, match="at least 2 over all devices, got 1"):
        similarities(torch.ones(1, 3), torch.ones(1, 3), 0.5)
    with pytest.raises(InputError, match="at least 2, got 1"):
        small().check(1, 1, (16, 16))
    small().check(2, 1, (16, 16))


def test_refuses_a_chunk_of_nothing() -> None:
    with pytest.raises(InputError, match=r"at least 1.*got 0"):
        small(chunk=0)
