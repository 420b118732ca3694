import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from medssl.data.catalog import Scan, catalog
from medssl.data.volumes import read_labels, read_volume, write_labels
from medssl.errors import InputError
from medssl.labels import labellers
from medssl.labels.atlas import Atlas
from medssl.labels.freesurfer import write_mgz
from medssl.labels.labellers import AtlasLabeller
from medssl.labels.lut import LabelSet, Structure, label_set
from medssl.labels.protocols import protocol
from medssl.labels.quality import label_quality, write_label_quality
from medssl.labels.weak import WeakLabels, weak_labels_from_atlases, weak_labels_from_freesurfer

Phantom = Callable[..., Atlas]
BLOBS = LabelSet("blobs", tuple(Structure(10 * i, f"blob-{i}", (i, i, i)) for i in range(1, 6)))


def rows(path: Path) -> dict[str, dict[str, str]]:
    with path.open() as stream:
        return {row["scan"]: row for row in csv.DictReader(stream)}


def subject(root: Path, name: str, numbers: list[int], stats: bool = False) -> Path:
    """A subject of a SUBJECTS_DIR, its labels a few planes each of the given numbers."""
    labels = np.repeat(np.array([0, *numbers], np.int32), 3)[:, None, None] * np.ones((1, 6, 5), np.int32)
    affine = np.array([[-1.0, 0, 0, 9], [0, 0, 1, -3], [0, -1, 0, 2], [0, 0, 0, 1]])
    mri = root / name / "mri"
    write_mgz(mri / "aseg.mgz", labels, affine)
    write_mgz(mri / "brain.mgz", (labels % 97).astype(np.uint8), affine)
    if stats:
        (root / name / "stats").mkdir()
        (root / name / "stats" / "aseg.stats").write_text("# comment\n 1 17 90 85.25 Left-Hippocampus 1 2 3 4 5\n")
    return mri


@pytest.fixture
def subjects_dir(tmp_path: Path) -> Path:
    root = tmp_path / "subjects"
    subject(root, "a", [2, 251, 17, 41], stats=True)
    subject(root, "b", [3, 999, 42])
    subject(root, "c", [2, 53])
    (root / "c" / "mri" / "aseg.mgz").unlink()
    subject(root, "d", [16, 60])
    return root


def from_freesurfer(root: Path, out: Path, **more: object) -> WeakLabels:
    return weak_labels_from_freesurfer(catalog(root, freesurfer_labels="aseg"), out, jobs=1, **more)


def test_freesurfer_labels_come_out_in_the_numbers_of_the_set(subjects_dir: Path, tmp_path: Path) -> None:
    report = from_freesurfer(subjects_dir, tmp_path / "out")
    weak = read_labels(tmp_path / "out" / "a_dseg.nii.gz")
    assert weak.data[:, 0, 0].tolist() == [0] * 3 + [2] * 6 + [17] * 3 + [41] * 3
    assert np.allclose(weak.affine, read_volume(subjects_dir / "a" / "mri" / "brain.mgz").affine)
    assert report.made == ("a", "d")


def test_scans_that_cannot_be_labelled_are_listed_and_stop_no_others(subjects_dir: Path, tmp_path: Path) -> None:
    report = from_freesurfer(subjects_dir, tmp_path / "out")
    assert [one.scan for one in report.refused] == ["b", "c"]
    table = rows(tmp_path / "out" / "weak_labels.csv")
    assert {name: row["status"] for name, row in table.items()} == {
        "a": "made",
        "b": "refused",
        "c": "refused",
        "d": "made",
    }
    assert "no rule for these labels: 999 (90 voxels)" in table["b"]["reason"]
    assert "there is no aseg.mgz in c/mri" in table["c"]["reason"]
    assert "999 (90 voxels)" in report.table()
    assert table["a"]["labels"] == "a_dseg.nii.gz"


def test_what_was_written_is_a_source_for_prepare(subjects_dir: Path, tmp_path: Path) -> None:
    from_freesurfer(subjects_dir, tmp_path / "out")
    found = catalog(tmp_path / "out")
    assert [(scan.name, scan.label and scan.label.name) for scan in found] == [
        ("a", "a_dseg.nii.gz"),
        ("d", "d_dseg.nii.gz"),
    ]
    ours, theirs = read_volume(found[0].image), read_volume(subjects_dir / "a" / "mri" / "brain.mgz")
    assert (ours.data == theirs.data).all()


