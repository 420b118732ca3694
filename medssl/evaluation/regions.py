"""Regions of a CT: how dense each is, how it differs from its twin on the other side, and how much lesion lies in it.

A fresh infarct takes up water and becomes darker, about 2 Hounsfield numbers for each per cent of water; the
difference from the same region of the other side in per cent is the net water uptake of Minnerup et al., "Computed
tomography-based quantification of lesion water uptake identifies patients within 4.5 hours of stroke onset", Annals of
Neurology 2016, https://doi.org/10.1002/ana.24818, where the region is the infarct. Of a larger region it is diluted.

Which side is left is what the structures' names say ("Left-Putamen", "kidney_left"), never the picture.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medssl.data.formats import stem_of, suffix_of
from medssl.data.recipe import check_one_grid
from medssl.data.resample import reorient
from medssl.data.volumes import VOLUME_SUFFIXES, Volume, read_labels, read_volume
from medssl.errors import InputError
from medssl.labels.lut import LabelSet
from medssl.labels.protocols import protocol

TISSUE_HU = (-20.0, 100.0)
"""What is counted in a region: fluid and tissue with their noise; without bone, calcification, metal, fat and air."""

_FLUID_HU = 15.0  # darker is mostly fluid: grey matter is near 35, white matter near 28

_SHOWN = ("structure", "side", "volume_mm3", "mean_hu", "fluid_share", "difference_hu", "difference_percent")

OUTSIDE = "outside the regions"
"""What the row of lesion voxels that lie in no region is called."""


def region_table(
    hu: NDArray[Any],
    regions: NDArray[np.integer[Any]],
    label_set: LabelSet,
    voxel_mm3: float,
    tissue_hu: tuple[float, float] = TISSUE_HU,
) -> pd.DataFrame:
    """Measure each region of a CT, and compare it with its twin.

    Args:
        hu: Hounsfield numbers, any shape.
        regions: Class indices of the label set, same shape.
        label_set: Names the regions; their twins are found by name.
        voxel_mm3: Volume of a voxel.
        tissue_hu: Voxels beyond these do not count for the densities; they do for the volume.

    Returns:
        One row per region: ``structure``, ``id``, ``side`` ("left", "right" or ""), ``voxels``, ``volume_mm3``;
        ``tissue_share`` of the voxels that is within ``tissue_hu``, with their ``mean_hu``, ``median_hu`` and
        ``sd_hu``, and ``fluid_share``, that of them below 15, by which a region that holds ventricle or sulcus is
        known; ``twin``, the region on the other side; ``difference_hu``, the mean minus the twin's (negative: darker
        than the other side), and ``difference_percent`` of the twin's mean. What cannot be is NaN.

    Raises:
        InputError: The shapes differ.
    """
    _require_one_shape(hu, regions)
    classes = label_set.classes
    voxels = np.bincount(regions.ravel(), minlength=classes)
    tissue = (hu >= tissue_hu[0]) & (hu <= tissue_hu[1]) & (regions > 0)
    inside, values = regions[tissue], hu[tissue].astype(np.float64)
    by_region = pd.Series(values).groupby(inside)
    index = pd.RangeIndex(1, classes)
    mean, median, sd, counted = (by_region.agg(what).reindex(index) for what in ("mean", "median", "std", "count"))
    fluid = pd.Series(values < _FLUID_HU).groupby(inside).mean().reindex(index)
    twins = np.array(label_set.mirrored)[1:]
    paired = twins != index.to_numpy()
    other = np.where(paired, mean.reindex(twins).to_numpy(), np.nan)
    difference = mean.to_numpy() - other
    table = pd.DataFrame(
        {
            "structure": label_set.names,
            "id": label_set.ids,
            "side": [label_set.side(i) for i in index],
            "voxels": voxels[1:],
            "volume_mm3": voxels[1:] * voxel_mm3,
            "tissue_share": counted.fillna(0).to_numpy() / np.where(voxels[1:] > 0, voxels[1:], np.nan),
            "mean_hu": mean.to_numpy(),
            "median_hu": median.to_numpy(),
            "sd_hu": sd.to_numpy(),
            "fluid_share": fluid.to_numpy(),
            "twin": [label_set.names[t - 1] if two else "" for t, two in zip(twins, paired, strict=True)],
            "difference_hu": difference,
        }
    )
    return table.assign(difference_percent=100 * difference / np.where(other > 0, other, np.nan))


def lesion_table(
    regions: NDArray[np.integer[Any]],
    label_set: LabelSet,
    voxel_mm3: float,
    *,
    predicted: NDArray[np.bool_] | None = None,
    reference: NDArray[np.bool_] | None = None,
) -> pd.DataFrame:
    """Say how much lesion lies in each region, and how well two lesion masks agree there.

    Args:
        regions: Class indices of the label set.
        label_set: Names the regions.
        voxel_mm3: Volume of a voxel.
        predicted: A lesion mask, same shape.
        reference: The lesion mask that is trusted more, same shape.

    Returns:
        One row per region and a last one, ``OUTSIDE``, for what lies in none: ``structure``, ``region_mm3``; for each
        mask that is given ``<mask>_mm3`` and ``<mask>_percent`` of the region; where both are, ``both_mm3`` and
        ``dice`` inside the region (NaN where neither mask has a voxel in it, 0 where one has).

    Raises:
        InputError: The shapes differ, or there is no mask.
    """
    masks = {name: mask for name, mask in (("predicted", predicted), ("reference", reference)) if mask is not None}
    if not masks:
        raise InputError("A table of lesions needs a lesion mask.")
    order = [*range(1, label_set.classes), 0]
    sizes = np.bincount(regions.ravel(), minlength=label_set.classes)[order].astype(np.float64)
    sizes[-1] = np.nan  # outside the regions is wherever the field of view ends
    table = pd.DataFrame({"structure": [*label_set.names, OUTSIDE], "region_mm3": sizes * voxel_mm3})

    def counts(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
        _require_one_shape(mask, regions)
        return np.bincount(regions[mask], minlength=label_set.classes)[order]

    for name, mask in masks.items():
        found = counts(mask)
        table[f"{name}_mm3"] = found * voxel_mm3
        table[f"{name}_percent"] = 100 * found / np.where(sizes > 0, sizes, np.nan)
    if predicted is not None and reference is not None:
        both, either = counts(predicted & reference), counts(predicted) + counts(reference)
        table["both_mm3"] = both * voxel_mm3
        table["dice"] = 2 * both / np.where(either > 0, either, np.nan)
    return table


class MeasuredScan(NamedTuple):
    """A scan and its regions, axes towards right, front and top, and what was measured; no lesions without a mask."""

    scan: Volume
    regions: Volume
    table: pd.DataFrame
    lesions: pd.DataFrame | None


def measure_scan(
    image: Path,
    regions: Path,
    label_set: LabelSet,
    series: str | None = None,
    predicted: Path | None = None,
    reference: Path | None = None,
) -> MeasuredScan:
    """Read a CT, its regions and lesion masks (everything above 0 is lesion), and measure.

    Args:
        image: The CT, in Hounsfield numbers.
        regions: A label map with the label set's own numbers.
        label_set: Names the regions.
        series: Which series of a DICOM folder.
        predicted: A lesion mask.
        reference: The lesion mask that is trusted more.

    Raises:
        InputError: A file cannot be read, or is not on the scan's grid.
    """
    ct, labels = read_volume(image, series), read_labels(regions)
    check_one_grid(labels, ct)
    classes = protocol("same", label_set).apply(labels.data, str(regions))
    masks = {}
    for name, path in (("predicted", predicted), ("reference", reference)):
        if path is not None:
            drawn = read_labels(path)
            check_one_grid(drawn, ct)
            masks[name] = drawn.data > 0
    voxel_mm3 = float(abs(np.linalg.det(ct.affine[:3, :3])))
    table = region_table(ct.data, classes, label_set, voxel_mm3)
    lesions = lesion_table(classes, label_set, voxel_mm3, **masks) if masks else None
    return MeasuredScan(reorient(ct), reorient(Volume(classes, ct.affine)), table, lesions)


def masks_by_scan(folder: Path, scans: Sequence[str]) -> dict[str, Path]:
    """Find each scan's mask: the file that is called like the scan, or like it and more ("s1_lesion" for "s1").

    Args:
        folder: Holds masks as NIfTI, MGH, MetaImage or NRRD.
        scans: Names of scans; one without a mask is left out.

    Raises:
        InputError: There is no such folder, a scan has several masks, or no scan has any.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder.")
    files = sorted(path for path in folder.iterdir() if suffix_of(path) in VOLUME_SUFFIXES)
    found: dict[str, Path] = {}
    for scan in scans:
        mine = [path for path in files if re.match(rf"{re.escape(scan)}(?![A-Za-z0-9])", stem_of(path))]
        if len(mine) > 1:
            named = ", ".join(path.name for path in mine)
            raise InputError(f"{folder}: scan '{scan}' has {len(mine)} masks ({named}); one of each scan is expected.")
        if mine:
            found[scan] = mine[0]
    if not found:
        raise InputError(f"{folder}: holds no mask that is called like a scan, such as {scans[0]}_lesion.nii.gz.")
    return found


def most_asymmetric(table: pd.DataFrame, count: int = 10) -> pd.DataFrame:
    """Take the regions that are darker than their twins, those that are darkest by most first.

    Args:
        table: As ``region_table`` returns it.
        count: How many at most.
    """
    darker = table[table["difference_hu"] < 0].sort_values("difference_hu", kind="stable")
    return darker.head(count)[list(_SHOWN)]


def _require_one_shape(values: NDArray[Any], regions: NDArray[Any]) -> None:
    if values.shape != regions.shape:
        arrived, expected = ("x".join(map(str, one.shape)) for one in (values, regions))
        raise InputError(f"The scan has {arrived} voxels, its regions {expected}; they must share one grid.")
