"""Power: against simulation of the verdict's own rule, closed forms, and the verdict's trials_needed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from landsweep.analysis.equivalence import Sample, cochran_q, combine, inside
from landsweep.analysis.power import equivalence_power, power_of, power_table, trials_for
from landsweep.analysis.verdict import VerdictOptions, verdict
from landsweep.workers.errors import QueryError


def sweep(seed: int, local: int, best: int, sigma: float, configs: int = 1, **columns: Any) -> pd.DataFrame:
    """Minima at objective 0.5 (local) and 0.1 (global) in ``configs`` configurations, test_loss normal around 0.3."""
    rng = np.random.default_rng(seed)
    count = local + best
    frames = []
    for place in range(configs):
        config = f"c{place}"
        trials = [f"{config}-{k}" for k in range(count)]
        frames.append(
            pd.DataFrame(
                {
                    "sweep": "s",
                    "config": config,
                    "seed": range(count),
                    "trial": trials,
                    "point": [f"{trial}-training-0" for trial in trials],
                    "source": "training",
                    "kind": "minimum",
                    "objective": [0.5] * local + [0.1] * best,
                    "test_loss": rng.normal(0.3, sigma, count),
                    **{key: value[place] for key, value in columns.items()},
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


@pytest.mark.parametrize(
    ("margin", "n_local", "n_global", "configurations", "difference"),
    [
        (1.0, 12, 12, 1, 0.0),
        (0.5, 60, 80, 1, 0.0),
        (1.0, 20, 10, 1, 0.4),
        (1.0, 5, 5, 4, 0.0),
        (1.0, 3, 4, 5, 0.0),
        (0.3, 40, 20, 5, 0.1),
        (0.4, 5, 5, 20, 0.0),
    ],
)
def test_predicted_power_is_the_observed_one(
    margin: float, n_local: int, n_global: int, configurations: int, difference: float
) -> None:
    """The rule on intervals and the one on heterogeneity, 500 data sets: within 5 points and one s.e. of them."""
    rng = np.random.default_rng(11)
    draws = 500
    shown = 0
    for _ in range(draws):
        samples = [
            Sample(str(k), rng.normal(k + difference, 1, n_local), rng.normal(k, 1, n_global))
            for k in range(configurations)
        ]
        p = cochran_q([combine([one]) for one in samples])
        agree = p is None or p >= 0.05 or all(inside(combine([one]).interval(0.05), margin) for one in samples)
        shown += agree and inside(combine(samples).interval(0.05), margin)
    observed = shown / draws
    predicted = power_of(
        margin, 1.0, n_local * configurations, n_global * configurations, configurations, difference=difference
    )
    assert 0.2 < predicted < 0.95
    assert predicted == pytest.approx(observed, abs=0.05 + math.sqrt(0.25 / draws))


def test_predicted_power_is_that_of_the_whole_verdict() -> None:
    """Bootstrap and every objection included, 60 sweeps: within 5 points and one s.e. of them."""
    draws, sigma = 60, 0.02
    words = [
        verdict(sweep(seed, 24, 24, sigma, 2), VerdictOptions(margin=0.012), resamples=500).verdict
        for seed in range(draws)
    ]
    predicted = power_of(0.012, sigma, 48, 48, 2)
    observed = words.count("equivalent") / draws
    assert 0.5 < predicted < 0.95
    assert predicted == pytest.approx(observed, abs=0.05 + math.sqrt(0.25 / draws))


def test_power_in_large_samples_is_the_normal_formula() -> None:
    from scipy.stats import norm

    n, margin, difference = 4000, 0.05, 0.01
    error = math.sqrt(2 / n)
    z = norm.isf(0.05)
    expected = norm.cdf((margin - difference) / error - z) - norm.cdf(z - (margin + difference) / error)
    assert power_of(margin, 1.0, n, n, difference=difference) == pytest.approx(expected, abs=2e-3)
    assert equivalence_power(1.0, math.inf, 2.9264, 0.05) == equivalence_power(1.0, math.inf, 2.9264, 0.05, 0.0)


def test_power_at_the_margin_is_at_most_alpha() -> None:
    for n in (5, 20, 200):
        assert power_of(0.5, 1.0, n, n, difference=0.5) <= 0.05 + 1e-6
    assert power_of(0.5, 1.0, 20_000, 20_000, difference=0.5) == pytest.approx(0.05, abs=1e-3)


def test_trials_for_is_the_fewest() -> None:
    for share, configurations in [(0.5, 1), (0.2, 1), (0.3, 5)]:
        needed = trials_for(0.01, 0.02, share, configurations)
        assert needed is not None
        assert needed % configurations == 0

        def power(count: int, share: float = share, configurations: int = configurations) -> float:
            return power_of(0.01, 0.02, share * count, (1 - share) * count, configurations)

        assert power(needed) >= 0.8 > power(needed - configurations)


def test_trials_for_grows_as_the_square_and_never_below_what_a_verdict_asks() -> None:
    half, whole = trials_for(0.001, 0.02, 0.5), trials_for(0.002, 0.02, 0.5)
    assert half is not None
    assert whole is not None
    assert half / whole == pytest.approx(4, rel=0.01)
    assert trials_for(100.0, 0.02, 0.25) == 40
    assert trials_for(100.0, 0.02, 0.5, 8) == 32  # 2 of each group in each of 8 configurations
    assert trials_for(0.01, 0.02, 0.5, difference=0.02) is None
    assert power_of(0.5, 1.0, 9, 9, 5) == 0.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"margin": 0.0}, "margin is 0.0"),
        ({"sigma": math.nan}, "sigma is nan"),
        ({"share_local": 1.0}, "share_local is 1.0"),
        ({"configurations": 0}, "configurations is 0"),
        ({"alpha": 0.5}, "alpha is 0.5"),
        ({"power": 1.0}, "power is 1.0"),
    ],
)
def test_what_means_nothing_is_refused(change: dict[str, float], message: str) -> None:
    request: dict[str, Any] = {"margin": 0.1, "sigma": 0.1, "share_local": 0.5, **change}
    with pytest.raises(QueryError, match=message):
        trials_for(**request)


def test_power_of_refuses_numbers_that_are_not_finite() -> None:
    for n_local, difference in [(math.nan, 0.0), (-1, 0.0), (10, math.inf)]:
        with pytest.raises(QueryError, match="not finite"):
            power_of(0.1, 0.1, n_local, 10, difference=difference)


def test_the_table_agrees_with_the_verdict() -> None:
    points = sweep(3, 15, 25, 0.05, 2)
    table = power_table(points, [0.002, 0.01, 0.05])
    assert table["margin"].tolist() == [0.002, 0.01, 0.05]
    assert (table["n_trials"] == 80).all()
    assert table[["n_local", "n_global", "n_configs"]].iloc[0].tolist() == [30, 50, 2]
    said = verdict(points, VerdictOptions(margin=0.01), resamples=500)
    assert said.verdict == "inconclusive"
    assert table["trials_needed"][1] == said.trials_needed
    assert table["trials_needed"].is_monotonic_decreasing
    assert table["power_now"].is_monotonic_increasing
    assert (table["reason"] == "").all()


def test_the_table_repeated_with_the_trials_it_asks_for_has_the_power() -> None:
    points = sweep(5, 40, 40, 0.05)
    needed = power_table(points, [0.02], power=0.9)["trials_needed"][0]
    sigma = math.sqrt((points.groupby("objective")["test_loss"].var()).mean())
    assert power_of(0.02, sigma, needed / 2, needed / 2) == pytest.approx(0.9, abs=0.005)


def test_splits_are_the_unit_of_the_table_where_they_are_of_the_verdict() -> None:
    points = sweep(6, 6, 6, 0.05, 6, **{"landscape.split_seed": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]})
    table = power_table(points, [0.01], known_minimum=0.1)
    pooled = power_table(points.drop(columns="landscape.split_seed"), [0.01], known_minimum=0.1)
    values = [combine([Sample("", local, best)]).value for local, best in _by_config(points)]
    assert table["standard_error"][0] == pytest.approx(np.std(values, ddof=1) / math.sqrt(6), rel=1e-12)
    assert table["standard_error"][0] != pytest.approx(pooled["standard_error"][0], rel=1e-3)


def _by_config(points: pd.DataFrame) -> list[tuple[Any, Any]]:
    return [
        (
            rows.loc[rows["objective"] > 0.2, "test_loss"].to_numpy(),
            rows.loc[rows["objective"] < 0.2, "test_loss"].to_numpy(),
        )
        for _, rows in points.groupby("config")
    ]


def test_a_table_without_an_answer_says_why() -> None:
    one_group = power_table(sweep(1, 0, 20, 0.05), [0.02])
    assert one_group["trials_needed"].isna().all()
    assert one_group["reason"].tolist() == ["no configuration has 2 trials in each group"]
    still = power_table(sweep(1, 10, 10, 0.05).assign(test_loss=0.5), [0.02])
    assert still["trials_needed"].isna().all()
    assert "nothing varies" in still["reason"][0]
    for margins in ([], [0.0], [math.nan]):
        with pytest.raises(QueryError, match="positive numbers"):
            power_table(sweep(1, 10, 10, 0.05), margins)
