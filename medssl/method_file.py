"""A trained method is a folder: all of its weights and memory, and ``method.json`` that says how to build it again.

The encoder alone is what pretraining is for; the whole method is what its pretext task is judged with afterwards.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from medssl.data.preparation import Preparation
from medssl.data.prepared_recordings import RecordingPreparation
from medssl.errors import InputError
from medssl.method import Method
from medssl.methods import VIDEO, build_pretext, build_video_method
from medssl.networks import build_encoder
from medssl.weights import WEIGHTS, Kind, find_folder, read_description, write_folder

METHOD = Kind(
    "method",
    "method.json",
    frozenset(
        {
            "method",
            "method_arguments",
            "encoder",
            "encoder_arguments",
            "in_channels",
            "spatial_dims",
            "preparation",
            "recipe",
        }
    ),
    "medssl pretrain",
)


@dataclass
class TrainedMethod:
    """A method of pretraining, and all that is needed to pose its task on a new image.

    Attributes:
        method: The module itself, with the encoder inside.
        name: Its name in ``medssl.methods.PRETEXTS`` or ``medssl.methods.VIDEO``.
        arguments: Its own arguments, JSON-able.
        encoder: The encoder's name in ``medssl.networks.ENCODERS``.
        encoder_arguments: Its own arguments, JSON-able.
        preparation: How an image, or a recording, becomes what it sees.
        recipe: How it was trained, JSON-able; ``patch_size`` is of the crops, of methods that learn from crops.
    """

    method: Method
    name: str
    arguments: dict[str, Any]
    encoder: str
    encoder_arguments: dict[str, Any]
    preparation: Preparation | RecordingPreparation
    recipe: Mapping[str, Any] = field(default_factory=dict)

    @property
    def patch_size(self) -> tuple[int, ...]:
        """Of the crops that it was trained on, voxels."""
        return tuple(self.recipe["patch_size"])


def save_method(trained: TrainedMethod, folder: Path) -> None:
    """Write a method's folder, whole or not at all.

    Raises:
        InputError: The disk is full or refuses to be written.
    """
    told = {
        "method": trained.name,
        "method_arguments": trained.arguments,
        "encoder": trained.encoder,
        "encoder_arguments": trained.encoder_arguments,
        "in_channels": trained.method.encoder.in_channels,
        "spatial_dims": trained.method.encoder.spatial_dims,
        "preparation": trained.preparation.to_dict(),
        "recipe": dict(trained.recipe),
    }
    write_folder(folder, METHOD, told, trained.method)


def load_method(path_or_uri: str | Path) -> TrainedMethod:
    """Read a method's folder; the method is in evaluation, where nothing that it remembers changes.

    Args:
        path_or_uri: The folder ``method`` of a pretraining, or an MLflow URI.

    Raises:
        InputError: It is none, is of a later format, or its weights are another method's.
    """
    folder, _ = find_folder(path_or_uri, METHOD)
    told = read_description(folder, METHOD)
    encoder = build_encoder(told["encoder"], told["in_channels"], told["spatial_dims"], **told["encoder_arguments"])
    build = build_video_method if told["method"] in VIDEO else build_pretext
    method: Method = build(told["method"], encoder, **told["method_arguments"])
    try:
        # Not read_weights, which refuses NaN: what a method remembers may rightly be unknown so far.
        method.load_state_dict(load_file(folder / WEIGHTS))
    except (SafetensorError, RuntimeError) as error:
        raise InputError(
            f"{folder}: its weights are damaged, or not those of the method that it names ({error}). Run the same "
            "medssl pretrain again: it writes them anew from its checkpoint."
        ) from error
    return TrainedMethod(
        method.eval(),
        told["method"],
        told["method_arguments"],
        told["encoder"],
        told["encoder_arguments"],
        _preparation(told["preparation"]),
        told["recipe"],
    )


def _preparation(told: dict[str, Any]) -> Preparation | RecordingPreparation:
    """Of recordings where it has the size of pictures, of scans otherwise."""
    return RecordingPreparation.from_dict(told) if "size" in told else Preparation.from_dict(told)
