"""Phase retrieval, orthogonal decompositions and the quadratic spin glass against their theory."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import jacfwd, vmap

from landsweep.workers import symmetry
from landsweep.workers.classify import classify
from landsweep.workers.eigenvector_following import EigenvectorFollowing
from landsweep.workers.errors import LandscapeError
from landsweep.workers.landscape import Landscape
from landsweep.workers.levenberg_marquardt import LevenbergMarquardt
from landsweep.workers.reference.population import ica, phase_retrieval, rotation, tensor_decomposition
from landsweep.workers.reference.random_field import random_field
from landsweep.workers.reference.sphere import normalised, on_sphere, third_derivative
from landsweep.workers.reference.spin_glass import couplings, spherical_spin
from landsweep.workers.trust_region import TrustRegionNewton
from tests import surfaces

pytestmark = pytest.mark.usefixtures("one_thread")

LANDSCAPES: dict[str, Callable[[], Landscape]] = {
    "phase_retrieval": cache(lambda: phase_retrieval(norm=1.5)),
    "ica": cache(ica),
    "tensor_decomposition": cache(tensor_decomposition),
    "matrix": cache(spherical_spin),
    "cubic": cache(lambda: spherical_spin(p=3, n=3, seed=1)),
    "random_field": cache(random_field),
}
BY_THEORY = ["phase_retrieval", "ica", "tensor_decomposition", "matrix"]
BENIGN = BY_THEORY[:3]


def signals(n: int, norm: float, seed: int = 0) -> Tensor:
    """0, ±x and three points of the saddles' sphere."""
    x = torch.arange(1, n + 1, dtype=torch.float64)
    x = norm * x / x.norm()
    across = surfaces.normal(3, n, seed)
    across = across - (across @ x).unsqueeze(1) * x / norm**2
    across = norm * across / across.norm(dim=1, keepdim=True) / 3**0.5
    return torch.cat([torch.stack([0 * x, x, -x]), across])


