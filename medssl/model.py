"""A trained model is a folder: ``weights.safetensors``, and ``model.json`` that says how to build and feed the network.

Nothing in it is ever unpickled, so a folder from a stranger can run no code.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

import medssl
from medssl import tracking
from medssl.data.preparation import Preparation
from medssl.errors import InputError
from medssl.files import read_json, write_aside
from medssl.labels.lut import LabelSet
from medssl.networks import build_network
from medssl.networks.encoder import Encoder
from medssl.networks.segmentation import SegmentationNetwork

FORMAT = 1
_WEIGHTS, _DESCRIPTION = "weights.safetensors", "model.json"
_URI = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)  # two letters at least: C:/ is a folder
_ENCODER = "encoder."
_SHOWN = 5

Weights = dict[str, Tensor]


@dataclass
class Model:
    """A segmentation network and all that is needed to use it on a new scan.

    Attributes:
        network: The network itself.
        network_name: Its name in ``medssl.networks.NETWORKS``.
        network_arguments: Its own arguments, JSON-able.
        label_set: What its classes are.
        preparation: How a scan becomes what it sees.
        patch_size: Voxels that it was trained to see at once.
        run: The run it came from, as the trainer describes it; JSON-able.
    """

    network: SegmentationNetwork
    network_name: str
    network_arguments: dict[str, Any]
    label_set: LabelSet
    preparation: Preparation
    patch_size: tuple[int, ...]
    run: dict[str, Any] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """Return what ``model.json`` holds."""
        return {
            "format": FORMAT,
            "medssl": medssl.__version__,
            "network": self.network_name,
            "network_arguments": self.network_arguments,
            "in_channels": self.network.encoder.in_channels,
            "spatial_dims": self.network.encoder.spatial_dims,
            "label_set": self.label_set.to_dict(),
            "preparation": self.preparation.to_dict(),
            "patch_size": list(self.patch_size),
            "run": self.run,
        }

    def fingerprint(self) -> str:
        """Hash the weights and what decides how they are used, 16 hex digits; the run does not count."""
        told = {key: value for key, value in self.describe().items() if key not in ("run", "medssl")}
        digest = hashlib.blake2b(json.dumps(told, sort_keys=True).encode(), digest_size=8)
        digest.update(save(_plain(self.network)))
        return digest.hexdigest()


@dataclass(frozen=True)
class Coverage:
    """Which entries of a network a file of weights filled, by name.

    Attributes:
        share: Part of the network's numbers that were filled, 0 to 1.
        matched: Filled.
        missing: The file has no such entry.
        mismatched: The file's entry has another shape.
        unused: In the file alone.
    """

    share: float
    matched: tuple[str, ...]
    missing: tuple[str, ...]
    mismatched: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        """Say in one line how much fits, and what does not."""
        parts = [f"{self.share:.1%} of the network's numbers are filled ({len(self.matched)} entries match"]
        for what in ("missing", "mismatched", "unused"):
            if names := getattr(self, what):
                more = ", ..." if len(names) > _SHOWN else ""
                parts.append(f"{len(names)} {what}: {', '.join(names[:_SHOWN])}{more}")
        return "; ".join(parts) + ")"


def save_model(model: Model, folder: Path) -> None:
    """Write a model folder, whole or not at all.

    Raises:
        InputError: The disk is full or refuses to be written.
    """
    description = json.dumps(model.describe(), indent=2) + "\n"
    with write_aside(folder) as aside:
        aside.mkdir()
        (aside / _WEIGHTS).write_bytes(save(_plain(model.network)))
        (aside / _DESCRIPTION).write_text(description, encoding="utf-8")


def load_model(path_or_uri: str | Path) -> Model:
    """Read a model from a folder or from MLflow (``runs:/<id>/model``, ``models:/<name>/<version>``).

    Raises:
        InputError: It is no model folder, is of a later format, or its weights are another network's.
    """
    folder = _folder(path_or_uri)
    told = _description(folder)
    network = _build(told, told["in_channels"])
    coverage = _fill(network, _weights(folder), minimum_coverage=1.0, where=folder)
    if coverage.unused:
        raise InputError(f"{folder}: its weights are not those of the network that {_DESCRIPTION} names: {coverage}.")
    return Model(
        network=network.eval(),
        network_name=told["network"],
        network_arguments=told["network_arguments"],
        label_set=LabelSet.from_dict(told["label_set"]),
        preparation=Preparation.from_dict(told["preparation"]),
        patch_size=tuple(told["patch_size"]),
        run=told["run"],
    )


def load_weights(network: nn.Module, path_or_uri: str | Path, minimum_coverage: float = 0.9) -> Coverage:
    """Fill a network with the weights of a model, where names and shapes agree; the rest stays as it was.

    A model with other classes leaves the last layer as it was, and the report says so.

    Args:
        network: Filled in place.
        path_or_uri: As for ``load_model``.
        minimum_coverage: Least share of the network's numbers that must be filled.

    Raises:
        InputError: It is no model folder, or less is filled; then the network was not touched.
    """
    folder = _folder(path_or_uri)
    _description(folder)
    return _fill(network, _weights(folder), minimum_coverage, folder)


def load_encoder(
    path_or_uri: str | Path, in_channels: int | None = None, minimum_coverage: float = 0.9
) -> tuple[Encoder, Coverage]:
    """Read the encoder of a model, and the report of what of it was filled.

    Args:
        path_or_uri: As for ``load_model``.
        in_channels: Channels that the encoder shall take. Where the model has others, each new channel of the first
            layer gets the mean of the old ones, scaled so that an image repeated in all channels is answered the same.
        minimum_coverage: Least share of the encoder's numbers that must be filled.

    Raises:
        InputError: It is no model folder, or less is filled.
    """
    folder = _folder(path_or_uri)
    told = _description(folder)
    channels = told["in_channels"] if in_channels is None else in_channels
    encoder = _build(told, channels).encoder
    weights = _weights(folder)
    encoder_weights = {name.removeprefix(_ENCODER): w for name, w in weights.items() if name.startswith(_ENCODER)}
    adapted = _with_channels(encoder_weights, encoder, told["in_channels"], channels)
    return encoder, _fill(encoder, adapted, minimum_coverage, folder)


def _folder(path_or_uri: str | Path) -> Path:
    text = str(path_or_uri)
    folder = tracking.download(text) if _URI.match(text) else Path(path_or_uri)
    absent = [name for name in (_WEIGHTS, _DESCRIPTION) if not (folder / name).is_file()]
    if not absent:
        return folder
    if folder.is_file():
        found = "it is a file (pickled checkpoints are never opened: they can run code)"
    elif folder.is_dir():
        found = f"it lacks {' and '.join(absent)}"
    else:
        found = "there is nothing at that path"
    raise InputError(
        f"{text}: is no model; {found}. A model is a folder that holds {_WEIGHTS} and {_DESCRIPTION}, as medssl train "
        "writes it, or an MLflow URI such as runs:/<id>/model."
    )


def _description(folder: Path) -> dict[str, Any]:
    path = folder / _DESCRIPTION
    told = read_json(path)
    if not isinstance(told, dict) or not isinstance(told.get("format"), int):
        raise InputError(f"{path}: does not describe a model; it has no format number.")
    if told["format"] > FORMAT:
        raise InputError(
            f"{path}: is of format {told['format']}, written by medssl {told.get('medssl', '(unknown)')}; this is "
            f"medssl {medssl.__version__}, which reads up to {FORMAT}. Install a newer medssl."
        )
    expected = {"network", "network_arguments", "in_channels", "spatial_dims"}
    expected |= {"label_set", "preparation", "patch_size", "run"}
    if absent := sorted(expected - told.keys()):
        raise InputError(f"{path}: lacks {', '.join(absent)}; it is damaged or was written by something else.")
    return told


def _build(told: Mapping[str, Any], in_channels: int) -> SegmentationNetwork:
    classes = LabelSet.from_dict(told["label_set"]).classes
    return build_network(told["network"], in_channels, classes, told["spatial_dims"], **told["network_arguments"])


def _weights(folder: Path) -> Weights:
    path = folder / _WEIGHTS
    try:
        weights: Weights = load_file(path)
    except SafetensorError as error:
        raise InputError(
            f"{path}: is damaged, or no safetensors file ({error}). Copy or train the model again."
        ) from error
    broken = [name for name, w in weights.items() if w.is_floating_point() and not w.isfinite().all()]
    if broken:
        raise InputError(f"{path}: {broken[0]} holds NaN or infinite numbers; the training went wrong. Train it again.")
    return weights


def _fill(network: nn.Module, weights: Weights, minimum_coverage: float, where: Path) -> Coverage:
    """Copy the entries that fit into a network, if they are enough."""
    wanted: Weights = network.state_dict()
    shared = [name for name in wanted if name in weights]
    matched = tuple(name for name in shared if wanted[name].shape == weights[name].shape)
    total = sum(entry.numel() for entry in wanted.values())
    coverage = Coverage(
        share=sum(wanted[name].numel() for name in matched) / total if total else 1.0,
        matched=matched,
        missing=tuple(name for name in wanted if name not in weights),
        mismatched=tuple(name for name in shared if wanted[name].shape != weights[name].shape),
        unused=tuple(name for name in weights if name not in wanted),
    )
    if coverage.share < minimum_coverage:
        less = "" if minimum_coverage == 1 else ", or ask for less coverage"
        raise InputError(
            f"{where}: its weights do not fit the network: {coverage}; at least {minimum_coverage:.1%} is asked for. "
            f"Give a model of the same network with the same arguments{less}."
        )
    with torch.no_grad():
        for name in matched:
            wanted[name].copy_(weights[name])
    return coverage


def _with_channels(weights: Weights, encoder: Encoder, before: int, after: int) -> Weights:
    """Give the first layer's kernels, (out, ``before``, *kernel), ``after`` input channels."""
    if before == after:
        return weights
    wanted: Weights = encoder.state_dict()
    adapted = dict(weights)
    for name, old in weights.items():
        fits = name in wanted and wanted[name].shape == (len(old), after, *old.shape[2:])
        if fits and old.ndim > 2 and old.shape[1] == before:
            adapted[name] = (old.sum(1, keepdim=True) / after).expand_as(wanted[name])
    return adapted


def _plain(network: nn.Module) -> Weights:
    """The network's entries on the CPU, each with memory of its own, as safetensors wants them."""
    return {name: entry.detach().cpu().clone().contiguous() for name, entry in network.state_dict().items()}
