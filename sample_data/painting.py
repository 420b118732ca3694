"""What made-up videos share: smooth motion, band-limited texture, a light that changes, a sensor's noise, mask files.

Pixel centres lie at whole numbers, x to the right and y down, as everywhere in medssl.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage as ndi

from medssl.files import write_aside

Floats = NDArray[np.float64]

FRAME_RATE = 25
SUBPIXELS = ((-0.25, -0.25), (0.25, -0.25), (-0.25, 0.25), (0.25, 0.25))  # x and y; a pixel is the mean of them
_LUMA = np.array([0.2126, 0.7152, 0.0722])  # BT.709
_LATTICE = 128  # nodes along each side of a texture
_FALL_OFF = 0.55  # of the light, from its middle to the longer side's length away


@dataclass(frozen=True)
class Swing:
    """A smooth random function of time: a sum of oscillations around a rest.

    Attributes:
        rest: What it swings around.
        heights: Of the oscillations, (n,).
        periods_s: Their periods, (n,).
        phases: Radians, (n,).
    """

    rest: float
    heights: Floats
    periods_s: Floats
    phases: Floats

    @classmethod
    def drawn(
        cls, random: np.random.Generator, rest: float, height: float, periods_s: tuple[float, float] = (2.0, 5.0)
    ) -> "Swing":
        """Draw two oscillations that together reach as far as ``height`` at most."""
        share = random.uniform(0.5, 0.8)
        heights = height * np.array([share, 1 - share])
        return cls(rest, heights, random.uniform(*periods_s, 2), random.uniform(0, 2 * np.pi, 2))

    def __call__(self, time_s: float) -> float:
        """Its value at a time."""
        return self.rest + float(self.heights @ np.sin(2 * np.pi * time_s / self.periods_s + self.phases))


class Texture:
    """Noise of a band of wavelengths, mean 0 and standard deviation 1, which repeats after 32 of the shortest one.

    Args:
        random: Draws it.
        shortest: Wavelength, in the unit of the points that it is looked up at.
        longest: Wavelength, at most 16 of the shortest.
    """

    def __init__(self, random: np.random.Generator, shortest: float, longest: float) -> None:
        self.node = shortest / 4
        frequency = np.hypot(*np.meshgrid(*2 * (np.fft.fftfreq(_LATTICE, self.node),), indexing="ij"))
        spectrum = np.fft.fft2(random.standard_normal((_LATTICE, _LATTICE)))
        values = np.fft.ifft2(np.where((frequency >= 1 / longest) & (frequency <= 1 / shortest), spectrum, 0)).real
        self.coefficients = ndi.spline_filter(values / values.std(), mode="grid-wrap")

    def __call__(self, points: Floats) -> Floats:
        """Look up points (N, 2)."""
        value: Floats = ndi.map_coordinates(
            self.coefficients, (points / self.node).T, order=3, mode="grid-wrap", prefilter=False
        )
        return value


class Light:
    """A light that moves and changes slowly.

    Args:
        random: Draws its way.
        height: Of the picture.
        width: Of the picture.
    """

    def __init__(self, random: np.random.Generator, height: int, width: int) -> None:
        self.reach = max(height, width)
        self.strength = Swing.drawn(random, 1.0, 0.12, (3.0, 8.0))
        self.x = Swing.drawn(random, (width - 1) / 2, 0.2 * width, (4.0, 9.0))
        self.y = Swing.drawn(random, (height - 1) / 2, 0.2 * height, (4.0, 9.0))

    def __call__(self, pixels: Floats, time_s: float) -> Floats:
        """By how much pixels (N, 2) are lit, (N, 1)."""
        away = ((pixels - [self.x(time_s), self.y(time_s)]) / self.reach) ** 2
        lit: Floats = self.strength(time_s) * (1 - _FALL_OFF * away.sum(axis=1, keepdims=True))
        return lit


def pixel_centres(height: int, width: int) -> Floats:
    """The places of all pixels, x and y, (H * W, 2), row by row."""
    y, x = np.indices((height, width), dtype=np.float64)
    return np.stack([x, y], axis=-1).reshape(-1, 2)


def rotated(points: Floats, angle: float) -> Floats:
    """Turn points (N, 2) about the origin, from x towards y."""
    cosine, sine = np.cos(angle), np.sin(angle)
    turned: Floats = points @ np.array([[cosine, sine], [-sine, cosine]])
    return turned


def developed(
    colours: Floats, height: int, width: int, noise: float, random: np.random.Generator, grey: bool = False
) -> NDArray[np.uint8]:
    """Make a picture (H, W, 3) of colours (H * W, 3), 0 to 1, with the noise of a sensor, in grey levels of 255."""
    picture = 255 * colours.reshape(height, width, 3)
    if grey:
        picture = np.repeat((picture @ _LUMA)[..., None], 3, axis=-1)
    noisy = picture + noise * random.standard_normal((height, width, 1 if grey else 3))
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def write_picture(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write a picture (H, W, 3) or (H, W), whole or not at all."""
    with write_aside(path) as aside:
        Image.fromarray(picture).save(aside)
