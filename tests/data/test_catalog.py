"""Which files belong to which scan, in every layout."""

import json
from pathlib import Path

import pytest

from medssl.data.catalog import Scan, catalog
from medssl.errors import InputError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def brief(scans: list[Scan], root: Path) -> list[tuple[str, str, str, str | None]]:
    return [
        (s.name, s.subject, s.image.relative_to(root).as_posix(), s.label and s.label.relative_to(root).as_posix())
        for s in scans
    ]


def test_suffixes_pair_images_with_labels(tmp_path):
    touch(tmp_path, "b_T1w.nii.gz", "a_T1w.nii.gz", "a_labels.nii.gz", "table.csv")
    assert brief(catalog(tmp_path), tmp_path) == [
        ("a", "a", "a_T1w.nii.gz", "a_labels.nii.gz"),
        ("b", "b", "b_T1w.nii.gz", None),
    ]
    assert catalog(tmp_path)[1].unlabelled == "there is no b_labels.nii.gz"


def test_folders_pair_images_with_labels_of_the_same_name(tmp_path):
    touch(tmp_path, "images/x_1.nii.gz", "images/x_2.mha", "labels/x_1.nii.gz", "labels/x_2.mha", "images/readme.txt")
    assert brief(catalog(tmp_path), tmp_path) == [
        ("x_1", "x_1", "images/x_1.nii.gz", "labels/x_1.nii.gz"),
        ("x_2", "x_2", "images/x_2.mha", "labels/x_2.mha"),
    ]


def test_own_patterns_pair_by_what_their_wildcards_stand_for(tmp_path):
    touch(tmp_path, "in/p1-a-mri.nii", "in/p1-b-mri.nii", "truth/p1_a.nii", "truth/p1_b.nii")
    scans = catalog(tmp_path, images="in/*-*-mri.nii", labels="truth/*_*.nii", subject_pattern=r"in/(\w+)-")
    assert brief(scans, tmp_path) == [
        ("p1_a", "p1", "in/p1-a-mri.nii", "truth/p1_a.nii"),
        ("p1_b", "p1", "in/p1-b-mri.nii", "truth/p1_b.nii"),
    ]


def test_labels_never_count_as_images(tmp_path):
    touch(tmp_path, "a.nii.gz", "a_seg.nii.gz", "b.nii.gz", "b_seg.nii.gz")
    scans = catalog(tmp_path, images="*.nii.gz", labels="*_seg.nii.gz")
    assert [(s.name, s.label and s.label.name) for s in scans] == [("a", "a_seg.nii.gz"), ("b", "b_seg.nii.gz")]
    assert [s.name for s in catalog(tmp_path)] == ["a", "b"]


def test_sessions_of_a_bids_subject_share_the_subject(tmp_path):
    for session in "12":
        touch(tmp_path, f"sub-01/ses-{session}/anat/sub-01_ses-{session}_T1w.nii.gz")
        touch(tmp_path, f"sub-01/ses-{session}/anat/sub-01_ses-{session}_dseg.nii.gz")
    scans = catalog(tmp_path)
    assert [(s.name, s.subject) for s in scans] == [("sub-01_ses-1", "sub-01"), ("sub-01_ses-2", "sub-01")]
    assert all(s.label for s in scans)


def test_a_subjects_dir_prefers_stripped_images_and_lists_who_has_no_labels(tmp_path):
    touch(tmp_path, "anna/mri/orig.mgz", "anna/mri/brain.mgz", "anna/mri/norm.mgz", "anna/mri/aparc+aseg.mgz")
    touch(tmp_path, "bert/mri/T1.mgz", "bert/mri/aseg.mgz", "fsaverage/mri/norm.mgz", "carl/mri/aseg.mgz")
    scans = catalog(tmp_path)
    assert brief(scans, tmp_path) == [
        ("anna", "anna", "anna/mri/norm.mgz", "anna/mri/aparc+aseg.mgz"),
        ("bert", "bert", "bert/mri/T1.mgz", None),
        ("carl", "carl", "carl/mri/norm.mgz", None),  # not there: refused by name when it is prepared
    ]
    assert {s.protocol for s in scans} == {"aparc+aseg"}
    assert scans[1].unlabelled == "there is no aparc+aseg.mgz in bert/mri, but aseg.mgz"
    aseg = catalog(tmp_path, freesurfer_labels="aseg")
    assert [s.label is not None for s in aseg] == [False, True, True]
    assert {s.protocol for s in aseg} == {"aseg"}


