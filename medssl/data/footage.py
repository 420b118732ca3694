"""What a video's pictures are worth, before anything is learned from them: cuts, stills, black and overexposed frames.

Each frame is looked at once, at 64 pixels, and compared with the one before. Motion is measured by matching blocks: an
endoscope that moves forward spreads the picture, which no single shift describes, and what no block explains is a cut.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import ndimage

from medssl.data.sequence import Frames

Grey = NDArray[np.float32]
Histogram = NDArray[np.float64]

_SIDE = 64  # pixels of the longer side of what is compared
_SAMPLES = 4  # of the frame along each side of one of these pixels
_BLOCK = 8
_REACH = 5  # how far a block may move, pixels of 64
_LEAST_TEXTURE = 2.0  # grey levels, standard deviation in a block; a flatter one cannot be matched
_BLACK_LEVEL = 24  # grey level that 99 % of a black frame stay under
_WHITE_LEVEL = 245
_DARK_LEVEL = 16  # what is darker may be the border around an endoscope's view
_OVEREXPOSED = 0.5  # white share of what is not dark
_STILL_PX = 0.1  # of 64, within which a still stretch stays: 2 pixels of 1280
_STILL_FRAMES = 5
_STAYING = 0.9  # of the difference is counted where a block stays
_CHANGE = 0.6  # from which a frame may begin another scene; steady motion comes to 0.45
_GONE = 0.5  # of a change, what must stay in the next frame
_STEP = 1.5  # times the change of the calmer frame beside it; motion grows and ebbs over several frames
_CUT_OUTLIER = 6.0  # robust standard deviations above the frames around
_AROUND = 12  # frames before and after


@dataclass(frozen=True, eq=False)
class Footage:
    """What is known of each frame of a video.

    Attributes:
        times: When it is shown, (N,), seconds.
        motion: Mean length of the blocks' motion since the frame before, (N,), as share of the picture's longer side;
            NaN for the first frame, at a cut, and where there is nothing to match.
        cut: Whether another scene begins with it, (N,).
        still: Whether it shows what the first of at least 5 frames without motion did, (N,); that one is not counted.
        black: Whether it shows nothing, (N,).
        overexposed: Whether most of what it shows is white, (N,).
        damaged: Whether it cannot be decoded, or builds on one that cannot, (N,).
    """

    times: NDArray[np.float64]
    motion: NDArray[np.float64]
    cut: NDArray[np.bool_]
    still: NDArray[np.bool_]
    black: NDArray[np.bool_]
    overexposed: NDArray[np.bool_]
    damaged: NDArray[np.bool_]

    def frames(self) -> pd.DataFrame:
        """A row per frame, with these columns."""
        return pd.DataFrame({field.name: getattr(self, field.name) for field in fields(self)})

    def stretches(self) -> pd.DataFrame:
        """A row per cut and per run of frames with something amiss: what, first, last, start_s, end_s."""
        rows = []
        for what in ("cut", "still", "black", "overexposed", "damaged"):
            labels, _ = ndimage.label(getattr(self, what))
            runs = [run[0] for run in ndimage.find_objects(labels)]
            rows += [(what, run.start, run.stop - 1, self.times[run.start], self.times[run.stop - 1]) for run in runs]
        return pd.DataFrame(rows, columns=["what", "first", "last", "start_s", "end_s"])

    def messages(self) -> list[str]:
        """A line for each kind of thing amiss, for the user."""
        stretches = self.stretches()
        return [
            f"{int(getattr(self, what).sum())} of {len(self.times)} frames {says}: {_places(rows)}."
            for what, says in _SAYS.items()
            if len(rows := stretches[stretches.what == what])
        ]


_SAYS = {
    "cut": "begin another scene; frames across a cut are not to be compared",
    "still": "show no motion, and teach none",
    "black": "are black",
    "overexposed": "are overexposed",
    "damaged": "cannot be decoded, or build on one that cannot",
}


def inspect(frames: Frames) -> Footage:
    """Look at every frame of a video once; a few numbers of each are kept."""
    rows = list(_measure(frames))
    black = np.array([row.black for row in rows])
    overexposed = np.array([row.overexposed for row in rows])
    unseen = black | overexposed
    cut = _find_cuts(rows) & ~unseen & ~np.roll(unseen, 1)
    motion = np.array([row.motion_px for row in rows]) / _SIDE
    motion[cut] = np.nan
    damaged = np.zeros(len(rows), dtype=np.bool_)
    damaged[list(frames.damaged)] = True
    still = _runs(np.array([row.still for row in rows]), _STILL_FRAMES - 1) & ~black & ~damaged
    return Footage(frames.times, motion, cut, still, black & ~damaged, overexposed, damaged)


def cuts(frames: Frames) -> NDArray[np.int64]:
    """Indices of the frames with which another scene begins."""
    return np.flatnonzero(inspect(frames).cut)


@dataclass(frozen=True)
class _Measured:
    """One frame: flags, its motion and change since the frame before, and its change since the one before that."""

    black: bool
    overexposed: bool
    still: bool
    motion_px: float
    change: float
    across: float


def _measure(frames: Frames) -> Iterator[_Measured]:
    past: deque[tuple[Grey, Histogram]] = deque(maxlen=2)
    anchor = np.zeros(0, dtype=np.float32)  # the first of the frames since which nothing moved
    change = 0.0
    for frame in frames.read(range(len(frames))):
        colours = _shrunk(frame)
        grey: Grey = colours.mean(axis=-1)
        histogram = _histogram(colours)
        black, overexposed = _is_black(grey), _is_overexposed(grey)
        still, moved, across = False, np.zeros(0, dtype=np.float32), np.inf
        if past:
            if len(past) == 2 and change > _CHANGE:  # the frame before may begin a scene, or be a flash
                across = _compare(*past[0], grey, histogram)[1]
            moved, change = _compare(*past[-1], grey, histogram)
            still = _is_still(moved if anchor is past[-1][0] else match_blocks(anchor, grey)[0], change)
        anchor = anchor if still else grey
        yield _Measured(black, overexposed, still, float(moved.mean()) if len(moved) else np.nan, change, across)
        past.append((grey, histogram))


def _compare(before: Grey, levels_before: Histogram, after: Grey, levels: Histogram) -> tuple[Grey, float]:
    """The blocks' motion, and the change that it leaves: of the picture, and of how often each level is in it."""
    moved, residual = match_blocks(before, after)
    return moved, residual + float(np.abs(levels - levels_before).sum(axis=1).mean())


