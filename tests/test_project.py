"""The promises that the project's own files make to each other."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LONGEST_FILE = 400

# Where conda-forge's name of a package, or the way it splits one, differs from PyPI's.
CONDA_NAMES = {
    "torch": ["pytorch"],
    "blosc2": ["python-blosc2"],
    "matplotlib": ["matplotlib-base"],
    "opencv-python-headless": ["py-opencv"],
    "jsonargparse": ["jsonargparse", "docstring-parser", "typeshed-client"],
}
ONLY_CONDA = {"python", "pip", "docstring-parser", "typeshed-client"}


def tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout: which files belong to the project is not known")
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


def required() -> dict[str, Requirement]:
    extras = PYPROJECT["project"]["optional-dependencies"]
    lines = [*PYPROJECT["project"]["dependencies"], *(line for extra in extras.values() for line in extra)]
    requirements = [Requirement(line) for line in lines]
    return {canonicalize_name(item.name): item for item in requirements if item.name != PYPROJECT["project"]["name"]}


def conda() -> dict[str, Requirement]:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    return {canonicalize_name(Requirement(line).name): Requirement(line) for line in environment["dependencies"]}


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def test_every_dependency_is_in_the_conda_environment_with_the_same_bound() -> None:
    for name, requirement in required().items():
        first, *others = CONDA_NAMES.get(name, [name])
        assert first in conda(), f"environment.yml lacks {first}"
        assert conda()[first].specifier == requirement.specifier, first
        assert set(others) <= set(conda())


def test_the_conda_environment_has_nothing_that_the_project_does_not_ask_for() -> None:
    expected = {other for name in required() for other in CONDA_NAMES.get(name, [name])}
    assert set(conda()) - expected - ONLY_CONDA == set()


def test_the_conda_environment_asks_for_the_same_python() -> None:
    assert str(conda()["python"].specifier) == PYPROJECT["project"]["requires-python"]


def test_the_constraints_pin_torch() -> None:
    assert constraints()["torch"] == "2.13.0"


def test_the_constraints_pin_every_dependency_to_a_version_that_is_allowed() -> None:
    for name, requirement in required().items():
        assert requirement.specifier.contains(constraints()[name]), name


def test_the_constraints_name_no_file_of_one_machine() -> None:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert "@" not in text and "+cpu" not in text


def test_the_wheel_takes_its_version_from_the_package() -> None:
    import medssl

    assert PYPROJECT["tool"]["hatch"]["version"]["path"] == "medssl/__init__.py"
    assert re.fullmatch(r"\d+\.\d+\.\d+", medssl.__version__)


def test_the_wheel_holds_the_package_with_its_pipelines_and_nothing_else(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        held = {name for name in wheel.namelist() if ".dist-info/" not in name}
        wheel.extractall(tmp_path / "installed")
    assert held == {path.relative_to(ROOT).as_posix() for path in tracked("-co", "--exclude-standard", "medssl")}
    asked = subprocess.run(
        [sys.executable, "-m", "medssl", "run", "no_such_pipeline"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
        capture_output=True,
        text=True,
    )
    assert asked.returncode != 0 and "brain_segmentation" in asked.stderr


def test_no_source_file_is_longer_than_a_reader_can_hold() -> None:
    lengths = {path.relative_to(ROOT): len(path.read_text(encoding="utf-8").splitlines()) for path in tracked("*.py")}
    assert {str(path): n for path, n in lengths.items() if n > LONGEST_FILE} == {}


def test_every_yaml_file_parses() -> None:
    files = tracked("*.yaml", "*.yml")
    assert files
    for path in files:
        assert yaml.safe_load(path.read_text(encoding="utf-8")) is not None, path


def test_the_licence_is_apache_2() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text and "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text
    assert PYPROJECT["project"]["license"] == "Apache-2.0"


def test_the_layers_are_told_as_they_are_kept() -> None:
    contract = next(c for c in PYPROJECT["tool"]["importlinter"]["contracts"] if c["type"] == "layers")
    kept = [re.findall(r"\w+", layer) for layer in contract["layers"] if "__main__" not in layer]
    told = re.search(r"## Layers.*?```\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.DOTALL)
    assert told is not None
    assert [line.split() for line in told.group(1).splitlines()] == kept


def test_links_in_the_documents_lead_to_files() -> None:
    for document in tracked("*.md"):
        for target in re.findall(r"\]\(([^)#\s]+)", document.read_text(encoding="utf-8")):
            if "://" not in target and not target.startswith("mailto:"):
                assert (document.parent / target).exists(), f"{document.relative_to(ROOT)} links to {target}"


def test_the_test_command_is_the_one_that_the_makefile_and_ci_share() -> None:
    assert re.search(r"^make test$", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)
    assert re.search(r"^test:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def test_an_old_python_is_refused_by_make_in_one_clear_message(tmp_path: Path) -> None:
    old = tmp_path / "bin"
    old.mkdir()
    for name in ("python3", "python3.11", "python3.12", "python3.13"):
        program = old / name
        program.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.2" && exit 0\nexit 1\n')
        program.chmod(0o755)
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text(encoding="utf-8"))
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    made = subprocess.run(
        ["make", "test"], cwd=tmp_path, env={"PATH": f"{old}:/usr/bin:/bin"}, capture_output=True, text=True
    )
    assert made.returncode != 0
    assert "needs Python 3.11 or newer; found: Python 3.9.2" in made.stderr
    assert not (tmp_path / ".venv").exists()
