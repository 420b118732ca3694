"""The colours of flow: hue for direction, paleness for slowness, and the wheel that says so."""

from colorsys import rgb_to_hsv
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from medssl.report.flow import flow_colors, flow_picture, flow_wheel, largest_motion

OUT = Path("not_written.png")


def color(x, y, largest=1.0):
    return flow_colors(np.array([[[x, y]]], dtype=np.float64), largest)[0, 0]


def test_no_motion_is_white_and_unknown_motion_is_grey():
    assert color(0, 0).tolist() == [1, 1, 1]
    unknown = color(np.nan, 1)
    assert np.ptp(unknown) == 0 and 0.2 < unknown[0] < 0.6


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (1, 0, (1, 0, 0)),  # right is red
        (0, 1, (1, 13.75 / 15, 0)),  # down is nearly yellow: 13.75 of the 15 shades from red
        (-1, 0, (0, 1 - 2.5 / 11, 1)),  # left is past cyan: 2.5 of the 11 shades to blue
        (0, -1, (5.25 / 13, 0, 1)),  # up is past blue: 5.25 of the 13 shades to magenta
    ],
)
def test_the_four_directions_have_the_shades_of_the_wheel(x, y, expected):
    assert color(x, y) == pytest.approx(expected, abs=1e-9)


def test_opposite_directions_have_opposite_hues():
    for angle in np.linspace(0, np.pi, 60, endpoint=False):
        one, other = (rgb_to_hsv(*color(sign * np.cos(angle), sign * np.sin(angle)))[0] for sign in (1, -1))
        apart = abs(one - other)
        assert min(apart, 1 - apart) > 100 / 360


def test_the_hue_turns_once_without_a_jump():
    angles = np.linspace(0, 2 * np.pi, 721)
    colors = flow_colors(np.stack([np.cos(angles), np.sin(angles)], axis=-1)[None], 1)[0]
    assert np.abs(np.diff(colors, axis=0)).max() < 0.03
    hues = np.unwrap([2 * np.pi * rgb_to_hsv(*some)[0] for some in colors])
    assert (np.diff(hues) > -1e-9).all() and hues[-1] - hues[0] == pytest.approx(2 * np.pi)


def test_faster_is_more_saturated_up_to_the_rim_and_darker_beyond():
    saturations = [rgb_to_hsv(*color(r, r / 2, 2))[1] for r in np.linspace(0, 1.7, 6)]
    assert saturations == pytest.approx(np.linspace(0, 1.7, 6) * np.sqrt(1.25) / 2)
    assert color(2, 0, 2).tolist() == [1, 0, 0]
    assert color(5, 0, 2).tolist() == [0.75, 0, 0]


def test_the_wheel_has_each_direction_where_it_points_to():
    wheel = flow_wheel(101)
    assert wheel.shape == (101, 101, 4)
    assert wheel[50, 50].tolist() == [1, 1, 1, 1]
    assert wheel[0, 0, 3] == 0 and wheel[50, 0, 3] == 1
    for row, column, x, y in ((50, 100, 1, 0), (100, 50, 0, 1), (50, 0, -1, 0), (0, 50, 0, -1)):
        np.testing.assert_allclose(wheel[row, column, :3], color(x, y), atol=1e-9)


def test_the_wheel_is_drawn_in_the_corner_and_its_rim_is_said(drawn):
    flow = np.full((20, 30, 2), 3.0)
    figure = drawn(flow_picture, flow, OUT, image=np.zeros((20, 30)), truth=flow / 2, largest=5.0)
    image, shown, true = figure.axes
    assert [axes.get_title() for axes in (shown, true)] == [
        "flow (wheel's rim: 5 pixels)",
        "true flow (wheel's rim: 5 pixels)",
    ]
    np.testing.assert_allclose(shown.images[0].get_array(), flow_colors(flow, 5))
    figure.draw_without_rendering()
    for axes in (shown, true):
        (corner,) = axes.child_axes
        inside, outside = corner.get_window_extent(), axes.get_window_extent()
        assert inside.x1 == pytest.approx(outside.x1, abs=1) and inside.y0 == pytest.approx(outside.y0, abs=1)
        assert inside.width == pytest.approx(inside.height, abs=1)
    assert not image.child_axes


def test_the_rim_is_the_truth_s_99th_percentile_unless_told(drawn):
    truth = np.zeros((10, 10, 2))
    truth[..., 0] = np.arange(100).reshape(10, 10)
    truth[0, 0] = np.nan
    assert largest_motion(truth) == pytest.approx(np.percentile(np.arange(1, 100), 99))
    assert largest_motion(0 * truth) == 1
    (axes, _) = drawn(flow_picture, 0 * truth, OUT, truth=truth).axes
    assert "rim: 98 pixels" in axes.get_title()


def test_the_picture_is_written_whole(tmp_path):
    flow_picture(np.full((6, 8, 2), np.nan), tmp_path / "flow.png", title="nothing known")
    assert [path.name for path in tmp_path.iterdir()] == ["flow.png"]
    assert imread(tmp_path / "flow.png").ndim == 3
