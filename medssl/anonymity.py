"""Names of scans and recordings may be patients': in what is tracked, hashes stand for them."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from medssl.files import write_aside
from medssl.tracking import hashed

KEY = "recordings.csv"
"""The user's own table of which hash is whose; it is never tracked."""

SHOWN_AS = f"Recordings are shown by hashes of their names; {KEY} beside this page says which is which."
"""For pages that are tracked."""

_NAMES = ("subject", "scan", "recording", "video")


def without_names(table: pd.DataFrame) -> pd.DataFrame:
    """Put hashes in the place of what the columns ``subject``, ``scan``, ``recording`` and ``video`` hold."""
    return table.assign(**{column: table[column].map(hashed) for column in _NAMES if column in table})


def write_key(folder: Path, names: Iterable[str]) -> None:
    """Write which recording each hash on a tracked page or picture is, for the user's eyes alone."""
    some = list(names)
    with write_aside(folder / KEY) as aside:
        pd.DataFrame({"recording": some, "shown_as": [hashed(name) for name in some]}).to_csv(aside, index=False)
