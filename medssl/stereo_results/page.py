"""The page about disparity of stereo recordings: the verdict, tables, pictures, and what the numbers are not."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from medssl.anonymity import SHOWN_AS
from medssl.evaluation.disparity import disparity_summary
from medssl.evaluation.matching import MatchingScores
from medssl.report.page import Section, html_report
from medssl.stereo_results.judge import CONSTANT, FILLED, MATCHER, NOT_AVERAGED

_SCORES = ("error_px", "bad_1_percent", "bad_2_percent", "bad_3_percent", "abs_rel", "depth_error")
_SEEN = "non-occluded"
_NOT_TRUTH = (
    "No disparity of these recordings is known: these numbers are not truth, none says how right a disparity is. "
    "redrawn_error is photometric, of the left picture drawn from the right one; next_frame_error, where camera poses "
    "are recorded, of the next frame seen through the depth; 0 to 1, over the pixels that every method has. Where "
    "tissue is uniform any disparity does well, and a method that was trained by this error is at an advantage. The "
    "matcher too can be wrong where it is sure: a difference from it says that one of the two is."
)


def truth_table(scores: pd.DataFrame) -> pd.DataFrame:
    """A row per method and region: the mean over subjects of each score, the share of pixels without a prediction."""
    named = {name: scores[scores["method"] == name] for name in scores["method"].unique()}
    rows = disparity_summary(named).assign(missing=lambda table: 100 * table["missing"])
    kept = rows[["method", "structure", "n", "missing", *(f"{score}_mean" for score in _SCORES)]]
    return kept.rename(columns={"structure": "region", "n": "frames", "missing": "missing_percent"}).rename(
        columns=lambda name: name.removesuffix("_mean")
    )


def main_table(scores: MatchingScores) -> pd.DataFrame:
    """The scores against the truth, or what is told without one."""
    return truth_table(scores.truth) if len(scores.truth) else indirect_table(scores.indirect)


def indirect_table(scores: pd.DataFrame) -> pd.DataFrame:
    """A row per method: means over the frames; what was never measured is left out."""
    numbers = scores.drop(columns=["subject", "scan"]).groupby("method", sort=False).mean()
    return numbers.dropna(axis=1, how="all").reset_index()


def verdict(scores: MatchingScores, methods: Sequence[str]) -> list[str]:
    """Say in a sentence for each method what came out."""
    if len(scores.truth):
        table = truth_table(scores.truth)
        seen = table[table["region"] == _SEEN].set_index("method")["error_px"].to_dict()
        return [_against(name, seen) for name in methods]
    table = indirect_table(scores.indirect).set_index("method")
    return [_without_truth(name, table) for name in methods]


def stereo_page(
    scores: MatchingScores,
    methods: Mapping[str, Path],
    units: Sequence[str],
    no_matcher: str,
    more: int,
    path: Path,
) -> None:
    """Write the page.

    Args:
        scores: What was judged.
        methods: By name, the folder of each training.
        units: Of the recordings' lengths.
        no_matcher: Why semi-global matching was left out; empty where it was run.
        more: How many whole recordings have a page of their own.
        path: The page.
    """
    sections = [Section("Verdict", "\n\n".join(verdict(scores, list(methods))))]
    if len(scores.truth):
        told = (
            "Against the known disparity, in pixels of the prepared pictures. Non-occluded is what both cameras see, "
            "told from the truth: what lies in the right picture and behind nothing nearer there. bad_k is the share "
            "that is off by over k pixels or has no disparity; abs_rel and depth_error are of the depth, the latter in "
            f"{', '.join(units)}. The constant is the median of the truth itself. {_matcher_told(no_matcher)}"
        )
        sections.append(Section("Scores", told, truth_table(scores.truth)))
    if len(scores.indirect):
        text = f"{_NOT_TRUTH}\n\n{_matcher_told(no_matcher)}"
        sections.append(Section("What is told without a truth", text, indirect_table(scores.indirect)))
    sections.append(
        Section("Pictures", f"All disparities of a frame in the same colours. {SHOWN_AS}", None, scores.pictures)
    )
    for name, folder in methods.items():
        pictures = [folder / "pictures" / "training.png", folder / "pictures" / "clip.png"]
        sections.append(Section(f"Training of {name}", "Without any truth, on these recordings.", None, pictures))
    if more:
        told = f"{more} have a page of their own: recordings/<method>/<recording>/report.html. {SHOWN_AS}"
        sections.append(Section("Whole recordings", told))
    html_report("Depth from stereo", sections, path)


def _against(name: str, error: Mapping[str, float]) -> str:
    """Compare with the baselines, where both cameras see."""
    parts = [f"{name} is off by {error[name]:.2f} px where both cameras see"]
    parts.append(f"a constant disparity by {error[CONSTANT]:.2f}")
    told = ["better than the constant" if error[name] < error[CONSTANT] else "no better than the constant"]
    if FILLED in error:
        parts.append(f"semi-global matching, its gaps filled, by {error[FILLED]:.2f}")
        told.append("better than the matcher" if error[name] < error[FILLED] else "worse than the matcher")
    if name + NOT_AVERAGED in error:
        parts.append(f"without the average over the mirrored picture it is off by {error[name + NOT_AVERAGED]:.2f}")
    return f"{'; '.join(parts)}. It is {', '.join(told)}."


def _without_truth(name: str, table: pd.DataFrame) -> str:
    said = f"No disparity is known, so how right {name} is cannot be said. "
    said += f"Drawn from the right one by it, the left picture differs by {table.at[name, 'redrawn_error']:.3f}"
    said += f" (a constant disparity: {table.at[CONSTANT, 'redrawn_error']:.3f}"
    if MATCHER not in table.index:
        return said + ")."
    said += f", semi-global matching: {table.at[MATCHER, 'redrawn_error']:.3f}). "
    return said + (
        f"Where the matcher finds a match from both sides ({table.at[MATCHER, 'coverage_percent']:.0f} % of the valid "
        f"pixels), {table.at[name, 'within_3_px_percent']:.0f} % of its disparities are within 3 px of the matcher's, "
        f"the median difference is {table.at[name, 'median_difference_px']:.2f} px."
    )


def _matcher_told(missing: str) -> str:
    if missing:
        return f"Semi-global matching was left out: {missing}"
    return (
        "Semi-global matching keeps what it finds from both sides; filled, its gaps have the smaller of the next "
        "disparities beside them."
    )
