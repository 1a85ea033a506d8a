"""Sweeps as jobs of a Ray cluster: submitted once, found again from anywhere, stopped or cancelled."""

from __future__ import annotations

import hashlib
import re
import shlex
import tempfile
import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from landsweep.cluster import shipping
from landsweep.cluster.control import JOB, VERSION, request_stop
from landsweep.cluster.files import absolute, is_remote
from landsweep.cluster.ray_adapter import JobClient, JobExists, JobRecord
from landsweep.cluster.spec import Sweep
from landsweep.cluster.store import SweepStore
from landsweep.workers import record
from landsweep.workers.errors import RequestError

#: What a job says of itself, in Ray's metadata.
SWEEP, STORE, CONTENT = "landsweep.sweep", "landsweep.store", "landsweep.content"
#: How long Ray lets a cancelled driver gather what is staged, instead of 3 s.
_PATIENCE = {"RAY_JOB_STOP_WAIT_TIME_S": "30"}
PROBE_SECONDS = 60.0
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Submission:
    """A job that runs a sweep."""

    id: str
    new: bool  # False: it was there already
    note: str | None = None


def submission_prefix(name: str, store: str) -> str:
    """``<name>-<hash8(store)>``, which all jobs of one sweep share.

    >>> submission_prefix("digits", "s3://results/a")
    'digits-67e8eb7c'
    """
    return f"{name}-{hashlib.sha256(store.encode()).hexdigest()[:8]}"


def next_attempt(prefix: str, jobs: Sequence[JobRecord]) -> tuple[str, JobRecord | None]:
    """The id of the next job of a sweep, and the job that is live, if one is: there is never a second."""
    pattern = re.compile(rf"{re.escape(prefix)}-(\d+)")
    attempts = {int(match[1]): job for job in jobs if (match := pattern.fullmatch(job.id))}
    live = [job for job in attempts.values() if not job.ended]
    return f"{prefix}-{max(attempts, default=0) + 1}", live[-1] if live else None


def submit(client: JobClient, sweep: Sweep, retry_failed: bool = False) -> Submission:
    """Hand the sweep to the cluster, unless a job of it is live. Raises RequestError."""
    store = absolute(sweep.store).rstrip("/")
    content = record.content_hash(sweep.canonical())
    job, live = next_attempt(submission_prefix(sweep.name, store), client.jobs())
    if live is not None:
        return _found(live, content)
    entrypoint = f"python -m landsweep run {shipping.SWEEP_FILE}{' --retry-failed' if retry_failed else ''}"
    metadata = {SWEEP: sweep.name, STORE: store, CONTENT: content}
    with tempfile.TemporaryDirectory() as folder:
        shipping.ship(sweep, Path(folder), job)
        if not is_remote(store):
            _check_shared(client, Path(store))
        try:
            client.submit(job, entrypoint, folder, {VERSION: record.VERSION, JOB: job, **_PATIENCE}, metadata)
        except JobExists:  # somebody else was first
            return _found(client.job(job), content)
    return Submission(job, True)


def _found(live: JobRecord, content: str) -> Submission:
    same = live.metadata.get(CONTENT) == content
    return Submission(
        live.id, False, None if same else "it runs another version of this sweep; submit again once it ended"
    )


def _check_shared(client: JobClient, store: Path) -> None:
    """Refuse a folder that the cluster's head does not see; a job that only looks is forgotten at once."""
    store.mkdir(parents=True, exist_ok=True)
    probe, job = store / f".probe-{uuid.uuid4().hex}", f"landsweep-probe-{uuid.uuid4().hex[:8]}"
    probe.touch()
    try:
        client.submit(job, f"test -f {shlex.quote(str(probe))}", None, {}, {})
        ended = _awaited(client, job, PROBE_SECONDS)
    finally:
        probe.unlink(missing_ok=True)
    if ended.ended:
        client.forget(job)
    if ended.state != "SUCCEEDED":
        found = "is not there on the cluster's head" if ended.ended else "was not looked for: the cluster starts no job"
        raise RequestError(f"store: {store} {found}; name s3://bucket/prefix, or a folder that all nodes share")


def _awaited(client: JobClient, job: str, seconds: float) -> JobRecord:
    """The job once it has ended, or after so many ``seconds``."""
    pause = threading.Event()
    found = client.job(job)
    for _ in range(round(seconds / _POLL_SECONDS)):
        if found.ended:
            break
        pause.wait(_POLL_SECONDS)
        found = client.job(job)
    return found


def sweeps(client: JobClient) -> list[JobRecord]:
    """The jobs that landsweep submitted, the oldest first."""
    return [job for job in client.jobs() if SWEEP in job.metadata]


def find(client: JobClient, id: str | None) -> JobRecord:
    """The job of that id, or the latest. Raises RequestError that names those there are."""
    jobs = sweeps(client)
    chosen = [job for job in jobs if id in (None, job.id)]
    if not chosen:
        known = ", ".join(job.id for job in jobs[-10:]) or "none"
        raise RequestError(f"found no job {id or 'of landsweep'} on that cluster; there are: {known}")
    return chosen[-1]


def location(job: JobRecord) -> str:
    """``<store>/<name>`` of a job's sweep."""
    return f"{job.metadata.get(STORE, '')}/{job.metadata[SWEEP]}"


def exit_code(job: JobRecord) -> int:
    """What ``landsweep run`` would have exited with: 0 while it lives, 130 where it was cancelled."""
    if job.state == "FAILED":
        return job.exit_code or 1
    return 130 if job.state == "STOPPED" else 0


def stop(client: JobClient, job: JobRecord) -> str:
    """Have a job start no other batch; what was done. A job that has not begun is cancelled."""
    if job.ended:
        return f"{job.id} has ended already ({job.state})"
    if job.state == "PENDING":
        client.cancel(job.id)
        return f"{job.id} had not begun; it is cancelled"
    request_stop(SweepStore(location(job)), job.id)
    return f"{job.id} stops: running batches end and are committed; submit the sweep again to go on"


def cancel(client: JobClient, job: JobRecord) -> str:
    """Have Ray end a job; what was done."""
    if job.ended:
        return f"{job.id} has ended already ({job.state})"
    client.cancel(job.id)
    return f"{job.id} is cancelled: what is committed is kept; submit the sweep again to go on"
