"""From prepared images with classes to a classifier's folder."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from medssl.cli import main
from medssl.data.catalog import catalog
from medssl.data.preparation import Preparation
from medssl.data.prepare import prepare
from medssl.data.prepared import PreparedDataset
from medssl.errors import InputError
from medssl.evaluation.embedding import embed_scans
from medssl.fine_tuning import load_classifier, load_detector
from medssl.networks import build_encoder
from medssl.pretrained import PretrainedEncoder, save_encoder
from medssl.start import Start
from medssl.tracking import find_runs, tracking_uri
from medssl.train_classification import ClassificationScores, mean_auc, train_classification
from medssl.train_segmentation import Recipe
from medssl.views import Views

SMALL = {"channels": [4, 8], "norm": "group"}
RECIPE = Recipe(patch_size=(16, 16, 16), batch_size=3, epoch_steps=2, workers=0, precision="fp32")


@pytest.fixture(scope="module")
def images(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine scans without labels: s0, s2, s4, ... are well, s1, s3, ... ill, and of s8 nothing is known."""
    folder = tmp_path_factory.mktemp("classes")
    table = folder / "classes.csv"
    rows = [f"s{number},{('well', 'ill')[number % 2]}" for number in range(8)]
    table.write_text("\n".join(["scan,class", *rows]) + "\n")
    prepare(catalog(cohort), folder / "prepared", jobs=1, progress=False, classes=table)
    return folder / "prepared"


@pytest.fixture(scope="module")
def trained(images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    data, out = PreparedDataset(images), tmp_path_factory.mktemp("out")
    return out, train_classification(
        data.select(["s0", "s1", "s2", "s3", "s8"]),
        data.select(["s4", "s5", "s6"]),
        out,
        steps=4,
        encoder_arguments=SMALL,
        method_arguments={"label_smoothing": 0.1, "views": Views(overlap=0.6)},
        recipe=RECIPE,
        origin={"run_id": "7"},
    )


def test_a_training_leaves_its_history_and_a_classifier(trained: tuple[Path, pd.DataFrame]) -> None:
    out, history = trained
    pd.testing.assert_frame_equal(pd.read_csv(out / "history.csv"), history)
    assert list(history["step"]) == [2, 4]
    assert {"balanced_accuracy", "auc", "recall/ill", "recall/well", "train/accuracy"} <= set(history.columns)
    assert {p.name for p in (out / "classifier").iterdir()} == {"weights.safetensors", "classifier.json"}


def test_a_classifier_that_is_read_back_scores_the_same(images: Path, trained: tuple[Path, pd.DataFrame]) -> None:
    out, history = trained
    loaded = load_classifier(out / "classifier")
    assert loaded.method.classes == ("ill", "well") and loaded.method.views == Views(overlap=0.6)
    assert (loaded.encoder, loaded.patch_size, loaded.run) == ("unet", (16, 16, 16), {"run_id": "7"})
    assert loaded.preparation == Preparation() and not loaded.method.training
    held_out = PreparedDataset(images).select(["s4", "s5", "s6"])
    scores = ClassificationScores(held_out, (16, 16, 16))(loaded.method)
    last = history.iloc[-1]
    assert scores == pytest.approx({name: last[name] for name in scores}, nan_ok=True)


def test_a_classifier_is_no_detector(trained: tuple[Path, pd.DataFrame]) -> None:
    with pytest.raises(InputError, match=r"is no detector; it lacks detector\.json"):
        load_detector(trained[0] / "classifier")


def test_an_image_is_scored_by_the_mean_of_its_windows(images: Path, trained: tuple[Path, pd.DataFrame]) -> None:
    method, one = load_classifier(trained[0] / "classifier").method, PreparedDataset(images).select(["s0"])
    z = embed_scans(method.encoder, one, (16, 16, 16))
    right = method.probabilities(z)[0].argmax() == 1
    scores = ClassificationScores(one, (16, 16, 16))(method)
    assert scores["recall/well"] == scores["balanced_accuracy"] == float(right)
    assert np.isnan(scores["recall/ill"]) and np.isnan(scores["auc"])


def test_the_area_under_the_curve_is_averaged_over_the_classes_that_are_held() -> None:
    probability = np.array([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.4, 0.5, 0.1], [0.5, 0.4, 0.1]])
    # Class 0: images 0 and 2 against 1 and 3, three of four pairs in order. Class 1: 1 and 3 against 0 and 2, three.
    assert mean_auc(probability, np.array([0, 1, 0, 1])) == pytest.approx(0.75)
    assert np.isnan(mean_auc(probability, np.array([1, 1, 1, 1])))


