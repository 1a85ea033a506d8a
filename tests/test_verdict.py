"""The verdict: against statsmodels, closed forms, planted truths, simulations with fixed seeds, and every exclusion."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landsweep.analysis.bootstrap import bootstrap_strata
from landsweep.analysis.equivalence import Estimate, Sample, cochran_q, combine, hedges_g
from landsweep.analysis.judgement import judge_splits, judge_strata
from landsweep.analysis.power import equivalence_power, nominal_alpha, scale_needed
from landsweep.analysis.trend import kendall, slope
from landsweep.analysis.verdict import KEYS, METRICS, Verdict, VerdictOptions, verdict
from landsweep.workers.errors import QueryError
from landsweep.workers.record import schema

Array = np.ndarray[Any, np.dtype[np.float64]]


def sample(rng: np.random.Generator, n: int, shift: float, sigma: float = 1.0, name: str = "a") -> Sample:
    return Sample(name, rng.normal(shift, sigma, n), rng.normal(0.0, sigma, n))


def table(local: Array, best: Array, config: str = "aa", **columns: Any) -> pd.DataFrame:
    """Points of one configuration: local minima at objective 0.5, global ones at 0.1."""
    count = len(local) + len(best)
    frame = pd.DataFrame({name: pd.Series([None] * count, dtype=object) for name in schema("points").names})
    frame = frame.assign(sweep="s", config=config, seed=range(count), source="training", kind="minimum")
    frame["trial"] = [f"{config}-{seed}" for seed in range(count)]
    frame["point"] = [f"{trial}-training-0" for trial in frame["trial"]]
    frame["objective"] = [0.5] * len(local) + [0.1] * len(best)
    frame["test_loss"] = np.concatenate([local, best])
    return frame.assign(**columns)


def normal_table(
    seed: int, n: int = 40, shift: float = 0.0, sigma: float = 0.005, config: str = "aa", **columns: Any
) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return table(rng.normal(0.3 + shift, sigma, n), rng.normal(0.3, sigma, n), config, **columns)


def several(*frames: pd.DataFrame) -> pd.DataFrame:
    return pd.concat(frames, ignore_index=True)


# --- arrays: closed forms and rival implementations -------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(2, 2), (5, 40), (30, 11)])
def test_one_stratum_is_statsmodels_welch_tost(sizes: tuple[int, int]) -> None:
    from statsmodels.stats.weightstats import CompareMeans, DescrStatsW, ttost_ind

    rng = np.random.default_rng(sum(sizes))
    local, best = rng.normal(0.1, 2.0, sizes[0]), rng.normal(0.0, 0.5, sizes[1])
    estimate = combine([Sample("a", local, best)])
    assert estimate.p_equivalence(0.7) == pytest.approx(
        ttost_ind(local, best, -0.7, 0.7, usevar="unequal")[0], abs=1e-10
    )
    rival = CompareMeans(DescrStatsW(local), DescrStatsW(best))
    assert estimate.p_difference() == pytest.approx(rival.ttest_ind(usevar="unequal")[1], abs=1e-10)
    assert estimate.interval(0.05) == pytest.approx(rival.tconfint_diff(alpha=0.1, usevar="unequal"), abs=1e-10)


def test_the_stratified_estimate_is_its_formula() -> None:
    a = Sample("a", np.array([1.0, 2.0, 6.0]), np.array([0.0, 4.0]))
    b = Sample("b", np.array([5.0, 9.0]), np.array([1.0, 1.5, 2.0, 3.5]))
    w = np.array([3 * 2 / 5, 2 * 4 / 6])
    w /= w.sum()
    parts = [(w[0] ** 2 * 7 / 3, 2), (w[0] ** 2 * 8 / 2, 1), (w[1] ** 2 * 8 / 2, 1), (w[1] ** 2 * (3.5 / 3) / 4, 3)]
    variance = sum(p for p, _ in parts)
    estimate = combine([a, b])
    assert estimate.value == pytest.approx(w[0] * 1.0 + w[1] * 5.0, rel=1e-14)
    assert estimate.standard_error == pytest.approx(math.sqrt(variance), rel=1e-14)
    assert estimate.degrees == pytest.approx(variance**2 / sum(p * p / k for p, k in parts), rel=1e-12)


def test_groups_that_do_not_vary_have_a_point_interval_and_no_nan() -> None:
    still = Sample("a", np.full(12, 0.1 + 0.2), np.full(15, 0.3))
    estimate = combine([still])
    assert estimate.value == 0.0
    assert estimate.p_difference() == 1.0
    judged = judge_strata([Sample("a", np.full(12, 0.25), np.full(15, 0.5))], margin=0.02, alpha=0.05, resamples=100)
    assert (judged.verdict, judged.ci, judged.scale_needed()) == ("different", (-0.25, -0.25), None)


def test_cochran_q_and_hedges_g_in_closed_form() -> None:
    from scipy.stats import chi2

    estimates = [Estimate(0.0, 1.0, 9), Estimate(3.0, 2.0, 9)]
    centre = (3.0 / 4) / (1 + 1 / 4)
    assert cochran_q(estimates) == pytest.approx(chi2.sf(centre**2 + (3 - centre) ** 2 / 4, 1), rel=1e-12)
    assert cochran_q(estimates[:1]) is None
    assert cochran_q([Estimate(0.1, 0.0, 9), Estimate(0.1, 0.0, 9)]) == 1.0
    pair = Sample("a", np.array([1.0, 3.0]), np.array([0.0, 2.0]))
    assert hedges_g([pair]) == pytest.approx((1 - 3 / 7) / math.sqrt(2), rel=1e-12)


def test_power_agrees_with_simulation_and_the_large_sample_formula() -> None:
    from scipy.stats import norm, t

    rng = np.random.default_rng(3)
    degrees, error, margin = 9.0, 1.0, 3.0
    spread = np.sqrt(rng.chisquare(degrees, 200_000) / degrees)
    shown = np.abs(rng.normal(0, error, 200_000)) + t.ppf(0.95, degrees) * error * spread < margin
    expected = float(shown.mean())
    assert equivalence_power(error, degrees, margin, 0.05) == pytest.approx(expected, abs=0.005)
    z = norm.ppf(0.95) + norm.ppf(0.9)
    factor = scale_needed(lambda f: Estimate(0.0, 1 / math.sqrt(f), math.inf), 0.1, 0.05, 0.1)
    assert factor == pytest.approx(z**2 / 0.01, rel=1e-6)
    assert scale_needed(lambda f: Estimate(0.0, 1.0, math.inf), 0.1, 0.05, 0.1) is None


def test_spending_never_exceeds_alpha_and_leaves_most_for_the_end() -> None:
    from scipy.stats import norm

    assert nominal_alpha(0.05, 0.5, 0.0) == pytest.approx(2 - 2 * norm.cdf(norm.ppf(0.975) / math.sqrt(0.5)), abs=1e-15)
    spent = 0.0
    for share in (0.2, 0.4, 0.6, 0.8, 1.0):
        level = nominal_alpha(0.05, share, spent)
        assert level > 0
        spent += level
    assert spent == pytest.approx(0.05, abs=1e-12)
    assert nominal_alpha(0.05, 1.0, 0.06) == 0.0
    assert nominal_alpha(0.05, 0.5, 0.0) < 0.006


def test_the_bootstrap_is_seeded_and_agrees_with_t_on_normal_data() -> None:
    rng = np.random.default_rng(4)
    samples = [sample(rng, 60, 0.2), sample(rng, 80, 0.2, name="b")]
    first, again = (bootstrap_strata(samples, resamples=2000, seed=5).interval(0.05) for _ in range(2))
    assert first == again != bootstrap_strata(samples, resamples=2000, seed=6).interval(0.05)
    assert first == pytest.approx(combine(samples).interval(0.05), abs=0.15 * combine(samples).standard_error)


def test_the_bootstrap_follows_skew_where_t_cannot() -> None:
    rng = np.random.default_rng(8)
    skewed = Sample("a", rng.exponential(1.0, 15) ** 2, np.zeros(15) + rng.normal(0, 1e-3, 15))
    pivot = bootstrap_strata([skewed], resamples=4000, seed=0)
    low, high = pivot.interval(0.05)
    assert high - pivot.estimate.value > 1.3 * (pivot.estimate.value - low)  # the long tail is above


# --- calibration: fixed seeds, tolerance of three standard errors -----------------------------------------------------


def rate(word: str, shift: float, n: int, sets: int = 400, strata: int = 2) -> float:
    rng = np.random.default_rng(20)
    count = 0
    for index in range(sets):
        samples = [sample(rng, n, shift, name=str(k)) for k in range(strata)]
        judged = judge_strata(samples, margin=1.0, alpha=0.05, resamples=200, seed=index)
        count += judged.verdict == word and not judged.objections
    return count / sets


LEVEL = 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)


def test_equivalence_keeps_its_level_at_the_margin() -> None:
    assert 0.01 < rate("equivalent", 1.0, 12) <= LEVEL


def test_difference_keeps_its_level_at_zero() -> None:
    # Six a group: the equivalence interval is wide there, so that a false difference is not hidden behind it.
    assert 0.005 < rate("different", 0.0, 6) <= LEVEL


def test_power_at_no_difference_with_sigma_at_the_margin() -> None:
    assert rate("equivalent", 0.0, 100, sets=200, strata=1) >= 0.95


def test_splits_keep_the_level_where_trials_would_not() -> None:
    """Splits that each add luck of their own: t over splits errs at alpha, t over trials far more often."""
    rng = np.random.default_rng(9)
    outer = inner = 0
    for _ in range(400):
        samples = [sample(rng, 12, 0.5 * rng.normal(), name=str(k)) for k in range(6)]
        names = [str(k) for k in range(6)]
        outer += judge_splits(samples, names, ["c"] * 6, margin=1e-6, alpha=0.05).verdict == "different"
        inner += judge_strata(samples, margin=1e-6, alpha=0.05, resamples=20).verdict == "different"
    assert outer / 400 <= LEVEL < inner / 400


# --- planted truths ---------------------------------------------------------------------------------------------------


def test_equivalent_different_and_inconclusive() -> None:
    same = verdict(normal_table(1))
    assert (same.verdict, same.n_local, same.n_global, same.n_configs) == ("equivalent", 40, 40, 1)
    worse = verdict(normal_table(2, shift=0.05))
    assert worse.verdict == "different"
    assert worse.estimate == pytest.approx(0.05, abs=0.005)
    vague = verdict(normal_table(3, n=20, sigma=0.05))
    assert vague.verdict == "inconclusive"
    assert "reaches beyond" in vague.reason
    assert worse.trials_needed is None
    assert vague.trials_needed is not None
    assert str(vague.trials_needed) in vague.summary()


def test_trials_needed_is_enough_and_not_too_much() -> None:
    asked = verdict(normal_table(3, n=20, sigma=0.05)).trials_needed
    assert asked is not None
    rng = np.random.default_rng(7)
    sigma = float(
        np.sqrt(
            np.mean(
                [g.var(ddof=1) for g in np.split(normal_table(3, n=20, sigma=0.05)["test_loss"].to_numpy(float), 2)]
            )
        )
    )
    found = [combine([sample(rng, asked // 2, 0.0, sigma)]).p_equivalence(0.02) < 0.05 for _ in range(600)]
    assert np.mean(found) == pytest.approx(0.8, abs=3 * math.sqrt(0.16 / 600) + 0.01)


def test_an_effect_of_the_width_is_not_one_of_the_minimum() -> None:
    """Narrow nets: bad test loss and mostly local minima. Pooled, local looks worse; within a width nothing differs."""
    rng = np.random.default_rng(11)
    narrow = table(rng.normal(0.5, 0.005, 80), rng.normal(0.5, 0.005, 20), "aa", **{"landscape.hidden": 10.0})
    wide = table(rng.normal(0.3, 0.005, 20), rng.normal(0.3, 0.005, 80), "bb", **{"landscape.hidden": 50.0})
    points = several(narrow, wide)
    local = points["objective"] == 0.5
    naive = points["test_loss"].to_numpy(float)[local].mean() - points["test_loss"].to_numpy(float)[~local].mean()
    assert naive > 0.1
    found = verdict(points)
    assert found.verdict == "equivalent"
    assert abs(found.estimate or 1.0) < 0.003


def test_opposite_effects_do_not_cancel_into_an_equivalence() -> None:
    points = several(normal_table(1, shift=0.04, config="aa"), normal_table(2, shift=-0.04, config="bb"))
    found = verdict(points)
    assert found.heterogeneity_p is not None
    assert found.heterogeneity_p < 1e-6
    assert found.ci_low is not None
    assert found.ci_high is not None
    assert -0.02 < found.ci_low < found.ci_high < 0.02  # the combined interval alone would say equivalent
    assert found.verdict == "inconclusive"
    assert "effects differ" in found.reason
    mild = several(normal_table(1, shift=0.01, config="aa"), normal_table(2, shift=-0.01, config="bb"))
    assert verdict(mild).verdict == "equivalent"  # they differ, and each lies inside the margin


def test_t_and_bootstrap_that_disagree_are_inconclusive() -> None:
    """A long tail above: the bootstrap's upper end lies beyond the t interval's, and a margin between the two."""
    rng = np.random.default_rng(8)
    local, best = 0.01 * rng.exponential(1.0, 15) ** 2, rng.normal(0, 1e-3, 15)
    margin = 1.02 * combine([Sample("a", local, best)]).interval(0.05)[1]
    found = verdict(table(local, best), VerdictOptions(margin=margin))
    assert found.verdict == "inconclusive"
    assert "the t intervals say equivalent, the studentised bootstrap says" in found.reason
    assert found.details["bootstrap"]["ci_high"] > margin > (found.ci_high or 1)


# --- reference, band, landscapes --------------------------------------------------------------------------------------


def test_optimisers_on_one_landscape_share_the_lowest_minimum() -> None:
    good = normal_table(1, config="aa")
    stuck = normal_table(2, config="bb").assign(objective=0.5)  # never reaches 0.1
    shared = verdict(several(good, stuck))
    assert (shared.reference, shared.reference_source) == (0.1, "found")
    assert [item["config"] for item in shared.details["dropped"]] == ["bb"]
    assert shared.details["dropped"][0] == {"config": "bb", "n_local": 80, "n_global": 0}
    key = pd.Series(["one"] * 80 + ["two"] * 80)
    apart = verdict(several(good, stuck), landscape_key=key)
    assert apart.reference == {"one": 0.1, "two": 0.5}
    assert apart.details["dropped"][0] == {"config": "bb", "n_local": 0, "n_global": 80}


def test_a_minimum_of_any_source_is_a_reference_and_only_training_is_compared() -> None:
    points = normal_table(1)
    extra = points.iloc[:1].assign(source="noise", point="aa-0-noise-0", objective=0.05)
    saddle = points.iloc[:1].assign(source="noise", point="aa-0-noise-1", objective=0.01, kind="saddle")
    found = verdict(several(points, extra, saddle))
    assert found.reference == 0.05
    assert found.details["n_local_all"] == 80
    assert "all 80 minima are local" in found.reason


def test_the_reference_is_what_the_trials_know_of_their_landscape() -> None:
    points = several(normal_table(1), normal_table(2, config="bb")).assign(**{"landscape.n": 1})
    points.loc[points["config"] == "bb", "landscape.n"] = 2
    trials = points[["config", "trial"]].assign(status="done", attempt=1, error=None, known_minimum=np.nan)
    trials.loc[trials["config"] == "bb", "known_minimum"] = 0.05
    found = verdict(points, trials=trials)
    assert found.reference_source == "found and known"
    assert isinstance(found.reference, dict) and sorted(found.reference.values()) == [0.05, 0.1]
    assert verdict(points, VerdictOptions(reference=0.1), trials=trials).reference_source == "given"
    assert verdict(points, trials=trials.drop(columns="known_minimum")).reference_source == "found"


def test_known_and_given_references_and_the_band() -> None:
    points = normal_table(1)
    assert (verdict(points, known_minimum=0.0).n_global, verdict(points, known_minimum=0.0).reference) == (0, 0.0)
    known = verdict(points, VerdictOptions(band=0.2), known_minimum=0.0)
    assert (known.reference_source, known.band, known.n_global) == ("known", 0.2, 40)
    given = verdict(points, VerdictOptions(reference=0.1), known_minimum=0.0)
    assert (given.reference_source, given.reference, given.verdict) == ("given", 0.1, "equivalent")
    assert given.band == pytest.approx(1e-5)
    assert verdict(points, known_minimum={"other": 0.0}).reference_source == "found"
    above = verdict(points, known_minimum=0.2)
    assert "it is not the minimum" in above.summary()
    close = points.assign(objective=[0.1 + 0.9e-5] * 40 + [0.1] * 40)
    assert verdict(close).details["n_local_all"] == 0
    assert verdict(points.assign(objective=[0.1 + 1.1e-5] * 40 + [0.1] * 40)).n_local == 40


# --- exclusions and vetoes --------------------------------------------------------------------------------------------


def test_exclusions_are_counted_by_reason() -> None:
    points = normal_table(1, n=60)
    points.loc[0, "kind"], points.loc[0, "reason"] = "not_converged", "no finite minimum"
    points.loc[1, "kind"] = "saddle"
    points.loc[2, "test_loss"] = np.nan
    points.loc[3, "objective"] = np.inf
    points.loc[4, "kind"] = "degenerate_minimum"
    points.loc[5, "source"] = "trajectory"
    trials = pd.DataFrame(
        {
            "trial": ["aa-900", "aa-901", "aa-901", "aa-6"],
            "config": "aa",
            "attempt": [0, 1, 0, 0],
            "status": ["failed", "done", "failed", "done"],
            "error": ["out of memory\ntrace", None, "killed", None],
        }
    )
    found = verdict(points, trials=trials)
    assert found.excluded == {
        "no training point": 2,
        "failed": 1,
        "no finite objective": 1,
        "no finite test_loss": 1,
        "not_converged": 1,
        "saddle": 1,
    }
    assert found.details["excluded_reasons"]["failed: out of memory"] == 1
    assert found.details["excluded_reasons"]["not_converged: no finite minimum"] == 1
    assert (found.n_local, found.n_global, found.details["n_trials"]) == (55, 60, 122)
    assert "excluded, more than 5%" in found.reason  # 7 of 122


def test_above_five_percent_is_inconclusive_with_worst_case_bounds() -> None:
    points = normal_table(1, n=50)
    points.loc[:4, "kind"] = "diverged"
    assert verdict(points).verdict == "equivalent"  # 5 of 100: not above
    points.loc[5, "kind"] = "diverged"
    found = verdict(points)
    assert (found.verdict, found.details["interval_verdict"]) == ("inconclusive", "equivalent")
    kept = points["test_loss"].to_numpy(float)[6:]
    low, high = kept.min(), kept.max()
    local, best = kept[:44], kept[44:]
    brute = [(local.sum() + j * high) / (44 + j) - (best.sum() + (6 - j) * low) / (56 - j) for j in range(7)]
    assert found.details["worst_case"]["high"] == pytest.approx(max(brute), rel=1e-12)
    assert found.details["worst_case"]["low"] < (found.estimate or 0) < found.details["worst_case"]["high"]
    errors = points.assign(test_error=points["test_loss"].to_numpy(float))
    assert (
        verdict(errors, VerdictOptions("test_error")).details["worst_case"]["high"]
        > found.details["worst_case"]["high"]
    )


def test_few_trials_and_empty_groups_are_inconclusive_without_nan() -> None:
    few = verdict(normal_table(1, n=9))
    assert (few.verdict, few.details["interval_verdict"]) == ("inconclusive", "equivalent")
    assert "only 9" in few.reason
    assert few.trials_needed == 20
    cases = {
        "all 40 minima are global": normal_table(1, n=20).assign(objective=0.1),
        "there are no trials": normal_table(1).iloc[:0],
        "no trial ended in a minimum": normal_table(1).assign(kind="saddle"),
        "no configuration has 2 trials in each group": several(
            *(table(np.array([0.3]), np.array([0.3]), f"c{k}") for k in range(30))
        ),
    }
    for reason, points in cases.items():
        found = verdict(points)
        assert found.verdict == "inconclusive"
        assert reason in found.reason
        assert found.estimate is found.ci_low is found.p_equivalence is found.trials_needed is None
        assert len(found.summary().splitlines()) <= 25
        json.loads(found.to_json())


def test_a_metric_that_was_never_measured_is_an_exclusion() -> None:
    found = verdict(normal_table(1).assign(test_loss=None))
    assert found.excluded == {"no finite test_loss": 80}
    assert found.verdict == "inconclusive"


def test_numbers_too_large_to_square_are_an_exclusion() -> None:
    points = normal_table(1, n=60)
    points.loc[0, "test_loss"], points.loc[1, "objective"] = 1e300, -1e300
    found = verdict(points)
    assert found.excluded == {"no finite objective": 1, "no finite test_loss": 1}
    assert (found.verdict, found.reference) == ("equivalent", 0.1)


def test_a_grid_value_that_is_missing_is_a_value() -> None:
    points = several(normal_table(1, config="aa"), normal_table(2, config="bb"))
    points["landscape.activation"] = pd.Series(["tanh"] * 80 + [None] * 80, dtype="str")
    assert len(verdict(points).details["references"]) == 2


def test_two_training_points_of_one_trial_count_once() -> None:
    points = normal_table(1)
    points["point"] = [f"{trial}-training-2" for trial in points["trial"]]
    again = points.assign(point=[f"{trial}-training-10" for trial in points["trial"]], test_loss=9.0)
    assert verdict(several(again, points)).estimate == verdict(points).estimate


@pytest.mark.parametrize(
    "options",
    [{"metric": "loss"}, {"margin": -0.1}, {"margin": 0.0}, {"margin": math.nan}, {"alpha": 0.0}, {"alpha": 0.5},
     {"alpha": math.nan}, {"band": -1.0}, {"reference": math.inf}],
)  # fmt: skip
def test_wrong_requests(options: dict[str, Any]) -> None:
    with pytest.raises(QueryError) as caught:
        VerdictOptions(**options)
    assert str(next(iter(options.values()))) in str(caught.value)


def test_wrong_calls() -> None:
    points = normal_table(1)
    with pytest.raises(QueryError, match="test_error"):
        verdict(points.drop(columns="test_error"), VerdictOptions("test_error"))
    with pytest.raises(QueryError, match="split"):
        verdict(points, split_column="landscape.fold")
    with pytest.raises(QueryError, match="alpha_spent"):
        verdict(points, alpha_spent=-0.1)
    with pytest.raises(QueryError, match="index"):
        verdict(points, landscape_key=pd.Series(["a"]))


# --- splits, looks, repeats, band-free --------------------------------------------------------------------------------


def split_points(count: int, luck: float, n: int = 15) -> pd.DataFrame:
    rng = np.random.default_rng(6)
    return several(
        *(
            normal_table(k, n=n, shift=luck * rng.normal(), config=f"c{k:02}", **{"landscape.split_seed": float(k)})
            for k in range(count)
        )
    )


def test_five_splits_decide_by_t_over_their_estimates() -> None:
    from scipy.stats import ttest_1samp

    found = verdict(split_points(6, 0.0))
    each = [item["estimate"] for item in found.details["strata"]]
    rival = ttest_1samp(each, 0.0)
    assert found.estimate == pytest.approx(np.mean(each), rel=1e-12)
    assert found.p_difference == pytest.approx(rival.pvalue, rel=1e-10)
    assert (found.diff_low, found.diff_high) == pytest.approx(tuple(rival.confidence_interval(0.95)), rel=1e-10)
    assert found.splits.startswith("6 splits decide")
    assert found.verdict == "equivalent"
    lucky = verdict(split_points(6, 0.05))
    assert lucky.verdict == "inconclusive"
    assert (lucky.trials_needed or 0) > 180


def test_fewer_splits_are_conditional() -> None:
    assert verdict(normal_table(1)).splits == "conditional on one split"
    assert "conditional on one split" in verdict(normal_table(1)).summary()
    assert verdict(split_points(4, 0.0)).splits == "conditional on 4 splits"
    renamed = split_points(5, 0.0).rename(columns={"landscape.split_seed": "landscape.fold"})
    assert verdict(renamed).splits == "conditional on one split"
    assert verdict(renamed, split_column="landscape.fold").splits.startswith("5 splits decide")


def test_cells_across_splits_must_agree() -> None:
    frames = [
        normal_table(10 * k + w, n=15, shift=0.04 if w else -0.04, config=f"c{k}{w}",
                     **{"landscape.split_seed": float(k), "training.lr": float(w)})
        for k in range(6) for w in range(2)
    ]  # fmt: skip
    found = verdict(several(*frames))
    assert found.heterogeneity_p is not None
    assert found.heterogeneity_p < 1e-6
    assert found.verdict == "inconclusive"


def test_spent_alpha_widens_the_intervals_and_none_left_is_exploratory() -> None:
    points = normal_table(1)
    fresh, late = verdict(points), verdict(points, alpha_spent=0.04)
    assert late.alpha == pytest.approx(0.01)
    assert (late.ci_high or 0) > (fresh.ci_high or 0)
    assert not late.exploratory
    assert late.details["alpha_spent_after"] == pytest.approx(0.05)
    spent = verdict(points, alpha_spent=0.05)
    assert (spent.exploratory, spent.alpha) == (True, 0.05)
    assert verdict(points, exploratory=True).exploratory
    assert "exploratory" in spent.summary()
    early = verdict(points, information_fraction=0.02)  # alpha of 1e-43, and finite intervals all the same
    assert early.alpha < 1e-40
    assert early.ci_high is not None
    assert 0.02 < early.ci_high < 1
    assert verdict(points, information_fraction=0.5).alpha == pytest.approx(nominal_alpha(0.05, 0.5, 0.0))


def test_repeats_at_the_end_of_training_over_classes_and_for_the_gap() -> None:
    rng = np.random.default_rng(2)
    points = normal_table(1)
    points["test_loss_trained"] = points["test_loss"].to_numpy(float) + np.repeat([0.05, 0.0], 40)
    points["gap"] = points["test_loss"].to_numpy(float) - points["objective"].to_numpy(float)
    points["polish_distance"], points["same_basin"] = 0.25, [True] * 60 + [False] * 20
    which = np.concatenate([rng.integers(0, 5, 40), rng.integers(5, 9, 40)])
    objectives = points["objective"].tolist()
    points["fingerprint"] = [[o, 0.0, 0.0, float(k)] for o, k in zip(objectives, which, strict=True)]
    found = verdict(points)
    repeated = found.details["repeated"]
    assert found.verdict == "equivalent"
    assert repeated["test_loss_trained"]["estimate"] == pytest.approx((found.estimate or 0) + 0.05)
    assert repeated["test_loss_trained"]["interval_verdict"] == "different"
    assert repeated["gap"]["estimate"] == pytest.approx((found.estimate or 0) - 0.4)
    assert (repeated["class_id"]["n_local"], repeated["class_id"]["n_global"]) == (5, 4)
    values = points["test_loss"].to_numpy(float)
    means = [values[which == k].mean() for k in range(9)]
    assert repeated["class_id"]["estimate"] == pytest.approx(np.mean(means[:5]) - np.mean(means[5:]), rel=1e-9)
    assert found.details["polish"] == {"median_distance": 0.25, "share_same_basin": 0.75}


def test_the_gap_is_never_reported_alone() -> None:
    points = normal_table(1)
    points["gap"] = points["test_loss"].to_numpy(float) - points["objective"].to_numpy(float)
    found = verdict(points, VerdictOptions("gap"))
    assert found.verdict == "different"
    assert found.details["repeated"]["test_loss"]["interval_verdict"] == "equivalent"
    assert "test_loss" in found.summary()


def test_kendall_is_scipys_and_covers_the_truth() -> None:
    from scipy.stats import kendalltau

    rng = np.random.default_rng(12)
    x, y = rng.normal(size=80), rng.normal(size=80)
    y = y + 0.7 * x
    trend = kendall([(x, y)], 0.05)
    assert trend is not None
    assert trend.value == pytest.approx(kendalltau(x, y).statistic, rel=1e-12)
    truth = 2 / math.pi * math.asin(0.7 / math.hypot(1, 0.7))  # of a normal pair
    hits = 0
    for _ in range(200):
        a = rng.normal(size=(2, 60))
        found = kendall([(a[0, :30], a[1, :30] + 0.7 * a[0, :30]), (a[0, 30:], a[1, 30:] + 0.7 * a[0, 30:])], 0.05)
        assert found is not None
        hits += found.low <= truth <= found.high
    assert 0.95 - 3 * math.sqrt(0.95 * 0.05 / 200) <= hits / 200 <= 1.0
    assert kendall([(x[:9], y[:9])], 0.05) is None
    assert kendall([(np.ones(80) + 1e-13 * x, y)], 0.05) is None  # one minimum reached 80 times is no trend


def test_slopes_are_taken_within_strata() -> None:
    rng = np.random.default_rng(13)
    x = rng.random((2, 50))
    y = 2.0 * x + np.array([[0.0], [-100.0]])
    line = slope([(x[0], y[0]), (x[1] + 50, y[1])], 0.05)
    assert line is not None
    assert (line.value, line.low, line.high) == pytest.approx((2.0, 2.0, 2.0))
    noisy = slope([(x[0], y[0] + rng.normal(0, 0.1, 50))], 0.05)
    assert noisy is not None
    assert noisy.low < 2.0 < noisy.high


def test_saddles_are_clustered_by_trial() -> None:
    points = normal_table(1)
    rows = [
        points.iloc[:1].assign(source=source, kind="saddle", trial=f"aa-{k}", point=f"aa-{k}-{source}-{j}", test_loss=v)
        for k, v in enumerate((1.0, 2.0, 3.0)) for source in ("noise", "trajectory") for j in range(1 + k)
    ]  # fmt: skip
    saddles = verdict(several(points, *rows)).details["saddles"]
    assert saddles["searchers"]["noise"]["n_points"] == 6
    assert saddles["searchers"]["noise"]["n_trials"] == 3
    assert saddles["searchers"]["noise"]["mean"] == pytest.approx(2.0)  # by point it would be 14/6
    assert saddles["searchers"]["noise"]["high"] == pytest.approx(2 + 4.302652729911275 / math.sqrt(3))
    assert saddles["differences"]["noise - trajectory"]["mean"] == 0.0


# --- the result itself ------------------------------------------------------------------------------------------------


def test_the_json_has_the_contracts_keys_and_no_nan() -> None:
    contract = (
        "verdict reason metric estimate ci_low ci_high diff_low diff_high margin alpha p_equivalence p_difference "
        "n_global n_local n_configs heterogeneity_p reference reference_source band effect_size tau tau_low tau_high "
        "trials_needed excluded exploratory splits"
    )
    assert contract.split() == list(KEYS)
    found = verdict(normal_table(1))
    assert list(json.loads(found.to_json())) == [*KEYS, "details"]
    broken = Verdict(**{**found.__dict__, "estimate": math.nan, "details": {"deep": [math.inf]}})
    assert json.loads(broken.to_json())["estimate"] is None
    assert json.loads(broken.to_json())["details"] == {"deep": [None]}


def test_default_margins() -> None:
    assert {name: VerdictOptions(name).chosen_margin for name in METRICS} == {
        "test_loss": 0.02, "test_error": 0.01, "test_loss_trained": 0.02, "test_error_trained": 0.01,
        "gap": 0.02, "error_gap": 0.01,
    }  # fmt: skip
    assert VerdictOptions(margin=0.3).chosen_margin == 0.3


@settings(max_examples=12, deadline=None)
@given(st.permutations(range(60)), st.integers(0, 3))
def test_the_order_of_rows_changes_nothing(order: list[int], seed: int) -> None:
    points = several(normal_table(seed, n=15, config="aa"), normal_table(seed + 9, n=15, config="bb"))
    points["fingerprint"] = pd.Series(
        [[float(o), 0.0, 0.0, float(k % 4)] for k, o in enumerate(points["objective"])], dtype=object
    )
    points.loc[3, "kind"] = "saddle"
    plain = verdict(points, resamples=50).to_json()
    assert verdict(points.iloc[order], resamples=50).to_json() == plain
    assert verdict(points.iloc[order].reset_index(drop=True), resamples=50).to_json() == plain
