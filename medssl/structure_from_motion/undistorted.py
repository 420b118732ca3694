"""A reconstruction becomes a recording that medssl and COLMAP read: straight pictures, poses, points, a mask."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssl.data.camera import Camera, directions_of
from medssl.data.sequence import Frames
from medssl.data.view import View
from medssl.extras import require_module
from medssl.files import write_aside, write_json
from medssl.structure_from_motion.lens import HALF_PIXEL, colmap_parameters
from medssl.structure_from_motion.pictures import picture_name, save_png


def write_recording(
    model: Any, lens: Camera, frames: Frames, registered: Sequence[int], mask: NDArray[np.bool_], out: Path
) -> None:
    """Write a reconstruction at the video's own size, whole or not at all.

    ``images/<frame>.png``, the registered frames; ``sparse/``, the model in COLMAP's binary form; ``mask.png``;
    ``camera.json``, of these pictures; ``lens.json``, of the video's.

    Args:
        model: COLMAP's (``pycolmap.Reconstruction``), of reduced pictures; it is changed.
        lens: Of the video's pictures.
        frames: Of the video.
        registered: Frames with a pose, ascending.
        mask: Where the video shows the body, (H, W).
        out: Folder to write to.
    """
    view = View(frames.size, frames.size, lens)
    with write_aside(out / "images") as aside:
        aside.mkdir()
        undistort_model(model, lens)
        _paint(model, _undistorted(frames, registered, view, aside))
    with write_aside(out / "sparse") as aside:
        aside.mkdir()
        model.write_binary(aside)
    save_png(np.asarray(view.mask(mask) * np.uint8(255)), out / "mask.png")
    write_json(out / "camera.json", vars(lens.undistorted))
    write_json(out / "lens.json", vars(lens))


def undistort_model(model: Any, lens: Camera) -> None:
    """Give a model of pictures of any size the straight camera of ``lens``; what it cannot see is left out."""
    pycolmap = require_module("pycolmap", "endoscopy")
    (camera,) = model.cameras.values()
    scale = np.array([lens.width / camera.width, lens.height / camera.height])
    straight = lens.undistorted
    for image in model.images.values():
        if not image.num_points2D():
            continue
        pixels = np.array([point.xy for point in image.points2D]) * scale - HALF_PIXEL
        moved = straight.matrix[[0, 1], [0, 1]] * directions_of(lens, pixels) + straight.matrix[:2, 2] + HALF_PIXEL
        for index, (point, at) in enumerate(zip(image.points2D, moved, strict=True)):
            if np.isfinite(at).all():
                point.xy = at
            elif point.has_point3D():
                model.delete_observation(image.image_id, index)
    name, parameters = colmap_parameters(straight)
    camera.model = getattr(pycolmap.CameraModelId, name)
    camera.width, camera.height, camera.params = lens.width, lens.height, list(parameters)
    model.update_point_3d_errors()


def _undistorted(
    frames: Frames, registered: Sequence[int], view: View, folder: Path
) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Write the registered frames without distortion; gives each with its name, (H, W, 3)."""
    for number, frame in zip(registered, frames.read(registered), strict=True):
        picture = np.ascontiguousarray(view.picture(frame).transpose(1, 2, 0))
        save_png(picture, folder / picture_name(number))
        yield picture_name(number), picture


def _paint(model: Any, pictures: Iterator[tuple[str, NDArray[np.uint8]]]) -> None:
    """Give each point the mean colour of where it was seen."""
    sums = {number: np.zeros(4) for number in model.points3D}
    numbers = {image.name: number for number, image in model.images.items()}
    for name, picture in pictures:
        height, width = picture.shape[:2]
        for point in model.images[numbers[name]].points2D:
            if point.has_point3D():
                x, y = np.rint(np.asarray(point.xy) - HALF_PIXEL).astype(int)
                seen = picture[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)]
                sums[point.point3D_id] += (*seen, 1)
    for number, total in sums.items():
        model.points3D[number].color = np.rint(total[:3] / max(total[3], 1)).astype(np.uint8)
