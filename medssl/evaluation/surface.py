"""How near a reconstructed surface is to the true one, in both directions.

Accuracy and completeness as in Seitz et al., "A Comparison and Evaluation of Multi-View Stereo Reconstruction
Algorithms", CVPR 2006; precision, recall and F-score at a tolerance as in Knapitsch et al., "Tanks and Temples", ACM
TOG 2017. A surface is a cloud of points (N, 3) or a mesh, in millimetres. One that is known up to scale is aligned
first, with ``medssl.evaluation.trajectory.umeyama`` from points that correspond or ``align`` from the cameras' poses.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from medssl.errors import InputError
from medssl.evaluation.trajectory import Similarity
from medssl.reconstruction.mesh import Mesh, face_vectors

Floats = NDArray[np.float64]
Surface = NDArray[Any] | Mesh

SURFACE_SCORES = {
    "accuracy_mm": "lower",
    "completeness_mm": "lower",
    "chamfer_mm": "lower",
    "precision": "higher",
    "recall": "higher",
    "f_score": "higher",
}
"""The scores of the table, and whether a better one is higher or lower."""

_PAIRS_AT_ONCE = 1 << 20  # points with triangles whose distance is worked out in one go


def score_surface(
    estimate: Surface,
    truth: Surface,
    tolerance_mm: float,
    alignment: Similarity = Similarity(),
    *,
    scan: str,
    subject: str | None = None,
    samples: int = 100_000,
    seed: int = 0,
) -> pd.DataFrame:
    """Score one surface, in one row.

    Args:
        estimate: Points (N, 3), NaN for one that is not known, or a mesh.
        truth: The same, in millimetres.
        tolerance_mm: Up to which a point counts as right, and as found.
        alignment: Applied to the estimate.
        scan: Name of the recording.
        subject: Whose it is; without it the recording is its own subject.
        samples: Points drawn on a mesh, evenly by area, to measure from; a mesh is measured to exactly.
        seed: Of the points drawn.

    Returns:
        ``subject``, ``scan``, ``structure`` ("surface"); ``accuracy_mm``, the mean distance from the estimate to the
        truth; ``completeness_mm``, from the truth to the estimate; ``chamfer_mm``, the mean of the two; ``precision``,
        the share of the estimate within the tolerance of the truth; ``recall``, of the truth within that of the
        estimate; ``f_score``, their harmonic mean; ``tolerance_mm``; ``scale`` applied; ``n`` points of the truth;
        ``missing``, points of the estimate that are not finite and were not measured; ``missed``, the estimate is
        empty: its distances and precision are NaN, recall and F-score 0. Of an empty truth all are NaN.
    """
    moved, missing = _moved(estimate, alignment)
    known, _ = _moved(truth, Similarity())
    from_estimate = surface_distances(surface_points(moved, samples, seed), known)
    from_truth = surface_distances(surface_points(known, samples, seed), moved)
    row: dict[str, Any] = {"subject": subject or scan, "scan": scan, "structure": "surface"}
    row |= _scores(from_estimate, from_truth, tolerance_mm)
    row |= {"tolerance_mm": tolerance_mm, "scale": alignment.scale, "n": len(from_truth), "missing": missing}
    return pd.DataFrame([row | {"missed": len(from_estimate) == 0}])


def surface_distances(points: NDArray[Any], surface: Surface) -> Floats:
    """Distance from each point (N, 3) to the nearest point of a cloud, or of a mesh's triangles; NaN to nothing."""
    if isinstance(surface, Mesh):
        return mesh_distances(points, surface.vertices, surface.faces)
    if not len(surface) or not len(points):
        return np.full(len(points), np.nan)
    distances: Floats = cKDTree(surface).query(points)[0]
    return distances


def mesh_distances(points: NDArray[Any], vertices: NDArray[Any], faces: NDArray[np.integer[Any]]) -> Floats:
    """Distance from each point to the nearest triangle, exactly, (N,); NaN where there is no triangle.

    A triangle can only be nearer than the nearest corner of all if its centre is no farther than that corner and the
    triangle's radius together; those are tried, the small triangles first.

    Args:
        points: (N, 3).
        vertices: (V, 3).
        faces: Indices of vertices, (F, 3).
    """
    if not len(faces) or not len(points):
        return np.full(len(points), np.nan)
    points, corners = np.asarray(points, dtype=np.float64), np.asarray(vertices, dtype=np.float64)[faces]  # (F, 3, 3)
    nearest: Floats = cKDTree(corners.reshape(-1, 3)).query(points)[0]
    radius = np.linalg.norm(corners - corners.mean(axis=1, keepdims=True), axis=-1).max(axis=1)
    size = np.frexp(radius)[1]  # a power of two: one large triangle must not have small ones tried from far away
    for alike in np.unique(size[radius > 0]):
        members = (size == alike) & (radius > 0)
        nearest = _nearer(points, nearest, corners[members], radius[members].max())
    return nearest


