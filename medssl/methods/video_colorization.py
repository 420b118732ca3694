"""Video colorization: give a grey frame the colours of earlier frames; who copies the right ones has tracked things.

Vondrick, Shrivastava, Fathi, Guadarrama, Murphy, "Tracking Emerges by Colorizing Videos", ECCV 2018,
https://arxiv.org/abs/1806.09594, section 3.
"""

from collections.abc import Iterable
from itertools import islice
from typing import Literal, get_args

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor
from torch.nn import functional as F

from medssl.clip_augment import ClipAugment
from medssl.color import lab_to_rgb, rgb_to_lab
from medssl.data.clips import ClipNeeds, Consecutive
from medssl.distributed import gather
from medssl.errors import InputError
from medssl.geometry import in_float32
from medssl.networks.dense_embedding import DenseEmbedding
from medssl.networks.encoder import Encoder
from medssl.photometric import masked_mean
from medssl.sample import Batch, require
from medssl.video_method import CorrespondenceMethod

Codes = Literal["auto", "colour", "gradient"]

_COLOURED = 5.0  # of a and b: a difference from grey that is just seen; subsampled colours of grey video stay below
_COLOURED_SHARE = 0.1  # of the cells, from which on videos have colours to learn from; marks on grey video have fewer
_ROWS = 16_384  # cells of each process that the clusters are learnt from
_UNUSED = 1e6  # coordinate of a cluster that the data have no colour for: never the nearest
_OUT_OF_REACH = -1e4  # score of what is not pointed at; finite, so that a cell that points nowhere has a gradient


