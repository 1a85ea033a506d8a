"""Embedded Ray: jobs run in actors, an actor that is killed costs no more than its trial."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

import landsweep
from landsweep.cluster import run as runs
from landsweep.cluster import spec
from landsweep.cluster.ray_executor import RayExecutor
from tests.toy import small_sweep, spoil


def test_a_killed_actor_costs_one_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    import ray

    token = tmp_path / "ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("0" * 64)
    token.chmod(0o644)  # as an embedded start leaves it
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    monkeypatch.setenv("LANDSWEEP_TEST_KILL", "1")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    sweep = small_sweep(tmp_path, seeds=3, grid={}, resources={"batch": 2, "retries": 1})
    spoil(sweep, seed=1)
    planned = runs.prepare(spec.validate(sweep, "sweep.yaml"))
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
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
