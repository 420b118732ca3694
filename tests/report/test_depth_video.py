"""A video's frames have fixed colours, a bar that says what they mean, and a banner."""

import numpy as np

from medssl.report.depth_video import Overlay, depth_colors, with_banner


def test_near_is_red_far_is_blue_and_unknown_is_grey() -> None:
    depth = np.array([[1.0, 3.0, np.nan, 2.0]])
    colours = depth_colors(depth, (1.0, 3.0), np.array([[True, True, True, False]]))[0].astype(int)
    assert colours[0, 0] > colours[0, 2] and colours[1, 2] > colours[1, 0]
    assert (colours[2:] == 0x66).all()


def test_depths_beyond_the_range_have_the_colour_of_its_end() -> None:
    colours = depth_colors(np.array([[0.1, 1.0, 3.0, 9.0]]), (1.0, 3.0))[0]
    assert (colours[0] == colours[1]).all() and (colours[2] == colours[3]).all()


def test_a_depth_has_the_same_colour_in_every_frame() -> None:
    overlay = Overlay((48, 64), (1.0, 3.0), "mm", "Lengths in mm")
    picture, valid = np.zeros((48, 64, 3), np.uint8), np.ones((48, 64), bool)
    alone = overlay.frame(picture, np.full((48, 64), 2.0), valid)
    beside = overlay.frame(picture, np.where(np.arange(64) < 32, 2.0, 3.0) * np.ones((48, 1)), valid)
    at = 30 + 100, 640 + 8 + 50  # within the depth's left half
    assert alone.shape == beside.shape == (30 + 480, 2 * 640 + 2 * 8 + 16 + 96, 3)
    assert (alone[at] == beside[at]).all()


def test_the_banner_stands_above_and_leaves_the_picture_as_it_is() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (20, 300, 3), dtype=np.uint8)
    drawn = with_banner(picture, "UP TO SCALE", "frame 3")
    np.testing.assert_array_equal(drawn[30:], picture)
    assert drawn[:30, :150].max() > 150 and drawn[:30, 200:].max() > 150 and not drawn[:30, 150:200].any()


def test_the_bars_numbers_fit_beside_it() -> None:
    overlay = Overlay((480, 100), (1.0, 3.0), "unknown", "")
    frame = overlay.frame(np.zeros((480, 100, 3), np.uint8), np.ones((480, 100)), np.ones((480, 100), bool))
    assert not frame[:, -3:].any() and frame[:, -100:-3].any()
