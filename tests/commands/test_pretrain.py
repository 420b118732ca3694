"""Pretraining, fine-tuning and probing as a user types them, and what cannot be pretrained on."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from medssl.cli import main
from medssl.data.classes import classified
from medssl.data.prepared import PreparedDataset
from medssl.methods import build_pretext
from medssl.model import load_model
from medssl.networks import build_encoder
from medssl.pretrain import PretrainRecipe, Watch, few_with_labels
from medssl.pretrained import load_pretrained

SMALL = [
    "--encoder_arguments",
    "{channels: [4, 8], norm: group}",
    "--recipe.workers",
    "0",
    "--recipe.precision",
    "fp32",
]
SHORT = [
    "--recipe.probe_every",
    "2",
    "--steps",
    "4",
    "--recipe.epoch_steps",
    "2",
    "--recipe.batch_size",
    "4",
    "--recipe.watched",
    "6",
]
RECIPE = PretrainRecipe(patch_size=(16, 16, 16), batch_size=2, watched=2, probe_every=1, precision="fp32")
PATCH = ["--recipe.patch_size", "[16,16,16]"]


def pretrain(method: str, data: Path, out: Path, *more: str) -> int:
    return main(["pretrain", method, "--data", str(data), "--out", str(out), *SMALL, *SHORT, *PATCH, *more])


@pytest.fixture(scope="module")
def finished(prepared_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pretraining") / "run"
    assert pretrain("simclr", prepared_cohort, out) == 0
    return out


def test_an_encoder_pictures_and_a_page_are_left(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = load_pretrained(finished / "encoder")
    assert kept.name == "unet" and kept.patch_size == (16, 16, 16) and kept.run["method"] == "SimCLR"
    history = pd.read_csv(finished / "history.csv")
    assert {"train/loss", "held_out/loss", "health/effective_rank", "health/found_again"} <= set(history)
    probed = history["probe/segmentation/dice/mean"]
    assert probed.isna().tolist() == [True, False] and 0 <= probed.iloc[1] <= 1
    assert {p.name for p in (finished / "pictures").iterdir()} == {"representation.png", "task.png", "neighbours.png"}
    page = (finished / "report.html").read_text()
    assert page.count("<img") == 3 and "minutes per 1000 steps" in page


def test_a_second_run_goes_on_where_the_first_one_ended(prepared_cohort: Path, finished: Path) -> None:
    before = (finished / "encoder" / "weights.safetensors").read_bytes()
    assert pretrain("simclr", prepared_cohort, finished) == 0
    assert (finished / "encoder" / "weights.safetensors").read_bytes() == before


def test_a_network_is_fine_tuned_from_the_encoder(prepared_cohort: Path, finished: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "fine")
    words = ["train", str(prepared_cohort), "--out", out, "--encoder", str(finished / "encoder"), "--steps", "2"]
    words += ["--frozen_encoder", "true", "--recipe.patch_size", "[16,16,16]", "--recipe.workers", "0"]
    assert main(words) == 0
    model = load_model(tmp_path / "fine" / "model")
    assert model.network_name == "unet" and model.network_arguments == {"channels": [4, 8], "norm": "group"}
    pretrained = load_pretrained(finished / "encoder").encoder
    for a, b in zip(model.network.encoder.parameters(), pretrained.parameters(), strict=True):
        assert (a == b).all()


def test_a_probe_compares_with_random_weights(prepared_cohort: Path, finished: Path, tmp_path: Path) -> None:
    words = ["probe", str(finished / "encoder"), "--data", str(prepared_cohort), "--out", str(tmp_path / "probe")]
    assert main([*words, "--steps", "5", "--crops", "4"]) == 0
    table = pd.read_csv(tmp_path / "probe" / "probe.csv")
    dice = table[(table["probe"] == "segmentation") & (table["score"] == "dice/mean")]
    assert set(dice["encoder"]) == {"pretrained", "random weights"} and dice["value"].between(0, 1).all()
    assert (tmp_path / "probe" / "report.html").is_file()


def test_classes_of_scans_are_probed(cohort: Path, finished: Path, tmp_path: Path) -> None:
    rows = "\n".join(f"s{i},{'even' if i % 2 == 0 else 'odd'}" for i in range(9))
    (tmp_path / "classes.csv").write_text(f"scan,class\n{rows}\n")
    prepared = str(tmp_path / "prepared")
    assert (
        main(["prepare", str(cohort), "--out", prepared, "--classes", str(tmp_path / "classes.csv"), "--jobs", "1"])
        == 0
    )
    words = [
        "probe",
        str(finished / "encoder"),
        "--data",
        prepared,
        "--out",
        str(tmp_path / "probe"),
        "--neighbours",
        "2",
    ]
    assert main([*words, "--test_share", "0.45", "--random", "false"]) == 0
    table = pd.read_csv(tmp_path / "probe" / "probe.csv").set_index(["probe", "score"])["value"]
    for probe in ("2-nearest neighbours", "linear", "perceptron"):
        assert 0 <= table[probe, "accuracy"] <= 1
    assert 0 <= table["retrieval", "ndcg"] <= 1


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """Scans with an even number are even."""
    rows = "\n".join(f"s{i},{'even' if i % 2 == 0 else 'odd'}" for i in range(9))
    (tmp_path / "classes.csv").write_text(f"scan,class\n{rows}\n")
    return tmp_path / "classes.csv"


def test_a_table_of_classes_is_probed_while_pretraining_and_after(cohort: Path, classes: Path, tmp_path: Path) -> None:
    scans, out = tmp_path / "scans", tmp_path / "out"
    scans.mkdir()
    for i in range(9):
        (scans / f"s{i}.nii.gz").write_bytes((cohort / f"s{i}_T1w.nii.gz").read_bytes())
    table = ["--classes", str(classes)]
    parts = {"train": [f"s{i}" for i in range(5)], "held_out": ["s5", "s6", "s7", "s8"]}
    (tmp_path / "split.json").write_text(json.dumps(parts))
    split = ["--split", str(tmp_path / "split.json"), "--jobs", "1"]
    assert pretrain("rotation", scans, out, *table, *split) == 0
    history = pd.read_csv(out / "history.csv")
    for score in ("5-nearest neighbours/accuracy", "linear/balanced_accuracy", "retrieval/ndcg"):
        probed = history[f"probe/{score}"]
        assert probed.isna().tolist() == [True, False] and 0 <= probed.iloc[1] <= 1
    words = ["probe", str(out / "encoder"), "--data", str(out / "prepared"), "--out", str(tmp_path / "probe")]
    assert main([*words, *table, "--test_share", "0.45", "--random", "false"]) == 0
    assert {"linear", "retrieval"} <= set(pd.read_csv(tmp_path / "probe" / "probe.csv")["probe"])


def test_classes_that_cannot_be_probed_stop_no_pretraining(
    prepared_cohort: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "classes.csv").write_text("scan,class\n" + "".join(f"s{i},{'ba'[i > 0]}\n" for i in range(6)))
    seen = classified(PreparedDataset(prepared_cohort), tmp_path / "classes.csv")
    watch = Watch(seen.select(["s2", "s3", "s4", "s5"]), RECIPE, train=seen.select(["s0", "s1", "s2", "s3"]))
    method = build_pretext("rotation", build_encoder("unet", 1, 3, channels=[4, 8], norm="group"))
    assert not any(name.startswith("probe/") for name in watch(method))
    assert "Probing is left out from here on: The test part holds the class a alone" in caplog.text
    caplog.clear()
    watch(method)
    assert "Probing" not in caplog.text


def test_the_few_scans_that_are_probed_are_of_each_class(prepared_cohort: Path, tmp_path: Path) -> None:
    (tmp_path / "classes.csv").write_text("scan,class\n" + "".join(f"s{i},{'ab'[i == 5]}\n" for i in range(6)))
    data = PreparedDataset(prepared_cohort)
    assert few_with_labels(data, 3).scans == ("s0", "s1", "s2")
    assert few_with_labels(classified(data, tmp_path / "classes.csv"), 3).scans == ("s0", "s1", "s5")


def test_classes_of_recordings_are_refused(classes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["pretrain", "monodepth2", "--data", "video.mp4", "--out", str(tmp_path / "out")]
    assert main([*words, "--classes", str(classes)]) == 2
    assert "--classes are of images, and monodepth2 learns from recordings" in capsys.readouterr().err


def test_scans_without_labels_or_classes_are_told_that_nothing_can_be_scored(
    cohort: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    for i in range(4):
        (folder / f"s{i}.nii.gz").write_bytes((cohort / f"s{i}_T1w.nii.gz").read_bytes())
    words = ["probe", str(finished / "encoder"), "--data", str(folder), "--out", str(tmp_path / "out"), "--jobs", "1"]
    assert main([*words, "--random", "false"]) == 0
    assert "nothing can be scored" in capsys.readouterr().out
    assert "<img" in (tmp_path / "out" / "report.html").read_text()


def refusal(capsys: pytest.CaptureFixture[str], code: int) -> str:
    assert code == 2
    return capsys.readouterr().err


def test_what_a_task_cannot_be_learnt_from_is_refused(
    prepared_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--recipe.patch_size", "[64,16,16]"]
    said = refusal(capsys, pretrain("simclr", prepared_cohort, tmp_path / "a", *small))
    assert "images are smaller than the patch (64, 16, 16), such as s" in said and "fits all" in said
    said = refusal(capsys, pretrain("barlow_twins", prepared_cohort, tmp_path / "b", "--recipe.batch_size", "1"))
    assert "at least 2 per device, got 1" in said
    said = refusal(capsys, pretrain("colorization", prepared_cohort, tmp_path / "c"))
    assert "needs RGB images, 3 channels; these have 1" in said
    many = ["--method_arguments", "{k: 50}"]
    assert "50" in refusal(capsys, pretrain("deep_cluster", prepared_cohort, tmp_path / "d", *many))
    said = refusal(capsys, pretrain("simsiam", prepared_cohort, tmp_path / "e"))
    assert "no method of pretraining 'simsiam'. Methods: barlow_twins" in said
    said = refusal(capsys, pretrain("simclr", prepared_cohort, tmp_path / "f", "--recipe.patch_size", "[16,16]"))
    assert "does not fit 3D images" in said


def test_an_unknown_method_is_told_before_anything_is_prepared(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pretrain", "mocco", "--data", str(cohort), "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert "no method of pretraining 'mocco'" in told and "monodepth2" in told
    assert not (tmp_path / "out").exists()


def test_constant_and_broken_images_are_named_and_left_out(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    for i in range(4):
        (folder / f"s{i}.nii.gz").write_bytes((cohort / f"s{i}_T1w.nii.gz").read_bytes())
    constant = np.full((20, 20, 20), 7, dtype=np.float32)
    nib.save(nib.Nifti1Image(constant, np.eye(4)), folder / "flat.nii.gz")
    constant[3, 3, 3] = np.nan
    nib.save(nib.Nifti1Image(constant, np.eye(4)), folder / "broken.nii.gz")
    assert pretrain("simclr", folder, tmp_path / "out", "--jobs", "1") == 0
    said = capsys.readouterr().out
    assert "refused              2" in said and "flat" in said and "broken" in said
    for name in ("s1", "s2", "s3"):
        (folder / f"{name}.nii.gz").unlink()
    assert "at least 2" in refusal(capsys, pretrain("simclr", folder, tmp_path / "one", "--jobs", "1"))
