"""A pretrained encoder as a folder, taken out of models, imported from elsewhere and exported."""

import json
from pathlib import Path

import pytest
import torch
from monai.networks.nets import swin_unetr
from torch import Tensor

from medssl.data.preparation import Preparation
from medssl.errors import InputError
from medssl.fine_tuning import FineTuned
from medssl.labels.lut import LABEL_SETS
from medssl.methods import build_method
from medssl.methods.classification import Classification
from medssl.methods.detection import Detection
from medssl.model import Model, save_model
from medssl.networks import build_encoder, build_network
from medssl.pretrained import (
    CLASSIFIER,
    DETECTOR,
    MONAI_SSL,
    PretrainedEncoder,
    describe_encoder,
    export_weights,
    fill_encoder,
    import_encoder,
    load_encoder,
    load_pretrained,
    save_encoder,
)
from medssl.weights import Kind

LABELS = LABEL_SETS["freesurfer-27"]
ARGUMENTS = {"channels": [4, 8], "stem_stride": 1}


def pretrained(seed: int = 0, dims: int = 2, in_channels: int = 1) -> PretrainedEncoder:
    torch.manual_seed(seed)
    encoder = build_encoder("unet", in_channels, dims, **ARGUMENTS)
    return PretrainedEncoder(
        encoder, "unet", ARGUMENTS, Preparation(spacing_mm=2.0), (16,) * dims, {"method": "simclr"}
    )


def image(channels: int = 1) -> Tensor:
    return torch.rand(1, channels, 8, 8, generator=torch.Generator().manual_seed(1))


def test_an_encoder_comes_back_as_it_was(tmp_path: Path) -> None:
    one = pretrained()
    save_encoder(one, tmp_path / "encoder")
    again = load_pretrained(tmp_path / "encoder")
    for a, b in zip(again.encoder(image()), one.encoder(image()), strict=True):
        assert torch.equal(a, b)
    for part in ("name", "arguments", "preparation", "patch_size", "run"):
        assert getattr(again, part) == getattr(one, part)
    encoder, coverage = load_encoder(tmp_path / "encoder")
    assert coverage.share == 1 and torch.equal(encoder(image())[0], one.encoder(image())[0])


def test_the_encoder_of_a_segmentation_model_comes_with_its_coverage(tmp_path: Path) -> None:
    network = build_network("unet", 1, LABELS.classes, 2, **ARGUMENTS)
    save_model(Model(network, "unet", ARGUMENTS, LABELS, Preparation(), (16, 16)), tmp_path / "model")
    encoder, coverage = load_encoder(tmp_path / "model")
    assert coverage.share == 1 and coverage.unused == ()
    assert all(torch.equal(a, b) for a, b in zip(encoder.parameters(), network.encoder.parameters(), strict=True))
    other = build_encoder("unet", 1, 2, **ARGUMENTS)
    assert fill_encoder(other, tmp_path / "model").share == 1


@pytest.mark.parametrize("kind", [CLASSIFIER, DETECTOR], ids=lambda kind: kind.name)
def test_the_encoder_of_a_classifier_or_detector_is_taken_without_its_head(tmp_path: Path, kind: Kind) -> None:
    one = pretrained(seed=1).encoder
    arguments = {"classes": ["a", "b"]} if kind is CLASSIFIER else {"structures": ["a"], "width": 8, "anchors": [3.0]}
    method = build_method(Classification if kind is CLASSIFIER else Detection, one, **arguments)
    FineTuned(method, arguments, "unet", ARGUMENTS, Preparation(spacing_mm=2.0), (16, 16)).save(tmp_path / "out", kind)
    encoder, coverage = load_encoder(tmp_path / "out")
    assert coverage.share == 1 and coverage.unused == ()
    assert all(torch.equal(a, b) for a, b in zip(encoder.parameters(), one.parameters(), strict=True))
    wide = build_encoder("unet", 3, 2, **ARGUMENTS)
    assert fill_encoder(wide, tmp_path / "out").share == 1
    torch.testing.assert_close(wide(image().expand(1, 3, 8, 8))[0], one(image())[0])
    assert describe_encoder(tmp_path / "out")["preparation"]["spacing_mm"] == 2.0


