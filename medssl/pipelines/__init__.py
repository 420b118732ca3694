"""Pipelines: recipes that chain the commands, one folder each, found by their name."""

from collections.abc import Callable
from importlib import import_module
from pkgutil import iter_modules
from typing import Any


def pipeline_names() -> tuple[str, ...]:
    """List the pipelines: the sub-packages of this one."""
    return tuple(sorted(module.name for module in iter_modules(__path__) if module.ispkg))


def pipeline(name: str) -> Callable[..., Any]:
    """Return a pipeline's ``run`` function; its signature is the pipeline's configuration."""
    run: Callable[..., Any] = import_module(f"{__name__}.{name}.pipeline").run
    return run
