"""Convolutions of volumes thinner than their kernel, kept out of bf16 on processors.

The weights' gradient that PyTorch 2.13's oneDNN computes there in bf16 holds what lay in memory before (with a 3x3x3
kernel: where the first axis is 2 voxels long), so that a training goes on with noise, or with NaN. In float32 it is
right, and on so few voxels it costs nothing.
"""

import torch
from torch import Tensor, nn


class ThinConv3d(nn.Conv3d):
    """Convolves in float32 what is thinner than the kernel along the first axis."""

    def forward(self, input: Tensor) -> Tensor:
        """As ``torch.nn.Conv3d``."""
        if input.device.type != "cpu" or input.shape[2] >= self.kernel_size[0]:
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.float()).to(input.dtype)


def guard_thin_volumes(network: nn.Module) -> None:
    """Let every 3D convolution of a network, in place, keep thin volumes out of bf16; its weights stay as they are."""
    for module in network.modules():
        if type(module) is nn.Conv3d:
            module.__class__ = ThinConv3d
