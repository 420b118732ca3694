"""Scans through a trained classifier or detector: classes, or boxes in millimetres, and what was refused."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from medssl.data.catalog import Scan
from medssl.data.cohort import Refused, or_refused
from medssl.data.preparation import PreparedImage, prepare_image
from medssl.data.volumes import Volume, read_volume
from medssl.errors import InputError
from medssl.evaluation.detection import detect_windows
from medssl.evaluation.embedding import windows_of
from medssl.evaluation.tables import write_table
from medssl.fine_tuning import FineTuned
from medssl.inference import scans_of
from medssl.methods.classification import Classification
from medssl.methods.detection import Detection
from medssl.networks.heads import pooled

_AXES = "xyz"


def classify(
    tuned: FineTuned[Classification], inputs: Sequence[Path], out: Path, precision: torch.dtype = torch.float32
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tell the class of each scan, and write ``classes.csv`` and ``refused.csv`` into ``out``.

    Args:
        tuned: Evaluated on the device that it is on.
        inputs: Files, folders, DICOM folders, a FreeSurfer or FastSurfer SUBJECTS_DIR, or one subject of it.
        out: Made where it is missing.
        precision: float32, or the 16-bit type of the forward pass.

    Returns:
        One row per scan: scan, class, and the probability of each class; and one per scan that could not be used.

    Raises:
        InputError: There is no scan, or ``out`` cannot be written.
    """

    def look(scan: Scan) -> list[dict[str, Any]]:
        image = _seen(tuned, read_volume(scan.image, scan.series))
        method = tuned.method
        device = method.class_weight.device
        windows = windows_of(torch.from_numpy(image.data), tuned.patch_size)
        with torch.no_grad(), torch.autocast(device.type, precision, enabled=precision != torch.float32):
            z = torch.cat([pooled(method.encoder(part.to(device))).float() for part in windows.split(4)]).mean(0)
            probability = method.probabilities(z[None])[0].cpu().numpy()
        shares = {f"p/{name}": float(p) for name, p in zip(method.classes, probability, strict=True)}
        return [{"scan": scan.name, "class": method.classes[int(probability.argmax())], **shares}]

    columns = ["scan", "class", *(f"p/{name}" for name in tuned.method.classes)]
    return _each(look, inputs, out, "classes.csv", columns, "Classifying")


def detect(
    tuned: FineTuned[Detection], inputs: Sequence[Path], out: Path, precision: torch.dtype = torch.float32
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Box the structures of each scan, and write ``boxes.csv`` and ``refused.csv`` into ``out``.

    Args:
        tuned: Evaluated on the device that it is on.
        inputs: As for ``classify``.
        out: Made where it is missing.
        precision: float32, or the 16-bit type of the forward pass.

    Returns:
        One row per box, the surest of a scan first: scan, structure, score (0 to 1), its centre and its sides in mm
        (x to the right, y to the front, z up; sides along the axes of the prepared grid), and the first and last voxel
        of the scan's own grid that it touches along each axis; and one row per scan that could not be used.

    Raises:
        InputError: There is no scan, or ``out`` cannot be written.
    """

    def look(scan: Scan) -> list[dict[str, Any]]:
        volume = read_volume(scan.image, scan.series)
        image = _seen(tuned, volume)
        device = next(tuned.method.parameters()).device
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            found = detect_windows(tuned.method, torch.from_numpy(image.data).to(device), tuned.patch_size)
        boxes = zip(found.corners.float().cpu(), found.scores.tolist(), found.classes.tolist(), strict=True)
        return [
            {
                "scan": scan.name,
                "structure": tuned.method.structures[int(index) - 1],
                "score": score,
                **_placed(corners, image, volume),
            }
            for corners, score, index in boxes
        ]

    axes = _AXES[: len(tuned.patch_size)]
    placed = [f"{what}_{axis}" for what in ("centre_mm", "side_mm", "first_voxel", "last_voxel") for axis in axes]
    return _each(look, inputs, out, "boxes.csv", ["scan", "structure", "score", *placed], "Detecting")


def _seen(tuned: FineTuned[Any], volume: Volume) -> PreparedImage:
    """Prepare a scan as the network's training images were.

    Raises:
        InputError: It has other dimensions or channels than these.
    """
    if volume.data.ndim != len(tuned.patch_size):
        raise InputError(
            f"The scan is {volume.data.ndim}D; the network was trained on {len(tuned.patch_size)}D images."
        )
    prepared = prepare_image(volume, tuned.preparation)
    if (expected := tuned.method.encoder.in_channels) != len(prepared.data):
        raise InputError(f"The network sees {expected} channels at once, the scan has {len(prepared.data)}.")
    return prepared


def _placed(corners: Tensor, image: PreparedImage, volume: Volume) -> dict[str, float]:
    """Say where a box of prepared voxels (2 dims,) lies, in mm and in the scan's own voxels."""
    dims = len(corners) // 2
    low, high = corners[:dims].numpy() - 0.5, corners[dims:].numpy() - 0.5  # a box ends at its voxels' outer faces
    steps = np.linalg.norm(image.affine[:3, :dims], axis=0)
    ends = np.zeros((2**dims, 4))
    ends[:, :dims] = list(product(*zip(low, high, strict=True)))
    ends[:, 3] = 1
    mm = ends @ image.affine.T  # (2^dims, 4)
    own = (mm @ np.linalg.inv(volume.affine).T)[:, :dims]
    told: dict[str, float] = {}
    for axis, name in zip(range(dims), _AXES, strict=False):
        told[f"centre_mm_{name}"] = float(mm[:, axis].mean())
        told[f"side_mm_{name}"] = float((high - low)[axis] * steps[axis])
        told[f"first_voxel_{name}"] = int(np.clip(np.ceil(own[:, axis].min()), 0, volume.data.shape[axis] - 1))
        told[f"last_voxel_{name}"] = int(np.clip(np.floor(own[:, axis].max()), 0, volume.data.shape[axis] - 1))
    return told


def _each(
    look: Callable[[Scan], list[dict[str, Any]]],
    inputs: Sequence[Path],
    out: Path,
    file: str,
    columns: Sequence[str],
    doing: str,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Look at each scan; one that cannot be used is listed and stops no other."""
    scans, refused = scans_of(inputs)
    rows: list[dict[str, Any]] = []
    for scan in tqdm(scans, desc=doing, unit="scan", disable=None):
        found = or_refused(scan.name, scan.subject, partial(look, scan))
        if isinstance(found, Refused):
            refused.append({"scan": found.scan, "reason": found.reason})
        else:
            rows += found
    tables = pd.DataFrame(rows, columns=columns), pd.DataFrame(refused, columns=["scan", "reason"])
    for name, table in zip((file, "refused.csv"), tables, strict=True):
        write_table(out / name, table)
    return tables
