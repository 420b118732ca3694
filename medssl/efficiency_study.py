"""What a label-efficiency study trains, on whom: each method pretrained once, then fine-tuned on the same few labels.

As the label budgets of Chen et al., "Big Self-Supervised Models are Strong Semi-Supervised Learners", NeurIPS 2020,
https://arxiv.org/abs/2006.10029, for scans: the same subsets and as many optimiser steps for every arm, training from
scratch among them, and whole subjects held out for the test.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb
from pathlib import Path
from typing import Any

import numpy as np

from medssl.data.catalog import Scan
from medssl.data.prepared import PreparedDataset
from medssl.data.splits import Split, load_split, split_subjects
from medssl.errors import InputError
from medssl.labels.protocols import Protocol
from medssl.methods import PRETEXTS
from medssl.networks import encoder_parameters
from medssl.pretrain import PretrainRecipe
from medssl.train_segmentation import Recipe

_TRIES = 1000


@dataclass(frozen=True)
class StudyPlan:
    """What a study trains.

    Args:
        methods: Of pretraining, by name.
        method_arguments: The own arguments of some of them.
        counts: Numbers of labelled subjects.
        seeds: One subset of each number, and one fine-tuning, per seed.
        network: Name of the segmentation network; its encoder is pretrained.
        network_arguments: Its own arguments.
        pretraining: How a method is trained.
        pretrain_steps: For how long.
        recipe: How is fine-tuned; weak labels are pretrained on in the same way.
        finetune_steps: Equal for every arm and every number of labels.
        seed: Of the pretraining.
        probe_steps: Of the linear probe.

    Raises:
        InputError: What is asked for is no study, or not a fair one.
    """

    methods: tuple[str, ...]
    method_arguments: Mapping[str, Mapping[str, Any]]
    counts: tuple[int, ...]
    seeds: tuple[int, ...]
    network: str
    network_arguments: Mapping[str, Any]
    pretraining: PretrainRecipe
    pretrain_steps: int
    recipe: Recipe
    finetune_steps: int
    seed: int
    probe_steps: int

    def __post_init__(self) -> None:
        """Refuse at once what would fail, or mislead, after hours."""
        known = ", ".join(sorted(PRETEXTS))
        for name in (*self.methods, *self.method_arguments):
            if name not in PRETEXTS:
                raise InputError(
                    f"There is no method of pretraining '{name}'. Methods: {known}. Training from scratch, and on weak "
                    "labels where there are some, is always among the arms."
                )
        if unused := sorted(set(self.method_arguments) - set(self.methods)):
            raise InputError(f"method_arguments are for '{unused[0]}', which is not one of the methods of this study.")
        for what, numbers, least in (("counts", self.counts, 1), ("seeds", self.seeds, 0)):
            if not numbers or min(numbers) < least or len(set(numbers)) < len(numbers):
                raise InputError(f"{what} are different whole numbers, at least {least}; got {list(numbers)}.")
        if not self.methods or len(set(self.methods)) < len(self.methods):
            raise InputError(f"methods are one or more different names; got {list(self.methods)}. Methods: {known}.")
        if self.recipe.patience is not None:
            raise InputError(
                f"recipe.patience={self.recipe.patience} would stop some trainings earlier than others; the arms are "
                "compared after equal steps: leave patience out."
            )

    @property
    def encoder_arguments(self) -> dict[str, Any]:
        """The part of the network's arguments that its encoder takes."""
        taken = encoder_parameters(self.network)
        return {key: value for key, value in self.network_arguments.items() if key in taken}


