"""Random-matrix views: planted laws and generated matrices give back what made them."""

from __future__ import annotations

import io
import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy.integrate import quad
from scipy.stats import kstest

from landsweep.analysis import plots_landscape
from landsweep.analysis.random_matrix import LAWS, Bulk, fit_bulk, index_law, loss_concentration, outliers
from landsweep.workers.errors import QueryError


def wishart(p: int, ratio: float, scale: float, seed: int = 0) -> np.ndarray:
    samples = np.random.default_rng(seed).normal(size=(p, int(p / ratio)))
    return np.linalg.eigvalsh(samples @ samples.T) * scale / samples.shape[1]


def wigner(p: int, radius: float, centre: float, seed: int = 0) -> np.ndarray:
    entries = np.random.default_rng(seed).normal(size=(p, p))
    return centre + radius * np.linalg.eigvalsh(entries + entries.T) / math.sqrt(8 * p)


@pytest.mark.parametrize("ratio", [0.05, 0.5, 1.0])
@pytest.mark.parametrize("spikes", [0, 7])
def test_marchenko_pastur_is_recovered_beside_outliers(ratio: float, spikes: int) -> None:
    values = np.concatenate([wishart(300, ratio, 2.5), 40.0 + 5 * np.arange(spikes)])
    bulk = fit_bulk(np.random.default_rng(1).permutation(values))
    assert bulk.scale == pytest.approx(2.5, rel=0.03)
    assert bulk.ratio == pytest.approx(ratio, rel=0.05)
    assert bulk.upper == pytest.approx(2.5 * (1 + math.sqrt(ratio)) ** 2, rel=0.03)
    assert (bulk.n_above, bulk.n_bulk, bulk.shift) == (spikes, 300, 0.0)
    assert bulk.distance < 0.03


def test_a_shifted_law_finds_its_shift() -> None:
    values = wishart(400, 0.5, 2.0) + 0.7
    bulk = fit_bulk(values, "shifted_marchenko_pastur")
    assert (bulk.shift, bulk.scale, bulk.ratio) == pytest.approx((0.7, 2.0, 0.5), rel=0.06)
    assert fit_bulk(values).distance > 3 * bulk.distance  # without the shift the law does not fit


def test_the_semicircle_is_recovered() -> None:
    values = np.concatenate([wigner(400, 3.0, 1.0), [8.0, 9.0, -7.0]])
    bulk = fit_bulk(values, "semicircle")
    assert (bulk.shift, bulk.scale) == pytest.approx((1.0, 3.0), rel=0.03)
    assert (bulk.n_above, bulk.n_below, bulk.n_bulk) == (2, 1, 400)
    assert bulk.distance < 0.02
    assert fit_bulk(wishart(400, 1.0, 1.0), "semicircle").distance > 0.1


@pytest.mark.parametrize("law", LAWS)
def test_the_laws_agree_with_their_densities(law: str) -> None:
    """F from the cosine grid against the integral of the closed-form density."""
    ratio = None if law == "semicircle" else 0.4
    low, high = (-1.0, 1.0) if ratio is None else ((1 - math.sqrt(0.4)) ** 2, (1 + math.sqrt(0.4)) ** 2)
    bulk = Bulk(law, 0.3, 2.0, ratio, 0.3 + 2 * low, 0.3 + 2 * high, 9.0, -9.0, 0.0, 0, 0, 0, 0, 0, 0)
    for share in (0.2, 0.5, 0.9, 1.0):
        x = bulk.lower + share * (bulk.upper - bulk.lower)
        integral, _ = quad(lambda v: float(bulk.density(np.array([v]))[0]), bulk.lower, x)
        assert float(bulk.cdf(np.array([x]))[0]) == pytest.approx(integral, abs=2e-5)


def test_the_distance_is_kolmogorov_and_smirnovs() -> None:
    values = wishart(200, 0.3, 1.0)
    bulk = fit_bulk(values)
    assert bulk.distance == pytest.approx(kstest(values, bulk.cdf).statistic, abs=1e-12)


