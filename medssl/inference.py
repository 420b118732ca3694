"""Scans through a trained model: a label map on each scan's own grid, structures' volumes, and what was refused."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from tqdm import tqdm

import medssl
from medssl.data import dicom
from medssl.data.catalog import Scan, catalog
from medssl.data.cohort import Refused, or_refused
from medssl.data.native_grid import coincide, copied, voted
from medssl.data.preparation import prepare_image
from medssl.data.resample import reorient
from medssl.data.volumes import Volume, read_volume, source_files, write_labels
from medssl.errors import InputError
from medssl.evaluation.tables import write_table
from medssl.files import content_hash, read_json, value_hash, write_json
from medssl.labels.bids import write_dataset_description, write_dseg_table
from medssl.labels.lut import LabelSet, write_lut
from medssl.model import Model
from medssl.sliding_window import available_bytes, predict_windows

Space = Literal["native", "prepared"]

_VOLUME_COLUMNS = ["scan", "structure", "id", "voxels", "volume_mm3", "truncated"]
_REFUSED_COLUMNS = ["scan", "reason"]
_LARGE_SHARE = 0.25  # of the free memory: probabilities that take more are kept in a file


class Draw(Protocol):
    """Draws labels over a scan into a picture; ``medssl.report.scans.qc_picture`` is one."""

    def __call__(
        self,
        image: NDArray[Any],
        labels: NDArray[np.integer[Any]],
        label_set: LabelSet,
        path: Path,
        title: str = "",
        *,
        spacing_mm: Sequence[float],
    ) -> None:
        """Draw class indices over an image (X, Y, Z) in orientation RAS, or (X, Y)."""


@dataclass(frozen=True)
class Predicted:
    """What a prediction found.

    Attributes:
        volumes: One row per scan and structure: scan, structure, id, voxels, volume_mm3 (the area in mm2 of a 2D
            image), and truncated, whether the structure touches the border of the field of view.
        refused: One row per scan or input that could not be used: scan, reason.
    """

    volumes: pd.DataFrame
    refused: pd.DataFrame


def predict(
    model: Model,
    inputs: Sequence[Path | Scan],
    out: Path,
    *,
    space: Space = "native",
    overlap: float = 0.5,
    batch_size: int = 1,
    mirror: bool = False,
    largest_component: bool = False,
    precision: torch.dtype = torch.float32,
    resume: bool = False,
    draw: Draw | None = None,
) -> Predicted:
    """Segment scans and write, into ``out``, what a BIDS derivative holds.

    For each scan ``<name>_dseg.nii.gz`` with its ``.json``, and ``<name>_qc.png`` where ``draw`` is given; for all
    ``dseg_lut.txt`` (FreeSurfer's format), ``dseg.tsv``, ``dataset_description.json``, ``volumes.csv`` and
    ``refused.csv``. A scan that cannot be used is listed there and does not stop the others.

    Args:
        model: The network runs on the device that it is on.
        inputs: Files, folders, DICOM folders, a FreeSurfer or FastSurfer SUBJECTS_DIR, or one subject of it; or scans.
        out: Made where it is missing.
        space: "native" is each scan's own grid, "prepared" the cropped grid that the network sees.
        overlap: Least share of a window that its neighbour sees too.
        batch_size: Windows per forward pass.
        mirror: Also look at each window's left-right mirror image, and average: twice the time.
        largest_component: Keep the largest connected part of each structure.
        precision: float32, or the 16-bit type of the forward pass.
        resume: Keep label maps that the same model made of the same scan in the same way.
        draw: Draws the picture that a person checks.

    Raises:
        InputError: There is nothing to segment, two scans cannot be told apart by name, or ``out`` cannot be written.
    """
    scans, refused = scans_of(inputs)
    segmented = partial(
        segment,
        model,
        space=space,
        overlap=overlap,
        batch_size=batch_size,
        mirror=mirror,
        largest_component=largest_component,
        precision=precision,
        scratch=out,
    )
    options = [model.fingerprint(), space, overlap, mirror, largest_component, str(precision)]
    write_lut(out / "dseg_lut.txt", model.label_set)
    write_dseg_table(out / "dseg.tsv", model.label_set)
    write_dataset_description(out, f"Segmentation into {model.label_set.name}")

    def look(scan: Scan) -> list[dict[str, Any]]:
        key = value_hash([*options, content_hash(*source_files(scan.image, scan.series))])
        kept = _kept(out, scan, key, draw is not None) if resume else None
        return kept or _segment_file(scan, model, out, segmented, key, draw)

    rows: list[dict[str, Any]] = []
    for scan in tqdm(scans, desc="Segmenting", unit="scan", disable=None):
        found = or_refused(scan.name, scan.subject, partial(look, scan))
        if isinstance(found, Refused):
            refused.append({"scan": found.scan, "reason": found.reason})
        else:
            rows += found
    result = Predicted(pd.DataFrame(rows, columns=_VOLUME_COLUMNS), pd.DataFrame(refused, columns=_REFUSED_COLUMNS))
    for name, table in (("volumes.csv", result.volumes), ("refused.csv", result.refused)):
        write_table(out / name, table)
    return result


def segment(
    model: Model,
    volume: Volume,
    *,
    space: Space = "native",
    overlap: float = 0.5,
    batch_size: int = 1,
    mirror: bool = False,
    largest_component: bool = False,
    precision: torch.dtype = torch.float32,
    scratch: Path | None = None,
) -> tuple[Volume, Volume]:
    """Segment one scan; returns the image and its class indices (uint8), both on the grid of ``space``.

    Args:
        model: The network runs on the device that it is on. A 2D one segments a volume slice by slice.
        volume: As read.
        space: See ``predict``, as the other arguments.
        overlap: Least share of a window that its neighbour sees too.
        batch_size: Windows per forward pass.
        mirror: Also look at each window's left-right mirror image.
        largest_component: Keep the largest connected part of each structure.
        precision: float32, or the 16-bit type of the forward pass.
        scratch: Folder for probabilities that memory does not hold; by default the system's.

    Raises:
        InputError: The scan does not fit the model or its preparation, or the memory does not suffice.
    """
    dims, classes = volume.data.ndim, model.label_set.classes
    if len(model.patch_size) > dims:
        raise InputError(f"The scan is {dims}D; the model was trained on {len(model.patch_size)}D images.")
    if mirror and dims == 2:
        raise InputError("A 2D image does not say where left is: segment it without mirroring.")
    prepared = prepare_image(volume, model.preparation)
    if (expected := model.network.encoder.in_channels) != len(prepared.data):
        raise InputError(f"The model sees {expected} channels at once, the scan has {len(prepared.data)}.")
    windows = partial(
        predict_windows,
        model.network,
        torch.from_numpy(prepared.data),
        model.patch_size,
        classes,
        overlap=overlap,
        batch_size=batch_size,
        mirrored=model.label_set.mirrored if mirror else None,
        precision=precision,
    )
    if space == "prepared":
        image, labels = Volume(prepared.data[0], prepared.affine), windows().numpy()
    elif coincide(prepared.affine, volume):
        image, labels = volume, copied(windows().numpy(), prepared.affine, volume)
    else:
        with _probabilities((classes, *prepared.data.shape[1:]), scratch) as probabilities:
            windows(probabilities=probabilities)
            image, labels = volume, voted(probabilities.numpy(), prepared.affine, volume)
    if largest_component:
        keep_largest_components(labels)
    return image, Volume(labels, image.affine, image.path)


def keep_largest_components(labels: NDArray[np.uint8]) -> None:
    """Turn all but the largest connected part (voxels that share a face) of each class into background, in place."""
    for index, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        mask = labels[box] == index
        parts, count = ndimage.label(mask)
        if count > 1:
            sizes = np.bincount(parts.ravel())
            labels[box][mask & (parts != sizes[1:].argmax() + 1)] = 0


def structure_volumes(labels: Volume, label_set: LabelSet) -> pd.DataFrame:
    """Measure each structure: structure, id, voxels, volume_mm3 (area in mm2 in 2D), truncated.

    ``truncated`` says that the structure touches the border of the field of view, so that a part may be missing.
    """
    data, dims = labels.data, labels.data.ndim
    voxels = np.bincount(data.ravel(), minlength=label_set.classes)
    voxel_mm = float(np.sqrt(np.linalg.det(labels.affine[:3, :dims].T @ labels.affine[:3, :dims])))  # mm3, or mm2
    sides = [data.take([0, -1], axis=axis).ravel() for axis in range(dims) if data.shape[axis] > 1]
    touching = np.bincount(np.concatenate(sides), minlength=label_set.classes) > 0
    return pd.DataFrame(
        {
            "structure": label_set.names,
            "id": label_set.ids,
            "voxels": voxels[1:],
            "volume_mm3": voxels[1:] * voxel_mm,
            "truncated": touching[1:],
        }
    )


class _Segment(Protocol):
    def __call__(self, volume: Volume) -> tuple[Volume, Volume]: ...


def _segment_file(
    scan: Scan, model: Model, out: Path, segmented: _Segment, key: str, draw: Draw | None
) -> list[dict[str, Any]]:
    """Segment one scan and write its files; returns its rows of volumes."""
    image, labels = segmented(read_volume(scan.image, scan.series))
    path, sidecar, picture = _outputs(out, scan)
    write_labels(path, model.label_set.to_ids(labels.data), labels)
    volumes = structure_volumes(labels, model.label_set)
    volumes.insert(0, "scan", scan.name)
    rows: list[dict[str, Any]] = volumes.to_dict("records")
    if draw is not None:
        flat = image.data.ndim == 2  # drawn as a picture is, whatever way it lies in space
        shown, over = (image, labels) if flat else (reorient(image), reorient(labels))
        draw(shown.data, over.data, model.label_set, picture, scan.name, spacing_mm=shown.spacing_mm)
    told = {"medssl": medssl.__version__, "network": model.network_name, "run": model.run, "key": key, "volumes": rows}
    write_json(sidecar, told)  # last: it says that the scan is done
    return rows


def _kept(out: Path, scan: Scan, key: str, drawn: bool) -> list[dict[str, Any]] | None:
    """Return the volumes of a label map that was made before in the same way, if there is one (and its picture)."""
    path, sidecar, picture = _outputs(out, scan)
    if not all(file.is_file() for file in (path, sidecar, picture)[: 3 if drawn else 2]):
        return None
    told = read_json(sidecar)
    return told["volumes"] if told.get("key") == key else None


def _outputs(out: Path, scan: Scan) -> tuple[Path, Path, Path]:
    """Where a scan's label map, what is told of it, and its picture go."""
    return out / f"{scan.name}_dseg.nii.gz", out / f"{scan.name}_dseg.json", out / f"{scan.name}_qc.png"


def scans_of(inputs: Sequence[Path | Scan]) -> tuple[list[Scan], list[dict[str, Any]]]:
    """List the scans of all inputs, each once and under a name of its own, and the inputs that hold none."""
    found: dict[tuple[Path, str | None], Scan] = {}
    refused: list[dict[str, Any]] = []
    for source in inputs:
        if isinstance(source, Scan):
            found[source.image.resolve(), source.series] = source
            continue
        try:
            found |= {(scan.image.resolve(), scan.series): scan for scan in catalog(source)}
        except InputError as error:
            name = dicom.public_name(source) if source.is_dir() else source.name
            refused.append({"scan": name, "reason": str(error)})
    if not found and not refused:
        raise InputError("There are no scans to look at: give files, folders or a SUBJECTS_DIR.")
    return _told_apart(list(found.values())), refused


def _told_apart(scans: list[Scan]) -> list[Scan]:
    """Put the names of parent folders (of a DICOM series, its hash) before names that occur twice."""
    deepest = max((len(scan.image.parts) for scan in scans), default=0)
    originals = scans
    for depth in range(deepest + 1):
        counts = Counter(scan.name for scan in scans)
        if all(count == 1 for count in counts.values()):
            return scans
        scans = [
            _longer(original, depth + 1) if counts[scan.name] > 1 else scan
            for original, scan in zip(originals, scans, strict=True)
        ]
    raise InputError(
        f"Several scans are called {counts.most_common(1)[0][0]}; rename them, or segment them one by one."
    )


def _longer(scan: Scan, depth: int) -> Scan:
    if scan.series is not None:
        return replace(scan, name=f"{scan.name}_{scan.series}")
    return replace(scan, name="_".join([*scan.image.resolve().parent.parts[1:][-depth:], scan.name]))


@contextmanager
def _probabilities(shape: tuple[int, ...], scratch: Path | None) -> Iterator[Tensor]:
    """Yield half-precision room for probabilities, in memory, or in a file where they would take much of it."""
    if 2 * np.prod(shape, dtype=np.int64) <= _LARGE_SHARE * available_bytes(torch.device("cpu")):
        yield torch.zeros(shape, dtype=torch.float16)
        return
    with TemporaryDirectory(dir=scratch) as folder:
        yield torch.from_numpy(np.memmap(Path(folder) / "probabilities", np.float16, "w+", shape=shape))
