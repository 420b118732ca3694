"""What every test may ask for."""

import os
from pathlib import Path

import pytest


@pytest.fixture
def real_data() -> Path:
    """The folder of real scans that MEDSSL_REAL_DATA names; the test is skipped, saying so, where it is not set."""
    folder = os.environ.get("MEDSSL_REAL_DATA")
    if not folder:
        pytest.skip("MEDSSL_REAL_DATA is not set: no real scans to test on")
    return Path(folder)
