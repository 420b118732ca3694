"""Depth maps of a recording on disk: written frame by frame, read back one at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tqdm import tqdm

from medssl.data.prepared_recordings import PreparedRecordings
from medssl.data.sparse_points import shown_points
from medssl.depth_results.cameras import Asked, Cameras, choose_cameras, require_poses
from medssl.errors import InputError
from medssl.evaluation.depth import sample_at
from medssl.files import write_aside, write_json
from medssl.reconstruction.depth_view import DepthView
from medssl.video_inference import DepthInference

_LARGEST = 2**16 - 1
_SAMPLES = 500  # values of each frame that the colours' range is found from
_RANGE = (2, 98)  # percentiles that the colours span


@dataclass(frozen=True, eq=False)
class DepthMaps:
    """The depth of a recording, on disk.

    Attributes:
        out: Holds ``depth`` and ``valid``.
        data: The prepared recordings.
        i: Which of them.
        cameras: Poses and scale of the depth.
        path: The camera's path as the method itself sees it move, (N, 4, 4), or ``None``.
        limits: Depths that colours span, the same for all frames.
        valid_share: Of each frame's pixels, (N,).
    """

    out: Path
    data: PreparedRecordings
    i: int
    cameras: Cameras
    path: NDArray[np.float64] | None
    limits: tuple[float, float]
    valid_share: NDArray[np.float64]

    def __len__(self) -> int:
        """The number of frames."""
        return self.data.frames(self.i)

    def number(self, t: int) -> int:
        """Which frame of the recording itself the prepared frame ``t`` is, counted from 0; its files are named so."""
        return t * self.data.preparation.every

    def depth(self, t: int) -> NDArray[np.float32]:
        """Depth of frame ``t``, (H, W), in the cameras' unit; NaN where unknown."""
        depth: NDArray[np.float32] = np.load(_npy(self.out / "depth", self.number(t)), allow_pickle=False)
        return depth

    def predicted(self, t: int) -> NDArray[np.float64]:
        """The same as the method told it, before it was scaled."""
        predicted: NDArray[np.float64] = self.depth(t) / self.cameras.factors[t]
        return predicted

    def picture(self, t: int) -> NDArray[np.uint8]:
        """Frame ``t`` in colours, (H, W, 3)."""
        return self.data.frame(self.i, t).transpose(1, 2, 0)

    def valid(self, t: int) -> NDArray[np.bool_]:
        """Where frame ``t`` can be trusted, (H, W)."""
        return self.data.valid(self.i, t)


@dataclass(frozen=True, eq=False)
class Views:
    """Frames with poses as views of one scene; read one at a time, as often as asked for.

    Attributes:
        maps: Of the recording.
        times: Which frames; each has a pose.
        intrinsics: (3, 3).
        poses: Of all frames, (N, 4, 4).
    """

    maps: DepthMaps
    times: Sequence[int]
    intrinsics: NDArray[np.float64]
    poses: NDArray[np.float64]

    def __len__(self) -> int:
        """The number of views."""
        return len(self.times)

    def __iter__(self) -> Iterator[DepthView]:
        """Read them."""
        maps = self.maps
        for t in self.times:
            yield DepthView(maps.depth(t), maps.picture(t), self.intrinsics, self.poses[t], maps.valid(t))


@dataclass(eq=False)
class _Survey:
    """What the first look at all frames tells, which the scale and the colours are chosen by.

    Attributes:
        ratios: For each frame, known depth over predicted depth at its points.
        largest: Largest depth of each frame; NaN where none is known.
        samples: Some depths of each frame where it is valid.
        valid_share: Of each frame's pixels.
    """

    ratios: list[NDArray[np.float64]]
    largest: list[float]
    samples: list[NDArray[np.float32]]
    valid_share: list[float]


