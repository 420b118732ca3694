"""The surface where averaged distances cross 0, by marching cubes over blocks of voxels, a chunk at a time.

Lewiner et al., "Efficient Implementation of Marching Cubes' Cases with Topological Guarantees", Journal of Graphics
Tools 2003, as scikit-image has it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from medssl.data.sequence import Unit
from medssl.errors import InputError
from medssl.extras import require_module
from medssl.reconstruction.mesh import Mesh, vertex_normals

BLOCK = 8  # voxels along a block's edge
_CHUNK_BLOCKS = 16  # blocks along a chunk's edge: chunks of 128^3 voxels, 60 MiB while they are looked at
_CHUNK = _CHUNK_BLOCKS * BLOCK
_SAME_WITHIN = 1e-3  # voxels


class Channel(IntEnum):
    """What is summed at each voxel; colours are weighted by their own weight."""

    DISTANCE = 0
    WEIGHT = 1
    RED = 2
    GREEN = 3
    BLUE = 4
    COLOUR_WEIGHT = 5


@dataclass(frozen=True, eq=False)
class Blocks:
    """Voxels in blocks of 8^3.

    Attributes:
        index: The place of each of the grid's blocks (X, Y, Z) in the arrays below, -1 for none.
        sums: (B, 512, channels), voxels in order x, y, z with z fastest.
        frames: How many frames saw each voxel, (B, 512).
    """

    index: NDArray[np.int32]
    sums: NDArray[np.float32]
    frames: NDArray[np.uint16]


def extract(blocks: Blocks, origin: NDArray[np.float64], voxel_size: float, unit: Unit, min_frames: int = 1) -> Mesh:
    """Mesh the surface between voxels below 0 and above 0; cubes with an unseen corner hold none.

    Args:
        blocks: The averaged distances.
        origin: Of the first voxel, in the world, (3,).
        voxel_size: Edge of a voxel.
        unit: Of the world.
        min_frames: Voxels that fewer frames saw are unseen.

    Raises:
        InputError: There is no surface, or scikit-image is not installed.
    """
    vertices, faces, colours = [], [], []
    count = 0
    for start in _occupied_chunks(blocks.index):
        piece = _march(*_gather(blocks, start), min_frames)
        if piece is not None:
            vertices.append(piece[0].astype(np.float64) + start * BLOCK)
            faces.append(piece[1].astype(np.int64) + count)
            colours.append(piece[2])
            count += len(piece[0])
    if not count:
        raise InputError(
            "No surface was found: no voxel in front of one was seen beside one behind it. Check that poses are camera "
            "to world, that depth and poses share one unit, and that the bounds hold the scene."
        )
    first, joined = _weld(np.concatenate(vertices), np.concatenate(faces))
    placed = (origin + np.concatenate(vertices)[first] * voxel_size).astype(np.float32)
    return Mesh(placed, joined, vertex_normals(placed, joined), np.concatenate(colours)[first], unit)


def _occupied_chunks(index: NDArray[np.int32]) -> Iterator[NDArray[np.int64]]:
    """The first block (3,) of each chunk that holds any."""
    for start in product(*(range(0, n, _CHUNK_BLOCKS) for n in index.shape)):
        chunk = index[tuple(slice(s, s + _CHUNK_BLOCKS) for s in start)]
        if (chunk >= 0).any():
            yield np.array(start, dtype=np.int64)


def _gather(blocks: Blocks, start: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.uint16]]:
    """A chunk's voxels, with the first layer of the next ones: sums (129, 129, 129, channels) and counts."""
    index = np.full((_CHUNK_BLOCKS + 1,) * 3, -1, dtype=np.int32)
    inside = blocks.index[tuple(slice(s, s + _CHUNK_BLOCKS + 1) for s in start)]
    index[tuple(slice(n) for n in inside.shape)] = inside
    x, y, z = np.nonzero(index >= 0)
    cube = (len(x), BLOCK, BLOCK, BLOCK)
    sums = np.zeros((_CHUNK_BLOCKS + 1, BLOCK) * 3 + (len(Channel),), dtype=np.float32)
    frames = np.zeros((_CHUNK_BLOCKS + 1, BLOCK) * 3, dtype=np.uint16)
    sums[x, :, y, :, z] = blocks.sums[index[x, y, z]].reshape(*cube, -1)
    frames[x, :, y, :, z] = blocks.frames[index[x, y, z]].reshape(cube)
    whole = (len(index) * BLOCK,) * 3
    kept = (slice(_CHUNK + 1),) * 3
    return sums.reshape(*whole, -1)[kept], frames.reshape(whole)[kept]


def _march(
    sums: NDArray[np.float32], frames: NDArray[np.uint16], min_frames: int
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.uint8]] | None:
    """Vertices in voxels (V, 3), faces (F, 3) and colours (V, 3) of one chunk; ``None`` where it holds no surface."""
    seen = (sums[..., Channel.WEIGHT] > 0) & (frames >= min_frames)
    distance = sums[..., Channel.DISTANCE] / np.where(seen, sums[..., Channel.WEIGHT], 1)
    whole = _cubes(seen, np.logical_and)
    # marching_cubes counts 0 among what lies behind the surface.
    crossed = whole & _cubes(seen & (distance <= 0), np.logical_or) & _cubes(seen & (distance > 0), np.logical_or)
    if not crossed.any():
        return None
    mask = np.zeros(seen.shape, dtype=bool)
    mask[1:, 1:, 1:] = crossed  # marching_cubes looks for a cube's mask at its last corner
    measure = require_module("skimage.measure", "endoscopy")
    vertices, faces, _, _ = measure.marching_cubes(distance, 0.0, mask=mask, gradient_direction="descent")
    channels = [Channel.RED, Channel.GREEN, Channel.BLUE, Channel.COLOUR_WEIGHT]
    *colour, weight = (map_coordinates(sums[..., c], vertices.T, order=1, mode="nearest") for c in channels)
    colours = np.stack(colour, axis=-1) / np.maximum(weight, np.finfo(np.float32).tiny)[:, None]
    return vertices, faces, np.clip(np.rint(colours), 0, 255).astype(np.uint8)


def _cubes(corners: NDArray[np.bool_], combine: np.ufunc) -> NDArray[np.bool_]:
    """Combine the eight corners of every cube; each axis is shorter by one."""
    for axis in range(3):
        n = corners.shape[axis]
        corners = combine(corners.take(range(n - 1), axis), corners.take(range(1, n), axis))
    return corners


def _weld(vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Join vertices in one place: those that neighbouring chunks both made, and those around a voxel that is just 0.

    Returns:
        Which vertices stay (V',), and the faces (F', 3) among them, without those that have lost their area.
    """
    pairs = cKDTree(vertices).query_pairs(_SAME_WITHIN, output_type="ndarray")
    links = coo_matrix((np.ones(len(pairs)), pairs.T), shape=(len(vertices),) * 2)
    _, place = connected_components(links, directed=False)
    joined = place[faces]
    joined = joined[(joined != np.roll(joined, 1, axis=1)).all(axis=1)]
    first = np.unique(place, return_index=True)[1]
    used, joined = np.unique(joined, return_inverse=True)
    return first[used], joined.reshape(-1, 3).astype(np.int32)
