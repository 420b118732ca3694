"""What the scripts that make recordings share: a call from the command line, and an empty folder to write to."""

import sys
from collections.abc import Callable
from pathlib import Path

from medssl.cli import call
from medssl.errors import InputError


def run_script(make: Callable[..., None]) -> int:
    """Call what the command line describes; returns 0, or 2 after a message about what cannot be."""
    try:
        call(make, f"python -m sample_data.{make.__name__}", sys.argv[1:])
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def require_empty(out: Path) -> None:
    """Refuse a folder that holds something.

    Raises:
        InputError: It does.
    """
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out}: is not empty, and what is there would stay among the new files; name another.")
