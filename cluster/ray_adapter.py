"""Ray's names as the rest uses them. The only module that imports ray."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from landsweep.cluster import authentication
from landsweep.cluster.status import Sample
from landsweep.workers.errors import DependencyError, RequestError

#: Embedded Ray keeps little in its object store beside data sets: jobs go in, summaries come out, tables go to disk.
OBJECT_STORE_BYTES = 100 * 2**20
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
}
#: Nobody asks an embedded Ray for its metrics: its agent need not look for them every five seconds.
_EMBEDDED = {"REPORTER_UPDATE_INTERVAL_MS": "60000", "RAY_metrics_report_interval_ms": "60000"}
#: Ray lets these overrule the address that it is given.
_OVERRULING = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
_CHATTY = ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk", "ray._private.runtime_env.packaging")
CONNECT_SECONDS = 10.0
#: How often Ray asks the head for the cluster's id, each time up to a minute; its own 20 times look like a hang.
_TRIES = "RAY_gcs_server_port_wait_time_s"


def load(extra: str = "run") -> Any:
    """The ray package. Raises DependencyError that names the extra which brings it."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as exc:
        raise DependencyError(f"this needs ray: pip install 'landsweep[{extra}]'") from exc
    return ray


# the cluster ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Node:
    """A live node."""

    id: str
    host: str
    resources: Mapping[str, float]  # all it has, by Ray's names (CPU, GPU)
    leaving: bool = False  # it was told to drain: a preemption notice, or an idle node that goes


#: Where Ray comes up and ends, beside other work: it wants both of one thread, and the kernel ends what Ray starts with
#: the thread that started it. Ctrl-C is for this process: what the thread starts would die of it, and be waited for.
_beside = ThreadPoolExecutor(1, "ray", lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}))


def leave(wait: bool) -> None:
    """Leave the cluster; without ``wait`` beside what follows: an embedded one takes a second to end. Whoever connects
    again waits for it, as this process's end does."""
    left = _beside.submit(load().shutdown)
    if wait:
        left.result()


def connect(address: str | None, data_bytes: int) -> None:
    """Join the cluster at ``address``, or start an embedded one with room for ``data_bytes`` of data sets."""
    _beside.submit(_connect, address, data_bytes).result()


def _connect(address: str | None, data_bytes: int) -> None:
    ray = load()
    if ray.is_initialized():
        return
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address:
        try:
            _reach(address)
            _join(address, quiet)
        except (OSError, RuntimeError, ValueError) as exc:
            message = f"--address {address}: no Ray cluster answers there, or none that takes this token ({exc})"
            mend = f"start one, set {authentication.TOKEN} or {authentication.TOKEN_PATH}, or leave the address out"
            raise RequestError(f"{message}; {mend}") from exc
        return
    for name, value in _EMBEDDED.items():
        os.environ.setdefault(name, value)
    authentication.own_token(os.environ)  # Ray's embedded start would write one that others can read
    store = OBJECT_STORE_BYTES + 2 * data_bytes
    ray.init(address="local", num_cpus=os.cpu_count(), object_store_memory=store, include_dashboard=False, **quiet)


def _join(address: str, quiet: Mapping[str, Any]) -> None:
    """Join a cluster whose port answers. A head under load gives up a connection that it accepts a moment later."""
    given = os.environ.get(_TRIES)
    os.environ.setdefault(_TRIES, "3")
    try:
        for pause in (2.0, 4.0, 8.0, None):
            try:
                load().init(address=address, **quiet)
                return
            except (OSError, RuntimeError):
                load().shutdown()
                if pause is None:
                    raise
                threading.Event().wait(pause)
    finally:
        if given is None:  # processes that this one starts are not to inherit it
            del os.environ[_TRIES]


def nodes() -> list[Node]:
    """The live nodes, by id."""
    ray = load()
    draining = ray._private.state.state.get_draining_nodes()
    live = (node for node in ray.nodes() if node["Alive"])
    found = [Node(n["NodeID"], n["NodeManagerHostname"], n["Resources"], n["NodeID"] in draining) for n in live]
    return sorted(found, key=lambda node: node.id)


def request_room(bundles: Sequence[Mapping[str, float]]) -> None:
    """Ask the autoscaler, where there is one, for one that holds ``bundles`` at once; for nothing without any."""
    load()
    from ray.autoscaler.sdk import request_resources

    request_resources(bundles=[dict(bundle) for bundle in bundles])


def on_node(node: str) -> Any:
    """The strategy that places an actor on that node, or nowhere."""
    load()
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=False)


def shipped_folder() -> str | None:
    """The working directory that travelled with this driver, where it is a submitted job."""
    found = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")).get("runtime_env", {})
    return os.getcwd() if found.get("working_dir") else None  # noqa: PTH109  (compared as text)


