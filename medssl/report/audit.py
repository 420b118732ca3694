"""What the shortcut audit found, as charts and a table: scores under each control, and what features tell."""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medssl.evaluation.audit import Interval, Judgement
from medssl.report.figures import arm_color, save

_ROW_INCHES = 0.5
_CONTROL, _SHAM, _USED = arm_color(0), "#888888", arm_color(5)


def controls_table(judgement: Judgement) -> pd.DataFrame:
    """Lay out, for each control, its score and its sham's, what it takes, and whether its cue was used."""
    return pd.DataFrame(
        {
            "control": row.control,
            f"{judgement.measure} without the cue": f"{row.score:.3f} ({row.low:.3f} to {row.high:.3f})",
            "with the sham": f"{row.sham:.3f} ({row.sham_low:.3f} to {row.sham_high:.3f})",
            "taken of what was learnt": f"{100 * max(row.share, 0):.0f} %" if judgement.learnt else "–",
            "used": "yes" if row.used else "no" if judgement.learnt else "–",
        }
        for row in judgement.table.itertuples()
    )


def controls_chart(judgement: Judgement, path: Path) -> None:
    """Draw each control's score beside its sham's, with 95 % intervals, the untouched score and the floor as bands.

    A control whose cue was used is red and says so.

    Args:
        judgement: What to draw.
        path: The picture.
    """
    table = judgement.table
    figure = Figure(figsize=(9, _ROW_INCHES * len(table) + 1.7), facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    for band, words, color in (
        (judgement.whole, "crops as they are", arm_color(2)),
        (judgement.floor, "crops exchanged", "#555555"),
    ):
        axes.axvspan(band.low, band.high, color=color, alpha=0.2, linewidth=0)
        axes.axvline(band.mean, color=color, label=words)
    for place, row in enumerate(table.itertuples()):
        _point(axes, place + 0.13, Interval(row.sham, row.sham_low, row.sham_high), _SHAM, "s")
        _point(axes, place - 0.13, Interval(row.score, row.low, row.high), _USED if row.used else _CONTROL, "o")
    axes.plot([], [], "o", color=_CONTROL, label="cue taken out")
    axes.plot([], [], "o", color=_USED, label="cue taken out, and used")
    axes.plot([], [], "s", color=_SHAM, label="sham: as strong, cue left in")
    names = [f"{row.control} (used)" if row.used else row.control for row in table.itertuples()]
    axes.set_yticks(range(len(table)), names)
    axes.set_ylim(len(table) - 0.5, -0.5)
    axes.set_xlabel(f"{judgement.measure} on held-out crops")
    _finish(figure, axes, path)


def probes_chart(probes: pd.DataFrame, path: Path) -> None:
    """Draw how well each cue is read from the features, after and before training, beside the commonest class.

    Args:
        probes: What ``medssl.evaluation.cue_probes`` returned, with a column ``untrained``.
        path: The picture.
    """
    known = probes[probes["note"] == ""]
    figure = Figure(figsize=(9, _ROW_INCHES * max(1, len(known)) + 1.7), facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    for place, row in enumerate(known.itertuples()):
        _point(axes, place - 0.13, Interval(row.accuracy, row.low, row.high), _CONTROL, "o")
        axes.plot(row.untrained, place + 0.13, "s", color=_SHAM)
        axes.plot([row.chance] * 2, [place - 0.3, place + 0.3], color="black", linewidth=2)
    axes.plot([], [], "o", color=_CONTROL, label="trained encoder")
    axes.plot([], [], "s", color=_SHAM, label="the encoder before training")
    axes.plot([], [], "|", color="black", markersize=12, markeredgewidth=2, label="commonest class")
    axes.set_yticks(range(len(known)), [f"{row.cue} ({row.classes} classes)" for row in known.itertuples()])
    axes.set_ylim(max(1, len(known)) - 0.5, -0.5)
    axes.set_xlim(0, 1.02)
    axes.set_xlabel("accuracy of a linear probe")
    _finish(figure, axes, path)


def _point(axes: Axes, place: float, value: Interval, color: str, marker: str) -> None:
    axes.plot([value.low, value.high], [place, place], color=color, linewidth=2)
    axes.plot(value.mean, place, marker, color=color, markersize=6)


def _finish(figure: Figure, axes: Axes, path: Path) -> None:
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    save(figure, path)
