"""Time the training steps of each method of pretraining against its bare networks, and print a table.

Run: python -m benchmarks.pretext_speed PREPARED [METHOD ...]. PREPARED is what medssl prepare wrote, of images that a
crop of 64^3 fits in. Each method has its own process, so that its memory is its own.

*step* is what a training does: a loader's worker that reads crops, augmentation, the loss, its gradient, the optimiser.
*bare* calls the same networks again on the tensors that the step gave them, and takes the gradient of the sum of their
outputs: what no implementation can do without. Both are timed in turn; the ratio is of the medians.
"""

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.hooks import RemovableHandle

from medssl.data.crops import CropDataset
from medssl.data.prepared import PreparedDataset
from medssl.memory import keep_freed_memory
from medssl.method import Method
from medssl.methods import PRETEXTS, build_pretext
from medssl.networks import build_encoder
from medssl.optimizers import build_optimizer
from medssl.sample import Batch
from medssl.training import use_bf16

PATCH, BATCH, ROUNDS = 64, 8, 7
ARGUMENTS: dict[str, dict[str, Any]] = {
    "barlow_twins": {"width": 2048},
    "context_prediction": {"patch": 0.25, "gap": 0.25, "width": 1024},  # what a crop of 64 holds
    "jigsaw": {"hidden": 1024},
    "moco": {"queue_size": 1024},
}
"""As in the configurations of the pipeline pretrain_volumes, but for crops of 64."""


@dataclass
class Call:
    """One call of a network from outside of any other."""

    module: nn.Module
    inputs: tuple[Any, ...]
    keywords: dict[str, Any]
    learns: bool


def recorded(method: Method, batch: Batch, loss: Callable[[Batch], Tensor]) -> list[Call]:
    """Run a step's loss and note which networks it calls, on what."""
    calls: list[Call] = []
    depth = 0

    def before(module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        nonlocal depth
        if depth == 0:
            kept = tuple(map(_cut, inputs)), {name: _cut(value) for name, value in keywords.items()}
            calls.append(Call(module, *kept, torch.is_grad_enabled()))
        depth += 1

    def after(*_: Any) -> None:
        nonlocal depth
        depth -= 1

    handles: list[RemovableHandle] = []
    for module in method.modules():
        if module is not method:
            handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
            handles.append(module.register_forward_hook(after))
    loss(batch)
    for handle in handles:
        handle.remove()
    return calls


def _cut(value: Any) -> Any:
    """Part a tensor from the graph it was made in."""
    if isinstance(value, Tensor):
        return value.detach().requires_grad_(value.requires_grad)
    return [_cut(part) for part in value] if isinstance(value, list | tuple) else value


def replay(calls: list[Call], autocast: Callable[[], Any]) -> None:
    """Call the networks again, and take the gradient of the sum of what they give."""
    with autocast():
        total = torch.zeros(())
        for call in calls:
            with torch.set_grad_enabled(call.learns):
                outputs = _tensors(call.module(*call.inputs, **call.keywords))
            if call.learns:
                total = total + sum(output.float().sum() for output in outputs)
    total.backward()


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() else []
    return [tensor for part in value for tensor in _tensors(part)] if isinstance(value, list | tuple) else []


def measure(name: str, data: PreparedDataset) -> str:
    """Time one method, and return its row of the table."""
    keep_freed_memory()
    torch.manual_seed(0)
    encoder = build_encoder("unet", data.channels, data.spatial_dims, norm="group")
    method = build_pretext(name, encoder, **ARGUMENTS.get(name, {}))
    optimizer = build_optimizer("adamw", method.parameters(), 1e-4, 1e-2)
    samples = CropDataset(data, (PATCH,) * data.spatial_dims, method.pretext, with_labels=False)
    numbers = range(BATCH * (ROUNDS + 2))
    loader = DataLoader(samples, BATCH, sampler=numbers, num_workers=1)
    method.start_epoch(loader)
    batches = iter(loader)

    def autocast() -> Any:
        return torch.autocast("cpu", torch.bfloat16, enabled=use_bf16("auto"))

    def loss(batch: Batch) -> Tensor:
        with autocast():
            return method.loss(batch)["loss"]

    def step() -> None:
        batch = next(batches)
        loss(batch).backward()
        optimizer.step()
        optimizer.zero_grad()
        method.after_step()

    first = next(batches)
    calls = recorded(method, first, loss)
    optimizer.zero_grad()
    steps, bare = [], []
    for _ in range(ROUNDS + 1):  # the first one warms up
        for times, work in ((bare, lambda: replay(calls, autocast)), (steps, step)):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
    a, b = (BATCH / statistics.median(times[1:]) for times in (steps, bare))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # KiB on Linux
    return f"{name:<20} {a:10.1f} {b:10.1f} {a / b:8.2f} {memory:12.1f}"


def main() -> None:
    """Measure every method that takes these images, or those that are named."""
    data, *names = sys.argv[1:]
    if names[:1] == ["--one"]:
        print(measure(names[1], PreparedDataset(Path(data))))
        return
    print(f"{PATCH}^3, {BATCH} crops a step, {torch.get_num_threads()} threads")
    print(f"{'method':<20} {'step':>10} {'bare':>10} {'ratio':>8} {'memory, GiB':>12}   crops per second")
    grey = PreparedDataset(Path(data)).channels != 3
    for name in names or [name for name in sorted(PRETEXTS) if not (grey and name == "colorization")]:
        command = [sys.executable, "-m", "benchmarks.pretext_speed", data, "--one", name]
        print(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout, end="", flush=True)


if __name__ == "__main__":
    main()
