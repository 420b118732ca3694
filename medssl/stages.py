"""Stages and runs of a pipeline: what was done with the same inputs is not done again, and its run goes on."""

import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medssl.data.catalog import Scan
from medssl.data.preparation import Preparation
from medssl.data.prepare import prepare
from medssl.data.prepared import PreparedDataset
from medssl.errors import InputError
from medssl.files import read_json, value_hash, write_json
from medssl.labels.protocols import Protocol
from medssl.tracking import Run, RunLike, Tracker

logger = logging.getLogger(__name__)


def stage(folder: Path, inputs: Any, work: Callable[[Path], None]) -> Path:
    """Let ``work`` fill ``folder``, unless it was filled from the same inputs before; returns ``folder``.

    A stage that was interrupted is entered again with what it left, so that work which can resume does. A folder that
    was filled from other inputs is emptied first.

    Args:
        folder: Of this stage alone.
        inputs: All that the result depends on, as JSON takes it.
        work: Called with ``folder``.

    Raises:
        InputError: The folder holds something else.
    """
    note = folder / "stage.json"
    key = value_hash(inputs)
    before = read_json(note) if note.exists() else None
    if before == {"inputs": key, "done": True}:
        logger.info("%s: done before with the same inputs.", folder)
        return folder
    if before is None and folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder}: holds files that no pipeline made. Choose another --out, or move them away.")
    if before is not None and before["inputs"] != key:
        shutil.rmtree(folder)
    write_json(note, {"inputs": key, "done": False})
    work(folder)
    write_json(note, {"inputs": key, "done": True})
    return folder


@dataclass(frozen=True)
class Summary:
    """What became of one recording.

    Attributes:
        numbers: By name.
        sentences: What to know.
        left_out: What was not made, and why.
    """

    numbers: dict[str, float]
    sentences: list[str]
    left_out: dict[str, str]


def is_done(out: Path, made_of: str) -> bool:
    """Say whether the results of a folder are whole, by their ``summary.json``, and made of the same."""
    path = out / "summary.json"
    return path.is_file() and bool(read_json(path).get("made_of") == made_of)


def prepared_and_told(
    scans: Sequence[Scan], out: Path, reading: Protocol | None, preparation: Preparation, jobs: int
) -> PreparedDataset:
    """Prepare scans, with labels where they are read, and say what became of them."""
    report = prepare(scans, out, reading, preparation, labels_required=reading is not None, jobs=jobs)
    print(report.table())
    return report.dataset()


@contextmanager
def continued_run(tracker: Tracker, book: Path, name: str, parent: RunLike | None = None) -> Iterator[Run]:
    """Open the run of that name again if ``book`` knows it, else begin one and note it there.

    Args:
        tracker: Where the runs are.
        book: A JSON file of names and run ids.
        name: Of the run.
        parent: The run that it is a part of.
    """
    known = read_json(book) if book.exists() else {}
    key = f"{parent.run_id}/{name}" if parent else name
    with tracker.run(name, parent=parent, run_id=known.get(key)) as run:
        write_json(book, {**known, key: run.run_id})
        yield run
