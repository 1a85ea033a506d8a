"""A part of the drawn sweeps: what the plan lets pass runs, and gives what it was asked for."""

from __future__ import annotations

import pytest

from tests.combinations import drawn, outcomes

pytestmark = pytest.mark.usefixtures("one_thread")
SEEDS = range(1000, 1012)


def test_drawn_sweeps_run_or_are_refused_at_the_plan() -> None:
    found = outcomes(SEEDS)
    faults = {seed: (one.fault, drawn(seed)) for seed, one in found.items() if one.fault}
    assert not faults
    assert sum(one.refused is None for one in found.values()) >= len(SEEDS) // 3
    assert any(one.refused for one in found.values())
