"""Simulated CT in Hounsfield numbers: torsos made of ellipsoids, and heads made of the simulated brains.

A torso has a few organs with TotalSegmentator's numbers, in places and sizes of its own, and two label maps: the truth,
and a weak one with borders that are a little off. A head is the deformed template of ``simulation`` with tissue in
Hounsfield numbers, inside a skull, and an infarct on one side.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage as ndi

from sample_data.simulation import SPACING_MM, Affine, simulate
from sample_data.template_labels import CORTEX, FOURTH, PUTAMEN, STRUCTURES, THIRD, VENTRICLE, WHITE

TORSO_SPACING_MM = 4.0
_TORSO_SHAPE = (84, 64, 72)
_AIR, _FAT, _FLUID, _BONE, _SCALP = -1000.0, -100.0, 8.0, 900.0, 30.0

# TotalSegmentator's number: centre and radii in mm (right, front, up from the middle of the torso), Hounsfield number.
ORGANS: dict[int, tuple[tuple[float, float, float], tuple[float, float, float], float]] = {
    31: ((0, -58, 0), (24, 20, 150), 220),  # a spine in one piece, in the place of vertebra L1
    52: ((-8, -28, 0), (11, 11, 150), 130),  # aorta
    5: ((62, 10, 62), (66, 58, 52), 95),  # liver
    6: ((-48, 34, 58), (40, 32, 42), 25),  # stomach
    1: ((-88, -30, 62), (30, 36, 40), 115),  # spleen
    2: ((62, -46, -8), (28, 24, 46), 165),  # right kidney
    3: ((-60, -46, 4), (28, 24, 46), 165),  # left kidney
    21: ((0, 20, -100), (36, 32, 28), 6),  # urinary bladder
}

_WHITE_HU, _GREY_HU = 28.0, 37.0
_TWIN = {left: right for _, left, right, _ in STRUCTURES}
_GREY = [
    id_
    for name, left, right, _ in STRUCTURES
    if name in ("Cerebral-Cortex", "Cerebellum-Cortex", "Thalamus", "Caudate", "Putamen", "Hippocampus")
    for id_ in (left, right)
]
_VENTRICLES = (VENTRICLE, _TWIN[VENTRICLE], THIRD, FOURTH)
_INFARCTED = (CORTEX, WHITE, PUTAMEN)
_SKULL_MM, _SCALP_MM, _SUBARACHNOID_MM = 7.0, 5.0, 3.0
_INFARCT_HU, _INFARCT_MM = -9.0, 20.0


@dataclass(frozen=True)
class SimulatedTorso:
    """A torso, RAS: Hounsfield numbers (X, Y, Z), its true and its weak labels, and voxel index to mm."""

    hu: NDArray[np.int16]
    labels: NDArray[np.uint8]
    weak: NDArray[np.uint8]
    affine: Affine


@dataclass(frozen=True)
class SimulatedHead:
    """A head, RAS: Hounsfield numbers, FreeSurfer ids, the infarct with its side, and a mask such as a model draws."""

    hu: NDArray[np.int16]
    labels: NDArray[np.uint8]
    infarct: NDArray[np.uint8]
    predicted: NDArray[np.uint8]
    side: str
    affine: Affine


def torso(seed: int) -> SimulatedTorso:
    """Make the torso of one subject; the same seed makes the same one."""
    random = np.random.default_rng(seed)
    places = _bent_millimetres(random)
    body = _inside(places, (0, 0, 0), (150, 108, 1000))
    muscle = _inside(places, (0, 0, 0), (132, 92, 1000))
    hu = np.where(muscle, 45.0, np.where(body, _FAT, _AIR)).astype(np.float32)
    labels, weak = np.zeros(_TORSO_SHAPE, np.uint8), np.zeros(_TORSO_SHAPE, np.uint8)
    for organ, (centre, radii, density) in ORGANS.items():
        where = np.array(centre) + random.normal(0, 5, 3)
        size = np.array(radii) * np.exp(random.normal(0, 0.08, 3))
        mask = _inside(places, where, size) & muscle
        labels[mask] = organ
        hu[mask] = density + random.normal(0, 6)
        weak[_inside(places, where + random.normal(0, 2, 3), size * random.normal(1, 0.06, 3)) & muscle] = organ
    hu = ndi.gaussian_filter(hu, 0.6) + _noise(random, _TORSO_SHAPE, 12.0)
    affine = np.diag([TORSO_SPACING_MM] * 3 + [1.0])
    return SimulatedTorso(np.rint(hu).astype(np.int16), labels, weak, affine)


def head(seed: int) -> SimulatedHead:
    """Make the head of one subject; even seeds have the infarct on the left."""
    random = np.random.default_rng(seed)
    brain = simulate(seed)
    rims = np.cumsum([_SUBARACHNOID_MM, _SKULL_MM, _SCALP_MM])
    margin = int(np.ceil(rims[-1] / SPACING_MM)) + 2
    labels = np.pad(brain.labels, margin)
    inside = ndi.binary_fill_holes(ndi.binary_closing(np.pad(brain.image > 0, margin), iterations=3))
    away = ndi.distance_transform_edt(~inside) * SPACING_MM
    hu = np.select([away <= rim for rim in rims], [_FLUID, _BONE, _SCALP], _AIR).astype(np.float32)
    hu[labels > 0] = _WHITE_HU
    hu[np.isin(labels, _GREY)] = _GREY_HU
    hu[np.isin(labels, _VENTRICLES)] = _FLUID
    side = "left" if seed % 2 == 0 else "right"
    putamen = PUTAMEN if side == "left" else _TWIN[PUTAMEN]
    tissue = np.isin(labels, [id_ if side == "left" else _TWIN[id_] for id_ in _INFARCTED])
    centre = np.argwhere(labels == putamen).mean(axis=0)
    infarct = (_ball(labels.shape, centre, _INFARCT_MM) & tissue).astype(np.uint8)
    shifted = centre + random.normal(0, 2.0 / SPACING_MM, 3)
    predicted = (_ball(labels.shape, shifted, 0.9 * _INFARCT_MM) & tissue).astype(np.uint8)
    hu = ndi.gaussian_filter(hu + _INFARCT_HU * infarct, 0.5) + _noise(random, labels.shape, 4.0)
    affine = brain.affine.copy()
    affine[:3, 3] -= SPACING_MM * margin
    return SimulatedHead(np.rint(hu).astype(np.int16), labels, infarct, predicted, side, affine)


def _bent_millimetres(random: np.random.Generator) -> NDArray[np.float32]:
    """For each voxel, millimetres from the torso's middle in a body that is bent a little, (3, X, Y, Z)."""
    middle = (np.array(_TORSO_SHAPE) - 1) / 2
    places = (np.indices(_TORSO_SHAPE) - middle.reshape(3, 1, 1, 1)) * TORSO_SPACING_MM
    bend = ndi.gaussian_filter(random.standard_normal(places.shape), (0, *[30 / TORSO_SPACING_MM] * 3), mode="wrap")
    return np.asarray(places + 5.0 * bend / bend.std(), np.float32)


def _inside(places: NDArray[np.float32], centre: ArrayLike, radii: ArrayLike) -> NDArray[np.bool_]:
    centred = places - np.reshape(np.asarray(centre), (3, 1, 1, 1))
    inside: NDArray[np.bool_] = np.square(centred / np.reshape(np.asarray(radii), (3, 1, 1, 1))).sum(axis=0) < 1
    return inside


def _ball(shape: tuple[int, ...], centre: NDArray[np.float64], radius_mm: float) -> NDArray[np.bool_]:
    apart = (np.indices(shape) - np.reshape(centre, (3, 1, 1, 1))) * SPACING_MM
    near: NDArray[np.bool_] = np.square(apart).sum(axis=0) < radius_mm**2
    return near


def _noise(random: np.random.Generator, shape: tuple[int, ...], deviation_hu: float) -> NDArray[np.float32]:
    """The grain of a reconstruction: noise that neighbours share a little."""
    grain = ndi.gaussian_filter(random.standard_normal(shape, dtype=np.float32), 0.5)
    return np.asarray(grain * (deviation_hu / grain.std()), np.float32)
