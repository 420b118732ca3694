"""What all pictures share: figures that no global state keeps alive, written whole or not at all."""

from pathlib import Path

from matplotlib.figure import Figure

from medssl.files import write_aside

ARM_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#555555")
"""One colour per run, told apart by the colour-blind: Okabe and Ito, https://jfly.uni-koeln.de/color/."""


def arm_color(number: int) -> str:
    """The colour of the run of that number; they repeat after eight."""
    return ARM_COLORS[number % len(ARM_COLORS)]


def save(figure: Figure, path: Path, dpi: int = 150) -> None:
    """Write a figure in the format of the path's ending.

    The figures here are made from ``matplotlib.figure.Figure`` alone: pyplot, which would keep them open and needs a
    display where there is one, is never used.
    """
    with write_aside(path) as aside:
        figure.savefig(aside, dpi=dpi, facecolor=figure.get_facecolor())
