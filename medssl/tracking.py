"""What is written to MLflow and read back: runs within runs, their scores, tables, pictures and models.

The only file that imports MLflow, and only when it is used, because that takes seconds. Without ``MLFLOW_TRACKING_URI``
everything lies under the ``--out`` folder of a run: ``mlflow.db`` (SQLite) and ``mlartifacts``.
"""

import hashlib
import logging
import os
import re
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlparse
from urllib.request import url2pathname

import pandas as pd

from medssl.errors import InputError
from medssl.provenance import code_version, records

if TYPE_CHECKING:
    import mlflow
    from mlflow.entities import Run as StoredRun

_PARENT_TAG = "mlflow.parentRunId"
_CONTINUED_TAG = "continued."  # + a parameter: the value it had when the run was continued
_METRICS_AT_ONCE, _PARAMS_AT_ONCE = 1000, 100  # what one request to an MLflow server may hold
_LONGEST_NAME = 230  # MLflow allows 250
_SQLITE = "sqlite:///"

logger = logging.getLogger(__name__)


class RunLike(Protocol):
    """Where a loop or a pipeline writes what it finds: a ``Run`` of MLflow, or ``NullRun``."""

    run_id: str = ""

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record settings; nested mappings become dotted names."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Record numbers that belong to one step."""

    def log_table(self, table: pd.DataFrame, name: str) -> None:
        """Record a table under ``tables/``, to look at (CSV) and to read back exactly (Parquet)."""

    def log_file(self, path: Path, folder: str = "") -> None:
        """Record a file, in a folder of the run's artifacts."""

    def log_folder(self, path: Path, folder: str) -> None:
        """Record what a folder holds as a folder of the run's artifacts."""

    def log_text(self, text: str, name: str) -> None:
        """Record a text as a file of the run's artifacts."""


class NullRun(RunLike):
    """Records nothing."""


class Run(RunLike):
    """One MLflow run that is open for writing; made by ``Tracker.run``."""

    def __init__(self, client: "mlflow.MlflowClient", stored: "StoredRun") -> None:
        self.run_id = stored.info.run_id
        self._client = client
        self._params: dict[str, str] = dict(stored.data.params)  # a parameter can be written once

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record settings; nested mappings become dotted names.

        MLflow never overwrites a parameter: when a run is continued with another value, the first one stays and the
        tag ``continued.<name>`` tells the new one.
        """
        from mlflow.entities import Param

        values = {legal_name(name): str(value) for name, value in _flat(params).items()}
        for name, value in values.items():
            if (before := self._params.get(name, value)) != value:
                logger.warning("%s was %s in this run so far, and is %s from here on.", name, before, value)
                self._client.set_tag(self.run_id, _CONTINUED_TAG + name, value)
        new = [Param(name, value) for name, value in values.items() if name not in self._params]
        for start in range(0, len(new), _PARAMS_AT_ONCE):
            self._client.log_batch(self.run_id, params=new[start : start + _PARAMS_AT_ONCE])
        self._params = values | self._params

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Record numbers that belong to one step, in as few requests as MLflow allows."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        entries = [Metric(legal_name(name), float(value), now, step) for name, value in metrics.items()]
        for start in range(0, len(entries), _METRICS_AT_ONCE):
            self._client.log_batch(self.run_id, metrics=entries[start : start + _METRICS_AT_ONCE])

    def log_table(self, table: pd.DataFrame, name: str) -> None:
        """Record a table under ``tables/``, to look at (CSV) and to read back exactly (Parquet)."""
        with TemporaryDirectory() as folder:
            table.to_parquet(Path(folder) / f"{name}.parquet", index=False)
            table.to_csv(Path(folder) / f"{name}.csv", index=False)
            self.log_folder(Path(folder), "tables")

    def log_file(self, path: Path, folder: str = "") -> None:
        """Record a file, in a folder of the run's artifacts."""
        self._client.log_artifact(self.run_id, str(path), folder or None)

    def log_folder(self, path: Path, folder: str) -> None:
        """Record what a folder holds as a folder of the run's artifacts."""
        self._client.log_artifacts(self.run_id, str(path), folder)

    def log_text(self, text: str, name: str) -> None:
        """Record a text as a file of the run's artifacts."""
        self._client.log_text(self.run_id, text, name)


