"""Where workers live, which node rests, what runs twice: pure functions, no clock, no Ray."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from landsweep.cluster import pool
from landsweep.cluster.pool import Health, Running, Shape


@pytest.mark.parametrize(
    ("shape", "node", "slots"),
    [
        (Shape(1, 0), {"CPU": 4.0}, 4),
        (Shape(0.1, 0), {"CPU": 1.0}, 10),  # 1/0.1 is no integer in binary
        (Shape(3, 0), {"CPU": 8.0}, 2),
        (Shape(1, 1), {"CPU": 8.0, "GPU": 2.0}, 2),
        (Shape(1, 0.5), {"CPU": 8.0, "GPU": 2.0}, 4),
        (Shape(1, 0.4), {"CPU": 64.0, "GPU": 2.0}, 4),  # two a GPU: no batch spans two
        (Shape(4, 0.25), {"CPU": 8.0, "GPU": 2.0}, 2),
        (Shape(1, 2), {"CPU": 8.0, "GPU": 5.0}, 2),
        (Shape(1, 1), {"CPU": 8.0}, 0),
        (Shape(1, 0), {"GPU": 1.0}, 0),
        (Shape(0, 0), {"CPU": 3.0}, 3),
    ],
)
def test_how_many_workers_a_node_holds(shape: Shape, node: dict[str, float], slots: int) -> None:
    assert shape.slots(node) == slots


def test_a_shape_in_rays_words() -> None:
    assert Shape(2, 0.5).bundle() == {"CPU": 2, "GPU": 0.5}
    assert Shape(1, 0).bundle() == {"CPU": 1}


def lose(health: Health, *batches: str, now: float) -> Health:
    for batch in batches:
        health = pool.after_batch(health, batch, True, now)
    return health


def test_a_node_rests_after_different_batches_in_a_row_died_there() -> None:
    health = lose(Health(), "a", "b", now=7.0)
    assert health.until < 7.0
    health = lose(health, "c", now=7.0)
    assert health.until == 7.0 + pool.QUARANTINE_SECONDS
    again = lose(health, "d", "e", "f", now=1000.0)
    assert again.until == 1000.0 + 2 * pool.QUARANTINE_SECONDS


def test_the_same_batch_dying_is_not_the_nodes_fault() -> None:
    assert lose(Health(), *["a"] * 20, now=7.0).until < 7.0


def test_a_batch_that_ends_well_clears_the_node() -> None:
    health = pool.after_batch(lose(Health(), "a", "b", now=0.0), "c", False, 1.0)
    assert lose(health, "d", "e", now=2.0).until < 2.0


def test_what_is_leaving_or_resting_gets_no_work_unless_nothing_else_is_there() -> None:
    resting = {"b": Health(until=10.0)}
    assert pool.usable({"a": False, "b": False, "c": True}, resting, 9.0) == {"a"}
    assert pool.usable({"a": False, "b": False, "c": True}, resting, 10.0) == {"a", "b"}
    assert pool.usable({"b": False, "c": True}, resting, 9.0) == {"b"}
    assert pool.usable({"c": True}, {}, 0.0) == set()


@given(
    slots=st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 8), max_size=6),
    have=st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 8), max_size=8),
    most=st.integers(0, 30),
)
def test_workers_fill_the_slots_and_no_more(slots: dict[str, int], have: dict[str, int], most: int) -> None:
    started = Counter(pool.missing(slots, have, most))
    total = sum(have.values())
    free = {node: max(0, limit - have.get(node, 0)) for node, limit in slots.items()}
    assert started.total() == min(sum(free.values()), max(0, most - total))
    assert all(count <= free[node] for node, count in started.items())


def test_workers_go_to_the_emptiest_node_first() -> None:
    assert pool.missing({"a": 3, "b": 3}, {"a": 2}, 5) == ["b", "b", "a"]


def test_what_the_autoscaler_is_asked_for() -> None:
    assert pool.requested(5, 2, 100) == 7
    assert pool.requested(5, 2, 4) == 4
    assert pool.requested(10**6, 0, 10**6) == pool.MOST_REQUESTED


def late(started: float, now: float, ended: dict[str, list[float]], cost: float = 1.0, like: str = "c") -> bool:
    return pool.stragglers([Running("b", like, cost, started)], ended, now) == ["b"]


def test_a_straggler_takes_twice_what_its_like_take() -> None:
    ended = {"c": [19.0, 20.0, 21.0]}
    assert not late(0.0, 40.0, ended)
    assert late(0.0, 40.1, ended)
    assert not late(0.0, 80.0, ended, cost=2.0)  # twice the work
    assert late(0.0, 80.1, ended, cost=2.0)


def test_nothing_young_and_nothing_without_its_like_is_a_straggler() -> None:
    assert not late(0.0, pool.STRAGGLER_SECONDS, {"c": [0.1] * 5})
    assert late(0.0, pool.STRAGGLER_SECONDS + 0.1, {"c": [0.1] * 5})
    assert not late(0.0, 1e6, {"c": [1.0, 1.0]})


def test_where_few_of_a_configuration_ended_all_count() -> None:
    ended = {"c": [100.0], "d": [10.0, 10.0]}
    assert late(0.0, 20.1, ended)
    assert not late(0.0, 20.1, {**ended, "c": [100.0] * 3})


def test_the_latest_comes_first() -> None:
    running = [Running("slow", "c", 1.0, 50.0), Running("slowest", "c", 1.0, 0.0), Running("fine", "c", 1.0, 99.0)]
    assert pool.stragglers(running, {"c": [10.0] * 3}, 100.0) == ["slowest", "slow"]


def test_a_second_try_goes_elsewhere_where_it_can() -> None:
    assert pool.elsewhere(["a", "b"], {"a"}) == 1
    assert pool.elsewhere(["a", "a"], {"a"}) == 0
