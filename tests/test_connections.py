"""Which minima a saddle lies between: against closed forms, and against scipy's integration of the gradient flow."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import integrate, linalg
from torch import Tensor

from landsweep.workers import search
from landsweep.workers.connections import Ends, descend_both_ways, displaced
from landsweep.workers.gradient_flow import GradientFlow, phi
from landsweep.workers.landscape import Landscape
from landsweep.workers.quadratic import eigh
from tests.surfaces import VARIANCES, K, P, function, himmelblau, linear_autoencoder, normal, points

pytestmark = pytest.mark.usefixtures("one_thread")


Velocity = Callable[[float, np.ndarray], np.ndarray]

#: height, a, b, c, u, v of each term h·exp(a(x−u)² + b(x−u)(y−v) + c(y−v)²)
MULLER_BROWN = (
    (-200.0, -1.0, 0.0, -10.0, 1.0, 0.0),
    (-100.0, -1.0, 0.0, -10.0, 0.0, 0.5),
    (-170.0, -6.5, 11.0, -6.5, -0.5, 1.5),
    (15.0, 0.7, 0.6, 0.7, -1.0, 1.0),
)


def muller_brown(theta: Tensor) -> Tensor:
    """Three minima, two saddles (Müller & Brown 1979)."""
    height, a, b, c, u, v = torch.tensor(MULLER_BROWN, dtype=theta.dtype).T
    x, y = theta[0] - u, theta[1] - v
    total: Tensor = (height * torch.exp(a * x * x + b * x * y + c * y * y)).sum()
    return total


def double_wells(theta: Tensor) -> Tensor:
    """Σ k·w_k²/4 + 0.1·Σ w_k·w_{k+1}, w_k = x_k² − 1: minima in {−1, 1}ⁿ, joined along the cube's edges."""
    wells = theta**2 - 1
    weights = torch.arange(1, len(theta) + 1, dtype=theta.dtype)
    return (0.25 * weights * wells**2).sum() + 0.1 * (wells[:-1] * wells[1:]).sum()


def unstable(landscape: Landscape, saddles: Tensor) -> tuple[Tensor, Tensor]:
    """The lowest eigenvectors of saddles of index 1, and ‖H‖₂."""
    values, vectors, _ = eigh(landscape.hessian(saddles))
    assert bool((values[:, 0] < 0).all())
    assert bool((values[:, 1] > 0).all())
    return vectors[:, :, 0], values.abs().amax(1)


def ends(landscape: Landscape, saddles: Tensor, budget: int = 50) -> Ends:
    directions, scale = unstable(landscape, saddles)
    return descend_both_ways(landscape, saddles, directions, scale, 1e-8, budget)


def by_scipy(velocity: Velocity, start: Tensor, duration: float) -> np.ndarray:
    """θ(duration) of the flow from ``start``, by an implicit method with its own error control."""
    solved = integrate.solve_ivp(velocity, (0, duration), start.numpy(), method="LSODA", rtol=1e-10, atol=1e-12)
    assert solved.success
    return np.asarray(solved.y[:, -1])


def himmelblau_velocity(_: float, theta: np.ndarray) -> np.ndarray:
    x, y = theta
    a, b = x * x + y - 11, x + y * y - 7
    return -np.array([4 * x * a + 2 * b, 2 * a + 4 * y * b])


def muller_brown_velocity(_: float, theta: np.ndarray) -> np.ndarray:
    x, y = theta
    total = np.zeros(2)
    for height, a, b, c, u, v in MULLER_BROWN:
        dx, dy = x - u, y - v
        rise = height * np.exp(a * dx * dx + b * dx * dy + c * dy * dy)
        total += rise * np.array([2 * a * dx + b * dy, b * dx + 2 * c * dy])
    return -total


# --- the integrator ----------------------------------------------------------------------------------------------
def test_phi_functions_agree_with_the_matrix_exponential() -> None:
    """φ_k(z) is the last entry in the first row of exp of [[z, 1, 0, …], [0, 0, 1, …], …] (Sidje 1998)."""
    for z in (-30.0, -3.0, -1.0, -0.999, -1e-3, 0.0, 1e-9, 0.5, 1.0, 2.0):
        matrix = np.diag(np.ones(3), 1)
        matrix[0, 0] = z
        truth = linalg.expm(matrix)[0]
        first, third = phi(torch.tensor(z, dtype=torch.float64))
        np.testing.assert_allclose([float(first), float(third)], [truth[1], truth[3]], rtol=1e-13)


def equal_steps(landscape: Landscape, starts: Tensor, duration: float, steps: int) -> Tensor:
    """θ(duration) of the flow by steps of one length."""
    flow, everywhere = GradientFlow(1e-6), torch.ones(len(starts), dtype=torch.bool)
    state = flow.init(landscape, starts, torch.ones(len(starts), dtype=torch.float64))
    for _ in range(steps):
        state = dataclasses.replace(state, control=torch.full_like(state.value, duration / steps))
        state = flow.accept(landscape, state, flow.propose(landscape, state), everywhere)
    torch.testing.assert_close(state.time, torch.full_like(state.time, duration))
    return state.theta


