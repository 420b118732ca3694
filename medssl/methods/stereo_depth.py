"""Depth from stereo: guess from the left picture alone how far both are shifted, until each draws the other.

Godard, Mac Aodha, Brostow, "Unsupervised Monocular Depth Estimation with Left-Right Consistency" (Monodepth), CVPR
2017, https://arxiv.org/abs/1609.03677, equations 1 to 4.
"""

import math
from typing import Literal, cast

import torch
from torch import Tensor, nn

from medssl.clip_augment import ClipAugment
from medssl.data.clips import ClipNeeds, Single
from medssl.errors import InputError
from medssl.geometry import depth_from_stereo, in_float32, warp
from medssl.geometry.view_synthesis import Views, surrounded, views_of
from medssl.networks.depth import DepthNetwork
from medssl.networks.encoder import Encoder
from medssl.photometric import edge_aware_smoothness, masked_mean, photometric_error
from medssl.sample import Batch, require
from medssl.video_method import DepthMethod

View = Literal[0, 1]  # the left one, the right one

_MOST = 0.9  # share of a mask, read between its pixels, from which on a pixel counts
_LEAST_SHIFT = 0.01  # pixels; what is shifted less is too far away to tell how far
_EDGE, _RAMP = 0.05, 0.05  # shares of the width, of the post-processing


class StereoDepth(DepthMethod):
    """Minimise how differently each picture looks from the one drawn of the other, while their disparities agree.

    Disparities are x in the left picture minus x in the right one, and smooth where the picture is. A pixel is compared
    where both pictures show the body, and where its match is in the other picture.

    The right camera is to the right of the left one and the pair is rectified; the principal points may differ in x.
    Depth is then in the recording's unit. A disparity cannot be below 0: of cameras turned towards each other, what is
    farther than where their axes meet counts as that far.

    Args:
        encoder: The network to train, for pictures.
        scales: Finest scales that the loss is summed over; at each the pictures are smaller by 2.
        max_disparity: Largest disparity, as a share of the picture's width.
        first_disparity: The disparity that training begins with, as a share of the width. The paper's sigmoid begins in
            its middle, at 0.15: where most disparities are a few percent, that is too far off for matches to be found.
        ssim_weight: The paper's alpha (eq. 2), the share of structural dissimilarity.
        appearance_weight: The paper's alpha_ap (eq. 1).
        smoothness_weight: The paper's alpha_ds, divided by 2^s at scale s.
        consistency_weight: The paper's alpha_lr.
        post_processing: Average the disparities of a picture and of its mirror image, but at the edges; takes twice as
            long (section 4.1).
        augment: Mirror images, of which the views are swapped, and colours that only the network sees.
    """

    metric = True
    needs = ClipNeeds(Single(), right=True)

    def __init__(
        self,
        encoder: Encoder,
        scales: int = 4,
        max_disparity: float = 0.3,
        first_disparity: float = 0.05,
        ssim_weight: float = 0.85,
        appearance_weight: float = 1.0,
        smoothness_weight: float = 0.1,
        consistency_weight: float = 1.0,
        post_processing: bool = True,
        augment: ClipAugment = ClipAugment(),
    ) -> None:
        super().__init__()
        if scales < 1 or not 0 < first_disparity < max_disparity <= 1:
            raise InputError(
                "StereoDepth: scales must be at least 1, and 0 < first_disparity < max_disparity <= 1, shares of the "
                f"width; got {scales}, {first_disparity:g} and {max_disparity:g}."
            )
        self.network = DepthNetwork(encoder, maps=2, scales=scales, refine=True)
        self.encoder = encoder
        share = first_disparity / max_disparity
        coarsest, *finer = (cast(nn.Conv2d, head).bias for head in self.network.decoder.heads.values())
        for bias in finer:  # these tell what differs from the coarsest
            nn.init.zeros_(cast(Tensor, bias))
        nn.init.constant_(cast(Tensor, coarsest), math.log(share / (1 - share)))  # what the sigmoid makes that share of
        self.max_disparity, self.ssim_weight = max_disparity, ssim_weight
        self.appearance_weight, self.smoothness_weight = appearance_weight, smoothness_weight
        self.consistency_weight, self.post_processing, self.augment = consistency_weight, post_processing, augment

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Eq. 1, summed over the scales and both views; the parts are those that it weighs."""
        _, views, seen = self._observe(batch)
        parts = [self._compare(views.smaller(2**s), d, s) for s, d in enumerate(self._disparities(seen))]
        C_ap, C_ds, C_lr = torch.stack(parts).sum(0)
        loss = self.appearance_weight * C_ap + self.smoothness_weight * C_ds + self.consistency_weight * C_lr
        return {"loss": loss, "appearance": C_ap.detach(), "smoothness": C_ds.detach(), "consistency": C_lr.detach()}

    def disparity(self, image: Tensor) -> Tensor:
        """Disparity (B, 1, H, W), float32, pixels, of left pictures (B, 3, H, W), 0 to 1."""
        d = self._disparities(image)[0][:, :1]
        if self.post_processing:
            d = post_processed(d, self._disparities(image.flip(-1))[0][:, :1].flip(-1))
        return d * image.shape[-1]

    def depth(self, batch: Batch) -> Tensor:
        """Depth (B, 1, H, W) of the first frame of each clip, in the recording's unit.

        Raises:
            InputError: The batch lacks the cameras, or the second one is not to the right of the first.
        """
        require(batch, "clip", "intrinsics", "right_intrinsics", "right_to_left")
        baseline = batch["right_to_left"][:, 0, 3]
        if not bool((baseline > 0).all()):
            raise InputError(
                f"StereoDepth: the second camera is {baseline.tolist()} to the right of the first one; above 0 is "
                "expected. Swap the two, or invert the calibration's transform."
            )
        focal, apart = batch["intrinsics"][:, 0, 0], batch["right_intrinsics"][:, 0, 2] - batch["intrinsics"][:, 0, 2]
        shift = self.disparity(batch["clip"][:, 0]) + _per_sample(apart)
        return depth_from_stereo(shift.clamp_min(_LEAST_SHIFT), _per_sample(focal), _per_sample(baseline))

    @torch.no_grad()
    def show(self, batch: Batch) -> dict[str, Tensor]:
        """Give the left picture, its disparity in pixels and depth, how the right one draws it, the error, and where.

        The disparity is that of ``loss``, the depth that of ``depth``.
        """
        batch, views, seen = self._observe(batch)
        d = self._disparities(seen)[0]
        drawn, _, valid = draw(views, d, 0)
        error = photometric_error(drawn, views.target, self.ssim_weight) * valid
        shown = {"input": views.target, "disparity": d[:, :1] * d.shape[-1], "depth": self.depth(batch)}
        return shown | {"warped": drawn * valid, "error": error, "mask": valid.float()}

    def _observe(self, batch: Batch) -> tuple[Batch, Views, Tensor]:
        """Give the batch as it is learnt from, its views, and the left one as the network sees it, (B, 3, H, W)."""
        require(batch, "clip", "seed")
        batch = self.augment.mirror(batch) if self.training else batch
        views = views_of(batch, neighbours=False, second_camera=True)
        left = views.pictures[:, :1]
        seen = self.augment.recolour(left, batch["seed"]) if self.training else left
        return batch, views, seen[:, 0]

    def _disparities(self, image: Tensor) -> list[Tensor]:
        """Give the disparities of both views, as shares of the width, (B, 2, h, w), finest scale first."""
        return [self.max_disparity * sigmoid for sigmoid in self.network(image)]

    def _compare(self, views: Views, d: Tensor, s: int) -> Tensor:
        """C_ap, C_ds and C_lr of scale s, both views' summed, (3,)."""
        parts: list[Tensor] = []
        for view in (0, 1):
            own, picture = d[:, view : view + 1], views.pictures[:, view]
            drawn, other, valid = draw(views, d, view)
            error = photometric_error(drawn, picture, self.ssim_weight)  # eq. 2
            C_ap = masked_mean(error, surrounded(valid) if self.ssim_weight > 0 else valid)
            C_ds = edge_aware_smoothness(own, picture) / 2**s  # eq. 3
            C_lr = masked_mean((own - other).abs(), valid)  # eq. 4
            parts.append(torch.stack([C_ap, C_ds, C_lr]))
        return torch.stack(parts).sum(0)


