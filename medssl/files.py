"""Write aside, then rename: a file that exists is whole."""

import hashlib
import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medssl.errors import InputError

_BLOCK_BYTES = 1 << 20


@contextmanager
def write_aside(path: Path) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to (file or folder); it takes the name ``path`` when the block succeeds.

    The aside name ends like ``path`` does, because many writers choose the format by the ending. Whatever was at
    ``path`` stays until then, and nothing is left behind when the block fails.

    Raises:
        InputError: The disk is full or refuses to be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{uuid.uuid4().hex[:8]}.{path.name}")
    try:
        yield aside
        if aside.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        aside.replace(path)
    except OSError as error:
        _remove(aside)
        if error.errno is None:
            raise
        raise InputError(
            f"{path}: cannot be written ({error.strerror}). Nothing half-written was left; free some space or choose "
            "another --out, and run the same command again: what is done is kept."
        ) from error
    except BaseException:
        _remove(aside)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, whole or not at all."""
    with write_aside(path) as aside:
        aside.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: The file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is not valid JSON ({error}).") from error


def content_hash(*paths: Path) -> str:
    """Hash the bytes of files (a folder counts as its files in order of name), 32 hex digits."""
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        members = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for member in members:
            digest.update(str(member.stat().st_size).encode())
            with member.open("rb") as stream:
                while block := stream.read(_BLOCK_BYTES):
                    digest.update(block)
    return digest.hexdigest()


def value_hash(value: Any) -> str:
    """Hash a JSON-able value, 16 hex digits; equal values have equal hashes whatever the order of their keys."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
