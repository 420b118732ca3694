"""Windows: what attends to what, against MONAI's block and against attention over the whole map."""

import pytest
import torch
from monai.networks.nets.swin_unetr import SwinTransformer, SwinTransformerBlock, compute_mask
from torch import Tensor

from medssl.errors import InputError
from medssl.networks.swin import SwinBlock, SwinEncoder, departition, offsets, partition

THEIRS = {  # our name: theirs
    "norm1": "norm1",
    "qkv": "attn.qkv",
    "project": "attn.proj",
    "norm2": "norm2",
    "mlp.0": "mlp.linear1",
    "mlp.2": "mlp.linear2",
}


def block(dims: int, window: int, shifted: bool) -> SwinBlock:
    torch.manual_seed(0)
    built = SwinBlock(dims, 12, 3, window, shifted).double()
    torch.nn.init.normal_(built.bias)  # offsets shall matter
    return built


def influence(network: SwinBlock, size: tuple[int, ...], at: tuple[int, ...]) -> Tensor:
    """Say which places of a map of ``size`` the output at one place depends on."""
    x = torch.rand(1, *size, 12, dtype=torch.float64, requires_grad=True)
    network(x)[(0, *at)].square().sum().backward()
    assert x.grad is not None
    return x.grad[0].abs().sum(-1) > 0


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("shifted", [False, True])
def test_windows_that_tile_the_map_give_what_monai_gives(dims: int, shifted: bool) -> None:
    ours, window, size = block(dims, 4, shifted), [4] * dims, (8, 4 * 3, 8)[:dims]
    shift = [2 if shifted else 0] * dims
    theirs = SwinTransformerBlock(12, 3, window, shift).double()
    own = ours.state_dict()
    weights = {f"{b}.{p}": own[f"{a}.{p}"] for a, b in THEIRS.items() for p in ("weight", "bias")}
    theirs.load_state_dict(weights | {"attn.relative_position_bias_table": own["bias"]}, strict=False)
    x = torch.randn(2, *size, 12, dtype=torch.float64)
    mask = compute_mask(size, window, shift, x.device) if shifted else None
    assert torch.allclose(ours(x), theirs(x, mask))


def test_unshifted_windows_do_not_see_each_other() -> None:
    seen = influence(block(2, 4, False), (8, 8), (1, 6))
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[:4, 4:] = True
    assert torch.equal(seen, expected)


def test_shifted_windows_cross_borders_but_not_the_ends_of_the_map() -> None:
    middle = torch.zeros(8, 8, dtype=torch.bool)
    middle[2:6, 2:6] = True
    assert torch.equal(influence(block(2, 4, True), (8, 8), (3, 4)), middle)
    corner = torch.zeros(8, 8, dtype=torch.bool)
    corner[:2, :2] = True  # the window wraps around; the other end is not its neighbour
    assert torch.equal(influence(block(2, 4, True), (8, 8), (0, 0)), corner)


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("size", [(8, 8), (7, 9), (3, 10), (2, 3), (5, 4, 6), (3, 2, 7)])
def test_any_size_gives_attention_over_the_whole_map_with_other_windows_masked(
    size: tuple[int, ...], shifted: bool
) -> None:
    network = block(len(size), 4, shifted)
    torch.nn.init.ones_(network.qkv.bias)  # padding would have keys and values
    x = torch.randn(1, *size, 12, dtype=torch.float64)

    places = torch.cartesian_prod(*(torch.arange(n) for n in size))  # (N, dims)
    shift = torch.tensor([2 if shifted and n > 4 else 0 for n in size])
    number = (places - shift).div(4, rounding_mode="floor")
    together = (number[:, None] == number[None]).all(-1)
    offset = (places[:, None] - places[None] + 3).clamp(0, 6)  # those clamped are masked
    table = network.bias.view(*[7] * len(size), 3)
    q, k, v = (part.reshape(-1, 3, 4) for part in network.qkv(x).flatten(0, -2).split(12, dim=1))
    score = torch.einsum("ihc,jhc->ijh", q, k) / 2 + table[tuple(offset.unbind(-1))]
    weight = score.masked_fill(~together[..., None], float("-inf")).softmax(1)
    expected = network.project(torch.einsum("ijh,jhc->ihc", weight, v).flatten(1))
    assert torch.allclose(network.attend(x), expected.view_as(x))


def test_offsets_number_every_pair_as_in_the_largest_window() -> None:
    number = offsets((2, 3), 4, torch.device("cpu"))
    assert number.shape == (6, 6)
    assert (number.diagonal() == 3 * 7 + 3).all()
    assert number[0, 5] == (0 - 1 + 3) * 7 + (0 - 2 + 3)


@pytest.mark.parametrize(("size", "window"), [((4, 6), (2, 3)), ((4, 2, 6), (2, 1, 3))])
def test_windows_go_back_where_they_came_from(size: tuple[int, ...], window: tuple[int, ...]) -> None:
    x = torch.rand(2, *size, 5)
    windows = partition(x, window)
    assert torch.equal(windows[1, 0], x[(1, *(slice(w) for w in window))].reshape(-1, 5))
    assert torch.equal(departition(windows, size, window), x)


@pytest.mark.parametrize("dims", [2, 3])
def test_the_defaults_have_the_parameters_of_swin_unetr(dims: int) -> None:
    with torch.device("meta"):
        ours = SwinEncoder(1, dims)
    theirs = SwinTransformer(1, 48, [7] * dims, [2] * dims, (2, 2, 2, 2), (3, 6, 12, 24), spatial_dims=dims)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


def test_images_of_another_size_are_encoded_by_the_same_network() -> None:
    encoder = SwinEncoder(1, 2, 4, (2, 2), (1, 2), window=3)
    for size in ((8, 8), (16, 40), (24, 8)):
        assert [f.shape[2:] for f in encoder(torch.rand(1, 1, *size))] == [
            tuple(n // stride for n in size) for stride in (2, 4, 8)
        ]


def test_features_are_normalised_over_the_channels() -> None:
    for feature in SwinEncoder(1, 2, 12, (1,), (1,))(torch.rand(1, 1, 8, 8)):
        assert feature.mean(1).abs().max() < 1e-5 and (feature.var(1, unbiased=False) - 1).abs().max() < 0.05


def test_stages_without_heads_are_refused() -> None:
    with pytest.raises(InputError, match=r"depths=\(2, 2\) and heads=\(1,\)"):
        SwinEncoder(1, 2, 4, (2, 2), (1,))


def test_a_size_that_the_strides_do_not_divide_is_refused_without_a_decoder() -> None:
    with pytest.raises(InputError, match=r"patch of \(16, 8\)"):
        SwinEncoder(1, 2, 4, (2, 2), (1, 2))(torch.rand(1, 1, 9, 8))
