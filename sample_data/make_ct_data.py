"""Make simulated CT to try the CT pipelines on: ``python -m sample_data.make_ct_data --out runs/ct_data``.

None of it ships, because noise does not compress. The heads need the extra ``template``, the torsos nothing.
"""

import argparse
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from medssl.files import write_aside
from sample_data.ct_simulation import head, torso
from sample_data.simulation import Affine

TORSOS, UNLABELLED, HEADS = range(1, 9), range(101, 105), range(40, 43)


def main() -> None:
    """Write torsos with weak labels, torsos without, and heads with lesion masks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    out: Path = parser.parse_args().out
    for seed in TORSOS:
        made = torso(seed)
        write(out / "labelled" / "images" / f"torso-{seed:03d}.nii.gz", made.hu, made.affine)
        write(out / "labelled" / "labels" / f"torso-{seed:03d}.nii.gz", made.weak, made.affine)
    for seed in UNLABELLED:
        made = torso(seed)
        write(out / "unlabelled" / f"torso-{seed:03d}.nii.gz", made.hu, made.affine)
    for seed in HEADS:
        skull = head(seed)
        name = f"head-{seed:03d}-{skull.side}.nii.gz"
        write(out / "heads" / name, skull.hu, skull.affine)
        write(out / "lesions" / name, skull.infarct, skull.affine)
        write(out / "predicted_lesions" / name, skull.predicted, skull.affine)


def write(path: Path, voxels: NDArray[np.int16] | NDArray[np.uint8], affine: Affine) -> None:
    """Write an image or label map as NIfTI."""
    with write_aside(path) as aside:
        nib.save(nib.Nifti1Image(voxels, affine, dtype=voxels.dtype), aside)


if __name__ == "__main__":
    main()
