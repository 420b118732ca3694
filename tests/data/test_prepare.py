"""Scans become a prepared dataset; the bad ones are named and never stop the good."""

import errno
import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from medssl.data import store
from medssl.data.catalog import Scan, catalog
from medssl.data.prepare import Preparation, prepare, prepare_image
from medssl.data.prepared import PreparedDataset
from medssl.data.recipe import Recipe
from medssl.data.volumes import read_labels, read_volume
from medssl.errors import InputError

AS_IS = Preparation(spacing_mm=None)


def keys_and_times(out: Path) -> dict[str, int]:
    return {path.name: (path / "meta.json").stat().st_mtime_ns for path in (out / "scans").iterdir()}


def test_every_scan_is_prepared_as_the_same_function_prepares_it_later(cohort, tmp_path, protocol):
    data = prepare(cohort, tmp_path / "out", protocol, jobs=1).dataset()
    assert data.scans == ("s0", "s1", "s2", "s3")
    later = prepare_image(read_volume(cohort / "s1_T1w.nii.gz"), data.preparation)
    assert np.allclose(data.image(1), later.data, atol=1e-3)
    assert np.array_equal(data.affine(1), later.affine)


def test_labels_become_classes_on_the_images_grid(cohort, tmp_path, protocol):
    data = prepare(cohort, tmp_path / "out", protocol, jobs=1).dataset()
    numbers = np.asanyarray(nib.load(cohort / "s2_labels.nii.gz").dataobj)
    assert data.label(2).shape == data.shape(2)
    assert data.class_voxels(2)[1:].tolist() == [(numbers == 10).sum(), (numbers == 20).sum(), 0]
    corner = (data.affine(2) @ [*np.argwhere(data.label(2) == 1).min(axis=0), 1])[:3]
    assert corner.tolist() == np.argwhere(numbers == 10).min(axis=0).tolist()


def test_a_second_run_does_nothing(cohort, tmp_path, protocol):
    first = prepare(cohort, tmp_path / "out", protocol, jobs=1)
    before, index = keys_and_times(tmp_path / "out"), first.dataset().fingerprint
    second = prepare(cohort, tmp_path / "out", protocol, jobs=1)
    assert (first.made, first.kept) == (("s0", "s1", "s2", "s3"), ())
    assert (second.made, second.kept) == ((), ("s0", "s1", "s2", "s3"))
    assert keys_and_times(tmp_path / "out") == before
    assert second.dataset().fingerprint == index


def test_a_changed_image_or_label_is_done_again_and_nothing_else(cohort, tmp_path, protocol, write_image, brain):
    prepare(cohort, tmp_path / "out", protocol, jobs=1)
    before = keys_and_times(tmp_path / "out")
    write_image(cohort / "s1_T1w.nii.gz", brain(77)[0])
    labels = brain(2)[1]
    labels[5, 5, 5] = 20
    write_image(cohort / "s2_labels.nii.gz", labels)
    assert prepare(cohort, tmp_path / "out", protocol, jobs=1).made == ("s1", "s2")
    after = keys_and_times(tmp_path / "out")
    assert len(after) == 4
    assert len(before.items() & after.items()) == 2


@pytest.mark.parametrize("what", ["preparation", "rules"])
def test_another_preparation_or_protocol_does_all_again(cohort, tmp_path, protocol, what):
    prepare(cohort, tmp_path / "out", protocol, jobs=1)
    if what == "rules":
        again = prepare(cohort, tmp_path / "out", replace(protocol, rules={**protocol.rules, 20: 0}), jobs=1)
    else:
        again = prepare(cohort, tmp_path / "out", protocol, Preparation(margin=1), jobs=1)
    assert len(again.made) == 4


def test_a_scan_that_vanished_leaves_the_index(cohort, tmp_path, protocol):
    prepare(cohort, tmp_path / "out", protocol, jobs=1)
    (cohort / "s3_T1w.nii.gz").unlink()
    (cohort / "s3_labels.nii.gz").unlink()
    assert prepare(cohort, tmp_path / "out", protocol, jobs=1).dataset().scans == ("s0", "s1", "s2")
    assert len(keys_and_times(tmp_path / "out")) == 3


