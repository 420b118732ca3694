"""Cycle walk: walk from patch to patch back through a video and forth again; who ends where it began knew the way.

Jabri, Owens, Efros, "Space-Time Correspondence as a Contrastive Random Walk", NeurIPS 2020,
https://arxiv.org/abs/2006.14613, section 2.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from medssl.augment import generators, uniform
from medssl.clip_augment import ClipAugment
from medssl.data.clips import ClipNeeds, Consecutive
from medssl.errors import InputError
from medssl.geometry import in_float32, sample
from medssl.label_propagation import propagate
from medssl.networks.dense_embedding import DenseEmbedding
from medssl.networks.encoder import Encoder
from medssl.photometric import masked_mean
from medssl.sample import Batch, require
from medssl.video_method import CorrespondenceMethod

_NO_EDGE = -1e4  # score of an edge that is not there; finite, so that a node without edges has a gradient
_SMALLEST = 1e-20  # probability whose logarithm is still taken


class CycleWalk(CorrespondenceMethod):
    """Maximise the probability that a random walk over similar patches, there and back in time, ends where it began.

    The nodes of a frame are overlapping patches, each encoded by itself: of a whole picture, the network would tell the
    places from its own padding, and return to them without looking (the paper's appendix on single feature maps).
    ``embed`` then takes whole pictures, cell by cell.

    Args:
        encoder: The network to train, for pictures; its largest stride divides the patch.
        width: Of the embeddings.
        stride: Side of an embedding's cell, pixels.
        patch: Side of a patch, pixels. The paper's frames have 256 x 256.
        step: From a patch to the next, pixels.
        jitter: Largest share that is cut off from each side of a patch, at random, before it is resized: the same thing
            is never seen alike.
        frames: Of a clip; walks turn after 1, 2, ... ``frames`` - 1 steps.
        gap: Frames of the recording from each to the one before it.
        temperature: The paper's tau, of the soft-max over the next frame's nodes.
        dropout: Share of the edges that are taken away, so that walks find several ways: the paper's edge dropout.
        augment: How clips vary.
    """

    def __init__(
        self,
        encoder: Encoder,
        width: int = 128,
        stride: int = 8,
        patch: int = 64,
        step: int = 32,
        jitter: float = 0.2,
        frames: int = 4,
        gap: int = 4,
        temperature: float = 0.07,
        dropout: float = 0.1,
        augment: ClipAugment = ClipAugment(),
    ) -> None:
        super().__init__()
        if temperature <= 0 or not (0 <= dropout < 1 and 0 <= jitter < 1) or min(patch, step) < 1:
            raise InputError(
                "CycleWalk: temperature must be above 0, dropout and jitter shares below 1, patch and step at least 1 "
                f"pixel; got temperature {temperature}, dropout {dropout}, jitter {jitter}, patch {patch}, step {step}."
            )
        self.network = DenseEmbedding(encoder, width, stride)
        self.encoder, self.stride, self.temperature = encoder, stride, temperature
        self.needs = ClipNeeds(Consecutive(frames, gap), intrinsics=False)
        self.patch, self.step, self.jitter, self.dropout, self.augment = patch, step, jitter, dropout, augment

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Cost of not returning, summed over the lengths of the walk, of clips; needs clip, valid and seed.

        ``shortest`` and ``longest`` are of the shortest and the longest walk, log of the number of patches by chance;
        ``returned`` is the share of patches that the longest most probably returns to.
        """
        require(batch, "clip", "valid", "seed")
        draw = generators(batch["seed"] + 2)  # beside what mirrors and what colours
        if self.training:
            batch = self.augment.mirror(batch)
            batch = batch | {"clip": self.augment.recolour(batch["clip"], batch["seed"])}
        q, usable = self.nodes(batch, draw), self._usable(batch["valid"])  # (B, T, N, D), (B, T, N)
        _, T, N = usable.shape
        dropped = None
        if self.training and self.dropout > 0:
            dropped = uniform(0, 1, (T - 1, 2, N, N), draw, q) < self.dropout
        returns = walks(q, usable, self.temperature, dropped)  # T - 1 of (B, N, N)
        costs = [masked_mean(staying_cost(A), usable[:, 0]) for A in returns]
        home = returns[-1].detach().argmax(2) == torch.arange(N, device=q.device)
        return {
            "loss": torch.stack(costs).sum(),
            "shortest": costs[0].detach(),
            "longest": costs[-1].detach(),
            "returned": masked_mean(home.float(), usable[:, 0]),
        }

    def embed(self, image: Tensor) -> Tensor:
        """Unit vectors (B, D, H / stride, W / stride), float32, of pictures (B, 3, H, W), 0 to 1."""
        return F.normalize(self.network(image), dim=1)

    def nodes(self, batch: Batch, draw: Sequence[torch.Generator]) -> Tensor:
        """Embed each patch of each frame by itself, (B, T, N, D), unit vectors."""
        clip = batch["clip"]
        B, T = clip.shape[:2]
        corners = self._corners(clip)  # (N, 2)
        cut = uniform(0, self.jitter if self.training else 0, (T, len(corners), 2), draw, clip)
        where = uniform(0, 1, (T, len(corners), 2), draw, clip)
        pixels = patch_pixels(corners, self.patch, cut.flatten(0, 1), where.flatten(0, 1))  # (B T, 2, N patch, patch)
        patches = sample(clip.flatten(0, 1), pixels).unflatten(2, (len(corners), self.patch))
        vectors = self.network(patches.transpose(1, 2).flatten(0, 1)).mean((2, 3))  # (B T N, D)
        q: Tensor = F.normalize(vectors, dim=1).unflatten(0, (B, T, len(corners)))
        return q

    @torch.no_grad()
    def show(self, batch: Batch) -> dict[str, Tensor]:
        """Give the first frame, the last, it redrawn from the last one's colours, and where walks return, 0 to 1."""
        clip, valid = batch["clip"], batch["valid"]
        first, last, size = clip[:, 0], clip[:, -1], clip.shape[-2:]
        colours = F.avg_pool2d(last, self.stride).unsqueeze(1)
        copy = propagate(self.embed(first), self.embed(last).unsqueeze(1), colours).labels
        q = self.nodes(batch, generators(batch["seed"]))
        home = walks(q, self._usable(valid), self.temperature)[-1].diagonal(dim1=1, dim2=2)
        home = home.unflatten(1, (1, *self._grid(clip)))
        copy, home = (F.interpolate(x, size, mode="bilinear", align_corners=False) for x in (copy, home))
        return {"input": first, "last": last, "copy": copy, "returned": home, "mask": valid[:, 0]}

    def _grid(self, clip: Tensor) -> tuple[int, int]:
        """How many patches there are down and across.

        Raises:
            InputError: There are fewer than two.
        """
        down, across = ((n - self.patch) // self.step + 1 for n in clip.shape[-2:])
        if min(down, across) < 1 or down * across < 2:
            raise InputError(
                f"CycleWalk walks between patches of {self.patch} pixels, {self.step} apart; frames of "
                f"{clip.shape[-2]} x {clip.shape[-1]} (height x width) have fewer than 2. Choose a smaller patch and "
                "step, or prepare larger frames."
            )
        return down, across

    def _corners(self, clip: Tensor) -> Tensor:
        """First pixel of each patch, (N, 2), x first; all together are in the middle of the frame."""
        starts = [
            torch.arange(count, device=clip.device) * self.step + (n - (count - 1) * self.step - self.patch) // 2
            for count, n in zip(self._grid(clip), clip.shape[-2:], strict=True)
        ]
        return torch.cartesian_prod(*starts).flip(1)

    def _usable(self, valid: Tensor) -> Tensor:
        """Tell which patches show the body for the greater part, (B, T, N), by the pixels (B, T, 1, H, W)."""
        x, y = self._corners(valid)[0].tolist()
        share = F.avg_pool2d(valid.flatten(0, 1)[..., y:, x:], self.patch, self.step)
        usable: Tensor = share.flatten(1).unflatten(0, valid.shape[:2]) >= 0.5
        return usable


def patch_pixels(corners: Tensor, patch: int, cut: Tensor, where: Tensor) -> Tensor:
    """Tell which pixels patches are read at, all of a frame below each other.

    Args:
        corners: First pixel of each patch in the frame, (N, 2), x first.
        patch: Side of the patches, pixels.
        cut: Share of each patch that is left out along x and y, (M, N, 2).
        where: Share of this that is left out before it; the rest is after it; (M, N, 2).

    Returns:
        (M, 2, N patch, patch), x first.
    """
    steps = torch.arange(patch, device=corners.device)
    start = corners + where * cut * (patch - 1)
    x, y = (start.unsqueeze(3) + (1 - cut).unsqueeze(3) * steps).unbind(2)  # (M, N, patch) each
    x, y = x.unsqueeze(2).expand(-1, -1, patch, -1), y.unsqueeze(3).expand(-1, -1, -1, patch)
    return torch.stack([x, y], 1).flatten(2, 3)


@in_float32
def transition(a: Tensor, b: Tensor, usable: Tensor, temperature: float, dropped: Tensor | None = None) -> Tensor:
    """Probability of stepping from each node of a frame to each of the next; rows sum to 1.

    Args:
        a: Nodes, (B, N, D), unit vectors.
        b: Nodes of the next frame, (B, M, D).
        usable: Which of these may be stepped on, (B, M), bool.
        temperature: Of the soft-max.
        dropped: Edges that are not there, (B, N, M), bool; what the others have is made 1 again.

    Returns:
        (B, N, M).
    """
    scores = (a @ b.transpose(1, 2) / temperature).masked_fill(~usable.unsqueeze(1), _NO_EDGE)
    if dropped is not None:
        scores = scores.masked_fill(dropped, _NO_EDGE)
    return scores.softmax(2)


@in_float32
def walks(q: Tensor, usable: Tensor, temperature: float, dropped: Tensor | None = None) -> list[Tensor]:
    """Walk from the first frame to the second and back, to the third and back, and so on.

    Args:
        q: Nodes, (B, T, N, D), unit vectors.
        usable: Which of them may be stepped on, (B, T, N), bool.
        temperature: Of each step's soft-max.
        dropped: Edges that are not there, of each step and of the step back, (B, T - 1, 2, N, N), bool.

    Returns:
        T - 1 matrices (B, N, N): the probability that a walk from node i ends at node j.
    """
    there = back = torch.eye(q.shape[2], device=q.device, dtype=q.dtype)
    returns = []
    for t in range(q.shape[1] - 1):
        forth, home = (None, None) if dropped is None else dropped[:, t].unbind(1)
        there = there @ transition(q[:, t], q[:, t + 1], usable[:, t + 1], temperature, forth)
        back = transition(q[:, t + 1], q[:, t], usable[:, t], temperature, home) @ back
        returns.append(there @ back)
    return returns


def staying_cost(A: Tensor) -> Tensor:
    """Give -log of the probability of ending where the walk began, (B, N), of walks (B, N, N)."""
    return -A.diagonal(dim1=1, dim2=2).clamp_min(_SMALLEST).log()
