"""The kinds of points, on surfaces whose kinds are known, and what may be certified."""

from __future__ import annotations

import dataclasses
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from landsweep.workers import search
from landsweep.workers.certificate import safran_shamir, transversal
from landsweep.workers.classify import Classified, classify, kind_of, signs
from landsweep.workers.eigenvector_following import EigenvectorFollowing
from landsweep.workers.landscape import Landscape
from landsweep.workers.levenberg_marquardt import LevenbergMarquardt
from landsweep.workers.quadratic import LocalModel
from landsweep.workers.reference import population
from landsweep.workers.trust_region import TrustRegionNewton
from tests.surfaces import ended, found, function, hat, monkey, normal, points, rotation, scale_at

pytestmark = pytest.mark.usefixtures("one_thread")


def at(landscape: Landscape, theta: Tensor, status: int = search.CONVERGED, scale: float = 1.0) -> Classified:
    """Classify ``theta`` as a search that ended there would have it."""
    scales = torch.full((len(theta),), scale, dtype=theta.dtype)
    return classify(
        landscape, theta, ended(theta, status), scale=scales, keys=torch.arange(len(theta)), tolerance=1e-8,
        fields=landscape.symmetries,
    )  # fmt: skip


# --- the eigenvalue rule ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("eigenvalue", "error", "expected"),
    [
        (1.0, 0.0, "positive"), (-1.0, 0.0, "index"), (0.0, 0.0, "zero"),
        (0.1, 0.0, "zero"), (-0.1, 0.0, "zero"),  # |λ|+δ = z is zero
        (0.11, 0.0, "positive"), (-0.11, 0.0, "index"),
        (0.3, 0.2, "undetermined"), (0.31, 0.2, "positive"),  # λ−δ = z is not yet positive
        (-0.3, 0.2, "undetermined"), (-0.31, 0.2, "index"),
        (0.05, 0.06, "undetermined"), (0.0, 0.1, "zero"), (0.0, 0.11, "undetermined"),
        (5.0, torch.inf, "undetermined"), (torch.nan, 0.0, "undetermined"),
    ],
)  # fmt: skip
def test_sign_rule(eigenvalue: float, error: float, expected: str) -> None:
    counted = signs(points([eigenvalue]), torch.tensor([error]).double(), torch.tensor([0.1]).double())
    counts = {
        "index": counted.index,
        "positive": counted.n_positive,
        "zero": counted.n_zero,
        "undetermined": counted.n_undetermined,
    }
    assert {name: int(count[0]) for name, count in counts.items()} == {name: int(name == expected) for name in counts}


def test_kind_rule() -> None:
    """Every combination of docs/points.md, written out again as a table."""
    for index, positive, explained, descent, ascent in product((0, 1), (0, 1), *[(False, True)] * 3):
        if explained:
            wanted = {(0, 0): "minimum", (0, 1): "minimum", (1, 0): "maximum", (1, 1): "saddle"}[index, positive]
        elif index and positive:
            wanted = "degenerate_saddle"
        elif positive:
            wanted = "degenerate_saddle" if descent else "degenerate_minimum"
        elif index or descent:
            wanted = "degenerate_saddle" if ascent else "undetermined"
        else:
            wanted = "degenerate_minimum"
        assert kind_of(index, positive, 0, explained, descent, ascent) == wanted
        assert kind_of(index, positive, 1, explained, descent, ascent) == "undetermined"


