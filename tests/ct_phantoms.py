"""A head in a skull with a neck, and the same brain as an MRI atlas without one."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medssl.labels.lut import LabelSet, Structure

HEAD_SPACING_MM = 4.0
REGIONS = LabelSet(
    "regions",
    (
        Structure(1, "Left-Nucleus", (200, 40, 40)),
        Structure(2, "Right-Nucleus", (200, 40, 40)),
        Structure(3, "Ventricle", (40, 40, 200)),
    ),
)
_SHAPE = (48, 56, 50)


class Head(NamedTuple):
    """Hounsfield numbers, T1-like intensities of the brain alone, its mask, the regions' ids, voxel index to mm."""

    hu: NDArray[np.int16]
    t1: NDArray[np.float32]
    brain: NDArray[np.bool_]
    labels: NDArray[np.uint8]
    affine: NDArray[np.float64]


def head(seed: int = 0, dark: int = 0, size: float = 1.0) -> Head:
    """Make a head in orientation RAS; the region of id ``dark`` is 10 Hounsfield numbers darker than it should be."""
    rng = np.random.default_rng(seed)
    middle = (np.array(_SHAPE) - 1) / 2 + [0, 0, 3]
    x, y, z = (np.indices(_SHAPE) - middle.reshape(3, 1, 1, 1)) * HEAD_SPACING_MM / size

    def ball(centre: tuple[float, float, float], *radii: float) -> NDArray[np.bool_]:
        placed = zip((x, y, z), centre, radii, strict=True)
        return np.asarray(sum(((axis - at) / radius) ** 2 for axis, at, radius in placed) < 1)

    brain = ball((0, 0, 0), 64, 78, 58)
    labels = np.zeros(_SHAPE, np.uint8)
    labels[ball((-24, 8, 0), 14, 22, 16)], labels[ball((24, 8, 0), 14, 22, 16)] = 1, 2
    labels[ball((0, -8, 8), 8, 34, 14)] = 3
    grey = brain & ~ball((0, 0, 0), 54, 68, 48)
    canal = (x**2 + (y + 20) ** 2 < 12**2) & (z < 0)
    hu = np.full(_SHAPE, -1000.0)
    hu[ball((0, 0, 0), 82, 96, 76)] = 30
    hu[ball((0, 0, 0), 76, 90, 70) & ~canal] = 1000
    hu[ball((0, 0, 0), 67, 81, 61)] = 8
    hu[brain], hu[grey | (labels == 1) | (labels == 2)], hu[labels == 3] = 28, 38, 8
    hu[canal & ~brain] = 30
    hu[labels == dark] -= 10 * (dark > 0)
    t1 = np.zeros(_SHAPE)
    t1[brain], t1[grey | (labels == 1) | (labels == 2)], t1[labels == 3] = 220, 150, 50
    affine = np.diag([HEAD_SPACING_MM] * 3 + [1.0])
    noisy = (hu + rng.normal(0, 3, _SHAPE)).astype(np.int16)
    t1 = np.where(brain, t1 + rng.normal(0, 5, _SHAPE), 0).astype(np.float32)
    return Head(noisy, t1, brain, labels, affine)
