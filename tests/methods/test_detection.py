"""Boxes from label maps, anchors that match them, and what a detector returns."""

import sys

import pytest
import torch
from torch import Tensor

from medssl.augment import Augmentation
from medssl.errors import InputError
from medssl.methods.detection import Detection, boxes_of, without_cut_off
from medssl.networks.unet import UNetEncoder
from medssl.sample import Batch

STILL = Augmentation(affine=0, intensity=0)


def built(dims: int = 2, **arguments: object) -> Detection:
    torch.manual_seed(0)
    arguments = {"width": 8, "augment": STILL, "structures": ["a", "b"], **arguments}
    return Detection(UNetEncoder(1, dims, (4, 8), norm="group"), **arguments)


def batch(label: Tensor) -> Batch:
    image = torch.rand(len(label), 1, *label.shape[1:], generator=torch.Generator().manual_seed(0))
    number = torch.arange(len(label))
    return {"image": image, "label": label, "seed": number, "index": number}


def blocks(*corners: tuple[int, ...], size: int = 32) -> Tensor:
    """One 2D label map (1, size, size) with the class 1, 2, ... in each of some boxes."""
    label = torch.zeros(1, size, size, dtype=torch.uint8)
    for number, (x0, y0, x1, y1) in enumerate(corners, start=1):
        label[0, x0:x1, y0:y1] = number
    return label


@pytest.mark.parametrize("dims", [2, 3])
def test_boxes_are_those_of_a_naive_search(dims: int) -> None:
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, 5, (3, *(7, 9, 5)[:dims]), generator=generator).to(torch.uint8)
    label[torch.rand(label.shape, generator=generator) < 0.9] = 0
    for one, found in zip(label, boxes_of(label, 6), strict=True):
        present = [c for c in range(1, 6) if (one == c).any()]
        assert found.classes.tolist() == present
        for corners, index in zip(found.corners, present, strict=True):
            voxels = (one == index).nonzero()
            assert corners.tolist() == [*voxels.amin(0).tolist(), *(voxels.amax(0) + 1).tolist()]


def test_a_map_of_background_has_no_box() -> None:
    (found,) = boxes_of(torch.zeros(1, 4, 4, 4, dtype=torch.uint8), 3)
    assert found.corners.shape == (0, 6) and found.classes.shape == (0,)


def test_a_structure_of_which_too_little_is_in_the_crop_becomes_background() -> None:
    label = blocks((0, 0, 2, 5), (10, 10, 12, 15))  # 10 voxels each
    voxels = torch.tensor([[900, 34, 33]])
    assert without_cut_off(label, voxels, 0.3).unique().tolist() == [0, 2]
    assert torch.equal(without_cut_off(label, voxels, 0.25), label)


def test_cut_off_structures_have_no_box_in_the_loss() -> None:
    label = blocks((0, 8, 4, 20), (12, 12, 28, 28))
    whole = built(voxels=[[0, 1000, 256]])
    torch.testing.assert_close(whole.loss(batch(label))["loss"], built().loss(batch(label * (label == 2)))["loss"])


def test_every_structure_has_an_anchor_even_one_of_a_single_voxel() -> None:
    method = built(structures=[*"abcd"])
    label = blocks((0, 0, 32, 32), (3, 4, 4, 5), (20, 2, 30, 5), (17, 17, 29, 30))
    (found,) = boxes_of(label, 5)
    image = torch.zeros(1, 1, 32, 32)
    method.detector._maps(image, method.encoder(image))
    assert method.detector.anchors is not None
    targets = [{"boxes": found.corners, "labels": found.classes - 1}]
    (index,) = method.detector.compute_anchor_matched_idxs(method.detector.anchors, targets, [64])
    assert set(index.tolist()) == {-1, 0, 1, 2, 3}


def test_anchors_stand_in_the_middle_of_their_places_four_strides_wide() -> None:
    method, image = built(), torch.zeros(1, 1, 16, 16)
    method.detector._maps(image, method.encoder(image))
    assert method.detector.anchors is not None
    anchors = method.detector.anchors[0]
    assert (
        anchors.shape == (16, 4) and anchors[0].tolist() == [-6, -6, 10, 10] and anchors[5].tolist() == [-2, -2, 14, 14]
    )


def test_the_focal_loss_of_an_untrained_network_is_that_of_its_prior() -> None:
    # Every logit says 1 %: an anchor that matches costs 0.25 * 0.99^2 * log 100, one that does not next to nothing.
    losses = built().loss(batch(blocks((8, 8, 24, 24))))
    torch.testing.assert_close(losses["classification"], torch.tensor(1.128), atol=0.05, rtol=0)


