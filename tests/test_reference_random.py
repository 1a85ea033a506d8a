"""Random fields and cubic spin glasses: the enumeration finds every stationary point, and nothing else."""

from __future__ import annotations

from functools import cache

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor

from landsweep.workers import search
from landsweep.workers.errors import LandscapeError
from landsweep.workers.landscape import Landscape
from landsweep.workers.levenberg_marquardt import LevenbergMarquardt
from landsweep.workers.reference import plane
from landsweep.workers.reference.enumeration import distinct, stationary_directions, stationary_points
from landsweep.workers.reference.population import ica, tensor_decomposition
from landsweep.workers.reference.random_field import random_field, spectrum
from landsweep.workers.reference.spin_glass import couplings, spherical_spin
from tests import enumeration, surfaces

pytestmark = pytest.mark.usefixtures("one_thread")

FIELDS = {
    "plane": random_field(2, 32, 0.25, 0),
    "line": random_field(1, 32, 0.25, 1),
    "space": random_field(3, 6, 0.5, 5),
}
SPECTRA = {"plane": (2, 32, 0), "line": (1, 32, 1), "space": (3, 6, 5)}
CONFINEMENT = {"plane": 0.25, "line": 0.25, "space": 0.5}
SPINS = [(2, 0), (3, 1), (4, 0)]  # (n, seed)


@cache
def field_points(name: str) -> Tensor:
    """What the enumeration finds in a field's whole region."""
    vectors, amplitudes, _ = spectrum(*SPECTRA[name])
    return stationary_points(
        FIELDS[name], float((amplitudes[:, None] * vectors).abs().sum(0).max()) / CONFINEMENT[name]
    )


@cache
def spin_points(n: int, seed: int) -> Tensor:
    return stationary_directions(spherical_spin(p=3, n=n, seed=seed))


def points_of(landscape: Landscape, half_width: float) -> Tensor:
    """The stationary points that Levenberg–Marquardt reaches from 2,000 starts."""
    generator = torch.Generator().manual_seed(7)
    starts = half_width * (2 * torch.rand(2000, landscape.dim, generator=generator, dtype=torch.float64) - 1)
    scale = surfaces.scale_at(landscape, starts)
    outcome = search.iterate(LevenbergMarquardt(1e-8), landscape, starts, scale, 200)
    theta = search.polished(landscape, outcome.theta[outcome.status == search.CONVERGED], 1e-8, landscape.symmetries)
    return distinct(theta)


def named(landscape: Landscape, points: Tensor) -> list[str]:
    """The names of the points' classes, "" for none."""
    assert landscape.known_class is not None
    found = [landscape.known_class(point) for point in points]
    return [known.name if known else "" for known in found]


def index_of(landscape: Landscape, points: Tensor) -> list[int]:
    return (np.linalg.eigvalsh(landscape.hessian(points).numpy()) < -1e-6).sum(1).tolist()


@pytest.mark.parametrize("name", FIELDS)
def test_a_fields_points_hold_to_fifty_digits_and_satisfy_morse(name: str) -> None:
    landscape, points = FIELDS[name], field_points(name)
    index = index_of(landscape, points)
    assert len(set(named(landscape, points)) - {""}) == len(points) >= 5
    assert sum((-1) ** k for k in index) == 1
    system = enumeration.waves(*spectrum(*SPECTRA[name]), CONFINEMENT[name])
    with mpmath.workdps(enumeration.DIGITS + 10):
        for point, k in zip(points, index, strict=True):
            exact = enumeration.refined(system, point.tolist())
            assert mpmath.norm(exact - mpmath.matrix(point.tolist())) < 1e-13
            assert enumeration.negatives(system(exact)[1]) == k


@pytest.mark.parametrize("name", ["plane", "line"])
def test_two_thousand_searches_find_nothing_new_in_a_field(name: str) -> None:
    found = points_of(FIELDS[name], 15.0)
    assert "" not in named(FIELDS[name], found)
    assert len(found) == len(field_points(name))


def test_a_field_is_the_sum_of_its_waves() -> None:
    vectors, amplitudes, phases = (part.numpy() for part in spectrum(*SPECTRA["space"]))
    theta = surfaces.normal(20, 3)
    points = theta.numpy()
    expected = (amplitudes * np.cos(points @ vectors.T + phases)).sum(1) + 0.25 * (points**2).sum(1)
    landscape = FIELDS["space"]
    np.testing.assert_allclose(landscape.objective(theta).numpy(), expected, rtol=1e-13, atol=1e-13)
    lowest = float(landscape.objective(field_points("space")).min())
    assert landscape.global_minimum == pytest.approx(lowest, rel=1e-13)


