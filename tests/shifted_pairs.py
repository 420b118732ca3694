"""Pairs of pictures that differ by one shift, in the layouts of public data."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from medssl.data.flow_files import write_flo

HEIGHT, WIDTH, SHIFT = 64, 96, 6


def texture(shift: int, seed: int = 0) -> NDArray[np.uint8]:
    """A mottled picture (H, W, 3); what is at x is at x - shift of the picture without a shift."""
    noise = np.random.default_rng(seed).normal(size=(HEIGHT, WIDTH + 32, 3))
    smooth = gaussian_filter(noise, (1.5, 1.5, 0))
    picture = 128 + 45 * smooth / smooth.std()
    return picture[:, 16 - shift : 16 - shift + WIDTH].clip(0, 255).astype(np.uint8)


def write(path: Path, picture: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)


def write_middlebury(folder: Path) -> None:
    """A pair of one disparity, with the truth."""
    write(folder / "im0.png", texture(0))
    write(folder / "im1.png", texture(-SHIFT))
    camera = f"[100 0 {WIDTH / 2}; 0 100 {HEIGHT / 2}; 0 0 1]"
    told = f"cam0={camera}\ncam1={camera}\ndoffs=0\nbaseline=50\nwidth={WIDTH}\nheight={HEIGHT}\n"
    (folder / "calib.txt").write_text(told)
    truth = np.full((HEIGHT, WIDTH), SHIFT, dtype="<f4")
    (folder / "disp0GT.pfm").write_bytes(b"Pf\n%d %d\n-1\n" % (WIDTH, HEIGHT) + truth[::-1].tobytes())


def write_kitti(folder: Path, frames: int) -> None:
    """Stereo frames of one disparity, moving along x, with poses and without a truth."""
    for t in range(frames):
        write(folder / "image_0" / f"{t:06d}.png", texture(-2 * t))
        write(folder / "image_1" / f"{t:06d}.png", texture(-2 * t - SHIFT))
    K = f"100 0 {WIDTH / 2} %s 0 100 {HEIGHT / 2} 0 0 0 1 0\n"
    (folder / "calib.txt").write_text(K % "0" + K % "-50")
    (folder / "poses.txt").write_text("".join(f"1 0 0 {t / 6} 0 1 0 0 0 0 1 0\n" for t in range(frames)))


def write_chairs(folder: Path, pairs: int) -> None:
    """Pairs with one true flow each."""
    for pair in range(pairs):
        write(folder / f"{pair:05d}_img1.ppm", texture(0, pair))
        write(folder / f"{pair:05d}_img2.ppm", texture(pair + 1, pair))
        flow = np.zeros((HEIGHT, WIDTH, 2), dtype=np.float32)
        flow[..., 0] = pair + 1
        write_flo(folder / f"{pair:05d}_flow.flo", flow)
