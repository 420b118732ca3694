"""A scan's vector is the average over windows that tile it."""

from pathlib import Path

import torch

from medssl.data.prepared import PreparedDataset
from medssl.evaluation.embedding import embed_scans, tiles
from medssl.networks import build_encoder


def test_tiles_hold_every_voxel_once_and_background_besides() -> None:
    image = torch.rand(2, 5, 7, 4, generator=torch.Generator().manual_seed(0))
    windows = tiles(image, (4, 4, 4))
    assert windows.shape == (4, 2, 4, 4, 4)
    torch.testing.assert_close(windows.sum(), image.sum())
    assert torch.equal(tiles(image[:, :4, :4], (4, 4, 4))[0], image[:, :4, :4])
    flat = torch.arange(16.0).view(1, 4, 4)
    assert torch.equal(tiles(flat, (2, 4))[1], flat[:, 2:])


def test_a_scan_smaller_than_a_window_is_in_its_middle() -> None:
    window = tiles(torch.ones(1, 2, 2), (4, 4))
    assert window.shape == (1, 1, 4, 4) and torch.equal(window[0, 0, 1:3, 1:3], torch.ones(2, 2))


def test_each_scan_has_one_vector_and_the_encoder_stays_as_it_was(prepared_cohort: Path) -> None:
    torch.manual_seed(0)
    data, encoder = PreparedDataset(prepared_cohort), build_encoder("unet", 1, 3, channels=(4, 8), norm="batch")
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    vectors = embed_scans(encoder, data, (16, 16, 16))
    assert vectors.shape == (len(data), 8) and not vectors.requires_grad
    torch.testing.assert_close(vectors, embed_scans(encoder, data, (16, 16, 16), batch_size=1))
    assert encoder.training and all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
