"""A recording of which all is known is read with its truth, and one that does not fit together is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medssl.data.exact_sequence import exact_sequence, is_exact_folder
from medssl.data.flow_files import write_flo
from medssl.data.recordings import are_recordings, find_sequences
from medssl.data.video_writing import write_video
from medssl.errors import InputError

SIZE = (24, 32)
INTRINSICS = {"width": 32, "height": 24, "fx": 20.0, "fy": 20.0, "cx": 15.5, "cy": 11.5}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "tube"
    draw = np.random.default_rng(0)
    for name in ("frames", "right", "depth", "flow", "disparity"):
        (root / name).mkdir(parents=True)
    for i in range(3):
        for side in ("frames", "right"):
            Image.fromarray(draw.integers(0, 255, (*SIZE, 3), dtype=np.uint8)).save(root / side / f"{i:08d}.png")
        np.save(root / "depth" / f"{i:08d}.npy", np.full(SIZE, 5.0 + i, dtype=np.float32))
        np.save(root / "disparity" / f"{i:08d}.npy", np.full(SIZE, 2.0, dtype=np.float32))
        if i < 2:
            write_flo(root / "flow" / f"{i:08d}.flo", np.full((*SIZE, 2), 1.5, dtype=np.float32))
    (root / "camera.json").write_text(json.dumps(INTRINSICS))
    to_left = np.eye(4)
    to_left[0, 3] = 4.0
    pair = {"left": INTRINSICS, "right": INTRINSICS, "to_left": to_left.tolist(), "unit": "mm"}
    (root / "stereo.json").write_text(json.dumps(pair))
    (root / "poses.txt").write_text("".join(f"{i / 25} 0 0 {i} 0 0 0 1\n" for i in range(3)))
    Image.fromarray(np.full(SIZE, 255, dtype=np.uint8)).save(root / "mask.png")
    return root


def test_everything_that_is_there_is_read(folder: Path) -> None:
    one = exact_sequence(folder)
    assert (one.name, one.unit, len(one.frames), one.frames.size) == ("tube", "mm", 3, SIZE)
    assert one.camera is not None and one.camera.cx == 15.5
    assert one.poses is not None and one.poses[:, 2, 3].tolist() == [0, 1, 2]
    np.testing.assert_allclose(one.frames.times, np.arange(3) / 25)
    assert one.stereo is not None and one.stereo.to_left[0, 3] == 4.0
    assert one.mask is not None and one.mask.shape == SIZE and one.mask.all()
    assert one.truth.depth is not None and (one.truth.depth(2) == 7).all()
    assert one.truth.disparity is not None and (one.truth.disparity(0) == 2).all()
    assert one.truth.flow is not None and (one.truth.flow(0) == 1.5).all() and np.isnan(one.truth.flow(2)).all()


def test_it_is_found_as_a_recording(folder: Path) -> None:
    assert is_exact_folder(folder) and are_recordings(folder.parent)
    assert [one.name for one in find_sequences(folder.parent)] == ["tube"]


def test_as_many_poses_as_frames_are_asked_for(folder: Path) -> None:
    (folder / "poses.txt").write_text("0 0 0 0 0 0 0 1\n")
    with pytest.raises(InputError, match="has 3 frames and 1 poses"):
        exact_sequence(folder)


def test_a_table_of_something_else_is_refused(folder: Path) -> None:
    (folder / "poses.txt").write_text("1 2 3\n")
    with pytest.raises(InputError, match="has 3 numbers in a row; expected time x y z qx qy qz qw"):
        exact_sequence(folder)


def test_a_broken_map_is_named(folder: Path) -> None:
    (folder / "depth" / "00000001.npy").write_text("no array")
    one = exact_sequence(folder)
    assert one.truth.depth is not None
    with pytest.raises(InputError, match=r"00000001\.npy: cannot be read"):
        one.truth.depth(1)


def test_a_video_with_masks_is_one_recording_and_its_frames_and_masks_are_none(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="videos need the extra 'video'")
    root = tmp_path / "made" / "shapes000"
    pictures = [np.full((*SIZE, 3), 40 * i, dtype=np.uint8) for i in range(3)]
    write_video(root / "video.mp4", pictures, 25)
    for kind in ("frames", "masks", "flow"):
        (root / kind).mkdir()
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(root / "frames" / f"{i:08d}.png")
        Image.fromarray(picture[..., 0]).save(root / "masks" / f"{i:08d}.png")
    write_flo(root / "flow" / "00000001.flo", np.full((*SIZE, 2), 1.5, dtype=np.float32))
    assert are_recordings(tmp_path)
    (one,) = find_sequences(tmp_path)
    assert (one.name, one.subject, len(one.frames)) == ("shapes000", "shapes000", 3)
    assert one.truth.flow is not None and (one.truth.flow(1) == 1.5).all() and np.isnan(one.truth.flow(0)).all()
    assert one.camera is None and one.poses is None
