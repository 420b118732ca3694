"""Weak labels for a cohort, in parallel: from FreeSurfer's own, or from a few labelled scans as atlases.

Each scan's labels are kept under a key made from its content and from everything that decides them. So a second run
does nothing, a changed file is done anew, and a run that was stopped goes on where it was. A scan that cannot be
labelled is listed with the reason and never stops the others.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from medssl.data.catalog import Scan
from medssl.data.cohort import Refused, each, or_refused
from medssl.errors import InputError
from medssl.files import read_json, write_aside, write_json
from medssl.labels.atlas import Deformable
from medssl.labels.bids import write_dataset_description, write_dseg_table
from medssl.labels.fusion import Fusion
from medssl.labels.labellers import AtlasLabeller, FreeSurferLabeller, Labeller
from medssl.labels.layouts import Layout, Place
from medssl.labels.lut import LABEL_SETS, LabelSet, write_lut


@dataclass(frozen=True)
class WeakLabels:
    """What became of every scan.

    Attributes:
        out: The folder with the labels.
        made: The scans that were labelled now.
        kept: The scans that had been labelled before.
        refused: The scans that cannot be labelled.
    """

    out: Path
    made: tuple[str, ...]
    kept: tuple[str, ...]
    refused: tuple[Refused, ...]

    def table(self) -> str:
        """The report as text: how many scans were labelled, and every refused one with the reason."""
        lines = [
            f"{self.out}: {len(self.made) + len(self.kept)} scans have weak labels",
            f"  labelled now     {len(self.made):5d}",
            f"  labelled before  {len(self.kept):5d}",
            f"  refused          {len(self.refused):5d}",
        ]
        return "\n".join([*lines, *(f"  {one.scan}: {one.reason}" for one in self.refused)])


def weak_labels_from_freesurfer(
    scans: Sequence[Scan],
    out: Path,
    label_set: LabelSet = LABEL_SETS["freesurfer-27"],
    reading: str | None = None,
    layout: Layout = "bids",
    jobs: int = -1,
    progress: bool | None = None,
) -> WeakLabels:
    """Turn the labels of FreeSurfer or FastSurfer into a folder of one label set's labels; see ``label_cohort``.

    Args:
        scans: What ``catalog`` found in a SUBJECTS_DIR.
        out: The folder of the labels.
        label_set: The structures to keep.
        reading: The protocol of the numbers; by default as the layout implies.
        layout: How files are named, see ``Place.of``.
        jobs: Processes; -1 is one per core.
        progress: A bar; by default on a terminal only.

    Raises:
        InputError: No scan can be labelled, or the disk is full (what was done is kept).
    """
    return label_cohort(scans, out, FreeSurferLabeller(label_set, reading), layout, jobs, progress)


def weak_labels_from_atlases(
    targets: Sequence[Scan],
    atlases: Sequence[Scan],
    out: Path,
    label_set: LabelSet = LABEL_SETS["freesurfer-27"],
    reading: str = "neuromorphometrics",
    fusion: Fusion = "majority",
    deformable: Deformable | None = "demons",
    working_spacing_mm: float = 2.0,
    layout: Layout = "bids",
    jobs: int = -1,
    progress: bool | None = None,
) -> WeakLabels:
    """Label scans by registering a few labelled ones to each; see ``label_cohort``.

    An atlas is not used for scans of its own subject, so targets may be among the atlases (leave one out).

    Args:
        targets: The scans to label.
        atlases: Scans with labels; three to five are good.
        out: The folder of the labels.
        label_set: The structures.
        reading: The protocol of the numbers in the atlases' labels.
        fusion: How the atlases' labels become one: "majority", "local" or "staple".
        deformable: What follows the affine registration: "demons", "bspline" or nothing.
        working_spacing_mm: Voxel size at which images are registered; labels are always on the target's own grid.
        layout: How files are named, see ``Place.of``.
        jobs: Processes; -1 is one per core.
        progress: A bar; by default on a terminal only.

    Raises:
        InputError: An atlas cannot be used, no scan can be labelled, or the disk is full (what was done is kept).
    """
    labeller = AtlasLabeller.load(atlases, label_set, reading, fusion, deformable, working_spacing_mm)
    return label_cohort(targets, out, labeller, layout, jobs, progress)


def label_cohort(
    scans: Sequence[Scan],
    out: Path,
    labeller: Labeller,
    layout: Layout = "bids",
    jobs: int = -1,
    progress: bool | None = None,
) -> WeakLabels:
    """Label every scan that can be, in parallel, and describe the folder.

    Beside the scans' files ``out`` holds ``weak_labels.csv`` (what became of each scan), ``volumes.csv`` (voxels and
    mm^3 per structure, with FreeSurfer's own volumes where it left them), ``dseg.tsv``, a FreeSurfer colour table and
    ``dataset_description.json``. Numbers in the label files are those of the label set. Labels of other scans that
    ``out`` holds are left alone.

    Raises:
        InputError: No scan can be labelled, the labels would overwrite the scans, or the disk is full (what was done
            is kept).
    """
    scans = sorted(scans, key=lambda scan: scan.name)
    places = {scan.name: Place.of(out, scan.name, layout) for scan in scans}
    _refuse_overwriting(scans, places)
    arguments = [(labeller, scan, places[scan.name]) for scan in scans]
    results = each(_label_one, arguments, "labelling", jobs, progress)
    refused = tuple(one for one in results if isinstance(one, Refused))
    done = {scan.name: one for scan, one in zip(scans, results, strict=True) if not isinstance(one, Refused)}
    _write_table(out, scans, results, places)
    if not done:
        first = "".join(f"\n  {one.scan}: {one.reason}" for one in refused[:5])
        raise InputError(
            f"{out}: none of the {len(scans)} scans can be labelled (weak_labels.csv lists them all):{first}"
        )
    _write_volumes(out, {name: places[name] for name in done}, labeller.label_set)
    write_dataset_description(out, "Weak labels")
    write_dseg_table(out / "dseg.tsv", labeller.label_set)
    write_lut(out / "labels_LUT.txt", labeller.label_set)
    made = tuple(name for name, status in done.items() if status == "made")
    return WeakLabels(out, made, tuple(name for name in done if name not in made), refused)


def _label_one(labeller: Labeller, scan: Scan, place: Place) -> Literal["made", "kept"] | Refused:
    """Label one scan; what is wrong with the scan is returned, what is wrong with the disk is raised."""
    key = or_refused(scan.name, scan.subject, lambda: labeller.key(scan))
    if isinstance(key, Refused):
        return key
    if not place.record.is_file() and (place.labels.exists() or place.image.exists()):
        reason = f"{place.labels}: something lies there that is not of this command's making. Choose another --out."
        return Refused(scan.name, scan.subject, reason)
    if place.labels.is_file() and place.record.is_file() and read_json(place.record).get("key") == key:
        return "kept"
    labelled = or_refused(scan.name, scan.subject, lambda: labeller.label(scan))
    place.remove()  # what may lie there was made from other content
    if isinstance(labelled, Refused):
        return labelled
    write_json(place.record, {"Manual": False})  # first, to mark what follows as ours; with its key, the scan is done
    place.write(labelled.image, labeller.label_set.to_ids(labelled.classes))
    voxels = np.bincount(labelled.classes.ravel(), minlength=labeller.label_set.classes)[1:]
    record = {
        "Manual": False,
        "key": key,
        "voxels": dict(zip(map(str, labeller.label_set.ids), voxels.tolist(), strict=True)),
        "voxel_mm3": float(np.prod(labelled.image.spacing_mm)),
        **labelled.details,
    }
    write_json(place.record, record)
    return "made"


def _refuse_overwriting(scans: Sequence[Scan], places: Mapping[str, Place]) -> None:
    """Refuse to write onto the scans themselves, or two scans' labels into one file."""
    written = Counter(place.labels for place in places.values())
    for scan in scans:
        place = places[scan.name]
        theirs = {path.resolve() for path in (scan.image, scan.label) if path is not None}
        if theirs & {place.image.resolve(), place.labels.resolve()}:
            raise InputError(
                f"{place.labels.parent}: holds the scans themselves, and labels would overwrite them. "
                "Choose another --out."
            )
        if written[place.labels] > 1:
            raise InputError(f"{place.labels}: would hold the labels of more than one scan. Rename '{scan.name}'.")


