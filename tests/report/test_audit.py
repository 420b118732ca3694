"""The charts of an audit show every control and every probe."""

import numpy as np
import pandas as pd

from medssl.evaluation.audit import Interval, Judgement
from medssl.report.audit import controls_chart, controls_table, probes_chart

TABLE = pd.DataFrame(
    {
        "control": ["border", "field"],
        "score": [0.3, 0.9],
        "low": [0.2, 0.85],
        "high": [0.4, 0.95],
        "sham": [0.88, 0.9],
        "sham_low": [0.8, 0.85],
        "sham_high": [0.9, 0.95],
        "share": [0.86, -0.02],
        "used": [True, False],
    }
)


def test_a_control_whose_cue_was_used_says_so(drawn) -> None:
    judgement = Judgement("accuracy", Interval(0.9, 0.85, 0.95), Interval(0.25, 0.2, 0.3), True, TABLE)
    (axes,) = drawn(controls_chart, judgement, None).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["border (used)", "field"]
    points = [float(line.get_xdata()[0]) for line in axes.lines if line.get_marker() == "o" and len(line.get_xdata())]
    assert points == [0.3, 0.9]
    assert axes.get_xlabel() == "accuracy on held-out crops"


def test_the_table_says_what_each_control_takes_and_nothing_where_nothing_was_learnt() -> None:
    intervals = Interval(0.9, 0.85, 0.95), Interval(0.25, 0.2, 0.3)
    border, field = controls_table(Judgement("accuracy", *intervals, True, TABLE)).to_dict("records")
    assert border == {
        "control": "border",
        "accuracy without the cue": "0.300 (0.200 to 0.400)",
        "with the sham": "0.880 (0.800 to 0.900)",
        "taken of what was learnt": "86 %",
        "used": "yes",
    }
    assert field["taken of what was learnt"] == "0 %" and field["used"] == "no"
    unlearnt = controls_table(Judgement("loss", *intervals, False, TABLE.assign(share=np.nan, used=False)))
    assert set(unlearnt["taken of what was learnt"]) == set(unlearnt["used"]) == {"–"}


def test_a_probe_without_numbers_is_left_out_of_the_chart(drawn) -> None:
    probes = pd.DataFrame(
        {
            "cue": ["position", "site"],
            "classes": [8, 1],
            "chance": [0.2, np.nan],
            "accuracy": [0.7, np.nan],
            "low": [0.6, np.nan],
            "high": [0.8, np.nan],
            "untrained": [0.5, np.nan],
            "note": ["", "Not probed: one class alone."],
        }
    )
    (axes,) = drawn(probes_chart, probes, None).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["position (8 classes)"]
