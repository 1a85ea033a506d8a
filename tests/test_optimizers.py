"""Optimisers against torch.optim, exact solutions and what theory says of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch
from torch import Tensor

from landsweep.workers.landscape import Landscape
from landsweep.workers.optimizers import build
from landsweep.workers.optimizers.first_order import FUSED, SGD
from landsweep.workers.optimizers.perturbed_gd import unit_ball
from landsweep.workers.optimizers.rule import Step
from landsweep.workers.optimizers.saddle_free_newton import DAMPINGS
from landsweep.workers.training import Streams, initial_parameters, minibatches, snapshot_steps
from tests import surfaces
from tests.evidence_training import (
    BATCH,
    PEERS,
    SAMPLES,
    TWO_LAYERS,
    by_torch,
    classification,
    escapes,
    mode_error,
    torch_difference,
)
from tests.trained import CPU, path, section, trained

pytestmark = pytest.mark.usefixtures("one_thread")
SEEDS = [0, 1]


@pytest.mark.parametrize("name", PEERS)
def test_agrees_with_torch_optim(name: str) -> None:
    difference, way = torch_difference(name, seeds=2)
    assert difference <= (1e-6 if "lbfgs" in name else 1e-12)
    assert way > 0.1, "training has to go somewhere for this test to tell"


@pytest.mark.parametrize("schedule", [{"name": "cosine", "warmup": 0}, {"name": "cosine", "warmup": 7, "final": 0.2}])
def test_schedules_agree_with_torch(schedule: dict[str, Any]) -> None:
    settings = section("sgd", lr=0.2, momentum=0.5, steps=40, schedule=schedule)
    land, x, y = classification()
    start = initial_parameters(land, "key", SEEDS, CPU)
    warmup, final = schedule["warmup"], schedule.get("final", 0.0)

    def scheduler(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 40 - warmup, eta_min=0.2 * final)
        if not warmup:
            return cosine
        linear = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / (warmup + 1), 1.0, warmup)
        return torch.optim.lr_scheduler.SequentialLR(optimizer, [linear, cosine], [warmup])

    def sgd(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.2, momentum=0.5)

    ours = trained(land, settings, start)
    theirs = by_torch(sgd, start[0], iter([torch.arange(SAMPLES)] * 40), x, y, scheduler)
    torch.testing.assert_close(ours.final[0], theirs, rtol=1e-10, atol=1e-12)
    constant = trained(land, section("sgd", lr=0.2, momentum=0.5, steps=40), start)
    assert float((constant.final - ours.final).norm()) > 1e-2


def test_warmup_alone_multiplies_the_first_steps() -> None:
    along = path(bowl(1), section("gd", lr=0.3, steps=4, schedule={"warmup": 2}), torch.ones(2, 1, dtype=torch.float64))
    rates = 1 - along[1:, 0, 0] / along[:-1, 0, 0]
    assert rates.tolist() == pytest.approx([0.1, 0.2, 0.3, 0.3])


def test_every_epoch_sees_every_sample_once_with_a_ragged_end() -> None:
    order = Streams.of("key", SEEDS, CPU).order
    batches = list(minibatches(order, SAMPLES, BATCH, 10))
    assert [batch.shape for batch in batches] == [(2, 5), (2, 5), (2, 5), (2, 5), (2, 3)] * 2
    for epoch in (batches[:5], batches[5:]):
        assert torch.equal(torch.cat(epoch, 1).sort(dim=1).values, torch.arange(SAMPLES).expand(2, SAMPLES))
    assert not torch.equal(batches[0], batches[5])
    assert not torch.equal(batches[0][0], batches[0][1])
    for first in (1, 5, 7):
        later = list(minibatches(order, SAMPLES, BATCH, 10, first))
        assert all(torch.equal(a, b) for a, b in zip(later, batches[first:], strict=True))


@pytest.mark.parametrize("name", ["nesterov", "adam", "rmsprop", "langevin", "annealing", "perturbed_gd", "newton"])
def test_each_trial_has_its_own_hyperparameters(name: str) -> None:
    own = {
        "langevin": {"optimizer": "langevin", "temperature": 0.01},
        "annealing": {"optimizer": "annealing", "temperature": 0.01, "final_temperature": 0.002},
        "perturbed_gd": {"optimizer": "perturbed_gd", "gradient_threshold": 1.0, "interval": 5, "radius": 0.1},
        "newton": {"optimizer": "saddle_free_newton", "lr": 0.5},
    }
    settings = section(**(own.get(name) or PEERS[name][0]), steps=12)
    land, _, _ = classification()
    start = initial_parameters(land, "key", SEEDS, CPU)
    values = build.hyperparameters(settings)
    assert set(values) == set(build.optimizer(settings).names)
    changed = {key: 0.7 * value for key, value in values.items()}
    pairs = {key: torch.tensor([value, changed[key]], dtype=torch.float64) for key, value in values.items()}
    mixed = trained(land, settings, start, pairs)
    for row, one in enumerate((values, changed)):
        alone = trained(land, settings, start, build.per_trial(one, 2, torch.float64, CPU))
        assert torch.equal(mixed.final[row], alone.final[row])
        assert not torch.equal(mixed.final[1 - row], alone.final[1 - row])


def bowl(dim: int) -> Landscape:
    return surfaces.function(lambda t: 0.5 * (t**2).sum(), dim)


def test_snapshots_hold_the_path_and_the_step_after_each() -> None:
    start = surfaces.normal(2, 3)
    result = trained(bowl(3), section("gd", lr=0.1, steps=30), start)
    assert result.steps == snapshot_steps(30)
    expected = torch.stack([0.9**step * start for step in result.steps])
    torch.testing.assert_close(result.snapshots, expected)
    torch.testing.assert_close(result.following, 0.9 * expected[:-1])
    assert torch.equal(result.snapshots[-1], result.final)
    nowhere = trained(bowl(3), section("gd", steps=0), start)
    assert nowhere.steps == (0,)
    assert torch.equal(nowhere.final, start)
    assert nowhere.following.shape == (0, 2, 3)


# --- perturbed gradient descent ------------------------------------------------------------------------------
def test_leaves_a_saddle_within_the_bound_where_gradient_descent_stays() -> None:
    first, reached, plain = escapes(64)
    assert int(first.min()) > 0
    assert TWO_LAYERS.steps == 58
    assert float(reached.max()) <= 1, "the constants hold in this ball"
    assert torch.equal(plain, torch.zeros_like(plain))


def test_perturbs_where_the_gradient_is_small_and_not_too_often() -> None:
    options = {"lr": 0.1, "gradient_threshold": 0.5, "radius": 1e-3, "interval": 3}
    along = path(bowl(2), section("perturbed_gd", steps=12, **options), surfaces.points([4.0, 3.0], [0.2, 0.3]))
    moved = (along[1:] - 0.9 * along[:-1]).norm(dim=2) > 1e-12
    assert not moved[:, 0].any()  # ‖g‖ is 5·0.9^t ≥ 1.5
    assert moved[:, 1].nonzero().flatten().tolist() == [0, 4, 8]
    assert (along[1:] - 0.9 * along[:-1]).norm(dim=2).max() <= 0.9e-3


def test_perturbations_are_uniform_in_the_ball() -> None:
    dim, draws = 3, 4000
    at = Step(5, {}, torch.arange(draws), lambda theta: theta, bowl(dim))
    drawn = unit_ball(torch.zeros(draws, dim, dtype=torch.float64), at).numpy()
    radius = np.linalg.norm(drawn, axis=1)
    assert scipy.stats.kstest(radius**dim, "uniform").pvalue > 1e-3
    assert scipy.stats.kstest(drawn[:, 0] / radius, "uniform", (-1, 2)).pvalue > 1e-3  # Archimedes


# --- thermal noise -------------------------------------------------------------------------------------------
def test_langevin_has_the_variance_of_its_discrete_equation() -> None:
    """On ½λθ²: T/(λ(1 − ηλ/2)), and correlation 1 − ηλ from step to step."""
    rows, lr, temperature, curvature = 20_000, 0.4, 0.3, 2.0
    steep = surfaces.function(lambda t: 0.5 * curvature * (t**2).sum(), 1)
    settings = section("langevin", lr=lr, temperature=temperature, steps=40)
    along = path(steep, settings, torch.zeros(rows, 1, dtype=torch.float64))[-2:, :, 0]
    variance = temperature / (curvature * (1 - lr * curvature / 2))
    error = variance * math.sqrt(2 / rows)
    assert float(along[1].var()) == pytest.approx(variance, abs=4 * error)
    assert float((along[0] * along[1]).mean()) == pytest.approx((1 - lr * curvature) * variance, abs=4 * error)
    assert scipy.stats.kstest(along[1].numpy() / math.sqrt(variance), "norm").pvalue > 1e-3


def tilted(theta: Tensor) -> Tensor:
    return ((theta**2 - 1) ** 2 + 0.3 * theta).sum()


def test_annealing_at_a_constant_temperature_draws_from_boltzmann() -> None:
    """Of any step size, and between wells: the share right of the barrier, and the mean of L, by quadrature."""
    rows, temperature = 4000, 0.5
    settings = section("annealing", lr=0.15, temperature=temperature, final_temperature=temperature, steps=300)
    theta = trained(surfaces.function(tilted, 1), settings, torch.ones(rows, 1, dtype=torch.float64)).final[:, 0]

    def expectation(function: Any, low: float) -> float:
        def loss(x: float) -> float:
            return (x * x - 1) ** 2 + 0.3 * x

        weight = scipy.integrate.quad(lambda x: math.exp(-loss(x) / temperature), -4, 4)[0]
        return float(scipy.integrate.quad(lambda x: function(x) * math.exp(-loss(x) / temperature), low, 4)[0] / weight)

    right = expectation(lambda x: 1.0, 0.0)
    assert float((theta > 0).double().mean()) == pytest.approx(right, abs=4 * math.sqrt(right * (1 - right) / rows))
    assert float(theta.mean()) == pytest.approx(expectation(lambda x: x, -4.0), abs=4 / math.sqrt(rows))
    assert 0.1 < right < 0.4


def test_annealing_cools_into_the_lower_well_and_accepts_as_it_should() -> None:
    rows = 400
    start = torch.ones(rows, 1, dtype=torch.float64)  # the higher well's basin
    settings = section("annealing", lr=0.2, temperature=0.4, final_temperature=0.02, steps=4000)
    cold = trained(surfaces.function(tilted, 1), settings, start).final[:, 0]
    assert float((cold < 0).double().mean()) > 0.8
    assert float((cold[cold < 0] + 1.036).square().mean()) == pytest.approx(0.02 / 8.9, rel=0.4)  # T/L''
    stuck = trained(surfaces.function(tilted, 1), section("gd", lr=0.05, steps=600), start).final[:, 0]
    assert bool((stuck > 0).all())
    endless = surfaces.function(lambda t: torch.where(t.abs().sum() < 1, 0.0, torch.inf) + 0 * t.sum(), 1)
    settings = section("annealing", lr=0.5, temperature=1.0, final_temperature=1.0, steps=50)
    boxed = path(endless, settings, torch.zeros(50, 1, dtype=torch.float64))
    assert bool((boxed.abs() < 1).all())
    assert float(boxed[-1].std()) == pytest.approx(1 / math.sqrt(3), abs=0.2)  # uniform


# --- saddle-free Newton --------------------------------------------------------------------------------------
def indefinite(size: int) -> tuple[Landscape, Tensor, Tensor]:
    """½θᵀAθ + a quartic wall, A = QΛQᵀ, its eigenvalues and vectors."""
    eigenvalues = torch.linspace(-1, 3, size, dtype=torch.float64)
    rotation = torch.linalg.qr(surfaces.normal(size, size, 7))[0]
    matrix = (rotation * eigenvalues) @ rotation.T
    return surfaces.function(lambda t: 0.5 * (t * (matrix @ t)).sum(), size), eigenvalues, rotation


def test_saddle_free_newton_takes_the_step_of_the_best_damping() -> None:
    landscape, eigenvalues, rotation = indefinite(6)
    start = surfaces.normal(3, 6, 8)
    ours = trained(landscape, section("saddle_free_newton", lr=0.8, damping=2.0, steps=1), start).final
    best = []
    for row in start:
        steps = [
            row - 0.8 * rotation @ ((rotation.T @ row) * eigenvalues / (eigenvalues.abs() + 2.0 * share))
            for share in DAMPINGS
        ]
        best.append(min(steps, key=lambda theta: float(landscape.loss(theta))))
    torch.testing.assert_close(ours, torch.stack(best), rtol=1e-9, atol=1e-12)


def test_in_a_krylov_space_it_takes_the_step_of_the_projected_hessian() -> None:
    size, dimension = 12, 4
    landscape, eigenvalues, rotation = indefinite(size)
    start = surfaces.normal(3, size, 9)
    matrix = ((rotation * eigenvalues) @ rotation.T).numpy()
    best = []
    for row in start.numpy():
        powers = [np.linalg.matrix_power(matrix, power) @ (matrix @ row) for power in range(dimension)]
        space = np.linalg.qr(np.stack(powers, 1))[0]
        values, vectors = np.linalg.eigh(space.T @ matrix @ space)
        modes = space @ vectors
        steps = [row - modes @ ((modes.T @ (matrix @ row)) / (np.abs(values) + share)) for share in DAMPINGS]
        best.append(min(steps, key=lambda theta: float(theta @ matrix @ theta)))
    settings = section("saddle_free_newton", krylov_dimension=dimension, steps=1)
    torch.testing.assert_close(trained(landscape, settings, start).final, torch.tensor(np.stack(best)))


def test_a_krylov_space_that_holds_the_gradients_modes_gives_the_exact_step() -> None:
    landscape, _, rotation = indefinite(12)
    start = surfaces.normal(3, 5, 9) @ rotation[:, 2:7].T
    dense = trained(landscape, section("saddle_free_newton", krylov_dimension=12, steps=1), start).final
    products = trained(landscape, section("saddle_free_newton", krylov_dimension=8, steps=1), start).final
    torch.testing.assert_close(products, dense, rtol=1e-8, atol=1e-10)


def test_saddle_free_newton_leaves_a_saddle_that_newton_goes_to() -> None:
    well = surfaces.function(lambda t: 0.25 * (t[0] ** 2 - 1) ** 2 + 0.5 * t[1] ** 2, 2)
    start = surfaces.points([1e-6, 0.7], [-1e-6, -2.0])
    ended = trained(well, section("saddle_free_newton", steps=60), start).final
    torch.testing.assert_close(ended, surfaces.points([1.0, 0.0], [-1.0, 0.0]), rtol=0, atol=1e-9)
    nowhere = surfaces.function(lambda t: torch.log(-1 - t.square().sum()), 2)
    beside = trained(nowhere, section("saddle_free_newton", steps=5), start).final
    assert torch.equal(beside, start)  # there is no finite L: θ stays


# --- exact solutions -----------------------------------------------------------------------------------------
def test_learning_curves_of_a_linear_net_are_the_exact_ones() -> None:
    error, _ = mode_error((1.0, 0.6), 0.05, step=1e-3, end=3.5)
    assert error <= 1e-3
    coarse, _ = mode_error((1.0, 0.6), 0.05, step=1e-2, end=3.5)
    assert 3 < coarse / error < 30  # an Euler method's error is linear in its step


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large_thetas_move_by_the_same_formula_each_as_alone(nesterov: bool, dtype: torch.dtype) -> None:
    """Rows of three settings of one program; the length fills no whole number of vector registers."""
    rule, length = SGD(nesterov), FUSED + 5
    start, slope = (torch.randn(6, length, generator=torch.Generator().manual_seed(s), dtype=dtype) for s in (0, 1))
    lr = torch.tensor([0.1, 0.1, 0.2, 0.2, 0.2, 0.1], dtype=dtype)
    momentum = torch.tensor([0.9, 0.9, 0.9, 0.5, 0.5, 0.0], dtype=dtype)

    def moved(rows: slice, steps: int = 3) -> torch.Tensor:
        theta, h = start[rows].clone(), {"lr": lr[rows], "momentum": momentum[rows]}
        state = rule.init(theta)
        for step in range(steps):
            here = Step(step, h, torch.arange(len(theta)), lambda at: torch.sin(at) + slope[rows], bowl(length))
            theta, state = rule.step(theta, state, here)
        return theta

    together = moved(slice(0, 6))
    for row in range(6):
        assert torch.equal(moved(slice(row, row + 1))[0], together[row])
    theta, velocity = start.double(), torch.zeros_like(start.double())
    for _ in range(3):
        gradient = torch.sin(theta) + slope.double()
        velocity = momentum.double()[:, None] * velocity + gradient
        direction = gradient + momentum.double()[:, None] * velocity if nesterov else velocity
        theta = theta - lr.double()[:, None] * direction
    tolerance = 10 * torch.finfo(dtype).eps
    torch.testing.assert_close(together.double(), theta, rtol=tolerance, atol=tolerance)
