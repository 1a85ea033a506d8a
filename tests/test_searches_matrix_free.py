"""Searches that know the Hessian by its products alone, on surfaces whose stationary points are known."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import optimize
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from landsweep.workers import search, symmetry
from landsweep.workers.landscape import Landscape
from landsweep.workers.lbfgs import GradientNormMinimisation, Lbfgs, two_loop
from landsweep.workers.matrix_free import frobenius_norm, interpolated, probed
from landsweep.workers.newton_cg import TrustRegionNewtonCG, to_boundary, truncated
from landsweep.workers.newton_mr import NewtonMr
from landsweep.workers.reference import plane
from landsweep.workers.saddle_dynamics import HighIndexSaddleDynamics, tracked
from landsweep.workers.search import CONVERGED, NON_FINITE, STAGNATED, Outcome
from tests.surfaces import found, function, himmelblau, linear_autoencoder, monkey, normal, points, scale_at

pytestmark = pytest.mark.usefixtures("one_thread")

FINDERS: dict[str, Callable[[int], Any]] = {
    "lbfgs": lambda rows: Lbfgs(1e-8),
    "gradient_norm": lambda rows: GradientNormMinimisation(1e-8),
    "newton_cg": lambda rows: TrustRegionNewtonCG(1e-8),
    "newton_mr": lambda rows: NewtonMr(1e-8),
    "saddle_dynamics": lambda rows: HighIndexSaddleDynamics(1e-8, torch.arange(rows) % 3),
}
DESCENTS = ("lbfgs", "newton_cg")
ANY_INDEX = ("gradient_norm", "newton_mr")


def ran(name: str, landscape: Landscape, starts: Tensor, budget: int = 300) -> Outcome:
    scale = torch.ones_like(starts[:, 0])
    return search.iterate(FINDERS[name](len(starts)), landscape, starts, scale, budget)


def sought(index: int, landscape: Landscape, starts: Tensor, budget: int = 400) -> Outcome:
    """By saddle dynamics."""
    finder = HighIndexSaddleDynamics(1e-8, torch.full((len(starts),), index))
    return search.iterate(finder, landscape, starts, torch.ones_like(starts[:, 0]), budget)


def wells(dim: int) -> Landscape:
    """Σ aᵢ(xᵢ² − 1)²/4, a from 1/2 to 1: 3ⁿ critical points, x in {−1, 0, 1}ⁿ, of index #{xᵢ = 0}."""
    weights = torch.linspace(0.5, 1.0, dim, dtype=torch.float64)
    return function(lambda theta: 0.25 * (weights * (theta**2 - 1) ** 2).sum(), dim)


def quadratic(eigenvalues: Tensor) -> Landscape:
    """½(θ−c)ᵀA(θ−c), A a reflection of diag(eigenvalues), c = (1, …, 1)."""
    dim = len(eigenvalues)
    normal_vector = normal(1, dim, seed=9)[0]
    normal_vector = normal_vector / normal_vector.norm()

    def loss(theta: Tensor) -> Tensor:
        x = theta - 1.0
        y = x - 2 * (x * normal_vector).sum() * normal_vector
        return 0.5 * (eigenvalues * y**2).sum()

    return function(loss, dim)


# --- Himmelblau, the monkey saddle --------------------------------------------------------------------------------
def names(landscape: Landscape, theta: Tensor) -> set[str]:
    assert landscape.known_class is not None
    classes = [landscape.known_class(row) for row in theta]
    assert None not in classes, "a converged point lies at a known one"
    return {known.name for known in classes if known is not None}


@pytest.mark.parametrize("name", DESCENTS)
def test_descents_find_the_four_minima_of_himmelblau(name: str) -> None:
    landscape, starts = plane.himmelblau(), normal(60, 2, scale=3.0)
    outcome = ran(name, landscape, starts)
    assert outcome.status.tolist() == [CONVERGED] * 60
    assert names(landscape, outcome.theta) == {f"minimum {k}" for k in range(4)}
    assert bool((landscape.objective(outcome.theta) <= landscape.objective(starts)).all())


@pytest.mark.parametrize("name", ANY_INDEX)
def test_searches_of_any_index_find_all_nine_points_of_himmelblau(name: str) -> None:
    landscape = plane.himmelblau()
    outcome = ran(name, landscape, normal(60, 2, scale=3.0))
    ok = outcome.status == CONVERGED
    assert int(ok.sum()) >= 58
    assert len(names(landscape, outcome.theta[ok])) == 9


