"""One loop that trains any method; the only file that knows Lightning.

Exact resume: everything drawn is a function of (seed, sample number), a checkpoint is written whole at the end of each
epoch, after its validation, and holds all the rest (weights, the method's own memory, optimiser, schedule, history). A
training that was killed at any moment and is started again with the same arguments repeats at most one epoch, and ends
on one device with the same bits.
"""

import hashlib
import logging
import math
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, TQDMProgressBar
from pytorch_lightning.utilities.exceptions import SIGTERMException
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from medssl.data.crops import EpochSampler, Samples
from medssl.errors import InputError
from medssl.files import value_hash, write_aside
from medssl.memory import keep_freed_memory
from medssl.method import Method
from medssl.optimizers import OptimizerName, build_optimizer
from medssl.sample import Batch
from medssl.thin_volumes import guard_thin_volumes

Scores = Mapping[str, float]
Precision = Literal["auto", "bf16", "fp32"]
ScheduleName = Literal["cosine", "cyclic"]


class NonFiniteLossError(InputError):
    """The loss is NaN or infinite; the message names the batch."""


def fit(
    method: Method,
    samples: Samples,
    out: Path,
    steps: int,
    *,
    batch_size: int = 1,
    epoch_steps: int = 50,
    optimizer: OptimizerName = "adamw",
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-2,
    rate_factors: Mapping[str, float] | None = None,
    schedule: ScheduleName = "cosine",
    warmup: float = 0.1,
    gradient_clip: float = 12.0,
    accumulate: int = 1,
    validate: Callable[[Method], Scores] | None = None,
    validate_first: bool = False,
    patience: int | None = None,
    monitor: str = "dice/mean",
    log: Callable[[Scores, int], None] | None = None,
    precision: Precision = "auto",
    workers: int = 1,
    devices: int | str = "auto",
    accelerator: str = "auto",
) -> list[dict[str, float]]:
    """Train ``method`` and return its history: one row of scores per epoch.

    Args:
        method: What to train, in place.
        samples: What to train on.
        out: Folder of the checkpoint ``last.ckpt``. If it holds one of the same training, that training goes on.
        steps: Optimiser steps in all.
        batch_size: Samples per step and device.
        epoch_steps: Optimiser steps from one validation and checkpoint to the next.
        optimizer: "adamw", "sgd", or "muon" for convolutional networks, see ``medssl.optimizers``.
        learning_rate: Its largest value.
        weight_decay: On weights, not on biases and normalisation.
        rate_factors: What the rate of the method's parameters, by name, is multiplied by; 1 where it is not named.
        schedule: "cosine": the rate rises linearly over the first ``warmup`` of the steps and falls to 0 as half a
            cosine. "cyclic": it goes from a tenth to the whole in two epochs, and back in two, again and again.
        warmup: Share of the steps.
        gradient_clip: Largest norm of the gradient.
        accumulate: Batches per optimiser step.
        validate: Scores a method; called at the end of each epoch, its scores go to ``method.after_validation``.
        validate_first: Validate before the first step too, for methods that steer by it.
        patience: Stop when ``monitor`` has not improved for this many epochs; None never stops early.
        monitor: The score that ``patience`` looks at, larger is better.
        log: Called with each epoch's scores and the number of steps done.
        precision: ``"auto"`` is bf16 where the processor computes in it, float32 elsewhere.
        workers: Processes that read samples.
        devices: Number of devices, as Lightning takes it.
        accelerator: ``"cpu"``, ``"gpu"`` or ``"auto"``.

    Raises:
        NonFiniteLossError: The loss is NaN or infinite.
        InputError: The checkpoint in ``out`` is of another training.
    """
    keep_freed_memory()
    guard_thin_volumes(method)
    if steps < 1 or epoch_steps < 1:
        raise InputError(f"steps={steps} and epoch_steps={epoch_steps} must be at least 1.")
    epoch_steps = min(epoch_steps, steps)
    settings = [
        steps,
        batch_size,
        epoch_steps,
        optimizer,
        learning_rate,
        weight_decay,
        schedule,
        warmup,
        gradient_clip,
        accumulate,
    ]
    steering = [patience, monitor, validate_first, sorted((rate_factors or {}).items())]
    identity = value_hash([settings, steering, samples.identity, _identity(method)])
    checkpoint = out / "last.ckpt"
    with _quiet():
        trainer = pl.Trainer(
            accelerator=accelerator,
            devices=devices,
            precision="bf16-mixed" if use_bf16(precision) else "32-true",
            max_epochs=math.ceil(steps / epoch_steps),
            accumulate_grad_batches=accumulate,
            gradient_clip_val=gradient_clip,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            default_root_dir=out,
            callbacks=[_EndOfEpoch(checkpoint, validate, validate_first, patience, monitor), _progress()],
        )
        # Lightning counts epochs only: told a number of steps as well, it would enter the epoch of a checkpoint again.
        numbers = samples.numbers_per(batch_size)
        per_step = accumulate * numbers * trainer.world_size
        sampler = EpochSampler(epoch_steps, steps, per_step, trainer.global_rank, trainer.world_size)
        build = partial(_build_optimizer, method, optimizer, learning_rate, weight_decay, rate_factors or {})
        rate = partial(warm_cosine, steps=steps, warmup=warmup)
        if schedule == "cyclic":
            rate = partial(triangular, rise=2 * epoch_steps)
        loop = _Loop(method, sampler, build, rate, identity, log)
        loader = DataLoader(
            samples,
            numbers,
            sampler=sampler,
            num_workers=workers,
            collate_fn=samples.collate,
            persistent_workers=workers > 0,
            pin_memory=False,
        )
        try:
            trainer.fit(loop, loader, ckpt_path=checkpoint if checkpoint.exists() else None, weights_only=True)
        except SIGTERMException:
            # Lightning would exit with 0, as if the training had ended; the checkpoint of the last epoch is whole.
            sys.exit(128 + signal.SIGTERM)
    return loop.history


