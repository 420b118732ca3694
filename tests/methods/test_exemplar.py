"""What the exemplar papers say of seeds, copies and triplets, and what the transformations are worth."""

import colorsys
from pathlib import Path

import pytest
import torch
from processes import in_processes
from torch import Tensor
from torch.nn import functional as F

from medssl.errors import InputError
from medssl.methods.exemplar import Exemplar, contrast, hsv_to_rgb, principal_components, rgb_to_hsv, triplet_loss
from medssl.networks.unet import UNetEncoder
from medssl.sample import Batch

PLAIN = {"contrast": (1, 1), "power": (1, 1), "gain": (1, 1), "shift": 0, "hue": 0, "bias": 0}
STILL = {"translation": 0, "scale": (1, 1), "rotation_degrees": 0}


def build(dims: int = 2, channels: int = 1, **arguments: object) -> Exemplar:
    torch.manual_seed(0)
    small = {"patch": 8, "views": 3, "width": 8, "hidden": 16, "seeds": 6}
    return Exemplar(UNetEncoder(channels, dims, (4, 8)), **{**small, **arguments})


def batch_of(image: Tensor) -> Batch:
    return {"image": image, "seed": torch.arange(len(image)) + 1}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def embeddings(rows: int, columns: int, seed: int = 0) -> Tensor:
    return F.normalize(random(rows, columns, seed=seed).double() - 0.5, dim=1)


ALL = torch.ones(12, dtype=torch.bool)