@pytest.mark.parametrize(
    ("index", "kind", "count", "least"), [(0, "minimum", 4, 30), (1, "saddle", 4, 22), (2, "maximum", 1, 6)]
)
def test_saddle_dynamics_finds_exactly_the_requested_index(index: int, kind: str, count: int, least: int) -> None:
    landscape = plane.himmelblau()
    outcome = sought(index, landscape, normal(30, 2, scale=3.0), 80)
    ok = outcome.status == CONVERGED
    assert int(ok.sum()) >= least
    reached = names(landscape, outcome.theta[ok])
    assert len(reached) == count
    assert all(name.startswith(kind) for name in reached)


@pytest.mark.parametrize("name", ANY_INDEX)
def test_a_degenerate_saddle_is_reached(name: str) -> None:
    outcome = ran(name, function(monkey), normal(6, 2))
    assert outcome.status.tolist() == [CONVERGED] * 6
    assert float(outcome.theta.norm(dim=1).max()) < 1e-5


# --- linear autoencoder: closed forms, with symmetries ------------------------------------------------------------
@pytest.mark.parametrize(("name", "budget", "least"), [("lbfgs", 300, 4), ("newton_cg", 60, 6)])
def test_descents_reach_the_only_minimum_of_the_linear_autoencoder(name: str, budget: int, least: int) -> None:
    landscape = linear_autoencoder()
    outcome = ran(name, landscape, normal(6, landscape.dim, scale=0.6), budget)
    ok = outcome.status == CONVERGED
    assert int(ok.sum()) >= least
    losses = landscape.objective(outcome.theta[ok])
    torch.testing.assert_close(losses, torch.full_like(losses, 3.0), rtol=0, atol=1e-9)


def test_newton_mr_finds_saddles_of_the_linear_autoencoder() -> None:
    landscape = linear_autoencoder()
    outcome, kinds = found(landscape, NewtonMr(1e-8), normal(8, landscape.dim, scale=0.6), 60)
    ok = outcome.status == CONVERGED
    assert int(ok.sum()) >= 6
    assert bool(kinds.critical[ok].all())
    losses = landscape.objective(outcome.theta[ok])
    twice = (2 * losses).round()  # ½Σ of some of 5, 4, 3, 2, 1
    torch.testing.assert_close(2 * losses, twice, rtol=0, atol=1e-9)
    assert len(set(twice.tolist())) >= 3
    assert {kinds.kind[row] for row in torch.nonzero(ok).flatten().tolist()} == {"minimum", "saddle"}


def test_saddle_dynamics_steps_over_the_symmetries_zero_modes() -> None:
    landscape = linear_autoencoder()
    finder = HighIndexSaddleDynamics(1e-8, torch.full((4,), 2))
    outcome, kinds = found(landscape, finder, normal(4, landscape.dim, scale=0.6), 300)
    ok = outcome.status == CONVERGED
    assert int(ok.sum()) >= 3
    assert set(kinds.signs.index[ok].tolist()) == {2}


# --- quadratics of known inertia, and scipy -----------------------------------------------------------------------
def test_quadratics_are_solved_whatever_their_inertia() -> None:
    eigenvalues = torch.tensor([-9.0, -4.0, -1.0, 0.5, 1.0, 2.0, 3.0, 8.0], dtype=torch.float64)
    landscape, starts = quadratic(eigenvalues), normal(3, 8)
    for name in ANY_INDEX:
        outcome = ran(name, landscape, starts)
        assert outcome.status.tolist() == [CONVERGED] * 3
        torch.testing.assert_close(outcome.theta, torch.ones_like(starts), rtol=0, atol=1e-7)
    outcome = sought(3, landscape, starts)
    assert outcome.status.tolist() == [CONVERGED] * 3
    torch.testing.assert_close(outcome.theta, torch.ones_like(starts), rtol=0, atol=1e-7)
    assert CONVERGED not in sought(2, landscape, starts, 30).status.tolist(), "there is no such saddle"