@pytest.mark.parametrize("channels", [3, 4])
def test_an_encoder_with_more_channels_answers_a_repeated_image_the_same(tmp_path: Path, channels: int) -> None:
    one = pretrained()
    save_encoder(one, tmp_path / "encoder")
    encoder, coverage = load_encoder(tmp_path / "encoder", in_channels=channels)
    assert encoder.in_channels == channels and coverage.share == 1
    torch.testing.assert_close(encoder(image().expand(1, channels, 8, 8))[0], one.encoder(image())[0])
    filled = build_encoder("unet", channels, 2, **ARGUMENTS)
    fill_encoder(filled, tmp_path / "encoder")
    assert all(torch.equal(a, b) for a, b in zip(filled.parameters(), encoder.parameters(), strict=True))


def test_an_encoder_of_other_dimensions_or_architecture_is_refused(tmp_path: Path) -> None:
    save_encoder(pretrained(), tmp_path / "encoder")
    with pytest.raises(InputError, match="is for 2D images, the network is for 3D ones"):
        fill_encoder(build_encoder("unet", 1, 3, **ARGUMENTS), tmp_path / "encoder")
    with pytest.raises(InputError, match=r"do not fit the network: \d+\.\d%"):
        fill_encoder(build_encoder("unet", 1, 2, channels=[6, 8], stem_stride=1), tmp_path / "encoder")


def test_a_folder_of_a_later_version_or_with_other_weights_is_refused(tmp_path: Path) -> None:
    save_encoder(pretrained(), tmp_path / "encoder")
    path = tmp_path / "encoder" / "encoder.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps({**told, "format": 99, "medssl": "9.9"}))
    with pytest.raises(InputError, match=r"format 99, written by medssl 9\.9.*Install a newer"):
        load_pretrained(tmp_path / "encoder")
    path.write_text(json.dumps({**told, "encoder_arguments": {"channels": [4], "stem_stride": 1}}))
    with pytest.raises(InputError, match=r"not those of the encoder.*unused"):
        load_pretrained(tmp_path / "encoder")
    with pytest.raises(InputError, match=r"is no encoder; there is nothing at that path.*as medssl pretrain writes it"):
        load_pretrained(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt"])
def test_exported_weights_come_back_to_the_bit(tmp_path: Path, name: str) -> None:
    one, other = pretrained().encoder, pretrained(seed=1).encoder
    export_weights(one, tmp_path / name)
    assert import_encoder(other, tmp_path / name).share == 1
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_names_of_another_project_are_mapped(tmp_path: Path) -> None:
    one, other = pretrained().encoder, pretrained(seed=1).encoder
    theirs = {f"module.encoder.{name}": value for name, value in one.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": theirs}, tmp_path / "theirs.pt")
    with pytest.raises(InputError, match=r"0\.0% .* unused: module\.encoder"):
        import_encoder(other, tmp_path / "theirs.pt")
    assert import_encoder(other, tmp_path / "theirs.pt", {r"^module\.": "", r"^encoder\.": ""}).share == 1
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_weights_in_the_layout_of_monai_s_swin_give_monai_s_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rearrange(x: Tensor, pattern: str) -> Tensor:  # einops is no dependency; MONAI asks it for axes alone
        before, after = (side.split() for side in pattern.split("->"))
        return x.permute([before.index(axis) for axis in after])

    monkeypatch.setattr(swin_unetr, "rearrange", rearrange)
    torch.manual_seed(0)
    sizes = {"depths": (2, 2, 2, 2), "num_heads": (1, 2, 2, 2), "window_size": (2, 2, 2)}
    theirs = swin_unetr.SwinTransformer(1, 12, patch_size=(2, 2, 2), spatial_dims=3, **sizes)
    state = {f"module.{name}": value for name, value in theirs.state_dict().items()}
    torch.save({"epoch": 1, "state_dict": state}, tmp_path / "theirs.pt")
    ours = build_encoder("swin", 1, 3, width=12, heads=(1, 2, 2, 2), window=2, merging="monai")
    coverage = import_encoder(ours, tmp_path / "theirs.pt", MONAI_SSL, 1.0)
    assert all("relative_position_index" in name for name in coverage.unused)
    x = torch.rand(1, 1, 32, 32, 32)
    with torch.no_grad():
        for a, b in zip(ours(x)[:4], theirs(x)[:4], strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_a_file_that_would_run_code_is_refused_without_being_run(tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "was_run",)

    torch.save(Malicious(), tmp_path / "theirs.pt")
    with pytest.raises(InputError, match="cannot be read as tensors alone"):
        import_encoder(pretrained().encoder, tmp_path / "theirs.pt")
    assert not (tmp_path / "was_run").exists()
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(InputError, match="no dictionary of tensors"):
        import_encoder(pretrained().encoder, tmp_path / "list.pt")
