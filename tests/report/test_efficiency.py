"""The chart draws what the tables hold; the page begins with the verdict."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import image as pictures

from medssl.evaluation.efficiency import Failure, gains_over_scratch, headline, learning_curve, verdict
from medssl.evaluation.tables import FLAGS, SCORES
from medssl.report.efficiency import StudyDetails, efficiency_page, efficiency_picture


def study(subjects: int, methods: tuple[str, ...] = ("masked_autoencoder", "simclr")) -> pd.DataFrame:
    """Scores of scratch and some methods, one structure, 1 and 5 labels, two seeds."""
    rng = np.random.default_rng(0)
    rows = [
        {"arm": arm, "labels": labels, "seed": seed, "subject": f"s{s}", "scan": f"s{s}", "structure": "A", "id": 1}
        for labels in (1, 5)
        for seed in (0, 1)
        for arm in ("scratch", *methods)
        for s in range(subjects)
    ]
    table = pd.DataFrame(rows).assign(**dict.fromkeys(SCORES, 1.0), **dict.fromkeys(FLAGS, False))
    return table.assign(dice=0.6 + 0.05 * (table["arm"] == "simclr") + rng.normal(0, 0.01, len(table)))


@pytest.mark.parametrize("subjects", [3, 8])
def test_the_chart_is_drawn_with_intervals_and_without(tmp_path: Path, subjects: int) -> None:
    scores = study(subjects)
    efficiency_picture(learning_curve(scores), gains_over_scratch(scores), tmp_path / "chart.png")
    drawn = pictures.imread(tmp_path / "chart.png")
    assert drawn.shape[1] == 1650
    assert len(np.unique(drawn.reshape(-1, drawn.shape[2]), axis=0)) > 50


def test_eleven_methods_are_drawn_in_eleven_ways_none_of_them_as_scratch(tmp_path: Path, drawn: Callable) -> None:
    scores = study(5, tuple(f"method{number}" for number in range(11)))
    curve, gains = learning_curve(scores, resamples=99), gains_over_scratch(scores, resamples=99)
    figure = drawn(efficiency_picture, curve, gains, tmp_path / "chart.png")
    lines = [container.lines[0] for container in figure.axes[0].containers]
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == 12
    assert sum(line.get_color() == lines[0].get_color() for line in lines) == 1


def test_the_page_begins_with_the_verdict_and_says_what_is_not_known(tmp_path: Path) -> None:
    scores = study(8)
    curve, gains = learning_curve(scores), gains_over_scratch(scores)
    example = tmp_path / "example.png"
    efficiency_picture(curve, gains, example)
    costs = pd.DataFrame({"arm": ["scratch", "simclr"], "pretraining, min": ["–", "12.0"]})
    examples, failure = ({"scratch": example}, "One scan", {"simclr": example}), Failure("moco", "pretraining", "NaN.")
    details = StudyDetails(["Eight subjects."], ["Other scanners."], costs, *examples, [failure])
    efficiency_page(scores, curve, gains, details, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    order = [
        headline(gains),
        "12.0",
        verdict(gains)[0],
        "moco failed and is left out (pretraining): NaN.",
        "What failed",
        "moco, pretraining: NaN.",
        "The numbers",
        "Eight subjects.",
        "Other scanners.",
        "One scan",
    ]
    assert [page.find(text) for text in order] == sorted(page.find(text) for text in order)
    assert all(text in page for text in order)
    assert page.count("<img") == 3
