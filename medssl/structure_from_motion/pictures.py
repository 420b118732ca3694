"""What features are looked for in: grey pictures, reduced, and masks of where not to look."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from medssl.data.endoscope_mask import highlights
from medssl.data.formats import read_picture
from medssl.errors import InputError
from medssl.extras import require_module
from medssl.files import write_aside
from medssl.structure_from_motion.settings import Features

_RIM = 0.012  # of the longer side: the field of view's rim stays while the body moves
_INSIDE = 0.9  # of a mask's full value
_TILES = 8  # per side, each equalised by itself


def picture_name(frame: int) -> str:
    """What the picture of a video's frame is called, everywhere."""
    return f"{frame:08d}.png"


def reduced_size(size: tuple[int, int], longest_side: int) -> tuple[int, int]:
    """Height and width of pictures whose longer side is not above ``longest_side``."""
    height, width = size
    factor = min(1.0, longest_side / max(size))
    return round(height * factor), round(width * factor)


def write_feature_picture(
    frame: NDArray[np.uint8], mask: NDArray[np.bool_], features: Features, pictures: Path, masks: Path, name: str
) -> None:
    """Write one frame (H, W, 3) in grey and reduced, and its mask as COLMAP expects it: ``<name>.png``."""
    height, width = reduced_size(mask.shape, features.longest_side)
    grey = Image.fromarray(frame).convert("L").resize((width, height), Image.Resampling.BOX)
    pixels = np.asarray(grey)
    if features.equalise:
        pixels = _equalised(pixels, features.equalise)
    save_png(pixels, pictures / name)
    save_png(np.asarray(feature_mask(frame, mask, (height, width)) * np.uint8(255)), masks / f"{name}.png")


def feature_mask(frame: NDArray[np.uint8], mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Where features are looked for, (h, w): inside the field of view's rim, and not in highlights, which stray."""
    rim = max(1, round(_RIM * max(mask.shape)))
    inside = ndimage.distance_transform_edt(mask) > rim if not mask.all() else mask
    usable = (inside & ~highlights(frame)).astype(np.float32)
    return np.asarray(Image.fromarray(usable).resize(size[::-1], Image.Resampling.BOX)) > 0.5


def save_png(pixels: NDArray[np.uint8], path: Path) -> None:
    """Write pixels, grey (H, W) or RGB (H, W, 3), whole or not at all."""
    with write_aside(path) as aside:
        Image.fromarray(pixels).save(aside, compress_level=3)


def _equalised(grey: NDArray[np.uint8], clip_limit: float) -> NDArray[np.uint8]:
    """Zuiderveld's contrast-limited adaptive histogram equalisation."""
    exposure = require_module("skimage.exposure", "endoscopy")
    tile = tuple(max(8, side // _TILES) for side in grey.shape)
    equal = exposure.equalize_adapthist(grey, kernel_size=tile, clip_limit=clip_limit)
    return np.asarray(np.rint(255 * equal), dtype=np.uint8)


def read_mask(path: Path, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Read a picture that is bright where the video shows the body, (H, W); a blurred edge is outside.

    Raises:
        InputError: It cannot be read, is of another size than the frames, or dark everywhere.
    """
    grey = read_picture(path).grey.T
    if grey.shape != size:
        raise InputError(
            f"{path}: the mask is {grey.shape[1]}x{grey.shape[0]}, the frames are {size[1]}x{size[0]}. Give one of the "
            "frames' own size, or none to have it found."
        )
    mask = np.asarray(grey >= _INSIDE * np.iinfo(grey.dtype).max)
    if not mask.any():
        raise InputError(f"{path}: the mask is dark everywhere; it must be white (255) where the video shows the body.")
    return mask
