"""Execution modes agree: a small form of ``tests.evidence_modes``."""

from __future__ import annotations

import pytest

from landsweep.workers import compiled
from tests import evidence_modes

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(compiled.found_compiler() is None, reason="no C++ compiler"),
]


def test_points_are_of_the_same_kind_and_index() -> None:
    said, agree = evidence_modes.points(minima=24, saddles=16, large=1)
    assert agree, said


def test_trained_nets_are_distributed_alike() -> None:
    said, agree = evidence_modes.training(128)
    assert agree, said
