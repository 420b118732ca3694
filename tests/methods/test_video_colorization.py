"""What video colorization promises of its pointer, its groups of colours, and what it tracks."""

import math
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from moving_discs import moving_discs, overlap, tracked
from processes import in_processes
from torch import Tensor, nn

from medssl.clip_augment import ClipAugment
from medssl.color import rgb_to_lab
from medssl.data.clips import Consecutive
from medssl.errors import InputError
from medssl.methods.video_colorization import (
    VideoColorization,
    copied,
    copying_cost,
    evenly,
    gradient,
    group_centres,
    lightness,
    pointer,
)
from medssl.networks import build_encoder
from medssl.sample import Batch


def small(**arguments: Any) -> VideoColorization:
    torch.manual_seed(0)
    encoder = build_encoder("unet", 3, 2, channels=(8, 16, 16), norm="group")
    return VideoColorization(encoder, **{"width": 16, "stride": 4, "clusters": 6, **arguments})


def learnt(batch: Batch, **arguments: Any) -> VideoColorization:
    method = small(**arguments)
    method.start_epoch([batch])
    return method


class Constant(nn.Module):
    """In place of the network: every cell looks alike, so the pointer is uniform."""

    def forward(self, image: Tensor) -> Tensor:
        return torch.ones(len(image), 4, image.shape[2] // 4, image.shape[3] // 4)


def test_a_pointer_to_the_same_picture_points_at_itself_at_a_low_temperature() -> None:
    f, values = torch.eye(6).unsqueeze(0), torch.rand(1, 3, 6)
    scores = pointer(f, f, torch.ones(1, 6, dtype=torch.bool), 0.02)
    torch.testing.assert_close(copied(scores, values), values)


def test_a_pointer_follows_what_has_moved() -> None:
    f, values = torch.eye(6).unsqueeze(0), torch.rand(1, 3, 6)
    scores = pointer(f, f.roll(2, dims=2), torch.ones(1, 6, dtype=torch.bool), 0.02)
    torch.testing.assert_close(copied(scores, values), values.roll(2, dims=2))


def test_what_a_mask_hides_is_not_pointed_at() -> None:
    f, usable = torch.eye(4).unsqueeze(0), torch.tensor([[True, True, False, True]])
    A = pointer(f, f, usable, 0.1).softmax(1)
    assert (A[0, 2] == 0).all()
    torch.testing.assert_close(A.sum(1), torch.ones(1, 4))


def test_the_cost_agrees_with_a_distribution_over_the_groups() -> None:
    draw = torch.Generator().manual_seed(0)
    f_i, f_j = (torch.randn(2, 3, n, generator=draw, dtype=torch.float64) for n in (10, 7))
    c_i, c_j = (torch.randint(4, (2, n), generator=draw) for n in (10, 7))
    usable = torch.rand(2, 10, generator=draw) < 0.8
    cost, possible = copying_cost(pointer(f_i, f_j, usable, 0.5), c_i, c_j, usable)
    for b in range(2):
        for j in range(7):
            weight = [math.exp(float(f_i[b, :, i] @ f_j[b, :, j]) / 0.5) if usable[b, i] else 0.0 for i in range(10)]
            own = sum(w for w, c in zip(weight, c_i[b], strict=True) if c == c_j[b, j])
            assert bool(possible[b, j]) is (own > 0)
            if own > 0:
                assert math.isclose(float(cost[b, j]), -math.log(own / sum(weight)), rel_tol=1e-9)


def test_a_uniform_pointer_costs_the_log_of_each_colours_frequency() -> None:
    batch, _ = moving_discs()
    method = learnt(batch).eval()
    method.network = Constant()
    codes = method.codes_of(batch["clip"])  # (B, T, n)
    terms = [
        -math.log(share)
        for b in range(2)
        for c in codes[b, 0]
        if (share := float((codes[b, 1:] == c).float().mean())) > 0
    ]
    found = method.loss(batch)
    assert math.isclose(float(found["loss"]), sum(terms) / len(terms), rel_tol=1e-5)
    assert math.isclose(float(found["copied"]), len(terms) / codes[:, 0].numel(), rel_tol=1e-6)


def test_a_colour_that_no_reference_has_does_not_count() -> None:
    c_i, c_j, usable = torch.zeros(1, 3).long(), torch.tensor([[0, 1]]), torch.ones(1, 3, dtype=torch.bool)
    scores = torch.zeros(1, 3, 2, requires_grad=True)
    cost, possible = copying_cost(scores, c_i, c_j, usable)
    assert possible.tolist() == [[True, False]] and cost[0, 0] == 0
    cost.sum().backward()
    assert scores.grad is not None and scores.grad.isfinite().all()


def test_cells_that_do_not_show_the_body_do_not_count() -> None:
    batch, _ = moving_discs()
    method = learnt(batch).eval()
    batch["valid"][:, 0, :, :24] = 0
    assert 0 < method.loss(batch)["copied"] <= 0.5
    batch["valid"][:] = 0
    assert method.loss(batch)["loss"] == 0


def test_the_encoder_sees_the_lightness_alone() -> None:
    batch, _ = moving_discs()
    method, seen = learnt(batch).eval(), []
    method.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    method.loss(batch)
    expected = rgb_to_lab(batch["clip"].flatten(0, 1))[:, :1] / 100
    assert len(seen) == 1 and torch.equal(seen[0], expected.expand(-1, 3, -1, -1))


def test_embeddings_are_unit_vectors_of_cells() -> None:
    method = small()
    f = method.embed(moving_discs()[0]["clip"][:, 0])
    assert f.shape == (2, 16, 48 // method.stride, 64 // method.stride)
    torch.testing.assert_close(f.norm(dim=1), torch.ones_like(f[:, 0]))


def test_groups_are_learnt_once_alike_each_time_and_remembered() -> None:
    batch, _ = moving_discs()
    method, again = learnt(batch), learnt(batch)
    assert method.coloured and torch.equal(method.centres, again.centres)
    before = method.centres.clone()
    method.start_epoch([{**batch, "clip": batch["clip"].flip(2)}])
    assert torch.equal(method.centres, before)
    other = small().eval()
    other.load_state_dict(method.state_dict())
    assert torch.equal(other.loss(batch)["loss"], method.eval().loss(batch)["loss"])
    assert torch.equal(pickle.loads(pickle.dumps(method)).loss(batch)["loss"], method.loss(batch)["loss"])
    assert method.state_scores() == {"codes/coloured": 1.0, "codes/groups": 6.0} and small().state_scores() == {}


def test_only_as_many_batches_as_asked_are_read_for_the_groups() -> None:
    batch, _ = moving_discs()

    def endless() -> Iterator[Batch]:
        while True:
            yield batch

    small(cluster_batches=2).start_epoch(endless())


def test_all_processes_have_the_groups_of_all_data(tmp_path: Path) -> None:
    batch, _ = moving_discs()

    def centres(rows: slice) -> Tensor:
        return learnt({name: value[rows] for name, value in batch.items()}).centres

    alone = [centres(slice(b, b + 1)) for b in range(2)]
    first, second = in_processes(lambda process: centres(slice(process, process + 1)), tmp_path)
    assert torch.equal(first, second)
    assert not torch.equal(first, alone[0]) and not torch.equal(first, alone[1])


def test_groups_are_the_colours_that_there_are() -> None:
    colours = torch.tensor([[0.0, 0.0], [50.0, 0.0], [0.0, 40.0]])
    centres = group_centres(colours.repeat(20, 1), 5)
    torch.testing.assert_close(centres[:3].sort(0).values, colours.sort(0).values)
    assert (centres[3:] > 1e5).all()


def test_rows_are_taken_evenly_or_repeated() -> None:
    rows = torch.arange(10.0).view(10, 1)
    assert evenly(rows, 5).flatten().tolist() == [0, 2, 4, 6, 8]
    assert evenly(rows[:2], 4).flatten().tolist() == [0, 0, 1, 1]
    with pytest.raises(InputError, match="no frame shows the body"):
        evenly(rows[:0], 4)


def test_a_gradient_is_that_of_a_ramp_with_the_root_of_its_length() -> None:
    y, x = torch.meshgrid(torch.arange(5.0), torch.arange(6.0), indexing="ij")
    g = gradient((3 * x + 4 * y).view(1, 1, 5, 6))[0, :, 1:-1, 1:-1]
    torch.testing.assert_close(g[0], torch.full((3, 4), 3 / 5 * 5**0.5))
    torch.testing.assert_close(g[1], torch.full((3, 4), 4 / 5 * 5**0.5))
    assert (gradient(torch.ones(1, 1, 4, 4)) == 0).all()


def test_grey_videos_are_learnt_from_by_their_gradients() -> None:
    batch, _ = moving_discs(grey=True)
    method = learnt(batch)
    assert not method.coloured and method.state_scores()["codes/coloured"] == 0
    losses = method.loss(batch)
    losses["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.parameters())
    assert method.codes_of(batch["clip"]).unique().numel() == 6
    assert torch.equal(learnt(moving_discs()[0], codes="gradient").coloured, torch.tensor(False))


def test_colours_of_grey_videos_are_refused() -> None:
    with pytest.raises(InputError, match=r"the videos are grey.*codes gradient"):
        learnt(moving_discs(grey=True)[0], codes="colour")


def test_the_gradient_reaches_all_of_the_network_and_its_parts_are_logged() -> None:
    batch, _ = moving_discs()
    method = learnt(batch)
    losses = method.loss(batch)
    assert set(losses) == {"loss", "accuracy", "copied"} and all(torch.isfinite(x) for x in losses.values())
    losses["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.parameters())


def test_it_learns_to_carry_a_mask_that_standing_still_would_lose() -> None:
    batch, masks = moving_discs()
    method = learnt(batch, augment=ClipAugment(0, 0))
    untrained = tracked(method, batch, masks)
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-2)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = method.loss(batch)["loss"]
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-3:]) < 0.6 * sum(losses[:3])
    assert tracked(method, batch, masks) > max(untrained, overlap(masks[:, 0], masks[:, -1])) + 0.2


def test_pictures_are_of_full_size_and_the_copy_has_the_targets_lightness() -> None:
    for grey in (False, True):
        batch, _ = moving_discs(grey=grey)
        method = learnt(batch).eval()
        shown = method.show(batch)
        assert all(picture.shape[2:] == (48, 64) for picture in shown.values())
        assert torch.equal(shown["target"], batch["clip"][:, 0])
    assert set(shown) == {"input", "target", "copy", "mask"}


def test_clips_are_a_frame_and_the_references_before_it() -> None:
    needs = small(references=2, gap=3).needs
    assert needs.picker == Consecutive(3, 3) and not needs.intrinsics


def test_what_cannot_be_learnt_from_is_refused() -> None:
    batch, _ = moving_discs()
    with pytest.raises(InputError, match=r"no groups of colours yet. Call start_epoch"):
        small().loss(batch)
    with pytest.raises(InputError, match="codes must be one of auto, colour, gradient, got 'grey'"):
        small(codes="grey")
    with pytest.raises(InputError, match=r"got 1 and 0.07"):
        small(clusters=1)
    with pytest.raises(InputError, match="2D with 3 channels, this one is 2D with 1"):
        VideoColorization(build_encoder("unet", 1, 2, channels=(8, 16)))
    with pytest.raises(InputError, match="no 'clip'"):
        learnt(batch).loss({"image": batch["clip"]})


def test_lightness_is_that_of_lab_three_times() -> None:
    L = lightness(torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]]).view(2, 3, 1, 1))
    torch.testing.assert_close(L[:, :, 0, 0], torch.tensor([[0.5324] * 3, [1.0] * 3]), atol=1e-3, rtol=0)
