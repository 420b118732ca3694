"""The decoder finds the encoder's pooling indices again from the features alone."""

import torch
from torch.nn import functional as F

from medssl.networks.sdnet import pool_with_indices, sdnet


def test_unpooling_puts_each_maximum_back_where_it_was() -> None:
    x = torch.randn(2, 3, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    maxima, indices = pool_with_indices(x)
    back = F.max_unpool3d(maxima, indices, 2)
    assert torch.equal(back[back != 0], x[back != 0])
    assert torch.equal(F.max_pool3d(back.clamp(min=0), 2), maxima.clamp(min=0))


def test_the_paper_has_7x7_kernels_and_64_channels_in_2d() -> None:
    network = sdnet(1, 28, 2)
    kernels = [m.kernel_size for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    assert kernels.count((7, 7)) == 7 and kernels.count((1, 1)) == 1
    assert network.encoder.channels == (64, 64, 64, 64)
