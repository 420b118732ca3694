"""Scans through a trained model, back on their own grids."""

import errno
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation
from torch import Tensor

from medssl import inference
from medssl.data.preparation import Preparation
from medssl.data.volumes import Volume
from medssl.errors import InputError
from medssl.inference import keep_largest_components, predict, segment, structure_volumes
from medssl.labels.lut import LabelSet, Structure
from medssl.model import Model
from medssl.networks.encoder import Encoder
from medssl.networks.segmentation import SegmentationNetwork

LABELS = LabelSet("sides", (Structure(17, "Left-Blob", (220, 216, 20)), Structure(53, "Right-Blob", (1, 2, 3))))
BODY, LEFT, RIGHT = 50, -75, 175  # Hounsfield units: 0.5, 0.25 and 0.75 once prepared


class Levels(Encoder):
    """Tells the three intensities apart, each voxel for itself."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.in_channels, self.spatial_dims, self.channels, self.strides = 1, dims, (3,), (1,)

    def forward(self, x: Tensor) -> list[Tensor]:
        levels = torch.tensor([0.5, 0.25, 0.75]).view(1, 3, *[1] * self.spatial_dims)
        return [-100 * (x - levels).square()]


class Same(torch.nn.Module):
    def forward(self, image: Tensor, features: list[Tensor]) -> Tensor:
        return features[0]


def threshold_model(dims: int = 3, spacing_mm: float | None = 1.0) -> Model:
    preparation = Preparation(spacing_mm=spacing_mm, intensity="ct", window_hu=(-200, 300))
    network = SegmentationNetwork(Levels(dims), Same())
    return Model(network, "levels", {}, LABELS, preparation, (16,) * dims)


def oblique(spacing_mm: Sequence[float], codes: str = "RAS", shape: Sequence[int] = (1, 1, 1)) -> NDArray[np.float64]:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", (12, -9, 17), degrees=True).as_matrix() * spacing_mm
    affine = affine @ nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(codes), shape)
    affine[:3, 3] -= affine[:3, :3] @ ((np.array(shape) - 1) / 2) + affine[:3, 3]
    return affine


def phantom(shape: Sequence[int], affine: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """A ball to the left and up, and a smaller one to the right and in front, wherever the voxels are."""
    mm = nib.affines.apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))
    classes = np.zeros(tuple(shape), dtype=np.uint8)
    classes[np.linalg.norm(mm - (-7, 0, 4), axis=-1) < 6] = 1
    classes[np.linalg.norm(mm - (7, 4, 0), axis=-1) < 5] = 2
    return np.array([BODY, LEFT, RIGHT], dtype=np.float32)[classes], classes


def write_phantom(path: Path, shape: Sequence[int] = (30, 28, 26), affine: NDArray[Any] | None = None) -> Path:
    affine = oblique((1, 1, 1), shape=shape) if affine is None else affine
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(phantom(shape, affine)[0], affine), path)
    return path


DICOM_AFFINE = nib.affines.from_matvec(np.diag([-1.0, -1, 1]), (14, 13, -12))  # DICOM counts to the left and back


def write_dicom(folder: Path, patient: str = "Doe^Jane") -> Path:
    folder.mkdir(parents=True)
    image, _ = phantom((30, 28, 26), DICOM_AFFINE)
    for index in range(image.shape[2]):
        plane = sitk.GetImageFromArray(image[None, :, :, index].transpose(0, 2, 1).astype(np.int16))
        tags = {
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2", "0008|0060": "CT", "0020|000e": "1.2.3.4", "0020|000d": "1.2.3",
            "0010|0010": patient, "0010|0020": "PID-4711", "0020|0013": str(index), "0020|0037": "1\\0\\0\\0\\1\\0",
            "0020|0032": f"-14\\-13\\{index - 12}", "0028|0030": "1\\1", "0028|1052": "0", "0028|1053": "1",
        }  # fmt: skip
        for tag, value in tags.items():
            plane.SetMetaData(tag, value)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(folder / f"{index}.dcm"))
        writer.Execute(plane)
    return folder


def dice(a: NDArray[Any], b: NDArray[Any], index: int) -> float:
    return float(2 * ((a == index) & (b == index)).sum() / ((a == index).sum() + (b == index).sum()))


@pytest.mark.parametrize("codes", ["RAS", "LAS", "LIA", "PSR"])
def test_labels_come_back_voxel_for_voxel_whatever_way_the_scan_lies(codes: str, tmp_path: Path) -> None:
    shape = (30, 28, 26)
    affine = oblique((1, 1, 1), codes, shape)
    write_phantom(tmp_path / "scan.nii.gz", shape, affine)
    result = predict(threshold_model(), [tmp_path / "scan.nii.gz"], tmp_path / "out")
    assert result.refused.empty
    source, found = nib.load(tmp_path / "scan.nii.gz"), nib.load(tmp_path / "out" / "scan_dseg.nii.gz")
    assert found.shape == source.shape
    assert np.array_equal(found.affine, source.affine)
    expected = LABELS.to_ids(phantom(shape, affine)[1])
    assert np.array_equal(np.asanyarray(found.dataobj), expected)


@pytest.mark.parametrize(
    ("spacing_mm", "shape"), [((1, 1, 2.5), (34, 30, 13)), ((0.8, 0.8, 0.8), (40, 36, 34)), ((2, 2, 2), (17, 15, 14))]
)
def test_a_resampled_scan_gets_its_structures_in_their_places(
    spacing_mm: tuple[float, ...], shape: tuple[int, ...]
) -> None:
    affine = oblique(spacing_mm, "LIA", shape)
    image, truth = phantom(shape, affine)
    _, labels = segment(threshold_model(), Volume(image, affine))
    assert np.array_equal(labels.affine, affine) and labels.data.shape == shape
    found, truth = labels.data[1:-1, 1:-1, 1:-1], truth[1:-1, 1:-1, 1:-1]  # the network sees darkness beyond the border
    for index in (1, 2):
        assert dice(found, truth, index) > 0.85
        drift = np.subtract(*(ndimage.center_of_mass(where == index) for where in (found, truth)))
        assert np.linalg.norm(affine[:3, :3] @ drift) < 0.5


def test_a_coarse_model_gives_smooth_labels_on_a_fine_scan() -> None:
    shape = (34, 30, 28)
    image, truth = phantom(shape, oblique((1, 1, 1), shape=shape))
    _, labels = segment(threshold_model(spacing_mm=2.0), Volume(image, oblique((1, 1, 1), shape=shape)))
    nearest = ndimage.zoom(truth[::2, ::2, ::2], 2, order=0)
    assert min(dice(labels.data, truth, index) for index in (1, 2)) > 0.9
    assert dice(labels.data, truth, 1) > dice(nearest, truth, 1)


def test_probabilities_that_memory_does_not_hold_give_the_same_labels(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shape = (20, 20, 20)
    volume = Volume(phantom(shape, oblique((1, 1, 1), shape=shape))[0], oblique((1, 1, 1), shape=shape))
    model = threshold_model(spacing_mm=1.6)
    _, expected = segment(model, volume)
    opened: list[Path] = []
    memmap = np.memmap
    monkeypatch.setattr(inference, "available_bytes", lambda device: 0)
    monkeypatch.setattr(np, "memmap", lambda path, *rest, **more: opened.append(path) or memmap(path, *rest, **more))
    _, labels = segment(model, volume, scratch=tmp_path)
    assert opened[0].parent.parent == tmp_path
    assert np.array_equal(labels.data, expected.data)
    assert not list(tmp_path.iterdir())


def test_the_prepared_space_is_the_grid_the_network_saw() -> None:
    shape = (30, 28, 26)
    affine = oblique((1, 1, 1), "LIA", shape)
    image, labels = segment(threshold_model(), Volume(phantom(shape, affine)[0], affine), space="prepared")
    assert nib.aff2axcodes(labels.affine) == ("R", "A", "S")
    assert np.array_equal(labels.data, phantom(labels.data.shape, labels.affine)[1])
    assert image.data.shape == labels.data.shape and image.data.dtype == np.float32


def test_mirroring_keeps_left_and_right_where_they_are() -> None:
    shape = (30, 28, 26)
    affine = oblique((1, 1, 1), shape=shape)
    volume = Volume(phantom(shape, affine)[0], affine)
    _, plain = segment(threshold_model(), volume)
    model = threshold_model()
    model.label_set = LabelSet("unpaired", (Structure(1, "dark", (1, 1, 1)), Structure(2, "bright", (2, 2, 2))))
    _, unpaired = segment(model, volume, mirror=True)
    assert np.array_equal(plain.data, unpaired.data)  # by intensity alone, so a mirror image changes nothing
    _, paired = segment(threshold_model(), volume, mirror=True)
    assert not np.array_equal(plain.data, paired.data)  # the mirrored answer names the sides the other way round


def test_a_cohort_is_measured_and_bad_scans_are_named(tmp_path: Path) -> None:
    write_phantom(tmp_path / "in" / "good.nii.gz")
    whole = (tmp_path / "in" / "good.nii.gz").read_bytes()
    (tmp_path / "in" / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "in" / "text.nii.gz").write_text("not an image")
    broken = nib.load(tmp_path / "in" / "good.nii.gz").get_fdata(dtype=np.float32)
    broken[3, 3, 3] = np.nan
    nib.save(nib.Nifti1Image(broken, np.eye(4)), tmp_path / "in" / "nan.nii.gz")
    nib.save(nib.Nifti1Image(np.abs(broken[..., None].repeat(2, -1)), np.eye(4)), tmp_path / "in" / "four.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros((9, 9, 9), np.float32), np.eye(4)), tmp_path / "in" / "zero.nii.gz")
    result = predict(threshold_model(), [tmp_path / "in", tmp_path / "gone.nii.gz"], tmp_path / "out")
    assert set(result.refused["scan"]) == {"cut", "text", "nan", "four", "zero", "gone.nii.gz"}
    assert all(result.refused["reason"].str.len() > 20)
    assert set(result.volumes["scan"]) == {"good"}
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "out" / "refused.csv", keep_default_na=False), result.refused)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "out" / "volumes.csv"), result.volumes)
    assert [path.name for path in (tmp_path / "out").glob("*.nii.gz")] == ["good_dseg.nii.gz"]


def test_the_folder_tells_what_the_numbers_mean(tmp_path: Path) -> None:
    predict(threshold_model(), [write_phantom(tmp_path / "scan.nii.gz")], tmp_path / "out")
    lut = (tmp_path / "out" / "dseg_lut.txt").read_text()
    assert "Left-Blob" in lut and "53" in lut
    table = pd.read_csv(tmp_path / "out" / "dseg.tsv", sep="\t")
    assert dict(zip(table["index"], table["name"], strict=True)) == {0: "Background", 17: "Left-Blob", 53: "Right-Blob"}
    described = json.loads((tmp_path / "out" / "dataset_description.json").read_text())
    assert described["DatasetType"] == "derivative"
    assert described["GeneratedBy"][0]["Name"] == "medssl"


def test_volumes_are_counts_times_the_size_of_a_voxel() -> None:
    classes = np.zeros((6, 7, 8), dtype=np.uint8)
    classes[1:3, 2:4, 3:6] = 1
    classes[5, 0, 0] = 2
    table = structure_volumes(Volume(classes, oblique((1.5, 2, 0.5))), LABELS)
    assert table["voxels"].tolist() == [12, 1]
    assert table["volume_mm3"].tolist() == pytest.approx([18, 1.5])
    assert table["truncated"].tolist() == [False, True]
    assert table["id"].tolist() == [17, 53]


def test_a_2d_image_is_measured_in_square_millimetres() -> None:
    classes = np.zeros((6, 7), dtype=np.uint8)
    classes[1:3, 2:4] = 1
    table = structure_volumes(Volume(classes, np.diag([2.0, 3, 9, 1])), LABELS)
    assert table["volume_mm3"].tolist() == [24, 0]


def test_only_the_largest_part_of_a_structure_is_kept_when_asked_for() -> None:
    labels = np.zeros((9, 9, 9), dtype=np.uint8)
    labels[1:4, 1:4, 1:4] = labels[7, 7, 7] = labels[4, 4, 4] = 1
    labels[6:8, 1:3, 1:3] = 2
    keep_largest_components(labels)
    assert (labels == 1).sum() == 27 and (labels == 2).sum() == 8
    shape = (30, 28, 26)
    affine = oblique((1, 1, 1), shape=shape)
    image, truth = phantom(shape, affine)
    image[0, 0, 0] = LEFT
    assert segment(threshold_model(), Volume(image, affine))[1].data[0, 0, 0] == 1
    _, cleaned = segment(threshold_model(), Volume(image, affine), largest_component=True)
    assert np.array_equal(cleaned.data, truth)


def test_scans_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    paths = [write_phantom(tmp_path / who / "anat" / "scan.nii.gz") for who in ("a", "b")]
    other = write_phantom(tmp_path / "other.nii.gz")
    result = predict(threshold_model(), [*paths, other, paths[0]], tmp_path / "out")
    assert list(dict.fromkeys(result.volumes["scan"])) == ["a_anat_scan", "b_anat_scan", "other"]


def test_a_subjects_dir_is_segmented_by_subject(tmp_path: Path) -> None:
    for who in ("bert", "ernie"):
        affine = oblique((1, 1, 1), "LIA", (30, 28, 26))
        (tmp_path / "subjects" / who / "mri").mkdir(parents=True)
        image = nib.MGHImage(phantom((30, 28, 26), affine)[0], affine)
        nib.save(image, tmp_path / "subjects" / who / "mri" / "norm.mgz")
    predict(threshold_model(), [tmp_path / "subjects"], tmp_path / "out")
    found = nib.load(tmp_path / "out" / "ernie_dseg.nii.gz")
    assert (tmp_path / "out" / "bert_dseg.nii.gz").is_file()
    source = nib.load(tmp_path / "subjects" / "ernie" / "mri" / "norm.mgz")
    np.testing.assert_allclose(found.affine, source.affine, atol=1e-5)
    assert np.array_equal(np.asanyarray(found.dataobj), LABELS.to_ids(phantom((30, 28, 26), source.affine)[1]))


def test_a_dicom_series_is_segmented_and_names_nobody(tmp_path: Path) -> None:
    write_dicom(tmp_path / "in" / "Doe_Jane")
    result = predict(threshold_model(), [tmp_path / "in"], tmp_path / "out")
    assert result.refused.empty and len(result.volumes) == 2
    voxels = result.volumes.set_index("structure")["voxels"]
    assert voxels["Left-Blob"] == (phantom((30, 28, 26), DICOM_AFFINE)[1] == 1).sum()
    for path in (tmp_path / "out").iterdir():
        content = path.name.encode() + (b"" if path.suffix == ".gz" else path.read_bytes())
        assert b"Doe" not in content and b"4711" not in content


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    original = inference.predict_windows
    monkeypatch.setattr(inference, "predict_windows", lambda *a, **k: calls.append(1) or original(*a, **k))
    return calls


def test_a_second_run_redoes_everything_unless_it_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [write_phantom(tmp_path / f"{name}.nii.gz") for name in "ab"]
    model = threshold_model()
    first = predict(model, paths, tmp_path / "out")
    calls = counted(monkeypatch)
    again = predict(model, paths, tmp_path / "out", resume=True)
    assert not calls
    pd.testing.assert_frame_equal(again.volumes, first.volumes)
    predict(model, paths, tmp_path / "out")
    assert len(calls) == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda folder, model: write_phantom(folder / "a.nii.gz", (30, 28, 27)),
        lambda folder, model: (folder / "out" / "a_dseg.nii.gz").unlink(),
        lambda folder, model: (folder / "out" / "a_dseg.json").write_text("{}"),
        lambda folder, model: setattr(model, "preparation", Preparation(intensity="ct", window_hu=(-200, 301))),
    ],
)
def test_resuming_redoes_what_is_not_as_it_was(
    change: Callable[[Path, Model], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [write_phantom(tmp_path / f"{name}.nii.gz") for name in "ab"]
    model = threshold_model()
    predict(model, paths, tmp_path / "out")
    change(tmp_path, model)
    calls = counted(monkeypatch)
    predict(model, paths, tmp_path / "out", resume=True)
    assert len(calls) == (2 if model.preparation.window_hu[1] == 301 else 1)
    assert (tmp_path / "out" / "a_dseg.nii.gz").is_file()


def test_the_picture_is_drawn_upright_with_its_labels(tmp_path: Path) -> None:
    affine = oblique((1, 1, 1), "LIA", (30, 28, 26))
    path = write_phantom(tmp_path / "scan.nii.gz", (30, 28, 26), affine)
    drawn: list[Any] = []

    def draw(image: Any, labels: Any, label_set: LabelSet, path: Path, title: str = "", *, spacing_mm: Any) -> None:
        drawn.extend([image, labels, label_set, path, title, spacing_mm])

    predict(threshold_model(), [path], tmp_path / "out")
    predict(threshold_model(), [path], tmp_path / "out", draw=draw, resume=True)  # there is no picture yet
    image, labels, label_set, picture, title, spacing_mm = drawn
    assert (label_set, picture, title) == (LABELS, tmp_path / "out" / "scan_qc.png", "scan")
    assert spacing_mm == pytest.approx((1, 1, 1))
    assert ((image == LEFT) == (labels == 1)).all()
    assert ndimage.center_of_mass(labels == 1)[0] < ndimage.center_of_mass(labels == 2)[0]  # left before right


def test_a_2d_model_segments_pictures_and_volumes_slice_by_slice(tmp_path: Path) -> None:
    shape = (30, 28, 26)
    affine = oblique((1, 1, 1), shape=shape)
    image, truth = phantom(shape, affine)
    _, labels = segment(threshold_model(dims=2), Volume(image, affine), batch_size=4)
    assert np.array_equal(labels.data, truth)
    _, flat = segment(threshold_model(dims=2), Volume(image[..., 13], np.diag([-1.0, 1, 1, 1])))
    assert np.array_equal(flat.data, truth[..., 13])


def test_a_scan_that_does_not_fit_the_model_is_refused() -> None:
    flat = Volume(phantom((30, 28, 26), oblique((1, 1, 1)))[0][..., 0], np.eye(4))
    with pytest.raises(InputError, match="scan is 2D; the model was trained on 3D"):
        segment(threshold_model(), flat)
    with pytest.raises(InputError, match="where left is"):
        segment(threshold_model(dims=2), flat, mirror=True)
    model = threshold_model()
    model.network.encoder.in_channels = 2
    with pytest.raises(InputError, match="2 channels at once, the scan has 1"):
        segment(model, Volume(phantom((20, 20, 20), oblique((1, 1, 1), shape=(20, 20, 20)))[0], np.eye(4)))


def test_nothing_to_segment_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no scans to look at"):
        predict(threshold_model(), [], tmp_path / "out")
    (tmp_path / "empty").mkdir()
    assert predict(threshold_model(), [tmp_path / "empty"], tmp_path / "out").refused["scan"].tolist() == ["empty"]


def test_a_full_disk_is_told_and_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_phantom(tmp_path / "scan.nii.gz")
    replace = os.replace

    def full(source: Path, target: Path) -> None:
        if str(target).endswith(".nii.gz"):
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    result = predict(threshold_model(), [path], tmp_path / "out")
    assert "No space left" in result.refused["reason"][0]
    assert not list((tmp_path / "out").glob("*.nii.gz")) and not list((tmp_path / "out").glob(".*"))


@pytest.mark.real_data
def test_a_real_scan_comes_back_on_its_own_grid(real_data: Path, tmp_path: Path) -> None:
    path = sorted((real_data / "malc").glob("*_T1w.nii.gz"))[0]
    model = threshold_model(spacing_mm=2.0)
    model.preparation = Preparation(spacing_mm=2.0)
    model.patch_size = (64, 64, 64)
    result = predict(model, [path], tmp_path / "out")
    found, source = nib.load(next((tmp_path / "out").glob("*_dseg.nii.gz"))), nib.load(path)
    assert result.refused.empty
    assert found.shape == source.shape and np.array_equal(found.affine, source.affine)
    labels, image = np.asanyarray(found.dataobj), source.get_fdata()
    assert (image[labels == 53] > 0).mean() > 0.99  # the brightest tissue is inside the head