# --- kinds at known points --------------------------------------------------------------------------------------
KNOWN: dict[str, tuple[Any, str, tuple[int, int, int]]] = {
    "bowl": (lambda t: t[0] ** 2 + 2 * t[1] ** 2, "minimum", (0, 2, 0)),
    "dome": (lambda t: -(t[0] ** 2) - 2 * t[1] ** 2, "maximum", (2, 0, 0)),
    "pass": (lambda t: t[0] ** 2 - t[1] ** 2, "saddle", (1, 1, 0)),
    "monkey saddle": (monkey, "degenerate_saddle", (0, 0, 2)),
    "quartic valley": (lambda t: t[0] ** 4 + t[1] ** 2, "degenerate_minimum", (0, 1, 1)),
    "quartic ridge": (lambda t: -(t[0] ** 4) + t[1] ** 2, "degenerate_saddle", (0, 1, 1)),
    "cubic slope": (lambda t: t[0] ** 3 + t[1] ** 2, "degenerate_saddle", (0, 1, 1)),
    "curved valley": (
        lambda t: t[1] ** 2 - 2 * t[0] ** 2 * t[1] + 0.5 * t[0] ** 4,
        "degenerate_saddle",
        (0, 1, 1),
    ),
    "quartic bowl": (lambda t: t[0] ** 4 + t[1] ** 4, "degenerate_minimum", (0, 0, 2)),
    "quartic dome": (lambda t: -(t[0] ** 4) - t[1] ** 4, "undetermined", (0, 0, 2)),
    "dome with quartic ascent": (lambda t: t[0] ** 4 - t[1] ** 2, "degenerate_saddle", (1, 0, 1)),
    "dome with quartic descent": (lambda t: -(t[0] ** 4) - t[1] ** 2, "undetermined", (1, 0, 1)),
    "constant along a line": (lambda t: t[1] ** 2 + 0 * t[0], "degenerate_minimum", (0, 1, 1)),
}


@pytest.mark.parametrize("name", KNOWN)
def test_kind_at_the_origin(name: str) -> None:
    loss, kind, counts = KNOWN[name]
    kinds = at(function(loss), points([0.0, 0.0]))
    assert kinds.kind == [kind]
    counted = kinds.signs
    assert (int(counted.index), int(counted.n_positive), int(counted.n_zero)) == counts
    assert (kinds.reason[0] is None) == (kind in ("minimum", "maximum", "saddle"))


SEARCHED: dict[str, tuple[Any, Any]] = {
    "monkey saddle": (LevenbergMarquardt(1e-8), "degenerate_saddle"),
    "quartic valley": (TrustRegionNewton(1e-8), "degenerate_minimum"),
    "quartic bowl": (TrustRegionNewton(1e-8), "degenerate_minimum"),
    "curved valley": (LevenbergMarquardt(1e-8), "degenerate_saddle"),
    "cubic slope": (LevenbergMarquardt(1e-8), "degenerate_saddle"),
}


@pytest.mark.parametrize("name", SEARCHED)
def test_kind_where_a_search_ends(name: str) -> None:
    finder, kind = SEARCHED[name]
    outcome, kinds = found(function(KNOWN[name][0]), finder, normal(6, 2))
    assert kinds.kind == [kind] * 6
    assert float(outcome.theta.norm(dim=1).max()) < 1e-4


def test_monkey_saddle_by_eigenvector_following() -> None:
    _, kinds = found(function(monkey), EigenvectorFollowing(1e-8, torch.full((6,), 1)), normal(6, 2, seed=3))
    assert kinds.kind == ["degenerate_saddle"] * 6


# --- symmetries -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("finder", [LevenbergMarquardt(1e-8), TrustRegionNewton(1e-8)])
def test_a_declared_rotation_explains_the_zero(finder: search.Search) -> None:
    starts = normal(12, 2, seed=5) + points([2.0, 0.0])
    outcome, declared = found(function(hat, symmetries=[rotation]), finder, starts)
    ring = (outcome.theta.norm(dim=1) - 1).abs() < 1e-9
    assert int(ring.sum()) >= 10
    for row in torch.nonzero(ring).flatten().tolist():
        assert declared.kind[row] == "minimum"
        assert int(declared.signs.n_zero[row]) == int(declared.curvature.n_symmetry[row]) == 1
        assert int(declared.signs.n_positive[row]) == 1
    _, undeclared = found(function(hat), finder, starts)
    assert {undeclared.kind[row] for row in torch.nonzero(ring).flatten().tolist()} == {"degenerate_minimum"}
    assert undeclared.curvature.n_symmetry.tolist() == [0] * 12


def test_a_symmetry_spans_nothing_at_its_fixed_point() -> None:
    kinds = at(function(hat, symmetries=[rotation]), points([0.0, 0.0]))
    assert kinds.kind == ["maximum"]
    assert int(kinds.curvature.n_symmetry) == 0


# --- not critical points ----------------------------------------------------------------------------------------
def trap(theta: Tensor) -> Tensor:
    """∂L/∂x = 1 + 3x² > 0 everywhere; ‖g‖ has a local minimum at the origin, where the Hessian is singular."""
    return theta[0] + theta[0] ** 3 + theta[1] ** 2


