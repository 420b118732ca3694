"""Label sets: which structures a segmentation has, with FreeSurfer's numbers, names and colours.

The 27 structures are those of Roy et al., "Error Corrective Boosting for Learning Fully Convolutional Networks with
Limited Data", MICCAI 2017 (arXiv 1705.00938); the 32 add the inferior lateral ventricles, the accumbens areas and the
CSF. Numbers, names and colours are those of FreeSurfer's ``FreeSurferColorLUT.txt``.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssl.errors import InputError
from medssl.files import read_json, write_aside

_SIDE_WORDS = {"left": "right", "right": "left", "lh": "rh", "rh": "lh", "l": "r", "r": "l"}
_SIDE_WORD = re.compile(r"(?<![a-z])(left|right|lh|rh|l|r)(?![a-z])", re.IGNORECASE)
_LUT_FIELDS = 5  # ID name R G B; the sixth, A, is optional


@dataclass(frozen=True)
class Structure:
    """One anatomical structure: its number in label files, its name, its colour (red, green, blue, each 0..255)."""

    id: int
    name: str
    color: tuple[int, int, int]

    def __post_init__(self) -> None:
        """Refuse a number or colour that no label file can hold."""
        if self.id < 1:
            raise InputError(f"The structure '{self.name}' has the number {self.id}; they start at 1, 0 is background.")
        if len(self.color) != 3 or not all(0 <= part <= 255 for part in self.color):
            raise InputError(f"The structure '{self.name}' has the colour {self.color}; expected three of 0..255.")


@dataclass(frozen=True)
class LabelSet:
    """The structures that a segmentation tells apart: class ``i + 1`` is ``structures[i]``, class 0 the background."""

    name: str
    structures: tuple[Structure, ...]

    def __post_init__(self) -> None:
        """Refuse sets that would make two classes one, or that do not fit uint8 class arrays."""
        if not 1 <= len(self.structures) <= 255:
            raise InputError(f"The label set '{self.name}' has {len(self.structures)} structures; expected 1 to 255.")
        for what, values in (("number", [str(id_) for id_ in self.ids]), ("name", list(self.names))):
            repeated = sorted({value for value in values if values.count(value) > 1})
            if repeated:
                raise InputError(f"The label set '{self.name}' uses the {what} {', '.join(repeated)} more than once.")

    @property
    def ids(self) -> tuple[int, ...]:
        """The structures' numbers in label files, in the order of the classes 1, 2, ..."""
        return tuple(structure.id for structure in self.structures)

    @property
    def names(self) -> tuple[str, ...]:
        """The structures' names, in the order of the classes 1, 2, ..."""
        return tuple(structure.name for structure in self.structures)

    @property
    def classes(self) -> int:
        """How many classes there are, the background included."""
        return len(self.structures) + 1

    @cached_property
    def mirrored(self) -> tuple[int, ...]:
        """The class that each class becomes in a left-right mirror image; one that has no twin stays itself."""
        class_of = {name.lower(): index for index, name in enumerate(self.names, start=1)}
        twins = (class_of.get(_other_side(name).lower(), class_of[name.lower()]) for name in self.names)
        return (0, *twins)

    def side(self, index: int) -> str:
        """Say on which side a class is by its name: "left", "right", or "" where it has no twin."""
        word = _SIDE_WORD.search(self.names[index - 1])
        if word is None or self.mirrored[index] == index:
            return ""
        return "left" if word.group().lower().startswith("l") else "right"

    def to_ids(self, labels: NDArray[Any]) -> NDArray[np.int32]:
        """Turn class indices (0..classes - 1, any shape) into the structures' numbers."""
        return np.take(np.array((0, *self.ids), dtype=np.int32), labels)

    def to_dict(self) -> dict[str, Any]:
        """Return what :meth:`from_dict` reads, as plain JSON values."""
        rows = [{"id": item.id, "name": item.name, "color": list(item.color)} for item in self.structures]
        return {"name": self.name, "structures": rows}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "LabelSet":
        """Build the label set that :meth:`to_dict` wrote.

        Raises:
            InputError: A part is missing or is not what it should be.
        """
        try:
            structures = tuple(
                Structure(int(row["id"]), str(row["name"]), _color(row["color"])) for row in values["structures"]
            )
            return cls(str(values["name"]), structures)
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"A label set is {{'name': ..., 'structures': [{{'id': 17, 'name': 'Left-Hippocampus', "
                f"'color': [220, 216, 20]}}, ...]}}; this one cannot be read: {error!r}."
            ) from error


def label_set(name_or_file: str) -> LabelSet:
    """Return the label set of that name, or read it from a FreeSurfer LUT text file or a JSON file.

    Raises:
        InputError: There is no such label set and no such file, or the file cannot be read as one.
    """
    if name_or_file in LABEL_SETS:
        return LABEL_SETS[name_or_file]
    path = Path(name_or_file)
    if not path.is_file():
        raise InputError(
            f"'{name_or_file}' is neither a label set ({', '.join(LABEL_SETS)}) nor a file. A file holds lines "
            "'ID name R G B A', as FreeSurfer's colour tables do, or JSON."
        )
    return LabelSet.from_dict(read_json(path)) if path.suffix == ".json" else read_lut(path)


