"""Videos in, three ways to know their sound trained and judged on held-out ones, and started again."""

from pathlib import Path

import pandas as pd
import pytest
from sounding import FPS, RATE, bursts, write_sounding
from untold import require_untold

import medssl.pipelines.audio_visual as package
from medssl.cli import main
from medssl.data.splits import load_split, save_split
from medssl.listening.judge import RANDOM
from medssl.listening.page import verdict
from medssl.methods import VIDEO
from medssl.methods.audio_visual import AudioVisual
from medssl.tracking import find_runs, tracking_uri

SMALL = [
    *("--recording.size", "[32,32]", "--recording.mask", "false", "--jobs", "1", "--steps", "1", "--pairs", "8"),
    *("--recipe.batch_size", "4", "--recipe.epoch_steps", "1", "--recipe.watched", "4", "--recipe.workers", "0"),
    *("--encoder_arguments", "{channels: [4, 8], norm: group}", "--every_s", "1", "--held_out_count", "1"),
    *("--method_arguments", f"{{width: 8, sound_channels: [4, 4], rate: {RATE}, seconds: 0.5}}"),
]


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VIDEO, "audio_visual", AudioVisual)


def run(data: Path, out: Path, *more: str) -> int:
    return main(["run", "audio_visual", "--videos", str(data), "--out", str(out), *SMALL, *more])


def write_videos(folder: Path, count: int) -> None:
    """Videos with a truth beside each, which says that something at the left sounds throughout."""
    for number in range(count):
        inside = folder / f"v{number}"
        inside.mkdir(parents=True)
        write_sounding(inside / f"smith{number}.mp4", 75, bursts(3, [0.2 + 0.1 * number, 1.5, 2.4]))
        rows = [(t, t / FPS, 1, "saw", 1, 20.0, 30.0, 16.0, 0.8) for t in range(75)]
        columns = ["frame", "time", "object", "kind", "sounding", "x", "y", "radius", "loudness"]
        pd.DataFrame(rows, columns=columns).to_csv(inside / "truth.csv", index=False)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of one head, with and without the guard, of three videos of which one is held out."""
    root = tmp_path_factory.mktemp("videos")
    write_videos(root / "data", 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VIDEO, "audio_visual", AudioVisual)
        assert run(root / "data", root / "out", "--heads", "[avol]", "--truth", str(root / "data")) == 0
    return root


def test_each_way_is_scored_beside_random_weights(done: Path) -> None:
    scores = pd.read_csv(done / "out" / "results" / "scores.csv")
    assert scores["method"].tolist() == ["avol", "avol without the grid", RANDOM]
    for column in ("accuracy", "accuracy_off_grid", "localisation/hit_rate", "localisation/centre"):
        assert scores[column].between(0, 1).all()
    assert (scores["moments"] == 3).all()


def test_the_page_begins_with_the_verdict_and_shows_where_the_sound_is(done: Path) -> None:
    page = (done / "out" / "results" / "report.html").read_text(encoding="utf-8")
    assert page.index("of the pairs rightly") < page.index("<table") < page.index("<img")
    assert page.count("<img") == 3 * 2 + 2 * 2


def test_parent_and_trainings_are_runs(done: Path) -> None:
    runs = {run.name: run for run in find_runs(tracking_uri(done / "out"), "audio_visual")}
    assert runs["avol, training"].parent == runs["audio_visual"].run_id
    assert "avol without the grid, training" in runs
    require_untold(done / "out", "smith")


def test_started_again_it_does_nothing(done: Path) -> None:
    files = [path for path in (done / "out").rglob("*") if path.suffix in (".html", ".safetensors", ".png", ".ckpt")]
    before = {path: path.stat().st_mtime_ns for path in files if "mlartifacts" not in path.parts}
    assert run(done / "data", done / "out", "--heads", "[avol]", "--truth", str(done / "data")) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_what_was_held_out_was_not_learnt_from(done: Path) -> None:
    parts = load_split(done / "out" / "split.json")
    assert len(parts["held_out"]) == 1 and not set(parts["held_out"]) & set(parts["train"])


def test_without_a_held_out_video_nothing_can_be_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_videos(tmp_path / "data", 1)
    save_split(tmp_path / "split.json", {"train": ("clip0",)})
    assert run(tmp_path / "data", tmp_path / "out", "--split", str(tmp_path / "split.json")) == 2
    assert "none is held out; give at least 3 videos" in capsys.readouterr().err


def scored(accuracy: float, off_grid: float, hit: float) -> pd.DataFrame:
    names = [
        "method",
        "accuracy",
        "accuracy_off_grid",
        *(f"localisation/{n}" for n in ("hit_rate", "centre", "chance")),
    ]
    return pd.DataFrame(
        [("avol", accuracy, off_grid, hit, 0.1, 0.05), (RANDOM, 0.5, 0.5, 0.2, 0.1, 0.05)], columns=names
    )


def test_the_verdict_names_who_reads_the_encoders_traces() -> None:
    assert "it reads the encoder's traces" in verdict(scored(0.6, 0.9, 0.5))[0]
    assert "traces" not in verdict(scored(0.8, 0.85, 0.5))[0]


def test_the_verdict_compares_with_the_best_baseline() -> None:
    assert "in 50% of the moments, more than the middle" in verdict(scored(0.8, 0.8, 0.5))[0]
    assert "in 15% of the moments, no more than the middle" in verdict(scored(0.8, 0.8, 0.15))[0]


@pytest.mark.parametrize(
    "path", sorted((Path(package.__file__).parent / "configs").glob("*.yaml")), ids=lambda p: p.stem
)
def test_a_configuration_is_accepted(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["run", "audio_visual", "--config", str(path), "--videos", "a", "--out", "b", "--print_config"])
    assert stopped.value.code == 0, capsys.readouterr().err
