"""A branching tube as a signed distance: the free space inside a trunk that forks twice, like a bronchus.

Each tube is a round cone swept along a curve, narrowed by rings; the tubes are joined by a smooth maximum, and the wall
is made bumpy by noise. All of it is sampled once on a grid, and the wall is *defined* as where the cubic spline through
the samples is zero. So one smooth function, quick to look up, is exact for rendering and for meshing alike.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi
from scipy.spatial import cKDTree

from medssl.extras import require_module

Floats = NDArray[np.float64]

SPACING_MM = 0.7  # of the grid; rings and bumps are some millimetres wide
TISSUE_MM = -4.0  # distance that stands for everywhere outside the lumen
FORK_MM = 40.0  # z at which the branches begin to part; their walls meet some 18 mm further on
_STEP_MM = 0.05  # between the points of a centre line
_BEHIND_MM = 16.0  # how far the trunk begins behind z = 0
_RADII_MM = (9.0, 7.2, 5.7)  # of trunk, branches and twigs: by Murray's law r^3 is shared
_LENGTHS_MM = (32.0, 22.0)  # of branches and twigs
_TURN_MM, _TURN_DEG = 10.0, (34.0, 44.0)  # over which a branch turns away, and by how much
_BLEND_MM = 3.0  # width of the seam where tubes join
_BUMPS_MM = ((0.22, 2.6), (0.35, 6.0))  # height and size of the wall's unevenness
_GRADIENT_STEP_MM = 0.02
_EXACT_MM = 1e-6


class Noise:
    """A smooth random function of space, between about -1 and 1, the same everywhere for the same generator.

    Args:
        random: Draws its values on a lattice of 32^3, which repeats.
    """

    def __init__(self, random: np.random.Generator) -> None:
        self.lattice = random.standard_normal((32, 32, 32), dtype=np.float32)

    def __call__(self, points: Floats, size_mm: float) -> Floats:
        """Look up points (N, 3), with details of a size."""
        # Oblique to the axes, so that repeats do not line up with the tube.
        places = (points @ _OBLIQUE / size_mm).T
        value: Floats = ndi.map_coordinates(
            self.lattice, places, np.float64, order=3, mode="grid-wrap", prefilter=False
        )
        return 1.2 * value


_OBLIQUE = np.linalg.qr(np.array([[2.0, -1.0, 0.7], [1.0, 2.0, -0.4], [-0.3, 0.6, 2.0]]))[0]


@dataclass(frozen=True)
class Tube:
    """One tube of the tree.

    Attributes:
        centre: Points of its centre line, (N, 3), ``_STEP_MM`` apart.
        tangent: Unit vectors along it, (N, 3).
        radius: Without rings, (N,), mm.
        back: Unit vector towards the side that has no rings, as a windpipe's back has none.
        ring_mm: From one ring to the next.
    """

    centre: Floats
    tangent: Floats
    radius: Floats
    back: Floats
    ring_mm: float

    def distance(self, points: Floats) -> Floats:
        """Distance of points (N, 3) to the wall, mm, positive inside."""
        _, nearest = self._tree.query(points)
        offset = points - self.centre[nearest]
        along = np.einsum("ij,ij->i", offset, self.tangent[nearest])
        along = np.clip(along, -_STEP_MM, _STEP_MM)  # further only beyond the ends, which are round
        from_centre = offset - along[:, None] * self.tangent[nearest]
        rho = np.linalg.norm(from_centre, axis=1)
        arc = nearest * _STEP_MM + along
        side = from_centre @ self.back / np.maximum(rho, 1e-9)
        rings = np.exp(3.0 * (np.cos(2 * np.pi * arc / self.ring_mm + 0.8 * np.sin(arc / 5.0)) - 1))
        height = 0.085 * self.radius[nearest] * (0.5 - 0.5 * np.tanh(3 * side - 1.2))
        distance: Floats = self.radius[nearest] - height * rings - rho
        return distance

    @cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(self.centre)


class BranchingTube:
    """The free space of the whole tree; lengths in mm.

    Args:
        seed: Of its shape; the same seed makes the same tube.
    """

    def __init__(self, seed: int) -> None:
        random = np.random.default_rng((seed, 0))
        self.axis = Axis(random)
        self.tubes = tuple(_tree(self.axis, random))
        centres = np.concatenate([tube.centre for tube in self.tubes])
        margin = max(tube.radius.max() for tube in self.tubes) - TISSUE_MM + SPACING_MM
        self.origin: Floats = centres.min(axis=0) - margin
        shape = np.ceil((centres.max(axis=0) + margin - self.origin) / SPACING_MM).astype(int) + 1
        self.samples = self._sampled(shape, Noise(random))
        self._spline: NDArray[np.float32] = ndi.spline_filter(self.samples, order=3, output=np.float32)

    @property
    def route(self) -> tuple[Floats, Floats]:
        """The centre line (N, 3) through the trunk from z = 0 on and one branch, and the radius at each point (N,)."""
        trunk, branch = self.tubes[0], self.tubes[1]
        first = round(_BEHIND_MM / _STEP_MM)
        return (
            np.concatenate([trunk.centre[first:], branch.centre[1:]]),
            np.concatenate([trunk.radius[first:], branch.radius[1:]]),
        )

    def distance(self, points: Floats) -> Floats:
        """About the distance of points (N, 3) to the wall, mm: positive inside, negative in tissue, 0 on the wall."""
        places = ((points - self.origin) / SPACING_MM).T
        distance: Floats = ndi.map_coordinates(
            self._spline, places, np.float64, order=3, mode="nearest", prefilter=False
        )
        return distance

    def wall_points(self) -> Floats:
        """Points all over the wall, (N, 3), denser than the grid."""
        near = np.argwhere(np.abs(self.samples) < 1.5 * SPACING_MM)
        points = onto_zero(self.distance, near * SPACING_MM + self.origin)
        return points[np.abs(self.distance(points)) < _EXACT_MM]

    def surface(self) -> tuple[Floats, NDArray[np.int32]]:
        """Mesh the wall: marching cubes on the grid, vertices then moved onto the exact wall.

        Returns:
            Vertices (V, 3), mm, and faces (F, 3), counter-clockwise where seen from the lumen.

        Raises:
            InputError: scikit-image is not installed.
        """
        measure = require_module("skimage.measure", "endoscopy")
        vertices, faces, _, _ = measure.marching_cubes(self.samples, 0.0)
        return onto_zero(self.distance, vertices * SPACING_MM + self.origin), faces.astype(np.int32)

    def _sampled(self, shape: NDArray[np.int64], noise: Noise) -> NDArray[np.float32]:
        distance = np.full(shape, TISSUE_MM, np.float32)
        for tube in self.tubes:
            box = self._box(tube)
            axes = (np.arange(part.start, part.stop) for part in box)
            grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1) * SPACING_MM + self.origin
            here = np.maximum(tube.distance(grid.reshape(-1, 3)), TISSUE_MM).reshape(grid.shape[:3])
            distance[box] = smooth_maximum(distance[box], here, _BLEND_MM)
        near = np.abs(distance) < 2.5  # bumps further off would change nothing
        points = np.argwhere(near) * SPACING_MM + self.origin
        fade = 1 - (np.abs(distance[near]) / 2.5) ** 2
        distance[near] += fade * sum(height * noise(points, size) for height, size in _BUMPS_MM)
        return distance

    def _box(self, tube: Tube) -> tuple[slice, ...]:
        """The part of the grid where a tube's distance is above ``TISSUE_MM``."""
        reach = tube.radius.max() - TISSUE_MM
        low = np.floor((tube.centre.min(axis=0) - reach - self.origin) / SPACING_MM).astype(int)
        high = np.ceil((tube.centre.max(axis=0) + reach - self.origin) / SPACING_MM).astype(int)
        return tuple(slice(a, b + 1) for a, b in zip(low.tolist(), high.tolist(), strict=True))


