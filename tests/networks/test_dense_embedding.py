"""Embeddings have cells of the stride that is asked for, whatever strides the encoder has."""

import pytest
import torch
from torch.nn import functional as F

from medssl.errors import InputError
from medssl.networks import build_encoder
from medssl.networks.dense_embedding import DenseEmbedding


@pytest.mark.parametrize(("stride", "levels"), [(2, [0, 1, 2]), (4, [1, 2]), (8, [2]), (16, [2])])
def test_cells_are_of_the_stride_from_the_levels_that_are_not_finer(stride: int, levels: list[int]) -> None:
    network = DenseEmbedding(build_encoder("unet", 3, 2, channels=(4, 8, 8)), 6, stride)
    assert network.levels == levels
    assert network(torch.rand(2, 3, 32, 48)).shape == (2, 6, 32 // stride, 48 // stride)


def test_an_encoder_of_one_coarse_level_is_enlarged() -> None:
    network = DenseEmbedding(build_encoder("vit", 3, 2, patch=16, width=32, depth=1, heads=2), 6)
    assert network(torch.rand(1, 3, 32, 48)).shape == (1, 6, 4, 6)


def test_levels_are_narrowed_enlarged_and_added() -> None:
    encoder = build_encoder("unet", 3, 2, channels=(4, 8, 8))
    network, image = DenseEmbedding(encoder, 6, 4), torch.rand(1, 3, 16, 16)
    fine, coarse = (narrow(x) for narrow, x in zip(network.narrow, encoder(image)[1:], strict=True))
    expected = fine + F.interpolate(coarse, (4, 4), mode="bilinear", align_corners=False)
    torch.testing.assert_close(network(image), expected)


def test_other_encoders_and_sides_are_refused() -> None:
    with pytest.raises(InputError, match="2D with 3 channels, this one is 3D with 1"):
        DenseEmbedding(build_encoder("unet", 1, 3, channels=(4, 8)), 6)
    network = DenseEmbedding(build_encoder("unet", 3, 2, channels=(4, 8)), 6)
    with pytest.raises(InputError, match="multiple of 4"):
        network(torch.rand(1, 3, 18, 16))
    with pytest.raises(InputError, match=r"cells of 8 pixels.*20 x 16"):
        network(torch.rand(1, 3, 20, 16))
