"""What the cycle walk promises of its steps, its walks, its patches, and what it tracks."""

import math
import pickle
from typing import Any

import pytest
import torch
from moving_discs import moving_discs, overlap, tracked
from torch import Tensor
from torch.nn import functional as F

from medssl.augment import generators
from medssl.clip_augment import ClipAugment
from medssl.data.clips import Consecutive
from medssl.errors import InputError
from medssl.geometry import sample
from medssl.methods.cycle_walk import CycleWalk, patch_pixels, staying_cost, transition, walks
from medssl.networks import build_encoder


def small(**arguments: Any) -> CycleWalk:
    torch.manual_seed(0)
    encoder = build_encoder("unet", 3, 2, channels=(8, 16, 16), norm="group")
    return CycleWalk(encoder, **{"width": 16, "stride": 4, "patch": 16, "step": 8, **arguments})


def nodes(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


def all_of(q: Tensor) -> Tensor:
    return torch.ones(q.shape[:-1], dtype=torch.bool)


def test_walks_over_orthonormal_nodes_end_where_they_began() -> None:
    q = torch.eye(6).expand(1, 4, 6, 6)
    for A in walks(q, all_of(q), 0.02):
        torch.testing.assert_close(A, torch.eye(6).unsqueeze(0))
        torch.testing.assert_close(staying_cost(A), torch.zeros(1, 6))


def test_walks_return_when_the_nodes_have_changed_places() -> None:
    q = torch.stack([torch.eye(6).roll(t, dims=0) for t in range(4)]).unsqueeze(0)
    assert all(torch.allclose(A[0], torch.eye(6)) for A in walks(q, all_of(q), 0.02))


def test_by_chance_the_cost_is_the_log_of_the_number_of_nodes() -> None:
    q = torch.ones(2, 3, 7, 1)
    for A in walks(q, all_of(q), 0.07):
        torch.testing.assert_close(staying_cost(A), torch.full((2, 7), math.log(7)))


def test_walks_agree_with_a_sum_over_all_their_ways() -> None:
    q, temperature = nodes(1, 3, 3, 2), 0.5

    def step(a: int, i: int, b: int, j: int) -> float:
        weight = [math.exp(float(q[0, a, i] @ q[0, b, k]) / temperature) for k in range(3)]
        return weight[j] / sum(weight)

    found = walks(q, all_of(q), temperature)
    for i in range(3):
        for j in range(3):
            short = sum(step(0, i, 1, m) * step(1, m, 0, j) for m in range(3))
            long = sum(
                step(0, i, 1, m) * step(1, m, 2, n) * step(2, n, 1, o) * step(1, o, 0, j)
                for m in range(3)
                for n in range(3)
                for o in range(3)
            )
            assert math.isclose(float(found[0][0, i, j]), short) and math.isclose(float(found[1][0, i, j]), long)


def test_edge_dropout_takes_edges_away_and_keeps_rows_summing_to_1() -> None:
    a, b = nodes(2, 5, 4), nodes(2, 6, 4, seed=1)
    dropped = torch.rand(2, 5, 6, generator=torch.Generator().manual_seed(2)) < 0.4
    whole, usable = transition(a, b, torch.ones(2, 6, dtype=torch.bool), 0.3), torch.ones(2, 6, dtype=torch.bool)
    kept = transition(a, b, usable, 0.3, dropped)
    assert (kept[dropped] == 0).all()
    torch.testing.assert_close(kept.sum(2), torch.ones(2, 5, dtype=torch.float64))
    left = whole * ~dropped
    torch.testing.assert_close(kept, left / left.sum(2, keepdim=True))


def test_a_node_that_loses_all_its_edges_has_a_finite_gradient() -> None:
    a = nodes(1, 2, 3).requires_grad_()
    transition(a, nodes(1, 2, 3, seed=1), all_of(a), 0.3, torch.ones(1, 2, 2, dtype=torch.bool))[0, 0, 0].backward()
    assert a.grad is not None and a.grad.isfinite().all()


def test_walks_never_step_on_what_does_not_show_the_body() -> None:
    q = nodes(1, 2, 4, 3)
    usable = all_of(q)
    usable[0, 1, 2] = False
    A = transition(q[:, 0], q[:, 1], usable[:, 1], 0.5)
    assert (A[..., 2] == 0).all()
    batch, _ = moving_discs()
    method = small().eval()
    batch["valid"][:] = 0
    assert method.loss(batch)["loss"] == 0


def test_mixed_precision_changes_no_walk() -> None:
    q = nodes(1, 3, 5, 4).float()
    with torch.autocast("cpu", torch.bfloat16):
        rounded = walks(q, all_of(q), 0.07)
    assert all(torch.equal(a, b) for a, b in zip(rounded, walks(q, all_of(q), 0.07), strict=True))


def test_patches_without_jitter_are_cut_out_of_the_middle_of_the_frame() -> None:
    method = small()
    clip = torch.rand(1, 1, 3, 36, 48)
    corners = method._corners(clip)
    assert corners.tolist() == [[x, y] for y in (2, 10, 18) for x in (0, 8, 16, 24, 32)]
    zero = torch.zeros(1, len(corners), 2)
    pixels = patch_pixels(corners, 16, zero, zero)
    patches = sample(clip[:, 0], pixels).unflatten(2, (len(corners), 16))
    for number, (x, y) in enumerate(corners.tolist()):
        torch.testing.assert_close(patches[0, :, number], clip[0, 0, :, y : y + 16, x : x + 16])


def test_jittered_patches_stay_in_their_own_place() -> None:
    corners = torch.tensor([[8, 16]])
    draw = torch.Generator().manual_seed(0)
    cut, where = 0.2 * torch.rand(50, 1, 2, generator=draw), torch.rand(50, 1, 2, generator=draw)
    pixels = patch_pixels(corners, 16, cut, where)
    low, high = pixels.amin((2, 3)), pixels.amax((2, 3))
    assert (low >= corners).all() and (high <= corners + 15).all()
    torch.testing.assert_close(high - low, 15 * (1 - cut[:, 0]))


def test_a_node_is_its_patch_and_does_not_know_its_place() -> None:
    method = small().eval()
    patch = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    batch, _ = moving_discs(clips=1, frames=2)
    batch["clip"][0, 0, :, :16, :16] = patch
    batch["clip"][0, 1, :, 24:40, 40:56] = patch
    q = method.nodes(batch, generators(batch["seed"]))
    across = (64 - 16) // 8 + 1
    torch.testing.assert_close(q[0, 0, 0], q[0, 1, 3 * across + 5])


def test_held_out_clips_give_the_same_loss_again_and_training_depends_on_the_seed_alone() -> None:
    batch, _ = moving_discs()
    method = small()
    assert torch.equal(method.loss(batch)["loss"], method.loss(batch)["loss"])
    other = batch | {"seed": batch["seed"] + 50}
    assert not torch.equal(method.loss(batch)["loss"], method.loss(other)["loss"])
    method.eval()
    assert torch.equal(method.loss(batch)["loss"], method.loss(other)["loss"])


def test_the_gradient_reaches_all_of_the_network_and_its_parts_are_logged() -> None:
    batch, _ = moving_discs()
    method = small()
    losses = method.loss(batch)
    assert set(losses) == {"loss", "shortest", "longest", "returned"}
    assert all(torch.isfinite(x) and x.ndim == 0 for x in losses.values())
    losses["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.network.encoder.parameters())


def test_its_state_dict_is_all_it_must_remember_and_it_survives_pickling() -> None:
    batch, _ = moving_discs()
    method, other = small(), small(width=16)
    with torch.no_grad():
        next(method.encoder.parameters()).add_(0.1)
    other.load_state_dict(method.state_dict())
    expected = method.loss(batch)["loss"]
    assert torch.equal(other.loss(batch)["loss"], expected)
    assert torch.equal(pickle.loads(pickle.dumps(method)).loss(batch)["loss"], expected)


def test_it_learns_to_carry_a_mask_that_standing_still_would_lose() -> None:
    batch, masks = moving_discs(frames=3)
    method = small(augment=ClipAugment(0, 0))
    untrained = tracked(method, batch, masks)
    optimizer = torch.optim.AdamW(method.parameters(), lr=5e-3)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = method.loss(batch)["loss"]
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-3:]) < 0.85 * sum(losses[:3])
    assert tracked(method, batch, masks) > max(untrained, overlap(masks[:, 0], masks[:, -1])) + 0.15


