"""Labellers: each gives a scan weak labels, from FreeSurfer's own or from atlases that are registered to it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from medssl.data.catalog import Scan
from medssl.data.recipe import check_one_grid
from medssl.data.volumes import Volume, read_labels, read_volume, source_files
from medssl.errors import InputError
from medssl.files import content_hash, value_hash
from medssl.labels.atlas import Atlas, Deformable, carry_image, carry_labels, from_0_to_1, register
from medssl.labels.freesurfer import read_aseg_stats, stats_beside
from medssl.labels.fusion import Fusion, fuse
from medssl.labels.lut import LabelSet
from medssl.labels.protocols import protocol

_VERSION = 1  # of what registration and fusion compute: labels of another one are made anew


class Labelled(NamedTuple):
    """What a labeller made of a scan: the image, class indices on its grid, and how it was done (JSON-able)."""

    image: Volume
    classes: NDArray[np.uint8]
    details: dict[str, Any]


class Labeller(Protocol):
    """Gives scans labels; ``key`` changes whenever what ``label`` returns could."""

    @property
    def label_set(self) -> LabelSet:
        """The structures."""

    def key(self, scan: Scan) -> str:
        """Hash everything that decides the scan's labels."""

    def label(self, scan: Scan) -> Labelled:
        """Label the scan; an ``InputError`` says why it cannot be."""


@dataclass(frozen=True)
class FreeSurferLabeller:
    """Takes the labels that FreeSurfer or FastSurfer left beside the image.

    Attributes:
        label_set: The structures that are kept.
        reading: The protocol of the numbers; by default as the scan's layout implies.
    """

    label_set: LabelSet
    reading: str | None = None

    def key(self, scan: Scan) -> str:
        """Hash the scan's files and the rules."""
        files = [*source_files(scan.image, scan.series), *([scan.label] if scan.label else [])]
        return value_hash([content_hash(*files), self.reading, scan.protocol, self.label_set.to_dict()])

    def label(self, scan: Scan) -> Labelled:
        """Read the labels, and FreeSurfer's own volumes where they are.

        Raises:
            InputError: There are no labels, or they cannot be used.
        """
        if scan.label is None:
            raise InputError(f"{scan.name}: has no labels{f' ({scan.unlabelled})' if scan.unlabelled else ''}.")
        image, labels = read_volume(scan.image, scan.series), read_labels(scan.label)
        check_one_grid(labels, image)
        reading = protocol(self.reading or scan.protocol or "aseg", self.label_set)
        details: dict[str, Any] = {"labeller": "FreeSurfer", "protocol": reading.name}
        if stats := stats_beside(scan.image):
            table = read_aseg_stats(stats)
            details["aseg_stats_mm3"] = dict(zip(table["id"].astype(str), table["volume_mm3"], strict=True))
        return Labelled(image, reading.apply(labels.data, str(scan.label)), details)


@dataclass(frozen=True, eq=False)
class AtlasLabeller:
    """Registers labelled scans to each scan and fuses what they say.

    Attributes:
        label_set: The structures.
        atlases: The labelled scans.
        subjects: Whom each atlas shows.
        contents: A hash of each atlas's image and one of its labels.
        fusion: See ``fusion.fuse``.
        deformable: See ``atlas.register``.
        working_spacing_mm: See ``atlas.register``.
    """

    label_set: LabelSet
    atlases: tuple[Atlas, ...]
    subjects: tuple[str, ...]
    contents: tuple[tuple[str, str], ...]
    fusion: Fusion
    deformable: Deformable | None
    working_spacing_mm: float

    @classmethod
    def load(
        cls,
        atlases: Sequence[Scan],
        label_set: LabelSet,
        reading: str,
        fusion: Fusion = "majority",
        deformable: Deformable | None = "demons",
        working_spacing_mm: float = 2.0,
    ) -> "AtlasLabeller":
        """Read the scans with labels among ``atlases``; ``reading`` is the protocol of their numbers.

        Raises:
            InputError: There are none, or one of them cannot be used.
        """
        scans = [(scan, scan.label) for scan in atlases if scan.label is not None]
        if not scans:
            raise InputError(f"An atlas is a scan with labels; none of the {len(atlases)} given has any.")
        rules = protocol(reading, label_set)
        loaded, contents = [], []
        for scan, label in scans:
            image, labels = read_volume(scan.image, scan.series), read_labels(label)
            check_one_grid(labels, image)
            loaded.append(Atlas(scan.name, image, rules.apply(labels.data, str(label))))
            contents.append((content_hash(*source_files(scan.image, scan.series)), content_hash(label)))
        subjects = tuple(scan.subject for scan, _ in scans)
        return cls(label_set, tuple(loaded), subjects, tuple(contents), fusion, deformable, working_spacing_mm)

    def key(self, scan: Scan) -> str:
        """Hash the scan, the atlases that are used for it, and how."""
        used = sorted(self.contents[i] for i in self._others(scan))
        how = [self.fusion, self.deformable, self.working_spacing_mm, self.label_set.to_dict(), _VERSION]
        return value_hash([content_hash(*source_files(scan.image, scan.series)), used, how])

    def label(self, scan: Scan) -> Labelled:
        """Register every atlas of another subject, and fuse the labels that they bring.

        Raises:
            InputError: The scan cannot be read, an atlas cannot be registered to it, or all atlases show its subject.
        """
        target = read_volume(scan.image, scan.series)
        started = time.monotonic()
        used = [self.atlases[i] for i in self._others(scan)]
        votes, images = [], []
        for atlas in used:
            transform = register(target, atlas.image, self.deformable, self.working_spacing_mm)
            votes.append(carry_labels(atlas, transform, target))
            if self.fusion == "local":
                images.append(carry_image(atlas, transform, target))
        if not votes:
            raise InputError(
                f"{scan.name}: every atlas shows this subject ({scan.subject}); give one of another subject."
            )
        classes = fuse(self.fusion, votes, from_0_to_1(target.data), images)
        details = {
            "labeller": "atlases",
            "atlases": [atlas.name for atlas in used],
            "fusion": self.fusion,
            "deformable": self.deformable,
            "working_spacing_mm": self.working_spacing_mm,
            "seconds": round(time.monotonic() - started, 1),
        }
        return Labelled(target, classes, details)

    def _others(self, scan: Scan) -> list[int]:
        """The atlases that show another subject: a scan that were its own atlas would get manual labels, not weak."""
        content = content_hash(*source_files(scan.image, scan.series))
        return [
            i
            for i, (subject, (image, _)) in enumerate(zip(self.subjects, self.contents, strict=True))
            if subject != scan.subject and image != content
        ]
