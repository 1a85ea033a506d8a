"""Effect sizes against published worked examples, brute force and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landsweep.analysis.effects import cliff_delta, cochran_statistic, holm, i_squared, inconsistency, plain
from landsweep.analysis.equivalence import Estimate, Sample, cochran_q
from landsweep.workers.errors import QueryError

#: Colditz et al., JAMA 271 (1994) 698–702: tuberculosis with and without BCG in 13 trials, (ill, well, ill, well).
_BCG = np.array(
    [
        [4, 119, 11, 128],
        [6, 300, 29, 274],
        [3, 228, 11, 209],
        [62, 13536, 248, 12619],
        [33, 5036, 47, 5761],
        [180, 1361, 372, 1079],
        [8, 2537, 10, 619],
        [505, 87886, 499, 87892],
        [29, 7470, 45, 7232],
        [17, 1699, 65, 1600],
        [186, 50448, 141, 27197],
        [5, 2493, 3, 2338],
        [27, 16886, 29, 17825],
    ],
    dtype=np.float64,
)


def test_cliff_delta_of_hogarty_and_kromrey() -> None:
    """Data of Hogarty & Kromrey (1999); R's effsize prints −0.25 [−0.7265846, 0.3890062] for them."""
    treatment = np.array([10, 10, 20, 20, 20, 30, 30, 30, 40, 50], dtype=np.float64)
    control = np.array([10, 20, 30, 40, 40, 50], dtype=np.float64)
    found = cliff_delta([Sample("a", treatment, control)])
    assert found.value == pytest.approx(-0.25, abs=1e-12)
    assert (found.low, found.high) == pytest.approx((-0.7265846, 0.3890062), abs=1e-7)
    swapped = cliff_delta([Sample("a", control, treatment)])
    assert (swapped.value, swapped.low, swapped.high) == pytest.approx((0.25, -found.high, -found.low), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 6), min_size=2, max_size=12),
    st.lists(st.integers(0, 6), min_size=2, max_size=12),
)
def test_cliff_delta_is_its_dominance_matrix(left: list[int], right: list[int]) -> None:
    x, y = np.array(left, dtype=np.float64), np.array(right, dtype=np.float64)
    n, m = len(x), len(y)
    d = np.sign(x[:, None] - y)
    delta = d.mean()
    rows, columns = ((d.mean(1) - delta) ** 2).sum(), ((d.mean(0) - delta) ** 2).sum()
    variance = (m * m * rows + n * n * columns - ((d - delta) ** 2).sum()) / (n * m * (n - 1) * (m - 1))
    found = cliff_delta([Sample("a", x, y)])
    assert found.value == pytest.approx(delta, abs=1e-12)
    assert found.variance == pytest.approx(max(variance, (1 - delta**2) / (n * m - 1)), abs=1e-12)
    assert -1 <= found.low <= found.value + 1e-12
    assert found.value - 1e-12 <= found.high <= 1


def test_groups_that_do_not_overlap_have_an_interval_not_a_point() -> None:
    apart = cliff_delta([Sample("a", np.arange(10.0), np.arange(20.0, 26.0))])
    assert (apart.value, apart.low) == (-1.0, -1.0)
    assert -0.7 < apart.high < 0
    again = cliff_delta([Sample("a", np.arange(20.0, 26.0), np.arange(10.0))])
    assert (again.value, again.high, again.low) == (1.0, 1.0, -apart.high)


def test_cliff_delta_does_not_mix_strata() -> None:
    """Within each stratum nothing differs; pooled, the unequal sizes would make a large δ."""
    same = np.arange(5.0)
    samples = [Sample("a", np.tile(same, 4), same), Sample("b", same + 100, np.tile(same, 4) + 100)]
    assert cliff_delta(samples).value == pytest.approx(0.0, abs=1e-12)
    pooled = Sample("ab", np.concatenate([s.local for s in samples]), np.concatenate([s.best for s in samples]))
    assert cliff_delta([pooled]).value < -0.5


@pytest.mark.parametrize(("shift", "n", "m"), [(0.0, 20, 30), (0.8, 25, 25), (1.5, 40, 15)])
def test_cliff_delta_covers_the_truth(shift: float, n: int, m: int) -> None:
    from scipy.stats import norm

    truth = 2 * norm.cdf(shift / math.sqrt(2)) - 1
    rng = np.random.default_rng(7)
    draws = 600
    found = [cliff_delta([Sample("a", rng.normal(shift, 1, n), rng.normal(0, 1, m))]) for _ in range(draws)]
    coverage = np.mean([item.low <= truth <= item.high for item in found])
    assert 0.95 - 3 * math.sqrt(0.95 * 0.05 / draws) <= coverage <= 0.99


