"""Turn the template into somebody else, labels and all: another shape, another contrast, an uneven coil, and noise.

The shape is a small affine map and a diffeomorphism, the flow of a smooth stationary velocity field by scaling and
squaring (Arsigny et al., "A Log-Euclidean framework for statistics on diffeomorphisms", MICCAI 2006).
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi
from scipy.interpolate import PchipInterpolator

from sample_data.template_labels import template_labels, template_volume

Field = NDArray[np.float32]  # (3, X, Y, Z)
Affine = NDArray[np.float64]  # (4, 4)

SPACING_MM = 2.0
_SHAPE = (88, 112, 96)
_ORIGIN = (-88.0, -130.0, -92.0)  # MNI millimetres of the first voxel
_MARGIN = 2  # voxels of nothing around the brain
_COARSE = 2  # the velocity lives on a grid coarser by this: it is smooth
_SQUARINGS = 6
# Standard deviation of the velocity (mm), and the width of the Gaussian that smooths it (mm): pose, lobes, gyri.
_VELOCITY = ((2.0, 30.0), (1.5, 14.0), (0.6, 8.0))
_TONES = (0.0, 70.0, 130.0, 165.0, 190.0, 215.0, 255.0)  # of the template; tissue lies close together at the upper end
_WHITE = 218.0  # white matter in the template


@dataclass(frozen=True)
class SimulatedScan:
    """A skull-stripped T1 scan at 2 mm, RAS, with its true labels.

    Attributes:
        image: (X, Y, Z), 0 to 255, 0 outside the brain.
        labels: FreeSurfer ids on the same grid.
        affine: Voxel index to mm.
        least_jacobian: The smallest local change of volume of its deformation; above 0, so nothing folds.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    affine: Affine
    least_jacobian: float


def simulate(seed: int) -> SimulatedScan:
    """Make the scan of one subject; the same seed makes the same scan."""
    random = np.random.default_rng(seed)
    displacement = _refined(_flow(_velocity(random)))
    least_jacobian = float(_jacobian(displacement).min())
    if least_jacobian <= 0:
        raise RuntimeError(f"The deformation of seed {seed} folds (Jacobian {least_jacobian:.3f}); make it smoother.")
    template, labels, origin = _template()
    where = _template_voxels(displacement, _affine(random), origin)
    t1 = _sample(template, where)
    ids = _vote(labels, where)
    brain = ndi.binary_opening(_sample((template > 0).astype(np.float32), where) > 0.5)
    box = ndi.find_objects(ndi.binary_dilation(brain, iterations=_MARGIN).astype(np.uint8))[0]
    image = _scanner(t1, brain, random)
    affine = np.diag([SPACING_MM] * 3 + [1.0])
    affine[:3, 3] = np.array(_ORIGIN) + SPACING_MM * np.array([part.start for part in box])
    return SimulatedScan(image[box], np.where(brain, ids, 0)[box], affine, least_jacobian)


@cache
def _template() -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.float64]]:
    t1, affine = template_volume("t1")
    return t1, template_labels(), affine[:3, 3]


