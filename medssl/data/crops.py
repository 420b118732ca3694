"""Random crops of prepared scans, each a pure function of (seed, sample number).

So results do not depend on the number of workers, training resumes exactly without saving anyone's generator, and a
sample can be replayed alone.
"""

import hashlib
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Generator
from torch.utils.data import Dataset, Sampler, default_collate

from medssl.data.prepared import PreparedDataset
from medssl.errors import InputError
from medssl.method import Pretext
from medssl.patches import Slices, check_patch, pad_to, random_crop, structure_crop
from medssl.sample import Batch, Sample


class Samples(Dataset[Sample]):
    """What the training loop reads: samples 0, 1, 2, ... without end, each a pure function of its number.

    Attributes:
        per_number: Rows of a batch that each number gives.
    """

    per_number: int = 1

    @abstractmethod
    def __getitem__(self, number: int) -> Sample:
        """Read sample ``number``; its ``index`` says which scan or recording it is from."""

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Make a batch of samples: ``per_number`` rows of each."""
        batch: Batch = default_collate(list(samples))
        return batch

    def numbers_per(self, batch_size: int) -> int:
        """How many numbers make a batch of so many rows.

        Raises:
            InputError: No whole number does.
        """
        if batch_size % self.per_number:
            raise InputError(
                f"A batch of {batch_size} is not made of groups of {self.per_number}, as many as are read at once; let "
                "batch_size be a multiple of that (of clips: recipe.clips_per_segment)."
            )
        return batch_size // self.per_number

    @property
    @abstractmethod
    def identity(self) -> list[Any]:
        """What decides which samples are drawn, JSON-able; a training goes on only with the same."""

    @abstractmethod
    def name(self, index: int) -> str:
        """Name the scan or recording of that index."""


class CropDataset(Samples):
    """Samples 0, 1, 2, ... without end: each a crop of one scan.

    Every scan is seen once before any is seen again, in an order drawn anew each time.

    Args:
        data: The prepared scans.
        patch_size: Of the crops, voxels; smaller scans are padded at their end with 0, the background.
        pretext: Applied to each sample with the sample's own generator.
        structure_share: Share of the crops that are taken around a structure, each structure equally often; the rest
            is anywhere. 0 needs no labels.
        seed: Of everything drawn.
        with_labels: Read the label maps where the data have some; a task that needs none reads faster without, and
            then scans may lack them.
    """

    def __init__(
        self,
        data: PreparedDataset,
        patch_size: Sequence[int],
        pretext: Pretext,
        structure_share: float = 0.0,
        seed: int = 0,
        with_labels: bool = True,
    ) -> None:
        check_patch(patch_size, data.spatial_dims)
        self.data, self.patch_size, self.pretext = data, tuple(patch_size), pretext
        self.structure_share, self.seed, self.with_labels = structure_share, seed, with_labels

    def __getitem__(self, number: int) -> Sample:
        """Read sample ``number``; ``image`` is (C, *patch), ``label``, where there is one, (*patch).

        ``category``, of data with classes, is the index of the image's class, -1 of an image that has none.
        """
        sample_seed = seed_of(self.seed, number)
        generator = Generator().manual_seed(sample_seed)
        round_, place = divmod(number, len(self.data))
        order = torch.randperm(len(self.data), generator=Generator().manual_seed(seed_of(self.seed, round_, "order")))
        scan = int(order[place])
        crop = self._crop(scan, generator)
        image = pad_to(self.data.image(scan, crop), self.patch_size)
        sample: Sample = {
            "image": torch.from_numpy(np.ascontiguousarray(image)),
            "seed": torch.tensor(seed_of(sample_seed, 1)),  # what the method draws is not what placed the crop
            "index": torch.tensor(scan),
            "number": torch.tensor(number),
        }
        if self.with_labels and self.data.label_set is not None:
            sample["label"] = torch.from_numpy(
                np.ascontiguousarray(pad_to(self.data.label(scan, crop), self.patch_size))
            )
        if self.data.classes is not None:
            category = self.data.category(scan)
            sample["category"] = torch.tensor(-1 if category is None else category)
        return self.pretext(sample, generator)

    @property
    def identity(self) -> list[Any]:
        """What decides which crops are drawn."""
        return [self.seed, self.patch_size, self.structure_share, self.data.fingerprint]

    def name(self, index: int) -> str:
        """Name a scan."""
        return self.data.scans[index]

    def _crop(self, scan: int, generator: Generator) -> Slices:
        shape = self.data.shape(scan)
        if float(torch.rand((), generator=generator)) >= self.structure_share:
            return random_crop(self.patch_size, shape, generator)
        present = [c for c, voxels in enumerate(self.data.class_voxels(scan)) if c > 0 and voxels > 0]
        if not present:
            return random_crop(self.patch_size, shape, generator)
        return structure_crop(self.patch_size, shape, present, lambda c: self.data.class_positions(scan, c), generator)


class EpochSampler(Sampler[int]):
    """Numbers the samples through all epochs, shared out over the processes.

    Args:
        steps: Optimiser steps per epoch.
        total_steps: Of all epochs; the last one may be shorter.
        per_step: Samples per step, of all processes together.
        rank: Of this process.
        world_size: Number of processes.
    """

    def __init__(self, steps: int, total_steps: int, per_step: int, rank: int = 0, world_size: int = 1) -> None:
        self.steps, self.total_steps, self.per_step = steps, total_steps, per_step
        self.rank, self.world_size, self.epoch = rank, world_size, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration is of; the training loop calls it."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        """Give this process's sample numbers."""
        first, last = self.epoch * self.steps, min((self.epoch + 1) * self.steps, self.total_steps)
        return iter(range(first * self.per_step + self.rank, last * self.per_step, self.world_size))

    def __len__(self) -> int:
        """Count this process's samples of a whole epoch."""
        return self.steps * self.per_step // self.world_size


def seed_of(*parts: int | str) -> int:
    """Mix integers and words into one seed, 0 <= seed < 2**63; near-by inputs give unrelated seeds."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
