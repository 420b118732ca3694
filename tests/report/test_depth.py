"""What the pictures of depth and paths show is what the arrays hold."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from medssl.report.depth import depth_error_picture, depth_panels_picture, depth_picture, trajectory_picture

OUT = Path("not_written.png")


def depth_map():
    return np.add.outer(np.linspace(10, 20, 8), np.linspace(0, 5, 10))


def line(n=6, scale=1.0):
    poses = np.tile(np.eye(4), (n, 1, 1))
    poses[:, :3, 3] = scale * np.stack([np.arange(n), np.arange(n) ** 2, 10 * np.arange(n)], axis=1)
    return poses


def bar(axes):
    """The colour bar below a panel."""
    return axes.child_axes[0]


def test_the_range_and_unit_stand_beside_the_colours(drawn):
    (axes,) = drawn(depth_picture, depth_map(), OUT, unit="mm", limits=(12, 18)).axes
    assert axes.images[0].get_clim() == (12, 18)
    assert bar(axes).get_xlabel() == "depth (mm)" and bar(axes).get_xlim() == (12, 18)
    (axes,) = drawn(depth_picture, depth_map(), OUT, unit="unknown").axes
    assert bar(axes).get_xlabel() == "depth (up to scale)"
    assert axes.images[0].get_clim() == pytest.approx(np.percentile(depth_map(), (2, 98)))


def test_near_is_red_far_is_blue_and_unknown_is_grey(drawn):
    depth = depth_map()
    depth[4, 4], depth[4, 5] = 0, np.nan
    (axes,) = drawn(depth_picture, depth, OUT, unit="mm", limits=(10, 25)).axes
    colors = axes.images[0].to_rgba(axes.images[0].get_array())
    assert colors[0, 0, 0] > colors[0, 0, 2] and colors[-1, -1, 2] > colors[-1, -1, 0]
    assert np.ptp(colors[4, 4, :3]) == 0 and (colors[4, 4] == colors[4, 5]).all()


def test_all_that_a_network_is_trained_by_stands_side_by_side_at_one_size(drawn):
    image, depth = np.zeros((8, 10, 3), np.uint8), depth_map()
    mask = depth > 12
    figure = drawn(
        depth_panels_picture, image, depth, OUT, unit="m", warped=image, error=depth / 100, mask=mask, title="t"
    )
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:4] == ["input", "depth", "other frame, warped", "photometric error"]
    assert titles[4] == f"mask: {100 * mask.mean():.0f} % counts"
    figure.draw_without_rendering()
    boxes = np.array([axes.get_position().bounds for axes in figure.axes])
    np.testing.assert_allclose(boxes[:, 1:], boxes[:1, 1:].repeat(5, axis=0), atol=1e-3)  # height, width, bottom
    assert (np.diff(boxes[:, 0]) > 0).all()
    assert len(drawn(depth_panels_picture, image, depth, OUT, unit="m").axes) == 2


def test_wide_pictures_stand_below_each_other(drawn):
    wide = np.ones((5, 20))
    figure = drawn(depth_panels_picture, wide, wide, OUT, unit="mm")
    figure.draw_without_rendering()
    above, below = (axes.get_position() for axes in figure.axes)
    assert above.y0 > below.y1 and above.x0 == pytest.approx(below.x0)


def test_the_error_is_in_percent_of_the_truth_and_both_depths_share_their_colours(drawn):
    truth = depth_map()
    truth[0, 0] = np.nan
    figure = drawn(depth_error_picture, np.zeros((8, 10)), truth * 1.1, truth, OUT, unit="mm")
    _, predicted, true, error = figure.axes
    assert predicted.images[0].get_clim() == true.images[0].get_clim()
    values = error.images[0].get_array()
    assert values.mask[0, 0] and values.compressed() == pytest.approx(np.full(79, 10.0))
    assert error.get_title() == "error, mean 10.0 %"
    assert error.images[0].get_clim() == (0, 30)


def test_an_aligned_path_lies_on_the_truth_in_both_views(drawn):
    truth = line()
    estimate = line(scale=0.1)
    estimate[3] = np.nan
    figure = drawn(trajectory_picture, {"net": estimate}, OUT, unit="mm", truth=truth)
    for axes, vertical in zip(figure.axes, (2, 1), strict=True):
        true, *_, found, start, end = (part.get_xydata() for part in axes.lines)
        expected = truth[:, [0, vertical], 3]
        np.testing.assert_allclose(true, expected)
        np.testing.assert_allclose(np.delete(found, 3, axis=0), np.delete(expected, 3, axis=0), atol=1e-9)
        assert np.isnan(found[3]).all()
        assert start == pytest.approx(expected[:1], abs=1e-9) and end == pytest.approx(expected[-1:])
    assert figure.axes[1].yaxis_inverted() and not figure.axes[0].yaxis_inverted()
    said = figure.legends[0].texts[1].get_text()
    assert said.startswith("net: 5 of 6 frames have a pose; moved and scaled by 10, error ") and "mm (RMS)" in said


def test_paths_without_truth_are_drawn_where_they_are(drawn):
    figure = drawn(trajectory_picture, {"a": line(), "b": np.full((6, 4, 4), np.nan)}, OUT, unit="unknown")
    above = figure.axes[0]
    np.testing.assert_allclose(above.lines[0].get_xydata(), line()[:, [0, 2], 3])
    assert above.get_xlabel() == "x (up to scale)"
    assert [text.get_text() for text in figure.legends[0].texts][1] == "b: 0 of 6 frames have a pose"


def test_pictures_are_written_even_of_nothing(tmp_path):
    empty = np.full((6, 8), np.nan)
    depth_picture(empty, tmp_path / "depth.png", unit="mm")
    depth_error_picture(empty, empty, empty, tmp_path / "error.png", unit="mm")
    trajectory_picture({"a": line() * np.nan}, tmp_path / "path.png", unit="mm", truth=line())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["depth.png", "error.png", "path.png"]
    assert all(imread(path).ndim == 3 for path in tmp_path.iterdir())
