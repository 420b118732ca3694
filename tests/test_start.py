"""A training starts from what it was told to, and its layers move as fast as they were told to."""

import logging
from pathlib import Path

import pandas as pd
import pytest
import torch

from medssl.data.preparation import Preparation
from medssl.data.prepared import PreparedDataset
from medssl.errors import InputError
from medssl.model import load_model
from medssl.networks import ENCODERS, build_encoder, build_network
from medssl.pretrained import PretrainedEncoder, save_encoder
from medssl.start import Start, layers_of
from medssl.train_segmentation import Recipe, train_segmentation

ARGUMENTS = {"channels": [4, 8], "refine_channels": 4}
ENCODER_ARGUMENTS = {"channels": [4, 8]}
RECIPE = Recipe(patch_size=(16, 16, 16), epoch_steps=2, workers=0, precision="fp32")


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    torch.manual_seed(3)
    network = build_encoder("unet", 1, 3, **ENCODER_ARGUMENTS)
    save_encoder(PretrainedEncoder(network, "unet", ENCODER_ARGUMENTS, Preparation(), (16, 16, 16)), tmp_path / "enc")
    return tmp_path / "enc"


def train(data: Path, out: Path, start: Start) -> pd.DataFrame:
    return train_segmentation(
        PreparedDataset(data), None, out, steps=2, network_arguments=ARGUMENTS, recipe=RECIPE, start=start
    )


def test_a_pretrained_encoder_is_where_training_starts_from(
    prepared_cohort: Path, encoder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="medssl"):
        train(prepared_cohort, tmp_path / "out", Start(encoder=str(encoder), frozen=True))
    assert "100.0% of the network's numbers are filled" in caplog.text
    kept = load_model(tmp_path / "out" / "model").network.encoder.state_dict()
    torch.manual_seed(3)
    expected = build_encoder("unet", 1, 3, **ENCODER_ARGUMENTS).state_dict()
    assert all(torch.equal(kept[name], expected[name]) for name in expected), "a frozen encoder stays"


def test_layers_near_the_image_move_less(prepared_cohort: Path, encoder: Path, tmp_path: Path) -> None:
    torch.manual_seed(3)
    before = build_encoder("unet", 1, 3, **ENCODER_ARGUMENTS).state_dict()

    def moved(decay: float) -> list[float]:
        out = tmp_path / f"decay{decay}"
        train(prepared_cohort, out, Start(encoder=str(encoder), layer_decay=decay))
        after = load_model(out / "model").network.encoder.state_dict()
        return [
            float((after[f"levels.{i}.1.conv.weight"] - before[f"levels.{i}.1.conv.weight"]).norm()) for i in (0, 1)
        ]

    plain, decayed = moved(1.0), moved(0.01)
    assert decayed[0] < 0.02 * plain[0] and 0 < decayed[1] < 0.2 * plain[1]
    assert decayed[0] < decayed[1]


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_every_encoder_has_layers_in_order_that_hold_each_parameter_once(name: str) -> None:
    encoder = build_encoder(name, 1, 2)
    layers = layers_of(encoder)
    assert len(layers) > 2
    assert [p for names in layers for p in names] == [p for p, _ in encoder.named_parameters()]


def test_images_prepared_otherwise_are_said(encoder: Path, caplog: pytest.LogCaptureFixture) -> None:
    network = build_network("unet", 1, 4, 3, **ARGUMENTS)
    Start(encoder=str(encoder)).fill(network, Preparation())
    assert "prepared otherwise (" not in caplog.text
    Start(encoder=str(encoder)).fill(network, Preparation(spacing_mm=2.0))
    assert "prepared otherwise (spacing_mm 1.0, now 2.0)" in caplog.text


def test_contradictions_are_refused() -> None:
    with pytest.raises(InputError, match="give one of the two"):
        Start(model="a", encoder="b")
    with pytest.raises(InputError, match=r"layer_decay .* got 0"):
        Start(layer_decay=0)
