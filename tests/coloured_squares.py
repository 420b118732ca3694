"""A red and a green square that move over blue, and a method that finds cells of the same colour again."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from medssl.data.clips import ClipNeeds, Consecutive
from medssl.data.prepared_recordings import RecordingPreparation
from medssl.method_file import TrainedMethod, save_method
from medssl.methods import build_video_method
from medssl.networks import build_encoder
from medssl.networks.encoder import Encoder
from medssl.object_tracking.mask_files import write_mask
from medssl.sample import Batch
from medssl.video_method import CorrespondenceMethod

HEIGHT, WIDTH, SIDE, CELL, FRAMES = 64, 96, 16, 8, 6
IDS = (1, 7)
ENCODER = {"channels": [4, 8], "norm": "group"}


class ByColour(CorrespondenceMethod):
    """Cells are as alike as their colours."""

    stride, temperature = CELL, 0.07

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder, self.needs = encoder, ClipNeeds(Consecutive(2, 1), intrinsics=False)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """There is nothing to learn."""
        return {"loss": torch.zeros(())}

    def embed(self, image: Tensor) -> Tensor:
        """Colours of unit length."""
        return F.normalize(F.avg_pool2d(image, CELL), dim=1)


def corners(t: int) -> list[tuple[int, int]]:
    """Left and top of each square, pixels: the red one goes right, the green one left."""
    return [(8 * t, 8), (WIDTH - SIDE - 8 * t, 40)]


def mask(t: int) -> NDArray[np.uint8]:
    """Which square each pixel shows, (H, W), 0 for none."""
    shown = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    for number, (x, y) in zip(IDS, corners(t), strict=True):
        shown[y : y + SIDE, x : x + SIDE] = number
    return shown


def picture(t: int) -> NDArray[np.uint8]:
    """Frame ``t``, (H, W, 3)."""
    colours = {0: (10, 10, 200), 1: (200, 10, 10), 7: (10, 200, 10)}
    frame = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    for number, colour in colours.items():
        frame[mask(t) == number] = colour
    return frame


def write_recording(folder: Path, frames: int = FRAMES, masks: tuple[int, ...] = (0, 2, 4)) -> Path:
    """Write ``frames/*.png`` and some ``masks/*.png``."""
    for t in range(frames):
        (folder / "frames").mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(t)).save(folder / "frames" / f"{t:08d}.png")
    for t in masks:
        write_mask(folder / "masks" / f"{t:08d}.png", mask(t))
    return folder


def save_model(folder: Path, name: str, **arguments: object) -> Path:
    """A pretraining's folder with a method in it, of weights that are random."""
    torch.manual_seed(0)
    method = build_video_method(name, build_encoder("unet", 3, 2, **ENCODER), **arguments)
    trained = TrainedMethod(method, name, arguments, "unet", ENCODER, RecordingPreparation((HEIGHT, WIDTH)))
    save_method(trained, folder / "method")
    return folder
