"""SimCLR: of all views in the batch, find the one that was taken of the same image.

Chen, Kornblith, Norouzi, Hinton, "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020,
https://arxiv.org/abs/2002.05709, equation 1 and algorithm 1. Large batches in small memory as in Gao, Zhang, Han,
Callan, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", 2021, https://arxiv.org/abs/2101.06983.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from medssl.distributed import gather
from medssl.errors import InputError
from medssl.method import Method
from medssl.networks.encoder import Encoder
from medssl.networks.heads import accuracy, pooled, projector
from medssl.sample import Batch, require
from medssl.views import Views


class SimCLR(Method):
    """Pull two views of an image together and push all other views of the batch, on all devices, away.

    Args:
        encoder: The network to pretrain, for 2D or 3D images.
        temperature: The paper's tau; 0.1 suits large batches, 0.5 small ones (table 5).
        hidden: Width of the projector's hidden layer.
        width: Width of the embeddings that are compared.
        chunk: How many views the encoder sees at once; None is all of the batch's. The gradient is that of the whole
            batch, in the memory of one chunk, for a second forward pass: each chunk is computed anew in the backward
            pass. An encoder with batch normalisation takes its statistics from the chunk, and notes them twice.
        views: How the two views of an image vary.
    """

    def __init__(
        self,
        encoder: Encoder,
        temperature: float = 0.1,
        hidden: int = 2048,
        width: int = 128,
        chunk: int | None = None,
        views: Views = Views(),
    ) -> None:
        super().__init__()
        if chunk is not None and chunk < 1:
            raise InputError(f"SimCLR: chunk is a number of views, at least 1, or None for all at once; got {chunk}.")
        self.encoder = encoder
        self.projector = projector([encoder.channels[-1], hidden, width])
        self.temperature, self.chunk, self.views = temperature, chunk, views

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Normalised temperature-scaled cross-entropy of a batch, which needs image and seed."""
        require(batch, "image", "seed")
        views = self.views(batch["image"], batch["seed"]).transpose(0, 1)  # (2, B, C, *spatial)
        h = self.represent(views.flatten(0, 1))  # (2 B, channels)
        z_a, z_b = self.projector(h).chunk(2)  # each (B, width)
        logits, positive = similarities(z_a, z_b, self.temperature)
        return {"loss": F.cross_entropy(logits, positive), "accuracy": accuracy(logits, positive)}

    def represent(self, views: Tensor) -> Tensor:
        """Encode (V, C, *spatial) to (V, channels), ``chunk`` views at a time."""
        if self.chunk is None:
            return pooled(self.encoder(views))
        parts = [checkpoint(self._encode, part, use_reentrant=False) for part in views.split(self.chunk)]
        return torch.cat(parts)

    def _encode(self, views: Tensor) -> Tensor:
        return pooled(self.encoder(views))

    def check(self, images: int, channels: int, patch_size: Sequence[int]) -> None:
        """Refuse a single image: there is nothing to tell it from."""
        if images < 2:
            raise InputError(f"SimCLR tells images apart: it needs at least 2, got {images}. Add images.")

    def show(self, batch: Batch) -> dict[str, Tensor]:
        """Give each image and its two views, which should be recognised as one."""
        a, b = self.views(batch["image"], batch["seed"]).unbind(1)
        return {"image": batch["image"], "view a": a, "view b": b}


def similarities(z_a: Tensor, z_b: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Compare each view with all other views, on all processes.

    The cross-entropy of the result is equation 1, averaged over the 2N views.

    Args:
        z_a: Embeddings (B, D) of this process's first views.
        z_b: Of its second views, in the same order.
        temperature: The paper's tau.

    Returns:
        Cosines over tau (2N, 2N) in float32 with N = B times the number of processes, -inf for a view with itself; and
        which column is the row's positive, (2N,).
    """
    z = F.normalize(torch.cat([gather(z_a.float()), gather(z_b.float())]), dim=1)  # (2N, D)
    N = len(z) // 2
    if N < 2:
        raise InputError(f"SimCLR compares images: a batch needs at least 2 over all devices, got {N}.")
    with torch.autocast(z.device.type, enabled=False):  # 1 / tau would enlarge the rounding of bf16
        s = z @ z.T / temperature
    itself = torch.eye(2 * N, dtype=torch.bool, device=z.device)
    return s.masked_fill(itself, -torch.inf), torch.arange(2 * N, device=z.device).roll(N)
