"""Constants of the papers about video are keyword arguments, with the papers' values as defaults unless said."""

import inspect
from typing import Any

import pytest

from medssl.data.clips import PosedPair
from medssl.geometry import occlusion_by_consistency
from medssl.methods import VIDEO
from medssl.train_video import VideoRecipe

PAPERS: dict[str, dict[str, Any]] = {
    "ego_motion": {
        "scales": 4,
        "min_depth": 0.1,  # with max_depth, disparity is 10 sigmoid + 0.01
        "max_depth": 100,
        "smoothness_weight": 0.5,
        "explainability_weight": 0.2,
        "pose_scale": 0.1,  # ten times the paper's, see the docstring
        "align_brightness": False,
        "geometry_weight": 0,
    },
    "monodepth2": {
        "sources": ("mono",),
        "scales": 4,
        "min_depth": 0.1,
        "max_depth": 100,
        "ssim_weight": 0.85,
        "smoothness_weight": 1e-3,
        "auto_mask": True,
        "tie_noise": 1e-5,
        "align_brightness": False,
        "geometry_weight": 0,
        "pose_scale": 0.1,  # ten times the paper's, see the docstring
    },
    "optical_flow": {"comparison": "census", "window": 7, "smoothness_order": 1, "edge_weight": 150, "radius": 4},
    "sfm_depth": {
        "flow_weight": 20,
        "early_consistency_weight": 0.1,
        "consistency_weight": 5,
        "early_epochs": 20,
        "pair": PosedPair(5, 30),
    },
    "stereo_depth": {
        "scales": 4,
        "max_disparity": 0.3,
        "ssim_weight": 0.85,
        "appearance_weight": 1,
        "smoothness_weight": 0.1,
        "consistency_weight": 1,
        "post_processing": True,
    },
}


@pytest.mark.parametrize("name", PAPERS)
def test_the_defaults_are_the_papers(name: str) -> None:
    told = {key: one.default for key, one in inspect.signature(VIDEO[name].__init__).parameters.items()}
    assert {key: told[key] for key in PAPERS[name]} == PAPERS[name]


def test_flows_there_and_back_may_differ_as_in_the_papers() -> None:
    told = {key: one.default for key, one in inspect.signature(occlusion_by_consistency).parameters.items()}
    assert (told["a"], told["b"]) == (0.01, 0.5)


def test_methods_of_video_are_trained_at_the_papers_rate_and_clipped() -> None:
    assert (VideoRecipe().learning_rate, VideoRecipe().gradient_clip) == (1e-4, 10)
