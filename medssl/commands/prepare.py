"""``medssl prepare``: scans in, a prepared dataset out."""

from pathlib import Path

from medssl.data.catalog import FREESURFER_LABELS, catalog
from medssl.data.preparation import Preparation
from medssl.data.prepare import prepare as prepare_scans
from medssl.labels.lut import label_set as find_label_set
from medssl.labels.protocols import protocol


def prepare(
    source: Path,
    out: Path,
    *,
    images: str | None = None,
    labels: str | None = None,
    subject_pattern: str | None = None,
    reading: str | None = None,
    label_set: str = "freesurfer-27",
    labels_required: bool = False,
    resample_labels: bool = False,
    preparation: Preparation = Preparation(),
    classes: Path | None = None,
    jobs: int = -1,
) -> None:
    """Check scans, bring them to one orientation, spacing and intensity, and store them for fast random access.

    A second run does nothing; a changed file is done again; a scan that cannot be used is listed with the reason.

    Args:
        source: A folder of images, a FreeSurfer or FastSurfer SUBJECTS_DIR or one subject's folder of it, a Decathlon
            or MONAI datalist, a folder of DICOM series.
        out: Folder of the prepared dataset.
        images: Pattern of the images, such as 'scans/*_T1w.nii.gz', where the layout is not found out.
        labels: Pattern of the label maps; its '*' stands for what the images' stands for.
        subject_pattern: Regular expression that finds the subject in an image's path.
        reading: How the numbers in label maps are read: aseg, aparc+aseg, neuromorphometrics, or same (the label
            set's own). By default as the layout implies; without either, labels are left alone.
        label_set: The structures to keep: freesurfer-27, freesurfer-32, or a file in FreeSurfer's LUT format.
        labels_required: Refuse scans without a label map.
        resample_labels: Bring label maps on another grid to their image's.
        preparation: What is done to each image.
        classes: A CSV table of the images' classes, with the columns scan (or subject) and class. Another table later
            changes the classes alone; without one, the dataset has none.
        jobs: Processes; -1 is one per core.
    """
    file_read = reading if reading in FREESURFER_LABELS else FREESURFER_LABELS[0]
    scans = catalog(source, images, labels, subject_pattern, file_read)
    implied = next((scan.protocol for scan in scans if scan.protocol), None)
    name = reading or implied
    report = prepare_scans(
        scans,
        out,
        None if name is None else protocol(name, find_label_set(label_set)),
        preparation,
        labels_required,
        resample_labels,
        jobs,
        classes=classes,
    )
    print(report.table())
    if name is None and any(scan.label for scan in scans):
        print("Label maps were left alone: say how their numbers are to be read with --reading.")
