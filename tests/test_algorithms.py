"""Algorithms compared: shares and costs counted by hand, tests against closed forms, and levels that hold."""

from __future__ import annotations

import io
import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from landsweep.analysis import plots_landscape
from landsweep.analysis.algorithms import Algorithms, compare_algorithms, same_classes
from landsweep.workers.errors import QueryError

OBJECTIVE = {"a": 0.1, "b": 0.2, "c": 0.3}


def points(**reached: str) -> pd.DataFrame:
    """``points(sgd="aab-")``: four sgd trials, two at class a, one at b, one at no minimum."""
    rows = []
    for name, ends in reached.items():
        for seed, end in enumerate(ends):
            trial = f"{name}-{seed}"
            row: dict[str, Any] = {"config": name, "trial": trial, "point": f"{trial}-training-0", "source": "training"}
            row |= {"kind": "minimum" if end != "-" else "not_converged", "class_id": end if end != "-" else None}
            rows.append({**row, "objective": OBJECTIVE.get(end, 5.0), "training": name, "landscape.hidden": "[2]"})
    return pd.DataFrame(rows)


def trials(frame: pd.DataFrame, **seconds: float) -> pd.DataFrame:
    table = frame[["trial", "config"]].assign(status="done", attempt=1, steps=100, error=None)
    table["seconds"] = table["config"].map(seconds).astype(float)
    return table


def one(found: Algorithms, question: str) -> pd.Series:
    (row,) = [row for _, row in found.pairs.iterrows() if row["question"] == question]
    return row


def test_counts_costs_and_shares_by_hand() -> None:
    frame = points(adam="aaabb", sgd="abc--")
    found = compare_algorithms(frame, trials(frame, adam=2.0, sgd=1.0), resamples=99)
    adam, sgd = (row for _, row in found.summary.iterrows())
    assert (adam["config"], adam["n_trials"], adam["n_minima"], adam["n_classes"], adam["n_global"]) == (
        "adam",
        5,
        5,
        2,
        3,
    )
    assert (sgd["n_trials"], sgd["n_minima"], sgd["n_classes"], sgd["n_global"]) == (5, 3, 3, 1)
    assert (adam["seconds"], adam["steps"], adam["n_costed"]) == (2.0, 100.0, 5)
    assert adam["seconds_per_global"] == pytest.approx(2.0 / 0.6)
    assert adam["seconds_per_global_low"] == pytest.approx(2.0 / adam["p_global_high"])
    z, n, p = 1.959963985, 5, 0.6  # Wilson (1927)
    centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)
    assert (adam["p_global_low"], adam["p_global_high"]) == pytest.approx((low, high))
    shares = found.shares[found.shares["config"] == "sgd"]
    assert shares["class_id"].fillna("-").tolist() == ["a", "b", "c", "-"]
    assert shares["times"].tolist() == [1, 1, 1, 2]
    assert shares["share"].sum() == pytest.approx(1)
    assert (shares["simultaneous_low"] <= shares["low"]).all() and (shares["simultaneous_high"] >= shares["high"]).all()
    assert found.excluded == {"not_converged": 2}
    assert found.references and set(found.references.values()) == {0.1}
    json.dumps(found.as_dict(), allow_nan=False)


def test_the_tests_of_a_pair_in_closed_form() -> None:
    """Fisher's tea-tasting table [[3, 1], [1, 3]]: p = 34/70."""
    found = compare_algorithms(points(adam="aaab", sgd="abbb"))
    row = one(found, "global")
    assert (row["difference"], row["p"]) == pytest.approx((0.5, 34 / 70))
    classes = one(found, "classes")
    assert classes["difference"] == pytest.approx(0.5)
    assert classes["p"] == pytest.approx(34 / 70, abs=0.02)  # two classes: the same table, by Monte Carlo
    again = compare_algorithms(points(adam="aaab", sgd="abbb"))
    assert one(again, "classes")["p"] == classes["p"]


def test_classes_can_differ_where_the_global_share_is_equal() -> None:
    found = compare_algorithms(points(adam="a" * 10 + "b" * 30, sgd="a" * 10 + "c" * 30))
    assert one(found, "global")["p"] == pytest.approx(1.0)
    assert one(found, "classes")["p"] == pytest.approx(1 / 10_000)


def test_holm_is_over_all_pairs_of_a_question() -> None:
    found = compare_algorithms(points(x="a" * 20, y="b" * 20, z="a" * 10 + "b" * 10), resamples=999)
    rows = found.pairs[found.pairs["question"] == "global"].sort_values("p")
    p, holm = rows["p"].to_numpy(), rows["p_holm"].to_numpy()
    assert len(rows) == 3
    assert holm == pytest.approx(np.minimum(np.maximum.accumulate(p * [3, 2, 1]), 1))


def test_equal_algorithms_are_rarely_told_apart_and_others_mostly() -> None:
    rng, draws = np.random.default_rng(9), 300
    equal = rng.multinomial(25, [0.5, 0.3, 0.2, 0.0], (draws, 2))
    other = rng.multinomial(25, [0.1, 0.3, 0.3, 0.3], draws)
    wrong = sum(same_classes(pair, 199, rng)["p"] <= 0.05 for pair in equal)
    right = sum(same_classes(np.array([a, b]), 199, rng)["p"] <= 0.05 for (a, _), b in zip(equal, other, strict=True))
    assert wrong / draws <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / draws)
    assert right / draws >= 0.9


