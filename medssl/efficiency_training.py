"""The trainings of a label-efficiency study: pretraining, fine-tuning with its test, probe; each is done once."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from shutil import copy

import pandas as pd
import torch

from medssl.comparison import predict_and_score
from medssl.data.prepared import PreparedDataset
from medssl.efficiency_attempts import Attempts
from medssl.efficiency_study import StudyData, StudyPlan, how_it_was_measured, what_is_not_known
from medssl.errors import InputError
from medssl.evaluation.efficiency import SCRATCH, named
from medssl.evaluation.segmentation_probe import probe_segmentation
from medssl.evaluation.tables import read_table
from medssl.files import read_json, write_aside, write_json
from medssl.method import Method
from medssl.methods import build_pretext
from medssl.networks import build_encoder
from medssl.networks.encoder import Encoder
from medssl.pretrain import CollapsedError, estimate, pretrain
from medssl.pretrained import load_encoder
from medssl.report.curves import losses_picture
from medssl.report.efficiency import StudyDetails
from medssl.report.task import representation_picture
from medssl.stages import stage
from medssl.start import Start
from medssl.tracking import RunLike
from medssl.train_segmentation import seconds_per_step, train_segmentation
from medssl.training import NonFiniteLossError
from medssl.weights import WEIGHTS, read_weights

WEAK = "weak"
"""The arm that is pretrained by segmentation, on weak labels."""

_COST = "cost.json"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EfficiencyTrainer:
    """Trains the arms of a study, each once, into folders of their own.

    Args:
        out: Folder of the study.
        plan: What to train.
        data: On what.
    """

    out: Path
    plan: StudyPlan
    data: StudyData

    @property
    def arms(self) -> tuple[str, ...]:
        """Scratch, weak labels where there are some, and the methods."""
        return (SCRATCH, *((WEAK,) if self.data.weak is not None else ()), *self.plan.methods)

    def check(self) -> None:
        """Refuse methods, crops and networks that do not fit the data, before hours are spent on the others."""
        for name in self.plan.methods:
            self._method(name).check(len(self.data.images), self.data.images.channels, self.plan.pretraining.patch_size)

    def expected_minutes(self) -> float:
        """Measure what all trainings will take on this machine, without the scoring; noted, and measured once."""
        plan, data = self.plan, self.data
        inputs = [asdict(plan), data.images.fingerprint, data.pool.fingerprint, data.weak is not None]

        def measure(into: Path) -> None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
            arguments = (plan.network, plan.network_arguments, plan.recipe)
            finetuning = seconds_per_step(data.pool, data.validation, *arguments)
            pretraining = [
                estimate(self._method(name).to(device), data.images, plan.pretraining).seconds_per_step
                for name in plan.methods
            ]
            trainings = len(self.arms) * len(plan.counts) * len(plan.seeds)
            steps = trainings * plan.finetune_steps + (data.weak is not None) * plan.pretrain_steps
            seconds = steps * finetuning + plan.pretrain_steps * sum(pretraining)
            write_json(into / "plan.json", {"minutes": seconds / 60})

        return float(read_json(stage(self.out / "plan", inputs, measure) / "plan.json")["minutes"])

    def pretrain(self, arm: str, run: RunLike) -> Path:
        """Pretrain an arm, or go on with it, or find it done; returns its folder."""
        plan, images = self.plan, self.data.images
        weak = self.data.weak if arm == WEAK else None
        recipe = plan.pretraining if weak is None else plan.recipe
        settings = {
            "arm": arm,
            "method_arguments": dict(plan.method_arguments.get(arm, {})),
            "network": plan.network,
            "network_arguments": dict(plan.network_arguments),
            "recipe": asdict(recipe),
            "steps": plan.pretrain_steps,
            "seed": plan.seed,
            "data": (weak or images).fingerprint,
            "held_out": self.data.validation.fingerprint,
        }
        run.log_params(settings)

        def work(into: Path) -> None:
            with timed(into), sound(self._kept(arm)):
                if weak is None:
                    history = self._pretrain_method(arm, into, run)
                else:
                    history = self._segment(weak, plan.pretrain_steps, Start(), plan.seed, into, run)
            draw = representation_picture if weak is None else losses_picture
            draw(history, into / "pretraining.png")
            run.log_table(history, "history")
            run.log_file(into / "pretraining.png", "pictures")
            run.log_folder(self._kept(arm), "encoder" if weak is None else "model")

        logger.info("%s, pretraining: %d steps on %d scans.", named(arm), plan.pretrain_steps, len(weak or images))
        return stage(self.out / "pretraining" / arm, settings, work)

    def finetune(self, arm: str, subjects: Sequence[str], seed: int, run: RunLike) -> pd.DataFrame:
        """Fine-tune an arm on some labelled subjects and score it on the test scans, or find it done.

        Returns:
            The long table of scores, with the columns ``arm``, ``labels`` and ``seed``.
        """
        plan, train, folder = self.plan, self.data.pool.select(subjects), self.folder(arm, len(subjects), seed)
        settings = {
            "arm": arm,
            "labels": len(subjects),
            "seed": seed,
            "network": plan.network,
            "network_arguments": dict(plan.network_arguments),
            "recipe": asdict(plan.recipe),
            "steps": plan.finetune_steps,
            "data": train.fingerprint,
            "validation": self.data.validation.fingerprint,
            "start": None if arm == SCRATCH else read_json(self._pretrained(arm) / "stage.json")["inputs"],
        }
        run.log_params(settings)

        def work(into: Path) -> None:
            with timed(into), sound(into / "model"):
                history = self._segment(train, plan.finetune_steps, self._start(arm), seed, into, run)
            run.log_table(history, "history")

        def score(into: Path) -> None:
            predict_and_score(trained / "model", self.data.tested, self.data.reading, into, run)
            (trained / "last.ckpt").unlink(missing_ok=True)  # three times the model, and there are many

        logger.info("%s, %d labels, seed %d: %d steps.", named(arm), len(subjects), seed, plan.finetune_steps)
        trained = stage(folder / "training", settings, work)
        tested = [settings, self.data.test.fingerprint, self.data.reading.name]
        scored = stage(folder / "test", tested, score)
        return read_table(scored / "scores.csv").assign(arm=arm, labels=len(subjects), seed=seed)

    def probe(self, arm: str, subjects: Sequence[str]) -> float:
        """Score a linear probe of the frozen encoder on the test scans: mean Dice on the prepared grid."""
        train, plan = self.data.pool.select(subjects), self.plan
        start = None if arm == SCRATCH else read_json(self._pretrained(arm) / "stage.json")["inputs"]
        inputs = [start, asdict(plan), train.fingerprint, self.data.test.fingerprint]

        def measure(into: Path) -> None:
            scores = probe_segmentation(
                self._encoder(arm), train, self.data.test, plan.recipe.patch_size, steps=plan.probe_steps
            )
            write_json(into / "probe.json", scores)

        return float(read_json(stage(self.out / "probes" / arm, inputs, measure) / "probe.json")["dice/mean"])

    def folder(self, arm: str, labels: int, seed: int) -> Path:
        """Say where a fine-tuning is: ``training`` holds its model, ``test`` its label maps and scores."""
        return self.out / "trainings" / arm / f"labels{labels}_seed{seed}"

    def details(
        self,
        scores: pd.DataFrame,
        subsets: Mapping[tuple[int, int], Sequence[str]],
        out: Path,
        attempts: Attempts,
    ) -> StudyDetails:
        """Gather what the page tells beside the scores; probes the encoders where that was not done before.

        Args:
            scores: Of all fine-tunings.
            subsets: (number of labels, seed) -> subjects.
            out: Folder of the results, whose pictures are named after arms, not after scans.
            attempts: What failed so far; a probe that fails is noted there too.
        """
        most, fewest, seed = max(self.plan.counts), min(self.plan.counts), self.plan.seeds[0]
        arms = attempts.left(self.arms)
        costs = []
        for arm in arms:
            pretraining, finetuning = self.minutes(arm)
            row = {"arm": arm, "probe, Dice": "failed"}
            with attempts.noted(arm, "linear probe"):
                row["probe, Dice"] = f"{self.probe(arm, subsets[most, seed]):.3f}"
            costs.append({**row, "pretraining, min": pretraining, "fine-tuning, min": finetuning})
        shown = scores[(scores["arm"] == SCRATCH) & (scores["labels"] == fewest) & (scores["seed"] == seed)]
        ranked = shown.groupby("scan")["dice"].mean().sort_values()
        scan = next(scan for scan in self.data.tested if scan.name == ranked.index[len(ranked) // 2])
        examples = {arm: self.folder(arm, fewest, seed) / "test" / f"{scan.name}_qc.png" for arm in arms}
        pretrainings = {arm: self._pretrained(arm) / "pretraining.png" for arm in arms[1:]}
        collapsed = [named(arm) for arm in arms[1:] if self.collapsed(arm)]
        return StudyDetails(
            how_it_was_measured(self.plan, self.data),
            what_is_not_known(self.plan, self.data, collapsed),
            pd.DataFrame(costs),
            {
                arm: _copied(path, out / "pictures" / f"example_{arm}.png")
                for arm, path in examples.items()
                if path.is_file()
            },
            f"The scan whose Dice from scratch is in the middle; number of labels: {fewest}, seed {seed}.",
            {arm: _copied(path, out / "pictures" / f"pretraining_{arm}.png") for arm, path in pretrainings.items()},
            attempts.failures,
        )

    def minutes(self, arm: str) -> tuple[str, str]:
        """What pretraining took, and what one fine-tuning takes in the mean, as text; ≥ where a part was not timed."""
        counts, seeds = self.plan.counts, self.plan.seeds
        finetunings = [self.folder(arm, n, seed) / "training" for n in counts for seed in seeds]
        return _minutes([] if arm == SCRATCH else [self._pretrained(arm)]), _minutes(finetunings)

    def collapsed(self, arm: str) -> bool:
        """Say whether a pretrained representation had collapsed when it was looked at for the last time."""
        history = pd.read_csv(self._pretrained(arm) / "history.csv")
        return "health/collapsed" in history and bool(history["health/collapsed"].iloc[-1])

    def _pretrained(self, arm: str) -> Path:
        return self.out / "pretraining" / arm

    def _kept(self, arm: str) -> Path:
        return self._pretrained(arm) / ("model" if arm == WEAK else "encoder")

    def _start(self, arm: str) -> Start:
        if arm == SCRATCH:
            return Start()
        kept = str(self._kept(arm))
        return Start(model=kept) if arm == WEAK else Start(encoder=kept)

    def _encoder(self, arm: str) -> Encoder:
        return self._new_encoder() if arm == SCRATCH else load_encoder(self._kept(arm))[0]

    def _new_encoder(self) -> Encoder:
        torch.manual_seed(self.plan.seed)
        data = self.data.images
        return build_encoder(self.plan.network, data.channels, data.spatial_dims, **self.plan.encoder_arguments)

    def _method(self, name: str) -> Method:
        return build_pretext(name, self._new_encoder(), **self.plan.method_arguments.get(name, {}))

    def _pretrain_method(self, name: str, into: Path, run: RunLike) -> pd.DataFrame:
        return pretrain(
            self._method(name),
            self.data.images,
            self.data.validation,
            into,
            steps=self.plan.pretrain_steps,
            encoder=self.plan.network,
            encoder_arguments=self.plan.encoder_arguments,
            recipe=self.plan.pretraining,
            seed=self.plan.seed,
            log=run.log_metrics,
            origin={"run_id": run.run_id, "seed": self.plan.seed},
        )

    def _segment(
        self, train: PreparedDataset, steps: int, start: Start, seed: int, into: Path, run: RunLike
    ) -> pd.DataFrame:
        return train_segmentation(
            train,
            self.data.validation,
            into,
            steps=steps,
            network=self.plan.network,
            network_arguments=self.plan.network_arguments,
            recipe=self.plan.recipe,
            start=start,
            seed=seed,
            log=lambda scores, step: run.log_metrics(_watched(scores), step),
            origin={"run_id": run.run_id, "seed": seed},
        )


@contextmanager
def timed(folder: Path) -> Iterator[None]:
    """Note the minutes that a training takes, and whether it began here: of one that goes on, a part is not known."""
    whole, start = not (folder / "last.ckpt").exists(), time.perf_counter()
    yield
    write_json(folder / _COST, {"minutes": (time.perf_counter() - start) / 60, "whole": whole})


@contextmanager
def sound(kept: Path) -> Iterator[None]:
    """Check that a training leaves finite weights in ``kept``; one that diverged begins anew when it is tried again.

    Raises:
        InputError: Its loss or its weights are not finite, or its representation collapsed.
    """
    checkpoint = kept.parent / "last.ckpt"
    try:
        yield
    except (CollapsedError, NonFiniteLossError):
        checkpoint.unlink(missing_ok=True)
        raise
    try:
        read_weights(kept / WEIGHTS)
    except InputError:
        checkpoint.unlink(missing_ok=True)
        raise


def _minutes(folders: Sequence[Path]) -> str:
    """Average what trainings took that were done, as text."""
    costs = [read_json(folder / _COST) for folder in folders if (folder / _COST).is_file()]
    if not costs:
        return "–"
    mean = sum(cost["minutes"] for cost in costs) / len(costs)
    return ("" if all(cost["whole"] for cost in costs) else "≥ ") + f"{mean:.1f}"


def _copied(picture: Path, path: Path) -> Path:
    with write_aside(path) as aside:
        copy(picture, aside)
    return path


def _watched(scores: Mapping[str, float]) -> dict[str, float]:
    """Name the loss and the validation Dice; ``dice/mean`` alone is the test's."""
    names = {"train/loss": "train/loss", "dice/mean": "validation/dice/mean"}
    return {name: scores[key] for key, name in names.items() if key in scores and scores[key] == scores[key]}
