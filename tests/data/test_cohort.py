import pytest

from medssl.data.cohort import Refused, each, or_refused
from medssl.errors import InputError


def failing(error: Exception) -> int:
    raise error


def square(number: int) -> int:
    return number * number


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_results_are_in_the_order_of_the_arguments(backend: str) -> None:
    assert each(square, [(3,), (1,), (2,)], "squaring", 2, False, backend) == [9, 1, 4]


def test_no_scans_are_no_work() -> None:
    assert each(square, [], "squaring") == []


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (InputError("x.nii: is bad."), "x.nii: is bad."),
        (PermissionError(13, "Permission denied"), "x: a file cannot be read (Permission denied)."),
        (MemoryError(), "x: is too large for this machine's memory."),
    ],
)
def test_what_is_wrong_with_a_scan_is_a_reason(error: Exception, reason: str) -> None:
    assert or_refused("x", "somebody", lambda: failing(error)) == Refused("x", "somebody", reason)


def test_a_fault_of_our_own_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        or_refused("x", "somebody", lambda: 1 // 0)
