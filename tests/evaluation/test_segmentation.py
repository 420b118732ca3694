"""Scans in, one long table out; a scan that cannot be scored is listed and the others go on."""

import nibabel as nib
import numpy as np
import pytest

from medssl.errors import InputError
from medssl.evaluation.segmentation import evaluate_folders, pair_by_name, score_labels
from medssl.evaluation.tables import COLUMNS, OVERALL, read_table
from medssl.labels.lut import LABEL_SETS, LabelSet, Structure
from medssl.labels.protocols import Protocol, protocol

PAIR = LabelSet(
    "pair", (Structure(17, "Left-Hippocampus", (220, 216, 20)), Structure(53, "Right-Hippocampus", (1, 2, 3)))
)
MANUAL = Protocol("manual", PAIR, {0: 0, 48: 17, 47: 53})


def blocks(left, right, shift=0):
    """A small scan with two cubes of the given labels."""
    labels = np.zeros((12, 10, 8), np.int16)
    labels[1 + shift : 4 + shift, 2:5, 2:5] = left
    labels[7:10, 2:5, 2:5] = right
    return labels


def save(path, labels, spacing=(1, 1, 2)):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(labels, np.diag([*spacing, 1])), path)


@pytest.fixture
def cohort(tmp_path):
    """Three scans of two people with reference labels of another protocol, all predicted alike."""
    for name, shift in (("sub-1_ses-1", 0), ("sub-1_ses-2", 1), ("sub-2", 0)):
        save(tmp_path / "manual" / f"{name}_labels.nii.gz", blocks(48, 47))
        save(tmp_path / "predicted" / f"{name}_T1w_dseg.nii.gz", blocks(17, 53, shift))
    return tmp_path


def evaluate(cohort):
    arguments = {"reference_glob": "*_labels.nii.gz", "jobs": 1}
    return evaluate_folders(cohort / "predicted", cohort / "manual", MANUAL, cohort / "out", **arguments)


def test_a_scan_s_rows_have_the_values_computed_by_hand():
    table = score_labels(blocks(1, 2, shift=1), blocks(1, 2), (1, 1, 2), PAIR, scan="x", subject="anna")
    assert list(table.columns) == list(COLUMNS)
    left, right = table.to_dict("records")
    assert (left["subject"], left["scan"], left["structure"], left["id"]) == ("anna", "x", "Left-Hippocampus", 17)
    assert left["dice"] == pytest.approx(2 / 3)
    assert left["hd95_mm"] == pytest.approx(1)
    assert left["surface_dice"] == 1
    assert (left["volume_mm3"], left["reference_volume_mm3"], left["volume_similarity"]) == (54, 54, 1)
    assert (right["dice"], right["hd95_mm"], right["assd_mm"]) == (1, 0, 0)
    assert not table[["missed", "hallucinated", "absent", "truncated"]].to_numpy().any()


def test_missed_hallucinated_absent_and_truncated_structures_are_told_apart():
    three = LabelSet("three", (*PAIR.structures, Structure(9, "Third", (9, 9, 9)), Structure(8, "Fourth", (8, 8, 8))))
    prediction, reference = np.zeros((2, 6, 6), np.uint8)
    prediction[0, 3], reference[2, 2], prediction[4, 4], reference[4, 4] = 1, 2, 3, 3
    table = score_labels(prediction, reference, (1, 1), three, scan="x").set_index("structure")
    assert table["hallucinated"].tolist() == [True, False, False, False]
    assert table["missed"].tolist() == [False, True, False, False]
    assert table["absent"].tolist() == [False, False, False, True]
    assert table["truncated"].tolist() == [True, False, False, False]
    assert table["dice"].tolist()[:3] == [0, 0, 1]
    assert (table["subject"] == "x").all()


def test_folders_are_paired_by_name_and_scored_through_the_protocol(cohort):
    evaluation = evaluate(cohort)
    scores = evaluation.scores.set_index(["scan", "structure"])
    assert scores.loc[("sub-2_T1w", "Left-Hippocampus"), "dice"] == 1
    assert scores.loc[("sub-1_ses-2_T1w", "Left-Hippocampus"), "dice"] == pytest.approx(2 / 3)
    assert evaluation.scores.groupby("scan")["subject"].first().tolist() == ["sub-1", "sub-1", "sub-2"]
    assert evaluation.refused.empty
    assert read_table(cohort / "out" / "scores.csv")["dice"].tolist() == pytest.approx(evaluation.scores["dice"])
    assert OVERALL in (cohort / "out" / "summary.csv").read_text()


