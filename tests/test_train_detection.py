"""From prepared scans with labels to a detector's folder."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from medssl.cli import main
from medssl.data.prepared import PreparedDataset
from medssl.errors import InputError
from medssl.evaluation.detection import detect_windows
from medssl.fine_tuning import load_detector
from medssl.model import load_model
from medssl.train_detection import DetectionScores, train_detection
from medssl.train_segmentation import Recipe

SMALL = {"channels": [4, 8], "norm": "group"}
RECIPE = Recipe(patch_size=(16, 16, 16), epoch_steps=2, workers=0, precision="fp32")


@pytest.fixture(scope="module")
def trained(prepared_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    data, out = PreparedDataset(prepared_cohort), tmp_path_factory.mktemp("out")
    return out, train_detection(
        data.select(["s0", "s1", "s2"]),
        data.select(["s3", "s4"]),
        out,
        steps=3,
        encoder_arguments=SMALL,
        method_arguments={"width": 8, "anchors": [3.0, 5.0]},
        recipe=RECIPE,
    )


def test_a_training_leaves_its_history_and_a_detector(trained: tuple[Path, pd.DataFrame]) -> None:
    out, history = trained
    pd.testing.assert_frame_equal(pd.read_csv(out / "history.csv"), history)
    assert list(history["step"]) == [2, 3]
    assert {"ap50/mean", "ap10/mean", "ap50/Ball", "ap10/Left-Box", "train/box"} <= set(history.columns)
    assert {p.name for p in (out / "detector").iterdir()} == {"weights.safetensors", "detector.json"}


def test_a_detector_that_is_read_back_finds_and_scores_the_same(
    prepared_cohort: Path, trained: tuple[Path, pd.DataFrame]
) -> None:
    out, history = trained
    loaded, again = load_detector(out / "detector"), load_detector(out / "detector")
    assert loaded.method.structures == ("Left-Box", "Right-Box", "Ball") and not loaded.method.training
    data = PreparedDataset(prepared_cohort).select(["s3", "s4"])
    image = torch.from_numpy(data.image(0))
    for one, other in zip(
        detect_windows(loaded.method, image, loaded.patch_size),
        detect_windows(again.method, image, loaded.patch_size),
        strict=True,
    ):
        assert torch.equal(one, other)
    last = history.iloc[-1]
    scores = DetectionScores(data, RECIPE)(loaded.method)
    assert scores == pytest.approx({name: last[name] for name in scores}, nan_ok=True)


def test_it_learns_where_the_structures_of_new_scans_are(prepared_cohort: Path, tmp_path: Path) -> None:
    data = PreparedDataset(prepared_cohort)
    history = train_detection(
        data.select(["s0", "s1", "s2", "s3"]),
        data.select(["s4", "s5"]),
        tmp_path,
        steps=60,
        encoder_arguments={"channels": [8, 16], "norm": "group"},
        method_arguments={"width": 16},
        recipe=Recipe(
            patch_size=(24, 24, 24),
            batch_size=2,
            optimizer="adamw",
            learning_rate=3e-3,
            epoch_steps=60,
            workers=0,
            precision="fp32",
        ),
    )
    assert history["ap10/mean"].iloc[-1] > 0.9


def test_the_score_of_a_structure_that_no_scan_holds_is_unknown(
    prepared_cohort: Path, trained: tuple[Path, pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = PreparedDataset(prepared_cohort).select(["s3"])
    label = data.label(0)
    monkeypatch.setattr(PreparedDataset, "label", lambda self, i: np.where(label == 3, 0, label).astype(np.uint8))
    scores = DetectionScores(data, RECIPE)(load_detector(trained[0] / "detector").method)
    assert np.isnan(scores["ap50/Ball"]) and not np.isnan(scores["ap50/mean"])


def test_what_cannot_be_learnt_from_is_refused(prepared_cohort: Path, tmp_path: Path) -> None:
    data = PreparedDataset(prepared_cohort)

    def train(**more: object) -> None:
        train_detection(data, None, tmp_path, steps=1, **{"recipe": RECIPE, **more})

    with pytest.raises(InputError, match=r"recipe\.frequency_power is of segmentation, and detection has no use"):
        train(recipe=Recipe(frequency_power=1))
    with pytest.raises(InputError, match=r"argument 'voxels' follows from the data"):
        train(method_arguments={"voxels": []})


def test_the_command_trains_a_detector(
    prepared_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", str(prepared_cohort), "--out", str(tmp_path), "--task", "detection", "--steps", "2"]
    small = ["--network_arguments", "{channels: [4, 8]}", "--method_arguments", "{width: 8}"]
    recipe = ["--recipe.patch_size", "[16,16,16]", "--recipe.workers", "0"]
    assert main([*words, *small, *recipe]) == 0
    assert "Validation average precision at IoU 0.5 after the last epoch" in capsys.readouterr().out
    assert (tmp_path / "detector" / "detector.json").is_file() and (tmp_path / "pictures" / "training.png").is_file()


def test_other_tasks_start_from_the_encoder_of_a_detector_and_say_how_much_of_it_fits(
    prepared_cohort: Path, trained: tuple[Path, pd.DataFrame], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = ["train", str(prepared_cohort), "--out", str(tmp_path), "--encoder", str(trained[0] / "detector")]
    recipe = ["--frozen_encoder", "true", "--recipe.patch_size", "[16,16,16]", "--recipe.workers", "0"]
    with caplog.at_level(logging.INFO, logger="medssl"):
        assert main([*words, *recipe, "--steps", "1", "--validation_count", "0"]) == 0
    assert "detector: 100.0% of the network's numbers are filled" in caplog.text
    model = load_model(tmp_path / "model")
    assert model.network_arguments == SMALL
    expected = load_detector(trained[0] / "detector").method.encoder.state_dict()
    assert all(torch.equal(model.network.encoder.state_dict()[name], value) for name, value in expected.items())
