"""Make the scans of sample_data again: ``python -m sample_data.make_sample_data`` from the root of the checkout.

Needs the extra ``template`` (the ICBM 152 template comes inside the nilearn package) and some minutes. What ships was
made by this script; the same seeds make the same scans.
"""

import argparse
import gzip
import tempfile
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np

from medssl.data.catalog import catalog
from medssl.data.resample import reorient
from medssl.data.volumes import Volume, read_labels
from medssl.labels.atlas import Deformable
from medssl.labels.lut import LabelSet, Structure, write_lut
from medssl.labels.weak import weak_labels_from_atlases
from sample_data.simulation import SimulatedScan, simulate
from sample_data.template_labels import STRUCTURES

HERE = Path(__file__).parent
# Subject -> the seed of its shape, contrast and noise. No subject is in two of the three groups.
WEAK: Mapping[str, int] = {f"sub-{number:02d}": number for number in range(1, 11)}
MANUAL: Mapping[str, int] = {f"sub-{number:02d}": number for number in range(11, 22)}
ATLASES: Mapping[str, int] = {"atlas-01": 901}
# Of medssl's own atlas registration: one atlas, compared at a coarse voxel size, is quick and leaves errors to correct.
WEAK_REGISTRATION: Deformable = "demons"
WEAK_REGISTRATION_MM = 4.0
SCANNER_UNITS = 7  # manual scans keep a scanner's own, uncalibrated intensities


def main() -> None:
    """Write the whole cohort under the folder named on the command line (by default, where it ships)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write subjects/ and manual/ to")
    out: Path = parser.parse_args().out
    write_lut(out / "label_set.txt", sample_labels())
    for subject, seed in MANUAL.items():
        write_manual(out / "manual", subject, simulate(seed))
    for subject, seed in WEAK.items():
        scan = simulate(seed)
        write_freesurfer(out / "subjects" / subject / "mri" / "brain.mgz", Volume(scan.image, scan.affine))
        (out / "subjects" / subject / "mri" / "aseg.mgz").unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        write_weak_labels(out / "subjects", Path(folder))


def sample_labels() -> LabelSet:
    """The structures of the sample scans, left before right, under FreeSurfer's numbers, names and colours."""
    structures = {}
    for name, left, right, color in STRUCTURES:
        for id_, side in ((left, "Left-"), (right, "Right-")):
            structures[id_] = Structure(id_, name if left == right else side + name, color)
    return LabelSet("label_set", tuple(structures[id_] for id_ in sorted(structures)))


def write_manual(folder: Path, subject: str, scan: SimulatedScan) -> None:
    """Write a scan with its true labels as NIfTI, in orientation LAS as many scanners export."""
    for data, ending in ((scan.image.astype(np.int16) * SCANNER_UNITS, "T1w"), (scan.labels, "labels")):
        turned = reorient(Volume(data, scan.affine), "LAS")
        nifti = nib.Nifti1Image(turned.data, turned.affine)
        nifti.header.set_xyzt_units("mm")
        _write_compressed(folder / f"{subject}_{ending}.nii.gz", nifti.to_bytes())


def write_weak_labels(subjects: Path, aside: Path) -> None:
    """Label the scans of a SUBJECTS_DIR as ``medssl weak-labels`` does, from atlases that nobody else sees.

    Args:
        subjects: The scans to label; each gets its ``aseg.mgz``.
        aside: An empty folder to work in.
    """
    for subject, seed in ATLASES.items():
        write_manual(aside / "atlases", subject, simulate(seed))
    weak_labels_from_atlases(
        catalog(subjects),
        catalog(aside / "atlases"),
        aside / "weak",
        sample_labels(),
        reading="same",
        deformable=WEAK_REGISTRATION,
        working_spacing_mm=WEAK_REGISTRATION_MM,
        layout="subjects_dir",
        jobs=1,
    )
    for subject in WEAK:
        made = Path(subject, "mri", "aseg.mgz")
        write_freesurfer(subjects / made, read_labels(aside / "weak" / made))


def write_freesurfer(path: Path, volume: Volume) -> None:
    """Write an image or label map as FreeSurfer does: MGZ, uint8, orientation LIA."""
    turned = reorient(volume, "LIA")
    _write_compressed(path, nib.MGHImage(np.ascontiguousarray(turned.data, np.uint8), turned.affine).to_bytes())


def _write_compressed(path: Path, content: bytes) -> None:
    """Gzip without a time stamp, so that the same scan is the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, mtime=0))


if __name__ == "__main__":
    main()
