"""Write videos of moving shapes with their truth: ``python -m sample_data.make_shapes --out FOLDER --videos 6``.

Each video has a folder; frame i's files are named ``{i:08d}``.

| file | what |
| --- | --- |
| ``video.mp4``, ``frames/*.png`` | the pictures, the latter without loss |
| ``masks/*.png`` | the number of the object that each pixel's centre shows, with DAVIS' palette; 0 for none |
| ``points.csv`` | frame, name, x, y, hidden: material points that each object carries along, pixels |
| with ``--flow true`` | |
| ``flow/*.flo``, ``flow_visible/*.png`` | motion to the next frame, pixels; 255 where the next frame shows the point |
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from medssl.data.crops import seed_of
from medssl.data.flow_files import write_flo
from medssl.data.video_writing import write_video
from medssl.errors import InputError
from medssl.evaluation.tables import write_table
from medssl.object_tracking.mask_files import write_mask
from sample_data.painting import FRAME_RATE, write_picture
from sample_data.script import require_empty, run_script
from sample_data.shapes import ShapeScene

_CRF = 10  # of the video: hardly to be told from the pictures


def make_shapes(
    out: Path,
    videos: int = 6,
    frames: int = 60,
    height: int = 256,
    width: int = 256,
    objects: int = 3,
    seed: int = 0,
    deformation: float = 0.15,
    occlusion: int = 1,
    noise: float = 2.0,
    grey: bool = False,
    flow: bool = False,
) -> None:
    """Write videos of shapes that move, deform and hide one another, with what is known of them exactly.

    Args:
        out: Folder to write to; it must not exist, or be empty.
        videos: How many; each has its own shapes, colours and ways.
        frames: Of each, at 25 a second.
        height: Of a picture, pixels.
        width: Of a picture, pixels.
        objects: In each video, 1 to 12; every third is a stiff instrument.
        seed: Of everything; the same seed makes the same videos.
        deformation: How far shapes bend, as a share of their radius, 0 to 0.4.
        occlusion: How many shafts, which are no objects, sweep over the shapes.
        noise: Of the sensor, standard deviation in grey levels of 255.
        grey: Whether the pictures have no colour, as ultrasound's have none.
        flow: Whether to write the motion too.

    Raises:
        InputError: The folder is not empty, a number is out of its range, or PyAV is not installed.
    """
    require_empty(out)
    if videos < 1 or frames < 2:
        raise InputError(f"{videos} videos of {frames} frames were asked for; at least 1 of 2 can show motion.")
    if noise < 0:
        raise InputError(f"noise is a standard deviation, 0 or more; got {noise:g}.")
    for number in tqdm(range(videos), desc="Rendering", unit="video", disable=None):
        scene = ShapeScene(height, width, objects, seed_of(seed, number), deformation, occlusion)
        folder = out / f"shapes{number:03d}"
        write_video(folder / "video.mp4", _recorded(folder, scene, frames, noise, grey, flow), FRAME_RATE, _CRF)
        write_table(folder / "points.csv", point_table(scene, frames))


def point_table(scene: ShapeScene, frames: int) -> pd.DataFrame:
    """Where each object's points are: a row for each frame and point, of columns frame, name, x, y, hidden (0 or 1)."""
    rows = []
    for frame in range(frames):
        places, hidden = scene.points(frame / FRAME_RATE)
        for (thing, point), unseen in np.ndenumerate(hidden):
            x, y = places[thing, point]
            rows.append((frame, f"object{thing + 1}_point{point + 1}", round(x, 4), round(y, 4), int(unseen)))
    return pd.DataFrame(rows, columns=["frame", "name", "x", "y", "hidden"])


def _recorded(
    folder: Path, scene: ShapeScene, frames: int, noise: float, grey: bool, flow: bool
) -> Iterator[NDArray[np.uint8]]:
    """Take each picture, write its files but the video, and hand it on."""
    for i in range(frames):
        name, time_s = f"{i:08d}", i / FRAME_RATE
        picture = scene.render(time_s, np.random.default_rng((scene.seed, 1, i)), noise, grey)
        write_picture(folder / "frames" / f"{name}.png", picture)
        write_mask(folder / "masks" / f"{name}.png", scene.mask(time_s))
        if flow and i + 1 < frames:
            motion = scene.motion(time_s, (i + 1) / FRAME_RATE)
            write_flo(folder / "flow" / f"{name}.flo", motion.flow)
            write_picture(folder / "flow_visible" / f"{name}.png", np.where(motion.visible, 255, 0).astype(np.uint8))
        yield picture


if __name__ == "__main__":
    sys.exit(run_script(make_shapes))
