"""The field of view is found whatever its shape, in dark scenes and beside text; highlights are the lamp's alone."""

import time

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from medssl.data.endoscope_mask import draw_mask_check, find_mask, highlights
from medssl.data.video import open_frames

HEIGHT, WIDTH = 240, 320
Y, X = np.mgrid[:HEIGHT, :WIDTH]
VIEWS = {
    "circle": np.hypot(Y - 120, X - 160) < 105,
    "circle cut by the picture": np.hypot(Y - 120, X - 160) < 150,
    "octagon": (np.abs(Y - 120) + np.abs(X - 160) < 170) & (np.abs(X - 160) < 120) & (np.abs(Y - 120) < 110),
    "rounded": (np.maximum(np.abs(Y - 120) - 70, 0) ** 2 + np.maximum(np.abs(X - 160) - 90, 0) ** 2) < 40**2,
    "to the right": np.hypot(Y - 120, X - 200) < 110,
}


def tissue(seed: int, count: int = 6) -> NDArray[np.uint8]:
    """Red noise that changes from frame to frame, (N, H, W, 3)."""
    noise = np.random.default_rng(seed).integers(-25, 25, (count, HEIGHT, WIDTH, 3))
    return np.clip(np.array([150, 80, 70]) + noise, 0, 255).astype(np.uint8)


def seen(view: NDArray[np.bool_], scene: NDArray[np.uint8], seed: int = 1) -> NDArray[np.uint8]:
    """The scene inside the view, and a dark border with the noise of a sensor and a codec."""
    border = np.random.default_rng(seed).integers(0, 7, scene.shape).astype(np.uint8)
    return np.where(view[..., None], scene, border)


