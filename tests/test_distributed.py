"""What several processes compute in common is what one computes alone on everything."""

from pathlib import Path

import torch
from processes import in_processes
from torch import Tensor

from medssl.distributed import all_reduce_mean, gather, rank, world_size


def rows(process: int) -> Tensor:
    return torch.randn(3, 4, generator=torch.Generator().manual_seed(process), dtype=torch.float64)


def test_one_process_changes_nothing() -> None:
    x = rows(0)
    assert world_size() == 1 and rank() == 0
    assert gather(x) is x and all_reduce_mean(x) is x


def test_gathered_rows_are_in_order_of_rank_and_their_gradient_is_that_of_the_whole_batch(tmp_path: Path) -> None:
    weight = torch.randn(6, 4, generator=torch.Generator().manual_seed(9), dtype=torch.float64)

    def work(process: int) -> tuple[Tensor, Tensor]:
        x = rows(process).requires_grad_()
        whole = gather(x)
        (whole.cos() * weight).sum().backward()
        assert x.grad is not None
        return whole.detach(), x.grad

    alone = torch.cat([rows(0), rows(1)]).requires_grad_()
    (alone.cos() * weight).sum().backward()
    assert alone.grad is not None
    for process, (whole, gradient) in enumerate(in_processes(work, tmp_path)):
        assert torch.equal(whole, alone.detach())
        # every process has the loss of the whole batch; DDP divides by their number
        torch.testing.assert_close(gradient / 2, alone.grad[3 * process : 3 * process + 3])


def test_the_gradient_of_an_average_is_that_of_one_process_with_all_rows(tmp_path: Path) -> None:
    def work(process: int) -> Tensor:
        x = rows(process).requires_grad_()
        all_reduce_mean(x.square().mean(0)).exp().sum().backward()
        assert x.grad is not None
        return x.grad

    alone = torch.cat([rows(0), rows(1)]).requires_grad_()
    alone.square().mean(0).exp().sum().backward()
    assert alone.grad is not None
    found = torch.cat(in_processes(work, tmp_path))
    torch.testing.assert_close(found / 2, alone.grad)
