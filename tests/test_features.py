"""What predicts generalisation: the definitions by brute force, planted truths, coverage, every skip."""

from __future__ import annotations

import json
import math
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pytest

from landsweep.analysis.features import MEASURES, features
from landsweep.analysis.plots_tests import feature_ranking
from landsweep.workers.errors import QueryError


def sweep(seed: int, seeds: int = 30, **made: Any) -> pd.DataFrame:
    """A grid of 3 widths × 2 rates; ``made``: column → function of (rng, width, lr, train_loss), each (trials,)."""
    rng = np.random.default_rng(seed)
    rows = [
        {"config": f"w{width}-r{lr}", "seed": k, "landscape.hidden": f"[{width}]", "training.lr": lr, "width": width}
        for width in (1, 2, 3)
        for lr in (0.1, 0.5)
        for k in range(seeds)
    ]
    frame = pd.DataFrame(rows).assign(sweep="s", source="training", kind="minimum")
    frame["trial"] = frame["config"] + "-" + frame["seed"].astype(str)
    frame["point"] = frame["trial"] + "-training-0"
    width, lr = frame.pop("width").to_numpy(float), frame["training.lr"].to_numpy(float)
    frame["train_loss"] = rng.normal(1, 0.1, len(frame))
    for name, function in made.items():
        frame[name] = function(rng, width, lr, frame["train_loss"].to_numpy())
    return frame


def noise(rng: np.random.Generator, like: Any, scale: float = 1.0) -> Any:
    return rng.normal(0, scale, len(like))


def row(points: pd.DataFrame, measure: str = "trace", **options: Any) -> Any:
    return features(points, **options).table.set_index("measure").loc[measure]


# --- planted truths ---------------------------------------------------------------------------------------------------


def test_a_feature_that_predicts_through_the_configuration_alone_vanishes_where_it_is_held_fixed() -> None:
    points = sweep(
        1, gap=lambda rng, w, lr, t: w + noise(rng, w, 0.2), trace=lambda rng, w, lr, t: w + noise(rng, w, 0.2)
    )
    found = features(points)
    shown = found.table.set_index("measure").loc["trace"]
    assert shown["tau"] > 0.5
    assert shown["tau_low"] > 0.4
    for name in ("within", "partial"):
        assert shown[f"{name}_low"] < 0 < shown[f"{name}_high"]
        assert abs(shown[name]) < 0.2
    assert shown["partial_p_holm"] > 0.05
    # ψ of the width is 1, and none of the learning rate: Ψ is half of it.
    assert found.axes.loc["trace", "landscape.hidden"] > 0.95
    assert abs(found.axes.loc["trace", "training.lr"]) < 0.3
    assert shown["granulated"] == pytest.approx(found.axes.loc["trace"].mean(), abs=1e-12)


def test_granulation_shows_a_feature_against_the_trend_between_configurations() -> None:
    """Simpson: the width raises both, and within every configuration the feature lowers the gap."""

    def trace(rng: np.random.Generator, w: Any, lr: Any, t: Any) -> Any:
        return 20 * w + noise(rng, w)

    points = sweep(2, trace=trace)
    points["gap"] = points["landscape.hidden"].map({"[1]": 0.0, "[2]": 100.0, "[3]": 200.0}) - points["trace"]
    found = row(points)
    assert found["tau"] > 0
    assert found["within"] == pytest.approx(-1.0)
    assert found["partial"] < -0.99
    # ψ = +1 along the width, −1 along the rate, in every seed.
    assert found["granulated"] == pytest.approx(0.0, abs=1e-12)


