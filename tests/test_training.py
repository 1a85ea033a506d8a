"""Batches: a trial's result is its own, whatever its batch mates are and whatever becomes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from landsweep.workers import record, streams, training
from landsweep.workers.batch import BatchResult, BatchTask, run_batch, stream_key
from landsweep.workers.landscape import Landscape
from tests.digits import built

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
OWN = {"points": {"batch", "parameters_row"}, "trials": {"batch", "seconds"}}  # columns that may name the batch
DIGITS = {"name": "mlp", "data": "digits", "hidden": [3], "resize": 4, "train_size": 150, "weight_decay": 1e-3}
TRAINING = {
    "optimizer": "sgd",
    "lr": 0.1,
    "momentum": 0.9,
    "nesterov": False,
    "batch_size": 32,
    "steps": 60,
    "dtype": "float32",
}


def settings(landscape: dict[str, Any], method: str = "eigenvector_following", **changes: Any) -> dict[str, Any]:
    saddles = {"per_trial": 1, "trials": "all", "starts": "trajectory", "method": method, "max_iterations": 6}
    saddles["connections"] = True
    search = {"tolerance": 1e-8, "minima": True, "minima_iterations": 6, "saddles": saddles}
    return {
        "landscape": landscape,
        "training": {**TRAINING, **changes},
        "search": search,
        "measure": {"spectrum": "dense"},
    }


def batch(seeds: Sequence[int], chosen: dict[str, Any], landscape: Landscape, **options: Any) -> BatchResult:
    name = f"batch-of-{len(seeds)}"
    return run_batch(BatchTask("sweep", name, "c0ffee", chosen, {}, tuple(seeds)), landscape, CPU, **options)


def rows_of(result: BatchResult, seed: int) -> dict[str, list[dict[str, Any]]]:
    """Every table's rows of one seed, without the columns that name the batch."""
    tables = {}
    for table, columns in result.tables.items():
        names = [name for name in columns if name not in OWN.get(table, set())]
        rows = zip(*(columns[name] for name in names), strict=True)
        tables[table] = [dict(zip(names, row, strict=True)) for row in rows if row[names.index("seed")] == seed]
    return tables


def parameters_of(result: BatchResult, seed: int, seeds: Sequence[int]) -> dict[str, np.ndarray]:
    points, row = result.tables["points"], list(seeds).index(seed)
    kept = [place for place, s in zip(points["parameters_row"], points["seed"], strict=True) if s == seed]
    chosen = result.parameters["points"][[place for place in kept if place is not None]]
    return {
        "points": chosen,
        "initial": result.parameters["initial"][row],
        "trained": result.parameters["trained"][row],
    }


def same_bits(a: BatchResult, b: BatchResult, seed: int, seeds_a: Sequence[int], seeds_b: Sequence[int]) -> None:
    ours, theirs = rows_of(a, seed), rows_of(b, seed)
    assert ours.keys() == theirs.keys() == set(record.TABLES)
    for table, rows in ours.items():
        unmeasured = table == "spectra" and {point["kind"] for point in ours["points"]} == {"diverged"}
        assert rows or table == "connections" or unmeasured
        for left, right in zip(rows, theirs[table], strict=True):
            for name, value in left.items():
                assert repr(value) == repr(right[name]), (table, name)
    first, second = parameters_of(a, seed, seeds_a), parameters_of(b, seed, seeds_b)
    for name, array in first.items():
        assert array.tobytes() == second[name].tobytes(), name


@pytest.mark.parametrize("seed", [5, 17])
@pytest.mark.parametrize("method", ["eigenvector_following", "levenberg_marquardt"])
def test_a_seed_is_the_same_alone_and_in_company(method: str, seed: int, batch_of_64: dict[str, BatchResult]) -> None:
    chosen = settings(DIGITS, method)
    landscape = built(DIGITS)
    alone = batch([seed], chosen, landscape)
    four = range(seed - 1, seed + 3)
    in_four = batch(four, chosen, landscape)
    same_bits(alone, in_four, seed, [seed], four)
    same_bits(alone, batch_of_64[method], seed, [seed], range(64))
    sources = alone.tables["points"]["source"]
    assert sources == ["training", "trajectory"]


def test_connections_are_the_same_alone_and_in_company() -> None:
    small = {**DIGITS, "hidden": [2], "resize": 4, "train_size": 60, "weight_decay": 1e-2}
    chosen = settings(small)
    chosen["search"]["saddles"] |= {"per_trial": 6, "max_iterations": 80}
    landscape, four = built(small), [2, 3, 4, 5]
    in_four = batch(four, chosen, landscape)
    joined = in_four.tables["connections"]["seed"]
    assert joined, "no saddle of index 1 among 24 searches"
    same_bits(batch(joined[:1], chosen, landscape), in_four, joined[0], joined[:1], four)


@pytest.fixture(scope="module")
def batch_of_64(one_thread: None) -> dict[str, BatchResult]:
    landscape = built(DIGITS)
    methods = ("eigenvector_following", "levenberg_marquardt")
    return {method: batch(range(64), settings(DIGITS, method), landscape) for method in methods}


