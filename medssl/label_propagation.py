"""Labels carried from frame to frame: each cell of a picture takes those of the cells it most looks like.

As the papers on correspondence do it, such as Jabri, Owens, Efros, "Space-Time Correspondence as a Contrastive Random
Walk", NeurIPS 2020, https://arxiv.org/abs/2006.14613, section 4: the embeddings are compared with those of some earlier
frames, of the first one always, within a radius; the most alike cells vote.

Embeddings are unit vectors (B, D, h, w) and labels (B, K, h, w), shares of K classes or maps of K keypoints. Cell
(i, j) covers the pixels from ``stride`` times it on: its middle is at pixel (stride - 1) / 2 + stride (i, j), the first
pixel's centre being at 0.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from medssl.errors import InputError
from medssl.geometry import in_float32

_FAINTEST = 1e-6  # value of a keypoint's map below which its logarithm says nothing


@dataclass(frozen=True)
class Propagation:
    """How labels are carried.

    Args:
        top: How many of the most alike cells, over all frames that are compared, vote.
        radius: How far from its own place a cell is looked for, along each axis, cells.
        temperature: At which similarities become shares of the vote.
        recent: Earlier frames that are compared beside the first one.
        lost_below: Largest similarity below which a cell counts as hidden: nothing known looks like it.
    """

    top: int = 10
    radius: int = 12
    temperature: float = 0.07
    recent: int = 5
    lost_below: float = 0.5

    def __post_init__(self) -> None:
        """Refuse values that carry nothing.

        Raises:
            InputError: There are some.
        """
        if min(self.top, self.recent) < 1 or self.radius < 0 or self.temperature <= 0:
            raise InputError(
                "Labels are carried by at least 1 cell, from at least 1 recent frame, within a radius from 0 on and at "
                f"a temperature above 0; got top {self.top}, recent {self.recent}, radius {self.radius} and "
                f"temperature {self.temperature}."
            )


class Propagated(NamedTuple):
    """The labels of a frame, and how far they can be trusted.

    Attributes:
        labels: (B, K, h, w), means of labels that were given.
        confidence: The largest of the K, (B, 1, h, w); of shares, how much the votes agree.
        similarity: Of the most alike cell, (B, 1, h, w), -1 to 1.
        hidden: Where that is less than asked, (B, 1, h, w), bool.
    """

    labels: Tensor
    confidence: Tensor
    similarity: Tensor
    hidden: Tensor


def carry(
    embeddings: Iterable[Tensor], labels: Tensor, propagation: Propagation = Propagation()
) -> Iterator[Propagated]:
    """Carry the labels (B, K, h, w) of the first frame through a video.

    Args:
        embeddings: Of each frame, (B, D, h, w), the first one's too; read one by one.
        labels: Of the first frame.
        propagation: How.

    Yields:
        What is found for each frame after the first.
    """
    frames = iter(embeddings)
    memory = Memory(next(frames), labels, propagation)
    for query in frames:
        yield memory.carry(query)


class _Remembered(NamedTuple):
    """A frame's embeddings, its labels, and which objects were given in it, (B, objects, 1, 1), bool."""

    embeddings: Tensor
    labels: Tensor
    given: Tensor


class Memory:
    """What the next frame is compared with: the frames whose labels were given, and the last ones.

    Args:
        first: Embeddings of the first frame, (B, D, h, w).
        labels: Of it, (B, K, h, w).
        propagation: How labels are carried.
    """

    def __init__(self, first: Tensor, labels: Tensor, propagation: Propagation = Propagation()) -> None:
        self.propagation = propagation
        self.given = deque([_Remembered(first, labels, _shown(labels[:, 1:]))])
        self.recent: deque[_Remembered] = deque(maxlen=propagation.recent)

    def carry(self, query: Tensor, marks: Tensor | None = None) -> Propagated:
        """Find the labels of the next frame, (B, D, h, w).

        Args:
            query: Its embeddings.
            marks: Shares that show objects which are given in it, (B, K - 1, h, w). It is then remembered as the first
                frame is, and objects that were not given in earlier ones are looked for there: else these would say
                that they show none.
        """
        context, known, _ = zip(*self.given, *self.recent, strict=True)
        found = propagate(query, torch.stack(context, 1), torch.stack(known, 1), self.propagation)
        if marks is None:
            self.recent.append(_Remembered(query, found.labels, torch.zeros_like(self.given[0].given)))
            return found
        now = _Remembered(query, with_marks(found.labels, marks, _shown(marks)), _shown(marks))
        for frames in (self.given, self.recent):
            for n, one in enumerate(frames):
                frames[n] = self._told(one, now)
        self.given.append(now)
        marked = marks.sum(1, keepdim=True) > 0  # is not hidden, new as it may look
        similarity, hidden = found.similarity.masked_fill(marked, 1.0), found.hidden & ~marked
        return Propagated(now.labels, now.labels.amax(1, keepdim=True), similarity, hidden)

    def _told(self, before: _Remembered, now: _Remembered) -> _Remembered:
        """Find the objects that are given now, and were not then, in a frame that is remembered."""
        anew = now.given & ~before.given
        if not anew.any():
            return before
        back = propagate(before.embeddings, now.embeddings.unsqueeze(1), now.labels.unsqueeze(1), self.propagation)
        return before._replace(labels=with_marks(before.labels, back.labels[:, 1:] * anew, anew))


