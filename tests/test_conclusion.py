"""Verdict, report and figures, made beside the driver."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest

import landsweep
from landsweep.analysis import conclusion
from landsweep.cluster import commit
from landsweep.cluster.store import SweepStore
from landsweep.workers.errors import ExecutionError, QueryError, StoreError
from tests.fabricated import stage


@pytest.fixture
def store(tmp_path: Path) -> SweepStore:
    found = SweepStore(str(tmp_path / "sweep"))
    found.files.write("sweep.yaml", b"name: sweep\n")
    for config in ("a", "b"):
        stage(found, config, range(12))
    commit.gather(found)
    return found


def test_the_answer_is_what_the_sweep_says(store: SweepStore, tmp_path: Path) -> None:
    said = landsweep.open(store.uri).verdict(False)
    answer = conclusion.conclude(store.uri, {}, tmp_path)
    assert {**answer.verdict, "details": None} == {**said.as_dict(), "details": None}
    assert answer.summary == said.summary()
    assert answer.report.startswith(b"<!doctype html>")
    points = landsweep.open(store.uri).points()
    for config, rows in points.groupby("config"):
        kept = pd.read_parquet(tmp_path / str(config) / "points.parquet")
        assert list(kept["point"]) == list(rows["point"])
        assert (tmp_path / str(config) / "test_loss.png").read_bytes().startswith(b"\x89PNG")


def test_its_errors_are_the_drivers(store: SweepStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no sweep there"):
        conclusion.conclude(str(tmp_path / "nowhere"), {}, None)
    with pytest.raises(QueryError, match="alpha is 2"):
        conclusion.conclude(store.uri, {"alpha": 2}, None)


def test_a_process_that_is_killed_costs_its_answer_alone(store: SweepStore) -> None:
    me, before = psutil.Process(), signal.getsignal(signal.SIGINT)

    def kill() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for child in me.children():
                if "spawn_main" in " ".join(child.cmdline()):
                    os.kill(child.pid, signal.SIGKILL)
                    return
            time.sleep(0.001)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(ExecutionError, match=r"ended with exit code -9 .* every trial is committed"):
        conclusion.conclude(store.uri, {}, None)
    killer.join()
    assert signal.getsignal(signal.SIGINT) is before
    assert conclusion.conclude(store.uri, {}, None).summary
