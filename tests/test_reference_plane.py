"""Plane functions, degenerate points and the gradient-flat trap: known points, bounds, searches, classification."""

from __future__ import annotations

from collections.abc import Callable

import mpmath
import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from landsweep.workers import search
from landsweep.workers.classify import Classified, classify
from landsweep.workers.eigenvector_following import EigenvectorFollowing
from landsweep.workers.errors import LandscapeError
from landsweep.workers.landscape import KnownClass, Landscape
from landsweep.workers.levenberg_marquardt import LevenbergMarquardt
from landsweep.workers.reference import degenerate, plane
from landsweep.workers.reference.enumeration import stationary_points
from landsweep.workers.trust_region import TrustRegionNewton
from tests.surfaces import ended, points, scale_at

pytestmark = pytest.mark.usefixtures("one_thread")

TOLERANCE = 1e-8
PLANE = (plane.himmelblau, plane.six_hump_camel, plane.muller_brown)
FLAT_ORIGIN = (
    degenerate.monkey_saddle, degenerate.quartic_bowl, degenerate.quartic_hill, degenerate.quartic_valley,
    degenerate.quartic_ridge, degenerate.curved_valley,
)  # fmt: skip
Maker = Callable[[], Landscape]


def starts(landscape: Landscape, rows: int = 300) -> Tensor:
    return torch.stack([landscape.init(torch.Generator().manual_seed(seed)) for seed in range(rows)])


def searched(landscape: Landscape, finder: search.Search, begun: Tensor, budget: int = 200) -> search.Outcome:
    """Where the searches go, refined."""
    outcome = search.iterate(finder, landscape, begun, scale_at(landscape, begun), budget)
    theta = search.polished(landscape, outcome.theta, TOLERANCE)
    return search.Outcome(theta, outcome.status, outcome.iterations, outcome.flatness)


def classified(landscape: Landscape, outcome: search.Outcome, begun: Tensor) -> Classified:
    keys = torch.arange(len(begun))
    return classify(landscape, outcome.theta, outcome, scale_at(landscape, begun), keys, TOLERANCE)


def following(landscape: Landscape, begun: Tensor) -> EigenvectorFollowing:
    """Of the index that the Hessian has at each start."""
    return EigenvectorFollowing(TOLERANCE, (torch.linalg.eigvalsh(landscape.hessian(begun)) < 0).sum(1))


def known(landscape: Landscape, theta: Tensor) -> list[KnownClass | None]:
    assert landscape.known_class is not None
    return [landscape.known_class(row) for row in theta]


# --- the tables, to 30 digits ----------------------------------------------------------------------------------
def camel(x: mpmath.mpf, y: mpmath.mpf) -> mpmath.mpf:
    return (4 - mpmath.mpf("2.1") * x**2 + x**4 / 3) * x**2 + x * y + (4 * y**2 - 4) * y**2


def himmelblau(x: mpmath.mpf, y: mpmath.mpf) -> mpmath.mpf:
    return (x * x + y - 11) ** 2 + (x + y * y - 7) ** 2


def muller_brown(x: mpmath.mpf, y: mpmath.mpf) -> mpmath.mpf:
    total = mpmath.mpf(0)
    for row in plane.MULLER_BROWN_TERMS:
        height, a, b, c, x0, y0 = (mpmath.mpf(str(entry)) for entry in row)
        u, v = x - x0, y - y0
        total += height * mpmath.exp(a * u * u + b * u * v + c * v * v)
    return total


def gradient(function: Callable[..., mpmath.mpf], place: tuple[mpmath.mpf, ...]) -> list[mpmath.mpf]:
    return [mpmath.diff(function, place, order) for order in ((1, 0), (0, 1))]


def hessian(function: Callable[..., mpmath.mpf], place: tuple[mpmath.mpf, ...]) -> mpmath.matrix:
    xx, xy, yy = (mpmath.diff(function, place, order) for order in ((2, 0), (1, 1), (0, 2)))
    return mpmath.matrix([[xx, xy], [xy, yy]])


