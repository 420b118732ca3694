"""The truth has no loss; static pixels, hidden ones and invalid ones teach nothing; stereo tells the unit."""

import pickle
from typing import Any

import pytest
import torch
from torch import Tensor

from medssl.clip_augment import ClipAugment
from medssl.data.clips import Neighbours, Single
from medssl.errors import InputError
from medssl.geometry import depth_from_disparity, invert, relative, reproject, rigid_from_vector
from medssl.methods.monodepth2 import Monodepth2
from medssl.networks import build_encoder
from medssl.photometric import edge_aware_smoothness, mean_normalised, photometric_error
from medssl.sample import Batch
from tests.scenes import BASELINE, Told, learnt, plane_clip, true_vectors

NEAR, FAR = 1.0, 20.0
UNIT = 10 * NEAR  # of the translations that the pose network tells


def built(**arguments: Any) -> Monodepth2:
    torch.manual_seed(0)
    encoder = build_encoder("unet", 3, 2, channels=(8, 16, 16), norm="group")
    return Monodepth2(
        encoder, **{"pose_channels": (8, 16, 16), "min_depth": NEAR, "max_depth": FAR, "tie_noise": 0.0, **arguments}
    )


def sigmoid_of(depth: Tensor) -> Tensor:
    return (1 / depth - 1 / FAR) / (1 / NEAR - 1 / FAR)


def told(batch: Batch, depth: Tensor, vectors: Tensor | None = None, **arguments: Any) -> Monodepth2:
    """A method that takes this depth (B, V, 1, H, W) and these motions, by default the true ones, for what it sees."""
    method = built(**{"smoothness_weight": 0.0, **arguments}).eval()
    some = depth if method.geometry_weight > 0 else depth[:, :1]
    method.network = Told([sigmoid_of(some.flatten(0, 1))])  # type: ignore[assignment]
    if method.pose is not None:
        method.pose = Told(true_vectors(batch, UNIT) if vectors is None else vectors)  # type: ignore[assignment]
    return method


def loss(method: Monodepth2, batch: Batch, part: str = "loss") -> float:
    return float(method.loss(batch)[part].detach())


def learnt_error(method: Monodepth2, batch: Batch) -> float:
    """Mean error of the pixels that teach; those that leave the other picture stand in the loss unwarped."""
    shown = method.show(batch)
    return float((shown["error"] * shown["mask"]).sum() / shown["mask"].sum())


SOURCES = [("mono",), ("stereo",), ("mono", "stereo")]


@pytest.mark.parametrize("sources", SOURCES)
def test_the_truth_has_hardly_a_loss_and_what_is_near_it_has_more(sources: tuple[str, ...]) -> None:
    batch, depth = plane_clip(right=True)
    truth = told(batch, depth, sources=sources)
    assert learnt_error(truth, batch) < 0.015 and loss(truth, batch, "learns") > 0.7
    for factor in (0.8, 1.25):
        assert loss(told(batch, factor * depth, sources=sources), batch) > 1.5 * loss(truth, batch)


def test_a_wrong_motion_has_a_larger_loss() -> None:
    batch, depth = plane_clip()
    vectors = true_vectors(batch, UNIT)
    right = loss(told(batch, depth), batch)
    for change in ([0, 0, 0, 0.01, 0, 0], [0, 0.02, 0, 0, 0, 0], [0.02, 0, 0, 0, 0, 0]):
        assert loss(told(batch, depth, vectors + torch.tensor(change)), batch) > 2 * right


def test_the_loss_is_that_of_a_naive_loop_over_scales_and_sources() -> None:
    batch, _ = plane_clip()
    method = built(scales=3).eval()
    target, sigmoids = batch["clip"][:, 0], method.network(batch["clip"][:, 0])
    assert method.pose is not None
    total = torch.zeros(())
    for s, sigmoid in enumerate(sigmoids):
        full = torch.nn.functional.interpolate(sigmoid, size=(32, 64), mode="bilinear", align_corners=False)
        errors = []
        for t in (1, 2):
            source = batch["clip"][:, t]
            before = t == 1
            vector = method.pose(source, target) if before else method.pose(target, source)
            rigid = rigid_from_vector(vector * torch.tensor([1, 1, 1, UNIT, UNIT, UNIT]))
            depth = depth_from_disparity(full, NEAR, FAR)
            warped, seen = reproject(source, depth, batch["intrinsics"], invert(rigid) if before else rigid)
            away = torch.nn.functional.max_pool2d((~seen).float(), 3, 1, 1) > 0
            errors += [photometric_error(warped, target).masked_fill(away, 9.0), photometric_error(source, target)]
        total = total + torch.cat(errors, 1).amin(1).mean() / 3
        disparity = mean_normalised(1 / depth_from_disparity(sigmoid, NEAR, FAR))
        image = torch.nn.functional.avg_pool2d(target, 2**s)
        total = total + 1e-3 / 2**s * edge_aware_smoothness(disparity, image) / 3
    torch.testing.assert_close(method.loss(batch)["loss"], total)


