"""Pictures of what a method makes of a video's sound: over time, some moments, and what it finds alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from medssl.evaluation.clips import spread
from medssl.evaluation.retrieval import nearest_neighbours
from medssl.listening.moments import Moments, Record
from medssl.report.figures import arm_color, save
from medssl.tracking import hashed

_QUERIES, _FOUND = 5, 6
_NEAR_S = 0.5
_OWN, _OTHER = "#00C48C", "#cccccc"
_SOUND, _EDGE = "magma", "#555555"
_GRID = {"color": "#dddddd", "linewidth": 0.6}


def correspondence_picture(moments: Moments, path: Path) -> None:
    """Draw over time how probable it is that the sound is the picture's, and how loud it is."""
    figure = Figure(figsize=(11, 4.6), facecolor="white", layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    known = np.isfinite(moments.other_odds)
    with np.errstate(over="ignore"):
        other = 1 / (1 + np.exp(-moments.other_odds[known]))
    times = moments.times_s
    above.plot(times[known], other, ".", color=arm_color(7), alpha=0.45, label="with the sound of an earlier moment")
    above.plot(times, moments.probability, color=arm_color(0), marker=".", label="with its own sound")
    above.axhline(0.5, color="black", linewidth=0.8)
    above.set_ylim(-0.03, 1.03)
    above.set_ylabel("probability that\nthey belong together")
    above.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize=9)
    below.plot(times, moments.loudness_db, color=arm_color(1))
    below.set_ylabel("loudness, dB\nof full range")
    below.set_xlabel("time, s")
    for axes in (above, below):
        axes.grid(**_GRID)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    save(figure, path)


class Tile(NamedTuple):
    """A picture (H, W) or (H, W, 3) of a grid, its caption, and the caption's colour."""

    picture: NDArray[Any]
    caption: str
    color: str = "white"


def tiles_picture(rows: Sequence[Sequence[Tile]], path: Path, title: str = "") -> None:
    """Draw rows of as many pictures on black; a spectrogram (H, W) is square."""
    columns = len(rows[0])
    figure = Figure(figsize=(1.9 * columns, 2.15 * len(rows) + 0.4), facecolor="black", layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for line, places in zip(rows, grid, strict=True):
        for tile, axes in zip(line, places, strict=True):
            height, width = tile.picture.shape[:2]
            axes.imshow(tile.picture, cmap=_SOUND, vmin=0, vmax=255, aspect="auto")
            axes.set_box_aspect(1 if tile.picture.ndim == 2 else height / width)
            axes.set_title(tile.caption, color=tile.color, fontsize=8.5, pad=3)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_color(_EDGE)  # silence is black, too
    if title:
        figure.suptitle(title, color="white", fontsize=11)
    save(figure, path)


@dataclass(frozen=True)
class Gallery:
    """Moments of one or more videos, each with its thumbnails and embeddings, to look for what is alike.

    Args:
        image: Embeddings of the pictures, (m, D).
        sound: Of the sounds, (m, D).
        frames: (h, w, 3) each.
        spectrograms: (F, T) each, low frequencies first, 0 to 255.
        videos: Of which video each is.
        times_s: When each is shown, (m,).
    """

    image: NDArray[np.float32]
    sound: NDArray[np.float32]
    frames: Sequence[NDArray[np.uint8]]
    spectrograms: Sequence[NDArray[np.uint8]]
    videos: Sequence[str]
    times_s: NDArray[np.float64]

    def __len__(self) -> int:
        """Count the moments."""
        return len(self.times_s)

    @classmethod
    def of(cls, records: Mapping[str, Record], most: int = 1000) -> "Gallery":
        """Join the thumbnails of videos, at most so many in all, evenly apart in each."""
        share = max(most // len(records), 1)
        parts = [
            cls(
                moments.image[places],
                moments.sound[places],
                [record.frames[place] for place in kept],
                [record.spectrograms[place] for place in kept],
                [name] * len(kept),
                moments.times_s[places],
            )
            for name, record in records.items()
            for moments, kept in [(record.moments(), spread(len(record.places), share))]
            for places in [np.array(record.places)[kept]]
        ]
        return cls(
            np.concatenate([part.image for part in parts]),
            np.concatenate([part.sound for part in parts]),
            [frame for part in parts for frame in part.frames],
            [spectrogram for part in parts for spectrogram in part.spectrograms],
            [video for part in parts for video in part.videos],
            np.concatenate([part.times_s for part in parts]),
        )

    def own_rank(self) -> NDArray[np.int64]:
        """Where among all sounds, by their likeness to its picture, each moment's own is, (m,): 1 is the first."""
        likeness = self.image @ self.sound.T
        return np.asarray((likeness > np.diagonal(likeness)[:, None]).sum(1) + 1)

    def draw(self, folder: Path) -> list[Path]:
        """Draw some frames with the sounds most alike, and some sounds with the frames most alike."""
        heard = [spectrogram[::-1] for spectrogram in self.spectrograms]  # low frequencies below
        paths = [folder / "sounds_for_frames.png", folder / "frames_for_sounds.png"]
        self._draw(self.image, self.frames, self.sound, heard, paths[0], "a frame, and the sounds most alike")
        self._draw(self.sound, heard, self.image, self.frames, paths[1], "a sound, and the frames most alike")
        return paths

    def _draw(
        self,
        queries: NDArray[np.float32],
        asked: Sequence[NDArray[np.uint8]],
        gallery: NDArray[np.float32],
        offered: Sequence[NDArray[np.uint8]],
        path: Path,
        title: str,
    ) -> None:
        places = spread(len(self), _QUERIES)
        found = nearest_neighbours(queries[places], gallery, min(_FOUND, len(self)))
        rows = []
        for query, items, likeness in zip(places, found.indices, found.similarity, strict=True):
            tiles = [Tile(asked[query], self._caption(query))]
            for item, alike in zip(items, likeness, strict=True):
                color = _OWN if self._is_near(query, item) else _OTHER
                tiles.append(Tile(offered[item], f"{alike:.2f}: {self._caption(item)}", color))
            rows.append(tiles)
        tiles_picture(rows, path, f"{title} (green: within {_NEAR_S:g} s of it)")

    def _caption(self, place: int) -> str:
        when = f"{self.times_s[place]:.1f} s"
        return when if len(set(self.videos)) == 1 else f"{hashed(self.videos[place])} {when}"  # pictures are tracked

    def _is_near(self, a: int, b: int) -> bool:
        return self.videos[a] == self.videos[b] and abs(float(self.times_s[a] - self.times_s[b])) <= _NEAR_S
