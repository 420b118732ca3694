"""Small pictures on disk, for the tests of recordings."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image


def write_pictures(folder: Path, names: Iterable[str], size: tuple[int, int] = (10, 6)) -> None:
    """Write pictures of noise, of a size (width, height), each another."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        pixels = np.random.default_rng(i).integers(0, 255, (size[1], size[0], 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / name)
