"""``medssl predict``: a model and scans in, label maps on the scans' own grids out; or classes, or boxes."""

from pathlib import Path

import pandas as pd
import torch

from medssl.errors import InputError
from medssl.fine_tuning import load_classifier, load_detector
from medssl.image_inference import classify, detect
from medssl.inference import Space
from medssl.inference import predict as predict_scans
from medssl.model import MODEL, load_model
from medssl.pretrained import CLASSIFIER, DETECTOR
from medssl.report.scans import qc_picture
from medssl.training import Precision, use_bf16
from medssl.weights import find_folder


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

    Volumes are voxel counts, not FreeSurfer's partial-volume corrected ones. A classifier writes classes.csv, the
    probability of each class for each scan; a detector boxes.csv, each structure's box in mm and in the scan's voxels.

    Args:
        model: The folder of a model, a classifier or a detector, or an MLflow URI such as runs:/<id>/model.
        inputs: Files, folders of files, DICOM folders, a FreeSurfer or FastSurfer SUBJECTS_DIR, or one subject of it.
        out: Folder of the results.
        space: Segmentation, as the next five: native is each scan's own grid; prepared the grid that the network sees.
        overlap: Share of a window that its neighbour sees too; more is slower and a little better.
        mirror: Average with the left-right mirror image; twice the time.
        largest_component: Keep the largest connected part of each structure.
        pictures: Draw the picture of each scan.
        resume: Keep what the same model made of the same scan before.
        precision: auto is bf16 where the processor computes in it.
        device: cpu, cuda, or auto.
    """
    where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    low = torch.bfloat16 if use_bf16(precision) else torch.float32
    folder, kind = find_folder(model, MODEL, CLASSIFIER, DETECTOR)
    if kind is CLASSIFIER:
        classifier = load_classifier(folder)
        classifier.method.to(where)
        table, refused = classify(classifier, inputs, out, low)
        print(f"{len(table)} scans classified: {out / 'classes.csv'}")
        return _tell(refused, "classified")
    if kind is DETECTOR:
        detector = load_detector(folder)
        detector.method.to(where)
        table, refused = detect(detector, inputs, out, low)
        print(f"{len(table)} boxes in {table['scan'].nunique()} scans: {out / 'boxes.csv'}")
        return _tell(refused, "looked at")
    loaded = load_model(folder)
    loaded.network.to(where)
    result = predict_scans(
        loaded,
        inputs,
        out,
        space=space,
        overlap=overlap,
        mirror=mirror,
        largest_component=largest_component,
        precision=low,
        resume=resume,
        draw=qc_picture if pictures else None,
    )
    print(f"{result.volumes['scan'].nunique()} scans segmented: {out}")
    for scan, rows in result.volumes[result.volumes["truncated"].astype(bool)].groupby("scan", sort=False):
        print(f"  {scan}: truncated by the border of the field of view: {', '.join(rows['structure'])}.")
    _tell(result.refused, "segmented")


def _tell(refused: pd.DataFrame, what: str) -> None:
    """Name the inputs that could not be used, where there are some, as an error: a script must notice."""
    if len(refused):
        reasons = "\n".join(f"  {row.reason}" for row in refused.itertuples())
        raise InputError(f"{len(refused)} of the inputs could not be {what}:\n{reasons}")
