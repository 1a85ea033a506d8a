"""Embedded Ray: jobs run in actors, an actor that is killed costs no more than its trial."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

import landsweep
from landsweep.cluster import run as runs
from landsweep.cluster import spec
from landsweep.cluster.executors import InlineExecutor
from landsweep.cluster.prepare import prepare
from landsweep.cluster.ray_executor import RayExecutor
from landsweep.workers.errors import RequestError
from tests.comparison import largest_difference, points_of
from tests.toy import small_sweep, spoil


def test_a_killed_actor_costs_one_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    import ray

    monkeypatch.setenv("LANDSWEEP_TEST_KILL", "1")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    sweep = small_sweep(tmp_path, seeds=3, grid={}, resources={"batch": 2, "retries": 1})
    spoil(sweep, seed=1)
    planned = prepare(spec.validate(sweep, "sweep.yaml"))
    assert [batch.seeds for batch in planned.batches] == [(0, 1), (2,)]
    progress = runs.run(planned, lambda: RayExecutor(1.0, 0.0), lambda progress: None)
    assert not ray.is_initialized()
    assert progress.done == 3
    ((trial, error),) = progress.failed
    assert trial.endswith("-1")
    assert "ActorDiedError" in error
    trials = landsweep.open(tmp_path / "runs" / "toy").trials()
    assert trials["status"].tolist() == ["done", "failed", "done"]
    assert trials["attempt"].tolist() == [3, 4, 1]  # twice as two, once more alone; alone, twice; at once
    assert "ActorDiedError" in trials["error"][1]
    assert landsweep.open(tmp_path / "runs" / "toy").points()["seed"].tolist() == [0, 2]


def test_a_batch_that_takes_too_long_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    resources = {"batch": 2, "retries": 0, "timeout": 20.0}
    sweep = small_sweep(tmp_path, seeds=2, grid={}, resources=resources)
    hang = Path(sweep["code"][0]) / f"{sweep['landscape']['name'].partition(':')[0]}.py"
    build = (
        f"def build(**options):\n    while os.getpid() != {os.getpid()}:\n        pass\n    return _build(**options)\n"
    )
    hang.write_text(f"{hang.read_text()}\n\nimport os\n\n_build = build\n\n\n{build}")  # the plan may build it
    planned = prepare(spec.validate(sweep, "sweep.yaml"))
    progress = runs.run(planned, lambda: RayExecutor(1.0, 0.0), lambda progress: None)
    assert [trial.rpartition("-")[2] for trial, _ in progress.failed] == ["0", "1"]
    assert all("took longer than resources.timeout, 20 s" in error for _, error in progress.failed)


def test_a_cluster_runs_the_same_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    """``--address``: a head that is there already, with two raylets; the driver's end leaves it running."""
    from ray.cluster_utils import Cluster

    monkeypatch.setattr(sys, "path", list(sys.path))
    sweep = small_sweep(tmp_path)
    here = prepare(spec.validate({**sweep, "name": "here"}, "sweep.yaml"))
    runs.run(here, InlineExecutor, lambda progress: None)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        there = prepare(spec.validate({**sweep, "name": "there"}, "sweep.yaml"))
        address, store = cluster.address, there.store.uri
        progress = runs.run(there, lambda: RayExecutor(1.0, 0.0, address, store), lambda progress: None)
        assert progress.done == 8
        assert not progress.failed
        assert len(cluster.list_all_nodes()) == 2
    finally:
        cluster.shutdown()
    left, right = (points_of(tmp_path / "runs" / name).drop(columns="sweep") for name in ("here", "there"))
    assert largest_difference(left, right) == 0.0
    assert not list((tmp_path / "runs/there").rglob("probe@*"))


def test_an_address_that_nobody_answers_is_one_message() -> None:
    with pytest.raises(RequestError, match=r"--address 127\.0\.0\.1:9: no Ray cluster answers there"):
        RayExecutor(1.0, 0.0, "127.0.0.1:9")
