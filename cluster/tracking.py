"""MLflow: sends runs, each once, however often they are sent. The only module that imports mlflow."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from landsweep.cluster.files import is_remote
from landsweep.cluster.mistakes import masked
from landsweep.cluster.tracked import Artifacts, TrackedRun
from landsweep.workers.errors import DependencyError, ExecutionError

OFF = "none"
KEY, CONTENT = "landsweep.key", "landsweep.content"
_LOOKED_FOR = ("dbruntime", "IPython", "pyspark")  # what MLflow's client tries to import at every request
_VALUE = 6000  # characters that MLflow keeps of a param
#: A request waits 20 s and is repeated once: a server that never answers is given up within a minute.
_BOUNDS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


class TrackingError(ExecutionError):
    """The tracking server did not take what it was sent. No result is lost; the next run sends it."""


@dataclass(frozen=True)
class Moment:
    """What a sweep's run showed at one time."""

    time: float  # unix seconds
    step: int  # trials done
    figures: Mapping[str, float]


def default_uri(store: str) -> str:
    """SQLite beside a local store; OFF with one on S3, where no database can be kept."""
    return OFF if is_remote(store) else f"sqlite:///{Path(store).resolve()}/mlflow.db"


class Server:
    """An experiment on a server, whose runs are found by their keys.

    Every method raises TrackingError where the server does not take what it is sent.
    """

    def __init__(self, uri: str, experiment: str, store: str) -> None:
        self._uri = uri
        client_of = _mlflow()
        with self._translated():
            self._client = client_of(tracking_uri=uri)
            self._experiment = self._experiment_id(experiment, store)
            runs = {run.data.tags[KEY]: run for run in self._existing() if KEY in run.data.tags}
        self._ids = {key: str(run.info.run_id) for key, run in runs.items()}
        self._contents = {key: run.data.tags.get(CONTENT) for key, run in runs.items()}

    def has(self, key: str) -> bool:
        """Whether there is a run with this key."""
        return key in self._ids

    def send(self, run: TrackedRun) -> bool:
        """Log a run, after its parent, unless the server has it with this content; whether it was sent."""
        if self._contents.get(run.key) == run.content:
            return False
        with self._translated():
            if run.key not in self._ids:
                self._ids[run.key] = self._create(run)
            self._log(self._ids[run.key], run)
        self._contents[run.key] = run.content
        return True

    def progress(self, key: str, moments: Sequence[Moment]) -> None:
        """Append what the run of this key showed over time."""
        from mlflow.entities import Metric

        metrics = [
            Metric(_allowed(name), value, int(moment.time * 1000), moment.step)
            for moment in moments
            for name, value in moment.figures.items()
        ]
        with self._translated():
            self._client.log_batch(self._ids[key], metrics)

    def _experiment_id(self, name: str, store: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        local = self._uri.startswith("sqlite:")  # without a server, artifacts would go below the working directory
        place = (Path(store).resolve() / "mlartifacts" / name).as_uri() if local else None
        return str(self._client.create_experiment(name, artifact_location=place))

    def _existing(self) -> Iterator[Any]:
        token = None
        while True:
            page = self._client.search_runs([self._experiment], max_results=1000, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _create(self, run: TrackedRun) -> str:
        tags = {KEY: run.key}
        if run.parent is not None:
            tags["mlflow.parentRunId"] = self._ids[run.parent]
        return str(self._client.create_run(self._experiment, tags=tags, run_name=run.name).info.run_id)

    def _log(self, run_id: str, run: TrackedRun) -> None:
        """Everything of one run; the content tag comes last, so that a broken-off run is sent again."""
        from mlflow.entities import Metric, Param, RunTag

        now = int(time.time() * 1000)
        if run.artifacts:
            self._upload(run_id, run.artifacts)
        if run.status != "RUNNING":
            self._client.set_terminated(run_id, run.status)
        metrics = [Metric(name, value, now, 0) for name, value in run.metrics.items()]
        params = [Param(name, value[:_VALUE]) for name, value in run.params.items()]
        tags = [RunTag(name, value) for name, value in {**run.tags, CONTENT: run.content}.items()]
        self._client.log_batch(run_id, metrics, params, tags)

    def _upload(self, run_id: str, artifacts: Artifacts) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for name, content in artifacts.items():
                Path(folder, name).write_bytes(content)
            self._client.log_artifacts(run_id, folder)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except Exception as exc:  # whatever the driver or plugin of this URI raises, the results are safe in the store
            reason = masked((str(exc).strip() or type(exc).__name__).splitlines()[0][:200])
            message = (
                f"tracking: {masked(self._uri)} did not take the runs ({reason}); `landsweep run` sends them again"
            )
            raise TrackingError(message) from exc


def _mlflow() -> Any:
    """The client's class, with bounded patience."""
    for name, value in _BOUNDS.items():
        os.environ.setdefault(name, value)
    try:
        from mlflow.tracking import MlflowClient
    except ImportError as exc:
        raise DependencyError("tracking needs mlflow: pip install 'landsweep[run]'") from exc
    for name in ("mlflow", "mlflow.store.db.utils", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return MlflowClient


def import_no_absent() -> None:
    """Tell Python once which packages MLflow looks for in vain, in a process that only logs: looking for them in every
    folder of its path takes a third of the time of a request."""
    for name in _LOOKED_FOR:
        if name not in sys.modules and importlib.util.find_spec(name) is None:
            sys.modules[name] = None  # type: ignore[assignment]  # so an import of it fails at once


def _allowed(name: str) -> str:
    """``name`` with what MLflow refuses in a metric's name replaced."""
    return re.sub(r"[^\w\-. :/]", "_", name)[:250]


def ui_command(uri: str, host: str, port: int) -> list[str]:
    """The command that serves MLflow's UI on ``uri``."""
    return [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--host", host, "--port", str(port)]
