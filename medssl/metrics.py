"""How well two label maps agree, per class: overlap from one confusion matrix, surfaces from nearest neighbours in mm.

Definitions follow Maier-Hein et al., "Metrics reloaded", Nature Methods 2024, https://arxiv.org/abs/2206.01653; the
surface of a structure is its voxels with a face on something else (or on the edge of the volume), as in MONAI.

Every function returns one value per class, in the order of the class indices; 0 is the background. A class that both
label maps lack has the score NaN, so that whoever averages must say how many there were; a class that only one of them
holds gets the worst score there is: Dice 0, surface Dice 0, and the volume's diagonal for both distances.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree
from torch import Tensor

from medssl.errors import InputError

Labels = NDArray[np.integer] | Tensor
Floats = NDArray[np.float64]

_ROUNDING_MM = 1e-6  # voxels 4 and 5 of 0.7 mm are 0.7000000000000002 mm apart: still within a tolerance of 0.7 mm


class SurfaceScores(NamedTuple):
    """How far apart the surfaces are, each of shape (classes,); the background has none and is NaN."""

    hd95_mm: Floats
    assd_mm: Floats
    surface_dice: Floats


def confusion(prediction: Labels, reference: Labels, classes: int) -> NDArray[np.int64]:
    """Count voxels by reference class (rows) and predicted class (columns).

    Counts add up: sum them over scans and take ``dice_from_confusion`` once for the Dice of all voxels together.

    Args:
        prediction: Class indices 0..classes-1, any shape.
        reference: The same, on the same grid.
        classes: Number of classes, background included.

    Returns:
        (classes, classes) counts.

    Raises:
        InputError: The shapes differ, the arrays do not hold integers, or an index is out of range.
    """
    prediction, reference = _pair(prediction, reference, classes)
    cells = reference.ravel().astype(np.intp)
    cells *= classes
    np.add(cells, prediction.ravel(), out=cells, casting="unsafe")
    return np.bincount(cells, minlength=classes * classes).astype(np.int64).reshape(classes, classes)


def dice_from_confusion(counts: NDArray[np.int64]) -> Floats:
    """Dice of each class, 2 |P and R| / (|P| + |R|), from (classes, classes) counts; NaN where both are empty."""
    return _ratio(2 * counts.diagonal(), counts.sum(axis=0) + counts.sum(axis=1))


def recall_from_confusion(counts: NDArray[np.int64]) -> Floats:
    """Share of each reference class that was found, |P and R| / |R|; NaN where the reference lacks the class."""
    return _ratio(counts.diagonal(), counts.sum(axis=1))


def volume_similarity_from_confusion(counts: NDArray[np.int64]) -> Floats:
    """How alike the volumes are wherever they lie, 1 - | |P| - |R| | / (|P| + |R|); NaN where both are empty."""
    predicted, actual = counts.sum(axis=0), counts.sum(axis=1)
    return 1 - _ratio(np.abs(predicted - actual), predicted + actual)


def dice_per_class(prediction: Labels, reference: Labels, classes: int) -> Floats:
    """Dice of each class of two label maps (see ``confusion``), shape (classes,)."""
    return dice_from_confusion(confusion(prediction, reference, classes))


def recall_per_class(prediction: Labels, reference: Labels, classes: int) -> Floats:
    """Recall of each class of two label maps (see ``confusion``), shape (classes,)."""
    return recall_from_confusion(confusion(prediction, reference, classes))


def volume_similarity(prediction: Labels, reference: Labels, classes: int) -> Floats:
    """Volume similarity of each class of two label maps (see ``confusion``), shape (classes,)."""
    return volume_similarity_from_confusion(confusion(prediction, reference, classes))


def volumes_mm3(labels: Labels, classes: int, spacing_mm: Sequence[float]) -> Floats:
    """Volume of each class: its number of voxels times a voxel's volume (mm^2 in 2D), shape (classes,)."""
    labels = _class_indices(labels, classes, "labels")
    return np.bincount(labels.ravel(), minlength=classes).astype(np.float64) * float(np.prod(spacing_mm))


def touches_border(labels: Labels, classes: int) -> NDArray[np.bool_]:
    """Whether each class reaches the edge of the volume, and so may be cut off by it; shape (classes,).

    An axis of one voxel has no edge to be cut off at.
    """
    labels = _class_indices(labels, classes, "labels")
    touches = np.zeros(classes, dtype=bool)
    for axis, size in enumerate(labels.shape):
        if size > 1:
            touches[labels.take([0, -1], axis=axis)] = True
    return touches


