"""DICOM files of several frames are videos in true colours, with their own times, and tell nobody's name."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, UltrasoundMultiFrameImageStorage, generate_uid

from medssl.data.cine import CineFrames, is_dicom
from medssl.errors import InputError

RED = np.full((8, 16, 3), (200, 60, 40), dtype=np.uint8)


def write(path: Path, frames: NDArray[np.generic] | list[bytes], kind: str, **fields) -> Path:
    """A cine of frames (N, H, W[, 3]) as stored, or of JPEG streams of 16 columns and 8 rows."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UltrasoundMultiFrameImageStorage, generate_uid()
    encoded = isinstance(frames, list)
    meta.TransferSyntaxUID = JPEGBaseline8Bit if encoded else ExplicitVRLittleEndian
    file = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    file.PatientID, file.PatientName, file.Modality = "MRN-4711", "Mustermann^Erika", "US"
    file.Rows, file.Columns = (8, 16) if encoded else frames.shape[1:3]
    file.NumberOfFrames, file.PhotometricInterpretation = len(frames), kind
    file.SamplesPerPixel = 1 if kind.startswith("MONO") else 3
    if file.SamplesPerPixel == 3:
        file.PlanarConfiguration = 0
    bits = 8 if encoded or frames.dtype.itemsize == 1 else 16
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = bits, bits, bits - 1, 0
    for name, value in fields.items():
        setattr(file, name, value)
    file.PixelData = encapsulate(frames) if encoded else frames.tobytes()
    file.save_as(path, enforce_file_format=True)
    return path