@dataclass(frozen=True)
class StudyData:
    """The subjects of a study, each in one part.

    Attributes:
        images: What methods are pretrained on; their labels are not looked at.
        weak: Scans with weak labels, where there are some.
        pool: Labelled scans to draw from.
        validation: Watched while training; nothing is chosen by them.
        test: Labelled scans that nothing was trained on.
        tested: The files of ``test``.
        reading: How the numbers of their label maps are read.
    """

    images: PreparedDataset
    weak: PreparedDataset | None
    pool: PreparedDataset
    validation: PreparedDataset
    test: PreparedDataset
    tested: Sequence[Scan]
    reading: Protocol

    @property
    def names(self) -> set[str]:
        """What scans and subjects are called, which no result may tell."""
        parts = [part for part in (self.images, self.weak, self.pool, self.validation, self.test) if part is not None]
        return {name for part in parts for name in (*part.scans, *part.subjects)}


def split_study(
    subjects: Sequence[str], split: Path | None, test_count: int, validation_count: int, most: int, seed: int
) -> Split:
    """Deal labelled subjects out to test, validation and pool, or read the split from a file.

    Args:
        subjects: One entry per scan is fine.
        split: A file that ``save_split`` wrote, with these three parts.
        test_count: Subjects to test on, drawn first.
        validation_count: Subjects to validate on.
        most: Labelled subjects that the pool must hold.
        seed: Of the draw.

    Raises:
        InputError: The pool is too small, or the file is no such split.
    """
    known = len(set(subjects))
    if split is not None:
        parts = load_split(split)
        if set(parts) != {"test", "validation", "pool"}:
            raise InputError(f"{split}: a study's parts are test, validation and pool; got {', '.join(sorted(parts))}.")
    else:
        left = max(1, known - test_count - validation_count)
        parts = split_subjects(subjects, {"test": test_count, "validation": validation_count, "pool": left}, seed)
    if most > len(parts["pool"]):
        raise InputError(
            f"counts asks for {most} labelled subjects to train on; of {known}, {len(parts['test'])} are for the test "
            f"and {len(parts['validation'])} for validation, so the pool holds {len(parts['pool'])}. Ask for fewer, or "
            "label more scans."
        )
    return parts


def draw_subsets(
    pool: Sequence[str], counts: Sequence[int], seeds: Sequence[int], draw: int
) -> dict[tuple[int, int], tuple[str, ...]]:
    """Draw the labelled subjects of each number and seed; a seed's larger subsets hold its smaller ones.

    Two seeds have different subsets as long as there are as many; a seed that is added later changes none before it.

    Args:
        pool: Subjects.
        counts: How many to draw, each at most as many as the pool holds.
        seeds: One subset of each number per seed.
        draw: Seed of all draws.

    Returns:
        (number, seed) -> subjects, sorted.
    """
    orders: list[list[str]] = []
    for seed in seeds:
        generator = np.random.default_rng((draw, seed))
        for _ in range(_TRIES):
            order = generator.permutation(sorted(set(pool))).tolist()
            contested = [n for n in counts if comb(len(order), n) > len(orders)]
            if all(set(order[:n]) != set(other[:n]) for n in contested for other in orders):
                break
        orders.append(order)
    return {(n, seed): tuple(sorted(order[:n])) for seed, order in zip(seeds, orders, strict=True) for n in counts}


def scans_to_pretrain_on(unlabelled: Sequence[Scan], labelled: Sequence[Scan], parts: Split) -> list[Scan]:
    """List the unlabelled scans and the pool's, each once, without any of a test or validation subject."""
    pool = [scan for scan in labelled if scan.subject in parts["pool"]]
    held_out, names = {*parts["test"], *parts["validation"]}, {scan.name for scan in pool}
    return [*pool, *(scan for scan in unlabelled if scan.subject not in held_out and scan.name not in names)]


def weakly_labelled(
    unlabelled: Sequence[Scan], labelled: Sequence[Scan], parts: Split, reading: str | None
) -> list[Scan]:
    """List the unlabelled scans whose weak labels can be pretrained on.

    Labels whose reading neither the layout implies nor ``reading`` says, those of test and validation subjects, and
    those that are the labelled scans' own are none.
    """
    held_out, own = {*parts["test"], *parts["validation"]}, {scan.label for scan in labelled}
    return [
        scan
        for scan in unlabelled
        if scan.label not in (None, *own) and scan.subject not in held_out and (reading or scan.protocol)
    ]