class VideoColorization(CorrespondenceMethod):
    """Point from each cell of a frame into earlier frames, by the lightness alone, and copy the colours found there.

    The encoder sees the lightness L, 0 to 1, three times, so that any encoder of colour pictures can be taken; whoever
    uses it afterwards does best to do the same (``lightness``). Colours are those of ``clusters`` groups, learnt from
    the data before the first epoch; a colour that no reference shows cannot be copied, and does not count.

    Grey videos, such as ultrasound, have no colours. There the codes are groups of intensity gradients, found in the
    same way. That is a weaker teacher, as the encoder sees what they are made of: it learns to find edges and specks of
    the same kind again, and nothing makes it see beyond. ``cycle_walk`` needs no colours.

    The paper's embeddings are of any length, at a temperature of 1. Here they have length 1, as trackers compare them,
    and the temperature is that of contrastive learning.

    Args:
        encoder: The network to train, for pictures.
        width: Of the embeddings.
        stride: Side of an embedding's cell, pixels.
        clusters: Groups of colours.
        references: Earlier frames that are pointed into.
        gap: Frames from each to the one before it. The paper has 6 frames per second.
        temperature: Of the soft-max over all cells of the references (eq. 2).
        codes: What is copied: groups of ``"colour"`` or of the ``"gradient"``; ``"auto"`` takes colours where at least
            a tenth of the cells have some.
        cluster_batches: Batches that the groups are learnt from.
        augment: How clips vary; only the encoder sees the other brightness and contrast.
    """

    centres: Tensor
    learnt: Tensor
    coloured: Tensor

    def __init__(
        self,
        encoder: Encoder,
        width: int = 64,
        stride: int = 8,
        clusters: int = 16,
        references: int = 3,
        gap: int = 4,
        temperature: float = 0.07,
        codes: Codes = "auto",
        cluster_batches: int = 50,
        augment: ClipAugment = ClipAugment(),
    ) -> None:
        super().__init__()
        if codes not in get_args(Codes):
            raise InputError(f"VideoColorization: codes must be one of {', '.join(get_args(Codes))}, got '{codes}'.")
        if clusters < 2 or temperature <= 0:
            raise InputError(
                "VideoColorization: there must be at least 2 clusters and a temperature above 0, got "
                f"{clusters} and {temperature}."
            )
        self.network = DenseEmbedding(encoder, width, stride)
        self.encoder, self.stride, self.temperature = encoder, stride, temperature
        self.needs = ClipNeeds(Consecutive(1 + references, gap), intrinsics=False)
        self.codes, self.cluster_batches, self.augment = codes, cluster_batches, augment
        self.register_buffer("centres", torch.full((clusters, 2), _UNUSED))
        self.register_buffer("learnt", torch.tensor(False))
        self.register_buffer("coloured", torch.tensor(codes == "colour"))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of the copied colours (eq. 3) of a batch of clips, which needs clip, valid and seed.

        ``copied`` is the share of the target's cells that count, ``accuracy`` that of these whose most probable colour
        is their own.
        """
        require(batch, "clip", "valid", "seed")
        batch = self.augment.mirror(batch) if self.training else batch
        clip, seen = batch["clip"], self._seen(batch["valid"])  # (B, T, 3, H, W), (B, T, n)
        codes = self.codes_of(clip)  # (B, T, n)
        scores = self._scores(self.augment.recolour(clip, batch["seed"]) if self.training else clip, seen)
        usable, c_i, c_j = (x.flatten(1) for x in (seen[:, 1:], codes[:, 1:], codes[:, 0]))
        cross_entropy, possible = copying_cost(scores, c_i, c_j, usable)  # (B, n) each
        counted = possible & seen[:, 0]
        with torch.no_grad():
            c = F.one_hot(c_i, len(self.centres)).transpose(1, 2)
            right = copied(scores, c).argmax(1) == c_j
        return {
            "loss": masked_mean(cross_entropy, counted),
            "accuracy": masked_mean(right.float(), counted),
            "copied": counted.float().mean(),
        }

    def embed(self, image: Tensor) -> Tensor:
        """Unit vectors (B, D, H / stride, W / stride), float32, of pictures (B, 3, H, W), 0 to 1."""
        return F.normalize(self.network(lightness(image)), dim=1)

    @torch.no_grad()
    def start_epoch(self, batches: Iterable[Batch]) -> None:
        """Learn the groups of colours, or of gradients, once, from the data of all processes.

        Raises:
            InputError: No frame shows the body, or colours are asked for of grey videos.
        """
        if self.learnt:
            return
        found = [self._seen_values(batch) for batch in islice(batches, self.cluster_batches)]
        ab, gradients = (gather(evenly(torch.cat(rows), _ROWS)) for rows in zip(*found, strict=True))
        share = (ab.norm(dim=1) > _COLOURED).float().mean()
        if self.codes == "colour" and share == 0:
            raise InputError(
                "VideoColorization: codes are to be colours, and the videos are grey: there is nothing to copy. Give "
                "videos in colour, choose codes gradient (auto does so by itself), or the method cycle_walk."
            )
        if self.codes == "auto":
            self.coloured.copy_(share >= _COLOURED_SHARE)
        centres = group_centres(ab if self.coloured else gradients, len(self.centres))
        self.centres.copy_(gather(centres)[: len(centres)])  # the first process's: others may round otherwise
        self.learnt.fill_(True)

    @torch.no_grad()
    def codes_of(self, clip: Tensor) -> Tensor:
        """Give the number of the group that each of the n cells of clips (B, T, 3, H, W) is of, (B, T, n).

        Raises:
            InputError: No groups have been learnt yet.
        """
        if not self.learnt:
            raise InputError(
                "VideoColorization: there are no groups of colours yet. Call start_epoch with the training's batches "
                "first, or load a trained method."
            )
        ab, gradients = self._values(clip)
        values = (ab if self.coloured else gradients).unsqueeze(3)  # (B, T, 2, 1, n)
        return (values - self.centres.T.unsqueeze(2)).square().sum(2).argmin(2)

    @torch.no_grad()
    def show(self, batch: Batch) -> dict[str, Tensor]:
        """Give the target's lightness, the target, its mask, and it with what is copied in place of its colours.

        Of grey videos, where the copy has no colours, what is copied are the intensities.
        """
        clip, valid = batch["clip"], batch["valid"]
        target, size = clip[:, 0], clip.shape[-2:]
        values = self._cells(clip)[:, 1:].transpose(1, 2).flatten(2)  # (B, 3, (T - 1) n)
        copy = copied(self._scores(clip, self._seen(valid)), values)
        copy = copy.unflatten(2, (size[0] // self.stride, size[1] // self.stride))
        copy = F.interpolate(copy, size, mode="bilinear", align_corners=False)
        if self.coloured:
            copy = lab_to_rgb(torch.cat([rgb_to_lab(target)[:, :1], rgb_to_lab(copy)[:, 1:]], 1))
        return {"input": lightness(target), "target": target, "copy": copy, "mask": valid[:, 0]}

    def state_scores(self) -> dict[str, float]:
        """Say what is copied, once it is known: ``codes/coloured`` is 1 or 0, ``codes/groups`` their number."""
        used = (self.centres[:, 0] < _UNUSED).sum()
        return {"codes/coloured": float(self.coloured), "codes/groups": float(used)} if self.learnt else {}

    def _scores(self, clip: Tensor, seen: Tensor) -> Tensor:
        """Compare all cells of the references with those of the target, (B, (T - 1) n, n)."""
        f = self.embed(clip.flatten(0, 1)).unflatten(0, clip.shape[:2]).flatten(3).transpose(1, 2)  # (B, D, T, n)
        return pointer(f[:, :, 1:].flatten(2), f[:, :, 0], seen[:, 1:].flatten(1), self.temperature)

    def _cells(self, pictures: Tensor) -> Tensor:
        """Average pictures (B, T, C, H, W) over each cell, (B, T, C, n)."""
        cells: Tensor = F.avg_pool2d(pictures.flatten(0, 1), self.stride).unflatten(0, pictures.shape[:2]).flatten(3)
        return cells

    def _seen(self, valid: Tensor) -> Tensor:
        """Tell which cells show the body for the greater part, (B, T, n), by the pixels (B, T, 1, H, W)."""
        return self._cells(valid).squeeze(2) >= 0.5

    def _values(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        """Give the colour and the gradient of each cell, (B, T, 2, n) each."""
        lab = rgb_to_lab(F.avg_pool2d(clip.flatten(0, 1).float(), self.stride))
        ab, gradients = (x.unflatten(0, clip.shape[:2]).flatten(3) for x in (lab[:, 1:], gradient(lab[:, :1])))
        return ab, gradients

    def _seen_values(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Give the colours and gradients of a batch's valid cells, (cells, 2) each."""
        seen = self._seen(batch["valid"])
        ab, gradients = (values.transpose(2, 3)[seen] for values in self._values(batch["clip"]))
        return ab, gradients