def test_a_quadratic_is_followed_exactly_however_stiff() -> None:
    curvature = torch.tensor([-1.0, 0.0, 1.0, 1e6], dtype=torch.float64)
    start = normal(5, 4)
    reached = equal_steps(function(lambda t: 0.5 * (curvature * t * t).sum(), 4), start, 1.5, 1)
    torch.testing.assert_close(reached, start * torch.exp(-1.5 * curvature), rtol=1e-12, atol=1e-12)


def test_the_integrator_is_of_third_order() -> None:
    start = points([0.5, 1.0], [-4.0, 2.0])
    truth = torch.from_numpy(np.stack([by_scipy(himmelblau_velocity, row, 0.02) for row in start]))
    errors = [(equal_steps(function(himmelblau), start, 0.02, n) - truth).norm(dim=1) for n in (10, 20, 40)]
    for coarse, fine in ((errors[0], errors[1]), (errors[1], errors[2])):
        assert bool((torch.log2(coarse / fine) > 2.7).all())
        assert bool((torch.log2(coarse / fine) < 3.4).all())


# --- which minima ------------------------------------------------------------------------------------------------
HIMMELBLAU_SADDLES = [
    (-3.073025751002651, -0.08135304429092892), (-0.127961346730688, -1.9537149802445177),
    (0.08667750456420503, 2.8842547011136213), (3.3851541836016065, 0.07385187983692164),
]  # fmt: skip
MULLER_BROWN_SADDLES = [(-0.8220015587, 0.6243128028), (0.2124865820, 0.2929883251)]


@pytest.mark.parametrize(
    ("loss", "velocity", "places", "duration"),
    [
        (himmelblau, himmelblau_velocity, HIMMELBLAU_SADDLES, 4.0),
        (muller_brown, muller_brown_velocity, MULLER_BROWN_SADDLES, 1.0),
    ],
    ids=["himmelblau", "muller-brown"],
)
def test_ends_are_those_of_scipy(
    loss: Callable[[Tensor], Tensor], velocity: Velocity, places: list[tuple[float, float]], duration: float
) -> None:
    landscape = function(loss)
    saddles = search.refine(landscape, points(*places))
    directions, scale = unstable(landscape, saddles)
    found = descend_both_ways(landscape, saddles, directions, scale, 1e-8, 100)
    assert found.status.tolist() == [[search.CONVERGED] * 2] * len(places)
    for saddle in range(len(places)):
        for side, sign in enumerate((1.0, -1.0)):
            truth = by_scipy(velocity, saddles[saddle] + sign * 1e-3 * directions[saddle], duration)
            np.testing.assert_allclose(found.theta[saddle, side].numpy(), truth, atol=1e-6)
            fall = float(loss(saddles[saddle]) - loss(torch.from_numpy(truth)))
            assert float(found.barrier[saddle, side]) == pytest.approx(fall, rel=1e-10)
        assert float((found.theta[saddle, 0] - found.theta[saddle, 1]).norm()) > 0.5


def test_saddles_of_coupled_double_wells_lie_on_the_edges_of_the_cube() -> None:
    """x_j = 0 between minima that differ in the sign of x_j alone: no flow changes the sign of a coordinate."""
    landscape, dim = function(double_wells, 6), 6
    corners = torch.where(normal(12, dim, seed=1) > 0, 1.0, -1.0).to(torch.float64)
    edge = torch.arange(12) % dim
    middles = corners.scatter(1, edge.unsqueeze(1), 0.0)
    saddles = search.refine(landscape, middles, max_iterations=20)
    found = ends(landscape, saddles)
    assert found.status.tolist() == [[search.CONVERGED] * 2] * 12
    refined = search.refine(landscape, found.theta.flatten(0, 1)).view(12, 2, dim)
    for row in range(12):
        first, second = refined[row]
        assert float(first[edge[row]] * second[edge[row]]) == pytest.approx(-1.0, abs=1e-12)
        for end in (first, second):
            torch.testing.assert_close(end.abs(), torch.ones(dim, dtype=torch.float64), rtol=0, atol=1e-12)
            others = torch.arange(dim) != edge[row]
            torch.testing.assert_close(end[others], corners[row, others], rtol=0, atol=1e-12)
    torch.testing.assert_close(found.barrier[:, 0], landscape.objective(saddles), rtol=1e-10, atol=0)