@pytest.mark.parametrize(("name", "method"), [("lbfgs", "L-BFGS-B"), ("newton_cg", "trust-ncg")])
def test_scipy_goes_to_the_same_minimum(name: str, method: str) -> None:
    def rosenbrock(theta: Tensor) -> Tensor:
        return (100 * (theta[1:] - theta[:-1] ** 2) ** 2 + (1 - theta[:-1]) ** 2).sum()

    starts = 1 + normal(6, 6, scale=0.2)
    outcome = ran(name, function(rosenbrock, 6), starts, 400)
    assert outcome.status.tolist() == [CONVERGED] * 6
    for start, theta in zip(starts.numpy(), outcome.theta, strict=True):
        hess = optimize.rosen_hess if method == "trust-ncg" else None
        theirs = optimize.minimize(optimize.rosen, start, jac=optimize.rosen_der, hess=hess, method=method, tol=1e-10)
        torch.testing.assert_close(theta, torch.from_numpy(theirs.x), rtol=0, atol=1e-5)


# --- many dimensions ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("index", [0, 1, 5, 12])
def test_double_wells_in_twenty_dimensions(index: int) -> None:
    landscape = wells(20)
    outcome = sought(index, landscape, normal(8, 20, seed=index, scale=0.6))
    ok = outcome.status == CONVERGED
    assert int(ok.sum()) >= 7
    at_top = outcome.theta[ok].abs() < 1e-6
    at_bottom = (outcome.theta[ok].abs() - 1).abs() < 1e-6
    assert bool((at_top | at_bottom).all())
    assert at_top.sum(1).tolist() == [index] * int(ok.sum())


@pytest.mark.parametrize("name", ANY_INDEX)
def test_each_double_well_point_is_one_of_the_known(name: str) -> None:
    outcome = ran(name, wells(20), normal(8, 20, scale=0.7))
    ok = outcome.status == CONVERGED
    assert int(ok.sum()) >= 6
    theta = outcome.theta[ok]
    torch.testing.assert_close(theta, theta.round(), rtol=0, atol=1e-6)
    assert len(set((theta.abs() < 0.5).sum(1).tolist())) > 1, "of several indices"


class Largest(TorchDispatchMode):
    """Records the number of elements of the largest tensor that any operation made."""

    size = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, Tensor):
                self.size = max(self.size, tensor.numel())
        return result


@pytest.mark.parametrize("name", FINDERS)
def test_two_thousand_dimensions_without_a_matrix(name: str) -> None:
    dim, rows = 2000, 2
    starts = normal(rows, dim, scale=0.6)
    landscape = wells(dim) if name != "gradient_norm" else quadratic(torch.linspace(-1, 2, dim, dtype=torch.float64))
    with Largest() as largest:
        outcome = ran(name, landscape, starts, 80)
    assert largest.size < dim * dim / 20
    gradient = landscape.gradient(outcome.theta).norm(dim=1)
    if name == "gradient_norm":  # its condition is the square of an indefinite H's; so far it comes
        assert bool((gradient < 0.1 * landscape.gradient(starts).norm(dim=1)).all())
        return
    assert outcome.status.tolist() == [CONVERGED] * rows
    assert float(gradient.max()) <= 1e-8
    indices = (outcome.theta.abs() < 0.5).sum(1).tolist()
    assert indices == ([0, 1] if name == "saddle_dynamics" else [0, 0]) or name == "newton_mr"


# --- saddles are left ---------------------------------------------------------------------------------------------
def test_newton_cg_leaves_every_saddle() -> None:
    landscape = wells(20)
    starts = torch.zeros(3, 20, dtype=torch.float64)
    starts[1, :19] = 1.0  # one direction of negative curvature
    starts[2, :19] = -1.0 + 1e-9
    outcome = ran("newton_cg", landscape, starts)
    assert outcome.status.tolist() == [CONVERGED] * 3
    torch.testing.assert_close(outcome.theta.abs(), torch.ones_like(starts), rtol=0, atol=1e-7)


def test_saddle_dynamics_leaves_points_of_another_index() -> None:
    starts = torch.zeros(2, 20, dtype=torch.float64)
    starts[1] = 1.0
    outcome = sought(3, wells(20), starts)
    assert outcome.status.tolist() == [CONVERGED] * 2
    assert (outcome.theta.abs() < 1e-6).sum(1).tolist() == [3, 3]


