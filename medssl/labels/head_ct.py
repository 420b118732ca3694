"""Regions of the brain in head CT: the brain is taken out of its skull, and atlases are registered to it.

Atlases of the brain are mostly MRI without the skull, where white matter is brighter than grey; in CT it is darker, the
whole contrast is 10 Hounsfield numbers, and noise is half of that. Mutual information does not mind, so an affine
transform is found by it. What follows in ``medssl.labels.atlas``, demons and a B-spline grid, compares intensities, and
so is left to atlases that are CT themselves.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medssl.data.catalog import Scan
from medssl.data.cohort import Refused, each, or_refused
from medssl.data.preparation import Preparation, normalise
from medssl.data.resample import grid, reorient, resample
from medssl.data.volumes import Volume, read_volume, write_labels
from medssl.errors import InputError
from medssl.files import read_json, value_hash, write_json
from medssl.labels.atlas import Atlas, Deformable, carry_image, carry_labels, from_0_to_1, register
from medssl.labels.fusion import Fusion, fuse
from medssl.labels.labellers import AtlasLabeller, Labelled
from medssl.labels.lut import LabelSet

Contrast = Literal["mri", "ct"]

BRAIN_WINDOW_HU = (-20.0, 80.0)
"""What becomes 0 and 1 where brains are compared: fluid is above the background, bone is cut."""

_VERSION = 1  # of what is computed here: regions of another one are made anew
_WORKING_MM = 2.0
_BONE_HU = 200.0
_SOFT_HU = (-20.0, 100.0)
_DIRECTIONS = 5  # of six, in which bone is met from inside the skull; below the foramen magnum there is none
_NECK = 3  # working voxels: what is joined to the brain by less than twice this is not brain
_BRAIN_ML = (400.0, 2500.0)


def brain_mask(ct: Volume) -> NDArray[np.bool_]:
    """Find the brain, with the fluid around it: the largest soft part that is enclosed by bone.

    Args:
        ct: A head in Hounsfield numbers, in any orientation.

    Returns:
        A mask on the scan's own grid.

    Raises:
        InputError: It is no CT in Hounsfield numbers, is not 3D, or what it encloses has not the size of a brain.
    """
    if ct.data.ndim != 3:
        raise InputError(f"{ct.name}: is {ct.data.ndim}D; regions of the brain are found in volumes.")
    normalise(ct, Preparation(intensity="ct", window_hu=BRAIN_WINDOW_HU))  # refuses what is not in Hounsfield numbers
    turned = reorient(ct)
    shape, affine = grid(turned.data.shape, turned.affine, (_WORKING_MM,) * 3)
    hu = resample(turned.data.astype(np.float32), turned.affine, affine, shape, order=1, fill=-1000)
    bone = hu > _BONE_HU
    soft = _enclosed(bone) & ~bone & (hu > _SOFT_HU[0]) & (hu < _SOFT_HU[1])
    core = _largest(ndimage.binary_erosion(soft, iterations=_NECK))
    brain = ndimage.binary_dilation(core, iterations=_NECK + 1) & soft
    brain = ndimage.binary_fill_holes(brain)
    volume_ml = brain.sum() * _WORKING_MM**3 / 1000
    if not _BRAIN_ML[0] <= volume_ml <= _BRAIN_ML[1]:
        raise InputError(
            f"{ct.name}: the largest soft part inside bone has {volume_ml:.0f} ml, and a brain has {_BRAIN_ML[0]:.0f} "
            f"to {_BRAIN_ML[1]:.0f}. Give a whole head in Hounsfield numbers, with its skull."
        )
    found: NDArray[np.float32] = resample(brain.astype(np.float32), affine, ct.affine, ct.data.shape, order=1)
    return found > 0.5


def windowed_brain(ct: Volume) -> tuple[Volume, NDArray[np.bool_]]:
    """Take the brain out of its skull: Hounsfield numbers of the brain's window as 0..1, 0 outside; and its mask."""
    mask = brain_mask(ct)
    windowed = normalise(ct, Preparation(intensity="ct", window_hu=BRAIN_WINDOW_HU))[0]
    return Volume(np.where(mask, windowed, np.float32(0)), ct.affine, ct.path), mask


