"""Numbered pictures are a video in the order of their numbers, whatever their format and depth."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray
from PIL import Image

from medssl.data.frame_folder import FrameFolder
from medssl.errors import InputError


def colours(seed: int, height: int = 10, width: int = 14) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """f2.png, f10.png and f1.png, each of its number's colours, and a mask without a number."""
    for number in (2, 10, 1):
        Image.fromarray(colours(number)).save(tmp_path / f"f{number}.png")
    Image.fromarray(colours(0, 5, 5)).save(tmp_path / "mask.png")
    (tmp_path / "notes1.txt").write_text("no picture")
    return tmp_path


def test_frames_are_in_the_order_of_their_numbers_and_a_mask_is_left_out(folder):
    frames = FrameFolder(folder)
    assert [path.name for path in frames.paths] == ["f1.png", "f2.png", "f10.png"]
    assert (len(frames), frames.size) == (3, (10, 14))
    for frame, number in zip(frames.read([2, 0, 1, 1]), (10, 1, 2, 2), strict=True):
        assert np.array_equal(frame, colours(number))


def test_several_numbers_in_a_name_count_one_after_the_other(tmp_path):
    names = ["s2_f1.png", "s10_f1.png", "s2_f10.png", "s2_f2.png"]
    for name in names:
        Image.fromarray(colours(1)).save(tmp_path / name)
    assert [path.name for path in FrameFolder(tmp_path).paths] == ["s2_f1.png", "s2_f2.png", "s2_f10.png", "s10_f1.png"]


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".ppm", ".tif"])
def test_every_lossless_format_gives_its_pixels(tmp_path, suffix):
    Image.fromarray(colours(3)).save(tmp_path / f"0{suffix}")
    assert np.array_equal(next(FrameFolder(tmp_path).read([0])), colours(3))


def test_jpeg_is_read(tmp_path):
    Image.fromarray(np.full((16, 16, 3), (200, 100, 50), dtype=np.uint8)).save(tmp_path / "0.jpg")
    assert np.abs(next(FrameFolder(tmp_path).read([0])).astype(int) - (200, 100, 50)).max() <= 3


def test_grey_is_given_three_equal_colours(tmp_path):
    Image.fromarray(colours(1)[..., 0]).save(tmp_path / "0.png")
    assert np.array_equal(next(FrameFolder(tmp_path).read([0])), np.stack([colours(1)[..., 0]] * 3, axis=-1))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_are_rounded_to_eight(tmp_path, channels):
    pixels = np.random.default_rng(2).integers(0, 65536, (10, 14, channels)).astype(np.uint16)
    pixels[0, 0], pixels[0, 1] = 0, 65535
    image = pixels[..., 0] if channels == 1 else pixels
    sitk.WriteImage(sitk.GetImageFromArray(image, isVector=channels > 1), str(tmp_path / "0.png"))
    expected = np.round(np.broadcast_to(pixels[..., :3], (10, 14, 3)) / 257)
    frame = next(FrameFolder(tmp_path).read([0]))
    assert frame.dtype == np.uint8
    assert np.array_equal(frame, expected)


def test_times_follow_the_rate_and_are_unknown_without_it(folder):
    assert np.allclose(FrameFolder(folder, rate=25).times, [0, 0.04, 0.08])
    assert np.isnan(FrameFolder(folder).times).all()
    with pytest.raises(InputError, match="a rate of 0 frames per second"):
        FrameFolder(folder, rate=0)


def test_a_picture_of_another_size_is_refused_by_name(folder):
    Image.fromarray(colours(1, 12, 8)).save(folder / "f3.png")
    with pytest.raises(InputError, match=r"f3\.png: is 8x12 pixels and f1\.png 14x10"):
        assert FrameFolder(folder).size


def test_several_kinds_need_a_pattern(folder):
    Image.fromarray(colours(1)).save(folder / "f4.jpg")
    with pytest.raises(InputError, match=r"several kinds \(1 \.jpg, 3 \.png\)"):
        FrameFolder(folder)
    assert len(FrameFolder(folder, "*.png")) == 3


def test_a_folder_without_numbered_pictures_is_refused(folder, tmp_path):
    with pytest.raises(InputError, match=r"holds no numbered picture that matches 'mask\*' \(1 without a number\)"):
        FrameFolder(folder, "mask*")
    with pytest.raises(InputError, match="none: no such folder"):
        FrameFolder(tmp_path / "none")


def test_a_truncated_picture_is_refused_by_name(folder):
    (folder / "f2.png").write_bytes((folder / "f2.png").read_bytes()[:150])
    with pytest.raises(InputError, match=r"f2\.png: cannot be read as a picture"):
        list(FrameFolder(folder).read(range(3)))


def test_what_is_no_picture_is_refused_by_name(folder):
    (folder / "f2.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"f2\.png: cannot be read as a picture"):
        assert FrameFolder(folder).size


def test_values_beyond_sixteen_bits_are_refused(tmp_path):
    Image.fromarray(np.full((4, 4), 70_000, dtype=np.int32)).save(tmp_path / "0.tif")
    with pytest.raises(InputError, match=r"0\.tif: holds grey from 70000 to 70000; 0 to 65535"):
        list(FrameFolder(tmp_path).read([0]))


def test_an_index_that_is_not_there_is_refused(folder):
    with pytest.raises(IndexError, match="there is no frame 3; it holds 3"):
        list(FrameFolder(folder).read([3]))


def test_it_is_picklable(folder):
    again = pickle.loads(pickle.dumps(FrameFolder(folder, rate=10)))
    assert np.array_equal(next(again.read([1])), colours(2))
