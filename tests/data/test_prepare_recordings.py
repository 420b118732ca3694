"""Recordings are prepared once, in parts, with cameras that fit the pictures; what cannot be used is listed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from medssl.data import recording_store
from medssl.data.camera import Camera
from medssl.data.prepare_recordings import prepare_recordings
from medssl.data.prepared_recordings import PreparedRecordings, RecordingPreparation
from medssl.data.sequence import SparsePoints, Stereo, Truth, VideoSequence
from medssl.errors import InputError

HEIGHT, WIDTH = 64, 96
SMALL = RecordingPreparation((32, 64))
CAMERA = Camera(WIDTH, HEIGHT, 80, 82, 47, 31)


@dataclass(frozen=True)
class Waves:
    """Frames that move to the right by two pixels each; their file holds their number."""

    file: Path
    count: int = 6

    @property
    def size(self) -> tuple[int, int]:
        return HEIGHT, WIDTH

    @property
    def times(self) -> NDArray[np.float64]:
        return np.arange(self.count) / 25

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.file,)

    @property
    def damaged(self) -> tuple[int, ...]:
        return ()

    def __len__(self) -> int:
        return self.count

    def read(self, indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        y, x = np.mgrid[:HEIGHT, :WIDTH].astype(float)
        for index in indices:
            grey = 128 + 60 * np.sin((x - 2 * index) / 5) * np.cos(y / 7) + 40 * np.sin((x - 2 * index + y) / 11)
            yield np.stack([grey, grey, 0.8 * grey], -1).clip(0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Broken(Waves):
    """Frames that cannot be read."""

    def read(self, indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        raise InputError(f"{self.file}: the third packet is damaged.")


def video(folder: Path, name: str = "video", **known: Any) -> VideoSequence:
    folder.mkdir(exist_ok=True)
    file = folder / f"{name}.mp4"
    if not file.exists():
        file.write_text(name)
    return VideoSequence(name, name, Waves(file), **known)


def test_frames_keep_their_order_and_the_camera_fits_the_prepared_picture(tmp_path: Path) -> None:
    one = video(tmp_path / "in", camera=CAMERA)
    data = prepare_recordings([one], tmp_path / "out", SMALL).dataset()
    assert (len(data), data.frames(0), data.frame(0, 0).shape) == (1, 6, (3, 32, 64))
    geometry = data.geometry(0)
    np.testing.assert_allclose(geometry.intrinsics, CAMERA.resized(32, 64).matrix)
    np.testing.assert_allclose(geometry.times, np.arange(6) / 25)
    later = data.frame(0, 3)[0, :, 8:].astype(float)  # 6 pixels of 96 are 4 of 64
    np.testing.assert_allclose(later, data.frame(0, 0)[0, :, 4:-4].astype(float), atol=4)
    assert geometry.usable.all() and not geometry.scene.any() and geometry.motion[1:].min() > 0.01


def test_a_second_run_does_nothing_and_a_changed_file_is_done_anew(tmp_path: Path) -> None:
    sequences = [video(tmp_path / "in", "a"), video(tmp_path / "in", "b")]
    first = prepare_recordings(sequences, tmp_path / "out", SMALL)
    assert (first.made, first.kept) == (("a", "b"), ())
    again = prepare_recordings(sequences, tmp_path / "out", SMALL)
    assert (again.made, again.kept) == ((), ("a", "b"))
    (tmp_path / "in" / "a.mp4").write_text("other bytes")
    changed = prepare_recordings(sequences, tmp_path / "out", SMALL)
    assert (changed.made, changed.kept) == (("a",), ("b",))
    assert len(list((tmp_path / "out" / "recordings").iterdir())) == 2


def test_a_recording_that_cannot_be_read_is_listed_and_stops_no_other(tmp_path: Path) -> None:
    bad = replace(video(tmp_path / "in", "bad"), frames=Broken(tmp_path / "in" / "bad.mp4"))
    report = prepare_recordings([bad, video(tmp_path / "in", "good")], tmp_path / "out", SMALL)
    assert report.made == ("good",) and [one.scan for one in report.refused] == ["bad"]
    assert "third packet is damaged" in report.table()
    assert report.dataset().names == ("good",)
    with pytest.raises(InputError, match=r"none of the 1 recordings can be used(.|\n)*third packet"):
        prepare_recordings([bad], tmp_path / "other", SMALL)


def test_a_long_recording_is_written_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = prepare_recordings([video(tmp_path / "in")], tmp_path / "whole", SMALL).dataset()
    monkeypatch.setattr(recording_store, "PART", 4)
    parts = prepare_recordings([video(tmp_path / "in")], tmp_path / "parts", SMALL).dataset()
    assert len(list(parts.folder(0).glob("frames-*.b2nd"))) == 2
    for t in range(6):
        np.testing.assert_array_equal(parts.frame(0, t), recording_store_frame(whole, t))


def recording_store_frame(data: PreparedRecordings, t: int) -> NDArray[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recording_store, "PART", 128)
        return data.frame(0, t)


def test_points_are_seen_where_the_prepared_camera_sees_them(tmp_path: Path) -> None:
    poses = np.tile(np.eye(4), (6, 1, 1))
    poses[:, 0, 3] = np.arange(6) * 0.1
    poses[5] = np.nan
    positions = np.array([[0.1, 0.0, 2.0], [-0.2, 0.1, 4.0]])
    seen = np.array([(p, t) for p in range(2) for t in range(6)])
    one = video(tmp_path / "in", camera=CAMERA, poses=poses, points=SparsePoints(positions, seen), unit="mm")
    data = prepare_recordings([one], tmp_path / "out", RecordingPreparation((32, 64), every=2)).dataset()
    found = data.geometry(0).observations
    assert found is not None and data.frames(0) == 3 and data.unit(0) == "mm"
    assert sorted(zip(found.point.tolist(), found.frame.tolist(), strict=True)) == [
        (p, t) for p in range(2) for t in range(3)
    ]
    K = CAMERA.resized(32, 64).matrix
    for point, frame, pixel, depth in zip(found.point, found.frame, found.pixel, found.depth, strict=True):
        local = positions[point] - [0.2 * frame, 0, 0]
        np.testing.assert_allclose(pixel, (K @ local)[:2] / local[2])
        assert depth == local[2]


def test_black_borders_are_cut_off(tmp_path: Path) -> None:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[16:48, 32:96] = True
    data = prepare_recordings([video(tmp_path / "in", camera=CAMERA, mask=mask)], tmp_path / "out", SMALL).dataset()
    K = data.geometry(0).intrinsics
    assert K is not None
    np.testing.assert_allclose((K[0, 2], K[1, 2]), (47 - 32, 31 - 16))
    assert data.valid(0, 0).mean() > 0.9


def test_what_is_known_exactly_is_in_pixels_of_the_prepared_picture(tmp_path: Path) -> None:
    flow = np.full((HEIGHT, WIDTH, 2), 6.0, dtype=np.float32)
    depth = np.full((HEIGHT, WIDTH), 9.0, dtype=np.float32)
    one = video(tmp_path / "in", truth=Truth(depth=lambda index: depth + index, flow=lambda index: flow))
    data = prepare_recordings([one], tmp_path / "out", SMALL).dataset()
    np.testing.assert_allclose(data.truth(0, 2, "depth"), np.full((32, 64), 11.0))
    np.testing.assert_allclose(data.truth(0, 0, "flow")[0], 6 * 64 / WIDTH)
    np.testing.assert_allclose(data.truth(0, 0, "flow")[1], 6 * 32 / HEIGHT)
    with pytest.raises(InputError, match="prepared without 'disparity'"):
        data.truth(0, 0, "disparity")


def test_a_pair_is_rectified_and_its_baseline_kept(tmp_path: Path) -> None:
    turned = np.eye(4)
    turned[:3, :3] = [[np.cos(0.04), 0, np.sin(0.04)], [0, 1, 0], [-np.sin(0.04), 0, np.cos(0.04)]]
    turned[:3, 3] = [4.0, 0.2, 0.1]
    other = video(tmp_path / "in", "right").frames
    one = video(tmp_path / "in", camera=CAMERA, unit="mm", stereo=Stereo(other, CAMERA, turned))
    geometry = prepare_recordings([one], tmp_path / "out", SMALL).dataset().geometry(0)
    assert geometry.right_to_left is not None
    np.testing.assert_allclose(geometry.right_to_left[:3, 3], [np.linalg.norm(turned[:3, 3]), 0, 0])
    np.testing.assert_array_equal(geometry.intrinsics, geometry.right_intrinsics)


def test_a_video_of_one_frame_is_refused(tmp_path: Path) -> None:
    one = replace(video(tmp_path / "in"), frames=Waves(tmp_path / "in" / "video.mp4", count=1))
    with pytest.raises(InputError, match="has 1 frame; at least 2 are needed"):
        prepare_recordings([one], tmp_path / "out", SMALL)


class Dark(Waves):
    """Frames of a camera that is switched off."""

    def read(self, indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        return iter([np.full((HEIGHT, WIDTH, 3), 3, np.uint8)] * len(indices))


def test_a_video_that_shows_nothing_is_refused_with_the_reason(tmp_path: Path) -> None:
    one = replace(video(tmp_path / "in"), frames=Dark(tmp_path / "in" / "video.mp4"))
    with pytest.raises(InputError, match=r"video: none of its frames shows anything: 6 of 6 frames are black: 0 to 5"):
        prepare_recordings([one], tmp_path / "out", SMALL)
    assert not list((tmp_path / "out").glob("recordings/*/*"))


def test_two_recordings_of_one_name_are_refused(tmp_path: Path) -> None:
    one = video(tmp_path / "in")
    with pytest.raises(InputError, match="Two recordings are called 'video'"):
        prepare_recordings([one, one], tmp_path / "out", SMALL)


def test_sizes_that_no_network_takes_are_refused() -> None:
    with pytest.raises(InputError, match=r"multiples of 32, at least 32, got \(100, 320\)"):
        RecordingPreparation((100, 320))


def test_a_folder_without_recordings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="medssl prepare VIDEO"):
        PreparedRecordings(tmp_path)


def test_subjects_are_selected_whole(tmp_path: Path) -> None:
    data = prepare_recordings([video(tmp_path / "in", n) for n in "ab"], tmp_path / "out", SMALL).dataset()
    assert data.select(["b"]).names == ("b",)
    with pytest.raises(InputError, match="has no recording of c; its subjects are a, b"):
        data.select(["c"])
