"""The brain is what the skull holds, and regions land where they are, on the side that they are on."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from ct_phantoms import REGIONS, Head, head

from medssl.data.catalog import Scan
from medssl.data.cohort import Refused
from medssl.data.resample import reorient
from medssl.data.volumes import Volume, read_labels
from medssl.errors import InputError
from medssl.labels.head_ct import HeadCTLabeller, brain_mask, label_heads
from medssl.metrics import dice_per_class


def save(folder: Path, name: str, data: np.ndarray, affine: np.ndarray) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, affine), folder / f"{name}.nii.gz")
    return folder / f"{name}.nii.gz"


def atlas_of(folder: Path, made: Head, contrast: str, name: str = "atlas") -> Scan:
    image = save(folder, name, made.hu if contrast == "ct" else made.t1, made.affine)
    return Scan(name, name, image, save(folder, f"{name}_labels", made.labels, made.affine))


@pytest.mark.parametrize("orientation", ["RAS", "LPI", "SAL"])
def test_the_brain_is_found_without_its_skull_scalp_and_neck(orientation: str) -> None:
    made = head()
    turned = reorient(Volume(made.hu, made.affine), orientation)
    truth = reorient(Volume(made.brain.astype(np.uint8), made.affine), orientation).data
    found = brain_mask(turned).astype(np.uint8)
    assert dice_per_class(found, truth, 2)[1] > 0.9
    assert not found[turned.data > 500].any()


def test_values_from_0_to_255_are_no_hounsfield_numbers() -> None:
    made = head()
    grey = np.interp(made.hu, (-100, 200), (0, 255)).astype(np.uint8)
    with pytest.raises(InputError, match="its lowest value is 0, but Hounsfield numbers put air at -1000"):
        brain_mask(Volume(grey, made.affine))


@pytest.mark.parametrize("what", ["no bone", "empty skull", "one slice"])
def test_what_holds_no_brain_is_refused(what: str) -> None:
    made = head()
    if what == "one slice":
        with pytest.raises(InputError, match="is 2D"):
            brain_mask(Volume(made.hu[..., 20], made.affine))
        return
    changed = np.where(made.hu > 200, 30, made.hu) if what == "no bone" else np.where(made.brain, -1000, made.hu)
    with pytest.raises(InputError, match=r"largest soft part inside bone has \d+ ml, and a brain has 400 to 2500"):
        brain_mask(Volume(changed, made.affine))


@pytest.mark.parametrize(("contrast", "deformable"), [("mri", None), ("ct", None), ("ct", "demons")])
def test_regions_land_on_their_own_side_whatever_the_atlas_is(tmp_path: Path, contrast: str, deformable: str) -> None:
    made = head(seed=1, size=0.94)
    scan = Scan("s1", "s1", save(tmp_path, "s1", made.hu, made.affine))
    labeller = HeadCTLabeller.of(
        [atlas_of(tmp_path, head(), contrast)], REGIONS, "same", contrast, deformable=deformable, working_spacing_mm=4.0
    )
    found = labeller.label(scan)
    assert np.nanmin(dice_per_class(found.classes, made.labels, 4)[1:]) > 0.7
    assert not found.classes[~brain_mask(Volume(made.hu, made.affine))].any()


def test_deforming_mri_to_ct_by_intensities_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="deformable=demons compares intensities"):
        HeadCTLabeller.of([atlas_of(tmp_path, head(), "mri")], REGIONS, "same", deformable="demons")


def test_a_bad_scan_is_named_the_others_go_on_and_nothing_is_done_twice(tmp_path: Path) -> None:
    made = head()
    labeller = HeadCTLabeller.of([atlas_of(tmp_path, head(2), "mri")], REGIONS, "same", working_spacing_mm=6.0)
    scans = [
        Scan("good", "good", save(tmp_path, "good", made.hu, made.affine)),
        Scan("grey", "grey", save(tmp_path, "grey", np.abs(made.hu), made.affine)),
        Scan("own", "atlas", save(tmp_path, "own", made.hu, made.affine)),
    ]
    found = label_heads(scans, labeller, tmp_path / "out", jobs=1)
    path, grey, own = found.values()
    assert isinstance(path, Path) and set(np.unique(read_labels(path).data)) == {0, 1, 2, 3}
    assert isinstance(grey, Refused) and "Hounsfield" in grey.reason
    assert isinstance(own, Refused) and "every atlas shows this subject (atlas)" in own.reason
    before = path.stat().st_mtime_ns
    assert label_heads(scans[:1], labeller, tmp_path / "out", jobs=1) == {"good": path}
    assert path.stat().st_mtime_ns == before
    save(tmp_path, "good", head(5).hu, made.affine)
    label_heads(scans[:1], labeller, tmp_path / "out", jobs=1)
    assert path.stat().st_mtime_ns != before
