"""Planted shortcuts are found and named, a network that has none is not accused, and the judgement's arithmetic."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from medssl.augment import Generators
from medssl.errors import InputError
from medssl.evaluation.audit import AS_IS, CONTROL, EXCHANGED, SHAM, Judgement, Rescored, judge, rescore, sentences
from medssl.evaluation.controls import CONTROLS, Control, unchanged
from medssl.method import Method
from medssl.methods import PRETEXTS, build_pretext
from medssl.networks.encoder import Encoder
from medssl.networks.unet import UNetEncoder
from medssl.networks.vit import ViTEncoder
from medssl.sample import Batch

SIDE = 32


@pytest.fixture(autouse=True)
def single_thread() -> None:
    torch.set_num_threads(1)


def noise(count: int, side: int, sigma: float, draw: Generator) -> Tensor:
    """Smooth noise of standard deviation 1, (count, 1, side, side)."""
    at = torch.arange(-int(3 * sigma) - 1, int(3 * sigma) + 2)
    kernel = torch.exp(-0.5 * (at / sigma) ** 2)
    reach = len(at) // 2
    x = F.pad(torch.randn(count, 1, side, side, generator=draw), (reach,) * 4, mode="circular")
    x = F.conv2d(F.conv2d(x, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
    return x / x.std((2, 3), keepdim=True)


def mushrooms(count: int, draw: Generator) -> Tensor:
    """Anatomy that says what is up: caps on stalks, wherever the crop was taken."""
    image = 1 + 0.15 * noise(count, SIDE + 16, 1.5, draw)
    for one in image[:, 0]:
        for x, y in torch.randint(0, SIDE + 6, (10, 2), generator=draw).tolist():
            one[x : x + 9, y + 3 : y + 6] += 0.8
            one[x : x + 4, y : y + 9] += 0.8
    return image[:, :, 8:-8, 8:-8]


def with_marker(count: int, draw: Generator) -> Tensor:
    image = 1 + 0.15 * noise(count, SIDE, 1.5, draw)
    image[:, :, :3, :3] = 3.0
    return image


def with_vignetting(count: int, draw: Generator) -> Tensor:
    return (1 + 0.15 * noise(count, SIDE, 1.5, draw)) * torch.exp(0.5 * torch.linspace(-1, 1, SIDE)).view(-1, 1)


class PatchEncoder(Encoder):
    """One linear layer on each quarter of a small patch: all that comparing edges takes."""

    def __init__(self, width: int = 32, side: int = 4) -> None:
        super().__init__()
        self.channels, self.strides, self.spatial_dims, self.in_channels = (width,), (side,), 2, 1
        self.layer = nn.Conv2d(1, width, side, side)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.layer(x)]


def batch(image: Tensor, first: int) -> Batch:
    number = torch.arange(len(image))
    return {"image": image, "seed": first + number, "index": number, "number": number}


def trained(method: Method, images: Tensor, steps: int, learning_rate: float = 3e-3, size: int = 32) -> Method:
    optimizer = torch.optim.AdamW(method.parameters(), learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
    draw = Generator().manual_seed(0)
    for step in range(steps):
        chosen = torch.randint(len(images), (size,), generator=draw)
        loss = method.loss(batch(images[chosen], 10_000 + step * size))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        method.after_step()
    return method


def judged(method: Method, images: Tensor) -> Judgement:
    return judge(rescore(method, [batch(part, 4 * number) for number, part in enumerate(images.split(4))]))


def rotation(images: Callable[[int, Generator], Tensor], steps: int, **arguments: object) -> Judgement:
    draw = Generator().manual_seed(1)
    torch.manual_seed(0)
    method = build_pretext("rotation", UNetEncoder(1, 2, (8, 16), 2, "group"), copies=2, **arguments)
    return judged(trained(method, images(256, draw), steps), images(128, draw))


def test_a_network_that_looks_at_anatomy_is_not_accused() -> None:
    found = rotation(mushrooms, 300)
    assert found.learnt and found.whole.low > 0.6 and found.used == ()
    assert "None of the cues that were looked for (border, intensity, field," in " ".join(sentences(found))


def test_a_marker_in_a_corner_is_found_at_the_border() -> None:
    found = rotation(with_marker, 150)
    assert found.used[0] == "border" and "field" not in found.used
    assert found.table.set_index("control").loc["border", "share"] > 0.8
    (accusation,) = [line for line in sentences(found) if "used what stands at the border" in line]
    assert "a marker" in accusation and "of what was learnt" in accusation


def test_vignetting_that_says_what_is_up_is_found() -> None:
    found = rotation(with_vignetting, 120, bias=0.0)
    assert found.used == ("field",) and found.table.set_index("control").loc["field", "share"] > 0.8
    assert "vignetting" in sentences(found)[1]


def edges(gap: float, jitter: float) -> Judgement:
    """Context prediction on texture without any anatomy, all other guards off."""
    draw = Generator().manual_seed(1)
    torch.manual_seed(0)
    off = {"coarse": 0.0, "bias": 0.0, "gamma": 0.0, "normalise": False, "empty": 0.0}
    place = {"patch": 8.01 / SIDE, "gap": gap, "jitter": jitter, "grids": 1, "width": 128}
    method = build_pretext("context_prediction", PatchEncoder(), **off, **place)
    return judged(trained(method, noise(2048, SIDE, 2.0, draw), 150, 1e-2, 64), noise(128, SIDE, 2.0, draw))


def test_edges_that_go_on_in_the_next_patch_are_found_at_the_border_and_a_gap_takes_them_away() -> None:
    found = edges(gap=0.0, jitter=0.0)
    assert found.whole.low > 0.4 and found.used[0] == "border"
    assert found.table.set_index("control").loc["border", "share"] > 0.8
    guarded = edges(gap=0.5, jitter=0.0)
    assert guarded.whole.high < 0.4


def scores(columns: dict[tuple[str, str], object], batches: int = 40, measure: str = "accuracy") -> Rescored:
    rows = [
        {"control": control, "version": version, "batch": number, "score": score, "weight": 1.0}
        for (control, version), values in columns.items()
        for number, score in enumerate(np.broadcast_to(values, batches))
    ]
    return Rescored(measure, pd.DataFrame(rows))


def test_what_a_control_takes_is_a_share_of_what_was_learnt() -> None:
    told = {("", AS_IS): 0.9, ("", EXCHANGED): 0.1, ("border", CONTROL): 0.3, ("border", SHAM): 0.7}
    found = judge(scores(told))
    row = found.table.iloc[0]
    assert row["lost"] == pytest.approx(0.6) and row["beyond_sham"] == pytest.approx(0.4)
    assert row["share"] == pytest.approx(0.4 / 0.8) and row["share_high"] == pytest.approx(0.5)
    assert found.used == ("border",)


@pytest.mark.parametrize(("control", "sham"), [(0.3, 0.3), (0.3, 0.2), (0.85, 0.9), (0.95, 0.9)])
def test_a_fall_that_the_sham_shares_or_that_is_small_accuses_nobody(control: float, sham: float) -> None:
    told = {("", AS_IS): 0.9, ("", EXCHANGED): 0.1, ("border", CONTROL): control, ("border", SHAM): sham}
    assert judge(scores(told)).used == ()


def test_a_fall_that_may_be_luck_accuses_nobody_and_rules_nothing_out() -> None:
    some = np.random.default_rng(0).normal(0, 1.5, 40)
    told = {
        ("", AS_IS): 0.9,
        ("", EXCHANGED): 0.1,
        ("border", CONTROL): 0.6 + some - some.mean(),
        ("border", SHAM): 0.9,
    }
    found = judge(scores(told))
    assert found.table["share"].iloc[0] > 0.2 and found.used == ()
    assert sentences(found)[-1].startswith("Not ruled out: border.")


def test_the_interval_is_that_of_a_mean() -> None:
    values = np.random.default_rng(0).normal(0.5, 0.1, 400)
    found = judge(scores({("", AS_IS): values, ("", EXCHANGED): 0.1, ("a", CONTROL): 0.5, ("a", SHAM): 0.5}, 400))
    half = 1.96 * values.std() / np.sqrt(400)
    assert found.whole.mean == pytest.approx(values.mean())
    assert (found.whole.low, found.whole.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=2e-3)


def test_batches_weigh_as_much_as_the_task_could_be_posed_for_them() -> None:
    told = scores({("", AS_IS): [1.0] * 20 + [0.0] * 20, ("", EXCHANGED): 0.0, ("a", CONTROL): 0, ("a", SHAM): 0})
    told.table.loc[told.table["batch"] >= 20, "weight"] = 0.0
    assert judge(told).whole.mean == 1


def test_a_loss_counts_the_other_way_round() -> None:
    told = {("", AS_IS): 0.1, ("", EXCHANGED): 0.9, ("border", CONTROL): 0.7, ("border", SHAM): 0.1}
    found = judge(scores(told, measure="loss"))
    assert found.used == ("border",) and "the loss is 0.7" in " ".join(sentences(found))


def test_nothing_is_said_of_a_task_that_was_not_learnt_or_of_few_batches() -> None:
    told = {("", AS_IS): 0.25, ("", EXCHANGED): 0.25, ("border", CONTROL): 0.1, ("border", SHAM): 0.3}
    found = judge(scores(told))
    assert not found.learnt and found.used == () and "was not learnt" in sentences(found)[-1]
    with pytest.raises(InputError, match="3 are too few, give at least 8"):
        judge(scores(told, 3))
    with pytest.raises(InputError, match="needs batches of held-out crops"):
        rescore(build_pretext("rotation", UNetEncoder(1, 2, (4, 8))), [])


SMALL: dict[str, dict[str, object]] = {
    "barlow_twins": {"width": 16},
    "context_prediction": {"patch": 0.25, "width": 32, "grids": 2},
    "deep_cluster": {"k": 2},
    "exemplar": {"patch": 8, "seeds_per_image": 1, "views": 4, "width": 8, "hidden": 16},
    "jigsaw": {"cells": 2, "permutations": 10, "width": 16, "hidden": 32},
    "masked_autoencoder": {"block": 4},
    "moco": {"queue_size": 8, "hidden": 16, "width": 8},
    "simclr": {"hidden": 16, "width": 8},
}


def images_of(method: str, dims: int = 2) -> Tensor:
    channels = 3 if method == "colorization" else 1
    return torch.rand(4, channels, *[16] * dims, generator=Generator().manual_seed(0))


@pytest.mark.parametrize("name", PRETEXTS)
def test_every_method_is_rescored_and_remembers_nothing_of_it(name: str) -> None:
    torch.manual_seed(0)
    one = batch(images_of(name), 1)
    method = build_pretext(name, UNetEncoder(one["image"].shape[1], 2, (4, 8)), **SMALL.get(name, {}))
    method.start_epoch([one])
    before = {key: value.clone() for key, value in method.state_dict().items()}
    table = rescore(method, [one]).table
    tried = [c.name for c in CONTROLS if c.least_channels <= one["image"].shape[1]]
    assert len(table) == 2 + 2 * len(tried) and table["score"].notna().all()
    assert all(torch.equal(value, before[key]) or value.isnan().all() for key, value in method.state_dict().items())
    assert not any(module._forward_pre_hooks for module in method.modules())


@pytest.mark.parametrize("name", ["rotation", "masked_autoencoder", "inpainting"])
@pytest.mark.parametrize("transformer", [False, True])
def test_what_the_network_sees_is_changed_and_what_it_is_asked_is_not(name: str, transformer: bool) -> None:
    torch.manual_seed(0)
    encoder = ViTEncoder(1, 2, patch=4, width=8, depth=1, heads=2) if transformer else UNetEncoder(1, 2, (4, 8))
    method = build_pretext(name, encoder, **SMALL.get(name, {}))
    looked: list[float] = []

    def black(image: Tensor, draw: Generators = ()) -> Tensor:
        looked.append(float(image.abs().sum()))
        return torch.zeros_like(image)

    one = batch(images_of(name), 1)
    control = Control("black", "light", "it is dark", "it is light", "seen", black, unchanged)
    told = rescore(method, [one], [control]).table.set_index(["control", "version"])["score"]
    assert min(looked) > 0 and told["black", SHAM] == told["", AS_IS]
    if name != "rotation":
        assert told["black", CONTROL] != told["", AS_IS]


def test_scores_do_not_depend_on_the_other_batches() -> None:
    torch.manual_seed(0)
    method = build_pretext("rotation", UNetEncoder(1, 2, (4, 8)))
    one, two = batch(images_of("rotation"), 1), batch(images_of("rotation").flip(2), 50)
    both, alone = rescore(method, [one, two]).table, rescore(method, [two]).table
    assert both[both["batch"] == 1]["score"].tolist() == alone["score"].tolist()
