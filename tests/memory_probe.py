"""Runs one batch in a process of its own and prints the memory that it took: ``python -m tests.memory_probe JSON``.

The baseline is a worker that has imported what it needs and holds the data's samples.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from landsweep.cluster.spec import Sweep

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Probe:
    """One batch of a configuration, in MiB above the baseline."""

    predicted: float
    measured: float
    seconds: float

    @property
    def ratio(self) -> float:
        return self.predicted / self.measured

    @property
    def within(self) -> bool:
        return abs(self.predicted - self.measured) <= 0.3 * self.measured


def probed(trials: int, sweep: dict[str, Any]) -> Probe:
    """The memory of ``trials`` seeds of a sweep of one configuration, in a fresh process."""
    command = [sys.executable, "-m", "tests.memory_probe", str(trials), json.dumps(sweep)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return Probe(**json.loads(done.stdout.splitlines()[-1]))


def sweep_of(trials: int, sections: dict[str, Any]) -> Sweep:
    """A checked sweep of so many seeds."""
    from landsweep.cluster import spec

    return spec.validate({"name": "probe", **sections, "seeds": trials}, "probe")


def _status(field: str) -> float:
    """A field of this process's status, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def _main(trials: int, sections: dict[str, Any]) -> None:
    from landsweep.cluster import memory, plan
    from landsweep.cluster.code import code_hashes, importable
    from landsweep.cluster.data.library import Library
    from landsweep.cluster.execute import Job, execute
    from landsweep.cluster.plan import Batch, batch_id
    from landsweep.cluster.policy import Work
    from landsweep.workers import batch, execution  # noqa: F401  (what a worker imports with its first batch)

    data, sweep, seeds = Library(), sweep_of(trials, sections), tuple(range(trials))
    (configuration,) = plan.expand(sweep, code_hashes(sweep), data.checksum)
    work = Work(Batch(batch_id(configuration.id, seeds), configuration, seeds))
    samples = data.samples(configuration.settings["landscape"])
    with tempfile.TemporaryDirectory() as store:
        job = Job(work, store=store, sweep="probe", grid={}, code=importable(sweep), samples=samples)
        baseline = _status("VmRSS")
        summary = execute(job)
    peak = _status("VmHWM") - baseline
    assert summary.error is None, summary.error
    known = memory.footprint(configuration.settings["landscape"], samples)
    predicted = memory.batch_bytes(configuration.settings, known, len(seeds)) / 2**20
    print(json.dumps({"predicted": predicted, "measured": peak, "seconds": summary.seconds}))


if __name__ == "__main__":
    _main(int(sys.argv[1]), json.loads(sys.argv[2]))