def test_sessions_of_a_subjects_dir_can_share_a_subject(tmp_path):
    touch(tmp_path, "p1_a/mri/norm.mgz", "p1_b/mri/norm.mgz")
    assert {s.subject for s in catalog(tmp_path, subject_pattern=r"^(p\d+)_")} == {"p1"}


def test_a_subject_whose_mri_folder_holds_nothing_known_is_listed_to_be_refused(tmp_path):
    touch(tmp_path, "anna/mri/norm.mgz", "bert/mri/rawavg.mgz", "carl/surf/lh.white")
    (tmp_path / "dora" / "mri").mkdir(parents=True)
    scans = catalog(tmp_path)
    assert [(scan.name, scan.image.is_file()) for scan in scans] == [("anna", True), ("bert", False), ("dora", False)]


def test_images_that_a_layout_leaves_out_are_named(tmp_path, caplog):
    touch(tmp_path, "a_T1w.nii.gz", "a_labels.nii.gz", "b.nii.gz", "c_seg.nii.gz")
    assert [scan.name for scan in catalog(tmp_path)] == ["a"]
    assert "1 images are not named as the 1 scans that are used, and are left out: b.nii.gz" in caplog.text
    caplog.clear()
    catalog(tmp_path, images="*_T1w.nii.gz")
    catalog(touch(tmp_path / "alone", "b.nii.gz"))
    assert not caplog.text


@pytest.mark.parametrize("as_folder", [True, False])
def test_a_datalist_names_scans_and_their_parts(tmp_path, as_folder):
    touch(tmp_path, "imagesTr/a.nii.gz", "labelsTr/a.nii.gz", "imagesTs/b.nii.gz")
    lists = {
        "numTraining": 1,
        "training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}],
        "test": ["./imagesTs/b.nii.gz"],
    }
    (tmp_path / "dataset.json").write_text(json.dumps(lists))
    scans = catalog(tmp_path if as_folder else tmp_path / "dataset.json")
    assert brief(scans, tmp_path) == [
        ("a", "a", "imagesTr/a.nii.gz", "labelsTr/a.nii.gz"),
        ("b", "b", "imagesTs/b.nii.gz", None),
    ]
    assert [s.part for s in scans] == ["training", "test"]


def test_where_files_of_a_datalist_have_one_name_all_are_called_after_their_folders_too(tmp_path):
    names = ["sub-01/t1.nii.gz", "sub-02/t1.nii.gz", "sub-02/t2.nii.gz"]
    (tmp_path / "list.json").write_text(json.dumps({"training": [{"image": name} for name in names]}))
    scans = catalog(tmp_path / "list.json")
    assert [(scan.name, scan.subject) for scan in scans] == [
        ("sub-01_t1", "sub-01"),
        ("sub-02_t1", "sub-02"),
        ("sub-02_t2", "sub-02"),
    ]


@pytest.mark.parametrize("name", ["../secret.nii.gz", "/etc/passwd", "a/../../b.nii"])
def test_a_datalist_cannot_leave_its_folder(tmp_path, name):
    (tmp_path / "list.json").write_text(json.dumps({"training": [{"image": name}]}))
    with pytest.raises(InputError, match=r"list\.json: training\[0\] names .* must lie inside"):
        catalog(tmp_path / "list.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1, 2]", "is no datalist"),
        ("{", "is not valid JSON"),
        ('{"training": "x"}', "is no datalist"),
        ('{"training": [{"label": "x"}]}', r"training\[0\] names no single image"),
        ('{"training": [{"image": ["a", "b"]}]}', r"training\[0\] names no single image"),
    ],
)
def test_a_wrong_datalist_is_refused(tmp_path, content, message):
    (tmp_path / "list.json").write_text(content)
    with pytest.raises(InputError, match=message):
        catalog(tmp_path / "list.json")


