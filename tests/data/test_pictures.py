"""Pictures, such as frames of an endoscopy, with their colours."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray
from PIL import Image

from medssl.data import recipe
from medssl.data.crops import CropDataset
from medssl.data.preparation import Preparation, prepare_image
from medssl.data.prepare import prepare
from medssl.data.prepared import PreparedDataset
from medssl.data.resample import resample
from medssl.data.volumes import Volume, read_labels, read_volume
from medssl.errors import InputError
from medssl.inference import predict
from medssl.labels.lut import LabelSet, Structure
from medssl.model import Model
from medssl.networks import build_network

COLOURS = Preparation(spacing_mm=None, intensity="rgb", margin=2)


def frame(seed: int = 0, depth: type[np.integer] = np.uint8) -> NDArray[np.integer]:
    """A noisy tissue in a dark border, (rows, columns, 3): rows 5 to 24 of 30, columns 8 to 29 of 40."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((30, 40, 3), dtype=depth)
    most = np.iinfo(depth).max
    pixels[5:25, 8:30] = rng.integers(most // 4, most, (20, 22, 3), endpoint=True)
    return pixels


def write_deep(path: Path, pixels: NDArray[np.uint16]) -> Path:
    sitk.WriteImage(sitk.GetImageFromArray(pixels, isVector=True), str(path))
    return path


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    (tmp_path / "frames").mkdir()
    for seed in range(3):
        Image.fromarray(frame(seed)).save(tmp_path / "frames" / f"f{seed}.png")
    return tmp_path / "frames"


def test_colours_lie_beside_the_grey_with_columns_first(tmp_path):
    Image.fromarray(frame()).save(tmp_path / "a.png")
    volume = read_volume(tmp_path / "a.png")
    assert volume.data.shape == (40, 30)
    assert np.array_equal(volume.colours, frame().transpose(2, 1, 0))
    red, green, blue = volume.colours.astype(float)
    assert np.abs(volume.data - (0.299 * red + 0.587 * green + 0.114 * blue)).max() < 1


@pytest.mark.parametrize("mode", ["RGBA", "P", "CMYK"])
def test_every_kind_of_colour_picture_has_three_colours(tmp_path, mode):
    Image.fromarray(frame()).convert(mode).save(tmp_path / ("a.jpg" if mode == "CMYK" else "a.png"))
    volume = read_volume(next(tmp_path.iterdir()))
    assert volume.colours.shape == (3, 40, 30)
    assert volume.colours.dtype == np.uint8


@pytest.mark.parametrize("mode", ["L", "LA", "1"])
def test_a_grey_picture_has_no_colours(tmp_path, mode):
    Image.fromarray(frame()).convert(mode).save(tmp_path / "a.png")
    assert read_volume(tmp_path / "a.png").colours is None


@pytest.mark.parametrize("channels", [3, 4])
def test_sixteen_bits_of_colours_are_kept(tmp_path, channels):
    pixels = np.random.default_rng(1).integers(0, 65536, (30, 40, channels)).astype(np.uint16)
    volume = read_volume(write_deep(tmp_path / "deep.png", pixels))
    assert volume.colours.dtype == volume.data.dtype == np.uint16
    assert np.array_equal(volume.colours, pixels[..., :3].transpose(2, 1, 0))
    assert np.abs(volume.data - (pixels[..., :3] @ np.array([0.299, 0.587, 0.114])).T).max() <= 0.5 + 1e-6


def test_the_grey_of_sixteen_bits_is_that_of_eight(tmp_path):
    shallow = frame()
    Image.fromarray(shallow).save(tmp_path / "shallow.png")
    deep = read_volume(write_deep(tmp_path / "deep.png", shallow.astype(np.uint16) * 257))
    assert np.abs(deep.data / 257 - read_volume(tmp_path / "shallow.png").data).max() < 1


def test_a_truncated_picture_of_sixteen_bits_is_refused_by_name(tmp_path):
    path = write_deep(tmp_path / "cut.png", np.random.default_rng(1).integers(0, 65536, (60, 60, 3)).astype(np.uint16))
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(InputError, match=r"cut\.png: cannot be read as a picture"):
        read_volume(path)


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_colours_become_three_channels_from_0_to_1_without_the_dark_border(tmp_path, depth):
    pixels = frame(depth=depth)
    prepared = prepare_image(read_volume(write_deep(tmp_path / "a.png", pixels)), COLOURS)
    expected = (pixels / np.iinfo(depth).max)[3:27, 6:32].transpose(2, 1, 0)  # a margin of 2
    assert prepared.data.dtype == np.float32
    assert np.allclose(prepared.data, expected, atol=1e-6)
    assert prepared.affine[:2, 3].tolist() == [6, 3]


def test_a_brighter_picture_stays_brighter(tmp_path):
    """Unlike MRI, whose unit is its own: brightness and hue are what a colour picture shows."""
    pixels = frame()
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(pixels // 2).save(tmp_path / "dark.png")
    bright, dark = (prepare_image(read_volume(tmp_path / name), COLOURS).data for name in ("a.png", "dark.png"))
    assert np.abs(bright - 2 * dark).max() <= 1 / 255 + 1e-6


def test_each_colour_is_resampled_as_a_grey_image_is(tmp_path):
    Image.fromarray(frame()).save(tmp_path / "a.png")
    volume = read_volume(tmp_path / "a.png")
    whole = Preparation(spacing_mm=2.0, intensity="rgb", margin=99)
    prepared = prepare_image(volume, whole)
    assert prepared.data.shape == (3, 20, 15)
    alone = [
        resample((c / 255).astype(np.float32), volume.affine, prepared.affine, (20, 15), 1) for c in volume.colours
    ]
    assert np.allclose(prepared.data, alone, atol=1e-6)


@pytest.mark.parametrize("shape", [(20, 20), (20, 20, 20)])
def test_an_image_without_colours_is_refused_where_they_are_kept(shape):
    data = np.random.default_rng(0).random(shape).astype(np.float32)
    with pytest.raises(InputError, match="holds no colours, and a preparation with intensity rgb"):
        prepare_image(Volume(data, np.eye(4)), COLOURS)


def test_a_cohort_of_frames_is_prepared_with_its_channels_and_a_grey_one_is_refused(frames, tmp_path):
    Image.fromarray(frame(9)[..., 0]).save(frames / "grey.png")
    report = prepare(frames, tmp_path / "out", preparation=COLOURS, jobs=1)
    data = report.dataset()
    assert (data.scans, data.channels, data.spatial_dims) == (("f0", "f1", "f2"), 3, 2)
    assert [one.scan for one in report.refused] == ["grey"]
    assert "grey.png: holds no colours" in report.refused[0].reason
    assert np.allclose(data.image(1), prepare_image(read_volume(frames / "f1.png"), data.preparation).data, atol=1e-3)
    assert CropDataset(data, (16, 16), lambda sample, generator: sample)[0]["image"].shape == (3, 16, 16)


def test_frames_can_be_prepared_in_grey_as_other_images(frames, tmp_path):
    data = prepare(frames, tmp_path / "out", preparation=Preparation(spacing_mm=None), jobs=1).dataset()
    assert data.channels == 1
    assert data.image(0)[data.image(0) > 0.2].mean() == pytest.approx(1, abs=0.05)


def test_images_with_other_channels_than_most_are_refused(frames, tmp_path, monkeypatch):
    conform = recipe.conform

    def two_channels_of_f1(volume, preparation):
        image = conform(volume, preparation)
        return type(image)(image.data[:2], image.affine) if "f1" in volume.path.name else image

    monkeypatch.setattr(recipe, "conform", two_channels_of_f1)
    report = prepare(frames, tmp_path / "out", preparation=COLOURS, jobs=1)
    assert [one.reason for one in report.refused] == [
        "f1: is 2D with 2 channels among 2D with 3 channels scans; prepare it apart."
    ]
    assert report.dataset().channels == 3


def test_a_model_of_colours_segments_a_frame_on_its_own_grid(frames, tmp_path):
    labels = LabelSet("polyp", (Structure(1, "Polyp", (9, 200, 9)),))
    network = build_network("unet", 3, labels.classes, 2, channels=[4, 8])
    model = Model(network.eval(), "unet", {"channels": [4, 8]}, labels, COLOURS, (16, 16))
    result = predict(model, [frames], tmp_path / "out")
    assert result.refused.empty
    assert read_labels(tmp_path / "out" / "f2_dseg.nii.gz").data.shape == (40, 30)


@pytest.mark.real_data
def test_real_colonoscopies_keep_their_colours(real_data, tmp_path):
    polyps = real_data / "endoscopy" / "polyps"
    report = prepare(polyps, tmp_path / "out", preparation=Preparation(spacing_mm=4.0, intensity="rgb"), jobs=1)
    data = PreparedDataset(tmp_path / "out")
    assert (len(data), data.channels, report.refused) == (5, 3, ())
    for i in range(5):
        red, green, blue = data.image(i).mean(axis=(1, 2))
        assert red > green > blue * 0.9  # mucosa
