"""Organs in CT: pretrained beside scratch on subjects of their own, and honest words where there is one scan alone."""

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from medssl.cli import main
from medssl.labels.lut import LabelSet, Structure, read_lut, write_lut
from medssl.pipelines.ct.pipeline import TOTALSEGMENTATOR
from medssl.tracking import find_runs, tracking_uri

ORGANS = LabelSet(
    "organs", tuple(Structure(i, n, (9 * i, 0, 90)) for i, n in ((1, "spleen"), (5, "liver"), (20, "colon")))
)


@pytest.fixture(scope="module")
def torsos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four labelled torsos of 4 mm voxels and one without labels, in Hounsfield numbers."""
    root = tmp_path_factory.mktemp("ct")
    for name in ("labelled/images", "labelled/labels", "unlabelled"):
        (root / name).mkdir(parents=True)
    x, y, _ = np.indices((24, 24, 40))
    for number in range(5):
        rng = np.random.default_rng(number)
        shift = rng.integers(-1, 2)
        labels = np.zeros(x.shape, np.uint8)
        labels[(x - 16) ** 2 + (y - 12 - shift) ** 2 < 16] = 5
        labels[(x - 7) ** 2 + (y - 12 + shift) ** 2 < 9] = 1
        labels[9:15, 4:8, 30:] = 20
        hu = np.where((x - 12) ** 2 + (y - 12) ** 2 < 110, 20, -1000) + 60 * (labels > 0) + 40 * (labels == 5)
        affine = np.diag([4.0, 4, 4, 1])
        scan = nib.Nifti1Image((hu + rng.normal(0, 10, hu.shape)).astype(np.int16), affine)
        nib.save(scan, root / ("labelled/images" if number < 4 else "unlabelled") / f"p{number}.nii.gz")
        if number < 4:
            nib.save(nib.Nifti1Image(labels, affine), root / "labelled" / "labels" / f"p{number}.nii.gz")
    write_lut(root / "organs.txt", ORGANS)
    return root


def arguments(labelled: Path, out: Path, table: Path, *more: str) -> list[str]:
    places = ["--labelled", str(labelled), "--out", str(out), "--label_table", str(table), "--jobs", "1"]
    parts = ["--test_count", "2", "--validation_count", "1", "--preparation.spacing_mm", "4"]
    small = ["--network_arguments", "{channels: [4, 8], refine_channels: 4, norm: group}"]
    steps = ["--pretrain_steps", "2", "--finetune_steps", "2", "--pretraining.patch_size", "[16,16,4]"]
    recipe = ["--recipe.patch_size", "[16,16,16]", "--pretraining.watched", "2", "--pretraining.batch_size", "2"]
    epochs = [word for part in ("recipe", "pretraining") for word in (f"--{part}.epoch_steps=2", f"--{part}.workers=0")]
    method = ["--method", "masked_autoencoder", "--method_arguments", "{block: 4}"]
    return ["run", "ct", *places, *method, *parts, *small, *steps, *recipe, *epochs, *more]


@pytest.fixture(scope="module")
def finished(torsos: Path) -> Path:
    out = torsos / "out"
    more = ["--unlabelled", str(torsos / "unlabelled"), "--structures", "[liver, spleen]"]
    assert main(arguments(torsos / "labelled", out, torsos / "organs.txt", *more)) == 0
    return out


@pytest.fixture(scope="module")
def alone(torsos: Path) -> Path:
    """A folder with one of the labelled scans."""
    folder = torsos / "alone"
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
        shutil.copy(torsos / "labelled" / kind / "p0.nii.gz", folder / kind)
    return folder


def test_both_arms_are_tested_on_the_same_subjects_and_the_page_says_whose_labels(finished: Path) -> None:
    scores = pd.read_csv(finished / "results" / "scores.csv")
    assert set(scores["arm"]) == {"from scratch", "masked autoencoder"}
    assert scores.groupby("arm")["subject"].nunique().tolist() == [2, 2]
    assert set(scores["structure"]) == {"liver", "spleen"}  # the colon is background, as was chosen
    page = (finished / "results" / "report.html").read_text(encoding="utf-8")
    assert page.index("nobody corrected what was trained on") < page.index("Masked autoencoder against from scratch")
    assert "ONE SCAN" not in page and not any(f"p{n}.nii" in page for n in range(5))
    assert page.count("<img") == 2 + 2 + 1


def test_nobody_of_the_test_was_pretrained_on(finished: Path) -> None:
    pretrained = set(pd.read_parquet(finished / "prepared" / "images" / "index.parquet")["subject"])
    tested = set(pd.read_csv(finished / "results" / "scores.csv")["subject"])
    assert "p4" in pretrained and len(pretrained) == 2 and not pretrained & tested


def test_mlflow_has_a_parent_with_a_child_for_each_training_of_equal_steps(finished: Path) -> None:
    runs = find_runs(tracking_uri(finished), "ct")
    parent = next(run for run in runs if run.parent is None)
    children = {run.name: run for run in runs if run.parent == parent.run_id}
    assert set(children) == {"masked_autoencoder, pretraining", "scratch, seed 0", "masked_autoencoder, seed 0"}
    finetunings = [run for name, run in children.items() if "seed" in name]
    assert {run.params["steps"] for run in finetunings} == {"2"} and all("dice/mean" in r.metrics for r in finetunings)
    assert parent.params["preparation.intensity"] == "ct"


def test_one_labelled_scan_cannot_be_split_by_subject_and_that_is_said(
    torsos: Path, alone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(alone, tmp_path / "out", torsos / "organs.txt")) == 2
    said = capsys.readouterr().err
    assert "has labelled scans of 1 subject that can be used" in said
    assert "needs 3 at least" in said and "--within_scan true" in said
    assert not (tmp_path / "out" / "pretraining").exists()


def test_within_one_scan_the_page_begins_with_what_that_is_worth(torsos: Path, alone: Path, tmp_path: Path) -> None:
    more = ["--within_scan", "true", "--unlabelled", str(torsos / "labelled")]  # the same scan is among these
    assert main(arguments(alone, tmp_path, torsos / "organs.txt", *more)) == 0
    page = (tmp_path / "results" / "report.html").read_text(encoding="utf-8")
    assert page.index("ONE SCAN.") < page.index("Masked autoencoder against from scratch")
    assert "no evidence for any other patient" in page
    scores = pd.read_csv(tmp_path / "results" / "scores.csv")
    assert set(scores["structure"]) == {"liver", "spleen"}  # the colon is in the upper part alone
    assert set(scores["scan"]) == {"p0-test"}
    pretrained = set(pd.read_parquet(tmp_path / "prepared" / "images" / "index.parquet")["subject"])
    assert pretrained == {"p0-pool", "p1", "p2", "p3"}


def test_several_scans_are_no_case_for_within_scan(
    torsos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(torsos / "labelled", tmp_path, torsos / "organs.txt", "--within_scan", "true")) == 2
    assert "within_scan is for one labelled scan, here are 4" in capsys.readouterr().err


def test_values_from_0_to_255_are_no_hounsfield_numbers(
    torsos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "grey"
    shutil.copytree(torsos / "labelled", folder)
    for path in (folder / "images").iterdir():
        hu = nib.load(path)
        nib.save(nib.Nifti1Image(np.clip(hu.get_fdata(), 0, 255).astype(np.uint8), hu.affine), path)
    assert main(arguments(folder, tmp_path / "out", torsos / "organs.txt")) == 2
    said = capsys.readouterr().err
    assert "none of the 4 scans can be used" in said and "Hounsfield numbers put air at -1000" in said


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--structures", "[lver]"], "no structure 'lver'; it has spleen, liver, colon"),
        (["--preparation.intensity", "mri"], "this pipeline is for CT"),
        (["--method", "byol"], "no method of pretraining 'byol'"),
        (["--structures", "[]"], "No structure is chosen"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_is_prepared(
    given: list[str], told: str, torsos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(torsos / "labelled", tmp_path / "out", torsos / "organs.txt", *given)) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_label_that_the_table_lacks_is_refused_by_its_number(
    torsos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_lut(tmp_path / "few.txt", LabelSet("few", ORGANS.structures[:2]))
    assert main(arguments(torsos / "labelled", tmp_path / "out", tmp_path / "few.txt")) == 2
    assert "no rule for these labels: 20 (" in capsys.readouterr().err


def test_the_shipped_table_has_117_structures_with_their_twins() -> None:
    table = read_lut(TOTALSEGMENTATOR)
    assert table.ids == tuple(range(1, 118))
    kidneys = [table.names.index(f"kidney_{side}") + 1 for side in ("left", "right")]
    assert table.mirrored[kidneys[0]] == kidneys[1]
    spine = table.names.index("vertebrae_L5") + 1
    assert table.mirrored[spine] == spine  # L stands for lumbar


def test_the_settings_for_the_sample_data_are_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    settings = Path(__file__).parents[2] / "sample_data" / "ct.yaml"
    with pytest.raises(SystemExit) as stopped:
        main(["run", "ct", "--config", str(settings), "--out", "somewhere", "--print_config"])
    assert stopped.value.code == 0, capsys.readouterr().err
