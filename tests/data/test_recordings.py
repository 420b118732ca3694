"""Recordings are found whatever their layout; one that cannot be used is named and never stops the others."""

import logging

import numpy as np
import pytest
from PIL import Image

from medssl.data.flow_files import write_flo
from medssl.data.recordings import LAYOUTS, find_sequences, search
from medssl.errors import InputError


def frames(folder, count=3, size=(10, 6)):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.new("RGB", size, (i, 0, 0)).save(folder / f"{i:06d}.png")
    return folder


def kitti(folder):
    for name in ("image_0", "image_1"):
        frames(folder / name)
    (folder / "calib.txt").write_text("P0: 7 0 5 0 0 7 3 0 0 0 1 0\nP1: 7 0 5 -3.5 0 7 3 0 0 0 1 0\n")
    (folder / "poses.txt").write_text("1 0 0 0 0 1 0 0 0 0 1 0\n" * 3)
    return folder


def test_a_folder_of_frames_is_a_recording_without_a_camera(tmp_path):
    (sequence,) = find_sequences(frames(tmp_path / "video"))
    assert (sequence.name, len(sequence.frames)) == ("video", 3)
    assert sequence.camera is None and sequence.poses is None


def test_a_known_layout_is_one_recording_and_is_not_looked_into(tmp_path):
    (sequence,) = find_sequences(kitti(tmp_path / "00"))
    assert sequence.unit == "m" and sequence.stereo is not None


def test_recordings_of_several_layouts_are_found_below_one_folder_in_order(tmp_path):
    kitti(tmp_path / "b" / "00")
    frames(tmp_path / "a")
    frames(tmp_path / "c", 2)
    write_flo(tmp_path / "c" / "gt.flo", np.zeros((6, 10, 2), dtype=np.float32))
    frames(tmp_path / ".hidden")
    found = find_sequences(tmp_path)
    assert [one.name for one in found] == ["a", "00", "c"]
    assert found[2].truth.flow is not None


def test_recordings_that_share_a_name_are_told_apart_by_their_folders(tmp_path):
    for patient in ("p1", "p2"):
        frames(tmp_path / patient / "video")
    assert [one.name for one in find_sequences(tmp_path)] == ["p1_video", "p2_video"]


def test_a_bad_recording_is_named_and_does_not_stop_the_others(tmp_path, caplog):
    (kitti(tmp_path / "bad") / "poses.txt").write_text("1 2 3")
    frames(tmp_path / "good")
    with caplog.at_level(logging.WARNING):
        assert [one.name for one in find_sequences(tmp_path)] == ["good"]
    assert "poses.txt: cannot be read" in caplog.text
    assert [one.subject for one in search(tmp_path).refused] == ["bad"]


def test_stills_of_several_sizes_are_no_video(tmp_path):
    frames(tmp_path / "stills")
    Image.new("RGB", (20, 20)).save(tmp_path / "stills" / "000009.png")
    with pytest.raises(InputError, match=r"000009\.png: is 20x20"):
        find_sequences(tmp_path)


def test_nothing_known_lists_the_layouts(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(InputError, match="holds no recordings") as caught:
        find_sequences(tmp_path)
    assert LAYOUTS in str(caught.value)


def test_a_missing_source_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        find_sequences(tmp_path / "none")


def test_a_file_that_is_no_video_is_refused_by_name(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"not a video")
    with pytest.raises(InputError, match=r"clip\.mp4"):
        find_sequences(path)


@pytest.mark.real_data
def test_every_real_recording_with_known_cameras_is_found(real_data):
    names = {one.name for folder in ("endoscopy", "stereo", "flow") for one in find_sequences(real_data / folder)}
    assert {"laparoscopy", "kitti_seq", "Motorcycle", "hamlyn_pair", "rubberwhale", "0000004"} <= names
    assert any(name.startswith("_start_004259") for name in names)
