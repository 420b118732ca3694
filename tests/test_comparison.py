"""Test scans keep one name from their catalog to their scores, whatever their files are called."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import torch

from medssl.comparison import predict_and_score
from medssl.data.catalog import catalog
from medssl.data.preparation import Preparation
from medssl.labels.lut import LabelSet
from medssl.labels.protocols import protocol
from medssl.model import Model, save_model
from medssl.networks import build_network
from medssl.tracking import NullRun, hashed


class Recorded(NullRun):
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.tables: dict[str, pd.DataFrame] = {}
        self.files: list[str] = []

    def log_table(self, table: pd.DataFrame, name: str) -> None:
        self.tables[name] = table

    def log_folder(self, path: Path, folder: str) -> None:
        self.files += sorted(file.name for file in path.iterdir())


def test_scans_whose_files_share_a_name_are_scored_and_tracked_under_one_hash(
    cohort: Path, toy_structures: LabelSet, tmp_path: Path
) -> None:
    """As in a SUBJECTS_DIR, where every image is called norm.mgz."""
    for who in ("s0", "s1"):
        (tmp_path / "subjects" / who / "mri").mkdir(parents=True)
        for ending, name in (("T1w", "norm"), ("labels", "aseg")):
            image = nib.load(cohort / f"{who}_{ending}.nii.gz")
            voxels = np.asanyarray(image.dataobj)
            nib.save(nib.MGHImage(voxels, image.affine), tmp_path / "subjects" / who / "mri" / f"{name}.mgz")
    torch.manual_seed(0)
    network = build_network("unet", 1, toy_structures.classes, 3, channels=(2, 4), refine_channels=1)
    small = {"channels": [2, 4], "refine_channels": 1}
    save_model(Model(network, "unet", small, toy_structures, Preparation(), (24, 24, 24)), tmp_path / "model")
    scans, run = catalog(tmp_path / "subjects", freesurfer_labels="aseg"), Recorded()
    reading = protocol("same", toy_structures)
    scores = predict_and_score(tmp_path / "model", scans, reading, tmp_path / "out", run)
    assert set(scores["scan"]) == {"s0", "s1"}
    expected = {hashed("s0"), hashed("s1")}
    assert set(run.tables["scores"]["scan"]) == set(run.tables["volumes"]["scan"]) == expected
    assert run.files == sorted(f"{name}.png" for name in expected)