def _velocity(random: np.random.Generator) -> Field:
    """A sum of Gaussian random fields, in voxels of the coarse grid."""
    voxel_mm = _COARSE * SPACING_MM
    total = np.zeros((3, *[n // _COARSE for n in _SHAPE]), np.float32)
    for deviation_mm, width_mm in _VELOCITY:
        noise = random.standard_normal(total.shape, dtype=np.float32)
        smooth = ndi.gaussian_filter(noise, (0, *[width_mm / voxel_mm] * 3), mode="wrap")
        total += smooth * (deviation_mm / voxel_mm / smooth.std())
    return total


def _flow(velocity: Field) -> Field:
    """Follow the velocity for one unit of time; returns the displacement."""
    grid = np.indices(velocity.shape[1:], dtype=np.float32)
    displacement: Field = velocity / np.float32(2**_SQUARINGS)
    for _ in range(_SQUARINGS):
        there = grid + displacement
        displacement += np.stack([_sample(part, there, mode="nearest") for part in displacement])
    return displacement


def _refined(displacement: Field) -> Field:
    """Bring a displacement from the coarse grid to the grid of the scan, in its voxels."""
    there = np.indices(_SHAPE) / _COARSE
    return np.stack([_COARSE * _sample(part, there, mode="nearest") for part in displacement])


def _jacobian(displacement: Field) -> NDArray[np.float64]:
    """The determinant of the derivative of x + displacement(x), at each voxel."""
    derivative = np.stack([np.stack(np.gradient(part)) for part in displacement])  # (3, 3, X, Y, Z)
    matrices = np.moveaxis(derivative, (0, 1), (-2, -1)) + np.eye(3)
    return np.asarray(np.linalg.det(matrices))


def _affine(random: np.random.Generator) -> Affine:
    """Turn by some degrees, grow or shrink by some per cent, and shift by some mm about the middle of the brain."""
    x, y, z = np.deg2rad(random.normal(0, 4, 3))
    turn = np.eye(3)
    for angle, (a, b) in ((x, (1, 2)), (y, (0, 2)), (z, (0, 1))):
        step = np.eye(3)
        step[a, a] = step[b, b] = np.cos(angle)
        step[a, b], step[b, a] = -np.sin(angle), np.sin(angle)
        turn = turn @ step
    matrix = np.eye(4)
    matrix[:3, :3] = turn @ np.diag(np.exp(random.normal(0, 0.04, 3)))
    middle = np.array([0.0, -18.0, 5.0])
    matrix[:3, 3] = middle - matrix[:3, :3] @ middle + random.normal(0, 2, 3)
    return matrix


def _template_voxels(displacement: Field, affine: Affine, origin: NDArray[np.float64]) -> Field:
    """For each voxel of the scan, the voxel of the 1 mm template that lies there."""
    moved = (np.indices(_SHAPE) + displacement) * SPACING_MM + np.reshape(_ORIGIN, (3, 1, 1, 1))
    millimetres = np.tensordot(affine[:3, :3], moved, axes=1) + affine[:3, 3].reshape(3, 1, 1, 1)
    return np.asarray(millimetres - origin.reshape(3, 1, 1, 1), np.float32)


def _vote(labels: NDArray[np.uint8], where: Field) -> NDArray[np.uint8]:
    """Carry labels over: the label with the most weight under linear interpolation wins."""
    winner = np.zeros(where.shape[1:], np.uint8)
    most = _sample((labels == 0).astype(np.float32), where)
    for label in np.unique(labels)[1:]:
        weight = _sample((labels == label).astype(np.float32), where)
        winner = np.where(weight > most, label, winner)
        most = np.maximum(weight, most)
    return winner


def _scanner(t1: NDArray[np.float32], brain: NDArray[np.bool_], random: np.random.Generator) -> NDArray[np.uint8]:
    """Another contrast (a random monotone tone curve), an uneven coil (a smooth gain) and noise."""
    steps = np.diff(_TONES) * np.exp(random.normal(0, 0.3, len(_TONES) - 1))
    curve = PchipInterpolator(_TONES, np.concatenate([[0.0], np.cumsum(steps)]))
    gain = ndi.gaussian_filter(random.standard_normal(t1.shape), 40.0 / SPACING_MM, mode="wrap")
    image = curve(np.clip(t1, 0, 255)) * np.exp(0.12 * gain / gain.std())
    image += random.normal(0, 0.02 * curve(_WHITE), t1.shape)
    image *= 110.0 / curve(_WHITE)  # where FreeSurfer puts white matter
    return np.where(brain, np.clip(np.rint(image), 1, 255), 0).astype(np.uint8)


def _sample(volume: NDArray[np.float32], where: NDArray[np.floating], mode: str = "constant") -> NDArray[np.float32]:
    sampled: NDArray[np.float32] = ndi.map_coordinates(volume, where, order=1, mode=mode, prefilter=False)
    return sampled
