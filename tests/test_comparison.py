"""Two groups of points: the verdict's own machinery, clusters, matching, planted truths and every exclusion."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from landsweep.analysis.comparison import (
    compare,
    compare_metrics,
    saddles_against_minima,
    select,
    sharp_against_flat,
)
from landsweep.analysis.equivalence import Sample, combine
from landsweep.analysis.judgement import judge_strata
from landsweep.analysis.plots_tests import comparison_intervals
from landsweep.workers.errors import QueryError
from landsweep.workers.record import schema

Array = np.ndarray[Any, np.dtype[np.float64]]
FAST = {"resamples": 500}


def table(config: str = "aa", **columns: Any) -> pd.DataFrame:
    """One minimum a trial; ``columns`` replace what the schema has."""
    count = len(columns["test_loss"])
    frame = pd.DataFrame({name: pd.Series([None] * count, dtype=object) for name in schema("points").names})
    frame = frame.assign(sweep="s", config=config, seed=range(count), source="training", kind="minimum")
    frame["trial"] = [f"{config}-{seed}" for seed in range(count)]
    frame["point"] = [f"{trial}-training-0" for trial in frame["trial"]]
    return frame.assign(**columns)


def saddles(config: str, trials: Array, **columns: Any) -> pd.DataFrame:
    """Saddles of the given trials (a number may come twice)."""
    frame = table(config, **columns).assign(kind="saddle", source="trajectory")
    frame["trial"] = [f"{config}-{int(trial)}" for trial in trials]
    frame["point"] = [f"{trial}-trajectory-{k}" for k, trial in enumerate(frame["trial"])]
    return frame


def several(*frames: pd.DataFrame) -> pd.DataFrame:
    return pd.concat(frames, ignore_index=True)


def halves(seed: int = 0, n: int = 30, shift: float = 0.0, sigma: float = 0.01, **columns: Any) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return table(test_loss=np.concatenate([rng.normal(shift, sigma, n), rng.normal(0, sigma, n)]), **columns)


# --- the same machinery as the verdict --------------------------------------------------------------------------------


def test_groups_of_different_trials_are_the_verdicts_strata() -> None:
    points = several(halves(1, 20, 0.01), halves(2, 30, 0.02, config="bb"))
    mask = (points["config"] == "aa") & (points["seed"] < 20) | (points["config"] == "bb") & (points["seed"] < 30)
    found = compare(points, mask, ~mask, margin=0.02, **FAST)
    values = points["test_loss"].to_numpy(dtype=np.float64)
    samples = [Sample("aa", values[:20], values[20:40]), Sample("bb", values[40:70], values[70:])]
    expected = judge_strata(samples, margin=0.02, alpha=0.05, resamples=500)
    assert (found.estimate, found.ci_low, found.ci_high) == (expected.estimate.value, *expected.ci)
    assert (found.diff_low, found.diff_high) == expected.diff
    assert (found.p_equivalence, found.p_difference) == (
        expected.estimate.p_equivalence(0.02),
        expected.estimate.p_difference(),
    )
    assert (found.n_a, found.n_b, found.n_pairs, found.n_configs) == (50, 50, 0, 2)
    assert found.verdict == expected.verdict
    json.dumps(found.as_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("shift", "sigma", "word"), [(0.0, 0.02, "equivalent"), (0.05, 0.02, "different"), (0.0, 0.2, "inconclusive")]
)
def test_planted_differences(shift: float, sigma: float, word: str) -> None:
    points = halves(3, 40, shift, sigma)
    assert compare(points, "seed < 40", "seed >= 40", margin=0.02, **FAST).verdict == word


def test_swapping_the_groups_turns_the_sign() -> None:
    points = halves(4, 15, 0.05)
    one, other = (compare(points, *pair, **FAST) for pair in (("seed < 15", "seed >= 15"), ("seed >= 15", "seed < 15")))
    assert one.estimate == pytest.approx(-other.estimate, rel=1e-12)  # type: ignore[operator]
    assert (one.cliff_delta, one.hedges_g) == pytest.approx((-other.cliff_delta, -other.hedges_g))  # type: ignore[operator]
    assert one.reason.startswith("seed < 15 are higher than seed >= 15")
    assert other.reason.startswith("seed < 15 are higher than seed >= 15")


def test_a_confounded_comparison_is_right_within_configurations() -> None:
    """Group a is mostly in the configuration with the higher loss; within each nothing differs."""
    rng = np.random.default_rng(5)
    low, high = rng.normal(0, 0.01, 50), rng.normal(1, 0.01, 50)
    points = several(table("aa", test_loss=low), table("bb", test_loss=high))
    mask = (points["config"] == "aa") & (points["seed"] < 5) | (points["config"] == "bb") & (points["seed"] < 45)
    found = compare(points, mask, ~mask, margin=0.02, **FAST)
    assert found.verdict == "equivalent"
    assert np.mean(np.r_[low[:5], high[:45]]) - np.mean(np.r_[low[5:], high[45:]]) > 0.5


def test_splits_are_the_unit_from_five_on() -> None:
    frames = [
        halves(k, 10, 0.03 * (k % 2), config=f"c{k}").assign(**{"landscape.split_seed": float(k)}) for k in range(6)
    ]
    points = several(*frames)
    found = compare(points, "seed < 10", "seed >= 10", **FAST)
    values = [combine([Sample("", v[:10], v[10:])]).value for v in (f["test_loss"].to_numpy(float) for f in frames)]
    half = 2.5705818366147 * np.std(values, ddof=1) / math.sqrt(6)
    assert found.splits.startswith("6 splits decide")
    assert (found.diff_low, found.diff_high) == pytest.approx((np.mean(values) - half, np.mean(values) + half))
    few = compare(points[points["landscape.split_seed"] < 3], "seed < 10", "seed >= 10", **FAST)
    assert few.splits == "conditional on 3 splits"


# --- saddles, clustered by trial --------------------------------------------------------------------------------------


def test_saddles_of_a_trial_count_once_and_against_its_own_minimum() -> None:
    """Ten trials with two saddles each: the paired t of the trials' differences."""
    from scipy.stats import ttest_rel

    rng = np.random.default_rng(6)
    minima = rng.normal(0, 1, 12)
    found_at = rng.normal(0.5, 1, 20)
    points = several(table(test_loss=minima), saddles("aa", np.repeat(np.arange(10.0), 2), test_loss=found_at))
    found = saddles_against_minima(points, **FAST)
    means = found_at.reshape(10, 2).mean(axis=1)
    rival = ttest_rel(means, minima[:10])
    assert found.estimate == pytest.approx((means - minima[:10]).mean(), rel=1e-12)
    assert found.p_difference == pytest.approx(rival.pvalue, rel=1e-10)
    assert (found.diff_low, found.diff_high) == pytest.approx(rival.confidence_interval(0.95), rel=1e-10)
    assert (found.n_a, found.n_b, found.n_pairs, found.n_points_a, found.n_points_b) == (10, 10, 10, 20, 12)
    assert found.details["unused_trials"] == {"a": 0, "b": 2}
    assert found.names == ("saddles", "minima")