@pytest.mark.parametrize(
    ("make", "exact", "counts"),
    [
        (plane.himmelblau, himmelblau, (4, 4, 1)),
        (plane.six_hump_camel, camel, (6, 7, 2)),
        (plane.muller_brown, muller_brown, (3, 2, 0)),
    ],
)
def test_tabulated_points_are_stationary_of_their_index(
    make: Maker, exact: Callable[..., mpmath.mpf], counts: tuple[int, int, int]
) -> None:
    landscape = make()
    places = tabulated(landscape)
    met = [0, 0, 0]
    with mpmath.workdps(30):
        for place in places:
            start = tuple(mpmath.mpf(float(entry)) for entry in place)
            step = mpmath.lu_solve(hessian(exact, start), mpmath.matrix(gradient(exact, start)))
            assert mpmath.norm(step) < 2e-15 * (1 + mpmath.norm(start))
            root = tuple(start[i] - step[i] for i in range(2))
            index = sum(value < 0 for value in mpmath.eigsy(hessian(exact, root), eigvals_only=True))
            entry = known(landscape, place.unsqueeze(0))[0]
            assert entry is not None
            assert entry.index == index and entry.objective == pytest.approx(float(exact(*root)), abs=1e-12)
            met[index] += 1
    assert tuple(met) == counts
    assert met[0] - met[1] + met[2] == 1  # Morse, for a coercive function on the plane
    assert landscape.global_minimum == pytest.approx(float(landscape.objective(places).min()), abs=1e-12)


def tabulated(landscape: Landscape) -> Tensor:
    """The places of the stationary points."""
    tables = {
        "himmelblau": plane.HIMMELBLAU,
        "six_hump_camel": plane.SIX_HUMP_CAMEL,
        "muller_brown": plane.MULLER_BROWN,
    }
    return points(*(place for places in tables[landscape.name] for place in places))


@pytest.mark.parametrize(
    ("make", "half_width"), [(plane.himmelblau, 20.0), (plane.six_hump_camel, 10.0), (plane.muller_brown, 3.0)]
)
def test_no_other_stationary_point_lies_in_the_square(make: Maker, half_width: float) -> None:
    """Branch and bound excludes the rest of the square by the exact Lipschitz bound."""
    landscape = make()
    enumerated = stationary_points(landscape, half_width)
    places = tabulated(landscape)
    assert len(enumerated) == len(places)
    assert float(torch.cdist(enumerated, places).amin(0).max()) < 1e-13


def test_the_trap_landscape_has_one_stationary_point() -> None:
    enumerated = stationary_points(degenerate.gradient_flat_trap(), 20.0)
    torch.testing.assert_close(enumerated, points((-1.2, -1.6)), rtol=0, atol=1e-14)


# --- Lipschitz bounds ------------------------------------------------------------------------------------------
def quotients(landscape: Landscape, radius: float, pairs: int = 5) -> Tensor:
    """‖H(a) − H(b)‖₂/(K‖a − b‖) for pairs in balls about random starts. (100·pairs,)."""
    centres = starts(landscape, 100).repeat_interleave(pairs, 0)
    bound = landscape.hessian_lipschitz
    constant = torch.vmap(bound)(centres, torch.full((len(centres),), radius)) if callable(bound) else bound
    generator = torch.Generator().manual_seed(7)
    a, b = (in_ball(centres, radius, generator) for _ in range(2))
    difference = torch.linalg.matrix_norm(landscape.hessian(a) - landscape.hessian(b), 2)
    return torch.as_tensor(difference / ((a - b).norm(dim=1) * constant))


def in_ball(centres: Tensor, radius: float, generator: torch.Generator) -> Tensor:
    drawn = torch.randn(centres.shape, generator=generator, dtype=torch.float64)
    return centres + radius * drawn / drawn.norm(dim=1, keepdim=True).clamp_min(1.0)