def write_maps(
    inference: DepthInference, data: PreparedRecordings, i: int, out: Path, asked: Asked, held_out_points: float = 0.0
) -> DepthMaps:
    """Tell the depth of every frame of recording ``i`` and write it, whole or not at all.

    ``depth/00000000.npy`` is float32 in the unit of ``depth/scale.json``, NaN where unknown; ``.png`` the same in 16
    bits, times the ``png_scale`` of ``scale.json`` (stated in the picture too), 0 where unknown. Depth is told
    everywhere; ``valid/00000000.png`` is 255 where it can be trusted.

    Args:
        inference: The method.
        data: Prepared recordings.
        i: Which of them.
        out: Folder of the results.
        asked: Which camera poses the depth's scale shall agree with.
        held_out_points: Share of the points that the scale is not taken from, to judge by.

    Raises:
        InputError: The recording lacks what the method or the poses asked for need, no pixel of it is valid, or the
            disk is full.
    """
    name, geometry = data.names[i], data.geometry(i)
    path = inference.path(data, i)
    require_poses(asked, geometry, path, name)
    with write_aside(out / "depth") as folder, write_aside(out / "valid") as masks:
        folder.mkdir()
        masks.mkdir()
        survey = _predict(inference, data, i, folder, held_out_points)
        _require_something(name, survey)
        metric = inference.method.metric and data.unit(i) != "unknown"
        cameras = choose_cameras(asked, geometry, path, survey.ratios, metric, data.unit(i), name)
        samples = [factor * one for factor, one in zip(cameras.factors, survey.samples, strict=True)]
        low, high = np.percentile(np.concatenate(samples), _RANGE)
        limits = float(low), float(max(high, np.nextafter(low, np.inf)))
        maps = DepthMaps(out, data, i, cameras, path, limits, np.array(survey.valid_share))
        png_scale = float(np.nanmax(cameras.factors * np.array(survey.largest))) / _LARGEST
        with inference.clock.measure("writing"):
            for t in tqdm(range(len(maps)), desc="Writing depth", unit="frame", disable=None):
                _finish(maps, t, png_scale, folder, masks)
            write_json(folder / "scale.json", _scale(maps, png_scale))
    return maps


def _predict(
    inference: DepthInference, data: PreparedRecordings, i: int, folder: Path, held_out_points: float
) -> _Survey:
    """Write the method's own depth of every frame, and look at it."""
    points = data.geometry(i).observations
    shown = None if points is None else shown_points(points, held_out_points)
    survey = _Survey([], [], [], [])
    frames = tqdm(inference.depth(data, i), total=data.frames(i), desc="Depth", unit="frame", disable=None)
    for t, depth in enumerate(frames):
        valid = data.valid(i, t)
        ratios = np.zeros(0)
        if points is not None and shown is not None:
            rows = (points.frame == t) & shown[points.point] & (points.depth > 0)
            ratios = points.depth[rows] / sample_at(depth, points.pixel[rows])
        known = depth[valid & np.isfinite(depth)]
        survey.ratios.append(ratios[np.isfinite(ratios)])
        survey.largest.append(float(np.nanmax(depth, initial=0.0)))
        survey.samples.append(known[:: max(1, len(known) // _SAMPLES)])
        survey.valid_share.append(float(valid.mean()))
        with inference.clock.measure("writing"):
            np.save(_npy(folder, t * data.preparation.every), depth)
    return survey


def _require_something(name: str, survey: _Survey) -> None:
    """Refuse a recording of which nothing is known."""
    frames = len(survey.samples)
    if not any(survey.valid_share):
        raise InputError(
            f"{name}: not one pixel of its {frames} frames is valid: black, overexposed, or outside the endoscope's "
            "field of view. Look at the video; where its mask was found wrongly, give --mask false."
        )
    if not any(map(len, survey.samples)):
        raise InputError(
            f"{name}: the method tells no depth of any valid pixel of its {frames} frames: its weights are damaged, or "
            "the recording is unlike all that it learnt from."
        )


def _finish(maps: DepthMaps, t: int, png_scale: float, folder: Path, masks: Path) -> None:
    """Scale a frame's depth, and write it again, in 16 bits, and its mask."""
    name = _npy(folder, maps.number(t))
    depth = (np.load(name, allow_pickle=False) * maps.cameras.factors[t]).astype(np.float32)
    np.save(name, depth)
    unit = "" if maps.cameras.unit == "unknown" else f" {maps.cameras.unit}"
    stated = PngInfo()
    stated.add_text("depth", f"value * {png_scale!r}{unit}; 0 is unknown; {maps.cameras.banner}")
    steps = np.rint(np.nan_to_num(depth / png_scale, nan=0.0))
    # What is known must not become 0, which says that it is not.
    values = np.where(np.isfinite(depth), np.clip(steps, 1, _LARGEST), 0).astype(np.uint16)
    Image.fromarray(values).save(name.with_suffix(".png"), pnginfo=stated, compress_level=3)
    Image.fromarray(maps.valid(t).astype(np.uint8) * 255).save(masks / name.with_suffix(".png").name)


def _scale(maps: DepthMaps, png_scale: float) -> dict[str, object]:
    """What the files of depth mean."""
    geometry = maps.data.geometry(maps.i)
    return {
        "unit": maps.cameras.unit,
        "banner": maps.cameras.banner,
        "npy": "float32 depth (z) in this unit, NaN where unknown",
        "png": "16-bit integers; depth = value * png_scale, 0 where unknown",
        "png_scale": png_scale,
        "size": list(maps.data.preparation.size),
        "intrinsics": None if geometry.intrinsics is None else geometry.intrinsics.tolist(),
        "frames": [maps.number(t) for t in range(len(maps))],
        "factors": maps.cameras.factors.tolist(),
        "told": maps.cameras.told,
    }


def _npy(folder: Path, number: int) -> Path:
    return folder / f"{number:08d}.npy"