def test_pairs_are_shown_to_the_pose_network_in_time_and_turned_round_for_the_frame_before() -> None:
    batch, depth = plane_clip()
    method = told(batch, depth)
    _, _, motion = method._observe(batch)
    assert method.pose is not None
    earlier, later = method.pose.asked
    clip = batch["clip"]
    torch.testing.assert_close(earlier.unflatten(0, (2, 2)), torch.stack([clip[:, 1], clip[:, 0]], 1))
    torch.testing.assert_close(later.unflatten(0, (2, 2)), torch.stack([clip[:, 0], clip[:, 2]], 1))
    pose = batch["pose"]
    torch.testing.assert_close(motion, relative(pose[:, :1], pose[:, 1:]), atol=1e-5, rtol=0)


def test_what_is_hidden_in_one_source_is_learnt_from_the_other() -> None:
    batch, depth = plane_clip()
    clean = told(batch, depth).show(batch)
    batch["clip"] = batch["clip"].clone()
    batch["clip"][:, 1, :, 8:24, 20:44] = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    inside = (..., slice(12, 20), slice(26, 38))
    hidden = told(batch, depth).show(batch)
    assert float(hidden["error"][inside].mean()) < 2 * float(clean["error"][inside].mean()) + 1e-3
    assert float((hidden["warped"] - hidden["input"])[inside].abs().mean()) > 0.1  # by the first source alone
    batch["clip"][:, 2] = batch["clip"][:, 1]
    assert float(told(batch, depth).show(batch)["error"][inside].mean()) > 0.05


def test_a_camera_that_stands_still_teaches_nothing() -> None:
    batch, depth = plane_clip()
    still = batch | {"clip": batch["clip"][:, :1].expand(-1, 3, -1, -1, -1)}
    assert loss(told(still, depth), still, "learns") == 0
    assert loss(told(still, depth, auto_mask=False), still, "learns") > 0.7
    assert loss(told(batch, depth), batch, "learns") > 0.7


def test_what_moves_with_the_camera_is_masked() -> None:
    batch, depth = plane_clip()
    batch["clip"] = batch["clip"].clone()
    batch["clip"][..., 8:24, 20:44] = torch.rand(2, 1, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    mask = told(batch, depth).show(batch)["mask"]
    assert float(mask[..., 12:20, 26:38].mean()) < 0.02 and float(mask[..., :12].mean()) > 0.7


def test_noise_decides_where_warping_changes_nothing() -> None:
    batch, depth = plane_clip()
    still = batch | {"clip": batch["clip"][:, :1].expand(-1, 3, -1, -1, -1)}
    nowhere = torch.zeros(4, 6)
    assert loss(told(still, depth, nowhere, tie_noise=1e-3), still, "learns") > 0.5
    noisy = told(batch, depth, tie_noise=1e-3)
    assert loss(noisy, batch) == loss(noisy, batch) != loss(noisy, batch | {"seed": batch["seed"] + 1})


@pytest.mark.parametrize("arguments", [{}, {"align_brightness": True}, {"auto_mask": False}])
@pytest.mark.parametrize("part", ["target", "neighbours", "right"])
def test_what_is_not_valid_changes_nothing(part: str, arguments: dict[str, Any]) -> None:
    batch, depth = plane_clip(right=True)
    sources = ("stereo",) if part == "right" else ("mono",)
    pictures, mask = ("right", "right_valid") if part == "right" else ("clip", "valid")
    frames = slice(1, None) if part == "neighbours" else slice(0, 1)
    losses = []
    for fill, valid in ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0)):
        batch[pictures], batch[mask] = batch[pictures].clone(), batch[mask].clone()
        batch[pictures][:, frames, :, 10:20, 20:40] = fill
        batch[mask][:, frames, :, 10:20, 20:40] = valid
        losses.append(loss(told(batch, 1.1 * depth, sources=sources, **arguments), batch))
    assert losses[0] == pytest.approx(losses[1], abs=1e-6) and abs(losses[2] - losses[1]) > 1e-3


