"""Protocols: how each labeller's numbers become the classes of a label set, one stated rule per number.

FreeSurfer's numbers are those of ``FreeSurferColorLUT.txt``; the Neuromorphometrics pairs are those of the multi-atlas
challenge's manual labels as used by Roy et al., MICCAI 2017 (arXiv 1705.00938). A number without a rule is refused: it
never becomes background in silence. A structure that has a rule but is not in the label set is background: choosing
the set chose that (so the inferior lateral ventricles, 5 and 44, are background among the 27 and classes among the 32).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from medssl.errors import InputError
from medssl.labels.lut import LABEL_SETS, LabelSet

PROTOCOL_NAMES = ("aseg", "aparc+aseg", "neuromorphometrics", "same")
_NO_RULE, _BY_PLACE = -1, -2


@dataclass(frozen=True)
class Protocol:
    """How one labeller's numbers become the classes of a label set.

    Attributes:
        name: The labeller.
        target: The label set whose classes come out.
        rules: The labeller's number -> the label set's number, 0 for the background.
        nearest: For numbers that do not say which structure they belong to (the corpus callosum lies on the midline):
            the labeller's number -> the labeller's numbers of which the nearest voxel decides; each has a rule.
    """

    name: str
    target: LabelSet
    rules: Mapping[int, int]
    nearest: Mapping[int, tuple[int, ...]] = field(default_factory=dict)

    def apply(self, labels: NDArray[Any], where: str = "labels") -> NDArray[np.uint8]:
        """Turn a label map of any shape into class indices (uint8), through one table.

        Args:
            labels: The labeller's numbers, integers of any width and byte order.
            where: What the error message calls the labels, usually the file.

        Raises:
            InputError: The labels are not integers, hold numbers without a rule (all are named, with their voxels), or
                hold a number that its neighbours decide where there are no such neighbours.
        """
        if not np.issubdtype(labels.dtype, np.integer):
            raise InputError(f"{where}: labels must be whole numbers (an integer type), got {labels.dtype}.")
        table = self._table()
        outside = (labels < 0) | (labels >= len(table))
        classes = table[np.where(outside, len(table) - 1, labels) if outside.any() else labels]
        self._refuse_unknown(labels[classes == _NO_RULE], where)
        undecided = classes == _BY_PLACE
        if undecided.any():
            classes[undecided] = self._by_place(labels, classes, undecided, where)
        return classes.astype(np.uint8)

    def _table(self) -> NDArray[np.int16]:
        """Class index of every number from 0; the last entry stands for whatever is beyond the table."""
        table = np.full(max((0, *self.rules, *self.nearest)) + 2, _NO_RULE, dtype=np.int16)
        class_of = {0: 0, **{id_: index for index, id_ in enumerate(self.target.ids, start=1)}}
        for number, target in self.rules.items():
            table[number] = class_of[target]
        table[list(self.nearest)] = _BY_PLACE
        return table

    def _refuse_unknown(self, unknown: NDArray[Any], where: str) -> None:
        if unknown.size:
            numbers, voxels = np.unique(unknown, return_counts=True)
            listed = ", ".join(f"{number} ({count} voxels)" for number, count in zip(numbers, voxels, strict=True))
            raise InputError(
                f"{where}: the protocol '{self.name}' has no rule for these labels: {listed}. Choose the protocol that "
                f"wrote them ({', '.join(PROTOCOL_NAMES)}), or correct them."
            )

    def _by_place(
        self, labels: NDArray[Any], classes: NDArray[np.int16], undecided: NDArray[np.bool_], where: str
    ) -> NDArray[np.int16]:
        """Classes of the undecided voxels, each that of the nearest voxel that may decide it.

        Distances are in voxels (FreeSurfer's own grid is isotropic); a tie goes to the lower class.
        """
        numbers = labels[undecided]
        places = np.argwhere(undecided)
        decided = np.empty(len(numbers), dtype=np.int16)
        for deciders in dict.fromkeys(self.nearest.values()):
            mine = np.isin(numbers, [number for number, by in self.nearest.items() if by == deciders])
            if not mine.any():
                continue
            deciding = np.isin(labels, deciders)
            if not deciding.any():
                raise InputError(
                    f"{where}: the label {', '.join(map(str, np.unique(numbers[mine])))} becomes what is nearest of "
                    f"{_ranges(deciders)}, and the labels hold none of these. Give the whole label map."
                )
            candidates = np.unique(classes[deciding])
            distances = [
                cKDTree(np.argwhere(deciding & (classes == candidate))).query(places[mine])[0]
                for candidate in candidates
            ]
            decided[mine] = candidates[np.argmin(distances, axis=0)]
        return decided


def protocol(name: str, target: LabelSet) -> Protocol:
    """Return how the labeller ``name`` is read into the label set ``target``.

    Args:
        name: "aseg" (FreeSurfer and FastSurfer), "aparc+aseg" (also ``aparc.a2009s+aseg``, ``wmparc`` and
            ``aparc.DKTatlas+aseg``), "neuromorphometrics", or "same" for labels that use the label set's own numbers.
        target: The label set; its structures carry FreeSurfer's numbers.

    Raises:
        InputError: There is no such protocol, or it speaks of none of the label set's structures.
    """
    nearest: Mapping[int, tuple[int, ...]] = {}
    if name == "aseg":
        rules, nearest = _ASEG, _ASEG_NEAREST
    elif name == "aparc+aseg":
        rules, nearest = _ASEG | _APARC, _APARC_NEAREST
    elif name == "neuromorphometrics":
        rules = _NEUROMORPHOMETRICS
    elif name == "same":
        rules = {0: 0, **{id_: id_ for id_ in target.ids}}
    else:
        raise InputError(f"There is no protocol '{name}'; the protocols are {', '.join(PROTOCOL_NAMES)}.")
    kept = {number: id_ if id_ in target.ids else 0 for number, id_ in rules.items()}
    if not any(kept.values()):
        raise InputError(
            f"The protocol '{name}' has no structure in common with the label set '{target.name}'. "
            "Use the protocol 'same' for labels that already use the set's own numbers."
        )
    return Protocol(name, target, kept, nearest)


def _ranges(numbers: tuple[int, ...]) -> str:
    """Write numbers briefly: ``2, 41, 3000-3999``."""
    runs = np.split(np.sort(numbers), np.flatnonzero(np.diff(np.sort(numbers)) > 1) + 1)
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


_SAME_IN_ASEG = {id_: id_ for id_ in LABEL_SETS["freesurfer-32"].ids}

_ASEG: dict[int, int] = {
    0: 0,
    **_SAME_IN_ASEG,
    # Older names of the thalamus.
    9: 10,
    48: 49,
    # The substantia nigra is part of the ventral diencephalon where it is not drawn by itself.
    27: 28,
    59: 60,
    # The choroid plexus floats in the ventricle of its side, and the manual protocols count it as ventricle.
    31: 4,
    63: 43,
    # Lesions and hypointensities of the white matter are white matter that looks different.
    25: 2,
    57: 41,
    78: 2,
    79: 41,
    # Vessels are blood and the optic chiasm is a nerve: background in the manual protocols, so here as well.
    30: 0,
    62: 0,
    85: 0,
    # The fifth ventricle is a rare variant (a few voxels), not the CSF around the brain that 24 stands for.
    72: 0,
    # Edges, the vermis (background in the manual protocols) and what the labeller itself calls undetermined.
    1: 0,
    40: 0,
    29: 0,
    61: 0,
    172: 0,
}

_LEFT_WHITE, _RIGHT_WHITE = (2, 78), (41, 79)
_LEFT_GREY, _RIGHT_GREY = (3, 10, 11, 12, 13, 17, 18, 26, 28), (42, 49, 50, 51, 52, 53, 54, 58, 60)


def _nearest(left_white: tuple[int, ...], right_white: tuple[int, ...]) -> dict[int, tuple[int, ...]]:
    """Numbers on the midline or of no stated side -> what decides."""
    white = (*left_white, *right_white)
    return {
        # The corpus callosum in five parts, whole, and the fornix: white matter of the nearer hemisphere.
        **dict.fromkeys((251, 252, 253, 254, 255, 192, 250), white),
        77: white,  # hypointensities of the white matter, of either side
        # Hypointensities outside the white matter: dark spots in grey matter, so the nearest grey structure.
        80: (*_LEFT_GREY, *_RIGHT_GREY),
        81: _LEFT_GREY,
        82: _RIGHT_GREY,
    }


def _hundreds(left: int, right: int, *thousands: int) -> dict[int, int]:
    """Parcels numbered in thousands, left first and right after it: 1000..1999 left, 2000..2999 right."""
    return {
        number + side * 1000: right if side else left
        for start in thousands
        for side in (0, 1)
        for number in range(start, start + 1000)
    }


_ASEG_NEAREST = _nearest(_LEFT_WHITE, _RIGHT_WHITE)

_APARC: dict[int, int] = {
    # Cortical parcels (1000 and 2000 are cortex of no parcel; 11000 and 12000 those of the a2009s atlas).
    **_hundreds(3, 42, 1000, 11000),
    # Parcels of the white matter under them, as in wmparc.
    **_hundreds(2, 41, 3000, 13000),
    5001: 2,
    5002: 41,
}

_APARC_NEAREST = _nearest(
    (*_LEFT_WHITE, *(number for number, id_ in _APARC.items() if id_ == 2)),
    (*_RIGHT_WHITE, *(number for number, id_ in _APARC.items() if id_ == 41)),
)

_NEUROMORPHOMETRICS: dict[int, int] = {
    0: 0,
    # Left and right, each pair in FreeSurfer's order of structures.
    **{45: 2, 52: 4, 50: 5, 41: 7, 39: 8, 60: 10, 37: 11, 58: 12, 56: 13, 48: 17, 32: 18, 30: 26, 62: 28},
    **{44: 41, 51: 43, 49: 44, 40: 46, 38: 47, 59: 49, 36: 50, 57: 51, 55: 52, 47: 53, 31: 54, 23: 58, 61: 60},
    **{4: 14, 11: 15, 35: 16, 46: 24},
    # Cortical parcels: odd is left, even is right.
    **{number: 3 if number % 2 else 42 for number in range(100, 208)},
    # Two parcels of an older table, by their names: here odd is left as well.
    **{65: 3, 66: 42, 67: 3, 68: 42},
    # The amygdala's anterior part, and lesions, which are drawn in white matter.
    **{33: 54, 34: 18, 53: 41, 54: 2},
    # Background, as in the protocol of Roy et al.: what has no name or is no brain (1, 74), the fifth ventricle (15),
    # cerebral exterior (42, 43), vessels (63, 64), optic chiasm (69), vermis (71..73), basal forebrain (70, 75, 76).
    **dict.fromkeys((1, 74, 15, 42, 43, 63, 64, 69, 70, 71, 72, 73, 75, 76), 0),
}
