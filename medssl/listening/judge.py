"""How methods of sound and sight do on held-out videos, beside chance, the picture's middle, and random weights."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch

from medssl.anonymity import write_key
from medssl.data.streamed_clips import StreamedClips
from medssl.data.streamed_recordings import StreamedRecordings
from medssl.errors import InputError
from medssl.evaluation.tables import write_table
from medssl.listening.moments import Listener
from medssl.listening.pictures import Gallery
from medssl.listening.run import ListenOptions, Outcome, Source, see_and_hear
from medssl.listening.scores import kinds_in, ndcg_numbers, overall, retrieval_numbers
from medssl.method import as_read
from medssl.methods.audio_visual import AudioVisual
from medssl.tracking import hashed

RANDOM = "random weights"

_PICTURED = 2  # held-out videos of which moments are drawn
_TOGETHER = 8  # stretches of video whose clips are compared with each other


class Judged(NamedTuple):
    """What became of the methods: a row of ``scores`` for each, and the pictures of its moments."""

    scores: pd.DataFrame
    pictures: dict[str, list[Path]]


def judge(
    methods: Mapping[str, AudioVisual],
    data: StreamedRecordings,
    sources: Sequence[Source],
    out: Path,
    *,
    pairs: int,
    every_s: float,
) -> Judged:
    """Judge methods on held-out videos; ``scores.csv`` and pictures are written into ``out``.

    Args:
        methods: By name, in evaluation.
        data: The held-out videos.
        sources: The same, with what is known of their sound.
        out: Folder of the results.
        pairs: True and false pairs of a frame and a sound, of each kind.
        every_s: Seconds between the moments at which the sound is looked for.

    Raises:
        InputError: No held-out video can be used.
    """
    rows, pictures = [], {}
    options = ListenOptions(data.preparation.size, every_s, overlay=False)
    for name, method in methods.items():
        folder = out / "pictures" / name.replace(" ", "_")  # is tracked
        outcome = Outcome()
        for source in sources:
            see_and_hear(Listener(method), source, folder / hashed(source.name), options, outcome)
        if not outcome.videos:
            raise InputError("\n".join(outcome.refused))
        gallery = Gallery.of(outcome.records)
        numbers = pair_scores(method, data, pairs, grid=True)
        numbers["accuracy_off_grid"] = pair_scores(method, data, pairs, grid=False)["accuracy"]
        numbers |= overall(outcome.numbers) | retrieval_numbers(gallery)
        rows.append({"method": name, **numbers, **ndcg_numbers(gallery, kinds_in(gallery, outcome.videos))})
        shown = [folder / hashed(video) / "moments.png" for video in list(outcome.videos)[:_PICTURED]]
        pictures[name] = [*shown, *gallery.draw(folder)[:1]]
    scores = pd.DataFrame(rows)
    write_table(out / "scores.csv", scores)
    write_key(out, [source.name for source in sources])
    return Judged(scores, pictures)


@torch.no_grad()
def pair_scores(method: AudioVisual, data: StreamedRecordings, pairs: int, *, grid: bool) -> dict[str, float]:
    """Accuracy on true and on false pairs of frames and sounds, and the share of each that is told rightly.

    Args:
        method: In evaluation.
        data: Videos.
        pairs: Of each kind, at least; always the same ones.
        grid: Begin false sounds with a frame, as true ones do: then they cannot be told by traces of the encoder.
    """
    needs = replace(method.needs, sound=replace(method.sound, grid=grid))
    clips = StreamedClips(data, needs, as_read, seed=1)
    device = next(method.parameters()).device
    batches = -(-pairs // (_TOGETHER * clips.per_number))
    found = []
    for first in range(0, batches * _TOGETHER, _TOGETHER):
        batch = clips.collate([clips[number] for number in range(first, first + _TOGETHER)])
        losses = method.loss({name: value.to(device) for name, value in batch.items()})
        found.append({name: float(losses[name]) for name in ("accuracy", "accepted", "rejected")})
    return {name: float(value) for name, value in pd.DataFrame(found).mean().items()}
