"""Small scans on disk, made by hand, for the tests of medssl.data."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from medssl.labels.lut import LabelSet, Structure
from medssl.labels.protocols import Protocol

WriteImage = Callable[..., Path]


@pytest.fixture
def protocol() -> Protocol:
    """Label numbers 10 and 20 are classes 1 and 2; 30 is background; class 3 (number 40) has no source."""
    names = (("Left-Part", 10), ("Right-Part", 20), ("Rare", 40))
    label_set = LabelSet("three", tuple(Structure(number, name, (number, 0, 0)) for name, number in names))
    return Protocol("toy", label_set, {0: 0, 10: 10, 20: 20, 30: 0})


@pytest.fixture
def write_image() -> WriteImage:
    """Writes an array as NIfTI or MGH and returns the path."""

    def write(path: Path, data: NDArray[Any], affine: NDArray[Any] | None = None) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        affine = np.eye(4) if affine is None else affine
        if path.suffix in (".mgz", ".mgh"):
            image = nib.MGHImage(data, affine)
        else:
            image = nib.Nifti1Image(data, None)
            image.header.set_zooms([*np.linalg.norm(affine[:3, :3], axis=0), 1, 1][: data.ndim])
            image.set_sform(affine, code=1)  # the sform alone, so that a singular affine can be written too
        nib.save(image, path)
        return path

    return write


@pytest.fixture
def brain() -> Callable[[int], tuple[NDArray[np.int16], NDArray[np.uint8]]]:
    """A noisy box in darkness with its two halves labelled 10 and 20: image and labels, (20, 18, 16)."""

    def make(seed: int) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
        rng = np.random.default_rng(seed)
        image = np.zeros((20, 18, 16), dtype=np.int16)
        image[4:16, 4:14, 4:12] = rng.integers(300, 900, (12, 10, 8))
        labels = np.zeros(image.shape, dtype=np.uint8)
        labels[5:10, 5:13, 5:11] = 10
        labels[10:15, 5:13, 5:11] = 20
        return image, labels

    return make


@pytest.fixture
def cohort(tmp_path: Path, write_image: WriteImage, brain: Callable[[int], Any]) -> Path:
    """A folder of four labelled scans, s0 to s3, as ``*_T1w.nii.gz`` and ``*_labels.nii.gz``."""
    folder = tmp_path / "cohort"
    for seed in range(4):
        image, labels = brain(seed)
        write_image(folder / f"s{seed}_T1w.nii.gz", image)
        write_image(folder / f"s{seed}_labels.nii.gz", labels)
    return folder
