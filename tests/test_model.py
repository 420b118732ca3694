"""A trained model as a folder."""

import errno
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from medssl import weights as weights_module
from medssl.data.preparation import Preparation
from medssl.errors import InputError
from medssl.labels.lut import LabelSet, Structure
from medssl.model import Model, load_model, load_weights, save_model
from medssl.networks import NETWORKS, build_network
from medssl.networks.encoder import Encoder
from medssl.networks.segmentation import SegmentationNetwork

LABELS = LabelSet("two", (Structure(17, "Left-Hippocampus", (220, 216, 20)), Structure(53, "Right", (1, 2, 3))))


class OneLayer(Encoder):
    def __init__(self, in_channels: int, spatial_dims: int, width: int) -> None:
        super().__init__()
        self.in_channels, self.spatial_dims, self.channels, self.strides = in_channels, spatial_dims, (width,), (1,)
        self.first = (nn.Conv3d if spatial_dims == 3 else nn.Conv2d)(in_channels, width, 3, padding=1)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.first(x)]


class Head(nn.Module):
    def __init__(self, width: int, classes: int, spatial_dims: int) -> None:
        super().__init__()
        self.last = (nn.Conv3d if spatial_dims == 3 else nn.Conv2d)(width, classes, 1)

    def forward(self, image: Tensor, features: list[Tensor]) -> Tensor:
        return self.last(features[0])


def tiny(in_channels: int = 1, classes: int = 2, spatial_dims: int = 3, width: int = 8) -> SegmentationNetwork:
    return SegmentationNetwork(OneLayer(in_channels, spatial_dims, width), Head(width, classes, spatial_dims))


@pytest.fixture(autouse=True)
def tiny_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "tiny", tiny)


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    return Model(
        network=build_network("tiny", 1, LABELS.classes, 3, width=6),
        network_name="tiny",
        network_arguments={"width": 6},
        label_set=LABELS,
        preparation=Preparation(spacing_mm=2.0, percentiles=(1.0, 99.0)),
        patch_size=(16, 16, 12),
        run={"run_id": "abc", "steps": 3},
    )


def test_a_model_comes_back_as_it_was(model: Model, tmp_path: Path) -> None:
    save_model(model, tmp_path / "model")
    again = load_model(tmp_path / "model")
    x = torch.randn(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(again.network(x), model.network(x))
    assert not again.network.training
    for part in ("network_name", "network_arguments", "label_set", "preparation", "patch_size", "run"):
        assert getattr(again, part) == getattr(model, part)
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["model.json", "weights.safetensors"]


@pytest.mark.parametrize("name", ["unet", "sdnet", "fcn"])
def test_every_shipped_network_comes_back(model: Model, tmp_path: Path, name: str) -> None:
    shipped = build_network(name, 1, LABELS.classes, 2)
    save_model(Model(shipped, name, {}, LABELS, model.preparation, (32, 32)), tmp_path / "model")
    again = load_model(str(tmp_path / "model")).network.state_dict()
    assert all(torch.equal(again[key], entry) for key, entry in shipped.state_dict().items())


def test_a_model_is_replaced_whole(model: Model, tmp_path: Path) -> None:
    save_model(model, tmp_path / "model")
    before = load_file(tmp_path / "model" / "weights.safetensors")
    with torch.no_grad():
        model.network.decoder.last.bias.add_(1)
    save_model(model, tmp_path / "model")
    after = load_file(tmp_path / "model" / "weights.safetensors")
    assert not torch.equal(before["decoder.last.bias"], after["decoder.last.bias"])
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_full_disk_leaves_the_old_model(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(model, tmp_path / "model")
    before = (tmp_path / "model" / "weights.safetensors").read_bytes()

    def full(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match="No space left"):
        save_model(model, tmp_path / "model")
    assert (tmp_path / "model" / "weights.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_model_is_fetched_from_mlflow(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(model, tmp_path / "model")
    asked = []
    monkeypatch.setattr(weights_module.tracking, "download", lambda uri: asked.append(uri) or tmp_path / "model")
    assert load_model("runs:/0123/model").label_set == LABELS
    assert load_model("models:/brain/1").label_set == LABELS
    assert asked == ["runs:/0123/model", "models:/brain/1"]


def test_the_fingerprint_follows_the_weights_and_not_the_run(model: Model) -> None:
    before = model.fingerprint()
    model.run["run_id"] = "other"
    assert model.fingerprint() == before
    with torch.no_grad():
        model.network.decoder.last.bias.add_(1)
    assert model.fingerprint() != before


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "nothing at that path"),
        (lambda path: path.mkdir(), r"lacks weights\.safetensors and model\.json"),
        (lambda path: path.write_bytes(pickle.dumps({"a": 1})), "never opened"),
    ],
)
def test_what_is_no_model_is_told_what_one_holds(make: Callable[[Path], object], said: str, tmp_path: Path) -> None:
    path = tmp_path / "given"
    make(path)
    with pytest.raises(InputError, match=rf"given: is no model; .*{said}.* holds weights\.safetensors and model\.json"):
        load_model(path)


