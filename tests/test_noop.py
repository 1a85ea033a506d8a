"""Very many trials that do nothing: the plan makes no batch, the flow is bounded, files are few, the log is short."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import landsweep
from landsweep.cluster import commit, memory, plan, spec
from landsweep.cluster import run as runs
from landsweep.cluster.execute import Job, Summary
from landsweep.cluster.executors import Completion, InlineExecutor
from landsweep.cluster.files import LocalFiles
from landsweep.cluster.prepare import Plan, prepare
from landsweep.cluster.store import SweepStore
from tests import fabricated
from tests.noop import TABLES, noop_sweep
from tests.processes import environment

pytestmark = pytest.mark.usefixtures("one_thread")
MILLION = 1_000_000


def planned(folder: Path, seeds: int, **changes: Any) -> Plan:
    return prepare(spec.validate(noop_sweep(folder, seeds, **changes), "noop"))


@pytest.fixture(autouse=True)
def own_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The configurations of the batches that were made, one entry a batch."""
    found: list[str] = []
    real = plan.batch_id

    def counted(config: str, seeds: Any) -> str:
        found.append(config)
        return real(config, seeds)

    monkeypatch.setattr(plan, "batch_id", counted)
    return found


def test_a_million_trials_are_planned_without_their_batches(tmp_path: Path, made: list[str]) -> None:
    found = planned(tmp_path, MILLION)
    assert (found.total, found.left, found.size, len(found.batches)) == (MILLION, MILLION, 1024, 977)
    assert made == []


@pytest.mark.parametrize(
    ("bytes_a_trial", "total", "size"),
    [
        (100, 10**6, 1024),
        (100, 64 * 512, 512),  # more would leave fewer than 64 batches
        (100, 4096, 64),
        (2**18, 10**6, 128),  # 32 MiB more than one trial; 256 of them add more
        (2**20, 10**6, 64),
        (2**25, 10**6, 16),  # half of the limit of 1 GiB; twice as many would take all of it, more than SURE
    ],
)
def test_only_cheap_trials_share_large_batches(bytes_a_trial: int, total: int, size: int) -> None:
    found = memory.allotted([lambda trials: bytes_a_trial * trials], "auto", 2**30, total, total)
    assert found == memory.Allotment(size, size * bytes_a_trial)


class Pretending:
    """Says at once that every batch is done, and counts what it holds."""

    workers = 3

    def __init__(self, made: list[str]) -> None:
        self._made, self._held = made, deque[Job]()
        self.most_held = self.most_ahead = self.done = 0

    def submit(self, job: Job) -> None:
        self._held.append(job)
        self.most_held = max(self.most_held, len(self._held))
        self.most_ahead = max(self.most_ahead, len(self._made) - self.done)

    def wait(self, timeout: float) -> list[Completion]:
        self.done += 1
        return [Completion(self._held.popleft(), Summary("nowhere"))]

    def withdraw(self) -> int:
        raise AssertionError("nobody asked to stop")

    def close(self) -> None:
        pass


def test_the_driver_holds_few_batches_at_a_time(tmp_path: Path, made: list[str]) -> None:
    executor = Pretending(made)
    progress = runs.run(planned(tmp_path, MILLION), lambda: executor, lambda progress: None)
    assert (progress.done, executor.done) == (MILLION, 977)
    assert executor.most_held == 2 * executor.workers
    assert executor.most_ahead <= 3 * executor.workers  # made and not done: those held, and few that come next


def test_many_trials_leave_few_files_and_a_short_log(tmp_path: Path) -> None:
    found = planned(tmp_path, 3000, resources={"batch": 250, "checkpoint": None})
    assert runs.run(found, InlineExecutor, lambda progress: None).done == 3000
    sweep = tmp_path / "runs/noop"
    for table in TABLES:
        rows = pd.read_parquet(sweep / table)
        assert sorted(rows["seed"]) == list(range(3000)), table
        assert len(list((sweep / table).iterdir())) <= 2
    assert len(list((sweep / "parameters").iterdir())) <= 2
    claims = [path.read_text() for path in (sweep / "log").glob("*.json")]
    assert sum(map(len, claims)) < 2000  # thousands of seeds are a few runs of them
    assert sum(stop - start for claim in claims for ((start, stop),) in json.loads(claim)["trials"].values()) == 3000
    assert planned(tmp_path, 3000).left == 0
    assert planned(tmp_path, 3001).left == 1


