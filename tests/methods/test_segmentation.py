"""The weights are those of the paper: golden values, and the mistakes that released code is known for."""

import math

import pytest
import torch

from medssl.augment import Augmentation
from medssl.errors import InputError
from medssl.methods.segmentation import (
    Boosting,
    Segmentation,
    boosting_weights,
    edges,
    median_frequency_weights,
    voxel_weights,
)
from medssl.networks import build_network

STILL = Augmentation(affine=0, mirroring=0, intensity=0)


def method(**arguments: object) -> Segmentation:
    torch.manual_seed(0)
    network = build_network("unet", 1, 4, 2, channels=(4, 8))
    return Segmentation(network, ["a", "b", "c"], [100, 30, 20, 10], **arguments)


def scores(a: float, b: float, c: float, kind: str = "recall") -> dict[str, float]:
    return {f"{kind}/a": a, f"{kind}/b": b, f"{kind}/c": c, "dice/mean": 0.5}


def test_boosting_weights_have_the_golden_values() -> None:
    weights = boosting_weights(torch.tensor([0.5, 0.9, 0.98], dtype=torch.float64), q=0.05)
    torch.testing.assert_close(weights, torch.tensor([9.0, 1.0, 0.45 / 0.53], dtype=torch.float64))
    assert [round(float(w), 3) for w in weights] == [9.0, 1.0, 0.849]


@pytest.mark.parametrize("q", [0.01, 0.05, 0.2])
def test_the_median_class_weighs_one_and_the_worst_what_the_formula_says(q: float) -> None:
    a = torch.rand(27, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weights = boosting_weights(a, q)
    assert float(weights[a.argsort()[13]]) == pytest.approx(1)
    assert float(weights.max()) == pytest.approx(float((a.median() - a.min() + q) / q))
    assert torch.equal(weights.argsort(), a.argsort(descending=True))


def test_equal_accuracies_weigh_equal() -> None:
    torch.testing.assert_close(boosting_weights(torch.full((5,), 0.7)), torch.ones(5))


def test_an_absent_class_weighs_one_and_takes_no_part() -> None:
    weights = boosting_weights(torch.tensor([0.5, math.nan, 0.9, 0.98]))
    torch.testing.assert_close(weights, torch.tensor([9.0, 1.0, 1.0, 0.45 / 0.53]))


def test_median_frequency_weights_are_not_an_integer_division() -> None:
    weights = median_frequency_weights(torch.tensor([1000, 100, 10]), cap=100)
    torch.testing.assert_close(weights, torch.tensor([0.1, 1.0, 10.0]))


def test_the_ratio_is_capped_and_a_class_without_voxels_weighs_one() -> None:
    weights = median_frequency_weights(torch.tensor([1000, 100, 1, 0]), cap=5)
    torch.testing.assert_close(weights, torch.tensor([0.1, 1.0, 5.0, 1.0]))


def test_a_power_below_one_brings_the_weights_together() -> None:
    weights = median_frequency_weights(torch.tensor([1000, 100, 10]), cap=100, power=0.5)
    torch.testing.assert_close(weights, torch.tensor([0.1, 1.0, 10.0]).sqrt())


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_edges_lie_on_both_sides_of_a_boundary_along_every_spatial_axis(axis: int) -> None:
    label = torch.zeros(1, 6, 6, 6, dtype=torch.uint8)
    label.narrow(axis + 1, 3, 3).fill_(1)
    expected = torch.zeros(6, dtype=torch.bool)
    expected[2:4] = True
    found = edges(label)[0].movedim(axis, 0)
    assert all(bool((plane == e).all()) for plane, e in zip(found, expected, strict=True))


def test_samples_of_a_batch_are_not_each_others_neighbours() -> None:
    label = torch.stack([torch.zeros(4, 4), torch.ones(4, 4)]).to(torch.uint8)
    assert not edges(label).any()


def test_voxel_weights_add_the_edge_term() -> None:
    label = torch.tensor([[[1, 1, 2, 2, 2]]])
    weights = voxel_weights(label, torch.tensor([0.1, 1.0, 4.0]), torch.tensor(8.0))
    torch.testing.assert_close(weights, torch.tensor([[[1.0, 9.0, 12.0, 4.0, 4.0]]]))


def test_the_edge_weight_is_twice_the_largest_ratio() -> None:
    weights = method().class_weight
    torch.testing.assert_close(weights, torch.tensor([0.25, 25 / 30, 1.25, 2.5]))
    assert float(method().edge_weight) == pytest.approx(5)


def test_boosting_sets_the_class_weights_and_keeps_the_background_and_the_edges() -> None:
    boosted = method(boosting=Boosting())
    boosted.after_validation(scores(0.5, 0.9, 0.98))
    torch.testing.assert_close(boosted.class_weight, torch.tensor([1.0, 9.0, 1.0, 0.45 / 0.53]))
    assert float(boosted.edge_weight) == pytest.approx(5)
    assert boosted.state_scores()["weight/a"] == pytest.approx(9)
    assert "class_weight" in boosted.state_dict()


def test_boosting_by_dice_smoothed_and_clipped() -> None:
    boosted = method(boosting=Boosting(accuracy="dice", smoothing=0.5, largest=4.0))
    boosted.after_validation(scores(0.5, 0.9, 0.98, "dice"))
    expected = 0.5 * torch.tensor([0.25, 25 / 30, 1.25, 2.5]) + 0.5 * torch.tensor([1.0, 4.0, 1.0, 0.45 / 0.53])
    torch.testing.assert_close(boosted.class_weight, expected)


def test_a_structure_that_validation_does_not_hold_is_named() -> None:
    boosted = method(boosting=Boosting())
    with pytest.warns(UserWarning, match="do not hold b"):
        boosted.after_validation(scores(0.5, math.nan, 0.9))


def test_without_boosting_the_weights_stay() -> None:
    plain = method()
    before = plain.class_weight.clone()
    plain.after_validation(scores(0.1, 0.9, 0.98))
    assert torch.equal(plain.class_weight, before)


def test_the_batch_is_augmented_with_its_own_seeds() -> None:
    moving = method(augment=Augmentation(affine=1, intensity=1))
    image, label = torch.rand(1, 1, 16, 16), torch.randint(0, 4, (1, 16, 16))
    losses = [
        float(moving.loss({"image": image, "label": label, "seed": torch.tensor([s])})["loss"].detach())
        for s in (1, 1, 2)
    ]
    assert losses[0] == losses[1] != losses[2]


def test_a_batch_without_labels_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="no 'label'"):
        method(augment=STILL).loss({"image": torch.rand(1, 1, 8, 8), "seed": torch.tensor([0])})


def test_voxel_counts_must_be_one_per_class() -> None:
    with pytest.raises(InputError, match="need 4 voxel counts, got 2"):
        Segmentation(build_network("unet", 1, 4, 2, channels=(4, 8)), ["a", "b", "c"], [1, 2])