def test_clustered_saddles_keep_the_level() -> None:
    """20 saddles a trial that share the trial's luck: points as the unit would call every third data set different."""
    draws, shown, naive = 80, 0, 0
    rng = np.random.default_rng(7)
    from scipy.stats import ttest_ind

    for _ in range(draws):
        luck = rng.normal(0, 1, 12)
        points = several(
            table(test_loss=rng.normal(0, 1, 60)),
            saddles("aa", np.repeat(np.arange(12.0), 20) + 60, test_loss=np.repeat(luck, 20) + rng.normal(0, 0.1, 240)),
        )
        found = saddles_against_minima(points, margin=0.01, resamples=1)
        assert found.p_difference is not None
        shown += found.p_difference < 0.05
        values = points["test_loss"].to_numpy(dtype=np.float64)
        naive += ttest_ind(values[60:], values[:60], equal_var=False).pvalue < 0.05
    assert shown / draws <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / draws)
    assert naive / draws > 0.2


def test_saddles_of_one_searcher() -> None:
    points = several(
        table(test_loss=np.zeros(12) + np.arange(12) * 1e-3),
        saddles("aa", np.arange(12.0), test_loss=np.full(12, 1.0)),
        saddles("aa", np.arange(12.0), test_loss=np.full(12, 3.0)).assign(source="noise"),
    )
    assert saddles_against_minima(points, source="noise", **FAST).estimate == pytest.approx(3 - 0.0055)
    assert saddles_against_minima(points, **FAST).estimate == pytest.approx(2 - 0.0055)
    none = saddles_against_minima(points, source="initialisation", **FAST)
    assert (none.verdict, none.reason, none.estimate) == (
        "inconclusive",
        "no point with a finite metric in saddles",
        None,
    )


