"""Which frames of a video teach something: well exposed ones, a small motion apart.

A static pair has no parallax, and two frames with nothing in common none to match. Motion is measured in small pictures
by the least squares of Lucas and Kanade, "An iterative image registration technique with an application to stereo
vision", IJCAI 1981, without iteration.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from medssl.data.endoscope_mask import highlights
from medssl.data.sequence import Frames
from medssl.structure_from_motion.settings import FrameChoice

_SMALL = 160  # pixels of the longer side, where motion is measured
_LAMP = 10.0  # pixels: brightness that changes over a longer way is the lamp's, not the body's
_SMOOTH = 1.5  # pixels
_WINDOW = 4.0  # pixels: what moves together
_CORNERS = 0.5  # quantile of the windows: below it they do not tell the motion
_DARK = 16  # grey level of the brightest colour
_LEAST_USABLE = 0.1  # of the field of view
_MASK_FRAMES = 20  # that the field of view is found in

USED, STATIC, BLACK, OVEREXPOSED = "used", "no motion", "black", "over-exposed"


class Look(NamedTuple):
    """What was seen of one frame.

    Attributes:
        frame: Its number in the video.
        motion: Since the last used frame, as a share of the picture's width; NaN before the first.
        verdict: ``USED``, or why it is not.
    """

    frame: int
    motion: float
    verdict: str


def choose(
    frames: Frames, times: NDArray[np.float64], mask: NDArray[np.bool_], choice: FrameChoice
) -> Iterator[tuple[Look, NDArray[np.uint8]]]:
    """Look at frames one after the other, and tell of each whether it is used; gives it along, (H, W, 3).

    Args:
        frames: Of the video.
        times: When each is shown, seconds.
        mask: Where the picture shows the body, (H, W).
        choice: Which frames to look at, and how far apart to use them.
    """
    small_mask = _reduced(mask.astype(np.float32)) > 0.99
    candidates = candidate_frames(times, choice)
    last: NDArray[np.float32] | None = None
    for index, frame in zip(candidates, frames.read(candidates), strict=True):
        verdict = exposure(frame, mask)
        if verdict != USED:
            yield Look(index, float("nan"), verdict), frame
            continue
        texture = _texture(frame)
        moved = float("nan") if last is None else motion(last, texture, small_mask)
        verdict = STATIC if moved < choice.motion else USED  # NaN, before the first, is not
        if verdict == USED:
            last = texture
        yield Look(index, moved, verdict), frame


def candidate_frames(times: NDArray[np.float64], choice: FrameChoice) -> list[int]:
    """The frames between start and end, every n-th of them."""
    end = np.inf if choice.end_s is None else choice.end_s
    within: list[int] = np.flatnonzero((times >= choice.start_s) & (times <= end)).tolist()
    return within[:: choice.every]


def mask_sample(frames: Frames, candidates: list[int]) -> NDArray[np.uint8]:
    """Frames from all over the looked-at part, (n, H, W, 3), to find the field of view in."""
    places = np.unique(np.linspace(0, len(candidates) - 1, _MASK_FRAMES).round().astype(int))
    return np.stack(list(frames.read([candidates[place] for place in places])))


def exposure(frame: NDArray[np.uint8], mask: NDArray[np.bool_]) -> str:
    """``USED`` where a tenth of the field of view is neither dark nor blown out; else ``BLACK`` or ``OVEREXPOSED``."""
    dark = (frame.max(axis=-1) < _DARK)[mask]
    white = highlights(frame)[mask]
    if 1 - (dark | white).mean() >= _LEAST_USABLE:
        return USED
    return BLACK if dark.mean() >= white.mean() else OVEREXPOSED


def motion(before: NDArray[np.float32], after: NDArray[np.float32], mask: NDArray[np.bool_]) -> float:
    """Median optical flow between two textures (h, w) where it is well determined, as a share of the width.

    It is right for less than the width of an edge, about 2 % of the picture, and too small beyond.
    """
    y, x = np.gradient((before + after) / 2)
    t = after - before
    xx, xy, yy, xt, yt = (ndimage.gaussian_filter(product, _WINDOW) for product in (x * x, x * y, y * y, x * t, y * t))
    determinant = xx * yy - xy**2
    sure = mask & (determinant > np.quantile(determinant[mask], _CORNERS)) if mask.any() else mask
    if not sure.any():
        return 0.0
    u, v = ((xy * yt - yy * xt)[sure], (xy * xt - xx * yt)[sure]) / determinant[sure]
    return float(np.median(np.hypot(u, v)) / before.shape[1])


def _texture(frame: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Small and without what the lamp does: the logarithm turns its brightness into a sum that varies slowly."""
    grey = np.log(_reduced(frame.mean(axis=-1, dtype=np.float32)) + _DARK)
    texture: NDArray[np.float32] = ndimage.gaussian_filter(grey, _SMOOTH) - ndimage.gaussian_filter(grey, _LAMP)
    return texture


def _reduced(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    height, width = picture.shape
    factor = min(1.0, _SMALL / max(height, width))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))
