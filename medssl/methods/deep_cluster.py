"""DeepCluster: group the images by their features, learn to tell the groups, and group them anew.

Caron, Bojanowski, Joulin, Douze, "Deep Clustering for Unsupervised Learning of Visual Features", ECCV 2018,
https://arxiv.org/abs/1807.05520, section 3. Version 2, where the centroids themselves are the classifier, is from
Caron, Misra, Mairal, Goyal, Bojanowski, Joulin, "Unsupervised Learning of Visual Features by Contrasting Cluster
Assignments", NeurIPS 2020, https://arxiv.org/abs/2006.09882, appendix.
"""

import math
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from medssl.distributed import gather
from medssl.errors import InputError
from medssl.method import Method
from medssl.networks.encoder import Encoder
from medssl.networks.heads import accuracy, pooled, projector
from medssl.sample import Batch, require
from medssl.views import Views

_SAMPLES_PER_CLUSTER, _MOST_CLUSTERS = 20, 1000  # where k is not given
_RESIZED = ("numbers", "assignments", "sizes", "centroids", "mean", "whitening")  # buffers as large as the clustering
_ROWS = 4096  # that k-means compares with all centroids at once


class DeepCluster(Method):
    """Predict which cluster of the epoch's samples a view of a sample is from.

    Before each epoch the samples are clustered by their features without augmentation. Small clusters count as much
    as large ones, so that putting everything into one cluster does not pay (section 3.3). An optimizer that keeps
    moments keeps those of the last epoch's classifier for its first steps.

    Args:
        encoder: The network to pretrain, for 2D or 3D images. The paper's sees edges: built with ``sobel``.
        k: Number of clusters, about ten times the classes that are expected; None is one per 20 samples of the epoch,
            at least 2 and at most 1000. An epoch of fewer samples has one cluster per sample.
        version: 1 clusters whitened features and trains a linear classifier, drawn anew each epoch, on one view. 2
            clusters the directions of embeddings and compares those of two views with the centroids.
        components: Version 1: principal components that are kept, fewer where there are fewer channels or samples.
        hidden: Version 2: width of the projector's hidden layer.
        width: Version 2: width of the embeddings.
        temperature: Version 2: of the comparison with the centroids.
        iterations: Of k-means.
        views: How the views that are trained on vary.
    """

    numbers: Tensor  # (N,) of the epoch's samples, rising
    assignments: Tensor  # (N,) their clusters
    sizes: Tensor  # (k,) samples per cluster
    centroids: Tensor  # (k, d)
    mean: Tensor  # (D,) of the features
    whitening: Tensor  # (D, d) from features to what is clustered
    clusterings: Tensor  # how many there were
    nmi: Tensor  # between the last clustering and the one before

    def __init__(
        self,
        encoder: Encoder,
        k: int | None = None,
        version: Literal[1, 2] = 1,
        components: int = 256,
        hidden: int = 2048,
        width: int = 128,
        temperature: float = 0.1,
        iterations: int = 20,
        views: Views = Views(),
    ) -> None:
        super().__init__()
        if k is not None and k < 2:
            raise InputError(f"DeepCluster tells clusters apart: k must be at least 2, got {k}.")
        self.encoder = encoder
        self.k, self.version, self.components = k, version, components
        self.temperature, self.iterations, self.views = temperature, iterations, views
        channels = encoder.channels[-1]
        self.classifier = nn.Linear(channels, _MOST_CLUSTERS if k is None else k) if version == 1 else None
        self.projector = projector([channels, hidden, width]) if version == 2 else None
        for name in ("numbers", "assignments", "sizes"):
            self.register_buffer(name, torch.zeros(0, dtype=torch.long))
        self.register_buffer("centroids", torch.zeros(0, 0))
        self.register_buffer("mean", torch.zeros(0))
        self.register_buffer("whitening", torch.zeros(0, 0))
        self.register_buffer("clusterings", torch.zeros((), dtype=torch.long))
        self.register_buffer("nmi", torch.tensor(torch.nan))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of the clusters, each with the same weight, of a batch, which needs image, seed and number.

        In evaluation, where the samples are no part of the clustering, their clusters are the nearest.
        """
        require(batch, "image", "seed", "number")
        count = 1 if self.version == 1 else 2  # views per image
        found = self.clusters_of(batch["number"]) if self.training else self.nearest_clusters(batch["image"])
        cluster = found.repeat_interleave(count)  # (B count,)
        views = self.views(batch["image"], batch["seed"], count).flatten(0, 1)  # (B count, C, *spatial)
        logits = self.logits(self.features(views))  # (B count, k)
        used = (self.sizes > 0).sum()
        # As if samples were drawn uniformly over the clusters; in evaluation one can fall into an empty cluster.
        weight = len(self.numbers) / (used * self.sizes[cluster].clamp(min=1))
        cost = F.cross_entropy(logits, cluster, reduction="none")
        return {"loss": (weight * cost).mean(), "accuracy": accuracy(logits, cluster)}

    def features(self, image: Tensor) -> Tensor:
        """Turn (B, C, *spatial) into what is clustered but for whitening: (B, D) in float32."""
        x = pooled(self.encoder(image))
        return (x if self.projector is None else self.projector(x)).float()

    def logits(self, features: Tensor) -> Tensor:
        """Compare features (B, D) with the clusters; (B, k)."""
        if self.classifier is None:
            with torch.autocast(features.device.type, enabled=False):  # 1 / tau would enlarge the rounding of bf16
                return F.normalize(features, dim=1) @ self.centroids.T / self.temperature
        logits: Tensor = self.classifier(features)
        return logits[:, : len(self.sizes)]

    def clusters_of(self, number: Tensor) -> Tensor:
        """Look up the clusters of the samples ``number`` (B,)."""
        unknown = ~torch.isin(number, self.numbers)
        if unknown.any():
            raise InputError(
                f"DeepCluster: samples {number[unknown].tolist()} are in no cluster. Call start_epoch with the epoch's "
                "batches before training on them."
            )
        return self.assignments[torch.searchsorted(self.numbers, number)]

    @torch.no_grad()
    def nearest_clusters(self, image: Tensor) -> Tensor:
        """Find the clusters that images (B, C, *spatial) are nearest to; (B,)."""
        if self.clusterings == 0:
            raise InputError("DeepCluster: there are no clusters yet. Call start_epoch with an epoch's batches first.")
        features = self.features(image)
        with torch.autocast(features.device.type, enabled=False):
            return self._nearest(features)

    @torch.no_grad()
    def start_epoch(self, batches: Iterable[Batch]) -> None:
        """Cluster the coming epoch's samples, those of all processes together, and draw a new classifier."""
        numbers, features = self._of_all(batches)  # (N,), (N, D)
        with torch.autocast(features.device.type, enabled=False):
            self._cluster(numbers, features)
        if self.classifier is not None:
            drawn = 0.01 * torch.randn(self.classifier.weight.shape, generator=self._draw())
            self.classifier.weight.copy_(drawn)
            self.classifier.bias.zero_()
        self.clusterings += 1

    def _of_all(self, batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
        """Compute the features of all processes' samples as in evaluation, in order of the samples' numbers."""
        training = self.training
        self.eval()
        found = [(batch["number"], self.features(batch["image"])) for batch in batches]
        self.train(training)
        numbers, order = gather(torch.cat([number for number, _ in found])).sort()
        return numbers, gather(torch.cat([rows for _, rows in found]))[order]

    def _cluster(self, numbers: Tensor, features: Tensor) -> None:
        k = self._clusters(len(numbers))
        before = self._nearest(features) if self.clusterings > 0 else None
        if self.version == 1:
            self.mean, self.whitening = (of_first(x) for x in whitening(features, self.components))
        else:
            self.mean = torch.zeros_like(features[0])
            self.whitening = torch.eye(features.shape[1], device=features.device)
        rows = self._rows(features)
        draw = self._draw()
        start = spread_rows(rows, k, draw)
        self.centroids = of_first(k_means(rows, start, draw, self.iterations, spherical=self.version == 2))
        self.numbers, self.assignments = numbers, of_first(self._nearest(features))
        self.sizes = self.assignments.bincount(minlength=k)
        if before is not None:
            self.nmi.copy_(normalised_mutual_information(before, self.assignments))

    def _clusters(self, samples: int) -> int:
        if samples < 2:
            raise InputError(f"DeepCluster groups samples: an epoch needs at least 2, got {samples}.")
        k = self.k or min(max(samples // _SAMPLES_PER_CLUSTER, 2), _MOST_CLUSTERS)
        if k > samples:
            warnings.warn(
                f"An epoch of {samples} samples has {samples} clusters, not {k}: make epochs longer, or k smaller.",
                stacklevel=2,
            )
        return min(k, samples)

    def _rows(self, features: Tensor) -> Tensor:
        return F.normalize((features - self.mean) @ self.whitening, dim=1)

    def _nearest(self, features: Tensor) -> Tensor:
        return nearest(self._rows(features), self.centroids)

    def _draw(self) -> Generator:
        return Generator().manual_seed(int(self.clusterings))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Make room for a clustering of any size, then load it."""
        for name in _RESIZED:
            if prefix + name in state_dict:
                saved = state_dict[prefix + name]
                setattr(self, name, torch.empty_like(saved, device=self.clusterings.device))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def check(self, images: int, channels: int, patch_size: Sequence[int]) -> None:
        """Refuse more clusters than images."""
        k = self.k or 2
        if k > images:
            raise InputError(
                f"DeepCluster groups images: k={k} clusters need at least {k} images, got {images}. "
                "Choose a smaller k (about ten times the expected classes), or add images."
            )

    def show(self, batch: Batch) -> dict[str, Tensor]:
        """Give each image, which is clustered, and a view of it, which is trained on."""
        return {"image": batch["image"], "view": self.views(batch["image"], batch["seed"], 1)[:, 0]}

    def clusters(self) -> tuple[Tensor, int] | None:
        """Give the assignments and k, once there are some."""
        return None if self.clusterings == 0 else (self.assignments, len(self.sizes))

    def state_scores(self) -> dict[str, float]:
        """Describe the clustering; nothing before the first.

        ``clusters/count``, ``clusters/empty``, ``clusters/smallest`` and ``clusters/largest`` are numbers;
        ``clusters/entropy`` is of the sizes, 1 when all are alike, 0 when one holds all; ``clusters/nmi``, from the
        second on, says how far the clustering before agrees. Samples of different epochs are different crops, so both
        clusterings' centroids, the old with its whitening, group the same new features.
        """
        if self.clusterings == 0:
            return {}
        sizes = self.sizes
        scores = {
            "clusters/count": float(len(sizes)),
            "clusters/empty": float((sizes == 0).sum()),
            "clusters/smallest": float(sizes.min()),
            "clusters/largest": float(sizes.max()),
            "clusters/entropy": float(entropy(sizes)) / math.log(len(sizes)),
        }
        if self.clusterings > 1:
            scores["clusters/nmi"] = float(self.nmi)
        return scores


def spread_rows(x: Tensor, k: int, draw: Generator) -> Tensor:
    """Draw k rows of x (N, d) far from each other; (k, d).

    Each is drawn in proportion to its squared distance to the nearest one so far: with few rows, rows drawn blindly
    often start two clusters in one group. Arthur and Vassilvitskii, "k-means++", SODA 2007.
    """
    chosen = torch.randint(len(x), (1,), generator=draw)
    distance = torch.full((len(x),), torch.inf, device=x.device)
    rows = [x[chosen]]
    for _ in range(k - 1):
        distance = torch.minimum(distance, (x - rows[-1]).square().sum(1))
        chosen = torch.multinomial(distance.clamp(min=1e-12).cpu(), 1, generator=draw)  # equal rows can be drawn too
        rows.append(x[chosen])
    return torch.cat(rows)


def k_means(x: Tensor, start: Tensor, draw: Generator, iterations: int = 20, spherical: bool = False) -> Tensor:
    """Move centroids (k, d) to the means of the rows of x (N, d) that are nearest to each, again and again.

    An empty cluster gets the centroid of a random cluster of several rows with a small random change, so that the two
    share its rows (section 3.3).

    Args:
        x: (N, d) with N >= k, of length about 1.
        start: The first centroids (k, d).
        draw: What is drawn; the same rows and generator give the same centroids.
        iterations: Of assigning and averaging.
        spherical: Keep the centroids on the unit sphere.
    """
    centroids, k = start, len(start)
    clusters = torch.arange(k, device=x.device)
    for _ in range(iterations):
        sums, sizes = torch.zeros_like(centroids), torch.zeros_like(centroids[:, 0])
        for rows in x.split(_ROWS):
            # A product adds in the same order each time; scattered sums on a GPU do not.
            member = (nearest(rows, centroids).unsqueeze(1) == clusters).to(x.dtype)  # (rows, k)
            sums += member.T @ rows
            sizes += member.sum(0)
        centroids = sums / sizes.clamp(min=1).unsqueeze(1)
        empty = (sizes == 0).nonzero().flatten()
        if len(empty) > 0:
            donors = torch.multinomial((sizes - 1).clamp(min=0).cpu(), len(empty), replacement=True, generator=draw)
            change = 1e-3 * torch.randn(len(empty), x.shape[1], generator=draw)
            centroids[empty] = centroids[donors.to(x.device)] + change.to(x)
        if spherical:
            centroids = F.normalize(centroids, dim=1)
    return centroids


def nearest(x: Tensor, centroids: Tensor) -> Tensor:
    """Give the number of the centroid (k, d) nearest to each row of x (N, d); (N,)."""
    # |x - c|^2 is smallest where x.c - |c|^2 / 2 is largest.
    half = centroids.square().sum(1) / 2
    return torch.cat([(rows @ centroids.T - half).argmax(1) for rows in x.split(_ROWS)])


def whitening(x: Tensor, components: int) -> tuple[Tensor, Tensor]:
    """Find the principal components of the rows of x (N, D), each scaled to variance 1.

    Returns:
        The mean (D,) and a matrix (D, d) with d = min(components, D, N - 1): ``(x - mean) @ matrix`` is white.
    """
    mean = x.mean(0)
    centred = x - mean
    covariance = (centred.T @ centred / len(x)).cpu().double()
    values, vectors = torch.linalg.eigh(covariance)  # rising
    d = min(components, x.shape[1], len(x) - 1)
    values, vectors = values[-d:], vectors[:, -d:]
    floor = (1e-6 * values[-1]).clamp(min=1e-12)  # below it there is rounding only, which must not be enlarged
    return mean, (vectors / values.clamp(min=floor).sqrt()).to(x)


def normalised_mutual_information(a: Tensor, b: Tensor) -> Tensor:
    """Give ``I(A; B) / sqrt(H(A) H(B))`` of two groupings (N,) of the same samples (section 4.1): 1 if they agree."""
    width = int(b.max()) + 1
    joint = (a * width + b).bincount(minlength=(int(a.max()) + 1) * width).view(-1, width)
    h_a, h_b, h_ab = entropy(joint.sum(1)), entropy(joint.sum(0)), entropy(joint.flatten())
    if h_a == 0 or h_b == 0:
        return (h_a == h_b).to(h_a)
    information: Tensor = h_a + h_b - h_ab
    return information / (h_a * h_b).sqrt()


def entropy(sizes: Tensor) -> Tensor:
    """Give the entropy, in nats and float64, of shares in proportion to ``sizes`` (k,)."""
    p = sizes.cpu().double() / sizes.sum().item()
    total: Tensor = torch.special.entr(p).sum()
    return total


def of_first(x: Tensor) -> Tensor:
    """Take the first process's copy of what all computed alike, as different devices may round differently."""
    return gather(x)[: len(x)]
