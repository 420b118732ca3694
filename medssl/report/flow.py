"""Optical flow in colour: the hue is the direction, the paler the slower, with the wheel that says so in a corner.

The wheel of Baker et al., "A Database and Evaluation Methodology for Optical Flow", ICCV 2007: more hues where the eye
tells more apart, red to the right, then yellow (down), green, cyan (left), blue and magenta (up).
"""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from medssl.report.depth import UNKNOWN, Panel, draw_panels
from medssl.report.figures import save

Colors = NDArray[np.float64]

_HUES = ((1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 1, 1), (0, 0, 1), (1, 0, 1), (1, 0, 0))
_STEPS = (15, 6, 4, 11, 13, 6)  # shades from each hue to the next: 55 around the circle
_BEYOND = 0.75  # brightness of what is faster than the wheel's rim
_GREY = int(UNKNOWN[1:3], 16) / 255
_WHEEL_SHARE, _WHEEL_PIXELS = 0.28, 128
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


def _draw_wheel(axes: Axes, height_to_width: float) -> None:
    """In the lower right corner, on black, so that its pale centre is not taken for flow."""
    wide = _WHEEL_SHARE * height_to_width
    corner = axes.inset_axes((1 - wide, 0, wide, _WHEEL_SHARE))
    corner.set(facecolor="black", xticks=[], yticks=[])
    corner.imshow(flow_wheel(), interpolation="bilinear")
