"""The four arms run from files to the report, go on where they stopped, and refuse what would make them a lie."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from medssl.cli import main
from medssl.tracking import find_runs, load_table, tracking_uri

ARMS = ["manual only", "weak + ECB", "weak + fine-tuning", "weak only"]


@pytest.fixture(scope="module")
def folders(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The cohort's first two scans as the weak ones, the other seven as the manual ones."""
    root = tmp_path_factory.mktemp("brain")
    for n in range(9):
        kind = "weak" if n < 2 else "manual"
        (root / kind).mkdir(exist_ok=True)
        for ending in ("T1w", "labels"):
            shutil.copy(cohort / f"s{n}_{ending}.nii.gz", root / kind)
    return root / "manual", root / "weak"


def arguments(manual: Path, weak: Path, out: Path, cohort: Path, *more: str) -> list[str]:
    small = "{channels: [4, 8], refine_channels: 4}"
    recipe = ["--recipe.patch_size", "[16,16,16]", "--recipe.epoch_steps", "2", "--recipe.workers", "0"]
    names = ["--manual", str(manual), "--weak", str(weak), "--out", str(out)]
    labels = ["--label_set", str(cohort / "structures.txt"), "--manual_reading", "same", "--weak_reading", "same"]
    parts = ["--test_count", "5", "--validation_count", "1", "--jobs", "1"]
    steps = ["--pretrain_steps", "4", "--finetune_steps", "3", "--network_arguments", small]
    return ["run", "brain_segmentation", *names, *labels, *parts, *steps, *recipe, *more]


@pytest.fixture(scope="module")
def finished(folders: tuple[Path, Path], cohort: Path) -> Path:
    out = folders[0].parent / "out"
    assert main(arguments(*folders, out, cohort)) == 0
    return out


def test_it_leaves_a_report_pictures_models_and_statistics(finished: Path) -> None:
    results = finished / "results_1_manual"
    assert (results / "report.html").stat().st_size > 10_000
    assert {p.name for p in (results / "pictures").iterdir()} == {"arms.png", "dice_boxplot.png"}
    assert len(list(finished.glob("arms/seed0/*/training/model/weights.safetensors"))) == 4
    assert len(list(finished.glob("arms/seed0/*/pictures/boosting.png"))) == 1
    assert len(list(finished.glob("arms/seed0/*/test/*_qc.png"))) == 4 * 5
    comparison = pd.read_csv(results / "comparison.csv")
    assert set(comparison["other"]) == {"weak only", "weak + fine-tuning", "weak + ECB"}
    assert {"difference", "low", "high", "p_holm"} <= set(comparison.columns)


def test_mlflow_has_a_parent_with_one_child_per_arm_and_all_that_was_found(finished: Path) -> None:
    uri = tracking_uri(finished)
    runs = find_runs(uri, "brain_segmentation")
    parent = next(run for run in runs if run.parent is None)
    children = {run.name: run for run in runs if run.parent == parent.run_id}
    assert sorted(children) == ARMS
    for run in children.values():
        assert {"dice/mean", "dice/Left-Box", "hd95/mean", "train/loss", "validation/dice/mean"} <= set(run.metrics)
        scores = load_table(uri, run.run_id, "scores")
        assert len(scores) == 5 * 3
        assert not any(name.startswith("s") for column in ("subject", "scan") for name in scores[column])
    assert {"validation/weight/Ball", "validation/recall/Ball"} <= set(children["weak + ECB"].metrics)
    named = [*(finished / "mlartifacts").rglob("*_T1w*"), *(finished / "mlartifacts").rglob("s?.*")]
    assert not named
    page = next((finished / "mlartifacts").rglob("report.html")).read_text(encoding="utf-8")
    words = re.sub('src="[^"]*"', "", page)  # pictures as letters and digits may hold anything
    assert "weak + ECB" in words and not re.search(r"\bs\d(_T1w)?(_qc)?\b", words)
    assert not any(f'"s{n}' in json.dumps(parent.params) or f" s{n}" in json.dumps(parent.params) for n in range(9))


def test_the_last_two_arms_take_equal_steps_and_manual_alone_the_sum(finished: Path) -> None:
    runs = {run.name: run for run in find_runs(tracking_uri(finished), "brain_segmentation")}
    steps = {name: int(runs[name].params["steps"]) for name in ARMS}
    assert steps == {"manual only": 7, "weak + ECB": 3, "weak + fine-tuning": 3, "weak only": 4}


def test_run_again_it_does_nothing_twice(finished: Path, folders: tuple[Path, Path], cohort: Path) -> None:
    done = [
        *finished.glob("arms/*/*/training/model/*"),
        *finished.glob("prepared/*/scans/*/*"),
        *finished.glob("arms/*/*/test/*_dseg.nii.gz"),
    ]
    before = {path: path.stat().st_mtime_ns for path in done}
    assert main(arguments(*folders, finished, cohort)) == 0
    assert {path: path.stat().st_mtime_ns for path in done} == before
    assert len(find_runs(tracking_uri(finished), "brain_segmentation")) == 5


def test_more_manual_scans_than_there_are_is_refused_with_the_numbers(
    finished: Path, folders: tuple[Path, Path], cohort: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(*folders, finished, cohort, "--manual_count", "2")) == 2
    assert "asks for test 5, validation 1, train 2 subjects; there are 7" in capsys.readouterr().err


def test_a_subject_on_both_sides_is_a_leak(
    folders: tuple[Path, Path], cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weak = tmp_path / "weak"
    shutil.copytree(folders[1], weak)
    for ending in ("T1w", "labels"):
        shutil.copy(cohort / f"s5_{ending}.nii.gz", weak / f"other_{ending}.nii.gz")
    assert main(arguments(folders[0], weak, tmp_path / "out", cohort)) == 2
    assert "the same image" in capsys.readouterr().err
    assert not (tmp_path / "out" / "arms").exists()


def test_a_budget_without_room_for_training_is_refused(
    folders: tuple[Path, Path], cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(*folders, tmp_path / "out", cohort, "--minutes", "0.00001")) == 2
    assert "give at least" in capsys.readouterr().err
