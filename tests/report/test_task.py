"""Pictures of tasks and of representations show what they were given."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from medssl.errors import InputError
from medssl.report.task import representation_picture, task_picture


@pytest.mark.parametrize("shape", [(3, 1, 16, 12), (3, 3, 16, 12), (2, 1, 12, 10, 8)])
def test_a_task_is_drawn_with_a_column_per_picture(tmp_path: Path, shape: tuple[int, ...]) -> None:
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    task_picture({"input": image}, tmp_path / "one.png")
    task_picture({"input": image, "target": image, "prediction": 0 * image}, tmp_path / "three.png", "Title")
    one, three = (Image.open(tmp_path / name) for name in ("one.png", "three.png"))
    assert three.width > one.width and three.height == one.height
    assert np.asarray(three.convert("L")).std() > 10


def test_a_volume_shows_its_middle_slice(tmp_path: Path) -> None:
    volume = torch.zeros(1, 1, 8, 8, 9)
    task_picture({"input": volume}, tmp_path / "empty.png")
    volume[..., 0] = torch.rand(8, 8, generator=torch.Generator().manual_seed(0))
    task_picture({"input": volume}, tmp_path / "elsewhere.png")
    volume[..., 4] = volume[..., 0]
    task_picture({"input": volume}, tmp_path / "middle.png")
    empty, elsewhere, middle = (np.asarray(Image.open(tmp_path / f"{n}.png")) for n in ("empty", "elsewhere", "middle"))
    assert np.array_equal(empty, elsewhere) and not np.array_equal(empty, middle)


def test_a_picture_stands_upright_and_a_slice_of_a_volume_has_its_second_axis_upwards(tmp_path: Path) -> None:
    picture = torch.zeros(1, 1, 16, 16)
    picture[..., :8] = 1  # the first rows of a picture, columns first
    task_picture({"input": picture}, tmp_path / "picture.png")
    task_picture({"input": picture.unsqueeze(-1)}, tmp_path / "volume.png")
    for name, bright in (("picture", "above"), ("volume", "below")):
        grey = np.asarray(Image.open(tmp_path / f"{name}.png").convert("L"))
        dark = np.flatnonzero((grey < 10).mean(axis=1) > 0.3).mean()  # middle of the rows with the dark half
        light = np.flatnonzero((grey < 10).mean(axis=1) <= 0.3)
        light = light[(light > grey.shape[0] * 0.3) & (light < grey.shape[0] * 0.9)].mean()
        assert (light < dark) == (bright == "above"), name


def test_the_left_of_a_volume_stands_on_the_right_and_that_is_said(tmp_path: Path) -> None:
    volume = torch.zeros(1, 1, 16, 16, 3)
    volume[:, :, :8] = 1  # the patient's left half, as the first axis runs to the right
    task_picture({"input": volume}, tmp_path / "volume.png")
    task_picture({"input": volume[..., 0]}, tmp_path / "picture.png")
    for name, bright in (("volume", "right"), ("picture", "left")):
        grey = np.asarray(Image.open(tmp_path / f"{name}.png").convert("L"))
        dark = np.flatnonzero((grey < 10).mean(axis=0) > 0.3).mean()
        assert (dark < grey.shape[1] / 2) == (bright == "right"), name


def test_nothing_to_draw_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least one named batch"):
        task_picture({}, tmp_path / "task.png")
    with pytest.raises(InputError, match="neither train/loss nor health"):
        representation_picture(pd.DataFrame({"step": [1]}), tmp_path / "health.png")


def test_a_history_is_drawn_with_a_panel_per_measure(tmp_path: Path) -> None:
    steps = [100, 200, 300]
    history = pd.DataFrame({"step": steps, "train/loss": [3.0, 2, 1], "held_out/loss": [3.0, 2.5, 2.4]})
    representation_picture(history, tmp_path / "loss.png")
    measures = {f"health/{name}": [0.1, 0.2, 0.3] for name in ("std", "effective_rank", "uniformity")}
    representation_picture(history.assign(**measures, **{"clusters/entropy": [0.9, 0.8, 0.9]}), tmp_path / "all.png")
    loss, every = (Image.open(tmp_path / name) for name in ("loss.png", "all.png"))
    assert every.width == 3 * loss.width and every.height == 2 * loss.height
