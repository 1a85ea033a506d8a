"""What a running sweep is asked to do: a flag in its store, which the driver polls."""

from __future__ import annotations

from landsweep.cluster.store import SweepStore

STOP = "control/stop"
#: The environment variable that holds a submitted job's id, where the driver is one.
JOB = "LANDSWEEP_JOB"
POLL_SECONDS = 2.0


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
