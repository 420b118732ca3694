"""Tokens: where they are, that their order does not matter, and that any of them may be left out."""

import pytest
import torch

from medssl.errors import InputError
from medssl.networks.vit import TransformerBlock, ViTEncoder, sine_cosine


def small(dims: int = 2, patch: int = 4) -> ViTEncoder:
    torch.manual_seed(0)
    return ViTEncoder(1, dims, patch=patch, width=24, depth=2, heads=3).double()


def test_the_defaults_have_the_parameters_of_vit_small() -> None:
    with torch.device("meta"):
        encoder = ViTEncoder(3, 2)
    width, hidden = 384, 4 * 384
    block = 2 * 2 * width + (width + 1) * 3 * width + (width + 1) * width + (width + 1) * hidden + (hidden + 1) * width
    expected = (3 * 16**2 + 1) * width + 12 * block + 2 * width
    assert sum(p.numel() for p in encoder.parameters()) == expected


@pytest.mark.parametrize("dims", [2, 3])
def test_encoding_all_embedded_tokens_is_the_forward_pass(dims: int) -> None:
    encoder, image = small(dims), torch.rand(2, 1, *(8, 12, 4)[:dims], dtype=torch.float64)
    (features,) = encoder(image)
    tokens = encoder.encode(encoder.embed(image))
    assert torch.equal(features.flatten(2).transpose(1, 2), tokens)


def test_a_token_stands_for_the_patch_at_its_place() -> None:
    encoder, image = small(3), torch.rand(1, 1, 8, 12, 16, dtype=torch.float64)
    changed = image.clone()
    changed[..., 4:8, 8:12, 12:16] = 0  # the patch at (1, 2, 3) of a grid of (2, 3, 4)
    moved = (encoder.embed(image) - encoder.embed(changed)).abs().sum(2)[0]
    assert moved.nonzero().flatten().tolist() == [1 * 12 + 2 * 4 + 3]


def test_without_positions_the_blocks_are_equivariant_to_the_order_of_tokens() -> None:
    encoder, tokens = small(), torch.randn(2, 9, 24, dtype=torch.float64)
    order = torch.randperm(9)
    assert torch.allclose(encoder.encode(tokens[:, order]), encoder.encode(tokens)[:, order])


def test_with_positions_moving_the_patches_is_not_moving_the_features() -> None:
    encoder, image = small(), torch.rand(1, 1, 8, 8, dtype=torch.float64)
    flipped = image.unflatten(2, (2, 4)).flip(2).flatten(2, 3)  # the upper and lower patches change places
    assert not torch.allclose(encoder(flipped)[0], encoder(image)[0].flip(2))


def test_hidden_tokens_change_nothing() -> None:
    encoder, image = small(), torch.rand(1, 1, 16, 16, dtype=torch.float64)
    visible = torch.tensor([0, 5, 6, 11])
    changed = image.clone()
    changed[..., 12:, :] = 0  # tokens 12 to 15
    a, b = (encoder.encode(encoder.embed(x)[:, visible]) for x in (image, changed))
    assert a.shape == (1, 4, 24) and torch.equal(a, b)


def test_attention_is_the_average_of_the_values_weighted_by_the_softmax_of_similarity() -> None:
    torch.manual_seed(0)
    block, x = TransformerBlock(8, heads=2).double(), torch.randn(1, 5, 8, dtype=torch.float64)
    q, k, v = (part.reshape(5, 2, 4) for part in block.qkv(x)[0].split(8, dim=1))
    mixed = torch.zeros(5, 8, dtype=torch.float64)
    for head in range(2):
        for i in range(5):
            weight = torch.stack([q[i, head] @ k[j, head] / 2 for j in range(5)]).softmax(0)
            mixed[i, 4 * head : 4 * head + 4] = sum(weight[j] * v[j, head] for j in range(5))
    assert torch.allclose(block.attend(x)[0], block.project(mixed))


@pytest.mark.parametrize(("grid", "width"), [((7, 9), 24), ((4, 5, 6), 24), ((4, 5, 6), 32)])
def test_the_embedding_of_each_place_is_its_own(grid: tuple[int, ...], width: int) -> None:
    embedding = sine_cosine(grid, width)
    assert embedding.shape == (torch.tensor(grid).prod(), width)
    distance = torch.cdist(embedding, embedding) + 10 * torch.eye(len(embedding))
    assert distance.min() > 0.1


def test_the_embedding_is_the_sine_and_cosine_of_each_index() -> None:
    embedding = sine_cosine((3, 5), 8).view(3, 5, 8)
    i, j = torch.tensor(2.0), torch.tensor(4.0)
    axes = [torch.stack([(n / f).sin() for f in (1, 100)] + [(n / f).cos() for f in (1, 100)]) for n in (i, j)]
    assert torch.allclose(embedding[2, 4], torch.cat(axes))


def test_images_of_another_size_are_encoded_by_the_same_network() -> None:
    encoder = small()
    for size in ((4, 4), (8, 20), (32, 12)):
        assert encoder(torch.rand(1, 1, *size, dtype=torch.float64))[0].shape == (1, 24, size[0] // 4, size[1] // 4)


def test_a_size_that_the_patch_does_not_divide_is_refused_without_a_decoder() -> None:
    with pytest.raises(InputError, match=r"patch of \(12, 8\)"):
        small()(torch.rand(1, 1, 9, 8, dtype=torch.float64))


def test_heads_that_cannot_share_the_channels_are_refused() -> None:
    with pytest.raises(InputError, match="5 attention heads cannot share 24 channels"):
        ViTEncoder(1, 2, width=24, heads=5)
