"""Videos of every kind are read by index and by time, upright and in true colours, and damage never shifts a frame."""

import pickle
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from medssl.data.cine import CineFrames
from medssl.data.container import open_container
from medssl.data.frame_folder import FrameFolder
from medssl.data.video import VideoFrames, open_frames
from medssl.data.video_track import _is_shown, upright
from medssl.data.video_writing import write_video
from medssl.errors import InputError

av = pytest.importorskip("av", reason="videos need the extra 'video'")

HEIGHT, WIDTH = 48, 64


def bar(index: int) -> int:
    """Where the bright bar of frame ``index`` begins: it tells the frame apart whatever a codec does to it."""
    return 8 + 4 * (index % 12)


def picture(index: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A bar whose column tells the index modulo 12, above one whose row tells the twelfths."""
    frame = np.full((height, width, 3), 40, dtype=np.uint8)
    frame[:24, bar(index) : bar(index) + 4] = 220
    frame[24 + 4 * (index // 12) : 28 + 4 * (index // 12)] = 220
    return frame


def told(frame: np.ndarray) -> int:
    """The index that a frame shows."""
    grey = frame.mean(axis=2)
    column = int(np.argmax(np.convolve(grey[:24].mean(axis=0), np.ones(4), "valid")))
    row = int(np.argmax(np.convolve(grey[24:].mean(axis=1), np.ones(4), "valid")))
    return round((column - 8) / 4) + 12 * round(row / 4)


def encode(path, count=40, codec="libx264", pixels="yuv420p", gop=12, b_frames=2, times=None, frame=picture, tags=None):
    """Write a video with a key frame every ``gop`` frames; ``times`` in units of 1/1000 s."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        first = frame(0)
        stream.height, stream.width, stream.pix_fmt = *first.shape[:2], pixels
        stream.gop_size, stream.codec_context.max_b_frames = gop, b_frames
        if codec == "libx264":
            stream.options = {"x264-params": f"keyint={gop}:min-keyint={gop}:scenecut=0:bframes={b_frames}:threads=1"}
        if times is not None:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        if tags is not None:
            tags(stream)
        for index in range(count):
            shown = av.VideoFrame.from_ndarray(frame(index), format="rgb24")
            shown.pts = index if times is None else times[index]
            shown.time_base = Fraction(1, 25) if times is None else Fraction(1, 1000)
            container.mux(stream.encode(shown))
        container.mux(stream.encode())
    return path


def spoil(path: Path, victim: int) -> int:
    """Overwrite the packet of a frame; returns the place of that packet in the file."""
    with av.open(str(path)) as container:
        found = [(p.pts, p.pos, p.size) for p in container.demux(video=0) if p.size]
    pts, position, size = sorted(found)[victim]
    content = bytearray(path.read_bytes())
    content[position : position + size] = bytes(size)
    path.write_bytes(content)
    return [pts for pts, *_ in found].index(pts)


@pytest.fixture
def video(tmp_path) -> Path:
    return encode(tmp_path / "a.mp4")


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("a.mp4", "libx264", "yuv420p"),
        ("a.mkv", "libx264", "yuv420p"),
        ("a.ts", "libx264", "yuv420p"),
        ("a.mpg", "mpeg2video", "yuv420p"),
        ("a.avi", "mpeg4", "yuv420p"),
        ("reordered.avi", "libx264", "yuv420p"),
        ("raw.h264", "libx264", "yuv420p"),
        ("a.mov", "mjpeg", "yuvj420p"),
        ("a.webm", "libvpx", "yuv420p"),
    ],
)
def test_any_container_gives_any_frame_in_any_order(tmp_path, name, codec, pixels):
    b_frames = 0 if codec in ("mjpeg", "libvpx") else 2
    video = VideoFrames(encode(tmp_path / name, codec=codec, pixels=pixels, b_frames=b_frames))
    assert (len(video), video.size) == (40, (HEIGHT, WIDTH))
    assert [told(frame) for frame in video.read(range(40))] == list(range(40))
    order = [39, 0, 13, 13, 12, 11, 25, 38, 2, 30]
    assert [told(frame) for frame in video.read(order)] == order
    assert video.damaged == ()
    assert np.allclose(np.diff(video.times), 0.04, atol=1e-3)


def test_a_frame_is_the_same_however_it_was_come_to(video):
    whole = list(VideoFrames(video).read(range(40)))
    for index in (0, 11, 12, 13, 39):
        assert np.array_equal(next(VideoFrames(video).read([index])), whole[index])