def test_the_subjects_dir_layout_is_found_out_as_one(subjects_dir: Path, tmp_path: Path) -> None:
    from_freesurfer(subjects_dir, tmp_path / "out", layout="subjects_dir")
    (first, _) = catalog(tmp_path / "out", freesurfer_labels="aseg")
    assert (first.subject, first.protocol, first.image.name) == ("a", "aseg", "brain.mgz")
    assert first.label is not None
    assert set(np.unique(read_labels(first.label).data)) == {0, 2, 17, 41}


def test_the_folder_says_what_its_numbers_mean(subjects_dir: Path, tmp_path: Path) -> None:
    from_freesurfer(subjects_dir, tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "dseg.tsv", sep="\t").set_index("index")
    assert table.loc[17].tolist() == ["Left-Hippocampus", "L-HIP", "#dcd814", 9]
    assert table["abbreviation"].is_unique
    assert json.loads((tmp_path / "out" / "dataset_description.json").read_text())["DatasetType"] == "derivative"
    assert label_set(str(tmp_path / "out" / "labels_LUT.txt")).ids == label_set("freesurfer-27").ids
    assert json.loads((tmp_path / "out" / "a_dseg.json").read_text())["Manual"] is False


def test_volumes_are_counts_beside_the_ones_of_freesurfer(subjects_dir: Path, tmp_path: Path) -> None:
    from_freesurfer(subjects_dir, tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "volumes.csv").set_index(["scan", "structure"])
    assert table.loc[("a", "Left-Hippocampus")].tolist() == [90, 90.0, 85.25]
    assert table.loc[("d", "Brain-Stem"), "voxels"] == 90
    assert np.isnan(table.loc[("d", "Brain-Stem"), "freesurfer_mm3"])


def test_a_second_run_does_nothing_and_a_changed_scan_is_done_anew(subjects_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    from_freesurfer(subjects_dir, out)
    before = {path: path.stat().st_mtime_ns for path in out.glob("*_dseg.nii.gz")}
    assert from_freesurfer(subjects_dir, out).kept == ("a", "d")
    assert {path: path.stat().st_mtime_ns for path in before} == before
    subject(subjects_dir, "d", [16, 28])
    report = from_freesurfer(subjects_dir, out)
    assert (report.kept, report.made) == (("a",), ("d",))
    assert set(np.unique(read_labels(out / "d_dseg.nii.gz").data)) == {0, 16, 28}


def test_another_label_set_is_not_taken_for_the_same_labels(subjects_dir: Path, tmp_path: Path) -> None:
    from_freesurfer(subjects_dir, tmp_path / "out")
    report = from_freesurfer(subjects_dir, tmp_path / "out", label_set=label_set("freesurfer-32"))
    assert report.made == ("a", "d")


def test_labels_of_a_scan_that_went_bad_do_not_stay(subjects_dir: Path, tmp_path: Path) -> None:
    from_freesurfer(subjects_dir, tmp_path / "out")
    subject(subjects_dir, "d", [16, 999])
    assert [one.scan for one in from_freesurfer(subjects_dir, tmp_path / "out").refused] == ["b", "c", "d"]
    assert not list((tmp_path / "out").glob("d_*"))


def test_labels_never_overwrite_the_scans_they_are_made_from(subjects_dir: Path) -> None:
    with pytest.raises(InputError, match="holds the scans themselves"):
        from_freesurfer(subjects_dir, subjects_dir, layout="subjects_dir")


def test_labels_of_another_making_are_never_overwritten(subjects_dir: Path, tmp_path: Path) -> None:
    precious = tmp_path / "out" / "d_dseg.nii.gz"
    precious.parent.mkdir()
    precious.write_text("drawn by hand")
    report = from_freesurfer(subjects_dir, tmp_path / "out")
    assert "not of this command's making" in next(one.reason for one in report.refused if one.scan == "d")
    assert precious.read_text() == "drawn by hand"


def test_two_scans_that_would_share_a_file_are_refused(subjects_dir: Path, tmp_path: Path) -> None:
    (subjects_dir / "d").rename(subjects_dir / "a_T1w")
    with pytest.raises(InputError, match=r"a_dseg.nii.gz: would hold the labels of more than one scan"):
        from_freesurfer(subjects_dir, tmp_path / "out")


def test_a_cohort_without_one_good_scan_is_an_error_that_says_why(subjects_dir: Path, tmp_path: Path) -> None:
    scans = [scan for scan in catalog(subjects_dir, freesurfer_labels="aseg") if scan.name in "bc"]
    with pytest.raises(InputError, match=r"none of the 2 scans can be labelled(.|\n)*b: .*999"):
        weak_labels_from_freesurfer(scans, tmp_path / "out", jobs=1)
    assert set(rows(tmp_path / "out" / "weak_labels.csv")) == {"b", "c"}


@pytest.fixture
def heads(tmp_path: Path, phantom: Phantom) -> list[Scan]:
    """Four labelled heads as NIfTI files, in the numbers of ``BLOBS``."""
    scans = []
    for seed in range(4):
        head = phantom(bend=1.0 if seed else 0.0, seed=seed + 10)
        image, label = tmp_path / "heads" / f"h{seed}_T1w.nii.gz", tmp_path / "heads" / f"h{seed}_labels.nii.gz"
        image.parent.mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(head.image.data, head.image.affine), image)
        write_labels(label, BLOBS.to_ids(head.labels), read_volume(image))
        scans.append(Scan(f"h{seed}", f"h{seed}", image, label))
    return scans