def surface_scores(
    prediction: Labels,
    reference: Labels,
    classes: int,
    spacing_mm: Sequence[float],
    tolerance_mm: float = 1.0,
) -> SurfaceScores:
    """Compare the surfaces of each class.

    Distances are from the centre of each surface voxel to the nearest one of the other surface, exact, through a
    KD-tree over the surface voxels alone: for whole brains this is faster than distance transforms and needs a
    fraction of their memory.

    Args:
        prediction: Class indices (*spatial), 2D or 3D.
        reference: The same, on the same grid.
        classes: Number of classes, background included.
        spacing_mm: Size of a voxel along each axis.
        tolerance_mm: How far off a surface may be and still count as right in the surface Dice.

    Returns:
        ``hd95_mm``, the larger of both directions' 95th-percentile distance; ``assd_mm``, the mean distance over both
        surfaces; ``surface_dice``, the share of both surfaces within the tolerance of the other.

    Raises:
        InputError: See ``confusion``; or ``spacing_mm`` does not have one positive number per axis.
    """
    prediction, reference = _pair(prediction, reference, classes)
    spacing = np.asarray(spacing_mm, dtype=np.float64)
    if spacing.shape != (reference.ndim,) or not (spacing > 0).all():
        raise InputError(
            f"spacing_mm must be {reference.ndim} positive numbers, one per axis, got {tuple(spacing_mm)}."
        )
    scores = SurfaceScores(*(np.full(classes, np.nan) for _ in SurfaceScores._fields))
    diagonal_mm = float(np.linalg.norm(reference.shape * spacing))
    surfaces = zip(_surfaces(prediction, classes, spacing), _surfaces(reference, classes, spacing), strict=True)
    for index, (predicted, actual) in enumerate(surfaces, start=1):
        if len(predicted) and len(actual):
            there, back = _nearest(predicted, actual), _nearest(actual, predicted)
            distances = np.concatenate([there, back])
            scores.hd95_mm[index] = max(np.percentile(there, 95), np.percentile(back, 95))
            scores.assd_mm[index] = distances.mean()
            scores.surface_dice[index] = (distances <= tolerance_mm + _ROUNDING_MM).mean()
        elif len(predicted) or len(actual):
            scores.hd95_mm[index] = scores.assd_mm[index] = diagonal_mm
            scores.surface_dice[index] = 0
    return scores


def _surfaces(labels: NDArray[np.integer], classes: int, spacing: Floats) -> list[Floats]:
    """Surface voxels of the classes 1..classes-1 in mm, each (n, ndim): those with a neighbour of another class."""
    inside = np.ones(labels.shape, dtype=bool)
    for axis in range(labels.ndim):
        along, inner = np.moveaxis(labels, axis, 0), np.moveaxis(inside, axis, 0)
        same = along[1:] == along[:-1]
        inner[1:] &= same
        inner[:-1] &= same
        inner[[0, -1]] = False
    surface = ~inside & (labels > 0)
    values = labels[surface]
    order = np.argsort(values, kind="stable")
    points = np.argwhere(surface)[order] * spacing
    return np.split(points, np.searchsorted(values[order], np.arange(2, classes)))


def _nearest(points: Floats, others: Floats) -> Floats:
    """Distance from each of ``points`` (n, ndim) to the nearest of ``others`` (m, ndim), shape (n,)."""
    # Voxels lie on a lattice already: balancing the tree costs more than it saves.
    distances, _ = KDTree(others, balanced_tree=False, compact_nodes=False).query(points)
    return np.asarray(distances, dtype=np.float64)


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> Floats:
    ratio = np.full(len(whole), np.nan)
    np.divide(part, whole, out=ratio, where=whole > 0)
    return ratio


def _pair(prediction: Labels, reference: Labels, classes: int) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    if prediction.shape != reference.shape:
        raise InputError(
            f"The prediction has {'x'.join(map(str, prediction.shape))} voxels, the reference "
            f"{'x'.join(map(str, reference.shape))}; scores need both on one grid."
        )
    return _class_indices(prediction, classes, "prediction"), _class_indices(reference, classes, "reference")


def _class_indices(labels: Labels, classes: int, what: str) -> NDArray[np.integer]:
    array = labels.numpy(force=True) if isinstance(labels, Tensor) else np.asarray(labels)
    if not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"The {what} must hold integer class indices, got {array.dtype}.")
    if array.size and not 0 <= array.min() <= array.max() < classes:
        raise InputError(
            f"The {what} must hold class indices 0 to {classes - 1}, got {array.min()} to {array.max()}; "
            "map label ids to classes first."
        )
    return array
