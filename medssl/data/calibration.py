"""Calibrations that a user gives: numbers on the command line, JSON, YAML, and what OpenCV's programs write."""

import json
import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import yaml
from numpy.typing import NDArray

from medssl.data.camera import COEFFICIENTS, Camera, Distortion
from medssl.data.poses import checked_poses, inverted
from medssl.data.sequence import Unit
from medssl.errors import InputError

logger = logging.getLogger(__name__)

EXPECTED = """\
expected fx,fy,cx,cy[,width,height], or a .json or .yaml file with fx, fy, cx, cy (or a 3x3 "matrix"), where they belong
to another size of picture than the video's also width and height, and with a distorting lens "distortion"
("radial-tangential" or "fisheye") and its "coefficients" in OpenCV's order"""
STEREO_EXPECTED = """\
expected a .json or .yaml file with a camera each under "left" and "right", and either "to_left" (4x4, from the right
camera's axes to the left one's) or OpenCV's R and T (from the left one's to the right one's), or OpenCV's own M1, D1,
M2, D2, R, T; and "unit", "mm" or "m", of T"""
_MATRICES = ("matrix", "camera_matrix", "K")
_COEFFICIENTS = ("coefficients", "distortion_coefficients", "dist_coeffs", "D")
_OFF_MIDDLE = 0.2  # shares of width and of height; those of a picture half as large are 0.25 off
_SAME_ASPECT = 0.005  # the rounding of a size to whole pixels changes less


@dataclass(frozen=True)
class StereoCalibration:
    """Two cameras and how they stand.

    Attributes:
        left: The first camera.
        right: The second.
        to_left: Rigid transform (4, 4) from the right camera's axes to the left one's.
        unit: Of its translation.
    """

    left: Camera
    right: Camera
    to_left: NDArray[np.float64]
    unit: Unit

    @property
    def baseline(self) -> float:
        """The distance between the cameras, in ``unit``."""
        return float(np.linalg.norm(self.to_left[:3, 3]))


def read_intrinsics(given: str | Path, size: tuple[int, int], scale: bool = False) -> Camera:
    """Read the intrinsics of pictures of a known size.

    Args:
        given: ``fx,fy,cx,cy[,width,height]`` in pixels, or a file.
        size: Height and width of the pictures.
        scale: Whether intrinsics of another size of the same picture are scaled to it.

    Raises:
        InputError: They are missing or make no sense, or belong to another size and ``scale`` is off or the aspect
            differs.
    """
    text = str(given)
    if re.fullmatch(r"[-+.\deE,\s]+", text) and "," in text:
        try:
            numbers = [float(number) for number in text.split(",")]
        except ValueError:
            numbers = []
        if len(numbers) not in (4, 6):
            raise InputError(f"The intrinsics '{text}' are not 4 or 6 numbers; {EXPECTED}.")
        fields: Mapping[str, Any] = dict(zip(("fx", "fy", "cx", "cy", "width", "height"), numbers, strict=False))
        return for_size(camera_of(fields, f"The intrinsics '{text}'", size), size, f"The intrinsics '{text}'", scale)
    fields = read_fields(Path(given))
    return for_size(camera_of(fields, str(given), size), size, str(given), scale)


def for_size(camera: Camera, size: tuple[int, int], source: str, scale: bool = False) -> Camera:
    """The camera for pictures of a size, scaled only if asked for.

    Raises:
        InputError: It is for another size, and ``scale`` is off or the aspect differs.
    """
    height, width = size
    if (camera.height, camera.width) == size:
        return camera
    sizes = f"{source}: is for pictures of {camera.width}x{camera.height}, the frames are {width}x{height}"
    if (camera.width, camera.height) == size:
        raise InputError(
            f"{sizes}: turned upright, as their file asks. Give the intrinsics of the upright pictures: of a quarter "
            "turn, fx and fy change places, and cx and cy do."
        )
    if abs(camera.width * height / (camera.height * width) - 1) > _SAME_ASPECT:
        raise InputError(
            f"{sizes}: another aspect, so a crop or another camera. Give the intrinsics of these frames; if they were "
            "cut out, subtract the cut's left and top from cx and cy."
        )
    if not scale:
        found = camera.resized(height, width)
        numbers = f"fx {found.fx:.6g}, fy {found.fy:.6g}, cx {found.cx:.6g}, cy {found.cy:.6g}"
        raise InputError(
            f"{sizes}. If the frames were only resized, they have {numbers}, and the same lens: give these."
        )
    return camera.resized(height, width)


def read_stereo(path: Path, size: tuple[int, int], scale: bool = False) -> StereoCalibration:
    """Read the calibration of a stereo pair whose pictures have a size (height, width).

    OpenCV's R and T take a point from the left camera's axes to the right one's.

    Raises:
        InputError: A part is missing or makes no sense.
    """
    fields = read_fields(path)
    if isinstance(fields.get("left"), dict) and isinstance(fields.get("right"), dict):
        parts = [fields["left"], fields["right"]]
    elif all(name in fields for name in ("M1", "D1", "M2", "D2")):
        shared = {name: fields[name] for name in ("width", "height") if name in fields}
        parts = [{**shared, "K": fields[f"M{i}"], "D": fields[f"D{i}"]} for i in (1, 2)]
    else:
        raise InputError(f"{path}: is no stereo calibration; {STEREO_EXPECTED}.")
    left, right = (
        for_size(camera_of(part, f"{path}: {side}", size), size, f"{path}: {side}", scale)
        for part, side in zip(parts, ("left", "right"), strict=True)
    )
    unit = fields.get("unit", "unknown")
    if unit not in get_args(Unit):
        raise InputError(f"{path}: the unit is one of {', '.join(get_args(Unit))}; got '{unit}'.")
    return StereoCalibration(left, right, _to_left(path, fields), unit)


