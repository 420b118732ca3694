"""The cost volume is that of its formula, and a flow network gives full-size flow on any encoder, both ways alike."""

import pytest
import torch
from torch import Tensor

from medssl.errors import InputError
from medssl.networks import build_encoder
from medssl.networks.flow import FlowNetwork, correlation, normalised, resized_flow

F64 = torch.float64


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def tiny(shared: bool = True) -> FlowNetwork:
    torch.manual_seed(0)
    encoder = build_encoder("unet", 3, 2, channels=(8, 16, 16), norm="group")
    return FlowNetwork(encoder, width=8, widths=(16, 8), context=(8, 8, 8, 8, 8), shared=shared)


def naive_correlation(a: Tensor, b: Tensor, radius: int) -> Tensor:
    """Of features (C, H, W), one place and one shift after another."""
    _, height, width = a.shape
    shifts = [(dy, dx) for dy in range(-radius, radius + 1) for dx in range(-radius, radius + 1)]
    found = torch.zeros(len(shifts), height, width, dtype=a.dtype)
    for k, (dy, dx) in enumerate(shifts):
        for y in range(height):
            for x in range(width):
                if 0 <= y + dy < height and 0 <= x + dx < width:
                    found[k, y, x] = (a[:, y, x] * b[:, y + dy, x + dx]).mean()
    return found


@pytest.mark.parametrize(("radius", "size"), [(1, (4, 6)), (2, (5, 3)), (4, (3, 7))])
def test_the_cost_volume_is_that_of_a_naive_loop(radius: int, size: tuple[int, int]) -> None:
    a, b = (drawn(2, 3, *size, seed=seed) for seed in (0, 1))
    found = correlation(a, b, radius)
    for i in range(2):
        torch.testing.assert_close(found[i], naive_correlation(a[i], b[i], radius))


def test_the_gradient_of_the_cost_volume_is_that_of_finite_differences() -> None:
    a, b = (drawn(1, 2, 3, 4, seed=seed).requires_grad_() for seed in (0, 1))
    assert torch.autograd.gradcheck(lambda one, other: correlation(one, other, 2), (a, b))


def test_features_that_moved_correlate_most_where_they_went() -> None:
    a = drawn(1, 64, 12, 12) - 0.5
    cost = correlation(a, a.roll((2, -3), (2, 3)), radius=4)  # two down, three to the left
    expected = (2 + 4) * 9 + (-3 + 4)
    assert (cost[0, :, 4:8, 4:8].argmax(0) == expected).all()


def test_the_cost_volume_of_16_bits_is_near() -> None:
    a, b = (drawn(1, 32, 6, 8, seed=seed, dtype=torch.float32) - 0.5 for seed in (0, 1))
    found = correlation(a.bfloat16(), b.bfloat16())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), correlation(a, b), atol=2e-3, rtol=0)


def test_the_features_of_a_pair_are_normalised_together_and_those_of_another_do_not_matter() -> None:
    features = drawn(4, 5, 6, 7) * torch.tensor([1.0, 2, 3, 4], dtype=F64).view(4, 1, 1, 1)
    found = normalised(features)
    pair = found[[0, 2]]
    torch.testing.assert_close(pair.mean(), torch.zeros((), dtype=F64), atol=1e-6, rtol=0)
    torch.testing.assert_close(pair.std(correction=0), torch.ones((), dtype=F64), atol=1e-3, rtol=0)
    features[[1, 3]] *= 10
    torch.testing.assert_close(normalised(features)[[0, 2]], pair)


def test_a_flow_of_another_size_leads_to_the_same_place() -> None:
    x = torch.arange(8, dtype=F64).expand(1, 1, 4, 8)
    larger = resized_flow(torch.cat([0.5 * x, torch.ones_like(x)], 1), (8, 24))  # of 1/2 and 1/3 of the size
    centre = (torch.arange(24, dtype=F64) - 1) / 3  # of each fine pixel, in the coarse ones
    torch.testing.assert_close(larger[0, 0, 0, 1:-1], 1.5 * centre[1:-1])
    torch.testing.assert_close(larger[:, 1], torch.full((1, 8, 24), 2.0, dtype=F64))
    assert resized_flow(larger, (8, 24)) is larger


@pytest.mark.parametrize(
    ("name", "arguments", "stride"),
    [
        ("unet", {"channels": (4, 8, 8, 8)}, 4),
        ("unet", {"channels": (4, 8), "stem_stride": 1}, 2),
        ("fcn", {}, 4),
        ("resnet18", {}, 4),
        ("vit", {"patch": 16, "width": 16, "depth": 1, "heads": 2}, 16),
    ],
)
def test_any_encoder_gives_flow_of_full_size(name: str, arguments: dict[str, object], stride: int) -> None:
    network = FlowNetwork(build_encoder(name, 3, 2, **arguments)).eval()
    a, b = (drawn(1, 3, 64, 96, seed=seed, dtype=torch.float32) for seed in (0, 1))
    with torch.no_grad():
        flow = network(a, b)
    assert flow.shape == (1, 2, 64, 96) and flow.dtype == torch.float32 and network.stride == stride


def test_training_starts_from_hardly_any_motion() -> None:
    a, b = (drawn(2, 3, 32, 64, seed=seed, dtype=torch.float32) for seed in (0, 1))
    assert 0 < float(tiny()(a, b).detach().abs().max()) < 0.5


def test_both_ways_are_each_way_alone() -> None:
    network = tiny()
    a, b = (drawn(2, 3, 32, 64, seed=seed, dtype=torch.float32) for seed in (0, 1))
    both = network.both_ways(a, b)
    torch.testing.assert_close(both[:2], network(a, b), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(both[2:], network(b, a), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(both[1:2], network(a[1:], b[1:]), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(both[:2], both[2:])


@pytest.mark.parametrize("shared", [True, False])
def test_the_gradient_reaches_all_of_the_network(shared: bool) -> None:
    network = tiny(shared)
    a, b = (drawn(2, 3, 32, 64, seed=seed, dtype=torch.float32) for seed in (0, 1))
    network.both_ways(a, b).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    assert len(network.decoder.estimators) == (1 if shared else 2)


def test_mixed_precision_gives_nearly_the_same_flow_in_float32() -> None:
    network = tiny()
    a, b = (drawn(1, 3, 32, 64, seed=seed, dtype=torch.float32) for seed in (0, 1))
    exact = network(a, b)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = network(a, b)
    assert rounded.dtype == torch.float32
    assert float((rounded - exact).abs().max().detach()) < 0.05 * float(exact.abs().max().detach())


def test_what_cannot_be_flow_is_refused() -> None:
    with pytest.raises(InputError, match="2D with 3 channels, this one is 3D with 3"):
        FlowNetwork(build_encoder("unet", 3, 3, channels=(4, 8)))
    with pytest.raises(InputError, match="2D with 3 channels, this one is 2D with 1"):
        FlowNetwork(build_encoder("unet", 1, 2, channels=(4, 8)))
    with pytest.raises(InputError, match="got radius 0"):
        FlowNetwork(build_encoder("unet", 3, 2, channels=(4, 8)), radius=0)
    with pytest.raises(InputError, match=r"multiple of 8, got \(30, 64\)"):
        tiny()(torch.rand(1, 3, 30, 64), torch.rand(1, 3, 30, 64))
