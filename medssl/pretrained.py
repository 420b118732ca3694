"""A pretrained encoder is a folder: its weights, and ``encoder.json`` that says how to build and feed it.

``load_encoder`` takes the encoder out of such a folder or out of a trained model's, classifier's or detector's, and
reports which of its numbers were filled. ``import_encoder`` reads other projects' weights, ``export_weights`` writes
plain ones.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from medssl.data.preparation import Preparation
from medssl.errors import InputError
from medssl.files import write_aside
from medssl.model import MODEL, build_model_network
from medssl.networks import build_encoder
from medssl.networks.encoder import Encoder
from medssl.weights import (
    WEIGHTS,
    Coverage,
    Kind,
    Weights,
    fill,
    find_folder,
    read_description,
    read_weights,
    with_channels,
    write_folder,
)

ENCODER = Kind(
    "encoder",
    "encoder.json",
    frozenset({"encoder", "encoder_arguments", "in_channels", "spatial_dims", "preparation", "patch_size", "run"}),
    "medssl pretrain",
)
_TUNED = ENCODER.keys | {"arguments"}
CLASSIFIER = Kind("classifier", "classifier.json", _TUNED, "medssl train --task classification")
DETECTOR = Kind("detector", "detector.json", _TUNED, "medssl train --task detection")
_PART = "encoder."

MONAI_SSL = {
    r"^module\.": "",
    r"^swinViT\.": "",
    r"^patch_embed\.proj\.": "patches.",
    **{rf"^layers{stage}\.0\.blocks\.": f"stages.{stage - 1}." for stage in range(1, 5)},
    **{rf"^layers{stage}\.0\.downsample\.": f"stages.{stage - 1}.2." for stage in range(1, 5)},
    r"\.attn\.relative_position_bias_table$": ".bias",
    r"\.attn\.qkv\.": ".qkv.",
    r"\.attn\.proj\.": ".project.",
    r"\.mlp\.(linear|fc)1\.": ".mlp.0.",
    r"\.mlp\.(linear|fc)2\.": ".mlp.2.",
}
"""From names in MONAI's published self-supervised Swin UNETR weights to those of ``swin`` with ``merging="monai"``."""


@dataclass
class PretrainedEncoder:
    """An encoder and all that is needed to use it on a new image.

    Attributes:
        encoder: The network itself.
        name: Its name in ``medssl.networks.ENCODERS``.
        arguments: Its own arguments, JSON-able.
        preparation: How an image becomes what it sees.
        patch_size: Voxels that it was pretrained to see at once.
        run: The method and the run it came from; JSON-able.
    """

    encoder: Encoder
    name: str
    arguments: dict[str, Any]
    preparation: Preparation
    patch_size: tuple[int, ...]
    run: dict[str, Any] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """Return what ``encoder.json`` holds."""
        return {
            "encoder": self.name,
            "encoder_arguments": self.arguments,
            "in_channels": self.encoder.in_channels,
            "spatial_dims": self.encoder.spatial_dims,
            "preparation": self.preparation.to_dict(),
            "patch_size": list(self.patch_size),
            "run": self.run,
        }


def save_encoder(pretrained: PretrainedEncoder, folder: Path) -> None:
    """Write an encoder's folder, whole or not at all.

    Raises:
        InputError: The disk is full or refuses to be written.
    """
    write_folder(folder, ENCODER, pretrained.describe(), pretrained.encoder)


def load_pretrained(path_or_uri: str | Path) -> PretrainedEncoder:
    """Read an encoder's folder, whole: every number of the encoder must be there.

    Args:
        path_or_uri: A folder that ``medssl pretrain`` wrote, or an MLflow URI.

    Raises:
        InputError: It is none, is of a later format, or its weights are another network's.
    """
    folder, _ = find_folder(path_or_uri, ENCODER)
    told = read_description(folder, ENCODER)
    encoder = build_encoder(told["encoder"], told["in_channels"], told["spatial_dims"], **told["encoder_arguments"])
    coverage = fill(encoder, read_weights(folder / WEIGHTS), 1.0, folder)
    if coverage.unused:
        raise InputError(f"{folder}: its weights are not those of the encoder that it names: {coverage}.")
    return PretrainedEncoder(
        encoder.eval(),
        told["encoder"],
        told["encoder_arguments"],
        Preparation.from_dict(told["preparation"]),
        tuple(told["patch_size"]),
        told["run"],
    )


def describe_encoder(path_or_uri: str | Path) -> dict[str, Any]:
    """Read what an encoder's or a trained model's folder tells of itself: in_channels, spatial_dims, preparation, ...

    Raises:
        InputError: It is neither.
    """
    return read_description(*_find(path_or_uri))


