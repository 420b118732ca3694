"""The shipped scans are what their script makes, and hold what their README says."""

import re
from pathlib import Path

import numpy as np
import pytest

from medssl.cli import main
from medssl.data.catalog import catalog
from medssl.data.resample import reorient
from medssl.data.volumes import Volume, read_labels, read_volume
from medssl.labels.lut import label_set
from medssl.metrics import confusion, dice_from_confusion
from sample_data.make_sample_data import ATLASES, MANUAL, WEAK, sample_labels
from sample_data.simulation import SimulatedScan, simulate

FOLDER = Path(__file__).parents[1] / "sample_data"
LABELS = label_set(str(FOLDER / "label_set.txt"))
LARGEST_BYTES = 6_000_000


def manual(subject: str) -> tuple[Volume, Volume]:
    return read_volume(FOLDER / "manual" / f"{subject}_T1w.nii.gz"), read_labels(
        FOLDER / "manual" / f"{subject}_labels.nii.gz"
    )


def weak(subject: str) -> tuple[Volume, Volume]:
    folder = FOLDER / "subjects" / subject / "mri"
    return read_volume(folder / "brain.mgz"), read_labels(folder / "aseg.mgz")


@pytest.fixture(scope="module")
def remade() -> SimulatedScan:
    return simulate(WEAK["sub-01"])


def test_the_script_makes_the_shipped_scan_again(remade: SimulatedScan) -> None:
    shipped = reorient(weak("sub-01")[0])
    assert shipped.data.shape == remade.image.shape
    np.testing.assert_allclose(shipped.affine, remade.affine, atol=1e-4)
    # other versions of the libraries may round a voxel differently
    close = np.abs(shipped.data.astype(int) - remade.image) <= 1
    assert close.mean() > 0.999


def test_no_deformation_folds(remade: SimulatedScan) -> None:
    assert 0 < remade.least_jacobian < 1


def test_weak_labels_are_plausible_but_imperfect(remade: SimulatedScan) -> None:
    index = np.zeros(256, np.int64)
    index[list(LABELS.ids)] = np.arange(1, LABELS.classes)
    predicted = index[reorient(weak("sub-01")[1]).data]
    dice = dice_from_confusion(confusion(predicted, index[remade.labels], LABELS.classes))
    assert 0.6 < np.nanmean(dice[1:]) < 0.95
    assert np.nanmin(dice[1:]) > 0


def test_every_scan_of_both_folders_is_found_with_its_labels() -> None:
    for source, subjects in (("subjects", WEAK), ("manual", MANUAL)):
        scans = catalog(FOLDER / source, freesurfer_labels="aseg")
        assert [scan.subject for scan in scans] == sorted(subjects)
        assert all(scan.label is not None for scan in scans)


def test_no_subject_is_in_two_groups() -> None:
    seeds = [*WEAK.values(), *MANUAL.values(), *ATLASES.values()]
    assert len(seeds) == len(set(seeds))
    assert len({*WEAK, *MANUAL, *ATLASES}) == len(seeds)


def test_label_maps_lie_on_their_scans_grids_and_hold_every_structure_and_no_other() -> None:
    for image, labels in [*map(manual, MANUAL), *map(weak, WEAK)]:
        assert image.data.shape == labels.data.shape
        np.testing.assert_array_equal(image.affine, labels.affine)
        assert set(np.unique(labels.data)) == {0, *LABELS.ids}, labels.path


def test_true_labels_lie_inside_the_brain() -> None:
    for image, labels in map(manual, MANUAL):
        assert not labels.data[image.data == 0].any()


def test_left_is_left() -> None:
    image, labels = manual("sub-11")
    x_mm = {}
    for structure in LABELS.structures:
        voxels = np.argwhere(labels.data == structure.id)
        x_mm[structure.name] = (voxels @ image.affine[:3, :3].T + image.affine[:3, 3])[:, 0].mean()
    pairs = [(name, name.replace("Left-", "Right-")) for name in x_mm if name.startswith("Left-")]
    assert all(x_mm[left] < x_mm["Brain-Stem"] < x_mm[right] for left, right in pairs)


def test_the_shipped_colour_table_is_the_scripts_own() -> None:
    assert LABELS.structures == sample_labels().structures
    assert sum(name.startswith("Left-") for name in LABELS.names) >= 6
    assert sum(name.startswith("Left-") for name in LABELS.names) == sum(n.startswith("Right-") for n in LABELS.names)


def test_the_data_stay_small() -> None:
    total = sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file() and path.suffix in (".gz", ".mgz"))
    assert total < LARGEST_BYTES


def test_the_readme_says_what_ships_and_that_it_is_simulated() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert "simulated" in text and "Copyright (C) 1993-2009 Louis Collins" in text
    assert re.search(rf"\| {len(WEAK)} scans with \*\*weak\*\*", text)
    assert re.search(rf"\| {len(MANUAL)} scans of other subjects", text)
    assert f"the {len(LABELS.structures)} structures" in text


@pytest.mark.parametrize(("name", "pipeline"), [("demo", "brain_segmentation"), ("demo_pretrain", "pretrain_volumes")])
def test_the_settings_of_the_demos_are_accepted(name: str, pipeline: str, capsys: pytest.CaptureFixture[str]) -> None:
    settings = Path(__file__).parents[1] / "sample_data" / f"{name}.yaml"
    with pytest.raises(SystemExit) as stopped:
        main(["run", pipeline, "--config", str(settings), "--out", "somewhere", "--print_config"])
    assert stopped.value.code == 0, capsys.readouterr().err
