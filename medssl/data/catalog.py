"""Which files belong to which scan, whatever the folder's layout: one list of scans, with their subjects and labels."""

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medssl.data import dicom
from medssl.data.formats import stem_of, suffix_of
from medssl.data.globs import Glob
from medssl.data.volumes import VOLUME_SUFFIXES
from medssl.errors import InputError
from medssl.files import read_json

LAYOUTS = """\
  - images and labels told apart by patterns: images/*.nii.gz + labels/*.nii.gz, *_T1w.nii.gz + *_labels.nii.gz (also in
    sub-folders, as in BIDS), imagesTr/*_0000.nii.gz + labelsTr/*.nii.gz, or your own --images and --labels
  - a FreeSurfer or FastSurfer SUBJECTS_DIR, or one subject's folder of it: an image <id>/mri/{norm,brain,brainmask,T1,
    orig_nu,orig}.mgz; labels aparc+aseg.mgz or aparc.DKTatlas+aseg.{mapped,deep}.mgz, aseg.mgz or aseg.auto_noCCseg.mgz
  - a Decathlon or MONAI datalist: a .json file, or a folder with dataset.json
  - DICOM: one series per sub-folder
  - images alone: files that end in """ + ", ".join(VOLUME_SUFFIXES)

FREESURFER_IMAGES = ("norm.mgz", "brain.mgz", "brainmask.mgz", "T1.mgz", "orig_nu.mgz", "orig.mgz")
FREESURFER_LABELS = ("aparc+aseg", "aseg")
# Each labelling's file, and what FastSurfer leaves where its surfaces were not made (its OUTPUT_FILES.md), best first.
_LABEL_FILES = {
    "aparc+aseg": ("aparc+aseg.mgz", "aparc.DKTatlas+aseg.mapped.mgz", "aparc.DKTatlas+aseg.deep.mgz"),
    "aseg": ("aseg.mgz", "aseg.auto_noCCseg.mgz"),
}
PATTERNS = (
    ("images/*", "labels/*"),
    ("imagesTr/*_0000.nii.gz", "labelsTr/*.nii.gz"),
    ("**/*_T1w.nii.gz", "**/*_labels.nii.gz"),
    ("**/*_T1w.nii.gz", "**/*_dseg.nii.gz"),
    ("**/*_T1w.nii", "**/*_labels.nii"),
)
_LABEL_NAME = re.compile(r"(^|[_-])(labels?|d?seg|mask)$", re.IGNORECASE)
_BIDS_SUBJECT = re.compile(r"(sub-[A-Za-z0-9]+)(_|$)")
_DATALIST_PARTS = ("training", "validation", "test", "testing")

logger = logging.getLogger(__name__)


class NoScansError(InputError):
    """A folder has none of the known layouts of scans."""


@dataclass(frozen=True)
class Scan:
    """One image, whom it shows, and the label map drawn on it.

    Attributes:
        name: Unique in the catalog; outputs are named after it.
        subject: Scans of one subject stay together in splits.
        image: The file, or the folder of a DICOM series.
        label: The label map, where there is one.
        protocol: The labeller that the layout implies ("aseg", "aparc+aseg"), where it implies one.
        series: Which series of a DICOM folder.
        part: The list of a datalist that names the scan ("training", "validation", "test").
        unlabelled: Why there is no label map, where the layout tells.
    """

    name: str
    subject: str
    image: Path
    label: Path | None = None
    protocol: str | None = None
    series: str | None = None
    part: str | None = None
    unlabelled: str = ""


def catalog(
    source: Path,
    images: str | None = None,
    labels: str | None = None,
    subject_pattern: str | None = None,
    freesurfer_labels: str = "aparc+aseg",
) -> list[Scan]:
    """List the scans of a source, in order of name.

    The layout is found out: see ``LAYOUTS``. A scan's subject is the folder's name in a SUBJECTS_DIR, a hash in DICOM,
    ``sub-XX`` where the name begins so (BIDS), and otherwise the scan's own name.

    Args:
        source: A folder, a datalist, or one image.
        images: Pattern of the images relative to ``source``; then the layout is not looked for.
        labels: Pattern of the label maps; its wildcards stand for what the image's wildcards stood for.
        subject_pattern: Regular expression that finds the subject in an image's path relative to ``source`` (its first
            group, or all of it). DICOM subjects stay hashes.
        freesurfer_labels: Which labels of a SUBJECTS_DIR are used, "aparc+aseg" or "aseg".

    Raises:
        InputError: There is nothing that is known, two scans have one name, or a pattern does not fit.
    """
    if not source.exists():
        raise InputError(f"{source}: no such file or folder.")
    if freesurfer_labels not in FREESURFER_LABELS:
        raise InputError(f"FreeSurfer labels are one of {', '.join(FREESURFER_LABELS)}; got '{freesurfer_labels}'.")
    if labels is not None and images is None:
        raise InputError(f"The labels' pattern '{labels}' needs the images' pattern as well: give both.")
    scans = _found(source, images, labels, freesurfer_labels)
    if subject_pattern is not None:
        scans = [_with_subject(scan, source, subject_pattern) for scan in scans]
    _refuse_same_names(scans)
    return sorted(scans, key=lambda scan: scan.name)


