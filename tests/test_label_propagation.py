"""Labels go where the most alike cells in reach are, as a loop over all cells would carry them."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from medssl.errors import InputError
from medssl.label_propagation import (
    Propagation,
    carry,
    decided,
    keypoint_maps,
    keypoints_in,
    propagate,
    soft_labels,
)


def unit(*shape: int, seed: int = 0) -> Tensor:
    """Random embeddings (..., D, h, w) of length 1."""
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-3)


def by_a_loop(query: Tensor, context: Tensor, labels: Tensor, how: Propagation) -> tuple[Tensor, Tensor]:
    B, _, h, w = query.shape
    carried, similarity = torch.zeros(B, labels.shape[2], h, w), torch.zeros(B, 1, h, w)
    for b in range(B):
        for y in range(h):
            for x in range(w):
                found = []
                for n in range(context.shape[1]):
                    for v in range(max(y - how.radius, 0), min(y + how.radius + 1, h)):
                        for u in range(max(x - how.radius, 0), min(x + how.radius + 1, w)):
                            alike = float((query[b, :, y, x] * context[b, n, :, v, u]).sum())
                            found.append((alike, labels[b, n, :, v, u]))
                found = sorted(found, key=lambda pair: -pair[0])[: how.top]
                shares = [math.exp((alike - found[0][0]) / how.temperature) for alike, _ in found]
                carried[b, :, y, x] = sum(s * label for s, (_, label) in zip(shares, found, strict=True)) / sum(shares)
                similarity[b, 0, y, x] = found[0][0]
    return carried, similarity


@pytest.mark.parametrize("radius", [0, 1, 2, 9])
@pytest.mark.parametrize("top", [1, 7])
def test_agrees_with_a_loop_over_all_cells(radius: int, top: int) -> None:
    how = Propagation(top, radius, 0.2, lost_below=0.3)
    query, context = unit(2, 5, 4, 6), unit(2, 3, 5, 4, 6, seed=1)
    labels = torch.rand(2, 3, 2, 4, 6, generator=torch.Generator().manual_seed(2))
    found = propagate(query, context, labels, how)
    carried, similarity = by_a_loop(query, context, labels, how)
    torch.testing.assert_close(found.labels, carried)
    torch.testing.assert_close(found.similarity, similarity)
    assert torch.equal(found.hidden, similarity < 0.3)
    torch.testing.assert_close(found.confidence, carried.amax(1, keepdim=True))


def test_by_default_ten_cells_within_twelve_vote_from_the_first_frame_and_several_recent_ones() -> None:
    how = Propagation()
    assert (how.top, how.radius) == (10, 12) and how.recent > 1


def test_the_same_picture_keeps_its_labels_at_a_low_temperature() -> None:
    query, labels = unit(1, 16, 5, 7), torch.rand(1, 3, 5, 7)
    found = propagate(query, query.unsqueeze(1), labels.unsqueeze(1), Propagation(temperature=1e-3))
    torch.testing.assert_close(found.labels, labels)
    torch.testing.assert_close(found.similarity, torch.ones(1, 1, 5, 7))
    assert not found.hidden.any()


def test_labels_move_with_the_picture_as_far_as_the_radius_reaches() -> None:
    first, labels = unit(1, 32, 6, 12), torch.rand(1, 2, 6, 12)
    moved = first.roll(3, dims=3)
    for radius, arrives in ((3, True), (2, False)):
        found = propagate(moved, first.unsqueeze(1), labels.unsqueeze(1), Propagation(1, radius)).labels
        assert torch.allclose(found[..., 3:], labels[..., :-3]) is arrives


def test_shares_of_classes_still_sum_to_1() -> None:
    labels = torch.rand(1, 2, 4, 5, 5).softmax(2)
    found = propagate(unit(1, 3, 5, 5), unit(1, 2, 3, 5, 5, seed=1), labels).labels
    torch.testing.assert_close(found.sum(1), torch.ones(1, 5, 5))


def test_what_nothing_known_looks_like_is_hidden() -> None:
    known = torch.zeros(1, 1, 4, 3, 3)
    known[:, :, 0] = 1
    query = torch.zeros(1, 4, 3, 3)
    query[:, 0] = 1
    query[0, :, 1, 1] = torch.tensor([0.0, 1.0, 0.0, 0.0])
    found = propagate(query, known, torch.ones(1, 1, 1, 3, 3))
    assert found.hidden[0, 0].nonzero().tolist() == [[1, 1]]


def test_mixed_precision_changes_nothing() -> None:
    query, context, labels = unit(1, 8, 6, 6), unit(1, 2, 8, 6, 6, seed=1), torch.rand(1, 2, 3, 6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = propagate(query, context, labels).labels
    assert torch.equal(rounded, propagate(query, context, labels).labels)


def test_a_video_is_carried_frame_by_frame_from_the_first_and_the_last_ones() -> None:
    frames, labels, how = [unit(1, 4, 4, 4, seed=s) for s in range(5)], torch.rand(1, 2, 4, 4), Propagation(recent=2)
    found = list(carry(iter(frames), labels, how))
    assert len(found) == 4
    known = [labels, *(one.labels for one in found)]
    for t, window in ((1, [0]), (2, [0, 1]), (3, [0, 1, 2]), (4, [0, 2, 3])):
        context, shown = (torch.stack([x[i] for i in window], 1) for x in (frames, known))
        assert torch.equal(found[t - 1].labels, propagate(frames[t], context, shown, how).labels)


def test_an_object_that_was_hidden_is_found_again_by_the_first_frame() -> None:
    thing, ground = torch.eye(8)[0], torch.eye(8)[1]
    seen, gone = ground.view(1, 8, 1, 1).repeat(1, 1, 4, 4), ground.view(1, 8, 1, 1).repeat(1, 1, 4, 4)
    seen[0, :, 1, 2] = thing
    mask = (seen[:, :1] == 1).float()
    labels = torch.cat([1 - mask, mask], 1)
    how = Propagation(top=1, recent=2)
    last = list(carry([seen, gone, gone, gone, seen], labels, how))[-1]
    assert torch.equal(last.labels, labels)


def test_masks_become_shares_of_cells_and_shares_masks() -> None:
    mask = torch.zeros(1, 16, 24, dtype=torch.long)
    mask[:, :8, 8:16], mask[:, 8:12, :8] = 2, 1
    labels = soft_labels(mask, 3, 8)
    assert labels.shape == (1, 3, 2, 3)
    assert labels[0, :, 0, 1].tolist() == [0, 0, 1] and labels[0, :, 1, 0].tolist() == [0.5, 0.5, 0]
    blocks = torch.zeros(1, 32, 32, dtype=torch.long)
    blocks[:, 8:24, 8:24] = 1
    again = decided(soft_labels(blocks, 2, 4), (32, 32))
    assert (again != blocks).float().mean() < 0.02
    with pytest.raises(InputError, match="2 classes holds 0 to 1, this one 0 to 2"):
        soft_labels(mask, 2, 8)


def test_a_keypoint_is_read_where_it_was_drawn() -> None:
    points = torch.tensor([[[20.0, 11.5], [37.25, 30.0], [3.5, 3.5]]])
    maps = keypoint_maps(points, (48, 64), 8)
    assert maps.shape == (1, 3, 6, 8)
    found, value = keypoints_in(maps, 8)
    torch.testing.assert_close(found, points, atol=1e-2, rtol=0)
    assert (value > 0.7).all() and value[0, 2] == 1


def test_a_map_without_a_peak_is_read_at_the_middle_of_a_cell() -> None:
    found, value = keypoints_in(torch.zeros(1, 1, 3, 3), 4)
    assert found.tolist() == [[[1.5, 1.5]]] and value.tolist() == [[0.0]]


def test_keypoints_are_carried_as_maps() -> None:
    first = unit(1, 32, 8, 8)
    moved = first.roll((1, 2), dims=(2, 3))
    points = torch.tensor([[[19.5, 27.5]]])
    (found,) = carry([first, moved], keypoint_maps(points, (64, 64), 8), Propagation(top=1))
    torch.testing.assert_close(keypoints_in(found.labels, 8)[0], points + torch.tensor([16.0, 8.0]), atol=0.05, rtol=0)


def test_frames_of_different_sizes_and_settings_that_carry_nothing_are_refused() -> None:
    with pytest.raises(InputError, match=r"of one size.*got \(1, 4, 4, 4\), \(1, 1, 4, 4, 5\)"):
        propagate(unit(1, 4, 4, 4), unit(1, 1, 4, 4, 5), torch.ones(1, 1, 2, 4, 4))
    with pytest.raises(InputError, match="got top 0"):
        Propagation(top=0)
    with pytest.raises(InputError, match=r"temperature 0"):
        Propagation(temperature=0)