def test_a_gradient_flat_trap_is_named() -> None:
    outcome, kinds = found(function(trap), LevenbergMarquardt(1e-8), normal(8, 2), budget=400)
    assert kinds.kind == ["gradient_flat"] * 8
    assert not bool(kinds.critical.any())
    assert float(outcome.theta.norm(dim=1).max()) < 1e-3
    assert outcome.status.tolist() == [search.STAGNATED] * 8
    assert float(outcome.flatness.min()) > 0.9


def test_gradient_flat_needs_stagnation_and_flatness() -> None:
    origin = points([0.0, 0.0])
    for status, flatness, kind in (
        (search.STAGNATED, 0.95, "gradient_flat"),
        (search.STAGNATED, 0.5, "not_converged"),
        (search.BUDGET, 0.95, "not_converged"),
    ):
        kinds = classify(
            function(trap), origin, ended(origin, status, flatness), scale=torch.ones(1, dtype=torch.float64),
            keys=torch.arange(1), tolerance=1e-8,
        )  # fmt: skip
        assert kinds.kind == [kind]
        assert kinds.reason[0] is not None


PLATEAUS: dict[str, Any] = {
    "gaussian tail": lambda t: -torch.exp(-(t**2).sum()),
    "gaussian tail beside a valley": lambda t: -torch.exp(-(t[0] ** 2)) + t[1] ** 2,
    "exponential tail": lambda t: torch.exp(-t[0]) + torch.exp(-t[1]),
    "exponential tail beside a valley": lambda t: torch.exp(-t[0]) + t[1] ** 2,
    "softplus tail": lambda t: -torch.nn.functional.logsigmoid(t[0]) + t[1] ** 2,
    "reciprocal tail": lambda t: 1 / (1 + t[0] ** 2) + t[1] ** 2,
}
FINDERS: dict[str, search.Search] = {
    "levenberg_marquardt": LevenbergMarquardt(1e-8),
    "trust_region": TrustRegionNewton(1e-8),
    "eigenvector_following": EigenvectorFollowing(1e-8, torch.zeros(3, dtype=torch.int64)),
}


@pytest.mark.parametrize("finder", FINDERS)
@pytest.mark.parametrize("name", PLATEAUS)
def test_a_plateau_is_no_critical_point(name: str, finder: str) -> None:
    landscape = function(PLATEAUS[name])
    starts = points([4.6, 0.1], [3.0, -0.5], [2.0, 0.3])
    outcome, kinds = found(landscape, FINDERS[finder], starts, budget=300)
    far = outcome.theta[:, 0].abs() > 1.0  # the gaussian and the reciprocal have a true critical point at x = 0
    for row in torch.nonzero(far).flatten().tolist():
        assert not bool(kinds.critical[row]), (outcome.theta[row], kinds.kind[row])
        assert kinds.kind[row] in ("not_converged", "gradient_flat")
        assert kinds.reason[row] is not None


def test_a_small_gradient_on_a_plateau_says_plateau() -> None:
    kinds = at(function(PLATEAUS["gaussian tail"]), points([5.0, 0.0]), status=search.STAGNATED)
    assert kinds.kind == ["not_converged"]
    assert "plateau" in (kinds.reason[0] or "")


