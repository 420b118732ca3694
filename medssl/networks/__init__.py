"""Networks by name, each built from ``(in_channels, classes, spatial_dims, **its own arguments)``."""

from collections.abc import Callable
from typing import Any

from medssl.errors import InputError
from medssl.networks.fcn import fcn
from medssl.networks.sdnet import sdnet
from medssl.networks.segmentation import SegmentationNetwork
from medssl.networks.unet import unet

NETWORKS: dict[str, Callable[..., SegmentationNetwork]] = {"unet": unet, "sdnet": sdnet, "fcn": fcn}


def build_network(
    name: str, in_channels: int, classes: int, spatial_dims: int, **arguments: Any
) -> SegmentationNetwork:
    """Build a segmentation network by name.

    Raises:
        InputError: There is no network of that name, or it does not take one of the arguments.
    """
    if name not in NETWORKS:
        raise InputError(f"There is no network '{name}'. Networks: {', '.join(sorted(NETWORKS))}.")
    try:
        return NETWORKS[name](in_channels=in_channels, classes=classes, spatial_dims=spatial_dims, **arguments)
    except TypeError as error:
        raise InputError(f"The network '{name}' cannot be built from {arguments}: {error}.") from error