def test_ascending_indices_are_decoded_in_one_pass(video, monkeypatch):
    from medssl.data import video as module

    frames = VideoFrames(video)
    assert len(frames) == 40
    opened = []
    monkeypatch.setattr(module, "open_container", lambda path: opened.append(path) or open_container(path))
    assert len(list(frames.read(range(0, 40, 3)))) == 14
    assert len(opened) == 1


def test_indices_that_are_not_there_are_refused(video):
    for index in (-1, 40):
        with pytest.raises(IndexError, match=rf"a\.mp4: there is no frame {index}; it holds 40"):
            list(VideoFrames(video).read([index]))


def test_times_of_a_variable_rate_are_those_of_the_file(tmp_path):
    times = (1000 + np.cumsum([0, 40, 10, 100, 33, 7, 250, 40, 40, 40])).tolist()
    video = VideoFrames(encode(tmp_path / "vfr.mkv", count=10, times=times))
    assert np.allclose(video.times, (np.array(times) - 1000) / 1000, atol=1e-3)
    assert [told(frame) for frame in video.read(range(10))] == list(range(10))


def test_a_time_gives_the_frame_shown_then(tmp_path):
    video = VideoFrames(encode(tmp_path / "vfr.mkv", count=5, times=[0, 100, 110, 400, 440]))
    seconds = [0, 0.099, 0.1, 0.105, 0.11, 0.39, 0.4, 0.44, 0.5]
    assert [video.at(s) for s in seconds] == [0, 0, 1, 1, 2, 2, 3, 4, 4]
    assert [video.at(float(time)) for time in video.times] == [0, 1, 2, 3, 4]
    for outside in (-0.1, 9.0):
        with pytest.raises(InputError, match=r"vfr\.mkv: shows frames from 0 to 0\.440 s, none at"):
            video.at(outside)


def test_a_stream_gives_index_time_and_frame(video):
    rows = list(VideoFrames(video).stream(start=3, stop=20, every=5))
    assert [index for index, _, _ in rows] == [3, 8, 13, 18]
    assert np.allclose([time for _, time, _ in rows], [0.12, 0.32, 0.52, 0.72])
    assert [told(frame) for _, _, frame in rows] == [3, 8, 13, 18]


