"""Constants of the papers are keyword arguments, with the papers' values as defaults."""

import inspect
from typing import Any

import pytest

from medssl.methods import PRETEXTS, VIDEO
from medssl.networks import build_encoder

PAPERS: dict[str, dict[str, Any]] = {
    "barlow_twins": {"redundancy_weight": 0.0051, "width": 8192},
    "colorization": {"grid": 10, "neighbours": 5, "sigma": 5, "uniform_share": 0.5, "temperature": 0.38},
    "context_prediction": {
        "patch": 96 / 480,
        "gap": 0.5,
        "jitter": 7 / 96,
        "grids": 4,
        "width": 4096,
        "colour": "drop",
    },
    "deep_cluster": {"components": 256},
    "exemplar": {
        "patch": 32,
        "seeds": 8000,
        "views": 8,
        "margin": 0.5,
        "translation": 0.2,
        "scale": (0.7, 1.4),
        "rotation_degrees": 20,
        "contrast": (0.5, 2),
        "power": (0.25, 4),
        "gain": (0.7, 1.4),
        "shift": 0.1,
        "hue": 0.1,
    },
    "inpainting": {"side": 0.5, "covered": 0.25},
    "jigsaw": {"gap": 11 / 75, "grey": 0.3, "permutations": 1000, "channel_jitter": 2, "width": 512, "hidden": 4096},
    "masked_autoencoder": {
        "block": 16,
        "ratio": 0.75,
        "decoder_width": 512,
        "decoder_depth": 8,
        "decoder_heads": 16,
    },
    "moco": {"queue_size": 65_536, "momentum": 0.999, "temperature": 0.2, "hidden": 2048, "width": 128},
    "models_genesis": {
        "nonlinear": 0.9,
        "inverted": 0.5,
        "shuffling": 0.5,
        "window": 0.1,
        "painting": 0.9,
        "outer": 0.8,
    },
    "rotation": {"copies": 4},
    "simclr": {"temperature": 0.1, "width": 128},
    "video_colorization": {"stride": 8, "clusters": 16, "references": 3},
    "cycle_walk": {"patch": 64, "step": 32, "temperature": 0.07, "dropout": 0.1, "width": 128},
    "audio_visual": {"rate": 48_000, "seconds": 1.0, "window_s": 0.01, "jitter_s": 1.0, "width": 128, "stride": 16},
}

GUARDS: dict[str, tuple[str, ...]] = {
    "context_prediction": ("gap", "jitter", "coarse", "bias", "gamma", "normalise"),
    "exemplar": ("bias", "shift", "hue"),
    "jigsaw": ("gap", "normalise", "channel_jitter", "grey", "bias"),
    "moco": ("exclude_own",),
    "rotation": ("bias", "coarse"),
    "audio_visual": ("grid",),
}
"""Arguments that keep a task from being solved without anatomy; each is off where it is 0 or False."""


def defaults(name: str) -> dict[str, Any]:
    return {key: one.default for key, one in inspect.signature((PRETEXTS | VIDEO)[name].__init__).parameters.items()}


def test_there_is_a_paper_for_every_method_of_images() -> None:
    assert PRETEXTS.keys() <= PAPERS.keys()


@pytest.mark.parametrize("name", PAPERS)
def test_the_defaults_are_the_papers(name: str) -> None:
    told = defaults(name)
    assert {key: told[key] for key in PAPERS[name]} == PAPERS[name]


@pytest.mark.parametrize("name", GUARDS)
def test_guards_against_shortcuts_are_on_by_default(name: str) -> None:
    told = defaults(name)
    assert all(told[guard] > 0 for guard in GUARDS[name])


def test_other_versions_and_forms_are_one_argument_away() -> None:
    assert "version" in defaults("deep_cluster") and "sobel" in inspect.signature(build_encoder).parameters
    assert {"form"} <= defaults("exemplar").keys()
    assert {"gamut", "task"} <= defaults("colorization").keys()
    assert {"region", "adversarial_weight"} <= defaults("inpainting").keys()
    assert {"rotation_weight", "masking_weight"} <= defaults("jigsaw").keys()
    assert {"chunk"} <= defaults("simclr").keys() and {"groups"} <= defaults("moco").keys()