def test_the_box_loss_is_smooth_l1_of_centres_and_log_sides_in_the_anchors() -> None:
    method, one = built(), batch(blocks((8, 8, 24, 20)))
    (truth,) = boxes_of(one["label"], 3)
    _, offsets, places = method.detector._maps(one["image"], method.encoder(one["image"]))
    anchors = method.detector.anchors
    assert anchors is not None
    targets = [{"boxes": truth.corners, "labels": truth.classes - 1}]
    (index,) = method.detector.compute_anchor_matched_idxs(anchors, targets, places)
    losses = []
    for anchor, offset in zip(anchors[0][index == 0], offsets[0][index == 0], strict=True):
        sides = anchor[2:] - anchor[:2]
        centre = (torch.tensor([16.0, 14.0]) - (anchor[2:] + anchor[:2]) / 2) / sides
        wanted = torch.cat([centre, (torch.tensor([16.0, 12.0]) / sides).log()])
        off = (offset - wanted).abs()
        losses.append(torch.where(off < 1 / 9, 4.5 * off.square(), off - 1 / 18).mean())
    torch.testing.assert_close(method.loss(one)["box"], torch.stack(losses).mean().detach())


def test_a_batch_without_structures_has_a_loss_with_a_graph_and_no_box_loss() -> None:
    method = built()
    losses = method.loss(batch(torch.zeros(2, 16, 16, dtype=torch.uint8)))
    losses["loss"].backward()
    assert losses["box"] == 0 and losses["loss"] > 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())


def test_the_loss_is_the_same_in_evaluation_and_does_not_depend_on_what_was_seen_before() -> None:
    method, one = built(), batch(blocks((8, 8, 24, 24)))
    expected = method.loss(one)["loss"]
    method.detect(torch.zeros(1, 20, 9))
    assert torch.equal(method.loss(one)["loss"], expected) and torch.equal(method.eval().loss(one)["loss"], expected)


def test_left_and_right_are_swapped_in_a_mirror_image() -> None:
    method = built(mirrored=[0, 2, 1], augment=Augmentation(affine=0, intensity=0, mirroring=1))
    one = batch(blocks((2, 8, 14, 24), (18, 8, 30, 24)))
    mirror = {
        **one,
        "image": one["image"].flip(2),
        "label": torch.tensor([0, 2, 1], dtype=torch.uint8)[one["label"].flip(1).long()],
    }
    torch.testing.assert_close(method.loss(one)["loss"], built().loss(mirror)["loss"])


@pytest.mark.parametrize("dims", [2, 3])
def test_it_learns_to_find_two_blocks(dims: int) -> None:
    label = torch.zeros(1, *[16] * dims, dtype=torch.uint8)
    for number, part in enumerate((slice(1, 9), slice(8, 16)), start=1):
        label[0][(part,) * dims] = number
    one = batch(label)
    one["image"] = label.unsqueeze(1) / 2 + 0.1 * one["image"]
    method = built(dims)
    optimizer = torch.optim.AdamW(method.parameters(), 1e-2)
    for _ in range(80):
        optimizer.zero_grad()
        method.loss(one)["loss"].backward()
        optimizer.step()
    found = method.detect(one["image"][0])
    (truth,) = boxes_of(label, 3)
    for index, corners in zip(truth.classes, truth.corners, strict=True):
        best = (found.classes == index).nonzero()[0, 0]
        assert found.scores[best] > 0.3
        assert (found.corners[best] - corners).abs().max() < 2


def test_an_image_of_any_size_is_padded_and_boxes_stay_inside() -> None:
    method = built(3, least_score=0.0)
    found = method.train().detect(torch.rand(1, 9, 6, 11))
    assert method.training and len(found.corners) == len(found.scores) == len(found.classes) > 0
    assert found.corners.amin() >= 0 and (found.corners[:, 3:] <= torch.tensor([9, 6, 11])).all()
    assert set(found.classes.tolist()) <= {1, 2}
    assert torch.equal(found.scores, found.scores.sort(descending=True).values)


def test_in_bf16_anchors_stand_where_they_do_in_float32() -> None:
    method, image = built(), torch.rand(1, 1, 256, 16)
    with torch.autocast("cpu", torch.bfloat16):
        method.detector._maps(image, method.encoder(image))
    low = method.detector.anchors
    method.detector.anchors = None
    method.detector._maps(image, method.encoder(image))
    assert low is not None and method.detector.anchors is not None
    assert torch.equal(low[0], method.detector.anchors[0])


def test_the_weights_hold_the_encoder_once() -> None:
    names = [name for name in built().state_dict() if "levels.0" in name]
    assert names and all(name.startswith("encoder.") for name in names)


def test_torchvision_is_not_needed() -> None:
    built().loss(batch(blocks((8, 8, 24, 24))))
    assert "torchvision" not in sys.modules


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(InputError, match=r"multiple of 8 .* got width=12 and 2 structures"):
        built(width=12)
    with pytest.raises(InputError, match=r"2 structures and the background need 3 voxel counts per scan, got \(1, 2\)"):
        built(voxels=[[1, 2]])
    with pytest.raises(InputError, match=r"takes \(B, 1, X, Y\) images, got \(1, 2, 16, 16\)"):
        built().detect(torch.zeros(2, 16, 16))
