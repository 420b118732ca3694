"""Slabs of a scan lie where they say, share no voxel, and are as far apart as they should be."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medssl.data.catalog import Scan
from medssl.data.slabs import SLABS, cut_into_slabs, others_than, structures_of_each
from medssl.data.volumes import read_labels, read_volume
from medssl.errors import InputError
from medssl.labels.chosen import choose
from medssl.labels.lut import LabelSet, Structure

ORGANS = LabelSet("organs", tuple(Structure(i, f"organ{i}", (i, 0, 0)) for i in (1, 2, 3)))


def scan_of(folder: Path, codes: str = "RAS", height: int = 60) -> Scan:
    """Voxels of 3 mm that hold their own height in mm; organ 1 everywhere, organ 2 low, organ 3 high."""
    data = np.broadcast_to(3 * np.arange(height), (20, 20, height)).astype(np.int16)
    labels = np.ones_like(data, dtype=np.uint8)
    labels[:10, :10, : height // 3], labels[:10, :10, -height // 3 :] = 2, 3
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(codes))
    for name, array in (("s1", data), ("s1_labels", labels)):
        image = nib.Nifti1Image(array, np.diag([3.0, 3, 3, 1])).as_reoriented(turn)
        nib.save(image, folder / f"{name}.nii.gz")
    return Scan("s1", "s1", folder / "s1.nii.gz", folder / "s1_labels.nii.gz")


@pytest.mark.parametrize("codes", ["RAS", "LPI", "SRA", "PIR"])
def test_each_part_keeps_its_place_in_space_and_the_gap_whatever_the_orientation(tmp_path: Path, codes: str) -> None:
    parts = cut_into_slabs(scan_of(tmp_path, codes), tmp_path / "out", gap_mm=15)
    ends = []
    for part in parts.values():
        assert part.label is not None
        image, labels = read_volume(part.image), read_labels(part.label)
        np.testing.assert_array_equal(image.affine, labels.affine)
        corner = image.affine @ [0, 0, 0, 1]
        assert image.data[0, 0, 0] == corner[2]  # what the voxel holds is its height
        ends.append((int(image.data.min()), int(image.data.max())))
    assert list(parts) == list(SLABS)
    (_, first), (low, high), (last, top) = ends
    assert low - first >= 15 and last - high >= 15
    assert ends[0][0] == 0 and top == 3 * 59


def test_only_structures_that_both_ends_show_are_named(tmp_path: Path) -> None:
    parts = cut_into_slabs(scan_of(tmp_path), tmp_path / "out")
    reading = choose(ORGANS)
    assert structures_of_each([parts["pool"], parts["test"]], reading) == ("organ1",)
    with pytest.raises(InputError, match="No structure is in both s1-pool and s1-test"):
        structures_of_each([parts["pool"], parts["test"]], choose(ORGANS, ["organ2", "organ3"]))


def test_a_scan_that_is_too_low_says_its_height(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"s1.nii.gz: is 24 mm high, too low to be cut with gaps of 15 mm"):
        cut_into_slabs(scan_of(tmp_path, height=8), tmp_path / "out")


def test_a_scan_without_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="s1: has no label map"):
        cut_into_slabs(Scan("s1", "s1", scan_of(tmp_path).image), tmp_path / "out")


def test_the_same_subject_and_the_same_content_are_no_others(tmp_path: Path) -> None:
    scan = scan_of(tmp_path)
    copy, other, gone = (tmp_path / f"{name}.nii.gz" for name in ("copy", "other", "gone"))
    copy.write_bytes(scan.image.read_bytes())
    nib.save(nib.Nifti1Image(np.eye(4), np.eye(4)), other)
    scans = [scan, Scan("copy", "copy", copy), Scan("other", "other", other), Scan("gone", "gone", gone)]
    assert [one.name for one in others_than(scan, scans)] == ["other", "gone"]  # the last is refused when prepared
