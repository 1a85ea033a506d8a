"""Whole processes: ``landsweep run`` from its start to its exit, against the script that one would write instead.

``python -m tests.benchmarks.whole CONTENDER SEEDS STEPS [TRIALS]`` runs one and prints JSON. CONTENDER is landsweep,
jax (``whole_jax``), or one of ``whole_torch``: torch and loader (one seed after another, minibatches by index or by a
DataLoader) or tune (Ray Tune, one trial a seed). ``rate`` is SEEDS over the seconds of the whole process, imports,
Ray's start and compilation with it. Where that would take too long, a peer trains TRIALS seeds only, and its seconds a
seed are multiplied out, the rest counted once.

What landsweep does beside the training is in its seconds: losses and gradients on the full data at start and end of
each trial, what each end is, committed tables, a verdict and a report.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from tests.benchmarks.contest import OURS, ROOT, Contest, process
from tests.benchmarks.whole_torch import HOW

MODULE = "tests.benchmarks.whole"
SEEDS, STEPS, ALONE = 256, 3000, 4
SHORT_SEEDS, SHORT_STEPS, TUNED = 4096, 100, 100


def sweep(folder: Path, seeds: int, steps: int) -> dict[str, Any]:
    """The sweep file: training alone, nothing searched, measured or tracked."""
    landscape = {"name": "mlp", "data": "digits", "train_size": 1200, "hidden": [25], "weight_decay": 1e-3}
    descent = {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "batch_size": 128, "steps": steps, "snapshots": 2}
    return {
        "name": "whole",
        "seeds": seeds,
        "landscape": landscape,
        "training": descent,
        "search": {"minima": False},
        "measure": {"spectrum": "none", "include": []},
        "tracking": {"uri": "none"},
        "store": str(folder),
    }


def ran(*arguments: object) -> tuple[float, str]:
    """Seconds of ``python -m ARGUMENTS`` from start to exit, and what it printed."""
    command = [sys.executable, "-m", *map(str, arguments)]
    begun = time.perf_counter()
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    seconds = time.perf_counter() - begun
    if ended.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit {ended.returncode}: {ended.stderr[-2000:]}")
    return seconds, ended.stdout


def by_landsweep(seeds: int, steps: int) -> dict[str, float]:
    import pandas as pd

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep(folder, seeds, steps)))
        seconds, _ = ran("landsweep", "run", folder / "sweep.yaml")
        trials = pd.read_parquet(folder / "whole/trials")
    if len(trials) != seeds or set(trials["status"]) != {"done"}:
        raise RuntimeError(f"{len(trials)} trials of {seeds}: {set(trials['status'])}")
    objective = float(trials["final_objective"].mean())
    return {"rate": seeds / seconds, "seconds": seconds, "objective": objective}


def by_jax(seeds: int, steps: int) -> dict[str, float]:
    seconds, said = ran("tests.benchmarks.whole_jax", seeds, steps, len(os.sched_getaffinity(0)))
    return {"rate": seeds / seconds, "seconds": seconds, **json.loads(said.splitlines()[-1])}


def by_torch(how: str, seeds: int, steps: int, trials: int) -> dict[str, float]:
    seconds, said = ran("tests.benchmarks.whole_torch", how, trials, steps)
    found = json.loads(said.splitlines()[-1])
    scaled = seconds + (seeds / trials - 1) * found["seconds"]
    return {"rate": seeds / scaled, "seconds": scaled, "seconds a seed": found["seconds"] / trials,
            "objective": found["objective"]}  # fmt: skip


CONTENDERS = {OURS: by_landsweep, "jax": by_jax, **{how: functools.partial(by_torch, how) for how in HOW}}


def _against(name: str, work: str, reach: float, peer: str, seeds: int, steps: int, *trials: int) -> Contest:
    contenders = {
        OURS: process(MODULE, OURS, seeds, steps, cores=None),
        peer: process(MODULE, peer, seeds, steps, *trials, cores=None),
    }
    return Contest(name, work, "seeds/s", reach, contenders)


def contests() -> list[Contest]:
    """On all cores."""
    net = f"64-25-10, {SEEDS} seeds, {STEPS} steps, whole process on all cores"
    alone = f"{net}, against one seed after another ({ALONE} measured), minibatches by"
    short = (
        f"64-25-10, {SHORT_SEEDS} trials of {SHORT_STEPS} steps, whole process on all cores, against one trial a seed"
    )
    return [
        _against("whole process", net, 1.6, "jax", SEEDS, STEPS),
        _against("whole process one by one", f"{alone} index", 40.0, "torch", SEEDS, STEPS, ALONE),
        _against("whole process by loader", f"{alone} a DataLoader", 40.0, "loader", SEEDS, STEPS, ALONE),
        _against("many short trials", f"{short} ({TUNED} measured)", 200.0, "tune", SHORT_SEEDS, SHORT_STEPS, TUNED),
    ]


if __name__ == "__main__":
    contender, *numbers = sys.argv[1:]
    print(json.dumps(CONTENDERS[contender](*map(int, numbers))))
