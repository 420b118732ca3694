"""Cameras: what takes a direction to a pixel, with and without the lens's distortion.

The distortions are those of OpenCV's documentation ("Camera Calibration and 3D Reconstruction" and its fisheye module),
written here from their equations. A direction is (x/z, y/z) in the camera's axes: x right, y down, z forward.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Distortion = Literal["none", "radial-tangential", "fisheye"]
Floats = NDArray[np.float64]

# How many coefficients each model is written with; those left out are zero.
COEFFICIENTS: dict[Distortion, tuple[int, ...]] = {"none": (0,), "radial-tangential": (4, 5, 8), "fisheye": (4,)}
_NEWTON_STEPS = 30
_EXACT = 1e-9  # of a direction: a millionth of a pixel at a focal length of 1000 pixels
_WIDEST = 12.0  # tangent of 85 degrees, beyond which no direction is looked at


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
        distortion: ``"none"``, ``"radial-tangential"`` (OpenCV's k1 k2 p1 p2 [k3 [k4 k5 k6]]) or ``"fisheye"``
            (OpenCV's k1 to k4).
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
    def matrix(self) -> Floats:
        """The intrinsic matrix (3, 3)."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]], dtype=np.float64)

    @property
    def undistorted(self) -> "Camera":
        """The camera with the same size and matrix, and no distortion."""
        return replace(self, distortion="none", coefficients=())

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

    def cropped(self, top: int, left: int, height: int, width: int) -> "Camera":
        """The camera of a part of the picture, whose first pixel is at (``left``, ``top``)."""
        return replace(self, width=width, height=height, cx=self.cx - left, cy=self.cy - top)


def project(camera: Camera, points: Floats) -> Floats:
    """Where points appear in the picture.

    Args:
        camera: With or without distortion.
        points: (..., 3), in the camera's axes.

    Returns:
        Pixels (..., 2), also outside the picture; NaN behind the camera and where the lens's model does not reach.
    """
    z = points[..., 2:]
    directions = np.full((*points.shape[:-1], 2), np.nan)
    np.divide(points[..., :2], z, out=directions, where=z > 0)
    return _to_pixels(camera, distort(camera, directions))


def directions_of(camera: Camera, pixels: Floats) -> Floats:
    """The direction (x/z, y/z) that each pixel sees, (..., 2) to (..., 2); NaN where the lens's model has no answer."""
    focal, centre = np.array([camera.fx, camera.fy]), np.array([camera.cx, camera.cy])
    return undistort(camera, (pixels - centre) / focal)


def in_picture(camera: Camera, pixels: Floats) -> NDArray[np.bool_]:
    """Whether pixels (..., 2) lie between the centres of the picture's first and last ones, (...)."""
    x, y = pixels[..., 0], pixels[..., 1]
    return (x >= 0) & (x <= camera.width - 1) & (y >= 0) & (y <= camera.height - 1)


def distort(camera: Camera, directions: Floats) -> Floats:
    """Bend directions (..., 2) as the lens does; NaN beyond the angle where the model folds back on itself."""
    if camera.distortion == "none":
        return directions
    bent, _ = _bent(camera, directions)
    radius = np.linalg.norm(directions, axis=-1, keepdims=True)
    return np.where(radius <= _reach(camera), bent, np.nan)


def undistort(camera: Camera, bent: Floats) -> Floats:
    """Invert ``distort`` by Newton's method, (..., 2) to (..., 2); NaN where no direction is bent so."""
    if camera.distortion == "none":
        return bent
    found = np.array(bent, dtype=np.float64)
    with np.errstate(all="ignore"):  # a direction that runs away becomes NaN below
        for _ in range(_NEWTON_STEPS):
            guess, jacobian = _bent(camera, found)
            error = guess - bent
            (a, b), (c, d) = jacobian
            step = np.stack([d * error[..., 0] - b * error[..., 1], a * error[..., 1] - c * error[..., 0]], axis=-1)
            found = found - step / (a * d - b * c)[..., None]
            if np.nanmax(np.abs(error), initial=0) < _EXACT / 100:
                break
        wrong = np.abs(distort(camera, found) - bent).max(axis=-1, keepdims=True)
    return np.where(wrong < _EXACT, found, np.nan)