def _found(source: Path, images: str | None, labels: str | None, freesurfer_labels: str) -> list[Scan]:
    if source.is_file():
        return from_datalist(source) if source.suffix == ".json" else [_alone(source)]
    if images is not None:
        scans = from_patterns(source, images, labels)
        if not scans:
            raise InputError(f"{source}: no image matches '{images}'. Patterns are relative to this folder.")
        if labels is not None:
            _refuse_unpaired(source, scans, images, labels)
        return scans
    if (source / "dataset.json").is_file() and "training" in read_json(source / "dataset.json"):
        return from_datalist(source / "dataset.json")
    if scans := from_subjects_dir(source, freesurfer_labels):
        return scans
    found = [from_patterns(source, *patterns) for patterns in PATTERNS]
    labelled = [scans for scans in found if any(scan.label for scan in scans)]
    # Without labels nothing tells which pattern is meant: the one that leaves the fewest images out.
    for scans in (*labelled, max([*found, _images_alone(source)], key=len), from_dicom(source)):
        if scans:
            _tell_left_out(source, scans)
            return scans
    raise NoScansError(f"{source}: holds no scans. Known are:\n{LAYOUTS}")


def from_patterns(root: Path, images: str, labels: str | None) -> list[Scan]:
    """List the images that match a pattern, each with the label map whose pattern has the same wildcards filled in.

    Raises:
        InputError: The patterns have different numbers of wildcards.
    """
    image_glob = Glob(images)
    label_glob = None if labels is None else Glob(labels)
    if label_glob is not None and label_glob.wildcards != image_glob.wildcards:
        raise InputError(
            f"The patterns '{images}' and '{labels}' must have the same number of wildcards: what they stand for pairs "
            "an image with its labels."
        )
    scans = []
    for path, filled in image_glob.matches(root):
        if suffix_of(path) not in VOLUME_SUFFIXES or (label_glob and label_glob.holds(path.relative_to(root))):
            continue
        label = root / label_glob.fill(filled) if label_glob else None
        exists = label is not None and label.is_file()
        name = image_glob.name(filled) or path.name
        name = stem_of(Path(name)) if suffix_of(Path(name)) in VOLUME_SUFFIXES else name
        missing = f"there is no {label.relative_to(root)}" if label is not None and not exists else ""
        scans.append(Scan(name, _subject(name), path, label if exists else None, unlabelled=missing))
    return scans


def _refuse_unpaired(root: Path, scans: list[Scan], images: str, labels: str) -> None:
    others = [path for path, _ in Glob(labels).matches(root)]
    if others and not any(scan.label for scan in scans):
        raise InputError(
            f"{root}: {len(scans)} images match '{images}' and {len(others)} files match '{labels}', but none belong "
            f"together: for {scans[0].image.name} {scans[0].unlabelled}, only, for example, "
            f"{others[0].relative_to(root)}. Mend the names or the patterns."
        )


def from_subjects_dir(root: Path, labels: str) -> list[Scan]:
    """List the subjects of a FreeSurfer or FastSurfer SUBJECTS_DIR, or the one whose own folder ``root`` is.

    Average subjects are none, unless one is given by itself. Skull-stripped images go first. A subject that has no
    image is listed with the first name, to be refused.
    """
    subjects = [mri.parent for mri in sorted(root.glob("*/mri")) if not mri.parent.name.startswith("fsaverage")]
    found = {folder: _freesurfer_subject(folder, labels) for folder in subjects}
    if not any(found.values()):
        alone = _freesurfer_subject(root, labels)
        return [] if alone is None else [alone]
    return [
        scan or Scan(folder.name, folder.name, folder / "mri" / FREESURFER_IMAGES[0], None, labels)
        for folder, scan in found.items()
    ]


def _freesurfer_subject(folder: Path, labels: str) -> Scan | None:
    """The scan of one subject's folder, or nothing where its ``mri`` holds none of FreeSurfer's and FastSurfer's."""
    mri, subject = folder / "mri", folder.name if folder.name not in ("", "..") else folder.resolve().name
    present = {path.name for path in mri.glob("*.mgz")}
    found = {kind: next((name for name in names if name in present), None) for kind, names in _LABEL_FILES.items()}
    if not present & set(FREESURFER_IMAGES) and not any(found.values()):
        return None
    image = next((name for name in FREESURFER_IMAGES if name in present), FREESURFER_IMAGES[0])
    label, other = found[labels], next((name for name in found.values() if name), None)
    missing = f"there is no {labels}.mgz in {subject}/mri" + (f", but {other}" if other else "")
    path = None if label is None else mri / label
    return Scan(subject, subject, mri / image, path, labels, unlabelled="" if label else missing)


