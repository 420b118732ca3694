"""The loop learns, and a killed training ends with the bits of one that was never killed."""

import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from medssl.augment import Augmentation
from medssl.data.catalog import catalog
from medssl.data.crops import CropDataset, EpochSampler
from medssl.data.prepare import prepare
from medssl.data.prepared import PreparedDataset
from medssl.errors import InputError
from medssl.labels.lut import LabelSet
from medssl.labels.protocols import protocol
from medssl.method import as_read
from medssl.methods.segmentation import Segmentation
from medssl.networks import build_network
from medssl.sample import Batch
from medssl.training import NonFiniteLossError, fit, triangular, warm_cosine

START = """
import sys
from itertools import pairwise
from pathlib import Path
import torch
from medssl.data.crops import CropDataset
from medssl.data.prepared import PreparedDataset
from medssl.methods import build_pretext
from medssl.methods.segmentation import Boosting, Segmentation
from medssl.networks import build_network
from medssl.train_segmentation import SegmentationScores
from medssl.training import fit

torch.set_num_threads(1)
data, out, steps = PreparedDataset(Path(sys.argv[1])), Path(sys.argv[2]), int(sys.argv[3])
train, validation = data.select(data.subjects[:4]), data.select(data.subjects[4:])
torch.manual_seed(0)
network = build_network("unet", 1, 4, 3, channels=(4, 8), refine_channels=4)
scores, share, settings = None, 0.0, {}
"""
METHOD = {
    "segmentation": """
method = Segmentation(network, data.label_set.names, [9, 3, 3, 1], data.label_set.mirrored, Boosting())
scores, share = SegmentationScores(validation, (16, 16, 16), torch.bfloat16), 0.5
settings = dict(validate=scores, validate_first=True)
""",
    "moco": """
method = build_pretext("moco", network.encoder, queue_size=7, width=8)
""",
    "deep_cluster": """
method = build_pretext("deep_cluster", network.encoder, k=3)
""",
}
FIT = """
fit(method, CropDataset(train, (16, 16, 16), method.pretext, share, seed=7), out, steps, epoch_steps=5, batch_size=2,
    precision="bf16", workers=int(sys.argv[4]), accelerator="cpu",
    log=lambda scores, step: print("epoch", step, flush=True), **settings)
torch.save(method.state_dict(), out / "end.pt")
"""
MEMORY = {"segmentation": "class_weight", "moco": "queue", "deep_cluster": "centroids"}
"""What a method must remember besides its weights."""


def start(
    data: Path, out: Path, steps: int = 43, workers: int = 0, method: str = "segmentation"
) -> subprocess.Popen[str]:
    script = START + METHOD[method] + FIT
    command = [sys.executable, "-W", "ignore", "-c", script, str(data), str(out), str(steps), str(workers)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)


@pytest.mark.parametrize(
    ("method", "workers"), [("segmentation", 0), ("segmentation", 2), ("moco", 0), ("deep_cluster", 1)]
)
def test_a_training_killed_twice_ends_with_the_bits_of_one_never_killed(
    prepared_cohort: Path, tmp_path: Path, method: str, workers: int
) -> None:
    whole = start(prepared_cohort, tmp_path / "whole", method=method)
    for epochs_to_see in (3, 1):  # after "epoch 10" the checkpoint of epoch 5 is whole; the second life dies early
        process = start(prepared_cohort, tmp_path / "killed", workers=workers, method=method)
        assert process.stdout is not None
        for _ in range(epochs_to_see):
            assert process.stdout.readline().startswith("epoch")
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    last = start(prepared_cohort, tmp_path / "killed", workers=workers, method=method)
    output, _ = last.communicate(timeout=300)
    assert last.returncode == 0
    assert int(output.split()[1]) >= 10, "it began anew instead of going on"
    whole.communicate(timeout=300)
    assert whole.returncode == 0
    a, b = (torch.load(tmp_path / name / "end.pt", weights_only=True) for name in ("whole", "killed"))
    assert a.keys() == b.keys() and MEMORY[method] in a
    assert [key for key in a if not torch.equal(a[key], b[key])] == []


