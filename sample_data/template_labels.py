"""Name the structures of the ICBM 152 template from its T1 image, its tissue maps and geometry.

The template (2009a, symmetric, 1 mm, as the nilearn package carries it) has no labels, so they are drawn here: its grey
and white matter maps give the tissue, a watershed finds the dark gap under the tentorium, and each nucleus is what the
right tissue fills of a rough shape (tubes and ellipsoids) in MNI coordinates. The template mirrors itself, so the left
half is labelled and mirrored. The result is meant as the truth of a simulation, not as an atlas for real scans.
"""

from dataclasses import dataclass
from importlib.resources import as_file, files
from itertools import pairwise

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage as ndi

from medssl.data.volumes import read_volume

Mask = NDArray[np.bool_]
Image = NDArray[np.float32]
Point = tuple[float, float, float]
Ball = tuple[float, float, float, float]  # centre and radius, mm

# FreeSurfer's ids: name, left, right (the same where the structure crosses the midline), colour.
STRUCTURES: tuple[tuple[str, int, int, tuple[int, int, int]], ...] = (
    ("Cerebral-White-Matter", 2, 41, (245, 245, 245)),
    ("Cerebral-Cortex", 3, 42, (205, 62, 78)),
    ("Lateral-Ventricle", 4, 43, (120, 18, 134)),
    ("Cerebellum-White-Matter", 7, 46, (220, 248, 164)),
    ("Cerebellum-Cortex", 8, 47, (230, 148, 34)),
    ("Thalamus", 10, 49, (0, 118, 14)),
    ("Caudate", 11, 50, (122, 186, 220)),
    ("Putamen", 12, 51, (236, 13, 176)),
    ("3rd-Ventricle", 14, 14, (204, 182, 142)),
    ("4th-Ventricle", 15, 15, (42, 204, 164)),
    ("Brain-Stem", 16, 16, (119, 159, 176)),
    ("Hippocampus", 17, 53, (220, 216, 20)),
    ("VentralDC", 28, 60, (165, 42, 42)),
)
WHITE, CORTEX, VENTRICLE, CEREBELLUM_WHITE, CEREBELLUM_CORTEX = 2, 3, 4, 7, 8
THALAMUS, CAUDATE, PUTAMEN, THIRD, FOURTH, STEM, HIPPOCAMPUS, VENTRAL_DC = 10, 11, 12, 14, 15, 16, 17, 28

_MIDLINE = 98  # the voxel of x = 0
_LEFT_BRAIN = np.s_[24 : _MIDLINE + 1, 24:212, :158]
_SMALLEST_PIECE = 30  # voxels; smaller pieces go to what surrounds them


def template_volume(name: str) -> tuple[Image, NDArray[np.float64]]:
    """Read one of nilearn's packaged maps ("t1", "gm" or "wm", 0 to 255 at 1 mm, RAS) and its affine."""
    packaged = files("nilearn.datasets.data") / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
    with as_file(packaged) as path:
        volume = read_volume(path)
    return volume.data.astype(np.float32), volume.affine


def template_labels() -> NDArray[np.uint8]:
    """Return the FreeSurfer id of each voxel of the template; fluid outside the ventricles counts as background (0)."""
    t1, affine = template_volume("t1")
    left = np.zeros((_MIDLINE + 1, *t1.shape[1:]), np.uint8)
    left[_LEFT_BRAIN] = _label_left_half(_LeftHalf.load(affine))
    right = left[-2::-1].copy()
    for _, left_id, right_id, _ in STRUCTURES:
        right[left[-2::-1] == left_id] = right_id
    return np.concatenate([left, right])


@dataclass(frozen=True)
class _LeftHalf:
    """The template's left half with the midline, and what each voxel is made of.

    ``lateral``, ``y`` and ``z`` are MNI millimetres, ``lateral`` counted from the midline outwards.
    """

    t1: Image
    brain: Mask
    tissue: Mask
    white: Mask
    lateral: NDArray[np.float64]
    y: NDArray[np.float64]
    z: NDArray[np.float64]

    @classmethod
    def load(cls, affine: NDArray[np.float64]) -> "_LeftHalf":
        t1, gm, wm = (template_volume(name)[0][_LEFT_BRAIN] for name in ("t1", "gm", "wm"))
        x, y, z = (np.arange(n) + affine[k, 3] + _LEFT_BRAIN[k].indices(n)[0] for k, n in enumerate(t1.shape))
        lateral, y, z = np.meshgrid(-x, y, z, indexing="ij")
        tissue = (t1 > 0) & (255 - gm - wm <= np.maximum(gm, wm))
        return cls(ndi.gaussian_filter(t1, 0.7), t1 > 0, tissue, tissue & (wm > gm), lateral, y, z)

    def tube(self, *balls: Ball) -> Mask:
        """The balls, and everything between one and the next."""
        points = np.concatenate([np.linspace(first, second, 6) for first, second in pairwise(balls)])
        radii = points[:, 3:]
        low, high = (points[:, :3] - radii).min(0), (points[:, :3] + radii).max(0)
        box = np.ones(self.t1.shape, bool)
        for axis, (least, most) in zip((self.lateral, self.y, self.z), zip(low, high, strict=True), strict=True):
            box &= (axis > least) & (axis < most)
        near = np.stack([self.lateral[box], self.y[box], self.z[box]], axis=1)
        inside = np.zeros_like(box)
        inside[box] = (((near[:, None] - points[:, :3]) ** 2).sum(-1) < radii[:, 0] ** 2).any(1)
        return inside

    def ellipsoid(self, centre: Point, radii: Point, turn: float = 0.0) -> Mask:
        """An ellipsoid, its back turned outwards by ``turn`` radians."""
        x, y, z = self.lateral - centre[0], self.y - centre[1], self.z - centre[2]
        x, y = np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x
        inside: Mask = (x / radii[0]) ** 2 + (y / radii[1]) ** 2 + (z / radii[2]) ** 2 < 1
        return inside


