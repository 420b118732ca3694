"""The decoder bridges any distance between levels, and the U-Net itself stays what it was."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from medssl.networks.encoder import Encoder
from medssl.networks.unet import UNetDecoder, normalisation, unet, upsampling


class Stepped(Encoder):
    """Features of any channels and strides."""

    def __init__(self, channels: tuple[int, ...], strides: tuple[int, ...]) -> None:
        super().__init__()
        self.channels, self.strides, self.spatial_dims, self.in_channels = channels, strides, 2, 1

    def forward(self, x: Tensor) -> list[Tensor]:
        sizes = ([n // stride for n in x.shape[2:]] for stride in self.strides)
        return [torch.rand(len(x), c, *size) for c, size in zip(self.channels, sizes, strict=True)]


@pytest.mark.parametrize("strides", [(1,), (16,), (1, 8), (4, 16), (2, 4, 32), (14,), (3, 9)])
def test_a_decoder_reaches_full_size_from_any_strides(strides: tuple[int, ...]) -> None:
    encoder = Stepped(tuple(range(8, 8 + len(strides))), strides)
    image = torch.rand(1, 1, 2 * max(strides), 4 * max(strides))
    assert UNetDecoder(encoder, classes=3)(image, encoder(image)).shape == (1, 3, *image.shape[2:])


def test_a_long_step_halves_size_and_channels_until_it_arrives() -> None:
    steps = [m for m in upsampling(3, 384, 15, 16, "instance").modules() if isinstance(m, nn.ConvTranspose3d)]
    assert [m.in_channels for m in steps] == [384, 192, 96, 48] and steps[-1].out_channels == 15
    assert all(after.in_channels == before.out_channels for before, after in pairwise(steps))
    assert all(m.stride == (2, 2, 2) for m in steps)


def test_steps_of_2_have_the_parameters_they_always_had() -> None:
    keys = unet(1, 2, 3, (4, 6, 8)).decoder.state_dict().keys()
    assert keys == {
        *(f"up.{i}.{p}" for i in range(2) for p in ("weight", "bias")),
        *(f"merge.{i}.{p}" for i in range(2) for p in ("conv.weight", "adn.N.weight", "adn.N.bias")),
        *(f"refine.{p}" for p in ("up.weight", "up.bias", "merge.conv.weight", "merge.adn.N.weight")),
        "refine.merge.adn.N.bias",
        "classify.conv.weight",
        "classify.conv.bias",
    }


@pytest.mark.parametrize(("channels", "groups"), [(4, 1), (15, 1), (32, 2), (64, 4), (320, 20), (56, 1)])
def test_groups_have_16_channels_where_16_divides_them(channels: int, groups: int) -> None:
    assert normalisation("group", channels)[1]["num_groups"] == groups
