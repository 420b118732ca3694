"""What the geometry of a video looks like: depth maps and their errors in colour, and the camera's path.

Colours are never without a bar that says their range; what is not known is grey.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from medssl.data.sequence import Unit
from medssl.errors import InputError
from medssl.evaluation.trajectory import Freedom, absolute_trajectory_error, registered
from medssl.report.figures import arm_color, save

Limits = tuple[float, float]

UNKNOWN = "#666666"
"""The grey of what is not known."""

DEPTH_COLORS, ERROR_COLORS = "turbo_r", "magma"  # near is red, far is blue; no error is black
_PANEL_INCHES, _BAR_INCHES, _TITLE_INCHES = 3.6, 0.55, 0.35
_WIDE = 2.0  # pictures this much wider than high stand below each other
_RANGE = (2, 98)  # percentiles that the colours span where no range is given
_TRUTH_COLOR = "#000000"


@dataclass(frozen=True)
class Panel:
    """One picture of a row.

    Attributes:
        title: What it shows.
        picture: Values (H, W), NaN where unknown, or colours (H, W, 3).
        colors: Name of matplotlib's colour map, for values.
        limits: Of the values that the colours span; without, the 2nd to the 98th percentile.
        label: Quantity and unit, beside the colour bar; without, there is no bar.
    """

    title: str
    picture: NDArray[Any]
    colors: str = "gray"
    limits: Limits | None = None
    label: str = ""


def depth_picture(
    depth: NDArray[Any], path: Path, *, unit: Unit, limits: Limits | None = None, title: str = ""
) -> None:
    """Draw one depth map in colour.

    Args:
        depth: (H, W); unknown where it is not a positive number.
        path: The picture.
        unit: Of the depth.
        limits: Depths that the colours span, to compare frames; without, the 2nd to the 98th percentile.
        title: Stands above.
    """
    figure, _ = draw_panels([_depth_panel("depth", depth, unit, limits)], title)
    save(figure, path)


def depth_panels_picture(
    image: NDArray[Any],
    depth: NDArray[Any],
    path: Path,
    *,
    unit: Unit,
    warped: NDArray[Any] | None = None,
    error: NDArray[Any] | None = None,
    mask: NDArray[np.bool_] | None = None,
    limits: Limits | None = None,
    title: str = "",
) -> None:
    """Draw what a self-supervised depth network is trained by, side by side: is the error where the depth is wrong?

    Args:
        image: (H, W) or (H, W, 3), 8 bits or 0 to 1.
        depth: (H, W); unknown where it is not a positive number.
        path: The picture.
        unit: Of the depth.
        warped: Another frame, seen from this one's camera through the depth; like ``image``.
        error: What the warped frame differs by, (H, W).
        mask: Where the error counts, (H, W).
        limits: Depths that the colours span.
        title: Stands above.
    """
    panels = [Panel("input", image), _depth_panel("depth", depth, unit, limits)]
    if warped is not None:
        panels.append(Panel("other frame, warped", warped))
    if error is not None:
        panels.append(Panel("photometric error", error, ERROR_COLORS, _from_zero(error), "error"))
    if mask is not None:
        share = f"mask: {100 * float(np.mean(mask)):.0f} % counts"
        panels.append(Panel(share, np.asarray(mask, dtype=np.float64), limits=(0, 1)))
    figure, _ = draw_panels(panels, title)
    save(figure, path)


def depth_error_picture(
    image: NDArray[Any],
    prediction: NDArray[Any],
    truth: NDArray[Any],
    path: Path,
    *,
    unit: Unit,
    limits: Limits | None = None,
    largest_percent: float = 30.0,
    title: str = "",
) -> None:
    """Draw an image, its depth, the true depth in the same colours, and how many per cent of the truth they differ by.

    Args:
        image: (H, W) or (H, W, 3), 8 bits or 0 to 1.
        prediction: (H, W), at the truth's scale (``medssl.evaluation.depth.DepthFit.apply``).
        truth: (H, W); both unknown where they are not a positive number.
        path: The picture.
        unit: Of the truth.
        limits: Depths that the colours span; without, the 2nd to the 98th percentile of the truth.
        largest_percent: Error at the end of its colours.
        title: Stands above.
    """
    known, given = _unknown_as_nan(truth), _unknown_as_nan(prediction)
    limits = limits or _percentiles(known)
    off = 100 * np.abs(given - known) / known
    panels = [
        Panel("input", image),
        _depth_panel("depth", given, unit, limits),
        _depth_panel("true depth", known, unit, limits),
        Panel(f"error, mean {_mean(off):.1f} %", off, ERROR_COLORS, (0, largest_percent), "% of the true depth"),
    ]
    figure, _ = draw_panels(panels, title)
    save(figure, path)


def trajectory_picture(
    paths: Mapping[str, NDArray[Any]],
    path: Path,
    *,
    unit: Unit,
    truth: NDArray[Any] | None = None,
    freedom: Freedom = "sim3",
    title: str = "",
) -> None:
    """Draw camera paths from above and from the side, true in proportion, their starts marked.

    Args:
        paths: Poses (N, 4, 4) of each method, camera to world; a line is broken where a frame has none.
        path: The picture.
        unit: Of the truth, or of the paths where there is none.
        truth: The true poses; every path is aligned with it first, and its error is said.
        freedom: Of the alignment, as for ``medssl.evaluation.trajectory.align``.
        title: Stands above.
    """
    figure = Figure(figsize=(11, 5.5 + 0.25 * len(paths)), facecolor="white", layout="constrained")
    views = figure.subplots(1, 2)
    if truth is not None:
        _draw_path(views, truth, _TRUTH_COLOR, "true path", width=2.5)
    for number, (name, poses) in enumerate(paths.items()):
        label = f"{name}: {int(registered(poses).sum())} of {len(poses)} frames have a pose"
        if truth is not None:
            error = absolute_trajectory_error(poses, truth, freedom)
            poses = error.alignment.poses(poses)
            of_unit = "" if unit == "unknown" else f" {unit}"
            label += f"; {_aligned(freedom, error.alignment.scale)}, error {error.rmse:.3g}{of_unit} (RMS)"
        _draw_path(views, poses, arm_color(number), label)
    for axes, vertical, seen in ((views[0], "z", "from above"), (views[1], "y", "from behind")):
        axes.set_title(seen, fontsize=11)
        axes.set_xlabel(f"x ({_named(unit)})")
        axes.set_ylabel(f"{vertical} ({_named(unit)})")
        axes.set_aspect("equal", adjustable="datalim")
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    views[1].invert_yaxis()  # y points down
    handles, labels = views[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", frameon=False, fontsize=10)
    figure.suptitle(" – ".join(part for part in (title, "circle: start, square: end") if part), fontsize=11)
    save(figure, path)


def draw_panels(panels: Sequence[Panel], title: str = "") -> tuple[Figure, list[Axes]]:
    """Draw pictures of one shape side by side, wide ones below each other; returns the figure and an axes for each."""
    height, width = panels[0].picture.shape[:2]
    return draw_grid([[panel] for panel in panels] if width > _WIDE * height else [panels], title)


def draw_grid(rows: Sequence[Sequence[Panel | None]], title: str = "") -> tuple[Figure, list[Axes]]:
    """Draw rows of pictures of one shape, ``None`` for an empty place; returns the figure and an axes for each place.

    Raises:
        InputError: The rows differ in length, or nothing is to be drawn.
    """
    panels = [panel for row in rows for panel in row if panel is not None]
    if not panels or len({len(row) for row in rows}) > 1:
        raise InputError(f"A grid of pictures needs rows of one length, got {[len(row) for row in rows]}.")
    height, width = panels[0].picture.shape[:2]
    columns = len(rows[0])
    wide = _PANEL_INCHES * (2 if columns == 1 else 1)
    high = wide * height / width
    row_inches = high + _TITLE_INCHES + _BAR_INCHES * any(panel.label for panel in panels)
    size = (wide * columns, row_inches * len(rows) + _TITLE_INCHES * bool(title))
    figure = Figure(figsize=size, facecolor="black", layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False).ravel().tolist()
    for axes, panel in zip(grid, (panel for row in rows for panel in row), strict=True):
        if panel is None:
            axes.set_axis_off()
        else:
            _draw_panel(figure, axes, panel, high)
    if title:
        figure.suptitle(title, color="white", fontsize=11)
    return figure, grid


def _draw_panel(figure: Figure, axes: Axes, panel: Panel, inches: float) -> None:
    """Draw a panel that is so many inches high, its bar below."""
    axes.set_axis_off()
    axes.set_title(panel.title, color="white", fontsize=10)
    if panel.picture.ndim == 3:
        axes.imshow(panel.picture)
        return
    low, high = panel.limits or _percentiles(panel.picture)
    palette = colormaps[panel.colors].with_extremes(bad=UNKNOWN)
    values = np.ma.masked_invalid(panel.picture)
    shown = axes.imshow(values, cmap=palette, vmin=low, vmax=high, interpolation="nearest")
    if panel.label:
        beyond = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}
        extend = beyond[bool((values < low).any()), bool((values > high).any())]
        below = axes.inset_axes(
            (0.02, -0.2 / inches, 0.96, 0.1 / inches)
        )  # takes no room: all pictures stay of one size
        bar = figure.colorbar(shown, cax=below, orientation="horizontal", extend=extend)
        bar.set_label(panel.label, color="white", fontsize=9)
        bar.ax.tick_params(colors="white", labelsize=8)
        bar.outline.set_edgecolor("white")


def _depth_panel(title: str, depth: NDArray[Any], unit: Unit, limits: Limits | None) -> Panel:
    return Panel(title, _unknown_as_nan(depth), DEPTH_COLORS, limits, f"depth ({_named(unit)})")


def _draw_path(views: Sequence[Axes], poses: NDArray[Any], color: str, label: str, width: float = 1.5) -> None:
    """From above (x, z) and from behind (x, y)."""
    found = np.flatnonzero(registered(poses))
    for axes, vertical in zip(views, (2, 1), strict=True):
        x, y = poses[:, 0, 3], poses[:, vertical, 3]
        axes.plot(x, y, color=color, linewidth=width, label=label, marker=".", markersize=3)
        for end, marker in ((found[:1], "o"), (found[-1:], "s")):
            axes.plot(x[end], y[end], marker, color=color, markersize=8, markerfacecolor="none", markeredgewidth=1.5)


def _aligned(freedom: Freedom, scale: float) -> str:
    how = {"sim3": f"moved and scaled by {scale:.3g}", "se3": "moved", "none": "not aligned"}
    return how[freedom]


def _named(unit: Unit) -> str:
    return "up to scale" if unit == "unknown" else unit


def _unknown_as_nan(depth: NDArray[Any]) -> NDArray[np.float64]:
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.nan).astype(np.float64)


def _percentiles(values: NDArray[Any]) -> Limits:
    known = values[np.isfinite(values)]
    low, high = np.percentile(known, _RANGE) if len(known) else (0, 1)
    return float(low), float(max(high, np.nextafter(low, np.inf)))


def _from_zero(values: NDArray[Any]) -> Limits:
    return 0, _percentiles(values)[1]


def _mean(values: NDArray[Any]) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else np.nan
