"""Optical flow without labels: where the flow leads, the second picture should look like the first.

Jonschkowski, Stone, Barron, Gordon, Konolige, Angelova, "What Matters in Unsupervised Optical Flow" (UFlow), ECCV 2020,
https://arxiv.org/abs/2006.04902: census loss, occlusions masked without gradient, smoothness before up-sampling,
self-supervision. The census is that of Meister, Hur, Roth, "UnFlow", AAAI 2018, https://arxiv.org/abs/1711.07837; what
a smaller crop hides is taught as in Liu, King, Lyu, Xu, "DDFlow", AAAI 2019, https://arxiv.org/abs/1902.09145; the crop
is warped from the whole picture as in Stone et al., "SMURF", CVPR 2021, https://arxiv.org/abs/2105.07014.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from medssl.augment import generators, uniform
from medssl.clip_augment import ClipAugment
from medssl.data.clips import ClipNeeds, Neighbours
from medssl.errors import InputError
from medssl.geometry import inside, occlusion_by_consistency, occlusion_by_range_map, pixel_grid, sample
from medssl.networks.encoder import Encoder
from medssl.networks.flow import FlowNetwork
from medssl.photometric import census_error, charbonnier, edge_aware_smoothness, masked_mean, photometric_error
from medssl.sample import Batch, require
from medssl.video_method import FlowMethod

Comparison = Literal["census", "ssim", "difference"]
Occlusion = Literal["consistency", "range_map", "none"]
Size = tuple[int, int]

_VISIBLE = 0.9  # share of a sampled mask from which on a pixel counts


class OpticalFlow(FlowMethod):
    """Minimise how differently each pixel and its match look, where both pictures show it, and how rough the flow is.

    Both directions are learnt at once, and each tells what is hidden from the other. The network sees a part of the
    pictures, and the loss all of them, so that what leaves the part still has a match. Later it also learns from
    itself: its flow of that part is the target of a smaller one, for the pixels whose match only the larger shows.

    The paper trains for 1.2 million steps, teaching from step 500,000; the defaults are for a light encoder and some
    thousand steps on processors. A coarsest stride of 16 learns sooner than one of 32, and reaches 64 pixels.

    Args:
        encoder: The network to train, for pictures.
        comparison: Of a pixel and its match: by the ``"census"`` of its neighbours, which hardly changes with the
            light; ``"ssim"``, 0.85 of it with 0.15 of the absolute difference; or the ``"difference"`` alone. These
            two are some hundred times smaller than the census, for which the weights below are: lower them too.
        window: Side of the census' square of neighbours, odd, pixels.
        exponent: Of the robust penalty (x^2 + 0.01^2)^exponent of the comparison. 0.45 is UnFlow's, and learns within
            hundreds of steps; 0.2, the paper's power of 0.4, cares less for what cannot match, and learns slowly.
        smoothness_weight: Of the mean change of the flow along x plus that along y, in pixels at the network's finest
            level. The paper's 4, of the mean of both, goes with its penalty and is 2 here; the default's is four times
            as large, and so is its weight.
        smoothness_order: Of the derivative: 1 asks for constant flow (the paper's, for Sintel), 2 for flow that
            changes evenly (KITTI).
        edge_weight: The paper's lambda: how much an edge of the picture excuses.
        occlusion: How what is hidden is found: by the ``"range_map"``, by ``"consistency"`` there and back, which is
            sharper but takes a flow that is still wrong for hidden everywhere, or ``"none"``. What leaves the picture
            always counts as hidden.
        occlusion_after: Steps before which only that does.
        teaching_weight: Of the self-supervision, for the same reason more than the paper's 0.3.
        teaching_after: Steps before it begins.
        teaching_ramp: Steps in which its weight then grows to the full one.
        crop: Share of the picture's sides that the network sees in training; rounded down to what it can take.
        student_crop: Share of that part's sides that the student sees.
        augment: How clips vary; only the network sees the other colours.
        radius: How far each level looks, in its own pixels.
        shared: One estimator for all levels.
    """

    needs = ClipNeeds(Neighbours(0.0, before=False), intrinsics=False)
    steps: Tensor

    def __init__(
        self,
        encoder: Encoder,
        comparison: Comparison = "census",
        window: int = 7,
        exponent: float = 0.45,
        smoothness_weight: float = 8.0,
        smoothness_order: Literal[1, 2] = 1,
        edge_weight: float = 150.0,
        occlusion: Occlusion = "range_map",
        occlusion_after: int = 500,
        teaching_weight: float = 1.0,
        teaching_after: int = 1000,
        teaching_ramp: int = 200,
        crop: float = 0.8,
        student_crop: float = 0.8,
        augment: ClipAugment = ClipAugment(),
        radius: int = 4,
        shared: bool = True,
    ) -> None:
        super().__init__()
        _require_settings(comparison, occlusion, smoothness_order, crop, student_crop)
        self.encoder = encoder
        self.network = FlowNetwork(encoder, radius, shared=shared)
        self.stride, self.step = self.network.stride, max(encoder.strides)
        self.comparison, self.window, self.exponent = comparison, window, exponent
        self.smoothness_weight, self.edge_weight = smoothness_weight, edge_weight
        self.smoothness_order: Literal[1, 2] = smoothness_order
        self.occlusion, self.occlusion_after = occlusion, occlusion_after
        self.teaching_weight, self.teaching_after, self.teaching_ramp = teaching_weight, teaching_after, teaching_ramp
        self.crop, self.student_crop, self.augment = crop, student_crop, augment
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))  # taken so far

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """All terms of a batch of pairs, which needs clip, valid and seed."""
        require(batch, "clip", "valid", "seed")
        seeds, draw = batch["seed"], generators(batch["seed"] + 2)  # beside what mirrors and what colours
        batch = self.augment.mirror(batch) if self.training else batch
        clip, valid = batch["clip"], batch["valid"]  # (B, 2, 3, H, W), (B, 2, 1, H, W)
        shown = self.augment.recolour(clip, seeds) if self.training else clip
        full = (clip.shape[-2], clip.shape[-1])
        size = self._part(full, self.crop) if self.training else full
        corner = _random_corner(full, size, draw, clip)
        V = self.network.both_ways(*cut(shown, corner, size).unbind(1))  # (2B, 2, h, w), there and then back
        hidden = self._occluded(V)
        _, error, seen = self._compare(clip, valid, V, hidden, corner)
        photometric = masked_mean(charbonnier(error, 0.01, self.exponent), seen)
        smoothness = self._smoothness(V, _both(cut(clip, corner, size)))
        teaching = V.new_zeros(())
        if self.training and self.teaching_share > 0:
            other = cut(self.augment.recolour(clip, seeds + 2), corner, size)
            teaching = self._teaching(other, V.detach(), hidden, draw)
        weight = self.teaching_weight * self.teaching_share
        return {
            "loss": photometric + self.smoothness_weight * smoothness + weight * teaching,
            "photometric": photometric.detach(),
            "smoothness": smoothness.detach(),
            "teaching": teaching.detach(),
            "seen": seen.float().mean(),
        }

    def flow(self, a: Tensor, b: Tensor) -> Tensor:
        """Flow (B, 2, H, W), float32, x and y in pixels, from pictures a to b, (B, 3, H, W) each, 0 to 1.

        Raises:
            InputError: The sides are no multiples of the encoder's largest stride.
        """
        flow: Tensor = self.network(a, b)
        return flow

    @property
    def teaching_share(self) -> float:
        """Of the self-supervision's weight, at this step: 0, then rising, then 1."""
        begun = int(self.steps) - self.teaching_after
        return min(max(begun / max(self.teaching_ramp, 1), 0.0), 1.0)

    def after_step(self) -> None:
        """Count."""
        self.steps += 1

    def state_scores(self) -> dict[str, float]:
        """Give the share of its weight that the self-supervision has reached, as ``teaching/share``."""
        return {"teaching/share": self.teaching_share}

    @torch.no_grad()
    def show(self, batch: Batch) -> dict[str, Tensor]:
        """Give each first picture, its flow (B, 2, H, W), the second one warped to it, their error, what is compared.

        The error is as ``loss`` has it before its penalty: of a census, the neighbours that compare otherwise.
        """
        clip, valid, count = batch["clip"], batch["valid"], len(batch["clip"])
        V = self.network.both_ways(*clip.unbind(1))
        corner = torch.zeros(count, 2, dtype=torch.long, device=clip.device)
        warped, error, seen = self._compare(clip, valid, V, self._occluded(V), corner)
        shown = {"input": clip[:, 0], "flow": V, "warped": warped, "error": error, "mask": seen.float()}
        return {name: picture[:count] for name, picture in shown.items()}

    def _part(self, size: Sequence[int], share: float) -> Size:
        """Height and width that are a share of ``size``, rounded down to what the network takes."""
        height, width = (max(int(n * share) // self.step, 1) * self.step for n in size)
        return height, width

    def _occluded(self, V: Tensor) -> Tensor:
        """Tell which pixels of flows V (2B, 2, h, w) vanish or leave the picture that the network saw, (2B, 1, h, w).

        The mask has no gradient: otherwise hiding a pixel would be a way to lower the loss.
        """
        V = V.detach()
        outside = ~inside(_places(V), (V.shape[2], V.shape[3]))
        back = V.roll(len(V) // 2, 0)
        if self.occlusion == "none" or int(self.steps) < self.occlusion_after:
            return outside
        if self.occlusion == "range_map":
            return outside | occlusion_by_range_map(back)
        return outside | occlusion_by_consistency(V, back)

    def _compare(
        self, clip: Tensor, valid: Tensor, V: Tensor, hidden: Tensor, corner: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compare the part that flows V are of with its matches in the whole other picture.

        Args:
            clip: Whole pictures, (B, 2, 3, H, W).
            valid: (B, 2, 1, H, W).
            V: (2B, 2, h, w).
            hidden: What the network's part hides, (2B, 1, h, w).
            corner: Of the part, (B, 2), x first.

        Returns:
            The matches (2B, 3, h, w), the error (2B, 1, h, w), and where it counts, bool: the pixel is not hidden, and
            all that is compared lies in both pictures and is valid. Of pixels that leave the part, the other flow says
            nothing: they count if the picture has them.
        """
        size, full = (V.shape[2], V.shape[3]), (clip.shape[-2], clip.shape[-1])
        first, mask = _both(cut(clip, corner, size)), _both(cut(valid, corner, size))
        places = _places(V)
        there = places + corner.repeat(2, 1)[..., None, None]
        second, second_valid = (_both(x.flip(1)) for x in (clip, valid))
        warped = sample(second, there)
        shown = inside(there, full) & (mask >= _VISIBLE) & (sample(second_valid, there, "zeros") >= _VISIBLE)
        seen = eroded(shown, self._reach) & ~(hidden & inside(places, size))
        return warped, self._error(first, warped), seen

    @property
    def _reach(self) -> int:
        """How far from a pixel its comparison looks, pixels."""
        return {"census": self.window // 2, "ssim": 1, "difference": 0}[self.comparison]

    def _error(self, first: Tensor, warped: Tensor) -> Tensor:
        """Compare pictures (B, 3, h, w) pixel by pixel, (B, 1, h, w)."""
        if self.comparison == "census":
            return census_error(first, warped, self.window)
        return photometric_error(first, warped, 0.85 if self.comparison == "ssim" else 0.0)

    def _smoothness(self, V: Tensor, pictures: Tensor) -> Tensor:
        """Smoothness of flows (2B, 2, h, w) at the resolution that they are estimated at."""
        small, edges = F.avg_pool2d(V, self.stride) / self.stride, F.avg_pool2d(pictures, self.stride)
        return edge_aware_smoothness(small, edges, self.smoothness_order, self.edge_weight)

    def _teaching(self, clip: Tensor, V: Tensor, hidden: Tensor, draw: Sequence[Generator]) -> Tensor:
        """Distance of the flow of a smaller part from that of the larger, where only the larger shows the match.

        The teacher is believed where its flows there and back agree, however occlusions are found: one that errs would
        else teach its errors to itself, and they grow without end.

        Args:
            clip: The larger part, (B, 2, 3, h, w), as the student sees it.
            V: The teacher's flows, without gradient, (2B, 2, h, w).
            hidden: What is hidden from the teacher, (2B, 1, h, w).
            draw: Each sample's generator.
        """
        size = self._part(clip.shape[-2:], self.student_crop)
        corner = _random_corner(clip.shape[-2:], size, draw, clip)
        student = self.network.both_ways(*cut(clip, corner, size).unbind(1))
        doubted = hidden | occlusion_by_consistency(V, V.roll(len(V) // 2, 0))
        target, doubted = (cut(x, corner.repeat(2, 1), size) for x in (V, doubted))
        return masked_mean(charbonnier(student - target), self._occluded(student) & ~doubted)


def cut(pictures: Tensor, corner: Tensor, size: Size) -> Tensor:
    """Cut a part of ``size`` (height, width) out of each sample (B, ..., H, W), at its own ``corner``: (B, 2), x, y."""
    (height, width), device = size, pictures.device
    x, y = corner.unbind(1)
    rows = y.view(-1, 1, 1) + torch.arange(height, device=device).view(1, -1, 1)
    columns = x.view(-1, 1, 1) + torch.arange(width, device=device).view(1, 1, -1)
    sample_of = torch.arange(len(pictures), device=device).view(-1, 1, 1)
    parts = pictures.movedim((-2, -1), (1, 2))[sample_of, rows, columns]  # (B, h, w, ...)
    return parts.movedim((1, 2), (-2, -1))


def eroded(mask: Tensor, reach: int) -> Tensor:
    """Keep of a mask (B, 1, H, W), bool, what has none but its own within ``reach`` pixels; the border is no hole."""
    if reach == 0:
        return mask
    return F.max_pool2d((~mask).float(), 2 * reach + 1, 1, reach) == 0


def _random_corner(full: Sequence[int], size: Sequence[int], draw: Sequence[Generator], like: Tensor) -> Tensor:
    """Draw where a part of ``size`` lies in ``full``, both height and width, for each sample: (B, 2), x first."""
    room = torch.tensor([full[1] - size[1], full[0] - size[0]], device=like.device)
    return (uniform(0, 1, (2,), draw, like) * (room + 1)).long().minimum(room)


def _both(clip: Tensor) -> Tensor:
    """Put the pictures of pairs (B, 2, ...) below each other, the first ones and then the second ones: (2B, ...)."""
    return clip.transpose(0, 1).flatten(0, 1)


def _places(V: Tensor) -> Tensor:
    """Where flows (B, 2, h, w) lead, in pixels of the part that they are of."""
    return pixel_grid(V.shape[2], V.shape[3], V.device, V.dtype) + V


def _require_settings(comparison: str, occlusion: str, order: int, crop: float, student_crop: float) -> None:
    for name, value, known in (("comparison", comparison, Comparison), ("occlusion", occlusion, Occlusion)):
        if value not in get_args(known):
            raise InputError(f"OpticalFlow: {name} must be one of {', '.join(get_args(known))}, got '{value}'.")
    if order not in (1, 2):
        raise InputError(f"OpticalFlow: smoothness_order must be 1 or 2, got {order}.")
    if not (0 < crop <= 1 and 0 < student_crop <= 1):
        raise InputError(f"OpticalFlow: crop and student_crop are shares above 0, up to 1; got {crop}, {student_crop}.")