def triangle_distances(points: Floats, triangles: Floats) -> Floats:
    """Distance from points (N, 3) to as many triangles (N, 3, 3), (N,).

    The nearest point of a triangle is the foot of the perpendicular where that is inside, else it is on an edge.
    """
    from_corners = points[:, None] - triangles  # (N, 3, 3)
    edges = np.roll(triangles, -1, axis=1) - triangles
    along = _divided((from_corners * edges).sum(axis=-1), (edges**2).sum(axis=-1)).clip(0, 1)
    to_edges = ((from_corners - along[..., None] * edges) ** 2).sum(axis=-1).min(axis=-1)
    normals = np.cross(edges[:, 0], edges[:, 1])
    area = (normals**2).sum(axis=-1)
    sides = (np.cross(edges, from_corners) * normals[:, None]).sum(axis=-1)  # one sign, if the foot is inside
    inside = (sides >= 0).all(axis=-1) & (area > 0)
    to_plane = _divided((from_corners[:, 0] * normals).sum(axis=-1) ** 2, area)
    return np.sqrt(np.where(inside, to_plane, to_edges))


def surface_points(surface: Surface, samples: int = 100_000, seed: int = 0) -> Floats:
    """A cloud's points as they are, or points drawn on a mesh evenly by area, (N, 3); none of a mesh without area."""
    if not isinstance(surface, Mesh):
        return np.asarray(surface, dtype=np.float64)
    areas = np.linalg.norm(face_vectors(surface.vertices, surface.faces), axis=1)
    if areas.sum() == 0:
        return np.zeros((0, 3))
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(areas), samples, p=areas / areas.sum())
    u, v = rng.random((2, samples))
    weights = np.stack([1 - np.sqrt(u), np.sqrt(u) * (1 - v), np.sqrt(u) * v], axis=1)  # even over a triangle
    corners = surface.vertices.astype(np.float64)[surface.faces[chosen]]
    points: Floats = (weights[..., None] * corners).sum(axis=1)
    return points


def _moved(surface: Surface, alignment: Similarity) -> tuple[Surface, int]:
    """A surface after the alignment, and how many points that are not finite were left out of it."""
    if isinstance(surface, Mesh):
        vertices = alignment.points(surface.vertices).astype(np.float32)
        known = _finite(vertices)
        faces = surface.faces[known[surface.faces].all(axis=1)]
        return replace(surface, vertices=vertices, faces=faces), int((~known).sum())
    if surface.ndim != 2 or surface.shape[1] != 3:
        raise InputError(f"A surface is a mesh or a cloud of points (N, 3); got an array {surface.shape}.")
    known = _finite(surface)
    return alignment.points(surface[known]), int((~known).sum())


def _finite(points: NDArray[Any]) -> NDArray[np.bool_]:
    known: NDArray[np.bool_] = np.isfinite(points).all(axis=1)
    return known


def _scores(from_estimate: Floats, from_truth: Floats, tolerance_mm: float) -> dict[str, float]:
    if not len(from_truth):
        return dict.fromkeys(SURFACE_SCORES, np.nan)
    accuracy, completeness = _mean(from_estimate), _mean(from_truth)
    precision, recall = _mean(from_estimate <= tolerance_mm), float((from_truth <= tolerance_mm).mean())
    both = precision + recall
    f_score = 2 * precision * recall / both if both > 0 else 0.0
    values = (accuracy, completeness, (accuracy + completeness) / 2, precision, recall, f_score)
    return dict(zip(SURFACE_SCORES, values, strict=True))


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean()) if len(values) else np.nan


def _nearer(points: Floats, nearest: Floats, corners: Floats, radius: float) -> Floats:
    """The distances so far, or those to triangles (F, 3, 3) of at most that radius where they are nearer."""
    tree, reach = cKDTree(corners.mean(axis=1)), (nearest + radius) * (1 + 1e-9)  # rounding must not lose the nearest
    counts = tree.query_ball_point(points, reach, return_length=True)
    nearest, near = nearest.copy(), np.flatnonzero(counts)
    batches = counts[near].cumsum() // _PAIRS_AT_ONCE
    for batch in np.split(near, np.flatnonzero(np.diff(batches)) + 1):
        if len(batch):
            triangles = corners[np.concatenate(tree.query_ball_point(points[batch], reach[batch])).astype(np.intp)]
            distances = triangle_distances(np.repeat(points[batch], counts[batch], axis=0), triangles)
            begins = np.concatenate([[0], counts[batch][:-1].cumsum()])
            nearest[batch] = np.minimum(nearest[batch], np.minimum.reduceat(distances, begins))
    return nearest


def _divided(a: Floats, b: Floats) -> Floats:
    """``a / b``, 0 where b is."""
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)
