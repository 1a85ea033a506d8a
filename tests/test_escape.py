"""Times that the gradient flow takes to leave a saddle: closed form, scipy, and the law ln(1/δ)/|λ_min|."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import integrate
from torch import Tensor

from landsweep.workers import search
from landsweep.workers.escape import escape_times, random_unstable
from landsweep.workers.quadratic import eigh
from tests.surfaces import function, himmelblau, normal, points

pytestmark = pytest.mark.usefixtures("one_thread")

DISTANCES = [1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8]
HIMMELBLAU_SADDLES = [
    (-3.073025751002651, -0.08135304429092892), (-0.127961346730688, -1.9537149802445177),
    (0.08667750456420503, 2.8842547011136213), (3.3851541836016065, 0.07385187983692164),
]  # fmt: skip


def by_scipy(
    velocity: Callable[[np.ndarray], np.ndarray], saddle: Tensor, direction: Tensor, delta: float, radius: float
) -> float:
    """The time at which the flow of the displacement d from the saddle, d' = velocity(d), has length R."""

    def left(_: float, d: np.ndarray) -> float:
        return float(d @ d) - radius**2

    left.terminal = True  # type: ignore[attr-defined]
    start = delta * direction.numpy()
    solved = integrate.solve_ivp(
        lambda _, d: velocity(saddle.numpy() + d), (0, 100.0), start, "DOP853", events=left, rtol=1e-11, atol=1e-16
    )
    assert solved.t_events is not None
    return float(solved.t_events[0][0])


@pytest.mark.parametrize("lowest", [-2.0, -1e-3])
def test_a_quadratic_saddle_is_left_exactly_as_predicted(lowest: float) -> None:
    curvature = torch.tensor([lowest, 3.0, 100.0], dtype=torch.float64)
    landscape = function(lambda t: 0.5 * (curvature * t * t).sum(), 3)
    times = escape_times(landscape, points([0.0] * 3), points([1.0, 0.0, 0.0]), curvature[:1], 0.1, DISTANCES)
    truth = [np.log(0.1 / delta) / -lowest for delta in DISTANCES]
    np.testing.assert_allclose(times.measured[0].numpy(), truth, rtol=1e-8)
    np.testing.assert_allclose(times.predicted[0].numpy(), truth, rtol=1e-14)
    assert float(times.slope) == pytest.approx(-1 / lowest, rel=1e-8)


def test_a_stable_part_of_the_displacement_is_gone_before_it_matters() -> None:
    """d(t)² = δ²·(e^{2t} + e^{−2t})/2 for λ = ∓1 and v = (1, 1)/√2, so cosh 2t = (R/δ)²."""
    curvature = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    landscape, half = function(lambda t: 0.5 * (curvature * t * t).sum()), 0.5**0.5
    times = escape_times(landscape, points([0.0, 0.0]), points([half, half]), curvature[:1], 1.0, [0.5, 0.1, 1e-6])
    truth = [0.5 * np.arccosh(delta**-2.0) for delta in (0.5, 0.1, 1e-6)]
    np.testing.assert_allclose(times.measured[0].numpy(), truth, rtol=1e-8)


def test_himmelblaus_saddles_agree_with_scipy_and_with_the_law() -> None:
    def velocity(theta: np.ndarray) -> np.ndarray:
        x, y = theta
        a, b = x * x + y - 11, x + y * y - 7
        return -np.array([4 * x * a + 2 * b, 2 * a + 4 * y * b])

    landscape = function(himmelblau)
    saddles = search.refine(landscape, points(*HIMMELBLAU_SADDLES))
    values, vectors, _ = eigh(landscape.hessian(saddles))
    times = escape_times(landscape, saddles, vectors[:, :, 0], values[:, 0], 0.5, DISTANCES)
    for row in range(4):
        for column in (0, 3):
            truth = by_scipy(velocity, saddles[row], vectors[row, :, 0], DISTANCES[column], 0.5)
            assert float(times.measured[row, column]) == pytest.approx(truth, rel=2e-6)
    torch.testing.assert_close(times.slope, times.expected_slope, rtol=0.02, atol=0)
    assert float((times.measured / times.predicted - 1).abs().max()) < 0.02
    alone = escape_times(landscape, saddles[2:3], vectors[2:3, :, 0], values[2:3, 0], 0.5, DISTANCES[3:4])
    assert torch.equal(alone.measured[0, 0], times.measured[2, 3])