def load_encoder(
    path_or_uri: str | Path, in_channels: int | None = None, minimum_coverage: float = 0.9
) -> tuple[Encoder, Coverage]:
    """Read the encoder of a pretraining, a model, a classifier or a detector, and the report of what of it was filled.

    Args:
        path_or_uri: A folder or an MLflow URI.
        in_channels: Channels that the encoder shall take; the first layer is adapted where the file has others.
        minimum_coverage: Least share of the encoder's numbers that must be filled.

    Raises:
        InputError: It is none of them, or less is filled.
    """
    folder, kind = _find(path_or_uri)
    told, weights = _read(folder, kind)
    channels = told["in_channels"] if in_channels is None else in_channels
    if kind == MODEL:
        encoder = build_model_network(told, channels).encoder
    else:
        encoder = build_encoder(told["encoder"], channels, told["spatial_dims"], **told["encoder_arguments"])
    adapted = with_channels(weights, encoder, told["in_channels"], channels)
    return encoder, fill(encoder, adapted, minimum_coverage, folder)


def fill_encoder(encoder: Encoder, path_or_uri: str | Path, minimum_coverage: float = 0.9) -> Coverage:
    """Fill a network's encoder with a trained one, its first layer adapted to the channels; returns the report.

    Args:
        encoder: Filled in place.
        path_or_uri: As for ``load_encoder``.
        minimum_coverage: Least share of the encoder's numbers that must be filled.

    Raises:
        InputError: The weights are of another architecture or number of dimensions.
    """
    told, weights = _read(*_find(path_or_uri))
    if told["spatial_dims"] != encoder.spatial_dims:
        raise InputError(
            f"{path_or_uri}: is for {told['spatial_dims']}D images, the network is for {encoder.spatial_dims}D ones. "
            "Choose an encoder that was pretrained on images of that kind."
        )
    adapted = with_channels(weights, encoder, told["in_channels"], encoder.in_channels)
    return fill(encoder, adapted, minimum_coverage, str(path_or_uri))


def import_encoder(
    encoder: Encoder, path: Path, keys: Mapping[str, str] | None = None, minimum_coverage: float = 0.9
) -> Coverage:
    """Fill an encoder with another project's weights; returns the report.

    Args:
        encoder: Filled in place.
        path: A safetensors file, or a PyTorch file of tensors alone (read with ``weights_only``: no code is run).
        keys: Regular expressions and what takes their place in the file's names, tried in order (as in ``re.sub``),
            such as ``MONAI_SSL``. None leaves names alone.
        minimum_coverage: Least share of the encoder's numbers that must be filled.

    Raises:
        InputError: The file cannot be read without running code, or less is filled.
    """
    weights = _plain_tensors(path)
    for pattern, instead in (keys or {}).items():
        weights = {re.sub(pattern, instead, name): w for name, w in weights.items()}
    return fill(encoder, weights, minimum_coverage, path)


def export_weights(encoder: Encoder, path: Path) -> None:
    """Write the encoder's ``state_dict`` alone: safetensors, or PyTorch's format where the name ends in .pt or .pth.

    Read back by ``import_encoder`` it is the same to the bit.
    """
    plain = {name: entry.detach().cpu().clone().contiguous() for name, entry in encoder.state_dict().items()}
    with write_aside(path) as aside:
        if path.suffix in (".pt", ".pth"):
            torch.save(plain, aside)
        else:
            save_file(plain, aside)


def _find(path_or_uri: str | Path) -> tuple[Path, Kind]:
    return find_folder(path_or_uri, ENCODER, MODEL, CLASSIFIER, DETECTOR)


def _read(folder: Path, kind: Kind) -> tuple[dict[str, Any], Weights]:
    """What a folder tells of itself, and the encoder's weights alone."""
    told, weights = read_description(folder, kind), read_weights(folder / WEIGHTS)
    if kind != ENCODER:
        weights = {name.removeprefix(_PART): w for name, w in weights.items() if name.startswith(_PART)}
    return told, weights


def _plain_tensors(path: Path) -> Weights:
    if not path.is_file():
        raise InputError(f"{path}: there is no such file of weights.")
    if path.suffix not in (".pt", ".pth", ".bin", ".ckpt", ".tar"):
        return read_weights(path)
    try:
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds; none may pass for weights
        raise InputError(
            f"{path}: cannot be read as tensors alone ({type(error).__name__}); a file that needs more would run its "
            "author's code. Ask for safetensors, or save its state_dict alone where you trust it."
        ) from error
    while isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not any(isinstance(value, Tensor) for value in loaded.values()):
        raise InputError(f"{path}: holds no dictionary of tensors; give the state_dict of a network.")
    return {str(name): value for name, value in loaded.items() if isinstance(value, Tensor)}