def test_an_nnunet_folder_is_paired(tmp_path):
    touch(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")
    (tmp_path / "dataset.json").write_text('{"channel_names": {"0": "T1"}}')
    assert brief(catalog(tmp_path), tmp_path) == [("a", "a", "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")]


def test_one_file_is_one_scan(tmp_path):
    touch(tmp_path, "sub-7_T1w.nii.gz")
    assert brief(catalog(tmp_path / "sub-7_T1w.nii.gz"), tmp_path) == [("sub-7_T1w", "sub-7", "sub-7_T1w.nii.gz", None)]


def test_two_scans_of_one_name_are_refused_naming_both(tmp_path):
    touch(tmp_path, "x/a_T1w.nii.gz", "y/a_T1w.nii.gz")
    with pytest.raises(InputError, match=r"x/a_T1w\.nii\.gz and .*y/a_T1w\.nii\.gz are both named 'a'"):
        catalog(tmp_path)


def test_an_empty_folder_is_refused_listing_the_layouts_known(tmp_path):
    with pytest.raises(InputError, match=r"holds no scans\. Known are:(.|\n)*SUBJECTS_DIR(.|\n)*datalist(.|\n)*DICOM"):
        catalog(tmp_path)
    with pytest.raises(InputError, match="no such file or folder"):
        catalog(tmp_path / "gone")


def test_patterns_that_fit_nothing_or_not_each_other_are_refused(tmp_path):
    touch(tmp_path, "a_T1w.nii.gz", "b_labels.nii.gz")
    with pytest.raises(InputError, match=r"no image matches '\*_T2w\.nii\.gz'"):
        catalog(tmp_path, images="*_T2w.nii.gz")
    with pytest.raises(InputError, match="same number of wildcards"):
        catalog(tmp_path, images="*_T1w.nii.gz", labels="*/*_labels.nii.gz")
    with pytest.raises(InputError, match=r"1 images match .* and 1 files match .*, but none belong together"):
        catalog(tmp_path, images="*_T1w.nii.gz", labels="*_labels.nii.gz")
    with pytest.raises(InputError, match="needs the images' pattern as well"):
        catalog(tmp_path, labels="*_labels.nii.gz")
    with pytest.raises(InputError, match=r"aparc\+aseg, aseg; got 'wmparc'"):
        catalog(tmp_path, freesurfer_labels="wmparc")


def test_a_subject_pattern_must_be_one_and_find_something(tmp_path):
    touch(tmp_path, "a_T1w.nii.gz")
    with pytest.raises(InputError, match=r"a_T1w\.nii\.gz: the subject pattern 'P\(\\d\)' finds nothing"):
        catalog(tmp_path, subject_pattern=r"P(\d)")
    with pytest.raises(InputError, match="is no regular expression"):
        catalog(tmp_path, subject_pattern="(")


@pytest.mark.real_data
def test_real_layouts_are_recognised(real_data):
    assert sum(s.label is not None for s in catalog(real_data / "malc")) == 15
    assert sum(s.label is not None for s in catalog(real_data / "hippocampus")) == 160
    freesurfer = catalog(real_data / "freesurfer")
    assert [s.subject for s in freesurfer if s.label is None] == ["sub-05"]
    assert len(catalog(real_data / "dicom")) == 13


def test_a_folder_without_labels_is_read_whole_whatever_its_names(tmp_path):
    for name in ("a.nii.gz", "b_T1w.nii.gz", "c_FLAIR.nii.gz"):
        (tmp_path / name).touch()
    assert [scan.image.name for scan in catalog(tmp_path)] == ["a.nii.gz", "b_T1w.nii.gz", "c_FLAIR.nii.gz"]
