"""class_id: planted classes, the tolerance's edge, chains, and names that no row order changes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landsweep.analysis.classes import assign_classes
from landsweep.workers.errors import QueryError


def classes(prints: list[list[float] | None], keys: list[str] | str = "L") -> list[str | None]:
    keys = [keys] * len(prints) if isinstance(keys, str) else keys
    ids = assign_classes(pd.DataFrame({"fingerprint": pd.Series(prints, dtype=object)}), pd.Series(keys, dtype="str"))
    return [None if pd.isna(name) else name for name in ids]


def test_planted_classes_are_found_and_ranked_by_objective() -> None:
    rng = np.random.default_rng(1)
    centres = [[0.5, 0, 2, 1.0, -3.0], [0.1, 0, 2, 7.0, 40.0], [0.5, 0, 2, 1.0, -3.001], [0.5, 1, 2, 1.0, -3.0]]
    which = rng.integers(0, 4, 400)
    noise = rng.normal(0, 1e-10, 400)
    names = classes(
        [[centres[k][0] + e, *centres[k][1:4], centres[k][4] + e] for k, e in zip(which, noise, strict=True)]
    )
    assert {names[row] for row in np.flatnonzero(which == 1)} == {"L-0"}
    assert len({(name, k) for name, k in zip(names, which, strict=True)}) == 4
    assert set(names) == {"L-0", "L-1", "L-2", "L-3"}


@pytest.mark.parametrize("size", [0.0, 1.0, 1e3, 1e6])
def test_the_tolerance_is_relative_above_one_and_absolute_below(size: float) -> None:
    unit = 1e-6 * max(1.0, size)
    near, far = [size, 0, 0, 1.0], [size + 0.8 * unit, 0, 0, 1.0]
    assert len(set(classes([near, far]))) == 1
    assert len(set(classes([near, [size + 1.3 * unit, 0, 0, 1.0]]))) == 2
    assert len(set(classes([[0.3, 0, 0, size], [0.3, 0, 0, -size - 3e-6]]))) == 2


def test_single_linkage_follows_a_chain() -> None:
    chain: list[list[float] | None] = [[0.1 + 8e-7 * k, 0, 0, 0.0] for k in range(50)]
    assert len(set(classes(chain))) == 1
    assert len(set(classes([*chain[:20], *chain[22:]]))) == 2


def test_every_coordinate_counts() -> None:
    base = [0.2, 0, 1, 0.5, 0.5]
    for place in range(5):
        other = list(base)
        other[place] += 1.0
        assert len(set(classes([base, other]))) == 2, place


def test_landscapes_do_not_mix_and_nulls_stay_null() -> None:
    prints: list[list[float] | None] = [[0.2, 0, 0], [0.2, 0, 0], None, [float("nan"), 0, 0]]
    assert classes(prints, ["a", "b", "a", "a"]) == ["a-0", "b-0", None, None]
    assert classes([]) == []


def test_many_repeats_of_one_point_are_no_quadratic_work() -> None:
    prints: list[list[float] | None] = [[0.2 + 1e-12 * (k % 7), 0, 0, 1.0] for k in range(30_000)]
    assert set(classes(prints)) == {"L-0"}  # as pairs, 4.5e8 of them, they would need gigabytes


def test_wrong_requests() -> None:
    with pytest.raises(QueryError, match="fingerprint"):
        assign_classes(pd.DataFrame({"objective": [1.0]}), pd.Series(["a"]))
    with pytest.raises(QueryError, match="index"):
        assign_classes(pd.DataFrame({"fingerprint": [[1.0, 0, 0]]}), pd.Series(["a"], index=[5]))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3), st.integers(0, 1), st.integers(0, 12)), max_size=25),
    st.randoms(use_true_random=False),
)
def test_row_order_changes_no_name(rows: list[tuple[str, int, int, int]], random: object) -> None:
    prints: list[list[float] | None] = [[0.1 * a, b, 0, 7e-7 * c] for _, a, b, c in rows]
    keys = [key for key, *_ in rows]
    order = list(range(len(rows)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = classes([prints[k] for k in order], [keys[k] for k in order])
    assert shuffled == [classes(prints, keys)[k] for k in order]
