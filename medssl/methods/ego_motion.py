"""SfMLearner: depth and the camera's motion are learnt together, each from how well both redraw a picture.

Zhou, Brown, Snavely, Lowe, "Unsupervised Learning of Depth and Ego-Motion from Video", CVPR 2017,
https://arxiv.org/abs/1704.07813, equations 1 to 4. Depths that agree from picture to picture: Bian et al.,
"Unsupervised Scale-consistent Depth and Ego-motion Learning from Monocular Video", NeurIPS 2019,
https://arxiv.org/abs/1908.10553.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medssl.clip_augment import ClipAugment
from medssl.data.clips import ClipNeeds, Neighbours
from medssl.errors import InputError
from medssl.geometry import depth_from_disparity, rigid_from_vector
from medssl.geometry.view_synthesis import (
    Synthesis,
    Views,
    depth_difference,
    for_each,
    in_depths_unit,
    motion_from_target,
    pairs_in_time,
    synthesise,
    views_of,
)
from medssl.networks.depth import DepthDecoder, DepthNetwork, PoseNetwork
from medssl.networks.encoder import Encoder
from medssl.networks.unet import UNetEncoder
from medssl.photometric import edge_aware_smoothness, masked_mean, match_brightness, photometric_error
from medssl.sample import Batch, require
from medssl.video_method import DepthMethod

_LEAST_E = 1e-7  # explainability whose logarithm is still taken
_WIDTHS = (16, 32, 64, 128, 256)  # of the decoder of explainability, finest first


class EgoMotion(DepthMethod):
    """Minimise, at each scale, how differently the sources draw each pixel that the motion can explain.

    The loss is eq. 4, summed over the scales and the sources, and averaged over the pixels: of those where the picture
    and the source that is drawn show the body. What moves by itself, is hidden or shines, the network may leave
    unexplained, at a price.

    Depth is up to a factor; the limits say only how much farther the farthest tissue can be than the nearest.

    Args:
        encoder: The network to train, for pictures.
        scales: Finest scales of the disparity that the loss is taken at, each at its own size.
        min_depth: Nearest depth; with the default of both, disparity is the paper's 10 sigmoid + 0.01.
        max_depth: Farthest depth.
        smoothness_weight: The paper's lambda_s, of the second derivatives of 10 sigmoid, divided by 2^s at scale s.
        explainability_weight: The paper's lambda_e, the price of what is not explained; 0 explains everything, without
            a network for it.
        align_brightness: Give each source that is drawn the picture's brightness and contrast before they are
            compared, for a light that moves with the camera. Off in the paper.
        geometry_weight: Of the difference between the picture's depth and the sources' own (Bian et al., who take
            0.5). 0 is the paper's; above it, the network also runs on the sources.
        neighbours: Which frames are compared, by how far the picture moves.
        augment: Mirror images, and colours that only the networks see; the paper crops.
        pose_channels: Levels of the encoder of pairs that motion and explainability are told from, a light U-Net's with
            group normalisation.
        pose_scale: The motion's outputs are multiplied by it; translations are in ten times ``min_depth``. The
            published code's 0.01 is for a hundred times more steps: in few, depth runs into its nearest limit before
            the camera is seen to move.
    """

    def __init__(
        self,
        encoder: Encoder,
        scales: int = 4,
        min_depth: float = 0.1,
        max_depth: float = 100.0,
        smoothness_weight: float = 0.5,
        explainability_weight: float = 0.2,
        align_brightness: bool = False,
        geometry_weight: float = 0.0,
        neighbours: Neighbours = Neighbours(),
        augment: ClipAugment = ClipAugment(),
        pose_channels: Sequence[int] = (16, 32, 64, 128, 256),
        pose_scale: float = 0.1,
    ) -> None:
        super().__init__()
        if scales < 1:
            raise InputError(f"Ego-motion: the loss needs at least 1 of the scales, got {scales}.")
        self.needs = ClipNeeds(neighbours)
        self.encoder = encoder
        self.network = DepthNetwork(encoder, scales=scales)
        pairs = UNetEncoder(6, 2, pose_channels, norm="group")
        self.pose = ExplainedPose(
            PoseNetwork(pairs, pose_scale), len(self.network.decoder.heads), explainability_weight > 0
        )
        self.min_depth, self.max_depth = min_depth, max_depth
        self._depth_of(torch.zeros(()))  # refuses limits that are none
        self.smoothness_weight, self.explainability_weight = smoothness_weight, explainability_weight
        self.align_brightness, self.geometry_weight = align_brightness, geometry_weight
        self.augment = augment

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Eq. 4; ``explained`` is the mean explainability at the finest scale."""
        views, seen, motion, explained = self._observe(batch)
        sigmoids = for_each(self.network, seen if self.geometry_weight > 0 else seen[:, :1])
        terms = [
            self._at_scale(s, *maps, views, motion) for s, maps in enumerate(zip(sigmoids, explained, strict=True))
        ]
        weights = {
            "view_synthesis": 1.0,
            "smoothness": self.smoothness_weight,
            "unexplained": self.explainability_weight,
            "geometry": self.geometry_weight,
        }
        sums = {name: torch.stack([term[name] for term in terms]).sum() for name in terms[0]}
        loss = torch.stack([weights[name] * value for name, value in sums.items()]).sum()
        told = {name: value.detach() for name, value in sums.items()}
        return {"loss": loss, **told, "explained": explained[0].detach().mean()}

    def depth(self, batch: Batch) -> Tensor:
        """Depth (B, 1, H, W) of the first frame of each clip, up to a factor."""
        require(batch, "clip")
        return self._depth_of(self.network(batch["clip"][:, 0])[0])

    def motion(self, a: Tensor, b: Tensor) -> Tensor:
        """What takes points from the camera of pictures a to that of the later pictures b, (B, 4, 4)."""
        return rigid_from_vector(in_depths_unit(self.pose.pose(a, b), self.min_depth))

    @torch.no_grad()
    def show(self, batch: Batch) -> dict[str, Tensor]:
        """Give the picture, its depth, how the first source draws it, the error, and how far that is explained."""
        views, seen, motion, explained = self._observe(batch)
        depth = self._depth_of(self.network(seen[:, 0])[0])
        drawn = synthesise(views, depth, motion)
        of_each = {"warped": drawn.pictures, "error": self._error(views, drawn), "mask": explained[0]}
        first = {name: (values * drawn.valid)[:: motion.shape[1]] for name, values in of_each.items()}
        return {"input": seen[:, 0], "depth": depth, **first}

    def _depth_of(self, sigmoid: Tensor) -> Tensor:
        return depth_from_disparity(sigmoid, self.min_depth, self.max_depth)

    def _observe(self, batch: Batch) -> tuple[Views, Tensor, Tensor, list[Tensor]]:
        """Give the views, the pictures as the networks see them, the motions (B, S, 4, 4) and the explainabilities.

        Of those one per scale, finest first, (N, 1, H / 2^s, W / 2^s), or (N, 1, 1, 1) where all is explained.
        """
        require(batch, "clip", "frame", "seed")
        batch = self.augment.mirror(batch) if self.training else batch
        views = views_of(batch)
        seen = self.augment.recolour(views.pictures, batch["seed"]) if self.training else views.pictures
        earlier, later, turned = pairs_in_time(seen, batch["frame"])
        vector, masks = self.pose(earlier, later)
        motion = motion_from_target(in_depths_unit(vector, self.min_depth), turned).unflatten(0, (len(seen), -1))
        which = turned[:, None, None, None]
        return views, seen, motion, [torch.where(which, mask[:, 1:], mask[:, :1]) for mask in masks]

    def _at_scale(self, s: int, sigmoid: Tensor, E: Tensor, views: Views, motion: Tensor) -> dict[str, Tensor]:
        """Give the terms of eq. 4 at scale s: the maps (B, 1 or V, 1, h, w) and the explainabilities (N, 1, h, w)."""
        small, S = views.smaller(2**s), motion.shape[1]
        drawn = synthesise(small, self._depth_of(sigmoid[:, 0]), motion)
        smoothness = edge_aware_smoothness(10 * sigmoid[:, 0], small.target, order=2, edge_weight=0)
        terms = {
            "view_synthesis": S * masked_mean(E * self._error(small, drawn), drawn.valid),  # eq. 3
            "smoothness": smoothness / 2**s,
            "unexplained": -S * E.clamp_min(_LEAST_E).log().mean(),  # L_reg, the cross-entropy with 1
        }
        if self.geometry_weight > 0:
            source_depth = self._depth_of(sigmoid[:, 1:].flatten(0, 1))
            terms["geometry"] = masked_mean(depth_difference(drawn, source_depth), drawn.valid)
        return terms

    def _error(self, views: Views, drawn: Synthesis) -> Tensor:
        """Give the mean absolute difference of the target and what each source draws, (N, 1, H, W)."""
        target, pictures = views.of_each_source(views.target), drawn.pictures
        if self.align_brightness:
            pictures = match_brightness(pictures, target, drawn.valid)
        return photometric_error(pictures, target, ssim_weight=0)


