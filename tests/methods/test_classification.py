"""Fine-tuning for classes: weighted cross-entropy of the images that have one."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from medssl.augment import generators
from medssl.errors import InputError
from medssl.methods.classification import Classification, drop, inverse_frequency_weights
from medssl.networks.unet import UNetEncoder
from medssl.sample import Batch
from medssl.views import Views

STILL = Views(window=(1, 1), rotation_degrees=0, mirroring=0, intensity=0)


def batch(*categories: int) -> Batch:
    image = torch.rand(len(categories), 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return {"image": image, "category": torch.tensor(categories), "seed": torch.arange(len(categories))}


def built(**arguments: object) -> Classification:
    torch.manual_seed(0)
    return Classification(UNetEncoder(1, 2, (4, 8), norm="group"), ["a", "b", "c"], **arguments)


def probabilities(method: Classification, one: Batch) -> Tensor:
    return method.probabilities(method.encoder(one["image"])[-1].mean((2, 3)))


def test_the_loss_is_minus_the_log_of_the_probability_of_the_class() -> None:
    method, one = built(views=STILL), batch(0, 2, 1)
    p = probabilities(method, one)
    expected = -(p[0, 0].log() + p[1, 2].log() + p[2, 1].log()) / 3
    torch.testing.assert_close(method.loss(one)["loss"], expected)


def test_images_of_rare_classes_weigh_more_and_so_does_a_lone_one() -> None:
    method = built(views=STILL, images_per_class=[8, 2, 2])
    torch.testing.assert_close(method.class_weight, torch.tensor([0.5, 2.0, 2.0]))
    for category, weight in ((0, 0.5), (1, 2.0)):
        one = batch(category)
        torch.testing.assert_close(method.loss(one)["loss"], -weight * probabilities(method, one)[0, category].log())


def test_weights_add_up_to_the_number_of_images_are_capped_and_are_1_without_images() -> None:
    images = torch.tensor([100, 10, 0, 1])
    weight = inverse_frequency_weights(images, cap=1000)
    torch.testing.assert_close((weight * images).sum(), torch.tensor(111.0))
    torch.testing.assert_close(weight, torch.tensor([0.37, 3.7, 1.0, 37.0]))
    assert inverse_frequency_weights(images, cap=5)[3] == 5


def test_images_without_a_class_are_left_out() -> None:
    method, one = built(views=STILL), batch(0, -1, 1)
    two = {name: value[[0, 2]] for name, value in one.items()}
    for name in ("loss", "accuracy"):
        torch.testing.assert_close(method.loss(one)[name], method.loss(two)[name])


def test_a_batch_without_classes_has_no_loss_and_no_gradient_but_a_graph() -> None:
    method = built(dropout=0.5)
    losses = method.loss(batch(-1, -1))
    losses["loss"].backward()
    assert losses["loss"] == 0 and losses["accuracy"] == 0
    assert all(p.grad is not None and not p.grad.any() for p in method.parameters())


def test_label_smoothing_shares_the_target() -> None:
    method, one = built(views=STILL, label_smoothing=0.3), batch(2)
    p = probabilities(method, one)[0]
    target = torch.tensor([0.1, 0.1, 0.8])
    torch.testing.assert_close(method.loss(one)["loss"], -(target * p.log()).sum())


def test_dropout_is_a_function_of_the_sample_and_keeps_the_mean() -> None:
    z, seeds = torch.ones(3, 20_000), torch.tensor([1, 2, 1])
    dropped = drop(z, 0.2, generators(seeds))
    assert torch.equal(dropped[0], dropped[2]) and not torch.equal(dropped[0], dropped[1])
    assert set(dropped.unique().tolist()) == {0.0, 1.25}
    torch.testing.assert_close(dropped.mean(1), torch.ones(3), atol=0.02, rtol=0)


def test_dropout_is_of_training_alone() -> None:
    method, one = built(dropout=0.9, views=STILL), batch(0, 1)
    plain = F.cross_entropy(probabilities(method, one).log(), one["category"])
    assert not torch.isclose(method.loss(one)["loss"], plain)
    torch.testing.assert_close(method.eval().loss(one)["loss"], plain)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(InputError, match=r"two or more, got a"):
        Classification(UNetEncoder(1, 2, (4, 8)), ["a"])
    with pytest.raises(InputError, match=r"3 classes need as many counts of images, got 2"):
        built(images_per_class=[1, 2])
    with pytest.raises(InputError, match=r"dropout is a share .* got 1"):
        built(dropout=1)
    with pytest.raises(InputError, match=r"multiple of 4, got \(7, 8\)"):
        built(views=Views(size=(7, 8))).loss(batch(0))
