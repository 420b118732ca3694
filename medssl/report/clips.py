"""What a method that learns from clips makes of one: each thing it shows in the colours that suit it."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from medssl.errors import InputError
from medssl.report.depth import DEPTH_COLORS, ERROR_COLORS, Panel, draw_panels
from medssl.report.figures import save
from medssl.report.flow import flow_colors, largest_motion

_COLORS = {"depth": (DEPTH_COLORS, "depth"), "disparity": ("turbo", "disparity, px"), "error": (ERROR_COLORS, "error")}


def clips_picture(shown: Mapping[str, Tensor], path: Path, title: str = "") -> None:
    """Draw what ``Method.show`` gives of the first clip.

    Args:
        shown: (B, C, H, W) each, by name. Three channels are colours, 0 to 1; two are a flow in pixels, x and y; a name
            that begins with depth, disparity or error gets a bar that says its range; what is left is grey.
        path: The picture.
        title: Stands above.

    Raises:
        InputError: There is nothing to draw.
    """
    if not shown:
        raise InputError("A clip's picture needs at least one named batch of images, got none.")
    panels = []
    for name, images in shown.items():
        values = images[0].detach().float().cpu().numpy()
        if len(values) == 3:
            panels.append(Panel(name, values.transpose(1, 2, 0).clip(0, 1)))
        elif len(values) == 2:
            flow = values.transpose(1, 2, 0)
            largest = largest_motion(flow)
            panels.append(Panel(f"{name}, up to {largest:.1f} px", flow_colors(flow, largest)))
        else:
            colors, label = _COLORS.get(name.split("_")[0].split(" ")[0], ("gray", ""))
            limits = (0.0, float(max(np.nanmax(values[0]), 1e-6))) if label == "" else None
            panels.append(Panel(name, values[0], colors, limits, label))
    figure, _ = draw_panels(panels, title)
    save(figure, path)
