"""Train any method on unlabelled crops, watch whether its representation is alive, and keep the encoder."""

import logging
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import default_collate

from medssl.data.crops import CropDataset
from medssl.data.prepared import PreparedDataset
from medssl.data.splits import check_no_leak
from medssl.errors import InputError
from medssl.evaluation.health import collapse, representation_health
from medssl.evaluation.scan_probes import probe_encoder
from medssl.evaluation.tables import write_table
from medssl.memory import peak_memory_mib
from medssl.method import Method
from medssl.networks.heads import pooled
from medssl.optimizers import OptimizerName, build_optimizer
from medssl.patches import check_patch
from medssl.pretrained import PretrainedEncoder, save_encoder
from medssl.sample import Batch
from medssl.training import Precision, fit, use_bf16
from medssl.views import Views

logger = logging.getLogger(__name__)


_PROBE_CROPS, _PROBE_STEPS = 16, 100  # of the online segmentation probe; medssl probe takes more
_LEAST_SPREAD = 1e-3  # of the healthy spread of directions; pooled features of like images may have a hundredth

Look = Callable[[Method, list[Batch], Tensor], None]


class CollapsedError(InputError):
    """The representation has collapsed; the message says how, and what to try."""


@dataclass(frozen=True)
class PretrainRecipe:
    """How an encoder is pretrained.

    Args:
        patch_size: Of the crops, voxels, one number per axis.
        batch_size: Crops per step and device.
        optimizer: "adamw", or "muon" for convolutional encoders.
        learning_rate: Its largest value.
        weight_decay: On weights, not on biases and normalisation.
        epoch_steps: Steps from one look at the representation to the next.
        accumulate: Batches per optimiser step.
        watched: Crops of held-out scans that the representation is looked at on.
        probe_every: Looks from one probe of the frozen features to the next, where both parts have labels or classes;
            0 never probes. Labels serve the probes alone.
        probe_scans: Training scans that the probes are fitted on.
        patience: Collapsed looks in a row after which training stops; None trains on and only warns.
        precision: ``"auto"``, ``"bf16"`` or ``"fp32"``.
        workers: Processes that read crops.
    """

    patch_size: tuple[int, ...] = (64, 64, 64)
    batch_size: int = 8
    optimizer: OptimizerName = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    epoch_steps: int = 100
    accumulate: int = 1
    watched: int = 64
    probe_every: int = 5
    probe_scans: int = 8
    patience: int | None = 3
    precision: Precision = "auto"
    workers: int = 1


