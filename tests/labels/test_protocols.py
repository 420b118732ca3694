import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from medssl.errors import InputError
from medssl.labels.lut import LABEL_SETS, LabelSet, Structure, label_set
from medssl.labels.protocols import PROTOCOL_NAMES, protocol

TWENTY_SEVEN, THIRTY_TWO = label_set("freesurfer-27"), label_set("freesurfer-32")


def converted(name: str, numbers: object, target: LabelSet = THIRTY_TWO) -> NDArray[np.int32]:
    return target.to_ids(protocol(name, target).apply(np.asarray(numbers, dtype=np.int32)))


@pytest.mark.parametrize("name", PROTOCOL_NAMES)
@pytest.mark.parametrize("target", LABEL_SETS.values(), ids=lambda labels: labels.name)
def test_every_structure_of_a_set_can_be_reached(name: str, target: LabelSet) -> None:
    assert set(protocol(name, target).rules.values()) == {0, *target.ids}


def test_neuromorphometrics_has_the_published_pairs() -> None:
    freesurfer = "2 4 5 7 8 10 11 12 13 14 15 16 17 18 24 26 28 41 43 44 46 47 49 50 51 52 53 54 58 60"
    published = "45 52 50 41 39 60 37 58 56 4 11 35 48 32 46 30 62 44 51 49 40 38 59 36 57 55 47 31 23 61"
    numbers = [int(number) for number in published.split()]
    assert converted("neuromorphometrics", numbers).tolist() == [int(number) for number in freesurfer.split()]


def test_cortical_parcels_are_left_where_odd_and_right_where_even() -> None:
    assert converted("neuromorphometrics", [100, 101, 206, 207]).tolist() == [42, 3, 42, 3]
    assert converted("aparc+aseg", [1000, 1035, 2000, 2035, 11175, 12175]).tolist() == [3, 3, 42, 42, 3, 42]


def test_parcels_of_the_white_matter_are_white_matter_of_their_side() -> None:
    assert converted("aparc+aseg", [3028, 4028, 5001, 5002]).tolist() == [2, 41, 2, 41]


def test_choroid_plexus_is_ventricle_and_vessels_and_chiasm_are_background() -> None:
    assert converted("aseg", [31, 63, 30, 62, 85, 72]).tolist() == [4, 43, 0, 0, 0, 0]


def test_a_structure_outside_the_set_is_background() -> None:
    assert converted("aseg", [5, 44, 26, 17], TWENTY_SEVEN).tolist() == [0, 0, 0, 17]


def test_the_corpus_callosum_joins_the_nearer_hemisphere_and_a_tie_goes_left() -> None:
    row = [2, 251, 252, 253, 254, 255, 41, 77]
    assert converted("aseg", row).tolist() == [2, 2, 2, 2, 41, 41, 41, 41]


def test_the_nearest_hemisphere_agrees_with_a_search_over_all_voxels() -> None:
    odds = [0.5, 0.08, 0.08, 0.1, 0.12, 0.12]
    labels = np.random.default_rng(0).choice([0, 2, 41, 17, 253, 77], size=(9, 8, 7), p=odds)
    expected = labels.copy()
    for place in np.argwhere(np.isin(labels, (253, 77))):
        distance = {side: ((np.argwhere(labels == side) - place) ** 2).sum(axis=1).min() for side in (2, 41)}
        expected[tuple(place)] = 2 if distance[2] <= distance[41] else 41
    assert (converted("aseg", labels) == expected).all()


def test_a_dark_spot_in_grey_matter_joins_the_nearest_grey_structure() -> None:
    assert converted("aseg", [2, 80, 12, 80, 81, 82, 42]).tolist() == [2, 12, 12, 12, 12, 42, 42]


def test_without_any_white_matter_the_corpus_callosum_is_refused() -> None:
    with pytest.raises(InputError, match=r"scan.mgz: the label 251, 255 becomes what is nearest of 2, 41, 78-79"):
        protocol("aseg", TWENTY_SEVEN).apply(np.array([17, 251, 255]), "scan.mgz")


def test_numbers_without_a_rule_are_named_with_their_voxels() -> None:
    with pytest.raises(InputError, match=r"scan.mgz: .*'aseg' has no rule.*: -3 \(1 voxels\), 999 \(2 voxels\), 99999"):
        protocol("aseg", TWENTY_SEVEN).apply(np.array([[2, 999], [999, -3], [0, 99999]]), "scan.mgz")


@pytest.mark.parametrize("dtype", [">i4", "<i4", ">i2", "uint16", "uint8", "int64"])
def test_any_width_and_byte_order_gives_the_same_classes(dtype: str) -> None:
    numbers = np.array([0, 2, 17, 60, 253], dtype=dtype)
    classes = protocol("aseg", TWENTY_SEVEN).apply(numbers)
    assert classes.dtype == np.uint8
    assert classes.tolist() == [0, 1, 13, 27, 1]


def test_labels_with_fractions_are_refused() -> None:
    with pytest.raises(InputError, match=r"whole numbers .* got float32"):
        protocol("aseg", TWENTY_SEVEN).apply(np.array([2.0], dtype=np.float32))


def test_same_reads_the_numbers_of_the_set_itself() -> None:
    mine = LabelSet("mine", (Structure(7, "liver", (9, 9, 9)), Structure(3, "spleen", (1, 1, 1))))
    assert protocol("same", mine).apply(np.array([0, 3, 7])).tolist() == [0, 2, 1]


def test_a_protocol_that_knows_nothing_of_the_set_is_refused() -> None:
    with pytest.raises(InputError, match="no structure in common with the label set 'mine'"):
        protocol("aseg", LabelSet("mine", (Structure(900, "liver", (9, 9, 9)),)))


def test_a_wrong_protocol_lists_the_right_ones() -> None:
    with pytest.raises(InputError, match="aseg, aparc\\+aseg, neuromorphometrics, same"):
        protocol("aparc", TWENTY_SEVEN)


def plain(name: str) -> str:
    """One spelling for the two label tables' names."""
    words = {"proper": "", "area": "", "exterior": "cortex", "cerebral exterior": "", "inf lat vent": "inf-lat-vent"}
    name = name.lower().replace("-", " ").replace("ventraldc", "ventral dc")
    for old, new in words.items():
        name = name.replace(old.replace("-", " "), new.replace("-", " "))
    return " ".join(sorted(name.split()))


@pytest.mark.real_data
def test_neuromorphometrics_pairs_have_the_same_names_in_both_tables(real_data: Path) -> None:
    with (real_data / "malc" / "label_information.csv").open() as stream:
        names = {int(row["Label Number"]): row["Label Name"] for row in csv.DictReader(stream)}
    structure = dict(zip(THIRTY_TWO.ids, THIRTY_TWO.names, strict=True))
    for number, target in protocol("neuromorphometrics", THIRTY_TWO).rules.items():
        if target in (3, 42):
            assert names[number].split()[0] == structure[target].split("-")[0], number
        elif target and number not in (33, 34, 53, 54):
            assert plain(names[number]) == plain(structure[target]), number


@pytest.mark.real_data
def test_aseg_and_aparc_of_real_subjects_agree(real_data: Path) -> None:
    folder = real_data / "freesurfer" / "bert" / "mri"
    labels = [np.asanyarray(nib.load(folder / f"{name}.mgz").dataobj) for name in ("aseg", "aparc+aseg")]
    aseg, aparc = (protocol(n, THIRTY_TWO).apply(a) for n, a in zip(("aseg", "aparc+aseg"), labels, strict=True))
    assert (aseg == aparc).all()
    assert len(np.unique(aseg)) == 33
