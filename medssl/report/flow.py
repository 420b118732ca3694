"""Optical flow in colour: the hue is the direction, the paler the slower, with the wheel that says so in a corner.

The wheel of Baker et al., "A Database and Evaluation Methodology for Optical Flow", ICCV 2007: more hues where the eye
tells more apart, red to the right, then yellow (down), green, cyan (left), blue and magenta (up).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from medssl.report.depth import ERROR_COLORS, UNKNOWN, Panel, draw_panels
from medssl.report.figures import save

Colors = NDArray[np.float64]

_HUES = ((1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 1, 1), (0, 0, 1), (1, 0, 1), (1, 0, 0))
_STEPS = (15, 6, 4, 11, 13, 6)  # shades from each hue to the next: 55 around the circle
_BEYOND = 0.75  # brightness of what is faster than the wheel's rim
_GREY = int(UNKNOWN[1:3], 16) / 255
_WHEEL_SHARE, _WHEEL_PIXELS = 0.28, 128
_LARGEST_ERROR = 5.0  # pixels, at the end of its colours; less where nothing moves so far
_FASTEST = 99  # percentile of the lengths that the wheel's rim stands for where none is given


def flow_colors(flow: NDArray[Any], largest: float) -> Colors:
    """Colours (H, W, 3), 0 to 1, of flow (H, W, 2): white for no motion, full at ``largest`` pixels, darker beyond."""
    x, y = np.moveaxis(flow.astype(np.float64), -1, 0)
    radius = np.hypot(x, y)[..., None] / largest
    around = (np.arctan2(y, x) / (2 * np.pi) % 1) * sum(_STEPS)
    at = np.cumsum((0, *_STEPS))
    hue = np.stack([np.interp(around, at, channel) for channel in np.array(_HUES).T], axis=-1)
    colors = np.where(radius <= 1, 1 - radius * (1 - hue), _BEYOND * hue)
    return np.where(np.isfinite(radius), colors, _GREY)


def flow_wheel(pixels: int = _WHEEL_PIXELS) -> Colors:
    """The wheel (pixels, pixels, 4), transparent around it: the colour of flow from the centre to each place."""
    axis = np.linspace(-1, 1, pixels)
    flow = np.stack(np.meshgrid(axis, axis), axis=-1)
    inside = (flow**2).sum(axis=-1) <= 1
    return np.dstack([flow_colors(flow, 1), inside])


def largest_motion(flow: NDArray[Any]) -> float:
    """Length that colours a flow well: the 99th percentile of the known ones, pixels; 1 where nothing moves."""
    length = np.hypot(flow[..., 0], flow[..., 1])
    known = length[np.isfinite(length)]
    return (float(np.percentile(known, _FASTEST)) if len(known) else 0.0) or 1.0


def flow_picture(
    flow: NDArray[Any],
    path: Path,
    *,
    image: NDArray[Any] | None = None,
    truth: NDArray[Any] | None = None,
    largest: float | None = None,
    title: str = "",
) -> None:
    """Draw a flow in colour, with the wheel in the corner and what its rim stands for above.

    Args:
        flow: (H, W, 2), x to the right and y down, pixels, NaN where unknown.
        path: The picture.
        image: The first of the two images, drawn before it; (H, W) or (H, W, 3).
        truth: The true flow, drawn after it in the same colours.
        largest: Length at the wheel's rim, pixels; without, the 99th percentile of the truth, else of the flow.
        title: Stands above.
    """
    rim = largest or largest_motion(flow if truth is None else truth)
    panels = [] if image is None else [Panel("input", image)]
    shown = {"flow": flow} if truth is None else {"flow": flow, "true flow": truth}
    panels += [Panel(f"{name} (wheel's rim: {rim:.3g} pixels)", flow_colors(some, rim)) for name, some in shown.items()]
    figure, grid = draw_panels(panels, title)
    for axes in grid[-len(shown) :]:
        _draw_wheel(axes, flow.shape[0] / flow.shape[1])
    save(figure, path)


def flow_pair_pictures(
    first: NDArray[Any],
    second: NDArray[Any],
    flows: Mapping[str, NDArray[Any]],
    stem: Path,
    *,
    truth: NDArray[Any] | None = None,
    hidden: NDArray[np.bool_] | None = None,
    title: str = "",
) -> list[Path]:
    """Draw two frames, the flows of methods in the same colours, and their errors where the truth is known.

    Args:
        first: (H, W, 3).
        second: The same.
        flows: (H, W, 2) of each method, pixels, NaN where unknown.
        stem: Folder and beginning of the pictures' names.
        truth: (H, W, 2), NaN where unknown.
        hidden: (H, W), what the second frame is known not to show.
        title: Stands above.

    Returns:
        The pictures.
    """
    rows = {"frames": [Panel("first frame", first), Panel("second frame", second)]}
    if hidden is not None:
        share = f"hidden in the second: {100 * float(hidden.mean()):.0f} %"
        rows["frames"].append(Panel(share, hidden.astype(np.float64), limits=(0, 1)))
    shown = ({} if truth is None else {"true flow": truth}) | dict(flows)
    rim = largest_motion(next(iter(shown.values())))
    rows["flow"] = [Panel(name, flow_colors(flow, rim)) for name, flow in shown.items()]
    if truth is not None:
        rows["error"] = [_error_panel(name, flow, truth, min(rim, _LARGEST_ERROR)) for name, flow in flows.items()]
    said = {"flow": f"flow (wheel's rim: {rim:.3g} pixels)"}
    paths = []
    for name, panels in rows.items():
        paths.append(stem.with_name(f"{stem.name}_{name}.png"))
        figure, grid = draw_panels(panels, ": ".join(part for part in (title, said.get(name, name)) if part))
        for axes in grid if name == "flow" else ():
            _draw_wheel(axes, first.shape[0] / first.shape[1])
        save(figure, paths[-1])
    return paths


def _error_panel(name: str, flow: NDArray[Any], truth: NDArray[Any], largest: float) -> Panel:
    off = np.linalg.norm(flow.astype(np.float64) - truth, axis=-1)
    known = off[np.isfinite(off)]
    mean = f"{known.mean():.2f} px" if len(known) else "not known"
    return Panel(f"{name}: {mean}", off, ERROR_COLORS, (0, largest), "end-point error, px")


def _draw_wheel(axes: Axes, height_to_width: float) -> None:
    """In the lower right corner, on black, so that its pale centre is not taken for flow."""
    wide = _WHEEL_SHARE * height_to_width
    corner = axes.inset_axes((1 - wide, 0, wide, _WHEEL_SHARE))
    corner.set(facecolor="black", xticks=[], yticks=[])
    corner.imshow(flow_wheel(), interpolation="bilinear")
