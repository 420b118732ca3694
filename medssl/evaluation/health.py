"""Whether a representation is alive: how much its embeddings spread, over how many dimensions, how evenly.

Effective rank after Roy & Vetterli, "The effective rank: a measure of effective dimensionality", EUSIPCO 2007;
uniformity and alignment after Wang & Isola, "Understanding Contrastive Representation Learning through Alignment and
Uniformity on the Hypersphere", ICML 2020, https://arxiv.org/abs/2005.10242; the standard deviation per dimension after
Chen & He, "Exploring Simple Siamese Representation Learning", CVPR 2021, https://arxiv.org/abs/2011.10566, section 4.1.
"""

from math import log
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from medssl.errors import InputError

Embeddings = Tensor | NDArray[Any]

_BLOCK = 1024  # rows whose similarities to all others are held at once
_FEWEST_DIMENSIONS = 1.5  # between a line, 1, and a plane, 2


def as_embeddings(z: Embeddings, what: str = "The embeddings") -> Tensor:
    """Return embeddings as a tensor (N, D) without gradient, in float32 or better.

    Args:
        z: One row per sample.
        what: What the message calls them.

    Raises:
        InputError: They are no matrix with a row and a column, or hold NaN or infinity.
    """
    z = torch.as_tensor(z).detach()
    if z.ndim != 2 or not z.numel():
        raise InputError(f"{what} must be a matrix (N, D), one row per sample, got the shape {tuple(z.shape)}.")
    z = z if z.dtype == torch.float64 else z.float()
    broken = int((~z.isfinite()).any(1).sum())
    if broken:
        raise InputError(
            f"{what} hold NaN or infinity in {broken} of {len(z)} rows: the training has diverged, or an input image "
            "holds them. Check the images, then lower the learning rate."
        )
    return z


def std_per_dimension(z: Embeddings) -> float:
    """Standard deviation of each dimension of the L2-normalised rows, averaged over the dimensions.

    1/sqrt(D) for directions spread evenly over the sphere, 0 where all samples have the same one.
    """
    return float(_directions(z).std(0, correction=0).mean())


def effective_rank(z: Embeddings) -> float:
    """Number of dimensions that embeddings (N, D) fill: exp of the entropy of their normalised singular values.

    From 1, all rows on one line through the origin, to min(N, D), all singular values equal; 0 where all is 0.
    Neither a rotation nor a change of scale changes it.
    """
    singular = torch.linalg.svdvals(as_embeddings(z).double())
    total = singular.sum()
    return float(torch.special.entr(singular / total).sum().exp()) if total > 0 else 0.0


def uniformity(z: Embeddings, t: float = 2.0) -> float:
    """Log of the mean Gaussian potential exp(-t |x - y|^2) over all pairs of L2-normalised rows.

    0 where all rows are the same, the lower the more evenly they cover the sphere.

    Raises:
        InputError: There is no pair.
    """
    x = _directions(z)
    n = len(x)
    if n < 2:
        raise InputError("Uniformity compares pairs of samples: give at least 2, got 1.")
    total = sum(float(torch.exp(-t * torch.cdist(rows, x).square()).sum()) for rows in x.split(_BLOCK))
    return log((total - n) / (n * (n - 1)))  # without the n pairs of a row with itself, whose potential is 1


def alignment(z: Embeddings, z_other: Embeddings, alpha: float = 2.0) -> float:
    """Mean distance to the power alpha between the L2-normalised embeddings of two views; 0 where they agree.

    Raises:
        InputError: The two have different shapes.
    """
    x, y = _directions(z), _directions(z_other, "The embeddings of the other view")
    if x.shape != y.shape:
        raise InputError(
            f"Two views of the same samples have embeddings of one shape, got {_sizes(x)} and {_sizes(y)}."
        )
    return float((x - y).norm(dim=1).pow(alpha).mean())


def cluster_entropy(assignments: Embeddings, clusters: int) -> float:
    """Entropy of how many samples each cluster holds, as a share of its largest value, log(clusters).

    1 where all clusters hold as many, 0 where one holds them all.

    Args:
        assignments: (N,), a cluster 0..clusters-1 for each sample.
        clusters: Their number, at least 2.

    Raises:
        InputError: An assignment is out of range, or there are fewer than 2 clusters or no samples.
    """
    share = _cluster_sizes(assignments, clusters).double()
    return float(torch.special.entr(share / share.sum()).sum()) / log(clusters)


