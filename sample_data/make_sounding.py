"""Write videos of things that sound as they move: ``python -m sample_data.make_sounding --out FOLDER --videos 12``.

| file | what |
| --- | --- |
| ``split.json`` | which videos are to train on and which are held out |
| ``videos.csv`` | video, sounding (kinds, with + between), silent (kinds that are seen only), offset_s |
| ``<video>/video.mp4`` | pictures at 25 a second, and sound (AAC, 48 kHz) |
| ``<video>/audio.wav`` | the sound without loss, 16 bits |
| ``<video>/truth.csv`` | frame, time, object, kind, sounding, x, y, radius (pixels), loudness (0 to 1) |
| ``<video>/masks/*.png`` | the number of the object that sounds in this video, with DAVIS' palette; 0 elsewhere |

``loudness`` is that of the motion which a frame shows; it is heard ``offset_s`` later.
"""

import sys
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from medssl.data.crops import seed_of
from medssl.data.splits import save_split, split_subjects
from medssl.data.video_writing import Sound, write_video
from medssl.errors import InputError
from medssl.evaluation.tables import write_table
from medssl.files import write_aside
from medssl.object_tracking.mask_files import write_mask
from sample_data.painting import FRAME_RATE, Floats
from sample_data.script import require_empty, run_script
from sample_data.sounding import RATE
from sample_data.sounding_scene import SoundingScene

_CRF = 12  # of the video: hardly to be told from the pictures


def make_sounding(
    out: Path,
    videos: int = 12,
    seconds: float = 6.0,
    height: int = 256,
    width: int = 256,
    objects: int = 3,
    sounding: int = 1,
    seed: int = 0,
    offset_s: float = 0.0,
    silent_share: float = 0.0,
    held_out_share: float = 0.25,
    busy: bool = False,
    noise: float = 2.0,
) -> None:
    """Write videos of a saw, a drill, a vessel and a clip applier, each as loud as it moves, and their truth.

    Args:
        out: Folder to write to; it must not exist, or be empty.
        videos: How many; each has its own things, places and sounds.
        seconds: Of each.
        height: Of a picture, pixels.
        width: Of a picture, pixels.
        objects: In each video, 2 to 4, each of another kind.
        sounding: How many of them sound, 1 or 2; the others rest and are not heard.
        seed: Of everything; the same seed makes the same videos.
        offset_s: By how much the sound comes late.
        silent_share: Share of the videos in which nothing sounds.
        held_out_share: Share of the videos that the split holds out.
        busy: Whether things that do not sound move as if they did.
        noise: Of the sensor, standard deviation in grey levels of 255.

    Raises:
        InputError: The folder is not empty, a number is out of its range, or PyAV is not installed.
    """
    require_empty(out)
    if videos < 2:
        raise InputError(f"{videos} videos were asked for; at least 2 can be split.")
    if not 1 <= sounding <= 2:
        raise InputError(f"sounding is 1 or 2, got {sounding}; silent videos are made by --silent_share.")
    if not 0 <= offset_s < seconds:
        raise InputError(f"offset_s is from 0 to less than the {seconds:g} s of a video, got {offset_s:g}.")
    if not 0 <= silent_share <= 1 or not 0 < held_out_share < 1:
        raise InputError(
            f"silent_share is from 0 to 1 and held_out_share between 0 and 1, got {silent_share:g} and "
            f"{held_out_share:g}."
        )
    silent = _silent(videos, silent_share, seed)
    rows = []
    for number in tqdm(range(videos), desc="Rendering", unit="video", disable=None):
        heard = 0 if number in silent else sounding
        scene = SoundingScene(height, width, seconds, seed_of(seed, number), objects, heard, busy)
        name = f"sounding{number:03d}"
        _write(out / name, scene, offset_s, noise)
        kinds = {told: [one.kind.name for one in scene.things if one.sounding is told] for told in (True, False)}
        rows.append((name, "+".join(kinds[True]), "+".join(kinds[False]), offset_s))
    table = pd.DataFrame(rows, columns=["video", "sounding", "silent", "offset_s"])
    write_table(out / "videos.csv", table)
    held_out = min(max(1, round(held_out_share * videos)), videos - 1)
    save_split(
        out / "split.json", split_subjects(table["video"], {"held_out": held_out, "train": videos - held_out}, seed)
    )


def write_wav(path: Path, sound: Floats) -> None:
    """Write sound (n,), -1 to 1, with 16 bits, whole or not at all."""
    samples = np.clip(np.rint(32767 * sound), -32768, 32767).astype("<i2")
    with write_aside(path) as aside, wave.open(str(aside), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.tobytes())


def _silent(videos: int, share: float, seed: int) -> set[int]:
    """Draw the videos in which nothing sounds."""
    return set(np.random.default_rng((seed, 2)).permutation(videos)[: round(share * videos)].tolist())


def _write(folder: Path, scene: SoundingScene, offset_s: float, noise: float) -> None:
    sound = scene.sound(offset_s)
    write_video(folder / "video.mp4", _recorded(folder, scene, noise), FRAME_RATE, _CRF, Sound(sound, RATE))
    write_wav(folder / "audio.wav", sound)
    write_table(folder / "truth.csv", scene.truth())


def _recorded(folder: Path, scene: SoundingScene, noise: float) -> Iterator[NDArray[np.uint8]]:
    """Take each picture, write its mask, and hand it on."""
    for frame in range(scene.frames):
        write_mask(folder / "masks" / f"{frame:08d}.png", scene.mask(frame))
        yield scene.render(frame, np.random.default_rng((scene.seed, 1, frame)), noise)


if __name__ == "__main__":
    sys.exit(run_script(make_sounding))
