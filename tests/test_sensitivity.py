"""Sensitivity to the band and to the unit: the chosen row is the verdict, the others are what they say."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from landsweep.analysis.equivalence import Sample, combine
from landsweep.analysis.plots_tests import sensitivity as draw
from landsweep.analysis.sensitivity import sensitivity
from landsweep.analysis.verdict import VerdictOptions, verdict
from landsweep.workers.errors import QueryError

FAST: dict[str, Any] = {"resamples": 500}


def sweep(seed: int, excess: list[float], shift: float = 0.0, config: str = "aa", **columns: Any) -> pd.DataFrame:
    """Minima at objective 1 + excess; the metric is ``shift`` higher where the excess is positive."""
    rng = np.random.default_rng(seed)
    count = len(excess)
    trials = [f"{config}-{k}" for k in range(count)]
    frame = pd.DataFrame(
        {
            "sweep": "s",
            "config": config,
            "seed": range(count),
            "trial": trials,
            "point": [f"{trial}-training-0" for trial in trials],
            "source": "training",
            "kind": "minimum",
            "objective": 1.0 + np.array(excess),
            "test_loss": rng.normal(0.3, 0.005, count) + shift * (np.array(excess) > 0),
        }
    )
    return frame.assign(**columns)


SPREAD = [0.0] * 30 + [1e-3] * 30 + [1e-1] * 30


@pytest.mark.parametrize("shift", [0.0, 0.04, 0.019])
@pytest.mark.parametrize("splits", [1, 3, 6])
def test_the_chosen_row_is_the_verdict(shift: float, splits: int) -> None:
    frames = [
        sweep(k, SPREAD, shift, config=f"c{k}", **({"landscape.split_seed": float(k)} if splits > 1 else {}))
        for k in range(splits)
    ]
    points = pd.concat(frames, ignore_index=True)
    said = verdict(points, known_minimum=1.0, **FAST)
    table = sensitivity(points, known_minimum=1.0, units=("trial", "split"), **FAST)
    (row,) = table[table["chosen"]].to_dict("records")
    assert row["unit"] == ("split" if splits >= 5 else "trial")
    assert (row["verdict"], row["estimate"], row["factor"]) == (said.verdict, said.estimate, 1.0)
    assert (row["ci_low"], row["ci_high"], row["diff_low"], row["diff_high"]) == (
        said.ci_low,
        said.ci_high,
        said.diff_low,
        said.diff_high,
    )
    assert (row["n_local"], row["n_global"], row["n_configs"]) == (said.n_local, said.n_global, said.n_configs)
    assert row["band"] == said.band


def test_the_grid_is_even_on_a_log_scale_around_the_chosen_band() -> None:
    table = sensitivity(sweep(1, SPREAD), known_minimum=1.0, decades=3, steps=7, units=("trial",), **FAST)
    assert table["band"].tolist() == pytest.approx([1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1])
    assert table["factor"].tolist() == pytest.approx([1e-3, 1e-2, 1e-1, 1, 10, 100, 1000])
    assert table["chosen"].tolist() == [False] * 3 + [True] + [False] * 3


def test_a_verdict_that_hangs_on_the_band_is_shown_to() -> None:
    """The minima at 1e-3 are good, those at 0.1 bad: a wide band mixes good ones into the global group."""
    points = sweep(2, SPREAD)
    points.loc[points["objective"] > 1.05, "test_loss"] += 0.1
    table = sensitivity(points, known_minimum=1.0, bands=[1e-4, 1e-2, 1.0], units=("trial",), **FAST)
    assert table["estimate"].tolist()[:2] == pytest.approx([0.05, 0.1], abs=0.005)
    assert table[["n_local", "n_global"]].to_numpy().tolist() == [[60, 30], [30, 60], [0, 0]]
    assert table["verdict"].tolist() == ["different", "different", "inconclusive"]
    assert table["reason"].tolist()[2] == "no configuration has 2 trials in each group"
    assert table["chosen"].tolist() == [True, False, False]
    assert math.isnan(table["estimate"][2])


def test_classes_are_the_unit() -> None:
    """Thirty trials in one lucky class weigh as much as one: by class the difference is the classes' own."""
    classes = [f"g{k // 2}" for k in range(24)] + [f"l{k}" for k in range(12)] + ["l0"] * 40
    points = sweep(3, [0.0] * 24 + [0.1] * 52, class_id=classes)
    points["test_loss"] = np.r_[np.tile([0.3, 0.302], 12), np.linspace(0.2, 0.4, 12), np.full(40, 0.2)]
    table = sensitivity(points, known_minimum=1.0, steps=3, **FAST).set_index(["factor", "unit"])
    row = table.loc[(1.0, "class")]
    means = points.assign(local=points["objective"] > 1.05).groupby(["local", "class_id"])["test_loss"].mean()
    expected = combine([Sample("", means[True].to_numpy(), means[False].to_numpy())])
    assert (row["n_local"], row["n_global"]) == (12, 12)
    assert row["estimate"] == pytest.approx(expected.value, rel=1e-12)
    assert (row["ci_low"], row["ci_high"]) == pytest.approx(expected.interval(0.05), rel=1e-12)
    assert table.loc[(1.0, "trial")]["estimate"] < -0.05 < -0.01 < row["estimate"]


