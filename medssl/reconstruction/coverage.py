"""How much of a surface was seen, how often, how well, and how much seems to be missing."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medssl.data.sequence import Unit
from medssl.reconstruction.depth_view import DepthView, tangent_planes, to_camera
from medssl.reconstruction.mesh import Mesh, vertex_areas


@dataclass(frozen=True, eq=False)
class Hole:
    """A gap in the surface beside the way that the camera went.

    Attributes:
        loop: The vertices around it, in order, (n,).
        area: Of the loop's projection along its mean normal, in the unit squared. No surface that closes it has less.
        centre: Mean of the loop's vertices, (3,).
    """

    loop: NDArray[np.int64]
    area: float
    centre: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Coverage:
    """What was seen of a mesh.

    Attributes:
        views: How many views saw each vertex, (V,).
        best_cosine: Of the angle between normal and line of sight, in the view that saw each vertex best, (V,): 1
            head-on, to 0 edge-on; 0 where none saw it.
        areas: What each vertex stands for, (V,), in the unit squared; their sum is the mesh's area.
        holes: The gaps beside the camera's way.
        unit: Of the mesh.
    """

    views: NDArray[np.int32]
    best_cosine: NDArray[np.float32]
    areas: NDArray[np.float64]
    holes: tuple[Hole, ...]
    unit: Unit

    @property
    def best_angle_degrees(self) -> NDArray[np.float64]:
        """Between surface and line of sight in the view that saw each vertex best, (V,): 90 head-on, to 0 edge-on."""
        degrees: NDArray[np.float64] = np.degrees(np.arcsin(np.clip(self.best_cosine.astype(np.float64), 0, 1)))
        return degrees

    def seen_area(self, min_views: int = 1) -> float:
        """The area that at least so many views saw, in the unit squared."""
        return float(self.areas[self.views >= min_views].sum())

    def seen_share(self, min_views: int = 1) -> float:
        """The share of the mesh's area that at least so many views saw."""
        return self.seen_area(min_views) / float(self.areas.sum())

    @property
    def unseen_area(self) -> float:
        """An estimate of the area missing beside the camera's way, in the unit squared.

        It is the area of the holes. Their rims in a fused mesh lie up to a voxel too far out, which makes small holes
        too great; a hole in a bent wall is greater than its projection. It knows nothing of what has no rim in the
        mesh: a pouch behind a fold that was seen whole, or anything before the way's start and after its end.
        """
        return sum(hole.area for hole in self.holes)

    @property
    def estimated_share(self) -> float:
        """What was seen, out of that and `unseen_area`: no better an estimate than that is."""
        seen = self.seen_area()
        return seen / (seen + self.unseen_area) if seen else 0.0


def coverage(mesh: Mesh, views: Iterable[DepthView], tolerance: float) -> Coverage:
    """Count for each vertex the views that saw it, one view at a time.

    A view saw a vertex that faces it and lies at the depth that the view has there.

    Args:
        mesh: The surface, in the views' world.
        views: In order of time: the holes are looked for beside the way from the first to the last.
        tolerance: How far a vertex may lie from the surface that a view saw, in the mesh's unit; two voxels of the TSDF
            that made the mesh are a good choice.
    """
    counts = np.zeros(len(mesh.vertices), dtype=np.int32)
    best = np.zeros(len(mesh.vertices), dtype=np.float32)
    way = []
    for view in views:
        cosine = seen_cosine(mesh, view, tolerance)
        counts += cosine > 0
        best = np.maximum(best, cosine)
        way.append(view.pose[:3, 3])
    return Coverage(counts, best, vertex_areas(mesh), tuple(holes(mesh, np.array(way).reshape(-1, 3))), mesh.unit)