def match_blocks(before: Grey, after: Grey) -> tuple[Grey, float]:
    """How far each block of a picture (h, w) moved, and what of the blocks' contrast that leaves unexplained.

    Each block of 8 pixels is looked for up to 5 pixels away, and its place refined by one step of Lucas and Kanade
    (IJCAI 1981). Flat blocks do not count; a change of brightness as a whole does not either.

    Returns:
        The lengths of motion, pixels, of the blocks with texture; and their root mean square difference that stays, as
        share of their contrast: 0 is the same picture, 1 and more another one.
    """
    before, after = before - before.mean(), after - after.mean()
    rows, columns = (max(1, n // _BLOCK) for n in after.shape)
    height, width = after.shape[0] // rows, after.shape[1] // columns
    blocks = _blocks(after, rows, columns)
    texture = blocks.std(axis=(2, 3))
    row, column = np.nonzero(texture > _LEAST_TEXTURE)
    if len(row) == 0:
        return np.zeros(0, dtype=np.float32), 0.0
    blocks, texture = blocks[row, column], texture[row, column]
    places = sliding_window_view(np.pad(before, _REACH, mode="edge"), (height, width))
    reach = np.arange(2 * _REACH + 1)
    candidates = places[(row * height)[:, None, None] + reach[:, None], (column * width)[:, None, None] + reach]
    costs = np.square(candidates - blocks[:, None, None]).mean(axis=(3, 4))  # (blocks, 11, 11)
    judged = costs.copy()
    judged[:, _REACH, _REACH] *= _STAYING  # another place must be clearly better: in noise, many are as good
    each, best = np.arange(len(row)), judged.reshape(len(row), -1).argmin(axis=1)
    y, x = np.divmod(best, len(reach))
    dy, dx = _rest_of_motion(candidates[each, y, x], blocks)
    moved = np.hypot(_REACH - y + dy, _REACH - x + dx)
    return moved.astype(np.float32), float((np.sqrt(costs[each, y, x]) / texture).mean())


def _rest_of_motion(before: Grey, after: Grey) -> tuple[Grey, Grey]:
    """The motion below a pixel, along y and along x, (n,), between blocks (n, h, w) that nearly match."""
    gy, gx = np.gradient((before + after) / 2, axis=(1, 2))
    difference = before - after
    yy, xx, xy = ((a * b).sum(axis=(1, 2)) for a, b in ((gy, gy), (gx, gx), (gx, gy)))
    y, x = ((g * difference).sum(axis=(1, 2)) for g in (gy, gx))
    damping = _LEAST_TEXTURE * before[0].size  # along an edge, motion cannot be seen, and none is assumed
    yy, xx = yy + damping, xx + damping
    determinant = yy * xx - xy**2
    return np.clip((xx * y - xy * x) / determinant, -1, 1), np.clip((yy * x - xy * y) / determinant, -1, 1)


def _blocks(picture: Grey, rows: int, columns: int) -> Grey:
    """Cut a picture into blocks (rows, columns, height, width); what is over at the end is left out."""
    height, width = picture.shape[0] // rows, picture.shape[1] // columns
    cut = picture[: rows * height, : columns * width].reshape(rows, height, columns, width)
    return cut.swapaxes(1, 2)


def _is_still(moved: Grey, change: float) -> bool:
    """Whether all but a tenth of the blocks stayed; a beating heart moves few of them."""
    return change < _CHANGE and (len(moved) == 0 or float(np.quantile(moved, 0.9)) < _STILL_PX)


def _shrunk(frame: NDArray[np.uint8]) -> Grey:
    """Means of even samples, at most 64 pixels along the longer side, (h, w, 3)."""
    step = max(1, round(max(frame.shape) / (_SIDE * _SAMPLES)))
    sampled = frame[::step, ::step].astype(np.float32)
    fold = max(1, -(-max(sampled.shape) // _SIDE))
    height, width = (max(1, n // fold) for n in sampled.shape[:2])
    sampled = sampled[: height * fold, : width * fold]
    means: Grey = sampled.reshape(height, min(fold, len(sampled)), width, -1, 3).mean(axis=(1, 3))
    return means


def _histogram(colours: Grey) -> Histogram:
    """Shares of 16 levels of each colour, (3, 16), smoothed so that a small change of brightness stays small."""
    counts = [np.bincount((colours[..., i].ravel() / 16).astype(int), minlength=16) for i in range(3)]
    smoothed = ndimage.gaussian_filter1d(np.asarray(counts, dtype=np.float64), 1.0, axis=1)
    shares: Histogram = smoothed / smoothed.sum(axis=1, keepdims=True)
    return shares


def _is_black(grey: Grey) -> bool:
    return bool(np.quantile(grey, 0.99) < _BLACK_LEVEL)


def _is_overexposed(grey: Grey) -> bool:
    lit = grey > _DARK_LEVEL
    return bool((grey > _WHITE_LEVEL).sum() > _OVEREXPOSED * max(1, lit.sum()))


def _find_cuts(rows: list[_Measured]) -> NDArray[np.bool_]:
    """A cut changes the picture far more than the frames around it do, and for good: a flash is gone in the next."""
    change, across = (np.array([getattr(row, name) for row in rows]) for name in ("change", "across"))
    flash = np.append(across[1:], np.inf) < _GONE * change  # the frame after is as the one before
    before, after = np.append(np.inf, change[:-1]), np.append(change[1:], np.inf)
    calmer = np.minimum(before, after)  # that of a scene of one frame is on its other side
    rises: NDArray[np.bool_] = (change > _CHANGE) & (change > _STEP * calmer)
    return rises & _is_outlier(change) & ~flash & ~np.roll(flash, 1)


def _is_outlier(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether a value lies far above the median of those around it, in their robust standard deviations."""
    around = sliding_window_view(np.pad(values, _AROUND, constant_values=np.nan), 2 * _AROUND + 1)
    median = np.nanmedian(around, axis=1)
    spread = 1.4826 * np.nanmedian(np.abs(around - median[:, None]), axis=1)
    return np.asarray(values > median + _CUT_OUTLIER * spread)


def _runs(still: NDArray[np.bool_], least: int) -> NDArray[np.bool_]:
    """Keep runs of at least ``least`` true values."""
    labels, count = ndimage.label(still)
    long_enough = np.bincount(labels, minlength=count + 1) >= least
    long_enough[0] = False
    kept: NDArray[np.bool_] = long_enough[labels]
    return kept


def _places(rows: pd.DataFrame, most: int = 5) -> str:
    """Where, in frames and, where it is known, in seconds."""
    shown = [
        (f"{row.first}" if row.first == row.last else f"{row.first} to {row.last}")
        + ("" if np.isnan(row.start_s) else f" ({row.start_s:.2f} s)")
        for row in rows.head(most).itertuples()
    ]
    return ", ".join(shown) + (f" and {len(rows) - most} more places" if len(rows) > most else "")
