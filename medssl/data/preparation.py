"""A preparation says how a scan becomes the array a network sees; training and inference apply the same one.

The array is in orientation RAS, on a rectangular grid, cropped to its foreground, and 0 is the background, so that
padding with zeros adds background.

MRI has no unit: the same tissue is 80 in one scan and 900 in another. So 0 stays 0, and 1 is the mean of the
foreground: the voxels brighter than the lower percentile by a tenth of the way to the upper one, which keeps air out of
whole heads (the rule of Smith, "Fast robust automated brain extraction", Human Brain Mapping 2002). What is brighter
than the upper percentile is cut. Over an uncalibrated 16-bit and FreeSurfer's 8-bit cohort, the medians of white
matter, cortex, ventricle and thalamus then vary by 0.02 to 0.10 of the contrast between white matter and ventricle;
stretching between the percentiles leaves 0.06 to 0.17, because two extremes say less of a scan than all its voxels.

CT has a unit, and a window of Hounsfield numbers becomes 0..1. Colours of a picture have a darkest and a brightest
value: they become 0..1 as well, in three channels, and no image is scaled by what it shows.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medssl.data.resample import Affine, grid, reorient, resample
from medssl.data.volumes import Volume
from medssl.errors import InputError

_AIR = 0.1  # of the way from the darkest to the brightest, or of the foreground's mean: darker is background
Box = tuple[slice, ...]


@dataclass(frozen=True)
class Preparation:
    """How a scan becomes the array a network sees.

    Args:
        spacing_mm: The voxel's edge, one number or one per axis; ``None`` keeps each scan's own.
        orientation: The direction in which the axes run; axis 0 from left to right.
        intensity: "mri" divides by the mean of the foreground, "ct" takes a window of Hounsfield numbers, "rgb" keeps
            the colours of pictures, such as frames of an endoscopy, in three channels; the others see them in grey.
        percentiles: MRI: the darkest and the brightest value, of the voxels that are not 0.
        window_hu: CT: what becomes 0 and 1. The default shows soft tissue; lungs and bone need a wider one.
        margin: Voxels that are kept around the foreground.
    """

    spacing_mm: float | tuple[float, ...] | None = 1.0
    orientation: Literal["RAS"] = "RAS"
    intensity: Literal["mri", "ct", "rgb"] = "mri"
    percentiles: tuple[float, float] = (0.5, 99.5)
    window_hu: tuple[float, float] = (-200.0, 300.0)
    margin: int = 4

    def __post_init__(self) -> None:
        """Refuse values that no scan could be prepared with."""
        spacing_mm = np.atleast_1d(1.0 if self.spacing_mm is None else self.spacing_mm)
        checks = {
            f"spacing_mm must be one positive number or one per axis, got {self.spacing_mm}": (
                spacing_mm.size in (1, 2, 3) and (spacing_mm > 0).all()
            ),
            f"orientation must be RAS, got {self.orientation}": self.orientation == "RAS",
            f"intensity must be mri, ct or rgb, got {self.intensity}": self.intensity in ("mri", "ct", "rgb"),
            f"percentiles must rise within 0 to 100, got {self.percentiles}": (
                0 <= self.percentiles[0] < self.percentiles[1] <= 100
            ),
            f"window_hu must rise, got {self.window_hu}": self.window_hu[0] < self.window_hu[1],
            f"margin must be 0 or more, got {self.margin}": self.margin >= 0,
        }
        for message, holds in checks.items():
            if not holds:
                raise InputError(f"The preparation's {message}.")

    def to_dict(self) -> dict[str, Any]:
        """The preparation as JSON holds it."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "Preparation":
        """The preparation that ``to_dict`` wrote.

        Raises:
            InputError: There are entries that this version does not know.
        """
        unknown = sorted(set(value) - set(cls.__dataclass_fields__))
        if unknown:
            raise InputError(f"The preparation has {', '.join(unknown)}, which this version of medssl does not know.")
        arguments: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}
        return cls(**arguments)


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """What a network sees: ``data`` (C, *spatial) float32 with background 0, and the affine of its grid to RAS+ mm."""

    data: NDArray[np.float32]
    affine: Affine