def seen_cosine(mesh: Mesh, view: DepthView, tolerance: float) -> NDArray[np.float32]:
    """The cosine between normal and line of sight of each vertex that a view saw, 0 for the others, (V,)."""
    height, width = view.depth.shape
    points = to_camera(mesh.vertices, view.pose)
    z = np.where(points[:, 2] > 0, points[:, 2], np.nan)
    with np.errstate(invalid="ignore"):
        u, v = (view.intrinsics @ points.T)[:2] / z
        inside = np.flatnonzero((u > -0.5) & (u < width - 0.5) & (v > -0.5) & (v < height - 0.5))
    at = np.rint(v[inside]).astype(np.int64), np.rint(u[inside]).astype(np.int64)
    planes = tangent_planes(view)
    off = np.einsum("nc,nc->n", planes.normals[at], points[inside] - planes.points[at])
    normals = mesh.normals[inside] @ view.pose[:3, :3]
    facing = -np.einsum("nc,nc->n", normals, points[inside]) / np.linalg.norm(points[inside], axis=1)
    cosine = np.zeros(len(points), dtype=np.float32)
    cosine[inside] = np.where((planes.cosine[at] > 0) & (np.abs(off) <= tolerance), np.maximum(facing, 0), 0)
    return cosine


def holes(mesh: Mesh, way: NDArray[np.float64]) -> list[Hole]:
    """The gaps in a surface beside a camera's way, the greatest first.

    A rim that the way runs through is an opening, by which the camera came or left; one nearest to the way's first or
    last position is where the recording ends. Neither is a hole.

    Args:
        mesh: The surface.
        way: The camera's positions in order of time, (N, 3).
    """
    found = []
    for loop in boundary_loops(mesh.faces):
        rim = mesh.vertices[loop].astype(np.float64)
        centre = rim.mean(axis=0)
        if _beside(centre, way) and not _runs_through(way, rim, centre):
            vector = np.cross(rim - centre, np.roll(rim, -1, axis=0) - centre).sum(axis=0) / 2
            found.append(Hole(loop, float(np.linalg.norm(vector)), centre))
    return sorted(found, key=lambda hole: -hole.area)


def boundary_loops(faces: NDArray[np.integer]) -> list[NDArray[np.int64]]:
    """The rims of a surface: vertices in order, along edges that more faces (F, 3) run through one way than the other.

    Those are the edges that one face alone has; where faces overlap, an edge may have three.
    """
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).astype(np.int64)
    base = int(edges.max(initial=0)) + 1
    there, count = np.unique(edges[:, 0] * base + edges[:, 1], return_counts=True)
    start, end = np.divmod(there, base)
    back = end * base + start
    at = np.searchsorted(there, back).clip(max=len(there) - 1)
    more = count - np.where(there[at] == back, count[at], 0)  # as many come to each vertex as leave it: all loops close
    follows: dict[int, list[int]] = defaultdict(list)
    for first, second in np.repeat(np.stack([start, end], 1), more.clip(0), axis=0).tolist():
        follows[first].append(second)
    loops = []
    for first in list(follows):
        while follows[first]:
            loop = [first]
            while (following := follows[loop[-1]].pop()) != first:
                loop.append(following)
            loops.append(np.array(loop, dtype=np.int64))
    return loops


def _beside(point: NDArray[np.float64], way: NDArray[np.float64]) -> bool:
    """Whether a point is nearest to the way somewhere between its ends."""
    if len(way) < 2:
        return False
    step = np.diff(way, axis=0)
    along = np.einsum("nc,nc->n", point - way[:-1], step) / np.maximum(np.square(step).sum(axis=1), 1e-300)
    distance = np.linalg.norm(way[:-1] + np.clip(along, 0, 1)[:, None] * step - point, axis=1)
    nearest = int(distance.argmin())
    before = nearest == 0 and along[0] <= 0
    after = nearest == len(step) - 1 and along[-1] >= 1
    return not before and not after


def _runs_through(way: NDArray[np.float64], rim: NDArray[np.float64], centre: NDArray[np.float64]) -> bool:
    """Whether the way crosses the fan of triangles between a rim and its centre.

    Möller & Trumbore, "Fast, Minimum Storage Ray/Triangle Intersection", Journal of Graphics Tools 1997.
    """
    a, b = rim - centre, np.roll(rim, -1, axis=0) - centre  # (n, 3)
    normal = np.cross(a, b)
    for start, step in zip(way[:-1] - centre, np.diff(way, axis=0), strict=True):
        slope = -normal @ step
        slope = np.where(slope == 0, np.nan, slope)
        moment = np.cross(start, step)
        along = normal @ start / slope
        first, second = b @ moment / slope, -(a @ moment) / slope
        if ((along >= 0) & (along <= 1) & (first >= 0) & (second >= 0) & (first + second <= 1)).any():
            return True
    return False
