"""What is made of a driver's progress: it is shown, written down for other processes, and exported."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Sequence

from landsweep.cluster import logs, status
from landsweep.cluster.prepare import Plan
from landsweep.cluster.run import Progress
from landsweep.cluster.status import Facts, Mark, Sample, Status
from landsweep.workers.errors import LandsweepError

Show = Callable[[Status], None]
Export = Callable[[Sequence[Sample]], None]


class Observer:
    """The callback of a run. ``show`` gets every state; files, logs and ``export`` one every ten seconds."""

    def __init__(self, planned: Plan, show: Show, clock: Callable[[], float] = time.time) -> None:
        self._planned, self._show, self._clock = planned, show, clock
        before = status.committed(planned.store, planned.tried) if planned.done else (0, Counter[str](), 0.0)
        self._failures, self._seconds = before[1:]
        self._named = 0  # failed trials of this run that are counted in _failures
        self._started, self._told = clock(), float("-inf")
        self._marks = [Mark(self._started, planned.done)]
        self._last: Progress | None = None
        self.export: Export = lambda samples: None

    def __call__(self, progress: Progress) -> None:
        self._last, now = progress, self._clock()
        found = self._status(progress, "running", now)
        self._show(found)
        if now - self._told >= status.WRITE_SECONDS:
            self._tell(found)

    def end(self) -> None:
        """Tell the last state, however the run ended."""
        last = self._last
        if last is None:
            self._correct()
            return
        state = "done" if last.done == last.total else "stopped" if last.stopped else "interrupted"
        found = self._status(last, state, self._clock())
        self._show(found)
        self._tell(found)

    def _correct(self) -> None:
        """Nothing was left to run: the driver that did the last of it may have been killed, its word being that it
        runs."""
        planned = self._planned
        with contextlib.suppress(LandsweepError, OSError):
            before = status.written(planned.store)
            if before is not None and before.state == "running" and planned.done == planned.total:
                self._tell(self._status(Progress(planned.total, planned.done, 0.0), "done", self._clock()))

    def _status(self, progress: Progress, state: str, now: float) -> Status:
        new = progress.failed[self._named :]
        self._failures.update(status.error_class(error) for _, error in new)
        self._named += len(new)
        if progress.done > self._marks[-1].done:
            self._marks = status.kept([*self._marks, Mark(now, progress.done)], now)
        sweep = self._planned.sweep
        facts = Facts(
            sweep.name,
            state,
            progress.total,
            progress.done,
            self._failures,
            self._seconds + progress.seconds,
            sweep.resources.price_per_hour,
            progress.retried,
            progress.running,
            self._started,
            self._marks,
            progress.nodes,
        )
        return status.status(facts, now)

    def _tell(self, found: Status) -> None:
        """Tell the store, the log and whoever monitors. A store that is away for a moment stops no sweep."""
        self._told = found.time
        logs.event("progress", **found.as_dict())
        self.export(found.samples())
        try:
            status.write(self._planned.store, found)
        except (LandsweepError, OSError) as error:
            logs.event("status not written", error=str(error))
