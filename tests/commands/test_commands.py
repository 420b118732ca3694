"""The commands, one after the other, as a user types them."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from medssl.cli import main
from medssl.data.prepared import PreparedDataset
from medssl.tracking import find_runs, tracking_uri

SMALL = "{channels: [4, 8], refine_channels: 4}"
RECIPE = ["--recipe.patch_size", "[16,16,16]", "--recipe.epoch_steps", "2", "--recipe.workers", "0"]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def structures(cohort: Path) -> list[str]:
    return ["--label_set", str(cohort / "structures.txt"), "--reading", "same"]


@pytest.fixture(scope="module")
def prepared(cohort: Path, work: Path, structures: list[str]) -> Path:
    assert main(["prepare", str(cohort), "--out", str(work / "prepared"), *structures, "--jobs", "1"]) == 0
    return work / "prepared"


@pytest.fixture(scope="module")
def trained(prepared: Path, work: Path) -> Path:
    words = ["train", str(prepared), "--out", str(work / "training"), "--steps", "3", "--boosting", "{}"]
    assert main([*words, "--network_arguments", SMALL, *RECIPE]) == 0
    return work / "training"


def test_prepare_says_what_is_used(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = PreparedDataset(prepared)
    assert len(data) == 9 and data.label_set is not None and data.label_set.names == ("Left-Box", "Right-Box", "Ball")


def test_an_empty_folder_is_told_the_layouts_of_scans_and_of_recordings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "empty", str(tmp_path / "out")
    source.mkdir()
    assert main(["prepare", str(source), "--out", out]) == 2
    told = capsys.readouterr().err
    assert f"{source}: holds neither scans nor recordings" in told
    assert told.index("SUBJECTS_DIR") < told.index("and of recordings:") < told.index("KITTI")
    assert main(["prepare", str(source), "--out", out, "--kind", "scans"]) == 2
    assert "holds no scans. Known are" in (told := capsys.readouterr().err) and "KITTI" not in told


def test_train_leaves_a_model_pictures_and_a_run(trained: Path) -> None:
    assert {p.name for p in (trained / "model").iterdir()} == {"weights.safetensors", "model.json"}
    assert {p.name for p in (trained / "pictures").iterdir()} == {"training.png", "boosting.png"}
    (run,) = find_runs(tracking_uri(trained), "train")
    assert run.params["boosting.q"] == "0.05" and "dice/mean" in run.metrics


def test_train_without_validation_has_nothing_to_boost_by(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", str(prepared), "--out", str(tmp_path), "--validation_count", "0", "--steps", "1", *RECIPE]
    assert main([*words, "--boosting", "{}"]) == 2
    assert "validation scans" in capsys.readouterr().err


def test_weights_of_another_network_are_refused_with_the_coverage(
    prepared: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", str(prepared), "--out", str(tmp_path), "--steps", "1", "--weights", str(trained / "model")]
    assert main([*words, "--network", "sdnet", "--network_arguments", "{channels: [4, 4]}", *RECIPE]) == 2
    assert "missing" in capsys.readouterr().err


def test_predict_evaluate_compare(
    cohort: Path, trained: Path, work: Path, structures: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    scans = [str(cohort / f"s{n}_T1w.nii.gz") for n in range(5)]
    runs = []
    for name, more in (("plain", []), ("mirrored", ["--mirror", "true"])):
        assert main(["predict", str(trained / "model"), *scans, "--out", str(work / name), *more]) == 0
        made = nib.load(work / name / "s0_T1w_dseg.nii.gz")
        assert made.shape == (24, 24, 24) and np.array_equal(made.affine, np.eye(4))
        assert (work / name / "s0_T1w_qc.png").exists()
        assert len(pd.read_csv(work / name / "volumes.csv")) == 5 * 3
        assert main(["evaluate", str(work / name), str(cohort), "--out", str(work), *structures, "--jobs", "1"]) == 0
        runs.append(capsys.readouterr().out.split("MLflow run: ")[1].split()[0])
    assert main(["compare", *runs, "--store", str(work)]) == 0
    shown = capsys.readouterr().out
    assert "mirrored against plain" in shown and "p (Holm)" in shown
    assert (work / "comparison" / "report.html").exists()


def test_predict_lists_a_bad_scan_and_segments_the_others(
    cohort: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad_T1w.nii.gz"
    bad.write_bytes((cohort / "s0_T1w.nii.gz").read_bytes()[:5000])
    words = ["predict", str(trained / "model"), str(cohort / "s1_T1w.nii.gz"), str(bad), "--out", str(tmp_path / "out")]
    assert main(words) == 2
    assert "bad_T1w.nii.gz" in capsys.readouterr().err
    assert (tmp_path / "out" / "s1_T1w_dseg.nii.gz").exists()


def test_predict_lists_every_scan_where_none_can_be_read(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "text.nii.gz"
    bad.write_text("no scan")
    assert main(["predict", str(trained / "model"), str(bad), "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr()
    assert "0 scans segmented" in told.out and "1 of the inputs could not be segmented" in told.err
    assert pd.read_csv(tmp_path / "out" / "refused.csv")["scan"].tolist() == ["text"]


def test_weak_labels_from_atlases_and_their_quality(
    cohort: Path, work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["--label_set", str(cohort / "structures.txt")]
    atlases = ["--atlases", str(cohort), "--atlas_images", "*_T1w.nii.gz", "--atlas_labels", "*_labels.nii.gz"]
    atlases += ["--atlas_reading", "same", "--deformable", "null", "--working_spacing_mm", "1"]
    manual = ["--manual", str(cohort), "--manual_reading", "same"]
    for n in range(2):
        (tmp_path / f"s{n}_T1w.nii.gz").write_bytes((cohort / f"s{n}_T1w.nii.gz").read_bytes())
    words = ["weak-labels", str(tmp_path), "--out", str(work / "weak"), *names, *atlases, *manual, "--jobs", "1"]
    assert main(words) == 0
    assert "2 scans have weak labels" in capsys.readouterr().out
    assert pd.read_csv(work / "weak" / "label_quality.csv")["dice"].mean() > 0.5
    assert (work / "weak" / "label_quality.png").exists()