def pretrain(
    method: Method,
    train: PreparedDataset,
    held_out: PreparedDataset | None,
    out: Path,
    *,
    steps: int,
    encoder: str,
    encoder_arguments: Mapping[str, Any] | None = None,
    recipe: PretrainRecipe = PretrainRecipe(),
    seed: int = 0,
    log: Callable[[Mapping[str, float], int], None] | None = None,
    look: Look | None = None,
    origin: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Pretrain ``method`` on crops; ``out`` then holds ``encoder/`` and ``history.csv``.

    Started again with the same arguments it goes on where it was stopped, or returns at once when it had ended.

    Args:
        method: Built with the encoder that is kept.
        train: Prepared images; labels are not looked at.
        held_out: Images of other subjects, on which the loss and the representation are looked at after each epoch.
        out: Folder of the pretraining.
        steps: Optimiser steps.
        encoder: The encoder's name in ``medssl.networks.ENCODERS``.
        encoder_arguments: Its own arguments.
        recipe: How it is pretrained.
        seed: Of the crops and of all that is drawn from them.
        log: Called with the scores of each epoch and the step.
        look: Called after each epoch with the method, the watched batches and their embeddings (N, D), to draw them.
        origin: What the encoder's metadata say of where it comes from.

    Returns:
        The history: one row of scores per epoch.

    Raises:
        InputError: The data do not fit the task, or the two share a subject or a scan.
        CollapsedError: The representation stayed collapsed; the last checkpoint and the history so far remain.
    """
    train = large_enough(train, recipe.patch_size)
    held_out = None if held_out is None else large_enough(held_out, recipe.patch_size)
    if train.spatial_dims not in method.spatial_dims:
        raise InputError(
            f"{type(method).__name__} works on {' and '.join(f'{d}D' for d in method.spatial_dims)} images, these are "
            f"{train.spatial_dims}D."
        )
    method.check(len(train), train.channels, recipe.patch_size)
    if held_out is not None:
        check_no_leak({"train": train, "held out": held_out})
    watch = None if held_out is None else Watch(held_out, recipe, look, train)
    history = fit(
        method,
        CropDataset(train, recipe.patch_size, method.pretext, seed=seed, with_labels=False),
        out,
        steps,
        batch_size=recipe.batch_size,
        epoch_steps=recipe.epoch_steps,
        optimizer=recipe.optimizer,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        accumulate=recipe.accumulate,
        validate=watch,
        log=log,
        precision=recipe.precision,
        workers=recipe.workers,
    )
    table = pd.DataFrame(history)
    write_table(out / "history.csv", table)
    kept = PretrainedEncoder(
        method.encoder,
        encoder,
        dict(encoder_arguments or {}),
        train.preparation,
        recipe.patch_size,
        {"method": type(method).__name__, "steps": steps, "data": train.fingerprint, **dict(origin or {})},
    )
    save_encoder(kept, out / "encoder")
    return table


def large_enough(data: PreparedDataset, patch_size: Sequence[int]) -> PreparedDataset:
    """Leave out, and name, scans that are smaller than a crop: the padding would give many a task's answer away.

    Raises:
        InputError: The patch has other dimensions, or no scan is large enough.
    """
    check_patch(patch_size, data.spatial_dims)
    fits = [all(n >= edge for n, edge in zip(data.shape(i), patch_size, strict=True)) for i in range(len(data))]
    small = [i for i, fit in enumerate(fits) if not fit]
    if not small:
        return data
    least = tuple(min(data.shape(i)[axis] for i in range(len(data))) for axis in range(data.spatial_dims))
    told = (
        f"{data.root}: {len(small)} of {len(data)} images are smaller than the patch {tuple(patch_size)}, such as "
        f"{data.scans[small[0]]} of {data.shape(small[0])} voxels"
    )
    if len(small) == len(data):
        raise InputError(f"{told}. Choose a smaller --recipe.patch_size; {least} fits all.")
    logger.warning("%s; they are left out. A patch of %s fits all.", told, least)
    return data.take(i for i, fit in enumerate(fits) if fit)


class Watch:
    """Look at a method on held-out crops, always the same ones: its loss, and the health of its representation.

    Args:
        data: Held-out scans.
        recipe: Whose patch size, batch size, precision and patience are used.
        look: Called with the method, the batches and their embeddings (N, D).
        train: Scans whose labels and classes the online probes are fitted on; None never probes.
    """

    def __init__(
        self,
        data: PreparedDataset,
        recipe: PretrainRecipe,
        look: Look | None = None,
        train: PreparedDataset | None = None,
    ) -> None:
        self.data, self.recipe, self.look = data, recipe, look
        self.probed = None if train is None else few_with_labels(train, recipe.probe_scans)
        self.collapsed = self.looks = 0

    def __call__(self, method: Method) -> dict[str, float]:
        """Return ``held_out/<part of the loss>`` and ``health/<measure>``, on all watched crops.

        Raises:
            CollapsedError: The representation was collapsed ``patience`` times in a row.
        """
        device = next(method.parameters()).device
        losses: dict[str, float] = {}
        embeddings: list[Tensor] = []
        batches = [
            {name: value.to(device) for name, value in batch.items()}
            for batch in held_out_batches(method, self.data, self.recipe)
        ]
        precision = torch.bfloat16 if use_bf16(self.recipe.precision) else torch.float32
        with torch.no_grad(), torch.autocast(device.type, precision, enabled=precision != torch.float32):
            for batch in batches:
                for name, value in method.loss(batch).items():
                    losses[name] = losses.get(name, 0.0) + float(value) / len(batches)
                views = Views()(batch["image"], batch["seed"])  # (B, 2, C, *patch)
                embeddings.append(pooled(method.encoder(views.flatten(0, 1))).float().cpu().unflatten(0, (-1, 2)))
            z = torch.cat(embeddings)  # (N, 2, D)
            centred = z - z.mean((0, 1))  # pooled rectified units share most of their length, whatever the image
            if self.look is not None:
                self.look(method, batches, centred[:, 0])
        scores = {f"held_out/{name}": value for name, value in losses.items()}
        scores |= {f"health/{name}": v for name, v in representation_health(centred[:, 0], centred[:, 1]).items()}
        scores["health/found_again"] = found_again(centred[:, 0], centred[:, 1])
        scores |= {f"probe/{name}": value for name, value in self._probe(method).items()}
        return scores | {"health/collapsed": float(self._alarm(z[:, 0], method.clusters()))}

    def _probe(self, method: Method) -> dict[str, float]:
        """Probe the frozen features where it is time to, and something is known to probe for."""
        self.looks += 1
        every = self.recipe.probe_every
        if self.probed is None or not len(self.probed) or not every or self.looks % every:
            return {}
        size = self.recipe.patch_size
        try:
            return probe_encoder(
                method.encoder, self.probed, self.data, size, crops=_PROBE_CROPS, steps=_PROBE_STEPS
            ).scores
        except InputError as error:  # such as a class that one part lacks: no reason to stop the training
            logger.warning("Probing is left out from here on: %s", error)
            self.probed = None
            return {}

    def _alarm(self, z: Tensor, clusters: tuple[Tensor, int] | None) -> bool:
        found = collapse(z, *(clusters or ()), centre=True, least_spread=_LEAST_SPREAD)
        self.collapsed = self.collapsed + 1 if found else 0
        if found is None:
            return False
        logger.warning("%s", found)
        if self.recipe.patience is not None and self.collapsed >= self.recipe.patience:
            raise CollapsedError(f"Stopped after {self.collapsed} looks in a row: {found}")
        return True


def few_with_labels(data: PreparedDataset, count: int) -> PreparedDataset:
    """Take the first scans that have a label map or a class, as many as are wanted, of each class as many as can be."""
    maps = data.label_set is not None
    taken: Counter[int | None] = Counter()
    known: list[tuple[int, int]] = []  # (how many of its class come before it, scan)
    for i in range(len(data)):
        category = data.category(i)
        if category is not None or (maps and data.labelled(i)):
            known.append((taken[category], i))
            taken[category] += 1
    return data.take(sorted(i for _, i in sorted(known)[:count]))


def found_again(z: Tensor, z_other: Tensor) -> float:
    """Share of the rows of (N, D) whose nearest row of another view of the same images is their own; chance is 1/N."""
    similarity = F.normalize(z, dim=1) @ F.normalize(z_other, dim=1).T  # (N, N)
    return float((similarity.argmax(1) == torch.arange(len(z), device=z.device)).float().mean())


def held_out_batches(method: Method, data: PreparedDataset, recipe: PretrainRecipe) -> list[Batch]:
    """Read the watched crops, in batches of the recipe's size; a rest of one, which some tasks refuse, is left out."""
    samples = CropDataset(data, recipe.patch_size, method.pretext, seed=0, with_labels=False)
    count = max(recipe.watched, 2)
    size = min(recipe.batch_size, count)
    return [
        default_collate([samples[number] for number in range(first, min(first + size, count))])
        for first in range(0, count - (count % size == 1), size)
    ]


@dataclass(frozen=True)
class Estimate:
    """What a pretraining will take on this machine.

    Attributes:
        seconds_per_step: Reading, augmenting, both passes and the optimiser.
        memory_mib: The most that the process, or the device, has held; None where the system does not tell.
        disk_bytes: Of a checkpoint and the encoder.
    """

    seconds_per_step: float
    memory_mib: float | None
    disk_bytes: int

    def __str__(self) -> str:
        """Say it in one line, per thousand steps."""
        memory = "unknown memory" if self.memory_mib is None else f"{self.memory_mib / 2**10:.1f} GiB of memory"
        per_thousand, disk = f"{self.minutes(1000):.1f} minutes per 1000 steps", self.disk_bytes / 2**20
        return f"{per_thousand}, {memory}, {disk:.0f} MiB on disk"

    def minutes(self, steps: int) -> float:
        """How long so many steps take, without looks at the representation."""
        return self.seconds_per_step * steps / 60


def estimate(method: Method, train: PreparedDataset, recipe: PretrainRecipe, steps: int = 3) -> Estimate:
    """Measure a few steps; the method is put back as it was.

    Args:
        method: Measured on the device that it is on.
        train: What it will be trained on.
        recipe: How.
        steps: Timed ones, after one that is not.
    """
    before = {name: value.clone() for name, value in method.state_dict().items()}
    device = next(method.parameters()).device
    samples = CropDataset(train, recipe.patch_size, method.pretext, with_labels=False)
    optimizer = build_optimizer(recipe.optimizer, method.parameters(), 0.0, 0.0)
    precision = torch.bfloat16 if use_bf16(recipe.precision) else torch.float32
    times = []
    for step in range(steps + 1):
        start = time.perf_counter()
        numbers = range(step * recipe.batch_size, (step + 1) * recipe.batch_size)
        batch = {k: v.to(device) for k, v in default_collate([samples[number] for number in numbers]).items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # an epoch of one batch, for which k may be large
            method.start_epoch([batch])
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            loss = method.loss(batch)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        method.after_step()
        times.append(time.perf_counter() - start)
    on_gpu = device.type == "cuda"
    memory = torch.cuda.max_memory_allocated(device) / 2**20 if on_gpu else peak_memory_mib()
    weights = sum(value.numel() * value.element_size() for value in before.values())
    method.load_state_dict(before)
    return Estimate(sum(times[1:]) / steps, memory, 4 * weights)
