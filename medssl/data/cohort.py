"""Work through many scans in parallel; one that cannot be used is listed with the reason and never stops the others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError
from tqdm import tqdm

from medssl.errors import InputError

R = TypeVar("R")


@dataclass(frozen=True)
class Refused:
    """A scan that cannot be used, and why."""

    scan: str
    subject: str
    reason: str


def or_refused(scan: str, subject: str, work: Callable[[], R]) -> R | Refused:
    """Return what ``work`` does; where the scan or the machine's memory is at fault, why it could not."""
    try:
        return work()
    except InputError as error:
        return Refused(scan, subject, str(error))
    except OSError as error:
        return Refused(scan, subject, f"{scan}: a file cannot be read ({error.strerror or error}).")
    except MemoryError:
        return Refused(scan, subject, f"{scan}: is too large for this machine's memory.")


def each(
    work: Callable[..., R],
    arguments: Sequence[tuple[Any, ...]],
    doing: str,
    jobs: int = -1,
    progress: bool | None = None,
    backend: Literal["loky", "threading"] = "loky",
) -> list[R]:
    """Call ``work`` with each tuple of arguments, in parallel; results are in order.

    Args:
        work: What is done for each scan; picklable for processes ("loky").
        arguments: One tuple per scan.
        doing: Name of the progress bar and in messages ("preparing").
        jobs: Processes or threads; -1 is one per core.
        progress: A bar; by default on a terminal only.
        backend: Processes, or threads where the work is reading.

    Raises:
        InputError: A process was ended from outside.
    """
    count = min(len(arguments), joblib.cpu_count() if jobs < 1 else jobs)
    if count == 0:
        return []
    parallel = joblib.Parallel(n_jobs=count, backend=backend, return_as="generator")
    hide = None if progress is None else not progress
    try:
        results = parallel(joblib.delayed(work)(*one) for one in arguments)
        return list(tqdm(results, desc=doing, total=len(arguments), unit="scan", disable=hide, leave=False))
    except TerminatedWorkerError as error:
        raise InputError(
            f"A process was ended from outside while {doing} scans with {count} jobs, most often because the memory "
            "was full. Run the same command again with fewer --jobs: what is done is kept."
        ) from error
