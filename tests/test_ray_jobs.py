"""Jobs of a real Ray cluster with token authentication: a head and two raylets on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import landsweep
from landsweep.cluster import run as runs
from landsweep.cluster import spec
from landsweep.cluster.executors import InlineExecutor
from landsweep.cluster.prepare import prepare
from tests.comparison import largest_difference, points_of
from tests.ray_cluster import TOKEN, RayCluster, ray_cluster
from tests.submitted import Clients, marked, refusals, spoil, submit_stop_submit, write_sweep

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with ray_cluster(2) as running:
        yield running


def test_submit_kill_the_client_stop_and_submit_again(
    cluster: RayCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = Clients(cluster, tmp_path)
    sweep = write_sweep(tmp_path, "wells", seeds=40, training={"optimizer": "gd", "lr": 0.05, "steps": 1500})
    went = submit_stop_submit(clients, trials=2)
    assert went.ids[0].removesuffix("-1") == went.ids[1].removesuffix("-2")
    assert went.at_stop["state"] == "SUCCEEDED"
    assert 2 <= went.at_stop["progress"]["done"] < 40
    assert "stopped as asked" in went.stop_log
    ended = (went.at_end["state"], went.at_end["progress"]["done"], went.code)
    assert ended == ("SUCCEEDED", 40, 0), went.end_log[-3000:]
    trials = landsweep.open(tmp_path / "runs/wells").trials()
    assert set(trials["attempt"]) == {1}  # nothing was run twice
    monkeypatch.setattr(sys, "path", list(sys.path))
    one_batch = {**sweep, "store": str(tmp_path / "alone"), "resources": {"batch": 40}}
    alone = prepare(spec.validate(one_batch, "sweep"))
    runs.run(alone, InlineExecutor, lambda progress: None)
    assert largest_difference(points_of(tmp_path / "alone/wells"), points_of(tmp_path / "runs/wells")) == 0.0
    assert marked(clients) == []


def test_culprits_are_named_and_their_mates_finish(
    cluster: RayCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    clients = Clients(cluster, tmp_path)
    sweep = write_sweep(tmp_path, "culprits", seeds=8, resources={"batch": 4, "retries": 1})
    spoil(sweep, {1: "killed", 3: "raised", 6: "memory"})
    assert clients.run("submit", "sweep.yaml").returncode == 0
    clients.run("logs", "--follow")
    said = clients.run("status", "--json")
    found = json.loads(said.stdout)
    assert (said.returncode, found["exit_code"]) == (1, 1)
    assert (found["progress"]["done"], found["progress"]["failed"]) == (8, 3)
    named = {int(one["trial"].rpartition("-")[2]): one["error"] for one in found["failed_trials"]}
    assert named.keys() == {1, 3, 6}
    assert "ValueError: boom" in named[3]
    assert "allocate memory" in named[6]
    trials = landsweep.open(tmp_path / "runs/culprits").trials()
    assert sorted(trials.loc[trials["status"] == "done", "seed"]) == [0, 2, 4, 5, 7]
    killed = trials.loc[trials["seed"] == 1, "error"].item()
    assert "ActorDiedError" in killed


def test_the_jobs_api_asks_for_the_token(cluster: RayCluster) -> None:
    found = refusals(cluster.dashboard)
    assert {name: code in (401, 403) for name, code in found.items()} == dict.fromkeys(found, True), found


def test_a_client_with_another_token_is_refused_in_one_message(cluster: RayCluster, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN[::-1])
    (tmp_path / "token").chmod(0o600)
    environment = {**cluster.environment, "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
    command = [sys.executable, "-m", "landsweep", "status", "--address", cluster.dashboard]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2
    assert "the cluster refuses the token" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert TOKEN[::-1] not in ended.stderr
