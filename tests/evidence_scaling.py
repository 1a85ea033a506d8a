"""From one worker to two, measured, and to 4,096, simulated: ``python -m tests.evidence_scaling NAME``.

``python -m tests.evidence_scaling curve`` prints the table of docs/scale.md and draws docs/scaling.png, from the batch
times in tests/measured_batches.json; ``curve SWEEP`` takes them from the results of a sweep first.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import landsweep
from landsweep.cluster import run as runs
from landsweep.cluster import spec
from landsweep.cluster.prepare import prepare
from landsweep.cluster.ray_executor import RayExecutor
from tests.benchmarks.at_scale import Measured as Scale
from tests.benchmarks.contest import spread
from tests.claims import Measured, measured_claims
from tests.simulated_cluster import Machine, Simulated, Simulation, batches_of

ROOT = Path(__file__).resolve().parents[1]
MEASURED = ROOT / "tests/measured_batches.json"
PICTURE = ROOT / "docs/scaling.png"
REACH, REPETITIONS = 1.85, 5
TRIALS = 8  # a batch: parameters, minibatches and activations of a step (½ MB) stay in a core's own cache
WORKERS = (1, 4, 16, 64, 256, 1024, 4096)
SEED = 0
FILES = 5  # of a batch that the driver reads back: its tables, parameters, batch.json; supposed one after the other
CLUSTERS = {  # what a column of the table is called → trials, cluster
    "10⁶ trials": (10**6, Machine()),
    "10⁶ trials, no failure, no straggler": (10**6, Machine(node_hours=1e9, straggler_share=0.0)),
    "10⁵ trials": (10**5, Machine()),
    "10⁶ trials on S3": (10**6, Machine(gather_batch_seconds=FILES * Scale().request_seconds)),
}


# --- one worker, two ------------------------------------------------------------------------------------------------


def compute_sweep(folder: Path, name: str, batches: int, steps: int) -> dict[str, Any]:
    """Training and little else: one configuration, ``batches`` of ``TRIALS`` seeds each."""
    return {
        "name": name,
        "seeds": TRIALS * batches,
        "landscape": {"name": "mlp", "data": "digits", "hidden": [25], "weight_decay": 1e-3},
        "training": {
            "optimizer": "sgd",
            "lr": 0.1,
            "momentum": 0.9,
            "batch_size": 128,
            "steps": steps,
            "dtype": "float32",
        },
        "search": {"minima": False},
        "measure": {"spectrum": "none", "include": []},
        "resources": {"num_cpus": 1, "batch": TRIALS, "checkpoint": None},
        "store": str(folder),
        "tracking": {"uri": "none"},
    }


def driven(sweep: dict[str, Any], workers: int) -> tuple[float, float]:
    """Seconds from ``workers`` that are up to the last commit, and from before Ray's start to its end."""
    begun = time.monotonic()
    planned = prepare(spec.validate(sweep, "scaling"))
    executor = RayExecutor(1.0, 0.0, most=workers)
    while executor.ready < workers:
        executor.wait(1.0)
    end, executor.close = executor.close, lambda: None
    ready = time.monotonic()
    try:
        progress = runs.run(planned, lambda: executor, lambda progress: None)
        committed = time.monotonic()
    finally:
        end()
    ended = time.monotonic()
    if progress.done != progress.total or progress.failed or progress.retried:
        raise AssertionError(f"{progress.done} of {progress.total} trials, {progress.retried} retried")
    return committed - ready, ended - begun


def scaling(batches: int = 64, steps: int = 6000) -> Measured:
    """The same sweep on one worker and on two, in turn."""
    load, pairs = os.getloadavg()[0], []
    with tempfile.TemporaryDirectory(prefix="landsweep-scaling-") as folder:
        for number in range(REPETITIONS):
            one, two = (
                driven(compute_sweep(Path(folder), f"{name}-{number}", batches, steps), workers)
                for name, workers in (("one", 1), ("two", 2))
            )
            print(
                f"  one worker {one[0]:.1f} s (whole {one[1]:.1f}), two {two[0]:.1f} s (whole {two[1]:.1f})", flush=True
            )
            pairs.append((one, two))
    ratios, whole = ([one[place] / two[place] for one, two in pairs] for place in (0, 1))
    text = f"{len(os.sched_getaffinity(0))} cores, load {load:.1f} before: {batches} batches of {TRIALS} trials × "
    text += f"{steps} steps, medians of {REPETITIONS}: two workers {spread(ratios)}× as fast as one, with the start of "
    text += f"Ray and its workers {spread(whole)}×"
    return text, statistics.median(ratios) >= REACH


