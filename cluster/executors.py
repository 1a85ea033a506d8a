"""Who runs jobs: an interface, and the executor that runs them in this process."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Protocol

from landsweep.cluster.execute import Job, Summary, execute
from landsweep.cluster.policy import FailureKind


@dataclass(frozen=True)
class Completion:
    """A job that ended: with a summary, or lost with its process (``lost`` says how, ``exhausted`` that it was for
    want of memory)."""

    job: Job
    summary: Summary | None
    lost: str | None = None
    exhausted: bool = False

    @property
    def failure(self) -> FailureKind:
        """How a job without staged results failed."""
        if self.exhausted or (self.summary is not None and self.summary.exhausted):
            return "memory"
        return "lost" if self.lost else "error"


class Executor(Protocol):
    """Runs jobs; holds at most what it is given."""

    workers: int

    def submit(self, job: Job) -> None: ...

    def wait(self, timeout: float) -> list[Completion]:
        """Jobs that ended since the last call; waits up to ``timeout`` seconds for one."""
        ...

    def close(self) -> None: ...


class InlineExecutor:
    """Runs each job in this process, when waited for."""

    workers = 1

    def __init__(self) -> None:
        self._jobs: deque[Job] = deque()

    def submit(self, job: Job) -> None:
        self._jobs.append(job)

    def wait(self, timeout: float) -> list[Completion]:
        if not self._jobs:
            return []
        job = self._jobs.popleft()
        return [Completion(job, execute(job))]

    def close(self) -> None:
        self._jobs.clear()
