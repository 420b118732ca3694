"""Crops lie inside the image and find what they are to find."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medssl.errors import InputError
from medssl.patches import check_patch, crop_at, pad_to, random_crop, structure_crop

sides = st.integers(1, 20)


@given(st.tuples(sides, sides, sides), st.tuples(sides, sides, sides), st.integers(0, 2**31))
def test_every_crop_lies_inside_and_has_the_size_that_fits(
    size: tuple[int, ...], shape: tuple[int, ...], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    crops = [random_crop(size, shape, generator), crop_at([seed % 23 - 3] * 3, size, shape)]
    for crop in crops:
        for s, n, total in zip(crop, size, shape, strict=True):
            assert 0 <= s.start < s.stop <= total
            assert s.stop - s.start == min(n, total)


def test_random_crops_reach_both_ends() -> None:
    generator = torch.Generator().manual_seed(0)
    starts = {random_crop((4,), (7,), generator)[0].start for _ in range(100)}
    assert starts == {0, 1, 2, 3}


def test_structure_crops_hold_the_structure_and_draw_the_rare_one_as_often() -> None:
    labels = np.ones((40, 40), dtype=np.uint8)
    labels[3, 5] = 2
    positions = {c: np.argwhere(labels == c).astype(np.int32) for c in (1, 2)}
    generator = torch.Generator().manual_seed(0)
    crops = [structure_crop((8, 8), labels.shape, [1, 2], positions.__getitem__, generator) for _ in range(400)]
    rare = np.mean([(labels[crop] == 2).any() for crop in crops])
    assert 0.45 < rare < 0.6
    assert len({(crop[0].start, crop[1].start) for crop in crops if (labels[crop] == 2).any()}) > 5


def test_padding_keeps_what_is_there_and_leading_axes() -> None:
    padded = pad_to(np.ones((1, 3, 5)), (4, 4), value=7)
    assert padded.shape == (1, 4, 5)
    assert (padded[:, :3] == 1).all() and (padded[:, 3:] == 7).all()


@pytest.mark.parametrize("size", [(96, 96), (96, 0, 96)])
def test_a_patch_that_does_not_fit_the_dimensions_is_refused(size: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="3D"):
        check_patch(size, 3)
