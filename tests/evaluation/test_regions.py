"""Regions of a CT have the densities, sides and lesions that were put into them."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medssl.errors import InputError
from medssl.evaluation.regions import (
    OUTSIDE,
    lesion_table,
    masks_by_scan,
    measure_scan,
    most_asymmetric,
    region_table,
)
from medssl.labels.lut import LabelSet, Structure

PARTS = LabelSet(
    "parts",
    tuple(
        Structure(i, name, (i, 0, 0))
        for i, name in ((3, "Left-Cortex"), (42, "Right-Cortex"), (12, "lh_putamen"), (51, "rh_putamen"), (16, "Stem"))
    ),
)


def head() -> tuple[np.ndarray, np.ndarray]:
    """Five regions in a row of 100 voxels each, all at 36 HU; background at -1000."""
    regions = np.zeros((6, 10, 10), np.uint8)
    regions[1:] = np.arange(1, 6).reshape(5, 1, 1)
    return np.where(regions > 0, 36, -1000).astype(np.int16), regions


def test_a_planted_dark_region_on_the_left_is_found_with_its_side_and_size() -> None:
    hu, regions = head()
    hu[3, :5] -= 12  # half of the left putamen
    table = region_table(hu, regions, PARTS, voxel_mm3=2.0)
    first = most_asymmetric(table).iloc[0]
    assert (first["structure"], first["side"], len(most_asymmetric(table))) == ("lh_putamen", "left", 1)
    assert first["difference_hu"] == pytest.approx(-6)
    assert first["difference_percent"] == pytest.approx(-100 * 6 / 36)
    assert first["volume_mm3"] == 200
    right = table.set_index("structure").loc["rh_putamen"]
    assert (right["difference_hu"], right["side"], right["twin"]) == (pytest.approx(6), "right", "lh_putamen")


def test_a_region_without_a_twin_has_a_density_and_no_difference() -> None:
    stem = region_table(*head(), PARTS, 1.0).set_index("structure").loc["Stem"]
    assert (stem["side"], stem["twin"], stem["mean_hu"]) == ("", "", 36)
    assert np.isnan(stem["difference_hu"])


def test_bone_and_air_count_for_the_volume_and_not_for_the_density() -> None:
    hu, regions = head()
    hu[1, 0], hu[1, 1] = 900, -800
    cortex = region_table(hu, regions, PARTS, 1.0).set_index("structure").loc["Left-Cortex"]
    assert (cortex["mean_hu"], cortex["volume_mm3"], cortex["tissue_share"]) == (36, 100, 0.8)


def test_fluid_in_a_region_is_told() -> None:
    hu, regions = head()
    hu[1, :3] = 8
    table = region_table(hu, regions, PARTS, 1.0).set_index("structure")
    assert table["fluid_share"].tolist() == [0.3, 0, 0, 0, 0]


def test_an_absent_region_is_nan_and_never_zero() -> None:
    hu, regions = head()
    regions[regions == 2] = 0
    table = region_table(hu, regions, PARTS, 1.0).set_index("structure")
    assert table.loc["Right-Cortex", "voxels"] == 0
    assert table.loc[["Right-Cortex", "Left-Cortex"], "difference_hu"].isna().all()
    assert table.loc["Right-Cortex", ["mean_hu", "tissue_share", "fluid_share"]].isna().all()


def test_it_agrees_with_a_loop_over_voxels() -> None:
    random = np.random.default_rng(0)
    hu, regions = random.integers(-60, 140, (7, 8, 9)), random.integers(0, 6, (7, 8, 9)).astype(np.uint8)
    table = region_table(hu, regions, PARTS, 1.0)
    for index in range(1, 6):
        values = [v for v, r in zip(hu.ravel(), regions.ravel(), strict=True) if r == index and -20 <= v <= 100]
        row = table.iloc[index - 1]
        assert (row["mean_hu"], row["median_hu"]) == (pytest.approx(np.mean(values)), np.median(values))
        assert row["sd_hu"] == pytest.approx(np.std(values, ddof=1))


def test_sides_come_from_names_alone() -> None:
    assert [PARTS.side(i) for i in range(1, 6)] == ["left", "right", "left", "right", ""]


def test_lesions_are_counted_by_region_and_none_is_dropped() -> None:
    _, regions = head()
    predicted, reference = np.zeros(regions.shape, bool), np.zeros(regions.shape, bool)
    reference[1, :4], predicted[1, 2:5] = True, True  # 40 and 30 voxels of the left cortex, 20 in both
    predicted[2, 0] = True  # 10 of the right cortex that nobody drew
    reference[0, 0] = True  # 10 in no region
    table = lesion_table(regions, PARTS, 3.0, predicted=predicted, reference=reference).set_index("structure")
    assert table.loc["Left-Cortex", ["reference_mm3", "predicted_mm3", "both_mm3"]].tolist() == [120, 90, 60]
    assert table.loc["Left-Cortex", "reference_percent"] == 40
    assert table["dice"].tolist()[:2] == [pytest.approx(40 / 70), 0]
    assert table["dice"].iloc[2:5].isna().all()
    assert table.loc[OUTSIDE, "reference_mm3"] == 30
    assert table["reference_mm3"].sum() == 3 * reference.sum()


def test_one_mask_alone_has_no_agreement() -> None:
    _, regions = head()
    table = lesion_table(regions, PARTS, 1.0, reference=regions == 1)
    assert set(table) == {"structure", "region_mm3", "reference_mm3", "reference_percent"}
    with pytest.raises(InputError, match="needs a lesion mask"):
        lesion_table(regions, PARTS, 1.0)


def test_another_grid_is_refused_with_both_sizes() -> None:
    hu, regions = head()
    with pytest.raises(InputError, match="5x10x10 voxels, its regions 6x10x10"):
        region_table(hu[1:], regions, PARTS, 1.0)


def test_a_scan_is_read_and_turned_with_its_regions(tmp_path: Path) -> None:
    hu, regions = head()
    affine = np.diag([-1.0, 1, 2, 1])  # the first axis runs to the left
    for name, data in (("ct", hu), ("regions", PARTS.to_ids(regions)), ("lesion", (regions == 3).astype(np.uint8))):
        nib.save(nib.Nifti1Image(data, affine), tmp_path / f"{name}.nii.gz")
    ct, drawn, lesion = (tmp_path / f"{name}.nii.gz" for name in ("ct", "regions", "lesion"))
    found = measure_scan(ct, drawn, PARTS, reference=lesion)
    assert found.lesions is not None
    assert found.lesions.set_index("structure").loc["lh_putamen", "reference_percent"] == 100
    assert found.table["volume_mm3"].tolist() == [200] * 5
    assert found.regions.data[0, 0, 0] == 5  # turned: what was last is first
    assert (found.scan.data[0] == 36).all()


def test_masks_are_found_by_the_scans_names(tmp_path: Path) -> None:
    for name in ("s1_lesion", "s10", "s2-core"):
        (tmp_path / f"{name}.nii.gz").touch()
    found = masks_by_scan(tmp_path, ["s1", "s2", "s3"])
    assert {scan: path.name for scan, path in found.items()} == {"s1": "s1_lesion.nii.gz", "s2": "s2-core.nii.gz"}
    with pytest.raises(InputError, match="no mask that is called like a scan, such as s4_lesion"):
        masks_by_scan(tmp_path, ["s4"])
    (tmp_path / "s1_other.nii.gz").touch()
    with pytest.raises(InputError, match=r"scan 's1' has 2 masks \(s1_lesion.nii.gz, s1_other.nii.gz\)"):
        masks_by_scan(tmp_path, ["s1"])
