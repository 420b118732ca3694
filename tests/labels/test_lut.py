from pathlib import Path

import numpy as np
import pytest

from medssl.errors import InputError
from medssl.labels.lut import LABEL_SETS, LabelSet, Structure, label_set, read_lut, write_lut

SETS = sorted(LABEL_SETS)


def structures(*names: str) -> LabelSet:
    return LabelSet("mine", tuple(Structure(i + 10, name, (i, 2 * i, 255 - i)) for i, name in enumerate(names)))


def test_the_27_structures_are_those_of_the_paper_in_the_order_of_their_numbers() -> None:
    paper = [2, 3, 41, 42, 4, 43, 7, 8, 46, 47, 10, 49, 11, 50, 12, 51, 13, 52, 14, 15, 16, 17, 53, 18, 54, 28, 60]
    assert label_set("freesurfer-27").ids == tuple(sorted(paper))
    assert label_set("freesurfer-27").classes == 28
    assert set(label_set("freesurfer-32").ids) - set(paper) == {5, 44, 24, 26, 58}


@pytest.mark.parametrize("name", SETS)
def test_mirroring_twice_changes_nothing(name: str) -> None:
    mirrored = np.array(LABEL_SETS[name].mirrored)
    assert (mirrored[mirrored] == np.arange(LABEL_SETS[name].classes)).all()


@pytest.mark.parametrize("name", SETS)
def test_mirroring_swaps_the_sides_and_leaves_the_midline(name: str) -> None:
    labels = LABEL_SETS[name]
    for structure, twin in zip(labels.structures, labels.mirrored[1:], strict=True):
        expected = structure.name.replace("Left", "?").replace("Right", "Left").replace("?", "Right")
        assert labels.names[twin - 1] == expected
    alone = {labels.names[c - 1] for c in range(1, labels.classes) if labels.mirrored[c] == c}
    assert alone - {"CSF"} == {"3rd-Ventricle", "4th-Ventricle", "Brain-Stem"}


def test_other_ways_to_write_the_side_are_paired_as_well() -> None:
    labels = structures("ctx-lh-insula", "Hippocampus_R", "cerebellum", "ctx-rh-insula", "Hippocampus_L", "left lung")
    assert labels.mirrored == (0, 4, 5, 3, 1, 2, 6)


def test_class_indices_become_the_numbers_of_the_structures() -> None:
    ids = label_set("freesurfer-27").to_ids(np.array([[0, 1], [27, 13]], dtype=np.uint8))
    assert ids.dtype == np.int32
    assert ids.tolist() == [[0, 2], [60, 17]]


def test_a_lut_file_read_back_is_the_label_set(tmp_path: Path) -> None:
    labels = LabelSet("freesurfer-32", LABEL_SETS["freesurfer-32"].structures)
    write_lut(tmp_path / "freesurfer-32.txt", labels)
    assert label_set(str(tmp_path / "freesurfer-32.txt")) == labels


def test_a_json_round_trip_keeps_the_label_set() -> None:
    assert LabelSet.from_dict(LABEL_SETS["freesurfer-27"].to_dict()) == LABEL_SETS["freesurfer-27"]


def test_comments_and_blank_lines_of_a_lut_file_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("#No. Label\n\n0 Unknown 0 0 0 0\n17  Left-Hippocampus  220 216 20 0  # a comment\n")
    assert read_lut(path) == LabelSet("mine", (Structure(17, "Left-Hippocampus", (220, 216, 20)),))


def test_a_wrong_line_of_a_lut_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("2 Left-Cerebral-White-Matter 245 245 245 0\n3 Left Cerebral Cortex 205 62 78 0\n")
    with pytest.raises(InputError, match=r"mine.txt: line 2 is '3 Left Cerebral.*expected 'ID name R G B A'"):
        read_lut(path)


def test_a_wrong_name_lists_the_right_ones() -> None:
    with pytest.raises(InputError, match=r"'freesurfer-28'.*freesurfer-27, freesurfer-32"):
        label_set("freesurfer-28")


def test_one_number_for_two_structures_is_refused() -> None:
    with pytest.raises(InputError, match="uses the number 5 more than once"):
        LabelSet("mine", (Structure(5, "a", (0, 0, 0)), Structure(5, "b", (0, 0, 0))))


def test_the_background_is_not_a_structure() -> None:
    with pytest.raises(InputError, match="start at 1, 0 is background"):
        Structure(0, "Unknown", (0, 0, 0))


def test_json_without_structures_is_refused_with_an_example() -> None:
    with pytest.raises(InputError, match="Left-Hippocampus"):
        LabelSet.from_dict({"name": "mine"})