def lightness(image: Tensor) -> Tensor:
    """Turn colours (B, 3, H, W), 0 to 1, into L, 0 to 1, three times."""
    return (rgb_to_lab(image.float())[:, :1] / 100).expand(-1, 3, -1, -1)


def gradient(L: Tensor) -> Tensor:
    """Differentiate (B, 1, h, w) along x and y by central differences; (B, 2, h, w), the length its square root.

    Most gradients are small and a few large: of the lengths themselves nearly all groups would be of large ones.
    """
    around = F.pad(L, (1, 1, 1, 1), mode="replicate")
    x = (around[..., 1:-1, 2:] - around[..., 1:-1, :-2]) / 2
    y = (around[..., 2:, 1:-1] - around[..., :-2, 1:-1]) / 2
    g = torch.cat([x, y], 1)
    length: Tensor = g.norm(dim=1, keepdim=True)
    return g / length.clamp_min(1e-6).sqrt()


def evenly(rows: Tensor, count: int) -> Tensor:
    """Take ``count`` of the rows (N, D), evenly spread; the same ones several times where they are fewer.

    Raises:
        InputError: There are none.
    """
    if len(rows) == 0:
        raise InputError("VideoColorization: no frame shows the body, by its mask; there are no colours to learn from.")
    return rows[torch.arange(count, device=rows.device) * len(rows) // count]


def group_centres(rows: Tensor, groups: int) -> Tensor:
    """Group rows (N, 2) by k-means; (groups, 2), far from all rows where these are not as many different ones."""
    found = rows.cpu().double().numpy()
    means = KMeans(min(groups, len(np.unique(found, axis=0))), n_init=4, random_state=0).fit(found).cluster_centers_
    centres = rows.new_full((groups, 2), _UNUSED)
    centres[: len(means)] = torch.from_numpy(means).to(centres)
    return centres


@in_float32
def pointer(f_i: Tensor, f_j: Tensor, usable: Tensor, temperature: float) -> Tensor:
    """Score how alike reference cells and target cells are; their soft-max over the references is A_ij (eq. 2).

    Args:
        f_i: Of the references' m cells, (B, D, m).
        f_j: Of the target's n cells, (B, D, n).
        usable: Which of the references' cells may be pointed at, (B, m), bool.
        temperature: Of the soft-max.

    Returns:
        (B, m, n).
    """
    scores = f_i.transpose(1, 2) @ f_j / temperature
    return scores.masked_fill(~usable.unsqueeze(2), _OUT_OF_REACH)


@in_float32
def copied(scores: Tensor, c_i: Tensor) -> Tensor:
    """Copy the references' values (B, C, m) to the target's cells, (B, C, n), as ``pointer`` says (eq. 1)."""
    return c_i.to(scores) @ scores.softmax(1)


@in_float32
def copying_cost(scores: Tensor, c_i: Tensor, c_j: Tensor, usable: Tensor) -> tuple[Tensor, Tensor]:
    """Give -log of the probability that a cell copies its own group: the shares of that group's cells together.

    Args:
        scores: Of ``pointer``, (B, m, n).
        c_i: Groups of the references' cells, (B, m).
        c_j: Groups of the target's, (B, n).
        usable: Which of the references' cells may be pointed at, (B, m), bool.

    Returns:
        The cost (B, n), and where it has a meaning: some usable cell is of the group, (B, n), bool.
    """
    same = (c_i.unsqueeze(2) == c_j.unsqueeze(1)) & usable.unsqueeze(2)
    cost = scores.logsumexp(1) - scores.masked_fill(~same, _OUT_OF_REACH).logsumexp(1)
    return cost, same.any(1)
