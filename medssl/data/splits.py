"""Splits go by subject, not by scan: whoever is tested on was never trained on."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from medssl.data.prepared import PreparedDataset
from medssl.errors import InputError
from medssl.files import read_json, write_json

Split = dict[str, tuple[str, ...]]


def split_subjects(subjects: Iterable[str], parts: Mapping[str, int] | Mapping[str, float], seed: int) -> Split:
    """Deal subjects out to parts at random.

    The same subjects, parts and seed give the same split, in whatever order the subjects come. Parts are dealt in the
    order given: name the test part first, and it stays the same when the size of a later part is changed.

    Args:
        subjects: One entry per scan is fine: repeated subjects count once.
        parts: Either whole numbers (subjects in each part; subjects beyond the sum are left out) or fractions that sum
            to at most 1 (each part gets at least one subject).
        seed: Of the draw.

    Raises:
        InputError: There are too few subjects, or the parts are neither all counts nor all fractions.
    """
    known = sorted(set(subjects))
    counts = _counts(len(known), parts)
    dealt = np.random.default_rng(seed).permutation(known).tolist()
    ends = np.cumsum(list(counts.values()))
    return {name: tuple(sorted(dealt[end - n : end])) for (name, n), end in zip(counts.items(), ends, strict=True)}


def save_split(path: Path, split: Mapping[str, Iterable[str]]) -> None:
    """Write a split as JSON: part -> subjects."""
    write_json(path, {part: sorted(subjects) for part, subjects in split.items()})


def load_split(path: Path) -> Split:
    """Read what ``save_split`` wrote, or what was written by hand.

    Raises:
        InputError: It is not part -> list of subjects, or a subject is in two parts.
    """
    stored = read_json(path)
    if not isinstance(stored, dict) or not all(
        isinstance(subjects, list) and all(isinstance(subject, str) for subject in subjects)
        for subjects in stored.values()
    ):
        raise InputError(f'{path}: a split is {{"train": ["subject", ...], "validation": [...], "test": [...]}}.')
    _refuse_repeats(f"{path}: subject", {part: set(subjects) for part, subjects in stored.items()})
    return {part: tuple(subjects) for part, subjects in stored.items()}


def check_no_leak(parts: Mapping[str, PreparedDataset]) -> None:
    """Check that no subject and no content is in two parts, across datasets too.

    Content is compared as it was read (the file's bytes) and as it was prepared (which finds a scan that is stored in
    another format under another name, where both were prepared alike).

    Raises:
        InputError: Something is in two parts; it is named.
    """
    _refuse_repeats("Subject", {part: set(data.subjects) for part, data in parts.items()})
    for column in ("source_hash", "content_hash"):
        named = {part: dict(zip(data.index[column], data.scans, strict=True)) for part, data in parts.items()}
        for part, other in _pairs(list(named)):
            shared = sorted(set(named[part]) & set(named[other]))
            if shared:
                raise InputError(
                    f"Scan '{named[part][shared[0]]}' of part '{part}' and scan '{named[other][shared[0]]}' of part "
                    f"'{other}' are the same image under two subjects ({len(shared)} such pairs). Keep one of them."
                )


def _counts(available: int, parts: Mapping[str, int] | Mapping[str, float]) -> dict[str, int]:
    sizes = list(parts.values())
    if available < len(parts):
        raise InputError(
            f"{available} subject(s) cannot be split into {len(parts)} parts ({', '.join(parts)}): every part needs at "
            "least one subject of its own. Add scans of other subjects."
        )
    if all(isinstance(size, int) for size in sizes):
        counts = {part: int(size) for part, size in parts.items()}
        if min(sizes, default=1) < 1 or sum(sizes) > available:
            wanted = ", ".join(f"{part} {size}" for part, size in parts.items())
            raise InputError(f"The split asks for {wanted} subjects; there are {available}, and every part needs one.")
        return counts
    if min(sizes) <= 0 or sum(sizes) > 1 + 1e-9 or any(isinstance(size, int) for size in sizes):
        raise InputError(f"A split's parts are all counts, or all fractions that sum to at most 1; got {dict(parts)}.")
    ideal = np.array(sizes) * available
    given = np.ones(len(sizes), dtype=int)
    for _ in range(round(sum(sizes) * available) - len(sizes)):
        given[np.argmax(ideal - given)] += 1
    return {part: int(n) for part, n in zip(parts, given, strict=True)}


def _refuse_repeats(what: str, parts: Mapping[str, set[str]]) -> None:
    found = Counter(member for members in parts.values() for member in members)
    repeated = sorted(member for member, times in found.items() if times > 1)
    if repeated:
        where = [part for part, members in parts.items() if repeated[0] in members]
        more = f" (and {len(repeated) - 1} more)" if len(repeated) > 1 else ""
        raise InputError(
            f"{what} '{repeated[0]}'{more} is in two parts, '{where[0]}' and '{where[1]}': a leak, since the model "
            "would be judged on whom it has seen. Give every subject to one part."
        )


def _pairs(names: list[str]) -> list[tuple[str, str]]:
    return [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
