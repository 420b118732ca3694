"""What every pipeline promises; new ones are found by themselves."""

import inspect
from pathlib import Path

import pytest

import medssl.pipelines
from medssl.cli import main
from medssl.pipelines import pipeline, pipeline_names

every_pipeline = pytest.mark.parametrize("name", pipeline_names())


@every_pipeline
def test_it_explains_itself_and_each_of_its_arguments(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["run", name, "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    documentation = inspect.getdoc(pipeline(name)) or ""
    for argument in inspect.signature(pipeline(name)).parameters:
        assert f"--{argument}" in shown
        assert f"    {argument}: " in documentation


@every_pipeline
def test_it_has_a_readme_that_says_how_to_run_it(name: str) -> None:
    readme = Path(medssl.pipelines.__file__).parent / name / "README.md"
    assert f"medssl run {name}" in readme.read_text(encoding="utf-8")


@every_pipeline
def test_every_yaml_beside_it_is_accepted_by_its_parser(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for file in (Path(medssl.pipelines.__file__).parent / name).glob("*.yaml"):
        with pytest.raises(SystemExit) as stopped:
            main(["run", name, "--config", str(file), "--out", "somewhere", "--print_config"])
        assert stopped.value.code == 0, capsys.readouterr().err


def test_a_wrong_name_lists_the_right_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "brain"]) == 2
    assert f"no pipeline 'brain'. Pipelines: {', '.join(pipeline_names())}" in capsys.readouterr().err
