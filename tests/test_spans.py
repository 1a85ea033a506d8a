"""Sets of seeds as runs against Python's own sets."""

from __future__ import annotations

import doctest
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from landsweep.cluster import spans
from landsweep.cluster.spans import Spans

SEEDS = st.sets(st.integers(0, 40))


def test_examples() -> None:
    assert doctest.testmod(spans).failed == 0


@given(SEEDS, SEEDS)
def test_they_are_sets(one: set[int], other: set[int]) -> None:
    ours, theirs = Spans.of(one), Spans.of(other)
    assert list(ours) == sorted(one)
    assert (len(ours), bool(ours)) == (len(one), bool(one))
    assert list(ours | theirs) == sorted(one | other)
    assert list(ours - theirs) == sorted(one - other)
    assert [seed in ours for seed in range(-1, 43)] == [seed in one for seed in range(-1, 43)]
    assert (ours == theirs) == (one == other)
    assert ours.holds(np.arange(43)).tolist() == [seed in one for seed in range(43)]


@given(SEEDS)
def test_runs_are_as_few_as_can_be(seeds: set[int]) -> None:
    starts = [seed for seed in seeds if seed - 1 not in seeds]
    assert len(Spans.of(seeds).runs) == len(starts)


@given(SEEDS, st.integers(1, 9))
def test_parts_end_at_multiples(seeds: set[int], size: int) -> None:
    parts = [list(part) for part in Spans.of(seeds).cut(size)]
    wanted: dict[int, list[int]] = {}
    for seed in sorted(seeds):
        wanted.setdefault(seed // size, []).append(seed)
    assert parts == list(wanted.values())
    assert Spans.of(seeds).parts(size) == len(parts)


@given(SEEDS)
def test_they_survive_json(seeds: set[int]) -> None:
    written = json.loads(json.dumps(Spans.of(seeds).to_json()))
    assert list(Spans.from_json(written)) == sorted(seeds)
    assert list(Spans.from_json(sorted(seeds))) == sorted(seeds)  # a plain list is read too


@pytest.mark.parametrize("value", [[[3, 3]], [[5, 2]], [["a", "b"]], [[1]], [[1, 2, 3]], [None], 7])
def test_what_is_no_set_is_refused(value: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        Spans.from_json(value)
