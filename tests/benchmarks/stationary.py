"""Stationary points of two autoencoders: successes a CPU second, from the same starts.

``python -m tests.benchmarks.stationary CONTENDER PROBLEM STARTS`` measures one contender and prints JSON. CONTENDER is
landsweep (a batch of searches) or one of scipy's methods, one start after another, given the gradient and the Hessian
as its Jacobian; PROBLEM is linear or swish. All take their starts from the same draws, spread over descents. A
success has ‖g‖ ≤ 1e-8, a Newton step as short as at a critical point (docs/points.md), so is not gradient-flat, and
lies in a closed-form class where there are any. scipy's searches are stopped at the first gradient as small as that,
and after 25 CPU seconds a start; one of scipy's that has no success in a measurement is given one, so that the ratio is
then a lower bound. Imports, compilation, starts and the counting of successes are not in the rates.

On the linear autoencoder all search for points of any index, landsweep by Levenberg–Marquardt. On the swish autoencoder
whatever falls on ‖g‖² ends gradient-flat (Frye et al. 2021), landsweep's Levenberg–Marquardt too: its points there are
minima, by the descent in a trust region that sweeps search minima with.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landsweep.workers import execution, search, self_check, symmetry
from landsweep.workers.data import Dataset
from landsweep.workers.landscape import Landscape
from landsweep.workers.levenberg_marquardt import LevenbergMarquardt
from landsweep.workers.models.autoencoder import autoencoder
from landsweep.workers.quadratic import LocalModel
from landsweep.workers.reference.autoencoder import linear_autoencoder
from landsweep.workers.trust_region import TrustRegionNewton
from tests.benchmarks.contest import OURS, Contest, process

MODULE = "tests.benchmarks.stationary"
TOLERANCE, BUDGET = 1e-8, 300
PATIENCE = 25.0  # CPU seconds of scipy's searches a start, on average
INPUTS, CODE, SAMPLES, DECAY = 16, 8, 1000, 1e-5  # of the swish autoencoder

Array = np.ndarray
Derivatives = tuple[Callable[[Array], Array], Callable[[Array], Array]]  # gradient (n,) → (n,), Hessian (n,) → (n, n)


# --- the linear autoencoder, k = 16, p = 4 ---------------------------------------------------------------------------
def linear_derivatives(k: int = 16, p: int = 4) -> Derivatives:
    """∇L and ∇²L of ½ tr((I − BA) Σ (I − BA)ᵀ), Σ = diag(1, …, k), θ = (A [p×k], B [k×p]), by hand in numpy."""
    variances, size = np.arange(1.0, k + 1), k * p
    covariance, unit, whole = np.diag(variances), np.eye(p), np.eye(k)

    def parts(theta: Array) -> tuple[Array, Array, Array]:
        a, b = theta[:size].reshape(p, k), theta[size:].reshape(k, p)
        return a, b, (b @ a - whole) * variances

    def gradient(theta: Array) -> Array:
        a, b, residual = parts(theta)
        return np.concatenate([(b.T @ residual).ravel(), (residual @ a.T).ravel()])

    def hessian(theta: Array) -> Array:
        a, b, residual = parts(theta)
        full = np.empty((2 * size, 2 * size))
        full[:size, :size] = np.kron(b.T @ b, covariance)
        full[size:, size:] = np.kron(whole, (a * variances) @ a.T)
        cross = np.einsum("ic,da->iacd", b, variances[:, None] * a.T) + np.einsum("id,ac->iacd", residual, unit)
        full[size:, :size] = cross.reshape(size, size)
        full[:size, size:] = full[size:, :size].T
        return full

    return gradient, hessian


# --- the swish autoencoder, 16-8-16 ----------------------------------------------------------------------------------
def gaussian() -> Tensor:
    """Samples (N, 16) of N(0, diag(1, …, 16))."""
    generator = torch.Generator().manual_seed(0)
    deviations = torch.arange(1, INPUTS + 1, dtype=torch.float64).sqrt()
    return deviations * torch.randn(SAMPLES, INPUTS, generator=generator, dtype=torch.float64)


def swish_autoencoder() -> Landscape:
    """Frye et al. (2021): z = B·silu(Ax), mean (z − x)² + λ/2·‖θ‖², without biases, on Gaussian data."""
    x, labels = gaussian(), torch.zeros(SAMPLES, dtype=torch.int64)
    data = Dataset(x, labels, x[:10], labels[:10], 1)
    return autoencoder(data, hidden=[CODE], activation="silu", bias=False, weight_decay=DECAY)


def swish_derivatives() -> Derivatives:
    """∇L and ∇²L by JAX, compiled, in float64."""
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    x = jnp.asarray(gaussian().numpy())

    def loss(theta: Any) -> Any:
        a, b = theta[: CODE * INPUTS].reshape(CODE, INPUTS), theta[CODE * INPUTS :].reshape(INPUTS, CODE)
        return ((jax.nn.silu(x @ a.T) @ b.T - x) ** 2).mean() + 0.5 * DECAY * (theta**2).sum()

    gradient, hessian = jax.jit(jax.grad(loss)), jax.jit(jax.hessian(loss))
    return lambda theta: np.array(gradient(theta)), lambda theta: np.array(hessian(theta))


@dataclass(frozen=True)
class Problem:
    """A landscape for landsweep, its derivatives for scipy."""

    said: str
    landscape: Callable[[], Landscape]
    derivatives: Callable[[], Derivatives]
    finder: Callable[[], search.Search]
    starts: dict[str, int]  # how many each contender takes, every so many of the most
    least: float  # share of starts from which landsweep has to succeed
    reach: float


PROBLEMS = {
    "linear": Problem(
        "linear autoencoder, k = 16, p = 4, n = 128", linear_autoencoder, linear_derivatives,
        lambda: LevenbergMarquardt(TOLERANCE), {OURS: 128, "trf": 16, "lm": 16}, 0.99, 3.0,
    ),
    "swish": Problem(
        f"swish autoencoder 16-8-16 on {SAMPLES} Gaussian samples, n = 256", swish_autoencoder, swish_derivatives,
        lambda: TrustRegionNewton(TOLERANCE), {OURS: 24, "trf": 2, "lm": 2, "hybr": 24}, 0.5, 20.0,
    ),
}  # fmt: skip


# --- contenders ------------------------------------------------------------------------------------------------------
def by_landsweep(problem: Problem, landscape: Landscape, starts: Tensor, scale: Tensor) -> tuple[Tensor, float]:
    """Where one batch of searches ends (S, n), and its CPU seconds."""
    begun = time.process_time()
    outcome = search.iterate(problem.finder(), landscape, starts, scale, BUDGET)
    return outcome.theta, time.process_time() - begun


class _Ended(Exception):
    """The gradient is small enough, or the time spent."""


def by_scipy(problem: Problem, method: str, starts: Tensor) -> tuple[Tensor, float]:
    """Where ``method`` ends from each start (S, n), and the CPU seconds. hybr is MINPACK's hybrid method for systems of
    equations, trf and lm least squares of the gradient."""
    from scipy import optimize

    gradient, hessian = problem.derivatives()
    ends = starts.numpy().copy()
    gradient(ends[0]), hessian(ends[0])  # compiled
    begun = time.process_time()
    for row, start in enumerate(starts.numpy()):

        def equations(theta: Array, row: int = row) -> Array:
            found = gradient(theta)
            if np.linalg.norm(found) <= TOLERANCE or time.process_time() - begun > PATIENCE * (row + 1):
                ends[row] = theta
                raise _Ended
            return found

        try:
            if method == "hybr":
                ends[row] = optimize.root(equations, start, jac=hessian, options={"xtol": 1e-14}).x
            else:
                tight = dict.fromkeys(("ftol", "xtol", "gtol"), 1e-15)
                settings = {**tight, "x_scale": 1.0, "max_nfev": BUDGET}
                ends[row] = optimize.least_squares(equations, start, hessian, method=method, **settings).x
        except _Ended:
            pass
    return torch.from_numpy(ends), time.process_time() - begun


def critical(landscape: Landscape, theta: Tensor) -> Tensor:
    """Whether each row is a critical point. (S,)."""
    model = LocalModel.at(landscape, theta, landscape.symmetries)
    near = model.newton_length <= search.STEP_TOLERANCE * (1 + theta.norm(dim=1))
    return (model.gradient.norm(dim=1) <= TOLERANCE) & near


def successes(landscape: Landscape, theta: Tensor) -> int:
    """How many rows are critical points, in a known class where there are any."""
    known = [landscape.known_class is None or landscape.known_class(one) is not None for one in theta]
    return int((critical(landscape, theta) & torch.tensor(known)).sum())


def measured(contender: str, name: str, count: int) -> dict[str, float]:
    execution.prepare(1)
    problem = PROBLEMS[name]
    landscape = problem.landscape()
    landscape = dataclasses.replace(landscape, symmetries=symmetry.checked(landscape))
    drawn = max(problem.starts.values())
    starts, scale = (tensor[:: drawn // count] for tensor in self_check.spread(landscape, drawn))
    if contender == OURS:
        by_landsweep(problem, landscape, starts[:2], scale[:2])  # warm
        theta, seconds = by_landsweep(problem, landscape, starts, scale)
    else:
        theta, seconds = by_scipy(problem, contender, starts)
    good = successes(landscape, theta)
    if contender == OURS and good < problem.least * count:
        raise AssertionError(f"{good} of {count} starts ended at critical points; at least {problem.least:.0%} have to")
    counted = good if contender == OURS else max(good, 1)
    return {"rate": counted / seconds, "success": good / count, "starts": count, "CPU s": seconds}


def contests() -> list[Contest]:
    """Successes a CPU second, one core each."""
    found = []
    for name, problem in PROBLEMS.items():
        contenders = {who: process(MODULE, who, name, count) for who, count in problem.starts.items()}
        found.append(Contest(f"stationary {name}", problem.said, "successes/CPU s", problem.reach, contenders))
    return found


if __name__ == "__main__":
    who, problem_name, number = sys.argv[1:]
    print(json.dumps(measured(who, problem_name, int(number))))