def test_no_samples_are_refused() -> None:
    with pytest.raises(QueryError, match="2 values in each"):
        cliff_delta([])


@pytest.mark.parametrize(
    ("q", "strata", "i2", "h"),
    [
        # R's meta on the BCG trials (Mantel–Haenszel) and on the lexical correlations of 16 countries.
        (152.57, 13, (0.921, 0.883, 0.947), (3.57, 2.93, 4.34)),
        (190.13, 16, (0.921, 0.888, 0.945), (3.56, 2.98, 4.25)),
    ],
)
def test_published_i_squared(
    q: float, strata: int, i2: tuple[float, float, float], h: tuple[float, float, float]
) -> None:
    found = inconsistency(q, strata)
    assert (found.i2, found.low, found.high) == pytest.approx(i2, abs=5.1e-4)
    assert (found.h, found.h_low, found.h_high) == pytest.approx(h, abs=5.1e-3)


def test_i_squared_of_the_bcg_trials_from_the_counts() -> None:
    """Log risk ratios of the 13 trials: metafor prints Q(df = 12) = 152.2330, I² = 92.12 %, H² = 12.69."""
    a, b, c, d = _BCG.T
    ratio = np.log(a / (a + b)) - np.log(c / (c + d))
    error = np.sqrt(1 / a - 1 / (a + b) + 1 / c - 1 / (c + d))
    estimates = [Estimate(float(y), float(s), math.inf) for y, s in zip(ratio, error, strict=True)]
    found = i_squared(estimates)
    assert found is not None
    assert (found.q, found.degrees) == (pytest.approx(152.2330, abs=5e-5), 12)
    assert (found.i2, found.h**2) == (pytest.approx(0.9212, abs=5e-5), pytest.approx(12.69, abs=5e-3))


def test_i_squared_where_the_strata_agree() -> None:
    found = inconsistency(3.0, 10)
    assert (found.i2, found.h, found.low) == (0.0, 1.0, 0.0)
    error = math.sqrt((1 - 1 / (3 * 64)) / 16)
    assert found.high == pytest.approx(1 - math.exp(-2 * 1.959964 * error), abs=1e-6)
    two = inconsistency(0.5, 2)
    assert (two.i2, two.low, two.high) == (0.0, None, None)


def test_cochran_statistic_belongs_to_the_p_value_of_the_verdict() -> None:
    from scipy.stats import chi2

    estimates = [Estimate(0.1, 0.2, 9), Estimate(0.4, 0.1, 9), Estimate(-0.2, 0.3, 9)]
    q = cochran_statistic(estimates)
    assert q is not None
    assert chi2.sf(q, 2) == pytest.approx(cochran_q(estimates), rel=1e-12)
    assert cochran_statistic(estimates[:1]) is None
    assert i_squared([Estimate(0.1, 0.0, 9), Estimate(0.2, 0.1, 9)]) is None


@pytest.mark.parametrize(("q", "strata"), [(1.0, 1), (-1.0, 3), (math.nan, 3), (math.inf, 3)])
def test_i_squared_refuses_what_is_no_q(q: float, strata: int) -> None:
    with pytest.raises(QueryError, match="at least 2 strata"):
        inconsistency(q, strata)


def test_holm_in_closed_form() -> None:
    """Step-down: 4·0.01, then 3·0.013 (not below the one before), 2·0.03, 1·0.8; the order of the names stays."""
    table = holm({"d": 0.8, "a": 0.01, "none": None, "c": 0.03, "b": 0.013})
    assert table.index.tolist() == ["d", "a", "none", "c", "b"]
    assert table["p_holm"].tolist()[:2] == pytest.approx([0.8, 0.04])
    assert table["p_holm"].tolist()[3:] == pytest.approx([0.06, 0.04])
    assert math.isnan(table.loc["none", "p_holm"])
    assert table["rejected"].tolist() == [False, True, False, False, True]
    assert holm({"a": None})["rejected"].tolist() == [False]
    with pytest.raises(QueryError, match=r"\[0, 1\]"):
        holm({"a": 1.5})


def test_plain_values_are_json() -> None:
    value = {"a": np.float64(1.5), "b": [math.nan, np.int64(2)], "c": {"d": (None, True, "x")}}
    assert plain(value) == {"a": 1.5, "b": [None, 2], "c": {"d": [None, True, "x"]}}