def overlap(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("count", [1, 6, 20])
def test_every_shape_is_found(name, count):
    assert overlap(find_mask(seen(VIEWS[name], tissue(0, count))), VIEWS[name]) > 0.97


def test_a_large_picture_is_found_as_a_small_one():
    large = np.kron(seen(VIEWS["circle"], tissue(0, 2)), np.ones((1, 4, 4, 1), dtype=np.uint8))
    assert overlap(find_mask(large), np.kron(VIEWS["circle"], np.ones((4, 4), dtype=bool))) > 0.97


def test_without_a_border_all_of_the_picture_is_seen():
    assert find_mask(tissue(0)).all()


@pytest.mark.parametrize("level", [0, 60, 255])
def test_where_nothing_can_be_told_apart_all_of_the_picture_is_seen(level):
    assert find_mask(np.full((3, 60, 80, 3), level, dtype=np.uint8)).all()


def test_a_dark_lumen_in_the_middle_is_inside():
    scene = tissue(0)
    scene[:, np.hypot(Y - 120, X - 150) < 70] //= 40
    mask = find_mask(seen(VIEWS["circle"], scene))
    assert overlap(mask, VIEWS["circle"]) > 0.97


def test_a_dark_rim_that_moves_is_inside():
    scene = tissue(0, 10)
    for index, frame in enumerate(scene):
        angle = 2 * np.pi * index / 10
        frame[np.hypot(Y - 120 - 90 * np.sin(angle), X - 160 - 90 * np.cos(angle)) < 60] //= 40
    assert overlap(find_mask(seen(VIEWS["circle"], scene)), VIEWS["circle"]) > 0.97


def test_a_dark_rim_that_stays_is_inside_as_long_as_it_is_no_black_box():
    scene = tissue(0)
    scene[:, np.hypot(Y - 60, X - 90) < 40] //= 13  # 4 to 13: as dark as a border may be, but not black
    assert overlap(find_mask(seen(VIEWS["circle"], scene)), VIEWS["circle"]) > 0.97


def test_a_dim_scene_is_found():
    assert overlap(find_mask(seen(VIEWS["circle"], tissue(0) // 5)), VIEWS["circle"]) > 0.97


def test_text_and_a_second_picture_in_the_border_are_left_out():
    frames = seen(VIEWS["to the right"], tissue(0))
    for i, frame in enumerate(frames):
        picture = Image.fromarray(frame)
        drawing = ImageDraw.Draw(picture)
        drawing.text((5, 5), "12:31:07 GAIN 3", fill=(255, 255, 255))
        drawing.text((60, 110), "CVP:1", fill=(255, 255, 255))  # touches the view
        drawing.rectangle((5, 180, 65, 230), fill=(0, 120, 40))
        frames[i] = np.asarray(picture)
    assert overlap(find_mask(frames), VIEWS["to the right"]) > 0.97


def test_a_black_box_over_a_corner_of_the_view_is_left_out():
    view = VIEWS["octagon"] & ~((Y > 150) & (X < 120))
    assert overlap(find_mask(seen(view, tissue(0)) * (view[..., None] > 0)), view) > 0.97


def test_a_white_screen_among_many_frames_does_not_hide_the_border():
    frames = seen(VIEWS["circle"], tissue(0, 20))
    frames[7] = 255
    assert overlap(find_mask(frames), VIEWS["circle"]) > 0.97


def spotted() -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Tissue with a gradient of light and round white spots."""
    frame = (tissue(3, 1)[0] * (0.5 + 0.5 * X / WIDTH)[..., None]).astype(np.uint8)
    spots = np.zeros((HEIGHT, WIDTH), dtype=bool)
    for y, x, radius in ((50, 60, 4), (120, 200, 8), (200, 90, 2), (180, 300, 5)):
        spots |= np.hypot(Y - y, X - x) < radius
    frame[spots] = (250, 246, 244)
    return frame, spots


def test_highlights_are_found_with_a_rim_and_nothing_else_is():
    frame, spots = spotted()
    found = highlights(frame)
    assert found[spots].all()
    assert found.sum() < 2.2 * spots.sum()
    assert not highlights(tissue(3, 1)[0]).any()


@pytest.mark.parametrize("colour", [(250, 200, 120), (240, 120, 110), (150, 150, 150), (205, 200, 195)])
def test_yellow_red_grey_and_evenly_pale_surfaces_are_no_highlights(colour):
    surface = np.full((HEIGHT, WIDTH, 3), colour, dtype=np.uint8)
    assert not highlights(surface).any()


def test_what_is_overexposed_counts():
    assert highlights(np.full((60, 80, 3), 252, dtype=np.uint8)).all()


def test_highlights_take_less_than_20_ms():
    frame = np.asarray(Image.fromarray(spotted()[0]).resize((320, 256)))
    highlights(frame)
    taken = []
    for _ in range(5):
        start = time.perf_counter()
        highlights(frame)
        taken.append(time.perf_counter() - start)
    assert min(taken) < 0.02


def test_the_drawing_shows_outline_highlights_and_a_darker_outside():
    frame, spots = spotted()
    drawn = draw_mask_check(frame, VIEWS["circle"], spots)
    assert drawn.shape == frame.shape and drawn.dtype == np.uint8
    assert (drawn[120, 200] == (255, 0, 255)).all()
    assert (drawn[120, 160] == frame[120, 160]).all()
    assert (drawn[0, 0] == frame[0, 0] // 3).all()
    outline = (drawn == (0, 255, 0)).all(axis=-1)
    assert (outline & ~VIEWS["circle"]).sum() == 0
    assert outline[120, 56] and outline[16, 160]


@pytest.mark.real_data
def test_the_mask_of_a_real_sinus_endoscopy_is_that_of_its_makers(real_data):
    (folder,) = (real_data / "endoscopy" / "sinus_sfm").glob("*/bag_1/*segment_13")
    truth = np.asarray(Image.open(folder / "undistorted_mask.bmp").convert("L")) > 127
    frames = np.stack(list(open_frames(folder).read(range(0, 35, 5))))
    assert overlap(find_mask(frames), truth) > 0.95


@pytest.mark.real_data
def test_real_colonoscopies_are_seen_in_most_of_their_pictures(real_data):
    for path in sorted((real_data / "endoscopy" / "polyps" / "images").glob("*.jpg")):
        frame = np.asarray(Image.open(path).convert("RGB"))
        mask = find_mask(frame[None])
        assert 0.75 < mask.mean() < 0.95
        assert frame[~mask].max(axis=-1).mean() < 8
        assert 0 < highlights(frame)[mask].mean() < 0.12
