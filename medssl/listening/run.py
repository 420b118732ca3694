"""Videos through a method of sound and sight: results of each, what is alike in all, and a page about them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from medssl.anonymity import SHOWN_AS, without_names, write_key
from medssl.data.sight_and_sound import open_with_sound, stream_with_sound
from medssl.data.streamed_recordings import StreamedRecording
from medssl.errors import InputError
from medssl.evaluation.clips import spread
from medssl.evaluation.tables import write_table
from medssl.files import write_json
from medssl.listening.moments import Listener, Moments, Record, Shown
from medssl.listening.overlay import add_sound, glowing, write_overlay
from medssl.listening.pictures import Gallery, Tile, correspondence_picture, tiles_picture
from medssl.listening.scores import (
    Heard,
    kinds_in,
    ndcg_numbers,
    overall,
    retrieval_numbers,
    video_numbers,
)
from medssl.listening.truth import heard_things, located, read_truth
from medssl.report.page import Section, html_report
from medssl.tracking import RunLike, hashed

_SHOWN = 8  # moments of a video with their heat
_PAGES_VIDEOS = 12  # videos whose pictures the page shows


class Source(NamedTuple):
    """A video: its name, its file, and, where it is known what sounds, the table of it."""

    name: str
    path: Path
    truth: Path | None = None


@dataclass(frozen=True)
class ListenOptions:
    """What is asked for.

    Args:
        size: Height and width of the pictures that the method sees.
        every_s: From a moment to the next, seconds.
        overlay: Write the video of the heat.
    """

    size: tuple[int, int]
    every_s: float = 0.2
    overlay: bool = True


@dataclass
class Outcome:
    """What became of the videos.

    Attributes:
        videos: Those that could be used.
        records: Their thumbnails.
        numbers: Of each.
        told: What to know, of each.
        left_out: What was not made, and why.
        refused: Videos that could not be used, and why.
    """

    videos: dict[str, Heard] = field(default_factory=dict)
    records: dict[str, Record] = field(default_factory=dict)
    numbers: dict[str, dict[str, float]] = field(default_factory=dict)
    told: dict[str, list[str]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)


def listen_to(
    listener: Listener,
    sources: Iterable[Source],
    out: Path,
    options: ListenOptions,
    run: RunLike,
    made_of: str,
    refused: Iterable[str] = (),
) -> tuple[Outcome, dict[str, float]]:
    """Make all results; ``summary.json`` comes last. A video that cannot be used stops no other.

    Args:
        listener: The method.
        sources: The videos.
        out: Folder of the results: each video has a folder of its name in it.
        options: What is asked for.
        run: Where numbers and pictures are logged.
        made_of: What the summary says that it was made of.
        refused: Why other videos could not be used, to be told too.

    Returns:
        What became of the videos, and numbers of all together, by name.

    Raises:
        InputError: No video can be used, or the disk is full.
    """
    (out / "summary.json").unlink(missing_ok=True)
    outcome = Outcome(refused=list(refused))
    for source in sources:
        see_and_hear(listener, source, out / source.name, options, outcome)
    if not outcome.videos:
        raise InputError("\n".join(outcome.refused))
    gallery = Gallery.of(outcome.records)
    pictures = gallery.draw(out / "pictures") if len(gallery) > 1 else []
    numbers = (
        overall(outcome.numbers) | retrieval_numbers(gallery) | ndcg_numbers(gallery, kinds_in(gallery, outcome.videos))
    )
    table = pd.DataFrame([{"video": name, **numbers} for name, numbers in outcome.numbers.items()])
    write_table(out / "videos.csv", table)
    write_key(out, outcome.videos)
    _page(outcome, numbers, table, pictures, out)
    run.log_metrics(numbers, 0)
    run.log_table(without_names(table), "videos")
    for picture in pictures:
        run.log_file(picture, "pictures")
    run.log_file(out / "report.html")
    told = {"numbers": numbers, "videos": outcome.numbers, "told": outcome.told, "left_out": outcome.left_out}
    write_json(out / "summary.json", told | {"refused": outcome.refused, "made_of": made_of})
    return outcome, numbers


def see_and_hear(listener: Listener, source: Source, place: Path, options: ListenOptions, outcome: Outcome) -> None:
    """See and hear one video, write its results into ``place``, and add it to ``outcome``, or why it cannot be used."""
    try:
        _see_and_hear(listener, source, place, options, outcome)
    except InputError as error:
        outcome.refused.append(str(error))


def _see_and_hear(listener: Listener, source: Source, place: Path, options: ListenOptions, outcome: Outcome) -> None:
    truth = None if source.truth is None else read_truth(source.truth)
    sound = listener.method.sound
    record = Record()
    recording = open_with_sound(source.path, options.size)
    stream = stream_with_sound(recording, options.every_s, sound)
    shown = listener.through(stream, record)
    if options.overlay:
        write_overlay(shown, options.every_s, place / "overlay.mp4")
        try:
            add_sound(place / "overlay.mp4", source.path)
        except InputError as error:
            outcome.left_out[f"{source.name}: the sound of overlay.mp4"] = str(error)
    else:
        for _ in shown:
            pass  # the listener notes each moment in the record when its picture is asked for
    moments = record.moments()
    heard = Heard(moments)
    if truth is not None:
        things = heard_things(truth, moments.times_s, sound.seconds)
        heard = Heard(moments, things, located(moments, things, recording.sequence.frames.size))
        if heard.found is None:
            outcome.left_out[f"{source.name}: localisation"] = "nothing sounds in it."
    write_table(place / "moments.csv", moments_table(heard))
    correspondence_picture(moments, place / "correspondence.png")
    _moments_picture(record, moments, place / "moments.png")
    outcome.videos[source.name], outcome.records[source.name] = heard, record
    outcome.numbers[source.name] = video_numbers(heard)
    outcome.told[source.name] = _told(recording)


def _told(recording: StreamedRecording) -> list[str]:
    """What to know of a video's sound and, once they were read, of its frames."""
    frames = recording.sequence.frames
    messages = [] if recording.sound is None else recording.sound.messages()
    told = [message.removeprefix(f"{frames.files[0]}: ") for message in messages]
    if frames.damaged:
        told.append(
            f"{len(frames.damaged)} of its {len(frames)} frames cannot be decoded, or build on such, the first at "
            f"{frames.times[frames.damaged[0]]:.2f} s; what is said of their moments is not to be trusted."
        )
    return told


