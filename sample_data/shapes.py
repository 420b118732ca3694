"""Moving, deforming, textured shapes over a moving ground: every pixel's object and every point's way are exact.

Each layer is painted in material coordinates. Two shears, a turn, a scaling and a shift carry them to the picture; all
have an inverse in closed form, so that a pixel's material is found, and a material point followed, without error.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medssl.errors import InputError
from sample_data.painting import SUBPIXELS, Floats, Light, Swing, Texture, developed, pixel_centres, rotated

POINTS = 5  # followed on each object
MOST_OBJECTS = 12
STRONGEST = 0.4  # deformation; beyond, shapes fold into worms
_RIPPLE = 1.6  # radians of a shear along one radius
_TISSUES = (  # two colours that an object's texture mixes: red, green and blue
    ((0.55, 0.08, 0.10), (0.33, 0.03, 0.05)),  # blood
    ((0.52, 0.26, 0.17), (0.38, 0.16, 0.12)),  # liver
    ((0.90, 0.76, 0.46), (0.76, 0.55, 0.27)),  # fat
    ((0.86, 0.80, 0.74), (0.72, 0.56, 0.52)),  # fascia
    ((0.50, 0.33, 0.46), (0.35, 0.18, 0.30)),  # spleen
    ((0.56, 0.60, 0.38), (0.36, 0.42, 0.26)),  # gall bladder
    ((0.86, 0.56, 0.52), (0.78, 0.36, 0.40)),  # bowel
)
_METAL = ((0.74, 0.77, 0.80), (0.60, 0.63, 0.67))
_DARK_METAL = ((0.30, 0.32, 0.36), (0.20, 0.21, 0.24))
_GROUND = ((0.72, 0.36, 0.30), (0.55, 0.22, 0.20))  # mucosa; no object has its colours


class Look(NamedTuple):
    """What a layer is painted like: two colours, the textures that mix and grain them, and whether it is of metal."""

    colours: tuple[tuple[float, float, float], tuple[float, float, float]]
    patches: Texture
    grain: Texture
    metal: bool

    @classmethod
    def drawn(
        cls,
        random: np.random.Generator,
        colours: tuple[tuple[float, float, float], tuple[float, float, float]],
        metal: bool = False,
    ) -> "Look":
        """Draw the textures of a look, in radii of the shape."""
        return cls(colours, Texture(random, 0.5, 1.6), Texture(random, 0.14, 0.4), metal)

    def __call__(self, material: Floats, depth: Floats) -> Floats:
        """Colours (N, 3) of material points (N, 2) at ``depth`` (N,), 0 in the middle of a shape and 1 at its rim."""
        first, second = np.array(self.colours)
        contrast = 0.15 if self.metal else 0.45
        mixed = np.clip(0.5 + contrast * self.patches(material), 0, 1)[:, None]
        grain = 1 + (0.05 if self.metal else 0.14) * self.grain(material)
        rim = 1 - 0.4 * np.minimum(depth, 1) ** 4
        gleam = 0.35 * np.exp(-(((material[:, 1] + 0.35) / 0.16) ** 2)) if self.metal else 0.0
        colour: Floats = (first + mixed * (second - first)) * (grain * rim + gleam)[:, None]
        return colour


@dataclass(frozen=True)
class Layer:
    """One shape, or the ground, which has no edge.

    Attributes:
        look: How it is painted.
        x: Of its middle, pixels, over time.
        y: Of its middle.
        angle: Radians.
        scale: Pixels of one material unit, a shape's mean half width.
        bends: Heights of the two shears, in material units.
        phases: Of the two shears, radians.
        waves: Amplitude and phase of the outline's second and higher Fourier terms, (n, 2); ``None`` for the ground.
        length: Of a shape, in half widths.
        squareness: Exponent of the outline: 2 for round, more for square ends.
    """

    look: Look
    x: Swing
    y: Swing
    angle: Swing
    scale: Swing
    bends: tuple[Swing, Swing]
    phases: tuple[float, float]
    waves: Floats | None
    length: float = 1.0
    squareness: float = 2.0

    def to_picture(self, material: Floats, time_s: float) -> Floats:
        """Where in the picture material points (N, 2) are at a time, pixels."""
        u, v = material.T
        u = u + self.bends[0](time_s) * np.sin(_RIPPLE * v + self.phases[0])
        v = v + self.bends[1](time_s) * np.sin(_RIPPLE * u + self.phases[1])
        turned = rotated(np.column_stack([u, v]), self.angle(time_s))
        return self.scale(time_s) * turned + [self.x(time_s), self.y(time_s)]

    def to_material(self, pixels: Floats, time_s: float) -> Floats:
        """Which material points are at pixels (N, 2) at a time."""
        centred = (pixels - [self.x(time_s), self.y(time_s)]) / self.scale(time_s)
        u, v = rotated(centred, -self.angle(time_s)).T
        v = v - self.bends[1](time_s) * np.sin(_RIPPLE * u + self.phases[1])
        u = u - self.bends[0](time_s) * np.sin(_RIPPLE * v + self.phases[0])
        return np.column_stack([u, v])

    def depth(self, material: Floats) -> Floats:
        """How far out material points (N, 2) are: 0 in the middle, 1 on the outline, above outside; 0 of the ground."""
        if self.waves is None:
            return np.zeros(len(material))
        u, v = np.abs(material[:, 0] / self.length), np.abs(material[:, 1])
        size = (u**self.squareness + v**self.squareness) ** (1 / self.squareness)
        return np.asarray(size / self.radius(np.arctan2(material[:, 1], material[:, 0])))

    def radius(self, direction: Floats) -> Floats:
        """The outline in directions (N,), before it is stretched."""
        if self.waves is None:
            raise ValueError("The ground has no outline.")
        orders = np.arange(2, len(self.waves) + 2)
        return np.asarray(1 + np.cos(np.outer(direction, orders) + self.waves[:, 1]) @ self.waves[:, 0])


class Motion(NamedTuple):
    """To the next frame: ``flow`` (H, W, 2), pixels; ``visible`` (H, W), where that frame shows the same material."""

    flow: NDArray[np.float32]
    visible: NDArray[np.bool_]


class ShapeScene:
    """Shapes that move over one another.

    Object k is layer k; those of higher numbers lie in front, and in front of all are shafts, which are no objects.

    Args:
        height: Of the picture, pixels.
        width: Of the picture, pixels.
        objects: How many.
        seed: Of everything.
        deformation: How far objects of tissue bend, as a share of their radius, 0 to 0.4; instruments are stiff.
        occlusion: How many shafts sweep over the objects.

    Raises:
        InputError: A number is out of its range.
    """

    def __init__(
        self,
        height: int = 256,
        width: int = 256,
        objects: int = 3,
        seed: int = 0,
        deformation: float = 0.15,
        occlusion: int = 1,
    ) -> None:
        _check(height, width, objects, deformation, occlusion)
        self.height, self.width, self.objects, self.seed = height, width, objects, seed
        random = np.random.default_rng((seed, 0))
        self.light = Light(random, height, width)
        tissues = random.permutation(len(_TISSUES))
        self.layers = [ground(random, height, width, deformation)]
        for number in range(objects):
            stiff = number % 3 == 2  # in front of two of tissue
            colours = _METAL if stiff else _TISSUES[tissues[number % len(tissues)]]
            self.layers.append(self._shape(random, Look.drawn(random, colours, stiff), 0.0 if stiff else deformation))
        self.layers += [self._shaft(random) for _ in range(occlusion)]
        self.material_points = [self._points(random, layer) for layer in self.layers[1 : objects + 1]]

    def render(
        self, time_s: float, random: np.random.Generator, noise: float = 2.0, grey: bool = False
    ) -> NDArray[np.uint8]:
        """Take a picture (H, W, 3); ``random`` draws the sensor's noise, of ``noise`` grey levels."""
        centres = pixel_centres(self.height, self.width)
        colours = np.mean([self._painted(centres + shift, time_s) for shift in SUBPIXELS], axis=0)
        return developed(colours, self.height, self.width, noise, random, grey)

    def mask(self, time_s: float) -> NDArray[np.uint8]:
        """Which object each pixel's centre shows, (H, W); 0 for ground and shafts."""
        front, _, _ = self._front(pixel_centres(self.height, self.width), time_s)
        return np.where(front <= self.objects, front, 0).reshape(self.height, self.width).astype(np.uint8)

    def motion(self, time_s: float, next_s: float) -> Motion:
        """How what is seen at one time has moved at another."""
        pixels = pixel_centres(self.height, self.width)
        front, material, _ = self._front(pixels, time_s)
        there = np.empty_like(pixels)
        for number, layer in enumerate(self.layers):
            there[front == number] = layer.to_picture(material[front == number], next_s)
        inside = ((there >= -0.5) & (there < [self.width - 0.5, self.height - 0.5])).all(axis=1)
        seen = inside & (self._front(there, next_s)[0] == front)
        shape = (self.height, self.width)
        return Motion((there - pixels).reshape(*shape, 2).astype(np.float32), seen.reshape(shape))

    def points(self, time_s: float) -> tuple[Floats, NDArray[np.bool_]]:
        """Where each object's points are at a time, (objects, points, 2), and whether another thing hides them.

        A point is hidden where the pixel that it falls into shows something else, or lies outside the picture.
        """
        layers = self.layers[1 : self.objects + 1]
        moved = zip(layers, self.material_points, strict=True)
        places = np.stack([layer.to_picture(material, time_s) for layer, material in moved])
        pixels = np.rint(places).astype(np.int64)
        inside = ((pixels >= 0) & (pixels < [self.width, self.height])).all(axis=-1)
        x, y = np.moveaxis(np.clip(pixels, 0, [self.width - 1, self.height - 1]), -1, 0)
        shown = self.mask(time_s)[y, x] == np.arange(1, self.objects + 1)[:, None]
        return places, ~(inside & shown)

    def _front(self, pixels: Floats, time_s: float) -> tuple[NDArray[np.int64], Floats, Floats]:
        """The frontmost layer (N,) at pixels (N, 2), the material there (N, 2) and its depth (N,)."""
        front = np.zeros(len(pixels), dtype=np.int64)
        material = self.layers[0].to_material(pixels, time_s)
        depth = np.zeros(len(pixels))
        for number, layer in enumerate(self.layers[1:], start=1):
            own = layer.to_material(pixels, time_s)
            out = layer.depth(own)
            inside = out <= 1
            front[inside], material[inside], depth[inside] = number, own[inside], out[inside]
        return front, material, depth

    def _painted(self, pixels: Floats, time_s: float) -> Floats:
        """Colours (N, 3) at pixels (N, 2), lit."""
        front, material, depth = self._front(pixels, time_s)
        colours = np.empty((len(pixels), 3))
        for number, layer in enumerate(self.layers):
            of_layer = front == number
            colours[of_layer] = layer.look(material[of_layer], depth[of_layer])
        return colours * self.light(pixels, time_s)

    def _shape(self, random: np.random.Generator, look: Look, deformation: float) -> Layer:
        size = min(self.height, self.width)
        radius = random.uniform(0.12, 0.17) * size * (0.6 if look.metal else 1.0)
        terms = 4
        amplitudes = random.uniform(0.3, 1.0, terms) * np.array([0.16, 0.10, 0.06, 0.03])
        return Layer(
            look,
            x=Swing.drawn(random, self.width * random.uniform(0.35, 0.65), 0.34 * self.width),
            y=Swing.drawn(random, self.height * random.uniform(0.35, 0.65), 0.34 * self.height),
            angle=Swing.drawn(random, random.uniform(0, 2 * np.pi), 0.9),
            scale=Swing.drawn(random, radius, 0.15 * radius),
            bends=(Swing.drawn(random, 0, deformation, (1.0, 2.5)), Swing.drawn(random, 0, deformation, (1.0, 2.5))),
            phases=(random.uniform(0, 6), random.uniform(0, 6)),
            waves=np.column_stack([(0.0 if look.metal else 1.0) * amplitudes, random.uniform(0, 2 * np.pi, terms)]),
            length=3.0 if look.metal else random.uniform(1.0, 1.5),
            squareness=6.0 if look.metal else 2.0,
        )

    def _shaft(self, random: np.random.Generator) -> Layer:
        """A stiff, dark rod that is longer than the picture and sweeps through its middle."""
        size = min(self.height, self.width)
        still = Swing.drawn(random, 0, 0)
        return Layer(
            Look.drawn(random, _DARK_METAL, metal=True),
            x=Swing.drawn(random, self.width / 2, 0.6 * self.width),
            y=Swing.drawn(random, self.height / 2, 0.6 * self.height),
            angle=Swing.drawn(random, random.uniform(0, np.pi), 0.3),
            scale=Swing.drawn(random, 0.035 * size, 0),
            bends=(still, still),
            phases=(0.0, 0.0),
            waves=np.zeros((1, 2)),
            length=2 * np.hypot(self.height, self.width) / (0.035 * size),
            squareness=6.0,
        )

    def _points(self, random: np.random.Generator, layer: Layer) -> Floats:
        """Draw material points well inside a shape."""
        direction = random.uniform(0, 2 * np.pi, POINTS)
        points = np.column_stack([np.cos(direction), np.sin(direction)])
        share = 0.75 * np.sqrt(random.random(POINTS))
        return np.asarray(points * (share / layer.depth(points))[:, None])


