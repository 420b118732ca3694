"""Classes and boxes of scans: in millimetres and the scan's own voxels, with the refused ones listed."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch

from medssl.cli import main
from medssl.data.preparation import Preparation
from medssl.fine_tuning import FineTuned
from medssl.image_inference import classify, detect
from medssl.methods.classification import Classification
from medssl.methods.detection import Detection, Detections
from medssl.networks.unet import UNetEncoder
from medssl.pretrained import CLASSIFIER, DETECTOR

PREPARATION = Preparation(spacing_mm=1.0)
ENCODER = {"channels": [4, 8], "norm": "group"}
PATCH = (16, 16, 16)


def scan(path: Path, affine: np.ndarray | None = None) -> Path:
    data = np.zeros((24, 20, 18), dtype=np.float32)
    data[4:20, 4:16, 4:14] = 100 + np.random.default_rng(0).random((16, 12, 10)) * 50
    nib.save(nib.Nifti1Image(data, np.diag([1.0, 1, 1, 1]) if affine is None else affine), path)
    return path


@pytest.fixture
def classifier() -> FineTuned[Classification]:
    torch.manual_seed(0)
    method = Classification(UNetEncoder(1, 3, (4, 8), norm="group"), ["well", "ill"]).eval()
    return FineTuned(method, {"classes": ["well", "ill"]}, "unet", ENCODER, PREPARATION, PATCH)


@pytest.fixture
def detector() -> FineTuned[Detection]:
    torch.manual_seed(0)
    arguments = {"structures": ["a", "b"], "width": 8}
    method = Detection(UNetEncoder(1, 3, (4, 8), norm="group"), ["a", "b"], width=8).eval()
    return FineTuned(method, arguments, "unet", ENCODER, PREPARATION, PATCH)


def test_every_scan_gets_a_class_and_probabilities_that_add_up_to_one(
    tmp_path: Path, classifier: FineTuned[Classification]
) -> None:
    scan(tmp_path / "p1.nii.gz")
    scan(tmp_path / "p2.nii.gz")
    table, refused = classify(classifier, [tmp_path / "p1.nii.gz", tmp_path / "p2.nii.gz"], tmp_path / "out")
    assert list(table.columns) == ["scan", "class", "p/well", "p/ill"] and not len(refused)
    np.testing.assert_allclose(table["p/well"] + table["p/ill"], 1, atol=1e-6)
    more = table[["p/well", "p/ill"]].to_numpy().argmax(1)
    assert table["class"].tolist() == [("well", "ill")[i] for i in more]
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "out" / "classes.csv"), table)


def test_a_box_is_where_its_voxels_are_whatever_the_scans_own_grid(
    tmp_path: Path, detector: FineTuned[Detection], monkeypatch: pytest.MonkeyPatch
) -> None:
    affine = np.array([[-2.0, 0, 0, 30], [0, 0, 2, -7], [0, 2, 0, 5], [0, 0, 0, 1]])  # left is first, y and z swapped
    path = scan(tmp_path / "p1.nii.gz", affine)
    prepared: dict[str, np.ndarray] = {}

    def found(method: Detection, image: torch.Tensor, patch: tuple[int, ...]) -> Detections:
        prepared["shape"] = np.array(image.shape[1:])
        return Detections(torch.tensor([[2.0, 3, 4, 8, 11, 16]]), torch.tensor([0.9]), torch.tensor([2]))

    monkeypatch.setattr("medssl.image_inference.detect_windows", found)
    table, _ = detect(detector, [path], tmp_path / "out")
    row = table.iloc[0]
    assert (row["structure"], row["score"]) == ("b", pytest.approx(0.9))
    assert [row[f"side_mm_{axis}"] for axis in "xyz"] == pytest.approx([6, 8, 12])
    centre = np.array([*(row[f"centre_mm_{axis}"] for axis in "xyz"), 1.0])
    own = np.linalg.inv(affine) @ centre
    first, last = (np.array([row[f"{end}_voxel_{axis}"] for axis in "xyz"]) for end in ("first", "last"))
    np.testing.assert_allclose((first + last) / 2, own[:3], atol=0.51)
    np.testing.assert_allclose(last - first + 1, [3, 6, 4], atol=1.01)  # 6, 12 and 8 mm in voxels of 2 mm


def test_a_scan_that_cannot_be_read_is_listed_and_stops_no_other(
    tmp_path: Path, classifier: FineTuned[Classification]
) -> None:
    scan(tmp_path / "p1.nii.gz")
    (tmp_path / "p2.nii.gz").write_text("no scan")
    table, refused = classify(classifier, [tmp_path / "p1.nii.gz", tmp_path / "p2.nii.gz"], tmp_path / "out")
    assert table["scan"].tolist() == ["p1"] and refused["scan"].tolist() == ["p2"]
    assert pd.read_csv(tmp_path / "out" / "refused.csv")["scan"].tolist() == ["p2"]


def test_the_command_takes_a_classifier_and_a_detector(
    tmp_path: Path,
    classifier: FineTuned[Classification],
    detector: FineTuned[Detection],
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = scan(tmp_path / "p1.nii.gz")
    classifier.save(tmp_path / "classifier", CLASSIFIER)
    detector.save(tmp_path / "detector", DETECTOR)
    assert main(["predict", str(tmp_path / "classifier"), str(path), "--out", str(tmp_path / "a")]) == 0
    assert main(["predict", str(tmp_path / "detector"), str(path), "--out", str(tmp_path / "b")]) == 0
    assert "1 scans classified" in capsys.readouterr().out
    assert (tmp_path / "a" / "classes.csv").is_file() and (tmp_path / "b" / "boxes.csv").is_file()


def test_a_picture_given_to_a_network_of_volumes_is_refused(
    tmp_path: Path, classifier: FineTuned[Classification], capsys: pytest.CaptureFixture[str]
) -> None:
    nib.save(
        nib.Nifti1Image(np.random.default_rng(0).random((24, 20)).astype(np.float32), np.eye(4)), tmp_path / "p.nii.gz"
    )
    classifier.save(tmp_path / "classifier", CLASSIFIER)
    words = ["predict", str(tmp_path / "classifier"), str(tmp_path / "p.nii.gz"), "--out", str(tmp_path / "a")]
    assert main(words) == 2
    assert "is 2D; the network was trained on 3D" in capsys.readouterr().err