# --- gradient-flat points -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ANY_INDEX)
def test_gradient_flat_points_are_told(name: str) -> None:
    """L = x³/3 + x + y² has no critical point; at x = 0 the gradient (1, 0) lies in the Hessian's kernel."""
    landscape = function(lambda t: t[0] ** 3 / 3 + t[0] + t[1] ** 2)
    outcome, kinds = found(landscape, FINDERS[name](6), normal(6, 2))
    assert outcome.status.tolist() == [STAGNATED] * 6
    assert float(outcome.theta[:, 0].abs().max()) < 1e-2
    assert int((outcome.flatness > 0.9).sum()) >= 5  # (Newton–MR may be caught on the way, its step nearly along x)
    assert kinds.kind.count("gradient_flat") >= 4
    regular = ran(name, plane.himmelblau(), normal(20, 2, scale=3.0))
    assert float(regular.flatness[regular.status == CONVERGED].max()) < 0.9


# --- failures -----------------------------------------------------------------------------------------------------
def only_here(theta: Tensor) -> Tensor:
    """Finite at (1, 1) alone."""
    distance = (theta - 1).pow(2).sum()
    return torch.where(distance < 1e-30, 1.0, torch.nan) * (theta[0] ** 2 + 3 * theta[1])


def kink(theta: Tensor) -> Tensor:
    """At (1, 1) the second derivative is not finite while the gradient is."""
    return (theta[0] - 1).abs() ** 1.5 + theta[1] ** 2


def constant_curvature_zero(theta: Tensor) -> Tensor:
    """H is singular everywhere and vanishes at (1, 1), where g = (0, 1)."""
    return (theta[0] - 1) ** 4 + theta[1] + 0 * theta[1] ** 2


@pytest.mark.parametrize("name", FINDERS)
@pytest.mark.parametrize("loss", [only_here, kink])
def test_bad_steps_never_move_a_point(name: str, loss: Callable[[Tensor], Tensor]) -> None:
    start = points([1.0, 1.0], [1.0, 1.0], [1.0, 1.0])
    outcome = ran(name, function(loss), start, 200)
    if loss is kink and name == "lbfgs":
        torch.testing.assert_close(outcome.theta, points(*[[1.0, 0.0]] * 3), rtol=0, atol=1e-6)
        assert CONVERGED not in outcome.status.tolist(), "its Newton step is not known"
        return
    if loss is kink and name == "saddle_dynamics":
        assert not bool((outcome.theta.norm(dim=1) < 0.5).any())
        return
    assert torch.equal(outcome.theta, start)
    assert set(outcome.status.tolist()) <= {STAGNATED, NON_FINITE}


@pytest.mark.parametrize("name", ANY_INDEX)
def test_a_vanishing_hessian_never_moves_a_point(name: str) -> None:
    start = points([1.0, 1.0], [1.0, -2.0])
    outcome = ran(name, function(constant_curvature_zero), start, 200)
    assert torch.equal(outcome.theta, start)
    assert outcome.status.tolist() == [STAGNATED] * 2


@pytest.mark.parametrize("name", FINDERS)
def test_a_start_that_is_not_finite_ends_at_once_and_disturbs_nobody(name: str) -> None:
    landscape, starts = function(himmelblau), normal(6, 2, scale=2.0)
    alone = ran(name, landscape, starts, 30)
    starts[3, 0] = torch.nan
    starts[4, 1] = torch.inf
    together = ran(name, landscape, starts, 30)
    assert together.status[3:5].tolist() == [NON_FINITE] * 2
    assert together.iterations[3:5].tolist() == [0, 0]
    for row in (0, 1, 2, 5):
        assert torch.equal(together.theta[row], alone.theta[row])


@pytest.mark.parametrize("name", FINDERS)
def test_huge_curvature_and_no_budget_are_results(name: str) -> None:
    huge = ran(name, function(lambda t: 8e307 * (t**2).sum()), points([1e-3, 1e-3]), 20)
    assert CONVERGED not in huge.status.tolist()
    start = normal(3, 2)
    none = ran(name, function(himmelblau), start, 0)
    assert torch.equal(none.theta, start)
    assert none.status.tolist() == [search.BUDGET] * 3


