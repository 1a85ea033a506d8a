"""No-op trials through plan → Ray → commit, against one Ray task a trial that writes one Parquet file.

``python -m tests.benchmarks.orchestration [REPETITIONS]`` prints both rates and their ratio, interleaved on the same
cores. A rate is trials over the seconds from the first batch or task handed out to the last row on disk; Ray's start
is left out of both, as are their first batch and task, which import what the others find imported.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from landsweep.cluster import ray_adapter, spec
from landsweep.cluster import run as runs
from landsweep.cluster.prepare import prepare
from landsweep.cluster.ray_executor import RayExecutor
from landsweep.cluster.run import Progress
from landsweep.workers import record
from tests.noop import noop_sweep

TRIALS, TASKS = 131_072, 2_000


def landsweep_rate(folder: Path, name: str) -> float:
    """Trials a second of a sweep ``name``, from the end of the first batch to the last commit."""
    planned = prepare(spec.validate(noop_sweep(folder, TRIALS, name=name), "noop"))
    first: list[tuple[float, int]] = []

    def report(progress: Progress) -> None:
        if progress.done and not first:
            first.append((time.monotonic(), progress.done))

    runs.run(planned, lambda: RayExecutor(1.0, 0.0), report)
    begun, before = first[0]
    return (TRIALS - before) / (time.monotonic() - begun)


def _write(folder: str, seed: int, schema: pa.Schema) -> None:
    row: dict[str, Any] = dict.fromkeys(schema.names)
    row |= {"sweep": "noop", "config": "0" * 16, "trial": f"{'0' * 16}-{seed}", "seed": seed, "objective": 0.5}
    pq.write_table(pa.Table.from_pylist([row], schema), f"{folder}/{seed}.parquet", compression="zstd")


def task_rate(folder: Path) -> float:
    """Tasks a second: ``ray.get`` over one a trial, on Ray started as landsweep starts it."""
    ray_adapter.connect(None, 0)
    try:
        return _task_rate(folder)
    finally:
        ray_adapter.load().shutdown()


def _task_rate(folder: Path) -> float:
    ray = ray_adapter.load()
    task, schema = ray.remote(num_cpus=1)(_write), ray.put(record.schema("points"))
    ray.get([task.remote(str(folder), seed, schema) for seed in range(8)])
    begun = time.monotonic()
    ray.get([task.remote(str(folder), seed, schema) for seed in range(TASKS)])
    rate = TASKS / (time.monotonic() - begun)
    if len(list(folder.glob("*.parquet"))) != TASKS:
        raise AssertionError("a task wrote nothing")
    return rate


def measured(repetitions: int) -> list[tuple[float, float]]:
    """Pairs (landsweep, tasks) of trials a second, one after the other."""
    pairs = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(repetitions):
            tasks = folder / f"tasks-{number}"
            tasks.mkdir()
            pairs.append((landsweep_rate(folder, f"noop-{number}"), task_rate(tasks)))
            print(f"landsweep {pairs[-1][0]:,.0f} trials/s, one task a trial {pairs[-1][1]:,.0f}/s", flush=True)
    return pairs


def main(repetitions: int = 5) -> None:
    ratios = [ours / theirs for ours, theirs in measured(repetitions)]
    print(f"ratio {statistics.median(ratios):.1f} (median of {repetitions}; {min(ratios):.1f} … {max(ratios):.1f})")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