class Tracker:
    """One experiment in one MLflow store; made by ``open_tracker``."""

    def __init__(self, client: "mlflow.MlflowClient", uri: str, experiment_id: str) -> None:
        self.uri = uri
        self._client = client
        self._experiment_id = experiment_id

    @contextmanager
    def run(
        self,
        name: str,
        parent: RunLike | None = None,
        tags: Mapping[str, str] | None = None,
        run_id: str | None = None,
        system_metrics: bool | None = None,
    ) -> Iterator[Run]:
        """Open a run; it is marked finished, failed or killed by the way the block ends.

        Args:
            name: What the run is called in the table of runs.
            parent: The run that this one is a part of.
            tags: Shown beside the run.
            run_id: A run to continue, as ``Run.run_id`` of an earlier process said; its name and history stay.
            system_metrics: Log processor, memory and GPU use every ten seconds. By default where there is no parent,
                because all runs of a process share the machine.

        Raises:
            InputError: There is no run of that id in the store.
        """
        stored = self._continued(run_id, tags or {}) if run_id else self._created(name, parent, tags or {})
        run = Run(self._client, stored)
        if not run_id:
            for file, text in records().items():
                run.log_text(text, file)
        measured = parent is None if system_metrics is None else system_metrics
        status = "FAILED"
        try:
            with _system_metrics(run.run_id, self.uri) if measured else nullcontext():
                yield run
            status = "FINISHED"
        except (KeyboardInterrupt, SystemExit):
            status = "KILLED"
            raise
        finally:
            self._client.set_terminated(run.run_id, status)

    def _created(self, name: str, parent: RunLike | None, tags: Mapping[str, str]) -> "StoredRun":
        described = {**code_version(), **tags}
        if parent is not None and parent.run_id:
            described[_PARENT_TAG] = parent.run_id
        return self._client.create_run(self._experiment_id, run_name=name, tags=described)

    def _continued(self, run_id: str, tags: Mapping[str, str]) -> "StoredRun":
        stored = _stored_run(self._client, run_id, self.uri)
        self._client.update_run(run_id, status="RUNNING")
        for tag, value in tags.items():
            self._client.set_tag(run_id, tag, value)
        return stored


@dataclass(frozen=True)
class FoundRun:
    """What a store knows of a run; metrics and parameters go by their ``legal_name``."""

    run_id: str
    name: str
    status: str
    parent: str | None
    params: dict[str, str]
    metrics: dict[str, float]  # the last value of each
    tags: dict[str, str]