@pytest.mark.parametrize("degrees", [0, 90, 180, -90])
def test_a_turned_video_comes_out_upright(tmp_path, degrees):
    """A recorder that was held turned writes the turned picture, and the rotation that makes it upright."""
    stored = np.rot90(picture(5), -degrees // 90)  # the rotation is counter-clockwise
    path = encode(tmp_path / "t.mp4", count=2, frame=lambda _: np.ascontiguousarray(stored),
                  tags=lambda stream: stream.set_display_rotation(degrees))  # fmt: skip
    video = VideoFrames(path)
    assert video.size == (HEIGHT, WIDTH)
    frame = next(video.read([0]))
    assert frame.shape == (HEIGHT, WIDTH, 3)
    assert np.abs(frame.astype(int) - picture(5)).mean() < 6


def test_a_mirrored_video_is_mirrored_back(tmp_path):
    path = encode(tmp_path / "m.mp4", count=2, frame=lambda _: np.ascontiguousarray(picture(2)[:, ::-1]),
                  tags=lambda stream: stream.set_display_rotation(0, hflip=True))  # fmt: skip
    assert told(next(VideoFrames(path).read([0]))) == 2


def test_each_turn_moves_a_pixel_as_the_matrix_says():
    """x' = a x + c y, y' = b x + d y, up to a shift that brings the picture back to (0, 0)."""
    stored = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    y, x = (grid.ravel() for grid in np.mgrid[:2, :3])
    for turn in [(a, 0, 0, d) for a in (1, -1) for d in (1, -1)] + [(0, b, c, 0) for b in (1, -1) for c in (1, -1)]:
        a, b, c, d = turn
        new_x, new_y = a * x + c * y, b * x + d * y
        new_x, new_y = new_x - new_x.min(), new_y - new_y.min()
        assert np.array_equal(upright(stored, turn)[new_y, new_x], stored[y, x])


def test_odd_sizes_are_kept(tmp_path):
    path = encode(tmp_path / "odd.avi", codec="ffv1", pixels="yuv420p", b_frames=0, count=3,
                  frame=lambda index: picture(index, 51, 67))  # fmt: skip
    video = VideoFrames(path)
    assert video.size == (51, 67)
    assert next(video.read([1])).shape == (51, 67, 3)


def rgb_of(y: int, u: int, v: int, kr: float, kb: float, full: bool) -> np.ndarray:
    """ITU-R BT.601 and BT.709, written out."""
    luma, cb, cr = (
        (y / 255, (u - 128) / 255, (v - 128) / 255) if full else ((y - 16) / 219, (u - 128) / 224, (v - 128) / 224)
    )
    red, blue = luma + 2 * (1 - kr) * cr, luma + 2 * (1 - kb) * cb
    return np.clip([red, (luma - kr * red - kb * blue) / (1 - kr - kb), blue], 0, 1) * 255


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", [1, 6, 2])
def test_colours_follow_the_matrix_and_the_range_that_the_file_names(tmp_path, matrix, full):
    path = tmp_path / "c.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, 2 if full else 1
        frame = av.VideoFrame(32, 32, "yuv420p")
        for plane, value in zip(frame.planes, (110, 90, 190), strict=True):
            plane.update(bytes([value]) * plane.buffer_size)
        frame.colorspace, frame.color_range, frame.pts = matrix, 2 if full else 1, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    expected = rgb_of(110, 90, 190, *((0.2126, 0.0722) if matrix == 1 else (0.299, 0.114)), full)
    assert np.abs(next(VideoFrames(path).read([0])) - expected).max() <= 1


def test_an_unreadable_packet_shifts_no_frame_and_is_reported(video):
    place = spoil(video, 15)
    frames = VideoFrames(video)
    shown = list(frames.read(range(40)))
    assert [told(shown[i]) for i in (*range(12), *range(24, 40))] == [*range(12), *range(24, 40)]
    assert 15 in frames.damaged
    assert set(frames.damaged) <= set(range(12, 24))  # up to the next key frame
    assert frames.damaged == tuple(np.flatnonzero((frames.track.order >= place) & (np.arange(40) < 24)))


def test_a_damaged_frame_is_black_and_known_whatever_else_is_read(video):
    spoil(video, 15)
    frames = VideoFrames(video)
    lost, after = frames.read([15, 30])
    assert lost.max() == 0
    assert told(after) == 30
    assert 15 in frames.damaged


def test_damage_is_told_once_with_its_time(video, caplog):
    spoil(video, 15)
    list(VideoFrames(video).read(range(40)))
    assert [record.getMessage() for record in caplog.records] == [
        f"{video}: is damaged at 0.60 s (frame 15); frames from there to the next key frame are not to be trusted."
    ]


def test_where_times_are_not_told_what_is_lost_is_at_least_counted(tmp_path, caplog):
    path = encode(tmp_path / "reordered.avi")
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][20]
    content = bytearray(path.read_bytes())
    content[packet.pos + 8 : packet.pos + packet.size] = bytes(packet.size - 8)
    path.write_bytes(content)
    video = VideoFrames(path)
    assert len(video) == 39
    assert "1 of its packets cannot be decoded, and it does not say which frames these are" in caplog.text
    assert len(list(video.read(range(39)))) == 39


@pytest.mark.parametrize(("first_byte", "shown"), [(0x10, True), (0x31, True), (0x00, False), (0x21, False)])
def test_pictures_of_vp8_for_reference_only_are_no_frames(first_byte, shown):
    assert _is_shown(bytes([first_byte, 0, 0])) is shown


def test_a_file_cut_short_gives_what_is_there_and_says_so(tmp_path, caplog):
    write_video(
        tmp_path / "cut.mp4",
        [np.random.default_rng(i).integers(0, 255, (64, 64, 3), dtype=np.uint8) for i in range(30)],
        25,
    )
    path = tmp_path / "cut.mp4"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    video = VideoFrames(path)
    assert 5 < len(video) < 25
    assert f"holds {len(video)} of the 30 frames that its header claims" in caplog.text
    assert len(list(video.read(range(len(video))))) == len(video)


def test_a_file_without_its_end_where_the_index_is_is_refused(video):
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    with pytest.raises(InputError, match=r"a\.mp4: cannot be opened as video or sound .* cut short"):
        len(VideoFrames(video))


