"""What a prepared picture shows of a recorded one: cropped, undistorted, rectified, at its own size."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from medssl.data.camera import Camera, project
from medssl.errors import InputError

Floats = NDArray[np.float64]


class View:
    """Samples full-size pictures so that they are those of a camera without distortion, of another size.

    Args:
        size: Height and width of the recorded picture.
        target: Height and width of the prepared one.
        camera: Of the recorded picture; without one the picture is only cropped and resized.
        box: Top, left, height and width of what is kept, pixels; all by default. Rectified cameras keep all.
        rectify: Rotation (3, 3) from the recorded camera's axes to the prepared one's; none by default.
        pinhole: The prepared camera, where two share one; by default that of the box.

    Attributes:
        camera: The prepared camera, where the recorded one is known.
        turn: As ``rectify``.
    """

    def __init__(
        self,
        size: tuple[int, int],
        target: tuple[int, int],
        camera: Camera | None = None,
        box: tuple[int, int, int, int] | None = None,
        rectify: Floats | None = None,
        pinhole: Camera | None = None,
    ) -> None:
        self.size, self.target, self.box = size, target, box or (0, 0, *size)
        self.camera: Camera | None = None
        self.turn = rectify
        self.grid: Tensor | None = None  # (1, H, W, 2) where to sample, -1 to 1
        if camera is None:
            return
        plain = camera.undistorted if camera.distortion != "none" else camera
        self.camera = (pinhole or plain.cropped(*self.box)).resized(*target)
        if camera.distortion != "none" or rectify is not None:
            self.box = (0, 0, *size)
            pixels = seen_by(camera, self.camera, np.eye(3) if rectify is None else rectify)  # (H, W, 2), full size
            scale = 2 / (np.array([size[1], size[0]]))
            self.grid = torch.from_numpy(((pixels + 0.5) * scale - 1).astype(np.float32))[None]

    def picture(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A recorded picture (H, W, 3) as the prepared one, (3, *target)."""
        shown = self._sample(_planes(frame), "bilinear")
        return shown.round().clamp(0, 255).to(torch.uint8).numpy()

    def mask(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """A mask (H, W) as the prepared one; only pixels that are wholly inside stay."""
        return (self._sample(_planes(mask[..., None].astype(np.float32)), "bilinear")[0] > 0.99).numpy()

    def nearest(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Values (H, W) or (H, W, C), NaN where unknown, as (C, *target) of the nearest pixels.

        Raises:
            InputError: The picture is undistorted or rectified, which exact values are not carried through.
        """
        if self.grid is not None:
            raise InputError("What is known exactly is of the picture as recorded, which needs another camera here.")
        top, left, height, width = self.box
        rows = top + ((np.arange(self.target[0]) + 0.5) * height / self.target[0]).astype(int)
        columns = left + ((np.arange(self.target[1]) + 0.5) * width / self.target[1]).astype(int)
        picked = values.reshape(*values.shape[:2], -1)[rows][:, columns]
        return np.ascontiguousarray(picked.transpose(2, 0, 1), dtype=np.float32)

    def _sample(self, planes: Tensor, mode: str) -> Tensor:
        """Bring (1, C, H, W) to (C, *target): averaged first where the target is smaller, so that nothing aliases."""
        if self.grid is None:
            top, left, height, width = self.box
            cut = planes[..., top : top + height, left : left + width]
            return F.interpolate(cut, self.target, mode=mode, antialias=True)[0]
        coarser = [max(t, 1) if t < n else n for t, n in zip(self.target, planes.shape[2:], strict=True)]
        small = F.interpolate(planes, coarser, mode=mode, antialias=True)
        return F.grid_sample(small, self.grid, mode=mode, padding_mode="zeros", align_corners=False)[0]


def seen_by(camera: Camera, prepared: Camera, rectify: Floats) -> Floats:
    """Where each pixel of the prepared camera lies in the recorded picture, (H, W, 2), x and y.

    Args:
        camera: Of the recorded picture, with its distortion.
        prepared: A camera without distortion.
        rectify: Rotation (3, 3) from the recorded camera's axes to the prepared one's.
    """
    y, x = np.mgrid[: prepared.height, : prepared.width].astype(float)
    rays = np.stack([(x - prepared.cx) / prepared.fx, (y - prepared.cy) / prepared.fy, np.ones_like(x)], -1)
    pixels = project(camera, rays @ rectify)  # rows times R is the inverse rotation of columns
    return np.where(np.isfinite(pixels), pixels, -2.0 * max(camera.width, camera.height))


def rectification(left: Camera, right: Camera, right_to_left: Floats) -> tuple[Floats, Floats, Camera] | None:
    """Turn both cameras of a pair so that a point lies in one row of both pictures.

    Fusiello, Trucco, Verri, "A compact algorithm for rectification of stereo pairs", Machine Vision and Applications
    2000: both look along the mean of what they looked along, across the line between them.

    Args:
        left: The first camera.
        right: The second one.
        right_to_left: Rigid transform (4, 4) between their axes.

    Returns:
        The rotation of each camera to the new axes, (3, 3), and the camera without distortion that both then are.
        ``None`` where the pair is rectified already.

    Raises:
        InputError: The second camera is not to the right of the first.
    """
    rotation, centre = right_to_left[:3, :3], right_to_left[:3, 3]
    if centre[0] <= 0 or abs(centre[0]) < max(abs(centre[1]), abs(centre[2])):
        raise InputError(
            f"The second camera stands at {np.round(centre, 3).tolist()} (x right, y down, z forward) of the first; it "
            "must be to its right. Swap the two, or invert the calibration's transform."
        )
    plain = left.distortion == right.distortion == "none"
    alike = np.isclose((left.fx, left.fy, left.cy), (right.fx, right.fy, right.cy), rtol=1e-4).all()
    if plain and alike and np.allclose(rotation, np.eye(3), atol=1e-5) and np.abs(centre[1:]).max() < 1e-4 * centre[0]:
        return None
    across = centre / np.linalg.norm(centre)
    forward = rotation[:, 2] + np.array([0.0, 0.0, 1.0])
    down = np.cross(forward, across)
    down /= np.linalg.norm(down)
    turn = np.stack([across, down, np.cross(across, down)])  # rows are the new axes, in the left camera's
    focal = (left.fx + left.fy + right.fx + right.fy) / 4
    shared = replace(
        left.undistorted if left.distortion != "none" else left,
        fx=focal,
        fy=focal,
        cx=(left.cx + right.cx) / 2,
        cy=(left.cy + right.cy) / 2,
    )
    return turn, turn @ rotation, shared


def _planes(values: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1))).float()[None]
