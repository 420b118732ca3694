"""Reconstructions of COLMAP and pycolmap, with the pictures or the video that they were made of.

COLMAP puts the centre of the first pixel at (0.5, 0.5) and keeps poses from world to camera; both are turned into
medssl's conventions here. Camera models: https://colmap.github.io/cameras.html. No unit.
"""

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssl.data.camera import Camera, Distortion
from medssl.data.formats import PICTURE_SUFFIXES
from medssl.data.frames import PictureFrames
from medssl.data.poses import assembled, at_frames, inverted, require_registered
from medssl.data.sequence import Frames, SparsePoints, VideoSequence
from medssl.errors import InputError
from medssl.extras import require_module

logger = logging.getLogger(__name__)

# Each model's parameters after the focal lengths and the principal point, as OpenCV's coefficients.
_MODELS: dict[str, tuple[bool, Distortion, int]] = {  # one focal length for both axes, the distortion, its coefficients
    "SIMPLE_PINHOLE": (True, "none", 0),
    "PINHOLE": (False, "none", 0),
    "SIMPLE_RADIAL": (True, "radial-tangential", 4),
    "RADIAL": (True, "radial-tangential", 4),
    "OPENCV": (False, "radial-tangential", 4),
    "FULL_OPENCV": (False, "radial-tangential", 8),
    "SIMPLE_RADIAL_FISHEYE": (True, "fisheye", 4),
    "RADIAL_FISHEYE": (True, "fisheye", 4),
    "OPENCV_FISHEYE": (False, "fisheye", 4),
}
_HALF_PIXEL = 0.5
_NUMBER = re.compile(r"(\d+)\D*$")


def is_colmap_folder(folder: Path) -> bool:
    """Whether a folder holds a reconstruction, or the sub-models of one (``0``, ``1``, ..., also in ``sparse``)."""
    return bool(_model_folders(folder))


def colmap_sequence(folder: Path, images: Path | None = None) -> VideoSequence:
    """Read a reconstruction, the largest of several sub-models, as a sequence; the others are logged.

    Args:
        folder: With cameras, images and points3D as .bin or .txt, or with one sub-folder per sub-model.
        images: The folder of the pictures, or the video whose frame i has the name that ends in i; by default
            ``images`` beside the reconstruction. Frames that are not registered have no pose.

    Raises:
        InputError: There is no reconstruction, its camera model is not known or not single, a picture is missing, or
            fewer than three frames are registered.
    """
    model, path = _largest(folder)
    pictures = images or _images_beside(folder)
    registered = [model.images[number] for number in sorted(model.images) if model.images[number].has_pose]
    if not registered:
        raise InputError(f"{path}: no frame is registered.")
    camera = _camera(path, model, registered)
    frames, place = _frames(path, pictures, [image.name for image in registered])
    if frames.size != (camera.height, camera.width):
        raise InputError(
            f"{pictures}: the frames are {frames.size[1]}x{frames.size[0]}, the reconstruction's "
            f"{camera.width}x{camera.height}. Give the pictures that it was made of."
        )
    numbers = [place[image.name] for image in registered]
    moved = [np.asarray(image.cam_from_world().matrix(), dtype=np.float64) for image in registered]
    to_camera = assembled(np.array([m[:, :3] for m in moved]), np.array([m[:, 3] for m in moved]))
    poses = at_frames(inverted(to_camera), numbers, len(frames))
    require_registered(path, poses)
    name = folder.name if folder.name not in ("sparse", "0") else folder.resolve().parent.name
    return VideoSequence(
        name=name,
        subject=name,
        frames=frames,
        camera=camera,
        poses=poses,
        points=_points(model, {image.image_id: n for image, n in zip(registered, numbers, strict=True)}),
    )


def _model_folders(folder: Path) -> list[Path]:
    places = [folder, *sorted(folder.glob("[0-9]*")), folder / "sparse", *sorted(folder.glob("sparse/[0-9]*"))]
    return [
        place
        for place in places
        if any(
            all((place / f"{part}.{kind}").is_file() for part in ("cameras", "images", "points3D"))
            for kind in ("bin", "txt")
        )
    ]


