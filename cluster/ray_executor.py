"""Ray: a pool of long-lived actors, embedded here or on a cluster. The only module that imports ray."""

from __future__ import annotations

import logging
import os
import socket
import stat
import time
import uuid
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

from landsweep.cluster.execute import Job, Summary, execute
from landsweep.cluster.executors import Completion
from landsweep.workers.errors import DependencyError, RequestError
from landsweep.workers.samples import Samples

#: Embedded Ray keeps little in its object store beside data sets: jobs go in, summaries come out, tables go to disk.
OBJECT_STORE_BYTES = 100 * 2**20
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
}


def _ray() -> Any:
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as exc:
        raise DependencyError("running a sweep needs ray: pip install 'landsweep[run]'") from exc
    return ray


class RayExecutor:
    """One actor per slot of ``num_cpus``/``num_gpus``; an actor that dies is replaced, its job is reported lost."""

    def __init__(
        self,
        num_cpus: float,
        num_gpus: float,
        address: str | None = None,
        store: str | None = None,
        data_bytes: int = 0,  # of all data sets, which go into the object store
    ) -> None:
        self._ray = _ray()
        self._connect(address, data_bytes)
        resources = self._ray.cluster_resources()
        slots = [
            resources.get(name, 0.0) / amount for name, amount in (("CPU", num_cpus), ("GPU", num_gpus)) if amount > 0
        ]
        self.workers = int(min(slots)) if slots else int(resources.get("CPU", 1))
        if self.workers < 1:
            self.close()
            found = f"{resources.get('CPU', 0):g} CPUs and {resources.get('GPU', 0):g} GPUs"
            raise RequestError(f"resources: a batch needs {num_cpus:g} CPUs and {num_gpus:g} GPUs; found {found}")
        self._actor = self._ray.remote(num_cpus=num_cpus, num_gpus=num_gpus, max_concurrency=1)(_Worker)
        self._idle = deque(self._actor.remote() for _ in range(self.workers))
        self._waiting: deque[Job] = deque()
        self._data: dict[str, Any] = {}  # checksum of a data set → its reference in the object store
        self._running: dict[Any, tuple[Any, Job, float]] = {}  # reference → actor, job, start
        if address and store:
            self._check_shared(Path(store).resolve())

    def submit(self, job: Job) -> None:
        self._waiting.append(job)
        self._start()

    def wait(self, timeout: float) -> list[Completion]:
        if not self._running:
            return []
        ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=timeout)
        completions = [self._complete(reference) for reference in ready]
        completions += [self._end(reference) for reference in self._overdue(time.monotonic())]
        self._start()
        return completions

    def close(self) -> None:
        self._ray.shutdown()

    def _start(self) -> None:
        while self._idle and self._waiting:
            actor, job = self._idle.popleft(), self._waiting.popleft()
            reference = actor.run.remote(replace(job, samples=None), self._put(job.samples))
            self._running[reference] = (actor, job, time.monotonic())

    def _put(self, samples: Samples | None) -> Any:
        """A data set's reference: it is put once, and a node's workers read it in place (numpy arrays, no copy)."""
        if samples is None:
            return None
        if samples.checksum not in self._data:
            self._data[samples.checksum] = self._ray.put(samples)
        return self._data[samples.checksum]

    def _overdue(self, now: float) -> list[Any]:
        return [
            reference
            for reference, (_, job, started) in self._running.items()
            if job.timeout is not None and now - started > job.timeout
        ]

    def _end(self, reference: Any) -> Completion:
        """Kill the actor of a job that takes longer than it may."""
        actor, job, _ = self._running.pop(reference)
        self._ray.kill(actor)
        self._idle.append(self._actor.remote())
        return Completion(job, None, f"took longer than resources.timeout, {job.timeout:g} s")

    def _check_shared(self, store: Path) -> None:
        """Refuse a store that this machine has and the cluster's workers do not."""
        store.mkdir(parents=True, exist_ok=True)
        probe = store / f".probe-{uuid.uuid4().hex}"
        probe.touch()
        try:
            blind = [seen for seen in self._ray.get([actor.sees.remote(str(probe)) for actor in self._idle]) if seen]
        finally:
            probe.unlink()
        if blind:
            self.close()
            raise RequestError(f"store: {store} is not there on {blind[0]}; name a folder that all nodes share")

    def _complete(self, reference: Any) -> Completion:
        actor, job, _ = self._running.pop(reference)
        try:
            summary = self._ray.get(reference)
        except self._ray.exceptions.RayError as exc:
            self._idle.append(self._actor.remote())
            said = f"{type(exc).__name__}: {str(exc).strip().splitlines()[0]}"
            return Completion(job, None, said, exhausted=killed_for_memory(exc))
        self._idle.append(actor)
        return Completion(job, summary)

    def _connect(self, address: str | None, data_bytes: int) -> None:
        if self._ray.is_initialized():
            return
        quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
        if address:
            try:
                _reach(address)
                self._ray.init(address=address, **quiet)
            except (OSError, RuntimeError, ValueError) as exc:
                message = (
                    f"--address {address}: no Ray cluster answers there ({exc}); start one or leave the address out"
                )
                raise RequestError(message) from exc
            return
        self._ray.init(
            address="local",
            num_cpus=os.cpu_count(),
            object_store_memory=OBJECT_STORE_BYTES + 2 * data_bytes,
            include_dashboard=False,
            **quiet,
        )
        protect_token()


def killed_for_memory(error: Exception) -> bool:
    """Whether Ray's memory monitor ended the process. (Its texts on other deaths name the OOM killer as one possible
    cause of many.)"""
    return type(error).__name__ == "OutOfMemoryError" or "running low on memory" in str(error)


def _reach(address: str) -> None:
    """Raise OSError where nobody listens; Ray itself would wait for minutes."""
    host, separator, port = address.rpartition("://")[2].rpartition(":")
    if separator and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def protect_token() -> None:
    """Ray's embedded start writes a token that others can read; keep it to its owner."""
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", Path.home() / ".ray" / "auth_token"))
    if path.is_file() and path.stat().st_uid == os.getuid():
        path.chmod(stat.S_IRUSR | stat.S_IWUSR)


class _Worker:
    """The actor."""

    def run(self, job: Job, samples: Samples | None) -> Summary:
        return execute(replace(job, samples=samples))

    def sees(self, path: str) -> str | None:
        """None if the file is there, else this node's name."""
        return None if Path(path).exists() else socket.gethostname()