def test_processes_and_one_process_give_the_same(cohort, tmp_path, protocol):
    one = prepare(cohort, tmp_path / "one", protocol, jobs=1).dataset()
    two = prepare(cohort, tmp_path / "two", protocol, jobs=2).dataset()
    assert one.fingerprint == two.fingerprint
    assert all(np.array_equal(one.image(i), two.image(i)) for i in range(4))
    assert np.array_equal(one.class_positions(0, 1), two.class_positions(0, 1))


def spoil(cohort: Path, write_image, brain) -> dict[str, str]:
    """Add one scan of every bad kind; returns what its reason must say."""
    image, labels = brain(9)
    reasons = {}

    def add(name: str, reason: str, bad_image=image, bad_labels=labels, affine=None, label_affine=None) -> None:
        reasons[name] = reason
        write_image(cohort / f"{name}_T1w.nii.gz", bad_image, affine)
        write_image(cohort / f"{name}_labels.nii.gz", bad_labels, label_affine)

    holes = image.astype(np.float32)
    holes[5, 5, 5] = np.nan
    unknown = labels.copy()
    unknown[6, 6, 6:9] = 99
    moved = np.eye(4)
    moved[0, 3] = 5
    add("nan", "nan_T1w.nii.gz: 1 of 5760 voxels are NaN", holes)
    add("zero", "zero_T1w.nii.gz: every voxel is 0", np.zeros_like(image))
    add("time", "time_T1w.nii.gz: has 4 dimensions", np.stack([image, image], axis=-1))
    add("flat", "flat_T1w.nii.gz: its affine is singular", affine=np.diag([1.0, 0, 1, 1]))
    add("grid", "grid_labels.nii.gz: the label map has 10x18x16 voxels, the image 20x18x16", bad_labels=labels[:10])
    add("moved", "moved_labels.nii.gz: the label map lies 5.00 mm away", label_affine=moved)
    add("ids", "ids_labels.nii.gz: the protocol 'toy' has no rule for these labels: 99 (3 voxels)", bad_labels=unknown)
    add("cut", "cut_T1w.nii.gz: is truncated or damaged")
    (cohort / "cut_T1w.nii.gz").write_bytes((cohort / "cut_T1w.nii.gz").read_bytes()[:-900])
    add("text", "text_T1w.nii.gz: is named as a compressed image")
    (cohort / "text_T1w.nii.gz").write_text("404 not found")
    return reasons


def test_every_bad_scan_is_refused_with_its_reason_and_the_rest_is_prepared(
    cohort, tmp_path, protocol, write_image, brain
):
    reasons = spoil(cohort, write_image, brain)
    report = prepare(cohort, tmp_path / "out", protocol, AS_IS, jobs=2)
    assert report.made == ("s0", "s1", "s2", "s3")
    told = {one.scan: one.reason for one in report.refused}
    assert told.keys() == reasons.keys()
    for name, reason in reasons.items():
        assert reason in told[name]
        assert "\n" not in told[name]
        assert name in report.table()
    listed = pd.read_csv(tmp_path / "out" / "refused.csv", keep_default_na=False)
    assert dict(zip(listed["scan"], listed["reason"], strict=True)) == told


def test_labels_on_another_grid_can_be_resampled_on_request(cohort, tmp_path, protocol, write_image, brain):
    image, labels = brain(5)
    write_image(cohort / "fine_T1w.nii.gz", image)
    twice = labels.repeat(2, axis=0).repeat(2, axis=1).repeat(2, axis=2)
    half_mm = np.diag([0.5, 0.5, 0.5, 1.0])
    half_mm[:3, 3] = -0.25
    write_image(cohort / "fine_labels.nii.gz", twice, half_mm)
    assert [one.scan for one in prepare(cohort, tmp_path / "a", protocol, jobs=1).refused] == ["fine"]
    data = prepare(cohort, tmp_path / "b", protocol, resample_labels=True, jobs=1).dataset()
    i = data.scans.index("fine")
    assert data.class_voxels(i)[1:3].tolist() == [(labels == 10).sum(), (labels == 20).sum()]


