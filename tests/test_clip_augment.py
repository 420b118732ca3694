"""A mirrored clip is one of a mirrored world; other colours are the same for all its frames."""

import torch
from torch import Tensor

from medssl.clip_augment import ClipAugment, mirror, turned
from medssl.sample import Batch


def batch(right: bool = False) -> Batch:
    draw = torch.Generator().manual_seed(0)
    pose = torch.eye(4).repeat(3, 2, 1, 1)
    angle = torch.tensor(0.3)
    pose[:, 1, 0, 0] = pose[:, 1, 2, 2] = angle.cos()
    pose[:, 1, 0, 2], pose[:, 1, 2, 0] = angle.sin(), -angle.sin()
    pose[:, 1, :3, 3] = torch.tensor([0.5, 0.2, 1.0])
    out = {
        "clip": torch.rand(3, 2, 3, 6, 8, generator=draw),
        "valid": (torch.rand(3, 2, 1, 6, 8, generator=draw) > 0.5).float(),
        "intrinsics": torch.tensor([[7.0, 0, 3.1], [0, 7, 2.4], [0, 0, 1]]).repeat(3, 1, 1),
        "pose": pose,
        "seed": torch.arange(3),
    }
    if right:
        out["right"] = torch.rand(3, 2, 3, 6, 8, generator=draw)
        out["right_valid"] = torch.ones(3, 2, 1, 6, 8)
        out["right_intrinsics"] = torch.tensor([[7.0, 0, 3.9], [0, 7, 2.4], [0, 0, 1]]).repeat(3, 1, 1)
    return out


def seen(points: Tensor, K: Tensor, pose: Tensor) -> Tensor:
    """Project world points (n, 3) into a camera."""
    local = (points - pose[:3, 3]) @ pose[:3, :3]
    return (local @ K.T)[:, :2] / local[:, 2:]


def test_a_mirrored_camera_sees_a_mirrored_point_in_the_mirrored_pixel() -> None:
    given = batch()
    flipped = mirror(given, torch.tensor([True, False, True]))
    points = torch.tensor([[0.3, -0.1, 5.0], [-0.5, 0.4, 7.0]])
    for t in range(2):
        here = seen(points, given["intrinsics"][0], given["pose"][0, t])
        there = seen(points * torch.tensor([-1.0, 1, 1]), flipped["intrinsics"][0], flipped["pose"][0, t])
        torch.testing.assert_close(there[:, 0], 8 - 1 - here[:, 0])
        torch.testing.assert_close(there[:, 1], here[:, 1])
    for name, value in given.items():
        torch.testing.assert_close(flipped[name][1], value[1])
    torch.testing.assert_close(flipped["clip"][0], given["clip"][0].flip(-1))


def test_a_mirrored_pair_changes_places() -> None:
    given = batch(right=True)
    flipped = mirror(given, torch.ones(3, dtype=torch.bool))
    torch.testing.assert_close(flipped["clip"], given["right"].flip(-1))
    torch.testing.assert_close(flipped["right"], given["clip"].flip(-1))
    torch.testing.assert_close(flipped["right_valid"], given["valid"].flip(-1))
    torch.testing.assert_close(flipped["intrinsics"][:, 0, 2], 7 - given["right_intrinsics"][:, 0, 2])
    torch.testing.assert_close(flipped["right_intrinsics"][:, 0, 2], 7 - given["intrinsics"][:, 0, 2])


def test_mirroring_twice_changes_nothing() -> None:
    given, all_of_them = batch(right=True), torch.ones(3, dtype=torch.bool)
    for name, value in mirror(mirror(given, all_of_them), all_of_them).items():
        torch.testing.assert_close(value, given[name])


def test_a_clip_is_recoloured_the_same_whatever_batch_it_is_in_and_all_its_frames_alike() -> None:
    clip = torch.rand(1, 1, 3, 4, 5, generator=torch.Generator().manual_seed(1)).repeat(3, 2, 1, 1, 1)
    augment, seeds = ClipAugment(colours=1.0), torch.tensor([5, 6, 7])
    together = augment.recolour(clip, seeds)
    for i in range(3):
        torch.testing.assert_close(augment.recolour(clip[i : i + 1], seeds[i : i + 1])[0], together[i])
    torch.testing.assert_close(together[:, 0], together[:, 1])
    assert not torch.allclose(together[0], together[1]) and not torch.allclose(together[0], clip[0])
    assert together.min() >= 0 and together.max() <= 1


def test_a_third_of_the_colour_circle_turns_red_to_green() -> None:
    red = torch.tensor([1.0, 0, 0]).view(1, 1, 3, 1, 1)
    torch.testing.assert_close(
        turned(red, torch.tensor([1 / 3])).flatten(), torch.tensor([0.0, 1, 0]), atol=1e-6, rtol=0
    )


def test_without_probability_nothing_changes() -> None:
    given, still = batch(), ClipAugment(mirroring=0, colours=0)
    torch.testing.assert_close(still.recolour(given["clip"], given["seed"]), given["clip"])
    assert still.mirror(given)["clip"] is given["clip"]
