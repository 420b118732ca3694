"""Probes read a cue where the features hold it, and not where they do not."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from medssl.data.prepared import PreparedDataset
from medssl.evaluation.cue_probes import cue_probes, probe_sentences, random_crops
from medssl.networks.encoder import Encoder


class Pyramid(Encoder):
    """Features that are the image itself, coarse: brightness and its place in the crop."""

    def __init__(self, blind: bool = False) -> None:
        super().__init__()
        self.channels, self.strides, self.spatial_dims, self.in_channels = (8,), (1,), 3, 1
        self.scale = nn.Parameter(torch.tensor(0.0 if blind else 1.0))

    def forward(self, x: Tensor) -> list[Tensor]:
        coarse = nn.functional.adaptive_avg_pool3d(x, 2).flatten(1)
        return [(self.scale * coarse).view(len(x), 8, 1, 1, 1)]


@pytest.fixture(scope="module")
def data(prepared_cohort: Path) -> PreparedDataset:
    return PreparedDataset(prepared_cohort)


def parts(data: PreparedDataset) -> tuple[PreparedDataset, PreparedDataset]:
    return data.select(["s0", "s1", "s2", "s3"]), data.select(["s4", "s5"])


def test_crops_are_the_same_whatever_else_is_read_and_know_their_halves(data: PreparedDataset) -> None:
    few, many = (random_crops([Pyramid()], data, (8, 8, 8), count, seed=3) for count in (10, 30))
    pd.testing.assert_frame_equal(few.told, many.told.iloc[:10])
    torch.testing.assert_close(few.features[0], many.features[0][:10])
    assert few.told["scan"].tolist()[:6] == list(data.scans)
    assert set(many.told["position"].str.split().str.len()) == {3}
    whole = random_crops([Pyramid()], data, (24, 24, 24), 6, seed=3)
    assert set(whole.told["position"]) == {""}


def test_what_features_hold_is_told_and_what_they_lack_is_not(data: PreparedDataset) -> None:
    seeing, blind = (
        cue_probes({"trained": encoder, "untrained": Pyramid(blind=True)}, *parts(data), (10, 10, 10), count=120)
        for encoder in (Pyramid(), Pyramid(blind=True))
    )
    seen = seeing.set_index("cue")
    assert seen.loc[["position", "intensity"], "predictable"].all()
    assert seen.loc["intensity", "accuracy"] > 0.9 and seen.loc["intensity", "classes"] == 3
    assert not blind["predictable"].any() and (seen["untrained"] <= seen["chance"] + 0.05).all()
    said = probe_sentences(seeing)
    assert said[0].startswith("The features tell the position:") and "Anatomy tells a place too" in said[0]
    assert probe_sentences(blind)[0].startswith("The features do not tell the position:")


def test_sites_are_probed_on_scans_of_other_subjects_and_those_without_one_are_left_out(data: PreparedDataset) -> None:
    sites = {scan: ("a" if number % 2 else "b") for number, scan in enumerate(data.scans[1:])}
    probes = cue_probes(
        {"trained": Pyramid(), "untrained": Pyramid()}, *parts(data), (10, 10, 10), count=60, sites=sites
    )
    assert list(probes["cue"]) == ["position", "intensity", "site"]
    row = probes.set_index("cue").loc["site"]
    assert row["classes"] == 2 and row["note"] == "" and 0 <= row["low"] <= row["accuracy"] <= row["high"] <= 1


def test_a_cue_that_cannot_be_probed_says_why(data: PreparedDataset) -> None:
    encoders = {"trained": Pyramid(), "untrained": Pyramid()}
    probes = cue_probes(encoders, *parts(data), (24, 24, 24), count=24, sites=dict.fromkeys(data.scans, "a"))
    notes = probes.set_index("cue")["note"]
    assert "probe needs two or more" in notes["position"] and "probe needs two or more" in notes["site"]
    assert any(line.startswith("The site was not looked for. Not probed") for line in probe_sentences(probes))
    assert np.isnan(probes.set_index("cue").loc["site", "chance"])
