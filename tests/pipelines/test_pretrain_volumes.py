"""Every method of pretraining has one file of settings that is accepted and fits it, and pretrains by it."""

from pathlib import Path

import pytest
import yaml

import medssl.pipelines.pretrain_volumes as package
from medssl.cli import main
from medssl.methods import PRETEXTS, build_pretext
from medssl.networks import build_encoder
from medssl.pretrain import PretrainRecipe

CONFIGS = Path(package.__file__).parent / "configs"
every_config = pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)


def test_there_is_a_file_for_every_method_and_none_else() -> None:
    assert {path.stem for path in CONFIGS.iterdir()} == set(PRETEXTS)


@every_config
def test_it_is_accepted_and_names_its_method(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["run", "pretrain_volumes", "--config", str(path), "--data", "a", "--out", "b", "--print_config"])
    captured = capsys.readouterr()
    assert stopped.value.code == 0, captured.err
    assert yaml.safe_load(captured.out)["method"] == path.stem


@every_config
def test_its_method_can_be_built_and_takes_its_crops(path: Path) -> None:
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    patch_size = tuple(settings["recipe"]["patch_size"])
    recipe = PretrainRecipe(**{**settings["recipe"], "patch_size": patch_size})
    channels = 3 if settings.get("preparation", {}).get("intensity") == "rgb" else 1
    encoder = build_encoder("unet", channels, len(patch_size), norm="group")
    build_pretext(path.stem, encoder, **settings.get("method_arguments", {})).check(15, channels, recipe.patch_size)


@every_config
def test_it_says_how_long_it_takes_and_what_to_expect(path: Path) -> None:
    told = " ".join(line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#"))
    assert "per 1000 steps on 2 cores" in told and "Expect: " in told


def test_it_pretrains_by_the_file(cohort: Path, tmp_path: Path) -> None:
    small = ["--encoder_arguments", "{channels: [4, 8], norm: group}", "--recipe.workers", "0", "--recipe.watched", "2"]
    sizes = ["--recipe.patch_size", "[20,20,20]", "--recipe.batch_size", "2", "--steps", "2", "--jobs", "1"]
    config = ["--config", str(CONFIGS / "models_genesis.yaml"), "--data", str(cohort), "--out", str(tmp_path / "out")]
    assert main(["run", "pretrain_volumes", *config, *small, *sizes]) == 0
    assert (tmp_path / "out" / "encoder" / "weights.safetensors").is_file()
    assert (tmp_path / "out" / "report.html").is_file()