def _largest(folder: Path) -> tuple[Any, Path]:
    pycolmap = require_module("pycolmap", "endoscopy")
    models = []
    for path in _model_folders(folder):
        try:
            models.append((pycolmap.Reconstruction(path), path))
        except (ValueError, RuntimeError, IndexError, MemoryError) as error:
            raise InputError(f"{path}: cannot be read as a reconstruction ({error}). Copy it again.") from error
    if not models:
        raise InputError(
            f"{folder}: holds no reconstruction; cameras, images and points3D as .bin or .txt are expected."
        )
    models.sort(key=lambda one: -one[0].num_reg_images())
    if rest := [f"{path.name} with {model.num_reg_images()}" for model, path in models[1:]]:
        kept, path = models[0]
        logger.warning(
            "%s: of %d sub-models the largest is read, %s with %d frames; not read: %s.",
            *(folder, len(models), path.name, kept.num_reg_images(), ", ".join(rest)),
        )
    return models[0]


def _camera(path: Path, model: Any, registered: list[Any]) -> Camera:
    used = {image.camera_id for image in registered}
    if len(used) != 1:
        raise InputError(
            f"{path}: its frames have {len(used)} cameras; one for the whole sequence is expected. Reconstruct with a "
            "single camera (COLMAP: --ImageReader.single_camera 1)."
        )
    stored = model.cameras[used.pop()]
    if stored.model_name not in _MODELS:
        raise InputError(f"{path}: the camera model {stored.model_name} is not known; {', '.join(_MODELS)} are.")
    one_focal, distortion, count = _MODELS[stored.model_name]
    fx, *rest = (float(value) for value in stored.params)
    fy, cx, cy, *given = [fx, *rest] if one_focal else rest
    coefficients = (*given, *(0.0,) * (count - len(given)))
    return Camera(stored.width, stored.height, fx, fy, cx - _HALF_PIXEL, cy - _HALF_PIXEL, distortion, coefficients)


def _images_beside(folder: Path) -> Path:
    places = [place / "images" for place in (folder, *folder.resolve().parents[:2])]
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        raise InputError(
            f"{folder}: no folder named images lies beside the reconstruction. Say where its pictures are."
        )
    return found


def _frames(path: Path, pictures: Path, names: list[str]) -> tuple[Frames, dict[str, int]]:
    """All frames, and the place among them of each registered name."""
    if pictures.is_dir():
        files = sorted(file for file in pictures.rglob("*") if file.suffix.lower() in PICTURE_SUFFIXES)
        place = {file.relative_to(pictures).as_posix(): i for i, file in enumerate(files)}
        if missing := [name for name in names if name not in place]:
            raise InputError(
                f"{pictures}: {len(missing)} of {len(names)} registered pictures are missing: {missing[0]}."
            )
        return PictureFrames(tuple(files)), place
    from medssl.data.video import open_frames

    frames = open_frames(pictures)
    found = {name: _NUMBER.search(Path(name).stem) for name in names}
    place = {name: int(match[1]) for name, match in found.items() if match}
    if len(place) != len(names) or max(place.values()) >= len(frames) or len(set(place.values())) != len(names):
        raise InputError(
            f"{path}: its names, such as {names[0]}, do not give the frames of {pictures}, of which there are "
            f"{len(frames)}: each must end in its frame's number, from 0. Give the folder of pictures instead."
        )
    return frames, place


def _points(model: Any, frame_of: dict[int, int]) -> SparsePoints:
    positions: list[Any] = []
    seen: list[tuple[int, int]] = []
    pixels: list[Any] = []
    for number in sorted(model.points3D):
        point = model.points3D[number]
        for element in point.track.elements:
            if element.image_id in frame_of:
                seen.append((len(positions), frame_of[element.image_id]))
                pixels.append(model.images[element.image_id].points2D[element.point2D_idx].xy)
        positions.append(point.xyz)
    where = np.array(pixels, dtype=np.float64).reshape(-1, 2) - _HALF_PIXEL
    return SparsePoints(_rows(positions, 3), np.array(seen, dtype=np.int64).reshape(-1, 2), where)


def _rows(values: list[Any], width: int) -> NDArray[np.float64]:
    return np.array(values, dtype=np.float64).reshape(-1, width)