def _label_left_half(half: _LeftHalf) -> NDArray[np.uint8]:
    stem, cerebellum = _below_the_tentorium(half)
    cerebrum = half.tissue & ~stem & ~cerebellum
    labels = np.zeros(half.t1.shape, np.uint8)
    labels[cerebrum] = CORTEX
    labels[cerebrum & half.white] = WHITE
    labels[cerebellum] = CEREBELLUM_CORTEX
    dentate = half.ellipsoid((17, -57, -34), (11, 10, 8))  # grey inside, counted as white matter as FreeSurfer does
    labels[cerebellum & (half.white | dentate)] = CEREBELLUM_WHITE
    labels[stem] = STEM
    for structure, mask in _ventricles(half, stem).items():
        labels[mask] = structure
    deep = _deep_grey(half, cerebrum)
    _settle_depth(half, labels, deep)
    for structure, mask in deep.items():
        labels[mask] = structure
    _line_ventricles(half, labels)
    return _without_small_pieces(labels)


def _below_the_tentorium(half: _LeftHalf) -> tuple[Mask, Mask]:
    """Brain stem and cerebellum: flooded from inside, the watershed lies in the dark gap around them."""
    lateral, y, z = half.lateral, half.y, half.z
    tentorium = 2 - 0.62 * lateral - 0.55 * np.clip(-60 - y, 0, None)  # its height, roughly
    below_midbrain = z < -0.7 * (y + 34)  # the plane from the superior colliculi to the mamillary bodies
    seeds = np.zeros(half.t1.shape, np.uint8)
    seeds[half.tissue & (z > tentorium + 6) & ~((y > -45) & (lateral < 22) & (z < 0))] = 1
    seeds[half.tissue & (y > -20) & (lateral > 24)] = 1
    seeds[half.tissue & (z < tentorium - 6) & (y < -46) & ((y < -56) | (lateral > 16))] = 2
    axis = half.tube((0, -24, -4, 6), (0, -24, -12, 7), (0, -27, -30, 9), (0, -38, -46, 5), (0, -50, -70, 4))
    peduncle = half.tube((12, -18, -10, 3), (9, -18, -18, 4), (5, -20, -28, 5))
    seeds[half.tissue & (axis | peduncle)] = 3
    height = sitk.GetImageFromArray(np.where(half.tissue, 255 - half.t1, 255).astype(np.float32))
    flooded = sitk.MorphologicalWatershedFromMarkers(height, sitk.GetImageFromArray(seeds), markWatershedLine=False)
    part = np.where(half.tissue, sitk.GetArrayFromImage(flooded), 0)
    back = np.interp(z, [-72, -60, -50, -40, -30, -20, -10, 0], [-62, -56, -48, -41, -38, -37, -40, -42])
    width = np.interp(z, [-72, -52, -46, -38, -20, -14], [9, 9, 17, 17, 17, 24])
    stem = (part >= 2) & (y > back) & (lateral < width) & below_midbrain
    stem |= (part == 1) & below_midbrain & (y < -9) & half.tube((0, -23, -2, 15), (0, -24, -20, 16), (0, -27, -34, 15))
    return stem, ~stem & ((part == 2) | ((part == 3) & below_midbrain))