@dataclass(frozen=True, eq=False)
class HeadCTLabeller(AtlasLabeller):
    """Registers atlases to the brain of a head CT and fuses what they say.

    Attributes:
        contrast: Of the atlases: "mri" without the skull, or "ct" in Hounsfield numbers with it.
    """

    contrast: Contrast = "mri"

    @classmethod
    def of(
        cls,
        atlases: Sequence[Scan],
        label_set: LabelSet,
        reading: str,
        contrast: Contrast = "mri",
        fusion: Fusion = "majority",
        deformable: Deformable | None = None,
        working_spacing_mm: float = 2.0,
    ) -> "HeadCTLabeller":
        """Read the atlases, as ``AtlasLabeller.load`` does; those that are CT are taken out of their skulls.

        Raises:
            InputError: One of them cannot be used, there are none, or MRI shall be deformed to CT by its intensities.
        """
        if contrast == "mri" and deformable is not None:
            raise InputError(
                f"deformable={deformable} compares intensities, and tissue that is bright in MRI is dark in CT. Leave "
                "it out, or give atlases that are CT themselves (contrast ct)."
            )
        loaded = AtlasLabeller.load(atlases, label_set, reading, fusion, deformable, working_spacing_mm)
        ready = loaded.atlases
        if contrast == "ct":
            ready = tuple(Atlas(one.name, windowed_brain(one.image)[0], one.labels) for one in ready)
        return cls(label_set, ready, loaded.subjects, loaded.contents, fusion, deformable, working_spacing_mm, contrast)

    def key(self, scan: Scan) -> str:
        """Hash the scan, the atlases that are used for it, and how."""
        return value_hash([super().key(scan), self.contrast, _VERSION])

    def label(self, scan: Scan) -> Labelled:
        """Find the brain, register every atlas of another subject to it, and fuse; outside the brain is background.

        Raises:
            InputError: The scan is no head CT, an atlas cannot be registered, or all atlases show its subject.
        """
        ct = read_volume(scan.image, scan.series)
        started = time.monotonic()
        brain, mask = windowed_brain(ct)
        used = [self.atlases[i] for i in self._others(scan)]
        if not used:
            raise InputError(
                f"{scan.name}: every atlas shows this subject ({scan.subject}); give one of another subject."
            )
        votes, images = [], []
        for atlas in used:
            transform = register(brain, atlas.image, self.deformable, self.working_spacing_mm)
            votes.append(carry_labels(atlas, transform, brain))
            if self.fusion == "local":
                images.append(carry_image(atlas, transform, brain))
        classes = fuse(self.fusion, votes, from_0_to_1(brain.data), images)
        details = {
            "atlases": [atlas.name for atlas in used],
            "contrast": self.contrast,
            "deformable": self.deformable,
            "fusion": self.fusion,
            "brain_ml": round(float(mask.sum() * np.prod(ct.spacing_mm)) / 1000, 1),
            "seconds": round(time.monotonic() - started, 1),
        }
        return Labelled(ct, np.where(mask, classes, np.uint8(0)), details)


def label_heads(
    scans: Sequence[Scan], labeller: HeadCTLabeller, out: Path, jobs: int = -1
) -> dict[str, Path | Refused]:
    """Label head CT scans in parallel; each writes ``<scan>_dseg.nii.gz`` and its ``.json`` to ``out``.

    What was made of the same content in the same way is kept. A scan that cannot be labelled never stops the others.

    Returns:
        Scan -> its label map, on its own grid with the label set's numbers, or why there is none.
    """
    return dict(
        zip(
            (scan.name for scan in scans),
            each(_label_one, [(labeller, scan, out) for scan in scans], "finding regions", jobs),
            strict=True,
        )
    )


def _label_one(labeller: HeadCTLabeller, scan: Scan, out: Path) -> Path | Refused:
    key = or_refused(scan.name, scan.subject, lambda: labeller.key(scan))
    if isinstance(key, Refused):
        return key
    path, record = out / f"{scan.name}_dseg.nii.gz", out / f"{scan.name}_dseg.json"
    if path.is_file() and record.is_file() and read_json(record).get("key") == key:
        return path
    labelled = or_refused(scan.name, scan.subject, lambda: labeller.label(scan))
    if isinstance(labelled, Refused):
        return labelled
    write_labels(path, labeller.label_set.to_ids(labelled.classes), labelled.image)
    write_json(record, {"Manual": False, "key": key, **labelled.details})  # last: it says that the scan is done
    return path


def _enclosed(bone: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Voxels from which bone is met in most of the directions along the axes."""
    met = np.zeros(bone.shape, dtype=np.uint8)
    for axis in range(3):
        met += np.logical_or.accumulate(bone, axis=axis)
        met += np.flip(np.logical_or.accumulate(np.flip(bone, axis), axis=axis), axis)
    return met >= _DIRECTIONS


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    parts, count = ndimage.label(mask)
    return parts == 1 + np.bincount(parts.ravel())[1:].argmax() if count else mask
