"""Follow the left ventricle through echocardiogram clips whose right half shows it in colour, and score it.

Run: python -m benchmarks.ultrasound_ventricle CLIPS --model PRETRAINING. A clip is two halves side by side: the grey
picture, and the same with the ventricle painted blue. The painted region is the reference, also in the first frame,
from which it is followed through the grey half. The reference is itself the outline of a model, not a person's.

--grey FOLDER writes the grey halves as videos, to pretrain on:
medssl pretrain cycle_walk --data FOLDER --out PRETRAINING --encoder resnet18 --recording.size "[128,128]"
--recording.mask false --method_arguments "{stride: 4, patch: 32, step: 16}".
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from jsonargparse import auto_cli
from numpy.typing import NDArray
from scipy import ndimage as ndi

from medssl.commands.depth import method_folder
from medssl.data.frames import HalfFrames
from medssl.data.sequence import Frames
from medssl.data.video import open_frames
from medssl.data.video_writing import write_video
from medssl.errors import InputError
from medssl.evaluation.tracking import tracking_summary
from medssl.label_propagation import Propagation
from medssl.method_file import load_method
from medssl.object_tracking.comparison import RANDOM, STAYING, compare, comparison_picture, readable
from medssl.object_tracking.followers import ByLikeness, Follower, Staying, correspondence_method, untrained
from medssl.object_tracking.given import read_given
from medssl.object_tracking.mask_files import mask_path, write_mask
from medssl.object_tracking.truth import read_truth

BLUER = 60  # of 255: by how much blue exceeds the mean of red and green where it is painted; grey stays below 20
_FEWEST = 30  # pixels of a ventricle


def main(
    clips: Path,
    model: str | None = None,
    grey: Path | None = None,
    pictures: Path | None = None,
    propagation: Propagation = Propagation(),
    random_weights: bool = True,
    longest: int | None = None,
    seed: int = 0,
) -> None:
    """Score a trained method, its random weights, and a copy of the first mask on each clip.

    Args:
        clips: Folder of the .mp4 files.
        model: A pretraining by cycle_walk or video_colorization; without, only the copy is scored.
        grey: Folder to write the grey halves to, as videos to pretrain on.
        pictures: Folder for a strip of pictures of each clip.
        propagation: How labels are carried.
        random_weights: Score the network before it learnt too.
        longest: Frames of a clip that are followed, at most.
        seed: Of the random weights.
    """
    ways: dict[str, Follower] = {STAYING: Staying()}
    if model is not None:
        trained = load_method(method_folder(model))
        method, preparation = correspondence_method(trained, model)
        learnt = {trained.name: method} | ({RANDOM: untrained(trained, seed)} if random_weights else {})
        ways = {name: ByLikeness(one, preparation.size, propagation) for name, one in learnt.items()} | ways
    tables = []
    for path in sorted(clips.glob("*.mp4")):
        whole = open_frames(path)
        if grey is not None:
            write_video(grey / path.name, HalfFrames(whole, "left").read(range(len(whole))), 25, crf=10)
        frames = list(range(len(whole)))[:longest]
        reference = [painted_blue(picture) for picture in HalfFrames(whole, "right").read(frames)]
        with TemporaryDirectory() as folder:
            for t, mask in enumerate(reference):
                write_mask(mask_path(Path(folder), t), mask.astype(np.uint8))
            tables.append(_scored(HalfFrames(whole, "left"), Path(folder), ways, path.stem, pictures))
    rows = pd.concat(tables, ignore_index=True)
    print(rows.groupby(["recording", "method"], sort=False)[["j", "f", "j_and_f"]].mean().round(3).to_string())
    for decade, some in rows.groupby(rows["frame"] // 50 * 50):
        means = some.groupby("method", sort=False)["j"].mean()
        print(f"J, frames from {decade}: " + ", ".join(f"{name} {value:.3f}" for name, value in means.items()))
    print(readable(tracking_summary(rows)).to_string(index=False))


def painted_blue(picture: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where a picture (H, W, 3) is painted blue: the largest such region, without holes.

    Raises:
        InputError: There is hardly any.
    """
    values = picture.astype(np.float64)
    blue = ndi.binary_opening(values[..., 2] - values[..., :2].mean(axis=-1) > BLUER)
    regions, count = ndi.label(blue)
    sizes = np.bincount(regions.ravel())[1:]
    if not count or sizes.max() < _FEWEST:
        raise InputError("A frame has no region painted blue.")
    whole: NDArray[np.bool_] = ndi.binary_fill_holes(regions == 1 + int(sizes.argmax()))
    return whole


def _scored(frames: Frames, masks: Path, ways: dict[str, Follower], name: str, pictures: Path | None) -> pd.DataFrame:
    """Follow the first mask by each way, and score it by the others."""
    truth = read_truth(masks, frames)
    given = read_given(truth.masks[0], frames.size, 0, len(frames))
    found = compare({**ways}, frames, given, truth, 0, False, name)
    if pictures is not None:
        comparison_picture(found, frames, given, truth, pictures / f"{name}.png")
    return found.rows


if __name__ == "__main__":
    auto_cli(main)