def test_searched_points_are_the_same_alone_and_in_company_to_their_end() -> None:
    """Long enough searches to converge, so that rows leave the batch at different iterations."""
    options = {**DIGITS, "hidden": [2], "train_size": 60, "activation": "sigmoid", "weight_decay": 1e-2}
    landscape = built(options)
    chosen = settings(options, optimizer="adam", betas=(0.9, 0.999), epsilon=1e-8, lr=0.03, batch_size="full")
    chosen["search"]["minima_iterations"] = chosen["search"]["saddles"]["max_iterations"] = 60
    four = [2, 3, 4, 5]
    company = batch(four, chosen, landscape)
    kinds = company.tables["points"]["kind"]
    assert "minimum" in kinds
    assert "saddle" in kinds
    for seed in four:
        same_bits(company, batch([seed], chosen, landscape), seed, four, [seed])


def test_data_order_and_start_depend_on_landscape_training_and_seed_alone() -> None:
    base = settings(DIGITS)
    key = stream_key(base)
    landscape = built(DIGITS)
    start = training.initial_parameters(landscape, key, [5, 6], CPU)
    assert torch.equal(start, training.initial_parameters(landscape, key, [6, 5], CPU).flip(0))
    together = list(training.minibatches(streams.keys(key, [4, 5, 6], "order"), 150, 32, 12))
    alone = list(training.minibatches(streams.keys(key, [5], "order"), 150, 32, 12))
    for many, one in zip(together, alone, strict=True):
        assert torch.equal(many[1:2], one)
    searched_otherwise = {**base, "search": {**base["search"], "saddles": None}}
    assert stream_key(searched_otherwise) == key
    assert stream_key(settings(DIGITS, lr=0.2)) != key


def test_a_diverging_trial_is_a_row_and_disturbs_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen, landscape, seeds = settings(DIGITS), built(DIGITS), [4, 5, 6, 7]
    calm, usual = batch(seeds, chosen, landscape), training.hyperparameters

    def one_wild(*given: Any) -> dict[str, Tensor]:
        return {**usual(*given), "lr": torch.tensor([0.1, 1e6, 0.1, 0.1])}

    monkeypatch.setattr(training, "hyperparameters", one_wild)
    wild = batch(seeds, chosen, landscape)
    for seed in (4, 6, 7):
        same_bits(calm, wild, seed, seeds, seeds)
    rows = rows_of(wild, 5)
    (point,) = rows["points"]
    assert (point["kind"], point["source"], point["trial"]) == ("diverged", "training", "c0ffee-5")
    assert "non-finite" in point["reason"]
    assert point["objective"] is point["index"] is point["spectrum"] is point["grad_norm"] is None
    assert point["certified"] is False
    assert rows["trials"][0]["status"] == "done"
    assert rows["trials"][0]["final_objective"] is None
    assert rows["spectra"] == []
    places = wild.tables["points"]["parameters_row"]
    assert [place for place in places if place is not None] == list(range(len(wild.parameters["points"])))
    assert np.isfinite(wild.parameters["points"]).all()


def test_all_trials_diverging_is_a_result() -> None:
    chosen, landscape = settings(DIGITS, lr=1e6), built(DIGITS)
    result = batch([0, 1], chosen, landscape)
    assert result.tables["points"]["kind"] == ["diverged", "diverged"]
    assert result.parameters["points"].shape == (0, landscape.dim)


# --- landscapes without data -----------------------------------------------------------------------------------
def double_well(theta: Tensor) -> Tensor:
    return 0.25 * (theta[0] ** 2 - 1) ** 2 + 0.5 * theta[1] ** 2


def from_function() -> Landscape:
    return Landscape.from_function(
        double_well, 2, lambda g: 0.5 * torch.randn(2, generator=g), test_loss=lambda t: double_well(t) + 0.1 * t[0]
    )


FUNCTION = {"name": "tests:double_well"}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_function_landscape_alone_and_in_company(dtype: str) -> None:
    chosen = settings(FUNCTION, dtype=dtype, batch_size="full", momentum=0.0)
    chosen["search"]["minima_iterations"] = chosen["search"]["saddles"]["max_iterations"] = 60
    landscape = from_function()
    company = batch(range(5), chosen, landscape)
    points = company.tables["points"]
    for seed in range(5):
        same_bits(company, batch([seed], chosen, landscape), seed, range(5), [seed])
    for kind, source, objective, test_loss, row in zip(
        *(points[name] for name in ("kind", "source", "objective", "test_loss", "parameters_row")), strict=True
    ):
        if source == "training":
            x, y = company.parameters["points"][row]
            assert kind == "minimum"
            assert (abs(x), y) == pytest.approx((1.0, 0.0), abs=1e-8)
            assert objective == pytest.approx(0.0, abs=1e-15)
            assert test_loss == pytest.approx(0.1 * x, abs=1e-9)
    saddles = [i for i, kind in enumerate(points["kind"]) if kind == "saddle"]
    assert saddles, "the saddle (0, 0) is found"
    for i in saddles:
        assert points["index"][i] == 1
        assert points["objective"][i] == pytest.approx(0.25, abs=1e-12)


@pytest.mark.parametrize("bad", [lambda t: (t**2).sum() + torch.nan, lambda t: torch.sqrt(-1 - t[0] ** 2) + t[1]])
def test_a_function_that_returns_nan_is_a_result(bad: Callable[[Tensor], Tensor]) -> None:
    landscape = Landscape.from_function(bad, 2, lambda g: torch.tensor([1.0, -1.0]))
    result = batch([0, 1], settings(FUNCTION, batch_size="full"), landscape)
    assert set(result.tables["points"]["kind"]) == {"diverged"}
    assert result.tables["trials"]["status"] == ["done", "done"]
