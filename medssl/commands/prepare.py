"""``medssl prepare``: scans or recordings in, a prepared dataset out."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from medssl.data.calibration import read_intrinsics
from medssl.data.catalog import FREESURFER_LABELS, LAYOUTS, NoScansError, catalog
from medssl.data.preparation import Preparation
from medssl.data.prepare import prepare as prepare_scans
from medssl.data.prepare_recordings import prepare_recordings
from medssl.data.prepared_recordings import RecordingPreparation
from medssl.data.recordings import LAYOUTS as LAYOUTS_OF_RECORDINGS
from medssl.data.recordings import are_recordings, find_sequences
from medssl.data.sequence import VideoSequence
from medssl.data.stereo import Packing, packed_sequence, stereo_sequence
from medssl.errors import InputError
from medssl.labels.lut import label_set as find_label_set
from medssl.labels.protocols import protocol

logger = logging.getLogger(__name__)


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
    kind: Literal["auto", "scans", "recordings"] = "auto",
    recording: RecordingPreparation = RecordingPreparation(),
    intrinsics: str | None = None,
    right: Path | None = None,
    packing: Packing | None = None,
    calibration: Path | None = None,
    jobs: int = -1,
) -> None:
    """Check scans or recordings, bring them to one form, and store them for fast random access.

    Scans get one orientation, spacing and intensity. Recordings (videos, stereo, structure from motion) are undistorted
    and rectified where the cameras are known, cut to the endoscope's field of view, and brought to one size.

    A second run does nothing; a changed file is done again; a scan that cannot be used is listed with the reason.

    Args:
        source: A folder of images, a FreeSurfer or FastSurfer SUBJECTS_DIR or one subject's folder of it, a Decathlon
            or MONAI datalist, a folder of DICOM series; or a video, a folder of videos, a folder of frames, a folder
            of structure from motion, a COLMAP model, a stereo layout.
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
        kind: scans or recordings; auto takes videos and layouts with cameras for recordings, all else for scans, so
            that a folder of frames needs kind recordings.
        recording: What is done to each recording.
        intrinsics: Recordings: fx,fy,cx,cy of the camera in pixels, or a file with them and the lens's distortion,
            where the layout does not tell.
        right: The second camera's video or folder of frames, of a stereo recording.
        packing: Where one video holds both views of a stereo recording: side-by-side or top-bottom.
        calibration: Of the two cameras of a stereo recording, a YAML or JSON file.
        jobs: Processes; -1 is one per core.
    """
    if kind == "recordings" or (kind == "auto" and (right or packing or are_recordings(source))):
        sequences = recordings_of(source, intrinsics, right, packing, calibration)
        print(prepare_recordings(sequences, out, recording, jobs).table())
        return
    file_read = reading if reading in FREESURFER_LABELS else FREESURFER_LABELS[0]
    try:
        scans = catalog(source, images, labels, subject_pattern, file_read)
    except NoScansError as error:
        if kind == "scans":
            raise
        raise InputError(
            f"{source}: holds neither scans nor recordings. Known of scans are:\n{LAYOUTS}\nand of recordings:\n"
            f"{LAYOUTS_OF_RECORDINGS}"
        ) from error
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


def recordings_of(
    source: Path,
    intrinsics: str | None = None,
    right: Path | None = None,
    packing: Packing | None = None,
    calibration: Path | None = None,
) -> Sequence[VideoSequence]:
    """Read recordings, with the cameras that the user tells of.

    Raises:
        InputError: What is told does not fit the recordings, or is not enough.
    """
    if right is not None or packing is not None:
        if calibration is None:
            raise InputError(f"{source}: a stereo recording needs --calibration, a file that tells of both cameras.")
        if right is not None:
            return [stereo_sequence(source, right, calibration)]
        return [packed_sequence(source, packing or "side-by-side", calibration)]
    found = find_sequences(source)
    if intrinsics is None:
        return found
    return _with_intrinsics(found, intrinsics)


def _with_intrinsics(found: Sequence[VideoSequence], intrinsics: str) -> list[VideoSequence]:
    """Give those whose camera is not known the one that the user tells of; those that it does not fit are left out.

    Raises:
        InputError: It fits none.
    """
    fitting, reasons = [], {}
    for one in found:
        try:
            camera = one.camera or read_intrinsics(intrinsics, one.frames.size)
            fitting.append(replace(one, camera=camera))
        except InputError as error:
            reasons[one.name] = str(error)
    if not fitting:
        raise InputError("\n".join(dict.fromkeys(reasons.values())))
    for name, reason in reasons.items():
        logger.warning("Left out: %s: %s", name, reason)
    return fitting
