"""No-op trials through plan → Ray → commit, against one Ray task a trial that writes one Parquet file.

``python -m tests.benchmarks.orchestration CONTENDER [TRIALS]`` measures one and prints JSON; CONTENDER is landsweep or
tasks. A rate is trials over the seconds from the first batch or task handed out to the last row on disk; Ray's start
is left out of both, as are their first batch and task, which import what the others find imported.
"""

from __future__ import annotations

import json
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
from tests.benchmarks.contest import OURS, Contest, process
from tests.noop import noop_sweep

MODULE = "tests.benchmarks.orchestration"
TRIALS, TASKS = 131_072, 2_000


def by_landsweep(folder: Path, trials: int = TRIALS) -> float:
    """Trials a second of a sweep, from the end of the first batch to the last commit."""
    planned = prepare(spec.validate(noop_sweep(folder, trials), "noop"))
    first: list[tuple[float, int]] = []

    def report(progress: Progress) -> None:
        if progress.done and not first:
            first.append((time.monotonic(), progress.done))

    runs.run(planned, lambda: RayExecutor(1.0, 0.0), report)
    begun, before = first[0]
    return (trials - before) / (time.monotonic() - begun)


def _write(folder: str, seed: int, schema: pa.Schema) -> None:
    row: dict[str, Any] = dict.fromkeys(schema.names)
    row |= {"sweep": "noop", "config": "0" * 16, "trial": f"{'0' * 16}-{seed}", "seed": seed, "objective": 0.5}
    pq.write_table(pa.Table.from_pylist([row], schema), f"{folder}/{seed}.parquet", compression="zstd")


def by_tasks(folder: Path, tasks: int = TASKS) -> float:
    """Tasks a second: ``ray.get`` over one a trial, on Ray started as landsweep starts it."""
    ray_adapter.connect(None, 0)
    try:
        return _task_rate(folder, tasks)
    finally:
        ray_adapter.leave(wait=True)


def _task_rate(folder: Path, tasks: int) -> float:
    ray = ray_adapter.load()
    task, schema = ray.remote(num_cpus=1)(_write), ray.put(record.schema("points"))
    ray.get([task.remote(str(folder), seed, schema) for seed in range(8)])
    begun = time.monotonic()
    ray.get([task.remote(str(folder), seed, schema) for seed in range(tasks)])
    rate = tasks / (time.monotonic() - begun)
    if len(list(folder.glob("*.parquet"))) != tasks:
        raise AssertionError("a task wrote nothing")
    return rate


CONTENDERS = {OURS: by_landsweep, "tasks": by_tasks}


def contests() -> list[Contest]:
    """On all cores."""
    pair = {who: process(MODULE, who, cores=None) for who in CONTENDERS}
    work = f"{TRIALS:,} no-op trials committed, against one Ray task a trial ({TASKS:,} measured), all cores"
    return [Contest("orchestration", work, "trials/s", 20.0, pair)]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps({"rate": CONTENDERS[sys.argv[1]](Path(name), *map(int, sys.argv[2:]))}))
