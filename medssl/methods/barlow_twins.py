"""Barlow Twins: two views of an image should agree, and each feature should say something new.

Zbontar, Jing, Misra, LeCun, Deny, "Barlow Twins: Self-Supervised Learning via Redundancy Reduction", ICML 2021,
https://arxiv.org/abs/2103.03230, algorithm 1.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from medssl.distributed import all_reduce_mean
from medssl.errors import InputError
from medssl.method import Method
from medssl.networks.encoder import Encoder
from medssl.networks.heads import pooled, projector, standardise
from medssl.sample import Batch, require
from medssl.views import Views


class BarlowTwins(Method):
    """Push the cross-correlation of two views' embeddings towards the identity.

    Args:
        encoder: The network to pretrain, for 2D or 3D images.
        width: Size of the projector's three layers.
        redundancy_weight: The paper's lambda, on the off-diagonal term.
        views: How the two views of an image vary.
    """

    def __init__(
        self,
        encoder: Encoder,
        width: int = 8192,
        redundancy_weight: float = 0.0051,
        views: Views = Views(),
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = projector([encoder.channels[-1], width, width, width])
        self.redundancy_weight = redundancy_weight
        self.views = views

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Redundancy-reduction loss (eq. 1) of a batch, which needs image and seed."""
        require(batch, "image", "seed")
        if len(batch["image"]) < 2:
            raise InputError(
                f"Barlow Twins compares samples: the batch needs at least 2 per device, got {len(batch['image'])}."
            )
        a, b = self.views(batch["image"], batch["seed"]).unbind(1)  # each (B, C, *spatial)
        z_a, z_b = (self.projector(pooled(self.encoder(view))) for view in (a, b))  # (B, width)
        c = cross_correlation(z_a, z_b)  # (width, width)
        invariance = (c.diagonal() - 1).square().sum()
        redundancy = c.square().sum() - c.diagonal().square().sum()
        return {
            "loss": invariance + self.redundancy_weight * redundancy,
            "invariance": invariance.detach(),
            "redundancy": redundancy.detach(),
        }

    def check(self, images: int, channels: int, patch_size: Sequence[int]) -> None:
        """Refuse a single image: features that tell nothing apart cannot correlate."""
        if images < 2:
            raise InputError(f"Barlow Twins compares images: it needs at least 2, got {images}. Add images.")

    def show(self, batch: Batch) -> dict[str, Tensor]:
        """Give each image and its two views, whose embeddings should be one."""
        a, b = self.views(batch["image"], batch["seed"]).unbind(1)
        return {"image": batch["image"], "view a": a, "view b": b}


def cross_correlation(z_a: Tensor, z_b: Tensor) -> Tensor:
    """Correlate the columns of two (B, D) embeddings over the batches of all processes; returns (D, D) in float32."""
    with torch.autocast(z_a.device.type, enabled=False):
        z_a, z_b = standardise(z_a.float()), standardise(z_b.float())
        return all_reduce_mean(z_a.T @ z_b / len(z_a))
