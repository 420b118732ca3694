"""The chart and the page of a label-efficiency study: the verdict, a chart, a table, then how it was measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator
from numpy.typing import NDArray

from medssl.evaluation.efficiency import (
    SCRATCH,
    Failure,
    efficiency_cells,
    headline,
    named,
    overview_cells,
    verdict,
)
from medssl.evaluation.printing import arms_cells
from medssl.report.figures import arm_color, save
from medssl.report.page import Section, html_report

_SCRATCH_COLOR = "#555555"
_COLORS, _MARKERS = (
    7,
    "os^D",
)  # the eighth colour is grey, as scratch is; after seven arms another marker tells them apart
_DODGE = 0.035  # of the width that the numbers of labels span: side by side, intervals can be told apart


def efficiency_picture(curve: pd.DataFrame, gains: pd.DataFrame, path: Path) -> None:
    """Draw Dice against the number of labels, a line per arm, and beside it the paired gain over scratch.

    Args:
        curve: As ``medssl.evaluation.efficiency.learning_curve`` returns it.
        gains: As ``gains_over_scratch`` returns it.
        path: The picture.
    """
    counts = sorted(curve["labels"].unique())
    arms = [SCRATCH, *(arm for arm in curve["arm"].unique() if arm != SCRATCH)]
    figure = Figure(figsize=(11, 4.6 + 0.25 * -(-len(arms) // 5)), facecolor="white", layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    for number, arm in enumerate(arms):
        style = _style(number)
        of_arm = curve[curve["arm"] == arm].sort_values("labels")
        at = _dodged(of_arm["labels"].to_numpy(), counts, number, len(arms))
        _line(left, at, of_arm, "mean", named(arm), style)
        if arm != SCRATCH:
            paired = gains[gains["arm"] == arm].sort_values("labels")
            at = _dodged(paired["labels"].to_numpy(), counts, number - 1, len(arms) - 1)
            _line(right, at, paired, "difference", named(arm), style)
    right.axhline(0, color=_SCRATCH_COLOR, linestyle="--", linewidth=1.2)
    left.set_ylabel("Dice, mean over structures\nand test subjects")
    left.set_title("What each reaches", fontsize=11)
    right.set_ylabel("Dice gained over scratch,\nsame subjects and labels")
    right.set_title("What pretraining adds", fontsize=11)
    for axes in (left, right):
        _number_axis(axes, counts)
    handles, names = left.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=min(5, len(names)), frameon=False, fontsize=11)
    bars = (
        "bars: 95 % interval over test subjects"
        if curve["low"].notna().any()
        else "too few test subjects for intervals"
    )
    figure.supxlabel(f"labelled subjects trained on ({bars})", fontsize=10)
    save(figure, path)


@dataclass(frozen=True)
class StudyDetails:
    """What the page tells beside the scores.

    Attributes:
        method: Paragraphs that say how it was measured: data, split, steps, network.
        limits: Paragraphs that say what is not known.
        costs: One row per arm: ``arm``, and columns of text as they are shown, the linear probe's Dice and minutes.
        examples: One test scan as each arm segments it: arm -> picture.
        example: Which scan, and after which training.
        pretrainings: What became of each pretraining: arm -> picture.
        failures: What the study tried in vain.
    """

    method: Sequence[str]
    limits: Sequence[str]
    costs: pd.DataFrame
    examples: Mapping[str, Path]
    example: str
    pretrainings: Mapping[str, Path]
    failures: Sequence[Failure] = ()


def efficiency_page(
    scores: pd.DataFrame, curve: pd.DataFrame, gains: pd.DataFrame, details: StudyDetails, out: Path
) -> None:
    """Write ``report.html`` and ``pictures/efficiency.png`` to ``out``.

    Args:
        scores: Of all trainings, see ``medssl.evaluation.efficiency``.
        curve: Made of them.
        gains: Made of them.
        details: What else the page tells.
        out: Folder of the results.
    """
    chart = out / "pictures" / "efficiency.png"
    efficiency_picture(curve, gains, chart)
    counted = (
        f"{curve['subjects'].max()} test subjects, {curve['seeds'].max()} draws of the labelled subjects; every arm "
        "with the same subjects and as many steps. Scratch: random weights, the same network."
    )
    failed = [str(failure) for failure in details.failures]
    sections = [
        Section("In short", counted, None, [chart]),
        Section("Each pretraining", _OVERVIEW, overview_cells(curve, gains, details.costs, details.failures)),
        Section("In words", "\n\n".join(verdict(gains, details.failures))),
        *([Section("What failed", "\n\n".join([_FAILED, *failed]))] if failed else []),
        Section("The numbers", _READING, efficiency_cells(curve, gains, details.failures)),
        Section("How it was measured", "\n\n".join(details.method)),
        Section("What is not known", "\n\n".join(details.limits)),
    ]
    sections += [
        Section(f"One test scan, {named(arm)}", details.example, None, [picture])
        for arm, picture in details.examples.items()
    ]
    for labels, of_labels in scores.groupby("labels"):
        tables = {named(str(arm)): table for arm, table in of_labels.groupby("arm", sort=False)}
        notes = "\n\n".join(sorted(set(gains.loc[gains["labels"] == labels, "notes"])))
        sections.append(Section(f"Each structure, labels: {labels}", notes, arms_cells(tables)))
    sections += [
        Section(f"Pretraining: {named(arm)}", "", None, [picture]) for arm, picture in details.pretrainings.items()
    ]
    html_report(headline(gains), sections, out / "report.html")


_READING = (
    "Dice is averaged over structures and over the seeds of each test subject, then over subjects; over subsets: the "
    "least and the largest mean of one seed, that is of one draw of labelled subjects. The gain is paired: the same "
    "test subjects, labels and seeds. p is Wilcoxon's signed-rank test over subjects; Holm's correction is over the "
    "arms at one number of labels, not over the numbers of labels. p says nothing of other labelled subjects: what not "
    "every draw of them shows only seems to be a gain or a loss, however small p is."
)
_OVERVIEW = (
    "Dice on the test scans after fine-tuning, and in brackets the gain over scratch with the same labels. What "
    "reaches the highest Dice in the mean over the numbers of labels stands first, which alone makes no difference "
    "real: see In words. The probe is a linear classifier of the frozen encoder's features, voxel by voxel, fitted on "
    "the largest number of labels and scored on the prepared grid; the random encoder's Dice is what any features "
    "give. Minutes are of this machine, for one pretraining and for one fine-tuning with its share of validation, "
    "scoring left out; ≥ where a training was interrupted and only its last part was timed."
)
_FAILED = (
    "A pretraining that failed is in no number. A fine-tuning that failed takes its pretraining out at that number of "
    "labels, so that all are averaged over the same draws. Scans and subjects are named by a hash. Started again with "
    "the same arguments, the study tries again what failed, and nothing else."
)


def _style(number: int) -> dict[str, Any]:
    """How the arm of that number is drawn; 0 is scratch."""
    if not number:
        return {"color": _SCRATCH_COLOR, "marker": "o", "linestyle": "--"}
    turn, color = divmod(number - 1, _COLORS)
    return {"color": arm_color(color), "marker": _MARKERS[turn % len(_MARKERS)], "linestyle": "-"}


def _line(
    axes: Axes, at: NDArray[np.float64], rows: pd.DataFrame, value: str, label: str, style: Mapping[str, Any]
) -> None:
    """A line with an interval at each point, where there is one."""
    middle = rows[value].to_numpy()
    reach = np.nan_to_num(np.abs(rows[["low", "high"]].to_numpy().T - middle))
    axes.errorbar(at, middle, reach, label=label, markersize=5, capsize=3, elinewidth=1.2, **style)


def _dodged(labels: NDArray[np.int64], counts: Sequence[int], number: int, of: int) -> NDArray[np.float64]:
    """Shift an arm's numbers of labels a little, on a logarithmic axis."""
    span = max(np.log(counts[-1] / counts[0]), 1.0)
    shifted: NDArray[np.float64] = labels * np.exp(_DODGE * span * (number - (of - 1) / 2) / max(of / 2, 1))
    return shifted


def _number_axis(axes: Axes, counts: Sequence[int]) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(counts))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([str(count) for count in counts])
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
