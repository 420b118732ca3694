"""How much memory the process has held, and keeping what is freed instead of giving it back to the system.

A training step on a CPU allocates and frees arrays of some hundred megabytes. By default the C library maps each from
the system and unmaps it, and the system fills it with zeros page by page: about a third of a step
(``benchmarks/allocator.py``).
"""

import ctypes
import platform

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # <malloc.h>
_LARGEST = 2**31 - 1
_GROWTH_BYTES = 512 * 2**20


def peak_memory_mib() -> float | None:
    """The most memory that this process has held, MiB; ``None`` where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 2**20 if platform.system() == "Darwin" else 2**10  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def keep_freed_memory() -> bool:
    """Tell the C library to keep what is freed; returns whether it can be told (glibc on Linux).

    The process holds on to its largest need of memory, which a training reaches at every step anyway.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL("libc.so.6").mallopt
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _LARGEST), (_TOP_PAD, _GROWTH_BYTES))
    return all(bool(mallopt(name, value)) for name, value in settings)