def test_a_file_with_sound_alone_is_refused(tmp_path):
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), dtype=np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(InputError, match=r"sound\.wav: holds no moving pictures \(its tracks: audio\)"):
        len(VideoFrames(path))


@pytest.mark.parametrize("content", [b"", b"no video at all\n" * 50, bytes(5000)])
def test_what_is_no_video_is_refused_by_name_and_told_what_is_understood(tmp_path, content):
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.txt: .*Understood are: a video .*folder of numbered pictures .*DICOM"):
        open_frames(path)


@pytest.mark.parametrize("name", ["empty.mkv", "empty.mp4", "empty.ts"])
def test_a_video_without_frames_is_refused(video, tmp_path, name):
    with av.open(str(video)) as source, av.open(str(tmp_path / name), "w") as container:
        container.add_stream_from_template(source.streams.video[0])
        container.start_encoding()
    with pytest.raises(InputError, match=r"empty\.\w+: (.*copy it again|holds no moving pictures)"):
        len(VideoFrames(tmp_path / name))


def test_a_video_of_which_no_frame_can_be_decoded_is_refused(tmp_path):
    path = encode(tmp_path / "a.mp4", count=4)
    for index in range(4):
        spoil(path, index)
    with pytest.raises(InputError, match=r"a\.mp4: no frame of its video \(h264\) can be decoded"):
        len(VideoFrames(path))


def test_a_size_that_changes_is_refused_with_its_place(tmp_path):
    small, large = (encode(tmp_path / name, count=12, frame=lambda i, size=size: picture(i, *size)) for name, size in
                    (("s.ts", (48, 64)), ("l.ts", (96, 128))))  # fmt: skip
    both = tmp_path / "both.h264"
    both.write_bytes(b"".join(elementary(path) for path in (small, large)))
    with pytest.raises(
        InputError, match=r"both\.h264: its pictures change size from 64x48 to 128x96 at .* \(frame 12\)"
    ):
        list(VideoFrames(both).read(range(24)))


def elementary(path: Path) -> bytes:
    """The raw H.264 of a transport stream."""
    with av.open(str(path)) as container:
        return b"".join(bytes(packet) for packet in container.demux(video=0) if packet.size)


def test_another_file_cannot_be_opened_through_a_playlist(video, tmp_path):
    playlist = tmp_path / "a.m3u8"
    playlist.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(InputError, match=r"a\.m3u8: "):
        len(VideoFrames(playlist))


def test_the_object_is_small_and_picklable_with_its_index(video, monkeypatch):
    frames = VideoFrames(video)
    assert len(frames) == 40
    stored = pickle.dumps(frames)
    assert len(stored) < 20_000
    monkeypatch.setattr("medssl.data.video.scan", lambda path: pytest.fail("it was read through again"))
    assert told(next(pickle.loads(stored).read([17]))) == 17


def test_without_pyav_the_extra_is_named(video, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(InputError, match=r"medssl\[video\]"):
        len(VideoFrames(video))


def test_each_kind_of_path_finds_its_reader(video, tmp_path):
    assert isinstance(open_frames(video), VideoFrames)
    (tmp_path / "folder").mkdir()
    av.VideoFrame.from_ndarray(picture(0), format="rgb24").to_image().save(tmp_path / "folder" / "1.png")
    assert isinstance(open_frames(tmp_path / "folder"), FrameFolder)
    with pytest.raises(InputError, match=r"1\.png: is a single picture; give the folder"):
        open_frames(tmp_path / "folder" / "1.png")
    with pytest.raises(InputError, match=r"none\.mp4: no such file or folder"):
        open_frames(tmp_path / "none.mp4")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: holds no numbered picture .* Understood are: a video"):
        open_frames(tmp_path / "empty")


@pytest.mark.real_data
def test_a_real_laparoscopy_is_read_at_any_place(real_data):
    video = open_frames(real_data / "endoscopy" / "laparoscopy.mp4")
    assert (len(video), video.size) == (250, (720, 1280))
    ahead = dict(zip((0, 130, 249), video.read((0, 130, 249)), strict=True))
    assert all(np.array_equal(next(video.read([index])), frame) for index, frame in ahead.items())


@pytest.mark.real_data
def test_a_real_cine_and_a_real_folder_are_found(real_data):
    assert isinstance(open_frames(real_data / "ultrasound" / "cine_ybr.dcm"), CineFrames)
    assert len(open_frames(real_data / "tracking" / "judo" / "images" / "judo")) == 16