@pytest.mark.parametrize("name", FINDERS)
@pytest.mark.parametrize("landscape", [wells(9), linear_autoencoder()], ids=["wells", "autoencoder"])
def test_a_row_is_the_same_in_any_company(name: str, landscape: Landscape) -> None:
    starts, index = normal(7, landscape.dim, seed=4, scale=0.7), torch.tensor([3, 0, 1, 2, 4, 1, 2])

    def run(rows: list[int]) -> Outcome:
        finder = FINDERS[name](7)
        if name == "saddle_dynamics":
            finder = dataclasses.replace(finder, index=index[rows])
        return search.iterate(finder, landscape, starts[rows], torch.ones(len(rows), dtype=torch.float64), 8)

    together = run(list(range(7)))
    for rows in ([4], [2, 4], [6]):
        apart = run(rows)
        for place, row in enumerate(rows):
            assert torch.equal(apart.theta[place], together.theta[row])
            assert torch.equal(apart.flatness[place], together.flatness[row])
            assert int(apart.iterations[place]) == int(together.iterations[row])


# --- the parts ----------------------------------------------------------------------------------------------------
def test_two_loops_are_the_bfgs_matrix() -> None:
    steps, changes = normal(4, 12, seed=1).view(2, 4, 6), normal(4, 12, seed=2).view(2, 4, 6)
    changes = changes + 3 * steps
    inverses = 1 / (steps * changes).sum(2)
    inverses[1, :2] = 0.0  # pairs that are not there
    gradient, first = normal(2, 6, seed=3), torch.ones(2, dtype=torch.float64)
    direction = two_loop(gradient, steps, changes, inverses, first)
    for row in range(2):
        s, y = steps[row].numpy(), changes[row].numpy()
        matrix = np.eye(6) * (s[3] @ y[3]) / (y[3] @ y[3])
        for pair in range(4):
            if inverses[row, pair] > 0:
                rho = 1 / (s[pair] @ y[pair])
                left = np.eye(6) - rho * np.outer(s[pair], y[pair])
                matrix = left @ matrix @ left.T + rho * np.outer(s[pair], s[pair])
        torch.testing.assert_close(direction[row], torch.from_numpy(matrix @ gradient[row].numpy()), rtol=0, atol=1e-12)


def test_interpolation_is_the_parabola_s_minimiser_and_safe() -> None:
    length = torch.full((4,), 2.0, dtype=torch.float64)
    slope = torch.tensor([-1.0, -1.0, -1.0, -1.0], dtype=torch.float64)
    # f(t) = −t + a·t² with a = 0.7, 20 and ½ (+ rounding): minimiser 1/(2a)
    fall = torch.tensor([2 - 4 * 0.7, 2 - 4 * 20.0, 2 - 4 * 0.26, torch.nan], dtype=torch.float64)
    expected = torch.tensor([1 / 1.4, 0.2, 1.0, 0.2], dtype=torch.float64)
    torch.testing.assert_close(interpolated(length, slope, fall), expected, rtol=1e-12, atol=0)


def test_to_boundary_ends_on_it() -> None:
    step, direction = normal(6, 5, scale=0.3), normal(6, 5, seed=1)
    direction[:3] *= 1e8
    radius = step.norm(dim=1) * torch.tensor([1.0, 1.5, 4.0, 1.0, 2.0, 9.0], dtype=torch.float64)
    tau = to_boundary(step, direction, radius)
    assert bool((tau >= 0).all())
    torch.testing.assert_close((step + tau.unsqueeze(1) * direction).norm(dim=1), radius, rtol=1e-12, atol=0)


def test_truncated_conjugate_gradients_solve_or_reach_the_boundary() -> None:
    eigenvalues = torch.linspace(0.5, 3, 12, dtype=torch.float64)
    convex, theta = quadratic(eigenvalues), normal(4, 12)
    gradient = convex.gradient(theta)
    radius = torch.tensor([1e3, 1e3, 0.1, 1.0], dtype=torch.float64)
    solution = truncated(convex, theta, gradient, radius)
    model = -(gradient * solution.step).sum(1) - 0.5 * (
        solution.step * convex.hvp(theta, solution.step.unsqueeze(2)).squeeze(2)
    ).sum(1)
    torch.testing.assert_close(solution.predicted, model, rtol=1e-10, atol=0)
    assert bool(solution.convex.all())
    assert bool((solution.step.norm(dim=1) <= radius * (1 + 1e-12)).all())
    cauchy = (gradient**2).sum(1) ** 1.5 / (gradient.norm(dim=1) * 3.0)  # ≥ half the decrease of Cauchy's point
    cauchy = 0.5 * gradient.norm(dim=1) * torch.minimum(radius, cauchy / gradient.norm(dim=1))
    assert bool((solution.predicted >= cauchy * (1 - 1e-12)).all())
    saddle = quadratic(torch.cat([-eigenvalues[:1], eigenvalues[1:]]))
    solution = truncated(saddle, theta, saddle.gradient(theta), radius)
    torch.testing.assert_close(solution.step[2:].norm(dim=1), radius[2:], rtol=1e-12, atol=0)