class ExplainedPose(nn.Module):
    """The motion between two pictures, and which of their pixels it explains, from the same features.

    Args:
        pose: Tells the motion.
        scales: Of the explainability.
        explaining: Without, every pixel is explained.

    Raises:
        InputError: The encoder has fewer scales.
    """

    def __init__(self, pose: PoseNetwork, scales: int, explaining: bool) -> None:
        super().__init__()
        self.pose, self.scales = pose, scales
        self.decoder = DepthDecoder(pose.encoder, 2, scales, _WIDTHS) if explaining else None
        if self.decoder is not None and len(self.decoder.heads) < scales:
            raise InputError(
                f"Ego-motion: explainability is told at {scales} scales, but the encoder of pairs has "
                f"{len(self.decoder.heads)}: give pose_channels {scales} or more levels, or explainability_weight=0."
            )

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Turn pictures a and b (N, 3, H, W) into the motion (N, 6), and how far it explains the pixels of both.

        That is 0 to 1, (N, 2, H / 2^s, W / 2^s) per scale, a first; or (N, 2, 1, 1) where all is explained.

        Raises:
            InputError: The sides are no multiples of the encoder's largest stride.
        """
        if self.decoder is None:
            return self.pose(a, b), [a.new_ones(len(a), 2, 1, 1)] * self.scales
        stride = self.pose.encoder.strides[-1]
        if any(n % stride for n in a.shape[2:]):
            raise InputError(
                f"Explainability takes pictures whose sides are multiples of {stride}, got {tuple(a.shape[2:])} "
                "(height, width). Prepare them at such a size, give fewer pose_channels, or explainability_weight=0."
            )
        features = self.pose.features(a, b)
        return self.pose.motion(features), self.decoder(features)
