"""Head CT with an infarct: the regions, their sides and the lesions are found, and what is no CT is named."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from ct_phantoms import REGIONS, head

from medssl.cli import main
from medssl.labels.lut import write_lut
from medssl.tracking import find_runs, load_table, tracking_uri


def save(path: Path, data: np.ndarray, affine: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, affine), path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two heads, dark on the left and on the right, one that is no CT; lesion masks of the first; an MRI atlas."""
    root = tmp_path_factory.mktemp("heads")
    for number, dark in enumerate((1, 2)):
        made = head(seed=number, dark=dark, size=0.95)
        save(root / "scans" / f"patient{number}.nii.gz", made.hu, made.affine)
        if dark == 1:
            lesion = (made.labels == 1).astype(np.uint8)
            save(root / "reference" / "patient0_lesion.nii.gz", lesion, made.affine)
            save(root / "predicted" / "patient0.nii.gz", np.roll(lesion, 1, axis=0), made.affine)
    save(root / "scans" / "grey.nii.gz", np.clip(made.hu, 0, 255).astype(np.uint8), made.affine)
    save(root / "atlases" / "a1_T1w.nii.gz", head(7).t1, made.affine)
    save(root / "atlases" / "a1_labels.nii.gz", head(7).labels, made.affine)
    write_lut(root / "regions.txt", REGIONS)
    return root


def arguments(folder: Path, *more: str) -> list[str]:
    places = ["--scans", str(folder / "scans"), "--atlases", str(folder / "atlases"), "--out", str(folder / "out")]
    reading = ["--label_set", str(folder / "regions.txt"), "--atlas_reading", "same"]
    return ["run", "ct_head", *places, *reading, "--working_spacing_mm", "4", "--jobs", "1", *more]


@pytest.fixture(scope="module")
def finished(folder: Path) -> Path:
    masks = [f"--{kind}_lesions={folder / kind}" for kind in ("reference", "predicted")]
    assert main(arguments(folder, *masks)) == 0
    return folder / "out"


def test_the_dark_side_of_each_head_is_found(finished: Path) -> None:
    table = pd.read_csv(finished / "regions.csv").set_index(["scan", "structure"])
    assert set(table.index.get_level_values("scan")) == {"patient0", "patient1"}
    assert table.loc[("patient0", "Left-Nucleus"), "difference_hu"] == pytest.approx(-10, abs=3)
    assert table.loc[("patient1", "Right-Nucleus"), "difference_hu"] == pytest.approx(-10, abs=3)


def test_lesions_of_the_scan_that_has_masks_are_scored_in_their_region(finished: Path) -> None:
    table = pd.read_csv(finished / "lesions.csv")
    assert set(table["scan"]) == {"patient0"}
    nucleus = table.set_index("structure").loc["Left-Nucleus"]
    assert nucleus["reference_percent"] > 70 and 0.5 < nucleus["dice"] < 1
    assert table.set_index("structure").loc["Right-Nucleus", "reference_mm3"] == 0


def test_what_is_no_ct_is_listed_with_the_reason(finished: Path) -> None:
    refused = pd.read_csv(finished / "refused.csv")
    assert refused["scan"].tolist() == ["grey"]
    assert "Hounsfield numbers put air at -1000" in refused["reason"][0]


def test_page_and_mlflow_name_no_patient_and_hold_the_pictures(finished: Path) -> None:
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert "not a diagnosis" in page and "2 scans measured, 1 refused" in page
    assert page.count("<img") == 4 and "patient0" not in page
    uri = tracking_uri(finished)
    (run,) = find_runs(uri, "ct_head")
    assert not load_table(uri, run.run_id, "regions")["scan"].str.startswith("patient").any()
    assert not [*(finished / "mlartifacts").rglob("*patient*")]


def test_run_again_it_registers_nothing_twice(finished: Path, folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.glob("regions/*_dseg.*")}
    assert len(before) == 4
    assert main(arguments(folder)) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_where_no_scan_can_be_used_the_reasons_are_told(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    only = ["--scans", str(folder / "scans" / "grey.nii.gz"), "--out", str(tmp_path)]
    assert main([*arguments(folder), *only]) == 2
    assert "no regions were measured in any of 1 scans" in capsys.readouterr().err


def test_the_settings_for_the_sample_data_are_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    settings = Path(__file__).parents[2] / "sample_data" / "ct_head.yaml"
    with pytest.raises(SystemExit) as stopped:
        main(["run", "ct_head", "--config", str(settings), "--out", "somewhere", "--print_config"])
    assert stopped.value.code == 0, capsys.readouterr().err
