"""Residual blocks, as many per level as asked for."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from medssl.errors import InputError
from medssl.networks.resunet import ResidualBlock, ResUNetEncoder


@pytest.mark.parametrize("dims", [2, 3])
def test_a_block_whose_residual_is_silenced_is_its_shortcut(dims: int) -> None:
    block = ResidualBlock(dims, 3, 3)
    nn.init.zeros_(block.residual[1].adn.N.weight)
    x = torch.randn(2, 3, *[4] * dims)
    assert torch.equal(block(x), F.leaky_relu(x, 0.01))


def test_the_shortcut_averages_where_the_size_changes() -> None:
    block = ResidualBlock(2, 3, 3, stride=2)
    nn.init.zeros_(block.residual[1].adn.N.weight)
    x = torch.rand(2, 3, 4, 4)
    assert torch.allclose(block(x), x.unflatten(2, (2, 2)).unflatten(4, (2, 2)).mean((3, 5)))


@pytest.mark.parametrize(("in_channels", "out_channels", "expected"), [(3, 3, 0), (3, 5, 3 * 5 + 2 * 5)])
def test_the_shortcut_projects_only_where_the_channels_change(
    in_channels: int, out_channels: int, expected: int
) -> None:
    shortcut = ResidualBlock(2, in_channels, out_channels, stride=2).shortcut
    assert sum(p.numel() for p in shortcut.parameters()) == expected


def test_the_paper_has_26_blocks_of_two_convolutions_and_a_stem_in_the_encoder() -> None:
    with torch.device("meta"):
        encoder = ResUNetEncoder(1, 3)
    blocks = [m for m in encoder.modules() if isinstance(m, ResidualBlock)]
    assert [len(level) for level in encoder.levels] == [1, 3, 4, 6, 6, 6] and len(blocks) == 26
    main = [n for n, m in encoder.named_modules() if isinstance(m, nn.Conv3d) and "shortcut" not in n]
    assert len(main) == 53
    assert encoder.strides == (1, 2, 4, 8, 16, 32)


def test_a_stem_of_stride_2_tiles_the_image() -> None:
    encoder = ResUNetEncoder(1, 2, (4, 6), (1, 1), stem_stride=2)
    assert encoder.strides == (2, 4)
    convolution = encoder.stem.conv
    assert convolution.kernel_size == convolution.stride == (2, 2)


def test_levels_without_a_number_of_blocks_are_refused() -> None:
    with pytest.raises(InputError, match=r"blocks=\(1, 2\).*3 levels"):
        ResUNetEncoder(1, 2, (4, 6, 8), (1, 2))
