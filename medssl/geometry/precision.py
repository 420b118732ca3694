"""Coordinates need all their digits: bf16 has 8 bits, and would put pixel 1000 two to four pixels beside its place."""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def in_float32(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function of tensors leave mixed precision, and widen its 16-bit arguments to float32; float64 stays.

    What is computed in 16 bits before it arrives has lost its digits already: a head that predicts a flow, a depth or a
    pose is best kept out of mixed precision too.
    """

    @wraps(function)
    def exact(*args: P.args, **kwargs: P.kwargs) -> R:
        device = next(value.device.type for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        with torch.autocast(device, enabled=False):
            wide = {name: _widened(value) for name, value in kwargs.items()}
            return function(*map(_widened, args), **wide)

    return exact


def _widened(value: Any) -> Any:
    narrow = isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16)
    return value.float() if narrow else value