def supports(n: int, seed: int = 0) -> Tensor:
    """Two points of each number of components, with random places and signs."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.zeros(2 * n, n, dtype=torch.float64)
    for row, size in enumerate(size for size in range(1, n + 1) for _ in range(2)):
        places = torch.randperm(n, generator=generator)[:size]
        weights[row, places] = (torch.randint(0, 2, (size,), generator=generator) * 2.0 - 1).to(weights) / size**0.5
    return weights @ rotation(n, 0)


def representatives(name: str) -> Tensor:
    """A point or more of every class that theory gives."""
    if name == "phase_retrieval":
        return signals(10, 1.5)
    if name == "matrix":
        vectors = torch.from_numpy(np.linalg.eigh(couplings(2, 10, 0).numpy())[1]).mT
        return torch.cat([vectors, -vectors])
    return supports(LANDSCAPES[name]().dim)


@pytest.mark.parametrize("name", BY_THEORY)
def test_every_class_holds_at_its_points(name: str) -> None:
    landscape, points = LANDSCAPES[name](), representatives(name)
    assert landscape.known_class is not None
    size = {"phase_retrieval": 3, "matrix": 10}.get(name, landscape.dim)
    assert landscape.gradient(points).abs().max() < 1e-14
    values = np.linalg.eigvalsh(landscape.hessian(points).numpy())
    classes = [landscape.known_class(point) for point in points]
    for spectrum, objective, known in zip(values, landscape.objective(points).tolist(), classes, strict=True):
        assert known is not None
        assert known.index == (spectrum < -1e-9).sum()
        assert known.n_zero == (abs(spectrum) <= 1e-9).sum()
        assert known.objective == pytest.approx(objective, rel=1e-13, abs=1e-14)
    assert len({known.name for known in classes if known}) == size
    assert landscape.global_minimum == pytest.approx(float(landscape.objective(points).min()), rel=1e-13, abs=1e-14)


@pytest.mark.parametrize("name", BY_THEORY)
def test_points_beside_a_class_are_of_none(name: str) -> None:
    landscape, points = LANDSCAPES[name](), representatives(name)
    assert landscape.known_class is not None
    beside = points + 1e-4 * surfaces.normal(*points.shape, seed=3)
    starts = torch.stack([landscape.init(torch.Generator().manual_seed(seed)) for seed in range(20)])
    assert [landscape.known_class(theta) for theta in torch.cat([beside, starts])] == [None] * (len(points) + 20)


@pytest.mark.parametrize("name", BY_THEORY)
def test_classification_and_certificate_agree_with_theory(name: str) -> None:
    landscape, points = LANDSCAPES[name](), representatives(name)
    assert landscape.known_class is not None
    fields = symmetry.checked(landscape)
    assert len(fields) == len(landscape.symmetries)
    keys = torch.arange(len(points))
    found = classify(
        landscape, points, surfaces.ended(points), surfaces.scale_at(landscape, points), keys, 1e-8, fields
    )
    for row, point in enumerate(points):
        known = landscape.known_class(point)
        assert known is not None
        signs = found.signs
        assert (known.kind, known.index, known.n_zero) == (
            found.kind[row], int(signs.index[row]), int(signs.n_zero[row])
        )  # fmt: skip
        assert found.certificates.certified[row], (known.name, found.certificates.certificate[row])


@pytest.mark.parametrize("name", LANDSCAPES)
def test_symmetries_leave_outputs_and_objective(name: str) -> None:
    landscape = LANDSCAPES[name]()
    thetas = surfaces.normal(4, landscape.dim, seed=2)
    fields = symmetry.checked(landscape)
    assert len(fields) == len(landscape.symmetries) == {"phase_retrieval": 36, "random_field": 0}.get(name, 1)
    if landscape.outputs is None:
        assert name == "random_field"
        return
    jacobians = vmap(jacfwd(landscape.outputs))(thetas)
    for field in fields:
        moved = (jacobians * vmap(field)(thetas).unsqueeze(1)).sum(2)
        assert moved.abs().max() < 1e-13


def quotients(landscape: Landscape, thetas: Tensor, radius: float, pairs: int = 40) -> tuple[Tensor, Tensor]:
    """The largest ‖H(a) − H(b)‖₂/‖a − b‖ over pairs in the ball around each θ, and K on that ball. (B,), (B,)."""
    n, known = landscape.dim, landscape.hessian_lipschitz
    directions = surfaces.normal(2 * pairs, n, seed=11)
    offsets = radius * directions / directions.norm(dim=1, keepdim=True)
    offsets[pairs:] = (1 - 1e-3) * offsets[:pairs] * torch.where(torch.arange(pairs) % 2 == 0, 1.0, -1.0).unsqueeze(1)
    worst = []
    for theta in thetas:
        offsets[0], offsets[pairs] = radius * theta / theta.norm(), (1 - 1e-3) * radius * theta / theta.norm()
        hessian = landscape.hessian(theta + offsets)
        change = torch.linalg.matrix_norm(hessian[:pairs] - hessian[pairs:], 2)
        worst.append((change / (offsets[:pairs] - offsets[pairs:]).norm(dim=1)).max())
    radii = torch.full_like(thetas[:, 0], radius)
    bound = vmap(known)(thetas, radii) if callable(known) else torch.full_like(radii, float(known or 0.0))
    return torch.stack(worst), bound


@pytest.mark.parametrize("name", LANDSCAPES)
@pytest.mark.parametrize("radius", [1e-3, 0.3])
def test_the_hessian_changes_no_faster_than_its_bound(name: str, radius: float) -> None:
    landscape = LANDSCAPES[name]()
    thetas = torch.stack([landscape.init(torch.Generator().manual_seed(seed)) for seed in range(12)])
    thetas = thetas * torch.linspace(0.5, 2.0, 12, dtype=torch.float64).unsqueeze(1)
    worst, bound = quotients(landscape, thetas, radius)
    assert (worst <= bound * (1 + 1e-9)).all()
    assert (worst / bound).max() > 0.02  # not a bound of any size


def test_the_bounds_are_attained_where_they_can_be() -> None:
    landscape = phase_retrieval(norm=1.5)
    worst, bound = quotients(landscape, surfaces.normal(3, 10), 1e-3)
    torch.testing.assert_close(worst, bound, rtol=2e-3, atol=0)  # along θ itself
    wave = random_field(1, waves=1, confinement=1.0, seed=0)
    worst, bound = quotients(wave, torch.linspace(-9, 9, 90, dtype=torch.float64).unsqueeze(1), 1e-3)
    assert 0.999 < float((worst / bound).max()) <= 1 + 1e-9  # at its inflections


def on_a_line(landscape: Landscape, theta: Tensor, direction: Tensor, order: int) -> float:
    """The ``order``-th derivative of t ↦ L(θ + t·direction) at 0."""

    def along(t: Tensor) -> Tensor:
        return landscape.loss(theta + t * direction)

    derivative: Any = along
    for _ in range(order):
        derivative = jacfwd(derivative)
    return float(derivative(torch.zeros((), dtype=torch.float64)))


@pytest.mark.parametrize("angle", [0.3, 1.0, 2.2])
def test_third_derivative_on_a_line_through_the_sphere(angle: float) -> None:
    """The identity behind the bound: D³L[v, v, v] = h'''β³ − 6h''αβ² + h'(6α²β − 2β³)."""
    landscape = LANDSCAPES["tensor_decomposition"]()
    theta, u = torch.linalg.qr(surfaces.normal(6, 2, seed=4))[0].mT
    alpha, beta = np.cos(angle), np.sin(angle)

    def circle(phi: Tensor) -> Tensor:
        return landscape.loss(theta * torch.cos(phi) + u * torch.sin(phi))

    derivatives, function = [], circle
    for _ in range(3):
        function = jacfwd(function)
        derivatives.append(float(function(torch.zeros((), dtype=torch.float64))))
    first, second, third = derivatives
    expected = third * beta**3 - 6 * second * alpha * beta**2 + first * (6 * alpha**2 * beta - 2 * beta**3)
    assert on_a_line(landscape, theta, alpha * theta + beta * u, 3) == pytest.approx(expected, rel=1e-10)


def test_third_derivative_bound_against_a_scan() -> None:
    """On the circle, L = R cos(dφ): the supremum over θ and direction is below the bound, and not far below."""
    phase, angle = np.meshgrid(np.linspace(0, 2 * np.pi, 721), np.linspace(0, 2 * np.pi, 721))
    alpha, beta = np.cos(angle), np.sin(angle)
    for degree in (1, 2, 3, 6):
        first, second, third = (
            -degree * np.sin(phase), -(degree**2) * np.cos(phase), degree**3 * np.sin(phase)
        )  # fmt: skip
        value = third * beta**3 - 6 * second * alpha * beta**2 + first * (6 * alpha**2 * beta - 2 * beta**3)
        assert 0.4 < value.max() / third_derivative(degree, 1.0) < 1


@pytest.mark.parametrize("name", LANDSCAPES)
def test_derivatives_do_not_depend_on_batch_mates(name: str) -> None:
    landscape = LANDSCAPES[name]()
    thetas = surfaces.normal(7, landscape.dim, seed=6)
    for function in (landscape.objective, landscape.gradient, landscape.hessian):
        together = function(thetas)
        assert torch.equal(together, torch.cat([function(row) for row in thetas.split(1)]))
        assert torch.equal(together[:3], function(thetas[:3]))
    assert landscape.objective(thetas.float()).dtype == torch.float32  # training's precision is kept


@pytest.mark.parametrize("name", LANDSCAPES)
def test_searches_end_at_known_points_and_name_them_right(name: str) -> None:
    landscape = LANDSCAPES[name]()
    assert landscape.known_class is not None
    starts = torch.stack([landscape.init(torch.Generator().manual_seed(seed)) for seed in range(20)])
    index = torch.arange(20) % 3
    for finder in (LevenbergMarquardt(1e-8), EigenvectorFollowing(1e-8, index), TrustRegionNewton(1e-8)):
        outcome, points = surfaces.found(landscape, finder, starts, 300)
        assert points.critical.sum() >= 5
        for row in torch.nonzero(points.critical).flatten().tolist():
            known = landscape.known_class(outcome.theta[row])
            assert known is not None
            assert (points.kind[row], int(points.signs.index[row])) == (known.kind, known.index)


@pytest.mark.parametrize("name", BENIGN)
def test_descent_always_reaches_a_global_minimum(name: str) -> None:
    landscape = LANDSCAPES[name]()
    assert landscape.global_minimum is not None
    starts = torch.stack([landscape.init(torch.Generator().manual_seed(seed)) for seed in range(50)])
    outcome, points = surfaces.found(landscape, TrustRegionNewton(1e-8), starts, 300)
    assert points.kind == ["minimum"] * 50
    assert (landscape.objective(outcome.theta) - landscape.global_minimum).abs().max() < 1e-12


def test_quadratic_spins_have_the_spectrum_of_the_orthogonal_ensemble() -> None:
    """S has variance 1/(2n) off the diagonal, 1/n on it: λ within ±√2, and mean λ² = ½ + 1/(2n)."""
    values = np.linalg.eigvalsh(np.stack([couplings(2, 200, seed).numpy() for seed in range(5)]))
    assert abs(values.min() + 2**0.5) < 0.1
    assert (values**2).mean() == pytest.approx(0.5 + 1 / 400, rel=0.02)
    tensor = couplings(3, 3, 0)
    assert torch.allclose(tensor, tensor.permute(1, 0, 2))
    assert torch.allclose(tensor, tensor.permute(0, 2, 1))


def test_rotations_are_orthogonal_and_differ_by_seed() -> None:
    drawn = [rotation(5, seed) for seed in range(4)]
    for matrix in drawn:
        torch.testing.assert_close(matrix @ matrix.mT, torch.eye(5, dtype=torch.float64), rtol=0, atol=1e-14)
    assert all((a - b).norm() > 0.1 for a, b in pairwise(drawn))


def test_a_sphere_ignores_the_radius_and_comes_back_to_it() -> None:
    landscape = LANDSCAPES["ica"]()
    thetas = surfaces.normal(5, 8)
    torch.testing.assert_close(landscape.objective(3 * thetas), landscape.objective(thetas), rtol=1e-13, atol=0)
    back = landscape.retracted(thetas)
    torch.testing.assert_close(back.norm(dim=1), torch.ones(5, dtype=torch.float64), rtol=1e-15, atol=0)
    torch.testing.assert_close(back, vmap(normalised)(thetas), rtol=1e-15, atol=0)


def test_an_odd_order_has_a_minimum_that_is_not_global() -> None:
    """f = −⅓Σc_i³ in three dimensions at −(1, 1, 1)/√3, where f = 1/(3√3): why odd orders are refused."""
    cubic = on_sphere(lambda theta: -(theta**3).sum() / 3, 3, 3, 1 / 3, name="odd")
    point = -torch.ones(1, 3, dtype=torch.float64) / 3**0.5
    found = classify(cubic, point, surfaces.ended(point), torch.ones(1), torch.arange(1), 1e-8, cubic.symmetries)
    assert (found.kind, found.certificates.certified) == (["minimum"], [True])
    assert float(cubic.objective(point)) == pytest.approx(1 / (3 * 3**0.5))


def test_what_theory_does_not_cover_is_refused() -> None:
    for options in ({"order": 5}, {"order": 2}, {"n": 1}):
        with pytest.raises(LandscapeError, match="the order even"):
            tensor_decomposition(**options)
    for options in ({"n": 1}, {"norm": 0.0}):
        with pytest.raises(LandscapeError, match="phase_retrieval"):
            phase_retrieval(**options)
