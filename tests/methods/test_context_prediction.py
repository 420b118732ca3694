"""What the context prediction paper says of its pairs of patches, and what its guards are worth."""

import math
from pathlib import Path

import pytest
import torch
from processes import in_processes
from torch import Tensor

from medssl.errors import InputError
from medssl.methods.context_prediction import ContextPrediction, directions, in_place, without_green_to_magenta
from medssl.networks.unet import UNetEncoder
from medssl.sample import Batch

OFF = {"jitter": 0, "coarse": 0, "bias": 0, "gamma": 0, "normalise": False, "colour": "keep"}


def build(dims: int = 2, channels: int = 1, **arguments: object) -> ContextPrediction:
    torch.manual_seed(0)
    return ContextPrediction(UNetEncoder(channels, dims, (4, 8)), width=8, **arguments)


def batch_of(image: Tensor) -> Batch:
    return {"image": image, "seed": torch.arange(len(image)) + 1}


def random(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def numbered(side: int, dims: int, count: int = 2) -> Tensor:
    """Images whose voxels hold their own number."""
    return torch.arange(side**dims, dtype=torch.float64).view(1, 1, *[side] * dims).repeat(count, 1, *[1] * dims)


def corners(patch: Tensor, side: int, dims: int) -> Tensor:
    """Read from numbered patches (..., C, *side) where they start, (..., dims)."""
    number = patch.flatten(-dims - 1)[..., 0].long()
    return torch.stack([number // side**power % side for power in reversed(range(dims))], -1)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_cell_has_8_neighbours_in_an_image_and_26_in_a_volume(dims: int) -> None:
    steps = directions(dims)
    assert len({tuple(step) for step in steps.tolist()}) == len(steps) == 3**dims - 1
    assert steps.abs().max() == 1 and (steps != 0).any(1).all()


@pytest.mark.parametrize("dims", [2, 3])
def test_a_neighbour_lies_where_its_class_says(dims: int) -> None:
    method = build(dims, **OFF)
    patch, place, _ = method.patches(batch_of(numbered(40, dims)))
    assert patch.shape == (2, 4, 9, 1, *[8] * dims)
    start = corners(patch, 40, dims)
    torch.testing.assert_close(start[:, :, 1:] - start[:, :, :1], 12 * directions(dims)[place])  # side 8, gap 4


def test_half_a_patch_less_the_jitter_is_between_any_two_patches() -> None:
    patch, _, _ = build(**{**OFF, "jitter": 0.2, "grids": 16}).patches(batch_of(numbered(80, 2)))
    start = corners(patch, 80, 2)  # side 16, gap 8, jitter 3
    distance = (start.unsqueeze(2) - start.unsqueeze(3)).abs().amax(-1)
    other = ~torch.eye(9, dtype=torch.bool)
    assert distance[..., other].min() >= 16 + 8 - 2 * 3
    assert len(distance[..., other].unique()) > 6


def test_where_the_centre_lies_does_not_depend_on_the_neighbours() -> None:
    """The whole grid fits, so a centre in the left half of an image has left neighbours as often as right ones."""
    patch, place, _ = build(**OFF, grids=200, neighbours=1).patches(batch_of(numbered(64, 2, 4)))
    x = corners(patch[:, :, 0], 64, 2)[..., 0].flatten().double()
    step = directions(2)[place.flatten()][:, 0].double()
    assert abs(float(torch.corrcoef(torch.stack([x, step]))[0, 1])) < 0.08


def test_a_sample_has_the_same_patches_in_any_batch() -> None:
    method, batch = build(), batch_of(random(3, 1, 40, 40))
    together, alone = method.patches(batch), method.patches({key: value[2:] for key, value in batch.items()})
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one, other[2:])


def test_matches_a_naive_loop_over_pairs() -> None:
    method = build(grids=2, neighbours=3)
    batch = batch_of(random(2, 1, 40, 40))
    patch, place, _ = method.patches(batch)
    costs = []
    for b in range(2):
        for g in range(2):
            for n in range(3):
                pair = [
                    method.encoder(patch[b, g, i : i + 1])[-1] for i in (0, n + 1)
                ]  # 8 voxels, as the encoder takes
                parts = [torch.stack([f[0, :, x, y] for x in (0, 1) for y in (0, 1)], 1).flatten() for f in pair]
                logits = method.fc7_to_fc9(torch.cat([method.fc6(part) for part in parts]))
                costs.append(-logits.log_softmax(0)[place[b, g, n]])
    torch.testing.assert_close(method.loss(batch)["loss"], torch.stack(costs).mean())


def test_a_ramp_of_brightness_tells_the_place_only_without_the_guards() -> None:
    x, y = torch.meshgrid(torch.arange(80.0), torch.arange(80.0), indexing="ij")
    image = (x + 4 * y).expand(8, 1, 80, 80) / 400 + 0.01 * random(1, 80, 80)

    def share_found(method: ContextPrediction) -> float:
        """Compare mean intensities, as a fair network would not need to."""
        patch, place, _ = method.patches(batch_of(image))
        mean = patch.mean((-3, -2, -1))
        step = (mean[:, :, 1:] - mean[:, :, :1]) * 400 / 24  # (dx + 4 dy), the patches being 24 pixels apart
        found = (step.unsqueeze(-1) - directions(2).float() @ torch.tensor([1.0, 4.0])).abs().argmin(-1)
        return float((found == place).float().mean())

    assert share_found(build(**OFF)) == 1
    assert share_found(build()) < 0.2  # 1 in 8 by chance


def test_pairs_with_an_empty_patch_are_left_out() -> None:
    image = random(2, 1, 40, 40)
    image[:, :, :, 20:] = 0
    method = build()
    patch, _, kept = method.patches(batch_of(image))
    empty = patch.flatten(3).std(3) == 0
    assert 0 < kept.float().mean() < 1
    assert not (kept & (empty[:, :, :1] | empty[:, :, 1:])).any()
    nothing = method.loss(batch_of(torch.zeros(2, 1, 40, 40)))
    assert float(nothing["loss"].detach()) == float(nothing["kept"]) == 0


def test_two_processes_give_the_gradient_of_one_with_both_batches(tmp_path: Path) -> None:
    image = random(2, 1, 40, 40)
    image[0, :, :, 20:] = 0  # so that one process has fewer pairs
    batch = batch_of(image)

    def gradient(rows: Batch) -> Tensor:
        method = build()
        method.loss(rows)["loss"].backward()
        return torch.cat([p.grad.flatten() for p in method.parameters() if p.grad is not None])

    alone = gradient(batch)
    found = in_processes(lambda n: gradient({k: v[n : n + 1] for k, v in batch.items()}), tmp_path)
    torch.testing.assert_close(sum(found) / 2, alone, atol=1e-6, rtol=1e-4)  # the average is what DDP applies


def test_one_channel_of_each_patch_is_kept_and_the_others_are_weak_noise() -> None:
    image = random(2, 3, 40, 40)
    spread = build(channels=3).patches(batch_of(image)).patch.flatten(4).std(4).flatten(0, 2).sort(1).values
    assert spread[:, :2].max() < 0.02 and spread[:, 2].min() > 0.9


def test_projection_leaves_nothing_between_green_and_magenta() -> None:
    rgb = random(2, 3, 5, 5)
    projected = without_green_to_magenta(rgb)
    assert (2 * projected[:, 1] - projected[:, 0] - projected[:, 2]).abs().max() < 1e-6
    torch.testing.assert_close(projected.sum(1), rgb.sum(1))  # grey stays


def test_the_picture_of_the_answer_shows_each_patch_in_its_place() -> None:
    patch = torch.arange(1.0, 4.0).view(1, 3, 1, 1, 1).expand(1, 3, 1, 2, 2)
    shown = in_place(patch, torch.tensor([[0, 4]]))  # up left, and right of the centre
    assert shown[0, 0, ::2, ::2].tolist() == [[2, 0, 0], [0, 1, 3], [0, 0, 0]]


def test_the_loss_of_an_undecided_network_is_the_logarithm_of_8() -> None:
    method = build()
    for parameter in method.fc7_to_fc9.parameters():
        parameter.data.zero_()
    image = random(2, 1, 40, 40)
    assert float(method.loss(batch_of(image))["loss"].detach()) == pytest.approx(math.log(8))


def test_refuses_crops_without_room() -> None:
    with pytest.raises(InputError, match=r"\(16, 16\).*smaller than the encoder's coarsest stride, 4.*at least 20"):
        build().check(10, 1, (16, 16))
    with pytest.raises(InputError, match=r"no room for 3 patches of \(16, 16\)"):
        build(patch=0.4).check(10, 1, (40, 40))
