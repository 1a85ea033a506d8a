"""What runs on a node: the actor. Ray makes one of this class, which knows nothing of Ray."""

from __future__ import annotations

import gc
from dataclasses import dataclass, replace
from pathlib import Path

from landsweep.cluster.execute import Job, Summary, execute
from landsweep.workers import record
from landsweep.workers.samples import Samples


@dataclass(frozen=True)
class Hello:
    """What a worker says before it gets work."""

    version: str
    sees_store: bool


class Worker:
    """Runs one job after the other; what it has built stays for the next."""

    def hello(self, probe: str | None) -> Hello:
        """``probe``: a file in the store, where that is a folder. Who answers has all it takes to train in memory."""
        gc.disable()  # imports make no garbage, and looking for it takes a third of their time
        from landsweep.workers import batch  # noqa: F401  (torch takes seconds)

        gc.freeze()
        gc.enable()
        return Hello(record.VERSION, probe is None or Path(probe).exists())

    def run(self, job: Job, samples: Samples | None) -> Summary:
        """``samples`` came by themselves, once a node. Folders of code may be relative to where this process runs."""
        folders = tuple(str(Path(folder).resolve()) for folder in job.code)
        return execute(replace(job, samples=samples, code=folders))