# --- matched on training loss -----------------------------------------------------------------------------------------


def by_training_loss(seed: int, n: int, extra: float, curved: bool = False) -> pd.DataFrame:
    """Saddles sit at higher training loss, and test loss follows the training loss, plus ``extra`` for saddles."""
    rng = np.random.default_rng(seed)
    x_minima, x_saddles = rng.uniform(0, 1, n), rng.uniform(0.3, 1.3, n)

    def test(x: Array) -> Array:
        return np.asarray((x**2 if curved else x) + rng.normal(0, 0.02, len(x)))

    return several(
        table(test_loss=test(x_minima), train_loss=x_minima),
        saddles("aa", np.arange(n, 2.0 * n), test_loss=test(x_saddles) + extra, train_loss=x_saddles),
    )


@pytest.mark.parametrize("curved", [False, True])
def test_a_difference_by_training_loss_alone_vanishes_when_matched(curved: bool) -> None:
    words = []
    for seed in range(12):
        points = by_training_loss(seed, 100, 0.0, curved)
        plain = saddles_against_minima(points, resamples=1)
        matched = saddles_against_minima(points, match="train_loss", **FAST)
        assert plain.p_difference is not None
        assert plain.p_difference < 1e-4
        assert matched.match_before == pytest.approx(0.3, abs=0.15)
        assert abs(matched.match_after or 0) < 0.03
        assert 40 < matched.n_pairs < 80
        words.append(matched.verdict)
    assert words.count("equivalent") >= 10
    assert words.count("different") <= 1


def test_matching_keeps_a_difference_that_is_there_and_its_interval_covers_it() -> None:
    covered = []
    for seed in range(100):
        found = saddles_against_minima(by_training_loss(seed, 60, 0.05), match="train_loss", resamples=1)
        assert found.diff_low is not None
        assert found.diff_high is not None
        covered.append(found.diff_low <= 0.05 <= found.diff_high)
        assert found.diff_low > 0
    assert np.mean(covered) >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / 100)


def test_pairs_are_within_the_caliper_and_trials_are_used_once() -> None:
    """x by hand: caliper 1·sd; (1.0, 1.1) and (2.0, 2.05) match, 9 and the trial that is used already do not."""
    minima = table(test_loss=[0.0, 0.0, 0.0], train_loss=[1.0, 2.0, 9.0])
    found = saddles_against_minima(
        several(
            minima, saddles("aa", np.array([7.0, 8.0, 7.0]), test_loss=[1.0, 3.0, 1.0], train_loss=[1.1, 2.05, 1.1])
        ),
        match="train_loss",
        caliper=0.1,
        **FAST,
    )
    assert (found.n_pairs, found.n_a, found.details["unused_trials"]) == (2, 2, {"a": 0, "b": 1})
    assert found.match_after == pytest.approx(0.075)
    assert found.verdict == "inconclusive"
    assert "only 2 pairs" in found.reason


