"""What a part of the work cost: minutes, noted in a file and added up over interruptions."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medssl.files import read_json, write_json

COST = "cost.json"
"""The file that notes the cost of what its folder holds."""


@contextmanager
def clocked(path: Path) -> Iterator[None]:
    """Add the minutes that a block takes to those that a file notes, also where the block is interrupted."""
    start, before = time.perf_counter(), minutes_of(path) or 0.0
    try:
        yield
    finally:
        write_json(path, {"minutes": before + (time.perf_counter() - start) / 60})


def minutes_of(path: Path) -> float | None:
    """The minutes that ``clocked`` noted, or ``None``."""
    return float(read_json(path)["minutes"]) if path.is_file() else None
