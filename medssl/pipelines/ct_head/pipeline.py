"""Where in the brain is a head CT darker than on the other side, and where do lesion masks lie? The stroke example.

The question of Barber et al., "Validity and reliability of a quantitative computed tomography score in predicting
outcome of hyperacute stroke before thrombolytic therapy", Lancet 2000, which compares regions with the other side.
"""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from medssl.data.catalog import Scan, catalog
from medssl.data.cohort import Refused, or_refused
from medssl.data.prepare import write_refused
from medssl.errors import InputError
from medssl.evaluation.regions import MeasuredScan, masks_by_scan, measure_scan, most_asymmetric
from medssl.evaluation.tables import write_table
from medssl.labels.atlas import Deformable
from medssl.labels.fusion import Fusion
from medssl.labels.head_ct import Contrast, HeadCTLabeller, label_heads
from medssl.labels.lut import LabelSet, write_lut
from medssl.labels.lut import label_set as find_label_set
from medssl.report.page import Section, html_report
from medssl.report.regions import asymmetry_picture
from medssl.report.scans import qc_picture
from medssl.stages import continued_run
from medssl.tracking import hashed, open_tracker, ui_command

_SHOWN_HU = (0, 80)

_CAUTION = (
    "Regions were carried over from atlases and may lie some millimetres off; look at the pictures before the numbers. "
    "A region is darker than its twin where an infarct is, and also where it holds more fluid (see fluid_share), where "
    "the head lies askew, and by chance. This is a measurement, not a diagnosis."
)


def run(
    scans: Path,
    atlases: Path,
    out: Path,
    *,
    scan_images: str | None = None,
    atlas_images: str | None = None,
    atlas_labels: str | None = None,
    atlas_reading: str = "neuromorphometrics",
    label_set: str = "freesurfer-27",
    contrast: Contrast = "mri",
    deformable: Deformable | None = None,
    fusion: Fusion = "majority",
    working_spacing_mm: float = 2.0,
    predicted_lesions: Path | None = None,
    reference_lesions: Path | None = None,
    jobs: int = -1,
) -> pd.DataFrame:
    """Find the brain's regions in head CT by registering atlases, and score each region.

    Started again with the same arguments it registers nothing twice.

    Args:
        scans: Head CT in Hounsfield numbers, with their skulls, in any layout that ``medssl prepare`` takes.
        atlases: A few labelled brains, three to five; MRI without skulls, or CT with them.
        out: Folder of all results: report.html, regions.csv, lesions.csv, the label maps under regions, pictures, and
            the MLflow store.
        scan_images: Pattern of the images in ``scans``, where its layout is not one that is found out.
        atlas_images: Pattern of the atlases' images.
        atlas_labels: Pattern of their label maps.
        atlas_reading: How the numbers in these are read: neuromorphometrics, aseg, aparc+aseg, or same for the label
            set's own.
        label_set: The regions: freesurfer-27, freesurfer-32, or a file in FreeSurfer's LUT format. Names say which are
            left and right twins.
        contrast: Of the atlases: mri or ct.
        deformable: What follows the affine registration, of atlases that are CT: demons, bspline, or null.
        fusion: How the atlases' labels become one: majority, local or staple.
        working_spacing_mm: Voxel size at which images are registered.
        predicted_lesions: Folder of lesion masks, such as a model's, called like the scans.
        reference_lesions: Folder of lesion masks that are trusted more; where both are, their agreement in each region.
        jobs: Processes; -1 is one per core.

    Returns:
        The table of all scans' regions.

    Raises:
        InputError: An argument cannot be used, or no scan can.
    """
    regions = find_label_set(label_set)
    heads = catalog(scans, scan_images)
    names = [head.name for head in heads]
    predicted = masks_by_scan(predicted_lesions, names) if predicted_lesions else {}
    reference = masks_by_scan(reference_lesions, names) if reference_lesions else {}
    labelled = catalog(atlases, atlas_images, atlas_labels)
    labeller = HeadCTLabeller.of(labelled, regions, atlas_reading, contrast, fusion, deformable, working_spacing_mm)
    found: dict[str, Path | MeasuredScan | Refused] = {**label_heads(heads, labeller, out / "regions", jobs)}
    write_lut(out / "regions" / "regions_LUT.txt", regions)

    measured: dict[Scan, MeasuredScan] = {}
    for head in heads:
        place, masks = found[head.name], (predicted.get(head.name), reference.get(head.name))
        if isinstance(place, Path):
            work = partial(measure_scan, head.image, place, regions, head.series, *masks)
            place = found[head.name] = or_refused(head.name, head.subject, work)
        if isinstance(place, MeasuredScan):
            measured[head] = place
    refused = [one for one in found.values() if isinstance(one, Refused)]
    write_refused(out / "refused.csv", refused)
    if not measured:
        reasons = "".join(f"\n  {one.scan}: {one.reason}" for one in refused[:5])
        raise InputError(f"{out}: no regions were measured in any of {len(heads)} scans (see refused.csv):{reasons}")

    sections = [section for head, one in measured.items() for section in _drawn(one, hashed(head.name), regions, out)]
    tables = {"regions": {head: one.table for head, one in measured.items()}}
    if lesions := {head: one.lesions for head, one in measured.items() if one.lesions is not None}:
        tables["lesions"] = lesions
    joined = {
        name: pd.concat([table.assign(subject=head.subject, scan=head.name) for head, table in of_scans.items()])
        for name, of_scans in tables.items()
    }
    counted = f"{len(measured)} scans measured, {len(refused)} refused, {len(labeller.atlases)} atlases ({contrast})."
    first = Section("Read this first", f"{_CAUTION}\n\n{counted}")
    html_report("Regions of head CT", [first, *sections], out / "report.html")

    tracker = open_tracker(out, "ct_head")
    with continued_run(tracker, out / "runs.json", "ct_head") as tracked:
        tracked.log_params(
            {
                "scans": len(heads),
                "atlases": len(labeller.atlases),
                "contrast": contrast,
                "deformable": deformable,
                "fusion": fusion,
                "label_set": regions.name,
            }
        )
        for name, table in joined.items():
            write_table(out / f"{name}.csv", table)
            tracked.log_table(table.assign(**{who: table[who].map(hashed) for who in ("subject", "scan")}), name)
        tracked.log_metrics({"scans/measured": len(measured), "scans/refused": len(refused)}, 0)
        tracked.log_folder(out / "pictures", "pictures")
        tracked.log_file(out / "report.html")
    for one in refused:
        print(f"  refused: {one.scan}: {one.reason}")
    print(f"{counted}\nReport: {out / 'report.html'}\nMLflow: {ui_command(out)}")
    return joined["regions"]


def _drawn(measured: MeasuredScan, name: str, regions: LabelSet, out: Path) -> list[Section]:
    """Draw a scan's regions and their densities; returns its parts of the page."""
    scan, pictures = measured.scan, [out / "pictures" / f"{name}_{kind}.png" for kind in ("regions", "asymmetry")]
    clipped = np.clip(scan.data, *_SHOWN_HU)
    qc_picture(clipped, measured.regions.data, regions, pictures[0], name, spacing_mm=scan.spacing_mm)
    asymmetry_picture(measured.table, pictures[1], name)
    sections = [
        Section(f"Scan {name}", "Regions that are darker than their twins.", most_asymmetric(measured.table), pictures)
    ]
    if (lesions := measured.lesions) is not None:
        hit = lesions.filter(regex="^(predicted|reference)_mm3$").sum(axis=1) > 0
        sections.append(Section(f"Scan {name}: lesions", "Regions that hold any.", lesions[hit]))
    return sections