def test_a_feature_that_follows_the_training_loss_vanishes_in_the_partial_correlation() -> None:
    points = sweep(
        3,
        seeds=60,
        gap=lambda rng, w, lr, t: np.exp(3 * t) * (1 + noise(rng, w, 0.05)),
        trace=lambda rng, w, lr, t: t**3 + noise(rng, w, 0.1),
    )
    found = row(points)
    assert found["within"] > 0.4
    assert found["partial_low"] < 0 < found["partial_high"]
    assert abs(found["partial"]) < 0.12
    assert found["given"] == "train_loss, configuration"
    assert row(points, "train_loss")["given"] == "configuration"
    assert row(points, "train_loss")["partial"] > 0.9


def test_a_feature_that_predicts_is_ranked_first_and_one_that_is_noise_is_not_significant() -> None:
    points = sweep(
        4,
        trace=lambda rng, w, lr, t: noise(rng, w),
        eig_max=lambda rng, w, lr, t: noise(rng, w),
        param_norm=lambda rng, w, lr, t: noise(rng, w),
    )
    points["gap"] = -points["eig_max"] + points["train_loss"] + noise(np.random.default_rng(5), points, 0.5)
    found = features(points)
    assert found.table["measure"].tolist()[0] == "eig_max"
    assert found.table["rank"].tolist() == [1, 2, 3, 4]
    shown = found.table.set_index("measure")
    for name in ("tau", "within", "granulated", "partial"):
        assert shown.loc["eig_max", f"{name}_high"] < -0.3
        assert shown.loc["trace", f"{name}_low"] < 0 < shown.loc["trace", f"{name}_high"]
    assert shown.loc["eig_max", "partial_p_holm"] < 1e-6
    assert shown.loc[["trace", "param_norm"], "partial_p_holm"].min() > 0.05
    sizes = shown["partial"].abs().tolist()
    assert sizes == sorted(sizes, reverse=True)


# --- definitions ------------------------------------------------------------------------------------------------------


def test_granulated_tau_is_its_definition() -> None:
    """Equations 5 and 6 of Jiang et al. by loops, ties counting 0, on a sweep with a trial missing."""
    points = sweep(6, seeds=4, gap=lambda rng, w, lr, t: w + noise(rng, w), n_zero=lambda rng, w, lr, t: w)
    points["trace"] = np.random.default_rng(7).integers(0, 4, len(points)).astype(float)
    for drop in (None, 5):
        used = points if drop is None else points.drop(index=drop)
        psis = {}
        for axis, other in (("landscape.hidden", "training.lr"), ("training.lr", "landscape.hidden")):
            by_seed: dict[int, list[float]] = {}
            for (seed, _), group in used.groupby(["seed", other]):
                pairs = list(combinations(group[["trace", "gap"]].to_numpy().tolist(), 2))
                if pairs:
                    signs = [np.sign(a[0] - b[0]) * np.sign(a[1] - b[1]) for a, b in pairs]
                    by_seed.setdefault(int(seed), []).append(float(np.mean(signs)))
            psis[axis] = {seed: np.mean(values) for seed, values in by_seed.items()}
        found = features(used, measures=["trace"])
        for axis, values in psis.items():
            assert found.axes.loc["trace", axis] == pytest.approx(np.mean(list(values.values())), abs=1e-12)
        psi = [np.mean([psis[axis][seed] for axis in psis]) for seed in range(4)]
        assert found.table["granulated"][0] == pytest.approx(np.mean(psi), abs=1e-12)
        half = 3.182446305284263 * np.std(psi, ddof=1) / 2  # t of 3 degrees
        assert found.table["granulated_low"][0] == pytest.approx(max(np.mean(psi) - half, -1), abs=1e-9)