def test_outliers_are_rare_where_there_are_none() -> None:
    found = [fit_bulk(wishart(150, 0.5, 1.0, seed)).n_above for seed in range(40)]
    assert sum(count > 0 for count in found) <= 8


def test_atoms_and_values_that_are_not_finite_are_left_out_and_counted() -> None:
    values = np.concatenate([wishart(100, 0.5, 1.0) + 1e-3, np.full(60, 1e-3), [np.nan, np.inf]])
    bulk = fit_bulk(values, atom=1e-3, atom_width=1e-6)
    assert (bulk.n_atom, bulk.n_eigenvalues, bulk.n_bulk, bulk.excluded) == (60, 160, 100, 2)
    assert bulk.ratio == pytest.approx(0.5, rel=0.1)
    assert fit_bulk(values).distance > 0.2  # the atom spoils the fit where it is left in
    json.dumps(bulk.as_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (np.arange(19.0), {}, "at least 20"),
        (np.full(40, 2.0), {}, "all equal"),
        (np.arange(40.0), {"law": "cauchy"}, "unknown"),
        (np.arange(40.0), {"atom_width": -1.0}, "not negative"),
        (np.zeros(0), {}, "0 eigenvalues"),
        (np.arange(40.0) - 30, {}, "not positive"),
    ],
)
def test_spectra_without_a_bulk_are_refused(values: np.ndarray, options: dict[str, Any], message: str) -> None:
    with pytest.raises(QueryError, match=message):
        fit_bulk(values, **options)


def test_a_law_that_does_not_hold_says_so() -> None:
    cauchy = np.tan(np.pi * (np.arange(500) / 500 - 0.499))
    assert "does not describe" in fit_bulk(np.concatenate([cauchy, wishart(20, 0.5, 1.0)])).note
    assert fit_bulk(wishart(100, 0.5, 1.0)).note == ""


def test_outliers_against_classes() -> None:
    spiked = np.concatenate([wishart(200, 0.5, 1.0), 10.0 + np.arange(10)])
    spectra = pd.DataFrame({"point": ["a", "b", "c"], "config": "k", "eigenvalues": [spiked, spiked[:5], None]})
    table = outliers(spectra, 10, law="marchenko_pastur").set_index("point")
    assert (table.loc["a", "n_outliers"], table.loc["a", "difference"], table.loc["a", "reason"]) == (10, 0, "")
    assert pd.isna(table.loc["b", "n_outliers"]) and "at least 20" in table.loc["b", "reason"]
    assert pd.isna(table.loc["c", "upper"]) and table.loc["c", "reason"] == "no spectrum"
    for arguments in ((spectra, 1), (spectra, True), (spectra.iloc[:0], 10), (spectra.drop(columns="eigenvalues"), 10)):
        with pytest.raises(QueryError):
            outliers(*arguments)
    with pytest.raises(QueryError, match="unknown"):
        outliers(spectra, 10, law="cauchy")


def searched(n: int = 240, exponent: float = 1.5, noise: float = 0.0, seed: int = 3) -> pd.DataFrame:
    """Critical points with α = 0.4·(ε − 0.7)^exponent of 10,000 parameters, four a trial; relative noise."""
    rng = np.random.default_rng(seed)
    energy = rng.uniform(0.5, 1.5, n)
    fraction = 0.4 * np.maximum(energy - 0.7, 0) ** exponent
    index = np.round(10_000 * np.clip(fraction * (1 + rng.normal(0, noise, n)), 0, 1)).astype(int)
    frame = pd.DataFrame({"objective": energy, "index": index, "n_positive": 10_000 - index, "n_zero": 0})
    frame = frame.assign(n_undetermined=0, config="c", kind="saddle")
    frame["trial"] = [f"c-{k // 4}" for k in range(n)]
    return frame


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_a_planted_three_halves_law_is_found(noise: float) -> None:
    (law,) = index_law(searched(noise=noise))
    assert law.fixed is not None and law.free is not None
    assert law.fixed.c == pytest.approx(0.4, rel=0.05)
    assert law.fixed.threshold == pytest.approx(0.7, abs=0.02)
    assert law.free.exponent == pytest.approx(1.5, abs=0.25)
    assert law.free.residual <= law.fixed.residual * (1 + 1e-9)
    assert not law.fixed.at_edge and not law.free.at_edge
    assert (law.n_points, law.n_trials, law.reason) == (240, 60, "")
    json.dumps(law.as_dict(), allow_nan=False)


