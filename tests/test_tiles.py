"""Tiles are what slicing gives, one by one."""

import pytest
import torch
from torch import Tensor

from medssl.tiles import cut, enlarged, mosaic, normalised, textured


def image(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def test_tiles_are_what_slicing_gives() -> None:
    x = image(2, 3, 9, 8, 7)
    start = torch.tensor([[[0, 1, 2], [4, 4, 1]], [[5, 0, 0], [3, 2, 3]]])
    tiles = cut(x, start, (4, 3, 2))
    assert tiles.shape == (2, 2, 3, 4, 3, 2)
    for b in range(2):
        for t in range(2):
            i, j, k = start[b, t].tolist()
            assert torch.equal(tiles[b, t], x[b, :, i : i + 4, j : j + 3, k : k + 2])


def test_each_channel_may_start_elsewhere() -> None:
    x, start = image(1, 2, 6, 6), torch.tensor([[[[0, 0], [2, 1]]]])  # (B, T, C, dims)
    tile = cut(x, start, (3, 3))[0, 0]
    assert torch.equal(tile[0], x[0, 0, :3, :3]) and torch.equal(tile[1], x[0, 1, 2:5, 1:4])


def test_background_has_no_texture() -> None:
    x = image(1, 1, 8, 8)
    x[..., :4] = 0.5
    assert textured(cut(x, torch.tensor([[[0, 0], [0, 4]]]), (4, 4)), x, 0.1).tolist() == [[False, True]]


def test_normalised_tiles_forget_their_scale_and_a_constant_one_becomes_zero() -> None:
    tile = image(2, 1, 6, 6)
    torch.testing.assert_close(normalised(3 * tile + 2), normalised(tile), atol=1e-3, rtol=0)
    assert torch.equal(normalised(torch.full((1, 1, 4, 4), 0.25)), torch.zeros(1, 1, 4, 4))


def test_tiles_are_enlarged_to_at_least_two_strides_and_left_alone_where_they_fit() -> None:
    tile = image(1, 1, 5, 9)
    assert enlarged(tile, 4).shape == (1, 1, 8, 12)
    assert enlarged(image(1, 1, 8, 12), 4).shape == (1, 1, 8, 12)


@pytest.mark.parametrize("dims", [2, 3])
def test_tiles_laid_out_again_are_the_image(dims: int) -> None:
    x = image(2, 3, *[6, 9, 12][:dims])
    side = [n // 3 for n in x.shape[2:]]
    start = torch.cartesian_prod(*[torch.arange(3) * n for n in side]).expand(2, -1, -1)
    assert torch.equal(mosaic(cut(x, start, side), 3), x)
