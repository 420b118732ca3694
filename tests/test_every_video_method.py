"""What every method that learns from clips promises; new ones are found by themselves."""

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recordings import observations, write_recordings
from torch.utils.data import default_collate

from medssl.data.clips import ClipDataset
from medssl.data.prepared_recordings import PreparedRecordings
from medssl.errors import InputError
from medssl.method_file import TrainedMethod, load_method, save_method
from medssl.methods import VIDEO, build_video_method
from medssl.networks import build_encoder
from medssl.sample import Batch
from medssl.video_method import CorrespondenceMethod, DepthMethod, FlowMethod, VideoMethod

ENCODER = {"channels": [8, 16, 16, 16], "norm": "group"}
FRAMES = 16
SMALL: dict[str, dict[str, Any]] = {
    "audio_visual": {"sound_channels": [4, 8], "rate": 4000, "seconds": 0.25},
}
"""Arguments that make a method small enough for a test."""

each = pytest.mark.parametrize("name", sorted(VIDEO))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedRecordings:
    """Two recordings of which everything is known."""
    poses = np.tile(np.eye(4), (FRAMES, 1, 1))
    poses[:, 2, 3] = 0.1 * np.arange(FRAMES)
    right_to_left = np.eye(4)
    right_to_left[0, 3] = 0.5
    known: dict[str, Any] = {
        "poses": poses,
        "right_to_left": right_to_left,
        "right_intrinsics": np.array([[60.0, 0, 47], [0, 60, 31], [0, 0, 1]]),
        "observations": observations(FRAMES),
    }
    return write_recordings(tmp_path_factory.mktemp("all"), (FRAMES, FRAMES), right=True, **known)


def built(name: str) -> VideoMethod:
    torch.manual_seed(0)
    return build_video_method(name, build_encoder("unet", 3, 2, **ENCODER), **SMALL.get(name, {}))


def batch(method: VideoMethod, data: PreparedRecordings) -> Batch:
    """Two clips; of a method that hears, with noise, as prepared recordings keep no sound."""
    samples = ClipDataset(data, replace(method.needs, sound=None), method.pretext)
    one: Batch = default_collate([samples[number] for number in range(2)])
    if (sound := method.needs.sound) is not None:
        draw = torch.Generator().manual_seed(0)
        heard = torch.rand(2, 2, round(sound.rate * sound.seconds), generator=draw) - 0.5
        one |= {"sound": heard[0], "other_sound": heard[1]}
    return one


def started(name: str, data: PreparedRecordings) -> tuple[VideoMethod, Batch]:
    method = built(name)
    one = batch(method, data)
    method.start_epoch([one])
    return method, one


@each
def test_the_loss_is_finite_and_its_gradient_reaches_all_of_the_encoder(name: str, data: PreparedRecordings) -> None:
    method, one = started(name, data)
    losses = method.loss(one)
    assert all(value.ndim == 0 and torch.isfinite(value) for value in losses.values())
    losses["loss"].backward()
    unused = [n for n, p in method.encoder.named_parameters() if p.grad is None]
    assert not unused


@each
def test_its_state_dict_is_all_it_must_remember(name: str, data: PreparedRecordings) -> None:
    (method, one), (other, _) = started(name, data), started(name, data)
    optimizer = torch.optim.SGD(method.parameters(), lr=1e-3)
    method.loss(one)["loss"].backward()
    optimizer.step()
    method.after_step()
    other.load_state_dict(method.state_dict())
    assert torch.equal(method.loss(one)["loss"], other.loss(one)["loss"])


@each
def test_its_pretext_survives_pickling(name: str, data: PreparedRecordings) -> None:
    method = built(name)
    pickle.loads(pickle.dumps(method.pretext))


@each
def test_it_shows_pictures_of_a_clips_size(name: str, data: PreparedRecordings) -> None:
    method, one = started(name, data)
    with torch.no_grad():
        shown = method.eval().show(one)
    assert shown and all(picture.shape[0] == 2 and picture.ndim == 4 for picture in shown.values())
    told = {DepthMethod: "depth", FlowMethod: "flow"}
    for kind, what in told.items():
        if isinstance(method, kind):
            assert {"input", what, "warped", "error", "mask"} <= shown.keys()


@each
def test_it_answers_what_its_kind_is_asked(name: str, data: PreparedRecordings) -> None:
    method, one = started(name, data)
    method.eval()
    height, width = one["clip"].shape[-2:]
    with torch.no_grad():
        if isinstance(method, DepthMethod):
            depth = method.depth(one)
            assert depth.shape == (2, 1, height, width) and depth.dtype == torch.float32 and (depth > 0).all()
        if isinstance(method, FlowMethod):
            flow = method.flow(one["clip"][:, 0], one["clip"][:, 1])
            assert flow.shape == (2, 2, height, width) and flow.dtype == torch.float32
        if isinstance(method, CorrespondenceMethod):
            z = method.embed(one["clip"][:, 0])
            assert z.shape[2:] == (height // method.stride, width // method.stride)
            torch.testing.assert_close(z.square().sum(1), torch.ones(2, *z.shape[2:]))


@each
def test_a_method_that_is_read_back_has_the_same_loss(name: str, data: PreparedRecordings, tmp_path: Path) -> None:
    method, one = started(name, data)
    method.eval()
    trained = TrainedMethod(method, name, SMALL.get(name, {}), "unet", ENCODER, data.preparation, {})
    save_method(trained, tmp_path / "method")
    loaded = load_method(tmp_path / "method")
    assert loaded.preparation == data.preparation
    with torch.no_grad():
        assert torch.equal(loaded.method.loss(one)["loss"], method.loss(one)["loss"])


def test_a_name_that_no_method_has_is_refused() -> None:
    with pytest.raises(InputError, match=r"no method that learns from clips 'moco'. Methods: .*monodepth2"):
        build_video_method("moco", build_encoder("unet", 3, 2, **ENCODER))
