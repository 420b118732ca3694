"""Write a made-up endoscopy with its truth: ``python -m sample_data.make_endoscopy --out FOLDER --frames 60``.

Frame i's files are named ``{i:08d}``; arrays are of the frame's size, lengths in mm.

| file | what |
| --- | --- |
| ``video.mp4``, ``frames/*.png`` | the pictures, the latter without loss |
| ``depth/*.npy`` | z in the camera's axes, float32 |
| ``flow/*.flo``, ``flow_visible/*.png`` | motion to the next frame, pixels; 255 where the next frame shows the point |
| ``highlights/*.png`` | 255 where a reflection hides the wall |
| ``poses.txt`` | time x y z qx qy qz qw, camera to world, as TUM's |
| ``camera.json``, ``mask.png`` | intrinsics; 255 where the pictures show the body |
| with ``--stereo true`` | |
| ``right/*.png``, ``stereo.json`` | the second camera's pictures; how the two stand |
| ``disparity/*.npy``, ``disparity_visible/*.png`` | x in the left picture minus x in the right one; 255 where seen |
| with ``--surface true`` | |
| ``surface.ply`` | the true surface, at rest where the wall deforms |
"""

import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from medssl.data.flow_files import write_flo
from medssl.data.video_writing import write_video
from medssl.errors import InputError
from medssl.evaluation.trajectory import write_tum
from medssl.files import write_aside, write_json
from medssl.reconstruction.mesh import write_mesh
from sample_data.endoscope import (
    BASELINE_MM,
    FRAME_RATE,
    STEP_MM,
    EndoscopeScene,
    Optics,
    View,
    endoscope_camera,
    right_of,
)
from sample_data.script import require_empty, run_script

_CRF = 10  # of the video: hardly to be told from the pictures


def make_endoscopy(
    out: Path,
    frames: int = 60,
    height: int = 256,
    width: int = 320,
    seed: int = 0,
    stereo: bool = False,
    baseline_mm: float = BASELINE_MM,
    deformation: float = 0.0,
    step_mm: float = STEP_MM,
    circular: bool = False,
    noise: float = 1.5,
    gloss: float = 1.0,
    exposure_mm: float | None = None,
    surface: bool = False,
) -> None:
    """Write a made-up endoscopy of a branching tube, and everything that is known of it.

    Args:
        out: Folder to write to; it must not exist, or be empty.
        frames: How many, at 25 a second.
        height: Of a picture, pixels.
        width: Of a picture, pixels.
        seed: Of the tube, its look, the camera's way and the noise; the same seed makes the same recording.
        stereo: Whether there is a second camera.
        baseline_mm: From the first camera to the second.
        deformation: Height of a wave that runs along the wall, as a share of the radius, 0 to 0.2.
        step_mm: Of the camera between frames; shorter where the tube is too short for so many.
        circular: Whether the pictures are black outside a circle.
        noise: Of the sensor, standard deviation in grey levels of 255.
        gloss: Strength of reflections: 1 for wet tissue, 0 for none.
        exposure_mm: Distance for which the exposure is set once; automatic for each picture where not given.
        surface: Whether to write the true surface too.

    Raises:
        InputError: The folder is not empty, a number is out of its range, or PyAV is not installed.
    """
    require_empty(out)
    if frames < 2 or min(height, width) < 16:
        raise InputError(f"{frames} frames of {width}x{height} were asked for; at least 2 of 16x16 make a recording.")
    scene, camera = EndoscopeScene(seed, deformation), endoscope_camera(height, width)
    views = scene.views(frames, camera, step_mm)
    optics = Optics(exposure_mm=exposure_mm, gloss=gloss, noise=noise, circular=circular)
    pictures = _recorded(out, scene, views, optics, baseline_mm if stereo else None)
    shown = tqdm(pictures, desc="Rendering", unit="frame", total=frames, disable=None)
    write_video(out / "video.mp4", shown, FRAME_RATE, _CRF)
    write_tum(out / "poses.txt", np.array([view.time_s for view in views]), np.stack([view.pose for view in views]))
    intrinsics = {name: value for name, value in asdict(camera).items() if name not in ("distortion", "coefficients")}
    write_json(out / "camera.json", intrinsics)
    if stereo:
        to_left = np.eye(4)
        to_left[0, 3] = baseline_mm
        pair = {"left": intrinsics, "right": intrinsics, "to_left": to_left.tolist(), "unit": "mm"}
        write_json(out / "stereo.json", pair)
    if surface:
        write_mesh(out / "surface.ply", scene.surface_mesh())


def _recorded(
    out: Path, scene: EndoscopeScene, views: list[View], optics: Optics, baseline_mm: float | None
) -> Iterator[NDArray[np.uint8]]:
    """Take each picture, write its files but the video, and hand it on."""
    for i, view in enumerate(views):
        name = f"{i:08d}"
        left = scene.render(view, optics, np.random.default_rng((scene.seed, 3, i)))
        _write_picture(out / "frames" / f"{name}.png", left.image)
        _write_picture(out / "highlights" / f"{name}.png", left.highlight)
        _write_array(out / "depth" / f"{name}.npy", left.depth)
        if i == 0:
            _write_picture(out / "mask.png", left.mask)
        if i + 1 < len(views):
            to_next = scene.motion(view, views[i + 1], left.points)
            write_flo(out / "flow" / f"{name}.flo", to_next.flow)
            _write_picture(out / "flow_visible" / f"{name}.png", to_next.visible)
        if baseline_mm is not None:
            second = right_of(view, baseline_mm)
            same_exposure = replace(optics, exposure_mm=left.exposure_mm)
            right = scene.render(second, same_exposure, np.random.default_rng((scene.seed, 4, i)))
            across = scene.motion(view, second, left.points)
            _write_picture(out / "right" / f"{name}.png", right.image)
            _write_array(out / "disparity" / f"{name}.npy", -across.flow[..., 0])
            _write_picture(out / "disparity_visible" / f"{name}.png", across.visible)
        yield left.image


def _write_picture(path: Path, picture: NDArray[np.uint8] | NDArray[np.bool_]) -> None:
    pixels = np.where(picture, 255, 0).astype(np.uint8) if picture.dtype == np.bool_ else picture
    with write_aside(path) as aside:
        Image.fromarray(pixels).save(aside)


def _write_array(path: Path, array: NDArray[np.float32]) -> None:
    with write_aside(path) as aside:
        np.save(aside, array, allow_pickle=False)


if __name__ == "__main__":
    sys.exit(run_script(make_endoscopy))
