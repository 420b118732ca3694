"""What a result was made with."""

import subprocess
from pathlib import Path

import pytest

import medssl
from medssl.provenance import asked_for, code_version, environment, records


def test_a_package_outside_a_checkout_tells_its_version_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(medssl, "__file__", str(tmp_path / "__init__.py"))
    assert code_version() == {"medssl.version": medssl.__version__}


def test_a_checkout_tells_its_commit_and_whether_it_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "__init__.py"
    module.write_text("")
    for command in (
        ["init", "-q"],
        ["add", "__init__.py"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "x"],
    ):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    monkeypatch.setattr(medssl, "__file__", str(module))
    version = code_version()
    assert len(version["mlflow.source.git.commit"]) == 40
    assert version["medssl.changed"] == "false"
    module.write_text("x = 1")
    assert code_version()["medssl.changed"] == "true"


def test_the_environment_lists_what_is_installed() -> None:
    lines = environment().splitlines()
    assert lines[0].startswith("# Python 3.")
    assert any(line.startswith("torch==") for line in lines)


def test_what_a_command_was_asked_for_is_recorded_while_it_runs() -> None:
    with asked_for("steps: 2\n"):
        assert records()["config.yaml"] == "steps: 2\n"
    assert set(records()) == {"environment.txt"}