def test_twenty_dimensions_from_random_directions_of_the_unstable_space() -> None:
    """A rotated saddle of index 3 with cubic and quartic terms, stiffness 200."""
    rotation = torch.linalg.qr(normal(20, 20, seed=3))[0]
    curvature = torch.cat([points([-2.0, -1.0, -0.5])[0], torch.logspace(-1, 2, 17, dtype=torch.float64)])

    def loss(theta: Tensor) -> Tensor:
        y = rotation @ theta
        total: Tensor = 0.5 * (curvature * y * y).sum() + 0.3 * (y[:-1] ** 2 * y[1:]).sum() + 0.25 * (y**4).sum()
        return total

    def velocity(theta: np.ndarray) -> np.ndarray:
        y = rotation.numpy() @ theta
        slope = curvature.numpy() * y + y**3
        slope[:-1] += 0.6 * y[:-1] * y[1:]
        slope[1:] += 0.3 * y[:-1] ** 2
        return np.asarray(-rotation.numpy().T @ slope)

    landscape, saddles = function(loss, 20), torch.zeros(3, 20, dtype=torch.float64)
    values, vectors, _ = eigh(landscape.hessian(saddles))
    directions = random_unstable(values, vectors, torch.arange(3))
    times = escape_times(landscape, saddles, directions, values[:, 0], 0.3, DISTANCES)
    for row in range(3):
        truth = by_scipy(velocity, saddles[row], directions[row], 1e-4, 0.3)
        assert float(times.measured[row, 1]) == pytest.approx(truth, rel=1e-5)
    torch.testing.assert_close(times.slope, times.expected_slope, rtol=0.02, atol=0)


def test_random_directions_lie_in_the_unstable_space_and_follow_their_keys() -> None:
    matrix = normal(6, 6, seed=5)
    values, vectors, _ = eigh((matrix + matrix.T).expand(200, 6, 6))
    negative = values[0] < 0
    assert 2 <= int(negative.sum()) <= 4
    drawn = random_unstable(values, vectors, torch.arange(200))
    torch.testing.assert_close(drawn.norm(dim=1), torch.ones(200, dtype=torch.float64))
    coefficients = drawn @ vectors[0]
    assert float(coefficients[:, ~negative].abs().max()) < 1e-14
    second_moment = (coefficients[:, negative] ** 2).mean(0)
    assert float((second_moment - 1 / negative.sum()).abs().max()) < 0.12
    assert torch.equal(random_unstable(values[7:8], vectors[7:8], torch.tensor([7]))[0], drawn[7])


def test_a_flow_that_ends_within_the_radius_has_no_time() -> None:
    """x⁴/4 − x²/2 + y²/2: the minima are 1 away, so that 0.5 is crossed and 2 never, whoever is in the batch."""
    landscape = function(lambda t: 0.25 * t[0] ** 4 - 0.5 * t[0] ** 2 + 0.5 * t[1] ** 2)
    saddles, directions, lowest = points([0.0, 0.0]), points([1.0, 0.0]), points([-1.0])[0]
    assert bool(torch.isnan(escape_times(landscape, saddles, directions, lowest, 2.0, [0.1, 0.01], 60).measured).all())
    near = escape_times(landscape, saddles, directions, lowest, 0.5, [0.1, 0.01])
    truth = [0.5 * np.log(0.25 / 0.75 * (1 - d**2) / d**2) for d in (0.1, 0.01)]  # of x' = x − x³
    np.testing.assert_allclose(near.measured[0].numpy(), truth, rtol=1e-6)
