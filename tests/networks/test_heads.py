"""Batch normalisation of a projector sees the batches of all processes."""

from pathlib import Path

import torch
from processes import in_processes
from torch import Tensor

from medssl.networks.heads import BatchNorm, projector


def rows(count: int) -> Tensor:
    return 3 * torch.randn(count, 4, generator=torch.Generator().manual_seed(0)) + 1


def test_one_process_normalises_as_torch_does() -> None:
    ours, theirs = BatchNorm(4), torch.nn.BatchNorm1d(4)
    for _ in range(3):
        assert torch.equal(ours(rows(6)), theirs(rows(6)))
    assert torch.equal(ours.eval()(rows(6)), theirs.eval()(rows(6)))


def test_two_processes_give_the_values_and_the_statistics_of_one_with_all_rows(tmp_path: Path) -> None:
    def normalised(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        layer = BatchNorm(4)
        torch.nn.init.constant_(layer.weight, 2.0)
        torch.nn.init.constant_(layer.bias, 0.5)
        return layer(x).detach(), layer.running_mean, layer.running_var

    whole, mean, variance = normalised(rows(6))
    found = in_processes(lambda process: normalised(rows(6)[3 * process : 3 * process + 3]), tmp_path)
    torch.testing.assert_close(torch.cat([part for part, _, _ in found]), whole)
    for _, its_mean, its_variance in found:
        torch.testing.assert_close((its_mean, its_variance), (mean, variance))


def test_without_affine_parameters_and_in_bf16_it_keeps_the_type(tmp_path: Path) -> None:
    def normalised(process: int) -> Tensor:
        return BatchNorm(4, affine=False)(rows(6)[3 * process : 3 * process + 3].bfloat16())

    found = torch.cat(in_processes(normalised, tmp_path))
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float().mean(0), torch.zeros(4), atol=0.02, rtol=0)


def test_a_projector_normalises_between_its_layers() -> None:
    kinds = [type(layer).__name__ for layer in projector([8, 16, 16, 4], last_norm=True)]
    assert kinds == ["Linear", "BatchNorm", "ReLU", "Linear", "BatchNorm", "ReLU", "Linear", "BatchNorm"]