def test_each_bad_scan_is_listed_with_its_reason_and_the_rest_is_scored(cohort):
    predicted = cohort / "predicted"
    whole = (predicted / "sub-2_T1w_dseg.nii.gz").read_bytes()
    for name in ("cut", "moved", "smaller", "unknown", "unpredicted"):
        save(cohort / "manual" / f"{name}_labels.nii.gz", blocks(48, 47))
    (predicted / "cut_dseg.nii.gz").write_bytes(whole[: len(whole) // 2])
    save(predicted / "moved_dseg.nii.gz", blocks(17, 53), spacing=(1, 1, 2.5))
    save(predicted / "smaller_dseg.nii.gz", blocks(17, 53)[:-1])
    save(predicted / "unknown_dseg.nii.gz", blocks(17, 999))
    save(predicted / "nobody_dseg.nii.gz", blocks(17, 53))
    evaluation = evaluate(cohort)
    assert evaluation.scores["scan"].nunique() == 3
    reasons = evaluation.refused.set_index("scan")["reason"]
    assert set(reasons.index) == {"cut", "moved", "smaller", "unknown", "unpredicted", "nobody"}
    assert "cut_dseg.nii.gz" in reasons["cut"]
    assert "their affines differ" in reasons["moved"]
    assert "has 11x10x8 voxels, the reference smaller_labels.nii.gz 12x10x8" in reasons["smaller"]
    assert "999 (27 voxels)" in reasons["unknown"]
    assert "no prediction" in reasons["unpredicted"]
    assert "no reference" in reasons["nobody"]
    assert "unpredicted" in (cohort / "out" / "refused.csv").read_text()


def test_parallel_workers_give_the_same_table(cohort):
    one = evaluate(cohort).scores
    two = evaluate_folders(
        cohort / "predicted", cohort / "manual", MANUAL, cohort / "out", "*_labels.nii.gz", jobs=2
    ).scores
    assert one.equals(two)


def test_it_is_an_error_when_no_scan_can_be_scored(tmp_path):
    save(tmp_path / "manual" / "a_labels.nii.gz", blocks(48, 47))
    save(tmp_path / "predicted" / "a_dseg.nii.gz", blocks(17, 53)[1:])
    with pytest.raises(InputError, match=r"Not one of 1 scans could be scored:\n .*a_dseg\.nii\.gz"):
        evaluate(tmp_path)


def test_a_folder_without_labels_and_a_pattern_without_a_name_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"no file fits '\*_dseg\.nii\.gz'"):
        pair_by_name(tmp_path, tmp_path, "*_labels.nii.gz")
    with pytest.raises(InputError, match="must hold one '\\*'"):
        pair_by_name(tmp_path, tmp_path, "*_labels.nii.gz", "**/*.nii.gz")


def test_names_are_paired_whole_before_by_their_beginning(tmp_path):
    for name in ("sub-1", "sub-10", "sub-10_run-2"):
        save(tmp_path / "refs" / name / "mri" / "aseg.nii.gz", blocks(48, 47))
    for name in ("sub-1_T1w", "sub-10_T1w", "sub-10_run-2_T1w"):
        save(tmp_path / "predicted" / f"{name}_dseg.nii.gz", blocks(17, 53))
    pairs, alone = pair_by_name(tmp_path / "predicted", tmp_path / "refs", "*/mri/aseg.nii.gz")
    partners = {pair.scan: pair.reference.parts[-3] for pair in pairs}
    assert partners == {"sub-1_T1w": "sub-1", "sub-10_T1w": "sub-10", "sub-10_run-2_T1w": "sub-10_run-2"}
    assert alone.empty


@pytest.mark.real_data
def test_manual_labels_scored_against_themselves_are_perfect(real_data, tmp_path):
    manual = protocol("neuromorphometrics", LABEL_SETS["freesurfer-27"])
    source = real_data / "malc" / "1000_labels.nii.gz"
    image = nib.load(source)
    classes = manual.apply(np.asanyarray(image.dataobj))
    ids = manual.target.to_ids(classes).astype(np.int16)
    nib.save(nib.Nifti1Image(ids, image.affine), tmp_path / "1000_T1w_dseg.nii.gz")
    scores = evaluate_folders(
        tmp_path, source.parent, manual, tmp_path / "out", reference_glob="*_labels.nii.gz", jobs=1
    ).scores
    assert (scores["dice"] == 1).all()
    assert (scores["hd95_mm"] == 0).all()
    assert len(scores) == 27