def prepare_image(volume: Volume, preparation: Preparation) -> PreparedImage:
    """Normalise, reorient, resample and crop one image, from the image alone.

    Raises:
        InputError: The image cannot be what the preparation says (a CT without negative values, for example).
    """
    conformed = conform(volume, preparation)
    return crop(conformed, foreground_box(conformed, preparation.margin))


def conform(volume: Volume, preparation: Preparation) -> PreparedImage:
    """Normalise, reorient and resample; the whole field of view."""
    dims = volume.data.ndim
    spacing_mm = preparation.spacing_mm
    if isinstance(spacing_mm, tuple) and len(spacing_mm) != dims:
        raise InputError(f"{volume.name}: is {dims}D, the preparation's spacing has {len(spacing_mm)} numbers.")
    edges_mm = (spacing_mm,) * dims if isinstance(spacing_mm, int | float) else spacing_mm
    turned = [
        reorient(Volume(channel, volume.affine, volume.path), preparation.orientation)
        for channel in normalise(volume, preparation)
    ]
    shape, affine = grid(turned[0].data.shape, turned[0].affine, edges_mm)
    channels = [resample(one.data, one.affine, affine, shape, order=1) for one in turned]
    # one channel, which can be a large scan, is not copied
    return PreparedImage(np.stack(channels) if len(channels) > 1 else channels[0][None], affine)


def normalise(volume: Volume, preparation: Preparation) -> NDArray[np.float32]:
    """Bring intensities to a common scale, (C, *spatial): 0 is background, 1 the foreground's mean (CT, colours: 0..1).

    Raises:
        InputError: The image cannot be what the preparation says.
    """
    return _colours(volume) if preparation.intensity == "rgb" else _grey(volume, preparation)[None]


def _colours(volume: Volume) -> NDArray[np.float32]:
    if volume.colours is None:
        raise InputError(
            f"{volume.name}: holds no colours, and a preparation with intensity rgb keeps them. Prepare grey images "
            "apart, with intensity mri or ct."
        )
    return volume.colours.astype(np.float32) / np.float32(np.iinfo(volume.colours.dtype).max)


def _grey(volume: Volume, preparation: Preparation) -> NDArray[np.float32]:
    data = volume.data.astype(np.float32)
    if preparation.intensity == "ct":
        low, high = preparation.window_hu
        if data.min() >= 0:
            raise InputError(
                f"{volume.name}: its lowest value is {data.min():g}, but Hounsfield numbers put air at -1000. Rescale "
                "it to Hounsfield numbers, or prepare it with intensity mri."
            )
        windowed: NDArray[np.float32] = np.clip((data - low) / (high - low), 0, 1)
        return windowed
    inside = data != 0
    values = data[inside]
    low, high = (float(value) for value in np.percentile(values, preparation.percentiles))
    if low == high:
        raise InputError(
            f"{volume.name}: of its {values.size} voxels that are not 0, nearly all are {low:g}; an image has "
            "contrast. It may be a mask given as an image."
        )
    zero = min(low, 0.0)  # below 0 only where the scan was shifted before
    foreground = np.minimum(values[values > low + _AIR * (high - low)], high)
    unit = float(foreground.mean(dtype=np.float64)) - zero
    data[inside] = (np.clip(values, zero, high) - zero) / unit
    return data


def foreground_box(conformed: PreparedImage, margin: int) -> Box:
    """The smallest box that holds all foreground of a conformed image, widened by ``margin`` inside the grid."""
    return box_of(np.any(conformed.data > _AIR, axis=0), margin)


def box_of(mask: NDArray[np.bool_], margin: int = 0) -> Box:
    """The smallest box that holds a mask, widened by ``margin`` inside the grid; the whole grid for an empty mask."""
    ends = []
    for axis in range(mask.ndim):
        hit = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        first, last = (int(hit[0]), int(hit[-1])) if hit.size else (0, mask.shape[axis] - 1)
        ends.append(slice(max(first - margin, 0), min(last + 1 + margin, mask.shape[axis])))
    return tuple(ends)


def crop(conformed: PreparedImage, box: Box) -> PreparedImage:
    """Cut a box out of a conformed image."""
    affine = conformed.affine.copy()
    starts = np.array([*(part.start for part in box), *[0] * (3 - len(box))], dtype=np.float64)
    affine[:3, 3] += affine[:3, :3] @ starts
    return PreparedImage(np.ascontiguousarray(conformed.data[:, *box], dtype=np.float32), affine)