def test_a_terminated_training_does_not_pass_for_an_ended_one(prepared_cohort: Path, tmp_path: Path) -> None:
    process = start(prepared_cohort, tmp_path, steps=10_000)
    assert process.stdout is not None
    while not process.stdout.readline().startswith("epoch 10"):
        assert process.poll() is None
    process.terminate()
    process.communicate(timeout=300)
    assert process.returncode == 128 + signal.SIGTERM
    assert (tmp_path / "last.ckpt").exists()


def small(data: PreparedDataset, **arguments: object) -> Segmentation:
    torch.manual_seed(0)
    network = build_network("unet", 1, 4, 3, channels=(4, 8), refine_channels=4)
    assert data.label_set is not None
    return Segmentation(network, data.label_set.names, [9, 3, 3, 1], **arguments)


def crops(data: PreparedDataset, method: Segmentation) -> CropDataset:
    return CropDataset(data, (16, 16, 16), method.pretext, 0.5)


def test_an_ended_training_started_again_returns_its_history_without_a_step(
    prepared_cohort: Path, tmp_path: Path
) -> None:
    data = PreparedDataset(prepared_cohort)
    method = small(data)
    history = fit(method, crops(data, method), tmp_path, 4, epoch_steps=3, workers=0, accelerator="cpu")
    assert [row["step"] for row in history] == [3, 4]
    again = small(data)
    assert fit(again, crops(data, again), tmp_path, 4, epoch_steps=3, workers=0, accelerator="cpu") == history
    assert all(torch.equal(a, b) for a, b in zip(method.parameters(), again.parameters(), strict=True))


def test_a_checkpoint_of_another_training_is_refused(prepared_cohort: Path, tmp_path: Path) -> None:
    data = PreparedDataset(prepared_cohort)
    method = small(data)
    fit(method, crops(data, method), tmp_path, 2, workers=0, accelerator="cpu")
    with pytest.raises(InputError, match="other data, network or settings"):
        fit(method, crops(data, method), tmp_path, 3, workers=0, accelerator="cpu")


def test_a_loss_that_is_not_finite_stops_and_names_the_scan(prepared_cohort: Path, tmp_path: Path) -> None:
    data = PreparedDataset(prepared_cohort).select(["s3"])
    method = small(data)
    with torch.no_grad():
        next(method.network.decoder.parameters()).fill_(torch.nan)
    with pytest.raises(NonFiniteLossError, match=r"not finite .*nan.* step 1, on the scans s3"):
        fit(method, crops(data, method), tmp_path, 2, workers=0, accelerator="cpu")
    assert not (tmp_path / "last.ckpt").exists()


def test_training_stops_early_when_the_monitored_score_does_not_improve(prepared_cohort: Path, tmp_path: Path) -> None:
    data = PreparedDataset(prepared_cohort)
    method = small(data)
    falling = iter([0.5, 0.4, 0.3, 0.2, 0.1])
    history = fit(
        method,
        crops(data, method),
        tmp_path,
        5,
        epoch_steps=1,
        patience=2,
        validate=lambda _: {"dice/mean": next(falling)},
        workers=0,
        accelerator="cpu",
    )
    assert len(history) == 3


@pytest.mark.parametrize("workers", [0, 1])
def test_a_method_sees_the_batches_of_an_epoch_before_it_is_trained_on_them(
    prepared_cohort: Path, tmp_path: Path, workers: int
) -> None:
    seen: list[list[int]] = []
    trained: list[int] = []

    class Looking(Segmentation):
        def start_epoch(self, batches: Iterable[Batch]) -> None:
            seen.append([number for batch in batches for number in batch["number"].tolist()])

        def loss(self, batch: Batch) -> dict[str, Tensor]:
            trained.extend(batch["number"].tolist())
            return super().loss(batch)

    data = PreparedDataset(prepared_cohort)
    assert data.label_set is not None
    method = Looking(small(data).network, data.label_set.names, [9, 3, 3, 1])
    fit(method, crops(data, method), tmp_path, 5, epoch_steps=3, batch_size=2, workers=workers, accelerator="cpu")
    assert seen == [list(range(6)), list(range(6, 10))] and trained == list(range(10))