def test_landscapes_are_not_compared_with_each_other() -> None:
    frame = points(x="aab", y="abb")
    frame.loc[frame["config"] == "y", "landscape.hidden"] = "[3]"
    found = compare_algorithms(frame)
    assert not len(found.pairs) and len(found.references) == 2
    assert found.shares.groupby("config")["class_id"].count().to_dict() == {"x": 2, "y": 2}


def test_failed_trials_are_left_out_and_others_count_as_misses() -> None:
    frame = points(x="aa-", y="ab")
    more = [("x-8", "x", "failed", 1), ("x-8", "x", "done", 2), ("x-9", "x", "failed", 1), ("z-0", "z", "failed", 1)]
    extra = pd.DataFrame(more, columns=["trial", "config", "status", "attempt"])
    extra = extra.assign(steps=100, seconds=math.nan, error="boom")
    found = compare_algorithms(frame, pd.concat([trials(frame, x=1.0, y=1.0), extra], ignore_index=True))
    x = found.summary.set_index("config").loc["x"]
    assert (x["n_trials"], x["n_failed"], x["n_costed"], x["n_global"]) == (4, 1, 3, 2)
    assert found.excluded == {"failed": 2, "no training point": 1, "not_converged": 1}
    assert "z" not in set(found.summary["config"])  # nothing says which landscape it was


def test_without_trials_nothing_is_said_of_costs() -> None:
    found = compare_algorithms(points(x="aab", y="---"))
    assert found.summary["seconds"].isna().all() and found.summary["seconds_per_global"].isna().all()
    assert (found.summary["n_costed"] == 0).all()
    y = found.summary.set_index("config").loc["y"]
    assert (y["p_global"], y["p_global_low"]) == (0.0, 0.0) and 0.5 < y["p_global_high"] < 1
    frame = points(x="aab", y="bbb")
    costed = compare_algorithms(frame, trials(frame, x=1.0, y=1.0))
    assert math.isinf(costed.summary.set_index("config").loc["y", "seconds_per_global"])
    assert costed.as_dict()["summary"][1]["seconds_per_global"] is None


def test_a_minimum_without_a_class_is_a_trial_of_no_class() -> None:
    frame = points(x="aab", y="abb")
    frame.loc[2, "class_id"] = None
    found = compare_algorithms(frame)
    assert found.excluded == {"no class_id": 1}
    mine = found.shares[found.shares["config"] == "x"]
    assert mine.loc[mine["class_id"].isna(), "times"].tolist() == [1]
    assert mine["times"].sum() == 3


def test_where_all_end_alike_there_is_nothing_to_test() -> None:
    row = one(compare_algorithms(points(x="aaa", y="aaa")), "classes")
    assert math.isnan(row["p"]) and math.isnan(row["p_holm"]) and "nothing to test" in row["note"]


def test_a_known_minimum_below_all_is_reached_by_none() -> None:
    found = compare_algorithms(points(x="aab", y="abb"), known_minimum=0.0)
    assert (found.summary["n_global"] == 0).all()
    assert (compare_algorithms(points(x="aab", y="abb"), known_minimum=0.0, band=0.15).summary["n_global"] > 0).all()


@pytest.mark.parametrize(
    ("drop", "options", "message"),
    [
        ("class_id", {}, "class_id"),
        ("objective", {}, "objective"),
        (None, {"level": 1.0}, "level"),
        (None, {"resamples": 10}, "resamples"),
    ],
)
def test_requests_that_mean_nothing(drop: str | None, options: dict[str, Any], message: str) -> None:
    frame = points(x="ab", y="ab")
    with pytest.raises(QueryError, match=message):
        compare_algorithms(frame.drop(columns=drop) if drop else frame, **options)


def test_empty_tables_and_missing_costs_are_named() -> None:
    frame = points(x="ab", y="ab")
    with pytest.raises(QueryError, match="no points"):
        compare_algorithms(frame.iloc[:0])
    with pytest.raises(QueryError, match="seconds"):
        compare_algorithms(frame, trials(frame).drop(columns="seconds"))


def test_the_figures_draw_chances_and_shares() -> None:
    found = compare_algorithms(points(adam="aaab", sgd="ab--"), resamples=99)
    chances, shares = Figure().subplots(2, 1)
    plots_landscape.global_chance(found, chances)
    plots_landscape.basin_shares(found, shares)
    assert list(chances.lines[0].get_xdata()) == [0.75, 0.25]
    assert chances.get_title() == "Global minimum reached (n = 8 trials)"
    widths = [patch.get_width() for patch in shares.patches]
    assert widths[:4] == pytest.approx([0.75, 0.25, 0.0, 0.0])  # two classes, rarer ones, no minimum
    assert widths[4:8] == pytest.approx([0.25, 0.25, 0.0, 0.5])
    chances.figure.savefig(io.BytesIO())
