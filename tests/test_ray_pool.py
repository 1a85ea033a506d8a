"""The pool on real Ray: nodes join, drain and die; a batch that hangs runs a second time."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import landsweep
from landsweep.cluster import pool, spec
from landsweep.cluster import run as runs
from landsweep.cluster.executors import Completion
from landsweep.cluster.prepare import prepare
from landsweep.cluster.ray_executor import RayExecutor
from tests.submitted import spoil, write_sweep

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.timeout(600)]


def settle(executor: RayExecutor, reached: Callable[[], bool], seconds: float = 200) -> list[Completion]:
    """Wait until it is so; what ended meanwhile."""
    found, end = [], time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, f"{executor.workers} workers, {executor.ready} ready"
        found += executor.wait(0.5)
    return found


def test_workers_follow_the_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.cluster_utils import Cluster

    monkeypatch.setattr(sys, "path", list(sys.path))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        executor = RayExecutor(1.0, 0.0, cluster.address, str(tmp_path))
        settle(executor, lambda: executor.ready == 1)
        joined = cluster.add_node(num_cpus=1)
        settle(executor, lambda: executor.ready == 2)
        drain(cluster.address, joined.node_id)
        settle(executor, lambda: executor.workers == 1)
        third = cluster.add_node(num_cpus=1)
        settle(executor, lambda: executor.ready == 2)
        cluster.remove_node(third, allow_graceful=False)
        settle(executor, lambda: executor.workers == 1)
        executor.close()
    finally:
        cluster.shutdown()


def drain(address: str, node: str) -> None:
    """A preemption notice, as a cloud's autoscaler passes it on."""
    reason = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
    command = ["drain-node", "--address", address, "--node-id", node, *reason, "--deadline-remaining-seconds", "600"]
    ray = Path(sys.executable).with_name("ray")
    subprocess.run([str(ray), *command], check=True, capture_output=True, timeout=120)


def test_a_batch_that_hangs_runs_a_second_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first process sleeps for as long as the test may take; the sweep ends all the same, each trial once."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(pool, "STRAGGLER_SECONDS", 3.0)
    sweep = write_sweep(tmp_path, "late", seeds=5)
    spoil(sweep, {4: "hangs"})
    planned = prepare(spec.validate(sweep, "sweep"))
    progress = runs.run(planned, lambda: RayExecutor(1.0, 0.0), lambda progress: None)
    assert (progress.done, progress.failed, progress.retried) == (5, [], 0)
    assert (Path(sweep["code"][0]) / "hung").exists()
    trials = landsweep.open(tmp_path / "runs/late").trials()
    assert sorted(trials["seed"]) == list(range(5))
    assert set(trials["status"]) == {"done"}
