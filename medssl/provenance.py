"""What a result was made with: the version of the code and of everything installed beside it."""

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import medssl

_asked: ContextVar[str] = ContextVar("asked", default="")


@contextmanager
def asked_for(configuration: str) -> Iterator[None]:
    """Note what a command was asked for, YAML that its ``--config`` takes, for as long as it runs."""
    token = _asked.set(configuration)
    try:
        yield
    finally:
        _asked.reset(token)


def records() -> dict[str, str]:
    """Give the texts that are kept beside every result, by file name: the environment, what a command was asked for."""
    asked = {"config.yaml": _asked.get()} if _asked.get() else {}
    return {"environment.txt": environment(), **asked}


def code_version() -> dict[str, str]:
    """Return medssl's version, and the git commit where it runs from a checkout."""
    version = {"medssl.version": medssl.__version__}
    package = Path(medssl.__file__).parent
    commands = {"tracked": ["ls-files", "--error-unmatch", "__init__.py"], "commit": ["rev-parse", "HEAD"]}
    commands["changes"] = ["status", "--porcelain", "--untracked-files=no", "."]
    said: dict[str, str] = {}
    for name, arguments in commands.items():
        try:
            answer = subprocess.run(["git", *arguments], cwd=package, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):  # no git, or an installed wheel
            return version
        said[name] = answer.stdout.strip()
    return {**version, "mlflow.source.git.commit": said["commit"], "medssl.changed": str(bool(said["changes"])).lower()}


def environment() -> str:
    """Describe Python, the system and every installed package, one per line."""
    packages = {f"{d.metadata['Name']}=={d.version}" for d in importlib.metadata.distributions()}
    lines = [f"# Python {platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"]
    return "\n".join([*lines, *sorted(packages, key=str.lower)]) + "\n"
