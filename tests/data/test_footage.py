"""Cuts, stills, black and overexposed frames are found where they are, and nothing where there is none."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates, shift

from medssl.data.footage import cuts, inspect, match_blocks
from medssl.data.video import open_frames


class Listed:
    """Frames that are held in memory, 25 per second."""

    def __init__(self, frames: Sequence[NDArray[np.uint8]], damaged: tuple[int, ...] = ()) -> None:
        self.all, self.damaged = list(frames), damaged
        self.size = self.all[0].shape[:2]
        self.times = np.arange(len(self.all)) / 25

    def __len__(self) -> int:
        return len(self.all)

    def read(self, indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        return (self.all[index] for index in indices)


def texture(seed: int, size: int = 400) -> NDArray[np.float32]:
    """Smooth coloured noise (size, size, 3), 30 to 220; like tissue the same in colour whatever the seed."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(size, size)), 5)
    grey = 125 + 60 * noise / np.abs(noise).max()
    return np.clip(grey[..., None] * [1.2, 0.8, 0.7], 0, 255).astype(np.float32)


def travel(seed: int, count: int, step: int = 3, noise: float = 0) -> list[NDArray[np.uint8]]:
    """A view of 144x192 that moves over a texture by ``step`` pixels along x per frame."""
    scene, rng = texture(seed), np.random.default_rng(seed)
    views = [scene[40:184, step * i : step * i + 192] for i in range(count)]
    return [np.clip(view + rng.normal(0, noise, view.shape), 0, 255).astype(np.uint8) for view in views]


