"""What is written to MLflow, and read back."""

import json
import logging
import shlex
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medssl import tracking
from medssl.errors import InputError
from medssl.tracking import (
    NullRun,
    RunLike,
    Tracker,
    download,
    find_run,
    find_runs,
    legal_name,
    load_table,
    open_tracker,
)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("out")


@pytest.fixture(scope="module")
def tracker(out: Path) -> Tracker:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return open_tracker(out, "brains")


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_everything_lies_under_the_out_folder(out: Path, tracker: Tracker) -> None:
    with tracker.run("one", system_metrics=False) as run:
        run.log_text("hello", "notes/hello.txt")
    assert tracker.uri == f"sqlite:///{out.resolve()}/mlflow.db"
    assert (out / "mlflow.db").is_file()
    assert (out / "mlartifacts" / run.run_id / "artifacts" / "notes" / "hello.txt").read_text() == "hello"


def test_importing_the_module_does_not_import_mlflow() -> None:
    code = "import sys, medssl.tracking; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_children_are_found_under_their_parent(tracker: Tracker) -> None:
    with tracker.run("pipeline", system_metrics=False) as parent:
        for arm in ("weak", "manual"):
            with tracker.run(arm, parent=parent, tags={"arm": arm}) as child:
                child.log_metrics({"dice/mean": 0.5}, step=0)
    children = find_runs(tracker.uri, "brains", parent.run_id)
    assert [(child.name, child.parent, child.status) for child in children] == [
        ("weak", parent.run_id, "FINISHED"),
        ("manual", parent.run_id, "FINISHED"),
    ]
    assert children[0].tags["arm"] == "weak"
    assert parent.run_id in {found.run_id for found in find_runs(tracker.uri, "brains")}


def test_metrics_of_a_thousand_structures_arrive_with_their_steps(tracker: Tracker) -> None:
    first = {f"dice/structure-{i}": i / 1200 for i in range(1200)}
    with tracker.run("many", system_metrics=False) as run:
        run.log_metrics(first, step=1)
        run.log_metrics({"dice/structure-7": 0.9, "loss": float("nan")}, step=2)
    metrics = find_run(tracker.uri, run.run_id).metrics
    assert metrics["dice/structure-1199"] == 1199 / 1200
    assert metrics["dice/structure-7"] == 0.9
    assert np.isnan(metrics["loss"])
    history = tracking._client(tracker.uri).get_metric_history(run.run_id, "dice/structure-7")
    assert [(point.step, point.value) for point in history] == [(1, 7 / 1200), (2, 0.9)]


@pytest.mark.parametrize(
    "name", ["dice/Left-Thalamus", "hd95/mean", "loss", "dice/Left-vessel (a)", "a//b", "../a", "a/", "50%", "x" * 400]
)
def test_any_name_of_a_metric_can_be_logged(tracker: Tracker, name: str) -> None:
    with tracker.run("names", system_metrics=False) as run:
        run.log_metrics({name: 1.0}, step=0)
    assert find_run(tracker.uri, run.run_id).metrics == {legal_name(name): 1.0}


def test_legal_names_stay_and_altered_ones_never_collide() -> None:
    assert legal_name("dice/Left-Thalamus") == "dice/Left-Thalamus"
    altered = {legal_name(name) for name in ("a(b", "a)b", "a_b", "a%b")}
    assert len(altered) == 4
    assert legal_name("a(b") == legal_name("a(b")


def test_params_are_flat_and_a_changed_one_is_kept_beside_the_first(
    tracker: Tracker, caplog: pytest.LogCaptureFixture
) -> None:
    with tracker.run("params", system_metrics=False) as run:
        run.log_params({"network": {"channels": [16, 32], "name": "unet"}, **{f"p{i}": i for i in range(150)}})
        run.log_params({"network": {"name": "unet"}, "epochs": 3})
    with tracker.run("params", run_id=run.run_id, system_metrics=False) as again, caplog.at_level(logging.WARNING):
        again.log_params({"epochs": 5, "p1": 1})
    found = find_run(tracker.uri, run.run_id)
    assert found.params["network.channels"] == "[16, 32]"
    assert len(found.params) == 153
    assert found.params["epochs"] == "3"
    assert found.tags["continued.epochs"] == "5"
    assert "epochs was 3" in caplog.text and "p1" not in caplog.text


def test_a_run_is_continued_by_its_id(tracker: Tracker) -> None:
    with tracker.run("killed", system_metrics=False) as run:
        run.log_metrics({"loss": 2.0}, step=1)
    with tracker.run("another name", run_id=run.run_id, tags={"again": "yes"}, system_metrics=False) as again:
        assert find_run(tracker.uri, run.run_id).status == "RUNNING"
        again.log_metrics({"loss": 1.0}, step=2)
    found = find_run(tracker.uri, run.run_id)
    assert (again.run_id, found.name, found.status) == (run.run_id, "killed", "FINISHED")
    assert found.metrics == {"loss": 1.0} and found.tags["again"] == "yes"


