"""The study runs from files to the page, trains each arm on the same labels, goes on, refuses what would mislead."""

import json
import shutil
from pathlib import Path
from typing import NoReturn

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import yaml

import medssl.pipelines.label_efficiency as package
from medssl.cli import main
from medssl.efficiency_training import EfficiencyTrainer
from medssl.labels.lut import label_set
from medssl.methods import build_pretext
from medssl.methods.rotation import Rotation
from medssl.networks import build_encoder
from medssl.sample import Batch
from medssl.tracking import find_runs, hashed, load_table, tracking_uri
from medssl.training import NonFiniteLossError

CONFIGS = Path(package.__file__).parent / "configs"
every_config = pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)


def arguments(unlabelled: Path, labelled: Path, out: Path, cohort: Path, *more: str) -> list[str]:
    folders = ["--unlabelled", str(unlabelled), "--labelled", str(labelled), "--out", str(out)]
    labels = ["--label_set", str(cohort / "structures.txt"), "--reading", "same"]
    parts = ["--test_count", "5", "--validation_count", "1", "--jobs", "1", "--probe_steps", "2"]
    methods = ["--methods", "[masked_autoencoder]", "--method_arguments", "{masked_autoencoder: {block: 4}}"]
    sizes = ["--counts", "[1,2]", "--seeds", "[0,1]", "--pretrain_steps", "2", "--finetune_steps", "2"]
    small = ["--network_arguments", "{channels: [4, 8], refine_channels: 4, norm: group}"]
    patches = [
        f"--{part}.{key}" for part in ("recipe", "pretraining") for key in ("patch_size", "epoch_steps", "workers")
    ]
    values = ["[16,16,16]", "2", "0"] * 2
    recipe = [word for pair in zip(patches, values, strict=True) for word in pair]
    watched = ["--pretraining.watched", "2", "--pretraining.batch_size", "2"]
    return ["run", "label_efficiency", *folders, *labels, *parts, *methods, *sizes, *small, *recipe, *watched, *more]


