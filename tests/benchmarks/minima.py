"""Minima of digit MLPs 64-25-10, found from where training stopped and classified: models a CPU second.

``python -m tests.benchmarks.minima CONTENDER MODELS`` measures one contender and prints JSON. Both start at the same
ends of training, some 2,000 epochs of SGD. landsweep searches, polishes and classifies all of them as one batch; the
peer takes one model after another: torch.func.hessian, Newton steps with a Levenberg shift by LAPACK's Cholesky
factors, eigvalsh at the end. A model counts where ‖g‖ ≤ 1e-8, a Newton step is as short as at a critical point, and
no eigenvalue is below −1e-7·‖H‖₂. The peer is stopped after 60 CPU seconds a model, and given a success where it has
none: the ratio is then a lower bound. Imports and training are not in the rates.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time

import numpy as np
import torch
from scipy import linalg
from torch import Tensor

from landsweep.workers import execution, streams, symmetry
from landsweep.workers.algebra import Dense
from landsweep.workers.landscape import Landscape
from tests.benchmarks.contest import OURS, Contest, process
from tests.benchmarks.spectra import CPU, DENSE, ZERO, landscape, loss, trained
from tests.benchmarks.stationary import TOLERANCE, critical

MODULE = "tests.benchmarks.minima"
BUDGET = 500  # steps
TRAINING_STEPS = 20_000
PATIENCE = 60.0  # CPU seconds of the peer's steps
MODELS = {OURS: 4, "torch": 1}
REACH, MOST_SECONDS = 5.0, 20.0  # CPU seconds a model


def by_landsweep(given: Landscape, starts: Tensor) -> Tensor:
    """Where they end (B, n)."""
    algebra = Dense()
    scale = algebra.norm(given, starts)
    outcome = algebra.minima(given, starts, scale, TOLERANCE, BUDGET)
    theta = algebra.polished(given, outcome.theta, TOLERANCE)
    keys = streams.keys("minima", list(range(len(starts))), "classify", CPU)
    algebra.classify(given, theta, outcome, scale, keys, TOLERANCE)
    return theta


def by_torch(starts: Tensor) -> Tensor:
    """Where they end (B, n)."""
    return torch.stack([newton(start) for start in starts])


def newton(theta: Tensor) -> Tensor:
    """Steps −(H + μI)⁻¹g, μ larger where that is not positive definite or L falls by less than a quarter of what the
    quadratic model says, smaller where it falls by more than three quarters (Levenberg 1944, Marquardt 1963)."""
    slope, curvature, shift = torch.func.grad_and_value(loss), torch.func.hessian(loss), 0.0
    (gradient, value), hessian = slope(theta), curvature(theta).numpy()
    begun = time.process_time()
    for _ in range(BUDGET):
        if time.process_time() - begun > PATIENCE:
            break
        g = gradient.numpy()
        if np.linalg.norm(g) <= TOLERANCE:
            break
        try:
            factor = linalg.cho_factor(hessian + shift * np.eye(len(g)))
        except linalg.LinAlgError:
            shift = max(4 * shift, 1e-4)
            continue
        step = -linalg.cho_solve(factor, g)
        proposal = theta + torch.from_numpy(step)
        there, lower = slope(proposal)
        predicted = -(g @ step + 0.5 * step @ hessian @ step)
        ratio = float(value - lower) / predicted
        # rounding of L hides the last falls
        if ratio < 0.25 and float(value - lower) < -1e-14 * abs(float(value)):
            shift = max(4 * shift, 1e-4)
            continue
        if ratio > 0.75:
            shift = shift / 4 if shift > 1e-10 else 0.0
        theta, gradient, value, hessian = proposal, there, lower, curvature(proposal).numpy()
    linalg.eigvalsh(hessian)
    return theta


def successes(given: Landscape, theta: Tensor) -> int:
    """How many rows are critical points without a negative eigenvalue."""
    values = torch.linalg.eigvalsh(given.hessian(theta))
    bottom = values[:, 0] >= -ZERO * values.abs().amax(1)
    return int((critical(given, theta) & bottom).sum())


def measured(contender: str, models: int) -> dict[str, float]:
    execution.prepare(1)
    plain, starts = landscape(DENSE), trained(DENSE, models, TRAINING_STEPS)
    given = dataclasses.replace(plain, symmetries=symmetry.checked(plain))
    given.hessian(starts[:1])
    begun = time.process_time()
    theta = by_landsweep(given, starts) if contender == OURS else by_torch(starts)
    seconds = time.process_time() - begun
    good = successes(given, theta)
    if contender == OURS and (good < models or seconds > MOST_SECONDS * good):
        wanted = f"{MOST_SECONDS:g} each are wanted"
        raise AssertionError(f"{good} minima of {models} models in {seconds:.1f} CPU s; {wanted}")
    counted = max(good, 1)
    return {"rate": counted / seconds, "success": good / models, "CPU s a minimum": seconds / counted}


def contests() -> list[Contest]:
    """Minima a CPU second, one core each."""
    work = f"64-25-10 on digits, n = 1,885: search, polish, classify; at most {MOST_SECONDS:g} CPU s each are wanted"
    contenders = {who: process(MODULE, who, count) for who, count in MODELS.items()}
    return [Contest("minima", work, "minima/CPU s", REACH, contenders)]


if __name__ == "__main__":
    who, number = sys.argv[1:]
    print(json.dumps(measured(who, int(number))))
