"""A recipe makes one scan's entry from its files; everything that can be wrong with a scan is found here."""

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssl.data import store
from medssl.data.catalog import Scan
from medssl.data.preparation import Box, Preparation, box_of, conform, crop, foreground_box
from medssl.data.resample import corner_distance_mm, reorient, resample
from medssl.data.volumes import Volume, read_labels, read_volume, source_files
from medssl.errors import InputError
from medssl.files import content_hash, value_hash
from medssl.labels.protocols import Protocol

_SAME_GRID = 0.1  # of a voxel: how far apart image and label may place a corner


@dataclass(frozen=True)
class Identity:
    """Which content a scan has: the hash of its image's bytes, and the key of what a recipe makes of it."""

    source_hash: str
    key: str


@dataclass(frozen=True)
class Recipe:
    """What decides, besides a scan's files, what is made of it.

    Args:
        preparation: How images are brought to arrays.
        protocol: How label numbers become classes; ``None`` prepares images alone.
        labels_required: Refuse scans without a label map.
        resample_labels: Accept label maps on another grid than the image's.
    """

    preparation: Preparation
    protocol: Protocol | None
    labels_required: bool = False
    resample_labels: bool = False

    def identify(self, scan: Scan) -> Identity:
        """Hash the scan's files.

        Raises:
            InputError: The scan has no label map and needs one, or a file is missing.
        """
        if scan.label is None and self.labels_required:
            raise InputError(
                f"{scan.name}: has no label map, and this preparation needs one"
                f"{f' ({scan.unlabelled})' if scan.unlabelled else ''}. Add it, or prepare without requiring labels."
            )
        source_hash = content_hash(*source_files(scan.image, scan.series))
        labels: dict[str, Any] = {}
        if self.protocol is not None and scan.label is not None:
            labels = {
                "content": content_hash(*source_files(scan.label)),
                "rules": sorted(self.protocol.rules.items()),
                "nearest": sorted(self.protocol.nearest.items()),
                "target": self.protocol.target.to_dict(),
                "resample": self.resample_labels,
            }
        return Identity(source_hash, value_hash([store.FORMAT, source_hash, self.preparation.to_dict(), labels]))

    def make(self, scan: Scan) -> store.Entry:
        """Read, check and prepare a scan, with its labels where there are some.

        Raises:
            InputError: The scan cannot be used; the message says why.
        """
        image = read_volume(scan.image, scan.series)
        conformed = conform(image, self.preparation)
        box = foreground_box(conformed, self.preparation.margin)
        label = None
        if self.protocol is not None and scan.label is not None:
            classes = self._classes(scan.label, image, self.protocol)
            label = resample(classes.data, classes.affine, conformed.affine, conformed.data.shape[1:], order=0)
            if label.any():
                box = _union(box, box_of(label > 0))  # no labelled voxel is cut off
            label = np.ascontiguousarray(label[box])
        prepared = crop(conformed, box)
        return store.Entry(
            prepared.data, label, self.classes, _meta(image, prepared.data, prepared.affine, label, self.classes)
        )

    @property
    def classes(self) -> int:
        """How many classes labels have, the background included; 0 without labels."""
        return 0 if self.protocol is None else self.protocol.target.classes

    def _classes(self, path: Path, image: Volume, protocol: Protocol) -> Volume:
        """Read a label map as class indices, on the image's grid, axes towards the preparation's orientation."""
        labels = read_labels(path)
        affine = labels.affine
        if not self.resample_labels:
            check_one_grid(labels, image)
            affine = image.affine  # the same within a fraction of a voxel; now to the bit
        classes = protocol.apply(labels.data, where=str(path))
        return reorient(Volume(classes, affine, path), self.preparation.orientation)


def check_one_grid(labels: Volume, image: Volume) -> None:
    """Check that a label map and an image have the same shape and lie in the same place.

    Raises:
        InputError: They do not.
    """
    advice = (
        "Resample the labels to the image first (medssl prepare --resample-labels), or check that they belong together."
    )
    if labels.data.shape != image.data.shape:
        ours, theirs = ("x".join(map(str, volume.data.shape)) for volume in (labels, image))
        raise InputError(
            f"{labels.path}: the label map has {ours} voxels, the image {theirs}; they must share one grid. {advice}"
        )
    apart_mm = corner_distance_mm(image.data.shape, labels.affine, image.affine)
    if apart_mm > _SAME_GRID * min(image.spacing_mm):
        raise InputError(
            f"{labels.path}: the label map lies {apart_mm:.2f} mm away from the image, by their affines; they must "
            f"share one grid. {advice}"
        )


def _union(a: Box, b: Box) -> Box:
    return tuple(slice(min(x.start, y.start), max(x.stop, y.stop)) for x, y in zip(a, b, strict=True))


def _meta(
    image: Volume, data: NDArray[np.float32], affine: NDArray[np.float64], label: NDArray[np.uint8] | None, classes: int
) -> dict[str, Any]:
    stored = np.ascontiguousarray(data, dtype=np.float16)
    counts = [] if label is None else np.bincount(label.ravel(), minlength=classes).tolist()
    return {
        "shape": list(data.shape[1:]),
        "channels": len(data),
        "affine": affine.ravel().tolist(),
        "class_voxels": counts,
        "source_shape": list(image.data.shape),
        "source_spacing_mm": list(image.spacing_mm),
        "content_hash": blake2b(stored.tobytes() + repr(stored.shape).encode(), digest_size=16).hexdigest(),
    }
