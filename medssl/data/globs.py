"""A file pattern whose wildcards can be read out of one path and filled into another pattern."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_WILDCARD: Final = re.compile(r"\*\*/|\*|\?")
_MEANS: Final = {"**/": "((?:[^/]+/)*)", "*": "([^/]*)", "?": "([^/])"}


class Glob:
    """A pattern of relative paths: ``*`` and ``?`` stay within a folder, ``**/`` is any folders or none.

    Args:
        pattern: For example ``sub-*/anat/*_T1w.nii.gz``.
    """

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self._kinds = _WILDCARD.findall(pattern)
        self._fixed = _WILDCARD.split(pattern)
        parts = [re.escape(self._fixed[0])]
        for kind, fixed in zip(self._kinds, self._fixed[1:], strict=True):
            parts += [_MEANS[kind], re.escape(fixed)]
        self._regex = re.compile("".join(parts))

    @property
    def wildcards(self) -> int:
        """How many wildcards the pattern has."""
        return len(self._kinds)

    def matches(self, root: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
        """The files under ``root`` that match, with what each wildcard stands for; hidden files never do."""
        for path in sorted(root.glob(self.pattern)):
            relative = path.relative_to(root)
            found = self._regex.fullmatch(relative.as_posix())
            if found and path.is_file() and not any(part.startswith(".") for part in relative.parts):
                yield path, found.groups()

    def holds(self, relative: Path) -> bool:
        """Whether a path relative to the root matches."""
        return self._regex.fullmatch(relative.as_posix()) is not None

    def fill(self, filled: tuple[str, ...]) -> str:
        """The path in which each wildcard stands for the text given."""
        return self._fixed[0] + "".join(text + fixed for text, fixed in zip(filled, self._fixed[1:], strict=True))

    def name(self, filled: tuple[str, ...]) -> str:
        """What tells one match from another, as a name: the wildcards' texts, without folders and endings."""
        texts = [text for kind, text in zip(self._kinds, filled, strict=True) if kind != "**/"]
        kept = [text for i, text in enumerate(texts) if i + 1 == len(texts) or not texts[i + 1].startswith(text)]
        return "_".join(kept)
