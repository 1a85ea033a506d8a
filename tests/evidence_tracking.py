"""Tracking measured in full, on a PostgreSQL-backed MLflow server: ``python -m tests.evidence_tracking``.

The server has one core to itself, as if it were another machine, and the sweep another: whatever logging costs the
sweep's machine costs it time. The same sweep runs with and without tracking in turn.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.browser import shown_after
from tests.claims import Measured, measured_claims
from tests.processes import environment
from tests.tracking_server import mlflow_server, postgresql

CONFIGURATIONS = 500
STEPS = 800  # of a training, which makes a sweep of about ten minutes
MOST_ADDED = 0.02  # of the sweep's wall time
MOST_SECONDS = 5.0  # that the runs page may take
SHOWN = "[1-9][0-9]* matching runs"
ORDER = (False, True, True, False)  # with tracking?


@dataclass(frozen=True)
class Took:
    """What a run took."""

    wall: float  # s
    cpu: float  # s, of all its processes


def sweep(uri: str) -> dict[str, object]:
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
        "training": {"optimizer": "sgd", "lr": 0.1, "batch_size": 128, "steps": STEPS},
        "search": {"minima_iterations": 1},
        "measure": {"spectrum": "none", "include": []},
        "grid": grid,
        "tracking": {"uri": uri},
    }


def took(folder: Path, uri: str) -> Took:
    """``landsweep run`` on one core, in a new folder."""
    folder.mkdir()
    (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep(uri)))
    command = ["taskset", "-c", "0", sys.executable, "-m", "landsweep", "run", "sweep.yaml"]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    ended = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert "warning: tracking" not in ended.stderr, ended.stderr[-2000:]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Took(time.monotonic() - started, cpu)


def configurations(server: str) -> int:
    """How many runs of configurations there are, all finished."""
    query = {
        "experiment_ids": ["1"],
        "filter": "tags.`landsweep.level` = 'configuration' and attributes.status = 'FINISHED'",
        "max_results": 2 * CONFIGURATIONS,
    }
    request = urllib.request.Request(
        f"{server}/api/2.0/mlflow/runs/search", json.dumps(query).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return len(json.load(answer)["runs"])


def tracking_postgres() -> Measured:
    """The time that logging adds, then the runs page in Chromium: as it opens, and sorted by a metric."""
    assert (os.cpu_count() or 1) >= 2, "needs two cores: one for the sweep, one for the server"
    own = ("taskset", "-c", "1")
    with tempfile.TemporaryDirectory() as name, postgresql(own) as backend:
        folder = Path(name)
        with mlflow_server(folder, backend, prefix=own) as server:
            found: dict[bool, list[Took]] = {False: [], True: []}
            for number, tracked in enumerate(ORDER):
                found[tracked].append(took(folder / str(number), server if tracked else "none"))
            runs = configurations(server)
            page = f"{server}/#/experiments/1/runs"
            opened = shown_after(page, SHOWN)
            sorted_ = shown_after(f"{page}?orderByKey=metrics.%60final_objective.mean%60&orderByAsc=true", SHOWN)
    wall = {tracked: statistics.mean(one.wall for one in ones) for tracked, ones in found.items()}
    cpu = {tracked: statistics.mean(one.cpu for one in ones) for tracked, ones in found.items()}
    spread = max(abs(ones[0].wall - ones[1].wall) / wall[tracked] for tracked, ones in found.items())
    added = wall[True] / wall[False] - 1
    text = (
        f"{runs} configurations' runs after two sweeps; {wall[False]:.0f} s without tracking, {wall[True]:.0f} s with, "
    )
    text += f"{added:+.1%} (two of a kind differ by at most {spread:.1%}; {cpu[True] - cpu[False]:+.1f} s of CPU); "
    text += f"the runs page opens in {opened:.1f} s, sorted by a metric in {sorted_:.1f} s"
    holds = added < MOST_ADDED and runs == 2 * CONFIGURATIONS and max(opened, sorted_) < MOST_SECONDS
    return text, holds


CLAIMS = {
    "tracking_postgres": (
        "PostgreSQL-backed MLflow, 500 configurations: logging adds < 2 % to the sweep's wall time; the runs page "
        "opens in Chromium in < 5 s, sorted by a metric too",
        tracking_postgres,
    ),
}


if __name__ == "__main__":
    sys.exit(measured_claims(CLAIMS, sys.argv[1:]))
