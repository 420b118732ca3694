import math

import pytest

from medssl.errors import InputError
from medssl.extras import require_module


def test_an_installed_library_is_handed_over() -> None:
    assert require_module("math", "video") is math


def test_a_missing_library_is_named_with_the_command_that_installs_it() -> None:
    with pytest.raises(InputError, match=r"no_such_library is needed .* pip install 'medssl\[video\]'"):
        require_module("no_such_library", "video")
