"""Edges are slopes; a network that sees them answers images, is kept and is read as any other."""

from pathlib import Path

import pytest
import torch

from medssl.data.preparation import Preparation
from medssl.errors import InputError
from medssl.methods.masked_autoencoder import MaskedAutoencoder
from medssl.networks import build_encoder, build_network
from medssl.networks.sobel import edges
from medssl.pretrained import PretrainedEncoder, load_pretrained, save_encoder

SMALL = {"channels": (4, 8), "sobel": True}


def images(channels: int = 1) -> torch.Tensor:
    return torch.rand(2, channels, 16, 16, generator=torch.Generator().manual_seed(0))


def test_edges_of_a_ramp_are_its_slopes() -> None:
    x, y = torch.meshgrid(torch.arange(6.0), torch.arange(5.0), indexing="ij")
    found = edges((2 * x - 3 * y).expand(1, 3, 6, 5))[0, :, 1:-1, 1:-1]
    torch.testing.assert_close(found, torch.tensor([2.0, -3.0]).view(2, 1, 1).expand(2, 4, 3))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_encoder_sees_edges_and_not_intensities(channels: int) -> None:
    encoder = build_encoder("unet", channels, 2, **SMALL).eval()
    assert (encoder.in_channels, list(encoder.channels)) == (channels, [4, 8])
    for seen, brighter in zip(encoder(images(channels)), encoder(images(channels) + 5), strict=True):
        torch.testing.assert_close(seen, brighter, atol=1e-4, rtol=1e-4)


def test_a_segmentation_network_has_the_same_encoder_and_its_own_look_at_the_image() -> None:
    torch.manual_seed(0)
    network = build_network("unet", 1, 3, 2, refine_channels=3, **SMALL).eval()
    alone = build_encoder("unet", 1, 2, **SMALL)
    assert network.encoder.state_dict().keys() == alone.state_dict().keys()
    assert network(images()).shape == (2, 3, 16, 16)
    assert not torch.allclose(network(images()), network(images() + 5), atol=1e-2)


def test_it_is_kept_and_read_with_its_edges(tmp_path: Path) -> None:
    encoder = build_encoder("unet", 1, 2, **SMALL).eval()
    save_encoder(PretrainedEncoder(encoder, "unet", SMALL, Preparation(), (16, 16)), tmp_path / "encoder")
    read = load_pretrained(tmp_path / "encoder").encoder
    for a, b in zip(encoder(images()), read(images()), strict=True):
        assert torch.equal(a, b)


def test_edges_of_volumes_and_hidden_edges_are_refused() -> None:
    with pytest.raises(InputError, match=r"2 channels of 2D images; the encoder is for 3D.*sobel off"):
        build_encoder("unet", 1, 3, **SMALL)
    with pytest.raises(InputError, match="must see voxels, not their edges"):
        MaskedAutoencoder(build_encoder("unet", 1, 2, **SMALL))
