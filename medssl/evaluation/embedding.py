"""One vector per scan: the encoder's coarsest features, averaged over windows that tile the scan."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from medssl.data.prepared import PreparedDataset
from medssl.networks.encoder import Encoder
from medssl.networks.heads import pooled
from medssl.patches import check_patch


def embed_scans(
    encoder: Encoder, data: PreparedDataset, patch_size: Sequence[int], batch_size: int = 4, empty: float = 0.05
) -> Tensor:
    """Embed every scan; (N, D) in float32 on the CPU, without gradient.

    Args:
        encoder: Evaluated where it lies; its mode is put back.
        data: Prepared scans.
        patch_size: Of the windows, voxels.
        batch_size: Windows per forward pass.
        empty: Windows whose mean intensity is below this share of the scan's fullest window show background and are
            left out.
    """
    check_patch(patch_size, data.spatial_dims)
    device, training = next(encoder.parameters()).device, encoder.training
    encoder.eval()
    rows = []
    with torch.no_grad():
        for i in range(len(data)):
            windows = windows_of(torch.from_numpy(data.image(i)), patch_size, empty)
            vectors = [pooled(encoder(part.to(device))).float().cpu() for part in windows.split(batch_size)]
            rows.append(torch.cat(vectors).mean(0))
    encoder.train(training)
    return torch.stack(rows)


def windows_of(image: Tensor, patch_size: Sequence[int], empty: float = 0.05) -> Tensor:
    """Cut an image (C, *spatial) into windows (n, C, *patch) that tile it, without those that show background."""
    windows = tiles(image, patch_size)
    fullness = windows.abs().flatten(1).mean(1)
    return windows[fullness >= empty * fullness.max()]


def tiles(image: Tensor, patch_size: Sequence[int]) -> Tensor:
    """Cut (C, *spatial), padded with background on all sides, into the fewest windows (n, C, *patch) that tile it."""
    counts = [-(-n // edge) for n, edge in zip(image.shape[1:], patch_size, strict=True)]
    missing = [c * edge - n for c, edge, n in zip(counts, patch_size, image.shape[1:], strict=True)]
    padding = [side for m in reversed(missing) for side in (m // 2, m - m // 2)]  # torch wants the last axis first
    padded = F.pad(image, padding)
    for axis, edge in enumerate(patch_size, start=1):
        padded = padded.unfold(axis, edge, edge)  # (C, *counts, *patch), as axis after axis is unfolded
    dims = len(counts)
    return padded.permute(*range(1, dims + 1), 0, *range(dims + 1, 2 * dims + 1)).flatten(0, dims - 1)