@pytest.fixture(scope="module")
def scans(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cohort's scans with their labels, and nothing that other tests put beside them."""
    folder = tmp_path_factory.mktemp("efficiency") / "scans"
    folder.mkdir()
    for n in range(9):
        for ending in ("T1w", "labels"):
            shutil.copy(cohort / f"s{n}_{ending}.nii.gz", folder)
    return folder


@pytest.fixture(scope="module")
def finished(scans: Path, cohort: Path) -> Path:
    """A study whose unlabelled scans are the labelled ones' own folder."""
    out = scans.parent / "out"
    assert main(arguments(scans, scans, out, cohort)) == 0
    return out


def test_the_page_begins_with_the_verdict(finished: Path) -> None:
    page = (finished / "results" / "report.html").read_text(encoding="utf-8")
    assert "<h1>" in page and "On these data, masked autoencoder with 1 label" in page
    assert "the smallest p there can be is 0.062, however large the gain" in page
    assert "5 subjects to test on, 1 subject to watch, 3 subjects to draw labels from" in page
    assert "probe, Dice" in page and "pretraining, min" in page and "What failed" not in page
    assert page.count("<img") == 1 + 2 + 1  # the chart, an example of each arm, each pretraining
    assert not any(f"s{n}_T1w" in page for n in range(9))


def test_every_arm_learns_from_the_same_subjects_for_as_many_steps(finished: Path) -> None:
    runs = [run for run in find_runs(tracking_uri(finished), "label_efficiency") if "labels" in run.params]
    assert len(runs) == 2 * 2 * 2
    for labels in ("1", "2"):
        for seed in ("0", "1"):
            of_one = [run for run in runs if (run.params["labels"], run.params["seed"]) == (labels, seed)]
            assert {run.params["arm"] for run in of_one} == {"scratch", "masked_autoencoder"}
            assert len({(run.params["data"], run.params["steps"]) for run in of_one}) == 1
    assert len({run.params["data"] for run in runs}) == 4
    subsets = json.loads((finished / "results" / "subsets.json").read_text())
    assert len(subsets) == 4 and set(subsets["1 labels, seed 0"]) < set(subsets["2 labels, seed 0"])


def test_nobody_of_the_test_is_pretrained_on_where_all_lie_in_one_folder(finished: Path) -> None:
    parts = json.loads((finished / "results" / "split.json").read_text())
    pretrained = pd.read_parquet(finished / "prepared" / "images" / "index.parquet")["subject"]
    assert sorted(pretrained) == parts["pool"]
    assert len(parts["test"]) == 5
    scores = pd.read_csv(finished / "results" / "scores.csv")
    assert set(scores["subject"]) == set(parts["test"])


def test_mlflow_has_a_parent_with_a_child_for_each_training_and_no_names(finished: Path) -> None:
    uri = tracking_uri(finished)
    runs = find_runs(uri, "label_efficiency")
    parent = next(run for run in runs if run.parent is None)
    children = {run.name: run for run in runs if run.parent == parent.run_id}
    assert len(children) == 1 + 8
    assert {"dice/mean", "train/loss"} <= set(children["scratch, 1 labels, seed 0"].metrics)
    assert len(load_table(uri, parent.run_id, "gains")) == 2
    scores = load_table(uri, children["masked_autoencoder, 2 labels, seed 1"].run_id, "scores")
    assert not any(name.startswith("s") for column in ("subject", "scan") for name in scores[column])
    assert not [*(finished / "mlartifacts").rglob("*_T1w*")]


def test_run_again_it_does_nothing_twice(finished: Path, scans: Path, cohort: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("stage.json")}
    models = {path: path.stat().st_mtime_ns for path in finished.glob("trainings/*/*/*/model/*")}
    assert len(before) == 1 + 1 + 8 * 2 + 2 and models
    assert main(arguments(scans, scans, finished, cohort)) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert {path: path.stat().st_mtime_ns for path in models} == models
    assert len(find_runs(tracking_uri(finished), "label_efficiency")) == 1 + 9


def test_a_method_that_fails_is_told_everywhere_stops_no_other_and_is_tried_again(
    scans: Path, cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverged(self: Rotation, batch: Batch) -> NoReturn:
        raise NonFiniteLossError("The loss is not finite, on the scans s0, s8.")

    out, few = tmp_path / "out", ["--counts", "[1]", "--seeds", "[0]", "--methods", "[masked_autoencoder, rotation]"]
    words = arguments(scans, scans, out, cohort, *few)
    with monkeypatch.context() as broken:
        broken.setattr(EfficiencyTrainer, "expected_minutes", lambda self: 1.0)
        broken.setattr(Rotation, "loss", diverged)
        assert main(words) == 2
    told = capsys.readouterr()
    assert "1 of the study's parts failed" in told.err and "rotation, pretraining: The loss is not finite" in told.err
    assert "rotation   failed" in told.out and "rotation failed and is left out (pretraining)" in told.out
    results = out / "results"
    page = (results / "report.html").read_text(encoding="utf-8")
    assert f"rotation, pretraining: The loss is not finite, on the scans {hashed('s0')}, {hashed('s8')}." in page
    assert set(pd.read_csv(results / "curve.csv")["arm"]) == {"scratch", "masked_autoencoder"}
    assert pd.read_csv(results / "failures.csv")["arm"].tolist() == ["rotation"]
    status = {run.name: run.status for run in find_runs(tracking_uri(out), "label_efficiency")}
    assert status.pop("rotation, pretraining") == "FAILED" and set(status.values()) == {"FINISHED"}
    models = {path: path.stat().st_mtime_ns for path in out.rglob("weights.safetensors")}
    monkeypatch.setattr(EfficiencyTrainer, "expected_minutes", lambda self: 1.0)
    assert main(words) == 0
    assert set(pd.read_csv(results / "curve.csv")["arm"]) == {"scratch", "masked_autoencoder", "rotation"}
    assert "What failed" not in (results / "report.html").read_text(encoding="utf-8")
    assert {path: path.stat().st_mtime_ns for path in models} == models
    assert {run.status for run in find_runs(tracking_uri(out), "label_efficiency")} == {"FINISHED"}


def test_weak_labels_are_one_arm_more(scans: Path, cohort: Path, tmp_path: Path) -> None:
    weak = tmp_path / "subjects"
    for n in range(2):
        folder = weak / f"w{n}" / "mri"
        folder.mkdir(parents=True)
        for ending, name in (("T1w", "brain"), ("labels", "aparc+aseg")):
            scan = nib.load(cohort / f"s{n}_{ending}.nii.gz")
            mirrored = np.ascontiguousarray(
                scan.get_fdata()[::-1], dtype=np.float32
            )  # another image of another subject
            nib.save(nib.MGHImage(mirrored, scan.affine), folder / f"{name}.mgz")
    few = ["--counts", "[1]", "--seeds", "[0]", "--weak_reading", "same"]
    out = tmp_path / "out"
    assert main(arguments(weak, scans, out, cohort, *few)) == 0
    assert (out / "pretraining" / "weak" / "model" / "weights.safetensors").is_file()
    assert set(pd.read_csv(out / "results" / "curve.csv")["arm"]) == {"scratch", "weak", "masked_autoencoder"}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--methods", "[simclr, byol]"], "no method of pretraining 'byol'. Methods: barlow_twins, colorization"),
        (
            ["--counts", "[1,4]"],
            "asks for 4 labelled subjects to train on; of 9, 5 are for the test and 1 for validation",
        ),
        (["--counts", "[0,1]"], "counts are different whole numbers, at least 1; got [0, 1]"),
        (["--seeds", "[1,1]"], "seeds are different whole numbers, at least 0; got [1, 1]"),
        (["--methods", "[]", "--method_arguments", "{}"], "methods are one or more different names"),
        (["--method_arguments", "{simclr: {width: 8}}"], "'simclr', which is not one of the methods"),
        (["--recipe.patience", "3"], "recipe.patience=3 would stop some trainings earlier"),
        (["--method_arguments", "{masked_autoencoder: {block: 7}}"], "cannot be cut into blocks of 7"),
    ],
)
def test_what_would_fail_or_mislead_is_refused_before_anything_is_trained(
    given: list[str], told: str, scans: Path, cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(scans, scans, tmp_path / "out", cohort, *given)) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out" / "pretraining").exists()