def killed_for_memory(error: Exception) -> bool:
    """Whether Ray's memory monitor ended the process. (Its texts on other deaths name the OOM killer as one possible
    cause of many.)"""
    return type(error).__name__ == "OutOfMemoryError" or "running low on memory" in str(error)


def _reach(address: str) -> None:
    """Raise OSError where nobody listens; Ray itself would wait for minutes."""
    host, separator, port = address.rpartition("://")[2].rpartition(":")
    if separator and port.isdigit():
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()


# metrics --------------------------------------------------------------------------------------------------------------


def exporter(sweep: str) -> Callable[[Sequence[Sample]], None]:
    """What makes the numbers of ``sweep`` gauges of the cluster: ``ray_landsweep_done{sweep="…"}`` for Prometheus."""
    load()
    from ray.util.metrics import Gauge

    gauges: dict[str, Gauge] = {}

    def export(samples: Sequence[Sample]) -> None:
        for one in samples:
            label = () if one.label is None else (one.label[0],)
            if one.name not in gauges:
                gauges[one.name] = Gauge(f"landsweep_{one.name}", f"landsweep: {one.name}", ("sweep", *label))
            gauges[one.name].set(one.value, {"sweep": sweep} | (dict([one.label]) if one.label else {}))

    return export


# jobs -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class JobRecord:
    """What Ray knows of a submitted job."""

    id: str
    state: str  # PENDING, RUNNING, STOPPED, SUCCEEDED, FAILED
    message: str
    exit_code: int | None  # of the driver, once it ended by itself
    started: float  # seconds since 1970
    metadata: Mapping[str, str]

    @property
    def ended(self) -> bool:
        return self.state in ("STOPPED", "SUCCEEDED", "FAILED")


class JobExists(Exception):
    """A job of that id is there already."""


class JobClient:
    """Ray's jobs API at ``http://HEAD:8265``. Every error is a RequestError that names the address."""

    def __init__(self, address: str) -> None:
        self._address = address
        with self._translated():
            parts = urlsplit(address)
            port = parts.port or (443 if parts.scheme == "https" else 80)
            socket.create_connection((parts.hostname or "", port), timeout=CONNECT_SECONDS).close()
        load("client")
        from ray.job_submission import JobSubmissionClient

        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)
        overruling = {name: os.environ.pop(name) for name in _OVERRULING if name in os.environ}
        try:
            with self._translated():
                self._client = JobSubmissionClient(address)
        finally:
            os.environ.update(overruling)

    def submit(
        self, id: str, entrypoint: str, folder: str | None, environment: Mapping[str, str], metadata: Mapping[str, str]
    ) -> None:
        """Start a job in a copy of ``folder``. Raises JobExists."""
        runtime = {"working_dir": folder, "env_vars": dict(environment)} if folder else {}
        with self._translated():
            self._client.submit_job(
                entrypoint=entrypoint, submission_id=id, runtime_env=runtime, metadata=dict(metadata)
            )

    def jobs(self) -> list[JobRecord]:
        """The submitted jobs that the cluster remembers, the oldest first."""
        with self._translated():
            found = self._client.list_jobs()
        records = [_record(job) for job in found if job.submission_id]
        return sorted(records, key=lambda job: (job.started, job.id))

    def job(self, id: str) -> JobRecord:
        with self._translated():
            return _record(self._client.get_job_info(id))

    def logs(self, id: str) -> str:
        with self._translated():
            return str(self._client.get_job_logs(id))

    async def follow(self, id: str) -> AsyncIterator[str]:
        """The log as it is written, to the job's end."""
        with self._translated():
            async for lines in self._client.tail_job_logs(id):
                yield lines

    def cancel(self, id: str) -> None:
        with self._translated():
            self._client.stop_job(id)

    def forget(self, id: str) -> None:
        """Remove an ended job from the cluster's memory."""
        with self._translated():
            self._client.delete_job(id)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError, ValueError) as exc:
            if "already exists" in str(exc):
                raise JobExists from exc
            raise RequestError(f"--address {self._address}: {_reason(exc)}") from exc
        except Exception as exc:  # ray's AuthenticationError is no RuntimeError
            if type(exc).__name__ != "AuthenticationError":
                raise
            message = f"--address {self._address}: the cluster refuses the token ({str(exc).splitlines()[0]})"
            raise RequestError(
                f"{message}; set {authentication.TOKEN} or {authentication.TOKEN_PATH} to its own"
            ) from exc


def _reason(error: Exception) -> str:
    first = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
    if isinstance(error, OSError):
        return f"no Ray dashboard answers there ({first}); check the address, or forward its port to this machine"
    return f"Ray refused: {first}"


def _record(job: Any) -> JobRecord:
    message = str(job.message or "").strip()
    started = (job.start_time or 0) / 1000
    return JobRecord(job.submission_id, str(job.status), message, job.driver_exit_code, started, job.metadata or {})
