"""Models Genesis: distort a scan's grey values, texture and context, and learn anatomy by restoring it.

Zhou, Sodha, Pang, Gotway, Liang, "Models Genesis", Medical Image Analysis 67, 2021, https://arxiv.org/abs/2004.07882,
section 2.2. Numbers and sizes of the painted boxes, which the paper leaves open, are those its authors published.
"""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from medssl.augment import chance, generators, uniform
from medssl.errors import InputError
from medssl.method import Method
from medssl.networks.encoder import Encoder
from medssl.networks.unet import UNetDecoder
from medssl.sample import Batch, require

_CHANCES = 2**16  # of a place's draw; two places of a box that draw the same one keep their order


class ModelsGenesis(Method):
    """Minimise the mean squared difference between a scan and what is restored from its distorted copy.

    Args:
        encoder: The network to pretrain, for 2D or 3D images.
        nonlinear: Probability that the grey values go through a random monotonic curve.
        inverted: Share of the curves that fall.
        shuffling: Probability that voxels change places inside small windows.
        window: Largest side of such a window, as a share of the image's.
        covered: Share of the windows that are shuffled; the authors' 10,000 random ones cover about as much.
        painting: Probability that a part is replaced by noise.
        outer: Share of the painted images where the outside is replaced; in the others it is the inside of boxes.
    """

    def __init__(
        self,
        encoder: Encoder,
        nonlinear: float = 0.9,
        inverted: float = 0.5,
        shuffling: float = 0.5,
        window: float = 0.1,
        covered: float = 0.8,
        painting: float = 0.9,
        outer: float = 0.8,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = UNetDecoder(encoder, classes=encoder.in_channels)
        self.nonlinear, self.inverted = nonlinear, inverted
        self.shuffling, self.window, self.covered = shuffling, window, covered
        self.painting, self.outer = painting, outer

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Restoration error of a batch, which needs image and seed."""
        require(batch, "image", "seed")
        return {"loss": F.mse_loss(self.restore(self.distort(batch["image"], batch["seed"])), batch["image"].float())}

    def distort(self, image: Tensor, seeds: Tensor) -> Tensor:
        """Shuffle, then bend the grey values, then paint (B, C, *spatial); each sample by its own seed (B,)."""
        draw = generators(seeds)
        image = shuffle(image, draw, self.shuffling, self.window, self.covered)
        image = bend(image, draw, self.nonlinear, self.inverted)
        return paint(image, draw, self.painting, self.outer)

    def restore(self, distorted: Tensor) -> Tensor:
        """Predict the scan (B, C, *spatial), float32, from its distorted copy, which is all the decoder sees too."""
        restored: Tensor = self.decoder(distorted, self.encoder(distorted))
        return restored.float()

    def check(self, images: int, channels: int, patch_size: Sequence[int]) -> None:
        """Refuse patches whose windows would hold one voxel, which has nowhere to go."""
        if self.shuffling > 0 and max(int(n * self.window) for n in patch_size) < 2:
            raise InputError(
                f"Models Genesis shuffles voxels inside windows of up to {self.window:g} of each side, which is one "
                f"voxel of a patch of {tuple(patch_size)}. Choose a patch with a side of {round(2 / self.window)} or "
                "more, a larger window, or shuffling=0."
            )

    @torch.no_grad()
    def show(self, batch: Batch) -> dict[str, Tensor]:
        """Give the distorted scan, the scan, and what the network restores."""
        distorted = self.distort(batch["image"], batch["seed"])
        return {"input": distorted, "target": batch["image"], "prediction": self.restore(distorted)}


def bend(image: Tensor, draw: Sequence[Generator], probability: float = 0.9, inverted: float = 0.5) -> Tensor:
    """Send the grey values of some samples of (B, C, *spatial) through random curves, over each channel's range."""
    control = uniform(0, 1, (2, 2), draw, image)  # of P1 and P2: x, y
    falling, bent = chance(inverted, draw, image), chance(probability, draw, image)
    table = bezier(control)
    table = torch.where(falling.view(-1, 1), 1 - table, table)
    return torch.where(bent.view(-1, *[1] * (image.ndim - 1)), through(image, table), image)


def bezier(control: Tensor, nodes: int = 1024) -> Tensor:
    """Tabulate cubic Bezier curves from (0, 0) to (1, 1) as functions of x.

    With control points in the unit square both coordinates rise with t, since dx/dt is least, and 0, for P1 at x = 1
    and P2 at x = 0; so y is a function of x, and monotonic.

    Args:
        control: (B, 2, 2), coordinates (x, y) of P1 and P2, 0..1.
        nodes: Values of x, evenly from 0 to 1.

    Returns:
        y at these x, (B, nodes).
    """
    t = torch.linspace(0, 1, nodes, device=control.device)
    p1, p2 = control[:, 0, :, None], control[:, 1, :, None]  # (B, 2, 1)
    curve = 3 * (1 - t).square() * t * p1 + 3 * (1 - t) * t.square() * p2 + t**3  # (B, 2, nodes)
    x, y = curve[:, 0].contiguous(), curve[:, 1]
    right = torch.searchsorted(x, t.expand_as(x).contiguous()).clamp(1, nodes - 1)
    left_x, left_y = x.gather(1, right - 1), y.gather(1, right - 1)
    step = (t - left_x) / (x.gather(1, right) - left_x).clamp_min(1e-9)
    return torch.lerp(left_y, y.gather(1, right), step.clamp(0, 1))


def through(image: Tensor, table: Tensor) -> Tensor:
    """Map each channel of (B, C, *spatial) through functions of 0..1, tabulated in (B, nodes), over its own range."""
    low, width = _range(image)
    nodes = table.shape[1]
    place = (image - low).mul_((nodes - 1) / width.clamp_min(1e-6))
    left = place.long().clamp_(0, nodes - 2)
    share = place - left
    rows = torch.arange(len(image), device=image.device) * nodes
    left += rows.view(-1, *[1] * (image.ndim - 1))
    flat, index = table.to(image.dtype).flatten(), left.flatten()
    y = torch.lerp(flat.index_select(0, index), flat.index_select(0, index + 1), share.flatten()).view_as(image)
    return torch.addcmul(low, width, y)


def shuffle(
    image: Tensor, draw: Sequence[Generator], probability: float = 0.5, window: float = 0.1, covered: float = 0.8
) -> Tensor:
    """Let voxels of some samples of (B, C, *spatial) change places inside small windows; channels stay together.

    Each axis is cut anew for each sample, into intervals of up to ``window`` of its side; the boxes between the cuts
    are the windows. Those of one sample that have the same sides share one random permutation, so that a few
    permutations are drawn, whatever the image's size, and all else is arithmetic of indices.
    """
    size = image.shape[2:]
    chosen = torch.nonzero(chance(probability, draw, torch.empty(0))).flatten()
    if len(chosen) == 0 or max(size) * window < 2:
        return image
    draw = [draw[i] for i in chosen.tolist()]
    chosen = chosen.to(image.device)
    lengths = [interval_lengths(n, window) for n in size]
    number, place, count = cut(size, lengths, draw, image.device)
    moves = torch.cat([torch.rand(n, generator=g) for n, g in zip(count, draw, strict=True)]) < covered
    shifts = permutations(size, lengths, draw, image.device)  # (B, places of the template)
    before = torch.tensor([0, *count[:-1]]).cumsum(0)
    number += _per_sample(before, number)
    place += _per_sample(torch.arange(len(draw)) * shifts.shape[1], place)
    shift = shifts.flatten().index_select(0, place.flatten())
    shift *= moves.to(image.device, shift.dtype).index_select(0, number.flatten())
    source = shift.add_(torch.arange(len(shift), device=image.device))
    picked = image.index_select(0, chosen).transpose(0, 1).flatten(1)  # (C, chosen * voxels)
    moved = picked.index_select(1, source).unflatten(1, (len(draw), *size)).transpose(0, 1)
    return image.index_copy(0, chosen, moved)


def interval_lengths(n: int, window: float, most: int = 9) -> Tensor:
    """Say what lengths an axis of ``n`` places is cut into: up to ``most`` from 1 to ``window`` of it."""
    longest = max(1, int(n * window))
    return torch.linspace(1, longest, min(longest, most)).round().long()


def cut(
    size: Sequence[int], lengths: Sequence[Tensor], draw: Sequence[Generator], device: torch.device
) -> tuple[Tensor, Tensor, list[int]]:
    """Cut images into boxes: each axis into intervals of random lengths, what is left at its end into single places.

    Returns:
        number: (B, *size), of the box that each voxel is in.
        place: (B, *size), of each voxel in the template that has one box of each shape, see ``permutations``.
        count: Boxes of each image.
    """
    number, place = (torch.zeros([len(draw)] + [1] * len(size), dtype=torch.long, device=device) for _ in range(2))
    count = torch.ones(len(draw), dtype=torch.long)
    for axis, (n, allowed) in enumerate(zip(size, lengths, strict=True)):
        which = torch.stack([torch.randint(0, len(allowed), (n,), generator=g) for g in draw])
        ends = allowed[which].cumsum(1)
        places = torch.arange(n).expand_as(ends).contiguous()
        interval = torch.searchsorted(ends, places, right=True)
        which, end = which.gather(1, interval), ends.gather(1, interval)
        inside = places - (end - allowed[which])
        in_template = (allowed.cumsum(0) - allowed)[which] + inside
        left = end > n
        interval, in_template = torch.where(left, interval + inside, interval), torch.where(left, 0, in_template)
        shape = [-1, *[1] * axis, n, *[1] * (len(size) - axis - 1)]
        along = interval[:, -1] + 1
        number = number * _per_sample(along, number) + interval.view(shape).to(device)
        place = place * int(allowed.sum()) + in_template.view(shape).to(device)
        count *= along
    return number, place, count.tolist()


def permutations(
    size: Sequence[int], lengths: Sequence[Tensor], draw: Sequence[Generator], device: torch.device
) -> Tensor:
    """Draw a permutation for each shape of box, for each sample.

    The template is a small image whose axes are cut into one interval of each length, the first one first. One sort,
    by the number of the box and then by chance, orders the places of all boxes.

    Returns:
        (B, places of the template), how far away in the flattened image of ``size`` the voxel is that comes there.
    """
    cuts = list(zip(size, lengths, [int(allowed.sum()) for allowed in lengths], strict=True))
    number, S, L, flat = (torch.zeros([1] * len(size), dtype=torch.long, device=device) for _ in range(4))
    # In order of the boxes, the places of a box follow those of all boxes before it: S, by the sizes alone. Inside,
    # they are in their usual order: L.
    after = 1
    for axis, (_, allowed, places) in reversed(list(enumerate(cuts))):
        start, length, _, _ = _intervals(allowed, axis, len(size), device)
        S = start * after + length * S
        after *= places
    for axis, (n, allowed, places) in enumerate(cuts):
        _, length, inside, interval = _intervals(allowed, axis, len(size), device)
        L = L * length + inside
        number = number * len(allowed) + interval
        flat = flat * n + torch.arange(places, device=device).view_as(inside)
    rank, number, flat = (S + L).flatten(), number.flatten(), flat.flatten()
    chances = torch.stack([torch.randint(0, _CHANCES, (after,), generator=g) for g in draw]).to(device)
    first = torch.arange(len(draw), device=device).unsqueeze(1)  # of each sample, in units of its boxes or places
    keys = (first * (int(number[-1]) + 1) + number) * _CHANCES + chances
    order = torch.sort(keys.flatten(), stable=True).indices
    source = order[first * after + rank] - first * after
    shifts: Tensor = flat[source] - flat
    return shifts


def _intervals(allowed: Tensor, axis: int, dims: int, device: torch.device) -> list[Tensor]:
    """Give each place of the template's axis its interval's start and length, its place inside, the interval's number.

    Each is shaped to broadcast along ``axis`` of ``dims``.
    """
    interval = torch.repeat_interleave(torch.arange(len(allowed)), allowed)
    start = (allowed.cumsum(0) - allowed)[interval]
    shape = [-1 if a == axis else 1 for a in range(dims)]
    values = (start, allowed[interval], torch.arange(len(interval)) - start, interval)
    return [v.view(shape).to(device) for v in values]


def paint(image: Tensor, draw: Sequence[Generator], probability: float = 0.9, outer: float = 0.8) -> Tensor:
    """Replace the inside of boxes, or all outside of them, of some samples of (B, C, *spatial) by noise.

    The noise is uniform over each channel's range. Small boxes, 1/6 to 1/3 of each side, are painted; large ones, 3/7
    to 4/7, are what is left of an image painted outside.
    """
    outside = chance(outer, draw, image)
    sides = torch.where(
        outside.view(-1, 1), torch.tensor([3 / 7, 4 / 7]).to(image), torch.tensor([1 / 6, 1 / 3]).to(image)
    )
    chosen = chance(probability, draw, image)
    low, width = _range(image)
    noise = torch.stack([torch.rand(image.shape[1:], generator=g) for g in draw]).to(image)
    noise.mul_(width).add_(low)
    painted = boxes(image.shape[2:], sides, draw).logical_xor_(_per_sample(outside, image)[:, 0])
    painted.logical_and_(_per_sample(chosen, image)[:, 0])
    return torch.where(painted.unsqueeze(1), noise, image)


def boxes(
    size: Sequence[int], sides: Tensor, draw: Sequence[Generator], most: int = 5, another: float = 0.95
) -> Tensor:
    """Mark the inside of up to ``most`` random boxes; returns (B, *size) of bool.

    Args:
        size: Of the images, voxels.
        sides: (B, 2), smallest and largest side as shares of the image's.
        draw: One generator per image.
        most: Boxes of an image.
        another: Probability of one more box after each.
    """
    coins = uniform(0, 1, (most - 1,), draw, sides) < another
    exists = torch.cat([coins.new_ones(len(coins), 1), coins.cumprod(1).bool()], 1)  # (B, most)
    along = []  # per axis, (B, most, n): whether a place is within the box
    for n in size:
        smallest, largest = sides[:, :1] * n, sides[:, 1:] * n
        side = (smallest + (largest - smallest) * uniform(0, 1, (most,), draw, sides)).floor().clamp_min(1)
        start = (uniform(0, 1, (most,), draw, sides) * (n - side + 1)).floor()
        places = torch.arange(n, device=sides.device)
        along.append(((places >= start.unsqueeze(2)) & (places < (start + side).unsqueeze(2))).float())
    inside = exists.float().unsqueeze(2)  # (B, most, 1), then with the axes but the last, flattened
    for places in along[:-1]:
        inside = (inside.unsqueeze(3) * places.unsqueeze(2)).flatten(2)
    covering = inside.transpose(1, 2) @ along[-1]  # how many boxes hold each voxel, exact in any precision
    return (covering > 0.5).view(-1, *size)


def _range(image: Tensor) -> tuple[Tensor, Tensor]:
    """Give the least value of each channel of (B, C, *spatial), and how far the largest is from it; (B, C, 1, ...)."""
    axes = tuple(range(2, image.ndim))
    low = image.amin(axes, keepdim=True)
    return low, image.amax(axes, keepdim=True) - low


def _per_sample(values: Tensor, like: Tensor) -> Tensor:
    """View (B,) as (B, 1, ..., 1) to broadcast against ``like``, on its device."""
    return values.to(like.device).view(-1, *[1] * (like.ndim - 1))