def test_a_test_scan_under_another_name_among_the_unlabelled_is_a_leak(
    scans: Path, cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unlabelled = tmp_path / "unlabelled"
    unlabelled.mkdir()
    for n in range(9):
        shutil.copy(scans / f"s{n}_T1w.nii.gz", unlabelled / f"other{n}.nii.gz")
    assert main(arguments(unlabelled, scans, tmp_path / "out", cohort)) == 2
    assert "the same image under two subjects" in capsys.readouterr().err


@every_config
def test_the_settings_beside_it_are_accepted_and_say_how_long_they_take(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = ["--unlabelled", "a", "--labelled", "b", "--out", "c"]
    with pytest.raises(SystemExit) as stopped:
        main(["run", "label_efficiency", "--config", str(path), *folders, "--print_config"])
    captured = capsys.readouterr()
    assert stopped.value.code == 0, captured.err
    told = " ".join(line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#"))
    assert "Takes " in told and "2 cores" in told and "Expect: " in told


@every_config
def test_every_method_of_the_settings_beside_it_takes_its_crops(path: Path) -> None:
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    patch_size = tuple(settings["pretraining"]["patch_size"])
    encoder = build_encoder(settings["network"], 1, 3, **settings["network_arguments"])
    assert settings["methods"] == list(dict.fromkeys(settings["methods"]))
    for name in settings["methods"]:
        build_pretext(name, encoder, **settings["method_arguments"].get(name, {})).check(8, 1, patch_size)


def test_the_structures_of_the_hippocampus_lie_beside_its_settings() -> None:
    assert label_set(str(CONFIGS / "hippocampus.txt")).names == ("Anterior", "Posterior")


def test_the_settings_for_the_sample_data_are_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    settings = Path(__file__).parents[2] / "sample_data" / "label_efficiency.yaml"
    with pytest.raises(SystemExit) as stopped:
        main(["run", "label_efficiency", "--config", str(settings), "--out", "somewhere", "--print_config"])
    assert stopped.value.code == 0, capsys.readouterr().err
