"""What rotations are, and what the guards are worth."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.errors import InputError
from medssl.methods.rotation import Rotation, group, turn
from medssl.networks.unet import UNetEncoder
from medssl.sample import Batch


def build(dims: int = 2, **arguments: object) -> Rotation:
    torch.manual_seed(0)
    return Rotation(UNetEncoder(1, dims, (4, 8)), **arguments)


def batch_of(image: Tensor) -> Batch:
    return {"image": image, "seed": torch.arange(len(image)) + 1}


def random(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def as_set(matrices: Tensor) -> set[tuple[int, ...]]:
    return {tuple(matrix.flatten().tolist()) for matrix in matrices}


@pytest.mark.parametrize(("dims", "rotations"), [(2, 4), (3, 24)])
def test_rotations_are_a_group_without_mirror_images(dims: int, rotations: int) -> None:
    matrices = group(dims, rotations)
    products = (matrices.unsqueeze(0) @ matrices.unsqueeze(1)).flatten(0, 1)
    assert len(as_set(matrices)) == rotations and as_set(products) == as_set(matrices)
    assert torch.equal(matrices @ matrices.transpose(1, 2), torch.eye(dims, dtype=torch.long).expand_as(matrices))
    assert torch.equal(torch.linalg.det(matrices.double()), torch.ones(rotations, dtype=torch.float64))
    assert torch.equal(matrices[0], torch.eye(dims, dtype=torch.long))


def test_10_of_a_cube_are_the_powers_of_quarter_turns_about_its_axes() -> None:
    expected = [torch.eye(3, dtype=torch.long)]
    for axis in range(3):
        i, j = [a for a in range(3) if a != axis]
        quarter = torch.eye(3, dtype=torch.long)
        quarter[[i, j]], quarter[i, i], quarter[j, j] = 0, 0, 0
        quarter[axis, axis], quarter[i, j], quarter[j, i] = 1, -1, 1
        expected += [quarter, quarter @ quarter, quarter @ quarter @ quarter]
    assert as_set(group(3, 10)) == as_set(torch.stack(expected))
    assert as_set(group(3, 10)) < as_set(group(3, 24))


def test_images_turn_as_rot90_turns_them() -> None:
    image = random(1, 2, 4, 4)
    turned = turn(image, group(2, 4).unsqueeze(0), torch.zeros(1, 2, dtype=torch.long), 4)[0]
    quarters = torch.stack([torch.rot90(image[0], k, (1, 2)) for k in range(4)])
    assert sorted(x.flatten().tolist() for x in turned) == sorted(x.flatten().tolist() for x in quarters)


@pytest.mark.parametrize("dims", [2, 3])
def test_what_was_at_x_is_at_r_x(dims: int) -> None:
    """A naive loop, on a part of images whose sides differ."""
    image, side = random(1, 1, *[5, 6, 4][:dims]), 3
    start = torch.tensor([[2, 1, 1][:dims]])
    matrices = group(dims, 4 if dims == 2 else 24)
    turned = turn(image, matrices.unsqueeze(0), start, side)
    centre = (side - 1) / 2
    for number, matrix in enumerate(matrices):
        for x in torch.cartesian_prod(*[torch.arange(side)] * dims):
            y = (matrix.double() @ (x - centre).double() + centre).round().long()
            assert turned[(0, number, 0, *y)] == image[(0, 0, *(start[0] + x))]


def test_the_inverse_turns_back() -> None:
    image, matrices, start = (
        random(2, 1, 4, 4, 4),
        group(3, 24).expand(2, 24, 3, 3),
        torch.zeros(2, 3, dtype=torch.long),
    )
    turned = turn(image, matrices, start, 4)
    for number in range(24):
        back = turn(turned[:, number], matrices[:, number : number + 1].transpose(2, 3), start, 4)
        assert torch.equal(back[:, 0], image)


def test_an_image_is_shown_in_all_4_rotations_at_once() -> None:
    _, y, _ = build().turned(batch_of(random(5, 1, 16, 16)))
    assert torch.equal(y.sort(1).values, torch.arange(4).expand(5, 4))


def test_a_cube_is_cut_from_crops_whose_sides_differ() -> None:
    x, _, upright = build(3, bias=0, coarse=0).turned(batch_of(random(2, 1, 18, 13, 30)))
    assert x.shape == (2, 4, 1, 12, 12, 12)
    torch.testing.assert_close(
        x.flatten(2).sort(2).values, upright.flatten(1).sort(1).values.unsqueeze(1).expand(2, 4, -1)
    )


def test_a_brighter_side_tells_the_rotation_only_without_the_guard() -> None:
    ramp = torch.linspace(0.95, 1.05, 16).view(1, 1, 16, 1).expand(64, 1, 16, 16)

    def share_found(method: Rotation) -> float:
        """Find which side is brightest."""
        x, y, _ = method.turned(batch_of(ramp + 0.01 * random(64, 1, 16, 16)))
        down = x[..., 8:, :].mean((2, 3, 4)) - x[..., :8, :].mean((2, 3, 4))
        right = x[..., 8:].mean((2, 3, 4)) - x[..., :8].mean((2, 3, 4))
        gradient = torch.stack([down, right], -1)  # (B, copies, 2); R turns (1, 0) into its first column
        found = (gradient @ method.rotation[:, :, 0].float().T).argmax(-1)
        return float((found == y).float().mean())

    assert share_found(build(bias=0, coarse=0)) == 1
    assert share_found(build()) < 0.7


def test_thick_slices_tell_axes_only_without_the_guard() -> None:
    image = F.avg_pool2d(random(64, 1, 19, 16), (4, 1), stride=1)  # coarse along the first axis

    def share_found(method: Rotation) -> float:
        """Find along which axis neighbours differ least: 0 and 180 degrees, or 90 and 270."""
        x, y, _ = method.turned(batch_of(image))
        smooth_first = x.diff(dim=-2).abs().mean((2, 3, 4)) < x.diff(dim=-1).abs().mean((2, 3, 4))
        return float((smooth_first == (method.rotation[y][..., 0, 0] != 0)).float().mean())

    assert share_found(build(bias=0, coarse=0)) > 0.99
    assert share_found(build(coarse=1, coarseness=4)) < 0.9


def test_the_loss_of_an_undecided_network_is_the_logarithm_of_the_classes() -> None:
    for dims, rotations in ((2, 4), (3, 10), (3, 24)):
        method = build(dims, rotations=rotations)
        for parameter in method.head.parameters():
            parameter.data.zero_()
        loss = method.loss(batch_of(random(2, 1, *[16] * dims)))["loss"]
        assert float(loss.detach()) == pytest.approx(math.log(rotations))


def test_a_constant_crop_takes_no_part() -> None:
    method, image = build(), random(2, 1, 16, 16)
    image[1] = 0.5
    batch = batch_of(image)
    both, first = method.loss(batch), method.loss({key: value[:1] for key, value in batch.items()})
    torch.testing.assert_close(both["loss"], first["loss"])
    assert float(both["kept"]) == 0.5


def test_a_sample_is_turned_alike_in_any_batch() -> None:
    method, batch = build(3), batch_of(random(3, 1, 16, 20, 16))
    together, alone = method.turned(batch), method.turned({key: value[2:] for key, value in batch.items()})
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one, other[2:])


def test_the_picture_of_a_right_answer_is_upright() -> None:
    class Right(nn.Module):
        def forward(self, features: Tensor) -> Tensor:
            return F.one_hot(y[:, 0], 24)

    method, batch = build(3, rotations=24, bias=0, coarse=0), batch_of(random(4, 1, 16, 16, 16))
    y = method.turned(batch)[1]
    method.head = Right()
    shown = method.show(batch)
    assert torch.equal(shown["prediction"], shown["target"])


def test_refuses_what_cannot_be_turned() -> None:
    with pytest.raises(InputError, match=r"crops of \(64, 7\).*of 8, two of the encoder's coarsest stride of 4"):
        build().check(10, 1, (64, 7))
    with pytest.raises(InputError, match="3D images have 10 or 24 rotations to choose from, got 4"):
        build(3, rotations=4)