@in_float32
def draw(views: Views, d: Tensor, view: View) -> tuple[Tensor, Tensor, Tensor]:
    """Draw one view from the other by its disparity.

    Args:
        views: The left one and the right one, of size (h, w).
        d: Their disparities, shares of the width, (B, 2, h, w).
        view: 0 for the left one, 1 for the right one.

    Returns:
        Its picture (B, C, h, w); the other view's disparity where its pixels are (B, 1, h, w); and where it is drawn,
        (B, 1, h, w), bool: both views are valid, and the match is in the picture.
    """
    own, other = d[:, view : view + 1], d[:, 1 - view : 2 - view]
    shift = own * d.shape[-1] * (-1 if view == 0 else 1)  # what is at x on the left is at x - d on the right
    flow = torch.cat([shift, torch.zeros_like(shift)], 1)
    drawn, seen = warp(torch.cat([views.pictures[:, 1 - view], other], 1), flow).tensor_split([-1], 1)
    other_valid = warp(views.valid[:, 1 - view].to(flow.dtype), flow, "zeros") >= _MOST
    return drawn, seen, other_valid & (views.valid[:, view] > 0)


@in_float32
def post_processed(d: Tensor, mirrored: Tensor) -> Tensor:
    """Join the disparities of a picture and of its mirror image, mirrored back, (B, 1, H, W).

    A left picture shows at its left edge, and left of whatever is near, what the right one does not: there the
    disparity is a guess. In the mirror image that is on the other side. So the mirror image's disparity is taken for
    the 5 % of the width at the left edge, the picture's own for those at the right, and their mean between them, with
    ramps of another 5 %.
    """
    x = torch.linspace(0, 1, d.shape[-1], device=d.device, dtype=d.dtype)
    at_left = (1 - (x - _EDGE) / _RAMP).clamp(0, 1)
    at_right = at_left.flip(0)
    return at_right * d + at_left * mirrored + (1 - at_left - at_right) * (d + mirrored) / 2


def _per_sample(values: Tensor) -> Tensor:
    """View (B,) as (B, 1, 1, 1)."""
    return values[:, None, None, None]
