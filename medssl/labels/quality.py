"""Label quality: how well automatic labels agree with manual ones, per structure."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medssl.data.catalog import Scan
from medssl.data.cohort import Refused, each, or_refused
from medssl.data.recipe import check_one_grid
from medssl.data.volumes import read_labels
from medssl.errors import InputError
from medssl.files import write_aside
from medssl.labels.layouts import Layout, Place
from medssl.labels.lut import LabelSet
from medssl.labels.protocols import Protocol, protocol
from medssl.metrics import dice_per_class, volumes_mm3


def label_quality(
    weak: NDArray[np.integer], manual: NDArray[np.integer], label_set: LabelSet, spacing_mm: Sequence[float]
) -> pd.DataFrame:
    """Compare two label maps on one grid.

    Args:
        weak: Class indices.
        manual: Class indices, of one shape with ``weak``.
        label_set: The structures.
        spacing_mm: Size of a voxel along each axis.

    Returns:
        One row per structure: structure, dice (NaN where both lack it, 0 where one does), volume_mm3 of the weak label,
        reference_volume_mm3 of the manual one, and their volume_ratio (NaN where there is no manual one).

    Raises:
        InputError: The shapes differ.
    """
    dice = dice_per_class(weak, manual, label_set.classes)
    ours, theirs = (volumes_mm3(labels, label_set.classes, spacing_mm) for labels in (weak, manual))
    ratio = np.divide(ours, theirs, out=np.full(len(ours), np.nan), where=theirs > 0)
    columns = {"dice": dice, "volume_mm3": ours, "reference_volume_mm3": theirs, "volume_ratio": ratio}
    return pd.DataFrame({"structure": label_set.names, **{name: values[1:] for name, values in columns.items()}})


def write_label_quality(
    scans: Sequence[Scan], out: Path, manual: Protocol, layout: Layout = "bids", jobs: int = -1
) -> tuple[pd.DataFrame, tuple[Refused, ...]]:
    """Compare a folder of weak labels with manual labels of the same scans, and write ``label_quality.csv`` there.

    Args:
        scans: The scans with their manual labels; those without, or without weak labels, are left out.
        out: What ``label_cohort`` wrote.
        manual: How the numbers in the manual labels are read.
        layout: How files in ``out`` are named.
        jobs: Processes; -1 is one per core.

    Returns:
        The rows of ``label_quality`` of all scans, with columns scan and subject before them; and the scans whose
        labels cannot be read or are not on one grid.

    Raises:
        InputError: No scan has both labels.
    """
    both = [scan for scan in scans if scan.label and Place.of(out, scan.name, layout).labels.is_file()]
    if not both:
        raise InputError(f"{out}: none of the {len(scans)} scans has both manual and weak labels; nothing to compare.")
    found = each(
        _compare, [(scan, Place.of(out, scan.name, layout).labels, manual) for scan in both], "comparing", jobs
    )
    tables = [one for one in found if not isinstance(one, Refused)]
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["scan", "subject"])
    with write_aside(out / "label_quality.csv") as aside:
        table.to_csv(aside, index=False)
    return table, tuple(one for one in found if isinstance(one, Refused))


def _compare(scan: Scan, path: Path, manual: Protocol) -> pd.DataFrame | Refused:
    return or_refused(scan.name, scan.subject, lambda: _table(scan, path, manual))


def _table(scan: Scan, path: Path, manual: Protocol) -> pd.DataFrame:
    if scan.label is None:
        raise InputError(f"{scan.name}: has no manual labels.")
    weak, drawn = read_labels(path), read_labels(scan.label)
    check_one_grid(weak, drawn)
    table = label_quality(
        protocol("same", manual.target).apply(weak.data, str(path)),
        manual.apply(drawn.data, str(scan.label)),
        manual.target,
        drawn.spacing_mm,
    )
    table.insert(0, "scan", scan.name)
    table.insert(1, "subject", scan.subject)
    return table