def from_datalist(path: Path) -> list[Scan]:
    """List the scans of a Decathlon or MONAI datalist: lists of {"image": ..., "label": ...}, or of image names.

    Scans are called after their files, and where two files have one name (case1/t1.nii.gz, case2/t1.nii.gz) all of them
    after their folders too (case1_t1).

    Raises:
        InputError: It is no datalist, or names a file outside its folder.
    """
    stored = read_json(path)
    lists = {part: stored[part] for part in _DATALIST_PARTS if part in stored} if isinstance(stored, dict) else {}
    if not lists or not all(isinstance(entries, list) for entries in lists.values()):
        raise InputError(
            f'{path}: is no datalist; expected {{"training": [{{"image": "...", "label": "..."}}], "test": [...]}}.'
        )
    scans = [
        _from_entry(path, f"{part}[{i}]", "test" if part == "testing" else part, entry)
        for part, entries in lists.items()
        for i, entry in enumerate(entries)
    ]
    alike = len({scan.name for scan in scans}) < len(scans)
    return [_named_by_path(scan, path.parent) for scan in scans] if alike else scans


def from_dicom(root: Path) -> list[Scan]:
    """List the DICOM series under ``root``, ``<subject's hash>_<folder>``; of several in a folder, with a hash."""
    found = dicom.find_series(root)
    names = [f"{one.subject}_{dicom.public_name(one.folder, root)}" for one in found]
    return [
        Scan(name if names.count(name) == 1 else f"{name}_{one.key}", one.subject, one.folder, series=one.key)
        for name, one in zip(names, found, strict=True)
    ]


def _images_alone(root: Path) -> list[Scan]:
    files = sorted(path for path in root.iterdir() if suffix_of(path) in VOLUME_SUFFIXES and path.is_file())
    return [_alone(path) for path in files if not path.name.startswith(".") and not _LABEL_NAME.search(stem_of(path))]


def _tell_left_out(root: Path, scans: Sequence[Scan]) -> None:
    """Warn of images that lie beside scans of a layout and are not named as it wants."""
    left_out = sorted({scan.image for scan in _images_alone(root)} - {scan.image for scan in scans})
    if left_out:
        names = ", ".join(path.name for path in left_out)
        logger.warning(
            "%s: %d images are not named as the %d scans that are used, and are left out: %s. To use them, say which "
            "files are images with --images, or put them into a folder of their own.",
            root,
            len(left_out),
            len(scans),
            names,
        )


def _alone(path: Path) -> Scan:
    return Scan(stem_of(path), _subject(stem_of(path)), path)


def _from_entry(datalist: Path, where: str, part: str, entry: Any) -> Scan:
    fields = {"image": entry} if isinstance(entry, str) else entry
    if not isinstance(fields, dict) or not isinstance(fields.get("image"), str):
        raise InputError(f"{datalist}: {where} names no single image; got {str(entry)[:80]}.")
    image = _inside(datalist, where, fields["image"])
    label = _inside(datalist, where, fields["label"]) if isinstance(fields.get("label"), str) else None
    missing = "" if label else f"{where} of {datalist.name} names none"
    return Scan(stem_of(image), _subject(stem_of(image)), image, label, part=part, unlabelled=missing)


def _named_by_path(scan: Scan, root: Path) -> Scan:
    name = "_".join((*scan.image.parent.relative_to(root).parts, stem_of(scan.image)))
    return replace(scan, name=name, subject=_subject(name))


def _inside(datalist: Path, where: str, name: str) -> Path:
    """A path of a datalist, which may not leave the datalist's folder."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise InputError(f"{datalist}: {where} names '{name}'; files must lie inside the datalist's folder.")
    return datalist.parent / name


def _subject(name: str) -> str:
    bids = _BIDS_SUBJECT.match(name)
    return bids[1] if bids else name


def _with_subject(scan: Scan, source: Path, pattern: str) -> Scan:
    if scan.series is not None:
        return scan
    relative = scan.image.relative_to(source).as_posix() if scan.image != source else scan.image.name
    try:
        found = re.search(pattern, relative)
    except re.error as error:
        raise InputError(f"The subject pattern '{pattern}' is no regular expression ({error}).") from error
    if found is None:
        raise InputError(f"{scan.image}: the subject pattern '{pattern}' finds nothing in '{relative}'.")
    subject = found[1] if found.re.groups else found[0]
    return replace(scan, subject=subject)


def _refuse_same_names(scans: Iterable[Scan]) -> None:
    seen: dict[str, Scan] = {}
    for scan in scans:
        if scan.name in seen:
            what = "Two DICOM series" if scan.series else f"{seen[scan.name].image} and {scan.image}"
            raise InputError(
                f"{what} are both named '{scan.name}'; every scan needs a name of its own. "
                "Rename one, or choose --images so that its wildcards tell them apart."
            )
        seen[scan.name] = scan