def _ventricles(half: _LeftHalf, stem: Mask) -> dict[int, Mask]:
    lateral, y, z = half.lateral, half.y, half.z
    dark = half.brain & (half.t1 < 125)
    horns = half.tube((9, 26, 2, 10), (10, 10, 14, 13), (14, -10, 22, 13), (22, -34, 18, 13), (26, -45, 6, 13))
    horns |= half.tube((26, -45, 6, 13), (30, -50, -2, 8))
    horns &= (lateral > 0) & ~((lateral < 8) & ((z < -4) | ((y < -6) & (z < 18))))  # not the cisterns between them
    horns |= (lateral > 24) & half.tube((30, -40, -4, 7), (34, -24, -14, 6), (30, -10, -20, 5))
    third = half.brain & ~stem & (half.t1 < 140) & half.ellipsoid((0, -11, -3), (4.5, 19, 13))
    fourth = dark & (z > -50) & half.ellipsoid((0, -43, -34), (14, 13, 17))
    return {
        VENTRICLE: _touching(dark & horns, half.ellipsoid((10, 0, 20), (8, 20, 8))),
        THIRD: third,
        FOURTH: _touching(fourth, half.ellipsoid((0, -45, -32), (2, 2, 2))),
    }


def _deep_grey(half: _LeftHalf, cerebrum: Mask) -> dict[int, Mask]:
    grey = cerebrum & ~half.white
    caudate = half.tube(
        (12, 20, -2, 8), (13, 16, 6, 9), (13, 8, 14, 9), (16, -4, 20, 7), (18, -14, 22, 5), (20, -22, 20, 4)
    )
    caudate = _one_piece(grey & caudate) & cerebrum
    putamen = half.tube((21, 17, -5, 8), (25, 8, 1, 9), (28, -4, 3, 8), (30, -14, 5, 6)) & (half.lateral < 33.5)
    putamen &= cerebrum & (half.t1 > 150) & (half.t1 < 201) & ~caudate
    putamen = _one_piece(putamen) & cerebrum & ~caudate
    thalamus = cerebrum & (half.t1 < 203) & half.ellipsoid((10.5, -18, 7), (13, 17.5, 11), turn=0.35)
    thalamus = _one_piece(thalamus) & cerebrum
    hippocampus = half.tube(
        (22, -12, -21, 6.5), (27, -15, -18, 7), (30, -22, -14, 7), (29, -30, -9, 6), (25, -36, -3, 6), (19, -38, 2, 5)
    )
    hippocampus = _one_piece(grey & (half.t1 < 185) & hippocampus) & half.tissue
    ventral = cerebrum & half.ellipsoid((5, -12, -8), (10.5, 15, 9))
    for other in (caudate, putamen, thalamus, hippocampus):
        ventral &= ~other
    return {
        CAUDATE: caudate,
        PUTAMEN: putamen,
        THALAMUS: thalamus,
        HIPPOCAMPUS: hippocampus,
        VENTRAL_DC: _one_piece(ventral) & cerebrum,
    }


def _settle_depth(half: _LeftHalf, labels: NDArray[np.uint8], deep: dict[int, Mask]) -> None:
    """Grey specks between the nuclei are no cortex: each goes to the nearest nucleus or to the white matter."""
    depth = half.ellipsoid((17, -3, 4), (17.5, 32, 18)) & (half.lateral < 33.5)
    known = np.where(labels == WHITE, WHITE, 0).astype(np.uint8)
    for structure, mask in deep.items():
        known[mask] = structure
    specks = depth & (labels == CORTEX) & (known == 0)
    labels[specks] = _nearest(known)[specks]


def _line_ventricles(half: _LeftHalf, labels: NDArray[np.uint8]) -> None:
    """The grey rim that partial volume draws around the lateral ventricle is fluid where dark, else white matter."""
    rim = (labels == CORTEX) & (ndi.distance_transform_edt(labels != VENTRICLE) < 2.9)
    labels[rim] = np.where(half.t1[rim] < 145, VENTRICLE, WHITE)


def _without_small_pieces(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Give pieces too small to be anatomy to what surrounds them."""
    small = np.zeros(labels.shape, bool)
    for structure in np.unique(labels)[1:]:
        pieces, _ = ndi.label(labels == structure)
        small |= (np.bincount(pieces.ravel()) < _SMALLEST_PIECE)[pieces]
    return np.where(small, _nearest(np.where(small, 0, labels)), labels)


def _nearest(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Give every voxel of 0 the label nearest to it."""
    indices = ndi.distance_transform_edt(labels == 0, return_distances=False, return_indices=True)
    nearest: NDArray[np.uint8] = labels[tuple(indices)]
    return nearest


def _touching(mask: Mask, seed: Mask) -> Mask:
    """The pieces of ``mask`` that reach into ``seed``."""
    pieces, _ = ndi.label(mask)
    return np.isin(pieces, np.unique(pieces[seed & mask]))


def _one_piece(mask: Mask) -> Mask:
    """The largest piece once thin bridges are cut, smooth and without holes."""
    pieces, _ = ndi.label(ndi.binary_opening(mask))
    largest = pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])
    smooth: Mask = ndi.binary_fill_holes(ndi.gaussian_filter(largest.astype(np.float32), 1.0) > 0.45)
    return smooth