def test_the_partial_correlation_of_one_configuration_is_the_textbook_one() -> None:
    from scipy.stats import kendalltau, spearmanr

    rng = np.random.default_rng(80)
    points = sweep(8, seeds=50)
    points = points[points["config"] == "w1-r0.1"].reset_index(drop=True)
    points["trace"] = points["train_loss"] + noise(rng, points, 0.1)
    points["gap"] = points["train_loss"] + points["trace"] + noise(rng, points, 0.1)
    xy, xz, yz = (
        spearmanr(points[a], points[b]).statistic
        for a, b in (("trace", "gap"), ("trace", "train_loss"), ("gap", "train_loss"))
    )
    found = row(points)
    expected = (xy - xz * yz) / math.sqrt((1 - xz**2) * (1 - yz**2))
    assert found["partial"] == pytest.approx(expected, abs=1e-12)
    z, error = math.atanh(expected), math.sqrt(1.06 / (50 - 1 - 3))
    ends = [math.tanh(z + sign * 2.241402727604947 * error) for sign in (-1, 1)]  # 1 − 0.05/2, two measures
    assert (found["partial_low"], found["partial_high"]) == pytest.approx(ends, abs=1e-9)
    tau = kendalltau(points["trace"], points["gap"])
    assert (found["tau"], found["tau_p"]) == (pytest.approx(tau.statistic), pytest.approx(tau.pvalue))
    assert math.isnan(found["granulated"])


def test_holm_and_the_intervals_count_the_measures_that_are_tested() -> None:
    points = sweep(9, gap=lambda rng, w, lr, t: noise(rng, w), trace=lambda rng, w, lr, t: noise(rng, w))
    alone = row(points, measures=["trace"])
    both = row(points)
    assert alone["partial_p_holm"] == alone["partial_p"] == both["partial_p"]
    assert both["partial_high"] - both["partial_low"] > alone["partial_high"] - alone["partial_low"]
    table = features(points).table.sort_values("partial_p")
    expected = [min(1.0, 2 * table["partial_p"].iloc[0])]
    expected.append(max(expected[0], table["partial_p"].iloc[1]))
    assert table["partial_p_holm"].tolist() == pytest.approx(expected)


def test_under_independence_the_intervals_cover_zero_and_p_is_level() -> None:
    """Five measures of noise in 10 sweeps; α = 0.25 over five measures is 0.05 for each."""
    names = ["trace", "eig_max", "eig_min", "frobenius", "param_norm"]
    tables = []
    for seed in range(10):
        made = {name: lambda rng, w, lr, t: noise(rng, w) for name in names}
        points = sweep(100 + seed, seeds=8, gap=lambda rng, w, lr, t: t + noise(rng, w, 0.1), **made)
        tables.append(features(points, measures=names, alpha=0.25).table)
    found = pd.concat(tables)
    slack = 3 * math.sqrt(0.05 * 0.95 / len(found))
    for name in ("tau", "within", "granulated", "partial"):
        coverage = ((found[f"{name}_low"] <= 0) & (found[f"{name}_high"] >= 0)).mean()
        assert 0.95 - slack <= coverage < 1, name
    for name in ("tau_p", "partial_p"):
        assert abs((found[name] <= 0.05).mean() - 0.05) <= slack


# --- what is left out -------------------------------------------------------------------------------------------------


def test_skipped_measures_say_why() -> None:
    points = sweep(
        10,
        gap=lambda rng, w, lr, t: noise(rng, w),
        trace=lambda rng, w, lr, t: np.full(len(w), np.nan),
        n_zero=lambda rng, w, lr, t: np.full(len(w), 3.0),
        eig_max=lambda rng, w, lr, t: np.where(np.arange(len(w)) < 9, noise(rng, w), np.nan),
        objective=lambda rng, w, lr, t: 7 + noise(rng, w, 1e-13),
    )
    found = features(points)
    assert found.skipped["trace"] == "not measured"
    assert found.skipped["n_zero"] == "the same in all 180 trials"
    assert found.skipped["objective"] == "the same in all 180 trials"
    assert found.skipped["eig_max"] == "measured in 9 trials; 10 are needed"
    assert found.skipped["sharpness"] == "no such column"
    assert found.table["measure"].tolist() == ["train_loss"]
    assert set(found.skipped) | {"train_loss"} == set(MEASURES)
    assert features(points, measures=["gap"]).skipped == {"gap": "it is the target"}
    json.dumps(found.as_dict(), allow_nan=False)


