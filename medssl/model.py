"""A trained model is a folder: ``weights.safetensors``, and ``model.json`` that says how to build and feed the network.

Nothing in it is ever unpickled, so a folder from a stranger can run no code.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from medssl.data.preparation import Preparation
from medssl.errors import InputError
from medssl.labels.lut import LabelSet
from medssl.networks import build_network
from medssl.networks.segmentation import SegmentationNetwork
from medssl.weights import (
    FORMAT,
    WEIGHTS,
    Coverage,
    Kind,
    fill,
    find_folder,
    read_description,
    read_weights,
    to_bytes,
    write_folder,
)

MODEL = Kind(
    "model",
    "model.json",
    frozenset(
        {"network", "network_arguments", "in_channels", "spatial_dims", "label_set", "preparation", "patch_size", "run"}
    ),
    "medssl train",
)


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
        """Return what ``model.json`` holds, besides its format."""
        return {
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
        told = {"format": FORMAT, **{key: value for key, value in self.describe().items() if key != "run"}}
        digest = hashlib.blake2b(json.dumps(told, sort_keys=True).encode(), digest_size=8)
        digest.update(to_bytes(self.network))
        return digest.hexdigest()


def save_model(model: Model, folder: Path) -> None:
    """Write a model folder, whole or not at all.

    Raises:
        InputError: The disk is full or refuses to be written.
    """
    write_folder(folder, MODEL, model.describe(), model.network)


def load_model(path_or_uri: str | Path) -> Model:
    """Read a model from a folder or from MLflow (``runs:/<id>/model``, ``models:/<name>/<version>``).

    Raises:
        InputError: It is no model folder, is of a later format, or its weights are another network's.
    """
    folder, _ = find_folder(path_or_uri, MODEL)
    told = read_description(folder, MODEL)
    network = build_model_network(told, told["in_channels"])
    coverage = fill(network, read_weights(folder / WEIGHTS), 1.0, folder)
    if coverage.unused:
        raise InputError(
            f"{folder}: its weights are not those of the network that {MODEL.description} names: {coverage}."
        )
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
    folder, _ = find_folder(path_or_uri, MODEL)
    read_description(folder, MODEL)
    return fill(network, read_weights(folder / WEIGHTS), minimum_coverage, folder)


def build_model_network(told: Mapping[str, Any], in_channels: int) -> SegmentationNetwork:
    """Build the network that a model's description tells of, for images of so many channels."""
    classes = LabelSet.from_dict(told["label_set"]).classes
    return build_network(told["network"], in_channels, classes, told["spatial_dims"], **told["network_arguments"])