def test_copies_that_agree_far_from_other_seeds_cost_nothing() -> None:
    z = torch.tensor([[1.0, 0.0]]).repeat(6, 1)
    z[3:] *= -1
    loss, unmet = triplet_loss(z, torch.arange(6) // 3, ALL[:6], 0.5)
    assert float(loss) == float(unmet) == 0


def test_a_collapsed_embedding_costs_the_margin() -> None:
    z = torch.tensor([[1.0, 0.0]]).repeat(6, 1)
    loss, unmet = triplet_loss(z, torch.arange(6) // 3, ALL[:6], 0.5)
    assert float(loss) == 0.5 and float(unmet) == 1


def test_matches_a_naive_search_for_semi_hard_negatives() -> None:
    z, label, kept = embeddings(12, 3), torch.arange(12) // 3, ALL.clone()
    kept[4] = False
    costs = []
    for a in range(12):
        negatives = [float((z[a] - z[n]).square().sum()) for n in range(12) if kept[n] and label[n] != label[a]]
        for p in range(12):
            if a != p and label[a] == label[p] and kept[a] and kept[p]:
                positive = float((z[a] - z[p]).square().sum())
                farther = [d for d in negatives if d > positive]
                costs.append(max(0.0, positive - (min(farther) if farther else max(negatives)) + 0.5))
    loss, unmet = triplet_loss(z, label, kept, 0.5)
    assert float(loss) == pytest.approx(sum(costs) / len(costs))
    assert float(unmet) == pytest.approx(sum(cost > 0 for cost in costs) / len(costs))


def test_two_processes_give_the_gradient_of_one_with_both_batches(tmp_path: Path) -> None:
    batch = batch_of(random(4, 1, 24, 24))

    def gradient(rows: Batch) -> Tensor:
        method = build()
        method.loss(rows)["loss"].backward()
        return torch.cat([p.grad.flatten() for p in method.parameters() if p.grad is not None])

    alone = gradient(batch)
    found = in_processes(lambda n: gradient({k: v[2 * n : 2 * n + 2] for k, v in batch.items()}), tmp_path)
    torch.testing.assert_close(sum(found) / 2, alone, atol=1e-6, rtol=1e-4)  # the average is what DDP applies


@pytest.mark.parametrize("dims", [2, 3])
def test_without_transformations_a_copy_is_the_seed_patch(dims: int) -> None:
    image = random(2, 2, *[24] * dims)
    method = build(dims, 2, **PLAIN, **STILL)
    copies = method.copies(batch_of(image))[0].view(2, 4, 3, 2, *[8] * dims)
    assert torch.allclose(copies[:, :, 0], copies[:, :, 2], atol=1e-5)
    for b in range(2):
        corners = torch.cartesian_prod(*[torch.arange(0, 24, 8)] * dims).tolist()
        cells = torch.stack([image[(b, slice(None), *[slice(c, c + 8) for c in corner])] for corner in corners])
        distance = (copies[b, :, None, 0] - cells).abs().flatten(2).amax(2)  # (K, T)
        assert distance.amin(1).max() < 1e-5 and len(set(distance.argmin(1).tolist())) == 4


def test_copies_are_moved_scaled_and_turned_within_their_ranges() -> None:
    """A ramp shows how: its value tells the place, its steepness the scale, its direction the angle."""
    y = torch.arange(64.0).view(1, 1, 1, 64).expand(1, 1, 64, 64)
    copies = build(**PLAIN).transformed(y, torch.full((1, 50, 2), 31.5), [torch.Generator().manual_seed(0)])[:, 0]
    moved = copies.mean((1, 2)) - 31.5
    assert 1 < moved.abs().max() < 0.2 * 8
    along, across = copies[:, 1, 1] - copies[:, 0, 1], copies[:, 1, 1] - copies[:, 1, 0]
    scale, angle = (along.square() + across.square()).sqrt(), torch.atan2(along, across).rad2deg()
    assert 0.7 < scale.min() < 0.8 and 1.3 < scale.max() < 1.4
    assert 15 < angle.abs().max() < 20
    torch.testing.assert_close(copies[:, :, 3].diff(dim=1), along.unsqueeze(1).expand(-1, 7), atol=1e-4, rtol=0)


def test_mixed_precision_leaves_copies_and_distances_their_digits() -> None:
    method, batch = build(), batch_of(random(2, 1, 24, 24))
    full = method.copies(batch)[0]
    with torch.autocast("cpu", torch.bfloat16):
        mixed, loss = method.copies(batch)[0], method.loss(batch)["loss"]
    assert torch.equal(mixed, full) and loss.dtype == torch.float32


def test_seeds_prefer_high_gradients_and_leave_out_air() -> None:
    image = 0.1 * random(64, 1, 32, 32)
    image[:, :, 16:24] = random(64, 1, 8, 32, seed=1)
    image[:, :, 24:] = 0
    method = build(seeds_per_image=2)
    centre, shows = method.places(image, [torch.Generator().manual_seed(n) for n in range(64)])
    row = centre[..., 0].flatten() // 8
    assert shows.all() and (row != 3).all()
    assert (row == 2).float().mean() > 0.6  # of the rows with texture it is a third
    _, shows = method.places(torch.zeros(2, 1, 32, 32), [torch.Generator().manual_seed(n) for n in range(2)])
    assert not shows.any()


def test_contrast_scales_along_the_principal_components() -> None:
    image = random(1, 3, 8, 8) @ torch.diag(torch.linspace(1, 3, 8))
    mean, components = principal_components(image)
    torch.testing.assert_close(contrast(image, mean, components, torch.ones(1, 3)), image)
    scaled = contrast(image, mean, components, torch.tensor([[0.5, 1.0, 2.0]]))
    before, after = ((components.mT @ (x.flatten(2) - mean.unsqueeze(2))).std(2) for x in (image, scaled))
    torch.testing.assert_close(after, before * torch.tensor([[0.5, 1.0, 2.0]]))
    grey = random(1, 1, 8, 8)
    torch.testing.assert_close(
        contrast(grey, *principal_components(grey), torch.full((1, 1), 2.0)), 2 * grey - grey.mean()
    )


def test_colours_are_as_the_standard_library_turns_them() -> None:
    rgb = torch.cat([random(1, 3, 4, 5), torch.tensor([0.0, 0.5, 1.0]).view(1, 1, 1, 3).expand(1, 3, 4, 3)], 3)
    hsv = rgb_to_hsv(rgb)
    for place in range(32):
        expected = colorsys.rgb_to_hsv(*rgb.flatten(2)[0, :, place].tolist())
        assert hsv.flatten(2)[0, :, place].tolist() == pytest.approx(expected, abs=1e-5)
    torch.testing.assert_close(hsv_to_rgb(hsv), rgb)


@pytest.mark.parametrize("dims", [2, 3])
def test_the_mean_tells_the_seed_only_without_changes_of_intensity(dims: int) -> None:
    cells = F.interpolate(random(1, 1, *[4] * dims), scale_factor=8)
    image = 0.8 * cells + 0.02 * random(1, 1, *[32] * dims)

    def share_found(method: Exemplar) -> float:
        """Take for the same seed what has the nearest mean."""
        copies, seed, _ = method.copies(batch_of(image))
        mean = copies.flatten(1).mean(1)
        distance = (mean.unsqueeze(0) - mean.unsqueeze(1)).abs().fill_diagonal_(9)
        return float((seed[distance.argmin(1)] == seed).float().mean())

    settings = {"seeds_per_image": 16, "views": 2, "empty": 0}
    assert share_found(build(dims, **settings, **PLAIN, **STILL)) == 1
    assert share_found(build(dims, **settings)) < 0.4


def test_a_sample_has_the_same_copies_in_any_batch() -> None:
    method, batch = build(3), batch_of(random(3, 1, 16, 16, 16))
    together, alone = method.copies(batch)[0], method.copies({key: value[2:] for key, value in batch.items()})[0]
    torch.testing.assert_close(alone, together[-len(alone) :])


def test_the_first_epochs_fill_the_classes_and_later_ones_leave_them() -> None:
    method = build(form="classification", seeds=6)
    batches = [batch_of(random(1, 1, 24, 24, seed=n)) for n in range(3)]
    left = iter(batches)
    method.start_epoch(left)
    assert method.state_scores() == {"seeds": 6} and len(list(left)) == 1  # 4 of the first crop, 2 of the second
    bank = method.bank.clone()
    method.start_epoch(batches[2:])
    assert torch.equal(method.bank, bank) and (bank.flatten(1).std(1) > 0).all()
    resumed = build(form="classification", seeds=6)
    resumed.load_state_dict(method.state_dict())
    assert torch.equal(resumed.loss(batches[0])["loss"], method.loss(batches[0])["loss"])


def test_a_class_is_a_seed_and_its_copies_come_from_there() -> None:
    method = build(form="classification", seeds=4, **PLAIN, **STILL)
    image = random(1, 1, 24, 24)
    copies, seed, _ = method.copies(batch_of(image))
    torch.testing.assert_close(copies, method.bank[seed].float(), atol=1e-3, rtol=0)
    cells = image.unfold(2, 8, 8).unfold(3, 8, 8).reshape(-1, 1, 8, 8)
    assert (copies.unsqueeze(1) - cells).abs().amax((2, 3, 4)).amin(1).max() < 1e-3


def test_two_processes_keep_the_same_seeds(tmp_path: Path) -> None:
    batch = batch_of(random(2, 1, 24, 24))

    def bank(rows: Batch) -> Tensor:
        method = build(form="classification", seeds=8)
        method.start_epoch([rows])
        return method.bank

    alone = bank(batch)
    found = in_processes(lambda n: bank({k: v[n : n + 1] for k, v in batch.items()}), tmp_path)
    assert torch.equal(found[0], alone) and torch.equal(found[1], alone)


def test_refuses_what_holds_no_seeds() -> None:
    with pytest.raises(InputError, match=r"\(15, 40\) voxels hold 5 patches of 8 a side, not the 6"):
        build(seeds_per_image=6).check(10, 1, (15, 40))
    with pytest.raises(InputError, match="patch=3 is smaller than the encoder's coarsest stride, 4"):
        build(patch=3).check(10, 1, (40, 40))
    with pytest.raises(InputError, match="smaller than a stored seed of 12 a side"):
        build(form="classification").check(10, 1, (11, 40))
    with pytest.raises(InputError, match="at least 2, got 1"):
        build(seeds_per_image=1).loss(batch_of(random(1, 1, 24, 24)))
    with pytest.raises(InputError, match="views=1 and seeds=6 must be at least 2"):
        build(views=1)
    with pytest.raises(InputError, match="no crop of the first batch shows anything"):
        build(form="classification").loss(batch_of(torch.zeros(1, 1, 24, 24)))