def tracking_uri(out: Path) -> str:
    """Return ``MLFLOW_TRACKING_URI`` where it is set, and else the SQLite store under a run's ``--out`` folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"{_SQLITE}{out.resolve() / 'mlflow.db'}"


def open_tracker(out: Path, experiment: str) -> Tracker:
    """Open an experiment for writing, in the store of ``tracking_uri``; both are made where they are missing.

    Raises:
        InputError: The store cannot be opened, or the experiment was deleted in it.
    """
    uri = tracking_uri(out)
    artifacts = None  # a server's own choice
    if uri.startswith(_SQLITE):
        database = Path(uri.removeprefix(_SQLITE))
        database.parent.mkdir(parents=True, exist_ok=True)
        artifacts = (database.parent.resolve() / "mlartifacts").as_uri()
    client = _client(uri)
    with _user_errors(uri):
        found = client.get_experiment_by_name(experiment)
        if found is not None and found.lifecycle_stage != "active":
            raise InputError(
                f"{uri}: the experiment '{experiment}' was deleted there; restore it, or use another name."
            )
        experiment_id = found.experiment_id if found else client.create_experiment(experiment, artifacts)
    return Tracker(client, uri, experiment_id)


def find_runs(uri: str, experiment: str, parent: str | None = None) -> list[FoundRun]:
    """List the runs of an experiment, oldest first; with ``parent``, those that are a part of that run.

    Raises:
        InputError: The store or the experiment is not there.
    """
    client = _client(_existing(uri))
    with _user_errors(uri):
        found = client.get_experiment_by_name(experiment)
        if found is None:
            names = sorted(e.name for e in client.search_experiments())
            raise InputError(f"{uri}: no experiment '{experiment}'; there are {', '.join(names)}.")
        wanted = f"tags.`{_PARENT_TAG}` = '{parent}'" if parent else ""
        order = ["start_time ASC"]
        page = client.search_runs([found.experiment_id], wanted, order_by=order)
        runs = list(page)
        while page.token:
            page = client.search_runs([found.experiment_id], wanted, order_by=order, page_token=page.token)
            runs += page
        return [_found(run) for run in runs]


def find_run(uri: str, run_id: str) -> FoundRun:
    """Look one run up, by its id or as ``runs:/<id>``.

    Raises:
        InputError: The store is not there, or has no such run.
    """
    return _found(_stored_run(_client(_existing(uri)), _bare(run_id), uri))


def load_table(uri: str, run_id: str, name: str) -> pd.DataFrame:
    """Read a table back as ``log_table`` got it.

    Raises:
        InputError: The store, the run or the table is not there.
    """
    path = download(f"runs:/{_bare(run_id)}/tables/{name}.parquet", uri)
    return pd.read_parquet(path)


def download(artifact_uri: str, uri: str | None = None) -> Path:
    """Return a local path of an artifact, ``runs:/<id>/<path>``, ``models:/<name>/<version>`` or any MLflow URI.

    What lies on this machine is returned where it is, also when the whole store was moved; anything else is copied to
    a temporary folder.

    Args:
        artifact_uri: What to fetch.
        uri: The tracking store; by default ``MLFLOW_TRACKING_URI``.

    Raises:
        InputError: It is not there.
    """
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        raise InputError(
            f"{artifact_uri}: in which MLflow store? Set MLFLOW_TRACKING_URI, for example to "
            "sqlite:////path/to/out/mlflow.db for what ran with --out /path/to/out."
        )
    client = _client(_existing(uri))
    if local := _local_artifact(client, artifact_uri, uri):
        return local
    import mlflow

    with _user_errors(artifact_uri):
        folder = mkdtemp(prefix="medssl-")
        return Path(mlflow.artifacts.download_artifacts(artifact_uri, dst_path=folder, tracking_uri=uri))


def ui_command(out: Path) -> str:
    """Return the line that opens the page of a store, for this machine's own browser only; or the server's address."""
    uri = tracking_uri(out)
    if not uri.startswith(_SQLITE):
        return f"open {uri}"
    beside = Path(sys.executable).with_name("mlflow")
    program = str(beside) if beside.exists() else "mlflow"
    command = [program, "ui", "--backend-store-uri", uri, "--host", "127.0.0.1"]
    return f"MLFLOW_DISABLE_TELEMETRY=true {shlex.join(command)}"


def hashed(subject: str) -> str:
    """Return what stands for a subject in anything that is logged, 10 hex digits."""
    return hashlib.blake2b(subject.encode(), digest_size=5).hexdigest()


def legal_name(name: str) -> str:
    """Return a name that MLflow allows: the name itself where it can, else one with a hash, so that no two collide."""
    legal = re.sub(r"[^\w\-. :/]", "_", name)
    legal = "/".join(part if part.strip(".") else "_" for part in legal.split("/"))[:_LONGEST_NAME]
    return legal if legal == name else f"{legal}_{hashed(name)}"


def _client(uri: str) -> "mlflow.MlflowClient":
    """Import MLflow, without telemetry, progress bars or notes on each table it makes, and connect: always first."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import mlflow

    for noisy in ("mlflow", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    with _user_errors(uri):
        return mlflow.MlflowClient(uri)


def _existing(uri: str) -> str:
    """Refuse an SQLite store that is not there, which MLflow would silently make."""
    if uri.startswith(_SQLITE) and not Path(uri.removeprefix(_SQLITE)).is_file():
        raise InputError(f"{uri.removeprefix(_SQLITE)}: no such MLflow store; give the --out folder of a run.")
    return uri


@contextmanager
def _user_errors(what: str) -> Iterator[None]:
    """Turn MLflow's refusals, which are about names and places that the user gave, into messages."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise InputError(f"{what}: {error.message}") from error


@contextmanager
def _system_metrics(run_id: str, uri: str) -> Iterator[None]:
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    monitor = SystemMetricsMonitor(run_id, resume_logging=True, tracking_uri=uri)
    monitor.start()
    try:
        yield
    finally:
        monitor.finish()


def _stored_run(client: "mlflow.MlflowClient", run_id: str, uri: str) -> "StoredRun":
    with _user_errors(uri):
        return client.get_run(run_id)


def _found(run: "StoredRun") -> FoundRun:
    return FoundRun(
        run_id=run.info.run_id,
        name=run.info.run_name,
        status=run.info.status,
        parent=run.data.tags.get(_PARENT_TAG),
        params=dict(run.data.params),
        metrics=dict(run.data.metrics),
        tags=dict(run.data.tags),
    )


def _local_artifact(client: "mlflow.MlflowClient", artifact_uri: str, uri: str) -> Path | None:
    """Return the place of ``runs:/<id>/<path>`` on this machine, if it is on this machine."""
    match = re.fullmatch(r"runs:/+([^/]+)/(.+)", artifact_uri)
    if not match:
        return None
    run_id, inside = match.groups()
    root = urlparse(_stored_run(client, run_id, uri).info.artifact_uri)
    roots = [Path(url2pathname(root.path))] if root.scheme in ("", "file") else []
    if uri.startswith(_SQLITE):
        roots.append(Path(uri.removeprefix(_SQLITE)).parent / "mlartifacts" / run_id / "artifacts")
    return next((place / inside for place in roots if (place / inside).exists()), None)


def _bare(run_id: str) -> str:
    return run_id.removeprefix("runs:").strip("/")


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        inner = _flat(value) if isinstance(value, Mapping) else {}
        flat |= {f"{name}.{key}": v for key, v in inner.items()} or {name: value}
    return flat
