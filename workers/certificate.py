"""Certificates: a bound on the Hessian's Lipschitz constant, and what follows from it at a point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import jacrev, vmap

from landsweep.workers import streams
from landsweep.workers.landscape import Field, Landscape, padded
from landsweep.workers.quadratic import LocalModel
from landsweep.workers.symmetry import RANK_CUTOFF, project_out

SAMPLES = 4
SAMPLE_DISTANCE = 1e-3  # relative to 1 + ‖θ‖
LINEAR = 1e-9  # relative difference of a field's derivative at two places that counts as rounding


@dataclass(frozen=True)
class Certificates:
    """One entry a point."""

    lipschitz: Tensor  # (P,) K
    h: Tensor  # (P,) β·η·K
    certified: list[bool]
    certificate: list[str]
    radius: Tensor  # (P,) a true critical point lies this near; NaN where not certified


def reach(theta: Tensor, newton_length: Tensor) -> Tensor:
    """The radius of the ball around each θ in which K has to hold: Newton–Kantorovich needs twice the step. (P,)."""
    radius: Tensor = 2 * torch.nan_to_num(newton_length, posinf=0.0) + 1e-9 * (1 + theta.norm(dim=1))
    return radius


def exact_lipschitz(landscape: Landscape, theta: Tensor, radius: Tensor) -> Tensor | None:
    """K in the ball of ``radius`` (P,) around each θ where the landscape knows it, else None. (P,)."""
    known = landscape.hessian_lipschitz
    if callable(known):
        local: Tensor = padded(vmap(known), theta, radius)
        return local
    return None if known is None else torch.full_like(radius, known)


def lipschitz(landscape: Landscape, theta: Tensor, radius: Tensor, model: LocalModel, keys: Tensor) -> Tensor:
    """K with ‖H(a) − H(b)‖ ≤ K‖a − b‖ in the ball of ``radius`` (P,) around each θ: exact where the landscape knows
    it, else the largest of sampled ‖H(θ+d) − H(θ)‖_F/‖d‖ over random directions and the Newton step's (a lower bound of
    the true one). (P,)."""
    known = exact_lipschitz(landscape, theta, radius)
    if known is not None:
        return known
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


def newton_kantorovich(beta: Tensor, eta: Tensor, constant: Tensor) -> tuple[Tensor, Tensor]:
    """h = βηK and the radius (1 − √(1−2h))/(βK) within which a zero of the gradient lies if h < 1/2 (Kantorovich 1948;
    Ortega & Rheinboldt 1970, 12.6.2). β ≥ ‖H⁻¹‖, η ≥ ‖H⁻¹g‖, all (P,).

    >>> h, radius = newton_kantorovich(torch.tensor(1.0), torch.tensor(0.25), torch.tensor(1.5))
    >>> round(float(h), 3), round(float(radius), 4)
    (0.375, 0.3333)
    """
    h = beta * eta * constant
    return h, 2 * eta / (1 + (1 - 2 * h).clamp_min(0.0).sqrt())  # the same, without cancellation


def safran_shamir(lowest: Tensor, gradient: Tensor, constant: Tensor) -> tuple[Tensor, Tensor]:
    """Whether 9λ² ≥ 25‖g‖K, and the radius (3λ − √(9λ² − 25‖g‖K))/(2K) within which a minimum then lies (Safran &
    Shamir 2018, lemma 2), with λ > 0 a lower bound of λ_min, ‖g‖ an upper bound, K one of third derivatives. (P,).

    >>> holds, radius = safran_shamir(torch.tensor(1.0), torch.tensor(0.32), torch.tensor(1.0))
    >>> bool(holds), round(float(radius), 3)
    (True, 1.0)
    """
    root = (9 * lowest**2 - 25 * gradient * constant).clamp_min(0.0).sqrt()
    holds = (lowest > 0) & (9 * lowest**2 >= 25 * gradient * constant)
    return holds, 12.5 * gradient / (3 * lowest + root).clamp_min(torch.finfo(lowest.dtype).tiny)


def transversal(fields: Sequence[Field], theta: Tensor, radius: Tensor) -> Tensor:
    """Whether the tangent spaces of the symmetries stay within 90° of the one at θ over the ball of ``radius``. (P,).

    With tangents V(θ) = USWᵀ of rank s and affine fields v_i = A_iθ + b_i, UᵀV(θ+d)W_s = S_s + Uᵀ[A_1d …]W_s is regular
    while ‖d‖·(Σ‖A_i‖²)^½ < the smallest kept singular value. Fields that are not affine give False.
    """
    if not fields:
        return torch.ones_like(radius, dtype=torch.bool)
    tangents = torch.stack([padded(vmap(field), theta) for field in fields], dim=2)
    values = torch.linalg.svdvals(tangents)
    floor = RANK_CUTOFF * (1 + theta.norm(dim=1, keepdim=True))  # as in ``basis``
    kept = (values > RANK_CUTOFF * values.amax(1, keepdim=True)) & (values > floor)
    smallest = torch.where(kept, values, torch.inf).amin(1)
    square, affine = torch.zeros_like(radius), torch.ones_like(radius, dtype=torch.bool)
    for field in fields:
        here, there = (padded(vmap(jacrev(field)), place) for place in (theta, 2 * theta + 1))
        change, size = (here - there).flatten(1).norm(dim=1), here.flatten(1).norm(dim=1)
        affine &= change <= LINEAR * (1 + size)
        square += size**2
    return affine & (square.sqrt() * radius < smallest)


def certify(
    landscape: Landscape, theta: Tensor, model: LocalModel, constant: Tensor, ball: Tensor, fields: tuple[Field, ...]
) -> Certificates:
    """Newton–Kantorovich on the complement of the symmetries' tangents at θ, and Safran–Shamir's criterion beside it.

    On the affine slice θ + T^⊥ the restricted gradient vanishes at a θ* within ``radius`` if h < 1/2 strictly. Then
    g(θ*) ∈ T(θ) and g(θ*) ⊥ T(θ*), so g(θ*) = 0 where the two tangent spaces stay within 90° (``transversal``). η
    includes the gradient's rounding bound n·eps·(‖g‖ + ‖H‖‖θ‖). Only an exact K certifies, where the ball of
    radius ``ball`` in which it holds contains the theorem's; a sampled K is said to
    be sampled, and nothing is certified where the model has kinks.
    """
    n, eps = theta.shape[1], torch.finfo(theta.dtype).eps
    smallest = model.inside.abs().amin(1) - n * eps * model.norm - model.asymmetry  # ≤ |λ| on the complement
    beta = 1.0 / smallest.clamp_min(1e-300)
    rounding = n * eps * (model.gradient.norm(dim=1) + model.norm * theta.norm(dim=1))
    eta = model.newton_length + beta * rounding
    h, radius = newton_kantorovich(beta, eta, constant)
    size = project_out(model.span, model.gradient).norm(dim=1) + rounding
    second, nearer = safran_shamir(torch.where(model.inside[:, 0] < 0, -smallest, smallest), size, constant)
    exact = landscape.hessian_lipschitz is not None and landscape.kink_distance is None
    sound = (smallest > 0) & model.finite & (radius <= ball) & transversal(fields, theta, radius)
    certified = sound & (h < 0.5) if exact else torch.zeros_like(sound)
    word = "newton-kantorovich" if exact else "sampled"
    texts = [f"{word} h={value:.1e}" for value in h.tolist()]
    for row in torch.nonzero(certified & second).flatten().tolist():
        texts[row] += f"; safran-shamir radius={float(nearer[row]):.1e}"
    return Certificates(constant, h, certified.tolist(), texts, torch.where(certified, radius, torch.nan))
