"""Whether sound and sight are known to belong together, where a sound comes from, and what is alike across the two.

Correspondence as in Arandjelović & Zisserman, "Look, Listen and Learn", ICCV 2017, https://arxiv.org/abs/1705.08168;
localisation by the maximum of a heat map, and nDCG@30 within and across modalities, as in their "Objects that Sound",
ECCV 2018, https://arxiv.org/abs/1712.06651. Each stands beside what it has to beat: one half, the middle of the
picture, a random order.
"""

from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medssl.errors import InputError
from medssl.evaluation.health import Embeddings
from medssl.evaluation.retrieval import retrieve

Floats = NDArray[np.float64]
Masks = NDArray[np.bool_]

MODALITIES = ("image", "audio")


class Correspondence(NamedTuple):
    """How well pairs of picture and sound are told to be of one moment or not.

    ``accuracy`` is the mean of ``accepted``, the share of true pairs that are taken for true, and ``rejected``, the
    share of false ones that are not; chance is 0.5 for all three together and for ``ranked``, the share of samples of
    which the true pair scores higher than the false one. A score at the threshold, and a tie, is right by half.
    """

    accuracy: float
    accepted: float
    rejected: float
    ranked: float
    n: int


class Localisation(NamedTuple):
    """How often the maximum of a heat map lies on what sounds.

    ``hits`` (N,) is 1 or 0 of each frame, a share where several cells are the maximum, and NaN where nothing sounds;
    ``hit_rate`` is its mean over the ``n`` others. ``centre`` is the hit rate of the picture's middle, ``chance`` of a
    place drawn at random: the share of the picture that sounds.
    """

    hits: Floats
    hit_rate: float
    centre: float
    chance: float
    n: int


def correspondence(true_pairs: ArrayLike, false_pairs: ArrayLike, threshold: float = 0.0) -> Correspondence:
    """Score how pairs of picture and sound are told apart.

    Args:
        true_pairs: Scores (N,) of pictures with their own sound, the higher the more likely they belong together.
        false_pairs: Scores (N,) of the same pictures with another sound.
        threshold: Above it a pair is taken for true: 0 of logits, 0.5 of probabilities.

    Raises:
        InputError: There is no pair, there are not as many of both kinds, or a score is NaN.
    """
    true, false = (np.asarray(scores, dtype=np.float64) for scores in (true_pairs, false_pairs))
    if true.ndim != 1 or true.shape != false.shape or not len(true):
        raise InputError(f"True and false pairs need as many scores (N,), at least 1; got {true.shape}, {false.shape}.")
    if np.isnan(true).any() or np.isnan(false).any():
        raise InputError("Scores of pairs hold NaN: the training has diverged, or a sound holds it.")
    accepted, rejected, ranked = _above(true, threshold), _above(threshold, false), _above(true, false)
    return Correspondence((accepted + rejected) / 2, accepted, rejected, ranked, len(true))


def localisation(heat: ArrayLike, sounding: ArrayLike) -> Localisation:
    """Score where a heat map says that a sound comes from.

    Args:
        heat: (N, h, w), of any size: a cell stands for its part of the picture, and the cell's middle is its place.
        sounding: Masks (N, H, W) of what sounds; a frame without it is not scored.

    Raises:
        InputError: The two are not of as many frames, a heat map holds NaN, or nothing sounds in any frame.
    """
    heat, masks = np.asarray(heat, dtype=np.float64), np.asarray(sounding, dtype=bool)
    if heat.ndim != 3 or masks.ndim != 3 or len(heat) != len(masks) or not heat.size:
        raise InputError(f"Heat maps (N, h, w) need as many masks (N, H, W); got {heat.shape} and {masks.shape}.")
    if np.isnan(heat).any():
        raise InputError(f"{int(np.isnan(heat).any((1, 2)).sum())} of {len(heat)} heat maps hold NaN.")
    scored = masks.any((1, 2))
    if not scored.any():
        raise InputError(f"In none of the {len(masks)} frames does anything sound: there is nothing to find.")
    rows, columns = (_middles(cells, pixels) for cells, pixels in zip(heat.shape[1:], masks.shape[1:], strict=True))
    highest = heat == heat.max((1, 2), keepdims=True)
    found = (highest & masks[:, rows[:, None], columns]).sum((1, 2)) / highest.sum((1, 2))
    hits = np.where(scored, found, np.nan)
    rows, columns = (_middle(pixels) for pixels in masks.shape[1:])
    centre = float(masks[scored][:, rows[:, None], columns].mean())
    return Localisation(hits, float(found[scored].mean()), centre, float(masks[scored].mean()), int(scored.sum()))