def read_fields(path: Path) -> dict[str, Any]:
    """Read the mapping in a JSON or YAML file; OpenCV's matrices become arrays.

    Raises:
        InputError: It is missing or of another kind.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"{path}: no such file. For intrinsics {EXPECTED}.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is no text file.") from error
    try:
        # OpenCV begins its YAML with "%YAML:1.0", which YAML does not allow.
        fields = json.loads(text) if path.suffix == ".json" else yaml.load(re.sub(r"\A%YAML.*\n", "", text), _OpenCV)
    except (json.JSONDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read ({str(error).splitlines()[0]}).") from error
    if not isinstance(fields, dict):
        raise InputError(f"{path}: holds no names with values; {EXPECTED}.")
    return fields


def camera_of(fields: Mapping[str, Any], source: str, size: tuple[int, int]) -> Camera:
    """Make a camera of named values; ``size`` (height, width) is its pictures' where they do not tell.

    Raises:
        InputError: A value is missing, is not finite, or cannot be.
    """
    matrix = next((fields[name] for name in _MATRICES if name in fields), None)
    try:
        fx, fy, cx, cy = (
            (float(fields[name]) for name in ("fx", "fy", "cx", "cy")) if matrix is None else _of_matrix(matrix)
        )
        width, height = int(fields.get("width", size[1])), int(fields.get("height", size[0]))
        found = next((fields[name] for name in _COEFFICIENTS if name in fields), ())
        coefficients = tuple(float(k) for k in np.asarray(found, dtype=np.float64).ravel())
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{source}: the intrinsics cannot be read ({error!r}); {EXPECTED}.") from error
    if not all(map(math.isfinite, (fx, fy, cx, cy, *coefficients))) or min(fx, fy, width, height) <= 0:
        numbers = f"fx {fx:g}, fy {fy:g}, cx {cx:g}, cy {cy:g}, distortion {coefficients}"
        raise InputError(f"{source}: {numbers} for {width}x{height} cannot be a camera.")
    _require_middle(cx, cy, width, height, source)
    model = fields.get("distortion", "radial-tangential" if any(coefficients) else "none")
    coefficients = () if model == "none" else coefficients
    if model not in COEFFICIENTS or len(coefficients) not in COEFFICIENTS[model]:
        raise InputError(
            f"{source}: distortion '{model}' with {len(coefficients)} coefficients is not known; \"none\", "
            '"radial-tangential" with 4, 5 or 8, or "fisheye" with 4.'
        )
    distortion: Distortion = model
    return Camera(width, height, fx, fy, cx, cy, distortion, coefficients)


def _require_middle(cx: float, cy: float, width: int, height: int, source: str) -> None:
    """Refuse a principal point outside the picture, and warn of one far from its middle: both are of another size."""
    told = f"{source}: the principal point ({cx:g}, {cy:g})"
    advice = (
        "If the intrinsics are of another size of picture, give that too (fx,fy,cx,cy,width,height); of pictures that "
        "were cut out, subtract the cut's left and top from cx and cy."
    )
    across, down = (cx + 0.5) / width, (cy + 0.5) / height
    if not (0 <= across <= 1 and 0 <= down <= 1):
        raise InputError(f"{told} lies outside the {width}x{height} picture. {advice}")
    if min(abs(across - 0.5), abs(down - 0.5)) > _OFF_MIDDLE:
        logger.warning("%s is far from the middle of the %dx%d picture. %s", told, width, height, advice)


def _of_matrix(matrix: Any) -> tuple[float, ...]:
    K = np.asarray(matrix, dtype=np.float64)
    if K.shape == (9,):
        K = K.reshape(3, 3)
    if K.shape[0] != 3 or K.shape[1] not in (3, 4):
        raise ValueError(f"the matrix is {K.shape}, 3x3 expected")
    return float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2])


def _to_left(path: Path, fields: Mapping[str, Any]) -> NDArray[np.float64]:
    try:
        if "to_left" in fields:
            return np.array(checked_poses(path, np.asarray(fields["to_left"], dtype=np.float64)[None])[0])
        R = np.asarray(fields["R"], dtype=np.float64).reshape(3, 3)
        T = np.asarray(fields["T"], dtype=np.float64).reshape(3, 1)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: does not tell how the cameras stand ({error!r}); {STEREO_EXPECTED}.") from error
    return np.array(inverted(checked_poses(path, np.hstack([R, T])[None]))[0])


class _OpenCV(yaml.SafeLoader):
    """YAML without objects, and OpenCV's matrices as arrays."""


def _matrix(loader: yaml.SafeLoader, node: yaml.MappingNode) -> NDArray[np.float64]:
    stored = loader.construct_mapping(node, deep=True)
    try:
        return np.array(stored["data"], dtype=np.float64).reshape(int(stored["rows"]), int(stored["cols"]))
    except (KeyError, TypeError, ValueError) as error:
        raise yaml.YAMLError(f"a matrix of OpenCV's cannot be read: {error!r}") from error


_OpenCV.add_constructor("tag:yaml.org,2002:opencv-matrix", _matrix)
