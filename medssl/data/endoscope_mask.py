"""Where an endoscope's picture shows the body: its field of view, round or cornered, and its lamp's highlights.

The border is dark and stays so, and hangs together with the picture's edge; a lumen may be as dark, but not always, nor
at the edge. Fields of view are convex, which mends what a dark rim of tissue bites off.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage
from scipy.spatial import ConvexHull

Mask = NDArray[np.bool_]

_LONG_SIDE = 480  # pixels of the longer side, where the field of view is looked for
_BRIGHTEST_BORDER = 48  # grey level; a brighter corner is no border
_DARK_ABOVE_BORDER = 12  # grey levels: noise, and what compression spreads
_BLACK_ABOVE_BORDER = 4
_LEAST_BLACK = 0.95  # share of a black box
_OPENING = 0.01  # of the longer side: strokes of text are thinner than twice that
_LEAST_BORDER = 0.005  # share of the picture
_LEAST_VIEW = 0.02
_OUTLIER_QUANTILE = 0.9  # over time: a menu or a flash of white may fill a tenth of the frames

_WHITE = 240  # grey level of the darkest colour, from which a pixel is overexposed whatever surrounds it
_BRIGHT = 160
_ABOVE_SURROUNDINGS = 36  # grey levels
_MOST_SATURATION = 0.2
_SURROUNDINGS = 0.08  # of the longer side

_OUTLINE, _MARK = (0, 255, 0), (255, 0, 255)


def find_mask(frames: NDArray[np.uint8]) -> Mask:
    """Find the field of view (H, W) in a sample of one recording's frames (N, H, W, 3); all of it where no border is.

    More frames, from all over the recording, make it surer: about 20 are plenty. Text and other pictures in the border
    are left out, and so is a black box that covers a corner of the view.
    """
    height, width = frames.shape[1:3]
    rows, columns = _sampled(height, width), _sampled(width, height)
    bright = _lasting(frames[:, rows[:, None], columns].max(axis=-1))
    border = _corner_level(bright)
    everything = np.ones((height, width), dtype=np.bool_)
    if border > _BRIGHTEST_BORDER:
        return everything
    dark = _from_edge(bright <= border + _DARK_ABOVE_BORDER)
    view = _largest(_opened(~dark, round(_OPENING * max(dark.shape))))
    if dark.mean() < _LEAST_BORDER or view.mean() < _LEAST_VIEW:
        return everything
    hull = _hull(view, np.arange(view.shape[0]), np.arange(view.shape[1]))
    boxes = _black_parts(hull & dark, bright <= border + _BLACK_ABOVE_BORDER, max(dark.shape))
    nearest = (
        np.rint(np.linspace(0, n - 1, full)).astype(int) for n, full in zip(dark.shape, (height, width), strict=True)
    )
    mask: Mask = _hull(view, rows, columns) & ~boxes[np.ix_(*nearest)]
    return mask


def highlights(frame: NDArray[np.uint8]) -> Mask:
    """Find where the lamp is mirrored (H, W) in a frame (H, W, 3): bright, white, and brighter than what surrounds it.

    Overexposed parts and white text count as well. The rim, which is blurred, is taken in.
    """
    red, green, blue = (frame[..., i] for i in range(3))
    least = np.minimum(np.minimum(red, green), blue)
    most = np.maximum(np.maximum(red, green), blue)
    longer = max(least.shape)
    # in 16 bits, quick: of each pixel the surroundings' mean, in which highlights count little
    around = ndimage.uniform_filter(np.minimum(least, _BRIGHT).astype(np.int16), round(_SURROUNDINGS * longer) | 1)
    white = (most - least) < _MOST_SATURATION * most
    found = (least >= _WHITE) | ((least >= _BRIGHT) & (least > around + _ABOVE_SURROUNDINGS) & white)
    return np.asarray(ndimage.binary_dilation(found, iterations=max(1, round(longer / 320))), dtype=np.bool_)


def draw_mask_check(frame: NDArray[np.uint8], mask: Mask, highlights: Mask) -> NDArray[np.uint8]:
    """Draw on a frame (H, W, 3) what was found: the view's outline green, highlights magenta, the outside darkened."""
    thickness = max(1, round(max(mask.shape) / 400))
    drawn = np.where(mask[..., None], frame, frame // 3)
    drawn[highlights & mask] = _MARK
    drawn[mask & ~ndimage.binary_erosion(mask, iterations=thickness, border_value=0)] = _OUTLINE
    return drawn.astype(np.uint8)


def _sampled(length: int, other: int) -> NDArray[np.int64]:
    """Places at which one side is looked at, first and last included."""
    count = min(length, max(2, round(length * _LONG_SIDE / max(length, other))))
    return np.rint(np.linspace(0, length - 1, count)).astype(np.int64)


def _lasting(bright: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The brightest that each pixel (N, h, w) becomes, but for a tenth of the frames; (h, w)."""
    rank = int(np.ceil(_OUTLIER_QUANTILE * len(bright))) - 1
    lasting: NDArray[np.uint8] = bright.max(axis=0) if len(bright) < 5 else np.partition(bright, rank, axis=0)[rank]
    return lasting


def _corner_level(bright: NDArray[np.uint8]) -> float:
    """Grey level of the darkest two corners: text or tissue may fill the others."""
    side = max(2, min(bright.shape) // 30)
    ends = (slice(None, side), slice(-side, None))
    return float(np.sort([np.median(bright[rows, columns]) for rows in ends for columns in ends])[1])


def _from_edge(dark: Mask) -> Mask:
    """The dark parts that reach the picture's edge."""
    labels, _ = ndimage.label(dark)
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    return np.isin(labels, np.unique(edge[edge > 0]))


def _opened(mask: Mask, radius: int) -> Mask:
    """Take away what a disk does not fit into; beyond the picture's edge the mask goes on."""
    padded = np.pad(mask, radius + 1, mode="edge")
    inner = ndimage.distance_transform_edt(padded) > radius
    if not inner.any():
        return np.zeros_like(mask)
    opened: Mask = ndimage.distance_transform_edt(~inner) <= radius
    return opened[radius + 1 : -radius - 1, radius + 1 : -radius - 1] & mask


def _largest(mask: Mask) -> Mask:
    labels, count = ndimage.label(mask)
    return labels == 1 + int(np.argmax(np.bincount(labels.ravel(), minlength=count + 1)[1:])) if count else mask


def _hull(view: Mask, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Mask:
    """The convex hull of a mask (h, w), drawn at the places that its rows and columns have in a larger picture."""
    y, x = np.nonzero(view & ~ndimage.binary_erosion(view, border_value=0))
    points = np.stack([columns[x], rows[y]], axis=1)
    corners = points[ConvexHull(points).vertices]
    drawing = Image.new("1", (int(columns[-1]) + 1, int(rows[-1]) + 1))
    ImageDraw.Draw(drawing).polygon([(int(x), int(y)) for x, y in corners], fill=1, outline=1)
    return np.array(drawing, dtype=np.bool_)


def _black_parts(bites: Mask, black: Mask, longer: int) -> Mask:
    """Of what is dark inside the hull, the large parts that are as black as the border: boxes, not tissue."""
    radius = round(2 * _OPENING * longer)
    labels, count = ndimage.label(_opened(bites, radius))
    share = ndimage.mean(black, labels, np.arange(1, count + 1)) if count else np.zeros(0)
    boxes = np.isin(labels, 1 + np.flatnonzero(np.asarray(share) > _LEAST_BLACK))
    return np.asarray(bites & ndimage.binary_dilation(boxes, iterations=radius), dtype=np.bool_)  # with their corners
