"""Whole recordings go through a method batch by batch, in order, and its motion becomes a path."""

from pathlib import Path

import numpy as np
import pytest
import torch
from depth_stub import FRAMES, Stub, depths, true_poses, write_plane
from recordings import HEIGHT, WIDTH
from torch import Tensor, nn

from medssl.data.clips import ClipNeeds, Single
from medssl.data.preparation import Preparation
from medssl.data.prepared_recordings import RecordingPreparation
from medssl.errors import InputError
from medssl.method_file import TrainedMethod
from medssl.methods import build_pretext
from medssl.networks import build_encoder
from medssl.sample import Batch, require
from medssl.video_inference import Clock, DepthInference, depth_method, longest_scene


def stub(**arguments: bool | float) -> Stub:
    return Stub(build_encoder("unet", 3, 2, channels=(4, 4), norm="group"), **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("batch_size", [1, 4, 50])
def test_every_frame_has_its_depth_whatever_the_batches(tmp_path: Path, batch_size: int) -> None:
    method = stub(factor=2.0)
    maps = list(DepthInference(method, batch_size=batch_size).depth(write_plane(tmp_path), 0))
    assert [one.shape for one in maps] == [(HEIGHT, WIDTH)] * FRAMES and maps[0].dtype == np.float32
    np.testing.assert_allclose([one[3, 5] for one in maps], depths() / 2, rtol=1e-6)
    assert max(method.batches) == min(batch_size, FRAMES) and sum(method.batches) == FRAMES


def test_no_frame_is_looked_at_before_it_is_asked_for(tmp_path: Path) -> None:
    method = stub()
    maps = DepthInference(method, batch_size=2).depth(write_plane(tmp_path), 0)
    next(maps)
    assert method.batches == [2]


def test_a_depth_that_is_no_positive_number_is_unknown(tmp_path: Path) -> None:
    class Broken(Stub):
        def depth(self, batch: Batch) -> Tensor:
            z = super().depth(batch).clone()
            z[..., 0], z[..., 1], z[..., 2] = 0.0, -1.0, torch.inf
            return z

    inference = DepthInference(Broken(stub().encoder))
    first = next(inference.depth(write_plane(tmp_path), 0))
    assert np.isnan(first[:, :3]).all() and np.isfinite(first[:, 3:]).all()


def test_chained_motion_is_the_path_from_the_first_frame(tmp_path: Path) -> None:
    path = DepthInference(stub(), batch_size=2).path(write_plane(tmp_path), 0)
    assert path is not None
    expected = np.linalg.inv(true_poses()[0]) @ true_poses()
    np.testing.assert_allclose(path, expected, atol=1e-6)
    np.testing.assert_allclose(
        np.swapaxes(path, 1, 2)[:, :3, :3] @ path[:, :3, :3], np.tile(np.eye(3), (FRAMES, 1, 1)), atol=1e-14
    )


def test_cuts_and_damaged_frames_break_no_path(tmp_path: Path) -> None:
    usable = np.array([True, True, False, True, True, True])
    data = write_plane(tmp_path, scene=np.array([0, 0, 0, 0, 0, 1]), usable=usable)
    path = DepthInference(stub()).path(data, 0)
    assert path is not None
    assert np.isfinite(path).all((1, 2)).tolist() == [True, True, False, True, True, False]
    np.testing.assert_allclose(path[4], np.linalg.inv(true_poses()[0]) @ true_poses()[4], atol=1e-6)
    assert longest_scene(data.geometry(0)).tolist() == [0, 1, 3, 4]


def test_a_method_without_motion_has_no_path(tmp_path: Path) -> None:
    assert DepthInference(stub(moves=False)).path(write_plane(tmp_path), 0) is None


def test_the_network_computes_in_the_precision_asked_for_and_answers_in_float32(tmp_path: Path) -> None:
    class Layer(Stub):
        def depth(self, batch: Batch) -> Tensor:
            made = nn.functional.conv2d(batch["clip"][:, 0], torch.ones(1, 3, 1, 1))
            self.seen = made.dtype
            return made

    method = Layer(stub().encoder)
    first = next(DepthInference(method, torch.bfloat16).depth(write_plane(tmp_path), 0))
    assert method.seen == torch.bfloat16 and first.dtype == np.float32


class Rig(Stub):
    """Needs what a method of stereo does."""

    def __init__(self) -> None:
        super().__init__(stub().encoder)
        self.needs = ClipNeeds(Single(), right=True)

    def depth(self, batch: Batch) -> Tensor:
        """Refuse what has not both cameras."""
        require(batch, "intrinsics", "right_to_left")
        return super().depth(batch)


def test_one_camera_for_a_method_of_stereo_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"video0.*no 'right_to_left'.*lacks a second, calibrated camera"):
        next(DepthInference(Rig()).depth(write_plane(tmp_path), 0))


def test_a_recording_without_calibration_is_refused_where_the_method_needs_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"video0.*no 'intrinsics'.*lacks the camera's intrinsics \(--intrinsics\)"):
        next(DepthInference(Rig()).depth(write_plane(tmp_path, intrinsics=None), 0))


def test_a_method_of_another_task_is_refused(tmp_path: Path) -> None:
    encoder = build_encoder("unet", 3, 2, channels=(4, 4), norm="group")
    simclr = TrainedMethod(build_pretext("simclr", encoder), "simclr", {}, "unet", {}, Preparation())
    with pytest.raises(InputError, match=r"runs/a: 'simclr' tells no depth"):
        depth_method(simclr, "runs/a")
    known = TrainedMethod(stub(), "stub", {}, "unet", {}, RecordingPreparation())
    assert depth_method(known, "runs/a") == (known.method, known.preparation)


def test_a_clock_adds_up_what_is_measured() -> None:
    clock = Clock()
    for _ in range(2):
        with clock.measure("reading"):
            pass
    with pytest.raises(ValueError, match="stop"), clock.measure("network"):
        raise ValueError("stop")
    assert set(clock.seconds) == {"reading", "network"} and min(clock.seconds.values()) >= 0