def _build_optimizer(
    method: Method, name: OptimizerName, learning_rate: float, weight_decay: float, rate_factors: Mapping[str, float]
) -> Optimizer:
    named = dict(method.named_parameters(remove_duplicate=False))  # an encoder is also a part of its network
    if unknown := sorted(set(rate_factors) - set(named)):
        raise InputError(f"There is no parameter '{unknown[0]}' whose learning rate could be changed.")
    factors = {named[parameter]: factor for parameter, factor in rate_factors.items()}
    return build_optimizer(name, method.parameters(), learning_rate, weight_decay, factors)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's advertisements, and warnings about its own code, from the user."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", module=r"(pytorch_lightning|lightning_fabric)\..*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _identity(method: Method) -> list[Any]:
    """Tell one method from another: its plain settings, and the weights it starts from."""
    plain = {
        name: repr(value)
        for name, value in vars(method).items()
        if isinstance(value, str | int | float | tuple) or is_dataclass(value)
    }
    digest = hashlib.blake2b(digest_size=8)
    for name, value in method.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return [type(method).__name__, plain, digest.hexdigest()]


def use_bf16(precision: Precision) -> bool:
    """Say whether to compute in bf16: asked for, or where the processor multiplies in it rather than emulates it."""
    if precision != "auto":
        return precision == "bf16"
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class _Loop(pl.LightningModule):
    """What Lightning wants to see of a method."""

    def __init__(
        self,
        method: Method,
        sampler: EpochSampler,
        build_optimizer: Callable[[], Optimizer],
        rate: Callable[[int], float],
        identity: str,
        log: Callable[[Scores, int], None] | None,
    ) -> None:
        super().__init__()
        self.method, self.sampler = method, sampler
        self.build_optimizer, self.rate = build_optimizer, rate
        self.identity, self.log_scores = identity, log
        self.history: list[dict[str, float]] = []
        self.sums: dict[str, Tensor] = {}
        self.batches = self.steps_seen = 0

    def training_step(self, batch: Batch, number: int) -> Tensor:
        losses = self.method.loss(batch)
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, torch.zeros((), device=self.device)) + value.detach()
        self.batches += 1
        if not torch.isfinite(losses["loss"]):
            parts = ", ".join(f"{name}={float(value.detach()):g}" for name, value in losses.items())
            raise NonFiniteLossError(
                f"The loss is not finite ({parts}) at step {self.global_step + 1}, on the scans "
                f"{self._names(batch)} (samples' seeds {batch['seed'].tolist()}). The last checkpoint is of before. "
                "Look at these scans; if they are sound, lower the learning rate or train in fp32."
            )
        return losses["loss"]

    def _names(self, batch: Batch) -> str:
        samples = self.trainer.train_dataloader.dataset  # type: ignore[union-attr]  # the loader that fit() was given
        return ", ".join(samples.name(int(index)) for index in batch["index"])

    def on_train_epoch_start(self) -> None:
        with self.trainer.precision_plugin.forward_context():
            self.method.start_epoch(self._batches_of_epoch())
        self.sums, self.batches = {}, 0

    def _batches_of_epoch(self) -> Iterator[Batch]:
        """Read the epoch's batches, for methods that look at them before they train on them."""
        known: Any = self.trainer.train_dataloader
        for batch in DataLoader(
            known.dataset,
            known.batch_size,
            sampler=self.sampler,
            num_workers=known.num_workers,
            collate_fn=known.collate_fn,
        ):
            yield {name: value.to(self.device) for name, value in batch.items()}

    def on_train_batch_end(self, *_: Any) -> None:
        if self.global_step > self.steps_seen:  # not after each batch, where several make a step
            self.steps_seen = self.global_step
            self.method.after_step()

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optimizer = self.build_optimizer()
        schedule = LambdaLR(optimizer, self.rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["medssl"] = {"identity": self.identity, "history": self.history}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        saved = checkpoint["medssl"]
        if saved["identity"] != self.identity:
            raise InputError(
                f"{self.trainer.default_root_dir}: holds the checkpoint of a training with other data, network or "
                "settings. Choose another --out, or remove the folder to train anew."
            )
        self.history, self.steps_seen = saved["history"], checkpoint["global_step"]
        # Workers begin to read before Lightning tells the sampler which epoch it is.
        self.sampler.set_epoch(checkpoint["global_step"] // self.sampler.steps)


class _EndOfEpoch(Callback):
    """Validate, tell the method, note the scores, save: in this order, so that the checkpoint holds all of it."""

    def __init__(
        self,
        checkpoint: Path,
        validate: Callable[[Method], Scores] | None,
        validate_first: bool,
        patience: int | None,
        monitor: str,
    ) -> None:
        self.checkpoint, self.validate, self.validate_first = checkpoint, validate, validate_first
        self.patience, self.monitor = patience, monitor

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        loop = _as_loop(pl_module)
        if self.validate_first and not loop.history:
            self._note(trainer, loop, {})

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        loop = _as_loop(pl_module)
        losses = {f"train/{name}": float(value) / loop.batches for name, value in loop.sums.items()}
        losses["learning_rate"] = float(trainer.optimizers[0].param_groups[0]["lr"])
        self._note(trainer, loop, losses)
        with write_aside(self.checkpoint) as aside:
            trainer.save_checkpoint(aside)
        best = max(range(len(loop.history)), key=lambda i: loop.history[i].get(self.monitor, -math.inf))
        if self.patience is not None and len(loop.history) - 1 - best >= self.patience:
            trainer.should_stop = True

    def _note(self, trainer: pl.Trainer, loop: "_Loop", losses: dict[str, float]) -> None:
        scores: dict[str, float] = {}
        if self.validate is not None:
            loop.eval()
            scores = dict(self.validate(loop.method))
            loop.train()
            loop.method.after_validation(scores)
        row = {"step": float(trainer.global_step), **losses, **scores, **loop.method.state_scores()}
        loop.history.append(row)
        if loop.log_scores is not None and trainer.is_global_zero:
            loop.log_scores({k: v for k, v in row.items() if k != "step"}, trainer.global_step)


def warm_cosine(step: int, steps: int, warmup: float) -> float:
    """Factor of the learning rate: linear up to 1 over the first ``warmup`` of ``steps``, then half a cosine to 0."""
    rise = max(1, round(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1, steps - rise))))


def triangular(step: int, rise: int, lowest: float = 0.1) -> float:
    """Factor of the learning rate: linear from ``lowest`` up to 1 in ``rise`` steps, and back, again and again.

    Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017, https://arxiv.org/abs/1506.01186, section
    3.1, which lets it rise for 2 to 10 passes over the data.
    """
    return 1 - (1 - lowest) * abs(1 - step / rise % 2)


def _as_loop(module: pl.LightningModule) -> _Loop:
    if not isinstance(module, _Loop):
        raise TypeError(f"this callback belongs to medssl's own loop, got {type(module).__name__}")
    return module


def _progress() -> Callback:
    """Show a bar on a terminal, nothing elsewhere."""
    return TQDMProgressBar(refresh_rate=1 if sys.stderr.isatty() else 0)
