"""Intrinsics in COLMAP's terms: the centre of its first pixel is at (0.5, 0.5), here at (0, 0).

Camera models: https://colmap.github.io/cameras.html.
"""

import numpy as np
from numpy.typing import NDArray

from medssl.data.camera import Camera
from medssl.structure_from_motion.settings import LensModel

HALF_PIXEL = 0.5
_WIDE = 0.7  # focal length by diameter of the view: 71 degrees across, as endoscopes have


def colmap_parameters(camera: Camera) -> tuple[str, tuple[float, ...]]:
    """The name of COLMAP's camera model and its parameters, in COLMAP's order."""
    pinhole = camera.fx, camera.fy, camera.cx + HALF_PIXEL, camera.cy + HALF_PIXEL
    if camera.distortion == "none":
        return "PINHOLE", pinhole
    if camera.distortion == "fisheye":
        return "OPENCV_FISHEYE", (*pinhole, *camera.coefficients)
    if len(camera.coefficients) == 4:
        return "OPENCV", (*pinhole, *camera.coefficients)
    return "FULL_OPENCV", (*pinhole, *camera.coefficients, *(0.0,) * (8 - len(camera.coefficients)))


def guessed_parameters(model: LensModel, diameter: float, x: float, y: float) -> tuple[float, ...]:
    """Where the estimate of an unknown lens begins: as wide as an endoscope's, without distortion.

    Args:
        model: Of COLMAP.
        diameter: Of the field of view, pixels.
        x: Of its centre.
        y: Of its centre.
    """
    focal, cx, cy = _WIDE * diameter, x + HALF_PIXEL, y + HALF_PIXEL
    return (focal, cx, cy, 0.0) if model == "SIMPLE_RADIAL" else (focal, focal, cx, cy, 0.0, 0.0, 0.0, 0.0)


def field_of_view(mask: NDArray[np.bool_], size: tuple[int, int]) -> tuple[float, float, float]:
    """Diameter, and x and y of the centre, of what a mask shows, in a picture reduced to ``size`` (height, width)."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    scale = size[1] / mask.shape[1]
    height, width = np.ptp(rows) + 1.0, np.ptp(columns) + 1.0
    x, y = (columns[0] + columns[-1] + 1) / 2, (rows[0] + rows[-1] + 1) / 2  # from the picture's corner
    return max(height, width) * scale, x * scale - HALF_PIXEL, y * scale - HALF_PIXEL
