"""What a driver is told: by who submitted it, in its environment; while it runs, by a flag in the store."""

from __future__ import annotations

from collections.abc import Mapping

from landsweep.cluster.store import SweepStore
from landsweep.workers import record
from landsweep.workers.errors import RequestError

STOP = "control/stop"
#: The environment variable that holds a submitted job's id, where the driver is one.
JOB = "LANDSWEEP_JOB"
#: And the one that says which landsweep submitted it.
VERSION = "LANDSWEEP_VERSION"
POLL_SECONDS = 2.0


def check_submitter(environment: Mapping[str, str]) -> None:
    """Refuse to drive what another version submitted: its file and its numbers may mean something else."""
    submitter = environment.get(VERSION, record.VERSION)
    if submitter != record.VERSION:
        found = f"landsweep {submitter} submitted this, and the cluster has {record.VERSION}"
        raise RequestError(f"{found}; install one version on both sides")


def request_stop(store: SweepStore, job: str) -> None:
    """Ask the driver of ``job`` to start no other batch; those that run end and are committed."""
    store.files.write(STOP, job.encode())


class StopFlag:
    """The driver's side: looks at most every ``POLL_SECONDS``. What another run was asked holds for that one alone."""

    def __init__(self, store: SweepStore, job: str = "") -> None:
        self._store = store
        self._looked = float("-inf")
        self.raised = False
        if store.text(STOP) not in (None, job or None):
            store.files.delete(STOP)

    def poll(self, now: float) -> bool:
        """Whether somebody asked to stop. ``now``: seconds of a monotonic clock."""
        if not self.raised and now - self._looked >= POLL_SECONDS:
            self._looked = now
            self.raised = self._store.text(STOP) is not None
        return self.raised
