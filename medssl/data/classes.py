"""A table says which class each image is of: one row per scan or subject, as clinics keep them beside their images."""

import csv
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from medssl.data.catalog import Scan
from medssl.data.prepared import PreparedDataset
from medssl.errors import InputError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClassRow:
    """One row of the table: its line in the file, the scan or subject, and the class."""

    line: int
    named: str
    category: str


@dataclass(frozen=True)
class ClassTable:
    """Which class each scan, or each subject's scans, are of.

    Attributes:
        path: The file.
        column: What a row names.
        rows: In the file's order; a scan or subject occurs once.
    """

    path: Path
    column: Literal["scan", "subject"]
    rows: tuple[ClassRow, ...]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The classes, in alphabetical order: a class's place here is its index."""
        return tuple(sorted({row.category for row in self.rows}))

    def category(self, scan: Scan) -> int | None:
        """The index of a scan's class; ``None`` without a row."""
        name = self._classes.get(self._key(scan))
        return None if name is None else self.names.index(name)

    def check(self, scans: Sequence[Scan]) -> None:
        """Check that a row names one of ``scans``.

        Raises:
            InputError: None does.
        """
        if len(self.without_scan(scans)) == len(self.rows):
            known = ", ".join(sorted({self._key(scan) for scan in scans})[:5])
            raise InputError(
                f"{self.path}: none of its {len(self.rows)} rows names a {self.column} that there is; the {len(scans)} "
                f"scans have, for example, {known}. Write the names in the column '{self.column}' like these."
            )

    def without_scan(self, scans: Sequence[Scan]) -> tuple[str, ...]:
        """What the rows are called that name none of ``scans``; by line beside DICOM, where they can name a patient."""
        known = {self._key(scan) for scan in scans}
        anonymous = any(scan.series for scan in scans)
        return tuple(f"line {row.line}" if anonymous else row.named for row in self.rows if row.named not in known)

    @cached_property
    def _classes(self) -> dict[str, str]:
        return {row.named: row.category for row in self.rows}

    def _key(self, scan: Scan) -> str:
        return scan.name if self.column == "scan" else scan.subject


def read_classes(path: Path) -> ClassTable:
    """Read a table with the columns ``class`` and ``scan`` (or ``subject``), in UTF-8, with commas (tabs in a .tsv).

    Scans and subjects are called as ``catalog`` calls them. Other columns, and rows without a class, are passed over.

    Raises:
        InputError: It is no such table, or gives one scan or subject two classes.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:  # with the mark that spreadsheets begin it with
            reader = csv.DictReader(stream, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
            columns = [column.strip().lower() for column in reader.fieldnames or ()]
            reader.fieldnames = columns
            stored = [(reader.line_num, row) for row in reader]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file.") from None
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a table ({error}); a CSV file in UTF-8 is expected.") from error
    column: Literal["scan", "subject"] = "scan" if "scan" in columns else "subject"
    if not {column, "class"} <= set(columns):
        raise InputError(
            f"{path}: a table of classes has the columns 'class' and 'scan' (or 'subject'), separated by commas; this "
            f"one has {', '.join(columns) or 'none'}."
        )
    rows = [ClassRow(line, (row[column] or "").strip(), (row["class"] or "").strip()) for line, row in stored]
    return ClassTable(path, column, _one_each(path, [row for row in rows if row.named and row.category]))


def classified(data: PreparedDataset, table: Path) -> PreparedDataset:
    """Give prepared images the classes of a table, in place of those they have; what is on disk stays as it is.

    How many have no class is logged.

    Args:
        data: Prepared images.
        table: As for ``read_classes``.

    Raises:
        InputError: It is no such table, or names none of the images.
    """
    classes = read_classes(table)
    scans = [Scan(name, subject, data.root) for name, subject in zip(data.scans, data.subjects, strict=True)]
    classes.check(scans)
    found = [classes.category(scan) for scan in scans]
    if without := found.count(None):
        logger.info("%s: %d of %d images have no class there.", table, without, len(data))
    view = data.take(range(len(data)))
    view.description = replace(data.description, classes=classes.names)
    view.index["category"] = [-1 if category is None else category for category in found]
    return view


def _one_each(path: Path, rows: Sequence[ClassRow]) -> tuple[ClassRow, ...]:
    """The first row of every scan or subject, which must not have another class in a later one."""
    first: dict[str, ClassRow] = {}
    for row in rows:
        before = first.setdefault(row.named, row)
        if before.category != row.category:
            raise InputError(
                f"{path}: lines {before.line} and {row.line} give one scan or subject two classes, "
                f"'{before.category}' and '{row.category}'. An image is of one class: keep one of the lines."
            )
    if not first:
        raise InputError(f"{path}: no row has both a name and a class.")
    return tuple(first.values())