def grey(seed: int) -> NDArray[np.float32]:
    """Smooth noise (90, 90) of the fineness that tissue has at 64 pixels."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(90, 90)), 2)
    return (125 + 60 * noise / np.abs(noise).max()).astype(np.float32)


@pytest.mark.parametrize("along", [(0, 1), (1, 0), (0.6, -0.8)])
@pytest.mark.parametrize("length", [0.0, 0.1, 0.5, 1.0, 2.3, 4.0])
def test_motion_is_measured_below_a_pixel_and_up_to_the_reach(along, length):
    before = grey(0)
    after = shift(before, length * np.array(along), order=3, mode="nearest")
    moved, _ = match_blocks(before[10:58, 10:74], after[10:58, 10:74])
    assert np.median(moved) == pytest.approx(length, abs=0.03 + 0.05 * length)
    assert length or (moved == 0).all()


def test_a_picture_that_spreads_moves_though_no_single_shift_does():
    y, x = np.mgrid[-24:24, -32:32]
    one, other = (map_coordinates(grey(1), [45 + y / zoom, 45 + x / zoom], order=3) for zoom in (1.0, 1.05))
    moved, residual = match_blocks(one, other)
    assert moved.mean() == pytest.approx(0.05 * np.hypot(y, x).mean(), rel=0.2)
    assert residual < 0.4


def test_brightness_as_a_whole_is_no_motion_and_another_picture_is_unexplained():
    before = grey(0)[:48, :64]
    moved, residual = match_blocks(before, before + 20)
    assert moved.max() < 1e-3 and residual < 1e-3
    assert match_blocks(before, grey(5)[:48, :64])[1] > 0.6


def test_a_flat_picture_has_no_motion_to_measure():
    flat = np.full((48, 64), 90, dtype=np.float32)
    moved, residual = match_blocks(flat, flat)
    assert len(moved) == 0 and residual == 0


@pytest.mark.parametrize("noise", [0, 4])
def test_a_video_that_moves_steadily_has_nothing_amiss(noise):
    footage = inspect(Listed(travel(0, 40, noise=noise)))
    assert footage.messages() == []
    assert footage.stretches().empty
    assert np.isnan(footage.motion[0])
    assert np.median(footage.motion[1:]) == pytest.approx(3 / 192, rel=0.15)


def test_each_cut_is_found_though_the_colours_are_the_same():
    frames = Listed(travel(0, 20) + travel(1, 25) + travel(2, 15))
    assert cuts(frames).tolist() == [20, 45]
    assert np.isnan(inspect(frames).motion[[0, 20, 45]]).all()


def test_a_flash_is_no_cut():
    frames = travel(0, 30)
    frames[12] = np.clip(frames[12].astype(int) * 2 + 40, 0, 255).astype(np.uint8)
    frames[20] = texture(9)[:144, :192].astype(np.uint8)
    assert len(cuts(Listed(frames))) == 0


def test_a_slow_fade_and_fast_motion_are_no_cuts():
    fading = [(frame * (1 - 0.5 * i / 40)).astype(np.uint8) for i, frame in enumerate(travel(0, 40))]
    assert len(cuts(Listed(fading))) == 0
    assert len(cuts(Listed(travel(0, 16, step=12)))) == 0


def test_a_still_stretch_is_found_despite_noise():
    rng, view = np.random.default_rng(0), travel(0, 1)[0]
    still = [np.clip(view + rng.normal(0, 4, view.shape), 0, 255).astype(np.uint8) for _ in range(12)]
    footage = inspect(Listed(still + travel(0, 10)))
    assert footage.still[1:12].all() and not footage.still[13:].any()


def test_slow_motion_is_not_still_though_no_frame_differs_from_the_one_before():
    scene = texture(0)[40:184, :220]
    slow = [shift(scene, (0, -0.1 * i, 0), order=1)[:, :192].astype(np.uint8) for i in range(20)]
    assert not inspect(Listed(slow)).still.any()


def test_a_few_repeated_frames_are_no_still_stretch():
    frames = [frame for frame in travel(0, 12) for _ in range(3)]
    assert not inspect(Listed(frames)).still.any()


def test_black_and_white_frames_are_found_and_are_no_cuts():
    frames = travel(0, 30)
    for i in (5, 6, 7):
        frames[i] = np.random.default_rng(i).integers(0, 10, frames[i].shape, dtype=np.uint8)
    for i in (15, 16):
        frames[i] = np.full_like(frames[i], 253)
    footage = inspect(Listed(frames))
    assert np.flatnonzero(footage.black).tolist() == [5, 6, 7]
    assert np.flatnonzero(footage.overexposed).tolist() == [15, 16]
    assert not footage.cut.any()


def test_a_dark_border_hides_no_overexposed_view():
    frame = np.zeros((120, 160, 3), dtype=np.uint8)
    frame[40:80, 50:110] = 255
    assert inspect(Listed([frame] * 3)).overexposed.all()


def test_damaged_frames_are_named_as_such_and_not_as_black():
    frames = travel(0, 20)
    frames[4] = np.zeros_like(frames[4])
    footage = inspect(Listed(frames, damaged=(4, 5)))
    assert np.flatnonzero(footage.damaged).tolist() == [4, 5]
    assert not footage.black.any()


def test_the_table_and_the_messages_say_what_and_where():
    frames = travel(0, 20) + travel(1, 20)
    frames[30] = np.zeros_like(frames[30])
    footage = inspect(Listed(frames))
    assert footage.stretches().to_dict("list") == {
        "what": ["cut", "black"],
        "first": [20, 30],
        "last": [20, 30],
        "start_s": [0.8, 1.2],
        "end_s": [0.8, 1.2],
    }
    assert footage.messages() == [
        "1 of 40 frames begin another scene; frames across a cut are not to be compared: 20 (0.80 s).",
        "1 of 40 frames are black: 30 (1.20 s).",
    ]
    assert list(footage.frames().columns) == ["times", "motion", "cut", "still", "black", "overexposed", "damaged"]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_shortest_videos_are_looked_at(count):
    assert inspect(Listed(travel(0, count))).messages() == []


@pytest.mark.parametrize("size", [(5, 7), (64, 64), (33, 201)])
def test_any_size_is_looked_at(size):
    frames = np.random.default_rng(0).integers(0, 255, (4, *size, 3), dtype=np.uint8)
    assert len(inspect(Listed(list(frames))).times) == 4


@pytest.mark.real_data
def test_a_real_laparoscopy_has_nothing_amiss_and_is_cut_where_another_video_begins(real_data):
    video = open_frames(real_data / "endoscopy" / "laparoscopy.mp4")
    first, later = (list(video.read(range(start, start + 15))) for start in (0, 50))
    assert inspect(Listed(first)).messages() == []
    assert cuts(Listed(first + later)).tolist() == [15]


@pytest.mark.real_data
def test_a_real_drive_whose_motion_grows_and_ebbs_is_one_scene(real_data):
    drive = open_frames(real_data / "stereo" / "kitti_seq" / "image_l_kitti")
    small = [frame[::3, ::3] for frame in drive.read(range(len(drive)))]
    assert len(cuts(drive)) == 0 and len(cuts(Listed(small))) == 0
