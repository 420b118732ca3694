"""Monodepth2: depth is right when, moved by the right motion, the neighbouring pictures look like this one.

Godard, Mac Aodha, Firman, Brostow, "Digging Into Self-Supervised Monocular Depth Estimation", ICCV 2019,
https://arxiv.org/abs/1806.01260, equations 1 to 5. Depths that agree from picture to picture: Bian et al.,
"Unsupervised Scale-consistent Depth and Ego-motion Learning from Monocular Video", NeurIPS 2019,
https://arxiv.org/abs/1908.10553.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from medssl.augment import generators, uniform
from medssl.clip_augment import ClipAugment
from medssl.data.clips import ClipNeeds, Neighbours, Single
from medssl.errors import InputError
from medssl.geometry import depth_from_disparity, invert, rigid_from_vector
from medssl.geometry.view_synthesis import (
    Synthesis,
    Views,
    depth_difference,
    for_each,
    in_depths_unit,
    motion_from_target,
    pairs_in_time,
    surrounded,
    synthesise,
    views_of,
)
from medssl.networks.depth import DepthNetwork, PoseNetwork
from medssl.networks.encoder import Encoder
from medssl.networks.unet import UNetEncoder
from medssl.photometric import (
    edge_aware_smoothness,
    masked_mean,
    match_brightness,
    mean_normalised,
    photometric_error,
)
from medssl.sample import Batch, require
from medssl.video_method import DepthMethod

Source = Literal["mono", "stereo"]


class Monodepth2(DepthMethod):
    """Minimise how differently each pixel looks in the source that shows it best, and how rough the disparity is.

    Pixels count where the picture shows the body, as do those of the sources that they are compared with. Where no
    source is valid, or the unwarped sources look more alike than the warped ones (auto-masking), a pixel stands in the
    loss with its unwarped difference and teaches nothing: leaving the picture never pays.

    Depth is in the recording's unit with stereo; from one camera it is up to a factor, and the limits say only how much
    farther the farthest tissue can be than the nearest.

    Args:
        encoder: The network to train, for pictures.
        sources: What the picture is compared with: ``("mono",)``, the frames before and after; ``("stereo",)``, what
            the second camera saw; or both.
        scales: Finest scales of the disparity that the loss is taken at, each enlarged to the picture's size. The
            paper's 4; with 1 the loss takes a quarter of the time, a step about 60 %.
        min_depth: Nearest depth. With stereo in the recording's unit: at twice this depth, the first guess, the two
            cameras must still see the same.
        max_depth: Farthest depth.
        ssim_weight: The paper's alpha (eq. 2), the share of structural dissimilarity.
        smoothness_weight: The paper's lambda (eq. 5), of the smoothness, divided by 2^s at scale s.
        auto_mask: Ignore what does not look better warped: what does not move, or moves with the camera (eq. 5).
        tie_noise: Largest random difference that decides where warping changes nothing.
        align_brightness: Give each source, warped or not, the picture's brightness and contrast before they are
            compared, for a light that moves with the camera. Off in the paper.
        geometry_weight: Of the difference between the picture's depth and the sources' own (Bian et al., who take 0.5).
            0 is the paper's; above it, the network also runs on the sources.
        neighbours: Which frames are compared, by how far the picture moves; the paper takes the next ones
            (``motion=0``), and leaves out videos that stand still.
        augment: Mirror images, and colours that only the networks see.
        pose_channels: Levels of the encoder of pairs that the motion is told from, a light U-Net's with group
            normalisation; the paper's is another ResNet-18.
        pose_scale: The motion's outputs are multiplied by it; translations are in ten times ``min_depth``. The
            published code's 0.01 is for a hundred times more steps: in few, depth runs into its nearest limit before
            the camera is seen to move.
    """

    def __init__(
        self,
        encoder: Encoder,
        sources: Sequence[Source] = ("mono",),
        scales: int = 4,
        min_depth: float = 0.1,
        max_depth: float = 100.0,
        ssim_weight: float = 0.85,
        smoothness_weight: float = 1e-3,
        auto_mask: bool = True,
        tie_noise: float = 1e-5,
        align_brightness: bool = False,
        geometry_weight: float = 0.0,
        neighbours: Neighbours = Neighbours(),
        augment: ClipAugment = ClipAugment(),
        pose_channels: Sequence[int] = (16, 32, 64, 128, 256),
        pose_scale: float = 0.1,
    ) -> None:
        super().__init__()
        if not sources or set(sources) - set(get_args(Source)) or len(set(sources)) < len(sources):
            raise InputError(f"Monodepth2: sources are some of 'mono' and 'stereo', each once; got {tuple(sources)}.")
        if scales < 1:
            raise InputError(f"Monodepth2: the loss needs at least 1 of the scales, got {scales}.")
        self.mono, self.stereo = "mono" in sources, "stereo" in sources
        self.metric = self.stereo
        self.needs = ClipNeeds(neighbours if self.mono else Single(), right=self.stereo)
        self.network = DepthNetwork(encoder, scales=scales)
        self.encoder = encoder
        self.pose: PoseNetwork | None = None
        if self.mono:
            self.pose = PoseNetwork(UNetEncoder(6, 2, pose_channels, norm="group"), pose_scale)
        self.min_depth, self.max_depth = min_depth, max_depth
        self._depth_of(torch.zeros(()))  # refuses limits that are none
        self.ssim_weight, self.smoothness_weight = ssim_weight, smoothness_weight
        self.auto_mask, self.tie_noise = auto_mask, tie_noise
        self.align_brightness, self.geometry_weight = align_brightness, geometry_weight
        self.augment = augment

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Eq. 5, averaged over the scales; ``learns`` is the share of the valid pixels that are not masked."""
        views, seen, motion = self._observe(batch)
        unwarped = self._unwarped_error(views, batch["seed"])
        sigmoids = for_each(self.network, seen if self.geometry_weight > 0 else seen[:, :1])
        terms = [self._at_scale(s, sigmoid, views, motion, unwarped) for s, sigmoid in enumerate(sigmoids)]
        means = {name: torch.stack([term[name] for term in terms]).mean() for name in terms[0]}
        loss = means["photometric"] + self.smoothness_weight * means["smoothness"]
        if self.geometry_weight > 0:
            loss = loss + self.geometry_weight * means["geometry"]
        return {"loss": loss} | {name: mean.detach() for name, mean in means.items()}

    def depth(self, batch: Batch) -> Tensor:
        """Depth (B, 1, H, W) of the first frame of each clip; in the recording's unit after learning from stereo."""
        require(batch, "clip")
        return self._depth_of(self.network(batch["clip"][:, 0])[0])

    def motion(self, a: Tensor, b: Tensor) -> Tensor | None:
        """What takes points from the camera of pictures a to that of the later pictures b, (B, 4, 4)."""
        return None if self.pose is None else rigid_from_vector(in_depths_unit(self.pose(a, b), self.min_depth))

    @torch.no_grad()
    def show(self, batch: Batch) -> dict[str, Tensor]:
        """Give the picture, its depth, how the first source draws it, the error, and which pixels teach."""
        views, seen, motion = self._observe(batch)
        depth = self._depth_of(self.network(seen[:, 0])[0])
        drawn = synthesise(views, depth, motion)
        error, learns = self._least_error(views, drawn, self._unwarped_error(views, batch["seed"]))
        warped = (drawn.pictures * drawn.valid).unflatten(0, motion.shape[:2])[:, 0]
        shown = torch.where(error.isfinite() & views.target_valid, error, 0.0)
        return {"input": seen[:, 0], "depth": depth, "warped": warped, "error": shown, "mask": learns.float()}

    def _depth_of(self, sigmoid: Tensor) -> Tensor:
        return depth_from_disparity(sigmoid, self.min_depth, self.max_depth)

    def _observe(self, batch: Batch) -> tuple[Views, Tensor, Tensor]:
        """Give the views, the pictures as the networks see them, and the motion to each source (B, S, 4, 4)."""
        require(batch, "clip", "seed")
        batch = self.augment.mirror(batch) if self.training else batch
        views = views_of(batch, self.mono, self.stereo)
        seen = self.augment.recolour(views.pictures, batch["seed"]) if self.training else views.pictures
        motions = []
        if self.pose is not None:
            require(batch, "frame")
            earlier, later, turned = pairs_in_time(seen[:, : batch["clip"].shape[1]], batch["frame"])
            forward = in_depths_unit(self.pose(earlier, later), self.min_depth)
            motions.append(motion_from_target(forward, turned).unflatten(0, (len(seen), -1)))
        if self.stereo:
            self._require_common_sight(batch)
            motions.append(invert(batch["right_to_left"])[:, None])
        return views, seen, torch.cat(motions, dim=1)

    def _at_scale(self, s: int, sigmoid: Tensor, views: Views, motion: Tensor, unwarped: Tensor) -> dict[str, Tensor]:
        """Give the terms of the loss at scale s, whose map is (B, 1 or V, 1, H / 2^s, W / 2^s)."""
        size = views.pictures.shape[-2:]
        full = F.interpolate(sigmoid.flatten(0, 1), size=size, mode="bilinear", align_corners=False)
        D = self._depth_of(full).unflatten(0, sigmoid.shape[:2])
        drawn = synthesise(views, D[:, 0], motion)
        L_p, learns = self._least_error(views, drawn, unwarped)
        d = 1 / self._depth_of(sigmoid[:, 0])
        image = F.interpolate(views.target, size=d.shape[-2:], mode="area")
        terms = {
            "photometric": masked_mean(L_p, views.target_valid & L_p.isfinite()),
            "smoothness": edge_aware_smoothness(mean_normalised(d), image) / 2**s,  # eq. 3
            "learns": masked_mean(learns.float(), views.target_valid),
        }
        if self.geometry_weight > 0:
            terms["geometry"] = masked_mean(depth_difference(drawn, D[:, 1:].flatten(0, 1)), drawn.valid)
        return terms

    def _least_of_sources(self, views: Views, pictures: Tensor, valid: Tensor) -> Tensor:
        """Compare the target with (N, C, H, W) by eq. 2 and keep the least (eq. 4), (B, 1, H, W); infinite for none."""
        target = views.of_each_source(views.target)
        if self.align_brightness:
            pictures = match_brightness(pictures, target, valid)
        error = photometric_error(pictures, target, self.ssim_weight)
        compared = surrounded(valid) if self.ssim_weight > 0 else valid
        of_each: Tensor = error.masked_fill(~compared, torch.inf).unflatten(0, (len(views.target), -1))
        return of_each.amin(dim=1)

    def _unwarped_error(self, views: Views, seeds: Tensor) -> Tensor:
        """Least error of the sources as they are, with noise that decides ties, (B, 1, H, W)."""
        both = views.sources_valid & views.of_each_source(views.target_valid)
        error = self._least_of_sources(views, views.sources, both)
        noise = uniform(
            0, self.tie_noise, error.shape[1:], generators(seeds + 2), error
        )  # 0 and 1 draw the augmentation
        return error + noise

    def _least_error(self, views: Views, drawn: Synthesis, unwarped: Tensor) -> tuple[Tensor, Tensor]:
        """Give each pixel's least error (eq. 4), and whether it teaches: the mask mu of eq. 5; (B, 1, H, W) each.

        Infinite where nothing can be compared.
        """
        warped = self._least_of_sources(views, drawn.pictures, drawn.valid)
        learns = warped < unwarped if self.auto_mask else warped.isfinite()
        return torch.where(learns, warped, unwarped), learns

    def _require_common_sight(self, batch: Batch) -> None:
        """Refuse limits whose first guess of the depth puts all that one camera sees outside the other's picture."""
        width = batch["clip"].shape[-1]
        baseline = batch["right_to_left"][:, :3, 3].norm(dim=1)
        shift = batch["intrinsics"][:, 0, 0] * baseline  # times depth, pixels
        guess = float(self._depth_of(torch.tensor(0.5)))
        if bool((shift / guess >= width).all()):
            raise InputError(
                f"Monodepth2: with min_depth={self.min_depth:g} and max_depth={self.max_depth:g} the first guess of "
                f"the depth is {guess:.3g}, where cameras {float(baseline.mean()):.3g} apart see nothing in common, so "
                "nothing would be learnt. Give the nearest and farthest depth of the tissue in the recording's unit; a "
                f"min_depth of at least {float(shift.mean()) / width:.2g}."
            )
