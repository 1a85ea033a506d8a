"""Kinds by products alone: what each point takes, and that none disturbs another."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from landsweep.workers import classify_krylov, search
from landsweep.workers.classify import Classified
from landsweep.workers.landscape import Landscape
from tests.surfaces import ended, function

pytestmark = pytest.mark.usefixtures("one_thread")

DIM = 8
SADDLE = [0.0] * 3 + [1.0] * 5  # of the wells: index 3
MINIMUM = [-1.0, 1.0] * 4
NEITHER = [0.3, -0.4] * 4


def wells(theta: Tensor) -> Tensor:
    """Σ x⁴/4 − x²/2: every point of {−1, 0, 1}⁸ is stationary, its index the number of zeros, its eigenvalues −1, 2."""
    return (0.25 * theta**4 - 0.5 * theta**2).sum()


def trap(theta: Tensor) -> Tensor:
    """∂L/∂x₀ = 1 + 3x₀² > 0 everywhere; ‖g‖ has a local minimum at the origin, where the Hessian is singular."""
    return theta[0] + theta[0] ** 3 + (theta[1:] ** 2).sum()


def at(
    landscape: Landscape, *rows: list[float], status: int = search.CONVERGED, flatness: float = 0.0, first: int = 0,
    spectrum: bool = True,
) -> Classified:  # fmt: skip
    """What the points are; the ``first`` one's number draws its random vectors."""
    theta = torch.tensor(rows, dtype=torch.float64)
    outcome, scale = ended(theta, status, flatness), torch.full_like(theta[:, 0], 2.0)
    keys = torch.arange(first, first + len(theta))
    return classify_krylov.classify(landscape, theta, outcome, scale, keys, 1e-8, 20, spectrum)


def test_kinds_and_spectra_of_wells() -> None:
    points = at(function(wells, DIM), SADDLE, NEITHER, MINIMUM)
    assert points.kind == ["saddle", "not_converged", "minimum"]
    assert points.critical.tolist() == [True, False, True]
    assert points.signs.index[[0, 2]].tolist() == [3, 0]
    assert points.signs.n_positive[[0, 2]].tolist() == [5, 8]
    curvature = points.curvature
    ends = torch.tensor([[-1.0], [3 * 0.3**2 - 1], [2.0]], dtype=torch.float64)
    torch.testing.assert_close(curvature.eigenvalues[:, :1], ends, rtol=1e-9, atol=1e-9)
    traces = torch.tensor([7.0, 4 * (3 * 0.3**2 - 1) + 4 * (3 * 0.4**2 - 1), 16.0], dtype=torch.float64)
    torch.testing.assert_close(curvature.trace, traces, rtol=1e-12, atol=0)


def test_only_points_with_a_small_gradient_are_solved_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    solved, counted = list[Tensor](), list[int]()
    newton_step, inertia = classify_krylov.minres.newton_step, classify_krylov.inertia

    def step(landscape: Landscape, theta: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
        solved.append(theta)
        return newton_step(landscape, theta, *rest)  # type: ignore[arg-type]

    def count(apply: object, dim: int, zero: Tensor, *rest: object, **options: object) -> object:
        counted.append(len(zero))
        return inertia(apply, dim, zero, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(classify_krylov.minres, "newton_step", step)
    monkeypatch.setattr(classify_krylov, "inertia", count)
    points = at(function(wells, DIM), NEITHER, MINIMUM, NEITHER)
    assert [theta.tolist() for theta in solved] == [[MINIMUM]]
    assert counted == [1]
    assert torch.isnan(points.curvature.newton_length).tolist() == [True, False, True]
    assert (
        points.reason[0] == f"search ended by converged: gradient norm {float(points.curvature.gradient_norm[0]):.1e}"
    )
    assert at(function(wells, DIM), NEITHER).kind == ["not_converged"]
    assert counted == [1]


def test_a_plateau_is_solved_but_not_counted() -> None:
    far = [4.7] + [0.0] * 7
    points = at(function(lambda t: -torch.exp(-(t**2).sum()), DIM), far, status=search.STAGNATED)
    assert points.kind == ["not_converged"]
    assert "plateau" in str(points.reason[0]) and "Newton step" in str(points.reason[0])
    assert float(points.curvature.newton_length[0]) > 1e-2


@pytest.mark.parametrize(
    ("status", "flatness", "kind"),
    [
        (search.STAGNATED, 0.95, "gradient_flat"),
        (search.STAGNATED, 0.5, "not_converged"),
        (search.BUDGET, 0.95, "not_converged"),
    ],
)
def test_a_gradient_flat_trap_is_named(status: int, flatness: float, kind: str) -> None:
    assert at(function(trap, DIM), [0.0] * DIM, status=status, flatness=flatness).kind == [kind]


def test_a_row_is_the_same_beside_points_that_are_none() -> None:
    landscape = function(wells, DIM)
    together = at(landscape, NEITHER, MINIMUM, [torch.nan] * DIM, SADDLE)
    assert together.kind == ["not_converged", "minimum", "diverged", "saddle"]
    for row, place in ((0, NEITHER), (1, MINIMUM), (3, SADDLE)):
        alone = at(landscape, place, first=row)
        assert (alone.kind[0], alone.reason[0]) == (together.kind[row], together.reason[row])
        for name in ("newton_length", "norm", "eigenvalues", "lowest", "trace", "trace_error"):
            one, other = (getattr(points.curvature, name) for points in (alone, together))
            assert torch.equal(one[0].nan_to_num(-7.0), other[row].nan_to_num(-7.0)), name
        assert torch.equal(alone.error[0], together.error[row])
        one, other = alone.certificates.lipschitz[0], together.certificates.lipschitz[row]
        assert torch.equal(one.nan_to_num(-7.0), other.nan_to_num(-7.0))


def test_without_spectra_only_points_with_a_small_gradient_are_looked_at() -> None:
    landscape = function(wells, DIM)
    full, points = (at(landscape, NEITHER, SADDLE, [torch.nan] * DIM, spectrum=spectrum) for spectrum in (True, False))
    assert points.kind == full.kind == ["not_converged", "saddle", "diverged"]
    for name in ("eigenvalues", "norm", "trace", "lowest", "newton_length"):
        known, value = (getattr(found.curvature, name) for found in (full, points))
        assert torch.equal(known[1], value[1]), name
        assert bool(torch.isnan(value[[0, 2]]).all()), name
    assert torch.equal(points.error[1], full.error[1])
    assert at(landscape, NEITHER, spectrum=False).kind == ["not_converged"]
