"""How well a method knows the sound of videos: with nothing known of them, and where it is known what sounds."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medssl.evaluation.audio_visual import Localisation, correspondence, cross_modal_ndcg
from medssl.listening.moments import Moments
from medssl.listening.pictures import Gallery
from medssl.listening.truth import SILENT, kinds_of

_NDCG_AT = 30


class Heard(NamedTuple):
    """One video: what was made of it, and, where it is known what sounds, how well.

    ``things`` is the table of ``medssl.listening.truth.heard_things``.
    """

    moments: Moments
    things: pd.DataFrame | None = None
    found: Localisation | None = None


def video_numbers(heard: Heard) -> dict[str, float]:
    """Numbers of one video, by name."""
    moments = heard.moments
    numbers = {"moments": float(len(moments)), "probability/mean": float(moments.probability.mean())}
    known = np.isfinite(moments.other_odds)
    if known.any():
        told = correspondence(moments.odds[known], moments.other_odds[known])
        numbers |= {"own_moment/accuracy": told.accuracy, "own_moment/ranked": told.ranked}
    return numbers | ({} if heard.found is None else localisation_numbers(heard.found))


def localisation_numbers(found: Localisation) -> dict[str, float]:
    """Of how many frames the hottest place sounds, beside the picture's middle and a place at random."""
    return {
        "localisation/hit_rate": found.hit_rate,
        "localisation/centre": found.centre,
        "localisation/chance": found.chance,
        "localisation/frames": float(found.n),
    }


def retrieval_numbers(gallery: Gallery) -> dict[str, float]:
    """Where each moment's own sound is among all, by its picture; half of their number by chance."""
    rank = gallery.own_rank()
    return {"retrieval/own_sound_median_rank": float(np.median(rank)), "retrieval/sounds": float(len(gallery))}


def kinds_in(gallery: Gallery, videos: Mapping[str, Heard]) -> NDArray[np.str_]:
    """What is loudest at each moment of a gallery, by its kind; ``SILENT`` where nothing is heard, or nothing known."""
    kinds = np.full(len(gallery), SILENT, dtype="<U64")
    for name, heard in videos.items():
        if heard.things is not None:
            of_video = np.array(gallery.videos) == name
            places = np.searchsorted(heard.moments.times_s, gallery.times_s[of_video])
            kinds[of_video] = kinds_of(heard.things, len(heard.moments))[places]
    return kinds


def ndcg_numbers(gallery: Gallery, kinds: NDArray[np.str_]) -> dict[str, float]:
    """NDCG@30 within and across sight and sound over moments at which something sounds; none of a single video."""
    used = kinds != SILENT
    videos = np.array(gallery.videos)[used]
    if len(set(videos)) < 2:
        return {}
    fewest = min(int((videos != video).sum()) for video in set(videos))
    found = cross_modal_ndcg(gallery.image[used], gallery.sound[used], kinds[used], videos, min(_NDCG_AT, fewest))
    return {f"ndcg/{name}": value for name, value in found.items()}


def overall(numbers: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The mean over the videos of each of their numbers (``video_numbers``), and how many there are."""
    table = pd.DataFrame(list(numbers.values()))
    means = table.drop(columns=["moments"]).mean()
    counts = {"videos": float(len(table)), "moments": float(table["moments"].sum())}
    return counts | {str(name): float(value) for name, value in means.items()}