def moments_table(heard: Heard) -> pd.DataFrame:
    """A row per moment.

    Its columns are ``time_s``, ``probability`` that the sound is the picture's, ``other_probability`` with another
    moment's sound, ``loudness_db``, ``x`` and ``y`` of the hottest place as shares of the picture, ``heat`` there, and
    ``hit``, whether it sounds, where that is known.
    """
    moments = heard.moments
    return pd.DataFrame(
        {
            "time_s": moments.times_s,
            "probability": moments.probability,
            "other_probability": 1 / (1 + np.exp(-moments.other_odds.astype(np.float64))),
            "loudness_db": moments.loudness_db,
            "x": moments.peaks[:, 0],
            "y": moments.peaks[:, 1],
            "heat": moments.heat.reshape(len(moments), -1).max(1).astype(np.float32),
            **({} if heard.found is None else {"hit": heard.found.hits}),
        }
    )


def _moments_picture(record: Record, moments: Moments, path: Path) -> None:
    """Draw moments spread over a video, with their heat and, below each, their spectrogram."""
    kept = spread(len(record.places), _SHOWN)
    above, below = [], []
    for place in kept:
        n = record.places[place]
        seen = Shown(float(moments.times_s[n]), record.frames[place], moments.heat[n].astype(np.float32), 0.0)
        caption = f"{seen.time_s:.1f} s, fits: {moments.probability[n]:.2f}"
        above.append(Tile(glowing(seen), caption))
        below.append(Tile(record.spectrograms[place][::-1], f"{moments.loudness_db[n]:.0f} dB"))
    tiles_picture([above, below], path)


def verdict(numbers: Mapping[str, float]) -> list[str]:
    """Say in sentences what came out."""
    said = [f"{numbers['moments']:.0f} moments were seen and heard; videos: {numbers['videos']:.0f}."]
    if "localisation/hit_rate" in numbers:
        said.append(
            f"Where it is known what sounds, the hottest place is on it in {numbers['localisation/hit_rate']:.0%} of "
            f"the frames; the middle of the picture in {numbers['localisation/centre']:.0%}, a place at random in "
            f"{numbers['localisation/chance']:.0%}."
        )
    if "own_moment/accuracy" in numbers:
        said.append(
            f"Pictures with their own sound are told from the same ones with the sound of an earlier moment of the "
            f"video in {numbers['own_moment/accuracy']:.0%}; 50 % is chance, and all that can be had of a video that "
            "sounds alike throughout."
        )
    said.append(
        "By its likeness to the picture, a moment's own sound has the median rank "
        f"{numbers['retrieval/own_sound_median_rank']:.0f} among {numbers['retrieval/sounds']:.0f}; half of that "
        "is chance."
    )
    if "ndcg/image-audio" in numbers:
        said.append(
            f"What is of the same kind in other videos is found with an nDCG of {numbers['ndcg/image-audio']:.2f} "
            f"from picture to sound and {numbers['ndcg/audio-image']:.2f} from sound to picture; "
            f"{numbers['ndcg/chance']:.2f} by chance."
        )
    return said


def _page(outcome: Outcome, numbers: dict[str, float], table: pd.DataFrame, pictures: list[Path], out: Path) -> None:
    """Write ``report.html``."""
    alike = "Spectrograms: time to the right, frequency up, 80 dB from black to white."
    sections = [Section("Verdict", "\n\n".join(verdict(numbers)))]
    sections.append(Section("What is alike", alike, None, pictures))
    for name in list(outcome.videos)[:_PAGES_VIDEOS]:
        told = "\n\n".join(outcome.told[name])
        shown = [out / name / "correspondence.png", out / name / "moments.png"]
        sections.append(Section(f"Video {hashed(name)}", told, None, shown))
    left_out = (
        f"Videos: {len(outcome.refused)}, results of others: {len(outcome.left_out)}; summary.json says which, why."
    )
    sections.append(Section("Left out", left_out if outcome.refused or outcome.left_out else "Nothing."))
    sections.append(Section("Numbers of each video", SHOWN_AS, without_names(table)))
    sections.append(Section("Numbers", "", pd.DataFrame({"what": list(numbers), "value": list(numbers.values())})))
    html_report("Sound and sight", sections, out / "report.html")