def from_atlases(targets: list[Scan], atlases: list[Scan], out: Path, **more: object) -> WeakLabels:
    settings: dict[str, object] = {"reading": "same", "working_spacing_mm": 3.0, "jobs": 1} | more
    return weak_labels_from_atlases(targets, atlases, out, BLOBS, **settings)


def test_atlases_give_labels_on_the_scans_own_grid_close_to_the_manual_ones(heads: list[Scan], tmp_path: Path) -> None:
    from_atlases(heads[:1], heads[1:], tmp_path / "out")
    weak, target = read_labels(tmp_path / "out" / "h0_dseg.nii.gz"), read_volume(heads[0].image)
    assert (weak.affine == target.affine).all()
    assert weak.data.shape == target.data.shape
    table, wrong = write_label_quality(heads, tmp_path / "out", protocol("same", BLOBS), jobs=1)
    assert not wrong
    assert table["dice"].min() > 0.8
    assert table["volume_ratio"].between(0.8, 1.25).all()
    assert pd.read_csv(tmp_path / "out" / "label_quality.csv")["structure"].tolist() == list(BLOBS.names)


def test_one_broken_scan_is_refused_and_the_others_are_labelled_in_parallel(heads: list[Scan], tmp_path: Path) -> None:
    broken = tmp_path / "broken_T1w.nii.gz"
    broken.write_bytes(gzip.compress(b"no image"))
    targets = [Scan("broken", "broken", broken), heads[0]]
    report = from_atlases(targets, heads[2:], tmp_path / "out", deformable=None, jobs=2)
    assert report.made == ("h0",)
    assert [one.scan for one in report.refused] == ["broken"]
    assert "broken_T1w.nii.gz" in report.refused[0].reason


def test_a_scan_is_never_its_own_atlas_nor_that_of_its_subject(heads: list[Scan], tmp_path: Path) -> None:
    renamed = Scan("again", "somebody", heads[0].image)
    follow_up = Scan("later", "h1", heads[2].image)
    from_atlases([heads[0], renamed, follow_up], heads[:3], tmp_path / "out", deformable=None)
    used = {p.name: json.loads(p.read_text())["atlases"] for p in (tmp_path / "out").glob("*_dseg.json")}
    assert used == {"h0_dseg.json": ["h1", "h2"], "again_dseg.json": ["h1", "h2"], "later_dseg.json": ["h0"]}


def test_a_scan_with_no_atlas_of_another_subject_is_refused(heads: list[Scan], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"every atlas shows this subject \(h0\)"):
        from_atlases(heads[:1], heads[:1], tmp_path / "out")


