"""Shortcut audit: can a pretext task be solved from a cue that carries no anatomy?

A trained task is scored anew on held-out crops, once for each cue that is taken out of them, beside a sham of the same
strength that leaves it in. Such cues are why tiles have gaps and colours are dropped: Doersch, Gupta, Efros,
"Unsupervised Visual Representation Learning by Context Prediction", ICCV 2015, https://arxiv.org/abs/1505.05192,
section 3.1; Noroozi, Favaro, ECCV 2016, https://arxiv.org/abs/1603.09246, section 3.4. What a task is worth when
nothing can be told is measured too: the network is shown the same images, dealt out anew.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medssl.augment import generators
from medssl.data.crops import seed_of
from medssl.errors import InputError
from medssl.evaluation.controls import CONTROLS, Change, Control, exchanged
from medssl.method import Method
from medssl.networks.encoder import Encoder
from medssl.networks.unet import UNetDecoder
from medssl.networks.vit import ViTEncoder
from medssl.sample import Batch

AS_IS, EXCHANGED, CONTROL, SHAM = "as it is", "exchanged", "control", "sham"
LEAST_SHARE = 0.2  # of what was learnt: less is no shortcut worth the name
_WRONG = 0.05  # share of intervals that do not hold what they are of
_FEWEST_BATCHES = 8  # that an interval can be drawn from
_LEAST_GAIN = 1e-6  # where resampled crops have learnt nothing, a share of it is very large
_RULED_OUT = 0.5  # of what was learnt: where a cue may be worth more, nobody is cleared

Lens = Callable[[Tensor], Tensor]


class Interval(NamedTuple):
    """A mean and its interval, of 95 % unless something else is said."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Rescored:
    """A trained task's scores under each control.

    Attributes:
        measure: "accuracy" where the task logs one, otherwise "loss".
        table: One row per batch of crops and version: ``control`` (empty where there is none), ``version`` ("as it is",
            "exchanged", "control" or "sham"), ``batch``, ``score`` and ``weight``, the share of the batch that the task
            could be posed for.
    """

    measure: str
    table: pd.DataFrame


@dataclass(frozen=True)
class Judgement:
    """What the network used.

    Attributes:
        measure: See ``Rescored``.
        whole: Score on crops as they are.
        floor: Score where the crops are exchanged: what nothing but luck is worth.
        learnt: Whether the two differ for sure; where not, nothing can be said of cues.
        table: One row per control: ``control``; ``score``, ``low``, ``high`` and ``sham``, ``sham_low``, ``sham_high``
            with 95 % intervals; ``lost``, how much less the control is worth than the crops as they are, and
            ``beyond_sham``, how much less than its sham, with ``_low`` and ``_high``; ``share``, the smaller of the two
            as a share of all that was learnt; ``share_high``, how large that may be in truth; ``used``.
    """

    measure: str
    whole: Interval
    floor: Interval
    learnt: bool
    table: pd.DataFrame

    @property
    def used(self) -> tuple[str, ...]:
        """The controls whose cue was used, the one that takes most first."""
        found = self.table[self.table["used"]].sort_values("share", ascending=False)
        return tuple(found["control"])


def rescore(method: Method, batches: Iterable[Batch], controls: Sequence[Control] = CONTROLS) -> Rescored:
    """Score a trained task on batches as they are, exchanged, and under each control and its sham.

    What is drawn depends on each batch's seeds alone, and is the same for a control and its sham.

    Args:
        method: Left in evaluation; nothing that it remembers changes.
        batches: Of held-out crops, on the method's device; the more and the smaller, the better the intervals.
        controls: To try; those that need more channels than the encoder takes are left out.
    """
    method.eval()
    rows: list[dict[str, Any]] = []
    tried = [control for control in controls if method.encoder.in_channels >= control.least_channels]
    for number, batch in enumerate(batches):
        for name, version, parts in _versions(method, batch, tried):
            measure = "accuracy" if "accuracy" in parts else "loss"
            weight = float(parts.get("kept", torch.tensor(1.0)))
            score = float(parts[measure])
            rows.append({"control": name, "version": version, "batch": number, "score": score, "weight": weight})
    if not rows:
        raise InputError("The shortcut audit needs batches of held-out crops, got none.")
    return Rescored(measure, pd.DataFrame(rows))