def test_all_scans_refused_is_an_error_that_says_why(tmp_path, write_image, protocol):
    write_image(tmp_path / "in" / "a_T1w.nii.gz", np.zeros((4, 4, 4), dtype=np.int16))
    with pytest.raises(InputError, match=r"none of the 1 scans can be used(.|\n)*every voxel is 0"):
        prepare(tmp_path / "in", tmp_path / "out", protocol, jobs=1)
    assert (tmp_path / "out" / "refused.csv").exists()


def test_a_scan_without_labels_is_kept_or_refused_as_asked(cohort, tmp_path, protocol):
    (cohort / "s2_labels.nii.gz").unlink()
    kept = prepare(cohort, tmp_path / "out", protocol, jobs=1)
    assert len(kept.made) == 4
    assert [kept.dataset().labelled(i) for i in range(4)] == [True, True, False, True]
    with pytest.raises(InputError, match="'s2' was prepared without labels"):
        kept.dataset().label(2)
    refused = prepare(cohort, tmp_path / "out", protocol, labels_required=True, jobs=1)
    assert [(one.scan, one.reason.split(",")[0]) for one in refused.refused] == [("s2", "s2: has no label map")]
    assert refused.kept == ("s0", "s1", "s3")


def test_images_alone_can_be_prepared(cohort, tmp_path):
    data = prepare(cohort, tmp_path / "out", jobs=1).dataset()
    assert data.label_set is None
    assert len(data) == 4


def test_structures_that_no_scan_holds_are_named(cohort, tmp_path, protocol):
    report = prepare(cohort, tmp_path / "out", protocol, jobs=1)
    assert report.absent == ("Rare",)
    assert "No scan holds Rare" in report.table()


def test_no_labelled_voxel_is_cropped_away(cohort, tmp_path, protocol):
    labels = np.asanyarray(nib.load(cohort / "s0_labels.nii.gz").dataobj).copy()
    labels[0, 0, 0] = 10
    nib.save(nib.Nifti1Image(labels, np.eye(4)), cohort / "s0_labels.nii.gz")
    data = prepare(cohort, tmp_path / "out", protocol, Preparation(margin=0), jobs=1).dataset()
    assert data.class_voxels(0)[1] == (labels == 10).sum()


def test_a_2d_scan_among_3d_scans_is_refused(cohort, tmp_path, protocol, write_image):
    write_image(cohort / "slice_T1w.nii.gz", np.arange(36, dtype=np.int16).reshape(6, 6, 1))
    report = prepare(cohort, tmp_path / "out", protocol, jobs=1)
    assert [one.reason for one in report.refused] == ["slice: is 2D among 3D scans; prepare it apart."]


def test_2d_scans_are_prepared_with_their_labels(tmp_path, write_image, brain, protocol):
    image, labels = brain(1)
    for i in range(3):
        write_image(tmp_path / "in" / f"a{i}_T1w.nii.gz", image[..., 5 + i : 6 + i])
        write_image(tmp_path / "in" / f"a{i}_labels.nii.gz", labels[..., 5 + i : 6 + i])
    data = prepare(tmp_path / "in", tmp_path / "out", protocol, jobs=1).dataset()
    assert data.spatial_dims == 2
    assert data.image(0).ndim == 3
    assert data.class_voxels(1)[1] == (labels[..., 6] == 10).sum()


def test_two_scans_with_the_same_content_are_both_listed(cohort, tmp_path, protocol):
    for kind in ("T1w", "labels"):
        (cohort / f"copy_{kind}.nii.gz").write_bytes((cohort / f"s0_{kind}.nii.gz").read_bytes())
    data = prepare(cohort, tmp_path / "out", protocol, jobs=2).dataset()
    assert data.scans == ("copy", "s0", "s1", "s2", "s3")
    assert data.index["key"].nunique() == 4


