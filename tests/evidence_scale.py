"""A million trials that do nothing, through ``landsweep run``: ``python -m tests.evidence_scale million``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyarrow.compute as pc
import pyarrow.dataset
import yaml

from tests.claims import Measured, measured_claims
from tests.noop import TABLES, noop_sweep
from tests.processes import environment, watched

TRIALS = 1_000_000
PLAN_SECONDS, RESUME_SECONDS, RATE, DRIVER_BYTES, FILES = 10.0, 5.0, 2000.0, 1e9, 500
STAGED = 200  # batches done and not yet in a segment: 50,000 rows of 1,024 trials each, and what ends meanwhile
_RESUME = """
import json, sys, time
from landsweep.cluster import spec
from landsweep.cluster.prepare import prepare
begun = time.monotonic()
left = prepare(spec.load(sys.argv[1])).left
print(json.dumps([time.monotonic() - begun, left]))
"""


@dataclass
class Seen:
    """What was seen of a driver while it ran."""

    code: int = -1
    seconds: float = 0.0  # of the whole process
    commits: float = 0.0  # seconds until the last segment was done
    first_bytes: int = 0  # resident, of the driver alone, at the first segment
    most_bytes: int = 0  # until its end
    concluding_bytes: int = 0  # of the process that makes verdict and report of all points
    most_staged: int = 0


def driven(command: list[str], folder: Path, sweep: Path, log: Path) -> Seen:
    """Run ``command`` to its end; looks twice a second."""
    seen, begun = Seen(), time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=environment()
        )
        driver, done = psutil.Process(process.pid), 0
        while process.poll() is None:
            try:
                process.wait(0.5)
            except subprocess.TimeoutExpired:
                _look(seen, driver, sweep)
            segments = len(list((sweep / "log").glob("*.done")))
            if segments > done:
                done, seen.commits = segments, time.monotonic() - begun
    seen.code, seen.seconds = process.returncode, time.monotonic() - begun
    return seen


def _look(seen: Seen, driver: psutil.Process, sweep: Path) -> None:
    resident = driver.memory_info().rss
    if seen.commits and not seen.first_bytes:
        seen.first_bytes = resident
    seen.most_bytes = max(seen.most_bytes, resident)
    if seen.commits:
        seen.concluding_bytes = max(seen.concluding_bytes, *map(_concluding, driver.children()), 0)
    seen.most_staged = max(seen.most_staged, _count(sweep / "staged"))


def _concluding(child: psutil.Process) -> int:
    """The resident bytes of a child that multiprocessing has started, as verdict and report are."""
    try:
        return child.memory_info().rss if "multiprocessing.spawn" in " ".join(child.cmdline()) else 0
    except psutil.Error:
        return 0  # it has just ended


def _count(folder: Path) -> int:
    return sum(1 for _ in folder.iterdir()) if folder.is_dir() else 0


def whole(sweep: Path) -> bool:
    """Whether every trial is in every table once."""
    for table in TABLES:
        seeds = pyarrow.dataset.dataset(sweep / table).to_table(columns=["seed"])["seed"]
        if (len(seeds), pc.count_distinct(seeds).as_py(), pc.max(seeds).as_py()) != (TRIALS, TRIALS, TRIALS - 1):
            return False
    return True


def million() -> Measured:
    """Plan, run, read, plan again."""
    landsweep = [sys.executable, "-m", "landsweep"]
    with tempfile.TemporaryDirectory(prefix="landsweep-million-") as name:
        folder = Path(name)
        file, sweep = folder / "sweep.yaml", folder / "runs/noop"
        file.write_text(yaml.safe_dump(noop_sweep(folder, TRIALS)))
        planned = watched([*landsweep, "plan", str(file), "--json"], folder, every=None)
        seen = driven([*landsweep, "run", str(file)], folder, sweep, folder / "log")
        if seen.code != 0:
            return f"exit {seen.code}: {(folder / 'log').read_text()[-2000:]}", False
        resumed = watched([sys.executable, "-c", _RESUME, str(file)], folder, every=None)
        files = {table: _count(sweep / table) for table in (*TABLES, "parameters", "log")}
        rows = whole(sweep)
    resume, left = json.loads(resumed.output.strip().splitlines()[-1])
    rate = TRIALS / seen.commits
    text = f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[1]:.1f}: plan {planned.seconds:.1f} s; "
    text += (
        f"{rate:,.0f} trials/s from the start of the process to the last commit ({seen.commits:.0f} s; with verdict "
    )
    text += f"and report {seen.seconds:.0f} s); driver {seen.first_bytes / 2**20:.0f} MiB at the first segment, "
    text += f"{seen.most_bytes / 2**20:.0f} MiB at most until its end, {seen.concluding_bytes / 2**20:.0f} MiB in the "
    text += f"process beside it that makes verdict and report of all points; at most {seen.most_staged} batches "
    text += "staged; resume decided in "
    text += f"{resume:.1f} s ({resumed.seconds:.1f} s with the start of Python), {left} left; files: "
    text += ", ".join(f"{count} {table}" for table, count in files.items())
    text += f"; every trial once in every table: {rows}"
    quick = planned.code == 0 and planned.seconds <= PLAN_SECONDS and resume <= RESUME_SECONDS and rate >= RATE
    small = seen.most_bytes < DRIVER_BYTES and seen.most_staged <= STAGED and max(files.values()) <= FILES
    return text, quick and small and rows and left == 0


CLAIMS: dict[str, tuple[str, Callable[[], Measured]]] = {
    "million": (
        "1,000,000 no-op trials: plan ≤ 10 s, driver < 1 GB, flow bounded, ≥ 2,000 trials/s committed, resume ≤ 5 s, "
        "≤ 500 files a table",
        million,
    ),
}


if __name__ == "__main__":
    sys.exit(measured_claims(CLAIMS, sys.argv[1:]))