def discs(x: ArrayLike, y: ArrayLike, radius: ArrayLike, size: tuple[int, int]) -> Masks:
    """Masks (N, *size) of the pixels within ``radius`` (N,) of places ``x``, ``y`` (N,); NaN gives an empty one."""
    x, y, radius = (np.asarray(values, dtype=np.float64)[:, None, None] for values in (x, y, radius))
    rows, columns = np.indices(size)
    return np.asarray((columns - x) ** 2 + (rows - y) ** 2 <= radius**2)


def cross_modal_ndcg(
    image: Embeddings, audio: Embeddings, kinds: ArrayLike, videos: ArrayLike, k: int = 30
) -> dict[str, float]:
    """NDCG@k of retrieval within and across modalities; relevant is what is of the query's kind.

    What is of the query's own video is left out, which would be found by its setting alone.

    Args:
        image: Embeddings (N, D) of pictures.
        audio: Embeddings (N, D) of their sounds, in the same space.
        kinds: (N,), what is to be found alike.
        videos: (N,), which recording each is of.
        k: How many neighbours are looked at.

    Returns:
        ``image-image``, ``image-audio`` (pictures look for sounds), ``audio-image``, ``audio-audio``, and ``chance``,
        what a random order has on average; NaN where no query has anything relevant.

    Raises:
        InputError: Embeddings hold NaN, sizes do not fit together, or a query has fewer than k items to find.
    """
    embeddings = dict(zip(MODALITIES, (image, audio), strict=True))
    found = {
        f"{query}-{gallery}": retrieve(
            embeddings[query], kinds, embeddings[gallery], kinds, k, subjects=videos, gallery_subjects=videos
        ).ndcg
        for query, gallery in product(MODALITIES, MODALITIES)
    }
    return found | {"chance": _chance_ndcg(np.asarray(kinds), np.asarray(videos), k)}


def _above(scores: ArrayLike, others: ArrayLike) -> float:
    """Share of scores that are above others; equal ones count half."""
    return float(np.mean(np.greater(scores, others) + 0.5 * np.equal(scores, others)))


def _middles(cells: int, pixels: int) -> NDArray[np.int64]:
    """The pixel at the middle of each of the cells that an axis is cut into."""
    return np.floor((np.arange(cells) + 0.5) * pixels / cells).astype(np.int64)


def _middle(pixels: int) -> NDArray[np.int64]:
    """The one or two pixels in the middle of an axis."""
    return np.unique([(pixels - 1) // 2, pixels // 2])


def _chance_ndcg(kinds: NDArray[Any], videos: NDArray[Any], k: int) -> float:
    """The nDCG@k that a random order has on average."""
    allowed = videos[:, None] != videos
    relevant = (allowed & (kinds[:, None] == kinds)).sum(1)
    scored = relevant > 0
    discount = 1 / np.log2(np.arange(2, k + 2))
    best = np.concatenate([[0.0], discount.cumsum()])[np.minimum(relevant, k)]
    gains = (relevant / allowed.sum(1).clip(1))[scored] * discount.sum() / best[scored]
    return float(gains.mean()) if scored.any() else float("nan")