def test_a_fields_values_have_unit_variance() -> None:
    drawn = [spectrum(2, 64, seed) for seed in range(300)]
    values = np.array([float((a * torch.cos(phase)).sum()) for _, a, phase in drawn])
    assert abs(values.mean()) < 0.2
    assert 0.8 < values.var() < 1.2


@pytest.mark.parametrize(("n", "seed"), SPINS)
def test_a_cubic_spins_points_hold_to_fifty_digits_and_satisfy_morse(n: int, seed: int) -> None:
    landscape, tensor = spherical_spin(p=3, n=n, seed=seed), couplings(3, n, seed)
    points = spin_points(n, seed)
    index = index_of(landscape, points)
    assert len(set(named(landscape, 3 * points)) - {""}) == len(points) <= 2 * (2**n - 1)
    assert sum((-1) ** k for k in index) == 1 + (-1) ** (n - 1)
    system = enumeration.eigenpair(tensor)
    with mpmath.workdps(enumeration.DIGITS + 10):
        for point, energy, k in zip(points, landscape.objective(points).tolist(), index, strict=True):
            exact = enumeration.refined(system, [*point.tolist(), energy])
            assert mpmath.norm(exact[:n] - mpmath.matrix(point.tolist())) < 1e-13
            assert abs(exact[n] - energy) < 1e-13
            assert enumeration.index_on_sphere(tensor, exact[:n], exact[n]) == k


def test_two_thousand_searches_find_nothing_new_on_a_cubic_sphere() -> None:
    landscape = spherical_spin(p=3, n=3, seed=1)
    found = points_of(landscape, 1.0)
    assert "" not in named(landscape, found)
    assert len(found) == len(spin_points(3, 1))


@pytest.mark.parametrize("seed", range(3))
def test_a_binary_cubics_points_are_the_roots_of_a_polynomial(seed: int) -> None:
    points = stationary_directions(spherical_spin(p=3, n=2, seed=seed))
    right = points[points[:, 0] > 0]
    tangents = np.sort((right[:, 1] / right[:, 0]).numpy())
    np.testing.assert_allclose(tangents, enumeration.cubic_angles(couplings(3, 2, seed)), rtol=1e-10)


def test_himmelblaus_nine_points_are_found() -> None:
    """D³f[v, v, v] = 24xv₁³ + 12v₁²v₂ + 12v₁v₂² + 24yv₂³ ≤ 24 max(|x|, |y|) + 6√2 at unit v."""
    landscape = Landscape.from_function(
        surfaces.himmelblau, 2, lambda g: torch.randn(2, generator=g, dtype=torch.float64),
        hessian_lipschitz=lambda theta, radius: 24 * (theta.abs().amax() + radius) + 6 * 2**0.5,
    )  # fmt: skip
    names = named(plane.himmelblau(), stationary_points(landscape, 6.0))
    assert "" not in names
    assert len(set(names)) == len(names) == 9


@pytest.mark.parametrize(("landscape", "expected"), [
    (ica(3), 3**3 - 1), (tensor_decomposition(3), 3**3 - 1), (tensor_decomposition(2, order=8), 3**2 - 1),
    (spherical_spin(n=3), 6),
], ids=["ica", "tensor 6", "tensor 8", "matrix"])  # fmt: skip
def test_theory_names_every_point_that_the_enumeration_finds(landscape: Landscape, expected: int) -> None:
    points = stationary_directions(landscape)
    assert len(points) == expected
    assert "" not in named(landscape, points)


def test_a_degenerate_point_is_refused() -> None:
    with pytest.raises(LandscapeError, match="degenerate"):
        stationary_points(surfaces.function(surfaces.monkey, lipschitz=6.0), 1.0)


def test_what_cannot_be_enumerated_is_refused() -> None:
    for options in ({"n": 5}, {"waves": 0}, {"confinement": 0.0}):
        with pytest.raises(LandscapeError, match="random_field"):
            random_field(**options)
    with pytest.raises(LandscapeError, match="too large"):
        random_field(n=4, waves=6)
    for p, n in ((4, 3), (3, 5), (2, 1)):
        with pytest.raises(LandscapeError, match="spherical_spin"):
            spherical_spin(p=p, n=n)
