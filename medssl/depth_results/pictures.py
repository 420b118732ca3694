"""Pictures and the video of a recording's depth: what a person looks at first."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from medssl.data.poses import inverted
from medssl.data.video_writing import write_video
from medssl.depth_results.maps import DepthMaps
from medssl.evaluation.clips import spread
from medssl.evaluation.depth import DepthRules, fit_depth
from medssl.geometry import reproject
from medssl.photometric import photometric_error
from medssl.report.depth import depth_error_picture, depth_panels_picture, trajectory_picture
from medssl.report.depth_video import Overlay

_SHOWN = 4  # frames with panels
_RATES = (5.0, 60.0)  # of the video, frames per second
_UNKNOWN_RATE = 10.0


def write_overlay(maps: DepthMaps) -> None:
    """Write ``overlay.mp4``: every frame beside its depth, in the recording's own time where that is known.

    Raises:
        InputError: PyAV is missing, or the disk is full.
    """
    overlay = Overlay(maps.data.preparation.size, maps.limits, maps.cameras.unit, maps.cameras.banner)

    def frames() -> Iterator[NDArray[np.uint8]]:
        for t in tqdm(range(len(maps)), desc="Overlay", unit="frame", disable=None):
            yield overlay.frame(maps.picture(t), maps.depth(t), maps.valid(t), f"frame {maps.number(t)}")

    write_video(maps.out / "overlay.mp4", frames(), _rate(maps))


def frame_pictures(maps: DepthMaps, folder: Path) -> list[Path]:
    """Draw frames spread over the recording: with their true depth where it is known, else with the photometric error.

    That error is of the next frame with a pose, seen from this frame's camera through its depth: it is small where
    depth, poses and calibration agree.
    """
    usable = np.flatnonzero(maps.valid_share > 0)
    drawn = []
    for place in spread(len(usable), _SHOWN):
        t = int(usable[place])
        path = folder / f"frame_{maps.number(t):08d}.png"
        _draw_frame(maps, t, path)
        drawn.append(path)
    return drawn


def path_picture(maps: DepthMaps, path: Path) -> bool:
    """Draw the camera's path, or the network's beside the recorded one; returns whether there is one."""
    recorded = maps.data.geometry(maps.i).poses
    if recorded is not None and maps.path is not None and _common(maps.path, recorded) > 2:
        unit = maps.data.unit(maps.i)
        trajectory_picture({"network's motion": maps.path}, path, unit=unit, truth=recorded)
    elif maps.cameras.poses is not None:
        paths = {f"{maps.cameras.source}'s poses": maps.cameras.poses}
        trajectory_picture(paths, path, unit=maps.cameras.unit, title=maps.cameras.banner)
    else:
        return False
    return True


def _draw_frame(maps: DepthMaps, t: int, path: Path) -> None:
    picture, depth, valid = maps.picture(t), maps.depth(t), maps.valid(t)
    shown = np.where(valid, depth, np.nan)
    title = f"frame {maps.number(t)}"
    data, i = maps.data, maps.i
    if data.has(i, "depth"):
        truth = np.where(valid, data.truth(i, t, "depth"), np.nan)
        rules = DepthRules("none" if maps.cameras.unit != "unknown" else "median")
        fitted = fit_depth(shown, truth, rules).apply(shown)
        scaled = "" if rules.scaling == "none" else ", scaled to the truth by the ratio of medians"
        depth_error_picture(picture, fitted, truth, path, unit=data.unit(i), title=f"{title}{scaled}")
        return
    warped, error = _seen_through(maps, t, valid)
    depth_panels_picture(
        picture,
        shown,
        path,
        unit=maps.cameras.unit,
        warped=warped,
        error=error,
        mask=valid,
        limits=maps.limits,
        title=f"{title} – {maps.cameras.banner}",
    )


def _seen_through(
    maps: DepthMaps, t: int, valid: NDArray[np.bool_]
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """The next frame with a pose from this one's camera (H, W, 3), 0 to 1, and the photometric error (H, W)."""
    intrinsics, poses = maps.data.geometry(maps.i).intrinsics, maps.cameras.poses
    if intrinsics is None or poses is None or not np.isfinite(poses[t]).all():
        return None, None
    posed = np.flatnonzero(np.isfinite(poses).all((1, 2)) & (maps.valid_share > 0))
    after = posed[posed > t]
    other = int(after[0]) if len(after) else int(posed[posed != t][-1]) if len(posed) > 1 else t
    a_to_b = inverted(poses[None, other])[0] @ poses[t]
    a, b = (torch.from_numpy(maps.picture(s).transpose(2, 0, 1).copy()).float()[None] / 255 for s in (t, other))
    seen, inside = reproject(
        torch.cat([b, torch.from_numpy(maps.valid(other)).float()[None, None]], dim=1),
        torch.from_numpy(maps.depth(t))[None, None],
        torch.from_numpy(intrinsics).float()[None],
        torch.from_numpy(a_to_b).float()[None],
    )
    compared = (inside & (seen[:, 3:] > 0.5))[0, 0].numpy() & valid
    error = photometric_error(seen[:, :3], a)[0, 0].double().numpy()
    warped = seen[0, :3].permute(1, 2, 0).clamp(0, 1).double().numpy()
    return np.where(compared[..., None], warped, 0.4), np.where(compared, error, np.nan)


def _rate(maps: DepthMaps) -> float:
    """Frames per second of the recording, so that the video takes as long as it did."""
    steps = np.diff(maps.data.geometry(maps.i).times)
    known = steps[np.isfinite(steps) & (steps > 0)]
    return float(np.clip(1 / np.median(known), *_RATES)) if len(known) else _UNKNOWN_RATE


def _common(a: NDArray[np.float64], b: NDArray[np.float64]) -> int:
    return int((np.isfinite(a).all((1, 2)) & np.isfinite(b).all((1, 2))).sum())
