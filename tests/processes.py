"""Runs a function in several processes that train together (gloo), for tests of what they compute in common."""

import multiprocessing
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist


def in_processes(work: Callable[[int], Any], folder: Path, count: int = 2) -> list[Any]:
    """Call ``work(rank)`` in ``count`` processes; returns what each returned (tensors, numbers), in order of rank.

    Args:
        work: May be a closure; it sees a ready process group.
        folder: An empty one, where the processes meet and leave their results.
        count: Number of processes.
    """
    context = multiprocessing.get_context("fork")
    started = [context.Process(target=_enter, args=(work, rank, count, folder)) for rank in range(count)]
    for process in started:
        process.start()
    for process in started:
        process.join(120)
    errors = [path.read_text() for path in sorted(folder.glob("error-*.txt"))]
    assert not errors, "\n".join(errors)
    assert [process.exitcode for process in started] == [0] * count
    return [torch.load(folder / f"result-{rank}.pt", weights_only=True) for rank in range(count)]


def _enter(work: Callable[[int], Any], rank: int, count: int, folder: Path) -> None:
    try:
        torch.set_num_threads(1)
        dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=count)
        torch.save(work(rank), folder / f"result-{rank}.pt")
        dist.barrier()
        dist.destroy_process_group()
    except BaseException:
        (folder / f"error-{rank}.txt").write_text(traceback.format_exc())
        raise
