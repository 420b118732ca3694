"""The chart of both sides shows what the table holds."""

import numpy as np
import pandas as pd
import pytest

from medssl.report.regions import asymmetry_picture


def test_the_darkest_left_stands_on_top_and_wet_pairs_are_pale(tmp_path, drawn):
    names = ["Left-A", "Right-A", "Left-B", "Right-B", "Stem"]
    table = pd.DataFrame(
        {
            "structure": names,
            "side": ["left", "right", "left", "right", ""],
            "twin": ["Right-A", "Left-A", "Right-B", "Left-B", ""],
            "mean_hu": [30.0, 28.0, 26.0, 34.0, 31.0],
            "fluid_share": [0.0, 0.5, 0.0, 0.0, 0.0],
            "difference_hu": [2.0, -2.0, -8.0, 8.0, np.nan],
        }
    )
    density, difference = drawn(asymmetry_picture, table, tmp_path / "x.png").axes
    assert [text.get_text() for text in density.get_yticklabels()] == ["Left-B", "Left-A"]
    assert density.get_ylim()[0] > density.get_ylim()[1]
    left, right = density.lines
    assert list(left.get_xdata()) == [26, 30] and list(right.get_xdata()) == [34, 28]
    assert [bar.get_width() for bar in difference.patches] == [-8, 2]
    assert [bar.get_alpha() for bar in difference.patches] == [1, pytest.approx(0.3)]