def test_pickled_weights_are_refused_without_being_run(model: Model, tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[Path]]:
            return Path.touch, (tmp_path / "was_run",)

    save_model(model, tmp_path / "model")
    torch.save(Malicious(), tmp_path / "model" / "weights.safetensors")
    with pytest.raises(InputError, match="no safetensors file"):
        load_model(tmp_path / "model")
    assert not (tmp_path / "was_run").exists()


def edit(folder: Path, **changes: object) -> None:
    told = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({k: v for k, v in {**told, **changes}.items() if v is not None}))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": 2, "medssl": "9.9"}, r"format 2, written by medssl 9\.9; .* reads up to 1\. Install a newer"),
        ({"format": "one"}, "no format number"),
        ({"patch_size": None, "run": None}, "lacks patch_size, run"),
        ({"network": "uunet"}, "no network 'uunet'.*fcn, .*sdnet, .*tiny, unet"),
        ({"network_arguments": {"depth": 3}}, "depth"),
    ],
)
def test_a_description_that_cannot_be_used_is_refused(
    model: Model, tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    save_model(model, tmp_path / "model")
    edit(tmp_path / "model", **changes)
    with pytest.raises(InputError, match=said):
        load_model(tmp_path / "model")


def test_weights_of_another_network_are_refused_with_their_coverage(model: Model, tmp_path: Path) -> None:
    save_model(model, tmp_path / "model")
    edit(tmp_path / "model", network_arguments={"width": 7})
    with pytest.raises(InputError, match=r"weights do not fit .* \d+\.\d% .*mismatched: .*encoder\.first\.weight"):
        load_model(tmp_path / "model")
    edit(tmp_path / "model", network="unet", network_arguments={})
    with pytest.raises(InputError, match=r"0\.0% .*\(0 entries match; \d+ missing: .*4 unused: .*encoder\.first"):
        load_model(tmp_path / "model")


def test_weights_with_more_than_the_network_has_are_refused(model: Model, tmp_path: Path) -> None:
    save_model(model, tmp_path / "model")
    path = tmp_path / "model" / "weights.safetensors"
    save_file({**load_file(path), "extra": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="1 unused: extra"):
        load_model(tmp_path / "model")


def test_weights_with_nan_are_refused(model: Model, tmp_path: Path) -> None:
    with torch.no_grad():
        model.network.decoder.last.bias[0] = float("nan")
    save_model(model, tmp_path / "model")
    with pytest.raises(InputError, match=r"decoder\.last\.bias holds NaN"):
        load_model(tmp_path / "model")


def test_a_head_with_other_classes_is_reported_and_left_alone(model: Model, tmp_path: Path) -> None:
    save_model(model, tmp_path / "model")
    other = build_network("tiny", 1, 28, 3, width=6)
    head = other.decoder.last.weight.detach().clone()
    coverage = load_weights(other, tmp_path / "model", minimum_coverage=0.4)
    assert coverage.matched == ("encoder.first.weight", "encoder.first.bias")
    assert coverage.mismatched == ("decoder.last.weight", "decoder.last.bias")
    assert coverage.missing == coverage.unused == ()
    filled, all_numbers = 6 * 27 + 6, 6 * 27 + 6 + 28 * 6 + 28
    assert coverage.share == filled / all_numbers
    assert torch.equal(other.encoder.first.weight, model.network.encoder.first.weight)
    assert torch.equal(other.decoder.last.weight, head)


def test_too_little_coverage_leaves_the_network_untouched(model: Model, tmp_path: Path) -> None:
    save_model(model, tmp_path / "model")
    other = build_network("tiny", 1, 28, 3, width=6)
    before = {name: entry.clone() for name, entry in other.state_dict().items()}
    with pytest.raises(InputError, match=r"at least 90\.0% is asked for.*ask for less"):
        load_weights(other, tmp_path / "model")
    assert all(torch.equal(entry, before[name]) for name, entry in other.state_dict().items())