def test_embeddings_are_unit_vectors_of_cells_and_pictures_of_full_size() -> None:
    batch, _ = moving_discs()
    method = small().eval()
    f = method.embed(batch["clip"][:, 0])
    assert f.shape == (2, 16, 12, 16)
    torch.testing.assert_close(f.norm(dim=1), torch.ones_like(f[:, 0]))
    shown = method.show(batch)
    assert set(shown) == {"input", "last", "copy", "returned", "mask"}
    assert all(picture.shape[2:] == (48, 64) for picture in shown.values())


def test_clips_are_frames_one_before_the_other() -> None:
    needs = small(frames=5, gap=2).needs
    assert needs.picker == Consecutive(5, 2) and not needs.intrinsics


def test_what_cannot_be_learnt_from_is_refused() -> None:
    batch, _ = moving_discs()
    with pytest.raises(InputError, match=r"patches of 64 pixels, 32 apart; frames of 48 x 64"):
        small(patch=64, step=32).loss(batch)
    with pytest.raises(InputError, match="multiple of 8"):
        small(patch=20).loss(batch)
    with pytest.raises(InputError, match="temperature 0"):
        small(temperature=0)
    with pytest.raises(InputError, match="at least 2"):
        small(frames=1)
    with pytest.raises(InputError, match="3 channels, this one is 2D with 1"):
        CycleWalk(build_encoder("unet", 1, 2, channels=(8, 16)))
