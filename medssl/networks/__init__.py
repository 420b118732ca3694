"""Networks, and their encoders, by name, each built from its sizes and its own arguments."""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from medssl.errors import InputError
from medssl.networks.encoder import Encoder
from medssl.networks.fcn import FCNEncoder, fcn
from medssl.networks.resnet import resnet18, resnet18_encoder, resnet50, resnet50_encoder
from medssl.networks.resunet import ResUNetEncoder, resunet
from medssl.networks.sdnet import SDNetEncoder, sdnet
from medssl.networks.segmentation import SegmentationNetwork
from medssl.networks.sobel import EDGES, SobelEncoder
from medssl.networks.swin import SwinEncoder, swin
from medssl.networks.unet import UNetEncoder, unet
from medssl.networks.vit import ViTEncoder, vit

NETWORKS: dict[str, Callable[..., SegmentationNetwork]] = {
    "fcn": fcn,
    "resnet18": resnet18,
    "resnet50": resnet50,
    "resunet": resunet,
    "sdnet": sdnet,
    "swin": swin,
    "unet": unet,
    "vit": vit,
}

# Under the name of the network that has it, with the same defaults.
ENCODERS: dict[str, Callable[..., Encoder]] = {
    "fcn": FCNEncoder,
    "resnet18": resnet18_encoder,
    "resnet50": resnet50_encoder,
    "resunet": ResUNetEncoder,
    "sdnet": SDNetEncoder,
    "swin": SwinEncoder,
    "unet": UNetEncoder,
    "vit": ViTEncoder,
}

Built = TypeVar("Built")


def build_network(
    name: str, in_channels: int, classes: int, spatial_dims: int, *, sobel: bool = False, **arguments: Any
) -> SegmentationNetwork:
    """Build a segmentation network by name.

    Args:
        name: One of `NETWORKS`.
        in_channels: Number of channels of the image.
        classes: Number of classes, background included.
        spatial_dims: 2 or 3.
        sobel: Its encoder sees edges, see `SobelEncoder`.
        **arguments: The network's own.

    Raises:
        InputError: There is no network of that name, or it does not take one of the arguments.
    """
    sizes = {"in_channels": in_channels, "classes": classes, "spatial_dims": spatial_dims}
    network = _build("network", NETWORKS, name, sizes, arguments)
    if sobel:  # whose decoder is the same, and looks at the image itself where it looks at one
        taken = {key: value for key, value in arguments.items() if key in encoder_parameters(name)}
        network.encoder = build_encoder(name, in_channels, spatial_dims, sobel=True, **taken)
    return network


def build_encoder(name: str, in_channels: int, spatial_dims: int, *, sobel: bool = False, **arguments: Any) -> Encoder:
    """Build an encoder by name, to pretrain it.

    Args:
        name: One of `ENCODERS`.
        in_channels: Number of channels of the image.
        spatial_dims: 2 or 3.
        sobel: It sees edges, see `SobelEncoder`; in 2D.
        **arguments: The encoder's own.

    Raises:
        InputError: There is no encoder of that name, or it does not take one of the arguments.
    """
    sizes = {"in_channels": EDGES if sobel else in_channels, "spatial_dims": spatial_dims}
    encoder = _build("encoder", ENCODERS, name, sizes, arguments)
    return SobelEncoder(encoder, in_channels) if sobel else encoder


def encoder_parameters(name: str) -> set[str]:
    """Return the names of an encoder's arguments; none for a name that no encoder has."""
    return {"sobel", *inspect.signature(ENCODERS[name]).parameters} if name in ENCODERS else set()


def _build(
    kind: str, known: dict[str, Callable[..., Built]], name: str, sizes: dict[str, int], arguments: dict[str, Any]
) -> Built:
    if name not in known:
        raise InputError(f"There is no {kind} '{name}'. {kind.capitalize()}s: {', '.join(sorted(known))}.")
    try:
        return known[name](**sizes, **arguments)
    except TypeError as error:
        raise InputError(f"The {kind} '{name}' cannot be built from {arguments}: {error}.") from error
