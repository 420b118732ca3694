"""Cameras: what takes a direction to a pixel, with and without the lens's distortion."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Distortion = Literal["none", "radial-tangential", "fisheye"]


@dataclass(frozen=True)
class Camera:
    """Intrinsics of a picture of one size; the centre of its first pixel is at (0, 0).

    Attributes:
        width: Of the picture, pixels.
        height: Of the picture, pixels.
        fx: Focal length along x, pixels.
        fy: Focal length along y, pixels.
        cx: x of the principal point, pixels.
        cy: y of the principal point, pixels.
        distortion: ``"none"``, ``"radial-tangential"`` (OpenCV's k1 k2 p1 p2 k3) or ``"fisheye"`` (OpenCV's k1 to k4).
        coefficients: Of the distortion.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion: Distortion = "none"
    coefficients: tuple[float, ...] = ()

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The intrinsic matrix (3, 3)."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]], dtype=np.float64)

    def resized(self, height: int, width: int) -> "Camera":
        """The camera of the same picture at another size.

        Pixel (0, 0) covers [-0.5, 0.5], so the principal point moves by more than the ratio of the sizes.
        """
        x, y = width / self.width, height / self.height
        return replace(
            self,
            width=width,
            height=height,
            fx=self.fx * x,
            fy=self.fy * y,
            cx=(self.cx + 0.5) * x - 0.5,
            cy=(self.cy + 0.5) * y - 0.5,
        )
