"""Pairs and videos in, their flow judged: with a truth and held-out pairs, without a truth, and started again."""

import sys
from pathlib import Path

import pandas as pd
import pytest
from shifted_pairs import HEIGHT, WIDTH, texture, write, write_chairs
from untold import require_untold

import medssl.pipelines.optical_flow as package
from medssl.cli import main
from medssl.evaluation.matching import MatchingScores
from medssl.flow_results.judge import METHOD, VARIATIONAL, ZERO
from medssl.flow_results.page import verdict
from medssl.tracking import find_runs, tracking_uri

SMALL = [
    *("--recording.size", f"[{HEIGHT},{WIDTH}]", "--recording.mask", "false", "--jobs", "1", "--steps", "1"),
    *("--recipe.batch_size", "1", "--recipe.epoch_steps", "1", "--recipe.watched", "1", "--recipe.workers", "0"),
    *("--encoder_arguments", "{channels: [4, 8, 8], norm: instance}"),
]


def run(data: Path, out: Path, *more: str) -> int:
    return main(["run", "optical_flow", "--data", str(data), "--out", str(out), *SMALL, *more])


@pytest.fixture(scope="module")
def chairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of three pairs with a truth, of which one is held out."""
    root = tmp_path_factory.mktemp("pairs")
    write_chairs(root / "chairs", 3)
    assert run(root / "chairs", root / "out") == 0
    return root


def test_pairs_learnt_from_and_held_out_are_scored_apart(chairs: Path) -> None:
    scores = pd.read_csv(chairs / "out" / "results" / "scores.csv", dtype={"subject": str})
    everywhere = scores[scores["structure"] == "all"]
    assert set(everywhere["method"]) == {METHOD, VARIATIONAL, ZERO}
    assert everywhere.groupby("learnt_from")["subject"].nunique().to_dict() == {False: 1, True: 2}


def test_zero_flow_is_off_by_the_shift_and_tv_l1_by_less(chairs: Path) -> None:
    scores = pd.read_csv(chairs / "out" / "results" / "scores.csv", dtype={"subject": str})
    seen = scores[scores["structure"] == "non-occluded"].set_index(["method", "subject"])["epe"]
    assert seen[ZERO].to_dict() == pytest.approx({f"{pair:05d}": pair + 1 for pair in range(3)})
    assert (seen[VARIATIONAL] < 0.3 * seen[ZERO]).all()


def test_the_page_begins_with_the_verdict_and_shows_the_pictures(chairs: Path) -> None:
    page = (chairs / "out" / "results" / "report.html").read_text(encoding="utf-8")
    assert page.index("Of held-out recordings the flow is off by") < page.index("<table")
    assert page.count("<img") == 3 * 3 + 2
    assert "Nothing was learnt from the true flow" in page


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (5.90, "hardly different from none, worse than TV-L1"),
        (4.98, "better than none, hardly different from TV-L1"),
        (9.0, "worse than none, worse than TV-L1"),
    ],
)
def test_the_verdict_makes_nothing_of_a_hundredth(error: float, said: str) -> None:
    common = {"subject": "a", "scan": "a", "structure": "all", "n": 9, "missing": 0, "missed": False}
    common |= {"fl_percent": 0.0, "angular_deg": 0.0, "learnt_from": True}
    truth = pd.DataFrame(
        [{**common, "method": name, "epe": epe} for name, epe in ((METHOD, error), (VARIATIONAL, 5.05), (ZERO, 5.92))]
    )
    assert verdict(MatchingScores(truth, pd.DataFrame(), []))[0].endswith(f": {said}.")


def test_parent_and_training_are_runs(chairs: Path) -> None:
    runs = {run.name: run for run in find_runs(tracking_uri(chairs / "out"), METHOD)}
    assert runs["training"].parent == runs[METHOD].run_id


def test_started_again_it_does_nothing(chairs: Path) -> None:
    files = [path for path in (chairs / "out").rglob("*") if path.suffix in (".html", ".safetensors", ".png", ".ckpt")]
    before = {path: path.stat().st_mtime_ns for path in files if "mlartifacts" not in path.parts}
    assert run(chairs / "chairs", chairs / "out") == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_video_of_two_frames_is_told_of_and_not_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "skimage.registration", None)
    for t in range(2):
        write(tmp_path / "smith_john" / f"{t}.png", texture(t))
    assert run(tmp_path / "smith_john", tmp_path / "out") == 0
    require_untold(tmp_path / "out", "smith")
    results = tmp_path / "out" / "results"
    assert not (results / "scores.csv").exists()
    assert set(pd.read_csv(results / "indirect.csv")["method"]) == {METHOD, ZERO}
    page = (results / "report.html").read_text(encoding="utf-8")
    assert "these numbers are not truth" in page and "TV-L1 was left out: skimage.registration is needed" in page
    assert "No flow is known" in capsys.readouterr().out


def test_one_picture_alone_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "smith_john" / "0.png", texture(0))
    assert run(tmp_path / "smith_john", tmp_path / "out") == 2
    assert "holds no recordings" in capsys.readouterr().err


@pytest.mark.parametrize(
    "path", sorted((Path(package.__file__).parent / "configs").glob("*.yaml")), ids=lambda p: p.stem
)
def test_a_configuration_is_accepted(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["run", "optical_flow", "--config", str(path), "--data", "a", "--out", "b", "--print_config"])
    assert stopped.value.code == 0, capsys.readouterr().err
