"""The simulated cluster: what must hold exactly where nothing goes wrong, and what holds whatever does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landsweep.cluster import policy, pool
from tests.evidence_scaling import CLUSTERS, MEASURED, WORKERS, measured_batches, simulated_runs, table
from tests.simulated_cluster import Machine, Simulated, Simulation, batches_of

ALIKE = {"a": [1.0]}
FREE = Machine(
    node_hours=1e12, straggler_share=0.0, handle_seconds=0.0, gather_trial_seconds=0.0, gather_batch_seconds=0.0
)


def simulate(
    measured: dict[str, list[float]], trials: int, size: int, workers: int, machine: Machine, seed: int = 0
) -> Simulated:
    return Simulation(batches_of(measured, trials, size), measured, workers, machine, seed).run()


def test_one_worker_takes_the_sum() -> None:
    run = simulate({"a": [0.5, 2.0], "b": [3.0]}, 40, 4, 1, FREE)
    assert run.seconds == pytest.approx(run.ideal, rel=1e-12)
    assert run.done == 80
    fixed = simulate({"b": [3.0]}, 40, 4, 1, FREE)
    assert fixed.seconds == pytest.approx(3.0 * 40, rel=1e-12)


@pytest.mark.parametrize("workers", [2, 5, 8])
def test_equal_batches_take_whole_rounds(workers: int) -> None:
    """24 batches of 10 s on w workers: ⌈24/w⌉ rounds."""
    run = simulate(ALIKE, 240, 10, workers, FREE)
    assert run.seconds == pytest.approx(10.0 * -(-24 // workers), rel=1e-12)


def test_what_the_driver_takes_comes_on_top() -> None:
    """One worker waits while the driver handles a batch, 24·(10 + 0.25) s, not while it gathers what came before; the
    last two batches, 2·(1 + 0.1) s, are gathered when nothing runs."""
    run = simulate(ALIKE, 240, 10, 1, replace(FREE, handle_seconds=0.25))
    assert run.seconds == pytest.approx(24 * 10.25, rel=1e-12)
    run = simulate(ALIKE, 240, 10, 1, replace(FREE, gather_trial_seconds=0.01, gather_batch_seconds=1.0))
    assert run.gathering == pytest.approx(240 * 0.01 + 24 * 1.0)
    assert run.seconds == pytest.approx(240 + 2 * 1.1)


def test_a_late_batch_runs_twice_and_the_first_to_end_counts() -> None:
    """A try may take 100 times as long: the second begins a second after twice the usual, and takes the usual."""
    seeds = (seed for seed in range(100))
    machine = replace(FREE, straggler_share=0.02, straggler_factor=100.0, node_workers=1)
    late = [run for seed in seeds if (run := simulate(ALIKE, 200, 20, 10, machine, seed)).doubled]
    assert late  # 10 batches of 20 s on 10 workers
    for run in late:
        assert run.done == 200
        assert run.seconds == pytest.approx(2 * 20.0 + 1.0 + 20.0) or run.seconds == 2000  # both tries late
    assert sum(run.seconds < 100 for run in late) > 0.9 * len(late)


def test_without_second_tries_the_latest_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "stragglers", lambda *arguments: [])
    machine = replace(FREE, straggler_share=0.02, straggler_factor=100.0, node_workers=1)
    slowest = max(simulate(ALIKE, 200, 20, 10, machine, seed).seconds for seed in range(20))
    assert slowest == pytest.approx(2000.0)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    workers=st.integers(1, 40),
    trials=st.integers(1, 300),
    size=st.integers(1, 16),
    hours=st.sampled_from([0.02, 0.1, 1.0]),
    share=st.sampled_from([0.0, 0.1, 0.5]),
)
def test_whatever_fails_each_trial_is_done_or_given_up(
    seed: int, workers: int, trials: int, size: int, hours: float, share: float
) -> None:
    machine = Machine(node_workers=4, node_hours=hours, straggler_share=share, replace_seconds=20.0)
    run = simulate({"a": [1.0, 2.0], "b": [0.3]}, trials, size, workers, machine, seed)
    assert run.done + run.failed == 2 * trials
    assert run == simulate({"a": [1.0, 2.0], "b": [0.3]}, trials, size, workers, machine, seed)


def test_nodes_that_fail_are_seen_and_cost_time() -> None:
    calm, stormy = (
        simulate(ALIKE, 4000, 10, 8, replace(FREE, node_hours=hours, node_workers=2)) for hours in (1e12, 0.1)
    )
    assert (calm.lost, calm.failed, calm.done) == (0, 0, 4000)
    assert stormy.lost > 0
    assert stormy.done == 4000
    assert stormy.seconds > calm.seconds


def test_the_order_of_batches_is_the_runs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is in the simulation that decides by itself: with another decision it goes another way."""
    before = simulate(ALIKE, 240, 10, 4, FREE).seconds
    monkeypatch.setattr(policy, "in_flight", lambda workers: 1)
    assert simulate(ALIKE, 240, 10, 4, FREE).seconds == pytest.approx(240.0) != before


def test_the_documented_table_is_what_the_command_prints() -> None:
    """A column of it; the others are of ten times as many batches."""
    name = "10⁵ trials"
    workers = WORKERS[1:5]
    found = simulated_runs(json.loads(MEASURED.read_text()), workers, {name: CLUSTERS[name]})
    text = (Path(__file__).parents[1] / "docs/scale.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    place = next(row for row in rows if row[0] == "workers").index(name)
    documented = {row[0]: row[place] for row in rows if len(row) == len(CLUSTERS) + 1}
    for row in table(found, workers).splitlines()[2:]:
        count, efficiency = (cell.strip() for cell in row.strip("|").split("|"))
        assert documented[count] == efficiency


def test_batch_times_are_taken_from_results(tmp_path: Path) -> None:
    from landsweep.cluster.store import SweepStore
    from tests import fabricated

    store = SweepStore(tmp_path / "small")
    store.files.write("sweep.yaml", b"name: small\n")
    fabricated.stage(store, "aa", [0, 1])
    assert measured_batches(store.uri)["trials_a_batch"] == 2
    assert list(measured_batches(store.uri)["seconds_a_trial"]) == ["aa"]
