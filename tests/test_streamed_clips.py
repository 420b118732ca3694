"""Streamed clips are those of prepared recordings, each packet is read once a round, and little is held."""

import pickle
import weakref
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sounding import FPS, HEIGHT, WIDTH, moving, write_sounding
from torch.utils.data import DataLoader

pytest.importorskip("av", reason="videos need the extra 'video'")

from medssl.data import video_track
from medssl.data.clips import ClipNeeds, Consecutive, Neighbours, PosedPair, Single
from medssl.data.crops import EpochSampler
from medssl.data.prepare_recordings import prepare_recordings
from medssl.data.prepared_recordings import RecordingPreparation
from medssl.data.recordings import find_sequences
from medssl.data.streamed_clips import StreamedClips
from medssl.data.streamed_recordings import StreamedRecordings
from medssl.data.video import VideoFrames
from medssl.errors import InputError
from medssl.method import as_read

SIZE = (64, 96)
PREPARATION = RecordingPreparation(SIZE, mask=False)
NEEDS = ClipNeeds(Consecutive(3, 2), intrinsics=False)


def streamed(*paths: Path, preparation: RecordingPreparation = PREPARATION) -> StreamedRecordings:
    return StreamedRecordings(paths, preparation, progress=False)


def clips(*paths: Path, needs: ClipNeeds = NEEDS, seed: int = 0, per_number: int = 2) -> StreamedClips:
    return StreamedClips(streamed(*paths), needs, as_read, seed, per_number, segment_s=0.4)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five stretches of ten frames, two groups of pictures each, and a bit."""
    return write_sounding(tmp_path_factory.mktemp("video") / "a.mp4", frames=54, key_every=5)


def test_a_recording_is_cut_at_key_frames_into_stretches_that_are_long_enough(video: Path) -> None:
    data = streamed(video)
    segments = data.segments(0, 0.4)
    assert [(one.first, one.stop) for one in segments] == [(0, 10), (10, 20), (20, 30), (30, 40), (40, 54)]
    assert [(one.start_s, one.end_s) for one in segments[-2:]] == [(1.2, 1.6), (1.6, pytest.approx(2.16))]
    assert [(one.first, one.stop) for one in data.segments(0, 0.7)] == [(0, 20), (20, 54)]
    assert [one.stop for one in data.segments(0, 0.4, least_frames=12)] == [15, 30, 54]
    every = streamed(video, preparation=RecordingPreparation(SIZE, every=3, mask=False))
    assert every.frames(0) == 18 and [one.first for one in every.segments(0, 0.4)] == [0, 4, 9, 14]


@pytest.mark.parametrize("every", [1, 3])
def test_clips_hold_what_those_of_prepared_recordings_do(video: Path, tmp_path: Path, every: int) -> None:
    preparation = RecordingPreparation((32, 64), every=every, highlights=True)
    prepared = prepare_recordings(find_sequences(video), tmp_path / "out", preparation, progress=False).dataset()
    samples = StreamedClips(streamed(video, preparation=preparation), NEEDS, as_read, segment_s=0.4)
    for number in range(2):
        sample = samples[number]
        assert sample["clip"].shape == (2, 3, 3, 32, 64) and sample["valid"].shape == (2, 3, 1, 32, 64)
        for clip, valid, frames in zip(sample["clip"], sample["valid"], sample["frame"].tolist(), strict=True):
            assert frames == [frames[0], frames[0] - 2, frames[0] - 4]
            for picture, seen, t in zip(clip, valid, frames, strict=True):
                np.testing.assert_array_equal(picture.numpy(), prepared.frame(0, t).astype(np.float32) / 255)
                np.testing.assert_array_equal(seen[0].numpy(), prepared.valid(0, t))


def test_a_round_reads_each_packet_once_and_in_another_order_than_the_next(
    video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = clips(video)
    read: Counter[int] = Counter()
    honest = video_track.packets

    def counted(container: object, stream: object) -> object:
        for packet in honest(container, stream):
            read[packet.pts] += 1
            yield packet

    monkeypatch.setattr(video_track, "packets", counted)
    firsts: list[list[int]] = []
    for round_ in range(2):
        read.clear()
        numbers = range(round_ * 5, round_ * 5 + 5)
        firsts.append([])
        for worker in range(2):
            firsts[-1] += [int(samples[number]["frame"].min()) // 10 for number in numbers[worker::2]]
        assert set(read.values()) == {1} and len(read) == 54
    assert sorted(firsts[0]) == sorted(firsts[1]) == list(range(5)) and firsts[0] != firsts[1]


def test_samples_do_not_depend_on_who_reads_them_nor_on_what_was_read_before(video: Path) -> None:
    samples = clips(video, seed=3)
    worker = pickle.loads(pickle.dumps(samples))
    [alone] = DataLoader(samples, 3, sampler=[4, 7, 1], collate_fn=samples.collate)
    assert alone["clip"].shape == (6, 3, 3, *SIZE) and alone["number"].tolist() == [8, 9, 14, 15, 2, 3]
    assert len(set(alone["seed"].tolist())) == 6
    for name, value in worker.collate([worker[number] for number in (1, 7, 4)][::-1]).items():
        torch.testing.assert_close(alone[name], value)
    assert not torch.equal(clips(video, seed=4)[4]["frame"], samples[4]["frame"])


def test_processes_share_a_round_out(video: Path) -> None:
    samples = clips(video)
    numbers = [list(EpochSampler(1, 1, samples.numbers_per(8), rank, 2)) for rank in range(2)]
    assert sorted(numbers[0] + numbers[1]) == [0, 1, 2, 3]
    with pytest.raises(InputError, match=r"batch of 5 .* groups of 2.*clips_per_segment"):
        samples.numbers_per(5)


def scenes(index: int) -> np.ndarray:
    """Another scene from frame 15 on, and darkness from 30 to 39."""
    if 30 <= index < 40:
        return np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    blocks = np.random.default_rng(0).integers(40, 220, (HEIGHT // 8, 2 * WIDTH // 8, 3), dtype=np.uint8)
    other = blocks.repeat(8, 0).repeat(8, 1)[:, index : index + WIDTH]
    return moving(index) if index < 15 else np.ascontiguousarray(other)


@pytest.mark.parametrize("needs", [NEEDS, ClipNeeds(Single(), intrinsics=False)])
def test_no_clip_crosses_a_cut_or_shows_a_black_frame(tmp_path: Path, needs: ClipNeeds) -> None:
    path = write_sounding(tmp_path / "a.mp4", frames=50, picture=scenes)
    samples = clips(path, needs=needs, per_number=10)
    found = torch.cat([samples[number]["frame"] for number in range(2)])
    assert not ((found >= 30) & (found < 40)).any()
    assert ((found < 15).all(1) | (found >= 15).all(1)).all()
    assert (found[:, 0] < 15).any() and (found[:, 0] >= 40).any()


def test_a_stretch_that_shows_nothing_gives_way_to_another(tmp_path: Path) -> None:
    black = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    half = write_sounding(tmp_path / "half.mp4", 24, key_every=12, picture=lambda n: black if n >= 12 else moving(n))
    samples = StreamedClips(streamed(half), NEEDS, as_read, segment_s=0.4)
    assert len(samples.places) == 2 and all(int(samples[number]["frame"].max()) < 12 for number in range(2))
    rare = write_sounding(tmp_path / "rare.mp4", 24, picture=lambda n: moving(n) if 15 <= n < 20 else black)
    assert clips(rare)[0]["frame"].tolist() == [[19, 17, 15]] * 2
    nothing = write_sounding(tmp_path / "nothing.mp4", 8, picture=lambda _: black)
    with pytest.raises(InputError, match="no clip that shows something without a cut"):
        clips(nothing)[0]


@pytest.mark.parametrize("frames", [30, 100])
def test_what_is_held_does_not_grow_with_the_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frames: int
) -> None:
    path = write_sounding(tmp_path / "a.mp4", frames=frames, key_every=250)  # one stretch, however long
    alive: dict[int, weakref.ref[np.ndarray]] = {}
    most = [0, 0]
    honest: Callable[..., np.ndarray] = VideoFrames._picture

    def picture(self: VideoFrames, index: int, frame: object) -> np.ndarray:
        one = honest(self, index, frame)
        alive[index] = weakref.ref(one)
        most[0], most[1] = max(most[0], sum(ref() is not None for ref in alive.values())), most[1] + 1
        return one

    samples = clips(path)
    monkeypatch.setattr(VideoFrames, "_picture", picture)
    samples[0]
    assert most[0] <= 2  # the frame at hand, and the one before
    assert most[1] <= 2 * 3 * 3  # frames brought to full size: three places for each of two clips of three frames


def test_where_the_rate_varies_frames_are_counted_and_it_is_told(tmp_path: Path) -> None:
    times = np.cumsum(np.where(np.arange(100) % 3, 0.02, 0.08))
    data = streamed(write_sounding(tmp_path / "a.mkv", frames=100, times=times.tolist()))
    assert data.frames(0) == 100 and data[0].interval_s == pytest.approx(0.02)
    assert any("a.mkv: its frames are 0.020 to 0.080 s apart, 0.020 s most of them" in note for note in data.notes)
    assert not streamed(write_sounding(tmp_path / "even.mkv", frames=30)).notes
    segments = data.segments(0, 0.5)
    assert all(one.end_s - one.start_s >= 0.5 for one in segments)
    assert [one.stop for one in segments[:-1]] == [one.first for one in segments[1:]]
    sample = StreamedClips(data, NEEDS, as_read, segment_s=0.5)[0]
    assert sample["frame"][0].diff().tolist() == [-2, -2]


def test_folders_of_frames_are_streamed_too(tmp_path: Path) -> None:
    from PIL import Image

    for index in range(30):
        Image.fromarray(moving(index)).save(tmp_path / f"{index:04d}.png")
    data = streamed(tmp_path)
    sample = StreamedClips(data, NEEDS, as_read, segment_s=0.4)[0]
    first = int(sample["frame"][0, 0])
    np.testing.assert_allclose(sample["clip"][0, 0].permute(1, 2, 0).numpy() * 255, moving(first), atol=0.5)


def test_a_file_that_cannot_be_used_is_named_and_the_others_go_on(video: Path, tmp_path: Path) -> None:
    (tmp_path / "b.mp4").write_bytes(video.read_bytes())
    short = write_sounding(tmp_path / "c.mp4", frames=1)
    data = streamed(tmp_path)
    assert data.names == ("b",) and "c: has 1 frame" in data.refused[0].reason and "1 cannot" in data.table()
    assert data.select(["b"]).fingerprint == data.fingerprint
    with pytest.raises(InputError, match="no recording of c"):
        data.select(["c"])
    with pytest.raises(InputError, match=r"^c: has 1 frame"):
        streamed(short)


def test_rare_key_frames_are_told_of(tmp_path: Path) -> None:
    times = [4.0 * index for index in range(20)]
    data = streamed(write_sounding(tmp_path / "a.mkv", frames=20, times=times, key_every=250))
    assert any("key frames are up to 76 s apart" in note for note in data.notes)


def test_a_recording_without_a_clip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"No clip of 5 frames can be taken from a \(4 frames\)"):
        clips(write_sounding(tmp_path / "a.mp4", frames=4))


@pytest.mark.parametrize(
    ("needs", "lacks"),
    [
        (ClipNeeds(Single()), "intrinsics"),
        (ClipNeeds(PosedPair(), intrinsics=False, poses=True, points=True), "poses .* and points"),
        (ClipNeeds(Single(), intrinsics=False, right=True), "second camera"),
        (ClipNeeds(Neighbours(), intrinsics=False), "frames chosen by their motion"),
    ],
)
def test_what_no_stream_holds_is_refused(video: Path, needs: ClipNeeds, lacks: str) -> None:
    with pytest.raises(InputError, match=f"{lacks}.*leave out --stream"):
        clips(video, needs=needs)


def test_the_data_are_known_by_what_they_hold_and_how_they_are_drawn(video: Path) -> None:
    assert clips(video).identity == clips(video).identity != clips(video, per_number=1).identity
    every = streamed(video, preparation=RecordingPreparation(SIZE, every=2, mask=False))
    assert every.fingerprint != streamed(video).fingerprint and FPS == 25