def test_intervals_hold_the_planted_values() -> None:
    held, draws = np.zeros(3), 40
    for seed in range(draws):
        (law,) = index_law(searched(noise=0.1, seed=seed))
        assert law.fixed is not None and law.free is not None
        fixed, free = law.fixed, law.free
        assert free.exponent_low is not None and free.exponent_high is not None
        held += [
            fixed.c_low <= 0.4 <= fixed.c_high,
            fixed.threshold_low <= 0.7 <= fixed.threshold_high,
            free.exponent_low <= 1.5 <= free.exponent_high,
        ]
    assert (held / draws >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / draws)).all()


def test_another_exponent_is_told_apart() -> None:
    (law,) = index_law(searched(exponent=1.0, noise=0.05))
    assert law.free is not None and law.fixed is not None and law.free.exponent_high is not None
    assert law.free.exponent_high < 1.3
    assert law.free.residual < 0.8 * law.fixed.residual


def test_points_that_say_nothing_about_the_index_are_counted() -> None:
    points = searched()
    points["index"], points["objective"] = points["index"].astype("Int64"), points["objective"]
    points.loc[0, "kind"], points.loc[1, "n_undetermined"] = "diverged", 3
    points.loc[2, "index"], points.loc[3, "objective"] = pd.NA, np.nan
    (law,) = index_law(points, largest_fraction=0.2)
    above = law.excluded.pop("index fraction above largest_fraction")
    assert above > 10
    expected = {"no critical point": 1, "no finite objective": 1, "no index": 1, "signs that cannot be told": 1}
    assert law.excluded == expected
    assert law.n_points == 240 - 4 - above
    assert law.data["fraction"].max() <= 0.2


def test_too_little_for_a_law_is_said() -> None:
    (few,) = index_law(searched().iloc[:5])
    assert few.fixed is None and few.free is None and "at least 8" in few.reason
    (flat,) = index_law(searched().assign(index=0))
    assert flat.fixed is None and "0 distinct objectives" in flat.reason
    (lonely,) = index_law(searched().assign(trial="c-0"))
    assert lonely.fixed is None and "1 trials" in lonely.reason
    with pytest.raises(QueryError, match="n_zero"):
        index_law(searched().drop(columns="n_zero"))
    with pytest.raises(QueryError, match="largest_fraction"):
        index_law(searched(), largest_fraction=0.0)
    with pytest.raises(QueryError, match="level"):
        index_law(searched(), level=0.0)