def representation_health(z: Embeddings, z_other: Embeddings | None = None) -> dict[str, float]:
    """Measure embeddings (N, D) of at least 2 samples.

    Args:
        z: Of the encoder or of a projector.
        z_other: Of other views of the same samples, in the same order.

    Returns:
        ``std``, ``effective_rank``, ``uniformity``, and with another view ``alignment``; see the functions of
        these names.
    """
    health = {"std": std_per_dimension(z), "effective_rank": effective_rank(z), "uniformity": uniformity(z)}
    return health if z_other is None else health | {"alignment": alignment(z, z_other)}


def collapse(
    z: Embeddings,
    assignments: Embeddings | None = None,
    clusters: int | None = None,
    *,
    centre: bool = False,
    least_spread: float = 0.01,
    least_rank: float = 0.01,
    least_entropy: float = 0.3,
) -> str | None:
    """Say whether a representation has collapsed, how, and what to try; None where it has not.

    Args:
        z: Embeddings (N, D).
        assignments: (N,), the cluster of each sample, for a method that has clusters.
        clusters: Their number.
        centre: Measure the rank without what all embeddings share. Pooled features of rectified units share most of
            their length, whatever the image; then ``least_spread`` should be smaller too.
        least_spread: Least standard deviation per dimension, as a share of the healthy 1/sqrt(D); images that are
            much alike, as brain scans are, may start at a few hundredths.
        least_rank: Least effective rank, as a share of the possible min(N, D); N - 1 where they are centred.
        least_entropy: Least entropy of the clusters, see ``cluster_entropy``.
    """
    z = as_embeddings(z)
    n, dimensions = z.shape
    std, healthy = std_per_dimension(z), dimensions**-0.5
    if std < least_spread * healthy:
        return (
            f"Collapse to a constant output: the standard deviation per dimension is {std:.2g}, a healthy one about "
            f"{healthy:.2g}; all images get almost the same embedding. Try a lower learning rate; check that the "
            "images differ, and that what keeps samples apart (negatives, stop-gradient, centring, redundancy) is on."
        )
    rank = effective_rank(z - z.mean(0) if centre else z)
    possible = min(n - 1 if centre else n, dimensions)  # two points without their mean lie on a line, whatever they are
    if possible > 1 and rank < max(_FEWEST_DIMENSIONS, least_rank * possible):
        return (
            f"Collapse to few dimensions: the effective rank is {rank:.1f} of at most {possible}. Try a "
            "larger weight of what decorrelates features, stronger or more varied augmentation, a larger batch, or a "
            "projector with another layer."
        )
    if assignments is not None and clusters is not None:
        entropy = cluster_entropy(assignments, clusters)
        if entropy < least_entropy:
            empty = int((_cluster_sizes(assignments, clusters) == 0).sum())
            return (
                f"Collapse of the clusters: {empty} of {clusters} are empty, and the entropy of their sizes is "
                f"{entropy:.2f} of 1. Try fewer clusters, batches drawn uniformly over the clusters, whitened "
                "features, and a new centroid for each empty cluster."
            )
    return None


def _directions(z: Embeddings, what: str = "The embeddings") -> Tensor:
    """Normalise each row of (N, D) to length 1, in float64."""
    return F.normalize(as_embeddings(z, what).double(), dim=1)


def _cluster_sizes(assignments: Embeddings, clusters: int) -> Tensor:
    """Count the samples of each cluster, (clusters,)."""
    indices = torch.as_tensor(assignments).flatten()
    if clusters < 2 or not len(indices) or not 0 <= int(indices.min()) <= int(indices.max()) < clusters:
        held = f"{int(indices.min())} to {int(indices.max())}" if len(indices) else "none"
        raise InputError(f"Assignments to {clusters} clusters must be 0 to {clusters - 1}, 2 or more, got {held}.")
    return torch.bincount(indices, minlength=clusters)


def _sizes(z: Tensor) -> str:
    return "x".join(map(str, z.shape))
