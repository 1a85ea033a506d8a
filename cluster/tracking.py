"""MLflow: sends a tree of runs, each once, however often it is called. The only module that imports mlflow."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from landsweep.cluster.mistakes import masked
from landsweep.cluster.tracked import TrackedRun
from landsweep.workers.errors import DependencyError, ExecutionError

KEY, CONTENT = "landsweep.key", "landsweep.content"
_LIMITS = {"metrics": 1000, "params": 100, "tags": 100}  # of one log_batch call
_VALUE = 6000  # characters that MLflow keeps of a param


class TrackingError(ExecutionError):
    """The tracking server did not take what it was sent. No result is lost; the next run sends it."""


def default_uri(store: str) -> str:
    """SQLite beside the store."""
    return f"sqlite:///{Path(store).resolve()}/mlflow.db"


def send(uri: str, experiment: str, store: str, runs: Sequence[TrackedRun]) -> int:
    """Log ``runs`` (parents first) that the server does not have, or has with other content. How many were sent.

    Raises TrackingError where the server cannot be reached.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    try:
        from mlflow.tracking import MlflowClient
    except ImportError as exc:
        raise DependencyError("tracking needs mlflow: pip install 'landsweep[run]'") from exc
    for name in ("mlflow", "mlflow.store.db.utils", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        client = MlflowClient(tracking_uri=uri)
        return _send(client, _experiment(client, uri, experiment, store), runs)
    except Exception as exc:  # whatever the driver or plugin of this URI raises, the results are safe in the store
        reason = (str(exc).strip() or type(exc).__name__).splitlines()[0][:200]
        message = f"tracking: {masked(uri)} did not take the runs ({masked(reason)}); `landsweep run` sends them again"
        raise TrackingError(message) from exc


def _experiment(client: Any, uri: str, name: str, store: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    local = uri.startswith("sqlite:")  # without a server, artifacts would go below the working directory
    place = (Path(store).resolve() / "mlartifacts" / name).as_uri() if local else None
    return str(client.create_experiment(name, artifact_location=place))


def _send(client: Any, experiment: str, runs: Sequence[TrackedRun]) -> int:
    known = {run.data.tags[KEY]: run for run in _existing(client, experiment) if KEY in run.data.tags}
    ids = {key: run.info.run_id for key, run in known.items()}
    sent = 0
    for run in runs:
        old = known.get(run.key)
        if old is not None and old.data.tags.get(CONTENT) == run.content:
            continue
        if old is None:
            ids[run.key] = _create(client, experiment, run, ids)
        _log(client, ids[run.key], run)
        sent += 1
    return sent


def _existing(client: Any, experiment: str) -> Iterator[Any]:
    token = None
    while True:
        page = client.search_runs([experiment], max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _create(client: Any, experiment: str, run: TrackedRun, ids: dict[str, str]) -> str:
    tags = {KEY: run.key}
    if run.parent is not None:
        tags["mlflow.parentRunId"] = ids[run.parent]
    return str(client.create_run(experiment, tags=tags, run_name=run.name).info.run_id)


def _log(client: Any, run_id: str, run: TrackedRun) -> None:
    """Everything of one run; the content tag comes last, so that a broken-off run is sent again."""
    from mlflow.entities import Metric, Param, RunTag

    now = int(time.time() * 1000)
    metrics = [Metric(name, value, now, 0) for name, value in run.metrics.items()]
    params = [Param(name, value[:_VALUE]) for name, value in run.params.items()]
    tags = [RunTag(name, value) for name, value in run.tags.items()]
    for start in range(0, max(len(metrics), 1), _LIMITS["metrics"]):
        first = start == 0
        part = metrics[start : start + _LIMITS["metrics"]]
        client.log_batch(run_id, part, params[: _LIMITS["params"]] if first else (), tags if first else ())
    with tempfile.TemporaryDirectory() as folder:
        for name, content in run.artifacts.items():
            path = Path(folder) / name
            path.write_bytes(content)
            client.log_artifact(run_id, str(path))
    client.set_terminated(run_id, "FAILED" if run.failed else "FINISHED")
    client.set_tag(run_id, CONTENT, run.content)


def ui_command(uri: str, host: str, port: int) -> list[str]:
    """The command that serves MLflow's UI on ``uri``."""
    import sys

    return [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--host", host, "--port", str(port)]
