"""Pretraining, fine-tuning and probing as a user types them, and what cannot be pretrained on."""

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch

from medssl.cli import main
from medssl.data.classes import classified
from medssl.data.preparation import Preparation
from medssl.data.prepared import PreparedDataset
from medssl.methods import build_pretext
from medssl.methods.deep_cluster import DeepCluster
from medssl.model import load_model
from medssl.networks import build_encoder
from medssl.pretrain import CollapsedError, PretrainRecipe, Watch, estimate, few_with_labels, held_out_batches
from medssl.pretrained import PretrainedEncoder, load_pretrained, save_encoder

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


def test_a_probe_compares_with_random_weights(
    prepared_cohort: Path, finished: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = ["probe", str(finished / "encoder"), "--data", str(prepared_cohort), "--out", str(tmp_path / "probe")]
    assert main([*words, "--steps", "5", "--crops", "4"]) == 0
    assert "prepared otherwise" not in caplog.text
    table = pd.read_csv(tmp_path / "probe" / "probe.csv")
    dice = table[(table["probe"] == "segmentation") & (table["score"] == "dice/mean")]
    assert set(dice["encoder"]) == {"pretrained", "random weights"} and dice["value"].between(0, 1).all()
    page = (tmp_path / "probe" / "report.html").read_text()
    heads = page[page.index("<thead>") : page.index("</thead>")]
    assert [name for name in ("encoder", "pretrained", "random weights") if f">{name}<" in heads] == [
        "pretrained",
        "random weights",
    ]
    assert page.index("dice/mean") < page.index("dice/Left-Box")


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
    said = refusal(capsys, pretrain("deep_cluster", prepared_cohort, tmp_path / "d", *many))
    assert "k=50 clusters need at least 50 images, got 5" in said
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
    assert "refused              2" in said
    assert "flat.nii.gz: every voxel is 7" in said and "broken.nii.gz: 1 of 8000 voxels are NaN" in said
    for name in ("s1", "s2", "s3"):
        (folder / f"{name}.nii.gz").unlink()
    for method in ("simclr", "moco", "barlow_twins"):
        told = refusal(capsys, pretrain(method, folder, tmp_path / method, "--jobs", "1"))
        assert "it needs at least 2, got 1. Add images." in told


def built(name: str, **arguments: object) -> DeepCluster:
    torch.manual_seed(0)
    method = build_pretext(name, build_encoder("unet", 1, 3, channels=[4, 8], norm="group"), **arguments)
    assert isinstance(method, DeepCluster)
    return method


def test_clusters_that_collapse_are_named_and_stop_the_training(
    prepared_cohort: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = PreparedDataset(prepared_cohort)
    method = built("deep_cluster", k=2)
    method.start_epoch(held_out_batches(method, data, RECIPE))
    watch = Watch(data, replace(RECIPE, patience=2, probe_every=0))
    assert watch(method.eval())["health/collapsed"] == 0
    method.assignments.zero_()  # all samples in one of two clusters
    assert watch(method)["health/collapsed"] == 1
    assert "Collapse of the clusters: 1 of 2 are empty" in caplog.text
    with pytest.raises(CollapsedError, match="Stopped after 2 looks in a row: Collapse of the clusters"):
        watch(method)


def test_an_estimate_leaves_the_method_as_it_was_and_warns_of_nothing(
    prepared_cohort: Path, recwarn: pytest.WarningsRecorder
) -> None:
    method = built("deep_cluster", k=5)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    expected = estimate(method, PreparedDataset(prepared_cohort), RECIPE, steps=1)
    assert not recwarn.list
    assert all(torch.equal(v, before[n]) or v.isnan().all() for n, v in method.state_dict().items())
    assert expected.minutes(2000) == pytest.approx(2000 * expected.seconds_per_step / 60)
    assert expected.memory_mib is None or expected.memory_mib > 10


def kept_encoder(folder: Path, dims: int = 3, channels: int = 1, preparation: Preparation = Preparation()) -> Path:
    arguments = {"channels": [4, 8], "norm": "group"}
    network = build_encoder("unet", channels, dims, **arguments)
    save_encoder(PretrainedEncoder(network, "unet", arguments, preparation, (16,) * dims), folder)
    return folder


def test_an_encoder_of_other_dimensions_or_channels_is_refused(
    prepared_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flat = str(kept_encoder(tmp_path / "flat", dims=2))
    words = ["--data", str(prepared_cohort), "--out", str(tmp_path / "out")]
    said = refusal(capsys, main(["probe", flat, *words]))
    assert "holds 3D images of 1 channels; the encoder sees 2D ones of 1" in said
    said = refusal(capsys, main(["probe", str(kept_encoder(tmp_path / "rgb", channels=3)), *words]))
    assert "the encoder sees 3D ones of 3" in said
    words = ["train", str(prepared_cohort), "--out", str(tmp_path / "fine"), "--steps", "1"]
    said = refusal(capsys, main([*words, "--encoder", flat, "--recipe.patch_size", "[16,16,16]"]))
    assert "is for 2D images, the network is for 3D ones" in said


def test_an_encoder_of_another_architecture_or_a_later_version_is_refused(
    prepared_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = kept_encoder(tmp_path / "encoder")
    words = ["train", str(prepared_cohort), "--out", str(tmp_path / "fine"), "--encoder", str(folder), "--steps", "1"]
    other = ["--network", "vit", "--network_arguments", "{patch: 8, width: 12, depth: 1, heads: 2}"]
    said = refusal(capsys, main([*words, *other, "--recipe.patch_size", "[16,16,16]"]))
    assert "its weights do not fit the network: 0.0% of the network's numbers are filled" in said
    told = json.loads((folder / "encoder.json").read_text())
    (folder / "encoder.json").write_text(json.dumps({**told, "format": 99, "medssl": "9.9"}))
    later = "encoder.json: is of format 99, written by medssl 9.9"
    assert later in refusal(capsys, main(words))
    words = ["probe", str(folder), "--data", str(prepared_cohort), "--out", str(tmp_path / "out")]
    assert later in refusal(capsys, main(words))


def test_images_prepared_otherwise_are_probed_and_that_is_said(
    prepared_cohort: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = kept_encoder(tmp_path / "coarse", preparation=Preparation(2.0))
    words = ["--data", str(prepared_cohort), "--random", "false", "--steps", "1", "--crops", "1"]
    assert main(["probe", str(folder), *words, "--out", str(tmp_path / "out")]) == 0
    assert "prepared otherwise (spacing_mm 2.0, now 1.0)" in caplog.text
