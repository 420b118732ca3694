"""What the MoCo papers say of the loss, the queue and the momentum encoder."""

import math
from pathlib import Path

import pytest
import torch
from processes import in_processes
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.errors import InputError
from medssl.methods.moco import MoCo, contrast, move
from medssl.networks.unet import Norm, UNetEncoder
from medssl.sample import Batch
from medssl.views import Views

AS_IT_IS = Views(window=(1, 1), rotation_degrees=0, mirroring=0, intensity=0)


def unit(rows: int, columns: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)), dim=1)


def small(
    dims: int = 2, queue_size: int = 8, groups: int = 1, norm: Norm = "instance", exclude_own: bool = True
) -> MoCo:
    torch.manual_seed(0)
    return MoCo(
        UNetEncoder(1, dims, (4, 8), norm=norm),
        queue_size=queue_size,
        momentum=0.9,
        hidden=16,
        width=8,
        groups=groups,
        exclude_own=exclude_own,
        views=AS_IT_IS if groups > 1 else Views(),
    )


def batch(count: int = 4, dims: int = 2) -> Batch:
    images = torch.rand(count, 1, *[16] * dims, generator=torch.Generator().manual_seed(1))
    return {"image": images, "seed": torch.arange(count) + 1, "index": torch.arange(count)}


def train(method: MoCo, steps: int) -> None:
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
    for _ in range(steps):
        loss = method.loss(batch())["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_step()


def test_a_query_that_is_its_key_and_orthogonal_to_the_queue_costs_what_the_temperature_leaves() -> None:
    q = torch.eye(6)[:1]
    logits = contrast(q, q, torch.eye(6)[1:], None, temperature=0.5)
    expected = math.log(1 + 5 * math.exp(-1 / 0.5))
    torch.testing.assert_close(F.cross_entropy(logits, torch.tensor([0])), torch.tensor(expected))


def test_matches_a_naive_double_loop_over_queries_and_keys() -> None:
    q, k, queue = unit(3, 4, 1), unit(3, 4, 2), unit(5, 4, 3)
    excluded = torch.zeros(3, 5, dtype=torch.bool)
    excluded[1, 2] = True
    total = 0.0
    for i in range(3):
        positive = math.exp(float(q[i] @ k[i]) / 0.2)
        others = sum(math.exp(float(q[i] @ queue[j]) / 0.2) for j in range(5) if (i, j) != (1, 2))
        total -= math.log(positive / (positive + others))
    found = F.cross_entropy(contrast(q, k, queue, excluded, 0.2), torch.zeros(3, dtype=torch.long))
    torch.testing.assert_close(found, torch.tensor(total / 3), atol=1e-5, rtol=1e-5)


def test_the_key_encoder_approaches_the_query_encoder_as_the_power_of_the_momentum() -> None:
    key, query = nn.Linear(3, 2), nn.Linear(3, 2)
    start = key.weight.detach().clone()
    for _ in range(5):
        move(key, query, momentum=0.9)
    torch.testing.assert_close(key.weight.detach(), 0.9**5 * start + (1 - 0.9**5) * query.weight.detach())


def test_the_key_encoder_has_no_gradient_and_moves_after_the_step_only() -> None:
    method = small()
    with torch.no_grad():
        for p in method.encoder.parameters():
            p.add_(1.0)
    before = [p.clone() for p in method.key_encoder.parameters()]
    method.loss(batch())["loss"].backward()
    assert all(p.grad is None for p in [*method.key_encoder.parameters(), *method.key_head.parameters()])
    assert all(torch.equal(p, b) for p, b in zip(method.key_encoder.parameters(), before, strict=True))
    method.after_step()
    for p, b in zip(method.key_encoder.parameters(), before, strict=True):
        torch.testing.assert_close(p.detach(), b + 0.1)


@pytest.mark.parametrize("sizes", [[5], [3, 3, 3], [4, 4], [12], [2, 7, 1], [1, 23, 3]])
def test_the_queue_wraps_for_any_batch_as_if_keys_came_one_by_one(sizes: list[int]) -> None:
    method = small(queue_size=5)
    expected, images, place, number = method.queue.clone(), method.queue_image.clone(), 0, 0
    for size in sizes:
        keys = unit(size, 8, seed=size)
        for key in keys:
            expected[place % 5], images[place % 5] = key, number + place
            place += 1
        method.enqueue(keys, torch.arange(place - size, place))
    assert torch.equal(method.queue, expected) and torch.equal(method.queue_image, images)
    assert int(method.queue_end) == place % 5


def test_keys_join_the_queue_after_the_step_and_never_in_evaluation() -> None:
    method = small()
    empty = method.queue.clone()
    method.eval()
    method.loss(batch())
    method.after_step()
    assert torch.equal(method.queue, empty) and method.state_scores() == {"queue/filled": 0}
    method.train()
    method.loss(batch())
    assert torch.equal(method.queue, empty)
    method.after_step()
    assert method.queue_image.tolist() == [0, 1, 2, 3, -1, -1, -1, -1]
    assert method.state_scores() == {"queue/filled": 0.5}
    torch.testing.assert_close(method.queue.norm(dim=1), torch.ones(8))


def test_the_batches_of_one_step_all_join_the_queue() -> None:
    method = small()
    for _ in range(2):
        method.loss(batch(3))
    method.after_step()
    assert method.queue_image.tolist() == [0, 1, 2, 0, 1, 2, -1, -1]


def test_two_processes_give_the_gradient_and_the_queue_of_one_with_both_batches(tmp_path: Path) -> None:
    def trained(rows: slice) -> tuple[list[Tensor], Tensor, Tensor]:
        method = small()
        part = {key: value[rows] for key, value in batch().items()}
        method.loss(part)["loss"].backward()
        method.after_step()
        return [p.grad for p in method.parameters() if p.grad is not None], method.queue, method.queue_image

    gradients, queue, images = trained(slice(0, 4))
    found = in_processes(lambda process: trained(slice(2 * process, 2 * process + 2)), tmp_path)
    for mine, *parts in zip(gradients, *(gradient for gradient, _, _ in found), strict=True):
        torch.testing.assert_close(sum(parts) / 2, mine, atol=1e-5, rtol=1e-4)  # the average is what DDP applies
    assert torch.equal(found[0][1], found[1][1])
    assert all(torch.equal(part[2], images) for part in found)
    torch.testing.assert_close(found[0][1], queue, atol=1e-5, rtol=1e-4)


def test_an_earlier_key_of_the_own_image_is_no_negative_unless_asked_for() -> None:
    methods = [small(exclude_own=exclude) for exclude in (True, False)]
    alone = []
    for method in methods:
        method.enqueue(unit(8, 8), torch.tensor([0, 1, 0, 1, 0, 1, 0, 1]))
        alone.append(float(method.loss(batch(1))["loss"].detach()))
    assert alone[0] < alone[1]
    methods[0].queue_image.fill_(0)
    assert methods[0].loss(batch(1))["loss"] == 0


def test_without_batch_statistics_groups_change_nothing() -> None:
    one, two = small(groups=2), small(groups=2)
    two.groups = 1
    torch.testing.assert_close(one.loss(batch())["loss"], two.loss(batch())["loss"])


def test_a_query_and_its_key_are_normalised_beside_different_images() -> None:
    method = small(groups=2, norm="batch")
    seen: dict[str, list[list[int]]] = {"query": [], "key": []}
    for name, encoder in (("query", method.encoder), ("key", method.key_encoder)):
        encoder.register_forward_pre_hook(lambda _, x, name=name: seen[name].append(x[0][:, 0, 0, 0].int().tolist()))
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 16, 16)
    method.loss({"image": images, "seed": torch.tensor([3, 1, 4, 2]), "index": torch.arange(4)})
    assert seen == {"query": [[0, 1], [2, 3]], "key": [[1, 3], [0, 2]]}


