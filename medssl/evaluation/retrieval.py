"""Which images a representation holds for alike: nearest neighbours by cosine similarity, and how many are rightly so.

nDCG after Järvelin & Kekäläinen, "Cumulated gain-based evaluation of IR techniques", TOIS 2002; recall@k as image
retrieval has it (Jégou, Douze, Schmid, "Product quantization for nearest neighbor search", TPAMI 2011): the share of
queries that find something relevant among their k nearest.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional as F

from medssl.errors import InputError
from medssl.evaluation.health import Embeddings, as_embeddings

_BLOCK = 1024  # queries whose similarities to the whole gallery are held at once


class Neighbours(NamedTuple):
    """Each query's nearest items, nearest first: ``indices`` into the gallery, cosine ``similarity``, both (Q, k)."""

    indices: NDArray[np.int64]
    similarity: NDArray[np.float64]


class Retrieval(NamedTuple):
    """Neighbours and how good they are.

    ``relevant`` (Q, k) says which neighbours have the query's label; ``recall`` and ``ndcg`` are means over the
    ``scored`` queries, those for which the gallery holds something relevant, and NaN where there is none.
    """

    neighbours: Neighbours
    relevant: NDArray[np.bool_]
    recall: float
    ndcg: float
    scored: int


def nearest_neighbours(
    queries: Embeddings,
    gallery: Embeddings | None = None,
    k: int = 10,
    *,
    subjects: ArrayLike | None = None,
    gallery_subjects: ArrayLike | None = None,
) -> Neighbours:
    """Find the k items of the gallery with the largest cosine similarity to each query.

    Args:
        queries: Embeddings (Q, D).
        gallery: Embeddings (G, D); None looks among the queries themselves, of which none finds itself.
        k: How many.
        subjects: (Q,), whose the queries are; given, items of the query's own subject are left out.
        gallery_subjects: (G,), the same of the gallery; not needed without a gallery.

    Raises:
        InputError: Embeddings hold NaN, sizes do not fit together, or a query has fewer than k items to find.
    """
    allowed = _Allowed.of(queries, gallery, subjects, gallery_subjects)
    q = F.normalize(as_embeddings(queries, "The embeddings of the queries"), dim=1)
    g = q if gallery is None else F.normalize(as_embeddings(gallery, "The embeddings of the gallery").to(q), dim=1)
    if q.shape[1] != g.shape[1]:
        raise InputError(f"Queries of {q.shape[1]} dimensions cannot be compared with a gallery of {g.shape[1]}.")
    found = []
    for start in range(0, len(q), _BLOCK):
        rows = slice(start, start + _BLOCK)
        mask = allowed.mask(rows)
        fewest = int(mask.sum(1).min())
        if not 1 <= k <= fewest:
            raise InputError(
                f"k={k} neighbours were asked for, but a query has {fewest} items of the gallery to find (itself and, "
                "where subjects are given, its own subject's are left out). Choose a smaller k or a larger gallery."
            )
        similarity = (q[rows] @ g.T).masked_fill(~torch.from_numpy(mask).to(q.device), -torch.inf)
        found.append(similarity.topk(k, dim=1))
    return Neighbours(
        torch.cat([block.indices for block in found]).numpy(force=True),
        torch.cat([block.values for block in found]).double().numpy(force=True),
    )


def retrieve(
    queries: Embeddings,
    labels: ArrayLike,
    gallery: Embeddings | None = None,
    gallery_labels: ArrayLike | None = None,
    k: int = 10,
    *,
    subjects: ArrayLike | None = None,
    gallery_subjects: ArrayLike | None = None,
) -> Retrieval:
    """Find each query's neighbours (see ``nearest_neighbours``) and score them: relevant is what has its label.

    Args:
        queries: Embeddings (Q, D).
        labels: (Q,), integers or names.
        gallery: Embeddings (G, D); None looks among the queries themselves.
        gallery_labels: (G,), needed with a gallery.
        k: How many neighbours are found and scored.
        subjects: (Q,), whose the queries are; given, items of the query's own subject are left out.
        gallery_subjects: (G,).

    Raises:
        InputError: See ``nearest_neighbours``; or labels are missing.
    """
    neighbours = nearest_neighbours(queries, gallery, k, subjects=subjects, gallery_subjects=gallery_subjects)
    allowed = _Allowed.of(queries, gallery, subjects, gallery_subjects)
    of_query, of_item = _codes("labels", labels, gallery_labels, len(queries), gallery)
    relevant = of_query[:, None] == of_item[neighbours.indices]
    blocks = (slice(start, start + _BLOCK) for start in range(0, len(of_query), _BLOCK))
    possible = np.concatenate([(allowed.mask(rows) & (of_query[rows, None] == of_item)).sum(1) for rows in blocks])
    scored = int((possible > 0).sum())
    return Retrieval(neighbours, relevant, recall_at_k(relevant, possible), ndcg_at_k(relevant, possible), scored)


def recall_at_k(relevant: NDArray[np.bool_], possible: NDArray[np.integer[Any]]) -> float:
    """Share of the queries that find something relevant, among those for which there is something; else NaN.

    Args:
        relevant: (Q, k), which neighbours are relevant, nearest first.
        possible: (Q,), how many relevant items the gallery holds for each query.
    """
    scored = possible > 0
    return float(relevant[scored].any(1).mean()) if scored.any() else float("nan")


def ndcg_at_k(relevant: NDArray[np.bool_], possible: NDArray[np.integer[Any]]) -> float:
    """Discounted cumulative gain, sum of 1 / log2(1 + rank) of relevant neighbours, as a share of the best possible.

    The mean over the queries for which the gallery holds something relevant; NaN where there is none. See
    ``recall_at_k`` for the arguments.
    """
    discount = 1 / np.log2(np.arange(2, relevant.shape[1] + 2))  # (k,)
    best = np.concatenate([[0.0], discount.cumsum()])[np.minimum(possible, len(discount))]
    scored = possible > 0
    return float(((relevant @ discount)[scored] / best[scored]).mean()) if scored.any() else float("nan")


class _Allowed(NamedTuple):
    """Who owns each query (Q,) and each item (G,): a query finds only what others own."""

    of_query: NDArray[np.int64]
    of_item: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        queries: Embeddings,
        gallery: Embeddings | None,
        subjects: ArrayLike | None,
        gallery_subjects: ArrayLike | None,
    ) -> "_Allowed":
        if subjects is not None:
            return cls(*_codes("subjects", subjects, gallery_subjects, len(queries), gallery))
        itself = np.arange(len(queries))
        return cls(itself, itself) if gallery is None else cls(itself, np.full(len(gallery), -1))

    def mask(self, rows: slice) -> NDArray[np.bool_]:
        """Which items (columns) some of the queries (rows) may find."""
        return np.not_equal(self.of_query[rows, None], self.of_item)


def _codes(
    what: str, of_queries: ArrayLike, of_gallery: ArrayLike | None, queries: int, gallery: Embeddings | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number the values of queries and gallery alike, (Q,) and (G,)."""
    first = _array(of_queries)
    second = first if gallery is None else _array([] if of_gallery is None else of_gallery)
    items = queries if gallery is None else len(gallery)
    if len(first) != queries or len(second) != items:
        raise InputError(
            f"{queries} queries and a gallery of {items} need as many {what}, got {len(first)} and {len(second)}."
        )
    codes = np.unique(np.concatenate([first, second]), return_inverse=True)[1]
    return codes[:queries], codes[queries:]


def _array(values: ArrayLike) -> NDArray[Any]:
    return values.numpy(force=True) if isinstance(values, Tensor) else np.asarray(values)
