"""Who runs jobs: an interface, and the executor that runs them in this process."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import Protocol

from landsweep.cluster.execute import Job, Summary, execute
from landsweep.cluster.policy import FailureKind


@dataclass(frozen=True)
class Completion:
    """A job that ended: with a summary, or lost with its process (``lost`` says how)."""

    job: Job
    summary: Summary | None
    lost: str | None = None
    exhausted: bool = False  # it was lost for want of memory
    evicted: bool = False  # it was lost with its node
    host: str | None = None  # where it ran

    def parts(self) -> list[Completion]:
        """One for each batch of the job; itself where the program that they share failed."""
        if not self.job.mates or self.summary is None or not self.summary.others:
            return [self]
        summaries = (self.summary, *self.summary.others)
        jobs = (replace(self.job, work=work, mates=()) for work in self.job.works)
        return [replace(self, job=job, summary=one) for job, one in zip(jobs, summaries, strict=True)]

    @property
    def failure(self) -> FailureKind:
        """How a job without staged results failed."""
        if self.exhausted or (self.summary is not None and self.summary.exhausted):
            return "memory"
        if self.evicted:
            return "node"
        return "lost" if self.lost else "error"


class Executor(Protocol):
    """Runs jobs; holds at most what it is given."""

    @property
    def workers(self) -> int:
        """How many there are now; nodes come and go."""
        ...

    def serve(self, most: int) -> None:
        """From now on there are at most so many workers worth having."""
        ...

    def submit(self, job: Job) -> None: ...

    def withdraw(self) -> int:
        """Forget the jobs that have not begun; how many."""
        ...

    def wait(self, timeout: float) -> list[Completion]:
        """Jobs that ended since the last call; waits up to ``timeout`` seconds for one."""
        ...

    def close(self) -> None: ...


class InlineExecutor:
    """Runs each job in this process, when waited for."""

    workers = 1

    def __init__(self) -> None:
        self._jobs: deque[Job] = deque()

    def serve(self, most: int) -> None:
        pass

    def submit(self, job: Job) -> None:
        self._jobs.append(job)

    def withdraw(self) -> int:
        count = len(self._jobs)
        self._jobs.clear()
        return count

    def wait(self, timeout: float) -> list[Completion]:
        if not self._jobs:
            return []
        job = self._jobs.popleft()
        return [Completion(job, execute(job))]

    def close(self) -> None:
        self._jobs.clear()