def test_units_that_cannot_be_say_why() -> None:
    table = sensitivity(sweep(4, SPREAD), known_minimum=1.0, steps=3, **FAST).set_index("unit")
    assert set(table.loc["class", "reason"]) == {"no classes to compare"}
    assert set(table.loc["split", "reason"]) == {"1 split; 5 are needed for them to be the unit"}
    assert set(table.loc[["class", "split"], "verdict"]) == {"inconclusive"}
    assert table.loc[["class", "split"], "estimate"].isna().all()
    few = sensitivity(sweep(4, [0.0] * 30 + [0.1] * 9), known_minimum=1.0, steps=3, units=("trial",), **FAST)
    assert set(few["reason"]) == {"only 9 local trials; 10 are needed"}
    assert set(few["verdict"]) == {"inconclusive"}


def test_excluded_trials_stand_against_every_row() -> None:
    points = sweep(5, SPREAD)
    points.loc[:9, "test_loss"] = np.nan
    table = sensitivity(points, known_minimum=1.0, steps=3, units=("trial",), **FAST)
    assert set(table["reason"]) == {"10 of 90 trials are excluded, more than 5%"}
    assert set(table["verdict"]) == {"inconclusive"}
    nothing = sensitivity(points.assign(kind="saddle"), steps=3, units=("trial",), **FAST)
    assert set(nothing["reason"]) == {"no trials to compare"}


def test_landscapes_with_bands_of_their_own_are_scaled_together() -> None:
    excess = [0.0] * 30 + [5e-4] * 30 + [5e-2] * 30
    wide = sweep(6, excess, config="bb").assign(**{"landscape.hidden": "[9]"})
    wide["objective"] += 99.0
    points = pd.concat([sweep(7, excess).assign(**{"landscape.hidden": "[3]"}), wide], ignore_index=True)
    table = sensitivity(points, decades=1, steps=3, units=("trial",), **FAST)
    assert table["band"].isna().all()
    # Bands 1e-4 and 1e-2: 30 + 60 global. A tenth of them changes nothing; tenfold, 60, and no local one in the other.
    assert table["n_global"].tolist() == [90, 90, 60]
    assert table["n_configs"].tolist() == [2, 2, 1]
    assert table["factor"].tolist() == pytest.approx([0.1, 1, 10])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"units": ("trial", "seed")}, "choose among trial, class, split"),
        ({"units": ()}, "choose among"),
        ({"bands": []}, "give numbers"),
        ({"bands": [-1.0]}, "give numbers"),
        ({"bands": [math.nan]}, "give numbers"),
        ({"steps": 4}, "odd number"),
        ({"decades": 0.0}, "odd number"),
    ],
)
def test_requests_that_mean_nothing_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(QueryError, match=message):
        sensitivity(sweep(8, SPREAD), **options)


def test_a_band_of_zero_has_no_multiples() -> None:
    with pytest.raises(QueryError, match="no multiples"):
        sensitivity(sweep(8, SPREAD), VerdictOptions(band=0.0))
    assert len(sensitivity(sweep(8, SPREAD), VerdictOptions(band=0.0), bands=[0.0, 1e-3], **FAST)) == 6


def test_the_figure_draws_every_estimate_and_rings_the_verdict() -> None:
    from matplotlib.figure import Figure

    ax = Figure().add_subplot()
    table = sensitivity(sweep(2, SPREAD, 0.05), known_minimum=1.0, bands=[0.0, 1e-4, 1e-2, 1.0], **FAST)
    draw(table, ax, margin=0.02)
    assert ax.get_title() == "Verdict by band and unit (n = 90 trials at most)"
    found = {item.get_label(): item.get_offsets().tolist() for item in ax.collections if hasattr(item, "get_offsets")}
    drawn = table[table["estimate"].notna()]
    assert found["trial"] == drawn[["band", "estimate"]].to_numpy().tolist()
    assert found["the verdict"] == table.loc[table["chosen"], ["band", "estimate"]].to_numpy().tolist()
    assert len(drawn) == 3
    empty = Figure().add_subplot()
    draw(sensitivity(sweep(2, [0.0] * 20), **FAST), empty)
    assert [text.get_text() for text in empty.texts] == ["no estimate"]
    with pytest.raises(QueryError, match="lacks unit"):
        draw(table.drop(columns="unit"), ax)