# --- to 4,096 -------------------------------------------------------------------------------------------------------


def measured_batches(sweep: str) -> dict[str, Any]:
    """The seconds a trial in each batch of a sweep's results, and how many trials a batch has."""
    trials = landsweep.open(sweep).trials()
    groups = trials[trials["status"] != "failed"].groupby(["config", "batch"])["seconds"]
    seconds: dict[str, list[float]] = {}
    for (config, _), mean in sorted(groups.mean().items()):
        seconds.setdefault(config, []).append(round(float(mean), 4))
    return {"trials_a_batch": int(groups.size().max()), "seconds_a_trial": seconds}


def simulated_runs(
    measured: Mapping[str, Any], workers: Sequence[int], clusters: Mapping[str, tuple[int, Machine]]
) -> dict[str, list[Simulated]]:
    """A run for each column and number of workers."""
    seconds, size = measured["seconds_a_trial"], measured["trials_a_batch"]
    return {
        name: [
            Simulation(batches_of(seconds, trials // len(seconds), size), seconds, count, machine, SEED).run()
            for count in workers
        ]
        for name, (trials, machine) in clusters.items()
    }


def table(found: Mapping[str, Sequence[Simulated]], workers: Sequence[int]) -> str:
    """Efficiencies in Markdown."""
    lines = [f"| workers | {' | '.join(found)} |", f"| --- |{' --- |' * len(found)}"]
    for place, count in enumerate(workers):
        cells = [f"{several[place].efficiency:.1%}" for several in found.values()]
        lines.append(f"| {count:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(found: Mapping[str, Sequence[Simulated]], workers: Sequence[int], path: Path) -> None:
    """Efficiency against workers."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for (name, several), marker in zip(found.items(), "osd^", strict=True):
        axes.plot(workers, [run.efficiency for run in several], marker=marker, label=name)
    axes.set(xscale="log", xlabel="workers", ylabel="efficiency: ideal seconds / simulated seconds", ylim=(0, 1.02))
    axes.set_xticks(workers, [f"{count:,}" for count in workers], minor=False)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left")
    figure.savefig(path, metadata={"Software": None})


def curve(sweep: str | None = None) -> dict[str, list[Simulated]]:
    """Print the table, draw the picture."""
    if sweep is not None:
        MEASURED.write_text(json.dumps(measured_batches(sweep), indent=1) + "\n")
    found = simulated_runs(json.loads(MEASURED.read_text()), WORKERS, CLUSTERS)
    print(table(found, WORKERS))
    draw(found, WORKERS, PICTURE)
    last = found["10⁶ trials"][-1]
    print(
        f"at {last.workers:,}: {last.seconds:,.0f} s, {last.lost} tries lost with their nodes, {last.doubled} run twice"
    )
    return found


def simulated() -> Measured:
    """The curve, and that it loses no trial."""
    found = curve()
    whole = all(run.done == CLUSTERS[name][0] and not run.failed for name, several in found.items() for run in several)
    best = found["10⁶ trials, no failure, no straggler"]
    text = f"{len(found)} curves of 1 … {WORKERS[-1]:,} workers; at {WORKERS[-1]:,} "
    text += ", ".join(f"{name}: {several[-1].efficiency:.1%}" for name, several in found.items())
    text += f"; every trial done once: {whole}; table and picture in docs/scale.md"
    return text, whole and all(run.efficiency <= 1 for run in best)


CLAIMS: dict[str, tuple[str, Callable[[], Measured]]] = {
    "scaling": (f"a compute-bound sweep on two workers is ≥ {REACH} times as fast as on one", scaling),
    "simulated": (
        "simulated to 4,096 workers with measured batch times, failures and stragglers: an efficiency curve, no trial "
        "lost or done twice",
        simulated,
    ),
}


if __name__ == "__main__":
    if sys.argv[1:2] == ["curve"]:
        curve(*sys.argv[2:])
    else:
        sys.exit(measured_claims(CLAIMS, sys.argv[1:]))
