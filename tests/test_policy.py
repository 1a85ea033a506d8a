"""What follows a failure, in which order work goes out, and when it is gathered: pure functions, no clock."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from landsweep.cluster import policy
from landsweep.cluster.plan import Batch, Batches, Configuration, Left, batch_id
from landsweep.cluster.policy import FailedTrial, Work
from landsweep.cluster.spans import Spans
from landsweep.workers.record import trial_id


def configuration(name: str = "c0", saddles: dict[str, Any] | None = None) -> Configuration:
    return Configuration(name, {"search": {"saddles": saddles}}, {})


def batch(*seeds: int, config: Configuration | None = None) -> Batch:
    config = config or configuration()
    return Batch(batch_id(config.id, seeds), config, seeds)


def settle(work: Work, kind: Any, culprits: set[int], retries: int) -> tuple[set[int], list[FailedTrial], list[Work]]:
    """Run ``work`` to its end, every batch that holds a culprit failing: (done, given up, what was tried)."""
    done: set[int] = set()
    given_up, tried, waiting = [], [], deque([work])
    while waiting:
        one = waiting.popleft()
        tried.append(one)
        if not culprits & set(one.batch.seeds):
            done |= set(one.batch.seeds)
            continue
        follow = policy.after_failure(one, kind, "boom", retries)
        if isinstance(follow, FailedTrial):
            given_up.append(follow)
        else:
            waiting.extend(follow)
    return done, given_up, tried


def test_a_lost_process_gets_the_same_batch_again() -> None:
    work = Work(batch(1, 2, 3))
    for attempt in (2, 3, 4):
        (work,) = policy.after_failure(work, "lost", "killed", retries=3)  # type: ignore[misc]
        assert (work.batch, work.attempt) == (batch(1, 2, 3), attempt)
    halves = policy.after_failure(work, "lost", "killed", retries=3)
    assert isinstance(halves, list)
    assert [half.batch.seeds for half in halves] == [(1,), (2, 3)]
    assert [(half.attempt, half.losses) for half in halves] == [(5, 0), (5, 0)]


def test_a_lost_node_is_no_fault_of_its_batch() -> None:
    work = Work(batch(1, 2))
    for count in range(1, policy.EVICTIONS + 1):
        (work,) = policy.after_failure(work, "node", "gone", retries=0)  # type: ignore[misc]
        assert (work.batch, work.attempt, work.losses, work.evictions) == (batch(1, 2), count + 1, 0, count)
    follow = policy.after_failure(work, "node", "gone", retries=0)
    assert isinstance(follow, list)
    assert [half.batch.seeds for half in follow] == [(1,), (2,)]


def test_without_retries_a_lost_batch_is_halved_at_once() -> None:
    follow = policy.after_failure(Work(batch(1, 2)), "lost", "killed", retries=0)
    assert follow == [Work(batch(1), 2), Work(batch(2), 2)]


def test_an_error_is_not_tried_again_as_it_was() -> None:
    follow = policy.after_failure(Work(batch(1, 2, 3, 4)), "error", "boom", retries=3)
    assert follow == [Work(batch(1, 2), 2), Work(batch(3, 4), 2)]


@pytest.mark.parametrize("kind", ["error", "lost"])
def test_a_single_trial_is_given_up_with_its_error(kind: Any) -> None:
    work = Work(batch(7), attempt=5, losses=2)
    assert policy.after_failure(work, kind, "boom", retries=2) == FailedTrial(work, "boom")


@given(
    seeds=st.sets(st.integers(0, 200), min_size=1, max_size=64),
    culprits=st.sets(st.integers(0, 200), max_size=5),
    kind=st.sampled_from(["error", "lost"]),
    retries=st.integers(0, 3),
)
def test_culprits_are_isolated_and_their_mates_finish(
    seeds: set[int], culprits: set[int], kind: str, retries: int
) -> None:
    done, given_up, tried = settle(Work(batch(*sorted(seeds))), kind, culprits, retries)
    assert done == seeds - culprits
    assert sorted(one.work.batch.seeds[0] for one in given_up) == sorted(seeds & culprits)
    assert all(len(one.work.batch.seeds) == 1 for one in given_up)
    assert all(one.batch.id == batch_id("c0", one.batch.seeds) for one in tried)
    tries = [one.batch.id for one in tried]
    assert max(map(tries.count, tries)) <= (retries + 1 if kind == "lost" else 1)
    for culprit in culprits & seeds:  # each attempt of a trial has a higher number than the one before
        attempts = [one.attempt for one in tried if culprit in one.batch.seeds]
        assert attempts == list(range(1, len(attempts) + 1))


def left(config: Configuration, *seeds: int) -> Left:
    return Left(config, Spans.of(seeds))


def test_what_costs_most_goes_first() -> None:
    searching, plain = configuration("s", {"per_trial": 2, "trials": 4}), configuration("c0")
    parts = (left(plain, *range(30), 64, 65), left(searching, 2, 3, 36, 37))
    order = [work.batch for work in policy.longest_first(Batches(parts, 32), {})]
    searched, beyond = batch(2, 3, config=searching), batch(36, 37, config=searching)
    assert order == [searched, batch(*range(30)), batch(64, 65), beyond]
    everywhere = left(configuration("e", {"per_trial": 1, "trials": "all"}), 9)
    first = next(policy.longest_first(Batches((left(plain, 0, 1), everywhere), 32), {}))
    assert first.batch.config == everywhere.config


def test_a_retry_counts_on_from_the_attempts_before() -> None:
    tried = {trial_id("c0", 1): 3, trial_id("c0", 2): 2, trial_id("other", 5): 9}
    works = policy.longest_first(Batches((left(configuration("c0"), 1, 2, 3, 5),), 4), tried)
    assert [(work.batch.seeds, work.attempt, work.losses) for work in works] == [((1, 2, 3), 4, 0), ((5,), 1, 0)]


def test_each_worker_has_one_batch_waiting() -> None:
    assert [policy.in_flight(workers) for workers in (0, 1, 8)] == [2, 2, 16]


@pytest.mark.parametrize(
    ("rows", "oldest", "age", "ended", "wanted"),
    [
        (0, 1e6, 1e6, True, False),  # nothing to gather
        (1, 0.0, 0.0, True, True),  # the end
        (policy.SEGMENT_ROWS, 0.0, 0.0, False, True),
        (policy.SEGMENT_ROWS - 1, 10.0, 0.0, False, False),
        (1, 10.1, 0.0, False, True),
        (1, 10.1, 2000.0, False, False),  # 1 % of the sweep's age is 20 s
        (1, 20.1, 2000.0, False, True),
    ],
)
def test_when_staged_batches_are_gathered(rows: int, oldest: float, age: float, ended: bool, wanted: bool) -> None:
    assert policy.should_gather(rows, oldest, age, ended) is wanted
