"""Images beside their nearest neighbours: what a representation holds for alike, at a glance."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from medssl.errors import InputError
from medssl.evaluation.retrieval import Neighbours
from medssl.report.figures import save

_SAME, _OTHER, _UNKNOWN = "#00C48C", "#F2552C", "#999999"  # a green and a red that the colour-blind tell apart
_TILE_INCHES, _LEAST_WIDTH_INCHES = 1.4, 5.0
_CAPTION_INCHES, _HEADER_INCHES, _FOOTER_INCHES, _MARGIN_INCHES = 0.36, 0.75, 0.3, 0.2
_GAP_INCHES, _QUERY_GAP_INCHES = 0.12, 0.4
_CHARACTER_INCHES = 0.075  # of a caption
_FLAT = 1e-6  # least range of greys: an image without contrast is black, not noise


class _Tile(NamedTuple):
    """An image as it is drawn: (horizontal, vertical) or (horizontal, vertical, 3), 0..1; ``axial``: of a volume."""

    pixels: NDArray[Any]
    axial: bool
    size_mm: tuple[float, float]


def neighbours_picture(
    queries: Sequence[NDArray[Any]],
    gallery: Sequence[NDArray[Any]],
    neighbours: Neighbours,
    path: Path,
    title: str = "",
    *,
    labels: Sequence[str] | None = None,
    gallery_labels: Sequence[str] | None = None,
    spacing_mm: Sequence[float] | None = None,
) -> None:
    """Draw a row per query: the query, then its nearest neighbours with their similarity.

    Where labels are known, a neighbour with the query's label has a green frame and a tick, another a red frame, a
    cross and its own label. A 2D image is drawn as pictures are, axis 0 to the right, axis 1 down; of a RAS volume the
    middle axial slice is shown, patient's left on the right. Each image has its own range of greys.

    Args:
        queries: (C, X, Y) or (C, X, Y, Z) each; three channels of a 2D image are red, green and blue, else the first
            channel is shown.
        gallery: The images that the neighbours' indices count, of the same kind.
        neighbours: One row per query (``medssl.evaluation.retrieval.nearest_neighbours``).
        path: The picture, for example a .png.
        title: Stands above.
        labels: The label of each query, a word or two.
        gallery_labels: The label of each image of the gallery.
        spacing_mm: Size of a pixel or voxel along each axis; None is the same along all.

    Raises:
        InputError: Queries, neighbours and labels do not fit together, or an image is neither 2D nor 3D.
    """
    _check(len(queries), len(gallery), neighbours, labels, gallery_labels)
    tiles = [
        [_tile(image, spacing_mm) for image in (query, *(gallery[item] for item in items))]
        for query, items in zip(queries, neighbours.indices, strict=True)
    ]
    figure, grid = _layout(tiles)
    for row, items in enumerate(neighbours.indices):
        of_query = None if labels is None else labels[row]
        captions = [(of_query or "", "white")]
        for item, similarity in zip(items, neighbours.similarity[row], strict=True):
            captions.append(_judged(similarity, of_query, None if gallery_labels is None else gallery_labels[item]))
        for axes, tile, (caption, color) in zip(grid[row], tiles[row], captions, strict=True):
            _draw(axes, tile, caption, color)
    _write_around(figure, grid[0], title, labels is not None, tiles[0][0].axial)
    save(figure, path)


def _check(
    queries: int,
    gallery: int,
    neighbours: Neighbours,
    labels: Sequence[str] | None,
    gallery_labels: Sequence[str] | None,
) -> None:
    indices = neighbours.indices
    if not indices.size or len(indices) != queries or not 0 <= indices.min() <= indices.max() < gallery:
        raise InputError(
            "The picture needs one row of neighbours for each query, counted in the gallery; got "
            f"{queries} queries, a gallery of {gallery}, and neighbours of the shape {indices.shape}."
        )
    if labels is None and gallery_labels is None:
        return
    if len(labels or ()) != queries or len(gallery_labels or ()) != gallery:
        raise InputError(
            f"Frames need a label for each of {queries} queries and each of {gallery} images of the gallery, got "
            f"{len(labels or ())} labels and {len(gallery_labels or ())} gallery_labels. Give all, or none."
        )


def _tile(image: NDArray[Any], spacing_mm: Sequence[float] | None) -> _Tile:
    if image.ndim not in (3, 4):
        raise InputError(f"A picture shows images (C, X, Y) or volumes (C, X, Y, Z), got the shape {image.shape}.")
    axial = image.ndim == 4
    shown = image[..., image.shape[-1] // 2] if axial else image
    pixels = np.moveaxis(shown, 0, -1) if len(shown) == 3 and not axial else shown[0]
    low, high = np.percentile(pixels, (0.5, 99.5))
    horizontal, vertical = (1.0, 1.0) if spacing_mm is None else spacing_mm[:2]
    size_mm = pixels.shape[0] * horizontal, pixels.shape[1] * vertical
    return _Tile(np.clip((pixels - low) / max(high - low, _FLAT), 0, 1), axial, size_mm)


def _judged(similarity: float, of_query: str | None, of_item: str | None) -> tuple[str, str]:
    """Caption and colour of a neighbour; its label is named where it is another."""
    if of_query is None:
        return f"{similarity:.2f}", _UNKNOWN
    return (f"✓ {similarity:.2f}", _SAME) if of_query == of_item else (f"✗ {similarity:.2f} {of_item}", _OTHER)


def _layout(tiles: Sequence[Sequence[_Tile]]) -> tuple[Figure, list[list[Axes]]]:
    """A figure with axes for every tile, wide or tall enough for the widest and the tallest."""
    shapes = [tile.size_mm for line in tiles for tile in line]
    wide = _TILE_INCHES * max(width / max(width, height) for width, height in shapes)
    tall = _TILE_INCHES * max(height / max(width, height) for width, height in shapes)
    columns = len(tiles[0])
    lefts = [n * (wide + _GAP_INCHES) + (_QUERY_GAP_INCHES if n else 0) for n in range(columns)]
    figure_width = max(_LEAST_WIDTH_INCHES, lefts[-1] + wide + 2 * _MARGIN_INCHES)
    figure_height = _HEADER_INCHES + len(tiles) * (tall + _CAPTION_INCHES) + _FOOTER_INCHES
    figure = Figure(figsize=(figure_width, figure_height), facecolor="black")
    margin = (figure_width - lefts[-1] - wide) / 2
    grid = []
    for row in range(len(tiles)):
        bottom = figure_height - _HEADER_INCHES - row * (tall + _CAPTION_INCHES) - tall
        boxes = [(margin + left, bottom, wide, tall) for left in lefts]
        inches = np.array([figure_width, figure_height, figure_width, figure_height])
        grid.append([figure.add_axes(tuple(np.array(box) / inches)) for box in boxes])
    return figure, grid


def _draw(axes: Axes, tile: _Tile, caption: str, color: str) -> None:
    width, height = tile.size_mm
    pixels = np.swapaxes(tile.pixels, 0, 1)
    axes.imshow(pixels, "gray", vmin=0, vmax=1, origin="lower", extent=(0, width, 0, height), aspect="equal")
    if tile.axial:
        axes.invert_xaxis()
    else:
        axes.invert_yaxis()
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set(color=color, linewidth=2.5)
    room = int((axes.bbox.width / axes.figure.dpi + _GAP_INCHES) / _CHARACTER_INCHES)
    axes.set_xlabel(shorten(caption, room, placeholder="…"), color=color, fontsize=9, labelpad=5)


def _write_around(figure: Figure, first_row: Sequence[Axes], title: str, judged: bool, axial: bool) -> None:
    """Write the title, the heads of the columns, and what frames and slices mean."""
    height = figure.get_figheight()
    figure.text(0.5, 1 - 0.12 / height, title, color="white", fontsize=12, weight="bold", ha="center", va="top")
    for rank, axes in enumerate(first_row):
        head = f"{rank}" if rank else "query"
        axes.set_title(head, color=_UNKNOWN if rank else "white", fontsize=10, pad=6)
    said: list[tuple[str, str]] = [("✓ same label", _SAME), ("✗ other label", _OTHER)] if judged else []
    said += [("cosine similarity", _UNKNOWN)]
    said += [("middle axial slice, patient's left on the right", _UNKNOWN)] if axial else []
    at = _MARGIN_INCHES
    for words, color in said:
        figure.text(at / figure.get_figwidth(), 0.1 / height, words, color=color, fontsize=8, va="bottom")
        at += 0.065 * len(words) + 0.2
