"""Weights on disk: a folder of ``weights.safetensors`` and a JSON file that says of what network they are.

Nothing in it is ever unpickled, so a folder from a stranger can run no code.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

import medssl
from medssl import tracking
from medssl.errors import InputError
from medssl.files import read_json, write_aside

FORMAT = 1
WEIGHTS = "weights.safetensors"
_URI = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)  # two letters at least: C:/ is a folder
_SHOWN = 5

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Kind:
    """A kind of folder: what holds its description, what that tells, and who writes it.

    Attributes:
        name: What a person calls it.
        description: Name of the JSON file.
        keys: That the description has, besides the format.
        maker: The command that writes it.
    """

    name: str
    description: str
    keys: frozenset[str]
    maker: str

    @property
    def a_name(self) -> str:
        """The name with its article."""
        return f"{'an' if self.name[0] in 'aeiou' else 'a'} {self.name}"

    def inside(self, folder: Path) -> bool:
        """Say whether a folder holds this kind."""
        return (folder / WEIGHTS).is_file() and (folder / self.description).is_file()


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


def write_folder(folder: Path, kind: Kind, told: Mapping[str, Any], network: nn.Module) -> None:
    """Write weights and their description, whole or not at all.

    Raises:
        InputError: The disk is full or refuses to be written.
    """
    description = json.dumps({"format": FORMAT, "medssl": medssl.__version__, **told}, indent=2) + "\n"
    with write_aside(folder) as aside:
        aside.mkdir()
        (aside / WEIGHTS).write_bytes(to_bytes(network))
        (aside / kind.description).write_text(description, encoding="utf-8")


def find_folder(path_or_uri: str | Path, *kinds: Kind) -> tuple[Path, Kind]:
    """Find the folder, downloaded from MLflow where it is a URI, and which of the kinds it holds.

    Raises:
        InputError: It holds none of them.
    """
    text = str(path_or_uri)
    folder = tracking.download(text) if _URI.match(text) else Path(path_or_uri)
    for kind in kinds:
        if kind.inside(folder):
            return folder, kind
    first = kinds[0]
    absent = [name for name in (WEIGHTS, first.description) if not (folder / name).is_file()]
    if folder.is_file():
        found = "it is a file (pickled checkpoints are never opened: they can run code)"
    elif folder.is_dir():
        found = f"it lacks {' and '.join(absent)}"
    else:
        found = "there is nothing at that path"
    raise InputError(
        f"{text}: is no {first.name}; {found}. {first.a_name.capitalize()} is a folder that holds {WEIGHTS} and "
        f"{first.description}, as {first.maker} writes it, or an MLflow URI such as runs:/<id>/{first.name}."
    )


def read_description(folder: Path, kind: Kind) -> dict[str, Any]:
    """Read what a folder tells of its weights.

    Raises:
        InputError: It is of a later format, damaged, or something else.
    """
    path = folder / kind.description
    told = read_json(path)
    if not isinstance(told, dict) or not isinstance(told.get("format"), int):
        raise InputError(f"{path}: does not describe {kind.a_name}; it has no format number.")
    if told["format"] > FORMAT:
        raise InputError(
            f"{path}: is of format {told['format']}, written by medssl {told.get('medssl', '(unknown)')}; this is "
            f"medssl {medssl.__version__}, which reads up to {FORMAT}. Install a newer medssl."
        )
    if absent := sorted(kind.keys - told.keys()):
        raise InputError(f"{path}: lacks {', '.join(absent)}; it is damaged or was written by something else.")
    return told


def read_weights(path: Path) -> Weights:
    """Read a safetensors file.

    Raises:
        InputError: It is damaged, something else, or holds NaN or infinite numbers.
    """
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


def fill(network: nn.Module, weights: Weights, minimum_coverage: float, where: str | Path) -> Coverage:
    """Copy the entries whose names and shapes agree into a network, if they are enough.

    Args:
        network: Filled in place.
        weights: By name.
        minimum_coverage: Least share of the network's numbers that must be filled.
        where: What the weights are called in a message.

    Raises:
        InputError: Less is filled; then the network was not touched.
    """
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


def with_channels(weights: Weights, network: nn.Module, before: int, after: int) -> Weights:
    """Give the first layer's kernels, (out, ``before``, *kernel), ``after`` input channels.

    Each new channel gets the mean of the old ones, scaled so that an image repeated in all channels is answered the
    same.
    """
    if before == after:
        return weights
    wanted: Weights = network.state_dict()
    adapted = dict(weights)
    for name, old in weights.items():
        fits = name in wanted and wanted[name].shape == (len(old), after, *old.shape[2:])
        if fits and old.ndim > 2 and old.shape[1] == before:
            adapted[name] = (old.sum(1, keepdim=True) / after).expand_as(wanted[name])
    return adapted


def to_bytes(network: nn.Module) -> bytes:
    """Give the network's entries in safetensors' format, each with memory of its own, as it wants them."""
    plain = {name: entry.detach().cpu().clone().contiguous() for name, entry in network.state_dict().items()}
    return bytes(save(plain))
