"""The page about methods of sound and sight: the verdict, scores beside baselines, and where each finds the sound."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from medssl.anonymity import SHOWN_AS
from medssl.listening.judge import RANDOM, Judged
from medssl.report.page import Section, html_report

_SHORTCUT = 0.1  # of accuracy, by which sounds off the grid are told better than those on it
_COLUMNS = {
    "method": "method",
    "accuracy": "accuracy",
    "accuracy_off_grid": "accuracy, off the grid",
    "localisation/hit_rate": "hit rate",
    "localisation/centre": "middle",
    "localisation/chance": "any place",
    "retrieval/own_sound_median_rank": "own sound's rank",
    "ndcg/image-image": "nDCG image-image",
    "ndcg/image-audio": "image-audio",
    "ndcg/audio-image": "audio-image",
    "ndcg/audio-audio": "audio-audio",
    "ndcg/chance": "nDCG by chance",
}
_TOLD = (
    "On held-out videos. accuracy: a frame is told to go with its own sound and not with another video's, 0.5 by "
    "chance; all sounds begin with a frame, so that traces of the sound's encoder, which repeat with the frames, tell "
    "nothing. Off the grid the other video's sounds begin anywhere: who does better there has learnt those traces. hit "
    "rate: of the moments at which something sounds, how often the hottest place is on it, beside the middle of the "
    "picture and a place at random. own sound's rank: the median place of a frame's own sound among all, by likeness. "
    "nDCG: what is of the same kind in other videos, found from picture or sound."
)


def main_table(scores: pd.DataFrame) -> pd.DataFrame:
    """The scores that the page shows, a row per method; what is not known is left out."""
    known = {name: shown for name, shown in _COLUMNS.items() if name in scores}
    return scores[list(known)].rename(columns=known).dropna(axis=1, how="all")


def verdict(scores: pd.DataFrame) -> list[str]:
    """Say in a sentence for each method what came out, beside random weights."""
    table = scores.set_index("method")
    return [_sentence(str(name), table) for name in table.index if name != RANDOM]


def audio_visual_page(judged: Judged, trainings: Mapping[str, Path], refused: int, path: Path) -> None:
    """Write the page.

    Args:
        judged: What was judged.
        trainings: By name, the folder of each training.
        refused: How many videos could not be used.
        path: The page.
    """
    sections = [Section("Verdict", "\n\n".join(verdict(judged.scores)))]
    sections.append(Section("Scores", _TOLD, main_table(judged.scores)))
    for name, pictures in judged.pictures.items():
        said = "Where the sound is taken to come from, and below it what was heard; then sounds alike to frames."
        sections.append(Section(name, said, None, pictures))
    for name, folder in trainings.items():
        pictures = [folder / "pictures" / "training.png", folder / "pictures" / "clip.png"]
        sections.append(Section(f"Training of {name}", "Without any label.", None, pictures))
    sections.append(Section("Left out", f"Videos: {refused}; the command says which, and why. {SHOWN_AS}"))
    html_report("Sound and sight", sections, path)


def _sentence(name: str, table: pd.DataFrame) -> str:
    row = table.loc[name]
    said = f"{name} tells {row['accuracy']:.0%} of the pairs rightly (chance 50 %, {RANDOM} "
    said += f"{table.at[RANDOM, 'accuracy']:.0%})"
    if row["accuracy_off_grid"] - row["accuracy"] > _SHORTCUT:
        said += (
            f", but {row['accuracy_off_grid']:.0%} where false sounds are off the grid: it reads the encoder's traces"
        )
    if "localisation/hit_rate" in table and pd.notna(row["localisation/hit_rate"]):
        best = max(row["localisation/centre"], row["localisation/chance"], table.at[RANDOM, "localisation/hit_rate"])
        than = "more" if row["localisation/hit_rate"] > best else "no more"
        said += (
            f", and finds what sounds in {row['localisation/hit_rate']:.0%} of the moments, {than} than the middle of "
            f"the picture ({row['localisation/centre']:.0%}), a place at random ({row['localisation/chance']:.0%}) and "
            f"{RANDOM} ({table.at[RANDOM, 'localisation/hit_rate']:.0%})"
        )
    return said + "."