@pytest.mark.parametrize("radius", [1e-3, 0.1, 0.5])
@pytest.mark.parametrize("make", [*PLANE, *FLAT_ORIGIN, degenerate.gradient_flat_trap])
def test_hessians_change_no_faster_than_the_bound(make: Maker, radius: float) -> None:
    worst = float(quotients(make(), radius).max())
    assert worst <= 1 + 1e-9
    assert worst > (0.6 if radius < 0.01 else 1e-3)  # and the bound is of the right size


def test_cubic_norm_is_between_the_norm_and_root_two_times_it() -> None:
    a, b, c, d = torch.randn(4, 500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    angle = torch.linspace(0, torch.pi, 2001, dtype=torch.float64).unsqueeze(1)
    x, y = angle.cos(), angle.sin()
    norm = (a * x**3 + 3 * b * x**2 * y + 3 * c * x * y**2 + d * y**3).abs().amax(0)
    ratio = plane.cubic_norm(a, b, c, d) / norm
    assert float(ratio.min()) > 1 - 1e-12 and float(ratio.max()) < 2**0.5
    one, zero = torch.ones(()), torch.zeros(())
    assert float(plane.cubic_norm(one, zero, zero, zero)) == 1.0  # x³
    assert float(plane.cubic_norm(6 * one, zero, -6 * one, zero)) == pytest.approx(6.0)  # the monkey saddle


# --- classification and searches -------------------------------------------------------------------------------
@pytest.mark.parametrize("make", PLANE)
def test_every_stationary_point_is_classified_right_and_certified(make: Maker) -> None:
    landscape = make()
    theta = tabulated(landscape)
    result = classified(landscape, ended(theta), theta)
    expected = [entry.kind for entry in known(landscape, theta) if entry]
    assert result.kind == expected and all(result.certificates.certified)


@pytest.mark.parametrize("make", PLANE)
@pytest.mark.parametrize("method", ["levenberg_marquardt", "eigenvector_following", "trust_region"])
def test_searches_end_at_known_points_of_the_right_kind(make: Maker, method: str) -> None:
    landscape = make()
    begun = starts(landscape, 40 if make is plane.muller_brown else 300)  # slow where it stagnates
    finder: search.Search
    if method == "levenberg_marquardt":
        finder = LevenbergMarquardt(TOLERANCE)
    else:
        finder = TrustRegionNewton(TOLERANCE) if method == "trust_region" else following(landscape, begun)
    outcome = searched(landscape, finder, begun, 80)
    result = classified(landscape, outcome, begun)
    critical = float(result.critical.double().mean())
    # the Müller–Brown surface has gradient-flat points and slopes that lead out of the window
    required = {"levenberg_marquardt": 0.3, "eigenvector_following": 0.6, "trust_region": 0.95}
    assert critical >= (required[method] if make is plane.muller_brown else 0.95)
    for kind, is_critical, entry in zip(result.kind, result.critical, known(landscape, outcome.theta), strict=True):
        assert bool(is_critical) == (entry is not None) == (kind in ("minimum", "saddle", "maximum"))
        assert entry is None or entry.kind == kind
    if method == "trust_region":
        assert {kind for kind, is_critical in zip(result.kind, result.critical, strict=True) if is_critical} == {
            "minimum"
        }


def test_muller_brown_searches_that_end_elsewhere_are_at_minima_of_the_gradient_norm() -> None:
    """scipy's Nelder–Mead on ‖∇f‖ stays where Levenberg–Marquardt stagnated, at gradients far from 0."""
    landscape = plane.muller_brown()
    begun = starts(landscape, 25)
    outcome = searched(landscape, LevenbergMarquardt(TOLERANCE), begun, 80)
    flat = torch.nonzero((outcome.status == search.STAGNATED) & (outcome.theta[:, 1] > 0.9)).flatten().tolist()
    assert len(flat) > 5

    def slope(place: np.ndarray) -> float:
        return float(landscape.gradient(torch.as_tensor(place).unsqueeze(0)).norm())

    for row in flat[:3]:
        place = outcome.theta[row].numpy()
        options = {
            "xatol": 1e-9,
            "fatol": 1e-10,
            "initial_simplex": place + 1e-3 * np.array([[1, 0], [0, 1], [-1, -1]]),
        }
        settled = minimize(slope, place, method="Nelder-Mead", options=options)
        assert settled.fun > 1.0
        np.testing.assert_allclose(settled.x, place, atol=1e-4)


@pytest.mark.parametrize("make", FLAT_ORIGIN)
def test_degenerate_points_are_reached_and_classified_right(make: Maker) -> None:
    """The first of them, as descent along zeros takes half a second a point."""
    landscape = make()
    begun = starts(landscape, 10)
    ends = searched(landscape, LevenbergMarquardt(TOLERANCE), begun).theta
    assert float(ends.norm(dim=1).max()) < 1e-6
    theta = ends[:1]
    result = classified(landscape, ended(theta), begun[:1])
    for row, entry in enumerate(known(landscape, theta)):
        assert entry is not None and result.kind[row] == entry.kind
        assert int(result.signs.n_zero[row]) == entry.n_zero
    assert not any(result.certificates.certified)


def test_degenerate_minima_are_known_and_the_far_field_is_not() -> None:
    assert known(degenerate.quartic_bowl(5), torch.ones(1, 5, dtype=torch.float64)) == [None]
    assert known(plane.himmelblau(), points((3.0, 2.0 + 1e-5))) == [None]
    assert degenerate.quartic_ridge().global_minimum is None
    assert degenerate.quartic_bowl().global_minimum == 0.0


# --- the trap --------------------------------------------------------------------------------------------------
def test_trap_is_a_minimum_of_the_gradient_norm_with_the_gradient_in_the_kernel() -> None:
    landscape = degenerate.gradient_flat_trap()
    trap = points((0.0, 0.0))
    gradient, curvature = landscape.gradient(trap)[0], landscape.hessian(trap)[0]
    torch.testing.assert_close(gradient, torch.tensor([1.2, 1.6], dtype=torch.float64))
    assert float((curvature * gradient).sum(1).norm()) < 1e-14
    ring = torch.linspace(0, 2 * torch.pi, 50, dtype=torch.float64)
    around = 1e-2 * torch.stack([ring.cos(), ring.sin()], 1)
    assert bool((landscape.gradient(around).norm(dim=1) > gradient.norm() + 1e-6).all())
    stagnated = classified(landscape, ended(trap, search.STAGNATED, 1.0), trap)
    assert stagnated.kind == ["gradient_flat"] and stagnated.certificates.certified == [False]
    minimum = points((-1.2, -1.6))
    assert classified(landscape, ended(minimum), minimum).kind == ["minimum"]


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_levenberg_marquardt_stagnates_in_the_trap_in_the_given_share(share: float) -> None:
    landscape = degenerate.gradient_flat_trap(share)
    begun = starts(landscape)
    outcome = searched(landscape, LevenbergMarquardt(TOLERANCE), begun)
    trapped = outcome.theta.norm(dim=1) < 1e-3
    assert float(trapped.double().mean()) == pytest.approx(share, abs=0.1)
    assert bool((outcome.status[trapped] == search.STAGNATED).all())
    assert bool((outcome.status[~trapped] == search.CONVERGED).all())
    kinds = classified(landscape, outcome, begun).kind
    for row, kind in enumerate(kinds):
        assert kind in ({"gradient_flat", "not_converged"} if bool(trapped[row]) else {"minimum"})


def test_share_has_to_be_a_share() -> None:
    with pytest.raises(LandscapeError, match=r"share: found 1\.5"):
        degenerate.gradient_flat_trap(1.5)


def test_descent_leaves_the_trap() -> None:
    landscape = degenerate.gradient_flat_trap(1.0)
    begun = starts(landscape, 50)
    outcome = searched(landscape, TrustRegionNewton(TOLERANCE), begun)
    assert set(classified(landscape, outcome, begun).kind) == {"minimum"}
