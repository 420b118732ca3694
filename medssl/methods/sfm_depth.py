"""Depth from structure from motion: its few points say how far things are, two frames say that all else must fit.

Liu, Sinha, Ishii, Hager, Reiter, Taylor, Unberath, "Dense Depth Estimation in Monocular Endoscopy with Self-supervised
Learning Methods", IEEE TMI 2019, https://arxiv.org/abs/1902.07766, section III.

Of the two frames of a clip each is frame j once, the other one being frame k: maps are (N, ...), N = 2B, with all first
frames as j and then all second ones.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from medssl.clip_augment import ClipAugment
from medssl.data.clips import ClipNeeds, PosedPair
from medssl.errors import InputError
from medssl.geometry import (
    backproject,
    flow_from_depth,
    in_float32,
    inside,
    pixel_grid,
    relative,
    reproject,
    warp_depth,
)
from medssl.networks.depth import DepthNetwork
from medssl.networks.encoder import Encoder
from medssl.sample import Batch, require
from medssl.video_method import DepthMethod

_DARKEST = 1 / 255  # brightness that counts as the least: below it a logarithm would say what rounding says
_LEAST_DEVIATION = 0.05  # of the logarithm of depth^2 x brightness: few points can agree by chance
_NORMAL = 1.4826  # standard deviations of a normal distribution in its median absolute deviation


class SfmDepth(DepthMethod):
    """Fit the flow that depth and motion explain to that of the points, and the depths of two frames to each other.

    One network predicts the depth of both frames, up to a factor. The scaling layer finds the factor at the points, so
    the loss does not depend on it, and what is learnt is the shape. ``depth`` is the prediction as it is, up to one
    factor for each picture.

    The paper's network ends in an absolute value. Here depth is reach^(sigmoid - 1/2), from 1 / sqrt(reach) to
    sqrt(reach): the loss knows ratios of depths alone, and these all cost the network the same. It is 1 at first, and
    never so near 0 that the scaling layer's ratios explode.

    The paper trains with SGD (momentum 0.9, rate cycling from 1e-4 to 1e-3), batches of 8, gradients clipped at 10:
    the recipe's ``optimizer: sgd``, ``schedule: cyclic``, ``learning_rate: 1e-3``, ``batch_size: 8``.

    Args:
        encoder: The network to train, for pictures; the paper's is a FC-DenseNet-57.
        flow_weight: Of the sparse flow loss.
        early_consistency_weight: Of the depth consistency loss at first: depths that are not yet near the points' would
            agree best by being flat.
        consistency_weight: Of the same afterwards.
        early_epochs: Epochs that are "at first".
        sigma: Views of a point that give it 63 % of the full weight; ``None`` takes the mean of the pair's points.
        outliers: Points are left out whose depth^2 x brightness is above the frame's median by more than this many
            standard deviations, both of its logarithm and the deviation found from the median one. The light is at the
            camera and falls off with the square of the distance, so tissue has an upper limit: a point above it
            is not as far away as it is said to be. Below lie shadows and walls seen at a slant, which are kept.
        reach: Farthest depth that can be told, in units of the nearest.
        pair: Which frames are paired.
        augment: Mirror images, and colours that only the network sees.
    """

    epochs: Tensor

    def __init__(
        self,
        encoder: Encoder,
        flow_weight: float = 20.0,
        early_consistency_weight: float = 0.1,
        consistency_weight: float = 5.0,
        early_epochs: int = 20,
        sigma: float | None = None,
        outliers: float = 5.0,
        reach: float = 100.0,
        pair: PosedPair = PosedPair(5, 30),
        augment: ClipAugment = ClipAugment(),
    ) -> None:
        super().__init__()
        if not reach > 1 or not outliers > 0 or (sigma is not None and not sigma > 0):
            raise InputError(
                f"SfmDepth: reach must be above 1, outliers and sigma above 0; got {reach:g}, {outliers:g} and {sigma}."
            )
        self.needs = ClipNeeds(pair, poses=True, points=True)
        self.network = DepthNetwork(encoder, scales=1)
        self.encoder = encoder
        self.flow_weight, self.early_epochs = flow_weight, early_epochs
        self.early_consistency_weight, self.late_consistency_weight = early_consistency_weight, consistency_weight
        self.sigma, self.outliers, self.reach, self.augment = sigma, outliers, reach, augment
        self.register_buffer("epochs", torch.zeros((), dtype=torch.long))  # begun so far

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Both losses, each summed over the two orders of a pair and averaged over the pairs.

        ``scale_spread`` is the standard deviation of the points' ratios to the prediction, over their mean; ``points``
        how many of them a frame has.
        """
        batch, Z_prime = self._observe(batch)
        W = self._point_weights(batch)  # (N, 1, H, W)
        Z_star, valid = _each(batch["sparse_depth"]), _each(batch["valid"])
        K, k_from_j = _cameras(batch)
        s, spread = scaling(Z_prime, Z_star, W > 0)
        Z = s * Z_prime
        flow = sparse_flow_loss(Z, Z_star, W * seen_by_both(Z_star, K, k_from_j), K, k_from_j)
        known = valid * (W > 0).any((2, 3), keepdim=True)  # the depth of a frame without points has no scale
        consistency = depth_consistency_loss(Z, _other(Z), known, _other(known), K, k_from_j)
        flow, consistency = 2 * flow.mean(), 2 * consistency.mean()
        return {
            "loss": self.flow_weight * flow + self.consistency_weight * consistency,
            "flow": flow.detach(),
            "consistency": consistency.detach(),
            "scale_spread": spread.mean(),
            "points": (W > 0).sum() / len(W),
        }

    def depth(self, batch: Batch) -> Tensor:
        """Depth (B, 1, H, W) of the first frame of each clip, up to one factor for each picture."""
        require(batch, "clip")
        return self._depth_of(batch["clip"][:, 0])

    @property
    def consistency_weight(self) -> float:
        """Of the depth consistency loss in the epoch that runs."""
        early = int(self.epochs) <= self.early_epochs
        return self.early_consistency_weight if early else self.late_consistency_weight

    def start_epoch(self, batches: Iterable[Batch]) -> None:
        """Count."""
        self.epochs += 1

    def state_scores(self) -> dict[str, float]:
        """Give the weight of the depth consistency loss, as ``consistency/weight``."""
        return {"consistency/weight": self.consistency_weight}

    @torch.no_grad()
    def show(self, batch: Batch) -> dict[str, Tensor]:
        """Give the first frame, its depth in the points' scale, how the second one draws it, the difference, where."""
        batch, Z_prime = self._observe(batch)
        clip = _each(batch["clip"])
        s, _ = scaling(Z_prime, _each(batch["sparse_depth"]), self._point_weights(batch) > 0)
        warped, drawn = reproject(_other(clip), s * Z_prime, *_cameras(batch))
        mask = drawn * _each(batch["valid"])
        error = (warped - clip).abs().mean(1, keepdim=True) * mask
        shown = {"input": clip, "depth": s * Z_prime, "warped": warped * drawn, "error": error, "mask": mask}
        return {name: picture[: len(batch["clip"])] for name, picture in shown.items()}

    def _depth_of(self, pictures: Tensor) -> Tensor:
        sigmoid: Tensor = self.network(pictures)[0]
        return self.reach ** (sigmoid - 0.5)

    def _observe(self, batch: Batch) -> tuple[Batch, Tensor]:
        """Give the pairs as they are learnt from, and the network's depth of each frame, (N, 1, H, W)."""
        require(batch, "clip", "valid", "intrinsics", "pose", "sparse_depth", "sparse_views", "seed")
        if batch["clip"].shape[1] != 2:
            raise InputError(
                "SfmDepth compares two frames, but the clips 'clip' (B, T, C, H, W) have T = "
                f"{batch['clip'].shape[1]}. Take them as the method needs them (PosedPair)."
            )
        batch = self.augment.mirror(batch) if self.training else batch
        seen = self.augment.recolour(batch["clip"], batch["seed"]) if self.training else batch["clip"]
        return batch, self._depth_of(_each(seen))

    def _point_weights(self, batch: Batch) -> Tensor:
        """Give each point's weight 1 - exp(-b / sigma), with b the frames that saw it, (N, 1, H, W); 0 elsewhere."""
        b, Z_star, valid = batch["sparse_views"], batch["sparse_depth"], batch["valid"]  # (B, 2, 1, H, W)
        known = (Z_star > 0) & (b > 0) & (valid > 0)
        sigma = _mean(b, known).clamp_min(1) if self.sigma is None else self.sigma
        bright = batch["clip"].mean(2, keepdim=True)
        known = _each(known) & ~too_bright(_each(Z_star), _each(bright), _each(known), self.outliers)
        return _each(1 - torch.exp(-b / sigma)) * known


