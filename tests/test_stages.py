"""What was done with the same inputs is not done again; what was not finished is entered again."""

from pathlib import Path

import pytest

from medssl.errors import InputError
from medssl.stages import continued_run, stage
from medssl.tracking import find_runs, open_tracker


def test_a_finished_stage_is_not_done_again_and_other_inputs_empty_it(tmp_path: Path) -> None:
    done: list[str] = []

    def work(folder: Path) -> None:
        done.append(f"{len(list(folder.glob('*.txt')))} files before")
        (folder / f"{len(done)}.txt").write_text("x")

    for inputs in ({"a": 1}, {"a": 1}, {"a": 2}):
        assert stage(tmp_path / "one", inputs, work) == tmp_path / "one"
    assert done == ["0 files before", "0 files before"]
    assert [p.name for p in (tmp_path / "one").glob("*.txt")] == ["2.txt"]


def test_an_interrupted_stage_finds_what_it_left(tmp_path: Path) -> None:
    def interrupted(folder: Path) -> None:
        (folder / "half.txt").write_text("x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stage(tmp_path / "one", 1, interrupted)
    seen: list[bool] = []
    stage(tmp_path / "one", 1, lambda folder: seen.append((folder / "half.txt").exists()))
    assert seen == [True]


def test_files_that_no_pipeline_made_are_not_removed(tmp_path: Path) -> None:
    (tmp_path / "theirs.txt").write_text("precious")
    with pytest.raises(InputError, match="no pipeline made"):
        stage(tmp_path, 1, lambda folder: None)
    assert (tmp_path / "theirs.txt").read_text() == "precious"


def test_a_run_is_continued_by_its_name_and_parent(tmp_path: Path) -> None:
    tracker = open_tracker(tmp_path, "stages")
    ids: list[str] = []
    for _ in range(2):
        with continued_run(tracker, tmp_path / "runs.json", "parent") as parent:
            ids.append(parent.run_id)
            with continued_run(tracker, tmp_path / "runs.json", "child", parent) as child:
                ids.append(child.run_id)
    assert ids[:2] == ids[2:]
    assert sorted(run.name for run in find_runs(tracker.uri, "stages")) == ["child", "parent"]
