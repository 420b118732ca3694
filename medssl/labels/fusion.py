"""Fusion: several label maps of one scan, each carried over from another atlas, become one.

Majority and locally weighted voting: Artaechevarria, Muñoz-Barrutia, Ortiz-de-Solórzano, "Combination strategies in
multi-atlas image segmentation: application to brain MR data", IEEE TMI 2009. STAPLE: Warfield, Zou, Wells, IEEE TMI
2004, for many labels as SimpleITK has it.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from medssl.errors import InputError

Labels = NDArray[np.uint8]
Image = NDArray[np.float32]
Fusion = Literal["majority", "local", "staple"]

_TINY_VARIANCE = 1e-5  # of images that run from 0 to about 1: a flat neighbourhood resembles nothing


def fuse(fusion: Fusion, votes: Sequence[Labels], target: Image, atlases: Sequence[Image]) -> Labels:
    """Fuse the label maps that atlases gave to a scan.

    Args:
        fusion: "majority" counts votes; "local" weights each by how much the atlas looks like the target around the
            voxel; "staple" weights each by how reliable it turns out to be for each class.
        votes: Class indices, one map per atlas, on the target's grid.
        target: The scan, intensities from 0 to about 1.
        atlases: The atlases' images on the target's grid, as many as votes and as the target in scale.

    Raises:
        InputError: There is no such fusion, or the arrays do not belong together.
    """
    if fusion == "majority":
        return majority_vote(votes)
    if fusion == "local":
        return majority_vote(votes, [similarity(target, atlas) for atlas in atlases])
    if fusion == "staple":
        return staple(votes)
    raise InputError(f"There is no fusion '{fusion}'; choose one of {', '.join(get_args(Fusion))}.")


def majority_vote(votes: Sequence[Labels], weights: Sequence[Image] | None = None) -> Labels:
    """Give each voxel the class that most label maps give it, or the one with the greatest sum of weights.

    Among classes with equally many votes the one that comes first in ``votes`` wins. (Not the lowest class: that is
    the background, and thin structures would lose every tie.)

    Args:
        votes: Class indices, one map per atlas, all of one shape.
        weights: How much each map counts at each voxel, of the maps' shape and not negative.

    Raises:
        InputError: There are no maps, or they or the weights differ in shape or number.
    """
    _check(votes, weights)
    fused = votes[0].copy()
    disputed = np.any([vote != fused for vote in votes[1:]], axis=0) if len(votes) > 1 else np.zeros(fused.shape, bool)
    votes = [vote[disputed] for vote in votes]  # each (n,)
    counts = [weight[disputed] for weight in weights] if weights is not None else [np.float32(1)] * len(votes)
    best = np.full(votes[0].shape, -1, dtype=np.float32)
    winner = votes[0].copy()
    for candidate in votes:
        score = np.zeros_like(best)
        for vote, count in zip(votes, counts, strict=True):
            score += count * (vote == candidate)
        better = score > best
        winner[better], best[better] = candidate[better], score[better]
    fused[disputed] = winner
    return fused


def similarity(target: Image, atlas: Image, sigma_voxels: float = 1.5, power: float = 4.0) -> Image:
    """How much two images on one grid look alike around each voxel: their local correlation, at least 0, to a power.

    Args:
        target: Intensities, any number of axes.
        atlas: The same, on the same grid.
        sigma_voxels: Width of the Gaussian neighbourhood.
        power: How much better neighbourhoods count more.
    """

    def mean(image: Image) -> Image:
        smooth: Image = ndimage.gaussian_filter(image, sigma_voxels, truncate=2.5)
        return smooth

    a, b = mean(target), mean(atlas)
    variance_a = np.maximum(mean(target * target) - a * a, _TINY_VARIANCE)
    variance_b = np.maximum(mean(atlas * atlas) - b * b, _TINY_VARIANCE)
    correlation = (mean(target * atlas) - a * b) / np.sqrt(variance_a * variance_b)
    weight: Image = np.clip(correlation, 1e-3, 1) ** np.float32(power)  # a floor, so that every vote counts somewhat
    return weight


def staple(votes: Sequence[Labels], iterations: int = 20) -> Labels:
    """Estimate the true classes together with each map's reliability per class (STAPLE).

    A voxel that stays undecided takes the majority's class.

    Args:
        votes: Class indices, one map per atlas, all of one shape; at most 254 classes.
        iterations: Upper limit of the expectation-maximisation.

    Raises:
        InputError: There are no maps, or they differ in shape.
    """
    _check(votes, None)
    undecided = 255
    filter_ = sitk.MultiLabelSTAPLEImageFilter()
    filter_.SetLabelForUndecidedPixels(undecided)
    filter_.SetMaximumNumberOfIterations(iterations)
    estimate = sitk.GetArrayFromImage(filter_.Execute([sitk.GetImageFromArray(vote) for vote in votes]))
    return np.where(estimate == undecided, majority_vote(votes), estimate).astype(np.uint8)


def _check(votes: Sequence[Labels], weights: Sequence[Image] | None) -> None:
    shapes = [vote.shape for vote in votes]
    if not votes or len(set(shapes)) > 1:
        raise InputError(
            f"Fusion needs label maps of one shape, at least one; got {len(votes)} of {sorted(set(shapes))}."
        )
    if weights is not None and [weight.shape for weight in weights] != shapes:
        raise InputError(
            f"Each of the {len(votes)} label maps of shape {shapes[0]} needs weights of that shape; got "
            f"{[weight.shape for weight in weights]}."
        )