@in_float32
def scaling(Z_prime: Tensor, Z_star: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Tell by which factor predictions become depths in the scale of the points: the depth scaling layer.

    Points nearer than half of the mean do not vote: small depths make ratios unstable.

    Args:
        Z_prime: Predicted depth, above 0, (N, 1, H, W).
        Z_star: Depth of the points, (N, 1, H, W).
        known: Where there are points, (N, 1, H, W), bool.

    Returns:
        The factor (N, 1, 1, 1), 1 where there are no points; and the standard deviation of the points' ratios over
        their mean, (N, 1, 1, 1), without gradient.
    """
    A = known & (Z_star > 0.5 * _mean(Z_star, known))
    ratio = Z_star / (1e-8 + Z_prime)
    s = _mean(ratio, A)
    s = torch.where(A.flatten(1).any(1)[:, None, None, None], s, 1.0)
    return s, (_mean((ratio - s).square(), A).sqrt() / s).detach()


@in_float32
def sparse_flow_loss(Z: Tensor, Z_star: Tensor, W: Tensor, K: Tensor, k_from_j: Tensor) -> Tensor:
    """Compare the flow of the depth with that of the points, as shares of the picture: sum W |F - F*| / (1 + sum W).

    Args:
        Z: Depth of frame j in the points' scale, (N, 1, H, W).
        Z_star: Depth of the points, (N, 1, H, W).
        W: Their weights, 0 elsewhere, (N, 1, H, W).
        K: Intrinsics (N, 3, 3).
        k_from_j: From camera j's axes to camera k's, (N, 4, 4).

    Returns:
        (N,).
    """
    height, width = Z.shape[-2:]
    F, F_star = (flow_from_depth(depth, K, k_from_j) for depth in (Z, Z_star))
    difference = (F - F_star) / F.new_tensor([width, height])[:, None, None]
    return (W * difference.abs()).sum((1, 2, 3)) / (1 + W.sum((1, 2, 3)))


@in_float32
def depth_consistency_loss(
    Z: Tensor, Z_k: Tensor, valid: Tensor, valid_k: Tensor, K: Tensor, k_from_j: Tensor
) -> Tensor:
    """Compare the depth of frame j with that of frame k, warped: 2 sum |X(Z) - X(Z_w)| / sum (Z + Z_w) where both are.

    X are the points in space, so that what is seen aslant counts more.

    Args:
        Z: Depth of frame j, (N, 1, H, W).
        Z_k: Depth of frame k, in the same scale.
        valid: 1 where frame j shows the body, else 0, (N, 1, H, W).
        valid_k: The same of frame k.
        K: Intrinsics (N, 3, 3).
        k_from_j: From camera j's axes to camera k's, (N, 4, 4).

    Returns:
        (N,).
    """
    Z_w, W = warp_depth(Z_k, Z, K, k_from_j, valid_k, valid)
    difference = (backproject(Z, K) - backproject(Z_w, K)).abs().sum(1, keepdim=True)
    size = 1e-5 * Z.mean((1, 2, 3)) + (W * (Z + Z_w.abs())).sum((1, 2, 3))
    return 2 * (W * difference).sum((1, 2, 3)) / size


def seen_by_both(Z_star: Tensor, K: Tensor, k_from_j: Tensor) -> Tensor:
    """Tell which points of frame j lie in the picture of frame k, (N, 1, H, W), bool.

    Behind its camera, or far beside the picture, a flow is no measure of anything.
    """
    flow = flow_from_depth(Z_star, K, k_from_j)
    size = (Z_star.shape[-2], Z_star.shape[-1])
    return inside(pixel_grid(*size, flow.device, flow.dtype) + flow, size)


def too_bright(Z_star: Tensor, brightness: Tensor, known: Tensor, deviations: float) -> Tensor:
    """Tell which points are brighter than tissue can be that far away, by depth^2 x brightness; see ``SfmDepth``.

    Args:
        Z_star: Depth of the points, (N, 1, H, W).
        brightness: Of the picture, 0 to 1, (N, 1, H, W).
        known: Where there are points, (N, 1, H, W), bool.
        deviations: Standard deviations above the median.

    Returns:
        (N, 1, H, W), bool.
    """
    depth = torch.where(known, Z_star, 1.0)
    value = 2 * depth.log() + brightness.clamp_min(_DARKEST).log()
    apart = value - _median(value, known)
    deviation = _NORMAL * _median(apart.abs(), known)
    return known & (apart > deviations * deviation.clamp_min(_LEAST_DEVIATION))


def _each(values: Tensor) -> Tensor:
    """Put what is of both frames, (B, 2, ...), below each other: first all first ones, then all second ones."""
    return values.transpose(0, 1).flatten(0, 1)


def _cameras(batch: Batch) -> tuple[Tensor, Tensor]:
    """Give the intrinsics, and what takes points from camera j's axes to camera k's, (N, 3, 3) and (N, 4, 4)."""
    return batch["intrinsics"].repeat(2, 1, 1), _each(relative(batch["pose"], batch["pose"].flip(1)))


def _other(values: Tensor) -> Tensor:
    """Give what is of each frame j, (N, ...), of its frame k."""
    return values.roll(len(values) // 2, 0)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """Average each sample (N, ...) over a mask of bool, (N, 1, ..., 1); 0 for an empty one."""
    axes = tuple(range(1, values.ndim))
    total = torch.where(mask, values, 0.0).sum(axes, keepdim=True)
    return total / mask.sum(axes, keepdim=True).clamp_min(1)


def _median(values: Tensor, mask: Tensor) -> Tensor:
    """Give the (lower) median of each sample (N, 1, H, W) over a mask of bool, (N, 1, 1, 1); 0 for an empty one."""
    found = values.masked_fill(~mask, torch.nan).flatten(1).nanmedian(1).values
    return found.nan_to_num(0.0)[:, None, None, None]