def test_groups_that_never_meet_cannot_be_matched() -> None:
    points = several(
        table(test_loss=np.arange(12.0), train_loss=np.linspace(0, 1, 12)),
        saddles("aa", np.arange(12.0), test_loss=np.arange(12.0), train_loss=np.linspace(8, 9, 12)),
    )
    found = saddles_against_minima(points, match="train_loss", **FAST)
    assert (found.verdict, found.estimate) == ("inconclusive", None)
    assert found.reason == "no configuration has 2 pairs within the caliper of train_loss"
    assert found.details["dropped"] == [{"config": "aa", "n_a": 12, "n_b": 12}]


# --- sharp and flat ---------------------------------------------------------------------------------------------------


def test_sharp_is_above_the_median_of_its_own_configuration() -> None:
    """Pooled, all minima of the wide configuration would be sharp: nothing would be left to compare."""
    rng = np.random.default_rng(8)
    frames = [
        table(c, test_loss=rng.normal(0, 0.005, 40) + 0.1 * (np.arange(40) >= 20), eig_max=scale + np.arange(40.0))
        for c, scale in (("aa", 0.0), ("bb", 1000.0))
    ]
    found = sharp_against_flat(several(*frames), **FAST)
    assert (found.n_a, found.n_b, found.n_configs) == (40, 40, 2)
    assert found.estimate == pytest.approx(0.1, abs=0.01)
    assert found.verdict == "different"
    given = sharp_against_flat(several(*frames), threshold=29.0, **FAST)
    assert (given.n_a, given.n_b) == (10, 30)
    assert given.details["dropped"] == [{"config": "bb", "n_a": 40, "n_b": 0}]


def test_minima_without_the_measure_are_counted() -> None:
    eig_max = np.where(np.arange(60) < 2, np.nan, np.arange(60.0))
    points = halves(9, 30, eig_max=eig_max)
    assert sharp_against_flat(points, **FAST).excluded == {"no finite eig_max": 2}
    many = sharp_against_flat(points.assign(eig_max=np.where(np.arange(60) < 20, np.nan, np.arange(60.0))), **FAST)
    assert many.verdict == "inconclusive"
    assert "20 of 60 points (33.3%) are excluded" in many.reason
    with pytest.raises(QueryError, match="not measured"):
        sharp_against_flat(points, by="trace")
    with pytest.raises(QueryError, match="lack the columns spread"):
        sharp_against_flat(points, by="spread")


# --- several metrics --------------------------------------------------------------------------------------------------


def test_holm_over_metrics_takes_back_what_one_test_would_give() -> None:
    rng = np.random.default_rng(10)
    n = 40
    points = table(
        test_loss=np.concatenate([rng.normal(0, 1, n), rng.normal(0, 1, n)]),
        gap=np.concatenate([rng.normal(0.9, 1, n), rng.normal(0, 1, n)]),
        test_error=np.concatenate([rng.normal(0.5, 1, n), rng.normal(0, 1, n)]),
    )
    found = compare_metrics(points, "seed < 40", "seed >= 40", ["test_loss", "gap", "test_error"], **FAST)
    order = found["p_difference"].argsort().to_numpy()
    p = found["p_difference"].to_numpy()[order]
    expected = np.minimum(np.maximum.accumulate(p * [3, 2, 1]), 1)
    assert found["p_difference_holm"].to_numpy()[order] == pytest.approx(expected)
    kept = (found["verdict"] == "different") & (found["p_difference_holm"] <= 0.05)
    assert found["verdict_holm"].tolist() == ["different" if keep else "inconclusive" for keep in kept]
    assert found["metric"].tolist() == ["test_loss", "gap", "test_error"]
    for metrics in ([], ["gap", "gap"]):
        with pytest.raises(QueryError, match="each once"):
            compare_metrics(points, "seed < 40", "seed >= 40", metrics)