def test_it_learns(prepared_cohort: Path, tmp_path: Path) -> None:
    data = PreparedDataset(prepared_cohort)
    method = small(data, augment=Augmentation(affine=0, intensity=0))
    history = fit(
        method, crops(data, method), tmp_path, 60, epoch_steps=20, learning_rate=1e-2, workers=0, accelerator="cpu"
    )
    assert history[-1]["train/loss"] < 0.85 * history[0]["train/loss"]


def test_the_rate_rises_to_one_and_falls_to_zero() -> None:
    rates = [warm_cosine(step, 100, 0.1) for step in range(101)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == rates[9] == rates[10] == 1 and rates[100] == 0
    assert all(a >= b for a, b in pairwise(rates[10:]))


def test_the_cyclic_rate_is_torchs() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 1.0)
    theirs = torch.optim.lr_scheduler.CyclicLR(optimizer, 0.1, 1.0, step_size_up=7, cycle_momentum=False)
    for step in range(40):
        assert triangular(step, rise=7) == pytest.approx(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()


def test_a_training_may_go_on_with_plain_descent_at_a_cyclic_rate(prepared_cohort: Path, tmp_path: Path) -> None:
    data = PreparedDataset(prepared_cohort)
    method = small(data)
    history = fit(
        method,
        crops(data, method),
        tmp_path,
        12,
        epoch_steps=2,
        optimizer="sgd",
        schedule="cyclic",
        learning_rate=1e-2,
        workers=0,
        accelerator="cpu",
    )
    # After 2, 4, ... steps: half way up, up, half way down, down, and so on.
    expected = [5.5e-3, 1e-2, 5.5e-3, 1e-3, 5.5e-3, 1e-2]
    assert [row["learning_rate"] for row in history] == pytest.approx(expected)


def test_processes_share_out_the_samples_of_an_epoch_and_the_last_may_be_shorter() -> None:
    samplers = [EpochSampler(3, 11, 2, rank, 2) for rank in range(2)]
    for epoch, expected in ((2, range(12, 18)), (3, range(18, 22))):
        for sampler in samplers:
            sampler.set_epoch(epoch)
        assert sorted([*samplers[0], *samplers[1]]) == list(expected)
    assert [len(sampler) for sampler in samplers] == [3, 3]


def test_a_sample_is_a_function_of_its_number_alone(prepared_cohort: Path) -> None:
    data = PreparedDataset(prepared_cohort)
    one, two = (CropDataset(data, (16, 32, 16), small(data).pretext, 0.5, seed=3) for _ in range(2))
    two[5]  # reading another first changes nothing
    a, b = one[9], two[9]
    assert a["image"].shape == (1, 16, 32, 16) and a["label"].shape == (16, 32, 16)
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not torch.equal(a["image"], one[8]["image"])
    assert sorted(int(one[n]["index"]) for n in range(6)) == list(range(6))


def test_a_task_that_needs_no_labels_takes_scans_that_lack_them(
    cohort: Path, tmp_path: Path, toy_structures: LabelSet
) -> None:
    scans = [scan if i else replace(scan, label=None) for i, scan in enumerate(catalog(cohort)[:3])]
    data = prepare(scans, tmp_path, protocol("same", toy_structures), jobs=1, progress=False).dataset()
    samples = CropDataset(data, (16, 16, 16), as_read, with_labels=False)
    assert all("label" not in samples[number] for number in range(3))
    with pytest.raises(InputError, match="'s0' was prepared without labels"):
        [CropDataset(data, (16, 16, 16), as_read)[number] for number in range(3)]


def test_no_warning_reaches_the_user(prepared_cohort: Path, tmp_path: Path) -> None:
    data = PreparedDataset(prepared_cohort)
    method = small(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(method, crops(data, method), tmp_path, 2, epoch_steps=1, workers=0, accelerator="cpu")