def test_the_id_of_a_run_of_another_store_is_refused(tracker: Tracker) -> None:
    with pytest.raises(InputError, match="abc123"), tracker.run("x", run_id="abc123"):
        pytest.fail("there is no such run")


@pytest.mark.parametrize(("error", "status"), [(RuntimeError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_the_status_tells_how_a_run_ended(tracker: Tracker, error: type[BaseException], status: str) -> None:
    with pytest.raises(error), tracker.run("ends", system_metrics=False) as run:
        raise error
    assert find_run(tracker.uri, run.run_id).status == status


def test_a_table_is_read_back_as_it_was(tracker: Tracker) -> None:
    table = pd.DataFrame({"subject": ["001", "NA"], "dice": [1 / 3, np.nan], "voxels": [10**12, 2]})
    with tracker.run("table", system_metrics=False) as run:
        run.log_table(table, "scores")
    pd.testing.assert_frame_equal(load_table(tracker.uri, run.run_id, "scores"), table)
    pd.testing.assert_frame_equal(load_table(tracker.uri, f"runs:/{run.run_id}", "scores"), table)
    assert "001,0.3333" in download(f"runs:/{run.run_id}/tables/scores.csv", tracker.uri).read_text()


def test_files_and_folders_are_fetched_by_their_uri(tracker: Tracker, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").write_text(json.dumps({"a": 1}))
    with tracker.run("files", system_metrics=False) as run:
        run.log_folder(tmp_path / "model", "model")
        run.log_file(tmp_path / "model" / "model.json", "pictures")
    folder = download(f"runs:/{run.run_id}/model", tracker.uri)
    assert json.loads((folder / "model.json").read_text()) == {"a": 1}
    assert download(f"runs:/{run.run_id}/pictures/model.json", tracker.uri).is_file()
    with pytest.raises(InputError, match=r"nothing\.txt"):
        download(f"runs:/{run.run_id}/nothing.txt", tracker.uri)
    with pytest.raises(InputError, match="MLFLOW_TRACKING_URI"):
        download(f"runs:/{run.run_id}/model")


def test_a_moved_store_still_finds_its_artifacts(out: Path, tracker: Tracker, tmp_path: Path) -> None:
    with tracker.run("one", system_metrics=False) as run:
        run.log_table(pd.DataFrame({"a": [1]}), "scores")
    shutil.copytree(out, tmp_path / "there")
    shutil.rmtree(out / "mlartifacts" / run.run_id)
    assert load_table(tracking.tracking_uri(tmp_path / "there"), run.run_id, "scores")["a"].tolist() == [1]


def test_the_code_and_the_environment_are_recorded_without_names(tracker: Tracker) -> None:
    with tracker.run("who", system_metrics=False) as run:
        pass
    tags = find_run(tracker.uri, run.run_id).tags
    assert tags["medssl.version"]
    assert "mlflow.user" not in tags
    packages = download(f"runs:/{run.run_id}/environment.txt", tracker.uri).read_text()
    assert "\ntorch==" in packages and "\nmlflow==" in packages


def test_system_metrics_are_logged_for_a_run_without_parent(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []
    monkeypatch.setattr(tracking, "_system_metrics", lambda run_id, uri: measured.append(run_id) or nullcontext())
    with tracker.run("parent") as parent, tracker.run("child", parent=parent):
        pass
    assert measured == [parent.run_id]


def test_the_system_monitor_starts_and_stops(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    with tracker.run("measured") as run:
        run.log_text("x", "x.txt")
    assert find_run(tracker.uri, run.run_id).status == "FINISHED"


def test_a_store_that_is_not_there_is_not_made_by_reading(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such MLflow store"):
        find_runs(tracking.tracking_uri(tmp_path), "brains")
    assert not list(tmp_path.iterdir())


def test_an_unknown_experiment_lists_the_right_ones(tracker: Tracker) -> None:
    with pytest.raises(InputError, match=r"no experiment 'brain'; there are .*brains"):
        find_runs(tracker.uri, "brain")


def test_a_server_is_used_where_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert tracking.tracking_uri(tmp_path) == "http://127.0.0.1:9"
    assert tracking.ui_command(tmp_path) == "open http://127.0.0.1:9"


def test_the_page_is_opened_for_this_machine_only(tmp_path: Path) -> None:
    command = shlex.split(tracking.ui_command(tmp_path / "with space"))
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--backend-store-uri") + 1].endswith("with space/mlflow.db")


def test_subjects_are_hashed_stably_and_unreadably() -> None:
    assert tracking.hashed("sub-01") == tracking.hashed("sub-01") != tracking.hashed("sub-02")
    assert "sub" not in tracking.hashed("sub-01")


def test_a_null_run_takes_everything_a_run_takes(tmp_path: Path) -> None:
    run: RunLike = NullRun()
    run.log_params({"a": 1})
    run.log_metrics({"a": 1.0}, step=0)
    run.log_table(pd.DataFrame(), "t")
    run.log_file(tmp_path / "none", "f")
    run.log_folder(tmp_path / "none", "f")
    run.log_text("a", "b")
    assert run.run_id == ""
    assert not list(tmp_path.iterdir())
