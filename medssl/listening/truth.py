"""What a made-up video knows of its sound: what is where, and how loud, at each time."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medssl.errors import InputError
from medssl.evaluation.audio_visual import Localisation, discs, localisation
from medssl.listening.moments import Moments

_COLUMNS = ("frame", "time", "object", "kind", "sounding", "x", "y", "radius", "loudness")
_HEARD = 0.1  # loudness, of 1, from which on a thing counts as heard
_BLOCK = 64  # moments whose masks are held at once
SILENT = "silence"
"""The kind of a moment in which nothing sounds."""


def read_truth(path: Path) -> pd.DataFrame:
    """Read a table of things: a row for each frame and thing, see ``sample_data.make_sounding``.

    Raises:
        InputError: There is no such file, or it is no such table.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a table of what sounds, with {', '.join(_COLUMNS)}.")
    try:
        table = pd.read_csv(path)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a table ({error}).") from error
    if missing := [name for name in _COLUMNS if name not in table]:
        raise InputError(
            f"{path}: has no column {', '.join(missing)}; expected is a row for each frame and thing, with "
            f"{', '.join(_COLUMNS)}, as sample_data.make_sounding writes it."
        )
    return table


def heard_things(table: pd.DataFrame, times_s: Sequence[float] | NDArray[np.float64], seconds: float) -> pd.DataFrame:
    """Tell of moments where each thing is and how loud it is in the sound around it.

    Args:
        table: See ``read_truth``.
        times_s: (n,), of the moments.
        seconds: How much sound is heard with a picture.

    Returns:
        A row for each moment and thing: ``moment``, ``kind``, ``x``, ``y``, ``radius``, ``loudness``, which is the mean
        over the sound that is heard, and ``heard``.
    """
    frames = table["time"].drop_duplicates().to_numpy()
    rows = []
    for moment, time_s in enumerate(np.asarray(times_s)):
        around = table[(table["time"] - time_s).abs() <= seconds / 2]
        loudness = around.assign(loudness=around["loudness"] * around["sounding"]).groupby("object")["loudness"]
        nearest = table[table["time"] == frames[np.abs(frames - time_s).argmin()]].set_index("object")
        one = nearest[["kind", "x", "y", "radius"]].assign(
            moment=moment, loudness=loudness.mean(), heard=loudness.max() >= _HEARD
        )
        rows.append(one.reset_index())
    things = pd.concat(rows, ignore_index=True)
    return things.assign(loudness=things["loudness"].fillna(0.0), heard=things["heard"].eq(True))


def kinds_of(things: pd.DataFrame, count: int) -> NDArray[np.str_]:
    """What is loudest at each of ``count`` moments, by its kind; ``SILENT`` where nothing is heard."""
    heard = things[things["heard"]]
    loudest = heard.loc[heard.groupby("moment")["loudness"].idxmax()].set_index("moment")["kind"]
    return np.array([loudest.get(moment, SILENT) for moment in range(count)], dtype=np.str_)


def located(moments: Moments, things: pd.DataFrame, size: tuple[int, int]) -> Localisation | None:
    """Score the heat by where the things are that are heard.

    Args:
        moments: Of the video.
        things: See ``heard_things``.
        size: Height and width of the pictures that the things' places are in, pixels.

    Returns:
        ``None`` where nothing is ever heard.
    """
    parts, hits = [], np.full(len(moments), np.nan)
    for first in range(0, len(moments), _BLOCK):
        block = slice(first, first + _BLOCK)
        some = things[things["heard"] & things["moment"].between(first, first + _BLOCK - 1)]
        if len(some):
            masks = np.zeros((len(moments.heat[block]), *size), dtype=bool)
            for moment, disc in zip(some["moment"], discs(some["x"], some["y"], some["radius"], size), strict=True):
                masks[moment - first] |= disc
            parts.append(localisation(moments.heat[block], masks))
            hits[block] = parts[-1].hits
    return joined(parts)._replace(hits=hits) if parts else None


def joined(parts: Sequence[Localisation]) -> Localisation:
    """Join what was scored apart, at least one part; every frame counts alike."""
    counts = np.array([part.n for part in parts])
    hit_rate, centre, chance = (
        float(np.average([getattr(part, name) for part in parts], weights=counts))
        for name in ("hit_rate", "centre", "chance")
    )
    return Localisation(np.concatenate([part.hits for part in parts]), hit_rate, centre, chance, int(counts.sum()))
