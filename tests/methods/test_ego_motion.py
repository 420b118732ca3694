"""The truth has no loss; what is explained costs nothing, what is not costs its price; invalid pixels teach nothing."""

import math
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from medssl.clip_augment import ClipAugment
from medssl.data.clips import Neighbours
from medssl.errors import InputError
from medssl.geometry import depth_from_disparity, invert, relative, reproject, resize_intrinsics, rigid_from_vector
from medssl.methods.ego_motion import EgoMotion
from medssl.networks import build_encoder
from medssl.sample import Batch
from tests.scenes import Told, learnt, plane_clip, true_vectors

NEAR, FAR = 1.0, 20.0
UNIT = 10 * NEAR  # of the translations that the pose network tells


def built(**arguments: Any) -> EgoMotion:
    torch.manual_seed(0)
    encoder = build_encoder("unet", 3, 2, channels=(8, 16, 16), norm="group")
    return EgoMotion(encoder, **{"pose_channels": (8, 16, 16), "min_depth": NEAR, "max_depth": FAR, **arguments})


def sigmoid_of(depth: Tensor) -> Tensor:
    return (1 / depth - 1 / FAR) / (1 / NEAR - 1 / FAR)


def told(batch: Batch, depth: Tensor, vectors: Tensor | None = None, **arguments: Any) -> EgoMotion:
    """A method that takes this depth (B, V, 1, H, W) and these motions, by default the true ones, for what it sees.

    All is explained, at the finest scale alone.
    """
    method = built(**{"smoothness_weight": 0.0, **arguments}).eval()
    some = depth if method.geometry_weight > 0 else depth[:, :1]
    method.network = Told([sigmoid_of(some.flatten(0, 1))])  # type: ignore[assignment]
    vectors = true_vectors(batch, UNIT) if vectors is None else vectors
    method.pose = Told((vectors, [torch.ones(len(vectors), 2, *depth.shape[-2:])]))  # type: ignore[assignment]
    return method


def loss(method: EgoMotion, batch: Batch, part: str = "loss") -> float:
    return float(method.loss(batch)[part].detach())


def test_the_truth_has_hardly_a_loss_and_what_is_near_it_has_more() -> None:
    batch, depth = plane_clip()
    right = loss(told(batch, depth), batch)
    assert right < 0.01
    for factor in (0.8, 1.25):
        assert loss(told(batch, factor * depth), batch) > 5 * right
    for change in ([0, 0, 0, 0.01, 0, 0], [0, 0.02, 0, 0, 0, 0], [0.02, 0, 0, 0, 0, 0]):
        wrong = true_vectors(batch, UNIT) + torch.tensor(change)
        assert loss(told(batch, depth, wrong), batch) > 5 * right


def test_the_loss_is_that_of_a_naive_loop_over_scales_and_sources() -> None:
    batch, _ = plane_clip()
    method = built(scales=3).eval()
    clip, total = batch["clip"], torch.zeros(())
    for s, sigmoid in enumerate(method.network(clip[:, 0])):
        size = (32 >> s, 64 >> s)
        target, *sources = (F.avg_pool2d(clip[:, t], 2**s) for t in range(3))
        K = resize_intrinsics(batch["intrinsics"], (32, 64), size)
        depth, errors = depth_from_disparity(sigmoid, NEAR, FAR), []
        for t, source in enumerate(sources, start=1):
            before = t == 1
            pair = (clip[:, t], clip[:, 0]) if before else (clip[:, 0], clip[:, t])
            vector, masks = method.pose(*pair)
            rigid = rigid_from_vector(vector * torch.tensor([1, 1, 1, UNIT, UNIT, UNIT]))
            E = masks[s][:, 1:] if before else masks[s][:, :1]
            warped, seen = reproject(source, depth, K, invert(rigid) if before else rigid)
            errors.append((E * (target - warped).abs().mean(1, keepdim=True))[seen])
            total = total - 0.2 * E.log().mean()
        total = (
            total + 2 * torch.cat(errors).mean()
        )  # the sum over two sources, as a mean over the valid pixels of both
        x = 10 * sigmoid
        bends = [(x[..., 2:] - 2 * x[..., 1:-1] + x[..., :-2]), (x[..., 2:, :] - 2 * x[..., 1:-1, :] + x[..., :-2, :])]
        total = total + 0.5 / 2**s * sum(bend.abs().mean() for bend in bends)
    torch.testing.assert_close(method.loss(batch)["loss"], total)


