"""The look of a wet, pink wall: blood vessels that grow over it and fork, patches, granules, and fine unevenness."""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from sample_data.tube import BranchingTube, Floats, Noise, gradient

_PALE = np.array([0.78, 0.40, 0.31])  # reflected shares of red, green and blue
_RED = np.array([0.66, 0.19, 0.15])
_BLOOD = np.array([0.5, 1.9, 1.6])  # how strongly a vessel absorbs each colour
_PATCHES_MM = ((0.7, 5.0), (0.5, 1.8))  # contrast and size
_GRANULES = ((0.16, 0.55), (0.13, 0.28))
_VESSELS = 70
_VESSEL_MM = (0.10, 0.26)  # half width of a vessel at its root
_THINNEST_MM = 0.045
_GROWTH_MM = 0.12  # step of growth
_TAPER_MM = 26.0  # over which a vessel thins by e
_FORKS_PER_MM = 0.16
_TURNING, _STEADY = 0.05, 0.85  # change of direction at each step, radians, and the share of it that lasts
_MOST_POINTS = 200_000
_LEAN = ((0.2, 0.9), (0.22, 0.3))  # slope and size of the film's ripples, mm; it tilts the shading and moves nothing


class Mucosa:
    """The colour of each point of a wall.

    Args:
        tube: Whose wall.
        seed: Of the look; the same seed gives the same look.
    """

    def __init__(self, tube: BranchingTube, seed: int) -> None:
        random = np.random.default_rng((seed, 1))
        self._coarse, self._fine = Noise(random), Noise(random)
        self._film = [Noise(random) for _ in range(3)]
        self._points, self._headings, self._half_widths = _grow(tube, random)
        self._nearest = cKDTree(self._points)

    def albedo(self, points: Floats, footprint_mm: Floats) -> Floats:
        """Share of red, green and blue that the wall reflects.

        Args:
            points: On the wall, (N, 3).
            footprint_mm: Width of what a pixel sees there, (N,); finer details are averaged away.
        """
        patches = 0.5 + sum(weight * self._coarse(points, size) for weight, size in _PATCHES_MM)
        mixed = np.clip(patches, 0, 1)[:, None]
        grain = 1 + sum(
            weight * self._fine(points, size) / (1 + (footprint_mm / size) ** 4) for weight, size in _GRANULES
        )
        blood = np.exp(-self._blood(points, footprint_mm)[:, None] * _BLOOD)
        colour: Floats = ((1 - mixed) * _PALE + mixed * _RED) * blood * np.clip(grain, 0.4, 1.6)[:, None]
        return np.clip(colour, 0, 1)

    def tilt(self, points: Floats) -> Floats:
        """How the wet film's surface leans away from the wall's, by which to shift unit normals, (N, 3)."""
        lean = (sum(weight * noise(points, size) for weight, size in _LEAN) for noise in self._film)
        return np.stack(list(lean), axis=1)

    def _blood(self, points: Floats, footprint_mm: Floats) -> Floats:
        """How much vessel is looked through, (N,), 0 to about 1."""
        reach = 3 * _VESSEL_MM[1]
        distance, nearest = self._nearest.query(points, k=4, distance_upper_bound=reach)
        found = np.isfinite(distance)
        nearest = np.where(found, nearest, 0)
        offset = points[:, None] - self._points[nearest]  # (N, 4, 3)
        heading = self._headings[nearest]
        along = np.clip((offset * heading).sum(axis=-1), -_GROWTH_MM, _GROWTH_MM)
        aside = np.linalg.norm(offset - along[..., None] * heading, axis=-1)
        half_width = self._half_widths[nearest]
        seen = np.maximum(half_width, 0.5 * footprint_mm[:, None])
        profile = np.exp(-((aside / seen) ** 2)) * half_width / seen * (0.4 + 1.6 * half_width)
        blood: Floats = np.where(found, profile, 0).max(axis=1)
        return blood


def _grow(tube: BranchingTube, random: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """Let vessels creep over the wall, turn, thin and fork; returns points, directions and half widths."""
    wall = tube.wall_points()
    tips = wall[random.integers(0, len(wall), _VESSELS)]
    headings = random.standard_normal(tips.shape)
    widths = random.uniform(*_VESSEL_MM, len(tips))
    turning = np.zeros(len(tips))
    grown: list[tuple[Floats, Floats, Floats]] = []
    while len(tips) and sum(len(points) for points, _, _ in grown) < _MOST_POINTS:
        normals = gradient(tube.distance, tips)
        slope = (normals**2).sum(axis=1, keepdims=True)
        tips = tips - normals * (tube.distance(tips)[:, None] / slope)
        normals /= np.sqrt(slope)
        headings = _unit(headings - (headings * normals).sum(axis=1, keepdims=True) * normals)
        grown.append((tips, headings, widths))
        turning = _STEADY * turning + _TURNING * random.standard_normal(len(tips))
        headings = _unit(headings + turning[:, None] * np.cross(normals, headings))
        widths = widths * np.exp(-_GROWTH_MM / _TAPER_MM)
        forks = random.random(len(tips)) < _FORKS_PER_MM * _GROWTH_MM
        side = np.where(random.random(forks.sum()) < 0.5, -1.0, 1.0) * random.uniform(0.6, 1.2, forks.sum())
        aside = _unit(headings[forks] + side[:, None] * np.cross(normals[forks], headings[forks]))
        tips = np.concatenate([tips + _GROWTH_MM * headings, tips[forks] + _GROWTH_MM * aside])
        headings = np.concatenate([headings, aside])
        turning = np.concatenate([turning, np.zeros(forks.sum())])
        widths = np.concatenate([np.where(forks, 0.88, 1.0) * widths, 0.66 * widths[forks]])
        alive = widths > _THINNEST_MM
        tips, headings, turning, widths = tips[alive], headings[alive], turning[alive], widths[alive]
    points, directions, half_widths = (np.concatenate(part) for part in zip(*grown, strict=True))
    return points, directions, half_widths


def _unit(vectors: NDArray[np.float64]) -> Floats:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, 1e-9))