def undistort_map(camera: Camera) -> tuple[NDArray[np.float32], Camera, NDArray[np.bool_]]:
    """Tell where to sample a picture so that it has no distortion.

    Returns:
        The pixels (2, H, W), x and y, of the distorted picture; the camera of the undistorted one, which keeps the size
        and the matrix; and the mask (H, W) of the pixels whose sample lies inside the distorted picture.
    """
    straight = camera.undistorted
    y, x = np.mgrid[: camera.height, : camera.width].astype(np.float64)
    pixels = _to_pixels(camera, distort(camera, directions_of(straight, np.stack([x, y], axis=-1))))
    # A pixel that is its own sample stays inside, whatever the last bit says.
    valid = in_picture(camera, np.round(pixels, 6))
    return np.ascontiguousarray(np.nan_to_num(pixels, nan=-1.0).transpose(2, 0, 1), dtype=np.float32), straight, valid


def _to_pixels(camera: Camera, bent: Floats) -> Floats:
    pixels: Floats = bent * np.array([camera.fx, camera.fy]) + np.array([camera.cx, camera.cy])
    return pixels


Jacobian = tuple[tuple[Floats, Floats], tuple[Floats, Floats]]


def _bent(camera: Camera, directions: Floats) -> tuple[Floats, Jacobian]:
    model = _radial_tangential if camera.distortion == "radial-tangential" else _fisheye
    return model(camera.coefficients, directions)


def _radial_tangential(coefficients: tuple[float, ...], directions: Floats) -> tuple[Floats, Jacobian]:
    """Bend by x' = x L + 2 p1 x y + p2 (s + 2 x^2), with s = x^2 + y^2 and L the ratio of two cubics in s."""
    k1, k2, p1, p2, k3, k4, k5, k6 = (*coefficients, *(0.0,) * (8 - len(coefficients)))
    x, y = directions[..., 0], directions[..., 1]
    s = x * x + y * y
    above, below = 1 + s * (k1 + s * (k2 + s * k3)), 1 + s * (k4 + s * (k5 + s * k6))
    L = above / below
    slope = ((k1 + s * (2 * k2 + 3 * k3 * s)) - L * (k4 + s * (2 * k5 + 3 * k6 * s))) / below  # dL/ds
    bent = np.stack(
        [x * L + 2 * p1 * x * y + p2 * (s + 2 * x * x), y * L + p1 * (s + 2 * y * y) + 2 * p2 * x * y], axis=-1
    )
    cross = 2 * x * y * slope + 2 * p1 * x + 2 * p2 * y
    along_x = L + 2 * x * x * slope + 2 * p1 * y + 6 * p2 * x
    along_y = L + 2 * y * y * slope + 6 * p1 * y + 2 * p2 * x
    return bent, ((along_x, cross), (cross, along_y))


def _fisheye(coefficients: tuple[float, ...], directions: Floats) -> tuple[Floats, Jacobian]:
    """Bend by (x', y') = (x, y) t_d / r, r = |(x, y)|, t = atan r, t_d = t (1 + k1 t^2 + k2 t^4 + k3 t^6 + k4 t^8)."""
    k1, k2, k3, k4 = (*coefficients, *(0.0,) * (4 - len(coefficients)))
    x, y = directions[..., 0], directions[..., 1]
    r = np.hypot(x, y)
    t = np.arctan(r)
    q = t * t
    t_d = t * (1 + q * (k1 + q * (k2 + q * (k3 + q * k4))))
    d_r = (1 + q * (3 * k1 + q * (5 * k2 + q * (7 * k3 + q * 9 * k4)))) / (1 + r * r)  # d t_d / dr
    centre = r < 1e-12
    safe = np.where(centre, 1.0, r)
    ratio = np.where(centre, 1.0, t_d / safe)
    change = np.where(centre, 0.0, (d_r - ratio) / safe**2)  # of the ratio with r, over r
    bent = directions * ratio[..., None]
    cross = x * y * change
    return bent, ((ratio + x * x * change, cross), (cross, ratio + y * y * change))


@lru_cache(maxsize=64)
def _reach(camera: Camera) -> float:
    """The radius |(x/z, y/z)| up to which a direction further out is also seen further out."""
    radii = np.linspace(0, _WIDEST, 6001)
    ahead = np.stack([radii, np.zeros_like(radii)], axis=-1)
    radial = replace(camera, coefficients=_without_tangential(camera))
    seen = _bent(radial, ahead)[0][:, 0]
    folds = np.flatnonzero(~(np.diff(seen) > 0))
    return float(radii[folds[0]]) if len(folds) else _WIDEST


def _without_tangential(camera: Camera) -> tuple[float, ...]:
    k = camera.coefficients
    return k if camera.distortion == "fisheye" else (*k[:2], 0.0, 0.0, *k[4:])