def how_it_was_measured(plan: StudyPlan, data: StudyData) -> list[str]:
    """Say in paragraphs what was trained and tested, and on how many."""
    pretraining, recipe = plan.pretraining, plan.recipe
    told = ", ".join(f"{key} {value}" for key, value in plan.network_arguments.items())
    weak = "" if data.weak is None else f" Weak labels: {_size(data.weak)}, the whole network by segmentation."
    return [
        f"Labelled: {_size(data.test)} to test on, {_size(data.validation)} to watch, {_size(data.pool)} to draw "
        f"labels from. Pretrained on without labels: {_size(data.images)}, the pool's among them. No test or "
        "validation subject was pretrained on, which was checked by name and by content.",
        f"Numbers of labelled subjects: {_listed(plan.counts)}, drawn once for each of the seeds "
        f"{_listed(plan.seeds)}; a seed's larger subsets hold its smaller ones. Every arm was fine-tuned on the same "
        "subsets with the same "
        f"settings for {plan.finetune_steps} steps: {recipe.optimizer}, learning rate {recipe.learning_rate:g}, batch "
        f"size {recipe.batch_size}, crops of {_sides(recipe.patch_size)} voxels. The weights after the last step were "
        "tested.",
        f"Network: {plan.network}{f' ({told})' if told else ''}. Each pretraining took {plan.pretrain_steps} steps; "
        f"methods: {pretraining.optimizer}, learning rate {pretraining.learning_rate:g}, batch size "
        f"{pretraining.batch_size * pretraining.accumulate}, crops of {_sides(pretraining.patch_size)} voxels; the "
        f"encoder alone is kept.{weak}",
        "Scored once, on each test scan's own grid: Dice of every structure without the background; a structure that "
        "was missed counts 0.",
    ]


def what_is_not_known(plan: StudyPlan, data: StudyData, collapsed: Sequence[str] = ()) -> list[str]:
    """Say in paragraphs what the study cannot tell.

    Args:
        plan: What was trained.
        data: On what.
        collapsed: Names of the methods whose representation had collapsed.
    """
    draws = len(plan.seeds)
    paragraphs = [
        f"Intervals and p are over {len(set(data.test.subjects))} test subjects, for these {draws} draws of labelled "
        f"subjects{'' if draws >= 3 else ' (three or more would say how much hangs on the draw)'}; how far the draws "
        "differ stands beside them. Subjects of other scanners, hospitals or diseases than these were not tested.",
        f"All arms were fine-tuned for {plan.finetune_steps} steps: an arm that only learns faster looks better the "
        "fewer these are. Whether scratch would catch up with more is not known; where its Dice hardly rises with the "
        "number of labels, or is far below what the network reaches elsewhere, they were too few.",
        "Each method was pretrained once, with one seed, one length and one set of settings, and nothing was tuned for "
        "any arm, training from scratch included. Longer pretraining, more images or another network may change the "
        "order.",
    ]
    if (most := max(plan.counts)) == len(set(data.pool.subjects)):
        paragraphs.append(f"With {most} labels every draw is the whole pool: there the seeds differ in training alone.")
    if collapsed:
        paragraphs.append(
            f"The representation of {', '.join(collapsed)} had collapsed when it was last looked at: its numbers are "
            "of that, not of what the method can do. See its pretraining below."
        )
    return paragraphs


def _size(data: PreparedDataset) -> str:
    subjects, scans = len(set(data.subjects)), len(data)
    return f"{subjects} subject{'s' if subjects > 1 else ''}" + (f" with {scans} scans" if scans != subjects else "")


def _listed(numbers: Sequence[int]) -> str:
    *first, last = map(str, numbers)
    return f"{', '.join(first)} and {last}" if first else last


def _sides(patch_size: Sequence[int]) -> str:
    return "×".join(map(str, patch_size))