def test_disparity_is_the_papers_with_the_default_limits() -> None:
    encoder = build_encoder("unet", 3, 2, channels=(8, 16, 16), norm="group")
    method = EgoMotion(encoder, pose_channels=(8, 16, 16))
    sigmoid = torch.rand(2, 1, 32, 64, generator=torch.Generator().manual_seed(0))
    method.network = Told([sigmoid])  # type: ignore[assignment]
    depth = method.depth({"clip": torch.rand(2, 3, 3, 32, 64)})
    torch.testing.assert_close(depth, 1 / (10 * sigmoid + 0.01), rtol=1.1e-3, atol=0)


def test_pairs_are_shown_to_the_pose_network_in_time_and_turned_round_for_the_frame_before() -> None:
    batch, depth = plane_clip()
    method = told(batch, depth)
    masks = torch.tensor([0.25, 0.75])[None, :, None, None].expand(4, 2, 32, 64)  # of the earlier and the later picture
    method.pose.answer = (true_vectors(batch, UNIT), [masks])
    _, _, motion, explained = method._observe(batch)
    earlier, later = method.pose.asked
    torch.testing.assert_close(earlier[::2], batch["clip"][:, 1])
    torch.testing.assert_close(later[::2], batch["clip"][:, 0])
    torch.testing.assert_close(earlier[1::2], batch["clip"][:, 0])
    torch.testing.assert_close(later[1::2], batch["clip"][:, 2])
    torch.testing.assert_close(motion, relative(batch["pose"][:, :1], batch["pose"][:, 1:]), atol=1e-5, rtol=0)
    assert explained[0][:, 0, 0, 0].tolist() == [0.75, 0.25, 0.75, 0.25]


def test_what_is_not_explained_costs_its_price_and_no_more() -> None:
    batch, depth = plane_clip()
    wrong = told(batch, 1.3 * depth)
    all_explained = loss(wrong, batch)
    vectors, (ones,) = wrong.pose.answer
    wrong.pose.answer = (vectors, [0.5 * ones])
    parts = {name: float(value.detach()) for name, value in wrong.loss(batch).items()}
    assert parts["view_synthesis"] == pytest.approx(all_explained / 2, rel=1e-5)  # eq. 3
    assert parts["unexplained"] == pytest.approx(2 * math.log(2), rel=1e-5)  # of two sources
    assert parts["loss"] == pytest.approx(parts["view_synthesis"] + 0.2 * parts["unexplained"], rel=1e-5)
    assert parts["explained"] == pytest.approx(0.5)


def test_without_a_price_everything_is_explained() -> None:
    batch, _ = plane_clip()
    method = built(explainability_weight=0.0)
    assert method.pose.decoder is None
    assert loss(method, batch, "explained") == 1 and loss(method, batch, "unexplained") == 0


@pytest.mark.parametrize("align_brightness", [False, True])
@pytest.mark.parametrize("frames", [slice(0, 1), slice(1, None)])
def test_what_is_not_valid_changes_nothing(frames: slice, align_brightness: bool) -> None:
    batch, depth = plane_clip()
    losses = []
    for fill, valid in ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0)):
        batch["clip"], batch["valid"] = batch["clip"].clone(), batch["valid"].clone()
        batch["clip"][:, frames, :, 10:20, 20:40] = fill
        batch["valid"][:, frames, :, 10:20, 20:40] = valid
        losses.append(loss(told(batch, 1.1 * depth, align_brightness=align_brightness), batch))
    # A pixel counts from nine tenths of valid neighbours on: a tenth of what is beside may shine through.
    assert losses[0] == pytest.approx(losses[1], abs=2e-3) and abs(losses[2] - losses[1]) > 2e-2


def test_a_clip_without_a_valid_pixel_teaches_only_smoothness() -> None:
    batch, _ = plane_clip()
    batch["valid"] = torch.zeros_like(batch["valid"])
    method = built(align_brightness=True, geometry_weight=0.5)
    parts = method.loss(batch)
    parts["loss"].backward()
    assert loss(method, batch, "view_synthesis") == 0 == loss(method, batch, "geometry")
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)


def test_a_light_that_changes_is_forgiven_when_brightness_is_aligned() -> None:
    batch, depth = plane_clip()
    bright = batch | {"clip": batch["clip"].clone()}
    bright["clip"][:, 1:] = 0.7 * bright["clip"][:, 1:] + 0.1
    assert loss(told(bright, depth, align_brightness=True), bright) < 0.01
    assert loss(told(bright, depth), bright) > 0.05


