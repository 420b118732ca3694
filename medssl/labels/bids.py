"""The tables beside label files of a BIDS derivative: what each number stands for, and what the folder is.

Brain Imaging Data Structure, "Imaging data types (derivatives)", https://bids-specification.readthedocs.io.
"""

from pathlib import Path

import pandas as pd

import medssl
from medssl.files import write_aside, write_json
from medssl.labels.lut import LabelSet

_BIDS_VERSION = "1.9.0"
_WHITE, _CSF, _CORTEX, _DEEP_GREY, _BRAIN_STEM, _CEREBELLUM = 2, 3, 8, 9, 10, 11  # BIDS's own tissue classes
_SHORT_AND_TISSUE = {
    "Cerebral-White-Matter": ("WM", _WHITE),
    "Cerebral-Cortex": ("CTX", _CORTEX),
    "Lateral-Ventricle": ("LV", _CSF),
    "Inf-Lat-Vent": ("ILV", _CSF),
    "Cerebellum-White-Matter": ("CBWM", _CEREBELLUM),
    "Cerebellum-Cortex": ("CBCTX", _CEREBELLUM),
    "Thalamus": ("THA", _DEEP_GREY),
    "Caudate": ("CAU", _DEEP_GREY),
    "Putamen": ("PUT", _DEEP_GREY),
    "Pallidum": ("PAL", _DEEP_GREY),
    "3rd-Ventricle": ("3V", _CSF),
    "4th-Ventricle": ("4V", _CSF),
    "Brain-Stem": ("BS", _BRAIN_STEM),
    "Hippocampus": ("HIP", _DEEP_GREY),
    "Amygdala": ("AMY", _DEEP_GREY),
    "CSF": ("CSF", _CSF),
    "Accumbens-area": ("ACC", _DEEP_GREY),
    "VentralDC": ("VDC", _DEEP_GREY),
}


def write_dseg_table(path: Path, label_set: LabelSet) -> None:
    """Write what each number in the label files stands for (BIDS's columns), as tab-separated text.

    ``mapping`` is BIDS's tissue class. A structure that is not one of FreeSurfer's has its name as its abbreviation and
    "n/a", as BIDS writes what is unknown, as its tissue.
    """
    rows: list[tuple[int, str, str, str, int | None]] = [(0, "Background", "BG", "#000000", 0)]
    for structure in label_set.structures:
        name = structure.name.removeprefix("Left-").removeprefix("Right-")
        short, tissue = _SHORT_AND_TISSUE.get(name, (name, None))
        side = structure.name[0] + "-" if name != structure.name else ""
        color = "#{:02x}{:02x}{:02x}".format(*structure.color)
        rows.append((structure.id, structure.name, side + short, color, tissue))
    table = pd.DataFrame(rows, columns=["index", "name", "abbreviation", "color", "mapping"])
    table["mapping"] = table["mapping"].astype("Int64")
    with write_aside(path) as aside:
        table.to_csv(aside, sep="\t", index=False, na_rep="n/a")


def write_dataset_description(folder: Path, name: str) -> None:
    """Write the file by which BIDS tools recognise a folder of derivatives."""
    description = {
        "Name": name,
        "BIDSVersion": _BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "medssl", "Version": medssl.__version__}],
    }
    write_json(folder / "dataset_description.json", description)
