"""What every method that learns from images promises; new ones are found by themselves."""

import pickle
from typing import Any

import pytest
import torch
from torch import Tensor

from medssl.augment import Augmentation
from medssl.errors import InputError
from medssl.method import Method
from medssl.methods import METHODS, PRETEXTS, VIDEO, build_pretext
from medssl.methods.classification import Classification
from medssl.methods.detection import Detection
from medssl.methods.segmentation import Boosting, Segmentation
from medssl.networks import build_network
from medssl.networks.unet import UNetEncoder
from medssl.sample import Batch
from medssl.views import Views


def segmentation(dims: int) -> Method:
    network = build_network("unet", 1, 4, dims, channels=(4, 8), refine_channels=4)
    return Segmentation(
        network,
        ["a", "b", "c"],
        [100, 30, 20, 10],
        [0, 2, 1, 3],
        Boosting(),
        augment=Augmentation(affine=0, intensity=0),
    )


def classification(dims: int) -> Method:
    return Classification(UNetEncoder(1, dims, (4, 8), norm="group"), ["p", "q"], [3, 1], dropout=0.1)


def detection(dims: int) -> Method:
    still = Augmentation(affine=0, intensity=0)
    return Detection(UNetEncoder(1, dims, (4, 8)), ["a", "b", "c"], [0, 2, 1, 3], width=8, augment=still)


TASKS = {"classification": classification, "detection": detection, "segmentation": segmentation}
"""Methods that need more than images, each built from the number of dimensions."""


SMALL: dict[str, dict[str, Any]] = {
    "barlow_twins": {"width": 16},
    "context_prediction": {"patch": 0.25, "width": 32, "grids": 2},
    "deep_cluster": {"k": 2},
    "exemplar": {"patch": 8, "seeds_per_image": 1, "views": 4, "width": 8, "hidden": 16},
    "jigsaw": {"cells": 2, "permutations": 10, "width": 16, "hidden": 32},
    "masked_autoencoder": {"block": 4},
    "models_genesis": {"window": 0.2},
    "moco": {"queue_size": 2, "momentum": 0.99, "temperature": 0.02, "hidden": None, "width": 8},
    "rotation": {"hidden": 64},
    "simclr": {"hidden": 16, "width": 8},
}
"""Arguments that make a method small enough to learn a toy in a second."""


SAMPLES = 4
PALETTE = torch.tensor([[0.1, 0.1, 0.1], [0.9, 0.2, 0.2], [0.2, 0.8, 0.3], [0.2, 0.3, 0.9]])

CHANNELS = {"colorization": 3}
"""Of the images of a method that does not work on one channel."""


def batch(name: str, dims: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, 4, (SAMPLES, *[4] * dims), generator=generator).float()
    label = torch.nn.functional.interpolate(label.unsqueeze(1), scale_factor=4)[:, 0]
    image = label.unsqueeze(1) / 4 + 0.05 * torch.randn(SAMPLES, 1, *[16] * dims, generator=generator)
    number = torch.arange(SAMPLES)
    if CHANNELS.get(name, 1) == 3:
        image = PALETTE[label.long()].movedim(-1, 1) + 0.05 * torch.rand_like(image)
    numbers = {"seed": number + 1, "index": number, "number": number, "category": number % 2}
    return {"image": image, "label": label.to(torch.uint8), **numbers}


def every_method_and_dimension() -> list[tuple[str, int]]:
    images = {name: method for name, method in METHODS.items() if name not in VIDEO}
    return [(name, dims) for name, method in images.items() for dims in method.spatial_dims]


each = pytest.mark.parametrize(("name", "dims"), every_method_and_dimension())


def built(name: str, dims: int) -> Method:
    torch.manual_seed(0)
    if name in TASKS:
        return TASKS[name](dims)
    method = build_pretext(name, UNetEncoder(CHANNELS.get(name, 1), dims, (4, 8)), **SMALL.get(name, {}))
    method.start_epoch([batch(name, dims)])
    return method


def step(method: Method, optimizer: torch.optim.Optimizer, one: Batch) -> dict[str, Tensor]:
    losses = method.loss(one)
    optimizer.zero_grad()
    losses["loss"].backward()
    optimizer.step()
    method.after_step()
    return losses


@each
def test_the_loss_is_finite_and_its_gradient_reaches_all_of_the_encoder(name: str, dims: int) -> None:
    method = built(name, dims)
    losses = method.loss(batch(name, dims))
    assert all(value.ndim == 0 and torch.isfinite(value) for value in losses.values())
    losses["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.encoder.parameters())


@each
def test_it_learns_a_toy(name: str, dims: int) -> None:
    method, one = built(name, dims), batch(name, dims)
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-2)
    losses = [float(step(method, optimizer, one)["loss"].detach()) for _ in range(30)]
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])


@each
def test_its_state_dict_is_all_it_must_remember(name: str, dims: int) -> None:
    method, other, one = built(name, dims), built(name, dims), batch(name, dims)
    optimizer = torch.optim.SGD(method.parameters(), lr=1e-2)
    step(method, optimizer, one)
    method.after_validation(
        {f"{kind}/{s}": a for kind in ("recall", "dice") for s, a in zip("abc", (0.2, 0.5, 0.9), strict=True)}
    )
    other.load_state_dict(method.state_dict())
    assert torch.equal(method.loss(one)["loss"], other.loss(one)["loss"])


@each
def test_its_pretext_survives_pickling(name: str, dims: int) -> None:
    pretext = pickle.loads(pickle.dumps(built(name, dims).pretext))
    sample = {key: value[0] for key, value in batch(name, dims).items()}
    drawn = [pretext(dict(sample), torch.Generator().manual_seed(3)) for _ in range(2)]
    assert all(torch.equal(drawn[0][key], drawn[1][key]) for key in drawn[0])


def test_every_pretext_is_built_from_an_encoder_alone() -> None:
    for name, method in PRETEXTS.items():
        encoder = UNetEncoder(CHANNELS.get(name, 1), max(method.spatial_dims), (4, 8))
        assert isinstance(build_pretext(name, encoder), method)


def test_a_name_or_an_argument_that_no_method_has_is_refused() -> None:
    encoder = UNetEncoder(1, 2, (4, 8))
    with pytest.raises(InputError, match=r"no method of pretraining 'segmentation'. Methods: barlow_twins, .*simclr"):
        build_pretext("segmentation", encoder)
    with pytest.raises(InputError, match=r"'simclr' cannot be built .*heat"):
        build_pretext("simclr", encoder, heat=1)


def test_views_are_given_as_in_yaml() -> None:
    method = build_pretext("simclr", UNetEncoder(1, 2, (4, 8)), views={"size": [8, 8], "overlap": 0.7})
    assert method.views == Views(size=(8, 8), overlap=0.7)
