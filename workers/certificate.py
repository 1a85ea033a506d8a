"""Certificates: a bound on the Hessian's Lipschitz constant, and what follows from it by Newton–Kantorovich."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from landsweep.workers import streams
from landsweep.workers.landscape import Landscape
from landsweep.workers.quadratic import LocalModel

SAMPLES = 4
SAMPLE_DISTANCE = 1e-3  # relative to 1 + ‖θ‖


@dataclass(frozen=True)
class Certificates:
    """One entry a point."""

    lipschitz: Tensor  # (P,) K
    h: Tensor  # (P,) β·η·K
    certified: list[bool]
    certificate: list[str]
    radius: Tensor  # (P,) a true critical point lies this near; NaN where not certified


def lipschitz(landscape: Landscape, theta: Tensor, model: LocalModel, keys: Tensor) -> Tensor:
    """K with ‖H(a) − H(b)‖ ≤ K‖a − b‖ near each θ: exact where the landscape knows it, else the largest of sampled
    ‖H(θ+d) − H(θ)‖_F/‖d‖ over random directions and the gradient's (a lower bound of the true one). (P,)."""
    if landscape.hessian_lipschitz is not None:
        return torch.full_like(theta[:, 0], landscape.hessian_lipschitz)
    here = landscape.hessian(theta)
    distance = SAMPLE_DISTANCE * (1 + theta.norm(dim=1))
    worst = torch.zeros_like(distance)
    for sample in range(SAMPLES):
        direction = streams.normal(keys, sample * theta.shape[1], theta.shape[1])
        if sample == 0:
            direction = torch.where(model.newton_length.unsqueeze(1) > 0, model.newton_step, direction)
        unit = direction / direction.norm(dim=1, keepdim=True).clamp_min(1e-300)
        there = landscape.hessian(theta + distance.unsqueeze(1) * unit)
        worst = torch.maximum(worst, (there - here).norm(dim=(1, 2)) / distance)
    return worst


def certify(landscape: Landscape, theta: Tensor, model: LocalModel, constant: Tensor) -> Certificates:
    """Newton–Kantorovich (Kantorovich 1948; Ortega & Rheinboldt 1970, 12.6.2): with β = ‖H⁻¹‖, η = ‖H⁻¹g‖ and
    h = βηK < 1/2, a critical point lies within (1 − √(1−2h))/(βK) of θ.

    η includes the gradient's rounding bound n·eps·(‖g‖ + ‖H‖‖θ‖). Only an exact K certifies, and only where no symmetry
    makes H singular; a sampled K is said to be sampled.
    """
    n, eps = theta.shape[1], torch.finfo(theta.dtype).eps
    smallest = model.eigenvalues.abs().amin(1) - n * eps * model.norm - model.asymmetry  # a lower bound of |λ|
    inverse = 1.0 / smallest.clamp_min(1e-300)
    rounding = n * eps * (model.gradient.norm(dim=1) + model.norm * theta.norm(dim=1))
    eta = model.newton_length + inverse * rounding
    h = inverse * eta * constant
    exact = landscape.hessian_lipschitz is not None
    certified = (
        (h < 0.5) & (smallest > 0) & (model.n_symmetry == 0) & model.finite if exact else torch.zeros_like(model.finite)
    )
    root = (1 - 2 * h).clamp_min(0.0).sqrt()
    radius = torch.where(constant > 0, 2 * eta / (1 + root), eta)  # (1−√(1−2h))/(βK), without cancellation
    words = ["newton-kantorovich" if exact else "sampled"] * len(theta)
    texts = [f"{word} h={value:.1e}" for word, value in zip(words, h.tolist(), strict=True)]
    return Certificates(constant, h, certified.tolist(), texts, torch.where(certified, radius, torch.nan))