class Axis:
    """The trunk's centre line as a function of z, which goes on, smooth, beyond its ends.

    Args:
        random: Draws its bends.
    """

    def __init__(self, random: np.random.Generator) -> None:
        self.height_mm = random.uniform(1.0, 2.2, (2, 2))
        self.rate = 1 / random.uniform([13.0, 22.0], [17.0, 30.0], (2, 2))
        self.phase = random.uniform(0, 2 * np.pi, (2, 2))

    def __call__(self, z: Floats) -> Floats:
        """The centre line's x and y at each z, (..., 2)."""
        waves = self.height_mm * np.sin(z[..., None, None] * self.rate + self.phase)
        centre: Floats = waves.sum(axis=-1)
        return centre


def smooth_maximum(a: NDArray[np.float32], b: Floats, width: float) -> NDArray[np.float32]:
    """The greater of two distances, rounded where they differ by less than ``width``; above both by up to width / 4."""
    seam = np.maximum(width - np.abs(a - b), 0) / width
    return np.asarray(np.maximum(a, b) + seam**2 * width / 4, np.float32)


def gradient(function: Callable[[Floats], Floats], points: Floats) -> Floats:
    """The gradient of a function of points (N, 3), by central differences, (N, 3)."""
    steps = _GRADIENT_STEP_MM * np.eye(3)
    ahead, behind = (
        function((points + steps[:, None]).reshape(-1, 3)),
        function((points - steps[:, None]).reshape(-1, 3)),
    )
    slope: Floats = ((ahead - behind) / (2 * _GRADIENT_STEP_MM)).reshape(3, -1).T
    return slope


