"""Views overlap as asked, depend on their sample's seed alone, and keep what they should keep."""

import pytest
import torch
from torch import Generator, Tensor

from medssl.errors import InputError
from medssl.views import Views, saturate, window_grid

STILL = Views(window=(1.0, 1.0), rotation_degrees=0, mirroring=0, intensity=0, grey=0)


def image(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.9])
def test_windows_lie_in_the_image_and_overlap_along_each_axis(dims: int, overlap: float) -> None:
    draw = [Generator().manual_seed(seed) for seed in range(300)]
    centres, widths = Views(window=(0.3, 0.9), overlap=overlap).windows(draw, dims, 3)
    low, high = centres - widths / 2, centres + widths / 2
    assert low.min() >= -1 - 1e-6 and high.max() <= 1 + 1e-6
    shared = torch.minimum(high[:, :1], high) - torch.maximum(low[:, :1], low)
    share = shared / torch.minimum(widths[:, :1], widths)
    assert share.min() >= overlap - 1e-5
    assert share[:, 1:].min() < overlap + 0.1, "windows could lie further apart"


def test_views_that_change_nothing_are_the_image() -> None:
    x = image(2, 1, 8, 10, 6)
    views = STILL(x, torch.tensor([1, 2]))
    assert views.shape == (2, 2, 1, 8, 10, 6)
    torch.testing.assert_close(views[:, 0], x, atol=1e-5, rtol=0)


def test_a_window_shows_its_part_of_the_image_first_axis_first() -> None:
    x = torch.zeros(1, 1, 16, 8)
    x[:, :, 8:12, :4] = 1
    grid = window_grid(
        (4, 4), torch.tensor([[0.25, -0.5]]), torch.tensor([[0.5, 1.0]]), torch.zeros(1, 1), torch.ones(1, 2)
    )
    view = torch.nn.functional.grid_sample(x, grid, align_corners=False)
    torch.testing.assert_close(view, torch.ones(1, 1, 4, 4))


def test_a_sample_s_views_do_not_depend_on_its_batch() -> None:
    x, views = image(3, 1, 12, 12), Views(size=(8, 8))
    together = views(x, torch.tensor([4, 5, 6]))
    assert torch.equal(together[1:2], views(x[1:2], torch.tensor([5])))
    assert not torch.equal(together[0, 0], together[0, 1])


def test_a_mirror_image_is_along_the_first_axis() -> None:
    x = image(1, 1, 6, 6)
    views = Views(window=(1.0, 1.0), rotation_degrees=0, mirroring=1, intensity=0)
    torch.testing.assert_close(views(x, torch.tensor([1]))[:, 0], x.flip(2), atol=1e-5, rtol=0)


def test_without_saturation_the_channels_are_one_and_luminance_stays() -> None:
    x = image(2, 3, 4, 4)
    grey = saturate(x, torch.tensor([-1.0, 0.0]))
    assert torch.allclose(grey[0, 0], grey[0, 1]) and torch.allclose(grey[0, 1], grey[0, 2])
    torch.testing.assert_close(grey[1], x[1])
    weight = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    torch.testing.assert_close((grey[0] * weight).sum(0), (x[0] * weight).sum(0))


def test_windows_and_sizes_that_no_image_has_are_refused() -> None:
    with pytest.raises(InputError, match=r"window.*\(0.5, 1.5\)"):
        Views(window=(0.5, 1.5))
    with pytest.raises(InputError, match="do not fit 2D"):
        Views(size=(8, 8, 8))(image(1, 1, 8, 8), torch.tensor([0]))


def test_autocast_does_not_move_voxels() -> None:
    x, views = image(2, 1, 20, 24), Views()
    expected = views(x, torch.tensor([1, 2]))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(views(x, torch.tensor([1, 2])), expected)
