"""A segmentation network is an encoder and a decoder that was built from the encoder's contract alone."""

import torch
from torch import Tensor, nn

from medssl.errors import InputError
from medssl.networks.encoder import Encoder


class SegmentationNetwork(nn.Module):
    """Turn an image into one logit per class and voxel.

    Args:
        encoder: Any network that keeps the encoder contract.
        decoder: Turns the image and the encoder's features into logits (B, classes, *spatial).
    """

    def __init__(self, encoder: Encoder, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, image: Tensor) -> Tensor:
        """Turn (B, in_channels, *spatial) into logits (B, classes, *spatial).

        Raises:
            InputError: The image has other channels or dimensions, or a size that the strides do not divide.
        """
        check_image(image, self.encoder)
        logits: Tensor = self.decoder(image, self.encoder(image))
        return logits


def check_image(image: Tensor, encoder: Encoder) -> None:
    """Check that an image (B, C, *spatial) fits an encoder.

    Raises:
        InputError: It does not; the message says to what size to pad.
    """
    dims, stride = encoder.spatial_dims, max(encoder.strides)
    if image.ndim != dims + 2 or image.shape[1] != encoder.in_channels:
        raise InputError(
            f"The network takes ({', '.join(['B', str(encoder.in_channels), *'XYZ'[:dims]])}) images, "
            f"got {tuple(image.shape)}."
        )
    size = image.shape[2:]
    if any(n % stride for n in size):
        padded = tuple(-(-n // stride) * stride for n in size)
        raise InputError(
            f"The network halves its input down to 1/{stride}: each side must be a multiple of {stride}, got "
            f"{tuple(size)}. Choose a patch of {padded}, or pad to it."
        )


def initialise(network: nn.Module) -> None:
    """Draw convolution weights as He et al., "Delving Deep into Rectifiers", ICCV 2015, eq. 15, do; biases are 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
            nn.init.kaiming_normal_(module.weight, a=0.01)
            if module.bias is not None:
                with torch.no_grad():
                    module.bias.zero_()
