"""The verdict's level and power on simulated data: small seeded forms of what ``tests.evidence_analysis`` measures."""

from __future__ import annotations

import math

import numpy as np
import pytest

from landsweep.analysis.equivalence import Sample
from landsweep.analysis.power import power_of
from landsweep.analysis.verdict import VerdictOptions, verdict
from tests.planted import cell
from tests.simulated import ALPHA, SETTINGS, SHAPES, Setting, draw, level, says

SETS = 300
LIMIT = ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / SETS)


@pytest.mark.parametrize("setting", [SETTINGS[2], SETTINGS[3], SETTINGS[6]], ids=lambda setting: setting.name)
def test_the_level_is_kept_where_it_is_claimed(setting: Setting) -> None:
    assert setting.claimed
    found = level(setting, SETS, 200)
    assert found.largest <= LIMIT
    assert found.above + found.below + found.different > 0.03  # a test that never speaks keeps every level


def test_the_level_over_many_configurations() -> None:
    assert level(SETTINGS[0], 60, 200).largest <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / 60)


@pytest.mark.parametrize(("margin", "count", "configurations"), [(1.0, 100, 1), (0.5, 60, 1), (0.5, 8, 10)])
def test_predicted_power_is_the_observed_one(margin: float, count: int, configurations: int) -> None:
    rng = np.random.default_rng(3)
    said = 0
    for index in range(SETS):
        samples = [Sample(str(k), *pair) for k, pair in enumerate(rng.standard_normal((configurations, 2, count)))]
        said += says("equivalent", samples, margin, resamples=200, seed=index)
    predicted = power_of(margin, 1.0, count * configurations, count * configurations, configurations)
    assert said / SETS == pytest.approx(predicted, abs=0.05 + 3 * math.sqrt(0.25 / SETS))
    assert said / SETS >= (0.95 if margin == 1.0 else 0.3)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_shapes_are_standard(shape: str) -> None:
    values = SHAPES[shape](np.random.default_rng(4), 400_000)
    assert float(values.mean()) == pytest.approx(0.0, abs=0.01)
    assert float(values.std()) == pytest.approx(1.0, abs=0.1)


def test_the_true_standard_error_is_that_of_the_estimate() -> None:
    from landsweep.analysis.equivalence import combine

    setting = Setting("normal", (3, 3), (20, 20), 4, True)
    pivots = [
        combine(data.samples).value / data.error
        for data in (draw(setting, np.random.default_rng(k)) for k in range(500))
    ]
    assert np.std(pivots) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(("effect", "n"), [(0.0, 60), (0.0, 12), (0.05, 40), (0.02, 9)])
def test_what_is_simulated_is_what_the_verdict_does(effect: float, n: int) -> None:
    """``says`` on samples is the public verdict on a table of points, whatever that is."""
    rng = np.random.default_rng(5)
    for k in range(6):
        points = cell(rng, "aa", n, n, 0.4, effect).sort_values("objective", ignore_index=True)  # the bootstrap's order
        found = verdict(points, VerdictOptions(), resamples=200)
        local = points["objective"].to_numpy() > 0.11
        values = points["test_loss"].to_numpy(dtype=float)
        samples = [Sample("aa", values[local], values[~local])]
        words = {word for word in ("equivalent", "different") if says(word, samples, 0.02, resamples=200, seed=0)}
        assert words == {found.verdict} - {"inconclusive"}, k
