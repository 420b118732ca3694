"""``medssl predict``: a model and scans in, label maps on the scans' own grids out."""

from pathlib import Path

import torch

from medssl.errors import InputError
from medssl.inference import Space
from medssl.inference import predict as predict_scans
from medssl.model import load_model
from medssl.report.scans import qc_picture
from medssl.training import Precision, use_bf16


def predict(
    model: str,
    inputs: list[Path],
    out: Path,
    *,
    space: Space = "native",
    overlap: float = 0.5,
    mirror: bool = False,
    largest_component: bool = False,
    pictures: bool = True,
    resume: bool = False,
    precision: Precision = "auto",
    device: str = "auto",
) -> None:
    """Segment scans: label maps on each scan's own grid, a colour table, the volumes, and a picture to check.

    Volumes are voxel counts, not FreeSurfer's partial-volume corrected ones.

    Args:
        model: A model folder, or an MLflow URI such as runs:/<id>/model.
        inputs: Files, folders of files, DICOM folders, a FreeSurfer or FastSurfer SUBJECTS_DIR, or one subject of it.
        out: Folder of the results.
        space: native is each scan's own grid; prepared is the grid that the network sees.
        overlap: Share of a window that its neighbour sees too; more is slower and a little better.
        mirror: Average with the left-right mirror image; twice the time.
        largest_component: Keep the largest connected part of each structure.
        pictures: Draw the picture of each scan.
        resume: Keep what the same model made of the same scan before.
        precision: auto is bf16 where the processor computes in it.
        device: cpu, cuda, or auto.
    """
    loaded = load_model(model)
    loaded.network.to(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    result = predict_scans(
        loaded,
        inputs,
        out,
        space=space,
        overlap=overlap,
        mirror=mirror,
        largest_component=largest_component,
        precision=torch.bfloat16 if use_bf16(precision) else torch.float32,
        resume=resume,
        draw=qc_picture if pictures else None,
    )
    print(f"{result.volumes['scan'].nunique()} scans segmented: {out}")
    for scan, rows in result.volumes[result.volumes["truncated"]].groupby("scan", sort=False):
        print(f"  {scan}: truncated by the border of the field of view: {', '.join(rows['structure'])}.")
    if len(result.refused):
        reasons = "\n".join(f"  {row.reason}" for row in result.refused.itertuples())
        raise InputError(f"{len(result.refused)} of the inputs could not be segmented:\n{reasons}")
