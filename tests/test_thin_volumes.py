"""In bf16, the gradient of a convolution of few voxels is that of float32, but for rounding."""

import copy

import pytest
import torch
from torch import Tensor, nn

from medssl.networks import build_encoder
from medssl.thin_volumes import ThinConv3d, guard_thin_volumes


def gradient(convolution: nn.Module, x: Tensor, g: Tensor, low: bool) -> Tensor:
    convolution.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=low):
        y = convolution(x)
    y.float().backward(g)
    assert isinstance(convolution.weight, Tensor) and convolution.weight.grad is not None
    return convolution.weight.grad.clone()


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_the_gradient_in_bf16_is_that_in_float32(depth: int, kernel: int) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv3d(16, 16, kernel, padding=kernel // 2)
    guard_thin_volumes(convolution)
    x, g = torch.randn(4, 16, depth, 6, 6), torch.randn(4, 16, depth, 6, 6)
    exact, found = (gradient(convolution, x, g, low) for low in (False, True))
    assert float((found - exact).abs().max() / exact.abs().max()) < 0.02


def test_a_guarded_network_has_the_same_weights_and_answers() -> None:
    network = build_encoder("unet", 1, 3, channels=(4, 8))
    guarded = copy.deepcopy(network)
    guard_thin_volumes(guarded)
    assert any(isinstance(module, ThinConv3d) for module in guarded.modules())
    guarded.load_state_dict(network.state_dict(), strict=True)
    x = torch.rand(1, 1, 8, 8, 8)
    for one, other in zip(network(x), guarded(x), strict=True):
        assert torch.equal(one, other)


def test_thick_volumes_are_left_in_bf16() -> None:
    convolution = nn.Conv3d(2, 2, 3, padding=1)
    guard_thin_volumes(convolution)
    with torch.autocast("cpu", torch.bfloat16):
        assert convolution(torch.rand(1, 2, 4, 4, 4)).dtype == torch.bfloat16