def read_lut(path: Path) -> LabelSet:
    """Read a FreeSurfer colour table (lines ``ID name R G B A``); the background, 0, is not a structure of it.

    Raises:
        InputError: A line is not of that form, or the file lists no structure.
    """
    structures = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        fields = line.split("#")[0].split()
        if not fields:
            continue
        try:
            id_, red, green, blue = (int(fields[i]) for i in (0, 2, 3, 4))
        except (IndexError, ValueError):
            raise InputError(f"{path}: line {number} is '{line.strip()}', expected 'ID name R G B A'.") from None
        if id_ != 0:
            structures.append(Structure(id_, fields[1], (red, green, blue)))
    return LabelSet(path.stem, tuple(structures))


def write_lut(path: Path, labels: LabelSet) -> None:
    """Write a FreeSurfer colour table, which FreeView and other viewers open beside the labels."""
    rows = [Structure(1, "Unknown", (0, 0, 0)), *labels.structures]
    lines = ["#No. Label Name:                           R   G   B   A"]
    for id_, structure in zip((0, *labels.ids), rows, strict=True):
        red, green, blue = structure.color
        lines.append(f"{id_:<5d} {structure.name:<35s} {red:>3d} {green:>3d} {blue:>3d}   0")
    with write_aside(path) as aside:
        aside.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _other_side(name: str) -> str:
    """Swap left and right in a name ("Left-Putamen", "ctx-lh-insula", "Hippocampus_L")."""
    return _SIDE_WORD.sub(lambda match: _SIDE_WORDS[match.group().lower()], name)


def _color(values: Iterable[Any]) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in values)
    return red, green, blue


_FREESURFER: dict[int, tuple[str, tuple[int, int, int]]] = {
    2: ("Left-Cerebral-White-Matter", (245, 245, 245)),
    3: ("Left-Cerebral-Cortex", (205, 62, 78)),
    4: ("Left-Lateral-Ventricle", (120, 18, 134)),
    5: ("Left-Inf-Lat-Vent", (196, 58, 250)),
    7: ("Left-Cerebellum-White-Matter", (220, 248, 164)),
    8: ("Left-Cerebellum-Cortex", (230, 148, 34)),
    10: ("Left-Thalamus", (0, 118, 14)),
    11: ("Left-Caudate", (122, 186, 220)),
    12: ("Left-Putamen", (236, 13, 176)),
    13: ("Left-Pallidum", (12, 48, 255)),
    14: ("3rd-Ventricle", (204, 182, 142)),
    15: ("4th-Ventricle", (42, 204, 164)),
    16: ("Brain-Stem", (119, 159, 176)),
    17: ("Left-Hippocampus", (220, 216, 20)),
    18: ("Left-Amygdala", (103, 255, 255)),
    24: ("CSF", (60, 60, 60)),
    26: ("Left-Accumbens-area", (255, 165, 0)),
    28: ("Left-VentralDC", (165, 42, 42)),
    41: ("Right-Cerebral-White-Matter", (245, 245, 245)),
    42: ("Right-Cerebral-Cortex", (205, 62, 78)),
    43: ("Right-Lateral-Ventricle", (120, 18, 134)),
    44: ("Right-Inf-Lat-Vent", (196, 58, 250)),
    46: ("Right-Cerebellum-White-Matter", (220, 248, 164)),
    47: ("Right-Cerebellum-Cortex", (230, 148, 34)),
    49: ("Right-Thalamus", (0, 118, 14)),
    50: ("Right-Caudate", (122, 186, 220)),
    51: ("Right-Putamen", (236, 13, 176)),
    52: ("Right-Pallidum", (13, 48, 255)),
    53: ("Right-Hippocampus", (220, 216, 20)),
    54: ("Right-Amygdala", (103, 255, 255)),
    58: ("Right-Accumbens-area", (255, 165, 0)),
    60: ("Right-VentralDC", (165, 42, 42)),
}
_ONLY_IN_32 = (5, 24, 26, 44, 58)


def _freesurfer(name: str, without: tuple[int, ...] = ()) -> LabelSet:
    """FreeSurfer's structures in the order of their numbers, which is the order of the classes."""
    rows = sorted((id_, *entry) for id_, entry in _FREESURFER.items() if id_ not in without)
    return LabelSet(name, tuple(Structure(*row) for row in rows))


LABEL_SETS: dict[str, LabelSet] = {
    "freesurfer-27": _freesurfer("freesurfer-27", without=_ONLY_IN_32),
    "freesurfer-32": _freesurfer("freesurfer-32"),
}
