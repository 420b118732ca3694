"""MoCo: find the key of a query's image among the keys of many earlier batches, which a slowly moving encoder made.

He, Fan, Wu, Xie, Girshick, "Momentum Contrast for Unsupervised Visual Representation Learning", CVPR 2020,
https://arxiv.org/abs/1911.05722, equations 1 and 2 and algorithm 1; the hidden layer and the temperature of version 2
from Chen, Fan, Girshick, He, "Improved Baselines with Momentum Contrastive Learning", 2020,
https://arxiv.org/abs/2003.04297.
"""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.distributed import gather
from medssl.errors import InputError
from medssl.method import Method
from medssl.networks.encoder import Encoder
from medssl.networks.heads import accuracy, classifier, pooled
from medssl.sample import Batch, require
from medssl.views import Views


class MoCo(Method):
    """Tell a query's own key from the queue's. The defaults are version 2's; 1 is hidden=None, temperature=0.07.

    Batch statistics would give the answer away, as a query shares them with its key. The paper shuffles the keys among
    devices. The encoders here normalise each image by itself unless told otherwise, so nothing leaks, on one device
    too; for an encoder with batch normalisation set ``groups``.

    Args:
        encoder: The network to pretrain, the query encoder f_q, for 2D or 3D images.
        queue_size: The paper's K, keys that are kept as negatives.
        momentum: The paper's m, of the key encoder.
        temperature: The paper's tau.
        hidden: Width of the head's hidden layer; None has none.
        width: Width of queries and keys.
        groups: Parts of a batch that are encoded one after the other, the keys in another order than the queries: what
            shuffled batch normalisation does on this many devices.
        exclude_own: Do not take earlier keys of a query's own image for negatives. The paper's images are 20 times as
            many as the queue's keys, so it had no such keys; with few images most of the queue would contradict the
            positive.
        views: How query and key vary.
    """

    queue: Tensor
    queue_image: Tensor
    queue_end: Tensor

    def __init__(
        self,
        encoder: Encoder,
        queue_size: int = 65_536,
        momentum: float = 0.999,
        temperature: float = 0.2,
        hidden: int | None = 2048,
        width: int = 128,
        groups: int = 1,
        exclude_own: bool = True,
        views: Views = Views(),
    ) -> None:
        super().__init__()
        if queue_size < 1 or groups < 1 or not 0 <= momentum <= 1:
            raise InputError(
                "MoCo: queue_size and groups must be at least 1 and momentum within 0 to 1, "
                f"got {queue_size}, {groups} and {momentum}."
            )
        self.encoder = encoder
        self.head = classifier(encoder.channels[-1], width, hidden)
        self.key_encoder = deepcopy(encoder).requires_grad_(False)
        self.key_head = deepcopy(self.head).requires_grad_(False)
        self.momentum, self.temperature, self.groups = momentum, temperature, groups
        self.exclude_own, self.views = exclude_own, views
        self.register_buffer("queue", F.normalize(torch.randn(queue_size, width), dim=1))
        self.register_buffer("queue_image", torch.full((queue_size,), -1))  # of each key; -1 is still random
        self.register_buffer("queue_end", torch.zeros((), dtype=torch.long))  # where the next key goes
        self.fresh: list[tuple[Tensor, Tensor]] = []  # keys and images since the last step

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """InfoNCE (eq. 1) of a batch, which needs image, seed and index."""
        require(batch, "image", "seed", "index")
        x_q, x_k = self.views(batch["image"], batch["seed"]).unbind(1)  # each (B, C, *spatial)
        q = self.encode(self.encoder, self.head, x_q)  # (B, width)
        with torch.no_grad():
            shuffled = batch["seed"].argsort()  # seeds are random, so is their order
            k = self.encode(self.key_encoder, self.key_head, x_k[shuffled])[shuffled.argsort()]
        own = self.queue_image == batch["index"].unsqueeze(1)  # (B, K)
        excluded = own if self.exclude_own and self.training else None  # held-out images are counted anew
        logits = contrast(q, k, self.queue, excluded, self.temperature)
        positive = torch.zeros(len(q), dtype=torch.long, device=q.device)
        if self.training:
            self.fresh.append((k, batch["index"]))
        return {"loss": F.cross_entropy(logits, positive), "accuracy": accuracy(logits, positive)}

    def encode(self, encoder: nn.Module, head: nn.Module, x: Tensor) -> Tensor:
        """Encode (B, C, *spatial) group by group to unit vectors (B, width), in float32."""
        parts = [head(pooled(encoder(part))) for part in x.chunk(self.groups)]
        return F.normalize(torch.cat(parts).float(), dim=1)

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the key encoder towards the query encoder, and put the step's keys in the queue."""
        move(self.key_encoder, self.encoder, self.momentum)
        move(self.key_head, self.head, self.momentum)
        for k, image in self.fresh:
            self.enqueue(gather(k), gather(image))
        self.fresh.clear()

    def enqueue(self, keys: Tensor, images: Tensor) -> None:
        """Replace the queue's oldest keys by (B, width) of the images (B,), for any B; of more than K the last stay."""
        K, B = len(self.queue), len(keys)
        places = (self.queue_end + torch.arange(B, device=keys.device))[-K:] % K
        self.queue[places] = keys[-K:]
        self.queue_image[places] = images[-K:]
        self.queue_end.add_(B).remainder_(K)

    def _load_from_state_dict(self, *args: Any) -> None:
        """Forget the keys of a step that was not taken: a state is one after a step."""
        self.fresh.clear()
        super()._load_from_state_dict(*args)

    def check(self, images: int, channels: int, patch_size: Sequence[int]) -> None:
        """Refuse a single image: there is nothing to tell it from."""
        if images < 2:
            raise InputError(f"MoCo tells images apart: it needs at least 2, got {images}. Add images.")

    def show(self, batch: Batch) -> dict[str, Tensor]:
        """Give each image, its query and its key."""
        x_q, x_k = self.views(batch["image"], batch["seed"]).unbind(1)
        return {"image": batch["image"], "query": x_q, "key": x_k}

    def state_scores(self) -> dict[str, float]:
        """Give the share of the queue that holds keys, the rest being still random, as ``queue/filled``."""
        return {"queue/filled": float((self.queue_image >= 0).float().mean())}


def contrast(q: Tensor, k: Tensor, queue: Tensor, excluded: Tensor | None, temperature: float) -> Tensor:
    """Compare queries with their keys and the queue's; the cross-entropy of column 0 is equation 1.

    Args:
        q: Queries (B, D), unit vectors.
        k: Their keys (B, D), unit vectors.
        queue: Negatives (K, D), unit vectors.
        excluded: (B, K) of bool, which of the queue are no negatives of a query; None excludes none.
        temperature: The paper's tau.

    Returns:
        Logits (B, 1 + K), the positive first.
    """
    with torch.autocast(q.device.type, enabled=False):  # 1 / tau would enlarge the rounding of bf16
        negatives = q @ queue.T  # (B, K)
    if excluded is not None:
        negatives = negatives.masked_fill(excluded, -torch.inf)
    positive = (q * k).sum(1, keepdim=True)  # (B, 1)
    return torch.cat([positive, negatives], dim=1) / temperature


@torch.no_grad()
def move(key: nn.Module, query: nn.Module, momentum: float) -> None:
    """Update the key network (eq. 2): ``theta_k = m theta_k + (1 - m) theta_q``."""
    for theta_k, theta_q in zip(key.parameters(), query.parameters(), strict=True):
        theta_k.lerp_(theta_q, 1 - momentum)