def test_separable_data_without_weight_decay_has_no_finite_minimum() -> None:
    x = torch.randn(30, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = (x[:, 0] + x[:, 1] > 0).to(torch.int64)
    starts = normal(3, 6)

    def regression(weight_decay: float) -> Landscape:
        return Landscape.from_module(lambda: nn.Linear(2, 2), (x, y), (x, y), weight_decay=weight_decay)

    for finder in (TrustRegionNewton(1e-8), LevenbergMarquardt(1e-8)):
        _, free = found(regression(0.0), finder, starts)
        assert free.kind == ["not_converged"] * 3
        assert all("no finite minimum" in (reason or "") for reason in free.reason)
        _, decayed = found(regression(1e-3), finder, starts)
        assert decayed.kind == ["minimum"] * 3


def test_not_finite_is_diverged() -> None:
    kinds = at(function(lambda t: torch.log(t[0]) + t[1] ** 2), points([-1.0, 0.0], [0.0, 0.0]), search.NON_FINITE)
    assert kinds.kind == ["diverged", "diverged"]
    assert all("not finite" in (reason or "") for reason in kinds.reason)


# --- error radius and certificates ------------------------------------------------------------------------------
def test_eigenvalues_within_their_error_are_undetermined() -> None:
    """L = x³ + y²: at x = 1e-6 the curvature 6e-6 is no more than its change on the way to the true point."""
    kinds = at(function(lambda t: t[0] ** 3 + t[1] ** 2, lipschitz=6.0), points([1e-6, 0.0]))
    assert bool(kinds.critical[0])
    assert kinds.kind == ["undetermined"]
    assert int(kinds.signs.n_undetermined) == 1
    assert float(kinds.error) == pytest.approx(2 * 6 * 0.5e-6, rel=1e-3)


def test_zero_tolerance_follows_the_larger_of_two_scales() -> None:
    landscape = function(lambda t: 0.5 * (t[0] ** 2 + 3e-6 * t[1] ** 2))
    near, far = at(landscape, points([0.0, 0.0]), scale=1.0), at(landscape, points([0.0, 0.0]), scale=100.0)
    assert float(near.zero_tolerance) == pytest.approx(1e-7)
    assert float(far.zero_tolerance) == pytest.approx(1e-5)
    assert (near.kind, far.kind) == (["minimum"], ["degenerate_minimum"])


def test_a_quadratic_is_certified_within_its_rounding() -> None:
    kinds = at(function(lambda t: t[0] ** 2 + 2 * t[1] ** 2 - t[0], lipschitz=0.0), points([0.5 + 1e-9, 0.0]))
    assert kinds.certificates.certified == [True]
    assert 1e-9 <= float(kinds.certificates.radius) < 1.001e-9, "the true point is 1e-9 away"
    assert kinds.certificates.certificate[0].startswith("newton-kantorovich")


@pytest.mark.parametrize("flat", [0.0, 1e-17])
def test_a_singular_quadratic_is_not_certified(flat: float) -> None:
    kinds = at(function(lambda t: t[0] ** 2 + flat * t[1] ** 2, lipschitz=0.0), points([0.0, 0.3]))
    assert kinds.certificates.certified == [False]


@pytest.mark.parametrize(("slope", "place"), [(0.0, 1e-6), (1e-13, 1e-6), (-1e-13, 4e-7)])
def test_a_cubic_with_h_of_a_half_or_more_is_not_certified(slope: float, place: float) -> None:
    """L = x³/3 + εx: h = 2(x²+ε)/(2x)² is 1/2 where ε = 0 (a degenerate point), above where ε > 0 (there is none)."""
    kinds = at(function(lambda t: (t**3).sum() / 3 + slope * t.sum(), dim=1, lipschitz=2.0), points([place]))
    exact = 2 * (place**2 + slope) / (2 * place) ** 2
    assert bool(kinds.critical[0])
    assert float(kinds.certificates.h) == pytest.approx(exact, rel=1e-6)
    assert kinds.certificates.certified == [exact < 0.5 and slope < 0]
    if exact < 0.5 and slope < 0:
        assert abs(place - (-slope) ** 0.5) <= float(kinds.certificates.radius)


def test_a_sampled_constant_never_certifies() -> None:
    theta = points([0.0, 0.0])
    sampled = at(function(lambda t: (t**2).sum() + 0 * t[0] ** 3), theta)
    assert sampled.certificates.certified == [False]
    assert sampled.certificates.certificate[0].startswith("sampled h=")
    assert bool(sampled.certificates.radius.isnan().all())


def test_the_sampled_constant_bounds_what_was_sampled() -> None:
    """L = x³: H = 6x, K = 6 exactly."""
    kinds = at(function(lambda t: (t**3).sum(), dim=1), points([0.7]))
    assert float(kinds.certificates.lipschitz) == pytest.approx(6.0, rel=1e-6)


def test_exact_errors_resolve_signs_below_the_zero_tolerance() -> None:
    """An orbit that is no isometry: eigenvalues of one class from 1 to 1e-8 of ‖H‖, signs resolved."""
    eigenvalues, error, zero = points([-5e-8, -1e-11, 1e-11, 5e-8, 1.0]), points([1e-14])[0], points([1e-7])[0]
    by_sample, by_bound = signs(eigenvalues, error, zero), signs(eigenvalues, error, zero, exact=True)
    assert [int(n) for n in (by_sample.index, by_sample.n_zero, by_sample.n_positive)] == [0, 4, 1]
    assert [int(n) for n in (by_bound.index, by_bound.n_zero, by_bound.n_positive)] == [1, 2, 2]
    wide = signs(eigenvalues, torch.full_like(error, 6e-8), zero, exact=True)
    assert [int(n) for n in (wide.index, wide.n_zero, wide.n_undetermined)] == [0, 2, 2], "|λ|+δ > z: not zero either"


# --- on the complement of the symmetries ---------------------------------------------------------------------------
def hat_lipschitz(theta: Tensor, radius: Tensor) -> Tensor:
    """D³((‖θ‖²−1)²)[h, h, h] = 24 (θ·h)‖h‖²."""
    return 24 * (theta.norm() + radius)


def test_an_orbit_is_certified_on_the_complement_of_its_tangent() -> None:
    landscape = dataclasses.replace(function(hat, symmetries=[rotation]), hessian_lipschitz=hat_lipschitz)
    at_minimum = at(landscape, points([1.0 + 1e-9, 0.0]))
    assert (at_minimum.kind, at_minimum.certificates.certified) == (["minimum"], [True])
    assert 1e-9 <= float(at_minimum.certificates.radius) < 2e-9
    undeclared = dataclasses.replace(landscape, symmetries=())
    assert at(undeclared, points([1.0, 0.0])).certificates.certified == [False]


def test_a_point_off_a_sphere_of_points_is_not_certified() -> None:
    """On a sphere Hθ = −g: H⁻¹g is radial however far the point is. The step on the complement is not deceived."""
    landscape = population.ica(3)
    theta = landscape.retracted(normal(1, 3))  # far from everything
    model = LocalModel.at(landscape, theta, landscape.symmetries)
    assert float(model.newton_length) > 1e-2
    exact = search.refine(
        landscape,
        search.iterate(TrustRegionNewton(1e-8), landscape, theta, torch.ones(1).double(), 100).theta,
        landscape.symmetries,
    )
    aside = landscape.retracted(exact + 1e-4 * normal(1, 3, seed=1))
    far = LocalModel.at(landscape, aside, landscape.symmetries).newton_length
    assert float(far) == pytest.approx(float((aside - exact).norm()), rel=0.1)


def test_tangent_spaces_that_may_turn_by_a_right_angle_certify_nothing() -> None:
    theta, radius = points([2.0, 0.0], [2.0, 0.0]), torch.tensor([1.4, 1.5], dtype=torch.float64)
    assert transversal([rotation], theta, radius).tolist() == [True, False], "‖A‖_F = √2, ‖v‖ = 2"
    assert transversal([lambda t: t**3], theta, radius * 1e-3).tolist() == [False, False], "not affine"


def test_a_loose_lipschitz_constant_certifies_nothing() -> None:
    tight, loose = (
        at(function(lambda t: 0.5 * (t**2).sum(), lipschitz=constant), points([1e-9, 0.0])).certificates.certified
        for constant in (1.0, 1e9)
    )
    assert (tight, loose) == ([True], [False])


@pytest.mark.parametrize("excess", [0.3, 0.359, 0.361, 0.5])
def test_safran_shamir_bounds_a_cubic_minimum(excess: float) -> None:
    """L = gx + λx²/2 − Kx³/6 has a minimum on the side of −g; it exists while g < λ²/(2K)."""
    slope, curvature, third = (torch.tensor(v, dtype=torch.float64) for v in (excess, 1.0, 1.0))
    holds, radius = safran_shamir(curvature, slope, third)
    assert bool(holds) == (excess <= 0.36)
    if bool(holds):
        minimum = 1 - (1 + 2 * excess) ** 0.5  # of gx + x²/2 − x³/6: g + x − x²/2 = 0
        assert abs(minimum) <= float(radius)


def test_scale_is_that_of_the_starts() -> None:
    assert scale_at(function(lambda t: 3 * t[0] ** 2 - t[1] ** 2), normal(2, 2)).tolist() == [6.0, 6.0]