def test_probing_finds_negative_curvature_and_nothing_else() -> None:
    eigenvalues = torch.tensor([-1e-3, 0.0, 0.3, 1.0, 2.0, 5.0], dtype=torch.float64)
    for values in (eigenvalues, eigenvalues.abs(), eigenvalues.clamp_min(0.0)):
        landscape, theta = quadratic(values), torch.ones(2, 6, dtype=torch.float64)
        curvature, direction = probed(landscape, theta, theta.new_zeros(2, 6, 0))
        assert bool((curvature < 0).all()) == bool((values < 0).any())
        quotient = (landscape.hvp(theta, direction.unsqueeze(2)).squeeze(2) * direction).sum(1)
        if bool((values < 0).any()):
            torch.testing.assert_close(curvature, quotient, rtol=1e-6, atol=0)


def test_subspace_tracking_finds_the_lowest_modes() -> None:
    values = torch.cat([torch.tensor([-4.0, -3.0, -1.0]), torch.linspace(0, 6, 37)]).double()
    landscape, theta = quadratic(values), torch.ones(2, 40, dtype=torch.float64)
    modes = torch.linalg.qr(normal(2, 120).view(2, 40, 3))[0]
    changes, ritz = torch.zeros_like(modes), torch.zeros(2, 3, dtype=torch.float64)
    for _ in range(40):
        ritz, modes, changes = tracked(lambda block: landscape.hvp(theta, block), modes, changes)
    torch.testing.assert_close(ritz, values[:3].expand(2, 3), rtol=0, atol=1e-8)
    torch.testing.assert_close(modes.mT @ modes, torch.eye(3, dtype=torch.float64).expand(2, 3, 3), rtol=0, atol=1e-12)


def test_the_frobenius_norm_is_estimated() -> None:
    landscape, theta = linear_autoencoder(), normal(20, 20)
    exact = landscape.hessian(theta).norm(dim=(1, 2))
    ratio = frobenius_norm(landscape, theta) / exact
    assert 0.9 < float(ratio.mean()) < 1.1
    assert 0.5 < float(ratio.min()) <= float(ratio.max()) < 1.7


def test_spheres_are_kept() -> None:
    """θᵀAθ/θᵀθ on the unit sphere: its critical points are A's eigenvectors, of index 0, 1, …"""
    values = torch.tensor([1.0, 2.0, 4.0, 7.0], dtype=torch.float64)
    landscape = Landscape.from_function(
        lambda t: (values * t**2).sum() / (t**2).sum(), 4, lambda g: torch.randn(4, generator=g, dtype=torch.float64),
        symmetries=[lambda t: t], retraction=lambda t: t / t.norm(),
    )  # fmt: skip
    assert len(symmetry.checked(landscape)) == 1
    starts = normal(4, 4)
    for name in DESCENTS:
        outcome = ran(name, landscape, starts)
        assert outcome.status.tolist() == [CONVERGED] * 4
        torch.testing.assert_close(outcome.theta[:, 0].abs(), torch.ones(4, dtype=torch.float64), rtol=0, atol=1e-9)
    for index in (1, 2):
        outcome = sought(index, landscape, starts, 100)
        ok = outcome.status == CONVERGED
        assert int(ok.sum()) >= 3
        torch.testing.assert_close(
            outcome.theta[ok, index].abs(), torch.ones(int(ok.sum()), dtype=torch.float64), rtol=0, atol=1e-9
        )


def test_scale_is_not_needed() -> None:
    """‖H‖ at the start, which a search without a Hessian does not know, changes nothing but the shift of symmetries."""
    landscape, starts = function(himmelblau), normal(5, 2)
    for name in FINDERS:
        finder = FINDERS[name](5)
        one = search.iterate(finder, landscape, starts, torch.ones(5, dtype=torch.float64), 15)
        other = search.iterate(finder, landscape, starts, scale_at(landscape, starts), 15)
        assert torch.equal(one.theta, other.theta)