def _versions(
    method: Method, batch: Batch, controls: Sequence[Control]
) -> Iterator[tuple[str, str, dict[str, Tensor]]]:
    with torch.no_grad():
        yield "", AS_IS, method.loss(batch)
        with seen_through(method, anew(exchanged, batch["seed"])):
            yield "", EXCHANGED, method.loss(batch)
        for control in controls:
            for version, change in ((CONTROL, control.remove), (SHAM, control.sham)):
                changed, look = posed(control, change, batch)
                with seen_through(method, look):
                    yield control.name, version, method.loss(changed)


def posed(control: Control, change: Change, batch: Batch) -> tuple[Batch, Lens]:
    """Change a batch where the control is of the crop, else give the lens that the network has to look through."""
    look = lens(change, batch["seed"])
    if control.of == "crop":
        return {**batch, "image": look(batch["image"])}, lambda image: image
    return batch, look


def lens(change: Change, seeds: Tensor) -> Lens:
    """Make a change of images (R, C, *spatial) that draws from the seeds (B,) of the samples they are of."""
    samples = seeds.tolist()

    def look(image: Tensor) -> Tensor:
        each = max(1, len(image) // len(samples))  # images of a sample
        rows = [seed_of(samples[min(row // each, len(samples) - 1)], "audit", row) for row in range(len(image))]
        return change(image, generators(torch.tensor(rows)))

    return look


def anew(change: Change, seeds: Tensor) -> Lens:
    """Make a lens that draws anew at each look, so that images which belong together part."""
    looks = count()
    return lambda image: lens(change, seeds + next(looks))(image)


@contextmanager
def seen_through(method: Method, look: Lens) -> Iterator[None]:
    """Let every network of a method that takes images see them through a lens, for as long as the context lasts."""

    def change(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        return (look(given[0]), *given[1:])

    handles = [module.register_forward_pre_hook(change) for module in _entrances(method)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _entrances(method: Method) -> list[nn.Module]:
    """Find the modules whose first argument is an image; a masked autoencoder calls a ViT's parts by themselves."""
    return [
        module.patches if isinstance(module, ViTEncoder) else module
        for module in method.modules()
        if isinstance(module, Encoder | UNetDecoder)
    ]


def judge(rescored: Rescored, least_share: float = LEAST_SHARE, resamples: int = 2000, seed: int = 0) -> Judgement:
    """Say which controls take away what the network used.

    A cue was used if its control is worth less than the crops as they are and less than its sham, both for sure and by
    at least ``least_share`` of all that was learnt. For sure is that percentile bootstrap intervals of the paired
    differences, over batches, lie above 0: of 95 % for all controls together (Bonferroni), so that of many controls
    none accuses by luck. The intervals in the table are of 95 % each.

    Args:
        rescored: Scores per batch.
        least_share: Of the difference between crops as they are and exchanged ones.
        resamples: Bootstrap samples of batches.
        seed: Of the bootstrap.

    Raises:
        InputError: There are too few batches for an interval.
    """
    sign = 1.0 if rescored.measure == "accuracy" else -1.0  # so that more is better
    draws = _Draws(rescored.table, resamples, seed)
    whole, floor = draws.of("", AS_IS), draws.of("", EXCHANGED)
    gained = sign * (whole - floor)
    learnt = bool(interval(gained).low > 0)
    rows, names = [], [name for name in rescored.table["control"].unique() if name]
    for name in names:
        control, sham = draws.of(name, CONTROL), draws.of(name, SHAM)
        row: dict[str, Any] = {"control": name}
        for words, values in (("", control), ("sham", sham)):
            row |= _named(words or "score", interval(values), f"{words}_" if words else "")
        lost, beyond = sign * (whole - control), sign * (sham - control)
        share = np.minimum(lost, beyond) / np.maximum(gained, _LEAST_GAIN) if learnt else np.full_like(lost, np.nan)
        row |= _named("lost", interval(lost), "lost_") | _named("beyond_sham", interval(beyond), "beyond_sham_")
        row |= {"share": interval(share).mean, "share_high": interval(share).high}
        sure = all(interval(values, _WRONG / len(names)).low > 0 for values in (lost, beyond))
        row["used"] = learnt and sure and row["share"] >= least_share
        rows.append(row)
    return Judgement(rescored.measure, interval(whole), interval(floor), learnt, pd.DataFrame(rows))


def sentences(judgement: Judgement, controls: Sequence[Control] = CONTROLS) -> list[str]:
    """Say in plain sentences how well the task is solved, and which cues the network used."""
    told, known = judgement.table.set_index("control"), {control.name: control for control in controls}
    score = _percent if judgement.measure == "accuracy" else _plain
    said = [
        f"On held-out crops the {judgement.measure} is {_with_interval(judgement.whole, score)}; where the network is "
        f"shown other crops than those it is asked about, it is {_with_interval(judgement.floor, score)}."
    ]
    if not judgement.learnt:
        return [*said, "The two do not differ for sure: the task was not learnt, and no cue can be looked for."]
    for name in judgement.used:
        control, row = known[name], told.loc[name]
        said.append(
            f"The network used {control.cue}. Where {control.done}, the {judgement.measure} is {score(row['score'])} "
            f"({score(row['low'])} to {score(row['high'])}); where {control.sham_done}, which changes as much, it is "
            f"{score(row['sham'])}. That is {_percent(row['share'])} of what was learnt."
        )
    if not judgement.used:
        said.append(
            f"None of the cues that were looked for ({', '.join(told.index)}) was used: no control takes more than its "
            f"sham does, for sure and by {_percent(LEAST_SHARE)} of what was learnt."
        )
    if open_ := [name for name, row in told.iterrows() if not row["used"] and row["share_high"] > _RULED_OUT]:
        said.append(
            f"Not ruled out: {', '.join(open_)}. Too little was learnt, or too few crops were looked at, to say "
            f"whether more than {_percent(_RULED_OUT)} of it came from there."
        )
    return said


def interval(draws: NDArray[np.float64], wrong: float = _WRONG) -> Interval:
    """Give the mean, the first of the draws, and the others' percentile interval, which misses a share ``wrong``."""
    low, high = np.percentile(draws[1:], (100 * wrong / 2, 100 * (1 - wrong / 2)))
    return Interval(float(draws[0]), float(low), float(high))


class _Draws:
    """Mean scores of all batches and then of resampled ones, the same batches for each version."""

    def __init__(self, table: pd.DataFrame, resamples: int, seed: int) -> None:
        self.table, batches = table, table["batch"].nunique()
        if batches < _FEWEST_BATCHES:
            raise InputError(
                f"The audit's intervals are over batches: {batches} are too few, give at least {_FEWEST_BATCHES}. "
                "Raise the number of crops, or lower the batch size."
            )
        counts = np.random.default_rng(seed).multinomial(batches, np.full(batches, 1 / batches), resamples)
        self.counts = np.concatenate([np.ones((1, batches)), counts])  # (1 + resamples, batches)

    def of(self, control: str, version: str) -> NDArray[np.float64]:
        """Return the weighted mean of one version, (1 + resamples,)."""
        table = self.table
        rows = table[(table["control"] == control) & (table["version"] == version)].sort_values("batch")
        score, weight = rows["score"].to_numpy(), rows["weight"].to_numpy()
        mean: NDArray[np.float64] = self.counts @ (score * weight) / np.maximum(self.counts @ weight, 1e-12)
        return mean


def _named(name: str, values: Interval, prefix: str) -> dict[str, float]:
    return {name: values.mean, f"{prefix}low": values.low, f"{prefix}high": values.high}


def _with_interval(values: Interval, form: Callable[[float], str]) -> str:
    return f"{form(values.mean)} ({form(values.low)} to {form(values.high)})"


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def _plain(value: float) -> str:
    return f"{value:.3g}"
