"""Memory is kept where the C library can be told to, and elsewhere nothing happens."""

import platform
import subprocess
import sys

import pytest

from medssl import memory

FAULTS = """
import resource, sys
import numpy as np
from medssl.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
np.ones(8_000_000)  # the first one fills the memory that is kept
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    np.ones(8_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to keep memory")
def test_kept_memory_is_not_asked_for_again() -> None:
    def faults(how: str) -> int:
        output = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True).stdout
        return int(output)

    assert faults("keep") < 0.1 * faults("give back") + 50


def test_elsewhere_it_says_that_it_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.platform, "system", lambda: "Darwin")
    assert not memory.keep_freed_memory()