def minima(n: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    frames = []
    for width, rho, sd in (("[100]", 0.3, 0.01), ("[10, 5]", 0.8, 0.05)):
        train, own = rng.normal(size=(2, n))
        frame = pd.DataFrame({"train_loss": 0.2 + 0.02 * train, "landscape.hidden": width, "config": f"c{width}"})
        frame["test_loss"] = 0.5 + sd * (rho * train + math.sqrt(1 - rho**2) * own)
        frame["trial"] = [f"c{width}-{k}" for k in range(n)]
        frame["point"] = frame["trial"] + "-training-0"
        frames.append(frame.assign(source="training", kind="minimum", objective=frame["train_loss"]))
    return pd.concat(frames, ignore_index=True)


def test_losses_concentrate_with_width() -> None:
    table = loss_concentration(minima()).table
    assert table["width"].tolist() == [15.0, 100.0]
    assert table["sd"].tolist() == pytest.approx([0.05, 0.01], rel=0.1)
    for (_, row), rho, sd in zip(table.iterrows(), (0.8, 0.3), (0.05, 0.01), strict=True):
        assert row["rho_low"] < rho < row["rho_high"]
        assert row["sd_low"] < sd < row["sd_high"]
        assert row["mean_low"] < 0.5 < row["mean_high"]
    first = minima().query("config == 'c[10, 5]'")
    z, r = 1.959963985 / math.sqrt(397), np.corrcoef(first["train_loss"], first["test_loss"])[0, 1]
    assert table.loc[0, "rho_low"] == pytest.approx(math.tanh(math.atanh(r) - z), abs=1e-9)  # Fisher's interval


def test_every_hole_in_the_losses_is_stated() -> None:
    points = minima(6)
    points.loc[0, "test_loss"], points.loc[1, "kind"], points.loc[2, "train_loss"] = np.nan, "diverged", np.nan
    points = points.drop(index=[7, 8, 9, 10, 11])
    trials = pd.DataFrame({"trial": ["c[100]-77"], "config": "c[100]", "attempt": 1, "status": "failed", "error": "x"})
    found = loss_concentration(points, trials)
    assert found.excluded == {"diverged": 1, "failed": 1, "no finite test_loss": 1}
    narrow, wide = (row for _, row in found.table.iterrows())
    assert narrow["n"] == 1 and math.isnan(narrow["sd"]) and "one trial" in narrow["note"]
    assert wide["n"] == 4 and math.isnan(wide["rho"])
    assert "1 without a finite training loss" in wide["note"] and "at least 4" in wide["note"]
    constant = loss_concentration(minima(6).assign(train_loss=0.1)).table
    assert constant["rho"].isna().all() and "not defined" in constant.loc[0, "note"]
    json.dumps(found.as_dict(), allow_nan=False)


def test_requests_about_losses_that_mean_nothing() -> None:
    with pytest.raises(QueryError, match=r"landscape\.hidden"):
        loss_concentration(minima(6).drop(columns="landscape.hidden"))
    with pytest.raises(QueryError, match="no width"):
        loss_concentration(minima(6).assign(**{"landscape.hidden": '["a"]'}))
    with pytest.raises(QueryError, match="level"):
        loss_concentration(minima(6), level=2.0)
    assert not len(loss_concentration(minima(6).assign(kind="saddle")).table)


def test_the_figures_draw_the_fits() -> None:
    values = np.concatenate([wishart(200, 0.5, 1.0), [10.0, 11.0]])
    bulk, law, axes = fit_bulk(values), index_law(searched())[0], Figure().subplots(5, 1)
    plots_landscape.bulk_fit(values, bulk, axes[0])
    plots_landscape.index_fraction(law, axes[1])
    spectra = pd.DataFrame({"point": ["a", "b"], "eigenvalues": [values, values[:4]]})
    plots_landscape.outlier_counts(outliers(spectra, 10, law="marchenko_pastur"), axes[2])
    plots_landscape.loss_concentration_plot(loss_concentration(minima(20)), axes[3])
    plots_landscape.train_test_correlation(loss_concentration(minima(20)), axes[4])
    assert [ax.get_title() for ax in axes] == [
        "Bulk (n = 202 eigenvalues, 200 in the bulk)",
        "Index fraction (n = 240 critical points of 60 trials)",
        "Outliers (n = 1 spectra)",
        "Loss against width (n = 40 minima)",
        "Train against test (n = 40 minima)",
    ]
    assert list(axes[0].lines[-1].get_xdata()) == [10.0, 11.0]
    x, y = axes[1].lines[0].get_data()
    assert law.fixed is not None
    assert y[-1] == pytest.approx(law.fixed.c * (x[-1] - law.fixed.threshold) ** 1.5)
    axes[0].figure.savefig(io.BytesIO())


def test_the_figures_say_what_there_is_nothing_of() -> None:
    none = loss_concentration(minima(6).assign(kind="saddle"))
    empty = outliers(pd.DataFrame({"point": ["a"], "eigenvalues": [None]}), 10)
    (law,) = index_law(searched().assign(kind="diverged"))
    axes = Figure().subplots(4, 1)
    plots_landscape.loss_concentration_plot(none, axes[0])
    plots_landscape.train_test_correlation(none, axes[1])
    plots_landscape.outlier_counts(empty, axes[2])
    plots_landscape.index_fraction(law, axes[3])
    assert all(ax.texts and "(n = 0" in ax.get_title() for ax in axes)
