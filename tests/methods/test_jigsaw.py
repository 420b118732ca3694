"""What the jigsaw papers say of permutations and tiles, and what the guards are worth."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.errors import InputError
from medssl.methods.jigsaw import Jigsaw, distant_permutations, half_turned, shuffled, smallest_distance
from medssl.networks.unet import UNetEncoder
from medssl.sample import Batch

OFF = {"gap": 0, "bias": 0, "normalise": False, "channel_jitter": 0, "grey": 0}


def build(dims: int = 2, channels: int = 1, **arguments: object) -> Jigsaw:
    torch.manual_seed(0)
    small = {"permutations": 20, "width": 8, "hidden": 16}
    return Jigsaw(UNetEncoder(channels, dims, (4, 8)), **{**small, **arguments})


def batch_of(image: Tensor) -> Batch:
    return {"image": image, "seed": torch.arange(len(image)) + 1}


def random(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("count", "distance"), [(9, 9), (64, 7), (100, 6), (1000, 5)])
def test_permutations_of_9_tiles_are_as_far_apart_as_is_known(count: int, distance: int) -> None:
    chosen = distant_permutations(9, count)
    assert smallest_distance(chosen) == distance
    assert torch.equal(chosen.sort(1).values, torch.arange(9).expand(count, 9))


def test_each_permutation_is_as_far_from_those_before_it_as_any() -> None:
    every = torch.tensor(list(itertools.permutations(range(4))))
    chosen = distant_permutations(4, 12)
    for i in range(1, 12):
        nearest = [min(int((p != q).sum()) for q in chosen[:i]) for p in every]
        assert min(int((chosen[i] != q).sum()) for q in chosen[:i]) == max(nearest)


def test_27_cubes_are_shuffled_too() -> None:
    chosen = distant_permutations(27, 50)
    assert torch.equal(chosen.sort(1).values, torch.arange(27).expand(50, 27))
    assert smallest_distance(chosen) >= 25


@pytest.mark.parametrize("dims", [2, 3])
def test_tiles_without_guards_are_the_cells_in_order(dims: int) -> None:
    image = random(2, 1, *[16] * dims)
    tile = build(dims, **OFF, cells=2).puzzle(batch_of(image)).tile
    for number, corner in enumerate(itertools.product((0, 8), repeat=dims)):
        assert torch.equal(tile[:, number], image[(..., *[slice(c, c + 8) for c in corner])])


def test_a_tile_is_anywhere_in_its_cell() -> None:
    image = torch.arange(75.0 * 75).view(1, 1, 75, 75).repeat(16, 1, 1, 1)
    tile = build(**{**OFF, "gap": 11 / 75}).puzzle(batch_of(image)).tile
    assert tile.shape == (16, 9, 1, 21, 21)
    start = torch.stack([tile[:, :, 0, 0, 0] // 75, tile[:, :, 0, 0, 0] % 75], -1)
    within = start - 25 * torch.tensor(list(itertools.product(range(3), repeat=2)))
    assert within.min() == 0 and within.max() == 4


def shares_found(method: Jigsaw, image: Tensor) -> tuple[float, float]:
    """Solve puzzles by two rules that need no anatomy: edges that continue, and tiles from dark to bright."""
    puzzle = method.puzzle(batch_of(image))
    slots = method.permutations[puzzle.order]  # (B, P, T)
    mixed = shuffled(puzzle.tile, slots)[:, :, :, 0]  # (B, P, T, h, w)
    unmixed = method.permutations.argsort(1)  # (N, T), for each answer the slot of each tile
    solved = mixed[:, :, unmixed].unflatten(3, (3, 3))  # (B, P, N, 3, 3, h, w)
    across = (solved[:, :, :, :, 1:, :, 0] - solved[:, :, :, :, :-1, :, -1]).abs().flatten(3).mean(3)
    down = (solved[:, :, :, 1:, :, 0, :] - solved[:, :, :, :-1, :, -1, :]).abs().flatten(3).mean(3)
    mean = solved.mean((-1, -2)).flatten(3)
    rising = (mean.argsort(3) == torch.arange(9)).float().sum(3)
    found = [(across + down).argmin(2), rising.argmax(2)]
    return float((found[0] == puzzle.order).float().mean()), float((found[1] == puzzle.order).float().mean())


def test_edges_and_brightness_solve_the_puzzle_only_without_the_guards() -> None:
    x, y = torch.meshgrid(torch.arange(90.0), torch.arange(90.0), indexing="ij")
    ramp = (x + y / 3.5) / 120
    image = F.avg_pool2d(random(8, 1, 92, 92), 3, stride=1) + ramp
    assert shares_found(build(**OFF), image) == (1, 1)
    by_edges, by_brightness = shares_found(build(), image)
    assert by_edges < 0.4 and by_brightness < 0.2  # 1 in 20 by chance


def test_a_tile_is_the_same_after_its_bias_and_contrast_are_taken_off() -> None:
    image = random(2, 1, 48, 48)
    method = build(bias=0)
    tile = method.puzzle(batch_of(image)).tile
    torch.testing.assert_close(method.puzzle(batch_of(3 * image + 5)).tile, tile, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(tile.flatten(3).mean(3), torch.zeros(2, 9, 1), atol=1e-5, rtol=0)
    torch.testing.assert_close(tile.flatten(3).std(3, unbiased=False), torch.ones(2, 9, 1), atol=1e-3, rtol=0)


def test_shuffling_features_is_shuffling_tiles() -> None:
    """Tiles are encoded alone, so several puzzles of an image need its tiles encoded once."""
    method = build(puzzles=3)
    puzzle = method.puzzle(batch_of(random(2, 1, 48, 48)))
    joined = method.joined(puzzle)
    plain = method.permutations[0].argsort()
    for p in range(3):
        mixed = shuffled(puzzle.tile, method.permutations[puzzle.order[:, p : p + 1]])[:, 0]
        again = puzzle._replace(tile=mixed[:, plain], order=torch.zeros(2, 1, dtype=torch.long))
        torch.testing.assert_close(method.joined(again)[:, 0], joined[:, p])


def test_the_two_half_turns_of_a_cube_make_a_group_of_four() -> None:
    x = random(1, 1, 2, 3, 4)
    turns = [half_turned(x, torch.tensor([[a, b]])) for a in (False, True) for b in (False, True)]
    assert torch.equal(turns[0], x) and torch.equal(turns[1], x.flip(2, 4)) and torch.equal(turns[2], x.flip(3, 4))
    assert torch.equal(turns[3], x.flip(2, 3))
    assert torch.equal(half_turned(turns[3], torch.tensor([[True, True]])), x)


def test_rubiks_cube_says_which_cubes_are_turned_and_masked() -> None:
    batch = batch_of(random(4, 1, 24, 24, 24) + 1)
    plain = build(3, bias=0).puzzle(batch).tile
    puzzle = build(3, bias=0, rotation_weight=1.0, masking_weight=1.0).puzzle(batch)
    turned = half_turned(plain.flatten(0, 1), puzzle.turned.flatten(0, 1)).view_as(plain)
    hidden = puzzle.tile == 0
    torch.testing.assert_close(puzzle.tile, turned.masked_fill(hidden, 0))
    assert not hidden[~puzzle.masked].any() and 0.45 < hidden[puzzle.masked].float().mean() < 0.55
    assert 0.2 < puzzle.turned.float().mean() < 0.8 and 0.2 < puzzle.masked.float().mean() < 0.8


def test_undecided_heads_cost_the_logarithm_of_their_classes() -> None:
    method = build(3, rotation_weight=1.0, masking_weight=1.0)
    for head in (method.fc8, method.turned, method.masked):
        assert head is not None
        for parameter in head.parameters():
            parameter.data.zero_()
    losses = {name: float(value.detach()) for name, value in method.loss(batch_of(random(2, 1, 24, 24, 24))).items()}
    assert losses["permutation"] == pytest.approx(math.log(20))
    assert losses["rotation"] == pytest.approx(math.log(2)) == losses["masking"]
    assert losses["loss"] == pytest.approx(losses["permutation"] + losses["rotation"] + losses["masking"])


def test_an_image_is_kept_while_its_empty_tiles_leave_one_answer() -> None:
    method = build(permutations=100)
    images = random(2, 1, 48, 48)
    images[0, :, :16, :] = 0  # 3 of 9 tiles
    images[1, :, :32, :] = 0  # 6
    assert method.distance == 6
    assert float(method.loss(batch_of(images))["kept"]) == 0.5
    assert float(method.loss(batch_of(torch.zeros(2, 1, 48, 48)))["loss"].detach()) == 0


def test_colour_images_become_grey_or_their_channels_move_apart() -> None:
    image = random(6, 1, 48, 48).repeat(1, 3, 1, 1)
    grey = build(channels=3, grey=1, channel_jitter=0, bias=0).puzzle(batch_of(random(6, 3, 48, 48))).tile
    torch.testing.assert_close(grey[:, :, 0], grey[:, :, 2])
    apart = build(channels=3, grey=0, bias=0).puzzle(batch_of(image)).tile
    assert not torch.allclose(apart[:, :, 0], apart[:, :, 1])


def test_a_sample_has_the_same_puzzle_in_any_batch() -> None:
    method, batch = build(3, rotation_weight=1.0, masking_weight=1.0), batch_of(random(3, 1, 24, 24, 24))
    together, alone = method.puzzle(batch), method.puzzle({key: value[2:] for key, value in batch.items()})
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one, other[2:])


def test_the_picture_of_a_right_answer_is_the_target() -> None:
    class Right(nn.Module):
        def forward(self, joined: Tensor) -> Tensor:
            return F.one_hot(order, 20)

    method, batch = build(), batch_of(random(2, 1, 48, 48))
    order = method.puzzle(batch).order
    method.fc8 = Right()
    shown = method.show(batch)
    assert torch.equal(shown["prediction"], shown["target"]) and not torch.equal(shown["input"], shown["target"])


def test_refuses_what_cannot_be_cut_or_counted() -> None:
    with pytest.raises(InputError, match=r"\(12, 12\).*tiles of \(3, 3\).*stride, 4.*at least 15"):
        build().check(10, 1, (12, 12))
    with pytest.raises(InputError, match="4 tiles give 24 permutations to choose from, not 25"):
        build(cells=2, permutations=25)