def test_a_verdict_that_needs_no_correction_stays_and_one_that_does_falls() -> None:
    sharp = {"test_loss": 1.0, "gap": 0.47, "test_error": 0.0}
    z = np.linspace(-1.6, 1.6, 40)
    points = table(**{name: np.concatenate([z + shift, z]) for name, shift in sharp.items()})
    found = compare_metrics(points, "seed < 40", "seed >= 40", list(sharp), **FAST).set_index("metric")
    assert found["verdict"].tolist() == ["different", "different", "inconclusive"]
    assert found["verdict_holm"].tolist() == ["different", "inconclusive", "inconclusive"]


# --- selection and exclusions -----------------------------------------------------------------------------------------


def test_where_reads_every_type_and_a_null_is_in_no_group() -> None:
    points = table(
        test_loss=np.arange(4.0),
        eig_max=[1.0, None, 3.0, 4.0],
        n_zero=pd.array([0, 1, None, 0], dtype="Int64"),
        same_basin=pd.array([True, None, False, True], dtype="boolean"),
        **{"training.lr": [0.1, 0.1, 0.5, 0.5], "landscape.hidden": ["[3]", "[3]", "[4]", "[4]"]},
    ).set_index(pd.Index([9, 7, 5, 3]))
    assert select(points, "eig_max > 1").tolist() == [False, False, True, True]
    assert select(points, "n_zero = 0 and same_basin = true").index[[0, 3]].tolist() == [9, 3]
    assert select(points, "n_zero = 0 and same_basin = true").tolist() == [True, False, False, True]
    assert select(points, "training.lr < 0.3 and landscape.hidden = '[3]'").tolist() == [True, True, False, False]
    assert select(points, "eig_max = null").tolist() == [False, True, False, False]
    with pytest.raises(QueryError, match="eig_max"):
        select(points, "eig_mx > 1")
    floats = points.assign(n_zero=[0.0, 1.0, np.nan, 0.0])
    assert select(floats, "n_zero = 0").tolist() == [True, False, False, True]
    with pytest.raises(QueryError, match="n_zero cannot be read as int64"):
        select(points.assign(n_zero=["a", "b", "c", "d"]), "n_zero = 0")
    with pytest.raises(QueryError, match="index"):
        select(points, pd.Series([True] * 4))
    with pytest.raises(QueryError, match="int64"):
        select(points, pd.Series(1, index=points.index))


def test_points_that_cannot_be_used_are_counted_and_too_many_decide_nothing() -> None:
    points = halves(11, 30, train_loss=np.linspace(0, 1, 60))
    points.loc[[0, 40], "test_loss"] = [np.nan, np.inf]
    found = compare(points, "seed < 30", "seed >= 30", match=None, **FAST)
    assert found.excluded == {"no finite test_loss": 2}
    assert (found.n_a, found.n_b, found.verdict) == (29, 29, "equivalent")
    points.loc[5:8, "test_loss"] = 1e300
    many = compare(points, "seed < 30", "seed >= 30", **FAST)
    assert many.verdict == "inconclusive"
    assert "6 of 60 points (10.0%)" in many.reason
    points = halves(11, 30, train_loss=np.where(np.arange(60) < 3, np.nan, np.linspace(0, 1, 60)))
    assert compare(points, "seed < 30", "seed >= 30", match="train_loss", **FAST).excluded == {
        "no finite train_loss": 3
    }


def test_one_trial_a_group_and_few_trials_are_inconclusive() -> None:
    one = compare(halves(12, 1), "seed < 1", "seed >= 1", **FAST)
    assert (one.verdict, one.estimate, one.hedges_g, one.cliff_delta) == ("inconclusive", None, None, None)
    assert one.reason == "no configuration has 2 trials in each group"
    assert one.details["dropped"] == [{"config": "aa", "n_a": 1, "n_b": 1}]
    few = compare(halves(12, 9), "seed < 9", "seed >= 9", names=("old", "new"), **FAST)
    assert (few.verdict, few.reason) == ("inconclusive", "only 9 trials of old can be compared; 10 are needed")
    empty = compare(halves(12, 9).iloc[:0], "seed < 9", "seed >= 9", **FAST)
    assert "no point with a finite metric in seed < 9 and seed >= 9" in empty.reason


