"""What is measured along trajectories, against closed forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from landsweep.workers import record, trajectories
from landsweep.workers.batch import BatchTask, run_batch
from landsweep.workers.landscape import Landscape
from landsweep.workers.training import Trained
from tests.surfaces import function, normal

pytestmark = pytest.mark.usefixtures("one_thread")

VALUES = (3.0, 0.5, 0.0, -2.0)
EVERY = ("curvature", "alignment", "prediction", "approach")


def quadratic() -> tuple[Landscape, Tensor]:
    """½θᵀHθ with the eigenvalues above, and the orthogonal matrix of its eigenvectors (columns)."""
    vectors = torch.linalg.qr(normal(4, 4, seed=7)).Q
    matrix = vectors @ torch.diag(torch.tensor(VALUES, dtype=torch.float64)) @ vectors.mT
    return function(lambda theta: 0.5 * (theta * (matrix * theta).sum(1)).sum(), 4), vectors


def walked(snapshots: Tensor, following: Tensor) -> Trained:
    """As if training had passed there; (K, B, n) and (K − 1, B, n)."""
    finite = torch.isfinite(snapshots[-1]).all(1)
    return Trained(snapshots[0], snapshots[-1], ~finite, tuple(range(len(snapshots))), snapshots, following)


def task(landscape: Landscape, seeds: int = 3, **measure: Any) -> BatchTask:
    settings = {
        "landscape": {"name": landscape.name},
        "training": {"optimizer": "gd", "lr": 0.05, "steps": 30, "batch_size": "full", "dtype": "float64"},
        "search": {
            "tolerance": 1e-8,
            "minima": True,
            "minima_iterations": 50,
            "saddles": {
                "per_trial": 3, "trials": "all", "starts": ["initialisation"], "method": "levenberg_marquardt",
                "max_iterations": 100, "connections": False,
            },
        },
        "measure": {"spectrum": "dense", "lanczos_steps": 20, "include": (), "trajectory": EVERY, **measure},
    }  # fmt: skip
    return BatchTask("sweep", "batch", "config", settings, {}, tuple(range(seeds)))


def two_wells() -> Landscape:
    """Minima at (±1, 0), a saddle at the origin."""
    return function(lambda t: (t[0] ** 2 - 1) ** 2 + 0.5 * t[1] ** 2)


def table(landscape: Landscape, one: BatchTask) -> dict[str, np.ndarray]:
    """The table trajectories as arrays of floats, nulls as NaN."""
    columns = run_batch(one, landscape, torch.device("cpu")).tables["trajectories"]
    assert list(columns) == record.schema("trajectories").names
    numbers = {name: values for name, values in columns.items() if name not in ("trial", "config")}
    return {name: np.array(values, dtype=float) for name, values in numbers.items()}


def test_the_update_is_divided_between_the_eigenspaces() -> None:
    """λ = 3 and ½ are stable, 0 is centre, −2 unstable: a step with coefficients c has c₁²+c₂², c₃², c₄² of ‖c‖²."""
    landscape, vectors = quadratic()
    theta, coefficients = normal(6, 4, seed=1).view(2, 3, 4), normal(3, 4, seed=2)
    trained = walked(theta, (theta[0] + coefficients @ vectors.mT).unsqueeze(0))
    found = trajectories.curvature(landscape, trained, torch.full((3,), 3.0, dtype=torch.float64))
    square = coefficients**2 / (coefficients**2).sum(1, keepdim=True)
    shares = {"stable": square[:, 0] + square[:, 1], "centre": square[:, 2], "unstable": square[:, 3]}
    for name, wanted in shares.items():
        torch.testing.assert_close(found[f"aligned_{name}"][0], wanted, rtol=1e-9, atol=1e-12)
        assert bool(torch.isnan(found[f"aligned_{name}"][1]).all())  # no step follows the end
    for name, value in (("eig_min", -2.0), ("eig_max", 3.0), ("index", 1.0)):
        torch.testing.assert_close(found[name], torch.full((2, 3), value, dtype=torch.float64))


def test_the_tolerance_grows_with_the_curvature_at_the_start() -> None:
    """Eigenvalues of ±½ are zero where ‖H‖ was 1e7 at the start."""
    landscape, _ = quadratic()
    theta = normal(2, 4).view(1, 2, 4)
    scale = torch.tensor([3.0, 2.5e7], dtype=torch.float64)
    assert trajectories.curvature(landscape, walked(theta, theta[:0]), scale)["index"].tolist() == [[1.0, 0.0]]


def test_taylor_of_second_order_is_exact_where_l_is_quadratic() -> None:
    landscape, _ = quadratic()
    theta, moved = normal(6, 4, seed=3).view(2, 3, 4), normal(3, 4, seed=4)
    trained, objectives = walked(theta, moved.unsqueeze(0)), landscape.objective(theta.flatten(0, 1)).view(2, 3)
    found = trajectories.prediction(landscape, trained, objectives)
    truth = landscape.objective(moved) - landscape.objective(theta[0])
    for values in found.values():
        torch.testing.assert_close(values[0], truth, rtol=1e-11, atol=1e-12)
        assert bool(torch.isnan(values[1]).all())


def test_what_second_order_misses_of_a_cubic_is_the_cube_of_the_step() -> None:
    """L = x³: the actual change 3x²Δ + 3xΔ² + Δ³ exceeds the predicted one by Δ³."""
    landscape = function(lambda t: t[0] ** 3, 1)
    theta, step = normal(5, 1, seed=5), 0.3 * normal(5, 1, seed=6)
    trained = walked(torch.stack([theta, theta]), (theta + step).unsqueeze(0))
    found = trajectories.prediction(landscape, trained, torch.stack([theta[:, 0] ** 3] * 2))
    torch.testing.assert_close(found["predicted_change"][0], (3 * theta**2 * step + 3 * theta * step**2)[:, 0])
    difference = found["actual_change"][0] - found["predicted_change"][0]
    torch.testing.assert_close(difference, step[:, 0] ** 3, rtol=1e-9, atol=1e-14)


def test_the_distance_is_to_the_nearest_saddle_of_the_same_trial() -> None:
    snapshots, saddles = normal(12, 2).view(4, 3, 2), normal(3, 2, seed=8)
    found = trajectories.approach(snapshots, saddles, torch.tensor([0, 2, 0]))
    for k in range(4):
        first = min(float((snapshots[k, 0] - saddles[s]).norm()) for s in (0, 2))
        assert float(found[k, 0]) == pytest.approx(first, rel=1e-14)
        assert float(found[k, 2]) == pytest.approx(float((snapshots[k, 2] - saddles[1]).norm()), rel=1e-14)
    assert bool(torch.isnan(found[:, 1]).all())


def test_a_batch_measures_the_steps_that_training_took() -> None:
    """Gradient descent on two wells: Δ = −lr·g, so the first-order part of the predicted change is −lr·‖g‖²."""
    landscape = two_wells()
    rows = table(landscape, task(landscape))
    result = run_batch(task(landscape), landscape, torch.device("cpu"))
    theta = torch.from_numpy(result.parameters["initial"])
    first = rows["step"] == 0
    gradient, hessian = landscape.gradient(theta), landscape.hessian(theta)
    step = -0.05 * gradient
    bend = 0.5 * torch.einsum("bi,bij,bj->b", step, hessian, step)
    np.testing.assert_allclose(rows["predicted_change"][first], (gradient * step).sum(1) + bend, rtol=1e-10)
    change = landscape.objective(theta + step) - landscape.objective(theta)
    np.testing.assert_allclose(rows["actual_change"][first], change, rtol=1e-10)
    second = rows["step"] == 1  # the step from 0 led there
    np.testing.assert_allclose(rows["objective"][second] - rows["objective"][first], change, rtol=1e-9)
    np.testing.assert_allclose(rows["eig_max"][first], torch.linalg.eigvalsh(hessian)[:, 1], rtol=1e-10)
    sums = sum(rows[f"aligned_{name}"] for name in ("stable", "unstable", "centre"))
    last = rows["step"] == 30
    np.testing.assert_allclose(sums[~last], 1.0, rtol=1e-12)
    assert np.isnan(sums[last]).all()


def test_the_saddle_that_is_approached_is_the_one_that_was_found() -> None:
    """The only saddle of the two wells is the origin."""
    landscape = two_wells()
    result = run_batch(task(landscape), landscape, torch.device("cpu"))
    found = {seed for seed, kind in zip(*(result.tables["points"][c] for c in ("seed", "kind")), strict=True)
             if kind == "saddle"}  # fmt: skip
    assert found
    rows = result.tables["trajectories"]
    places = zip(rows["seed"], rows["step"], rows["saddle_distance"], strict=True)
    start = {seed: distance for seed, step, distance in places if step == 0}
    for seed, theta in enumerate(result.parameters["initial"]):
        wanted = float(np.linalg.norm(theta)) if seed in found else None
        assert start[seed] == (pytest.approx(wanted, rel=1e-8) if seed in found else None)


@pytest.mark.parametrize(
    ("asked", "filled"),
    [
        ((), set()),
        (("curvature",), {"eig_max", "eig_min", "index"}),
        (("alignment",), {"aligned_stable", "aligned_unstable", "aligned_centre"}),
        (("prediction",), {"predicted_change", "actual_change"}),
        (("approach",), {"saddle_distance"}),
    ],
)
def test_what_is_not_asked_for_is_null(asked: tuple[str, ...], filled: set[str]) -> None:
    landscape = two_wells()
    rows = table(landscape, task(landscape, trajectory=asked))
    assert {name for name in record.TRAJECTORY_DETAILS if not np.isnan(rows[name]).all()} == filled


def test_by_products_alone_the_ends_of_the_spectrum_are_the_same() -> None:
    landscape, _ = quadratic()
    theta = normal(6, 4, seed=1).view(2, 3, 4)
    theta[1, 0] = torch.nan
    found = trajectories.ends(landscape, walked(theta, theta[:1]), 20)
    for name, value in (("eig_min", -2.0), ("eig_max", 3.0)):
        finite = found[name].flatten()[[0, 1, 2, 4, 5]]
        torch.testing.assert_close(finite, torch.full((5,), value, dtype=torch.float64), rtol=1e-9, atol=0)
        assert bool(torch.isnan(found[name][1, 0]))


def test_a_trial_that_diverges_has_nulls_and_disturbs_none() -> None:
    landscape, _ = quadratic()
    theta, moved = normal(6, 4, seed=3).view(2, 3, 4), normal(3, 4, seed=4).unsqueeze(0)
    scale, good = torch.ones(3, dtype=torch.float64), walked(theta, moved)
    spoilt, away = theta.clone(), moved.clone()
    spoilt[1, 1], away[0, 1] = torch.nan, torch.inf
    clean, dirty = (trajectories.curvature(landscape, one, scale) for one in (good, walked(spoilt, away)))
    for name, values in clean.items():
        torch.testing.assert_close(dirty[name][:, [0, 2]], values[:, [0, 2]], rtol=0, atol=0, equal_nan=True)
        assert bool(torch.isnan(dirty[name][1, 1]))


def test_a_trial_has_the_same_trajectory_whatever_its_mates_are() -> None:
    landscape = two_wells()
    alone, among = (table(landscape, task(landscape, seeds=seeds)) for seeds in (1, 3))
    mine = among["seed"] == 0
    for name, values in alone.items():
        np.testing.assert_array_equal(values, among[name][mine], err_msg=name)
