"""Time the distortions of Models Genesis against a straightforward port, and print a table.

Run: python -m benchmarks.models_genesis. Both run in turn in one process, on one patch, on one thread, each transform
with probability 1 and memory kept as in training. The port does what the authors' published loader does for one
channel: a window at a time, a box at a time, and interpolation between 100,000 points of the curve.
"""

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from medssl.augment import generators
from medssl.memory import keep_freed_memory
from medssl.methods.models_genesis import bend, paint, shuffle

ROUNDS = 7
Volume = NDArray[np.float32]
Random = np.random.Generator


def shuffle_by_loop(volume: Volume, random: Random, windows: int = 10_000) -> Volume:
    """Shuffle one window after the other, each read from the original."""
    out = volume.copy()
    largest = [max(1, n // 10) for n in volume.shape]
    for _ in range(windows):
        sides = [int(random.integers(1, most + 1)) for most in largest]
        starts = [int(random.integers(0, n - side + 1)) for n, side in zip(volume.shape, sides, strict=True)]
        window = tuple(slice(start, start + side) for start, side in zip(starts, sides, strict=True))
        voxels = volume[window].flatten()
        random.shuffle(voxels)
        out[window] = voxels.reshape(sides)
    return out


def bend_by_points(volume: Volume, random: Random, points: int = 100_000) -> Volume:
    """Interpolate each voxel between the points of a Bezier curve."""
    t = np.linspace(0, 1, points)
    bernstein = np.stack([(1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3])
    x, y = (np.array([0, *random.random(2), 1]) @ bernstein for _ in range(2))
    x, y = np.sort(x), np.sort(y)
    if random.random() < 0.5:
        y = y[::-1]
    bent: Volume = np.interp(volume, x, y).astype(np.float32)
    return bent


def paint_by_loop(volume: Volume, random: Random) -> Volume:
    """Fill one box after the other with noise, or, more often, all but the boxes."""
    outside = random.random() < 0.8
    out = random.random(volume.shape, dtype=np.float32) if outside else volume.copy()
    low, high = (3 / 7, 4 / 7) if outside else (1 / 6, 1 / 3)
    for _ in range(5):
        sides = [int(random.uniform(low, high) * n) for n in volume.shape]
        starts = [int(random.integers(0, n - side + 1)) for n, side in zip(volume.shape, sides, strict=True)]
        box = tuple(slice(start, start + side) for start, side in zip(starts, sides, strict=True))
        out[box] = volume[box] if outside else random.random(sides, dtype=np.float32)
        if random.random() > 0.95:
            break
    return out


def milliseconds(work: Callable[[], object]) -> float:
    """Time one call."""
    start = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - start)


def compare(size: tuple[int, ...]) -> None:
    """Print the medians for a patch of one size, and how many times faster the batched transforms are."""
    volume = np.random.default_rng(0).random(size, dtype=np.float32)
    image = torch.from_numpy(volume)[None, None]
    pairs: dict[str, tuple[Callable[[Volume, Random], Volume], Callable[[list[Generator]], Tensor]]] = {
        "shuffling": (shuffle_by_loop, lambda draw: shuffle(image, draw, probability=1)),
        "grey values": (bend_by_points, lambda draw: bend(image, draw, probability=1)),
        "painting": (paint_by_loop, lambda draw: paint(image, draw, probability=1)),
    }
    port: dict[str, list[float]] = {name: [] for name in pairs}
    here: dict[str, list[float]] = {name: [] for name in pairs}
    for round_ in range(ROUNDS + 1):
        for name, (by_loop, batched) in pairs.items():
            random, draw = np.random.default_rng(round_), generators(torch.tensor([round_]))
            times = milliseconds(lambda: by_loop(volume, random)), milliseconds(lambda: batched(draw))  # noqa: B023  # both are called at once
            if round_ > 0:  # the first one warms up
                port[name].append(times[0])
                here[name].append(times[1])
    a, b = ([statistics.median(times[name]) for name in pairs] for times in (port, here))
    for name, slow, fast in zip([*pairs, "all"], [*a, sum(a)], [*b, sum(b)], strict=True):
        print(f"{'x'.join(map(str, size)):<10} {name:<12} {slow:8.1f} {fast:8.2f} {slow / fast:8.0f}")


def main() -> None:
    """Compare at the size that the authors train with and at a larger one."""
    keep_freed_memory()  # as every training does
    torch.set_num_threads(1)
    print(f"{'patch':<10} {'transform':<12} {'port ms':>8} {'here ms':>8} {'faster':>8}")
    for size in ((64, 64, 32), (96, 96, 96)):
        compare(size)


if __name__ == "__main__":
    main()