def ground(random: np.random.Generator, height: int, width: int, deformation: float) -> Layer:
    """Draw a layer without an edge that moves slowly behind the others; it bends half as much as shapes do."""
    size = min(height, width)
    return Layer(
        Look.drawn(random, _GROUND),
        x=Swing.drawn(random, width / 2, 0.08 * size, (4.0, 8.0)),
        y=Swing.drawn(random, height / 2, 0.08 * size, (4.0, 8.0)),
        angle=Swing.drawn(random, random.uniform(0, 2 * np.pi), 0.15, (5.0, 9.0)),
        scale=Swing.drawn(random, 0.18 * size, 0.02 * size, (4.0, 8.0)),
        bends=(Swing.drawn(random, 0, 0.5 * deformation), Swing.drawn(random, 0, 0.5 * deformation)),
        phases=(random.uniform(0, 6), random.uniform(0, 6)),
        waves=None,
    )


def _check(height: int, width: int, objects: int, deformation: float, occlusion: int) -> None:
    if min(height, width) < 16:
        raise InputError(f"Pictures of {width}x{height} were asked for; at least 16x16 can show shapes.")
    if not 1 <= objects <= MOST_OBJECTS:
        raise InputError(f"objects is from 1 to {MOST_OBJECTS}, got {objects}.")
    if not 0 <= deformation <= STRONGEST:
        raise InputError(f"deformation is a share of the radius, from 0 to {STRONGEST}; got {deformation:g}.")
    if occlusion < 0:
        raise InputError(f"occlusion is a number of shafts, 0 or more; got {occlusion}.")
