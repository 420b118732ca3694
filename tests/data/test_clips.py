"""Clips are pure functions of their number, never cross a cut, and hold what a method needs or say why not."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from recordings import HEIGHT, WIDTH, observations, write_recordings

from medssl.data.clips import ClipDataset, ClipNeeds, Consecutive, Neighbours, PosedPair, Single, with_clips
from medssl.errors import InputError
from medssl.method import as_read

POSES = np.tile(np.eye(4), (6, 1, 1))


def frames_of(samples: ClipDataset, count: int) -> list[list[int]]:
    return [samples[number]["frame"].tolist() for number in range(count)]


def test_a_clip_is_the_frame_and_its_neighbours(tmp_path: Path) -> None:
    data = write_recordings(tmp_path, (4, 5))
    samples = ClipDataset(data, ClipNeeds(Neighbours(0.0)), as_read)
    assert sorted(frames_of(samples, 5)) == [[1, 0, 2], [1, 0, 2], [2, 1, 3], [2, 1, 3], [3, 2, 4]]
    sample = samples[0]
    assert sample["clip"].shape == (3, 3, HEIGHT, WIDTH) and sample["valid"].shape == (3, 1, HEIGHT, WIDTH)
    i = int(sample["index"])
    first = data.frame(i, int(sample["frame"][0]))
    np.testing.assert_array_equal(sample["clip"][0].numpy(), first.astype(np.float32) / 255)


def test_neighbours_are_as_far_as_the_picture_must_have_moved(tmp_path: Path) -> None:
    motion = np.array([0, 0.02, 0.0, 0.005, 0.02, 0.02])
    data = write_recordings(tmp_path, motion=motion)
    picked = {
        first: other
        for first, other in frames_of(ClipDataset(data, ClipNeeds(Neighbours(0.01, before=False)), as_read), 5)
    }
    assert picked == {0: 1, 1: 4, 2: 4, 3: 4, 4: 5}


def test_no_clip_crosses_a_cut_or_shows_a_frame_that_cannot_be_used(tmp_path: Path) -> None:
    usable = np.array([True, True, True, True, False, True])
    data = write_recordings(tmp_path, scene=np.array([0, 0, 0, 1, 1, 1]), usable=usable)
    assert sorted(frames_of(ClipDataset(data, ClipNeeds(Neighbours(0.0, before=False)), as_read), 3)) == [
        [0, 1],
        [1, 2],
        [3, 5],
    ]


def test_a_camera_that_stands_still_is_refused(tmp_path: Path) -> None:
    data = write_recordings(tmp_path, motion=np.zeros(6))
    with pytest.raises(InputError, match=r"video0: no clip.*6 frames.*moves by 0\.00%.*stands still"):
        ClipDataset(data, ClipNeeds(Neighbours(0.01)), as_read)


def test_two_frames_and_dark_ones_are_refused_with_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"video0: no clip.*of 2 frames \(scenes: 1\)\. 2 of them"):
        ClipDataset(write_recordings(tmp_path / "short", (2,)), ClipNeeds(Neighbours(0.0)), as_read)
    dark = write_recordings(tmp_path / "dark", usable=np.arange(6) == 0)
    with pytest.raises(InputError, match="1 of them are neither black, overexposed nor damaged"):
        ClipDataset(dark, ClipNeeds(Neighbours(0.0)), as_read)


def test_a_recording_without_a_clip_stops_no_other_and_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = write_recordings(tmp_path, (2, 6, 5))
    kept = with_clips(data, ClipNeeds(Neighbours(0.0)))
    assert kept.names == ("video1", "video2") and kept.fingerprint != data.fingerprint
    assert [record.getMessage().split(":")[1] for record in caplog.records] == [" video0"]
    assert with_clips(kept, ClipNeeds(Neighbours(0.0))) is kept


def test_where_no_recording_has_what_is_learnt_from_each_is_named(tmp_path: Path) -> None:
    data = write_recordings(tmp_path, (2, 6))
    with pytest.raises(InputError, match=r"video0: has no second camera.*\nvideo1: has no second camera"):
        with_clips(data, ClipNeeds(Single(), right=True))


def test_a_sample_is_a_pure_function_of_its_number_and_survives_pickling(tmp_path: Path) -> None:
    data = write_recordings(tmp_path, poses=POSES)
    samples = ClipDataset(data, ClipNeeds(PosedPair(1, 3), poses=True), as_read, seed=3)
    again = pickle.loads(pickle.dumps(samples))
    for number in (0, 7, 23):
        for name, value in samples[number].items():
            torch.testing.assert_close(again[number][name], value)


def test_posed_pairs_are_as_far_apart_as_asked_and_have_poses(tmp_path: Path) -> None:
    poses = POSES.copy()
    poses[2] = np.nan
    data = write_recordings(tmp_path, poses=poses)
    pairs = frames_of(ClipDataset(data, ClipNeeds(PosedPair(2, 3), poses=True), as_read), 40)
    assert {abs(a - b) for a, b in pairs} == {2, 3} and not any(2 in pair for pair in pairs)


def test_consecutive_frames_go_back_evenly_in_one_scene_over_frames_that_can_be_used(tmp_path: Path) -> None:
    usable = np.array([True, True, True, True, False, True, True, True, True])
    data = write_recordings(tmp_path, (9,), scene=np.array([0, 0, 1, 1, 1, 1, 1, 1, 1]), usable=usable)
    apart = ClipDataset(data, ClipNeeds(Consecutive(3, 2), intrinsics=False), as_read)
    assert frames_of(apart, 1) == [[7, 5, 3]]
    next_to = ClipDataset(data, ClipNeeds(Consecutive(2), intrinsics=False), as_read)
    assert sorted(frames_of(next_to, 5)) == [[1, 0], [3, 2], [6, 5], [7, 6], [8, 7]]


@pytest.mark.parametrize(("count", "gap"), [(1, 1), (2, 0)])
def test_consecutive_frames_that_are_no_clip_are_refused(count: int, gap: int) -> None:
    with pytest.raises(InputError, match=f"got count {count} and gap {gap}"):
        Consecutive(count, gap)


def test_sparse_maps_show_the_points_that_are_not_held_out(tmp_path: Path) -> None:
    data = write_recordings(tmp_path, poses=POSES, observations=observations(6))
    needs = ClipNeeds(Single(), points=True)
    whole = ClipDataset(data, needs, as_read)[0]["sparse_depth"][0, 0]
    assert whole[3, :20].tolist() == list(range(1, 21)) and int((whole > 0).sum()) == 20
    part = ClipDataset(data, needs, as_read, held_out_points=0.4)
    kept = [part[number]["sparse_depth"][0, 0, 3, :20] > 0 for number in range(6)]
    assert 5 < int(kept[0].sum()) < 20 and all(torch.equal(kept[0], other) for other in kept)


def test_a_second_camera_comes_with_its_geometry(tmp_path: Path) -> None:
    right_to_left = np.eye(4)
    right_to_left[0, 3] = 4.0
    data = write_recordings(tmp_path, right=True, right_to_left=right_to_left, right_intrinsics=np.eye(3))
    sample = ClipDataset(data, ClipNeeds(Single(), right=True), as_read)[0]
    assert sample["right"].shape == (1, 3, HEIGHT, WIDTH) and sample["right_to_left"][0, 3] == 4.0


@pytest.mark.parametrize(
    ("needs", "message"),
    [
        (ClipNeeds(PosedPair(1, 3), poses=True), "no poses of the camera.*medssl sfm"),
        (ClipNeeds(Single(), right=True), "no second camera.*monodepth2"),
        (ClipNeeds(Single(), points=True), "no points of structure from motion.*medssl sfm"),
    ],
)
def test_a_recording_that_lacks_what_is_learnt_from_is_refused(tmp_path: Path, needs: ClipNeeds, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ClipDataset(write_recordings(tmp_path), needs, as_read)


def test_missing_intrinsics_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no intrinsics.*--intrinsics fx,fy,cx,cy"):
        ClipDataset(write_recordings(tmp_path, intrinsics=None), ClipNeeds(Single()), as_read)


def test_the_order_is_drawn_anew_after_every_clip_was_seen(tmp_path: Path) -> None:
    samples = ClipDataset(
        write_recordings(
            tmp_path,
            (30,),
            motion=np.ones(30),
            scene=np.zeros(30, dtype=int),
            usable=np.ones(30, dtype=bool),
            times=np.arange(30.0),
        ),
        ClipNeeds(Single()),
        as_read,
    )
    rounds = [[frame for (frame,) in frames_of_range(samples, start)] for start in (0, 30)]
    assert sorted(rounds[0]) == sorted(rounds[1]) == list(range(30)) and rounds[0] != rounds[1]


def frames_of_range(samples: ClipDataset, start: int) -> list[list[int]]:
    return [samples[number]["frame"].tolist() for number in range(start, start + 30)]
