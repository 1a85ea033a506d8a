"""The rows of the tables: columns, counts, spectra, fingerprints, what the polish did."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from landsweep.workers import measure, record
from landsweep.workers.batch import BatchResult, BatchTask, run_batch
from landsweep.workers.landscape import Landscape
from tests.digits import built
from tests.surfaces import function, himmelblau, points

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
HIDDEN = 2
LANDSCAPE = {"name": "mlp", "data": "digits", "hidden": [HIDDEN], "resize": 4, "train_size": 60, "weight_decay": 1e-2}
GRID = {"training.lr": 0.05, "landscape.hidden": "[2]"}


def task(seeds: tuple[int, ...] = (3, 4, 5), **saddles: Any) -> BatchTask:
    training = {"optimizer": "adam", "lr": 0.05, "betas": (0.9, 0.999), "epsilon": 1e-8, "batch_size": 16}
    looked_for = {"per_trial": 2, "trials": 5, "starts": ["trajectory", "initialisation", "noise"]}
    method = {"method": "eigenvector_following", "max_iterations": 80, "connections": True}
    settings = {
        "landscape": LANDSCAPE,
        "training": {**training, "steps": 50, "dtype": "float32"},
        "search": {
            "tolerance": 1e-8,
            "minima": True,
            "minima_iterations": 80,
            "saddles": {**looked_for, **method, **saddles},
        },
        "measure": {"spectrum": "dense"},
    }
    return BatchTask("digits", "batch", "c0ffee", settings, GRID, seeds)


@pytest.fixture(scope="module")
def result(one_thread: None) -> BatchResult:
    return run_batch(task(), built(LANDSCAPE), CPU)


def rows(result: BatchResult, table: str = "points") -> list[dict[str, Any]]:
    columns = result.tables[table]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def test_columns_are_the_schemas(result: BatchResult) -> None:
    for table in record.TABLES:
        extra = list(GRID) if table == "points" else []
        assert sorted(result.tables[table]) == sorted([*record.schema(table).names, *extra]), table
        assert len({len(column) for column in result.tables[table].values()}) == 1


def test_values_have_the_schemas_types(result: BatchResult) -> None:
    import pyarrow as pa

    grid = {"training.lr": True, "landscape.hidden": False}
    for table, columns in result.tables.items():
        schema = record.schema(table, grid)
        for name, column in columns.items():
            built = pa.array(column, type=schema.field(name).type)  # raises where a value does not fit
            assert built.to_pylist() == column, (table, name)


def test_every_trial_has_its_points_in_order(result: BatchResult) -> None:
    got = [(row["seed"], row["source"], row["point"]) for row in rows(result)]
    expected = []
    for seed in (3, 4, 5):
        expected.append((seed, "training", f"c0ffee-{seed}-training-0"))
        if seed < 5:  # trials: 5 searches the seeds below 5
            expected.append((seed, "trajectory", f"c0ffee-{seed}-trajectory-0"))
            expected.append((seed, "initialisation", f"c0ffee-{seed}-initialisation-1"))
    assert got == expected
    assert [row["parameters_row"] for row in rows(result)] == list(range(len(expected)))
    assert result.parameters["points"].shape == (len(expected), 16 * 2 + 2 + 2 * 10 + 10)
    for row in rows(result):
        assert (row["training.lr"], row["landscape.hidden"]) == (0.05, "[2]")
        assert (row["step"] is None) == (row["source"] == "initialisation")


def test_trials_chosen_by_seed_do_not_depend_on_the_batch() -> None:
    landscape = built(LANDSCAPE)
    chosen = run_batch(task((9, 1), trials=2, max_iterations=3), landscape, CPU).tables["points"]
    assert [s for s, source in zip(chosen["seed"], chosen["source"], strict=True) if source != "training"] == [1, 1]


def test_measures_agree_with_the_landscape(result: BatchResult) -> None:
    landscape = built(LANDSCAPE)
    theta = torch.from_numpy(result.parameters["points"])
    gradient, hessian = landscape.gradient(theta), landscape.hessian(theta)
    eigenvalues = torch.linalg.eigvalsh(hessian)
    assert landscape.train_loss is not None
    assert landscape.test_loss is not None
    expected = {
        "objective": landscape.objective(theta),
        "train_loss": landscape.map(landscape.train_loss, theta),
        "test_loss": landscape.map(landscape.test_loss, theta),
        "grad_norm": gradient.norm(dim=1),
        "eig_min": eigenvalues[:, 0],
        "eig_max": eigenvalues[:, -1],
        "trace": hessian.diagonal(dim1=1, dim2=2).sum(1),
        "frobenius": hessian.norm(dim=(1, 2)),
        "param_norm": theta.norm(dim=1),
    }
    for name, values in expected.items():
        assert result.tables["points"][name] == pytest.approx(values.tolist(), rel=1e-9, abs=1e-12), name
    for row in rows(result):
        assert row["gap"] == pytest.approx(row["test_loss"] - row["train_loss"], abs=1e-15)
        assert row["error_gap"] == pytest.approx(row["test_error"] - row["train_error"], abs=1e-15)
        assert 0 <= row["train_error"] <= 1
        initial = result.parameters["initial"][(3, 4, 5).index(row["seed"])]
        distance = float(torch.from_numpy(initial - result.parameters["points"][row["parameters_row"]]).norm())
        assert row["init_distance"] == pytest.approx(distance)


def test_counts_add_up_on_critical_points(result: BatchResult) -> None:
    counted = ("index", "n_positive", "n_zero", "n_undetermined")
    critical = [row for row in rows(result) if row["kind"] in record.CRITICAL_KINDS]
    assert len(critical) >= 3
    for row in rows(result):
        if row["kind"] in record.CRITICAL_KINDS:
            assert sum(row[name] for name in counted) == result.parameters["points"].shape[1]
            assert row["grad_norm"] <= 1e-8
            assert row["newton_step"] <= 1e-6 * (1 + row["param_norm"])
            assert row["certificate"].startswith("sampled")
        else:
            assert all(row[name] is None for name in (*counted, "n_symmetry", "fingerprint", "certificate"))
            assert row["reason"]
        assert row["kind"] in record.KINDS
        assert row["source"] in record.SOURCES
        assert row["certified"] is False


def test_spectra_are_whole_and_their_extremes_few(result: BatchResult) -> None:
    spectra = {row["point"]: row["eigenvalues"] for row in rows(result, "spectra")}
    for row in rows(result):
        whole = spectra[row["point"]]
        assert len(whole) == result.parameters["points"].shape[1] > 32
        assert whole == sorted(whole)
        assert row["spectrum"] == whole[:16] + whole[-16:]
        assert sum(whole) == pytest.approx(row["trace"])
        if row["index"] is not None:
            assert sum(value < -row["zero_tolerance"] for value in whole) == row["index"]


def test_what_the_polish_did(result: BatchResult) -> None:
    landscape = built(LANDSCAPE)
    for row in rows(result):
        if row["source"] != "training":
            assert all(row[n] is None for n in ("same_basin", "polish_distance", "test_loss_trained"))
            continue
        end = torch.from_numpy(result.parameters["trained"][(3, 4, 5).index(row["seed"])])
        theta = torch.from_numpy(result.parameters["points"][row["parameters_row"]])
        assert row["polish_distance"] == pytest.approx(float((theta - end).norm()))
        assert row["objective"] <= float(landscape.objective(end[None]))
        assert landscape.test_loss is not None
        assert row["test_loss_trained"] == pytest.approx(float(landscape.map(landscape.test_loss, end[None])))
        assert row["same_basin"] in (True, False)


def test_same_basin_sees_a_barrier() -> None:
    landscape = function(lambda t: 0.25 * (t[0] ** 2 - 1) ** 2 + 0.5 * t[1] ** 2)
    starts, ends = points([0.8, 0.1], [0.8, 0.1], [1.0, 0.0]), points([1.0, 0.0], [-1.0, 0.0], [1.0, 0.0])
    assert measure.same_basin(landscape, starts, ends).tolist() == [True, False, True]


def test_trajectories_start_at_the_start(result: BatchResult) -> None:
    landscape = built(LANDSCAPE)
    first = [row for row in rows(result, "trajectories") if row["step"] == 0]
    last = [row for row in rows(result, "trajectories") if row["step"] == 50]
    assert [row["seed"] for row in first] == [row["seed"] for row in last] == [3, 4, 5]
    assert all(row["distance"] < 1e-6 < row["grad_norm"] for row in first)
    start = torch.from_numpy(result.parameters["initial"])
    assert [row["objective"] for row in first] == pytest.approx(landscape.objective(start).tolist(), rel=1e-5)
    assert [row["objective"] for row in last] == result.tables["trials"]["final_objective"]


# --- fingerprints -----------------------------------------------------------------------------------------------
def equivalent(theta: Tensor, inputs: int = 16) -> Tensor:
    """The same function: the hidden units exchanged, the sign of the first flipped (tanh is odd)."""
    weight, bias = theta[: HIDDEN * inputs].view(HIDDEN, inputs), theta[HIDDEN * inputs :][:HIDDEN]
    out, rest = (
        theta[HIDDEN * (inputs + 1) :][: 10 * HIDDEN].view(10, HIDDEN),
        theta[HIDDEN * (inputs + 1) + 10 * HIDDEN :],
    )
    sign = torch.tensor([-1.0, 1.0], dtype=theta.dtype)
    order = [1, 0]
    pieces = ((sign[:, None] * weight)[order], (sign * bias)[order], (out * sign)[:, order], rest)
    return torch.cat([piece.reshape(-1) for piece in pieces])


def prints(landscape: Landscape, thetas: Tensor) -> Tensor:
    count = torch.zeros(len(thetas), dtype=torch.int64)
    return measure.fingerprints(landscape, thetas, count, count)


def test_fingerprint_is_that_of_the_function(result: BatchResult) -> None:
    landscape = built(LANDSCAPE)
    theta = torch.from_numpy(result.parameters["points"])
    twin = torch.stack([equivalent(t) for t in theta])
    assert float((twin - theta).norm(dim=1).min()) > 0.1
    ours = prints(landscape, theta)
    assert ours.shape == (len(theta), 11)
    torch.testing.assert_close(prints(landscape, twin), ours, rtol=1e-12, atol=1e-13)
    moved = prints(landscape, theta + 1e-3)
    assert float((moved - ours)[:, 3:].abs().amax(1).min()) > 1e-5
    for row in rows(result):
        if row["fingerprint"] is not None:
            assert row["fingerprint"][:3] == [row["objective"], row["index"], row["n_zero"]]
            assert row["fingerprint"][3:] == pytest.approx(ours[row["parameters_row"], 3:].tolist(), rel=1e-9)


def test_fingerprints_tell_distinct_minima_of_equal_value_apart() -> None:
    minima = points([3.0, 2.0], [-2.805118086952745, 3.131312518250573], [-3.779310253377747, -3.283185991286170])
    ours = prints(function(himmelblau), minima)
    assert float(ours[:, 0].max()) < 1e-12
    for a in range(3):
        for b in range(a):
            assert float((ours[a] - ours[b]).abs().max()) > 1e-2


def test_saddles_are_left_when_their_curvature_says() -> None:
    chosen = task(per_trial=6)
    chosen.settings["measure"] |= {"include": ["escape_time"]}
    found_rows = rows(run_batch(chosen, built(LANDSCAPE), CPU))
    saddles = [row for row in found_rows if row["kind"] == "saddle"]
    assert saddles
    for row in found_rows:
        assert (row["escape_time"] is not None) == (row["kind"] == "saddle")
    for row in saddles:
        assert row["escape_time_predicted"] == pytest.approx(math.log(1e3) / -row["eig_min"])
        assert row["escape_time"] == pytest.approx(row["escape_time_predicted"], rel=0.1)
