"""Rotation: knowing what is up in an image takes knowing what it shows.

Gidaris, Singh, Komodakis, "Unsupervised Representation Learning by Predicting Image Rotations", ICLR 2018,
https://arxiv.org/abs/1803.07728, section 2; 10 rotations of volumes as in Taleb et al., "3D Self-Supervised Methods for
Medical Imaging", NeurIPS 2020, https://arxiv.org/abs/2006.03829. Only quarter turns are used: they need no
interpolation, whose traces would give the angle away.
"""

from collections.abc import Sequence
from itertools import permutations, product

import torch
from torch import Tensor
from torch.nn import functional as F

from medssl.augment import Generators, bias_field, generators, uniform
from medssl.distributed import all_reduce_mean
from medssl.errors import InputError
from medssl.method import Method
from medssl.networks.encoder import Encoder
from medssl.networks.heads import classifier, pooled
from medssl.sample import Batch, require


class Rotation(Method):
    """Minimise the cross-entropy of the rotation that was applied to an image.

    The largest square or cube that the encoder takes is cut from a random place of each crop, and turned. A scan that
    is smaller than the crop is padded at its end, which gives the rotation away: choose a patch size that scans fill.
    A crop that holds next to nothing looks alike from all sides and takes no part.

    Args:
        encoder: The network to pretrain, for 2D or 3D images.
        rotations: How many to tell apart: 4 in 2D; in 3D 10 (none, and 3 about each axis) or 24 (all of a cube). None
            is 4 or 10.
        copies: Different rotations of an image in a batch; the paper's 4 are all there are in 2D.
        hidden: Width of a layer between the pooled features and the classes; None is a linear classifier.
        bias: Standard deviation, at its control points, of the log of a bias field that does not turn with the image:
            the brighter side that coils and lamps make does.
        coarse: Probability that the resolution along one axis, drawn after the turn, is lowered: slices that are
            thicker than their pixels tell which axis was theirs.
        coarseness: Factor by which it is.
        empty: A crop whose standard deviation is at most this shows nothing; images are about 0..1.
    """

    rotation: Tensor

    def __init__(
        self,
        encoder: Encoder,
        rotations: int | None = None,
        copies: int = 4,
        hidden: int | None = None,
        bias: float = 0.3,
        coarse: float = 0.3,
        coarseness: float = 2.0,
        empty: float = 0.01,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        dims = encoder.spatial_dims
        self.register_buffer("rotation", group(dims, rotations or (4 if dims == 2 else 10)))  # (K, dims, dims)
        self.copies = min(copies, len(self.rotation))
        self.head = classifier(encoder.channels[-1], len(self.rotation), hidden)
        self.bias, self.coarse, self.coarseness, self.empty = bias, coarse, coarseness, empty

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of the rotations in a batch, which needs image and seed."""
        x, y, _ = self.turned(batch)  # (B, copies, C, *side), (B, copies)
        logits = self.head(pooled(self.encoder(x.flatten(0, 1))))  # (B copies, K)
        kept = batch["image"].float().flatten(1).std(1) > self.empty
        weight = kept.repeat_interleave(self.copies).float()
        weight = weight / all_reduce_mean(weight.sum()).clamp_min(1)
        cross_entropy = F.cross_entropy(logits, y.flatten(), reduction="none")
        correct = (logits.argmax(1) == y.flatten()).float()
        return {
            "loss": (weight * cross_entropy).sum(),
            "accuracy": (weight * correct).sum().detach(),
            "kept": kept.float().mean(),
        }

    def turned(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Draw copies (B, copies, C, *side) of the crops, their rotations (B, copies), and the crops as they were."""
        require(batch, "image", "seed")
        image, draw = batch["image"], generators(batch["seed"])
        side = self.side(image.shape[2:])
        y = torch.stack([torch.randperm(len(self.rotation), generator=g)[: self.copies] for g in draw]).to(image.device)
        free = torch.tensor(image.shape[2:], device=image.device) - side
        start = (uniform(0, 1, (len(free),), draw, image) * (free + 1)).long().clamp(max=free)
        x = turn(image, self.rotation[y], start, side)
        rows = [g for g in draw for _ in range(self.copies)]
        upright = turn(image, self.rotation[torch.zeros_like(y[:, :1])], start, side)
        return self._guarded(x.flatten(0, 1), rows).view_as(x), y, upright[:, 0]

    def check(self, images: int, channels: int, patch_size: Sequence[int]) -> None:
        """Refuse crops that are too small for the encoder."""
        self.side(patch_size)

    def show(self, batch: Batch) -> dict[str, Tensor]:
        """Give one turned copy of each crop, what is upright, and the copy turned back by the network's answer."""
        with torch.no_grad():
            x, _, upright = self.turned(batch)
            found = self.head(pooled(self.encoder(x[:, 0]))).argmax(1)
        back = self.rotation[found].transpose(1, 2).unsqueeze(1)
        start = torch.zeros_like(back[:, 0, 0])
        return {"input": x[:, 0], "target": upright, "prediction": turn(x[:, 0], back, start, x.shape[-1])[:, 0]}

    def side(self, crop: Sequence[int]) -> int:
        """Give the side of the largest square or cube in a crop that the encoder takes.

        Raises:
            InputError: It is less than twice the encoder's coarsest stride.
        """
        stride = self.encoder.strides[-1]
        side = min(crop) // stride * stride
        if side < 2 * stride:
            raise InputError(
                f"Rotation: crops of {tuple(crop)} voxels hold no square or cube of {2 * stride}, two of the encoder's "
                f"coarsest stride of {stride}; use larger crops or an encoder with fewer levels."
            )
        return side

    def _guarded(self, x: Tensor, draw: Generators) -> Tensor:
        """Lay a bias field over (R, C, *side) and lower its resolution along an axis, each row by its own draws."""
        x = bias_field(x, torch.full((len(x),), self.bias), draw)
        dims = x.ndim - 2
        axis = (uniform(0, 1, (), draw, x) * dims).long()
        used = uniform(0, 1, (), draw, x) < self.coarse
        for a in range(dims):
            chosen = (used & (axis == a)).view(-1, *[1] * (dims + 1))
            x = torch.where(chosen, coarser(x, a, self.coarseness), x)
        return x


def group(dims: int, rotations: int) -> Tensor:
    """List rotations by quarter turns as matrices (K, dims, dims) of integers, the identity first.

    Args:
        dims: 2 or 3.
        rotations: 4 in 2D; in 3D 10 or 24.

    Raises:
        InputError: There is no such set.
    """
    if rotations not in ((4,) if dims == 2 else (10, 24)):
        choice = "4" if dims == 2 else "10 or 24"
        raise InputError(f"Rotation: {dims}D images have {choice} rotations to choose from, got {rotations}.")
    identity = torch.eye(dims, dtype=torch.long)
    signed = [
        identity[list(order)] * torch.tensor(signs).unsqueeze(1)
        for signs in product((1, -1), repeat=dims)
        for order in permutations(range(dims))
    ]
    proper = torch.stack([m for m in signed if torch.linalg.det(m.double()) > 0])  # the identity comes first
    if rotations == 10:  # about one axis: that axis stays as it is
        return proper[(proper.diagonal(dim1=1, dim2=2) == 1).any(1)]
    return proper


def turn(image: Tensor, rotation: Tensor, start: Tensor, side: int) -> Tensor:
    """Turn the cube of ``side`` voxels at ``start`` about its own centre; every voxel keeps its value.

    A turned cube is the same memory, walked through with the axes' strides exchanged and some of them backwards.

    Args:
        image: (B, C, *spatial).
        rotation: (B, K, dims, dims), matrices R of ``group``: what was at x, from the centre, is at R x.
        start: (B, dims), voxels.
        side: Of the cube.

    Returns:
        (B, K, C, *side).
    """
    spatial = image.shape[2:]
    dims = len(spatial)
    stride = torch.tensor([spatial[a + 1 :].numel() for a in range(dims)], device=image.device)
    step = (rotation * stride).sum(-1)  # (B, K, dims): along axis b the walk goes by sum_a R[b, a] stride[a]
    backwards = (rotation < 0).any(-2)  # (B, K, dims): axes walked from their end
    index = (backwards * (side - 1) * stride).sum(-1) + (start * stride).sum(-1, keepdim=True)  # (B, K)
    for axis in range(dims):
        along = torch.arange(side, device=image.device) * step[:, :, axis, None]  # (B, K, side)
        index = index.unsqueeze(-1) + along.view(*along.shape[:2], *[1] * axis, side)
    flat = index.flatten(1).unsqueeze(1).expand(-1, image.shape[1], -1)  # (B, C, K side**dims)
    walked = image.flatten(2).gather(2, flat)
    return walked.view(*image.shape[:2], *index.shape[1:]).movedim(2, 1)


def coarser(x: Tensor, axis: int, factor: float) -> Tensor:
    """Down-sample (R, C, *side) along one spatial axis by ``factor`` and up-sample again."""
    size = list(x.shape[2:])
    size[axis] = max(1, round(size[axis] / factor))
    mode = "trilinear" if x.ndim == 5 else "bilinear"
    return F.interpolate(F.interpolate(x, size=size, mode=mode), size=x.shape[2:], mode=mode)
