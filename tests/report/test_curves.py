"""The drawings of a training show its history, the poorest structure first."""

import numpy as np
import pandas as pd
import pytest

from medssl.errors import InputError
from medssl.report import ecb_picture, losses_picture

NAMES = ("Thalamus", "Pallidum", "Amygdala")


def history(epochs=4):
    """Recall of three structures, the second worst at the start; the third absent once; the weights that follow."""
    rows = []
    for epoch in range(epochs):
        recall = np.array([0.9, 0.4, 0.6]) + 0.02 * epoch
        row = {f"recall/{name}": value for name, value in zip(NAMES, recall, strict=True)}
        row |= {f"dice/{name}": value - 0.1 for name, value in zip(NAMES, recall, strict=True)}
        row |= {f"weight/{name}": value for name, value in zip(NAMES, (0.5, 5.0, 1.0), strict=True)}
        row |= {"step": 50.0 * epoch, "dice/mean": recall.mean() - 0.1}
        rows.append(row | ({"train/loss": 2.0 - epoch / 4, "learning_rate": 1e-3} if epoch else {}))
    table = pd.DataFrame(rows)
    table.loc[2, "recall/Amygdala"] = np.nan
    return table


def test_accuracies_and_weights_are_drawn_with_the_poorest_on_top(tmp_path, drawn):
    figure = drawn(ecb_picture, history(), tmp_path / "ecb.png")
    accuracy, weight = figure.axes[:2]
    assert [text.get_text() for text in accuracy.get_yticklabels()] == ["Pallidum", "Amygdala", "Thalamus"]
    assert [text.get_text() for text in accuracy.get_xticklabels()] == ["0", "50", "100", "150"]
    shown = accuracy.images[0].get_array()
    assert shown[0].tolist() == pytest.approx([0.4, 0.42, 0.44, 0.46])
    assert shown.mask[1].tolist() == [False, False, True, False]
    assert weight.images[0].get_array()[:, 0].tolist() == [5.0, 1.0, 0.5]
    assert {text.get_text() for text in weight.texts} == {"5.00", "1.00", "0.50"}
    assert "grey: not in the validation scans" in figure.get_suptitle()


def test_a_weight_of_one_is_the_middle_of_the_colours(tmp_path, drawn):
    weight = drawn(ecb_picture, history(), tmp_path / "ecb.png").axes[1].images[0]
    assert weight.norm(1.0) == pytest.approx(0.5)
    assert 0 <= weight.norm(0.2) < weight.norm(5.0) <= 1


def test_many_epochs_are_drawn_without_numbers_in_the_cells(tmp_path, drawn):
    accuracy = drawn(ecb_picture, history(40), tmp_path / "ecb.png").axes[0]
    assert not accuracy.texts
    assert len(accuracy.get_xticks()) <= 12


def test_boosting_by_dice_is_drawn_by_dice(tmp_path, drawn):
    accuracy = drawn(ecb_picture, history(), tmp_path / "ecb.png", accuracy="dice").axes[0]
    assert accuracy.images[0].get_array()[0, 0] == pytest.approx(0.3)
    assert len(accuracy.get_yticklabels()) == 3  # the mean is no structure


def test_a_history_without_boosting_is_refused_with_what_it_has(tmp_path):
    with pytest.raises(InputError, match=r"no weights and accuracies 'recall/<structure>'.*dice, step"):
        ecb_picture(pd.DataFrame({"step": [1.0], "dice/mean": [0.5]}), tmp_path / "ecb.png")


def test_losses_dice_and_learning_rate_are_drawn_where_they_are_known(tmp_path, drawn):
    loss, dice, rate = drawn(losses_picture, history(), tmp_path / "losses.png").axes
    assert loss.lines[0].get_xdata().tolist() == [50, 100, 150]
    assert loss.lines[0].get_ydata().tolist() == [1.75, 1.5, 1.25]
    assert dice.lines[0].get_xdata().tolist() == [0, 50, 100, 150]
    assert rate.lines[0].get_ydata().tolist() == [1e-3] * 3
    band = dice.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == pytest.approx((0.3, 0.86))


def test_the_precision_of_a_detection_is_drawn_from_its_worst_to_its_best_structure(tmp_path, drawn):
    table = pd.DataFrame({"step": [50.0, 100.0], "train/loss": [2.0, 1.0], "ap50/mean": [0.3, 0.5]})
    table = table.assign(**{"ap10/mean": [0.6, 0.8], "ap50/A": [0.2, 0.4], "ap50/B": [0.4, 0.6], "ap50/C": np.nan})
    _, precision = drawn(losses_picture, table, tmp_path / "losses.png").axes
    assert precision.get_title() == "average precision on the validation scans"
    assert [line.get_ydata().tolist() for line in precision.lines] == [[0.3, 0.5], [0.6, 0.8]]
    band = precision.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == pytest.approx((0.2, 0.6))


def test_the_recall_of_a_classification_is_drawn_with_what_else_is_known(tmp_path, drawn):
    table = pd.DataFrame({"step": [50.0, 100.0], "balanced_accuracy": [0.5, 0.7], "auc": [np.nan, 0.8]})
    table = table.assign(**{"recall/ill": [0.2, 0.6], "recall/well": 0.8})
    (recall,) = drawn(losses_picture, table, tmp_path / "losses.png").axes
    assert [line.get_xdata().tolist() for line in recall.lines] == [[50, 100], [100]]
    assert [line.get_label() for line in recall.lines] == ["mean (balanced accuracy)", "area under the ROC curve"]
    band = recall.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == pytest.approx((0.2, 0.8))
    without = table.drop(columns=["auc", "recall/ill", "recall/well"])
    (recall,) = drawn(losses_picture, without, tmp_path / "losses.png").axes
    assert len(recall.lines) == 1 and not recall.collections


def test_a_segmentation_has_no_panel_of_recall(tmp_path, drawn):
    titles = [axes.get_title() for axes in drawn(losses_picture, history(), tmp_path / "losses.png").axes]
    assert titles == ["training loss", "Dice on the validation scans", "learning rate"]


def test_a_history_without_validation_has_no_panel_for_it(tmp_path, drawn):
    figure = drawn(
        losses_picture, pd.DataFrame({"step": [1.0, 2.0], "train/loss": [2.0, 1.0]}), tmp_path / "losses.png"
    )
    assert [axes.get_title() for axes in figure.axes] == ["training loss"]


def test_an_empty_history_is_refused(tmp_path):
    with pytest.raises(
        InputError, match="has none of train/, dice/mean, ap50/mean, balanced_accuracy, learning_rate; it has step"
    ):
        losses_picture(pd.DataFrame({"step": [1.0]}), tmp_path / "losses.png")


def test_pictures_are_written_whole(tmp_path):
    ecb_picture(history(), tmp_path / "ecb.png")
    losses_picture(history(), tmp_path / "losses.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ecb.png", "losses.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.iterdir())
