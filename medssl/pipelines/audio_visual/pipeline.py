"""What in a video sounds? One command learns it from videos alone, three ways, judges it on others, and shows it.

Arandjelović & Zisserman, "Look, Listen and Learn", ICCV 2017, https://arxiv.org/abs/1705.08168, and "Objects that
Sound", ECCV 2018, https://arxiv.org/abs/1712.06651.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pandas as pd

from medssl.clip_stage import train_once
from medssl.clip_training import ClipTraining
from medssl.commands.listen import audio_visual_method, videos_in
from medssl.commands.pretrain_clips import split_recordings
from medssl.data.prepared_recordings import RecordingPreparation
from medssl.data.splits import save_split
from medssl.data.streamed_recordings import StreamedRecordings
from medssl.errors import InputError
from medssl.files import content_hash
from medssl.listening.judge import RANDOM, judge
from medssl.listening.page import audio_visual_page, main_table, verdict
from medssl.methods.audio_visual import AudioVisual, HeadName
from medssl.stages import continued_run, stage
from medssl.tracking import hashed, open_tracker, ui_command
from medssl.train_video import VideoRecipe

METHOD = "audio_visual"

# Of the U-Net's encoder. Normalised by group, each place would know of the whole picture: the heat could be anywhere.
_LIGHT = {"channels": [16, 32, 64, 96], "norm": "batch"}


def run(
    videos: Path,
    out: Path,
    *,
    recording: RecordingPreparation = RecordingPreparation((224, 224)),
    heads: Sequence[HeadName] = ("l3", "ave", "avol"),
    guards: Sequence[bool] = (True, False),
    method_arguments: dict[str, Any] | None = None,
    encoder: str = "unet",
    encoder_arguments: dict[str, Any] | None = None,
    steps: int = 1000,
    recipe: VideoRecipe = VideoRecipe(batch_size=16, learning_rate=3e-3),
    split: Path | None = None,
    held_out_count: int | None = None,
    truth: Path | None = None,
    pairs: int = 200,
    every_s: float = 0.4,
    seed: int = 0,
    jobs: int = -1,
) -> pd.DataFrame:
    """Learn which sound goes with which picture from videos alone, and judge on others who can tell, and where it is.

    Started again with the same arguments it goes on where it was stopped, and does nothing twice.

    Args:
        videos: A folder of videos with sound; they are streamed.
        out: Folder of all results: results/report.html, the methods under trainings, and the MLflow store.
        recording: What is done to the pictures of each video.
        heads: Ways to compare sight and sound: l3, ave, avol.
        guards: Whether false sounds begin with a frame, as true ones do; both shows what an encoder's traces give away.
        method_arguments: Own arguments of audio_visual. By default its network of sound is a light one.
        encoder: Name of the encoder of pictures, see ``medssl networks``.
        encoder_arguments: Its own arguments; by default a light U-Net's.
        steps: Optimiser steps of each training.
        recipe: How each is trained.
        split: A JSON file of videos: {"train": [...], "held_out": [...]}. By default they are drawn.
        held_out_count: Videos to hold out; by default a tenth.
        truth: Where it is known what sounds: the folder in which each video's truth.csv lies as the video does in its.
        pairs: True and false pairs that are judged, of each kind.
        every_s: Seconds between the moments of held-out videos at which the sound is looked for.
        seed: Of the split, the weights and the clips.
        jobs: Processes that look at the files; -1 is one per core.

    Returns:
        The scores, a row per method.

    Raises:
        InputError: An argument cannot be used, or no video can.
    """
    data = StreamedRecordings([videos], recording, sound=True, jobs=jobs)
    print(data.table())
    parts = split_recordings(data, split, held_out_count, seed)
    if not parts.get("held_out"):
        raise InputError(
            f"{videos}: the methods are judged on videos that they did not learn from, and none is held out; give at "
            "least 3 videos, or --held_out_count."
        )
    save_split(out / "split.json", parts)
    training, held_out = data.select(parts["train"]), data.select(parts["held_out"])
    sources = [one for one in videos_in(videos, truth)[0] if one.name in held_out.names]
    if encoder_arguments is None and encoder == "unet":
        encoder_arguments = dict(_LIGHT)
    arguments = {"sound_channels": [16, 32, 64, 96], **(method_arguments or {})}
    asked = {
        f"{head}{'' if grid else ' without the grid'}": ClipTraining(
            METHOD, {**arguments, "head": head, "grid": grid}, encoder, encoder_arguments, steps, recipe, seed
        )
        for head in heads
        for grid in guards
    }
    tracker, book = open_tracker(out, METHOD), out / "runs.json"
    with continued_run(tracker, book, METHOD) as parent:
        parent.log_params(
            {
                "data": data.fingerprint,
                "preparation": recording.to_dict(),
                "split": {name: " ".join(map(hashed, members)) for name, members in parts.items()},
            }
        )
        folders = {name: out / "trainings" / name.replace(" ", "_") for name in asked}
        trained = {}
        for name, one in asked.items():
            print(f"{name} on {len(training)} videos, {steps} steps.")
            with continued_run(tracker, book, f"{name}, training", parent) as child:
                trained[name], _ = audio_visual_method(train_once(one, training, held_out, folders[name], child), name)

        def judged(results: Path) -> None:
            untrained = cast(AudioVisual, asked[next(iter(asked))].learner(data.channels).eval())
            found = judge({**trained, RANDOM: untrained}, held_out, sources, results, pairs=pairs, every_s=every_s)
            audio_visual_page(found, folders, len(data.refused), results / "report.html")
            parent.log_table(main_table(found.scores), "scores")
            parent.log_folder(results / "pictures", "pictures")
            parent.log_file(results / "report.html")

        made_of = [content_hash(folder / "method") for folder in folders.values()]
        truths = [content_hash(one.truth) for one in sources if one.truth is not None]
        results = stage(out / "results", [made_of, held_out.fingerprint, truths, pairs, every_s], judged)
    scores = pd.read_csv(results / "scores.csv")
    print(main_table(scores).to_string(index=False, float_format="{:.3g}".format))
    print("\n".join(verdict(scores)))
    print(f"Report: {results / 'report.html'}\nMLflow: {ui_command(out)}")
    return scores
