"""Tracking measured in full, on a PostgreSQL-backed MLflow server: ``python -m tests.evidence_tracking``.

The server has one core to itself, as if it were another machine, and the sweep another, which it keeps busy: what
logging takes of that core it costs the sweep, and at the end what the driver waits for it.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import yaml

from tests.benchmarks.contest import spread
from tests.browser import shown_after
from tests.claims import Measured, measured_claims
from tests.processes import configuration_runs, environment
from tests.tracking_server import mlflow_server, postgresql

CONFIGURATIONS = 500
STEPS, FEW_STEPS = 40_000, 1  # of a training: of the sweep, and of the short one that shows what tracking adds
ORDER = (False, True, True, False)  # of short sweeps: with tracking?
MOST_ADDED = 0.02  # of the sweep's wall time
MOST_SECONDS = 5.0  # that the runs page may take
OPENED = 5  # times, each in a new browser: one opening differs from the next by a second
SHOWN = "[1-9][0-9]* matching runs"
LAST = "report: "  # what is said before the driver waits for the process that logs


def sweep(uri: str, steps: int) -> dict[str, object]:
    """500 configurations of a small net on digits, two trials each: more trials than get a run of their own."""
    rates, decays = (0.01 + 0.002 * i for i in range(25)), (0.001 + 0.0005 * i for i in range(20))
    grid = {
        "training.lr": [round(rate, 6) for rate in rates],
        "landscape.weight_decay": [round(decay, 6) for decay in decays],
    }
    return {
        "name": "many",
        "seeds": 2,
        "landscape": {"name": "mlp", "data": "digits", "hidden": [4]},
        "training": {"optimizer": "sgd", "lr": 0.1, "batch_size": 128, "steps": steps},
        "search": {"minima": False},
        "measure": {"spectrum": "none", "include": []},
        "grid": grid,
        "tracking": {"uri": uri},
    }


@dataclass(frozen=True)
class Took:
    """Seconds of a run: of its wall time, of that after its last words, and of CPU for logging before them."""

    wall: float
    end: float
    logging: float

    @property
    def known(self) -> float:
        """What of it is known to pass beside the sweep."""
        return self.logging + self.end


def took(folder: Path, uri: str, steps: int) -> Took:
    """``landsweep run`` on one core, in a new folder."""
    folder.mkdir()
    (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep(uri, steps)))
    command = ["taskset", "-c", "0", sys.executable, "-u", "-m", "landsweep", "run", "sweep.yaml"]
    errors, logging = folder / "errors", 0.0
    started = last = time.monotonic()
    with errors.open("w") as stream:
        running = psutil.Popen(command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=stream, text=True)
        for line in running.stdout:
            if line.startswith(LAST):
                last, logging = time.monotonic(), _logging(running)
        running.wait()
    ended, said = time.monotonic(), errors.read_text()
    assert running.returncode == 0, said[-2000:]
    assert "warning: tracking" not in said, said[-2000:]
    assert last > started, "no report is said to be anywhere"
    assert (logging > 0) == (uri != "none"), f"{logging} s for logging to {uri}"
    found = Took(ended - started, ended - last, logging)
    print(
        f"  {steps} steps, {'without' if uri == 'none' else 'with'} tracking: {found.wall:.1f} s, the last "
        f"{found.end:.1f} s after everything else; logging took {found.logging:.1f} s of CPU before",
        flush=True,
    )
    return found


def _logging(running: psutil.Process) -> float:
    """Seconds of CPU of the process that logs, so far."""
    for child in running.children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it ended
            if "landsweep.cluster.follow" in child.cmdline():
                times = child.cpu_times()
                return float(times.user + times.system)
    return 0.0


@contextlib.contextmanager
def server_on_its_own_core() -> Iterator[tuple[Path, str]]:
    """A folder for sweeps, and the address of an empty server."""
    assert (os.cpu_count() or 1) >= 2, "needs two cores: one for the sweep, one for the server"
    own = ("taskset", "-c", "1")
    with (
        tempfile.TemporaryDirectory() as name,
        postgresql(own) as backend,
        mlflow_server(Path(name), backend, prefix=own) as server,
    ):
        yield Path(name), server


def finished_runs(server: str) -> int:
    """How many runs of configurations have all that is logged of them."""
    return sum(run["info"]["status"] == "FINISHED" for run in configuration_runs(server, 10 * CONFIGURATIONS))


def tracking_postgres() -> Measured:
    """What logging adds, against the sweep.

    Two runs of a long sweep differ by more than logging takes, as the speed of the machine does. So what tracking adds
    to the wall time is measured on short sweeps. There the server has not yet taken all when the sweep is done, and is
    waited for; the long one leaves it time. What is known of both, the CPU seconds for logging and those from the last
    words to the end, tells the difference.
    """
    with server_on_its_own_core() as (folder, server):
        short: dict[bool, list[Took]] = {False: [], True: []}
        for number, tracked in enumerate(ORDER):
            short[tracked].append(took(folder / str(number), server if tracked else "none", FEW_STEPS))
        whole = took(folder / "whole", server, STEPS)
        runs = finished_runs(server)
    wall = {tracked: statistics.mean(one.wall for one in ones) for tracked, ones in short.items()}
    known = statistics.mean(one.known for one in short[True])
    direct = wall[True] - wall[False]
    added = direct + whole.known - known
    share = added / (whole.wall - added)
    text = f"tracking adds {direct:.1f} s to a short sweep of {wall[False]:.0f} s, where logging and the end take "
    text += f"{known:.1f} s, in the long one {whole.known:.1f} s: {added:.1f} s, {share:.1%} of the "
    text += f"{whole.wall - added:.0f} s without; {runs} configurations' runs"
    return text, share < MOST_ADDED and runs == (len(short[True]) + 1) * CONFIGURATIONS


def runs_page() -> Measured:
    """The runs page of a sweep in Chromium: as it opens, and sorted by a metric; each time in a new browser, whose
    caches are empty."""
    with server_on_its_own_core() as (folder, server):
        took(folder / "sweep", server, FEW_STEPS)
        runs = finished_runs(server)
        page = f"{server}/#/experiments/1/runs"
        by_metric = f"{page}?orderByKey=metrics.%60final_objective.mean%60&orderByAsc=true"
        both = [[shown_after(one, SHOWN) for one in (page, by_metric)] for _ in range(OPENED)]
    opened, by_metric_opened = zip(*both, strict=True)
    text = f"{runs} configurations' runs; medians of {OPENED}: the page opens in {spread(opened)} s, sorted "
    slowest = max(statistics.median(seconds) for seconds in (opened, by_metric_opened))
    return f"{text}by a metric in {spread(by_metric_opened)} s", runs == CONFIGURATIONS and slowest < MOST_SECONDS


CLAIMS = {
    "tracking_postgres": (
        "PostgreSQL-backed MLflow, 500 configurations: logging adds < 2 % to the sweep's wall time",
        tracking_postgres,
    ),
    "runs_page": (
        "PostgreSQL-backed MLflow, 500 configurations: the runs page opens in Chromium in < 5 s, sorted by a metric "
        "too",
        runs_page,
    ),
}


if __name__ == "__main__":
    sys.exit(measured_claims(CLAIMS, sys.argv[1:]))
