"""What FreeSurfer and FastSurfer leave in a SUBJECTS_DIR: labels to read, statistics to compare with, and its format.

Fischl et al., "Whole brain segmentation", Neuron 2002, https://surfer.nmr.mgh.harvard.edu.
"""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medssl.errors import InputError
from medssl.files import write_aside

_MGH_TYPES = ("uint8", "int16", "int32", "float32")  # no other can be stored
_STATS_COLUMNS = ("id", "voxels", "volume_mm3", "name")


def read_aseg_stats(path: Path) -> pd.DataFrame:
    """Read the volumes of ``stats/aseg.stats``: columns id, voxels, volume_mm3, name.

    FreeSurfer's ``volume_mm3`` is corrected for voxels that a structure fills in part, so it differs from the number of
    voxels times their size, which is what medssl reports.

    Raises:
        InputError: The file does not hold FreeSurfer's table.
    """
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        fields = line.split("#")[0].split()
        if not fields:
            continue
        try:
            rows.append((int(fields[1]), int(fields[2]), float(fields[3]), fields[4]))
        except (IndexError, ValueError):
            raise InputError(
                f"{path}: line {number} is '{line.strip()}', expected 'Index SegId NVoxels Volume_mm3 StructName ...'."
            ) from None
    return pd.DataFrame(rows, columns=list(_STATS_COLUMNS))


def stats_beside(image: Path) -> Path | None:
    """Find the ``stats/aseg.stats`` of the subject whose ``mri`` folder holds ``image``; ``None`` without one."""
    stats = image.parent.parent / "stats" / "aseg.stats"
    return stats if image.parent.name == "mri" and stats.is_file() else None


def write_mgz(path: Path, data: NDArray[Any], affine: NDArray[np.float64]) -> None:
    """Write a volume as FreeSurfer does; a type that its format lacks becomes 32-bit, integer or floating.

    Raises:
        InputError: The disk is full.
    """
    if data.dtype.name not in _MGH_TYPES:
        data = data.astype(np.int32 if data.dtype.kind in "iub" else np.float32)
    with write_aside(path) as aside:
        nib.save(nib.MGHImage(np.atleast_3d(data), affine), aside)
