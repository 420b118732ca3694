"""Videos in, a method, its encoder and a page out; started again it goes on."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from recordings import observations, write_recordings

from medssl.cli import main
from medssl.method_file import load_method
from medssl.methods.sfm_depth import SfmDepth
from medssl.networks import build_encoder
from medssl.pretrained import load_encoder

FRAMES = 12


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    poses = np.tile(np.eye(4), (FRAMES, 1, 1))
    poses[:, 0, 3] = 0.05 * np.arange(FRAMES)
    root = tmp_path_factory.mktemp("videos")
    write_recordings(root, (FRAMES,) * 3, poses=poses, observations=observations(FRAMES))
    return root


WORDS = ["--encoder_arguments", "{channels: [8, 16, 16], norm: group}", "--steps", "2", "--jobs", "1"]
CLIPS = ["--clips.batch_size", "2", "--clips.epoch_steps", "1", "--clips.watched", "2", "--clips.workers", "0"]


def test_a_method_learns_from_clips_and_leaves_what_others_can_use(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["pretrain", "sfm_depth", "--data", str(data), "--out", str(out), *WORDS, *CLIPS]
    assert main([*words, "--clips.held_out_points", "0.3"]) == 0
    for name in ("report.html", "history.csv", "pictures/clip.png", "pictures/training.png", "split.json"):
        assert (out / name).is_file()
    history = pd.read_csv(out / "history.csv")
    assert {"held_out/loss", "depth/abs_rel"} <= set(history.columns) and len(history) == 2
    loaded = load_method(out / "method")
    assert isinstance(loaded.method, SfmDepth) and loaded.recipe["held_out_points"] == 0.3
    encoder = build_encoder("unet", 3, 2, channels=(8, 16, 16), norm="group")
    assert load_encoder(out / "encoder")[0].channels == encoder.channels


def test_mono_video_given_to_stereo_is_refused(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["pretrain", "stereo_depth", "--data", str(data), "--out", str(tmp_path / "out"), *WORDS, *CLIPS]
    assert main(words) == 2
    assert "has no second camera" in capsys.readouterr().err
    assert not (tmp_path / "out" / "mlflow.db").exists()  # before a run begins
