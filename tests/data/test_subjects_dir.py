"""What FreeSurfer and FastSurfer leave, and one subject's folder of it."""

from pathlib import Path

import numpy as np
import pytest

from medssl.data.catalog import catalog
from medssl.data.prepare import prepare
from medssl.labels.lut import label_set
from medssl.labels.protocols import protocol

DEEP, MAPPED = "aparc.DKTatlas+aseg.deep.mgz", "aparc.DKTatlas+aseg.mapped.mgz"
# FastSurfer_ColorLUT.tsv, and what its surface module adds (the corpus callosum, cortex of no parcel).
ASEG = [
    *(
        2,
        4,
        5,
        7,
        8,
        10,
        11,
        12,
        13,
        14,
        15,
        16,
        17,
        18,
        24,
        26,
        28,
        31,
        41,
        43,
        44,
        46,
        47,
        49,
        50,
        51,
        52,
        53,
        54,
        58,
    ),
    *(60, 63, 77, 251, 252, 253, 254, 255),
]
PARCELS = [2, 3, *range(5, 32), 34, 35]  # Desikan-Killiany-Tourville's 31 of each side
DKT = [side + parcel for side in (1000, 2000) for parcel in PARCELS]


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def found(root: Path, labels: str = "aparc+aseg") -> dict[str, tuple[str, str | None]]:
    scans = catalog(root, freesurfer_labels=labels)
    return {scan.name: (scan.image.name, scan.label and scan.label.name) for scan in scans}


def test_fastsurfers_names_are_found_where_freesurfers_are_missing(tmp_path):
    touch(tmp_path, "seg/mri/orig.mgz", "seg/mri/orig_nu.mgz", f"seg/mri/{DEEP}", "seg/mri/aseg.auto_noCCseg.mgz")
    touch(tmp_path, "surf/mri/norm.mgz", "surf/mri/orig_nu.mgz", f"surf/mri/{DEEP}", f"surf/mri/{MAPPED}")
    touch(tmp_path, "surf/mri/aseg.mgz", "surf/mri/aseg.auto_noCCseg.mgz")
    touch(tmp_path, "free/mri/orig.mgz", "free/mri/aparc+aseg.mgz", f"free/mri/{MAPPED}", f"free/mri/{DEEP}")
    assert found(tmp_path) == {
        "free": ("orig.mgz", "aparc+aseg.mgz"),
        "seg": ("orig_nu.mgz", DEEP),
        "surf": ("norm.mgz", MAPPED),
    }
    assert found(tmp_path, "aseg") == {
        "free": ("orig.mgz", None),
        "seg": ("orig_nu.mgz", "aseg.auto_noCCseg.mgz"),
        "surf": ("norm.mgz", "aseg.mgz"),
    }
    assert {scan.protocol for scan in catalog(tmp_path)} == {"aparc+aseg"}
    assert catalog(tmp_path, freesurfer_labels="aseg")[0].unlabelled == (
        "there is no aseg.mgz in free/mri, but aparc+aseg.mgz"
    )


def test_a_subject_of_labels_alone_is_listed_to_be_refused_by_name(tmp_path):
    touch(tmp_path, f"a/mri/{DEEP}", "b/mri/orig.mgz")
    assert found(tmp_path) == {"a": ("norm.mgz", DEEP), "b": ("orig.mgz", None)}


@pytest.mark.parametrize("name", ["bert", "fsaverage"])
def test_one_subjects_folder_is_one_scan_named_after_it(tmp_path, name, monkeypatch):
    folder = touch(
        tmp_path / name, "mri/brain.mgz", "mri/aseg.mgz", "mri/aparc+aseg.mgz", "mri/orig/001.mgz", "surf/lh"
    )
    (scan,) = catalog(folder)
    assert (scan.name, scan.subject, scan.protocol) == (name, name, "aparc+aseg")
    assert (scan.image, scan.label) == (folder / "mri" / "brain.mgz", folder / "mri" / "aparc+aseg.mgz")
    for inside, way in ((folder, "."), (folder / "mri", "..")):
        monkeypatch.chdir(inside)
        assert catalog(Path(way))[0].name == name


def test_a_folder_with_an_mri_folder_of_other_files_is_read_as_before(tmp_path):
    touch(tmp_path, "mri/scan.mgz", "a_T1w.nii.gz", "a_labels.nii.gz")
    assert [scan.name for scan in catalog(tmp_path)] == ["a"]


def test_every_number_of_fastsurfer_has_a_rule_and_parcels_are_cortex_of_their_side(tmp_path, write_image):
    structures = label_set("freesurfer-32")
    numbers = np.array([0, *ASEG, *DKT, 1000, 2000], dtype=np.int32)
    labels = np.zeros((12, 10, 8), dtype=np.int32)
    labels.flat[: numbers.size] = numbers
    image = np.random.default_rng(0).integers(50, 200, labels.shape).astype(np.uint8)
    write_image(tmp_path / "in" / "seg" / "mri" / "orig_nu.mgz", image)
    write_image(tmp_path / "in" / "seg" / "mri" / DEEP, labels)
    report = prepare(tmp_path / "in" / "seg", tmp_path / "out", protocol("aparc+aseg", structures), jobs=1)
    assert (report.made, report.refused) == (("seg",), ())
    ids = structures.to_ids(report.dataset().label(0))
    place = {number: ids.flat[i] for i, number in enumerate(numbers)}
    assert {place[number] for number in DKT if number < 2000} == {3}
    assert {place[number] for number in DKT if number > 2000} == {42}
    ours = [number for number in ASEG if number in structures.ids]
    assert [place[number] for number in ours] == ours
    assert (place[31], place[63]) == (4, 43)
    assert {place[number] for number in (77, 251, 252, 253, 254, 255)} <= {2, 41}
    assert report.absent == ()