def test_a_pretrained_encoder_that_is_frozen_stays(images: Path, tmp_path: Path) -> None:
    torch.manual_seed(3)
    encoder = build_encoder("unet", 1, 3, **SMALL)
    save_encoder(PretrainedEncoder(encoder, "unet", SMALL, Preparation(), (16, 16, 16)), tmp_path / "encoder")
    start = Start(encoder=str(tmp_path / "encoder"), frozen=True)
    train_classification(
        PreparedDataset(images), None, tmp_path, steps=2, encoder_arguments=SMALL, recipe=RECIPE, start=start
    )
    kept = load_classifier(tmp_path / "classifier").method.encoder.state_dict()
    assert all(torch.equal(kept[name], value) for name, value in encoder.state_dict().items())


def test_images_without_a_class_are_not_used_and_said(
    images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="medssl"):
        train_classification(PreparedDataset(images), None, tmp_path, steps=1, encoder_arguments=SMALL, recipe=RECIPE)
    assert "1 of 9 images have no class and are not used" in caplog.text


def test_what_cannot_be_learnt_from_is_refused(images: Path, prepared_cohort: Path, tmp_path: Path) -> None:
    data = PreparedDataset(images)

    def train(data: PreparedDataset, **more: object) -> None:
        train_classification(data, None, tmp_path, steps=1, **{"recipe": RECIPE, **more})

    with pytest.raises(InputError, match=r"prepared: none of these 6 images has a class"):
        train(PreparedDataset(prepared_cohort))
    with pytest.raises(InputError, match=r"all training images are of one class, 'well'"):
        train(data.select(["s0", "s2"]))
    with pytest.raises(InputError, match=r"recipe\.edge_factor is of segmentation, and classification has no use"):
        train(data, recipe=Recipe(edge_factor=2))
    with pytest.raises(InputError, match=r"'classification' cannot be built .*heat"):
        train(data, method_arguments={"heat": 1})
    with pytest.raises(InputError, match=r"argument 'classes' follows from the data"):
        train(data, method_arguments={"classes": ["a", "b"]})
    with pytest.raises(InputError, match=r"a classifier starts from an encoder"):
        train(data, start=Start(model="m"))


def test_the_command_trains_a_classifier(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", str(images), "--out", str(tmp_path), "--task", "classification", "--steps", "2"]
    small = ["--network_arguments", "{channels: [4, 8]}", "--method_arguments", "{dropout: 0.1, views: {overlap: 0.6}}"]
    recipe = ["--recipe.patch_size", "[16,16,16]", "--recipe.workers", "0", "--validation_count", "4"]
    assert main([*words, *small, *recipe]) == 0
    assert "Validation balanced accuracy after the last epoch" in capsys.readouterr().out
    assert load_classifier(tmp_path / "classifier").method.dropout == 0.1
    (run,) = find_runs(tracking_uri(tmp_path), "train")
    assert run.params["task"] == "classification" and "auc" in run.metrics


def test_the_command_goes_on_from_a_classifiers_encoder_with_the_arguments_that_it_has(
    images: Path, trained: tuple[Path, pd.DataFrame], tmp_path: Path
) -> None:
    words = ["train", str(images), "--out", str(tmp_path), "--task", "classification", "--steps", "1"]
    start = ["--encoder", str(trained[0] / "classifier"), "--frozen_encoder", "true", "--validation_count", "0"]
    assert main([*words, *start, "--recipe.patch_size", "[16,16,16]", "--recipe.workers", "0"]) == 0
    before, after = (load_classifier(folder / "classifier") for folder in (trained[0], tmp_path))
    assert after.encoder_arguments == SMALL
    assert all(
        torch.equal(a, b)
        for a, b in zip(before.method.encoder.parameters(), after.method.encoder.parameters(), strict=True)
    )


def test_the_command_refuses_options_of_another_task(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", str(images), "--out", str(tmp_path)]
    assert main([*words, "--task", "classification", "--boosting", "{}"]) == 2
    assert main([*words, "--task", "detection", "--weights", "m"]) == 2
    assert main([*words, "--method_arguments", "{dropout: 0.1}"]) == 2
    said = capsys.readouterr().err
    assert "--boosting does not go with --task classification: leave it out." in said
    assert "--weights does not go with --task detection: leave it out; give --encoder" in said
    assert "--method_arguments does not go with --task segmentation" in said
