"""Where a training starts from (random weights, a model, a pretrained encoder), and how fast each layer moves.

Layer-wise rates after Clark et al., "ELECTRA", ICLR 2020, https://arxiv.org/abs/2003.10555, appendix B: what lies
nearer to the image is more general and changes less.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medssl.data.preparation import Preparation
from medssl.errors import InputError
from medssl.method import Method
from medssl.model import load_weights
from medssl.networks.encoder import Encoder
from medssl.networks.segmentation import SegmentationNetwork
from medssl.pretrained import describe_encoder, fill_encoder

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """Where the weights of a network come from, and how fast the encoder's change.

    Args:
        model: A segmentation model's folder or MLflow URI; all weights that fit are taken.
        encoder: A pretrained encoder's, or a model's, classifier's or detector's whose encoder alone is taken; not
            both.
        minimum_coverage: Least share of the network (of the encoder) that must be filled.
        layer_decay: The learning rate of each layer of the encoder is this times that of the layer above it.
        frozen: The encoder does not change at all.
    """

    model: str | None = None
    encoder: str | None = None
    minimum_coverage: float = 0.9
    layer_decay: float = 1.0
    frozen: bool = False

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if self.model is not None and self.encoder is not None:
            raise InputError("A training starts from a model or from an encoder: give one of the two.")
        if not 0 < self.layer_decay <= 1:
            raise InputError(f"layer_decay is a share above 0 and at most 1, got {self.layer_decay}.")

    def fill(self, network: SegmentationNetwork | Method, preparation: Preparation) -> None:
        """Fill a network, and say how much of it fitted and whether its images were prepared otherwise.

        Raises:
            InputError: The weights do not fit.
        """
        if self.model is not None:
            logger.info("%s: %s", self.model, load_weights(network, self.model, self.minimum_coverage))
        if self.encoder is not None:
            logger.info("%s: %s", self.encoder, fill_encoder(network.encoder, self.encoder, self.minimum_coverage))
            tell_of_other_preparation(self.encoder, describe_encoder(self.encoder)["preparation"], preparation)
        if self.frozen:
            network.encoder.requires_grad_(False)

    def rate_factors(self, encoder: Encoder, prefix: str) -> Mapping[str, float]:
        """Say what each of the encoder's learning rates is multiplied by, by the parameters' names after ``prefix``."""
        layers = layers_of(encoder)
        depth = len(layers)
        return {
            f"{prefix}{name}": self.layer_decay ** (depth - number)
            for number, names in enumerate(layers)
            for name in names
            if self.layer_decay < 1
        }


def tell_of_other_preparation(encoder: str, before: Mapping[str, Any], preparation: Preparation) -> None:
    """Warn where images were prepared otherwise than those that an encoder was pretrained on.

    Args:
        encoder: What it is called in the message.
        before: How its images were prepared, as ``Preparation.to_dict`` tells.
        preparation: How these are.
    """
    now = preparation.to_dict()
    changed = sorted(key for key in now if before.get(key) != now[key])
    if changed:
        logger.warning(
            "%s: was pretrained on images prepared otherwise (%s); it may know them less well.",
            encoder,
            ", ".join(f"{key} {before.get(key)}, now {now[key]}" for key in changed),
        )


def layers_of(encoder: Encoder) -> list[list[str]]:
    """Group an encoder's parameters by layer, nearest to the image first.

    A layer is what lies under one number of a list (``levels.0``, ``blocks.3``), or under one name where there is no
    list (``conv1``); the order is that in which the encoder registers them.
    """
    layers: dict[str, list[str]] = {}
    for name, _ in encoder.named_parameters():
        parts = name.split(".")
        number = next((i for i, part in enumerate(parts) if part.isdigit()), 0)
        layers.setdefault(".".join(parts[: number + 1]), []).append(name)
    return list(layers.values())
