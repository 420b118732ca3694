"""The page about optical flow: the verdict, tables, pictures, and what the numbers are not."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from medssl.anonymity import SHOWN_AS
from medssl.evaluation.flow import FLOW_SCORES, flow_summary
from medssl.evaluation.matching import MatchingScores
from medssl.flow_results.judge import METHOD, VARIATIONAL, ZERO
from medssl.report.page import Section, html_report

LEARNT, HELD_OUT = "learnt from", "held out"
_ALIKE = 0.02  # of an error: what lies within is no difference to be told

_TOLD = (
    "Against the known flow, in pixels of the prepared pictures: epe is the mean end-point error, fl_percent the share "
    "that is off by over 3 pixels and over 5 % (F1-all). Nothing was learnt from the true flow, so the recordings that "
    "were learnt from are scored too; held-out ones were never seen. Occluded is what leaves the picture and, where "
    "depth is known, what lies behind nearer things in the next frame; without depth the latter counts as visible."
)
_NOT_TRUTH = (
    "No flow of these recordings is known: these numbers are not truth. redrawn_error is photometric, of each frame "
    "drawn from the next one, 0 to 1, over the pixels that every method draws: where tissue is uniform any flow does "
    "well, and flow that was trained to make the frames look alike is at an advantage."
)


def truth_table(scores: pd.DataFrame) -> pd.DataFrame:
    """A row per method, region, and recordings learnt from or not: the mean over subjects of each score."""
    parts = []
    for learnt, label in ((True, LEARNT), (False, HELD_OUT)):
        some = scores[scores["learnt_from"] == learnt]
        if len(some):
            named = {name: some[some["method"] == name] for name in some["method"].unique()}
            parts.append(flow_summary(named).assign(recordings=label))
    rows = pd.concat(parts, ignore_index=True)
    kept = rows[["recordings", "method", "structure", "n", *(f"{score}_mean" for score in FLOW_SCORES)]]
    kept = kept.rename(columns={"structure": "region", "n": "pairs"}).rename(columns=lambda c: c.removesuffix("_mean"))
    return kept[kept["pairs"] > 0].reset_index(drop=True)


def indirect_table(scores: pd.DataFrame) -> pd.DataFrame:
    """A row per method: means over the pairs."""
    return scores.drop(columns=["subject", "scan"]).groupby("method", sort=False).mean().reset_index()


def main_table(scores: MatchingScores) -> pd.DataFrame:
    """The scores against the truth, or what is told without one."""
    return truth_table(scores.truth) if len(scores.truth) else indirect_table(scores.indirect)


def verdict(scores: MatchingScores) -> list[str]:
    """Say in a sentence what came out: of recordings that were learnt from, and of those that were held out."""
    if not len(scores.truth):
        error = indirect_table(scores.indirect).set_index("method")["redrawn_error"]
        baselines = ", ".join(f"by {name}: {error[name]:.3f}" for name in (ZERO, VARIATIONAL) if name in error)
        return [
            "No flow is known, so how right it is cannot be said. Each frame drawn from the next one by the learnt "
            f"flow differs by {error[METHOD]:.3f} from what it is ({baselines}, over the same pixels)."
        ]
    table = truth_table(scores.truth)
    everywhere = table[table["region"] == "all"]
    return [
        _sentence(label, everywhere[everywhere["recordings"] == label].set_index("method")["epe"].to_dict())
        for label in everywhere["recordings"].unique()
    ]


def flow_page(scores: MatchingScores, training: Path, no_variational: str, path: Path) -> None:
    """Write the page.

    Args:
        scores: What was judged.
        training: Folder of the training.
        no_variational: Why TV-L1 was left out; empty where it was run.
        path: The page.
    """
    left_out = f"TV-L1 was left out: {no_variational}" if no_variational else ""
    sections = [Section("Verdict", "\n\n".join(verdict(scores)))]
    if len(scores.truth):
        sections.append(Section("Scores", f"{_TOLD}\n\n{left_out}", truth_table(scores.truth)))
    if len(scores.indirect):
        text = f"{_NOT_TRUTH}\n\n{left_out}"
        sections.append(Section("What is told without a truth", text, indirect_table(scores.indirect)))
    wheel = "The hue is the direction, as in the wheel; the paler, the slower. Grey is unknown."
    sections.append(Section("Pictures", f"{wheel} {SHOWN_AS}", None, scores.pictures))
    pictures = [training / "pictures" / "training.png", training / "pictures" / "clip.png"]
    sections.append(Section("Training", "Without any truth.", None, pictures))
    html_report("Optical flow", sections, path)


def _sentence(label: str, error: Mapping[str, float]) -> str:
    whose = {LEARNT: "Of the recordings that it learnt from, without their truth,", HELD_OUT: "Of held-out recordings"}
    told = [_against(error[METHOD], error[ZERO], "none")]
    beside = f"zero flow by {error[ZERO]:.2f}"
    if VARIATIONAL in error:
        told.append(_against(error[METHOD], error[VARIATIONAL], "TV-L1"))
        beside += f", TV-L1 by {error[VARIATIONAL]:.2f}"
    return f"{whose[label]} the flow is off by {error[METHOD]:.2f} px in the mean ({beside}): {', '.join(told)}."


def _against(error: float, other: float, named: str) -> str:
    if abs(error - other) <= _ALIKE * other:
        return f"hardly different from {named}"
    return f"{'better' if error < other else 'worse'} than {named}"