def test_a_clip_without_a_valid_pixel_has_no_loss_and_no_gradient_that_is_not_finite() -> None:
    batch, _ = plane_clip()
    batch["valid"] = torch.zeros_like(batch["valid"])
    method = built(smoothness_weight=0.0, align_brightness=True, geometry_weight=0.5)
    total = method.loss(batch)["loss"]
    total.backward()
    assert float(total.detach()) == 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())


def test_a_light_that_changes_is_forgiven_when_brightness_is_aligned() -> None:
    batch, depth = plane_clip()
    bright = batch | {"clip": batch["clip"].clone()}
    bright["clip"][:, 1:] = 0.7 * bright["clip"][:, 1:] + 0.1
    right = loss(told(batch, depth), batch)
    assert loss(told(bright, depth, align_brightness=True), bright) < 1.5 * right
    assert loss(told(bright, depth), bright) > 3 * right


def test_depths_that_contradict_each_other_cost_their_normalised_difference() -> None:
    batch, depth = plane_clip()
    assert loss(told(batch, depth, geometry_weight=0.5), batch, "geometry") < 2e-3
    doubled = depth.clone()
    doubled[:, 1:] *= 2
    method = told(batch, doubled, geometry_weight=0.5)
    parts = {name: float(value.detach()) for name, value in method.loss(batch).items()}
    assert parts["geometry"] == pytest.approx(1 / 3, abs=2e-3)  # |d - 2 d| / (d + 2 d)
    assert parts["loss"] == pytest.approx(parts["photometric"] + 0.5 * parts["geometry"], abs=1e-6)


def test_stereo_with_another_principal_point_is_still_right() -> None:
    batch, depth = plane_clip(right=True)
    batch["right"] = batch["right"].roll(-3, dims=-1)
    batch["right_valid"] = batch["right_valid"].clone()
    batch["right_valid"][..., -3:] = 0
    batch["right_intrinsics"][:, 0, 2] -= 3
    assert learnt_error(told(batch, depth, sources=("stereo",)), batch) < 0.015


def test_only_stereo_is_metric_and_each_asks_for_what_it_needs() -> None:
    mono, stereo, both = (built(sources=sources) for sources in SOURCES)
    assert [m.metric for m in (mono, stereo, both)] == [False, True, True]
    assert [m.needs.right for m in (mono, stereo, both)] == [False, True, True]
    assert [type(m.needs.picker) for m in (mono, stereo, both)] == [Neighbours, Single, Neighbours]
    assert built(neighbours=Neighbours(0.03)).needs.picker == Neighbours(0.03)
    assert stereo.motion(torch.rand(1, 3, 32, 64), torch.rand(1, 3, 32, 64)) is None


def test_the_unit_of_depth_changes_nothing() -> None:
    batch, _ = plane_clip()
    a, b = batch["clip"][:, 0], batch["clip"][:, 2]
    one, other = built(), built(min_depth=1000 * NEAR, max_depth=1000 * FAR)
    assert loss(other, batch) == pytest.approx(loss(one, batch), rel=1e-4)
    torch.testing.assert_close(other.depth(batch), 1000 * one.depth(batch))
    torch.testing.assert_close(other.motion(a, b)[:, :3, 3], 1000 * one.motion(a, b)[:, :3, 3])