def test_each_batch_finds_its_parameters_among_those_of_others(tmp_path: Path) -> None:
    runs.run(planned(tmp_path, 40, resources={"batch": 8}), InlineExecutor, lambda progress: None)
    opened = landsweep.open(tmp_path / "runs/noop")
    points = opened.points()
    assert len(list((tmp_path / "runs/noop/parameters").iterdir())) == 1
    for point, objective in zip(points["point"], points["objective"], strict=True):
        arrays = opened.parameters(point)
        assert 0.5 * arrays["theta"][0] ** 2 == pytest.approx(objective, rel=1e-15)
        assert (arrays["theta"] == arrays["trained"]).all()  # no step was taken
    assert points["objective"].nunique() == 40


def test_an_entry_of_the_log_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SweepStore(tmp_path)
    for seed in range(3):
        fabricated.stage(store, "aa", [seed])
        commit.gather(store)
    store.snapshot()
    read: list[str] = []
    real = LocalFiles.read

    def counted(self: LocalFiles, name: str, *arguments: Any) -> bytes:
        read.append(name)
        return real(self, name, *arguments)

    monkeypatch.setattr(LocalFiles, "read", counted)
    assert len(store.snapshot().trials()["aa"]) == 3
    assert read == []
    name = fabricated.stage(SweepStore(tmp_path), "aa", [3])
    assert len(store.snapshot().trials()["aa"]) == 4
    assert read == [f"staged/{name}/batch.json"]


_DRIVER = """
import sys
from pathlib import Path
from landsweep.cluster import run, spec
from landsweep.cluster.executors import InlineExecutor
from landsweep.cluster.prepare import prepare
from landsweep.workers import execution
from tests.noop import noop_sweep

execution.prepare(1, False)
plan = prepare(spec.validate(noop_sweep(Path(sys.argv[1]), 80, resources={"batch": 4}), "noop"))
print("planned", plan.left, flush=True)
sys.stdin.readline()
print("done", run.run(plan, InlineExecutor, lambda progress: None).done)
"""


def test_two_drivers_at_once_leave_the_tables_of_one(tmp_path: Path) -> None:
    """Both have planned all of it before either begins."""
    together, alone = tmp_path / "together", tmp_path / "alone"
    together.mkdir()
    alone.mkdir()
    command = [sys.executable, "-c", _DRIVER, str(together)]
    pipe, root = subprocess.PIPE, Path(__file__).parents[1]
    variables = environment({"PYTHONPATH": str(root)})
    drivers = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=variables) for _ in range(2)]
    try:
        for driver in drivers:
            assert driver.stdout is not None
            assert driver.stdout.readline() == "planned 80\n"
        ends = []
        for driver in drivers:  # the first line lets each go
            assert driver.stdin is not None
            driver.stdin.write("go\n")
            driver.stdin.flush()
        for driver in drivers:
            ends.append(driver.communicate(timeout=600)[0])
    finally:
        for driver in drivers:
            driver.kill()
    assert ends == ["done 80\n"] * 2
    runs.run(planned(alone, 80, resources={"batch": 4}), InlineExecutor, lambda progress: None)
    for table in TABLES:
        one, two = (pd.read_parquet(folder / "runs/noop" / table) for folder in (alone, together))
        frames = [
            frame.sort_values("seed", ignore_index=True).drop(columns="seconds", errors="ignore")
            for frame in (one, two)
        ]
        pd.testing.assert_frame_equal(*frames, check_exact=True)
    assert list((together / "runs/noop/staged").iterdir()) == []
    assert planned(together, 80).left == 0