def with_marks(labels: Tensor, marks: Tensor, marked: Tensor) -> Tensor:
    """Put objects that are marked into what was found: they are where the marks are, and nowhere else.

    Args:
        labels: Shares of no object, the first one, and so on, (B, 1 + objects, h, w).
        marks: Shares that show each object, (B, objects, h, w); 0 of those that are not marked.
        marked: Which are, (B, objects, 1, 1), bool; the others stay as they were found, where no mark covers them.

    Returns:
        Shares as ``labels``.
    """
    kept = labels[:, 1:] * ~marked
    uncovered = 1 - marks.sum(1, keepdim=True)
    return torch.cat([(1 - kept.sum(1, keepdim=True)) * uncovered, kept * uncovered + marks], 1)


def _shown(shares: Tensor) -> Tensor:
    """Which objects have a share anywhere, (B, objects, 1, 1), of (B, objects, h, w)."""
    return shares.amax((2, 3), keepdim=True) > 0


@torch.no_grad()
@in_float32
def propagate(query: Tensor, context: Tensor, labels: Tensor, propagation: Propagation = Propagation()) -> Propagated:
    """Carry the labels of some frames over to another one.

    No cell is compared with all others: one row of the query at a time meets those rows of the context, and of these
    rows those columns, that are in reach.

    Args:
        query: (B, D, h, w), unit vectors.
        context: Of the n known frames, (B, n, D, h, w).
        labels: Of these, (B, n, K, h, w).
        propagation: How.

    Raises:
        InputError: The shapes do not fit.
    """
    _require_shapes(query, context, labels)
    height, radius = query.shape[2], propagation.radius
    keys = F.pad(context, (radius, radius)).permute(0, 2, 1, 3, 4)  # (B, D, n, h, w + 2 radius)
    values = labels.transpose(1, 2)  # (B, K, n, h, w)
    rows = []
    for y in range(height):
        near = slice(max(y - radius, 0), y + radius + 1)
        rows.append(_carried_row(query[:, :, y], keys[:, :, :, near], values[:, :, :, near], propagation))
    carried, similarity = (torch.stack(parts, 2) for parts in zip(*rows, strict=True))
    return Propagated(carried, carried.amax(1, keepdim=True), similarity, similarity < propagation.lost_below)


def _carried_row(query: Tensor, keys: Tensor, values: Tensor, propagation: Propagation) -> tuple[Tensor, Tensor]:
    """Carry labels to one row.

    Args:
        query: (B, D, w).
        keys: Of the n frames' m rows in reach, padded to both sides, (B, D, n, m, w + 2 radius).
        values: (B, K, n, m, w).
        propagation: How.

    Returns:
        Labels (B, K, w) and the largest similarity (B, 1, w).
    """
    width, radius = query.shape[2], propagation.radius
    n, m = keys.shape[2:4]
    similar = _in_reach(query, keys, radius)  # (B, w, n m, 2 radius + 1)
    column = torch.arange(width, device=query.device).view(-1, 1) + torch.arange(-radius, radius + 1).to(query.device)
    similar = similar.masked_fill(((column < 0) | (column >= width)).unsqueeze(1), -torch.inf)
    best, place = similar.flatten(2).topk(min(propagation.top, n * m * (2 * radius + 1)), dim=2)  # (B, w, top)
    row, side = place // (2 * radius + 1), place % (2 * radius + 1)
    cell = row * width + torch.arange(width, device=query.device).view(-1, 1) + side - radius
    cell = cell.clamp(0, n * m * width - 1)  # where fewer cells than ``top`` are in reach, the others have no vote
    voters = values.flatten(2).gather(2, cell.flatten(1).unsqueeze(1).expand(-1, values.shape[1], -1))
    share = torch.softmax(best / propagation.temperature, dim=2)
    return (voters.unflatten(2, cell.shape[1:]) * share.unsqueeze(1)).sum(3), best[:, :, 0].unsqueeze(1)


