"""A pretraining is audited as a user would, from its folder."""

from pathlib import Path

import pandas as pd
import pytest

from medssl.cli import main
from medssl.tracking import find_runs, tracking_uri

METHOD = ["--method_arguments", "{copies: 2}", "--encoder_arguments", "{channels: [4, 8], norm: group}"]
RECIPE = ["--recipe.patch_size", "[16,16,16]", "--recipe.epoch_steps", "2", "--recipe.workers", "0"]
FEW = ["--crops", "16", "--batch_size", "2", "--probe_crops", "24"]


@pytest.fixture(scope="module")
def run(prepared_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pretraining")
    words = [
        "pretrain",
        "rotation",
        "--data",
        str(prepared_cohort),
        "--out",
        str(out),
        "--steps",
        "2",
        *METHOD,
        *RECIPE,
    ]
    assert main([*words, "--recipe.watched", "4", "--held_out_count", "2"]) == 0
    return out


def test_an_audit_leaves_a_page_tables_pictures_and_a_run_and_the_same_numbers_again(
    run: Path, prepared_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", str(run), "--data", str(prepared_cohort), "--out", str(tmp_path), *FEW]) == 0
    said = capsys.readouterr().out
    assert "On held-out crops the accuracy is" in said and "Report: " in said
    controls, probes = (pd.read_csv(tmp_path / f"{name}.csv") for name in ("controls", "probes"))
    assert {"border", "field", "place"} <= set(controls["control"]) and "colour" not in set(controls["control"])
    assert list(probes["cue"]) == ["position", "intensity", "scan"]
    made = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert {"controls.png", "probes.png", "border.png", "grey_levels.png"} <= made
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "On held-out crops the accuracy is" in page and page.count("<img") == len(made)
    assert main(["audit", str(run), "--data", str(prepared_cohort), "--out", str(tmp_path / "again"), *FEW]) == 0
    for table in ("controls.csv", "probes.csv"):
        assert (tmp_path / table).read_text() == (tmp_path / "again" / table).read_text()
    (logged,) = find_runs(tracking_uri(tmp_path), "audit")
    assert logged.params["method"] == "rotation" and "accuracy/border" in logged.metrics


def test_sites_that_cannot_be_read_are_refused_by_name(
    run: Path, prepared_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sites = tmp_path / "sites.csv"
    words = ["audit", str(run), "--data", str(prepared_cohort), "--out", str(tmp_path / "out"), "--sites", str(sites)]
    for text, message in (
        ("scan;site\n", "needs the columns scan and site, it has scan;site"),
        ("scan,site\ns0_T1w,a\ns0_T1w,b\n", "more than one site for s0_T1w"),
    ):
        sites.write_text(text)
        assert main(words) == 2
        assert message in capsys.readouterr().err
    sites.unlink()
    assert main(words) == 2
    assert "sites.csv: cannot be read as a CSV file" in capsys.readouterr().err


def test_a_folder_that_is_no_pretraining_or_held_nothing_out_is_refused(
    run: Path, prepared_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", str(prepared_cohort), "--out", str(tmp_path / "out")]
    assert main(["audit", str(tmp_path), *words]) == 2
    assert "is no method" in capsys.readouterr().err
    (tmp_path / "method").symlink_to(run / "method")
    (tmp_path / "split.json").write_text('{"train": ["s0"]}')
    assert main(["audit", str(tmp_path), *words]) == 2
    assert "held no scan out" in capsys.readouterr().err
