"""What every test may ask for."""

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medssl.data.catalog import catalog
from medssl.data.prepare import prepare
from medssl.labels.lut import LabelSet, Structure, write_lut
from medssl.labels.protocols import protocol


@pytest.fixture
def real_data() -> Path:
    """The folder of real scans that MEDSSL_REAL_DATA names; the test is skipped, saying so, where it is not set."""
    folder = os.environ.get("MEDSSL_REAL_DATA")
    if not folder:
        pytest.skip("MEDSSL_REAL_DATA is not set: no real scans to test on")
    return Path(folder)


@pytest.fixture(scope="session")
def toy_structures() -> LabelSet:
    """Two paired structures and one that has no twin."""
    return LabelSet(
        "toy",
        (
            Structure(1, "Left-Box", (200, 40, 40)),
            Structure(2, "Right-Box", (40, 40, 200)),
            Structure(3, "Ball", (40, 200, 40)),
        ),
    )


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory, toy_structures: LabelSet) -> Path:
    """A folder of nine labelled scans, 24 mm wide: two noisy boxes, left and right, and a ball between them.

    s0 to s8, ``<id>_T1w.nii.gz`` and ``<id>_labels.nii.gz``, with the structures' colour table beside them.
    """
    folder = tmp_path_factory.mktemp("cohort")
    x, y, z = np.meshgrid(*[np.arange(24)] * 3, indexing="ij")
    for subject in range(9):
        rng = np.random.default_rng(subject)
        at = rng.integers(-2, 3, size=3)
        labels = np.zeros((24, 24, 24), dtype=np.uint8)
        labels[3 : 9 + at[0], 6:16, 6:16] = 1
        labels[15 + at[1] : 21, 6:16, 6:16] = 2
        labels[(x - 11) ** 2 + (y - 12 - at[2]) ** 2 + (z - 12) ** 2 < 7] = 3
        inside = (x - 12) ** 2 + (y - 12) ** 2 + (z - 12) ** 2 < 140
        image = (100 + 50 * labels + rng.normal(0, 10, labels.shape)) * (inside | (labels > 0))
        nib.save(nib.Nifti1Image(image.astype(np.float32), np.eye(4)), folder / f"s{subject}_T1w.nii.gz")
        nib.save(nib.Nifti1Image(labels, np.eye(4)), folder / f"s{subject}_labels.nii.gz")
    write_lut(folder / "structures.txt", toy_structures)
    return folder


@pytest.fixture(scope="session")
def prepared_cohort(cohort: Path, toy_structures: LabelSet) -> Path:
    """The first six scans of the cohort, prepared."""
    scans = catalog(cohort)[:6]
    prepare(scans, cohort / "prepared", protocol("same", toy_structures), jobs=1, progress=False)
    return cohort / "prepared"