def _in_reach(query: Tensor, keys: Tensor, radius: int) -> Tensor:
    """Compare cell x (B, D, w) with columns x to x + 2 radius of the keys; (B, w, n m, 2 radius + 1)."""
    every = torch.bmm(query.transpose(1, 2), keys.flatten(2)).contiguous()  # (B, w, n m (w + 2 radius))
    batch, width, _ = every.shape
    rows, padded = keys.shape[2] * keys.shape[3], width + 2 * radius
    # The wanted columns move by one from each cell to the next: a view whose steps from cell to cell are one longer.
    cell = rows * padded
    return every.as_strided((batch, width, rows, 2 * radius + 1), (width * cell, cell + 1, padded, 1))


def soft_labels(mask: Tensor, classes: int, stride: int) -> Tensor:
    """Turn masks of class indices (B, H, W) into shares of each cell, (B, classes, H / stride, W / stride).

    Raises:
        InputError: A class is not among them.
    """
    if int(mask.max()) >= classes or int(mask.min()) < 0:
        raise InputError(
            f"A mask of {classes} classes holds 0 to {classes - 1}, this one {int(mask.min())} to {int(mask.max())}."
        )
    return F.avg_pool2d(F.one_hot(mask.long(), classes).movedim(-1, 1).float(), stride)


def decided(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Decide for each pixel's class, (B, H, W), from shares (B, K, h, w), which are interpolated to ``size``."""
    return F.interpolate(labels, size, mode="bilinear", align_corners=False).argmax(1)


def keypoint_maps(points: Tensor, size: tuple[int, int], stride: int, sigma: float = 1.0) -> Tensor:
    """Draw keypoints as Gaussians.

    Args:
        points: (B, K, 2), x and y in pixels.
        size: Height and width of the picture, pixels.
        stride: Side of a cell, pixels.
        sigma: Of the Gaussians, cells.

    Returns:
        (B, K, H / stride, W / stride), 1 at the keypoint.
    """
    x, y = _in_cells(points, stride).unsqueeze(-1).unbind(2)  # (B, K, 1) each
    height, width = (n // stride for n in size)
    across, down = (torch.arange(n, device=points.device) for n in (width, height))
    gauss_x, gauss_y = (torch.exp(-(a - b).square() / (2 * sigma**2)) for a, b in ((across, x), (down, y)))
    return gauss_y.unsqueeze(3) * gauss_x.unsqueeze(2)


def keypoints_in(maps: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Read each keypoint where its map is largest; between cells by a parabola of the logarithm, exact for a Gaussian.

    Args:
        maps: (B, K, h, w), from 0 on.
        stride: Side of a cell, pixels.

    Returns:
        Points (B, K, 2), x and y in pixels, and the largest value of each map (B, K).
    """
    width = maps.shape[3]
    value, place = maps.flatten(2).max(2)  # (B, K)
    y, x = place // width, place % width
    log = maps.clamp_min(_FAINTEST).log()
    along = log.gather(2, y[..., None, None].expand(-1, -1, 1, width)).squeeze(2)  # (B, K, w), the row of the largest
    down = log.gather(3, x[..., None, None].expand(-1, -1, maps.shape[2], 1)).squeeze(3)  # (B, K, h)
    cell = torch.stack([x + _between(along, x), y + _between(down, y)], dim=-1)
    return cell * stride + (stride - 1) / 2, value


def _between(log: Tensor, top: Tensor) -> Tensor:
    """How far from cell ``top`` (B, K) the parabola through it and its neighbours in (B, K, n) peaks, -0.5 to 0.5."""
    last = log.shape[2] - 1
    before, at, after = (log.gather(2, (top + k).clamp(0, last).unsqueeze(2)).squeeze(2) for k in (-1, 0, 1))
    bend = before - 2 * at + after
    inner = (top > 0) & (top < last) & (bend < 0)
    return torch.where(inner, (before - after) / (2 * torch.where(inner, bend, 1.0)), 0.0).clamp(-0.5, 0.5)


def _in_cells(points: Tensor, stride: int) -> Tensor:
    return (points - (stride - 1) / 2) / stride


def _require_shapes(query: Tensor, context: Tensor, labels: Tensor) -> None:
    batch, D, *size = query.shape
    n, K = labels.shape[1:3]
    if context.shape != (batch, n, D, *size) or labels.shape != (batch, n, K, *size):
        raise InputError(
            "Labels are carried between frames of one size: expected query (B, D, h, w), context (B, n, D, h, w) and "
            f"labels (B, n, K, h, w), got {tuple(query.shape)}, {tuple(context.shape)} and {tuple(labels.shape)}."
        )