def onto_zero(function: Callable[[Floats], Floats], points: Floats) -> Floats:
    """Bring points (N, 3) to where a function of them is 0, by Newton's method along its gradient."""
    for _ in range(3):
        slope = gradient(function, points)
        points = points - slope * (function(points) / np.maximum((slope**2).sum(axis=1), 1e-3))[:, None]
    return points


def _tree(axis: Axis, random: np.random.Generator) -> Iterator[Tube]:
    """The trunk, then its two branches, then each branch's two twigs."""
    z = np.linspace(-_BEHIND_MM, FORK_MM, 2000)
    line = np.column_stack([axis(z), z])
    arc = np.concatenate([[0.0], np.linalg.norm(np.diff(line, axis=0), axis=1).cumsum()])
    even = np.arange(0, arc[-1], _STEP_MM)
    centre = np.column_stack([np.interp(even, arc, part) for part in line.T])
    trunk = _tube(centre, _RADII_MM[0], random)
    yield trunk
    azimuth = random.uniform(0, 2 * np.pi)
    branches = [_branch(trunk, azimuth + half_turn, 0, random) for half_turn in (0, np.pi)]
    yield from branches
    for branch in branches:
        for quarter in (0.5, 1.5):
            yield _branch(branch, azimuth + quarter * np.pi + random.uniform(-0.5, 0.5), 1, random)


def _branch(parent: Tube, azimuth: float, generation: int, random: np.random.Generator) -> Tube:
    """A tube that leaves the parent's end, turning away from its direction towards an azimuth around it."""
    along = parent.tangent[-1]
    across = np.cross(along, [1.0, 0.0, 0.0])
    across /= np.linalg.norm(across)
    lateral = np.cos(azimuth) * np.cross(across, along) + np.sin(azimuth) * across
    arc = np.arange(_STEP_MM, _LENGTHS_MM[generation], _STEP_MM)
    share = np.minimum(arc / _TURN_MM, 1.0)
    angle = np.deg2rad(random.uniform(*_TURN_DEG)) * share * share * (3 - 2 * share)
    bend = 0.25 * random.uniform(-1, 1) * np.sin(arc / 9.0)
    heading = np.outer(np.cos(angle), along) + np.outer(np.sin(angle), lateral)
    heading += np.outer(bend, np.cross(along, lateral))
    heading /= np.linalg.norm(heading, axis=1, keepdims=True)
    centre = parent.centre[-1] + _STEP_MM * heading.cumsum(axis=0)
    return _tube(centre, _RADII_MM[generation + 1] * random.uniform(0.94, 1.06), random)


def _tube(centre: Floats, radius_mm: float, random: np.random.Generator) -> Tube:
    tangent = np.gradient(centre, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    arc = np.arange(len(centre)) * _STEP_MM
    radius = radius_mm * (1 + 0.05 * np.sin(arc / 7.0 + random.uniform(0, 2 * np.pi)))
    back = np.cross(tangent.mean(axis=0), random.standard_normal(3))
    ring_mm = 0.5 * radius_mm * random.uniform(0.9, 1.1)
    return Tube(centre, tangent, radius, back / np.linalg.norm(back), ring_mm)
