"""Videos are streamed into a training that goes on where it was; what cannot be streamed is refused at once."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from recordings import write_recordings
from sounding import RATE, write_sounding

pytest.importorskip("av", reason="videos need the extra 'video'")

from medssl.cli import main
from medssl.data.prepared_recordings import RecordingPreparation
from medssl.data.streamed_recordings import StreamedRecordings
from medssl.method_file import load_method
from medssl.methods.video_colorization import VideoColorization
from medssl.networks import build_encoder
from medssl.train_video import VideoRecipe, train_video

WORDS = ["--encoder_arguments", "{channels: [8, 16, 16], norm: group}", "--jobs", "1"]
CLIPS = ["--clips.batch_size", "2", "--clips.epoch_steps", "1", "--clips.watched", "2", "--clips.workers", "0"]
SMALL = ["--recording.size", "[64,96]", "--recording.mask", "false", "--clips.segment_s", "0.4"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    noise = np.random.default_rng(0).normal(0, 0.1, 2 * RATE).astype(np.float32)
    for name in ("a", "b", "c"):
        write_sounding(folder / f"{name}.mp4", 30, noise, key_every=10)
    write_sounding(folder / "mute.mp4", 30, key_every=10)
    return folder


def test_a_method_of_frames_learns_from_streams(videos: Path, tmp_path: Path) -> None:
    arguments = ["--method_arguments", "{references: 1, gap: 1, clusters: 4, cluster_batches: 1}", "--stream", "true"]
    words = ["pretrain", "video_colorization", "--data", str(videos), "--out", str(tmp_path), "--steps", "1"]
    assert main([*words, *WORDS, *CLIPS, *SMALL, *arguments]) == 0
    assert "held_out/loss" in pd.read_csv(tmp_path / "history.csv")
    assert not (tmp_path / "prepared").exists() and (tmp_path / "pictures" / "clip.png").is_file()
    assert load_method(tmp_path / "method").preparation.size == (64, 96)


def test_a_training_that_was_stopped_goes_on_with_the_clips_it_would_have_had(videos: Path, tmp_path: Path) -> None:
    data = StreamedRecordings([videos / "a.mp4"], RecordingPreparation((64, 96), mask=False), progress=False)
    recipe = VideoRecipe(batch_size=2, epoch_steps=1, watched=2, precision="fp32", workers=0, segment_s=0.4)

    def trained(out: Path, log: Callable[[Mapping[str, float], int], None] | None = None) -> pd.DataFrame:
        torch.manual_seed(0)
        encoder = build_encoder("unet", 3, 2, channels=(4, 8, 8), norm="group")
        method = VideoColorization(encoder, references=1, gap=1, clusters=4, cluster_batches=1)
        return train_video(method, data, None, out, steps=3, recipe=recipe, log=log)

    def stop(scores: Mapping[str, float], step: int) -> None:
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, SystemExit)):
        trained(tmp_path / "stopped", stop)
    pd.testing.assert_frame_equal(trained(tmp_path / "stopped"), trained(tmp_path / "whole"))


def test_a_method_of_sound_streams_what_can_be_heard(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--method_arguments", "{sound_channels: [4, 8], rate: 4000, seconds: 0.2, jitter_s: 0.1, width: 8}"]
    words = ["pretrain", "audio_visual", "--data", str(videos), "--out", str(tmp_path), "--steps", "1"]
    assert main([*words, *WORDS, *CLIPS, *SMALL, *arguments]) == 0
    told = capsys.readouterr().out
    assert "3 recordings can be streamed, 1 cannot" in told and "mute.mp4: has no sound" in told
    assert "held_out/accuracy" in pd.read_csv(tmp_path / "history.csv")


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("sfm_depth", "this method learns from intrinsics of the camera and poses of the camera"),
        ("optical_flow", "frames chosen by their motion too: prepare the recordings"),
        ("moco", "--stream is of methods that learn from clips"),
    ],
)
def test_what_does_not_learn_from_streams_is_refused(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str, said: str
) -> None:
    words = ["pretrain", method, "--data", str(videos), "--out", str(tmp_path), "--stream", "true"]
    assert main([*words, *WORDS]) == 2
    assert said in capsys.readouterr().err


def test_prepared_recordings_are_not_streamed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_recordings(tmp_path / "prepared")
    words = ["pretrain", "cycle_walk", "--data", str(tmp_path / "prepared"), "--out", str(tmp_path), "--stream", "true"]
    assert main([*words, *WORDS]) == 2
    assert "holds prepared recordings, which are not streamed" in capsys.readouterr().err
