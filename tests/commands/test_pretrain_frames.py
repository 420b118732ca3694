"""Methods that learn from images learn from the frames of videos, and hold out whole videos."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from recordings import write_recordings

from medssl.cli import main
from medssl.data.recording_frames import RecordingFrames
from medssl.data.splits import load_split
from medssl.data.video_writing import write_video
from medssl.method_file import load_method
from medssl.methods import build_pretext
from medssl.methods.colorization import Colorization
from medssl.networks import build_encoder
from medssl.pretrain import PretrainRecipe
from medssl.pretrain import pretrain as train
from medssl.pretrained import load_pretrained

WORDS = "--steps 4 --recipe.epoch_steps 2 --recipe.batch_size 4 --recipe.watched 4 --recipe.workers 0"
PATCH = "--recipe.precision fp32 --recipe.patch_size [32,32] --jobs 1"
ENCODER = ["--encoder_arguments", "{channels: [4, 8], norm: group}"]


def pretrain(method: str, data: Path, out: Path, *more: str) -> int:
    words = f"pretrain {method} --data {data} --out {out} {WORDS} {PATCH}".split()
    return main([*words, *ENCODER, *more])


def test_colorization_learns_from_a_folder_of_videos(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="videos need the extra 'video'")
    draw = np.random.default_rng(0)
    for name in ("anna", "ben", "cleo"):
        blocks = draw.integers(0, 255, (5, 4, 4, 3), dtype=np.uint8)
        write_video(tmp_path / "videos" / f"{name}.mp4", blocks.repeat(16, 1).repeat(16, 2), 25)
    out = tmp_path / "out"
    assert pretrain("colorization", tmp_path / "videos", out, "--recording.size", "[64,64]") == 0
    history = pd.read_csv(out / "history.csv")
    assert np.isfinite(history[["train/loss", "held_out/loss"]]).all(axis=None) and len(history) == 2
    split = load_split(out / "split.json")
    assert {part: len(names) for part, names in split.items()} == {"held_out": 1, "train": 2}
    assert sorted(name for names in split.values() for name in names) == ["anna", "ben", "cleo"]
    kept = load_pretrained(out / "encoder")
    assert kept.encoder.in_channels == 3 and kept.preparation.intensity == "rgb"
    assert isinstance(load_method(out / "method").method, Colorization)
    assert (out / "pictures" / "task.png").is_file()


def test_other_methods_of_images_learn_from_prepared_recordings(tmp_path: Path) -> None:
    frames = RecordingFrames(write_recordings(tmp_path / "data", (6, 6, 6)))
    network = build_encoder("unet", frames.channels, frames.spatial_dims, channels=(4, 8), norm="group")
    recipe = PretrainRecipe((32, 32), batch_size=4, epoch_steps=2, watched=4, precision="fp32", workers=0)
    method = build_pretext("rotation", network)
    parts = frames.select(["p0", "p1"]), frames.select(["p2"])
    history = train(method, *parts, tmp_path / "out", steps=2, encoder="unet", recipe=recipe)
    assert np.isfinite(history[["train/loss", "held_out/loss"]]).all(axis=None)


def test_a_crop_larger_than_the_frames_is_refused_with_what_fits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_recordings(tmp_path / "data", (3, 3, 3))
    assert pretrain("colorization", tmp_path / "data", tmp_path / "out", "--recipe.patch_size", "[80,80]") == 2
    assert "Choose a smaller --recipe.patch_size; (96, 64) fits all" in capsys.readouterr().err