def test_depths_that_contradict_each_other_cost_their_normalised_difference() -> None:
    batch, depth = plane_clip()
    assert loss(told(batch, depth, geometry_weight=0.5), batch, "geometry") < 2e-3
    doubled = depth.clone()
    doubled[:, 1:] *= 2
    method = told(batch, doubled, geometry_weight=0.5)
    parts = {name: float(value.detach()) for name, value in method.loss(batch).items()}
    assert parts["geometry"] == pytest.approx(1 / 3, abs=2e-3)  # |d - 2 d| / (d + 2 d)
    assert parts["loss"] == pytest.approx(parts["view_synthesis"] + 0.5 * parts["geometry"], abs=1e-6)


def test_the_unit_of_depth_changes_nothing() -> None:
    batch, _ = plane_clip()
    a, b = batch["clip"][:, 0], batch["clip"][:, 2]
    one, other = built(), built(min_depth=1000 * NEAR, max_depth=1000 * FAR)
    assert loss(other, batch) == pytest.approx(loss(one, batch), rel=1e-4)
    torch.testing.assert_close(other.depth(batch), 1000 * one.depth(batch))
    torch.testing.assert_close(other.motion(a, b)[:, :3, 3], 1000 * one.motion(a, b)[:, :3, 3])


def test_the_gradient_reaches_all_that_is_trained() -> None:
    method = built()
    batch, _ = plane_clip()
    parts = method.loss(batch)
    assert all(value.ndim == 0 and value.isfinite() for value in parts.values())
    parts["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.parameters())


def test_it_learns() -> None:
    batch, _ = plane_clip()
    method = built(scales=2, explainability_weight=0.0, augment=ClipAugment(mirroring=0, colours=0))
    losses = learnt(method, batch, steps=40)
    assert min(losses[-5:]) < 0.6 * losses[0]


def test_mirroring_and_colours_are_for_training_alone() -> None:
    batch, _ = plane_clip()
    method = built(augment=ClipAugment(mirroring=1, colours=1))
    trained = loss(method, batch)
    assert trained == loss(method, batch)  # by the clips' seeds
    assert loss(method.eval(), batch) != trained
    torch.testing.assert_close(method.show(batch)["input"], batch["clip"][:, 0])


@pytest.mark.parametrize("explainability_weight", [0.0, 0.2])
def test_it_shows_pictures_of_full_size(explainability_weight: float) -> None:
    batch, _ = plane_clip()
    shown = built(explainability_weight=explainability_weight).show(batch)
    assert list(shown) == ["input", "depth", "warped", "error", "mask"]
    assert all(picture.shape[0] == 2 and picture.shape[2:] == (32, 64) for picture in shown.values())


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
        motion = method.motion(batch["clip"][:, 0], batch["clip"][:, 2])
        assert method.depth(batch).dtype == motion.dtype == torch.float32
    assert parts["loss"].dtype == torch.float32 and float(parts["loss"].detach()) == pytest.approx(exact, rel=0.05)
    assert motion.shape == (2, 4, 4) and not method.metric


def test_it_asks_for_neighbours_that_moved() -> None:
    assert built().needs.picker == Neighbours() and not built().needs.right
    assert built(neighbours=Neighbours(0.03)).needs.picker == Neighbours(0.03)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scales": 0}, r"at least 1 of the scales, got 0"),
        ({"min_depth": 5.0, "max_depth": 2.0}, r"0 < min_depth < max_depth.*5 and 2"),
        ({"pose_channels": (8, 16)}, r"3 scales.*has 2.*pose_channels 3 or more levels"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        built(**arguments)


def test_a_batch_that_lacks_something_or_does_not_fit_is_refused() -> None:
    batch, _ = plane_clip()
    for missing in ("clip", "valid", "intrinsics", "frame", "seed"):
        with pytest.raises(InputError, match=f"no '{missing}'"):
            built().loss({name: value for name, value in batch.items() if name != missing})
    alone = batch | {name: batch[name][:, :1] for name in ("clip", "valid", "frame")}
    with pytest.raises(InputError, match="T = 1 frame"):
        built().loss(alone)
    narrow, _ = plane_clip(size=(24, 40))
    with pytest.raises(InputError, match=r"multiples of 16, got \(24, 40\)"):
        built(pose_channels=(8, 8, 16, 16)).loss(narrow)