def test_resuming_registers_only_what_is_missing(
    heads: list[Scan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from_atlases(heads[:2], heads[2:], tmp_path / "out", deformable=None)
    (tmp_path / "out" / "h1_dseg.json").write_text('{"Manual": false}')  # as it is while the scan is being written
    calls = []
    register = labellers.register
    monkeypatch.setattr(labellers, "register", lambda *args: calls.append(args) or register(*args))
    report = from_atlases(heads[:2], heads[2:], tmp_path / "out", deformable=None)
    assert (report.kept, report.made, len(calls)) == (("h0",), ("h1",), 2)


def test_another_way_to_register_or_fuse_is_another_key(heads: list[Scan]) -> None:
    ways = [("majority", "demons", 2.0), ("local", "demons", 2.0), ("majority", None, 2.0), ("majority", "demons", 3.0)]
    keys = [AtlasLabeller.load(heads[1:], BLOBS, "same", *way).key(heads[0]) for way in ways]
    keys.append(AtlasLabeller.load(heads[2:], BLOBS, "same").key(heads[0]))
    assert len(set(keys)) == 5
    assert AtlasLabeller.load(heads[::-1][:-1], BLOBS, "same").key(heads[0]) == keys[0]


def test_atlases_without_labels_are_refused(heads: list[Scan], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none of the 1 given has any"):
        from_atlases(heads, [Scan("x", "x", heads[0].image)], tmp_path / "out")


def test_quality_has_known_values_on_a_toy() -> None:
    weak, manual = np.zeros((4, 4, 1), np.uint8), np.zeros((4, 4, 1), np.uint8)
    manual[:2], weak[1:3] = 1, 1  # 8 voxels each, 4 in common
    manual[3, :2] = 2  # missed
    weak[3, 3] = 3  # invented
    table = label_quality(weak, manual, BLOBS, (2.0, 2.0, 2.0)).set_index("structure")
    assert table.loc["blob-1"].tolist() == [0.5, 64, 64, 1]
    assert table.loc["blob-2"].tolist() == [0, 0, 16, 0]
    assert table.loc["blob-3", ["dice", "volume_mm3"]].tolist() == [0, 8]
    assert table.loc[["blob-3", "blob-4"], "volume_ratio"].isna().all()
    assert np.isnan(table.loc["blob-5", "dice"])


def test_quality_lists_labels_on_another_grid_and_scores_the_rest(heads: list[Scan], tmp_path: Path) -> None:
    from_atlases(heads[:2], heads[2:], tmp_path / "out", deformable=None)
    other = tmp_path / "other_labels.nii.gz"
    nib.save(nib.Nifti1Image(np.ones((3, 3, 3), np.uint8), np.eye(4)), other)
    scans = [Scan("h0", "h0", heads[0].image, other), heads[1]]
    table, wrong = write_label_quality(scans, tmp_path / "out", protocol("same", BLOBS), jobs=1)
    assert set(table["scan"]) == {"h1"}
    assert [one.scan for one in wrong] == ["h0"]
    assert "must share one grid" in wrong[0].reason


def test_quality_needs_a_scan_with_both_labels(heads: list[Scan], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none of the 4 scans has both manual and weak labels"):
        write_label_quality(heads, tmp_path, protocol("same", BLOBS))


@pytest.mark.real_data
def test_real_freesurfer_subjects_become_weak_labels(real_data: Path, tmp_path: Path) -> None:
    scans = [scan for scan in catalog(real_data / "freesurfer") if scan.name in ("bert", "sub-05")]
    report = weak_labels_from_freesurfer(scans, tmp_path, jobs=1)
    assert (report.made, [one.scan for one in report.refused]) == (("bert",), ["sub-05"])
    assert set(np.unique(read_labels(tmp_path / "bert_dseg.nii.gz").data)) == {0, *label_set("freesurfer-27").ids}


@pytest.mark.real_data
def test_one_real_atlas_labels_another_brain_well(real_data: Path, tmp_path: Path) -> None:
    scans = {scan.name: scan for scan in catalog(real_data / "malc")}
    weak_labels_from_atlases([scans["1001"]], [scans["1009"]], tmp_path, jobs=1)
    reading = protocol("neuromorphometrics", label_set("freesurfer-27"))
    table, _ = write_label_quality([scans["1001"]], tmp_path, reading, jobs=1)
    assert table["dice"].mean() > 0.82
    assert table["dice"].min() > 0.7
