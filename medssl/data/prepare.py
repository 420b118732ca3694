"""Scans become a prepared dataset: checked, conformed, cached by content; what cannot be used is listed, and why.

Each scan is kept under a key made from the bytes of its files, the preparation, the protocol's rules and the format.
So a second run finds everything done, a changed file is done anew, and a run that was stopped goes on where it was.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import pandas as pd

from medssl.data import store
from medssl.data.catalog import Scan, catalog
from medssl.data.classes import ClassTable, read_classes
from medssl.data.cohort import Refused, each, or_refused
from medssl.data.preparation import Preparation, PreparedImage, prepare_image
from medssl.data.prepared import PreparedDataset
from medssl.data.recipe import Identity, Recipe
from medssl.errors import InputError
from medssl.files import write_aside, write_json
from medssl.labels.protocols import Protocol

__all__ = ["Preparation", "PrepareReport", "PreparedImage", "Refused", "prepare", "prepare_image"]

_DECIDING_PACKAGES = ("numpy", "scipy", "nibabel", "SimpleITK", "pydicom", "blosc2")


@dataclass(frozen=True)
class PrepareReport:
    """What became of every scan.

    Attributes:
        out: The prepared dataset.
        made: The scans that were prepared now.
        kept: The scans that had been prepared before.
        refused: The scans that cannot be used.
        absent: The structures of the label set, and the classes of images, that no scan shows.
        unclassed: The scans that can be used and have no class, where a table gives classes.
        unmatched: What rows of the table of classes name, where no scan is called so.
    """

    out: Path
    made: tuple[str, ...]
    kept: tuple[str, ...]
    refused: tuple[Refused, ...]
    absent: tuple[str, ...]
    unclassed: tuple[str, ...] = ()
    unmatched: tuple[str, ...] = ()

    def dataset(self) -> PreparedDataset:
        """Open what was prepared."""
        return PreparedDataset(self.out)

    def table(self) -> str:
        """The report as text: how many scans can be used, and every refused one with the reason."""
        lines = [
            f"{self.out}: {len(self.made) + len(self.kept)} scans can be used",
            f"  prepared now     {len(self.made):5d}",
            f"  prepared before  {len(self.kept):5d}",
            f"  refused          {len(self.refused):5d}",
        ]
        if self.refused:
            width = max(len("refused"), *(len(one.scan) for one in self.refused))
            lines += ["", f"{'refused':<{width}}  why", *(f"{one.scan:<{width}}  {one.reason}" for one in self.refused)]
        if self.absent:
            lines += ["", f"No scan holds {', '.join(self.absent)}: what is not there cannot be learned."]
        if self.unclassed:
            lines += ["", f"{len(self.unclassed)} scans have no class: {', '.join(self.unclassed)}."]
        if self.unmatched:
            lines += ["", f"Warning: {len(self.unmatched)} rows of classes have no scan: {', '.join(self.unmatched)}."]
        return "\n".join(lines)


def prepare(
    source: Path | Sequence[Scan],
    out: Path,
    protocol: Protocol | None = None,
    preparation: Preparation = Preparation(),
    labels_required: bool = False,
    resample_labels: bool = False,
    jobs: int = -1,
    progress: bool | None = None,
    classes: Path | None = None,
) -> PrepareReport:
    """Prepare every scan that can be, in parallel; a scan that cannot never stops the others.

    What ``out`` holds afterwards is exactly the scans given: entries of scans that are no longer there are removed.

    Args:
        source: A folder or file for ``catalog``, or the scans.
        out: The prepared dataset; scans that it holds already are not done again.
        protocol: How label numbers become classes; ``None`` prepares images alone.
        preparation: How images are brought to arrays.
        labels_required: Refuse scans without a label map.
        resample_labels: Accept label maps on another grid than their image's.
        jobs: Processes; -1 is one per core.
        progress: A bar; by default on a terminal only.
        classes: A table of the images' classes, see ``read_classes``; images are not prepared anew for it.

    Raises:
        InputError: No scan can be used, the table is none or names no scan, or the disk is full (what was done is
            kept).
    """
    scans = sorted(catalog(source) if isinstance(source, Path) else source, key=lambda scan: scan.name)
    table = None if classes is None else _class_table(classes, scans)
    recipe = Recipe(preparation, protocol, labels_required, resample_labels)
    entries = out / "scans"

    identified = each(_identify, [(recipe, scan) for scan in scans], "reading", jobs, progress, "threading")
    identities = {scan.name: one for scan, one in zip(scans, identified, strict=True) if isinstance(one, Identity)}
    todo: dict[str, Scan] = {}  # by key, so that scans with the same content are made once
    for scan in scans:
        if scan.name in identities and store.read_meta(entries / identities[scan.name].key) is None:
            todo.setdefault(identities[scan.name].key, scan)
    failed = each(_make, [(recipe, scan, entries / key) for key, scan in todo.items()], "preparing", jobs, progress)
    reasons = {key: one.reason for key, one in zip(todo, failed, strict=True) if one is not None}
    refused = [one for one in identified if isinstance(one, Refused)]
    for scan in scans:
        key = identities[scan.name].key if scan.name in identities else ""
        if key in reasons:
            made_of = todo[key].name
            same = "" if made_of == scan.name else f"{scan.name}: holds the same as {made_of}, which cannot be used: "
            refused.append(Refused(scan.name, scan.subject, same + reasons[key]))
    rows = [
        _row(scan, identities[scan.name], store.read_meta(entries / identities[scan.name].key), table)
        for scan in scans
        if scan.name in identities and identities[scan.name].key not in reasons
    ]
    rows, other = _of_one_kind(rows)
    refused = sorted([*refused, *other], key=lambda one: one.scan)

    write_refused(out / "refused.csv", refused)
    if not rows:
        first = "".join(f"\n  {one.scan}: {one.reason}" for one in refused[:5])
        raise InputError(f"{out}: none of the {len(scans)} scans can be used (refused.csv lists them all):{first}")
    _write_index(out, rows, recipe, table)
    _remove_all_but({row["key"] for row in rows}, entries)
    made = tuple(row["scan"] for row in rows if row["key"] in todo)
    kept = tuple(row["scan"] for row in rows if row["key"] not in todo)
    absent = (*_absent(rows, protocol), *_absent_classes(rows, table))
    unclassed = () if table is None else tuple(row["scan"] for row in rows if row["category"] < 0)
    unmatched = () if table is None else table.without_scan(scans)
    return PrepareReport(out, made, kept, tuple(refused), absent, unclassed, unmatched)


def write_refused(path: Path, refused: Sequence[Refused]) -> None:
    """Write the scans that cannot be used as CSV: scan, subject, reason."""
    with write_aside(path) as aside:
        pd.DataFrame([asdict(one) for one in refused], columns=["scan", "subject", "reason"]).to_csv(aside, index=False)


def _class_table(path: Path, scans: Sequence[Scan]) -> ClassTable:
    table = read_classes(path)
    table.check(scans)  # before the long work
    return table


def _identify(recipe: Recipe, scan: Scan) -> Identity | Refused:
    return or_refused(scan.name, scan.subject, lambda: recipe.identify(scan))


def _make(recipe: Recipe, scan: Scan, folder: Path) -> Refused | None:
    """Make one entry; what is wrong with the scan is returned, what is wrong with the disk is raised."""
    entry = or_refused(scan.name, scan.subject, lambda: recipe.make(scan))
    if isinstance(entry, Refused):
        return entry
    store.write_entry(folder, entry)
    return None


def _row(scan: Scan, identity: Identity, meta: dict[str, Any] | None, table: ClassTable | None) -> dict[str, Any]:
    category = None if table is None else table.category(scan)
    return {
        "scan": scan.name,
        "subject": scan.subject,
        "part": scan.part or "",
        "key": identity.key,
        "source_hash": identity.source_hash,
        "category": -1 if category is None else category,
        "channels": 1,  # of scans that were prepared before there were colours
        **(meta or {}),
    }


def _of_one_kind(rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[Refused]]:
    """A dataset is 2D or 3D, and its images have the same number of channels: keep what most scans are."""
    if not rows:
        return [], []
    kinds = [
        f"{len(row['shape'])}D" + (f" with {row['channels']} channels" if row["channels"] > 1 else "") for row in rows
    ]
    most = Counter(kinds).most_common(1)[0][0]
    other = [
        Refused(row["scan"], row["subject"], f"{row['scan']}: is {kind} among {most} scans; prepare it apart.")
        for row, kind in zip(rows, kinds, strict=True)
        if kind != most
    ]
    return [row for row, kind in zip(rows, kinds, strict=True) if kind == most], other


def _write_index(out: Path, rows: list[dict[str, Any]], recipe: Recipe, table: ClassTable | None) -> None:
    protocol = recipe.protocol
    description = {
        "format": store.FORMAT,
        "preparation": recipe.preparation.to_dict(),
        "label_set": None if protocol is None else protocol.target.to_dict(),
        "protocol": None if protocol is None else protocol.name,
        "spatial_dims": len(rows[0]["shape"]),
        "channels": rows[0]["channels"],
        "classes": None if table is None else list(table.names),
        "versions": {name: version(name) for name in _DECIDING_PACKAGES},
    }
    write_json(out / "prepared.json", description)
    with write_aside(out / "index.parquet") as aside:
        pd.DataFrame(rows).to_parquet(aside, index=False)


def _remove_all_but(keys: set[str], entries: Path) -> None:
    for folder in entries.iterdir():
        if folder.name not in keys:
            rmtree(folder, ignore_errors=True)


def _absent(rows: list[dict[str, Any]], protocol: Protocol | None) -> tuple[str, ...]:
    if protocol is None:
        return ()
    total = np.sum([row["class_voxels"] or [0] * protocol.target.classes for row in rows], axis=0)
    return tuple(name for name, count in zip(protocol.target.names, total[1:], strict=True) if count == 0)


def _absent_classes(rows: list[dict[str, Any]], table: ClassTable | None) -> tuple[str, ...]:
    found = {row["category"] for row in rows}
    return () if table is None else tuple(name for i, name in enumerate(table.names) if i not in found)