def test_version_one_has_a_linear_head() -> None:
    assert len(MoCo(UNetEncoder(1, 2, (4, 8)), queue_size=4, hidden=None, temperature=0.07).head) == 1


@pytest.mark.parametrize("dims", [2, 3])
def test_the_query_finds_its_key_among_real_keys(dims: int) -> None:
    torch.manual_seed(0)
    method = MoCo(UNetEncoder(1, dims, (4, 8)), 2, momentum=0.99, temperature=0.02, hidden=None, width=8)
    one, losses = batch(2, dims), []
    optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(31):
        loss = method.loss(one)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_step()
        losses.append(float(loss.detach()))
    assert sum(losses[-3:]) < 0.8 * sum(losses[1:4])  # the first step's negatives are random, which is easy


def test_a_training_that_is_resumed_ends_as_one_that_was_not() -> None:
    whole, first, second = small(), small(), small()
    train(whole, 5)
    train(first, 3)
    second.load_state_dict(first.state_dict())
    train(second, 2)
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in whole.state_dict().items())


def test_loading_a_state_forgets_keys_of_a_step_that_was_not_taken() -> None:
    method = small()
    state = {name: value.clone() for name, value in method.state_dict().items()}
    method.loss(batch())
    method.load_state_dict(state)
    method.after_step()
    assert method.state_scores() == {"queue/filled": 0}


def test_query_and_key_are_shown_as_two_views() -> None:
    shown = small().show(batch())
    assert list(shown) == ["image", "query", "key"] and not torch.equal(shown["query"], shown["key"])


def test_refuses_a_single_image_and_impossible_settings() -> None:
    with pytest.raises(InputError, match="at least 2, got 1"):
        small().check(1, 1, (16, 16))
    small().check(2, 1, (16, 16))
    with pytest.raises(InputError, match=r"queue_size.*got 0, 1 and 0.9"):
        small(queue_size=0)
