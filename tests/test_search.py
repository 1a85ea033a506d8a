"""Searches for stationary points, on surfaces whose stationary points are known."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from scipy import optimize
from torch import Tensor

from landsweep.workers import search
from landsweep.workers.eigenvector_following import EigenvectorFollowing
from landsweep.workers.landscape import Landscape
from landsweep.workers.levenberg_marquardt import LevenbergMarquardt
from landsweep.workers.trust_region import TrustRegionNewton
from tests.surfaces import (
    VARIANCES,
    K,
    P,
    found,
    function,
    himmelblau,
    linear_autoencoder,
    monkey,
    normal,
    points,
    scale_at,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def distinct(thetas: Tensor, tolerance: float = 1e-6) -> Tensor:
    kept: list[Tensor] = []
    for theta in thetas:
        if all(float((theta - other).norm()) > tolerance for other in kept):
            kept.append(theta)
    return torch.stack(kept)


# --- Himmelblau: 4 minima, 4 saddles, 1 maximum ------------------------------------------------------------------
def himmelblau_points() -> np.ndarray:
    """All nine, by scipy from a grid."""

    def gradient(p: np.ndarray) -> list[float]:
        x, y = p
        a, b = x * x + y - 11, x + y * y - 7
        return [4 * x * a + 2 * b, 2 * a + 4 * y * b]

    roots: list[np.ndarray] = []
    for x in np.linspace(-4, 4, 9):
        for y in np.linspace(-4, 4, 9):
            solution = optimize.root(gradient, [x, y], tol=1e-14)
            if solution.success and all(np.linalg.norm(solution.x - r) > 1e-4 for r in roots):
                roots.append(solution.x)
    return np.array(sorted(map(tuple, roots)))


def test_levenberg_marquardt_finds_all_nine_points_of_himmelblau() -> None:
    outcome, kinds = found(function(himmelblau), LevenbergMarquardt(1e-8), normal(100, 2, scale=3.0))
    ok = outcome.status == search.CONVERGED
    assert int(ok.sum()) > 90
    where = torch.tensor(sorted(map(tuple, distinct(outcome.theta[ok]).tolist())))
    reference = torch.from_numpy(himmelblau_points())
    assert reference.shape == (9, 2)
    torch.testing.assert_close(where.to(torch.float64), reference, rtol=0, atol=1e-7)
    index = {}
    for row in torch.nonzero(ok).flatten().tolist():
        place = int((reference - outcome.theta[row]).norm(dim=1).argmin())
        index.setdefault(place, set()).add((kinds.kind[row], int(kinds.signs.index[row])))
    assert all(len(found_kinds) == 1 for found_kinds in index.values())
    counted = sorted(next(iter(pair)) for pair in index.values())
    assert counted == [("maximum", 2)] + [("minimum", 0)] * 4 + [("saddle", 1)] * 4
    assert sum((-1) ** k for _, k in counted) == 1, "Morse: the surface is coercive"


@pytest.mark.parametrize(("k", "count", "least"), [(0, 4, 40), (1, 4, 40), (2, 1, 15)])
def test_eigenvector_following_finds_the_requested_index(k: int, count: int, least: int) -> None:
    starts = normal(60, 2, seed=k, scale=3.0)
    finder = EigenvectorFollowing(1e-8, torch.full((60,), k))
    outcome, kinds = found(function(himmelblau), finder, starts)
    ok = outcome.status == search.CONVERGED
    assert int(ok.sum()) > least
    assert set(kinds.signs.index[ok].tolist()) == {k}
    assert len(distinct(outcome.theta[ok])) == count


def test_trust_region_newton_finds_the_four_minima_and_never_climbs() -> None:
    landscape, starts = function(himmelblau), normal(60, 2, scale=3.0)
    outcome, kinds = found(landscape, TrustRegionNewton(1e-8), starts)
    assert set(kinds.kind) == {"minimum"}
    assert bool((landscape.objective(outcome.theta) <= landscape.objective(starts)).all())
    expected = points([3.0, 2.0], [-2.805118, 3.131312], [-3.779310, -3.283186], [3.584428, -1.848126])
    near = torch.cdist(distinct(outcome.theta), expected).amin(1)
    assert len(near) == 4
    assert float(near.max()) < 1e-6


def test_a_start_exactly_on_a_saddle_is_left() -> None:
    landscape = function(lambda t: 0.25 * (t[0] ** 2 - 1) ** 2 + 0.5 * t[1] ** 2)
    outcome, kinds = found(landscape, TrustRegionNewton(1e-8), points([0.0, 0.0], [0.0, 0.3]))
    assert kinds.kind == ["minimum", "minimum"]
    torch.testing.assert_close(outcome.theta.abs(), points([1.0, 0.0], [1.0, 0.0]), rtol=0, atol=1e-9)


# --- linear autoencoder: every stationary point in closed form (Baldi & Hornik 1989) ------------------------------
def autoencoder_classes() -> dict[float, tuple[int, int]]:
    """loss → (index, zero modes) of each class I of eigenvectors, |I| = q ≤ p, where the loss tells classes apart."""
    classes: dict[float, set[tuple[int, int]]] = {}
    for q in range(P + 1):
        for chosen in combinations(range(K), q):
            left = [j for j in range(K) if j not in chosen]
            index = sum(VARIANCES[j] > VARIANCES[i] for i in chosen for j in left) + (P - q) * (K - q)
            loss = 0.5 * sum(VARIANCES[j] for j in left)
            classes.setdefault(loss, set()).add((index, q * q + 2 * q * (P - q)))
    return {loss: next(iter(kinds)) for loss, kinds in classes.items() if len(kinds) == 1}


def test_linear_autoencoder_points_have_their_closed_forms() -> None:
    landscape, starts = linear_autoencoder(), normal(80, 2 * P * K, scale=0.6)
    outcome, kinds = found(landscape, LevenbergMarquardt(1e-8), starts, budget=300)
    ok = kinds.critical
    assert int(ok.sum()) >= 72
    losses = landscape.objective(outcome.theta)
    closed = torch.tensor([0.5 * sum(c) for q in range(P + 1) for c in combinations(VARIANCES, K - q)]).double()
    error = (losses[ok].unsqueeze(1) - closed).abs().amin(1)
    assert float(error.max()) < 1e-8
    unique, told, indices = autoencoder_classes(), 0, set()
    for row in torch.nonzero(ok).flatten().tolist():
        loss = min(unique, key=lambda value: abs(value - float(losses[row])))
        if abs(loss - float(losses[row])) > 1e-8:
            continue
        told += 1
        index, zeros = unique[loss]
        assert int(kinds.signs.n_undetermined[row]) == 0
        assert (int(kinds.signs.index[row]), int(kinds.signs.n_zero[row])) == (index, zeros)
        assert int(kinds.curvature.n_symmetry[row]) == zeros
        assert kinds.kind[row] == ("saddle" if index else "minimum")
        indices.add(index)
    assert told > 10
    assert len(indices) >= 3


# --- budgets, failures ------------------------------------------------------------------------------------------
FINDERS: dict[str, Any] = {
    "levenberg_marquardt": lambda rows: LevenbergMarquardt(1e-8),
    "trust_region": lambda rows: TrustRegionNewton(1e-8),
    "eigenvector_following": lambda rows: EigenvectorFollowing(1e-8, torch.ones(rows, dtype=torch.int64)),
}


def only_here(theta: Tensor) -> Tensor:
    """Finite at (1, 1) alone."""
    distance = (theta - 1).pow(2).sum()
    return torch.where(distance < 1e-30, 1.0, torch.nan) * (theta[0] ** 2 + 3 * theta[1])


def wrong_curvature(rows: Tensor) -> Tensor:
    return torch.full((len(rows), 2, 2), torch.nan, dtype=rows.dtype)


@pytest.mark.parametrize("finder", FINDERS)
def test_bad_steps_never_move_a_point(finder: str) -> None:
    start = points([1.0, 1.0], [1.0, 1.0])
    whole = Landscape.from_function(lambda t: (t**2).sum(), 2, lambda g: torch.ones(2))
    nan_curvature = Landscape(**{**whole.__dict__, "closed_hessian": wrong_curvature})
    for landscape, kinds in ((function(only_here), {"not_converged", "diverged"}), (nan_curvature, {"diverged"})):
        outcome, classified = found(landscape, FINDERS[finder](2), start, budget=300)
        assert torch.equal(outcome.theta, start)
        assert set(classified.kind) <= kinds
        assert not bool(classified.critical.any())
        assert search.CONVERGED not in outcome.status.tolist()


@pytest.mark.parametrize("finder", FINDERS)
def test_huge_curvature_is_a_result(finder: str) -> None:
    landscape = function(lambda t: 8e307 * (t**2).sum())
    outcome, classified = found(landscape, FINDERS[finder](1), points([1e-3, 1e-3]), budget=20)
    assert len(classified.kind) == len(outcome.theta) == 1


@pytest.mark.parametrize("finder", FINDERS)
def test_no_budget_leaves_the_start(finder: str) -> None:
    start = normal(3, 2)
    outcome = search.iterate(FINDERS[finder](3), function(himmelblau), start, torch.ones(3, dtype=torch.float64), 0)
    assert torch.equal(outcome.theta, start)
    assert outcome.status.tolist() == [search.BUDGET] * 3


@pytest.mark.parametrize("finder", FINDERS)
def test_rows_do_not_depend_on_each_other(finder: str) -> None:
    landscape, starts = function(himmelblau), normal(9, 2, seed=4, scale=3.0)
    scale = scale_at(landscape, starts)
    together = search.iterate(FINDERS[finder](9), landscape, starts, scale, 100)
    for row in (0, 4, 8):
        alone = search.iterate(FINDERS[finder](1), landscape, starts[row : row + 1], scale[row : row + 1], 100)
        assert torch.equal(alone.theta[0], together.theta[row])
        assert int(alone.iterations[0]) == int(together.iterations[row])


@pytest.mark.parametrize("finder", ["levenberg_marquardt", "eigenvector_following"])
def test_slow_convergence_to_a_degenerate_saddle_terminates(finder: str) -> None:
    outcome, _ = found(function(monkey), FINDERS[finder](4), normal(4, 2))
    assert outcome.status.tolist() == [search.CONVERGED] * 4
    assert float(outcome.theta.norm(dim=1).max()) < 1e-8
    assert int(outcome.iterations.max()) < 80


def test_refining_reaches_rounding_and_stays() -> None:
    landscape = function(himmelblau)
    near = points([3.0, 2.0]) + 1e-7
    refined = search.refine(landscape, near)
    torch.testing.assert_close(refined, points([3.0, 2.0]), rtol=0, atol=1e-14)
    assert torch.equal(search.refine(landscape, points([3.0, 2.0])), points([3.0, 2.0]))