def _write_table(
    out: Path, scans: Sequence[Scan], results: Sequence[str | Refused], places: Mapping[str, Place]
) -> None:
    rows = []
    for scan, result in zip(scans, results, strict=True):
        if isinstance(result, Refused):
            rows.append((scan.name, scan.subject, "refused", "", result.reason))
        else:
            labels = places[scan.name].labels.relative_to(out).as_posix()
            rows.append((scan.name, scan.subject, result, labels, ""))
    with write_aside(out / "weak_labels.csv") as aside:
        pd.DataFrame(rows, columns=["scan", "subject", "status", "labels", "reason"]).to_csv(aside, index=False)


def _write_volumes(out: Path, places: Mapping[str, Place], label_set: LabelSet) -> None:
    """Voxels and mm^3 per scan and structure; FreeSurfer's own mm^3, corrected for partial volume, where known."""
    rows = []
    for scan, place in places.items():
        record = read_json(place.record)
        stats = record.get("aseg_stats_mm3", {})
        for structure in label_set.structures:
            id_ = str(structure.id)
            voxels = record["voxels"][id_]
            rows.append((scan, structure.name, voxels, voxels * record["voxel_mm3"], stats.get(id_)))
    columns = ["scan", "structure", "voxels", "volume_mm3", "freesurfer_mm3"]
    with write_aside(out / "volumes.csv") as aside:
        pd.DataFrame(rows, columns=columns).to_csv(aside, index=False)
