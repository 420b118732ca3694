"""Libraries that only some users need: imported when they are, with the command that installs them."""

import importlib
from types import ModuleType

from medssl.errors import InputError


def require_module(name: str, extra: str) -> ModuleType:
    """Import an optional library.

    Args:
        name: Of the module.
        extra: Of medssl, that installs it.

    Raises:
        InputError: It is not installed; the message says what to type.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"{name} is needed for this, and is not installed: pip install 'medssl[{extra}]'.") from error
