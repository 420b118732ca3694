"""Fuse depth maps into one surface: a signed distance, averaged over views, on voxels near the surface alone.

Curless & Levoy, "A Volumetric Method for Building Complex Models from Range Images", SIGGRAPH 1996: the average, its
weights, and unseen space kept apart. Nießner et al., "Real-time 3D Reconstruction at Scale using Voxel Hashing",
SIGGRAPH Asia 2013: memory in blocks, only where there is a surface. Bylow et al., "Real-Time Camera Tracking and 3D
Reconstruction Using Signed Distance Functions", RSS 2013: the distance to the tangent plane of the voxel's pixel. Along
the line of sight, as is usual, it would be too long wherever a tube's wall is seen at a grazing angle.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssl.data.sequence import Unit
from medssl.errors import InputError
from medssl.reconstruction.depth_view import DepthView, TangentPlanes, tangent_planes, to_camera, to_world
from medssl.reconstruction.isosurface import BLOCK, Blocks, Channel, extract
from medssl.reconstruction.mesh import Mesh

_VOXELS = BLOCK**3
_CHANNELS = len(Channel)
_BYTES_PER_VOXEL = _CHANNELS * 4 + 2  # float32 sums, and the count of frames
_MOST_INDEXED_BLOCKS = 2**26  # an index of 256 MiB
_BATCH_BLOCKS = 512  # so that what is computed on the way stays in the processor's cache, about 4 MiB


class TSDF:
    """A truncated signed distance function: above 0 in free space, below 0 in tissue, unknown where nothing looked.

    Voxels are held in blocks of 8^3 that lie within the truncation of some surface, at 26 bytes a voxel, 13 kB a block.
    A 256^3 grid held whole would be 416 MiB; of one around a tube's wall 3 to 13 % are held, around a sphere's some
    30 %. Memory for voxels never passes ``most_bytes`` (half as much again for a moment, while it grows).

    Each frame adds to sums, so their order does not matter, and frames may come one at a time. A view counts by the
    cosine of its angle to the surface over its depth (Newcombe et al., "KinectFusion", ISMAR 2011): head-on and close
    beat grazing and far. Space that a view saw through is emptied in blocks that exist by then.

    Args:
        bounds: Lowest and highest corner of the box along the world's axes, (2, 3); `scene_bounds` measures one. What
            lies outside is left out.
        voxel_size: Edge of a voxel, in the scene's unit; ``None`` for 1/256 of the box's longest edge.
        unit: Of all lengths.
        truncation_voxels: How far from a surface distances are kept, in voxels; more than the depth's errors.
        min_cosine: Pixels seen at a smaller cosine are left out: grazing ones, and those across a jump in depth.
        most_bytes: Of memory for voxels.

    Raises:
        InputError: The box is empty, or has too many voxels to count.
    """

    def __init__(
        self,
        bounds: NDArray[np.float64],
        voxel_size: float | None = None,
        unit: Unit = "unknown",
        truncation_voxels: float = 4.0,
        min_cosine: float = 0.1,
        most_bytes: int = 2**30,
    ) -> None:
        extent = bounds[1] - bounds[0]
        if not np.isfinite(bounds).all() or extent.min() <= 0:
            raise InputError(f"The bounds of a scene are its lowest and highest corner, (2, 3); got {bounds.tolist()}.")
        self.voxel_size = float(extent.max() / 256 if voxel_size is None else voxel_size)
        if self.voxel_size <= 0 or truncation_voxels < 1 or not 0 < min_cosine < 1:
            raise InputError(
                "A voxel_size above 0, at least 1 truncation_voxels and a min_cosine between 0 and 1 are needed; got "
                f"{self.voxel_size:g}, {truncation_voxels:g} and {min_cosine:g}."
            )
        self.unit, self.min_cosine, self.most_bytes = unit, min_cosine, most_bytes
        self.truncation = truncation_voxels * self.voxel_size
        self.origin = bounds[0].astype(np.float64)
        grid = np.ceil(extent / (BLOCK * self.voxel_size)).astype(np.int64)
        if grid.prod() > _MOST_INDEXED_BLOCKS:
            raise InputError(
                f"Voxels of {self.voxel_size:g} divide the scene of {' x '.join(f'{e:g}' for e in extent)} too finely "
                f"({' x '.join(str(n * BLOCK) for n in grid)} voxels). Use a greater voxel_size or smaller bounds."
            )
        self._index = np.full(grid, -1, dtype=np.int32)  # of each block's place in the arrays below, -1 for none
        self._places = np.empty((0, 3), dtype=np.int32)  # of each block in the grid
        self._sums = np.zeros((0, _VOXELS, _CHANNELS), dtype=np.float32)
        self._frames = np.zeros((0, _VOXELS), dtype=np.uint16)

    @property
    def held_bytes(self) -> int:
        """Memory of the voxels held."""
        return len(self._sums) * _VOXELS * _BYTES_PER_VOXEL

    def integrate(self, view: DepthView) -> None:
        """Add what one view saw.

        Raises:
            InputError: The surface needs more memory than allowed; what was added before stays.
        """
        planes = tangent_planes(view)
        seen = planes.cosine >= self.min_cosine
        if not seen.any():
            return
        self._hold(to_world(planes.points[seen], view.pose))
        frame = _Frame(view, planes, seen)
        blocks = self._in_view(view, float(planes.points[seen][:, 2].max()))
        for batch in np.array_split(blocks, max(1, -(-len(blocks) // _BATCH_BLOCKS))):
            self._add(frame, batch)

    def mesh(self, min_frames: int = 1) -> Mesh:
        """The surface between free space and tissue, where both were seen; normals point into free space.

        Args:
            min_frames: Voxels that fewer frames saw count as unseen; 2 or more take out what a single frame imagined.

        Raises:
            InputError: There is no surface, or scikit-image is not installed.
        """
        blocks = Blocks(self._index, self._sums, self._frames)
        return extract(blocks, self.origin, self.voxel_size, self.unit, min_frames)

    def _hold(self, points: NDArray[np.float64]) -> None:
        """Hold every block within the truncation of a point (n, 3) in the world."""
        wanted = np.zeros(self._index.shape, dtype=bool)
        reach = self.truncation / self.voxel_size / BLOCK
        scaled = ((points - self.origin) / (self.voxel_size * BLOCK)).astype(np.float32)
        steps = np.linspace(-reach, reach, int(np.ceil(2 * reach)) + 1)
        for step in np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3):
            at = np.floor(scaled + step).astype(np.int32)
            at = at[((at >= 0) & (at < wanted.shape)).all(axis=1)]
            wanted[at[:, 0], at[:, 1], at[:, 2]] = True
        new = np.argwhere(wanted & (self._index < 0)).astype(np.int32)
        count = len(self._places)
        self._grow(count + len(new))
        self._index[tuple(new.T)] = np.arange(count, count + len(new))
        self._places = np.concatenate([self._places, new])

    def _grow(self, count: int) -> None:
        """Make room for that many blocks."""
        most = self.most_bytes // (_VOXELS * _BYTES_PER_VOXEL)
        if count > most:
            raise InputError(
                f"The surface needs more than the {self.most_bytes / 2**20:.0f} MiB allowed for voxels of "
                f"{self.voxel_size:g}. Use a greater voxel_size, smaller bounds, or more most_bytes."
            )
        if count > len(self._sums):
            more = min(most, max(count, 2 * len(self._sums))) - len(self._sums)
            self._sums = np.concatenate([self._sums, np.zeros((more, _VOXELS, _CHANNELS), dtype=np.float32)])
            self._frames = np.concatenate([self._frames, np.zeros((more, _VOXELS), dtype=np.uint16)])

    def _in_view(self, view: DepthView, furthest: float) -> NDArray[np.int64]:
        """The blocks that reach into the pyramid of what the view saw, (n,)."""
        edge = BLOCK * self.voxel_size
        centres = to_camera(self.origin + (self._places + 0.5) * edge, view.pose)
        radius = edge * 3**0.5 / 2
        behind = furthest + self.truncation / self.min_cosine  # along a line of sight that grazes the surface
        inside = (centres[:, 2] > -radius) & (centres[:, 2] < behind + radius)
        for axis, pixels in enumerate(reversed(view.depth.shape)):
            f, c = view.intrinsics[axis, axis], view.intrinsics[axis, 2]
            for sign, border in ((1, -0.5), (-1, pixels - 0.5)):  # sign * (pixel - border) >= 0 inside the picture
                a, b = sign * f, sign * (c - border)
                inside &= (a * centres[:, axis] + b * centres[:, 2]) / np.hypot(a, b) > -radius
        return np.flatnonzero(inside)

    def _add(self, frame: "_Frame", blocks: NDArray[np.int64]) -> None:
        """Add a frame to the voxels of some blocks."""
        corners = self.origin + self._places[blocks] * (BLOCK * self.voxel_size)
        within = np.stack(np.meshgrid(*[np.arange(BLOCK)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
        voxels, pixels, distances = frame.look_up(corners, within * self.voxel_size)
        near = np.flatnonzero(distances > -self.truncation)
        voxels, pixels, distances = voxels[near], pixels[near], distances[near]
        weights = frame.weights[pixels]
        added = np.empty((len(voxels), _CHANNELS), dtype=np.float32)
        added[:, Channel.DISTANCE] = np.minimum(distances, self.truncation) * weights
        added[:, Channel.WEIGHT] = weights
        weights[distances > self.truncation] = 0  # an empty voxel has no colour
        added[:, Channel.COLOUR_WEIGHT] = weights
        added[:, Channel.RED : Channel.BLUE + 1] = frame.colours[pixels] * weights[:, None]
        at = blocks[voxels // _VOXELS] * _VOXELS + voxels % _VOXELS
        self._sums.reshape(-1, _CHANNELS)[at] += added  # a voxel occurs once
        counts = self._frames.reshape(-1)
        counts[at] += counts[at] < np.iinfo(np.uint16).max


class _Frame:
    """A view as tables by pixel, for many voxels to look themselves up in."""

    def __init__(self, view: DepthView, planes: TangentPlanes, seen: NDArray[np.bool_]) -> None:
        self.view = view
        self.weights = (planes.cosine / np.where(seen, planes.points[..., 2], 1)).reshape(-1)
        self.colours = view.colour.reshape(-1, 3).astype(np.float32)
        # n.x = (K^-T n).(K x), and K x = z (u, v, 1): planes for voxels that are known by their pixel and z.
        slopes = planes.normals @ np.linalg.inv(view.intrinsics).astype(np.float32)
        offsets = np.einsum("hwc,hwc->hw", planes.normals, planes.points)
        table = np.concatenate([slopes, offsets[..., None]], axis=-1).astype(np.float32)
        table[~seen] = (0, 0, 0, np.inf)  # infinitely deep in tissue: unseen
        self._table = table.reshape(-1, 4)

    def look_up(
        self, corners: NDArray[np.float64], within: NDArray[np.floating[Any]]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """Find the distance of voxels to the tangent plane of their pixel.

        Args:
            corners: Of blocks, in the world, (n, 3).
            within: Of a block's voxels, from its corner, (m, 3).

        Returns:
            For each voxel in the picture: its place among n * m, its pixel's among H * W, its distance (-inf unseen).
        """
        height, width = self.view.depth.shape
        axes = self.view.intrinsics @ self.view.pose[:3, :3].T
        start = ((corners - self.view.pose[:3, 3]) @ axes.T).astype(np.float32)
        step = (within @ axes.T).astype(np.float32)
        z_u, z_v, z = (start[:, None, axis] + step[:, axis] for axis in range(3))  # each (n, m)
        front = np.maximum(z, np.float32(1e-12))
        u, v = z_u / front, z_v / front
        inside = (z > 0) & (u > -0.5) & (u < width - 0.5) & (v > -0.5) & (v < height - 0.5)
        voxels = np.flatnonzero(inside)
        u, v, z = u.reshape(-1)[voxels], v.reshape(-1)[voxels], z.reshape(-1)[voxels]
        pixels = np.rint(v).astype(np.int64) * width + np.rint(u).astype(np.int64)
        slope_u, slope_v, slope, offset = self._table[pixels].T
        distances: NDArray[Any] = z * (slope_u * u + slope_v * v + slope) - offset
        return voxels, pixels, distances