def ybr(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """YBR_FULL of DICOM PS3.3, C.7.6.3.1.2."""
    matrix = np.array([[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]])
    return np.clip(np.round(rgb @ matrix.T + (0, 128, 128)), 0, 255).astype(np.uint8)


def halved(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """YBR_FULL_422, stored as Y Y B R for two pixels; (N, H, W) of two values each."""
    y, b, r = pixels[..., 0], pixels[..., ::2, 1], pixels[..., ::2, 2]
    return np.stack([y[..., ::2], y[..., 1::2], b, r], axis=-1).reshape(*y.shape, 2)


def jpeg(rgb: NDArray[np.uint8], tmp_path: Path) -> bytes:
    Image.fromarray(rgb).save(tmp_path / "one.jpg", quality=95)
    return (tmp_path / "one.jpg").read_bytes()


@pytest.mark.parametrize("kind", ["RGB", "YBR_FULL", "YBR_FULL_422"])
def test_colours_are_those_of_the_scene(tmp_path, kind):
    scene = np.stack([RED, RED[..., ::-1]])
    stored = {"RGB": scene, "YBR_FULL": ybr(scene), "YBR_FULL_422": halved(ybr(scene))}[kind]
    cine = CineFrames(write(tmp_path / "a.dcm", stored, kind))
    assert (len(cine), cine.size) == (2, (8, 16))
    for frame, expected in zip(cine.read([1, 0]), scene[::-1], strict=True):
        assert frame.dtype == np.uint8
        assert np.abs(frame.astype(int) - expected).max() <= 2


def test_jpeg_frames_are_read_in_any_order(tmp_path):
    scene = [RED, RED[..., ::-1].copy(), np.full_like(RED, 128)]
    cine = CineFrames(write(tmp_path / "a.dcm", [jpeg(rgb, tmp_path) for rgb in scene], "YBR_FULL_422"))
    for index, frame in zip((2, 0, 0, 1), cine.read((2, 0, 0, 1)), strict=True):
        assert np.abs(frame.astype(int) - scene[index]).max() <= 4


def test_grey_of_eight_bits_is_given_as_stored(tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (2, 8, 16), dtype=np.uint8)
    window = {"WindowCenter": 40, "WindowWidth": 10}
    cine = CineFrames(write(tmp_path / "a.dcm", grey, "MONOCHROME2", **window))
    assert np.array_equal(next(cine.read([1])), np.stack([grey[1]] * 3, axis=-1))
    negative = CineFrames(write(tmp_path / "b.dcm", grey, "MONOCHROME1"))
    assert np.array_equal(next(negative.read([1]))[..., 0], 255 - grey[1])


def test_grey_of_more_bits_is_shown_over_its_window_or_over_its_bits(tmp_path):
    grey = np.linspace(0, 4095, 128).round().astype(np.uint16).reshape(1, 8, 16)
    bits = {"BitsStored": 12, "HighBit": 11}
    whole = CineFrames(write(tmp_path / "a.dcm", grey, "MONOCHROME2", **bits))
    assert np.array_equal(next(whole.read([0]))[..., 0], np.round(grey[0] / 4095 * 255))
    window = {**bits, "WindowCenter": 1000, "WindowWidth": 500, "RescaleSlope": 2, "RescaleIntercept": -100}
    shown = CineFrames(write(tmp_path / "b.dcm", grey, "MONOCHROME2", **window))
    expected = np.round(np.clip((grey[0] * 2.0 - 100 - 750) / 500, 0, 1) * 255)
    assert np.array_equal(next(shown.read([0]))[..., 0], expected)


@pytest.mark.parametrize(
    ("fields", "times"),
    [
        ({"FrameTime": "40"}, [0, 0.04, 0.08]),
        ({"FrameTimeVector": [0, 30, 50]}, [0, 0.03, 0.08]),
        ({"RecommendedDisplayFrameRate": 20}, [0, 0.05, 0.1]),
        ({"CineRate": 50}, [0, 0.02, 0.04]),
        ({"FrameTime": "40", "CineRate": 50}, [0, 0.04, 0.08]),
    ],
)
def test_times_are_those_that_the_file_tells(tmp_path, fields, times):
    assert np.allclose(CineFrames(write(tmp_path / "a.dcm", np.stack([RED] * 3), "RGB", **fields)).times, times)


def test_times_that_are_not_told_are_unknown_and_a_wrong_number_of_them_is_refused(tmp_path):
    assert np.isnan(CineFrames(write(tmp_path / "a.dcm", np.stack([RED] * 3), "RGB")).times[1:]).all()
    wrong = CineFrames(write(tmp_path / "b.dcm", np.stack([RED] * 3), "RGB", FrameTimeVector=[0, 40]))
    with pytest.raises(InputError, match=r"b\.dcm: names 2 times \(FrameTimeVector\) for its 3 frames"):
        assert wrong.times.size


def test_a_file_cut_short_is_refused_at_the_frame_that_is_missing(tmp_path):
    path = write(tmp_path / "cut.dcm", np.stack([RED] * 3), "RGB")
    path.write_bytes(path.read_bytes()[: -RED.size // 2])
    with pytest.raises(InputError, match=r"cut\.dcm: frame 2 of 3 cannot be decoded"):
        list(CineFrames(path).read([2]))


def test_a_header_that_claims_what_cannot_be_is_refused(tmp_path):
    path = write(tmp_path / "a.dcm", np.stack([RED] * 3), "RGB", NumberOfFrames=2_000_000_000)
    with pytest.raises(InputError, match=r"a\.dcm: claims 2000000000 frames in \d+ bytes"):
        CineFrames(path)


def test_other_colours_are_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=r"a\.dcm: its pixels are HSV; RGB, YBR_FULL, .* are understood"):
        CineFrames(write(tmp_path / "a.dcm", np.stack([RED]), "HSV"))


def test_what_is_no_dicom_is_refused(tmp_path):
    (tmp_path / "a.dcm").write_bytes(b"no DICOM")
    with pytest.raises(InputError, match=r"a\.dcm: cannot be read as DICOM"):
        CineFrames(tmp_path / "a.dcm")


def test_no_message_tells_whose_it_is(tmp_path):
    path = write(tmp_path / "Mustermann_4711.dcm", np.stack([RED] * 2), "RGB")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError) as refused:
        list(CineFrames(path).read([1]))
    assert str(refused.value).startswith("DICOM cine: frame 1 of 2")
    assert "ustermann" not in str(refused.value) and refused.value.__cause__ is None


def test_dicom_is_known_by_its_beginning(tmp_path):
    assert is_dicom(write(tmp_path / "IM_0001", np.stack([RED]), "RGB"))
    (tmp_path / "a.mp4").write_bytes(bytes(200))
    assert not is_dicom(tmp_path / "a.mp4")


def test_it_is_picklable_and_gives_no_frame_that_is_not_there(tmp_path):
    cine = pickle.loads(pickle.dumps(CineFrames(write(tmp_path / "a.dcm", np.stack([RED]), "RGB"))))
    assert np.array_equal(next(cine.read([0])), RED)
    with pytest.raises(IndexError, match=r"a\.dcm: there is no frame 1; it holds 1"):
        list(cine.read([1]))


@pytest.mark.real_data
def test_a_real_ultrasound_is_grey_with_a_coloured_mark(real_data):
    cine = CineFrames(real_data / "ultrasound" / "cine_ybr.dcm")
    assert (len(cine), cine.size) == (30, (240, 320))
    assert np.allclose(np.diff(cine.times), 0.033333)
    frame = next(cine.read([7])).astype(int)
    assert np.ptp(frame[60:200, 100:220], axis=-1).mean() < 2  # tissue
    red, green, _ = frame[20, 190]
    assert green > red + 60  # the mark of the probe is green
