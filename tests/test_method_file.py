"""A trained method comes back whole, from a folder that is never unpickled."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from medssl.data.preparation import Preparation
from medssl.errors import InputError
from medssl.method import Method
from medssl.method_file import TrainedMethod, load_method, save_method
from medssl.methods import PRETEXTS, build_pretext
from medssl.networks import build_encoder
from medssl.sample import Batch

ARGUMENTS: dict[str, Any] = {"channels": [4, 8], "stem_stride": 1}
SMALL: dict[str, dict[str, Any]] = {
    "barlow_twins": {"width": 16},
    "context_prediction": {"patch": 0.25, "width": 16, "grids": 1},
    "deep_cluster": {"k": 2, "views": {"size": [8, 8]}},
    "exemplar": {"form": "classification", "patch": 8, "seeds": 6, "seeds_per_image": 1, "views": 2, "hidden": 8},
    "jigsaw": {"cells": 2, "permutations": 10, "width": 8, "hidden": 8},
    "masked_autoencoder": {"block": 4},
    "moco": {"queue_size": 8, "hidden": None, "width": 8},
    "simclr": {"hidden": 16, "width": 8},
}


def channels(name: str) -> int:
    return 3 if name == "colorization" else 1


def built(name: str, seed: int) -> Method:
    torch.manual_seed(seed)
    return build_pretext(name, build_encoder("unet", channels(name), 2, **ARGUMENTS), **SMALL.get(name, {}))


def saved(name: str, folder: Path) -> TrainedMethod:
    method = built(name, 1)
    method.start_epoch([batch(name)])
    trained = TrainedMethod(
        method.eval(),
        name,
        SMALL.get(name, {}),
        "unet",
        ARGUMENTS,
        Preparation(spacing_mm=2.0),
        {"patch_size": (16, 16)},
    )
    save_method(trained, folder)
    return trained


def batch(name: str) -> Batch:
    number = torch.arange(4)
    image = torch.rand(4, channels(name), 16, 16, generator=torch.Generator().manual_seed(0))
    return {"image": image, "seed": number + 1, "index": number, "number": number}


@pytest.mark.parametrize("name", PRETEXTS)
def test_every_method_comes_back_as_it_was(tmp_path: Path, name: str) -> None:
    one = saved(name, tmp_path / "method")
    again = load_method(tmp_path / "method")
    with torch.no_grad():
        told, expected = (m.method.loss(batch(name)) for m in (again, one))
    assert all(torch.equal(told[part], expected[part]) for part in expected)
    assert not again.method.training and again.patch_size == (16, 16) and again.preparation == one.preparation
    assert (again.name, again.arguments, again.encoder_arguments) == (name, one.arguments, ARGUMENTS)
    assert sorted(p.name for p in (tmp_path / "method").iterdir()) == ["method.json", "weights.safetensors"]


def test_another_methods_weights_and_no_method_are_refused(tmp_path: Path) -> None:
    saved("rotation", tmp_path / "method")
    path = tmp_path / "method" / "method.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "method": "simclr"}))
    with pytest.raises(InputError, match="not those of the method that it names"):
        load_method(tmp_path / "method")
    (tmp_path / "method" / "weights.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="damaged"):
        load_method(tmp_path / "method")
    with pytest.raises(InputError, match=r"is no method; there is nothing at that path.*as medssl pretrain writes it"):
        load_method(tmp_path / "nowhere")
