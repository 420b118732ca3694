"""Which slices of a labelled scan to show: those in which most structures are seen at their largest."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MARGIN_MM = 5


@dataclass(frozen=True)
class View:
    """One slice as it is drawn.

    Attributes:
        image: Intensities (horizontal, vertical).
        labels: Class indices, same shape.
        spacing_mm: Size of a pixel, horizontally and vertically.
        title: Plane and position.
        letters: The directions at the low and high end of both axes, horizontal first; none for a 2D image.
    """

    image: NDArray[Any]
    labels: NDArray[Any]
    spacing_mm: tuple[float, float]
    title: str = ""
    letters: tuple[str, str, str, str] | None = None

    @property
    def size_mm(self) -> tuple[float, float]:
        """Width and height."""
        return self.image.shape[0] * self.spacing_mm[0], self.image.shape[1] * self.spacing_mm[1]


@dataclass(frozen=True)
class _Plane:
    """Slices across ``axis`` of a RAS volume, and the axes and directions that they show."""

    name: str
    axis: int
    horizontal: int
    vertical: int
    letters: tuple[str, str, str, str]


_PLANES = (
    _Plane("axial", 2, 0, 1, ("L", "R", "P", "A")),
    _Plane("coronal", 1, 0, 2, ("L", "R", "I", "S")),
    _Plane("sagittal", 0, 1, 2, ("P", "A", "I", "S")),
)


def views(image: NDArray[Any], labels: NDArray[np.integer[Any]], spacing_mm: Sequence[float]) -> list[View]:
    """An axial, a coronal and a sagittal slice of a RAS volume (X, Y, Z), cropped to what is not background.

    A 2D image (X, Y) is one view, as it is.
    """
    if image.ndim == 2:
        return [View(image, labels, (spacing_mm[0], spacing_mm[1]))]
    box = _content(image, labels, spacing_mm)
    image, labels = image[box], labels[box]
    shown = []
    for plane in _PLANES:
        at = _best_slice(labels, plane.axis)
        shown.append(
            View(
                image.take([at], plane.axis).squeeze(plane.axis),
                labels.take([at], plane.axis).squeeze(plane.axis),
                (spacing_mm[plane.horizontal], spacing_mm[plane.vertical]),
                f"{plane.name}, slice {at + box[plane.axis].start}",
                plane.letters,
            )
        )
    return shown


def _content(image: NDArray[Any], labels: NDArray[Any], spacing_mm: Sequence[float]) -> tuple[slice, ...]:
    """The box of what is not background, with a margin; all of it where everything is background."""
    content = (image > image.min()) | (labels > 0)
    box = []
    for axis, step in enumerate(spacing_mm):
        filled = np.flatnonzero(content.any(axis=tuple(other for other in range(content.ndim) if other != axis)))
        margin = int(np.ceil(_MARGIN_MM / step))
        first, last = (int(filled[0]), int(filled[-1])) if len(filled) else (0, content.shape[axis] - 1)
        box.append(slice(max(0, first - margin), last + margin + 1))
    return tuple(box)


def _best_slice(labels: NDArray[Any], axis: int) -> int:
    """The slice with the most to see: the largest sum of shares, area / largest area, of each structure and of all."""
    size, classes = int(labels.shape[axis]), int(labels.max()) + 1
    if classes == 1:
        return size // 2
    slices = np.moveaxis(labels, axis, 0).reshape(size, -1).astype(np.intp)
    cells = np.arange(size)[:, None] * classes + slices
    areas = np.bincount(cells.ravel(), minlength=size * classes).reshape(size, classes)[:, 1:]
    areas = np.column_stack([areas, areas.sum(axis=1)])
    shares = areas / np.maximum(areas.max(axis=0), 1)
    return int(shares.sum(axis=1).argmax())