def test_barriers_of_a_linear_autoencoder_are_half_the_difference_of_variances() -> None:
    """Of index 1 is I = {1, 3} alone (Baldi & Hornik 1989): both ways lead to I = {1, 2}, ½(λ₂ − λ₃) below."""
    second = torch.zeros(K, P, dtype=torch.float64)
    second[0, 0] = second[2, 1] = 1.0
    saddle = torch.cat([second.T.reshape(-1), second.reshape(-1)]).unsqueeze(0)
    landscape = linear_autoencoder()
    values, vectors, _ = eigh(landscape.hessian(saddle))
    found = descend_both_ways(landscape, saddle, vectors[:, :, 0], values.abs().amax(1), 1e-8, 100)
    assert found.status.tolist() == [[search.CONVERGED] * 2]
    gap = 0.5 * (VARIANCES[1] - VARIANCES[2])
    torch.testing.assert_close(found.barrier, torch.full_like(found.barrier, gap), rtol=0, atol=1e-12)


# --- what does not arrive ----------------------------------------------------------------------------------------
def quintic(theta: Tensor) -> Tensor:
    """∂L/∂x = (x² − 1)(x² − 4): saddles at x = −2 (unbounded to its left) and 1, minima at −1 and 2."""
    x, y = theta[0], theta[1]
    return x**5 / 5 - 5 * x**3 / 3 + 4 * x + 0.5 * y * y


def test_a_side_without_a_minimum_is_a_status_and_disturbs_no_other_row() -> None:
    saddles = points([-2.0, 0.0], [1.0, 0.0])
    found = ends(function(quintic), saddles, budget=30)
    lost = found.theta[:, :, 0] < -3
    assert lost.sum(1).tolist() == [1, 0]
    assert set(found.status[lost].tolist()) <= {search.BUDGET, search.NON_FINITE, search.STAGNATED}
    assert bool(torch.isnan(found.barrier[lost]).all())
    assert found.status[~lost].tolist() == [search.CONVERGED] * 3
    assert sorted(found.theta[~lost][:, 0].round(decimals=9).tolist()) == [-1.0, -1.0, 2.0]
    alone = ends(function(quintic), saddles[1:], budget=30)
    for name in ("theta", "status", "iterations", "flatness", "barrier"):
        assert torch.equal(getattr(alone, name)[0], getattr(found, name)[1]), name


def test_leaving_the_domain_is_non_finite() -> None:
    """ln x − x falls from x = 1 to −∞ at 0, where the flow arrives at a finite time and beyond which L is NaN."""
    found = ends(
        function(lambda t: torch.log(t[0]) - t[0] + 0.5 * t[1] ** 2 + torch.relu(t[0] - 2) ** 3),
        points([1.0, 0.0]),
        budget=60,
    )
    left = found.theta[0, :, 0] < 1
    assert left.sum() == 1
    assert found.status[0][left].tolist() == [search.NON_FINITE]
    assert found.status[0][~left].tolist() == [search.CONVERGED]


def test_a_flow_that_a_symmetry_leads_to_another_saddle_says_so() -> None:
    """On the mirror line y = 0 the flow from (0, 0) goes to (±1, 0), which are saddles themselves."""

    def loss(theta: Tensor) -> Tensor:
        x, y = theta[0], theta[1]
        return (x * x - 1) ** 2 + y * y * (0.5 - x * x) + y**4

    found = ends(function(loss), points([0.0, 0.0]))
    assert found.status.tolist() == [[search.STAGNATED] * 2]
    torch.testing.assert_close(found.theta[0].abs(), points([1.0, 0.0], [1.0, 0.0]), rtol=0, atol=1e-6)
    assert bool(torch.isnan(found.barrier).all())


# --- rows --------------------------------------------------------------------------------------------------------
def test_rows_do_not_depend_on_each_other() -> None:
    landscape = function(himmelblau)
    saddles = search.refine(landscape, points(*HIMMELBLAU_SADDLES))
    together = ends(landscape, saddles)
    for row in (1, 2):
        alone = ends(landscape, saddles[row : row + 1])
        for name in ("theta", "status", "iterations", "flatness", "barrier"):
            assert torch.equal(getattr(alone, name)[0], getattr(together, name)[row]), name
    outcome = together.outcome()
    assert torch.equal(outcome.theta[5], together.theta[2, 1])


def test_the_start_is_nearer_where_the_quadratic_model_fails() -> None:
    def stiff(theta: Tensor) -> Tensor:
        return -0.5 * theta[0] ** 2 + 1e5 * theta[0] ** 4 + theta[1] ** 2

    axis, origin = points([1.0, 0.0]), points([0.0, 0.0])
    assert displaced(function(stiff), origin, axis)[0, :, 0].tolist() == [0.5e-3, -0.5e-3]
    assert displaced(function(lambda t: t[1] ** 2 - t[0] ** 2), origin, axis)[0, :, 0].tolist() == [1e-3, -1e-3]
    assert displaced(function(lambda t: t[1] ** 2 - t[0].abs()), origin, axis)[0, 0, 0].item() == 1e-3 / 64


def test_a_spent_budget_is_a_status() -> None:
    found = ends(function(himmelblau), points(HIMMELBLAU_SADDLES[0]), budget=3)
    assert found.status.tolist() == [[search.BUDGET] * 2]
    assert bool(torch.isnan(found.barrier).all())