@pytest.mark.parametrize("sources", SOURCES)
def test_the_gradient_reaches_all_that_is_trained(sources: tuple[str, ...]) -> None:
    method = built(sources=sources)
    batch, _ = plane_clip(right=True)
    parts = method.loss(batch)
    assert all(value.ndim == 0 and value.isfinite() for value in parts.values())
    parts["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.parameters())


def test_it_learns_how_deep_a_scene_is_from_stereo() -> None:
    batch, depth = plane_clip(right=True)
    method = built(sources=("stereo",), min_depth=2.0, augment=ClipAugment(mirroring=0, colours=0))
    before = float((method.depth(batch).detach() / depth[:, 0]).log().abs().mean())
    losses = learnt(method, batch, steps=40)
    after = float((method.depth(batch).detach() / depth[:, 0]).log().abs().mean())
    assert losses[-1] < 0.7 * losses[0] and after < 0.5 * before


def test_it_learns_from_one_camera() -> None:
    batch, _ = plane_clip()
    losses = learnt(built(scales=2, augment=ClipAugment(mirroring=0, colours=0)), batch, steps=40, rate=1e-4)
    assert losses[-1] < 0.6 * losses[0]


def test_mirroring_and_colours_are_for_training_alone() -> None:
    batch, _ = plane_clip(right=True)
    method = built(sources=("mono", "stereo"), augment=ClipAugment(mirroring=1, colours=1))
    assert loss(method, batch) == loss(method, batch)  # by the clips' seeds
    trained = loss(method, batch)
    method.eval()
    assert loss(method, batch) != trained
    torch.testing.assert_close(method.show(batch)["input"], batch["clip"][:, 0])


def test_the_second_camera_of_a_mirrored_world_is_the_first() -> None:
    batch, depth = plane_clip(right=True)
    method = told(batch, depth.flip(-1), sources=("stereo",), augment=ClipAugment(mirroring=1, colours=0)).train()
    assert learnt_error(method, batch) < 0.015  # both cameras are almost as far from the plane


def test_it_shows_pictures_of_full_size() -> None:
    batch, _ = plane_clip(right=True)
    shown = built(sources=("mono", "stereo")).show(batch)
    assert list(shown) == ["input", "depth", "warped", "error", "mask"]
    assert all(picture.shape[0] == 2 and picture.shape[2:] == (32, 64) for picture in shown.values())
    assert all(picture.isfinite().all() for picture in shown.values())


def test_it_is_resumed_from_its_state_and_survives_pickling() -> None:
    batch, _ = plane_clip()
    method, other = built(), built()
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.01)
    assert loss(other, batch) != loss(method, batch)
    other.load_state_dict(method.state_dict())
    assert loss(other, batch) == loss(method, batch) == loss(pickle.loads(pickle.dumps(method)), batch)


def test_the_networks_may_run_in_bf16() -> None:
    batch, _ = plane_clip()
    method = built(geometry_weight=0.5).eval()
    exact = loss(method, batch)
    with torch.autocast("cpu", torch.bfloat16):
        parts = method.loss(batch)
        a, b = batch["clip"][:, 0], batch["clip"][:, 1]
        motion = method.motion(a, b)
        assert method.depth(batch).dtype == torch.float32 and motion is not None and motion.dtype == torch.float32
    assert parts["loss"].dtype == torch.float32 and float(parts["loss"].detach()) == pytest.approx(exact, rel=0.05)


def test_depth_lies_within_its_limits() -> None:
    batch, _ = plane_clip()
    depth = built().depth(batch).detach()
    assert depth.shape == (2, 1, 32, 64) and depth.dtype == torch.float32
    assert float(depth.min()) >= NEAR and float(depth.max()) <= FAR


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sources": ()}, r"some of 'mono' and 'stereo'.*got \(\)"),
        ({"sources": ("video",)}, r"got \('video',\)"),
        ({"sources": ("mono", "mono")}, r"each once"),
        ({"scales": 0}, r"at least 1 of the scales, got 0"),
        ({"min_depth": 5.0, "max_depth": 2.0}, r"0 < min_depth < max_depth.*5 and 2"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        built(**arguments)


def test_a_batch_that_lacks_something_is_refused() -> None:
    batch, _ = plane_clip()
    for missing in ("clip", "valid", "intrinsics", "frame", "seed"):
        with pytest.raises(InputError, match=f"no '{missing}'"):
            built().loss({name: value for name, value in batch.items() if name != missing})
    with pytest.raises(InputError, match="no 'right'"):
        built(sources=("stereo",)).loss(batch)
    alone = batch | {name: batch[name][:, :1] for name in ("clip", "valid", "frame")}
    with pytest.raises(InputError, match="T = 1 frame"):
        built().loss(alone)


def test_limits_in_another_unit_than_the_cameras_are_refused() -> None:
    batch, _ = plane_clip(right=True)
    batch["right_to_left"] = batch["right_to_left"].clone()
    batch["right_to_left"][:, 0, 3] = 1000 * BASELINE
    with pytest.raises(InputError, match=r"min_depth=1 and max_depth=20.*1\.9.*400 apart.*at least 3\.2e\+02"):
        built(sources=("stereo",)).loss(batch)