def test_two_scans_with_the_same_broken_content_are_refused_each_by_its_own_name(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.nii.gz").write_text("a web page")
    with pytest.raises(InputError, match="none of the 2"):
        prepare(tmp_path, tmp_path / "out", None, jobs=1)
    reasons = pd.read_csv(tmp_path / "out" / "refused.csv").set_index("scan")["reason"]
    assert reasons["a"].startswith(f"{tmp_path}/a.nii.gz: is named as a compressed image")
    assert reasons["b"].startswith(f"b: holds the same as a, which cannot be used: {tmp_path}/a.nii.gz")


def test_a_full_disk_is_one_message_and_loses_nothing(cohort, tmp_path, protocol, monkeypatch):
    write, calls = store.write_array, []

    def full_after_two_scans(path, data):
        calls.append(path)
        if len(calls) > 4:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, data)

    monkeypatch.setattr(store, "write_array", full_after_two_scans)
    with pytest.raises(InputError, match=r"cannot be written \(No space left on device\)"):
        prepare(cohort, tmp_path / "out", protocol, jobs=1)
    monkeypatch.undo()
    done = keys_and_times(tmp_path / "out")
    assert len(done) == 2
    again = prepare(cohort, tmp_path / "out", protocol, jobs=1)
    assert (len(again.kept), len(again.made), again.refused) == (2, 2, ())
    assert done.items() <= keys_and_times(tmp_path / "out").items()


def test_a_full_disk_keeps_the_dataset_of_before(cohort, tmp_path, protocol, monkeypatch, write_image, brain):
    before = prepare(cohort, tmp_path / "out", protocol, jobs=1).dataset().fingerprint
    write_image(cohort / "s9_T1w.nii.gz", brain(9)[0])

    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store, "write_array", full)
    with pytest.raises(InputError, match="free some space"):
        prepare(cohort, tmp_path / "out", protocol, jobs=1)
    assert PreparedDataset(tmp_path / "out").fingerprint == before


def test_a_file_that_is_gone_is_refused(cohort, tmp_path, protocol):
    scans = [*catalog(cohort), Scan("gone", "gone", cohort / "gone_T1w.nii.gz")]
    report = prepare(scans, tmp_path / "out", protocol, jobs=1)
    assert [one.reason for one in report.refused] == [f"{cohort / 'gone_T1w.nii.gz'}: no such file."]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "s1: is too large for this machine's memory"),
        (PermissionError(errno.EACCES, "Permission denied", "/secret/s1"), "a file cannot be read (Permission denied)"),
    ],
)
def test_what_the_machine_refuses_is_a_reason_too(cohort, tmp_path, protocol, monkeypatch, error, reason):
    make = Recipe.make

    def fail_on_s1(self, scan):
        if scan.name == "s1":
            raise error
        return make(self, scan)

    monkeypatch.setattr(Recipe, "make", fail_on_s1)
    report = prepare(cohort, tmp_path / "out", protocol, jobs=1)
    assert len(report.made) == 3
    assert reason in report.refused[0].reason
    assert "secret" not in report.refused[0].reason


def test_the_index_tells_nothing_of_where_the_files_are(cohort, tmp_path, protocol):
    prepare(cohort, tmp_path / "out", protocol, jobs=1)
    told = (tmp_path / "out" / "index.parquet").read_bytes() + (tmp_path / "out" / "prepared.json").read_bytes()
    assert str(tmp_path).encode() not in told
    description = json.loads((tmp_path / "out" / "prepared.json").read_text())
    assert description["protocol"] == "toy"
    assert description["versions"].keys() >= {"numpy", "nibabel"}


@pytest.mark.real_data
def test_real_weak_labels_can_be_prepared(real_data, tmp_path):
    from medssl.labels.lut import label_set
    from medssl.labels.protocols import protocol

    scans = [scan for scan in catalog(real_data / "freesurfer") if scan.subject in ("bert", "sub-05")]
    out = tmp_path / "out"
    report = prepare(scans, out, protocol("aparc+aseg", label_set("freesurfer-27")), labels_required=True, jobs=1)
    assert [one.scan for one in report.refused] == ["sub-05"]
    assert "there is no aparc+aseg.mgz in sub-05/mri" in report.refused[0].reason
    data = report.dataset()
    left = np.argwhere(data.label(0) == 1)[:, 0].mean()
    right = np.argwhere(data.label(0) == data.label_set.mirrored[1])[:, 0].mean()
    assert left < right
    numbers = read_labels(scans[0].label).data
    assert data.class_voxels(0)[1] >= (numbers == data.label_set.ids[0]).sum()
