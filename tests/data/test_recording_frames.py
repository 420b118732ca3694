"""Frames of recordings stand in for images: the same pixels, and no recording on both sides of a split."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from recordings import HEIGHT, WIDTH, write_recordings

from medssl.data.crops import CropDataset
from medssl.data.recording_frames import RecordingFrames
from medssl.data.splits import check_no_leak, split_subjects
from medssl.errors import InputError


@pytest.fixture
def frames(tmp_path: Path) -> RecordingFrames:
    return RecordingFrames(write_recordings(tmp_path, (4, 3, 5)))


def test_a_frame_is_an_image_with_its_columns_first(frames: RecordingFrames) -> None:
    assert (len(frames), frames.spatial_dims, frames.channels) == (12, 2, 3)
    assert frames.shape(0) == (WIDTH, HEIGHT) and frames.label_set is None and frames.classes is None
    expected = frames.recordings.frame(1, 2)  # the third of the second recording
    image = frames.image(4 + 2)
    assert image.dtype == np.float32 and image.shape == (3, WIDTH, HEIGHT)
    for x, y in ((0, 0), (70, 11), (WIDTH - 1, HEIGHT - 1)):
        np.testing.assert_allclose(image[:, x, y], expected[:, y, x] / 255, rtol=1e-6)
    np.testing.assert_array_equal(frames.image(6, (slice(5, 20), slice(8, 16))), image[:, 5:20, 8:16])
    with pytest.raises(IndexError, match="video1 frame 000002"):
        frames.image(6, (slice(0, WIDTH + 1), slice(0, 4)))


def test_frames_of_one_recording_never_fall_on_both_sides_of_a_split(frames: RecordingFrames) -> None:
    for seed in range(6):
        parts = split_subjects(frames.subjects, {"held_out": 1, "train": 2}, seed)
        train, held_out = (frames.select(parts[name]) for name in ("train", "held_out"))
        check_no_leak({"train": train, "held out": held_out})
        assert not set(train.index["recording"]) & set(held_out.index["recording"])
        assert len(train) + len(held_out) == 12
        assert len(held_out) == frames.recordings.frames(int(held_out.index["recording"].iat[0]))


def test_the_same_recording_under_two_subjects_is_a_leak(frames: RecordingFrames) -> None:
    train, held_out = (frames.select([subject]) for subject in ("p0", "p1"))
    held_out.index[["source_hash", "content_hash"]] = "key0-2"
    with pytest.raises(InputError, match="are the same image under two subjects"):
        check_no_leak({"train": train, "held out": held_out})


def test_frames_that_cannot_be_used_are_left_out(tmp_path: Path) -> None:
    some = RecordingFrames(write_recordings(tmp_path / "some", (4,), usable=np.array([True, False, True, False])))
    assert some.scans == ("video0 frame 000000", "video0 frame 000002")
    np.testing.assert_array_equal(some.image(1), some.recordings.frame(0, 2).swapaxes(1, 2) / np.float32(255))
    with pytest.raises(InputError, match="none of the frames of its 1 recordings can be used"):
        RecordingFrames(write_recordings(tmp_path / "none", (4,), usable=np.zeros(4, dtype=bool)))


def test_a_view_has_its_own_fingerprint_and_survives_pickling(frames: RecordingFrames) -> None:
    whole = frames.fingerprint
    view = frames.select(["p1"])
    assert view.fingerprint != whole == frames.fingerprint
    again = pickle.loads(pickle.dumps(view))
    np.testing.assert_array_equal(again.image(2), frames.image(6))


def test_crops_of_frames_are_read_like_crops_of_scans(frames: RecordingFrames) -> None:
    samples = CropDataset(frames, (32, 48), lambda sample, generator: sample, with_labels=False)
    sample = samples[3]
    assert sample["image"].shape == (3, 32, 48) and sample["image"].min() >= 0 and sample["image"].max() <= 1
    assert torch.equal(sample["image"], samples[3]["image"])
    assert {int(samples[number]["index"]) for number in range(12)} == set(range(12))
