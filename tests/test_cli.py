"""The command line says what is there, takes YAML, and answers a mistake in one line."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from medssl.cli import COMMANDS, call, main
from medssl.provenance import records


def test_the_overview_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in [*COMMANDS, "run", "methods", "networks"])


def test_the_overview_needs_no_torch() -> None:
    code = (
        "import sys; from medssl.cli import main; main([]); sys.exit('torch' in sys.modules or 'mlflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_a_wrong_command_lists_the_right_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    assert "no command 'trian'. Commands: prepare, weak-labels, train" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_explains_its_arguments(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([name, "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: medssl {name} {COMMANDS[name].positional[0].upper()}")
    assert "--out" in shown and "--config" in shown and "<class" not in shown


def test_networks_and_methods_are_listed_with_a_sentence_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["networks"]) == 0 and main(["methods"]) == 0
    shown = capsys.readouterr().out
    assert re.search("^sdnet +SD-Net", shown, re.MULTILINE)
    assert re.search("^segmentation +Segmentation", shown, re.MULTILINE)


def echo(first: Path, rest: list[str], *, number: int = 1) -> tuple[Path, list[str], int]:
    """Give back what came.

    Args:
        first: A path.
        rest: Words.
        number: A number.
    """
    return first, rest, number


def test_arguments_come_by_place_by_name_and_from_yaml(tmp_path: Path) -> None:
    expected = (Path("a"), ["b", "c"], 3)
    assert call(echo, "echo", ["a", "b", "c", "--number", "3"], ("first", "rest"), many=True) == expected
    assert (
        call(echo, "echo", ["--first", "a", "--rest", "[b, c]", "--number=3"], ("first", "rest"), many=True) == expected
    )
    saved = tmp_path / "saved.yaml"
    saved.write_text(yaml.safe_dump({"first": "a", "rest": ["b", "c"], "number": 7}))
    assert call(echo, "echo", ["--config", str(saved), "--number", "3"], ("first", "rest"), many=True) == expected
    assert call(echo, "echo", ["z", "--config", str(saved)], ("first", "rest"), many=True)[2] == 7


def kept(first: Path, rest: list[Path], *, number: int = 1) -> str:
    """Give what is kept beside a result."""
    return records()["config.yaml"]


def test_a_run_keeps_what_it_was_asked_for_without_the_names_of_files(tmp_path: Path) -> None:
    words = ["Erika.nii", "Mustermann/1.nii", "Mustermann/2.nii", "--number", "3"]
    text = call(kept, "kept", words, ("first", "rest"), many=True)
    assert yaml.safe_load(text)["number"] == 3 and len(set(yaml.safe_load(text)["rest"])) == 2
    assert "Erika" not in text and "Mustermann" not in text
    (tmp_path / "saved.yaml").write_text(text)
    assert yaml.safe_load(call(kept, "kept", ["--config", str(tmp_path / "saved.yaml")]))["number"] == 3


def test_too_many_words_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        call(echo, "echo", ["a", "b"], ("first",))
    assert "b" in capsys.readouterr().err


def test_a_users_mistake_gets_no_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["prepare", str(tmp_path / "empty"), "--out", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert message.startswith("medssl: ") and "Traceback" not in message and "empty" in message
