"""The truth costs least, what is hidden or invalid does not count, and a part learns from what the whole shows."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recordings import write_recordings
from torch import Tensor, nn
from torch.utils.data import default_collate

from medssl.clip_augment import ClipAugment
from medssl.data.clips import ClipDataset
from medssl.errors import InputError
from medssl.geometry import pixel_grid
from medssl.methods.optical_flow import OpticalFlow, cut
from medssl.networks import build_encoder
from medssl.photometric import charbonnier
from medssl.sample import Batch

SIZE = (32, 64)
Motions = list[tuple[float, float]]
MOTION: Motions = [(3, -2)] * 2
STILL = ClipAugment(mirroring=0, colours=0)
LEAST = 0.01 ** (2 * 0.45)  # what a match that looks the same costs


class Known(nn.Module):
    """A network that gives flow it was told: one answer per call, the last one from then on."""

    def __init__(self, *answers: Tensor) -> None:
        super().__init__()
        self.answers = nn.ParameterList(list(answers))
        self.seen: list[Tensor] = []

    def both_ways(self, a: Tensor, b: Tensor) -> Tensor:
        answer: Tensor = self.answers[min(len(self.seen), len(self.answers) - 1)]
        self.seen.append(torch.stack([a, b], dim=1))
        return answer[..., : a.shape[2], : a.shape[3]]


def built(answer: Tensor | None = None, **arguments: Any) -> OpticalFlow:
    torch.manual_seed(0)
    encoder = build_encoder("unet", 3, 2, channels=(8, 16, 16), norm="group")
    method = OpticalFlow(encoder, **{"augment": STILL, "occlusion_after": 0, **arguments})
    if answer is not None:
        method.network = Known(answer)  # type: ignore[assignment]
    return method


def texture(places: Tensor) -> Tensor:
    """Three channels, around 0.5, at any places (B, 2, H, W): waves of 6 to 46 pixels, so that no shift looks alike."""
    draw = torch.Generator().manual_seed(0)
    pitch = 2 * torch.pi / (6 + 40 * torch.rand(3, 12, generator=draw))
    angle, phase = (2 * torch.pi * torch.rand(3, 12, generator=draw) for _ in range(2))
    x, y = (p[:, None, None] for p in places.unbind(1))  # (B, 1, 1, H, W)
    along = x * (pitch * angle.cos())[..., None, None] + y * (pitch * angle.sin())[..., None, None]
    return 0.5 + 0.6 * (along + phase[..., None, None]).sin().mean(2)


def moved(flows: Motions) -> Batch:
    """Pairs of one texture that moves as a whole, each pair at another place of it."""
    count = len(flows)
    start = 300 * torch.arange(count).view(-1, 1, 1, 1) + pixel_grid(*SIZE)
    clip = torch.stack([texture(start), texture(start - torch.tensor(flows).view(-1, 2, 1, 1))], dim=1)
    return {"clip": clip, "valid": torch.ones(count, 2, 1, *SIZE), "seed": torch.arange(count) + 5}


def there_and_back(flows: Motions) -> Tensor:
    one = torch.tensor(flows, dtype=torch.float32).view(-1, 2, 1, 1).expand(-1, 2, *SIZE)
    return torch.cat([one, -one])


def square_before_a_wall() -> tuple[Batch, Tensor]:
    """A square of 12 pixels that moves by (6, 0) before a still wall, and the flows."""
    grid = pixel_grid(*SIZE)[None]

    def square(left: int) -> Tensor:
        x, y = grid[:, :1], grid[:, 1:]
        return (x >= left) & (x < left + 12) & (y >= 10) & (y < 22)

    move = torch.tensor([6.0, 0]).view(1, 2, 1, 1)
    first = torch.where(square(20), texture(grid + 300), texture(grid))
    second = torch.where(square(26), texture(grid - move + 300), texture(grid))
    flows = torch.cat([square(20) * move, square(26) * -move])
    batch = {
        "clip": torch.stack([first, second], dim=1),
        "valid": torch.ones(1, 2, 1, *SIZE),
        "seed": torch.tensor([1]),
    }
    return batch, flows


def value(method: OpticalFlow, batch: Batch, name: str = "loss") -> float:
    return float(method.loss(batch)[name].detach())


@pytest.mark.parametrize("comparison", ["census", "ssim", "difference"])
def test_the_true_motion_costs_least(comparison: str) -> None:
    batch, truth = moved(MOTION), there_and_back(MOTION)
    at_truth = built(truth, comparison=comparison).eval().loss(batch)
    assert float(at_truth["loss"].detach()) == pytest.approx(LEAST, abs=1e-3)
    for wrong in ((0.0, 0.0), (2.5, -2.0), (3.5, -2.0), (3.0, -1.5), (3.0, -3.0)):
        assert value(built(there_and_back([wrong] * 2), comparison=comparison).eval(), batch) > 1.1 * LEAST


def test_the_gradient_of_a_wrong_motion_points_to_the_true_one() -> None:
    method = built(there_and_back([(3.3, -1.8)] * 2)).eval()
    method.loss(moved(MOTION))["loss"].backward()
    gradient = method.network.answers[0].grad[:2].sum((0, 2, 3))
    assert gradient[0] > 0 > -gradient[1] and gradient[1] > 0


@pytest.mark.parametrize("occlusion", ["consistency", "range_map"])
def test_what_the_square_covers_is_hidden_and_does_not_count(occlusion: str) -> None:
    batch, flows = square_before_a_wall()
    method = built(flows, occlusion=occlusion).eval()
    hidden = method._occluded(flows)
    expected = torch.zeros(2, 1, *SIZE, dtype=torch.bool)
    expected[0, :, 10:22, 32:38] = True  # wall that the square covers
    expected[1, :, 10:22, 20:26] = True  # and, going back, wall that it had covered
    assert torch.equal(hidden, expected)
    assert value(method, batch, "seen") == pytest.approx(1 - float(expected.float().mean()))
    assert value(method, batch, "photometric") < 0.9 * value(
        built(flows, occlusion="none").eval(), batch, "photometric"
    )


def test_before_its_step_nothing_is_hidden_but_what_leaves_the_picture() -> None:
    method, flows = built(occlusion_after=1), there_and_back([(6, 0)] * 2) + torch.randint(-3, 4, (4, 2, *SIZE))
    early = method._occluded(flows)
    leaves = pixel_grid(*SIZE) + flows
    assert torch.equal(early[:, 0], ~((leaves >= 0) & (leaves <= torch.tensor([63, 31]).view(2, 1, 1))).all(1))
    method.after_step()
    assert method._occluded(flows).sum() > early.sum()


def test_hiding_pixels_is_no_way_to_lower_the_loss() -> None:
    batch, flows = square_before_a_wall()
    flows = flows + 0.3 * torch.rand(flows.shape, generator=torch.Generator().manual_seed(0))
    method = built(flows, smoothness_weight=0).eval()
    method.loss(batch)["loss"].backward()
    found = method.network.answers[0].grad
    V = flows.clone().requires_grad_()
    mask = method._occluded(flows)  # as a constant
    assert not mask.requires_grad and not method._occluded(V).requires_grad
    _, error, seen = method._compare(batch["clip"], batch["valid"], V, mask, torch.zeros(1, 2, dtype=torch.long))
    (charbonnier(error, 0.01, 0.45)[seen].sum() / seen.sum()).backward()
    torch.testing.assert_close(found, V.grad)


def test_what_leaves_the_part_that_the_network_sees_is_found_in_the_whole_picture() -> None:
    batch, method = moved([(12, 0)] * 2), built(comparison="difference")
    corner, part = torch.tensor([[14, 4], [20, 8]]), (16, 24)
    V = there_and_back([(12, 0)] * 2)[..., :16, :24]
    hidden = method._occluded(V)
    assert hidden[:2, ..., 12:].all() and not hidden[:2, ..., :12].any()
    warped, error, seen = method._compare(batch["clip"], batch["valid"], V, hidden, corner)
    torch.testing.assert_close(warped[:2], cut(batch["clip"][:, 0], corner, part), atol=1e-5, rtol=0)
    assert seen.all() and float(error.max()) < 1e-4
    _, _, seen = method._compare(batch["clip"], batch["valid"], V, hidden, torch.tensor([[30, 4], [0, 8]]))
    assert seen[0, ..., :22].all() and not seen[0, ..., 22:].any()  # 30 + 22 + 12 is beyond the last column
    assert not seen[3, ..., :12].any() and seen[3, ..., 12:].all()


def test_in_training_a_random_part_is_seen_and_the_truth_still_costs_least() -> None:
    method = built(there_and_back(MOTION), crop=0.5)
    assert value(method, moved(MOTION), "photometric") == pytest.approx(LEAST, abs=1e-3)
    (part,) = method.network.seen
    assert part.shape == (2, 2, 3, 16, 32)
    again = built(there_and_back(MOTION), crop=0.5)
    again.loss(moved(MOTION))
    assert torch.equal(again.network.seen[0], part)


def test_the_network_sees_other_colours_and_the_loss_does_not() -> None:
    batch = moved(MOTION)
    method = built(there_and_back(MOTION), augment=ClipAugment(mirroring=0, colours=1), comparison="difference", crop=1)
    assert value(method, batch, "photometric") == pytest.approx(LEAST, abs=1e-3)
    assert not torch.allclose(method.network.seen[0], batch["clip"], atol=1e-2)
    method.eval().loss(batch)
    assert torch.equal(method.network.seen[1], batch["clip"])


def test_mirrored_pairs_move_the_other_way() -> None:
    mirrored = built(there_and_back([(-3, -2)] * 2), augment=ClipAugment(mirroring=1, colours=0))
    assert value(mirrored, moved(MOTION), "photometric") == pytest.approx(LEAST, abs=1e-3)


def test_invalid_pixels_of_either_picture_do_not_count() -> None:
    batch = moved(MOTION)
    clean = built(there_and_back(MOTION), comparison="difference").eval().loss(batch)
    batch["valid"][:, 0, :, 20:30, 8:16] = 0
    batch["valid"][:, 1, :, 4:10, 40:48] = 0
    batch["clip"] = torch.where(batch["valid"] > 0, batch["clip"], 0.0)
    part = built(there_and_back(MOTION), comparison="difference").eval().loss(batch)
    assert float(part["photometric"]) == pytest.approx(LEAST, abs=1e-3) and part["seen"] < clean["seen"]


def test_flow_that_changes_evenly_is_smooth_of_second_order_and_not_of_first() -> None:
    zoom = 0.25 * pixel_grid(*SIZE).repeat(4, 1, 1, 1)
    grey = torch.full((4, 3, *SIZE), 0.5)
    # a quarter of a pixel per pixel, in pixels of 1/4: 1/4 along x of one component and along y of the other
    assert float(built()._smoothness(zoom, grey)) == pytest.approx(0.25)
    assert float(built(smoothness_order=2)._smoothness(zoom, grey)) == pytest.approx(0, abs=1e-6)


def teaching(teacher: Tensor, student: Tensor, **arguments: Any) -> tuple[OpticalFlow, dict[str, Tensor]]:
    method = built(teaching_after=0, teaching_ramp=2, occlusion="none", crop=1, student_crop=0.75, **arguments)
    method.network = Known(teacher, student)  # type: ignore[assignment]
    method.after_step()
    return method, method.loss(moved(MOTION))


def test_the_student_learns_its_part_of_the_teachers_flow_where_only_the_teacher_sees_the_match() -> None:
    generator = torch.Generator().manual_seed(0)
    teacher = there_and_back(MOTION) + 0.2 * torch.rand(4, 2, *SIZE, generator=generator)  # agrees with itself
    student = there_and_back([(-4, 5)] * 2) + torch.rand(4, 2, *SIZE, generator=generator)
    method, losses = teaching(teacher, student)
    whole, part = method.network.seen
    assert part.shape[-2:] == (24, 48)
    distances = []
    for i in range(4):
        x, y = next((x, y) for y in range(9) for x in range(17) if _is_part(whole, part, i % 2, x, y))
        for row in range(24):
            for column in range(48):
                landing = [student[i, 0, row, column] + column, student[i, 1, row, column] + row]
                leaves = not (0 <= landing[0] <= 47 and 0 <= landing[1] <= 23)
                known = teacher[i, :, y + row, x + column]
                inside = 0 <= x + column + known[0] <= 63 and 0 <= y + row + known[1] <= 31
                if leaves and inside:
                    distances.append((student[i, :, row, column] - known).square().add(1e-6).sqrt().mean())
    torch.testing.assert_close(losses["teaching"], torch.stack(distances).mean())


def _is_part(whole: Tensor, part: Tensor, i: int, x: int, y: int) -> bool:
    return torch.equal(whole[i, ..., y : y + 24, x : x + 48], part[i])


def test_a_student_that_agrees_with_its_teacher_costs_nothing_and_the_teacher_has_no_gradient_of_it() -> None:
    _, losses = teaching(there_and_back(MOTION), there_and_back(MOTION))
    assert float(losses["teaching"]) == pytest.approx(1e-3)
    gradients = []
    for weight in (1.0, 0.0):
        method, losses = teaching(there_and_back(MOTION), there_and_back([(2, -4)] * 2), teaching_weight=weight)
        losses["loss"].backward()
        gradients.append([answer.grad for answer in method.network.answers])
    assert torch.equal(gradients[0][0], gradients[1][0])
    assert gradients[0][1].abs().sum() > 0 and gradients[1][1].abs().sum() == 0


def test_a_teacher_whose_flows_there_and_back_contradict_each_other_is_not_believed() -> None:
    same_both_ways = there_and_back(MOTION).abs()
    _, losses = teaching(same_both_ways, there_and_back([(-4, 5)] * 2))
    assert float(losses["teaching"]) == 0


def test_teaching_begins_after_its_steps_and_grows() -> None:
    method = built(teaching_after=2, teaching_ramp=2)
    shares = []
    for _ in range(6):
        shares.append(method.state_scores()["teaching/share"])
        method.after_step()
    assert shares == [0, 0, 0, 0.5, 1, 1]
    other = built(teaching_after=2, teaching_ramp=2)
    other.load_state_dict(method.state_dict())
    assert other.teaching_share == 1


def train(method: OpticalFlow, batch: Batch, steps: range) -> None:
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-3)
    for step in steps:
        optimizer.zero_grad()
        method.loss(batch | {"seed": batch["seed"] + step})["loss"].backward()
        optimizer.step()
        method.after_step()


def test_it_learns_how_far_a_texture_moved() -> None:
    motions: Motions = [(3, -2), (-2, 1), (0, 4), (5, 1), (-4, -3), (1, 0)]
    method, batch = built(crop=1), moved(motions)
    train(method, batch, range(50))
    found = method.eval().flow(*batch["clip"].unbind(1)).detach()[..., 4:-4, 4:-4]
    truth = torch.tensor(motions, dtype=torch.float32).view(-1, 2, 1, 1)
    assert float((found - truth).norm(dim=1).mean()) < 0.35 * float(truth.norm(dim=1).mean())


def test_a_training_that_is_resumed_goes_on_as_one_that_was_not() -> None:
    arguments: dict[str, Any] = {
        "occlusion_after": 1,
        "teaching_after": 1,
        "teaching_ramp": 2,
        "augment": ClipAugment(),
    }
    whole, batch = built(**arguments), moved(MOTION)
    train(whole, batch, range(3))
    resumed = built(**arguments)
    resumed.load_state_dict(pickle.loads(pickle.dumps(whole.state_dict())))
    losses = [method.loss(batch) for method in (whole, resumed)]
    assert resumed.teaching_share == 1
    assert all(torch.equal(losses[0][name], losses[1][name]) for name in losses[0])


def test_the_gradient_reaches_all_of_the_network() -> None:
    method = built(teaching_after=0)
    method.after_step()
    losses = method.loss(moved(MOTION))
    assert all(loss.ndim == 0 and loss.isfinite() for loss in losses.values())
    losses["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.parameters())


def test_a_sample_is_the_same_whatever_batch_it_is_in() -> None:
    batch = moved(3 * MOTION[:1])
    alone = {name: x[1:2] for name, x in batch.items()}
    seen = []
    for some, count in ((batch, 3), (alone, 1)):
        method = built(there_and_back(count * MOTION[:1]), crop=0.5, augment=ClipAugment(colours=1))
        method.loss(some)
        seen.append(method.network.seen[0])
    torch.testing.assert_close(seen[0][1:2], seen[1])


def test_it_shows_the_second_picture_warped_to_the_first() -> None:
    batch, truth = moved(MOTION), there_and_back(MOTION)
    shown = built(truth).show(batch)
    assert [tuple(x.shape) for x in shown.values()] == [(2, c, *SIZE) for c in (3, 2, 3, 1, 1)]
    assert list(shown) == ["input", "flow", "warped", "error", "mask"]
    seen = shown["mask"] > 0
    assert 0.7 < float(seen.float().mean()) < 0.8  # 58 of 64 columns and 27 of 32 rows
    assert float(((shown["warped"] - shown["input"]) * seen).abs().max()) < 1e-5
    assert float(shown["error"][seen].max()) < 1e-3


def test_parts_are_those_of_slices() -> None:
    pictures = torch.rand(2, 2, 3, 6, 7)
    found = cut(pictures, torch.tensor([[1, 2], [3, 0]]), (4, 3))
    assert torch.equal(found, torch.stack([pictures[0, ..., 2:6, 1:4], pictures[1, ..., 0:4, 3:6]]))


def test_settings_that_mean_nothing_are_refused() -> None:
    wrong = {
        "comparison must be one of census, ssim, difference, got 'l2'": {"comparison": "l2"},
        "occlusion must be one of consistency, range_map, none, got 'wang'": {"occlusion": "wang"},
        "smoothness_order must be 1 or 2, got 3": {"smoothness_order": 3},
        "crop and student_crop are shares above 0, up to 1; got 0.8, 0": {"student_crop": 0},
    }
    for message, arguments in wrong.items():
        with pytest.raises(InputError, match=message):
            built(**arguments)
    with pytest.raises(InputError, match="no 'valid'"):
        built().loss({"clip": torch.rand(1, 2, 3, *SIZE), "seed": torch.arange(1)})


def test_it_survives_pickling() -> None:
    method, batch = built().eval(), moved(MOTION)
    assert value(pickle.loads(pickle.dumps(method)), batch) == value(method, batch)


def test_any_recording_has_clips_for_it_without_known_cameras_and_without_motion(tmp_path: Path) -> None:
    data = write_recordings(tmp_path, frames=(3,), intrinsics=None, motion=np.zeros(3))
    method = built()
    clips = ClipDataset(data, method.needs, method.pretext)
    batch = default_collate([clips[0], clips[1]])
    assert sorted(batch["frame"].tolist()) == [[0, 1], [1, 2]] and method.loss(batch)["loss"].isfinite()
