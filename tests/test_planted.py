"""Sweeps with a planted truth get the right verdict: a few seeded draws of each."""

from __future__ import annotations

import numpy as np
import pytest

from tests import planted


@pytest.mark.parametrize("name", planted.TRUTHS)
def test_the_planted_truth_is_found(name: str) -> None:
    assert planted.share_right(name, 8, 500, seed=11) == 1.0, planted.TRUTHS[name].text


def test_the_naive_test_is_wrong_where_width_confounds() -> None:
    rng = np.random.default_rng(1)
    assert planted.naive(planted.confounded(rng)) < 1e-6
    assert planted.naive(planted.equal(rng)) > 1e-6


def test_a_wrong_answer_is_not_right() -> None:
    """The checks themselves can fail: each truth's sweep is wrong for another truth."""
    from landsweep.analysis.verdict import verdict

    rng = np.random.default_rng(2)
    pairs = {"worse": "equal", "equal": "worse", "confounded": "worse", "opposite": "equal", "lucky": "lucky among"}
    for name, other in pairs.items():
        points = planted.TRUTHS[other].draw(rng)
        assert not planted.TRUTHS[name].right(verdict(points, resamples=500), points), name
