"""A camera before three textured walls that meet in a corner, ray-cast: small frames whose poses are known."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from medssl.data.camera import Camera, directions_of

CAMERA = Camera(200, 160, 150.0, 150.0, 101.0, 78.0)
_AWAY = np.array([2.0, 1.5, 6.0])  # of the walls from the origin, along x, y and z


@dataclass(frozen=True)
class ListedFrames:
    """Frames that are held in memory, 25 per second."""

    pictures: Sequence[NDArray[np.uint8]]

    @property
    def size(self) -> tuple[int, int]:
        return self.pictures[0].shape[:2]

    @property
    def times(self) -> NDArray[np.float64]:
        return np.arange(len(self.pictures)) / 25

    @property
    def damaged(self) -> tuple[int, ...]:
        return ()

    def __len__(self) -> int:
        return len(self.pictures)

    def read(self, indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        return iter([self.pictures[index] for index in indices])


def arc(count: int, step: float = 0.22) -> NDArray[np.float64]:
    """Camera to world, (count, 4, 4): sideways and forward, looking at the corner all the while."""
    at = step * np.arange(count)
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, :3, 3] = np.stack([at - 1.5, 0.3 * np.sin(2 * at), 0.15 * at], axis=1)
    poses[:, :3, :3] = Rotation.from_euler("yx", np.stack([-0.1 * at, 0.03 * np.sin(at)], axis=1)).as_matrix()
    return poses


def turning(count: int) -> NDArray[np.float64]:
    """Camera to world, (count, 4, 4), of a camera that only turns."""
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, :3, :3] = Rotation.from_euler("y", 0.03 * np.arange(count)[:, None]).as_matrix()
    return poses


def filmed(poses: NDArray[np.float64], camera: Camera = CAMERA, seed: int = 0) -> list[NDArray[np.uint8]]:
    """What the camera sees from each pose, (H, W, 3), with the walls that the seed paints."""
    walls = [_texture(seed + i) for i in range(3)]
    y, x = np.mgrid[: camera.height, : camera.width].astype(float)
    directions = directions_of(camera, np.stack([x, y], axis=-1)).reshape(-1, 2)
    rays = np.concatenate([directions, np.ones((len(directions), 1))], axis=1)
    return [_seen(pose, rays, walls).reshape(camera.height, camera.width, 3) for pose in poses]


def _seen(pose: NDArray[np.float64], rays: NDArray[np.float64], walls: list[NDArray[np.float64]]) -> NDArray[np.uint8]:
    turned = rays @ pose[:3, :3].T
    with np.errstate(divide="ignore", invalid="ignore"):
        along = (_AWAY - pose[:3, 3]) / turned  # (n, 3), to each wall
    along[~(along > 0)] = np.inf
    nearest = along.argmin(axis=1)
    points = pose[:3, 3] + turned * along.min(axis=1, keepdims=True)
    grey = np.zeros(len(rays))
    for wall, texture in enumerate(walls):
        here = nearest == wall
        plane = np.delete(points[here], wall, axis=1).T * 60
        grey[here] = ndimage.map_coordinates(texture, plane, order=1, mode="grid-wrap")
    return np.repeat(np.rint(grey)[:, None], 3, axis=1).astype(np.uint8)


def _texture(seed: int) -> NDArray[np.float64]:
    random = np.random.default_rng(seed)
    layers = [ndimage.gaussian_filter(random.normal(size=(512, 512)), s, mode="wrap") * s for s in (2, 4, 8, 16)]
    return np.asarray(np.clip(120 + 110 * sum(layers), 20, 225))