def test_trials_that_cannot_be_used_are_counted() -> None:
    points = sweep(11, gap=lambda rng, w, lr, t: noise(rng, w), trace=lambda rng, w, lr, t: noise(rng, w))
    points.loc[0, "gap"] = np.nan
    points.loc[1, "gap"] = np.inf
    points.loc[2, "train_loss"] = np.nan
    points.loc[3, "kind"] = "saddle"
    points.loc[4, "source"] = "trajectory"
    points.loc[5, "trace"] = np.nan
    found = features(points)
    assert found.excluded == {"no finite gap": 2, "no finite train_loss": 1, "saddle": 1, "no training point": 1}
    assert found.n == 175
    assert found.table.set_index("measure")["n"].to_dict() == {"trace": 174, "train_loss": 175}


def test_nothing_left_is_an_empty_table_with_the_reasons() -> None:
    points = sweep(12, gap=lambda rng, w, lr, t: noise(rng, w), trace=lambda rng, w, lr, t: noise(rng, w))
    found = features(points.assign(kind="not_converged"))
    assert len(found.table) == 0
    assert (found.n, found.excluded, found.skipped["trace"]) == (0, {"not_converged": 180}, "no trial is left")
    json.dumps(found.as_dict(), allow_nan=False)
    assert len(features(points.iloc[:0]).table) == 0


def test_configurations_too_small_for_ranks_leave_their_coefficients_empty() -> None:
    points = sweep(13, seeds=3, gap=lambda rng, w, lr, t: noise(rng, w), trace=lambda rng, w, lr, t: noise(rng, w))
    found = row(points)
    assert math.isnan(found["partial"])
    assert math.isnan(found["within"])
    assert math.isnan(found["partial_p_holm"])
    assert -1 <= found["tau"] <= 1
    assert -1 <= found["granulated"] <= 1


def test_requests_that_mean_nothing_are_refused() -> None:
    points = sweep(14, gap=lambda rng, w, lr, t: noise(rng, w))
    with pytest.raises(QueryError, match="target 'trace' is unknown"):
        features(points, "trace")
    with pytest.raises(QueryError, match="lack the columns train_loss"):
        features(points.drop(columns="train_loss"))
    with pytest.raises(QueryError, match="lack the columns tracee"):
        features(points, measures=["tracee"])
    with pytest.raises(QueryError, match="holds no numbers"):
        features(points.assign(reason="x"), measures=["reason"])
    with pytest.raises(QueryError, match="alpha is 1"):
        features(points, alpha=1)


def test_the_order_of_rows_changes_nothing() -> None:
    points = sweep(15, gap=lambda rng, w, lr, t: noise(rng, w), trace=lambda rng, w, lr, t: noise(rng, w))
    mixed = points.sample(frac=1, random_state=2).reset_index(drop=True)
    one, other = (features(frame).table.round(12) for frame in (points, mixed))
    pd.testing.assert_frame_equal(one, other)


def test_the_figure_has_a_row_for_each_measure_in_order() -> None:
    from matplotlib.figure import Figure

    points = sweep(16, gap=lambda rng, w, lr, t: t + noise(rng, w, 0.1), trace=lambda rng, w, lr, t: noise(rng, w))
    found = features(points)
    ax = Figure().add_subplot()
    feature_ranking(found, ax)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["train loss", "trace"]
    assert ax.get_title() == "What predicts generalisation (n = 180 trials, 6 configurations)"
    marks = [line for line in ax.lines if len(line.get_xdata()) == 1 and line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in marks] == found.table["partial"].tolist()
    assert [line.get_markerfacecolor() == "white" for line in marks] == [False, True]
    empty = Figure().add_subplot()
    feature_ranking(features(points.assign(kind="saddle")), empty)
    assert [text.get_text() for text in empty.texts] == ["no measure"]