def test_requests_that_mean_nothing_are_refused() -> None:
    points = halves(13, 12)
    with pytest.raises(QueryError, match="12 points are in both groups"):
        compare(points, "seed < 12", "seed >= 0")
    with pytest.raises(QueryError, match="no default margin"):
        compare(points, "seed < 12", "seed >= 12", metric="eig_max")
    with pytest.raises(QueryError, match="holds no numbers"):
        compare(points.assign(certificate="x"), "seed < 12", "seed >= 12", metric="certificate", margin=0.1)
    with pytest.raises(QueryError, match="caliper is 0"):
        compare(points, "seed < 12", "seed >= 12", match="train_loss", caliper=0)
    with pytest.raises(QueryError, match="lack the columns gap"):
        compare(points.drop(columns="gap"), "seed < 12", "seed >= 12", metric="gap")
    with pytest.raises(QueryError, match=r"alpha is 0\.7"):
        compare(points, "seed < 12", "seed >= 12", alpha=0.7)


def test_another_column_is_a_metric_with_a_margin() -> None:
    points = halves(14, 20).assign(eig_max=np.r_[np.full(20, 2.0), np.full(20, 1.0)] + np.tile([0.01, -0.01], 20))
    found = compare(points, "seed < 20", "seed >= 20", metric="eig_max", margin=0.5, **FAST)
    assert (found.verdict, found.estimate) == ("different", pytest.approx(1.0))


def test_the_order_of_rows_changes_nothing() -> None:
    points = by_training_loss(15, 40, 0.02)
    mixed = points.sample(frac=1, random_state=3).reset_index(drop=True)
    for options in ({}, {"match": "train_loss"}):
        one, other = (saddles_against_minima(p, **options, **FAST).as_dict() for p in (points, mixed))
        assert one == other


# --- the figure -------------------------------------------------------------------------------------------------------


def axes() -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(6, 4)).add_subplot()


def test_the_figure_has_a_row_for_each_stratum_and_counts_trials_once() -> None:
    points = several(
        table(test_loss=np.linspace(0, 1, 12)), saddles("aa", np.arange(12.0), test_loss=np.linspace(1, 3, 12))
    )
    found = saddles_against_minima(points, **FAST)
    ax = axes()
    comparison_intervals(found, ax, names={"aa (same trials)": "x", "aa": "width=3"})
    assert ax.get_title() == "Different (n = 12 trials; 90 % thick, 95 % thin)"
    assert [text.get_text() for text in ax.get_yticklabels()] == ["saddles − minima", "width=3, same trials"]
    lines = [list(line.get_xdata()) for line in ax.lines[1:4]]
    assert lines[0] == [found.diff_low, found.diff_high]
    assert lines[1] == [found.ci_low, found.ci_high]
    assert lines[2] == [found.estimate]


def test_the_figure_of_several_comparisons_and_of_none() -> None:
    ax = axes()
    parts = [compare(halves(k, 20), "seed < 20", "seed >= 20", names=(f"a{k}", "b"), **FAST) for k in range(3)]
    comparison_intervals(parts, ax)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a0 − b", "a1 − b", "a2 − b"]
    assert "n = 40 trials at most" in ax.get_title()
    empty = axes()
    comparison_intervals(compare(halves(1, 1), "seed < 1", "seed >= 1", **FAST), empty)
    assert [text.get_text() for text in empty.texts] == ["no estimate"]
    assert "n = 0" in empty.get_title()
    for wrong in ([], [parts[0], compare(halves(1, 20), "seed < 20", "seed >= 20", margin=0.5, **FAST)]):
        with pytest.raises(QueryError, match="at least one comparison"):
            comparison_intervals(wrong, ax)
